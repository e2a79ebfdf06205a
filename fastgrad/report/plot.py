"""Report of `fastgrad plot`: a result of a sweep as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.jobs.parameters import job_parameters
from fastgrad.report.document import BLACK, Curve, Figure, Map, Part, Report, Text
from fastgrad.report.sweep import varying_parameters
from fastgrad.report.text import plural, value_text
from fastgrad.sweeps.points import with_equal_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fastgrad.jobs.parameters import JobName


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


def study_report(
    job: JobName, rows: list[dict[str, Any]], value: str | None, x: str | None, where: Mapping[str, str]
) -> Report:
    """Report a result of a sweep over one parameter as a line, or over two as a family of lines or as a map.

    Parameters
    ----------
    value : str, optional
        The result that is drawn; by default the exponent, or the share of chains that converge. The exponent is that
        of links that have forgotten the start, which theory knows, if any point has it, and else the finite-depth one.
    x : str, optional
        The parameter to the right; by default the one with the most values.
    where : dict
        Values of parameters, as text: points with other values are left out.

    Raises
    ------
    ValueError
        If there is no such value or parameter, nothing or too much varies, or no point is left.
    """
    for name, text in where.items():
        if not any(name in row for row in rows):
            raise ValueError(f"where: unknown parameter {name!r}, expected one of {', '.join(_parameters(job, rows))}")
        rows = [row for row in rows if _is(row.get(name), text)]
    if not rows:
        raise ValueError("where: no point has these values")
    value = value or _default_value(job, rows)
    results = [name for name in with_equal_columns(rows)[0] if name not in _parameters(job, rows)]
    if value not in results or not any(_is_number(row.get(value)) for row in rows):
        drawable = [name for name in results if any(_is_number(row.get(name)) for row in rows)]
        raise ValueError(f"value: expected one of {', '.join(drawable)}, got {value!r}")
    varying, fixed = varying_parameters(job, rows)
    axes = [name for name in varying if all(_is_number(row.get(name)) for row in rows)]
    if x is not None and x not in axes:
        raise ValueError(
            f"x: expected a parameter whose numbers vary ({', '.join(axes) or 'there is none'}), got {x!r}"
        )
    count = {name: len({row[name] for row in rows}) for name in varying}
    axes.sort(key=lambda name: (name != x, -count[name]))
    others = [name for name in varying if name not in axes[:1]]
    if not axes or len(others) > 1:
        several = f"{', '.join(varying)} vary" if varying else "nothing varies"
        raise ValueError(f"where: {several}; expected one parameter with numbers, and at most one other: fix the rest")

    across, up = axes[0], others[0] if others else None
    shown = [name for name in (across, up) if name is not None]
    right = np.array(sorted({row[across] for row in rows}), dtype=float)
    groups = [None] if up is None else sorted({row[up] for row in rows})
    values = np.full((len(groups), len(right)), np.nan)
    theory = np.full(values.shape, np.nan)
    for row in rows:
        at = 0 if up is None else groups.index(row[up]), int(np.searchsorted(right, row[across]))
        values[at] = np.nan if row.get(value) is None else row[value]
        if value in ("lyapunov", "stationary") and row["theory"] is not None:
            theory[at] = row["theory"]
    label = VALUE_LABELS.get(value, value.replace("_", " "))
    if value.endswith(("_underflow", "_overflow")):
        label = "links until the exact median gradient would {1} in {0}".format(*value.split("_"))
    title = f"{label[0].upper()}{label[1:]} over {' and '.join(shown)}: {plural(len(rows), 'point')} of {job}"
    figure: Figure | Map
    if up is not None and up in axes and len(groups) > SERIES_MAX:
        ends = np.array(groups, dtype=float)
        figure = Map(title, across, up, label, right, ends, values, _is_geometric(right), _is_geometric(ends))
    else:
        names = [value if up is None else f"{up} {value_text(group)}" for group in groups]
        series = [(name, row) for name, row in zip(names, values, strict=True) if np.isfinite(row).any()]
        curves = [Curve("series", name, row, color=i) for i, (name, row) in enumerate(series)]
        lines = [row for row in theory if np.isfinite(row).any()]
        curves += [Curve("theory", "" if k else "theory", row, color=BLACK) for k, row in enumerate(lines)]
        figure = Figure(title, across, label, right, curves, x_log=_is_geometric(right))
    flat = [{name: row.get(name) for name in (*shown, value)} for row in rows]
    result = {"value": value, "axes": shown, "points": flat}
    content: list[Part] = [Text(", ".join(fixed), "note"), figure]
    without = sum(row.get(value) is None for row in rows)
    if value == "stationary" and without:
        content.append(
            Text(
                f"{plural(without, 'point')} of {len(rows)} have not forgotten the start: --value lyapunov has all",
                "note",
            )
        )
    return Report("plot", {"value": value, "x": across, "where": dict(where)}, result, flat, content)


def _default_value(job: JobName, rows: list[dict[str, Any]]) -> str:
    if job == "train":
        return "converged"
    return "stationary" if any(_is_number(row.get("stationary")) for row in rows) else "lyapunov"


def _parameters(job: JobName, rows: list[dict[str, Any]]) -> list[str]:
    """Names of the parameters, not of the results, in the rows of a sweep."""
    return [name for name in with_equal_columns(rows)[0] if name.partition(".")[0] in job_parameters(job)]


def _is(value: Any, text: str) -> bool:
    """Tell if a parameter has the value that a user wrote."""
    if not _is_number(value):
        return str(value) == text
    try:
        return float(text) == float(value)
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_geometric(values: NDArray[np.float64]) -> bool:
    """Tell if ascending values belong on a logarithmic axis: positive, and denser where they are small."""
    return bool(len(values) > 2 and values[0] > 0 and np.median(values) < (values[0] + values[-1]) / 4)
