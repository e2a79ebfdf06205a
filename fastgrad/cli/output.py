"""Progress, warnings, and where results go."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from fastgrad.cli.errors import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastgrad.report.document import Report


ENDINGS = {".json": "json", ".csv": "csv", ".txt": "table"}


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"fastgrad: warning: {' '.join(str(message).split())}")


@contextlib.contextmanager
def progress_bar(title: str, quiet: bool, color: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on stderr, on a terminal only."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    console = Console(stderr=True, no_color=_color(color) is False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def chosen_format(form: str | None, output: str | None, *more: str) -> str:
    """Choose the format: what was asked for, or what the file's ending says."""
    to_file = output is not None and output != "-"
    context = click.get_current_context()
    source = context.get_parameter_source("form")
    ending = Path(output or "").suffix.lower()
    formats = {**ENDINGS, **{f".{kind}": kind for kind in more}}
    if to_file and ending in formats and source is not ParameterSource.COMMANDLINE:
        return formats[ending]  # the environment is the weaker wish
    if form is not None:
        return form
    if not to_file:
        return "table"
    if ending not in formats:
        from fastgrad.report.image import FILE_TYPES

        hint = (
            f"; the figure is drawn with --plot {output}" if ending in FILE_TYPES and "plot" in context.params else ""
        )
        raise click.UsageError(
            f"output: can't tell the format of {output!r}; expected {', '.join(formats)}, or --format{hint}"
        )
    return formats[ending]


def _color(color: str) -> bool | None:
    if color == "auto":
        return False if os.environ.get("NO_COLOR") else None
    return color == "always"


def show(report: Report, form: str, output: str | None, color: str, plot: str | None = None) -> None:
    """Write a report where it is to go, and draw its figure into a file if one is wanted."""
    from fastgrad.report.image import save
    from fastgrad.report.writing import write

    with _unwinding():
        if plot is not None and report.figure is not None:
            save(report.figure, plot)
        write(report, form, output, _color(color))  # type: ignore[arg-type]  # click has checked it


@contextlib.contextmanager
def _unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind what is being written, so that no hidden file is left; exit code 128 + signal."""
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}
    if threading.current_thread() is not threading.main_thread():
        before = {}  # Python hears signals on its main thread only

    def end(number: int, _: Any) -> NoReturn:
        for each in taken:  # another one must not stop the cleaning up
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    taken = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def check_outputs(output: str | None, plot: str | None = None, source: str | None = None) -> None:
    """Check where a result and its figure are to go, before a long job is started; not over what it starts from."""
    from fastgrad.files import check_writable

    for option, path in (("output", output), ("plot", plot)):
        check_writable(option, path)
        if source is not None and path is not None and os.path.realpath(path) == os.path.realpath(source):
            raise click.UsageError(f"{option}: {path} is the file that is read")
    if plot is None:
        return
    from fastgrad.report.image import check_path

    check_path(plot)
    if output is not None and os.path.realpath(output) == os.path.realpath(plot):
        raise click.UsageError(f"plot: {plot} is the file of --output too")


@contextlib.contextmanager
def shown_warnings(quiet: bool) -> Iterator[None]:
    """Show warnings as one line on stderr each, or not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if quiet else "default")
        warnings.showwarning = _show_warning
        yield
