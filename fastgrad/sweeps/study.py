"""Results of a sweep over one or two of its parameters, ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.jobs.parameters import JobName, job_parameters
from fastgrad.summary import is_geometric
from fastgrad.sweeps.points import varying_parameters, with_equal_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


# Results that belong in a report beside the default one.
MORE_RESULTS: dict[JobName, tuple[str, ...]] = {
    "simulate": ("float32_underflow",),
    "train": ("diverged", "median_step"),
}
COMPARED = ("lyapunov", "stationary")  # results that have a theory


@dataclass(frozen=True, eq=False)
class Study:
    """A result of a sweep over one parameter, or over two.

    Attributes
    ----------
    job : str
    value : str
        Name of the result.
    across : str
        The parameter to the right.
    up : str or None
        The other parameter that varies.
    x : ndarray of float64, shape (columns,)
        Values of `across`, ascending.
    groups : list
        Values of `up`, ascending; one None if it is None.
    y : ndarray of float64, shape (rows,), or None
        `groups` as numbers, if that is what they are.
    values, theory : ndarray of float64, shape (rows, columns)
        The result, and what theory says of it; NaN where there is none.
    points : list of dict
        The parameters that vary and the result, by name.
    fixed : list of str
        The other parameters with their values.
    """

    job: JobName
    value: str
    across: str
    up: str | None
    x: Floats
    groups: list[Any]
    y: Floats | None
    values: Floats
    theory: Floats
    points: list[dict[str, Any]]
    fixed: list[str]

    @property
    def x_log(self) -> bool:
        """Tell if `x` belongs on a logarithmic axis."""
        return is_geometric(self.x)

    @property
    def y_log(self) -> bool:
        """Tell if `y` belongs on a logarithmic axis."""
        return self.y is not None and is_geometric(self.y)

    @property
    def missing(self) -> int:
        """Number of points that do not have the result."""
        return sum(point[self.value] is None for point in self.points)


def study(
    job: JobName, rows: list[dict[str, Any]], value: str | None, x: str | None, where: Mapping[str, str]
) -> Study:
    """Lay a result of a sweep out over the one or two parameters that vary.

    Parameters
    ----------
    rows : list of dict
        Points, as `stored_rows` gives them.
    value : str, optional
        The result; by default the exponent, or the share of chains that converge. The exponent is that of links that
        have forgotten the start, which theory knows, if any point has it, and else the finite-depth one.
    x : str, optional
        The parameter to the right; by default the one with the most values.
    where : dict
        Values of parameters, as text: points with other values are left out.

    Raises
    ------
    ValueError
        If there is no such value or parameter, nothing or too much varies, or no point is left.
    """
    for name, wanted in where.items():
        if not any(name in row for row in rows):
            raise ValueError(f"where: unknown parameter {name!r}, expected one of {', '.join(_parameters(job, rows))}")
        rows = [row for row in rows if _is(row.get(name), wanted)]
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
    right = np.array(sorted({row[across] for row in rows}), dtype=float)
    groups = [None] if up is None else sorted({row[up] for row in rows})
    values = np.full((len(groups), len(right)), np.nan)
    theory = np.full(values.shape, np.nan)
    for row in rows:
        at = 0 if up is None else groups.index(row[up]), int(np.searchsorted(right, row[across]))
        values[at] = np.nan if row.get(value) is None else row[value]
        if value in COMPARED and row["theory"] is not None:
            theory[at] = row["theory"]
    shown = [name for name in (across, up, value) if name is not None]
    return Study(
        job=job,
        value=value,
        across=across,
        up=up,
        x=right,
        groups=groups,
        y=np.array(groups, dtype=float) if up in axes else None,
        values=values,
        theory=theory,
        points=[{name: row.get(name) for name in shown} for row in rows],
        fixed=fixed,
    )


def studies(job: JobName, rows: list[dict[str, Any]]) -> tuple[list[Study], str]:
    """Lay out the main results of a sweep; those that can't be drawn are left out.

    Returns
    -------
    list of Study
    str
        Why there are none; empty if there is one.
    """
    found, why = [], ""
    for value in (None, *MORE_RESULTS[job]):
        try:
            found.append(study(job, rows, value, None, {}))
        except ValueError as error:
            why = why or str(error)
    return found, "" if found else why


def _default_value(job: JobName, rows: list[dict[str, Any]]) -> str:
    if job == "train":
        return "converged"
    return "stationary" if any(_is_number(row.get("stationary")) for row in rows) else "lyapunov"


def _parameters(job: JobName, rows: list[dict[str, Any]]) -> list[str]:
    """Names of the parameters, not of the results, in the rows of a sweep."""
    return [name for name in with_equal_columns(rows)[0] if name.partition(".")[0] in job_parameters(job)]


def _is(value: Any, wanted: str) -> bool:
    """Tell if a parameter has the value that a user wrote."""
    if not _is_number(value):
        return str(value) == wanted
    try:
        return float(wanted) == float(value)
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
