"""A model from somebody's own code: a file or module with a function that makes a loss."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastgrad.torch.measure import measure_loss
from fastgrad.torch.recording import recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from fastgrad.torch.measurement import Measurement
    from fastgrad.torch.recording import Recording


MODULE_NAME = "_fastgrad_measured"  # of a file's module: neither __main__, nor one that something else imports
FUNCTION = "build"


class ScriptError(Exception):
    """The code raised an error, or what it returned can't be measured."""


def measure_script(target: str, *, check: bool = False, layers: str | None = None) -> Measurement:
    """Run a function that makes a loss, and measure the gradient through the modules that ran.

    The code runs as ``python`` would run it, with all that it does; what it prints goes to stderr.

    Parameters
    ----------
    target : str
        ``FILE.py:NAME`` or ``module:NAME``; NAME is "build" if it is left out. The function is called without
        arguments, and returns a scalar loss, or a model and its loss.
    check, layers
        As for `measure`.

    Raises
    ------
    ValueError
        If there is no such file, module or function.
    ScriptError
        If the code raises, or the loss can't be measured.
    """
    place, name = _split(target)
    with _as_python_would(place), contextlib.redirect_stdout(sys.stderr):
        module = _imported(place)
        function = getattr(module, name, None)
        if not callable(function):
            raise ValueError(f"target: {place} has no function {name!r}")
        with recording() as calls:
            returned = _run(f"{place}:{name}", place, function)
        model, loss = _model_and_loss(returned, f"{place}:{name}", calls)
        try:
            return measure_loss(loss, model, calls, check=check, layers=layers)
        except (TypeError, ValueError) as error:
            raise ScriptError(f"{place}:{name}: {error}") from error


def _split(target: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier():
        place, name = target.removesuffix(":"), FUNCTION
    if not place:
        raise ValueError(f"target: expected FILE.py:{FUNCTION} or module:{FUNCTION}, got {target!r}")
    return place, name


def _is_file(place: str) -> bool:
    return place.endswith(".py") or Path(place).name != place


@contextlib.contextmanager
def _as_python_would(place: str) -> Iterator[None]:
    """Let imports begin in the file's folder, or in the present one for a module; sys.argv holds the place alone."""
    path, arguments = sys.path[:], sys.argv
    sys.path.insert(0, str(Path(place).resolve().parent) if _is_file(place) else str(Path.cwd()))
    sys.argv = [place]
    try:
        yield
    finally:
        sys.path[:], sys.argv = path, arguments
        sys.modules.pop(MODULE_NAME, None)


def _imported(place: str) -> ModuleType:
    if not _is_file(place):
        found = _run(place, place, lambda: _found(place))
        if found is None:
            raise ValueError(f"target: no module named {place!r}; a file's name ends in .py")
        return _run(place, found.origin or place, lambda: importlib.import_module(place))  # type: ignore[no-any-return]
    if not Path(place).is_file():
        raise ValueError(f"target: no file {place!r}")
    spec = importlib.util.spec_from_file_location(MODULE_NAME, place)
    if spec is None or spec.loader is None:
        raise ValueError(f"target: expected a file of Python code, ending in .py, got {place!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    _run(place, place, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    return module


def _found(place: str) -> ModuleSpec | None:
    """Find a module; this runs the packages that it is in."""
    if not all(part.isidentifier() for part in place.split(".")):
        return None
    try:
        return importlib.util.find_spec(place)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{place}.".startswith(f"{error.name}."):
            return None
        raise


def _run(what: str, file: str, function: Callable[[], Any]) -> Any:
    """Call somebody's code; an error is told in one line, with the last line of the file that it went through."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if _same(frame.filename, file)]
        if isinstance(error, SyntaxError) and error.filename and _same(error.filename, file):
            lines.append(error.lineno)
        at = f" at line {lines[-1]}" if lines else ""
        said = f": {error}" if str(error) else ""
        raise ScriptError(f"{what} raised {type(error).__name__}{at}{said}") from error


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _model_and_loss(returned: Any, what: str, calls: Recording) -> tuple[torch.nn.Module, torch.Tensor]:
    if isinstance(returned, tuple) and len(returned) == 2:
        model, loss = returned
    else:
        model, loss = None, returned
    if not isinstance(loss, torch.Tensor) or not (model is None or isinstance(model, torch.nn.Module)):
        inside = f" of {', '.join(type(each).__name__ for each in returned)}" if isinstance(returned, tuple) else ""
        kind = f"{type(returned).__name__}{inside}"
        raise ScriptError(f"{what}: expected a loss, or a model and a loss, got a {kind}")
    if model is None:
        model = _whole(calls)
        if model is None:
            raise ScriptError(
                f"{what}: no module ran, so that there is nothing to measure; return the model and the loss"
            )
    return model, loss


def _whole(calls: Recording) -> torch.nn.Module | None:
    """The model that ran: the module that holds all others, or a dict of those that no other one holds."""
    ran = list(dict.fromkeys(call.module for call in calls.calls))
    inside = {inner for module in ran for inner in module.modules() if inner is not module}
    outermost = [module for module in ran if module not in inside]
    if len(outermost) < 2:
        return outermost[0] if outermost else None
    names: dict[str, torch.nn.Module] = {}
    for module in outermost:
        name = type(module).__name__
        taken = sum(each.rstrip("0123456789_") == name for each in names)
        names[f"{name}_{taken + 1}" if taken else name] = module
    return torch.nn.ModuleDict(names)
