"""Reports as text, JSON, CSV, npz or parquet, on a terminal or in a file."""

from __future__ import annotations

import io
import sys
from typing import IO, TYPE_CHECKING, Any, Literal

from fastgrad.files import replacing, write_csv, write_json, write_npz
from fastgrad.info import provenance
from fastgrad.report.document import JSON_SCHEMA, Binary, Figure, Format, Map, Report
from fastgrad.report.terminal import terminal

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


PLOT_HEIGHT = 16
PLOT_WIDTH = 78
TABLE_WIDTH = 80


def write(report: Report, form: Format | Binary, output: str | None, color: bool | None) -> None:
    """Write a report to a file, or to stdout where `output` is None or ``-``.

    A regular file is written whole or not at all. `color`: True, False, or None to let the terminal decide.

    Raises
    ------
    ValueError
        If an .npz or .parquet is wanted on stdout.
    OSError
        If it can't be written.
    """
    if output is None or output == "-":
        if form == "npz" or form == "parquet":
            raise ValueError(f"format: {form} is written to a file only, expected -o FILE.{form}")
        if sys.stdout is None:
            raise OSError("stdout is closed")
        try:
            _write_text(report, form, sys.stdout, color)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, "stdout") from None
        return
    with replacing(output) as path:
        _write_file(report, form, path, color)


def _write_file(report: Report, form: Format | Binary, path: Path, color: bool | None) -> None:
    if form == "npz":
        write_npz(report.arrays, path)
    elif form == "parquet":
        _write_parquet(list(report.rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as text:
            _write_text(report, form, text, color or False)


def _write_text(report: Report, form: Format, file: IO[str], color: bool | None) -> None:
    if form == "table":
        _print(report, file, color)
    elif form == "json":
        document = {
            "schema": JSON_SCHEMA,
            "command": report.command,
            "parameters": report.parameters,
            **({} if report.reproducible else {"provenance": provenance(report.backend, report.seed)}),
            "result": report.result,
        }
        write_json(document, file)
    else:
        write_csv(report.rows, file)


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ModuleNotFoundError("format: parquet needs pyarrow; pip install 'fastgrad[parquet]'") from None

    def column(name: str) -> Any:
        values = [row[name] for row in rows]
        if name == "seed":  # up to 2^64 - 1
            return pyarrow.array(values, pyarrow.uint64())
        if any(value is not None for value in values):
            return pyarrow.array(values)
        whole = name.endswith(("_underflow", "_overflow", "_step"))  # the type that values would have
        return pyarrow.array(values, pyarrow.int64() if whole else pyarrow.float64())

    pyarrow.parquet.write_table(pyarrow.table({name: column(name) for name in (rows[0] if rows else {})}), path)


def _print(report: Report, file: IO[str], color: bool | None) -> None:
    from rich.console import Console
    from rich.table import Table

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would exit with 1; whoever called decides

    if isinstance(file, io.TextIOWrapper) and not (file.encoding or "").lower().startswith("utf"):
        file.reconfigure(errors="replace")
    if color is None:
        console = Stdout(file=file, highlight=False)
    else:
        system: Literal["standard"] | None = "standard" if color else None
        console = Stdout(file=file, highlight=False, force_terminal=color, color_system=system, no_color=not color)
    # Where a terminal is narrower than the tables, its own wrapping loses nothing, and rich's would.
    tables = [part for part in report.human if isinstance(part, Table) and all(of.no_wrap for of in part.columns)]
    unbounded = console.options.update(max_width=sys.maxsize)
    console.width = max(console.width, TABLE_WIDTH, *(console.measure(of, options=unbounded).maximum for of in tables))
    for part in report.human:
        console.print(part)
    if report.figure is not None:
        _print_figure(report.figure, console)


def _print_figure(figure: Figure | Map, console: Console) -> None:
    from rich.text import Text

    if not console.encoding.lower().startswith("utf"):
        console.print("(a plot needs a UTF-8 terminal; --plot FILE draws it into a file)")
        return
    colored = console.color_system is not None and not console.no_color
    drawn = terminal(figure, min(PLOT_WIDTH, console.width), PLOT_HEIGHT, colored)
    console.print(Text.from_ansi(drawn), no_wrap=True, overflow="crop")
