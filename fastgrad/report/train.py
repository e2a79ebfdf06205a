"""Report of `fastgrad train`: outcome of chains in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report.document import Cell, Curve, Figure, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import TABLE_ROWS, percent, plural, with_thin_spaces
from fastgrad.summary import evenly_spaced

if TYPE_CHECKING:
    from fastgrad.chain import Chain
    from fastgrad.jobs.train import Training


def training_report(training: Training, start: Chain, what: str, parameters: dict[str, Any]) -> Report:
    """Report the outcome of chains in training; `what` names the chains."""
    summary = training.summary()
    ensemble = summary["ensemble"]
    outcome = _one_training(training, start) if ensemble == 1 else _many_trainings(summary)
    content: list[Part] = [
        Text(what),
        Text(
            f"{parameters['loss']} loss, {parameters['steps']} steps of learning rate {parameters['learning_rate']:g}"
        ),
        *outcome,
        Text(
            f"converged: the loss is within {parameters['tolerance']:g} of its least; diverged: out of float64;\n"
            "stalled: each update is below half a unit in the last place of its parameter",
            "note",
        ),
        Text(f"backend {training.backend}", "note"),
        loss_figure(training, what),
    ]
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
    return Report("train", parameters, result, rows, content, training.backend, seed, arrays)


def drawn_text(task: dict[str, Any]) -> str:
    """Name drawn chains by what they were drawn with."""
    return (
        f"{plural(task['ensemble'], 'chain')} of {plural(task['depth'], 'link')}, weight {task['weight']}, "
        f"bias {task['bias']}, seed {task['seed']}"
    )


def loss_figure(training: Training, what: str) -> Figure:
    """Loss against the step; `what` names the chains."""
    q05, q50, q95 = (training.log10_loss[key] for key in ("q05", "q50", "q95"))
    single = training.loss.size == len(training.step)
    return Figure(
        title=f"log10 loss against the step: {what}",
        x_label="step",
        y_label="log10 loss",
        x=training.step.astype(float),
        curves=[Curve("loss", "loss" if single else "loss (median)", q50, None if single else (q05, q95))],
    )


def _many_trainings(summary: dict[str, Any]) -> list[Text | Table]:
    """Shares of the outcomes, with the median step and loss of each."""
    table = Table([*words("outcome"), *numbers("chains", "step, median", "loss, median")])
    for name, share in summary["share"].items():
        step, loss = summary["last_step"][name], summary["final_loss"][name]
        cells = [Cell(None, "-"), Cell(None, "-")]
        if step is not None:
            cells = [Cell.of(step), Cell(np.inf, "beyond float64") if loss is None else Cell.of(loss, "{:.4g}".format)]
        table.add(name, Cell.of(share, percent), *cells)
    if not summary["unchanged"]:
        return [table]
    share = percent(summary["unchanged"])
    return [table, Text(f"{share} run in name only: a parameter near 0 moves, and the loss does not.")]


def _one_training(training: Training, start: Chain) -> list[Text | Table]:
    """Parameters of one chain, before and after, and its outcome."""
    table = Table([*words("link"), *numbers("weight", "after", "bias", "after")])
    before = start.weight[:, 0], start.bias[:, 0]
    after = training.weight.reshape(-1), training.bias.reshape(-1)
    for i in evenly_spaced(start.depth, TABLE_ROWS):
        pairs = zip(before, after, strict=True)
        table.add(Cell.of(i + 1), *(Cell.of(values[i], with_thin_spaces) for pair in pairs for values in pair))
    first, last = training.loss.reshape(len(training.step), -1)[[0, -1], 0]
    status, step = np.atleast_1d(training.status)[0], np.atleast_1d(training.last_step)[0]
    losses = f"the loss goes from {with_thin_spaces(first)} to {with_thin_spaces(last)}"
    became = {
        "converged": f"Converged at step {step}: {losses}.",
        "stalled": f"Stalled after step {step}: {losses}, and stays there.",
        "diverged": f"Diverged: step {step} would take a parameter out of float64, and was not taken.",
        "running": f"Still running after step {step}: {losses}.",
    }
    return [table, Text(became[status], "title")]
