"""The tab of `fastgrad example`: the worked example, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastgrad.explore.tab import Field, Scale, Tab
from fastgrad.jobs.example import worked_example
from fastgrad.report.example import example_report
from fastgrad.report.text import scaled_text, with_thin_spaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastgrad.explore.settings import Settings
    from fastgrad.jobs.example import Example
    from fastgrad.report.document import Figure, Report


class LectureTab(Tab):
    """The lecture note's three units, with another weight and learning rate."""

    name = "lecture"
    fields = (Field("weight", "w11 and w21"), Field("learning_rate", "learning rate"))
    scales = (
        Scale("weight", "log10 of w11 and w21", -1.0, 3.0),
        Scale("learning_rate", "log10 of the learning rate", -6.0, 2.0),
    )

    def seconds_of(self, settings: Settings) -> float:
        """Estimate what five small simulations take, which are kept."""
        return 1.0

    def measure(self, settings: Settings, progress: Callable[[int, int], None]) -> Example:
        """Run `worked_example`."""
        return worked_example(settings["weight"], settings["learning_rate"])

    def figures(self, result: Example, settings: Settings) -> list[Figure]:
        """Draw nothing: it is told in words."""
        return []

    def headline(self, result: Example, settings: Settings) -> str:
        """Say what one step does."""
        before, after = with_thin_spaces(result.weight[0]), with_thin_spaces(result.weight_after)
        return f"the gradient is {scaled_text(result.gradient)}, and one step takes w11 from {before} to {after}"

    def report(self, result: Example, settings: Settings) -> Report:
        """Make that of `fastgrad example`."""
        return example_report(result, settings)
