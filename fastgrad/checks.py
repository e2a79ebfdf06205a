"""Checks of arguments and of memory: an error names the argument, what was wrong, and what was expected."""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


MEMORY_ASKED_FROM = 2**20  # bytes: asking takes longer than a smaller job


class TooLargeError(ValueError, MemoryError):
    """The request would not fit in memory, or would take longer than anyone waits."""


def one_line(error: Exception) -> str:
    """Return an error's text in one line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def real_array(name: str, values: ArrayLike, finite: bool = True) -> Floats:
    """Convert to float64, refusing what is not real numbers, masked, and, if `finite`, what is NaN or infinite.

    Raises
    ------
    TypeError, ValueError
        Naming the argument and, for a value that is not finite, its index.
    """
    if type(values) is np.ndarray and values.dtype == np.float64 and values.dtype.isnative:  # as nearly always
        if finite:
            require_finite(name, values)
        return values
    if has_masked(values):
        raise TypeError(f"{name}: has masked entries, expected a number everywhere")
    try:
        given = np.asarray(values)
    except MemoryError:
        raise
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"{name}: not an array ({one_line(error)})") from None
    except Exception as error:  # an object that refuses, each kind in its own way
        raise TypeError(f"{name}: not an array ({one_line(error)})") from None
    if given.dtype == np.float64:
        values64 = given.astype(np.float64, copy=False)  # in the byte order of this machine
    elif given.dtype.kind in "iuf":
        with np.errstate(over="ignore"):  # a long double beyond float64 becomes inf, and is refused below
            values64 = given.astype(np.float64)
    else:
        raise TypeError(f"{name}: expected real numbers, got {_kind_of(given)}")
    if finite:
        require_finite(name, values64)
    return values64


def has_masked(values: Any, nested: int = 0) -> bool:
    """Tell if a masked array, or a list of them, hides a value, which NumPy would read as a number all the same."""
    if isinstance(values, np.ma.MaskedArray):
        return bool(np.ma.is_masked(values))
    if isinstance(values, list | tuple) and nested < 64:  # the most axes that an array can have
        deeper = (list, tuple, np.ma.MaskedArray)
        return any(has_masked(value, nested + 1) for value in values if isinstance(value, deeper))
    return False


def _kind_of(array: NDArray[Any]) -> str:
    """Name what an array holds that is no real number: its dtype, or the type of its first object."""
    if array.dtype != object or not array.size:
        return str(array.dtype)
    first = array.flat[0]
    if isinstance(first, int):
        return "object (an integer beyond 64 bits)"
    return f"object ({type(first).__name__})"


def require_finite(name: str, values: Floats) -> None:
    """Raise ValueError with the index of the first value that is NaN or infinite."""
    found = np.isfinite(values)
    if np.count_nonzero(found) < found.size:
        where = tuple(int(i) for i in np.argwhere(~found)[0])
        place = f" at index [{', '.join(map(str, where))}]" if where else ""
        raise ValueError(f"{name}: expected finite numbers, got {values[where]}{place}")


def per_member(name: str, values: ArrayLike, ensemble: int) -> Floats:
    """One value a member: a number, or an array of shape (ensemble,)."""
    if type(values) is float and math.isfinite(values):
        return np.full(ensemble, values)
    given = real_array(name, values)
    if given.shape == (ensemble,):
        return np.ascontiguousarray(given)
    if given.shape != ():
        raise ValueError(f"{name}: expected a number or shape ({ensemble},), got {given.shape}")
    return np.full(ensemble, given)


def integer(name: str, value: Any, low: int, high: int) -> int:
    """An integer from `low` to `high`; TypeError or ValueError that names the argument otherwise."""
    if isinstance(value, bool | np.bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {number}")
    return number


def require_progress(progress: object) -> None:
    """Refuse what can't be called with progress; None is no function and right.

    Raises
    ------
    TypeError
        Naming the argument.
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: expected a function of two numbers, got {progress!r}")


def require_memory(what: str, n_bytes: int) -> None:
    """Refuse what would not fit in the memory that is free now.

    Raises
    ------
    TooLargeError
        Which is a ValueError and a MemoryError, with the size it would take.
    """
    if n_bytes < MEMORY_ASKED_FROM:
        return
    free = free_memory()
    if n_bytes > free:
        raise TooLargeError(f"{what} would take {size_text(n_bytes)} of memory, and {size_text(free)} are free")


def free_memory() -> int:
    """Bytes that this process can still take: of the machine, of its control groups and of its address space."""
    import psutil  # here: only what is large needs it

    free = [psutil.virtual_memory().available, *_free_in_groups(Path("/"))]
    try:
        import resource
    except ImportError:  # on Windows
        return int(free[0])
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(max(0, limit - psutil.Process().memory_info().vms))
    return int(min(free))


def _free_in_groups(root: Path) -> Iterator[int]:
    """Yield what the control groups of this process (Linux: containers, batch jobs) leave free, of either version.

    A group's own limit and those of the groups that it is in hold. Pages of files count as free: the kernel drops them
    when memory runs short.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, limit, usage, prefix = root / "sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            limit, usage, prefix = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        group = top / path.lstrip("/")
        # In a container the path is often the host's, and the group itself is mounted at the top.
        for folder in (group, *(of for of in group.parents if of.is_relative_to(top))):
            try:
                allowed = int((folder / limit).read_text())
                used = int((folder / usage).read_text())
                kept = dict(each.split() for each in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group, or its limit is "max"
                continue
            files = sum(int(kept.get(f"{prefix}{name}", 0)) for name in ("active_file", "inactive_file"))
            yield max(0, allowed - used + files)


def size_text(n_bytes: float) -> str:
    """Write a number of bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.3g} EiB"
