"""Gradients of given chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastgrad.chain import DEFAULT_COTANGENT, Chain, require_memory
from fastgrad.kernels import BackendName, load
from fastgrad.parallel import Threads
from fastgrad.scaled import Scaled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


BRIEF_LINKS = 2**16  # links of all members: fewer are done before another thread has started


class NotFiniteError(ValueError):
    """A kernel met a weight or a bias that is not finite."""


@dataclass(eq=False)
class Gradients:
    """What `backprop` returns; for a single chain the ensemble axis is absent.

    Attributes
    ----------
    output : ndarray of float64, shape (ensemble,)
        o_L.
    grad_weight, grad_bias : Scaled, shape (depth, ensemble)
        dloss/dw_l and dloss/db_l.
    grad_x : Scaled, shape (ensemble,)
        dloss/do_0.
    backend : str
        The backend that ran.
    """

    output: Floats
    grad_weight: Scaled
    grad_bias: Scaled
    grad_x: Scaled
    backend: BackendName

    def _arrays(self) -> list[NDArray[np.float64] | NDArray[np.int64]]:
        arrays: list[NDArray[np.float64] | NDArray[np.int64]] = [self.output]
        for scaled in (self.grad_weight, self.grad_bias, self.grad_x):
            arrays += [scaled.mantissa, scaled.exponent]
        return arrays


def backprop(
    weight: ArrayLike,
    bias: ArrayLike,
    x: ArrayLike,
    cotangent: ArrayLike = DEFAULT_COTANGENT,
    *,
    backend: BackendName | Literal["auto"] = "auto",
    threads: int | None = None,
    out: Gradients | None = None,
) -> Gradients:
    """Exact gradients of a loss through a chain of sigmoid links, or through many.

    Link l takes o_{l-1} to ``o_l = sigmoid(w_l o_{l-1} + b_l)``; reverse mode carries the adjoint a_l = dloss/do_l from
    the cotangent a_L back to the input: ``delta_l = a_l sigmoid'(z_l)``, ``grad_bias_l = delta_l``,
    ``grad_weight_l = delta_l o_{l-1}``, ``a_{l-1} = delta_l w_l``. Nothing overflows or underflows.

    Parameters
    ----------
    weight : array_like, shape (depth,) or (depth, ensemble)
        One chain, or independent chains side by side, links first.
    bias : array_like
        The shape of `weight`, or one that broadcasts to it.
    x : array_like, a number or shape (ensemble,)
        The input o_0.
    cotangent : array_like, a number or shape (ensemble,)
        dloss/do_L.
    backend : {"auto", "cpp", "numba", "numpy"}
        "auto" takes the fastest that is available; ``result.backend`` says which. "numba" and "cpp" return equal bits,
        "numpy" is within `agreement_rtol` of them for chains that contract.
    threads : int, optional
        By default all processors that this process may use. The result does not depend on it.
    out : Gradients, optional
        The result of an earlier call with the same shape, to be filled again: fresh memory costs more than the kernel.
        After an error for a weight or bias that is not finite its values mean nothing.

    Returns
    -------
    Gradients

    Raises
    ------
    TypeError, ValueError
        For bad input, with the argument's name, what was wrong and what was expected.
    BackendUnavailableError
        If the backend that was named can't run here.
    TooLargeError
        If the result would not fit in memory.

    Notes
    -----
    Memory: 32 bytes a link and chain for the result. The compiled backends keep activations and derivatives of a
    stretch of links at a time, some 5 MiB a thread, and a byte a link.
    """
    # The kernels see every weight anyway, and tell if one is not finite: that saves a pass over the arrays.
    chain = Chain.of(weight, bias, x, cotangent, finite=False)
    try:
        return backprop_chain(chain, backend=backend, threads=threads, out=out)
    except NotFiniteError:
        Chain.of(weight, bias)  # says which and where
        raise


def backprop_chain(
    chain: Chain,
    *,
    backend: BackendName | Literal["auto"] = "auto",
    threads: int | None = None,
    out: Gradients | None = None,
) -> Gradients:
    """Do the work of `backprop` for a chain that is checked already."""
    name, kernels = load(backend)
    size = chain.depth * chain.ensemble
    require_memory(
        f"the gradients of {chain.depth} links x {chain.ensemble} chains",
        size * ((0 if out is not None else 32) + kernels.WORK_BYTES),
    )
    if out is None:
        result = _empty(chain, name)
    else:
        _check_out(out, chain)
        result = out

    links, members = chain.weight.shape, chain.x.shape

    def run(start: int, stop: int) -> None:
        finite = kernels.backprop(
            chain.weight,
            chain.bias,
            chain.x,
            chain.cotangent,
            result.output.reshape(members),
            result.grad_weight.mantissa.reshape(links),
            result.grad_weight.exponent.reshape(links),
            result.grad_bias.mantissa.reshape(links),
            result.grad_bias.exponent.reshape(links),
            result.grad_x.mantissa.reshape(members),
            result.grad_x.exponent.reshape(members),
            start,
            stop,
        )
        if not finite:
            raise NotFiniteError("weight or bias: expected finite numbers")

    with Threads(threads) as pool:
        if size <= BRIEF_LINKS:
            with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):  # as on a new thread
                run(0, chain.ensemble)
        else:
            pool.run(run, chain.ensemble)
    result.backend = name
    return result


def log10_bound(chain: Chain) -> Floats:
    """Textbook's bound of ``|grad_bias|``: |c| / 4 times the product of |w_k| / 4 over k > l, in decades (log10).

    Returns
    -------
    ndarray of float64, shape (depth, ensemble)
        -inf where it is zero.
    """
    bound: Floats = np.concatenate([chain.weight[1:], chain.cotangent[None]])  # the one array: the rest is in place
    np.abs(bound, out=bound)
    with np.errstate(divide="ignore"):
        np.log10(bound, out=bound)
    bound -= np.log10(4.0)
    backward = bound[::-1]
    np.cumsum(backward, axis=0, out=backward)
    return bound


def _empty(chain: Chain, backend: BackendName) -> Gradients:
    links = (chain.depth,) if chain.single else chain.weight.shape
    members = () if chain.single else (chain.ensemble,)

    return Gradients(np.empty(members), Scaled.empty(links), Scaled.empty(links), Scaled.empty(members), backend)


def _check_out(out: object, chain: Chain) -> None:
    if not isinstance(out, Gradients):
        raise TypeError(f"out: expected the Gradients of an earlier call, got {type(out).__name__}")
    wanted = _layout(chain)
    arrays = out._arrays()
    for array, (shape, dtype) in zip(arrays, wanted, strict=True):
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"out: expected arrays of shape {shape} and {dtype}, got {array.shape} and {array.dtype}")
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise ValueError("out: expected the Gradients of an earlier call, got a view or read-only arrays")
    inputs = (chain.weight, chain.bias, chain.x, chain.cotangent)
    if any(np.may_share_memory(array, given) for array in arrays for given in inputs):
        raise ValueError("out: shares memory with an input, which is never written to")
    if any(np.may_share_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i]):
        raise ValueError("out: its arrays share memory with each other")


def _layout(chain: Chain) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shapes and types of the arrays of a result, in the order of `Gradients._arrays`."""
    links = (chain.depth,) if chain.single else (chain.depth, chain.ensemble)
    members = () if chain.single else (chain.ensemble,)
    floats, ints = np.dtype(np.float64), np.dtype(np.int64)
    return [
        (members, floats),
        *[(links, floats), (links, ints)] * 2,
        (members, floats),
        (members, ints),
    ]
