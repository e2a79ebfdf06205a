"""Errors and exit codes: every failure is one line on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click
from click.core import ParameterSource

import fastgrad
from fastgrad.interrupts import EXIT_INTERRUPTED, RaisedOnce

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


EXIT_FAILED, EXIT_USAGE, EXIT_DISAGREE = 1, 2, 3


class Interrupted(click.ClickException):
    """Ctrl-C."""

    exit_code = EXIT_INTERRUPTED


class Main(click.Group):
    """Reports every failure as one line on stderr, with the exit code that says what kind it was."""

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command line; in standalone mode, exit."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        with RaisedOnce() as ctrl_c:
            try:
                code = super().main(args, standalone_mode=False, **extra)
                if sys.stdout is not None:
                    sys.stdout.flush()
            except click.exceptions.NoArgsIsHelpError as error:
                say(error.ctx.get_help() if error.ctx else "")
                _exit("", EXIT_USAGE)
            except Interrupted as error:
                _exit(error.format_message(), error.exit_code)
            except (Exception, KeyboardInterrupt) as error:
                if ctrl_c.pressed:
                    _exit("interrupted", EXIT_INTERRUPTED)  # whatever it has become on its way
                _exit(*_described(error))
            sys.exit(code if isinstance(code, int) else 0)

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Read the arguments; --help and --version print here."""
        with _translated():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _translated():
            return super().invoke(ctx)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translate what Click would answer with a blank line, with exit code 1, or not at all."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except BrokenPipeError as error:
        raise (ReaderGoneError if _reader_is_gone() else OtherPipeError)(_os_text(error)) from None
    except click.exceptions.Exit as error:
        if error.exit_code == 0 and sys.stdout is None:  # Click has printed nothing, and says nothing
            raise OSError("stdout is closed") from None
        raise


class ReaderGoneError(Exception):
    """End without failure: the reader of stdout has read enough (`| head`)."""


class OtherPipeError(Exception):
    """A pipe to something else is broken."""


def _reader_is_gone() -> bool:
    """Tell if it is stdout that nobody reads any more. Windows does not."""
    import select

    if sys.stdout is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    with contextlib.suppress(OSError):  # no file
        poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _described(error: BaseException) -> tuple[str, int]:
    """Return the line and the exit code that say what went wrong; a bug is raised again."""
    if isinstance(error, ReaderGoneError) or (isinstance(error, BrokenPipeError) and _reader_is_gone()):
        return "", 0
    if isinstance(error, click.ClickException):
        return _named_after_its_variable(error).format_message(), error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, fastgrad.BackendUnavailableError | OtherPipeError):
        return str(error), EXIT_FAILED
    if isinstance(error, ValueError | TypeError):
        return str(error), EXIT_USAGE
    if isinstance(error, OSError | MemoryError | ModuleNotFoundError):
        return _os_text(error), EXIT_FAILED
    raise error


def _named_after_its_variable(error: click.ClickException) -> click.ClickException:
    """Let a wrong value from the environment be named after its variable: nobody has typed the option."""
    if isinstance(error, click.BadParameter) and error.ctx is not None and error.param is not None:
        source = error.ctx.get_parameter_source(error.param.name or "")
        if source is ParameterSource.ENVIRONMENT:
            error.param_hint = f"{error.param.opts[0]} ({error.param.envvar} in the environment)"
    return error


def _exit(message: str, code: int) -> NoReturn:
    """Exit, after a line on stderr if there is something to say."""
    if message:
        say(f"fastgrad: {' '.join(message.split())}")
    for stream in (sys.stdout, sys.stderr):
        _discard_what_is_stuck(stream)
    sys.exit(code)


def say(text: str) -> None:
    """Write a line to stderr, if anybody listens."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _discard_what_is_stuck(stream: TextIO | None) -> None:
    """Point a stream that can't be flushed at the null device: Python would try again at its end, and say so."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _os_text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or "out of memory"
