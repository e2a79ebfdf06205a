"""The same job on every available backend: agreement first, then time."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from fastgrad import nonlinearities
from fastgrad.chain import DEFAULT_X, agreement_rtol
from fastgrad.checks import integer, require_progress
from fastgrad.jobs.backprop import Gradients, backprop
from fastgrad.jobs.draw import draw
from fastgrad.jobs.simulate import simulate
from fastgrad.kernels import BACKENDS, BackendName, available_backends
from fastgrad.laws import parse
from fastgrad.scaled import LN_2, Scaled, log2_distance
from fastgrad.theory.linear import WIDTH_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from fastgrad.jobs.growth import Growth
    from fastgrad.laws import Law, LawLike

Job = Literal["backprop", "simulate"]
REFERENCE: BackendName = list(BACKENDS)[-1]
PERTURBATION = 2.0**-40  # of all weights, relatively: by it is measured how rounding grows from layer to layer
ROUNDINGS = 8  # rounding changes layers in other directions than that, of which some grow more
ROUNDING_MAX = 1e-6  # of a gradient, relatively: beyond it two trajectories of a chaotic network are on their way apart
LARGEST = float(np.finfo(np.float64).max)
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
        Largest ``|ln |a/b||`` from the reference over all gradients and outputs, in units of `agreement_rtol`, or of
        what rounding can do to layers; inf where signs, zeros or non-finite values differ. Agreement is at most 1.
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
    """Result of `compare`.

    Attributes
    ----------
    job : str
    links : int
        Links of all chains, or weights of all layers.
    backends : list of BackendTimes
        In the order of `available_backends`, the reference last.
    width : int
        Units of a layer; 1 of chains.
    compared_depth : int
        Layers over which distances were taken: fewer than all where rounding grows too large, none where it decides
        the first one already, as whether a relu unit is alive. None for chains.
    """

    job: Job
    links: int
    backends: list[BackendTimes]
    width: int = 1
    compared_depth: int | None = None

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
    width: int = 1,
    nonlinearity: str = "sigmoid",
    repeats: int = 7,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run a job on every available backend.

    Parameters
    ----------
    job : {"backprop", "simulate"}
        Gradients of chains that were drawn beforehand, their memory reused; or drawing and growing them.
    depth, ensemble, weight, bias, seed, width, nonlinearity
        As for `simulate`; layers, which have a width or another nonlinearity, are drawn and not given.
    repeats : int
        Timed rounds, from 2; in each every backend runs once.
    threads : int, optional
        For every backend alike.
    progress : callable, optional
        Called as ``progress(rounds_done, repeats)``.

    Returns
    -------
    Comparison

    Notes
    -----
    Two backends that round differently part by what rounding does to each layer, some ``2^-52 (width + 16)``, and by
    what that grows to: the reference is run once more with all weights larger by a factor 1 + 2^-40, and the change of
    its gradients, in units of 2^-40, is the factor; eight times that is allowed. In chaotic networks it grows with the
    depth: what is compared are the first layers, as many (halved again and again) as keep the product below 1e-6. Bits
    are compared over all.
    """
    require_progress(progress)
    if job not in FIELDS:
        raise ValueError(f"job: expected backprop or simulate, got {job!r}")
    repeats = integer("repeats", repeats, 2, 10**6)
    width, phi = integer("width", width, 1, WIDTH_MAX), nonlinearities.parse(nonlinearity)
    of_chains = nonlinearities.is_chain(width, phi.name)
    if job == "backprop" and not of_chains:
        raise ValueError(f"job: backprop is of chains, got width {width} and {phi.name}; expected simulate for layers")
    w, b = draw(depth, ensemble, weight, bias, seed) if of_chains else (np.empty((0, 0)), np.empty((0, 0)))
    names = available_backends()
    outs: dict[BackendName, Gradients] = {}

    def drawn(name: BackendName, layers: int = depth, weights: LawLike = weight) -> Growth:
        of_layers = {"width": width, "nonlinearity": phi.name}
        return simulate(layers, ensemble, weights, bias, DEFAULT_X, seed, backend=name, threads=threads, **of_layers)  # type: ignore[arg-type]

    def run(name: BackendName) -> Gradients | Growth:
        if job == "simulate":
            return drawn(name)
        outs[name] = backprop(w, b, DEFAULT_X, backend=name, threads=threads, out=outs.get(name))
        return outs[name]

    results: dict[BackendName, Gradients | Growth] = {}
    warm_up: dict[BackendName, float] = {}
    for name in names:
        start = time.perf_counter()
        results[name] = run(name)
        warm_up[name] = time.perf_counter() - start
    compared, at = results, None
    if of_chains:
        rtol = agreement_rtol(w, b, DEFAULT_X)
    else:
        rtol, at = _rtol_of_layers(drawn, depth, width, parse(weight, "weight", width))
        if 0 < at < depth:
            compared = {name: drawn(name, at) for name in names}
    rows = [
        BackendTimes(
            backend=name,
            distance=0.0 if at == 0 else _distance(job, compared[name], compared[REFERENCE], rtol),
            same_bits_as=[other for other in names if other != name and _same_bits(job, results[name], results[other])],
            warm_up=warm_up[name],
            seconds=[],
        )
        for name in names
    ]
    comparison = Comparison(job, depth * ensemble * width**2, rows, width, at)
    if not comparison.agree:
        return comparison
    results.clear()
    compared.clear()
    for done in range(repeats):
        for row in rows:
            start = time.perf_counter()
            run(row.backend)
            row.seconds.append(time.perf_counter() - start)
        if progress is not None:
            progress(done + 1, repeats)
    return comparison


def _rtol_of_layers(
    drawn: Callable[..., Growth], depth: int, width: int, weight: Law
) -> tuple[NDArray[np.float64], int]:
    """Relative distance that rounding can make between backends, and the layers over which it can be told."""
    factor = 1 + PERTURBATION
    if not np.isfinite(factor * max(abs(weight.location), weight.scale, abs(weight.location + weight.scale))):
        factor = 1 - PERTURBATION  # at the end of float64
    other = replace(weight, location=weight.location * factor, scale=weight.scale * factor)
    while depth:
        pairs = zip(*(_gradients("simulate", drawn(REFERENCE, depth, law)) for law in (weight, other)), strict=True)
        change = max(float(np.max(log2_distance(a, b))) * LN_2 for a, b in pairs)
        rtol = 2.0**-52 * (width + 16) * ROUNDINGS * (depth + change / PERTURBATION)
        if rtol <= ROUNDING_MAX:
            return np.array(rtol), depth
        depth //= 2
    return np.array(np.inf), 0


def _gradients(job: Job, result: Gradients | Growth) -> Iterator[Scaled]:
    return (getattr(result, field) for field in FIELDS[job])


def _distance(job: Job, result: Gradients | Growth, reference: Gradients | Growth, rtol: NDArray[np.float64]) -> float:
    pairs = zip(_gradients(job, result), _gradients(job, reference), strict=True)
    gradients = max(float(np.max(log2_distance(a, b) * LN_2 / rtol)) for a, b in pairs)
    # Outputs are doubles: what is subnormal is rounded more coarsely, and those of layers may be beyond all. Half of
    # them, so that differences are not. The units of a layer are sums of like errors.
    ours, theirs = (np.clip(of.output, -LARGEST, LARGEST) / 2 for of in (result, reference))
    size = theirs if theirs.ndim < 2 else np.abs(theirs).max(axis=1, keepdims=True)
    outputs = float(np.max(np.abs(ours - theirs) / (rtol * size + 2.0**-1022)))
    return max(gradients, outputs if np.isfinite(outputs) else np.inf)


def _same_bits(job: Job, a: Gradients | Growth, b: Gradients | Growth) -> bool:
    outputs = np.array_equal(a.output, b.output)
    return outputs and all(bool(np.all(p == q)) for p, q in zip(_gradients(job, a), _gradients(job, b), strict=True))
