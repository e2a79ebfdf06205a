"""Versions, the compiled extension, and the processor that run here."""

from __future__ import annotations

import contextlib
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from fastgrad._version import __version__
from fastgrad.jobs.threads import default_threads
from fastgrad.kernels import BACKENDS, BackendUnavailableError, load

PACKAGES = ("numpy", "numba", "llvmlite", "click", "rich", "plotille", "threadpoolctl", "psutil", "matplotlib", "torch")


def build_info() -> dict[str, Any]:
    """Versions, compiler and flags, instruction set, threads and CPU, ready for JSON.

    Returns
    -------
    dict
        ``fastgrad``, ``python`` and ``packages`` (versions; None if absent), ``backends`` (name to "available" or the
        reason why not, fastest first), ``compiler`` and ``compile_flags`` of the extension (None without it),
        ``instruction_set``, ``threads`` (that this process may use), ``cpu`` and ``platform``.
    """
    backends: dict[str, str] = {}
    build: dict[str, str] = {}
    for name in BACKENDS:
        try:
            build |= load(name)[1].build()
            backends[name] = "available"
        except BackendUnavailableError as error:
            backends[name] = str(error)
    return {
        "fastgrad": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "backends": backends,
        **{name: build.get(name) for name in ("compiler", "compile_flags", "instruction_set")},
        "threads": default_threads(),
        "cpu": cpu_name(),
        "platform": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Name of the processor as the operating system tells it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def provenance(backend: str | None, seed: int | None) -> dict[str, Any]:
    """Provenance of a result: versions, backend, instruction set, seed; ready for JSON.

    `backend` is None where several ran; the instruction set is then that of the first that was compiled for one.
    """
    return {
        "fastgrad": __version__,
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "numba": _version("numba"),
        "backend": backend,
        "instruction_set": instruction_set(backend),
        "seed": seed,
        "cpu": cpu_name(),
        "platform": platform.platform(),
    }


def instruction_set(backend: str | None) -> str | None:
    """Instruction set that a backend was compiled for and uses here; of the first that has one, if none is named."""
    for name in [backend] if backend else BACKENDS:
        with contextlib.suppress(BackendUnavailableError):
            name_found = load(name)[1].build().get("instruction_set")
            if name_found:
                return name_found
    return None
