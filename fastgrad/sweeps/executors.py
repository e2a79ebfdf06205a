"""Executors of a sweep's points: processes of this machine, or a Dask cluster.

Both are an ``Executor`` as a context manager, and raise ChildProcessError for what has lost its workers.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from fastgrad.jobs.threads import default_threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

CONNECT_SECONDS = 8  # to reach a scheduler
ENVIRONMENT = {
    # A worker has one processor: so many threads for the linear algebra of the theory.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",  # the process that plans the sweep has shown them
}


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Workers that are spawned here, and end with this process, however it ends.

    Raises
    ------
    ChildProcessError
        If one was killed.
    """
    import multiprocessing

    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _environment(), ProcessPoolExecutor(workers, context, initializer=_exit_with_parent) as pool:
        with _sigint_blocked():
            for _ in range(workers):
                pool.submit(os.getpid)  # a worker is spawned for each
        try:
            yield pool
        except BaseException as error:
            manager = getattr(pool, "_executor_manager_thread", None)
            with suppress(BrokenExecutor):
                dropped = threading.Event()
                pool.submit(os.getpid).add_done_callback(lambda _: dropped.set())
                pool.shutdown(wait=False, cancel_futures=True)
                dropped.wait(timeout=1)  # the pool would trip over canceled points that it still had when it broke
            for worker in set(multiprocessing.active_children()) - before:
                worker.terminate()  # in the middle of its point
            if manager is not None:  # Python's end would write to a pipe that this thread is about to close
                manager.join(timeout=5)
            if isinstance(error, BrokenExecutor):
                raise ChildProcessError("a worker process was killed, perhaps for want of memory") from None
            raise


def _exit_with_parent() -> None:
    """End this worker when the process that spawned it has ended, also by kill -9."""
    from multiprocessing import parent_process

    def follow() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _environment() -> Iterator[None]:
    """Set variables of the environment that workers inherit which are spawned within."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Start threads and processes with SIGINT blocked: only the main thread of this process handles Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which would undo the mask if it were started by the first process
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def cluster(scheduler: str, workers: int | None = None) -> Iterator[Executor]:
    """Connect to a Dask cluster by its scheduler's address, or start one here: "local", with so many workers.

    Dask runs the points of a lost worker on another.

    Raises
    ------
    ModuleNotFoundError
        Without Dask.
    OSError
        If the scheduler can't be reached.
    ChildProcessError
        If points killed their workers time and again, or the scheduler is lost.
    """
    with _environment(), ExitStack() as stack:
        try:
            import distributed
            from distributed.comm import CommClosedError
            from distributed.scheduler import KilledWorker
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"scheduler: {error.name} is missing; pip install 'fastgrad[cluster]'") from None
        for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its log would drown what is said here
        with _sigint_blocked():
            address = scheduler
            if scheduler == "local":
                address = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=workers or default_threads(),
                        threads_per_worker=1,
                        dashboard_address=None,
                        silence_logs=logging.CRITICAL,
                    )
                )
            try:
                client = stack.enter_context(distributed.Client(address, timeout=CONNECT_SECONDS))
            except (OSError, ValueError) as error:  # not reached, or no address
                raise type(error)(f"scheduler: {error}") from None
        try:
            yield client.get_executor()
        except (CancelledError, KilledWorker, CommClosedError) as error:
            raise ChildProcessError(f"the cluster has lost points, or its scheduler ({type(error).__name__})") from None
