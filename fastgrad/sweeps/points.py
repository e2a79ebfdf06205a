"""Rows of a sweep: results of a point, and the checks of what a store holds."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from fastgrad import theory
from fastgrad.jobs.growth import Lyapunov, degrees_of_freedom
from fastgrad.jobs.parameters import JOBS, JobName, added_defaults, job_parameters, law_names
from fastgrad.jobs.train import STATUSES
from fastgrad.summary import json_ready
from fastgrad.sweeps.grid import law_parameters, parameter_of
from fastgrad.sweeps.plan import ARITHMETICS, Identity, Plan, Point, Result, stored_form

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastgrad.jobs.growth import Growth
    from fastgrad.sweeps.store import Store


THEORY_DIGITS = 10  # that are kept: they do not depend on the threads of the linear algebra
# Results that every table of points has; those of a newer version may be more.
RESULTS: dict[JobName, tuple[str, ...]] = {
    "simulate": (
        "lyapunov",
        "lyapunov_stderr",
        "bound_rate",
        "theory",
        "theory_bound",
        "zero_share",
        "float32_underflow",
    ),
    "train": (*STATUSES, "unchanged", "median_loss", "median_step"),
}


def check_identity(identity: Identity) -> bool:
    """Tell if this is what points of a store can have in common."""
    job, version, arithmetic = (identity.get(name) for name in ("job", "kernel_version", "arithmetic"))
    return job in JOBS and arithmetic in ARITHMETICS and type(version) is int and version > 0


def checked_point(job: JobName, stored: Point) -> Point:
    """Return the point with these parameters, which are those of `stored_form`, in the types that `plan` gives them.

    Raises
    ------
    ValueError
        If they are not.
    """
    point = {name: stored.get(name, added_defaults(job).get(name)) for name in job_parameters(job)}
    if list(stored) != list(stored_form(job, point)):
        raise ValueError(f"its parameters are not those of {job}")
    for name, value in point.items():
        parameter = parameter_of(job, name)
        if parameter.is_law or parameter.kind == "name":
            if type(value) is not str:
                raise ValueError(f"its {name} is no text")
            if parameter.is_law:
                law_parameters(value, name)
        elif parameter.kind == "whole":
            if type(value) is not int or not 0 <= value < 2 ** (64 if name == "seed" else 63):
                raise ValueError(f"its {name} is no whole number in range")
        elif not (parameter.is_optional and value is None) and not (type(value) is float and math.isfinite(value)):
            raise ValueError(f"its {name} is no finite number")
    return point


def check_result(job: JobName, result: Result) -> None:
    """Raise ValueError if this is not the result of a point: all that tables need, and nothing but plain values."""
    for name in RESULTS[job]:
        if name not in result:
            raise ValueError(f"its result has no {name}")
    for name, value in result.items():
        if name.partition(".")[0] in job_parameters(job):
            raise ValueError(f"its result has a parameter's name, {name}")
        if name not in RESULTS[job] and type(value) in (str, bool):
            continue  # a reason, beside a number
        if not (value is None and name not in STATUSES) and not _is_plain_number(value):
            raise ValueError(f"its {name} is no number")


def _is_plain_number(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and -(2**63) <= value < 2**63)


def growth_result(growth: Growth, x: float) -> Result:
    """Return the results of `simulate` at a point, beside theory."""
    summary = growth.summary()
    return json_ready(  # type: ignore[no-any-return]
        {
            "lyapunov": growth.lyapunov.mean,
            "lyapunov_stderr": growth.lyapunov.stderr,
            **_flat("stationary", summary["stationary"]),
            **{key: value for key, value in summary.items() if key in ("bound_rate", "bound_rate_why")},
            **_theory(str(growth.weight), str(growth.bias), x, growth.width, growth.nonlinearity),
            "zero_share": summary["zero_share"],
            **{
                f"{name}_{event}": links
                for name, events in summary["first_depth"].items()
                for event, links in events.items()
            },
        }
    )


def _flat(name: str, measured: dict[str, Any]) -> Result:
    """Columns of a measured exponent, whose mean has its name; the reason once, where they are None."""
    why = measured.get("mean_why")
    return {
        name: measured["mean"],
        **({} if why is None else {f"{name}_why": why}),
        f"{name}_stderr": measured["stderr"],
        f"{name}_link": measured["link"],
    }


@cache
def _theory(weight: str, bias: str, x: float, width: int, nonlinearity: str) -> Result:
    """Exponent and bound by theory, which neither depth nor seed changes; of layers also what it is exact for."""
    prediction = theory.predict(weight, bias, x, width, nonlinearity)
    rate, why = prediction.lyapunov, prediction.why_not
    return {
        "theory": None if rate is None else float(f"{rate:.{THEORY_DIGITS}g}"),
        # Without the numbers of the message, which may be those that could not be resolved.
        **({} if why is None else {"theory_why": why.partition(" (")[0]}),
        "theory_bound": prediction.bound.mean,
        **({} if prediction.holds_for == "chains" else {"theory_holds_for": prediction.holds_for}),
        **({} if prediction.at_width is None else {"theory_at_width": prediction.at_width}),
        **({"theory_is_too_narrow": True} if prediction.is_too_narrow else {}),
    }


def training_result(training: Any) -> Result:
    """Return the results of `train_drawn` at a point."""
    summary = training.summary()
    loss = summary["loss"]["q50"][-1]
    return json_ready(  # type: ignore[no-any-return]
        {
            **summary["share"],
            "unchanged": summary["unchanged"],
            "median_loss": math.inf if loss is None else loss,  # which only a chain that left float64 has
            "median_step": summary["last_step"]["converged"],
        }
    )


def flat_row(job: JobName, point: Point, result: Result) -> dict[str, Any]:
    """A point and its result in one flat dict; after each law its parameters, as ``weight.std``."""
    flat: dict[str, Any] = {}
    for name, value in point.items():
        flat[name] = value
        if name in law_names(job):
            flat |= {f"{name}.{part}": number for part, number in law_parameters(value, name)}
    return flat | result


def stored_rows(store: Store) -> list[dict[str, Any]]:
    """All points of a store as rows, ordered by their parameters: the same for every way to the same points."""
    job: Any = store.identity["job"]

    def order(item: tuple[str, Point, Result]) -> list[tuple[str, tuple[float, ...]]]:
        def of(name: str, value: Any) -> tuple[str, tuple[float, ...]]:
            if name in law_names(job):
                return value.partition(":")[0], tuple(number for _, number in law_parameters(value, name))
            return (value, ()) if isinstance(value, str) else ("", () if value is None else (value,))

        return [of(name, value) for name, value in item[1].items()]

    return [flat_row(job, point, result) for _, point, result in sorted(store.points(), key=order)]


def is_of_layers(row: dict[str, Any]) -> bool:
    """Tell if a result is one of layers."""
    return "theory_holds_for" in row


def deviation(row: dict[str, Any]) -> float | None:
    """By how many standard errors the exponent differs from the theory's.

    Of chains it is the stationary one. None without a theory, an error, or links after the start is forgotten; also for
    points that were stored before the stationary exponent was, and where theory is of n -> infinity.
    """
    if row.get("theory_holds_for") == "every width":
        row = {**row, "stationary": row["lyapunov"], "stationary_stderr": row["lyapunov_stderr"], "stationary_link": 1}
    elif is_of_layers(row):
        row = {**row, "stationary": None}
    expected, mean, stderr = (row.get(name) for name in ("theory", "stationary", "stationary_stderr"))
    if expected is None or mean is None or stderr is None:
        return None
    freedom = degrees_of_freedom(row["ensemble"], row["depth"] - row["stationary_link"] + 1)
    return Lyapunov(mean, stderr).deviation(expected, freedom)


def far_from_theory(rows: Iterable[dict[str, Any]], *limits: float) -> list[int]:
    """Count the points that are compared with theory, and those that are more standard errors off than each limit."""
    off = [abs(sigmas) for sigmas in map(deviation, rows) if sigmas is not None]
    return [len(off), *(sum(sigmas > limit for sigmas in off) for limit in limits)]


def planned_rows(planned: Plan, done: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of the points of a sweep before it is run, with ``done`` in place of a result."""
    for key, point in planned.points.items():
        yield flat_row(planned.job, point, {"done": key in done})


def with_equal_columns(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give all rows the same columns, None where one has none; a column that few have stays beside its neighbor."""
    rows = list(rows)
    columns: list[str] = []
    for names in dict.fromkeys(tuple(row) for row in rows):
        at = 0
        for name in names:
            if name in columns:
                at = columns.index(name) + 1
            else:
                columns.insert(at, name)
                at += 1
    return [{name: row.get(name) for name in columns} for row in rows]


def varying_parameters(job: JobName, rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Names of the parameters that vary among points, and the others with their values as text."""
    families = {law: {row[law].partition(":")[0] for row in rows} for law in law_names(job)}
    varying, fixed = [], []
    for name in next(iter(with_equal_columns(rows)), {}):
        of, in_law, _ = name.partition(".")
        if of not in job_parameters(job):
            continue
        if len({row.get(name) for row in rows}) > 1:
            # Laws of one family are told apart by their parameters, others by their text.
            if in_law == "" and len(families.get(of, ())) == 1:
                fixed.append(f"{of} {min(families[of])}")
            elif not in_law or len(families[of]) == 1:
                varying.append(name)
        elif not in_law and rows[0][name] not in (None, added_defaults(job).get(name)):
            fixed.append(f"{name} {rows[0][name]}")
    return varying, fixed
