"""The tab of `fastgrad schemes`: initialization schemes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastgrad.explore.tab import DEPTH, ENSEMBLE, NONLINEARITY, SEED, WIDTH, Scale, Tab
from fastgrad.jobs.parameters import parameters_of
from fastgrad.jobs.schemes import Schemes, schemes
from fastgrad.nonlinearities import is_chain
from fastgrad.report.document import Figure
from fastgrad.report.layer_schemes import layer_schemes_report
from fastgrad.report.schemes import schemes_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastgrad.explore.settings import Settings
    from fastgrad.jobs.layer_schemes import LayerSchemes
    from fastgrad.report.document import Report

SECONDS_PER_WEIGHT = 1e-8  # of each scheme; on a slow processor
SECONDS_PER_LINK = 1e-4  # of a chain that is trained to several depths, by every scheme


class SchemesTab(Tab):
    """The named schemes, one that is too small, and some that are too large."""

    name = "schemes"
    fields = (DEPTH, ENSEMBLE, WIDTH, NONLINEARITY, SEED)
    scales = (
        Scale("depth", "log10 of the depth", 0.0, 3.0),
        Scale("ensemble", "log10 of the ensemble", 0.0, 4.0),
        Scale("width", "log10 of the width", 0.0, 3.0),
    )

    def seconds_of(self, settings: Settings) -> float:
        """Estimate by what is trained, or by the weights of layers."""
        links = float(settings["depth"]) * float(settings["ensemble"])
        if is_chain(settings["width"], settings["nonlinearity"]):
            return links * SECONDS_PER_LINK
        return 10 * links * (float(settings["width"]) ** 2 + 20) * SECONDS_PER_WEIGHT

    def measure(self, settings: Settings, progress: Callable[[int, int], None]) -> Schemes | LayerSchemes:
        """Run `schemes`."""
        return schemes(**settings, progress=progress)

    def figures(self, result: Schemes | LayerSchemes, settings: Settings) -> list[Figure]:
        """Draw that of the report."""
        return [part for part in self.report(result, settings).content if isinstance(part, Figure)]

    def headline(self, result: Schemes | LayerSchemes, settings: Settings) -> str:
        """Take the figure's title."""
        return self._shown[0].title

    def report(self, result: Schemes | LayerSchemes, settings: Settings) -> Report:
        """Make that of `fastgrad schemes`."""
        parameters = {**{name: row.defaults["schemes"] for name, row in parameters_of("schemes").items()}, **settings}
        if isinstance(result, Schemes):
            return schemes_report(result, parameters)
        return layer_schemes_report(result, parameters)
