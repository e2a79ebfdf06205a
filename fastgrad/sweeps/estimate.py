"""Time and memory that a sweep would take."""

from __future__ import annotations

import statistics
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

from fastgrad.sweeps.plan import WORK_PARAMETERS, Plan, Point, job_function, point_key, work_of
from fastgrad.sweeps.run import run_point, stored_results

if TYPE_CHECKING:
    from fastgrad.sweeps.store import Store


PIECE_LINKS = 200_000  # that are timed for an estimate


class Estimate(NamedTuple):
    """Memory and time that a sweep would take.

    Attributes
    ----------
    done : set of str
        Keys of the points that the store has.
    memory : int
        Bytes, for the points that run at the same time.
    together : int
        How many those are.
    seconds : float
        For the points that the store does not have.
    source : str
        What the seconds are estimated from.
    """

    done: set[str]
    memory: int
    together: int
    seconds: float
    source: str


def estimate(planned: Plan, store: Store | None, together: int = 1, threads: int | None = None) -> Estimate:
    """Estimate what a sweep would take: from the points of its store, or from a piece of its first point.

    Parameters
    ----------
    planned : Plan
    store : Store or None
    together : int
        Points that run at the same time.
    threads : int, optional
        Of each point, whose memory depends on them. By default all processors.
    """
    done = set(stored_results(planned, store))
    known = [] if store is None else store.seconds()
    sizes = [name for name in (*WORK_PARAMETERS, "width") if name in planned.points.columns]
    waiting = planned.points.counts(*sizes, without=frozenset(done))
    if not waiting:
        seconds, source = 0.0, "nothing that is left to do"
    elif known:
        seconds = sum(waiting.values()) * statistics.median(known)
        source = f"the median of {len(known)} points in the store"
    else:
        piece = _piece(planned)
        a_link, beside = _timed(planned, piece)
        works = ((work_of(dict(zip(sizes, of, strict=True))), count) for of, count in waiting.items())
        seconds = sum(count * (beside + a_link * work) for work, count in works)
        source = f"{work_of(piece)} {'links' if piece.get('width', 1) == 1 else 'weights'} of the first point"
    return Estimate(done, together * planned.point_bytes(threads), together, seconds / together, source)


def _piece(planned: Plan) -> Point:
    """Take a piece of the first point."""
    piece = dict(next(iter(planned.points.values())))
    for size in reversed(WORK_PARAMETERS):
        if size in piece:
            piece[size] = max(1, min(piece[size], piece[size] * PIECE_LINKS // work_of(piece)))
    return piece


def _timed(planned: Plan, piece: Point) -> tuple[float, float]:
    """Run a piece of a point: its seconds a link or weight, and its seconds beside the kernel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        job_function(planned.job)(**piece, backend=planned.backend, threads=1)
        kernel = time.perf_counter() - start
        whole = run_point(planned.job, planned.backend, point_key(planned.identity, piece), piece, 1)["seconds"]
    return kernel / work_of(piece), max(0.0, whole - kernel)
