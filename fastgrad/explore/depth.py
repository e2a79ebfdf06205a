"""The tab of `fastgrad simulate`: the gradient against the link, and its distribution at the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import fastgrad
from fastgrad.explore.settings import PRESETS
from fastgrad.explore.tab import DEPTH, ENSEMBLE, NONLINEARITY, SEED, WIDTH, Field, Scale, Tab
from fastgrad.nonlinearities import is_chain
from fastgrad.report.document import Curve, Figure
from fastgrad.report.simulate import growth_figure, growth_report
from fastgrad.report.text import with_error
from fastgrad.scaled import FLOAT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastgrad.explore.settings import Settings
    from fastgrad.jobs.growth import Growth
    from fastgrad.report.document import Report

SECONDS_PER_LINK = 1e-8  # of a chain, or of a weight of a layer, both ways; on a slow processor
BINS = 40  # of the distribution
RESOLVED = 1e-9  # of the largest: a range that rounding does not make
BESIDE_WIDTH = 320  # pixels, of the distribution
NAMED_WITHIN = 400  # decades on the axis; over more the lines of float formats lie too close for their names


class DepthTab(Tab):
    """The gradient through drawn chains, or layers."""

    name = "depth"
    fields = (
        Field("weight", "law of the weights"),
        Field("bias", "law of the biases"),
        DEPTH,
        ENSEMBLE,
        WIDTH,
        NONLINEARITY,
        SEED,
    )
    scales = (
        Scale("weight", "log10 of their std", -1.0, 3.0),
        Scale("bias", "log10 of their std", -1.0, 3.0),
        Scale("depth", "log10 of the depth", 0.0, 5.0),
        Scale("ensemble", "log10 of the ensemble", 0.0, 4.0),
        Scale("width", "log10 of the width", 0.0, 3.0),
    )
    presets = PRESETS
    words_after = 0.2  # what a framework reads takes 0.1 s

    def seconds_of(self, settings: Settings) -> float:
        """Estimate by the links, or the weights of layers."""
        links = float(settings["depth"]) * float(settings["ensemble"])
        of_chain = is_chain(settings["width"], settings["nonlinearity"])
        return links * SECONDS_PER_LINK * (1 if of_chain else int(settings["width"]) ** 2 + 20)

    def measure(self, settings: Settings, progress: Callable[[int, int], None]) -> Growth:
        """Run `simulate`."""
        return fastgrad.simulate(**_parameters(settings), progress=progress)

    def figures(self, result: Growth, settings: Settings) -> list[Figure]:
        """Draw the gradient, and its distribution."""
        return [growth_figure(result), distribution_figure(result)]

    def headline(self, result: Growth, settings: Settings) -> str:
        """Take the figure's title."""
        return self._shown[0].title

    def report(self, result: Growth, settings: Settings) -> Report:
        """Make that of `fastgrad simulate`."""
        return growth_report(result, _parameters(settings))

    def adorn(self, result: Growth, settings: Settings, is_new: list[bool]) -> None:
        """Draw where float formats read 0 or inf, and write the exponent above the distribution."""
        from bokeh.models.annotations import Label, Span

        gradient, distribution = self.plots
        if is_new[1]:
            distribution.update(sizing_mode="fixed", width=BESIDE_WIDTH, height=BESIDE_WIDTH)
            distribution.title.text_font_style = "normal"
        if is_new[0]:
            gradient.min_width = BESIDE_WIDTH
            self._names = []
            for words, log10 in format_lines():
                line = Span(location=log10, dimension="width", line_color="#808080", line_dash="dotted")
                name = Label(x=4, x_units="screen", y=log10, text=words, text_color="#606060", text_font_size="11px")
                self._names.append(name)
                gradient.add_layout(line)
                gradient.add_layout(name)
        shown = [curve.y[np.isfinite(curve.y)] for curve in self._shown[0].curves]
        decades = np.ptp(np.concatenate([*shown, [0.0]]))
        for name in self._names:
            name.visible = bool(decades < NAMED_WITHIN)
        distribution.title.text = exponent_text(result)


def distribution_figure(growth: Growth) -> Figure:
    """Histogram of the gradient's magnitude at the first recorded link, over the members."""
    log10 = growth.adjoint[0].log10()
    finite = log10[np.isfinite(log10)]
    low, high = float(np.min(finite, initial=np.inf)), float(np.max(finite, initial=-np.inf))
    if not high - low > RESOLVED * max(abs(low), abs(high)):  # all are one number, or there is none
        low, high = (low - 0.5, low + 0.5) if finite.size else (-1.0, 0.0)
    share, edges = np.histogram(finite, BINS, (low, high))
    steps = np.concatenate([[0.0], np.repeat(share / growth.ensemble, 2), [0.0]])
    one = "link" if growth.is_chain else "layer"
    return Figure(
        title=f"distribution at the first {one}",
        x_label=f"log10 |gradient| at the first {one}",
        y_label=f"share of {'chains' if growth.is_chain else 'networks'}",
        x=np.repeat(edges, 2),
        curves=[Curve("gradient", "", steps)],
    )


def exponent_text(growth: Growth) -> str:
    """The measured exponent beside theory's."""
    forgotten = growth.stationary_link is not None and np.isfinite(growth.stationary.mean)
    mean, stderr = growth.stationary if forgotten else growth.lyapunov
    each = "link" if growth.is_chain else "layer"
    if not np.isfinite(mean):
        return "exponent: minus infinity"
    theory = growth.beside_theory().theory.best
    beside = "no theory" if theory is None else f"theory {theory:.4f}"
    return f"exponent {with_error(mean, stderr)}\n{beside}, in nats per {each}"


def format_lines() -> list[tuple[str, float]]:
    """Ends of the float formats: what each is called, and the logarithm of the magnitude there."""
    lines: dict[float, list[str]] = {}
    for name, limits in FLOAT_LIMITS.items():
        for log2 in limits:
            lines.setdefault(round(float(log2 * np.log10(2)), 1), []).append(name)
    return [
        (f"{', '.join(names)}: {'0 below' if log10 < 0 else 'inf above'}", log10)
        for log10, names in sorted(lines.items())
    ]


def _parameters(settings: Settings) -> dict[str, Any]:
    return {"x": 0.5, "record": 64, "inputs": 1, **settings}
