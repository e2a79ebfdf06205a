"""Report of `fastgrad info`: versions, backends, compiler, processor."""

from __future__ import annotations

from typing import Any

from fastgrad.report.document import Report, Table, words


def info_report(info: dict[str, Any]) -> Report:
    """Report what runs here, a line an item."""
    flat: dict[str, Any] = {}
    for key, value in info.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    table = Table(words("what", "value"))
    for key, value in flat.items():
        table.add(key, "-" if value is None else str(value))
    rows = [{"what": key, "value": value} for key, value in flat.items()]
    return Report("info", {}, info, rows, [table])
