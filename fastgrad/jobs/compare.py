"""The same job on every available backend: agreement first, then time."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from fastgrad.chain import DEFAULT_X, agreement_rtol
from fastgrad.checks import integer, require_progress
from fastgrad.jobs.backprop import Gradients, backprop
from fastgrad.jobs.draw import draw
from fastgrad.jobs.simulate import simulate
from fastgrad.kernels import BACKENDS, BackendName, available_backends
from fastgrad.scaled import LN_2, Scaled, log2_distance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from fastgrad.jobs.growth import Growth
    from fastgrad.laws import LawLike

Job = Literal["backprop", "simulate"]
REFERENCE: BackendName = list(BACKENDS)[-1]
FIELDS = {
    "backprop": ("grad_weight", "grad_bias", "grad_x"),
    "simulate": ("adjoint", "grad_weight", "grad_bias", "bound"),
}


class Speed(NamedTuple):
    """Time of a backend over the rounds, in seconds a call, and its speedup, t_reference / t_backend of each round."""

    median_s: float
    min_s: float
    max_s: float
    ns_per_link: float  # of each chain; the median
    speedup: float  # the median
    speedup_low: float
    speedup_high: float


@dataclass(frozen=True)
class BackendTimes:
    """One backend's part of a comparison.

    Attributes
    ----------
    distance : float
        Largest ``|ln |a/b||`` from the reference over all gradients and outputs, in units of `agreement_rtol`; inf
        where signs, zeros or non-finite values differ. Agreement is at most 1.
    same_bits_as : list of str
        Other backends whose results are equal bit for bit.
    warm_up : float
        Seconds of the first call, JIT compilation or the loading of its cache included.
    seconds : list of float
        Of each timed call; the backends take turns. Empty if the backends disagree: nothing was timed.
    """

    backend: BackendName
    distance: float
    same_bits_as: list[BackendName]
    warm_up: float
    seconds: list[float]


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`: the backends in the order of `available_backends`, the reference last."""

    job: Job
    links: int
    backends: list[BackendTimes]

    @property
    def agree(self) -> bool:
        """Tell if every backend is within its bound of the reference, and those of one arithmetic have equal bits."""
        bits = all(
            other.backend in row.same_bits_as
            for row in self.backends
            for other in self.backends
            if other is not row and BACKENDS[other.backend].arithmetic == BACKENDS[row.backend].arithmetic
        )
        return bits and all(row.distance <= 1 for row in self.backends)

    def speedup(self, row: BackendTimes) -> list[float]:
        """t_reference / t_backend of each round."""
        reference = next(other for other in self.backends if other.backend == REFERENCE)
        return [r / s for r, s in zip(reference.seconds, row.seconds, strict=True)]

    def speed(self, row: BackendTimes) -> Speed | None:
        """Median and range of a backend's rounds; None where nothing was timed."""
        if not row.seconds:
            return None
        median, speedup = statistics.median(row.seconds), self.speedup(row)
        return Speed(
            median_s=median,
            min_s=min(row.seconds),
            max_s=max(row.seconds),
            ns_per_link=1e9 * median / self.links,
            speedup=statistics.median(speedup),
            speedup_low=min(speedup),
            speedup_high=max(speedup),
        )


def compare(
    job: Job = "backprop",
    depth: int = 1000,
    ensemble: int = 1000,
    weight: LawLike = "normal:std=4",
    bias: LawLike = "zero",
    seed: int = 0,
    repeats: int = 7,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run a job on every available backend.

    Parameters
    ----------
    job : {"backprop", "simulate"}
        Gradients of chains that were drawn beforehand, their memory reused; or drawing and growing them.
    depth, ensemble, weight, bias, seed
        As for `simulate`.
    repeats : int
        Timed rounds, from 2; in each every backend runs once.
    threads : int, optional
        For every backend alike.
    progress : callable, optional
        Called as ``progress(rounds_done, repeats)``.

    Returns
    -------
    Comparison
    """
    require_progress(progress)
    if job not in FIELDS:
        raise ValueError(f"job: expected backprop or simulate, got {job!r}")
    repeats = integer("repeats", repeats, 2, 10**6)
    w, b = draw(depth, ensemble, weight, bias, seed)
    names = available_backends()
    outs: dict[BackendName, Gradients] = {}

    def run(name: BackendName) -> Gradients | Growth:
        if job == "simulate":
            return simulate(depth, ensemble, weight, bias, DEFAULT_X, seed, backend=name, threads=threads)
        outs[name] = backprop(w, b, DEFAULT_X, backend=name, threads=threads, out=outs.get(name))
        return outs[name]

    results: dict[BackendName, Gradients | Growth] = {}
    warm_up: dict[BackendName, float] = {}
    for name in names:
        start = time.perf_counter()
        results[name] = run(name)
        warm_up[name] = time.perf_counter() - start
    rtol = agreement_rtol(w, b, DEFAULT_X)
    rows = [
        BackendTimes(
            backend=name,
            distance=_distance(job, results[name], results[REFERENCE], rtol),
            same_bits_as=[other for other in names if other != name and _same_bits(job, results[name], results[other])],
            warm_up=warm_up[name],
            seconds=[],
        )
        for name in names
    ]
    comparison = Comparison(job, depth * ensemble, rows)
    if not comparison.agree:
        return comparison
    results.clear()
    for done in range(repeats):
        for row in rows:
            start = time.perf_counter()
            run(row.backend)
            row.seconds.append(time.perf_counter() - start)
        if progress is not None:
            progress(done + 1, repeats)
    return comparison


def _gradients(job: Job, result: Gradients | Growth) -> Iterator[Scaled]:
    return (getattr(result, field) for field in FIELDS[job])


def _distance(job: Job, result: Gradients | Growth, reference: Gradients | Growth, rtol: NDArray[np.float64]) -> float:
    pairs = zip(_gradients(job, result), _gradients(job, reference), strict=True)
    gradients = max(float(np.max(log2_distance(a, b) * LN_2 / rtol)) for a, b in pairs)
    # Outputs are doubles: what is subnormal is rounded more coarsely.
    room = rtol * reference.output + 2.0**-1022
    outputs = float(np.max(np.abs(result.output - reference.output) / room))
    return max(gradients, outputs if np.isfinite(outputs) else np.inf)


def _same_bits(job: Job, a: Gradients | Growth, b: Gradients | Growth) -> bool:
    outputs = np.array_equal(a.output, b.output)
    return outputs and all(bool(np.all(p == q)) for p, q in zip(_gradients(job, a), _gradients(job, b), strict=True))
