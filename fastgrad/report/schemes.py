"""Report of `fastgrad schemes`: initialization schemes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgrad.report.document import Cell, Curve, Figure, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import factor_text, percent, plural, power_of_ten, value_text

if TYPE_CHECKING:
    from fastgrad.jobs.schemes import Scheme, Schemes


def schemes_report(found: Schemes, parameters: dict[str, Any]) -> Report:
    """Report gradients and training of each initialization scheme."""
    columns = numbers("exponent", "factor", "float32", "float64", "trained", "w_1 moves")
    table = Table([*words("weights"), *columns])
    rows = []
    for scheme in found.schemes:
        name = scheme.weight if scheme.bias == "zero" else f"{scheme.weight}*"
        failed = {name: scheme.first_depth[name] for name in ("float32", "float64")}
        table.add(
            name,
            Cell.of(scheme.stationary.mean, "{:.3f}".format),
            Cell.of(scheme.stationary.mean, factor_text),
            *(Cell.of(links, value_text) for links in failed.values()),
            Cell.of(scheme.share[-1], percent),
            Cell.of(scheme.log10_first_change[-1], power_of_ten),
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
    alike: dict[bytes, list[Scheme]] = {}  # schemes that are one and the same in a chain make one curve
    for scheme in found.schemes:
        alike.setdefault(scheme.first_change.tobytes(), []).append(scheme)
    curves = [
        Curve("series", ", ".join(scheme.weight for scheme in schemes), schemes[0].log10_first_change, color=i)
        for i, schemes in enumerate(alike.values())
    ]
    figure = Figure(
        title=f"How far training moves the first weight: {plural(ensemble, 'chain')} of each scheme, median",
        x_label="depth",
        y_label="log10 |change of the first weight|",
        x=found.depths.astype(float),
        curves=curves,
    )
    content: list[Part] = [
        Text(f"{plural(ensemble, 'chain')} of each scheme; biases are 0, or with * drawn as the weights"),
        table,
        Text("exponent, factor: of the gradient, nats and times per link, the start forgotten"),
        Text("float32, float64: links until the exact median gradient is below their range"),
        Text(
            f"trained: share of chains of {plural(depth, 'link')} that come within {parameters['tolerance']:g} of the\n"
            f"   least loss in {parameters['steps']} steps of learning rate {parameters['learning_rate']:g}"
        ),
        Text("w_1 moves: how far training takes the first weight, median"),
        Text("Where gradients vanish only the last links learn; with huge weights, few do."),
        Text(f"backend {found.backend}", "note"),
        figure,
    ]
    result = {
        "depths": found.depths,
        "schemes": [
            {**row, "converged_by_depth": scheme.share, "first_weight_change_by_depth": scheme.first_change}
            for row, scheme in zip(rows, found.schemes, strict=True)
        ],
    }
    return Report("schemes", parameters, result, rows, content, found.backend, parameters["seed"])
