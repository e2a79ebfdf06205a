"""Sweeps: run the points that a store does not have, here or on an executor."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from functools import cache, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from fastgrad.checks import TooLargeError, integer, require_memory, require_progress
from fastgrad.info import provenance
from fastgrad.jobs.parameters import EXECUTION_ARGUMENTS, JobName
from fastgrad.jobs.threads import THREADS_MAX
from fastgrad.kernels import KERNEL_VERSION, BackendName
from fastgrad.sweeps.plan import (
    Plan,
    Point,
    Result,
    identity_of,
    job_function,
    plan,
    point_key,
    point_text,
)
from fastgrad.sweeps.points import flat_row, growth_result, training_result
from fastgrad.sweeps.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from concurrent.futures import Executor, Future


POINTS_IN_FLIGHT = 1000  # points that wait in an executor: enough for a cluster, and little memory for a huge grid


def sweep(
    grid: Mapping[str, Iterable[Any]],
    *,
    job: JobName = "simulate",
    store: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    **job_arguments: Any,
) -> list[dict[str, Any]]:
    """Run a job at every point of a grid.

    Parameters
    ----------
    grid : dict
        The values of each parameter that varies; the points are their Cartesian product. A key is a parameter of the
        job (``depth``, ``weight`` …), or of one of its laws (``weight.std``, ``bias.mean``), which changes the law that
        is given otherwise. Points with equal parameters are one point.
    job : {"simulate", "train"}
        `simulate` or `train_drawn`.
    store : path, optional
        An SQLite file that keeps the results. What it has already is not run again: an interrupted sweep goes on, and a
        grid can grow.
    executor : concurrent.futures.Executor, optional
        What runs the points: ``ProcessPoolExecutor`` (with the start method "spawn"), or
        ``dask.distributed.Client(…).get_executor()``; each point then has one thread. By default the points run here,
        one after the other, each on all threads.
    **job_arguments
        What the job takes; but ``progress`` is called as ``progress(points_done, points)``.

    Returns
    -------
    list of dict
        One for each point, in the grid's order: its parameters, those of its laws (``weight.std``), and its results.
        What is not finite or has no value is None, with ``<key>_why`` beside it where there is more to say.

        simulate: ``lyapunov`` and ``lyapunov_stderr`` (finite-depth), ``stationary``, ``stationary_stderr`` and
        ``stationary_link`` (after the start is forgotten), and ``bound_rate``; ``theory`` and ``theory_bound``, which
        are what `theory.predict` says of the two rates (all in nats per link), and of layers ``theory_holds_for``;
        ``zero_share``, ``float32_underflow`` and the like as in `Growth.summary`.

        train: the shares of the chains by status, and ``unchanged``, as in `Training.summary`; ``median_loss``, after
        the last step; and ``median_step``, since which the converged chains have been so.

    Raises
    ------
    TypeError, ValueError
        For bad input, with the parameter's name; for a store of another job, kernel version or arithmetic; and where
        the job raises one at a point, which is then named.
    BackendUnavailableError
        If the backend that was named can't run here.
    OSError
        If the store can't be read or written. The points that were finished before are kept.

    Examples
    --------
    >>> import fastgrad as fg
    >>> rows = fg.sweep({"weight.std": [1, 4, 16]}, depth=1000, ensemble=100)
    >>> [round(row["lyapunov"], 2) for row in rows]
    [-2.09, -1.49, -4.7]
    """
    options = {name: job_arguments.pop(name) for name in EXECUTION_ARGUMENTS if name in job_arguments}
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor: expected a concurrent.futures.Executor, got {executor!r}")
    require_progress(options.get("progress"))
    if options.get("threads") is not None:
        integer("threads", options["threads"], 1, THREADS_MAX)
    planned = plan(grid, job, options.pop("backend", "auto"), **job_arguments)
    with ExitStack() as stack:
        kept = None if store is None else stack.enter_context(Store.write(store, planned.identity))
        return run(planned, kept, executor, **options)


def stored_results(planned: Plan, store: Store | None) -> dict[str, Result]:
    """Results that a store has of the points of a sweep, by key; those that are damaged are not among them."""
    if store is None:
        return {}
    return {key: point.result for key, point in store.contents.points.items() if key in planned.points}


def run(
    planned: Plan,
    store: Store | None = None,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the points of a sweep that the store does not have, and write each as soon as it is finished.

    Only this process writes the store. Parameters, rows and errors are those of `sweep`.
    """
    results = stored_results(planned, store)
    waiting = [key for key in planned.points if key not in results]
    calls = run_locally(planned, waiting, threads) if executor is None else run_on_executor(executor, planned, waiting)

    def report_progress() -> None:
        if progress is not None:
            progress(len(results), len(planned.points))

    report_progress()
    with closing(calls):
        for key, call in calls:
            point = planned.points[key]
            try:
                outcome = call()
            except (ValueError, TypeError, MemoryError) as error:
                kinds = (TooLargeError, ValueError, TypeError, MemoryError)
                raise next(kind for kind in kinds if isinstance(error, kind))(
                    f"{point_text(point)}: {error}"
                ) from error
            if store is not None:
                store.add(key, point, **outcome)
            results[key] = outcome["result"]
            report_progress()
    return [flat_row(planned.job, point, results[key]) for key, point in planned.points.items()]


Calls = Generator[tuple[str, Callable[[], dict[str, Any]]], None, None]


def run_locally(planned: Plan, keys: list[str], threads: int | None) -> Calls:
    """Calls of `run_point`, one after the other: a point has all threads, and Ctrl-C reaches it."""
    if keys:
        taken, largest = max((planned.bytes_of(planned.points[key], threads), key) for key in keys)
        require_memory(point_text(planned.points[largest]), taken)

    def quiet(key: str) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the backend: the check has shown them
            return run_point(planned.job, planned.backend, key, planned.points[key], threads)

    for key in keys:
        yield key, partial(quiet, key)


def run_on_executor(executor: Executor, planned: Plan, keys: list[str]) -> Calls:
    """Results of `run_point` on an executor, as they are finished; those that still wait at the end are canceled."""
    running: dict[Future[dict[str, Any]], str] = {}
    finished: SimpleQueue[Future[dict[str, Any]]] = SimpleQueue()
    waiting = iter(keys)

    def submit(count: int) -> None:
        for key in itertools.islice(waiting, count):
            future = executor.submit(run_point, planned.job, planned.backend, key, planned.points[key], 1)
            running[future] = key
            future.add_done_callback(finished.put)

    try:
        submit(POINTS_IN_FLIGHT)
        while running:
            future = finished.get()
            yield running.pop(future), future.result
            submit(1)
    finally:
        for future in running:
            future.cancel()


def run_point(
    job: JobName,
    backend: BackendName,
    key: str,
    point: Point,
    threads: int | None,
) -> dict[str, Any]:
    """Run one point, in whatever process: plain values in and out.

    Returns
    -------
    dict
        ``result``, ``provenance`` and ``seconds``.

    Raises
    ------
    ValueError
        If this process has another version of the kernels.
    """
    if key != point_key(identity_of(job, backend), point):
        raise ValueError(f"this worker's fastgrad has kernels of another version ({KERNEL_VERSION}) than the sweep")
    start = time.perf_counter()
    measured = job_function(job)(**point, backend=backend, threads=threads)
    result = growth_result(measured, point["x"]) if job == "simulate" else training_result(measured)
    seconds = time.perf_counter() - start
    return {"result": result, "provenance": {**_provenance(backend), "seed": point["seed"]}, "seconds": seconds}


@cache
def _provenance(backend: BackendName) -> dict[str, Any]:
    return provenance(backend, None)
