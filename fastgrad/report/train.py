"""What becomes of chains that are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report.document import Curve, Figure, Report
from fastgrad.report.text import TABLE_ROWS, log10_of_losses, table_of, with_thin_spaces

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fastgrad.chain import Chain
    from fastgrad.jobs.train import Training


def training_report(training: Training, start: Chain, what: str, parameters: dict[str, Any]) -> Report:
    """What became of chains in training; `what` says which chains."""
    summary = training.summary()
    ensemble = summary["ensemble"]
    q05, q50, q95 = (log10_of_losses(summary["loss"][key]) for key in ("q05", "q50", "q95"))
    human: list[RenderableType] = [
        what,
        f"{parameters['loss']} loss, {parameters['steps']} steps of learning rate {parameters['learning_rate']:g}",
    ]
    if ensemble == 1:
        human += _one_training(training, start)
    else:
        table = table_of(None, "outcome", "chains", "step, median", "loss, median")
        for name, share in summary["share"].items():
            step, loss = summary["last_step"][name], summary["final_loss"][name]
            cells = ("-", "-") if step is None else (str(step), "beyond float64" if loss is None else f"{loss:.4g}")
            table.add_row(name, f"{100 * share:.1f} %", *cells)
        human.append(table)
        if summary["unchanged"]:
            human.append(
                f"{100 * summary['unchanged']:.1f} % run in name only: a parameter near 0 moves, and the loss does not."
            )
    human += [
        f"[dim]converged: the loss is within {parameters['tolerance']:g} of its least; diverged: out of float64;[/]",
        "[dim]stalled: each update is below half a unit in the last place of its parameter[/]",
        f"[dim]backend {training.backend}[/]",
    ]
    figure = Figure(
        title=f"log10 loss against the step: {what}",
        x_label="step",
        y_label="log10 loss",
        x=training.step.astype(float),
        curves=[
            Curve("loss", "loss" if ensemble == 1 else "loss (median)", q50, None if ensemble == 1 else (q05, q95))
        ],
    )
    columns = {f"loss_{key}": values for key, values in summary["loss"].items() if "why" not in key}
    if ensemble == 1:
        columns = {"loss": summary["loss"]["q50"]}
    rows = [
        {"step": int(step), **{name: values[i] for name, values in columns.items()}}
        for i, step in enumerate(training.step)
    ]
    names = ("step", "loss", "weight", "bias", "status", "last_step")
    arrays = {name: np.asarray(getattr(training, name)) for name in names}
    result = {**summary, **({name: arrays[name] for name in ("weight", "bias", "status")} if ensemble == 1 else {})}
    seed = parameters.get("seed")
    return Report("train", parameters, result, rows, human, figure, training.backend, seed, arrays)


def _one_training(training: Training, start: Chain) -> list[RenderableType]:
    """Each parameter of one chain, before and after, and what became of it."""
    table = table_of(None, "link", "weight", "after", "bias", "after")
    before = start.weight[:, 0], start.bias[:, 0]
    after = training.weight.reshape(-1), training.bias.reshape(-1)
    for i in np.unique(np.linspace(0, start.depth - 1, TABLE_ROWS).round().astype(int)):
        table.add_row(str(i + 1), *(with_thin_spaces(v[i]) for pair in zip(before, after, strict=True) for v in pair))
    first, last = training.loss.reshape(len(training.step), -1)[[0, -1], 0]
    status, step = np.atleast_1d(training.status)[0], np.atleast_1d(training.last_step)[0]
    losses = f"the loss goes from {with_thin_spaces(first)} to {with_thin_spaces(last)}"
    became = {
        "converged": f"Converged at step {step}: {losses}.",
        "stalled": f"Stalled after step {step}: {losses}, and stays there.",
        "diverged": f"Diverged: step {step} would take a parameter out of float64, and was not taken.",
        "running": f"Still running after step {step}: {losses}.",
    }
    return [table, f"[bold]{became[status]}[/]"]
