"""Output of a command: its format, its files, warnings and progress."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import click
from click.core import ParameterSource

from fastgrad.cli.errors import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastgrad.report.document import Report

    Progress = Callable[[int, int], None]


FORMATS = ("table", "json", "csv")
ENDINGS = {".json": "json", ".csv": "csv", ".txt": "table", ".html": "html"}

Command = TypeVar("Command", bound=Callable[..., Any])


class Output(NamedTuple):
    """The options of `output_options`, which a command receives as one."""

    form: str  # table, json, csv, or what else the command writes
    file: str | None  # - or None: stdout
    plot: str | None  # the file of the figure
    color: str
    quiet: bool

    def check(self, source: str | None = None) -> None:
        """Check where a result and its figure are to go, before a long job is started; not over what it starts from."""
        from fastgrad.files import check_writable

        for option, path in (("output", self.file), ("plot", self.plot)):
            check_writable(option, path)
            if option == "output" and self.form == "html":
                from fastgrad.report.figures import require_pages

                require_pages(option)
            if source is not None and path is not None and os.path.realpath(path) == os.path.realpath(source):
                raise click.UsageError(f"{option}: {path} is the file that is read")
        if self.plot is None:
            return
        from fastgrad.report.figures import check_path

        check_path(self.plot)
        if self.file is not None and os.path.realpath(self.file) == os.path.realpath(self.plot):
            raise click.UsageError(f"plot: {self.plot} is the file of --output too")

    @contextlib.contextmanager
    def warnings(self) -> Iterator[None]:
        """Show warnings as one line on stderr each, or not at all."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if self.quiet else "default")
            warnings.showwarning = _show_warning
            yield

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Progress | None]:
        """Show warnings as `warnings` does, and a bar on stderr if that is a terminal."""
        with self.warnings():
            if self.quiet or sys.stderr is None or not sys.stderr.isatty():
                yield None
                return
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
            console = Console(stderr=True, no_color=_color(self.color) is False)
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task(title, total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)

    def show(self, report: Report) -> None:
        """Write a report where it is to go, and draw its figure into a file if one is wanted."""
        from fastgrad.report.figures import save
        from fastgrad.report.writing import write

        with _unwinding():
            if self.plot is not None and report.figure is not None:
                save(report.figure, self.plot)
            write(report, self.form, self.file, _color(self.color))  # type: ignore[arg-type]  # click has checked it


def output_options(*formats: str, figure: bool = False, to_file: bool = True) -> Callable[[Command], Command]:
    """Build the options that say how and where a result is written; the command receives them as `output`.

    Parameters
    ----------
    formats : str
        Formats beside `FORMATS` that an ending of --output can choose.
    figure : bool
        Whether the command draws: then it has --plot.
    to_file : bool
        Whether it has --output.
    """

    def add(command: Command) -> Command:
        @wraps(command)
        def run(*args: Any, form: str | None, color: str, quiet: bool, **given: Any) -> Any:
            file, plot = given.pop("output", None), given.pop("plot", None)
            chosen = _chosen_format(form, file, formats, figure)
            return command(*args, output=Output(chosen, file, plot, color, quiet), **given)

        for option in reversed(options):
            run = option(run)
        return run  # type: ignore[return-value]

    source = "from FILE's ending, or table" if to_file else "table"
    options = [
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            envvar="FASTGRAD_FORMAT",
            help=f"Format of the result.  [default: {source}]",
        ),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            envvar="FASTGRAD_COLOR",
            show_default=True,
            help="Color and bold; auto: on a terminal, unless NO_COLOR is set.",
        ),
        click.option("--quiet", "-q", is_flag=True, envvar="FASTGRAD_QUIET", help="No progress and no warnings."),
    ]
    if to_file:
        path, text = (
            click.Path(allow_dash=True),
            "Write the result to FILE; its ending chooses the format. - is stdout.",
        )
        options.insert(1, click.option("--output", "-o", type=path, metavar="FILE", help=text))
    if figure:
        text = "Draw the figure into FILE too: .png, .svg, .pdf or .html."
        options.insert(0, click.option("--plot", type=click.Path(), metavar="FILE", help=text))
    return add


def _chosen_format(form: str | None, file: str | None, more: tuple[str, ...], figure: bool) -> str:
    """Choose the format: what was asked for, or what the file's ending says."""
    to_file = file is not None and file != "-"
    source = click.get_current_context().get_parameter_source("form")
    ending = Path(file or "").suffix.lower()
    formats = {**ENDINGS, **{f".{kind}": kind for kind in more}}
    if to_file and ending in formats and source is not ParameterSource.COMMANDLINE:
        return formats[ending]  # the environment is the weaker wish
    if form is not None:
        return form
    if not to_file:
        return "table"
    if ending not in formats:
        from fastgrad.report.figures import FILE_TYPES

        hint = f"; the figure is drawn with --plot {file}" if ending in FILE_TYPES and figure else ""
        raise click.UsageError(
            f"output: can't tell the format of {file!r}; expected {', '.join(formats)}, or --format{hint}"
        )
    return formats[ending]


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"fastgrad: warning: {' '.join(str(message).split())}")


def _color(color: str) -> bool | None:
    if color == "auto":
        return False if os.environ.get("NO_COLOR") else None
    return color == "always"


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
