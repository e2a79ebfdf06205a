"""Lyapunov spectrum of a network with width: how fast volumes of several gradients grow, and not only one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from threadpoolctl import ThreadpoolController

from fastgrad import nonlinearities
from fastgrad.chain import DEFAULT_X
from fastgrad.checks import TooLargeError, integer, require_memory, require_progress
from fastgrad.jobs.draw import checked_sizes
from fastgrad.jobs.growth import batch_means_stderr, batches
from fastgrad.jobs.layers import WEIGHTS_MAX, drawn_inputs, given_inputs, layers_bytes, run_layers
from fastgrad.jobs.threads import Threads
from fastgrad.kernels import BackendName, LayersJob, ScaledArrays, ScaledVectors, load
from fastgrad.laws import Law, parse
from fastgrad.philox import draw_cotangents
from fastgrad.scaled import LN_2, Scaled
from fastgrad.summary import json_ready, spaced
from fastgrad.theory.linear import WIDTH_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from fastgrad.laws import LawLike

    Floats = NDArray[np.float64]

PARALLEL = 2.0**-30  # what is left of a unit vector beside the others: below it 22 bits are left of its own 52
BURN_IN_SHARE = 10  # one layer in so many, at either end, is not measured


@dataclass(frozen=True, eq=False)
class LyapunovSpectrum:
    """Result of `lyapunov_spectrum`.

    Attributes
    ----------
    exponents, stderr : ndarray of float64, shape (k,)
        In nats per layer, the largest first as a rule, and their standard errors by batch means over the layers.
    layers : tuple of int
        First and last layer that was measured.
    depth, width : int
    nonlinearity : str
    weight, bias : Law
    seed : int
    backend : str
    """

    exponents: Floats
    stderr: Floats
    layers: tuple[int, int]
    depth: int
    width: int
    nonlinearity: str
    weight: Law
    bias: Law
    seed: int
    backend: BackendName

    def summary(self) -> dict[str, Any]:
        """Return the result as a plain dict that `json.dumps` takes; None for what is not finite, with a reason."""
        return json_ready(  # type: ignore[no-any-return]
            {
                "exponents": self.exponents,
                "stderr": self.stderr,
                "layers": list(self.layers),
                "depth": self.depth,
                "width": self.width,
                "nonlinearity": self.nonlinearity,
                "weight": str(self.weight),
                "bias": str(self.bias),
                "seed": self.seed,
                "backend": self.backend,
            }
        )


def lyapunov_spectrum(
    depth: int,
    width: int,
    k: int | None = None,
    weight: LawLike = "normal:gain=1",
    bias: LawLike = "zero",
    x: LawLike | ArrayLike = DEFAULT_X,
    seed: int = 0,
    nonlinearity: str = "sigmoid",
    every: int = 1,
    backend: BackendName | Literal["auto"] = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> LyapunovSpectrum:
    """Lyapunov exponents of a drawn network: the k largest, of one endless trajectory.

    The volume that the gradients of i outputs span grows by the sum of the first i exponents a layer. k cotangents are
    taken back through the same drawn weights, and made orthonormal again every few layers by a QR decomposition, whose
    diagonal adds up to the exponents (Benettin, Galgani, Giorgilli and Strelcyn, Meccanica 15, 9 (1980)). One layer in
    ten at either end is left out: there the activations, and the directions of the cotangents, remember their start.

    Parameters
    ----------
    depth : int
        Layers.
    width : int
        Units of a layer, 2 to 65536.
    k : int, optional
        How many exponents, 1 to `width`; by default all.
    weight, bias, x, seed, nonlinearity
        As for `simulate`, of one network.
    every : int
        Layers between two decompositions. More are faster, and lose digits where exponents are far apart: 20 nats
        between the first and the last, over so many layers, are too many.
    backend, progress
        As for `simulate`.

    Returns
    -------
    LyapunovSpectrum
        -inf for exponents of relu networks in which fewer than so many units were alive in some layer: no more
        gradients than that come through; and for all exponents where every gradient becomes exactly zero.

    Raises
    ------
    TypeError, ValueError
        For bad input, with the argument's name; and if vectors become parallel to within rounding between two
        decompositions.
    BackendUnavailableError, TooLargeError
        As `simulate` does.

    Examples
    --------
    >>> import fastgrad as fg
    >>> found = fg.lyapunov_spectrum(2000, 4, nonlinearity="linear")
    >>> abs(found.exponents - fg.theory.spectrum(4)) < 4 * found.stderr
    array([ True,  True,  True,  True])
    """
    depth, _, seed = checked_sizes(depth, 1, seed)
    width, phi = integer("width", width, 2, WIDTH_MAX), nonlinearities.parse(nonlinearity)
    k = width if k is None else integer("k", k, 1, width)
    every = integer("every", every, 1, 10**6)
    require_progress(progress)
    weight_law, bias_law = parse(weight, "weight", width), parse(bias, "bias", width)
    if depth * width**2 > WEIGHTS_MAX:
        raise TooLargeError(f"depth: {depth} layers of {width}² weights, expected at most {WEIGHTS_MAX:.0e} weights")
    name, kernels = load(backend)
    taken = layers_bytes(depth, 1, width, 0, 1, 1, kernels.LIMITS) + 64 * k * width
    require_memory(f"the preactivations of {width} units and {k} vectors", taken)
    drawn = drawn_inputs(x, width, 1, 1, seed)
    given = given_inputs(x, width, 1, 1) if drawn is None else drawn
    job = _without_records(weight_law, bias_law, seed, phi.code)
    first = np.stack([draw_cotangents(seed, i, np.arange(1), width)[0] for i in range(1, k + 1)])
    adjoint = ScaledVectors.of(np.linalg.qr(first.T)[0].T[None].copy())
    spectrum = _Growth(adjoint, rectified=phi.name == "relu")
    with Threads(1) as pool, ThreadpoolController().limit(limits=1, user_api="blas"):
        run_layers(kernels, job, ScaledVectors.of(given), adjoint, depth, pool, progress, every, spectrum.add)
    exponents, stderr, layers = spectrum.measured(depth)
    return LyapunovSpectrum(
        exponents=exponents,
        stderr=stderr,
        layers=layers,
        depth=depth,
        width=width,
        nonlinearity=phi.name,
        weight=weight_law,
        bias=bias_law,
        seed=seed,
        backend=name,
    )


class _Growth:
    """Growth of volumes over the pages of a way back: the vectors are made orthonormal after each."""

    def __init__(self, adjoint: ScaledVectors, rectified: bool) -> None:
        self._adjoint, self._rectified = adjoint, rectified
        self._rank = adjoint.value.shape[1]
        self._pages: list[tuple[int, int]] = []
        self._ln: list[Floats] = []

    def add(self, first: int, last: int, preactivations: list[Floats]) -> None:
        """Take the growth over the layers last - 1 … first."""
        if self._rectified:
            # Units that are not alive pass nothing on, and so the gradients come out of as many dimensions at most.
            # Their number tells it: small remainders of a QR decomposition alone could be vectors almost parallel.
            self._rank = min(self._rank, int((preactivations[0] > 0).sum(axis=-1).min()))
        values, exponents = self._adjoint.value[0], self._adjoint.exponent[0]
        sizes = np.sqrt(np.square(values).sum(axis=1))
        if not sizes.any():  # weights of 0, or every unit saturated beyond all exponents: there is no direction left
            self._rank = 0
        q, r = np.linalg.qr(values.T)
        left = np.abs(np.diag(r))
        lost = np.arange(len(left)) >= self._rank
        parallel = ~(left > PARALLEL * sizes) & ~lost
        if parallel.any():
            name, count = ("every", last - first) if last - first > 1 else ("k", len(lost))
            raise ValueError(
                f"{name}: expected less than {count}, the gradient of number {int(np.argmax(parallel)) + 1} of "
                f"{len(lost)} is parallel to those before it, to within rounding, after {last - first} layers"
            )
        with np.errstate(divide="ignore"):
            ln = np.where(lost, -np.inf, np.log(left) + exponents * LN_2)
        self._pages.append((first, last))
        self._ln.append(ln)
        orthonormal = ScaledVectors.of(np.where(lost, 0.0, q).T[None].copy())
        self._adjoint.value[...], self._adjoint.exponent[...] = orthonormal

    def measured(self, depth: int) -> tuple[Floats, Floats, tuple[int, int]]:
        """Exponents, their standard errors, and the first and last layer that they are of."""
        pages, ln = np.array(self._pages[::-1]), np.array(self._ln[::-1])  # by layer, ascending
        margin = depth // BURN_IN_SHARE
        kept = (pages[:, 0] > margin) & (pages[:, 1] <= depth + 1 - margin)
        if kept.any():
            pages, ln = pages[kept], ln[kept]
        layers = np.diff(pages).ravel()
        edges = np.unique(spaced(len(layers), min(batches(int(layers.sum())), len(layers)) + 1)[:-1] - 1)
        growth, counts = np.add.reduceat(ln, edges, axis=0), np.add.reduceat(layers, edges)
        exponents = ln.sum(axis=0) / layers.sum()
        stderr = np.full(len(exponents), np.nan)
        for i in np.flatnonzero(np.isfinite(exponents)):
            if len(edges) > 1:
                stderr[i] = batch_means_stderr(growth[:, i], counts)
        return exponents, stderr, (int(pages[0, 0]), int(pages[-1, 1]) - 1)


def _without_records(weight: Law, bias: Law, seed: int, nonlinearity: int) -> LayersJob:
    none = ScaledArrays.of(Scaled.empty((0, 1)))
    return LayersJob(
        weight_law=weight.code,
        bias_law=bias.code,
        seed=seed,
        nonlinearity=nonlinearity,
        recorded_layers=np.empty(0, dtype=np.int64),
        length=none,
        mean_activation=none,
        saturated=np.empty((0, 1)),
        dead=np.empty((0, 1)),
        correlation=np.empty((0, 1)),
        input_norm=none,
        delta_norm=none,
        adjoint_norm=none,
    )
