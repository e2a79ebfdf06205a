"""Report of `fastgrad schemes` for layers: the gradient under each initialization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report.document import Cell, Curve, Figure, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import plural, power_of_ten, with_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.jobs.layer_schemes import LayerScheme, LayerSchemes

FORMATS = ("float16", "float32")


def layer_schemes_report(found: LayerSchemes, parameters: dict[str, Any]) -> Report:
    """Report the gradient under each initialization scheme."""
    table = Table([*words("weights"), *numbers("exponent", "theory", "gradient", *FORMATS)], dense=True)
    rows: list[dict[str, Any]] = []
    alike: dict[bytes, list[str]] = {}  # schemes that are one and the same in square layers make one curve
    medians: list[NDArray[np.float64]] = []
    for scheme in found.schemes:
        name = scheme.weight if scheme.bias == "zero" else f"{scheme.weight}*"
        median, first = scheme.growth.log10_curve["adjoint"]["q50"], scheme.growth.summary()["first_depth"]
        mean, stderr = scheme.growth.lyapunov
        table.add(
            name,
            Cell(mean, with_error(mean, stderr)) if np.isfinite(mean) else Cell(-np.inf, "-inf"),
            Cell.of(scheme.theory.best, lambda rate: "-" if rate is None else f"{round(rate, 4) + 0.0:.4f}"),
            Cell.of(median[0], power_of_ten),
            *(_lost(first[each], found.depth) for each in FORMATS),
        )
        rows.append(_row(scheme, first))
        alike.setdefault(median.tobytes(), []).append(scheme.weight)
        if len(alike) > len(medians):
            medians.append(median)
    layers = f"{plural(found.depth, 'layer')} of {plural(found.width, f'{found.nonlinearity} unit')}"
    networks = plural(found.ensemble, "network")
    content: list[Part] = [
        Text(f"{networks} of each scheme, {layers};\nbiases are 0, or with * drawn as the weights"),
        table,
        Text("exponent: of the gradient's norm, in nats per layer, finite-depth"),
        *_theory_notes(found),
        Text("gradient: its norm at the first layer, median"),
        Text(f"{', '.join(FORMATS)}: layers until it leaves their range, to 0 or (inf)"),
        Text(f"backend {found.backend}", "note"),
        Figure(
            title=f"Gradient under each scheme: {layers}, {networks}, median",
            x_label="layer",
            y_label="log10 norm of the gradient",
            x=found.link.astype(float),
            curves=[
                Curve("series", ", ".join(names), median, color=i)
                for i, (names, median) in enumerate(zip(alike.values(), medians, strict=True))
            ],
            members="networks",
        ),
    ]
    result = {
        "width": found.width,
        "nonlinearity": found.nonlinearity,
        "link": found.link,
        "schemes": [
            {**row, "log10_adjoint": scheme.growth.log10_curve["adjoint"]["q50"]}
            for row, scheme in zip(rows, found.schemes, strict=True)
        ],
    }
    return Report("schemes", parameters, result, rows, content, found.backend, parameters["seed"])


def _theory_notes(found: LayerSchemes) -> list[Text]:
    """Say what the theory of the schemes is exact for."""
    predictions = [scheme.theory for scheme in found.schemes]
    exact = {"relu": "normal weights while a unit is alive", "linear": "normal and orthogonal weights"}.get(
        found.nonlinearity
    )
    corrected = "theory: of n -> infinity, with normal weights corrected to order 1/n"
    notes = [Text(f"theory: exact for {exact}, else of n -> infinity" if exact else corrected)]
    if any(prediction.is_too_narrow for prediction in predictions):
        notes.append(Text(f"theory -: {found.width} units are too few for n -> infinity to say much"))
    return notes


def _lost(events: dict[str, int | None], depth: int) -> Cell:
    for event, mark in (("underflow", ""), ("overflow", " (inf)")):
        if events[event] is not None:
            return Cell(events[event], f"{events[event]}{mark}")
    return Cell(depth + 1, "-")


def _row(scheme: LayerScheme, first: dict[str, dict[str, int | None]]) -> dict[str, Any]:
    return {
        "weight": scheme.weight,
        "bias": scheme.bias,
        "lyapunov": scheme.growth.lyapunov.mean,
        "lyapunov_stderr": scheme.growth.lyapunov.stderr,
        "theory": scheme.theory.lyapunov,
        "theory_holds_for": scheme.theory.holds_for,
        "theory_at_width": scheme.theory.at_width,
        "theory_is_too_narrow": scheme.theory.is_too_narrow,
        **{f"{name}_{event}": layers for name, events in first.items() for event, layers in events.items()},
    }
