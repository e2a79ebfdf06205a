"""The tab of `fastgrad train`: what becomes of drawn chains in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgrad.explore.tab import DEPTH, ENSEMBLE, SEED, Field, Scale, Tab
from fastgrad.jobs.parameters import job_parameters
from fastgrad.jobs.train import drawn_task, train_chain
from fastgrad.report.text import percent
from fastgrad.report.train import drawn_text, loss_figure, training_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastgrad.chain import Chain
    from fastgrad.explore.settings import Settings
    from fastgrad.jobs.train import Training
    from fastgrad.report.document import Figure, Report

SECONDS_PER_STEP = 1e-8  # of a link of a chain; on a slow processor
TASK = ("depth", "ensemble", "weight", "bias", "x", "target", "seed")  # parameters of the chains, not of the training


class TrainingTab(Tab):
    """Loss of drawn chains, and the shares of what becomes of them."""

    name = "training"
    fields = (
        Field("weight", "law of the initial weights"),
        Field("bias", "law of the initial biases"),
        Field("learning_rate", "learning rate"),
        DEPTH,
        ENSEMBLE,
        Field("steps", "steps"),
        SEED,
    )
    scales = (
        Scale("weight", "log10 of their std", -1.0, 3.0),
        Scale("learning_rate", "log10 of the learning rate", -3.0, 4.0),
        Scale("depth", "log10 of the depth", 0.0, 2.0),
    )

    def seconds_of(self, settings: Settings) -> float:
        """Estimate by links and steps."""
        return float(settings["depth"]) * float(settings["ensemble"]) * float(settings["steps"]) * SECONDS_PER_STEP

    def measure(self, settings: Settings, progress: Callable[[int, int], None]) -> tuple[Chain, Training]:
        """Draw the chains, and train them."""
        given = {**job_parameters("train"), **settings}
        chain, target = drawn_task(**{name: given.pop(name) for name in TASK})
        return chain, train_chain(chain, target, **given, backend="auto", threads=None, progress=progress)

    def figures(self, result: tuple[Chain, Training], settings: Settings) -> list[Figure]:
        """Draw the loss."""
        return [loss_figure(result[1], drawn_text(settings))]

    def headline(self, result: tuple[Chain, Training], settings: Settings) -> str:
        """Say what became of the chains."""
        shares = result[1].summary()["share"]
        return ", ".join(f"{percent(share)} {outcome}" for outcome, share in shares.items())

    def report(self, result: tuple[Chain, Training], settings: Settings) -> Report:
        """Make that of `fastgrad train`."""
        parameters: dict[str, Any] = {**job_parameters("train"), **settings}
        chain, training = result
        told = {"file": None, "example": False, **{name: parameters.pop(name) for name in TASK}, **parameters}
        return training_report(training, chain, drawn_text(settings), told)
