"""Points of a sweep, of a store, and of a plan."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.checks import size_text
from fastgrad.jobs.parameters import LAWS, job_parameters
from fastgrad.jobs.train import STATUSES
from fastgrad.report.document import Report
from fastgrad.report.text import cell_text, plural, seconds_text, table_of, with_error
from fastgrad.sweeps.points import deviation, flat_row, planned_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import RenderableType

    from fastgrad.jobs.parameters import JobName
    from fastgrad.sweeps.estimate import Estimate
    from fastgrad.sweeps.plan import Identity, Plan


SWEEP_ROWS = 40


def sweep_report(
    planned: Plan, rows: list[dict[str, Any]], before: int, parameters: dict[str, Any], hint: str
) -> Report:
    """The points of a sweep, `before` of them done before; `hint` says where to find what the table leaves out."""
    human: list[RenderableType] = [
        f"{planned.job}, {plural(len(rows), 'point')}: {before} done before, {len(rows) - before} now",
        *points_table(planned.job, rows, result_columns(planned.job), hint),
        *_theory_lines(planned.job, rows),
        f"[dim]backend {planned.backend}[/]",
    ]
    return Report("sweep", parameters, {"points": rows}, with_equal_columns(rows), human, backend=planned.backend)


def dry_run_report(planned: Plan, cost: Estimate, parameters: dict[str, Any], hint: str, in_full: bool) -> Report:
    """What a sweep would run, and what that would take; the points in the JSON only if it is wanted `in_full`."""
    first = list(itertools.islice(planned_rows(planned, cost.done), SWEEP_ROWS))
    different = [flat_row(planned.job, point, {"done": False}) for point in planned.points.varied()]
    columns = with_equal_columns(different)[0] if planned.points else {}
    count = len(planned.points)
    waiting = count - len(cost.done)
    human: list[RenderableType] = [
        f"{planned.job}, {plural(count, 'point')}: {len(cost.done)} done before, {waiting} to do",
        *points_table(planned.job, first, {"": lambda row: "done" if row["done"] else "to do"}, hint, different, count),
        f"memory: {size_text(cost.memory)} for {plural(cost.together, 'point')} at a time",
        f"time: about {seconds_text(cost.seconds)}, from {cost.source}",
        "[dim]nothing was run[/]",
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
    return Report("sweep", parameters, result, rows, human, backend=planned.backend)


def export_report(identity: Identity, rows: list[dict[str, Any]]) -> Report:
    """Every point of a store."""
    job: Any = identity["job"]
    human: list[RenderableType] = [
        f"{job}, {plural(len(rows), 'point')}",
        *points_table(job, rows, result_columns(job), None),
        *_theory_lines(job, rows),
    ]
    return Report("export", {**identity}, {"points": rows}, with_equal_columns(rows), human, reproducible=True)


def merge_report(sources: Sequence[str], target: str, points: int) -> Report:
    """What a merged store holds."""
    result = {"store": target, "points": points}
    human: list[RenderableType] = [f"{target}: {plural(points, 'point')} from {plural(len(sources), 'store')}"]
    return Report("merge", {"stores": list(sources)}, result, [result], human)


def points_table(
    job: JobName,
    rows: list[dict[str, Any]],
    results: dict[str, Callable[[dict[str, Any]], str]],
    hint: str | None,
    different: list[dict[str, Any]] | None = None,
    count: int | None = None,
) -> list[RenderableType]:
    """A table of points: what varies among them, and their results; with a hint only the first of very many.

    If `rows` are the first of `count` themselves, `different` are rows that differ in all in which those differ.
    """
    varying, fixed = varying_parameters(job, rows if different is None else different)
    table = table_of(None, *varying, *results, left=[i for i, name in enumerate(varying) if name in LAWS[job]])
    table.collapse_padding = True
    for column in table.columns:
        column.no_wrap = True
    shown = rows if hint is None else rows[:SWEEP_ROWS]
    for row in shown:
        table.add_row(*(cell_text(row.get(name)) for name in varying), *(write(row) for write in results.values()))
    left = (len(rows) if count is None else count) - len(shown)
    more = [f"… and {plural(left, 'more point')}: {hint}"] if left else []
    return [f"[dim]{', '.join(fixed)}[/]", table, *more]


def varying_parameters(job: JobName, rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Names of the parameters that vary among points, and what the others are."""
    families = {law: {row[law].partition(":")[0] for row in rows} for law in LAWS[job]}
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
        elif not in_law and rows[0][name] is not None:
            fixed.append(f"{name} {rows[0][name]}")
    return varying, fixed


def result_columns(job: JobName) -> dict[str, Callable[[dict[str, Any]], str]]:
    """The main results of a point, and how they are written."""
    if job == "train":
        shares = {name: lambda row, name=name: f"{100 * row[name]:.1f} %" for name in STATUSES}
        rest = {name: lambda row, name=name: cell_text(row[name]) for name in ("median_loss", "median_step")}
        return {**shares, **{name.replace("_", " "): cell for name, cell in rest.items()}}

    def exponent(row: dict[str, Any]) -> str:
        name, mark = ("lyapunov", "*") if row.get("stationary_link") is None else ("stationary", "")
        mean, stderr = row[name], row[f"{name}_stderr"]
        return f"{'-inf' if mean is None else with_error(mean, np.nan if stderr is None else stderr)}{mark}"

    def off(row: dict[str, Any]) -> str:
        sigmas = deviation(row)
        return "-" if sigmas is None else f"{sigmas:+.1f}"

    return {
        "exponent": exponent,
        "finite": lambda row: "-inf" if row["lyapunov"] is None else f"{row['lyapunov']:.4g}",
        "theory": lambda row: cell_text(row["theory"]),
        "off": off,
        "bound": lambda row: "-" if row["bound_rate"] is None else f"{row['bound_rate']:.3g}",
        "float32": lambda row: cell_text(row["float32_underflow"]),
    }


def _theory_lines(job: JobName, rows: list[dict[str, Any]]) -> list[str]:
    """What the columns of a sweep of simulate are, and how far the exponents are from the theory's."""
    if job != "simulate":
        return []
    lines = [
        "[dim]exponent: over the links that have forgotten the start; finite: finite-depth,[/]",
        "[dim]over all links; these, theory and bound in nats per link; off: exponent minus[/]",
        "[dim]theory in standard errors; float32: links until the exact median gradient is[/]",
        "[dim]below its range[/]",
    ]
    if any(row.get("stationary_link") is None for row in rows):
        lines.append("[dim]*: finite-depth, and not compared with theory: the start is not forgotten[/]")
    off = [abs(sigmas) for sigmas in map(deviation, rows) if sigmas is not None]
    if off:
        two, four = (sum(sigmas > limit for sigmas in off) for limit in (2, 4))
        lines.append(f"Of {plural(len(off), 'point')} with a theory {two} are more than 2 off, {four} more than 4.")
    return lines


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
