"""Report of `fastgrad report`: all of a sweep, with its figures and what computed it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgrad.report.document import Cell, Figure, Map, Part, Report, Table, Text, numbers, words
from fastgrad.report.plot import study_report
from fastgrad.report.sweep import export_report
from fastgrad.report.text import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastgrad.sweeps.plan import Identity
    from fastgrad.sweeps.study import Study

SHOWN = ("fastgrad", "numpy", "numba", "backend", "instruction_set", "cpu")  # of a provenance


def store_report(
    store: str,
    identity: Identity,
    rows: list[dict[str, Any]],
    found: Sequence[Study],
    why_not: str,
    origins: list[dict[str, Any]],
) -> Report:
    """Report a store: figures of its main results, its points, and where they come from.

    Parameters
    ----------
    found : list of Study
    why_not : str
        Why there are none.
    origins : list of dict
        See `Store.origins`.
    """
    exported = export_report(identity, rows)
    content: list[Part] = [Text(f"{Path(store).name}: {identity['job']}, {plural(len(rows), 'point')}", "title")]
    for each in found:
        content += [part for part in study_report(each, {}).content if isinstance(part, Figure | Map)]
    if why_not:
        content.append(Text(f"No figure: {why_not}", "note"))
    content += [Text("Points", "title"), *exported.content, Text("Computed by", "title"), _origins(origins)]
    result = {"store": store, **exported.result, "origins": origins}
    return Report("report", {"store": store, **identity}, result, exported.rows, content)


def _origins(origins: list[dict[str, Any]]) -> Table:
    table = Table([*numbers("points"), *words("from", "to", *SHOWN)], dense=True)
    for of in origins:
        cells = [Cell.of(of[name], str) for name in ("points", "first", "last")]
        table.add(*cells, *("-" if of.get(name) is None else str(of[name]) for name in SHOWN))
    return table
