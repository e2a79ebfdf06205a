"""Rows as CSV and parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgrad.files import write_csv

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["write_csv", "write_parquet"]

WHOLE_NUMBERS = ("_underflow", "_overflow", "_step")  # endings of columns of whole numbers, some of them missing


def write_parquet(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write rows of equal columns into a .parquet file.

    Raises
    ------
    ModuleNotFoundError
        Without pyarrow, with the command that installs it.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ModuleNotFoundError("format: parquet needs pyarrow; pip install 'fastgrad[parquet]'") from None

    rows = list(rows)

    def column(name: str) -> Any:
        values = [row[name] for row in rows]
        if name == "seed":  # up to 2^64 - 1
            return pyarrow.array(values, pyarrow.uint64())
        if any(value is not None for value in values):
            return pyarrow.array(values)
        # A column without a value gets the type that values would have.
        return pyarrow.array(values, pyarrow.int64() if name.endswith(WHOLE_NUMBERS) else pyarrow.float64())

    pyarrow.parquet.write_table(pyarrow.table({name: column(name) for name in (rows[0] if rows else {})}), path)
