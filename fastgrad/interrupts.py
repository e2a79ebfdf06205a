"""Ctrl-C in the `fastgrad` command: one line and exit code 130, from the first import to the last flush.

The package imports this file before any other. So it takes next to nothing of the standard library, and in a program
that only imports `fastgrad` it changes nothing.
"""

from __future__ import annotations

import _signal as signal  # what signal wraps; its enumerations would take 2 ms in which Ctrl-C is not heard
import os
import sys

TYPE_CHECKING = False  # as checkers take it too; typing is a tenth of the time that NumPy takes
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import NoReturn, Self

EXIT_INTERRUPTED = 130
GRACE_SECONDS = 5.0  # to close what is open; a kernel's call lasts a fraction of it, a compilation longer


def _is_command() -> bool:
    """Tell if this process is `fastgrad` or `python -m fastgrad`: neither a program that imports it, nor a worker.

    ``sys.argv[0]`` tells too little: it is ``-m`` while a module is looked for, and a spawned worker has its parent's.
    """
    program = sys.orig_argv[-len(sys.argv) :][:1] if sys.argv else []
    name = os.path.basename("".join(program).removeprefix("-m"))  # noqa: PTH119 (pathlib takes 10 ms)
    return name in ("fastgrad", "fastgrad.exe", "fastgrad-script.py")


def _end(*_: object) -> NoReturn:
    """End this process now, with a line that says why."""
    try:
        os.write(2, b"fastgrad: interrupted\n")
    except OSError:
        pass  # nobody listens
    finally:
        os._exit(EXIT_INTERRUPTED)


class RaisedOnce:
    """Let Ctrl-C raise KeyboardInterrupt once; what it leaves open is then closed, however often it is pressed again.

    The command ends in any case when `GRACE_SECONDS` have passed, also if the exception is lost on its way.
    """

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        self._report_unraisable = sys.unraisablehook
        try:
            if self._before in (signal.default_int_handler, _end):  # and not ignored, as in a shell's background
                signal.signal(signal.SIGINT, self._interrupt)
                sys.unraisablehook = self._unraisable
        except ValueError:  # not the main thread, which alone hears signals
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._report_unraisable
        if self.pressed and COMMAND:
            self._timer.cancel()
            _after(GRACE_SECONDS, os._exit, EXIT_INTERRUPTED)  # Python's own end may wait for threads
        elif self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, *_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if COMMAND and not self.pressed:
            self._timer = _after(GRACE_SECONDS, _end)
        self.pressed = True
        raise KeyboardInterrupt

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Press again where the exception came in a finalizer or callback, which can't hand it on."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.signal(signal.SIGINT, self._interrupt)
            _after(0.01, signal.raise_signal, signal.SIGINT)
        else:
            self._report_unraisable(unraisable)


def _after(seconds: float, function: Callable[..., object], *arguments: object) -> threading.Timer:
    """Call a function later, unless Python ends before."""
    import threading

    timer = threading.Timer(seconds, function, arguments)
    timer.daemon = True
    timer.start()
    return timer


COMMAND = _is_command()
if COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)  # imports leave nothing to close
