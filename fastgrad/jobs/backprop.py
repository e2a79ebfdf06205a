"""Gradients of given chains."""

from __future__ import annotations

import operator
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastgrad.chain import DEFAULT_COTANGENT, Chain
from fastgrad.checks import require_memory
from fastgrad.jobs.segments import is_cut, run_segments
from fastgrad.jobs.threads import INLINE_LINKS_MAX, Threads
from fastgrad.kernels import BackendName, BackpropJob, ScaledArrays, load
from fastgrad.kernels.constants import SIGMOID
from fastgrad.scaled import Scaled

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


CENTERED_LINKS = 8  # links whose biases are compared with -w/2 before a whole chain is
CHECK_MEMBERS, CHECK_LINKS = 64, 1024  # that are looked at together
MEDIAN_ELEMENTS = 2**16  # elements whose logarithms are taken together
SMALL_Z = 1e-3  # below it sigmoid'(z) is 1/4 to six digits
HELD = 2.0**-45  # from 1/2: so near, rounding can balance a growth of 1/128 a link and more


class NotFiniteError(ValueError):
    """A kernel met a weight or a bias that is not finite."""


@dataclass(eq=False)
class Gradients:
    """Result of `backprop`; for a single chain the ensemble axis is absent.

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
    caught : ndarray of bool, shape (ensemble,)
        Chains that rounding holds at 1/2: see the notes of `backprop`. Their gradients are not the exact ones.
    """

    output: Floats
    grad_weight: Scaled
    grad_bias: Scaled
    grad_x: Scaled
    backend: BackendName
    caught: Any = False
    # The arrays as `backprop` made them: these share no memory, and to compare each two takes as long as a small job.
    _made: tuple[NDArray[Any], ...] = field(default=(), repr=False)

    def plot(self) -> Canvas:
        """Draw medians of the gradients against the link: a matplotlib figure, which a notebook shows."""
        from fastgrad.report.notebook import gradients_plot

        return gradients_plot(self)

    def _repr_html_(self) -> str:
        from fastgrad.report.notebook import gradients_html

        return gradients_html(self)

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

    Where biases are -w/2 and x is not 1/2, the distance |o - 1/2| wanders, and once it is below 2^-54 the activation is
    exactly 1/2 and stays there, while the true one may grow again, and does if |w/4| is above 1 on average: from there
    on the gradient follows the textbook's bound. A few units in the last place beside 1/2 rounding can hold it too:
    weights of 5 take 1/2 - 2^-53 to itself. Such chains are marked in ``result.caught``, and a UserWarning tells how
    many there are. Only chains are looked at whose output is within 2^-45 of 1/2 and whose last 8 biases are -w/2. One
    is caught if its biases are -w/2 from the link on that led there, and the distance that was lost would have grown,
    by the product of |w/4|, until some |z| exceeds 1/1000. `simulate` with the law ``centered`` can't be caught.
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
    result = _fill(chain, backend, threads, out)
    at_half = _is_held(result.output.reshape(chain.x.shape))
    if np.count_nonzero(at_half):  # all that most calls pay for
        caught = _caught(chain, result, at_half)
        result.caught = caught[0] if chain.single else caught
        warn_of_caught(caught, stacklevel=4)
    else:
        result.caught = np.zeros(result.output.shape, dtype=np.bool_)
    return result


def _fill(
    chain: Chain, backend: BackendName | Literal["auto"], threads: int | None, out: Gradients | None
) -> Gradients:
    name, kernels = load(backend)
    size = chain.weight.size
    if size > INLINE_LINKS_MAX:  # what is smaller fits
        require_memory(
            f"the gradients of {chain.depth} links x {chain.ensemble} chains",
            size * ((0 if out is not None else 32) + kernels.LIMITS.work_bytes),
        )
    if out is None:
        result = _empty(chain, name)
    else:
        _check_out(out, chain)
        result = out

    links, members = chain.weight.shape, chain.x.shape

    job = BackpropJob(
        weight=chain.weight,
        bias=chain.bias,
        nonlinearity=SIGMOID,
        x=chain.x,
        cotangent=chain.cotangent,
        output=result.output.reshape(members),
        grad_weight=ScaledArrays.of(result.grad_weight, *links),
        grad_bias=ScaledArrays.of(result.grad_bias, *links),
        grad_x=ScaledArrays.of(result.grad_x, *members),
    )

    def run(start: int, stop: int) -> None:
        if not kernels.backprop(job, start, stop):
            raise NotFiniteError("weight or bias: expected finite numbers")

    with Threads(threads, size) as pool:
        if pool.count > 1 and is_cut(kernels, chain.depth, chain.ensemble):
            if not run_segments(kernels, job, pool):
                raise NotFiniteError("weight or bias: expected finite numbers")
        else:
            pool.run(run, chain.ensemble)
    result.backend = name
    return result


def warn_of_caught(caught: Any, stacklevel: int) -> None:
    """Warn if any chain is caught at 1/2."""
    count = np.count_nonzero(caught)
    if count:
        warnings.warn(
            f"{count} of {np.size(caught)} chains are caught at 1/2 by rounding (biases -w/2, weights beyond "
            "4): from there on their gradients are those of the bound; simulate with bias centered has no such "
            "rounding",
            stacklevel=stacklevel,
        )


def caught_at_start(chain: Chain, backend: BackendName | Literal["auto"], threads: int | None) -> NDArray[np.bool_]:
    """Tell which members of a chain `backprop` would find caught; it is run on those alone that may be."""
    caught = np.zeros(chain.ensemble, dtype=np.bool_)
    members = np.flatnonzero(_may_be_caught(chain))
    for first in range(0, len(members), CHECK_MEMBERS * CHECK_LINKS):
        some = members[first : first + CHECK_MEMBERS * CHECK_LINKS]
        arrays = chain.weight[:, some], chain.bias[:, some], chain.x[some]
        part = Chain.of(*arrays, finite=False)
        result = _fill(part, backend, threads, None)
        caught[some] = _caught(part, result, _is_held(result.output))
    return caught


def _is_held(activation: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.abs(activation - 0.5) <= HELD)


def _may_be_caught(chain: Chain) -> NDArray[np.bool_]:
    last = slice(-CENTERED_LINKS, None)
    with np.errstate(under="ignore"):  # half of a subnormal weight
        centered = (chain.bias[last] == -0.5 * chain.weight[last]).all(axis=0)
    return np.asarray(centered & (chain.x != 0.5))


def _caught(chain: Chain, result: Gradients, at_half: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which members rounding holds at 1/2, by the notes of `backprop`."""
    caught = np.zeros(chain.ensemble, dtype=np.bool_)
    members = np.flatnonzero(at_half & _may_be_caught(chain))
    grad_weight, grad_bias = (
        Scaled.of_parts(scaled.mantissa.reshape(chain.weight.shape), scaled.exponent.reshape(chain.weight.shape))
        for scaled in (result.grad_weight, result.grad_bias)
    )
    for first in range(0, len(members), CHECK_MEMBERS):
        some = members[first : first + CHECK_MEMBERS]
        caught[some] = _lost_distance_grows(chain, grad_weight, grad_bias, some)
    return caught


def _lost_distance_grows(
    chain: Chain, grad_weight: Scaled, grad_bias: Scaled, members: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell of members that end at 1/2 if the distance d from it, lost in rounding, would matter again.

    From the last link on whose input is off 1/2, ``z_l = w_l d_{l-1}`` and ``d_l = z_l / 4`` while z_l is small.
    """
    ln_z = np.full(len(members), -np.inf)  # of the last link, beside its weight: ln |4 d|
    peak = np.full(len(members), -np.inf)  # the largest ln |z| after the link that led to 1/2
    centered = np.zeros(len(members), dtype=np.bool_)  # all biases from that link on
    for first in range(0, chain.depth, CHECK_LINKS):
        at = slice(first, first + CHECK_LINKS), members
        weight, delta = chain.weight[at], grad_bias[at]
        # Zero weights, the zero gradients before them and the largest inputs give values that compare as false.
        with np.errstate(all="ignore"):
            shift = (grad_weight[at].exponent - delta.exponent).astype(np.int32)
            inputs = np.ldexp(grad_weight[at].mantissa / delta.mantissa, shift)  # o_{l-1} = grad_weight_l / grad_bias_l
            off = ~_is_held(inputs)
            if first == 0:  # the input is exact
                inputs[0] = chain.x[members]
                off[0] = inputs[0] != 0.5
            last_off = np.where(off.any(axis=0), len(off) - 1 - np.argmax(off[::-1], axis=0), -1)
            begins = last_off >= 0
            offset = np.abs(np.take_along_axis(inputs, last_off[None], axis=0)[0] - 0.5)
            ln_z = np.where(begins, np.log(4.0 * offset), ln_z)
            row = np.arange(len(off))[:, None]
            ln_growth = np.where(row >= last_off, np.log(np.abs(weight)) - np.log(4.0), 0.0)
            levels = ln_z + np.cumsum(ln_growth, axis=0)
            after = np.where(row > last_off, levels, -np.inf).max(axis=0)
            peak = np.where(begins, after, np.maximum(peak, after))
            here = ((chain.bias[at] == -0.5 * weight) | (row < last_off)).all(axis=0)
        centered = here & (begins | centered)
        ln_z = levels[-1]
    return np.asarray(centered & (peak > np.log(SMALL_Z)))


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


def log10_medians(gradients: Gradients, bound: Floats, links: NDArray[np.int64]) -> dict[str, Floats]:
    """Medians over chains of ``|grad_weight|``, ``|grad_bias|`` and the bound, in decades (log10).

    Parameters
    ----------
    gradients : Gradients
    bound : ndarray of float64, shape (depth, ensemble)
        See `log10_bound`.
    links : ndarray of int64
        Counted from 0.

    Returns
    -------
    dict of str to ndarray of float64, shape (links,)
        By the names ``grad_weight``, ``grad_bias`` and ``bound``. A median is the value of a member.
    """
    ensemble = bound.shape[1]
    step = max(1, MEDIAN_ELEMENTS // ensemble)  # links at a time: an ensemble's logarithms take much memory
    found: dict[str, list[Floats]] = {"grad_weight": [], "grad_bias": [], "bound": []}
    for first in range(0, len(links), step):
        at = links[first : first + step]
        for name, medians in found.items():
            values = bound[at] if name == "bound" else getattr(gradients, name)[at].log10().reshape(len(at), ensemble)
            medians.append(np.quantile(values, 0.5, axis=1, method="inverted_cdf"))
    return {name: np.concatenate(medians) for name, medians in found.items()}


def _empty(chain: Chain, backend: BackendName) -> Gradients:
    links = (chain.depth,) if chain.single else chain.weight.shape
    members = () if chain.single else (chain.ensemble,)

    made = Gradients(np.empty(members), Scaled.empty(links), Scaled.empty(links), Scaled.empty(members), backend)
    made._made = tuple(made._arrays())
    return made


def _check_out(out: object, chain: Chain) -> None:
    if not isinstance(out, Gradients):
        raise TypeError(f"out: expected the Gradients of an earlier call, got {type(out).__name__}")
    expected = _layout(chain)
    arrays = out._arrays()
    for array, (shape, dtype) in zip(arrays, expected, strict=True):
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"out: expected arrays of shape {shape} and {dtype}, got {array.shape} and {array.dtype}")
        flags = array.flags
        if not (flags.c_contiguous and flags.writeable):
            raise ValueError("out: expected the Gradients of an earlier call, got a view or read-only arrays")
    share = np.may_share_memory
    is_made = bool(out._made) and all(map(operator.is_, arrays, out._made))
    owners = set(map(_owner, arrays)) if is_made else set()
    for given in (chain.weight, chain.bias, chain.x, chain.cotangent):
        if is_made and (owner := _owner(given)) and owner not in owners:
            continue
        for array in arrays:
            if share(array, given):
                raise ValueError("out: shares memory with an input, which is never written to")
    if not is_made and any(share(a, b) for i, a in enumerate(arrays) for b in arrays[:i]):
        raise ValueError("out: its arrays share memory with each other")


def _owner(array: Any) -> int:
    """Identity of the array that owns the memory; of foreign memory 0, which may be anybody's.

    To compare two of these takes a tenth of what looking for common memory does.
    """
    while array.base is not None:
        array = array.base
        if type(array) is not np.ndarray:
            return 0
    return id(array)


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
