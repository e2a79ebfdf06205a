"""Reports on a terminal, or in a file of plain text, by rich."""

from __future__ import annotations

import io
import re
import sys
from typing import IO, TYPE_CHECKING, Literal

from fastgrad.report import figures
from fastgrad.report.document import Figure, Map, Part, Table, Text
from fastgrad.report.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text as RichText


PLOT_HEIGHT = 16  # lines of a figure's data
PLOT_WIDTH = 78  # columns
WIDTH_MIN = 80  # columns, even if the terminal has fewer
EMPHASIS = {"title": "bold", "line": "bold", "note": "bold", "warning": "bold red"}


def show(content: Sequence[Part], file: IO[str], color: bool | None) -> None:
    """Print a report's content; `color`: True, False, or None to let the terminal decide."""
    if isinstance(file, io.TextIOWrapper) and not (file.encoding or "").lower().startswith("utf"):
        file.reconfigure(errors="replace")
    console = _console(file, color)
    tables = {id(part): _rich_table(part) for part in content if isinstance(part, Table)}
    # A terminal narrower than tables that can't be broken wraps them by itself and loses nothing; rich would.
    unbroken = [table for table in tables.values() if all(column.no_wrap for column in table.columns)]
    unbounded = console.options.update(max_width=sys.maxsize)
    console.width = max(
        console.width, WIDTH_MIN, *(console.measure(table, options=unbounded).maximum for table in unbroken)
    )
    before: Part | None = None
    for part in content:
        if isinstance(part, Text):
            if part.role == "title" and isinstance(before, Text):  # a table ends with an empty line of its own
                console.print()
            console.print(_rich_text(part))
        elif isinstance(part, Table):
            console.print(tables[id(part)])
        else:
            _show_figure(part, console)
        before = part


def plain_text(content: Sequence[Part]) -> str:
    """Return texts and tables as they are printed without color; no figures."""
    file = io.StringIO()
    show([part for part in content if isinstance(part, Text | Table)], file, color=False)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))


def drawn(figure: Figure | Map, path: str | Path | None) -> str | None:
    """Draw into a file; without a path, return the figure as it is printed without color."""
    if path is None:
        return terminal(figure, PLOT_WIDTH, PLOT_HEIGHT, color=False)
    figures.save(figure, path)
    return None


def _console(file: IO[str], color: bool | None) -> Console:
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would exit with 1; the command line decides

    if color is None:
        return Stdout(file=file, highlight=False)
    system: Literal["standard"] | None = "standard" if color else None
    return Stdout(file=file, highlight=False, force_terminal=color, color_system=system, no_color=not color)


def _rich_text(text: Text) -> RichText:
    from rich.text import Text as RichText

    shown = RichText(text.words)
    if text.role == "note":
        for line in re.finditer(r"\S.*", text.words):
            shown.stylize("dim", line.start(), line.end())
    if text.emphasis is not None:
        shown.stylize(EMPHASIS[text.role], *text.emphasis)
    elif text.role in ("title", "warning"):
        shown.stylize(EMPHASIS[text.role])
    return shown


def _rich_table(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    title = None if table.title is None else RichText(table.title, style="bold")
    shown = RichTable(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, collapse_padding=table.dense
    )
    for column in table.columns:
        numbers = column.kind == "numbers"
        shown.add_column(RichText(column.name), justify="right" if numbers else "left", no_wrap=numbers or table.dense)
    for row in table.rows:
        if row.begins_section:
            shown.add_section()
        shown.add_row(*(RichText(cell.text) for cell in row.cells), style="bold" if row.emphasized else None)
    return shown


def _show_figure(figure: Figure | Map, console: Console) -> None:
    from rich.text import Text as RichText

    if not console.encoding.lower().startswith("utf"):
        console.print("(a plot needs a UTF-8 terminal; --plot FILE draws it into a file)")
        return
    colored = console.color_system is not None and not console.no_color
    drawn = terminal(figure, min(PLOT_WIDTH, console.width), PLOT_HEIGHT, colored)
    console.print(RichText.from_ansi(drawn), no_wrap=True, overflow="crop")
