"""Reports of `fastgrad sweep`, `export` and `merge`: points of a sweep, of a plan, of stores."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.checks import size_text
from fastgrad.jobs.parameters import law_names
from fastgrad.jobs.train import STATUSES
from fastgrad.report.document import Cell, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import percent, plural, seconds_text, value_text, with_error
from fastgrad.sweeps.points import (
    deviation,
    far_from_theory,
    flat_row,
    is_of_layers,
    planned_rows,
    varying_parameters,
    with_equal_columns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastgrad.jobs.parameters import JobName
    from fastgrad.sweeps.estimate import Estimate
    from fastgrad.sweeps.plan import Identity, Plan


SWEEP_ROWS = 40  # points, of a table that has a hint where the others are


def sweep_report(
    planned: Plan, rows: list[dict[str, Any]], before: int, parameters: dict[str, Any], hint: str
) -> Report:
    """Report the points of a sweep, `before` of them done before; `hint` says where those are that the table omits."""
    content: list[Part] = [
        Text(f"{planned.job}, {plural(len(rows), 'point')}: {before} done before, {len(rows) - before} now"),
        *_points(planned.job, rows, _result_columns(planned.job), hint),
        *_theory_lines(planned.job, rows),
        Text(f"backend {planned.backend}", "note"),
    ]
    return Report("sweep", parameters, {"points": rows}, with_equal_columns(rows), content, planned.backend)


def dry_run_report(planned: Plan, cost: Estimate, parameters: dict[str, Any], hint: str, in_full: bool) -> Report:
    """Report the points that a sweep would run, their memory and time; the JSON lists them if wanted `in_full`."""
    first = list(itertools.islice(planned_rows(planned, cost.done), SWEEP_ROWS))
    different = [flat_row(planned.job, point, {"done": False}) for point in planned.points.varied()]
    columns = with_equal_columns(different)[0] if planned.points else {}
    count = len(planned.points)
    waiting = count - len(cost.done)
    content: list[Part] = [
        Text(f"{planned.job}, {plural(count, 'point')}: {len(cost.done)} done before, {waiting} to do"),
        *_points(planned.job, first, {"": _is_done}, hint, different, count),
        Text(f"memory: {size_text(cost.memory)} for {plural(cost.together, 'point')} at a time"),
        Text(f"time: about {seconds_text(cost.seconds)}, from {cost.source}"),
        Text("nothing was run", "note"),
    ]
    result = {
        "waiting": waiting,
        "memory_bytes": cost.memory,
        "together": cost.together,
        "seconds": cost.seconds,
        "seconds_from": cost.source,
        "points": list(planned_rows(planned, cost.done)) if in_full else [],
    }
    rows = ({name: row.get(name) for name in columns} for row in planned_rows(planned, cost.done))
    return Report("sweep", parameters, result, rows, content, planned.backend)


def export_report(identity: Identity, rows: list[dict[str, Any]]) -> Report:
    """Report every point of a store."""
    job: Any = identity["job"]
    content: list[Part] = [
        Text(f"{job}, {plural(len(rows), 'point')}"),
        *_points(job, rows, _result_columns(job), None),
        *_theory_lines(job, rows),
    ]
    return Report("export", {**identity}, {"points": rows}, with_equal_columns(rows), content, reproducible=True)


def merge_report(sources: Sequence[str], target: str, points: int) -> Report:
    """Report the number of points of a merged store."""
    result = {"store": target, "points": points}
    line = Text(f"{target}: {plural(points, 'point')} from {plural(len(sources), 'store')}")
    return Report("merge", {"stores": list(sources)}, result, [result], [line])


def _points(
    job: JobName,
    rows: list[dict[str, Any]],
    results: dict[str, Callable[[dict[str, Any]], Cell]],
    hint: str | None,
    different: list[dict[str, Any]] | None = None,
    count: int | None = None,
) -> list[Text | Table]:
    """Table of points: the parameters that vary among them, and results; with a hint only the first of very many.

    If `rows` are the first of `count` themselves, `different` are rows that differ in all in which those differ.
    """
    varying, fixed = varying_parameters(job, rows if different is None else different)
    columns = [column for name in varying for column in (words(name) if name in law_names(job) else numbers(name))]
    table = Table([*columns, *numbers(*results)], dense=True)
    shown = rows if hint is None else rows[:SWEEP_ROWS]
    for row in shown:
        table.add(
            *(Cell.of(row.get(name), value_text) for name in varying), *(result(row) for result in results.values())
        )
    left = (len(rows) if count is None else count) - len(shown)
    more = [Text(f"… and {plural(left, 'more point')}: {hint}")] if left else []
    return [Text(", ".join(fixed), "note"), table, *more]


def _is_done(row: dict[str, Any]) -> Cell:
    return Cell.of("done" if row["done"] else "to do")


def _result_columns(job: JobName) -> dict[str, Callable[[dict[str, Any]], Cell]]:
    """The main results of a point, each as a function of its row."""

    def written(name: str, write: Callable[[Any], str] = value_text) -> Callable[[dict[str, Any]], Cell]:
        return lambda row: Cell.of(row[name], write)

    if job == "train":
        shares = {name: written(name, percent) for name in STATUSES}
        return {**shares, "median loss": written("median_loss"), "median step": written("median_step")}

    def exponent(row: dict[str, Any]) -> Cell:
        of_start = row.get("stationary_link") is None
        name, mark = "lyapunov" if of_start else "stationary", "*" if of_start and not is_of_layers(row) else ""
        mean, stderr = row[name], row[f"{name}_stderr"]
        if mean is None:
            return Cell(-np.inf, f"-inf{mark}")
        return Cell(mean, f"{with_error(mean, np.nan if stderr is None else stderr)}{mark}")

    def finite(row: dict[str, Any]) -> Cell:
        return Cell(-np.inf, "-inf") if row["lyapunov"] is None else Cell.of(row["lyapunov"], "{:.4g}".format)

    def off(row: dict[str, Any]) -> Cell:
        return Cell.of(deviation(row), lambda sigmas: "-" if sigmas is None else f"{sigmas:+.1f}")

    return {
        "exponent": exponent,
        "finite": finite,
        "theory": lambda row: (
            Cell(None, "-") if row.get("theory_is_too_narrow") else Cell.of(row["theory"], value_text)
        ),
        "off": off,
        "bound": written("bound_rate", lambda rate: "-" if rate is None else f"{rate:.3g}"),
        "float32": written("float32_underflow"),
    }


def _theory_lines(job: JobName, rows: list[dict[str, Any]]) -> list[Text]:
    """Legend of the columns of a sweep of simulate, and how far the exponents are from the theory's."""
    if job != "simulate":
        return []
    lines = [
        Text(
            "exponent: over the links that have forgotten the start; finite: finite-depth,\n"
            "over all links; these, theory and bound in nats per link; off: exponent minus\n"
            "theory in standard errors; float32: links until the exact median gradient is\n"
            "below its range",
            "note",
        )
    ]
    if any(row.get("stationary_link") is None and not is_of_layers(row) for row in rows):
        lines.append(Text("*: finite-depth, and not compared with theory: the start is not forgotten", "note"))
    if any(map(is_of_layers, rows)):
        lines.append(
            Text(
                "layers: the exponent is finite-depth; theory and bound are of n -> infinity,\n"
                "but for relu layers with normal weights and linear ones with normal or\n"
                "orthogonal weights, whose theory is exact and is compared",
                "note",
            )
        )
    if any(row.get("theory_is_too_narrow") for row in rows):
        lines.append(Text("theory -: so few units that n -> infinity says little of them", "note"))
    compared, two, four = far_from_theory(rows, 2, 4)
    if compared:
        points = plural(compared, "point")
        lines.append(Text(f"Of {points} with a theory {two} are more than 2 off, {four} more than 4."))
    return lines
