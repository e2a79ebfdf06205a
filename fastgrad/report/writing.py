"""Reports as text, JSON, CSV, HTML, npz or parquet, on a terminal or in a file."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

from fastgrad.files import replacing, write_json, write_npz
from fastgrad.info import provenance
from fastgrad.report.console import show
from fastgrad.report.document import JSON_SCHEMA, Binary, Format, Report
from fastgrad.report.html import page
from fastgrad.report.tabular import write_csv, write_parquet

if TYPE_CHECKING:
    from pathlib import Path


def write(report: Report, form: Format | Binary, output: str | None, color: bool | None) -> None:
    """Write a report to a file, or to stdout where `output` is None or ``-``.

    A regular file is written whole or not at all. `color`: True, False, or None to let the terminal decide.

    Raises
    ------
    ValueError
        If an .npz, .parquet or .html is wanted on stdout.
    OSError
        If it can't be written.
    """
    if output is None or output == "-":
        if form == "npz" or form == "parquet" or form == "html":
            raise ValueError(f"format: {form} is written to a file only, expected -o FILE.{form}")
        if sys.stdout is None:
            raise OSError("stdout is closed")
        try:
            write_text(report, form, sys.stdout, color)
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
        write_parquet(list(report.rows), path)
    elif form == "html":
        details = {"command": f"fastgrad {report.command}", **report.parameters}
        path.write_text(
            page(report.content, f"fastgrad {report.command}", details | provenance(report.backend, report.seed)),
            encoding="utf-8",
        )
    else:
        with path.open("w", encoding="utf-8", newline="") as text:
            write_text(report, form, text, color or False)


def write_text(report: Report, form: Format, file: IO[str], color: bool | None) -> None:
    """Write a report to an open file."""
    if form == "table":
        show(report.content, file, color)
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
