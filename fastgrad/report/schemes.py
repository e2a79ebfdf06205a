"""Initialization schemes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report.document import Curve, Figure, Report
from fastgrad.report.text import factor_text, plural, power_of_ten, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fastgrad.jobs.schemes import Schemes


def schemes_report(found: Schemes, parameters: dict[str, Any]) -> Report:
    """Which initialization: gradients and training of each scheme."""
    table = table_of(None, "weights", "exponent", "factor", "float32", "float64", "trained", "w_1 moves")
    rows = []
    for scheme in found.schemes:
        name = scheme.weight if scheme.bias == "zero" else f"{scheme.weight}*"
        with np.errstate(divide="ignore"):
            change = np.log10(scheme.first_change)
        failed = {name: scheme.first_depth[name] for name in ("float32", "float64")}
        table.add_row(
            name,
            f"{scheme.stationary.mean:.3f}",
            factor_text(scheme.stationary.mean),
            *("-" if links is None else str(links) for links in failed.values()),
            f"{100 * scheme.share[-1]:.1f} %",
            power_of_ten(change[-1]),
        )
        rows.append(
            {
                "weight": scheme.weight,
                "bias": scheme.bias,
                "lyapunov": scheme.lyapunov.mean,
                "lyapunov_stderr": scheme.lyapunov.stderr,
                "stationary": scheme.stationary.mean,
                "stationary_stderr": scheme.stationary.stderr,
                "theory": scheme.theory,
                "float32_underflow": failed["float32"],
                "float64_underflow": failed["float64"],
                "converged": float(scheme.share[-1]),
                "first_weight_change": float(scheme.first_change[-1]),
            }
        )
    depth, ensemble = parameters["depth"], parameters["ensemble"]
    human: list[RenderableType] = [
        f"{plural(ensemble, 'chain')} of each scheme; biases are 0, or with * drawn as the weights",
        table,
        "exponent, factor: of the gradient, nats and times per link, the start forgotten",
        "float32, float64: links until the exact median gradient is below their range",
        f"trained: share of chains of {plural(depth, 'link')} that come within {parameters['tolerance']:g} of the",
        f"   least loss in {parameters['steps']} steps of learning rate {parameters['learning_rate']:g}",
        "w_1 moves: how far training takes the first weight, median",
        "Where gradients vanish only the last links learn; with huge weights, few do.",
        f"[dim]backend {found.backend}[/]",
    ]
    names: dict[bytes, list[str]] = {}  # schemes that are one and the same in a chain make one curve
    for scheme in found.schemes:
        names.setdefault(scheme.first_change.tobytes(), []).append(scheme.weight)
    with np.errstate(divide="ignore"):
        curves = [
            Curve("series", ", ".join(alike), np.log10(np.frombuffer(change)), color=i)
            for i, (change, alike) in enumerate(names.items())
        ]
    figure = Figure(
        title=f"How far training moves the first weight: {plural(ensemble, 'chain')} of each scheme, median",
        x_label="depth",
        y_label="log10 |change of the first weight|",
        x=found.depths.astype(float),
        curves=curves,
    )
    result = {
        "depths": found.depths,
        "schemes": [
            {**row, "converged_by_depth": scheme.share, "first_weight_change_by_depth": scheme.first_change}
            for row, scheme in zip(rows, found.schemes, strict=True)
        ],
    }
    return Report("schemes", parameters, result, rows, human, figure, found.backend, parameters["seed"])
