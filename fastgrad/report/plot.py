"""Report of `fastgrad plot`: a result of a sweep as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgrad.report.document import BLACK, Curve, Figure, Map, Report, Text
from fastgrad.report.text import plural, value_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastgrad.report.document import Part
    from fastgrad.sweeps.study import Study


SERIES_MAX = 7  # lines, which can be told apart; more values of a second parameter make a map
VALUE_LABELS = {
    "lyapunov": "finite-depth Lyapunov exponent (nats per link)",
    "stationary": "Lyapunov exponent after the start is forgotten (nats per link)",
    "bound_rate": "rate of the bound (nats per link)",
    "converged": "share of chains that converge",
    "stalled": "share of chains that stall",
    "diverged": "share of chains that diverge",
    "running": "share of chains still running",
}


def study_report(study: Study, where: Mapping[str, str]) -> Report:
    """Report a result of a sweep over one parameter as a line, or over two as a family of lines or as a map.

    Parameters
    ----------
    where : dict
        The values of parameters that `study` was asked for.
    """
    axes = [name for name in (study.across, study.up) if name is not None]
    label = VALUE_LABELS.get(study.value, study.value.replace("_", " "))
    if study.value.endswith(("_underflow", "_overflow")):
        label = "links until the exact median gradient would {1} in {0}".format(*study.value.split("_"))
    points = plural(len(study.points), "point")
    title = f"{label[0].upper()}{label[1:]} over {' and '.join(axes)}: {points} of {study.job}"
    figure: Figure | Map
    if study.up is not None and study.y is not None and len(study.y) > SERIES_MAX:
        figure = Map(
            title, study.across, study.up, label, study.x, study.y, study.values, x_log=study.x_log, y_log=study.y_log
        )
    else:
        names = [study.value if study.up is None else f"{study.up} {value_text(group)}" for group in study.groups]
        series = [(name, row) for name, row in zip(names, study.values, strict=True) if np.isfinite(row).any()]
        curves = [Curve("series", name, row, color=i) for i, (name, row) in enumerate(series)]
        lines = [row for row in study.theory if np.isfinite(row).any()]
        curves += [Curve("theory", "" if k else "theory", row, color=BLACK) for k, row in enumerate(lines)]
        figure = Figure(title, study.across, label, study.x, curves, x_log=study.x_log)
    parameters = {"value": study.value, "x": study.across, "where": dict(where)}
    result = {"value": study.value, "axes": axes, "points": study.points}
    content: list[Part] = [Text(", ".join(study.fixed), "note"), figure]
    if study.value == "stationary" and study.missing:
        have_not = f"{plural(study.missing, 'point')} of {len(study.points)} have not forgotten the start"
        content.append(Text(f"{have_not}: --value lyapunov has all", "note"))
    return Report("plot", parameters, result, study.points, content)
