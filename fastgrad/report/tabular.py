"""Rows as CSV and parquet."""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


BLOCK_ELEMENTS = 2**16  # elements, of a block of rows that become text together
WHOLE_NUMBERS = ("_underflow", "_overflow", "_step")  # endings of columns of whole numbers, some of them missing


def write_csv(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> None:
    """Write rows as they are made, under a header of the first one's names.

    A mapping of names to values is a row; one of names to arrays or lists of numbers, all of one length, is a block of
    rows, which is written faster. None is an empty cell.
    """
    writer: Any = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        if isinstance(next(iter(row.values()), None), np.ndarray | list):
            file.writelines(_csv_text(row))
        else:
            writer.writerow(row)


def _csv_text(block: Mapping[str, Any]) -> Iterator[str]:
    count = len(next(iter(block.values())))
    step = max(1, BLOCK_ELEMENTS // len(block))
    for first in range(0, count, step):
        columns, forms = [], []
        for values in block.values():
            part = values[first : first + step]
            if isinstance(part, np.ndarray):
                columns.append(part.tolist())
                forms.append("%r")
            else:
                columns.append(["" if value is None else repr(value) for value in part])
                forms.append("%s")
        cells: list[Any] = [None] * (len(columns) * len(columns[0]))
        for i, column in enumerate(columns):
            cells[i :: len(columns)] = column
        # One template of all cells: several times faster than a writer that takes row after row.
        yield (",".join(forms) + "\n") * len(columns[0]) % tuple(cells)


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
