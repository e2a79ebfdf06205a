"""Threads: the one place that knows about them.

Kernels are serial and release the GIL; here they run on disjoint slices of the ensemble, the same way for every
backend. A pool lives as long as one job, so that nothing is left behind for a fork to break.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from fastgrad.checks import integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

# Members. Slices are multiples of this, so that threads cut no block of the C++ kernels (32 members) in two.
SLICE_MIN = 64
THREADS_MAX = 4096
INLINE_LINKS_MAX = 2**16  # on the calling thread: a millisecond


def default_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Threads:
    """Runs a kernel over an ensemble on several threads; a context manager.

    Parameters
    ----------
    threads : int or None
        How many; None for all processors that this process may use.
    links : int, optional
        Links of all members, if they are all the work. Up to `INLINE_LINKS_MAX` they are run on the calling thread:
        handing them over would take as long, and they end before Ctrl-C could be missed.

    Raises
    ------
    TypeError, ValueError
        If `threads` is not an integer from 1.
    """

    def __init__(self, threads: int | None, links: int | None = None) -> None:
        self._is_inline = links is not None and links <= INLINE_LINKS_MAX
        if threads is not None:
            self.count = integer("threads", threads, 1, THREADS_MAX)
        else:
            self.count = 1 if self._is_inline else default_threads()
        self._pool: ThreadPoolExecutor | None = None  # made for the first call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(
        self,
        kernel: Callable[[int, int], None],
        ensemble: int,
        at_most: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Call ``kernel(start, stop)`` for slices that make up the ensemble, and wait.

        Parameters
        ----------
        at_most : int, optional
            Members of a slice, rounded up to whole blocks; a slice is a call, and has to end before Ctrl-C is heard.
        progress : callable, optional
            Called with the number of members done.
        """
        if self._is_inline:
            kernel(0, ensemble)
            if progress is not None:
                progress(ensemble)
            return
        parts = list(slices(ensemble, self.count, at_most))
        report_progress = None if progress is None else lambda done: progress(parts[done - 1][1])
        self.run_all([partial(kernel, *part) for part in parts], report_progress)

    def run_all(self, calls: Sequence[Callable[[], None]], progress: Callable[[int], None] | None = None) -> None:
        """Make calls at the same time, and wait for all of them; `progress` is called with how many are done.

        But for small work even a single one runs on a thread of the pool: the main thread waits where Ctrl-C can wake
        it.
        """
        if self._is_inline:
            for done, call in enumerate(calls, 1):
                call()
                if progress is not None:
                    progress(done)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count)
        futures = [self._pool.submit(call) for call in calls]
        try:
            for done, future in enumerate(futures, 1):
                future.result()
                if progress is not None:
                    progress(done)
        except BaseException:
            _end(futures)
            raise


def _end(futures: Sequence[Future[None]]) -> None:
    """Wait until no call runs any more, however often Ctrl-C is pressed meanwhile.

    A second one would end the wait for the threads, and Python must not end before them: that aborts the process.
    """
    while True:
        try:
            for future in futures:
                future.cancel()
            wait(futures)
            return
        except KeyboardInterrupt:
            continue


def slices(ensemble: int, count: int, at_most: int | None = None) -> Iterator[tuple[int, int]]:
    """Cut 0 … ensemble into ranges of whole blocks, as even as blocks allow: `count` of them, or more."""
    blocks = -(-ensemble // SLICE_MIN)
    count = min(count, blocks)
    if at_most is not None:
        count = max(count, -(-blocks // -(-at_most // SLICE_MIN)))
    edges = [min(ensemble, SLICE_MIN * (blocks * i // count)) for i in range(count + 1)]
    return pairwise(edges)
