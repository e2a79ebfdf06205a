"""Initialization schemes side by side: how fast their gradients vanish, and whether their chains learn.

A chain that is trained on one input needs no more than its last links to meet its target: it converges though its first
ones stand still. What vanishing gradients do shows in how far the first weight moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastgrad import nonlinearities
from fastgrad.checks import integer, require_progress
from fastgrad.jobs.layer_schemes import LayerSchemes, layer_schemes
from fastgrad.jobs.parameters import job_parameters, parameters_of
from fastgrad.jobs.simulate import simulate
from fastgrad.jobs.train import drawn_task, train
from fastgrad.summary import log10_of
from fastgrad.theory import predict
from fastgrad.theory.linear import WIDTH_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastgrad.jobs.growth import Lyapunov
    from fastgrad.kernels import BackendName

# Laws of weight and bias: the named schemes between a law that is too small and one that is too large. The biases are
# 0, as the schemes' authors have them; torch draws them too.
SCHEMES = (
    ("normal:std=0.1", "zero"),
    ("glorot_normal", "zero"),
    ("glorot_uniform", "zero"),
    ("he_normal", "zero"),
    ("he_uniform", "zero"),
    ("lecun_normal", "zero"),
    ("torch_default", "torch_default"),
    ("normal:std=4", "zero"),
    ("normal:std=500", "zero"),
)
MEASURED_DEPTH = 1000  # links: even the slowest loses a factor of 4.25 a link, and float64 ends after 514 of them
DEPTHS_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Scheme:
    """Result of one scheme.

    Attributes
    ----------
    weight, bias : str
        The laws.
    lyapunov : Lyapunov
        Finite-depth, over `MEASURED_DEPTH` links, in nats per link.
    stationary : Lyapunov
        Over those of them that have forgotten the start: to be compared with `theory`.
    theory : float or None
        That of an endless chain; None where there is no theory.
    first_depth : dict of str to int or None
        Links until the exact median gradient is below the range of float32 and float64.
    share : ndarray of float64, shape (depths,)
        Of the chains that converge, at each depth.
    first_change : ndarray of float64, shape (depths,)
        Median over chains of how far training moves the first link's weight, at each depth.
    """

    weight: str
    bias: str
    lyapunov: Lyapunov
    stationary: Lyapunov
    theory: float | None
    first_depth: dict[str, int | None]
    share: NDArray[np.float64]
    first_change: NDArray[np.float64]

    @property
    def log10_first_change(self) -> NDArray[np.float64]:
        """Decimal logarithm of `first_change`; -inf where the weight stands still."""
        return log10_of(self.first_change)


@dataclass(frozen=True, eq=False)
class Schemes:
    """Result of `schemes`: the depths at which chains were trained, and the schemes."""

    depths: NDArray[np.int64]
    schemes: list[Scheme]
    backend: BackendName


def schemes(
    depth: int = 10,
    ensemble: int = 1000,
    seed: int = 0,
    *,
    learning_rate: float = 1.0,
    width: int = 1,
    nonlinearity: str = "sigmoid",
    backend: BackendName | Literal["auto"] = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Schemes | LayerSchemes:
    """Compare the named initialization schemes, one that is too small, and two that are large.

    Chains are trained. Layers, of a width or with another nonlinearity, are not: their gradients are measured beside
    those of a normal law that is critical.

    Parameters
    ----------
    depth : int
        Links of the deepest chains that are trained; less deep ones are trained too. Or layers.
    ensemble : int
        Chains, or networks, of each scheme.
    seed : int
        0 to 2^64 - 1.
    learning_rate, backend, threads, progress
        As for `train_drawn`; progress is called as ``progress(done, total)``.
    width : int
        Units of a layer, 1 to 65536. With the sigmoid 1 is a chain.
    nonlinearity : {"sigmoid", "tanh", "relu", "linear"}
    **options
        What else `train` takes: steps, loss, clip_value, clip_norm, tolerance. Layers take none of them.

    Returns
    -------
    Schemes, or LayerSchemes

    Raises
    ------
    TypeError, ValueError, TooLargeError, BackendUnavailableError
        As `simulate` and `train` do.
    """
    depth = integer("depth", depth, 1, 10**9)
    require_progress(progress)
    width, phi = integer("width", width, 1, WIDTH_MAX), nonlinearities.parse(nonlinearity)
    if not nonlinearities.is_chain(width, phi.name):
        rows = parameters_of("schemes")
        for name, value in {"learning_rate": learning_rate, **options}.items():
            if name not in rows or value != rows[name].defaults["schemes"]:
                raise ValueError(f"{name}: only chains are trained, and these are layers of width {width}")
        return layer_schemes(depth, ensemble, seed, width, phi.name, backend, threads, progress)
    depths = np.unique(np.round(np.linspace(1, depth, DEPTHS_SHOWN)).astype(np.int64))
    drawn = job_parameters("train")
    results = []
    for i, (weight, bias) in enumerate(SCHEMES):
        growth = simulate(MEASURED_DEPTH, ensemble, weight, bias, seed=seed, backend=backend, threads=threads)
        first = growth.summary()["first_depth"]
        share, change = [], []
        for j, links in enumerate(depths):
            chain, target = drawn_task(int(links), ensemble, weight, bias, drawn["x"], drawn["target"], seed)
            task = chain.weight, chain.bias, chain.x, target
            training = train(*task, learning_rate=learning_rate, record=2, backend=backend, threads=threads, **options)
            share.append(np.mean(training.status == "converged"))
            change.append(np.median(np.abs(training.weight[0] - chain.weight[0])))
            if progress is not None:
                progress(i * len(depths) + j + 1, len(SCHEMES) * len(depths))
        results.append(
            Scheme(
                weight=weight,
                bias=bias,
                lyapunov=growth.lyapunov,
                stationary=growth.stationary,
                theory=predict(weight, bias).lyapunov,
                first_depth={name: first[name]["underflow"] for name in ("float32", "float64")},
                share=np.array(share),
                first_change=np.array(change),
            )
        )
    return Schemes(depths, results, growth.backend)
