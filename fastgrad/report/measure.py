"""Report of `fastgrad measure`: the gradient through a PyTorch model, module by module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report.document import Cell, Curve, Figure, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import decades_factor_text, percent, power_of_ten, power_of_two, with_error, with_thin_spaces
from fastgrad.summary import evenly_spaced

if TYPE_CHECKING:
    from fastgrad.torch.measurement import Call, Magnitudes, Measurement


TABLE_ROWS = 20  # rows, evenly spaced, of a table that cannot show all
FORMATS = ("float16", "bfloat16", "float32")
NAMES_SHOWN = 3  # of those whose gradient is zero for one reason


def measurement_report(measured: Measurement, parameters: dict[str, Any]) -> Report:
    """Report how the gradient of a model grows or vanishes, and which float formats lose it."""
    summary = measured.summary()
    about = (
        f"{measured.model}: {with_thin_spaces(measured.count)} parameters in {measured.dtype} on {measured.device}, "
        f"loss {measured.loss:.6g}"
    )
    content: list[Part] = [
        Text(about),
        Text(
            "output, parameters: norm of the loss's gradient by a module's output, and by the\n"
            "parameters within it; factor: from an output's gradient back to that of the\n"
            "module before; float16, …: share of elements that the format reads as 0 or inf",
            "note",
        ),
        *_table(measured),
        *_growth(measured),
        *_lost(measured),
        *_zeros(measured.zeros),
        *_linearity(measured.not_linear),
        *(Text(note, "note") for note in measured.notes),
        measurement_figure(measured),
    ]
    return Report("measure", parameters, summary, measured.rows(), content)


def measurement_figure(measured: Measurement) -> Figure:
    """Norms of the gradients against the layer, or against the call of an innermost module; and where formats end."""
    heights = measured.heights()
    curves = [
        Curve(kind, name, heights[name], color=color)
        for kind, name, color in (("gradient", "output", 0), ("bound", "parameters", 2))
        if name in heights
    ]
    colors = dict(zip(FORMATS, (4, 1, 3), strict=True))
    for name, end in measured.formats_left().items():
        curves.append(Curve("theory", f"{name} ends", end, color=colors[name]))
    layers = len(measured.layers) > 1
    return Figure(
        title=f"log10 of the gradient's norm against the {'layer' if layers else 'module'}: {measured.model}",
        x_label=f"layer, a {measured.layer_type}" if layers else "module",
        y_label="log10 of the gradient's norm",
        x=np.arange(1.0, len(measured.compared) + 1),
        curves=curves,
    )


def _one(measured: Measurement) -> str:
    """Notes below the table: what the figure counts, and rows that are left out."""
    return str(measured.layer_type) if len(measured.layers) > 1 else "module"


def _table(measured: Measurement) -> list[Part]:
    """All calls, if they are few, else evenly spaced ones of those that are compared."""
    everything = len(measured.calls) <= TABLE_ROWS
    rows = list(measured.calls) if everything else measured.compared
    alike = len({row.type for row in rows}) == 1
    columns = words("module") if alike else words("module", "type")
    columns += numbers("output", "parameters", "factor", *FORMATS)
    table = Table(columns, title=None, dense=True)
    for i in evenly_spaced(len(rows), TABLE_ROWS):
        row = rows[i]
        factor = row.log10_factor if everything or not row.layer else row.log10_layer_factor
        table.add(
            row.label,
            *([] if alike else [row.type]),
            _norm_cell(row.output),
            _norm_cell(row.parameters),
            Cell(None, "") if factor is None else Cell(factor, decades_factor_text(factor)),
            *(_share_cell(row, name) for name in FORMATS),
        )
    if everything:
        return [table]
    shown = f", {TABLE_ROWS} of them shown" if len(rows) > TABLE_ROWS else ""
    return [Text(f"{len(rows)} calls of {_one(measured)}{shown}, of {len(measured.calls)} calls in all:"), table]


def _norm_cell(gradient: Magnitudes | None) -> Cell:
    return Cell(None, "-") if gradient is None else Cell.of(gradient.norm.log10(), power_of_ten)


def _share_cell(row: Call, name: str) -> Cell:
    share = row.share_lost(name)
    return Cell(None, "-") if share is None else Cell.of(share, percent) if share else Cell(0.0, "0")


def _growth(measured: Measurement) -> list[Text]:
    mean, stderr = measured.decades_per_layer
    one = measured.layer_type
    if one is None or mean != mean:  # NaN alone differs from itself
        return []
    if not np.isfinite(mean):
        return [Text(f"Decades per {one}: minus infinity, the first one's gradient is exactly zero.")]
    return [
        Text.emphasizing(
            "",
            f"{with_error(mean, stderr)} decades per {one}",
            f": on its way back, a factor {decades_factor_text(mean)} each.",
        )
    ]


def _lost(measured: Measurement) -> list[Text]:
    lines = []
    for name, label in measured.first_lost.items():
        scale = measured.loss_scale(name)
        if label is None:
            continue
        if scale is None:
            mended = "no loss scale keeps every layer in range"
        else:
            mended = f"a loss scale of {power_of_two(scale)} keeps every layer in range"
        lines.append(Text.emphasizing(f"{name} loses more than half of a gradient, first at ", label, f"; {mended}."))
    kept = [name for name, label in measured.first_lost.items() if label is None]
    if kept:
        lines.append(Text(f"At least half of every gradient is kept by {', '.join(kept)}."))
    return lines


def _zeros(zeros: dict[str, str]) -> list[Text]:
    """One line for each reason, with the first names."""
    by_reason: dict[str, list[str]] = {}
    for name, why in zeros.items():
        by_reason.setdefault(why, []).append(name)
    lines = []
    for why, names in by_reason.items():
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        lines.append(Text(f"No gradient at {', '.join(names[:NAMES_SHOWN])}{more}: {why}.", "warning"))
    return lines


def _linearity(not_linear: dict[str, str] | None) -> list[Text]:
    """Result of the check, in words."""
    if not_linear is None:
        return []
    if not not_linear:
        return [Text("Checked: every operation answers 64 times as large to 64 times the gradient.")]
    return [
        Text(f"Not linear in the gradient, or out of its float type inside: {nodes} in {label}.", "warning")
        for label, nodes in not_linear.items()
    ]
