"""Report of `fastgrad.torch.schemes`: a PyTorch model under several initialization schemes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.report.document import Cell, Curve, Figure, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import decades_factor_text, power_of_ten, value_text, with_error

if TYPE_CHECKING:
    from fastgrad.torch.schemes import ModelSchemes


def model_schemes_report(found: ModelSchemes) -> Report:
    """Report the growth of the gradient under each scheme."""
    table = Table(
        [*words("scheme"), *numbers("decades per layer", "factor", "first layer", "last layer", "loss")], dense=True
    )
    for row in found.rows():
        mean = row["decades_per_layer"]
        table.add(
            row["scheme"],
            _growth_cell(mean, row["decades_stderr"]),
            Cell.of(mean, _factor),
            *(_norm_cell(row[key]) for key in ("log10_first", "log10_last")),
            Cell.of(row["loss"], value_text),
            emphasized=row["scheme"] == found.steadiest,
        )
    content: list[Part] = [
        Text("The gradient under each scheme, from the last layer back to the first:"),
        table,
        Text("first, last layer: norm of the loss's gradient by the layer's output", "note"),
    ]
    if found.steadiest is not None:
        content.append(Text.emphasizing("It changes least from layer to layer under ", found.steadiest, "."))
    content += [Text(f"{name}: {why}.", "warning") for name, why in found.failed.items()]
    content.append(model_schemes_figure(found))
    return Report("schemes", {}, found.summary(), found.rows(), content)


def model_schemes_figure(found: ModelSchemes) -> Figure:
    """One curve for each scheme: norm of the gradient against the layer."""
    heights = found.heights()
    curves = [Curve("series", name, of, color=i) for i, (name, of) in enumerate(heights.items())]
    longest = max(map(len, heights.values()), default=0)
    return Figure(
        title="log10 of the gradient's norm against the layer, under each scheme",
        x_label="layer",
        y_label="log10 of the gradient's norm",
        x=np.arange(1.0, longest + 1),
        curves=curves,
    )


def _norm_cell(log10: float | None) -> Cell:
    return Cell(None, "-") if log10 is None else Cell.of(log10, power_of_ten)


def _growth_cell(mean: float, stderr: float) -> Cell:
    if math.isnan(mean):
        return Cell(None, "undefined")
    return Cell(mean, with_error(mean, stderr) if math.isfinite(mean) else "minus infinity")


def _factor(decades: float) -> str:
    return "-" if math.isnan(decades) else decades_factor_text(decades)
