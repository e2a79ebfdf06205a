"""The table of backends, and how one is loaded. Their contract is `fastgrad.kernels.contract`."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from fastgrad.kernels.constants import KERNEL_VERSION
from fastgrad.kernels.contract import (
    Backend,
    BackpropJob,
    LayersJob,
    Limits,
    PropagateJob,
    ScaledArrays,
    ScaledVectors,
    Segments,
    State,
    TrainJob,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BACKENDS",
    "KERNEL_VERSION",
    "Backend",
    "BackendName",
    "BackendUnavailableError",
    "BackpropJob",
    "Entry",
    "LayersJob",
    "Limits",
    "PropagateJob",
    "ScaledArrays",
    "ScaledVectors",
    "Segments",
    "State",
    "TrainJob",
    "available_backends",
    "load",
]

BackendName = Literal["cpp", "numba", "numpy"]


class Entry(NamedTuple):
    """A backend in the table."""

    module: str
    remedy: str  # for its absence
    arithmetic: str  # backends of one arithmetic return equal bits


# Fastest first: the order in which "auto" tries them. The last is the definition of what the others compute.
BACKENDS: dict[BackendName, Entry] = {
    "cpp": Entry(
        "fastgrad.kernels.native", "install the package with a C++17 compiler at hand: pip install .", "compiled"
    ),
    "numba": Entry("fastgrad.kernels.jit", "pip install numba", "compiled"),
    "numpy": Entry("fastgrad.kernels.reference", "pip install numpy", "numpy"),
}


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name and can't run here; the message says why and what mends it."""


def load(name: str) -> tuple[BackendName, Backend]:
    """Import a backend.

    Parameters
    ----------
    name : {"auto", "cpp", "numba", "numpy"}
        "auto" is the fastest that is available.

    Returns
    -------
    name : str
        Of the backend that was loaded.
    backend : module

    Raises
    ------
    ValueError
        If there is no backend of this name, or FASTGRAD_ISA names an instruction set that does not run here.
    BackendUnavailableError
        If the one that was named can't run here.
    """
    if name == "auto":
        for each, entry in BACKENDS.items():
            module = _imported(entry.module)  # None too for what must not be imported: then `load` says so
            if module is not None:
                return each, module
            with contextlib.suppress(BackendUnavailableError):
                return load(each)
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"backend: unknown backend {name!r}, expected auto, {', '.join(BACKENDS)}")
    entry = BACKENDS[name]
    loaded = _imported(entry.module)
    if loaded is not None:
        return name, loaded
    try:
        return name, cast("Backend", importlib.import_module(entry.module))
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise BackendUnavailableError(
            f"backend: {name} is not available ({reason}); to mend it: {entry.remedy}"
        ) from error


def _imported(module: str) -> Backend | None:
    """Return a module that has been imported, and not one that another thread is importing."""
    found = sys.modules.get(module)
    if found is None or getattr(found.__spec__, "_initializing", False):
        return None
    return cast("Backend", found)


def _loadable() -> Iterator[tuple[BackendName, Backend]]:
    for name in BACKENDS:
        with contextlib.suppress(BackendUnavailableError):
            yield load(name)


def available_backends() -> list[BackendName]:
    """Names of the backends that can run here, fastest first."""
    return [name for name, _ in _loadable()]
