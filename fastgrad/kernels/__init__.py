"""The backends, and the contract of their kernels.

A backend is a module with three functions, `backprop`, `grow` and `train`. A kernel is serial, releases the GIL where
it is compiled, takes and fills arrays, and never checks, prints, or knows about threads. Its last two arguments are the
range of members to run, so that several threads can share one set of arrays.

All arrays are C-contiguous, float64 or int64, links first. A pair "mantissa, exponent" holds numbers
``mantissa * 2**exponent`` with ``1/2 <= |mantissa| < 1``, or 0 and 0.

``backprop(weight, bias, x, cotangent, output, grad_weight_mantissa, grad_weight_exponent, grad_bias_mantissa,
grad_bias_exponent, grad_x_mantissa, grad_x_exponent, start, stop)`` fills the gradients of given chains:

    ========================  =================  ==============================================
    weight, bias              (depth, ensemble)  w_l, b_l
    x, cotangent              (ensemble,)        o_0 and c = dloss / do_L
    output                    (ensemble,)        filled: o_L
    grad_weight, grad_bias    (depth, ensemble)  filled, mantissa and exponent each
    grad_x                    (ensemble,)        filled: dloss / do_0, mantissa and exponent
    ========================  =================  ==============================================

    It returns False where a weight or a bias is not finite: the results then mean nothing, and the caller says where.

    forward   z_l = w_l o_{l-1} + b_l,   o_l = sigmoid(z_l)
    backward  a_L = c,   delta_l = a_l sigmoid'(z_l),   a_{l-1} = delta_l w_l
              grad_bias_l = delta_l,   grad_weight_l = delta_l o_{l-1}

In the compiled backends a chain of 8192 links or more, in an ensemble of at most 8, is cut into segments of 128 links
that run side by side. Its adjoint at the end of a segment is the cotangent times the products of w_l sigmoid'(z_l) over
the segments after it (a product is taken from the segment's first link to its last); within the segment it goes on link
by link. So the roundings differ from those of the plain loop, and the bits don't depend on threads or instruction sets.

``grow(weight_law, bias_law, seed, first, last, marks, row, activation, scaled_mantissa, scaled_exponent, weight,
input_mantissa, input_exponent, derivative_mantissa, derivative_exponent, gap_mantissa, gap_exponent, bound_mantissa,
bound_exponent, carry_gap_mantissa, carry_gap_exponent, carry_bound_mantissa, carry_bound_exponent, start, stop)`` draws
the links first … last - 1 (counted from 1) of each chain and runs them forward:

    ======================  ==================  ==========================================================
    weight_law, bias_law    (int, float, float) `laws.Law.code`
    seed                    int                 0 to 2^64 - 1
    marks                   (record,)           the links to record, ascending
    row                     int                 the first mark that is not below `first`
    activation              (ensemble,)         state: o_{first-1} becomes o_{last-1}; with centered biases the offset
    scaled                  (ensemble,)         state: the same as mantissa and exponent; with centered biases see below
    weight                  (record, ensemble)  filled: w_l at each mark l of the call
    input                   (record, ensemble)  filled: o_{l-1} at each mark
    derivative              (record, ensemble)  filled: sigmoid'(z_l) at each mark
    gap                     (record, ensemble)  filled: product of w_k sigmoid'(z_k) over the links k between a
                                                mark and the next one, or the end of the call
    bound                   (record, ensemble)  filled: product of |w_k| / 4 over the same links
    carry_gap, carry_bound  (ensemble,)         filled: the products over the links before the call's first mark
    ======================  ==================  ==========================================================

With centered biases (b_l = -w_l/2) the state is the offset d_l = o_l - 1/2: z_l = w_l d_{l-1}, d_l = tanh(z_l/2) / 2,
with relative precision however small d is. The activation can't tell: from |d| = 2^-54 down it is exactly 1/2, and a
chain that comes so near by chance would stay there for ever, and its gradient would be the bound. So `activation` is d,
and `scaled` is o. Where |d| < 2^-900, so that o is 1/2, `scaled` is d instead, and `activation` stands for it: a double
below 2^-900, of the same sign, and 0 only where d is. Offsets as small as that are common: they shrink for ever where
chains contract to 1/2 (E ln|w/4| < 0), and return from any depth at the critical law (E ln|w/4| = 0).

The compiled backends take products over whole blocks of 1024 links first (links 1 … 1024, and so on), and then over the
blocks: so a chain can be cut in depth, and the bits don't depend on how. A call should begin with a block.

From these `simulate` makes the recorded gradients: the adjoints are suffix products. Memory does not grow with depth.

``train(weight, bias, x, target, least_loss, loss, learning_rate, clip_value, clip_norm, tolerance, first, last, steps,
marks, row, loss_at, moved, under, left, start, stop)`` takes the steps first … last - 1 of gradient descent:

    ==========================  =================  ==================================================================
    weight, bias                (depth, ensemble)  state: w_l and b_l after `first` steps become those after `last`
    x, target                   (ensemble,)        o_0 and y
    least_loss                  (ensemble,)        the least value that the loss can have
    loss                        int                0: (o_L - y)² / 2;  1: -y ln o_L - (1 - y) ln(1 - o_L)
    learning_rate               float              w_l -= rate grad_weight_l, b_l -= rate grad_bias_l, all at once
    clip_value, clip_norm       float              largest magnitude of a gradient, and after that the largest Euclidean
                                                   norm of all gradients of a chain; infinite: none
    tolerance                   float              for `under`
    first, last, steps          int                `last` is at most steps + 1: after `steps` steps the loss is looked
                                                   at, and no parameter moves any more
    marks                       (record,)          the steps to record, ascending
    row                         int                the first mark that is not below `first`
    loss_at                     (record, ensemble) filled: the loss after so many steps, at each mark of the call;
                                                   infinite once a chain has left float64
    moved                       (ensemble,)        state: the last step that changed any parameter
    under                       (ensemble,)        state: after how many steps the loss came within `tolerance` of the
                                                   least one and stayed there; -1 where it is not
    left                        (ensemble,)        state: the step that would have taken a parameter out of float64;
                                                   0 without. Such a chain keeps what it had before, and moves no more
    ==========================  =================  ==================================================================

With the second loss the way back starts from delta_L = o_L - y: there is no 0/0 where the sigmoid is saturated. That
difference is taken in doubles, as the cotangent of `backprop` is one; from there on a gradient is exact to rounding
however large or small, and only its product with the learning rate becomes a double again.

The sigmoid (design: e = exp(-|z|) = p 2^-k, sigmoid = 1/(1+e) or e/(1+e), sigmoid' = e/(1+e)²) never uses o (1 - o),
which is wrong from z = 20 and zero from z = 36.74. Beyond |z| = 2^60 the derivative is 0, and so is a product whose
exponent falls below -2^62: exponents can't overflow.

Beside the functions a backend states some numbers. ``PAGE_LINKS`` and ``CALL_ELEMENTS`` bound the links, and links
times members, of one call of `grow`: it lasts a fraction of a second, so that progress and Ctrl-C work between calls.
For `train` links, members and steps multiply to at most ``CALL_ELEMENTS``, ``SLICE_MEMBERS`` are best run together, and
``LANES`` of them are worked on side by side, in memory of its own.
``WORK_BYTES`` is the memory that `backprop` takes for each link of each member beside the arrays it is given.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Literal, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

BackendName = Literal["cpp", "numba", "numpy"]

# Of the results' bits, by which a sweep knows what it has: raise it whenever the bits of any result change. The digests
# that are pinned in tests/ show when.
KERNEL_VERSION = 2

# Fastest first: the order in which "auto" tries them. Values: the module, and what mends its absence.
BACKENDS: dict[BackendName, tuple[str, str]] = {
    "cpp": ("fastgrad.kernels.native", "install the package with a C++17 compiler at hand: pip install ."),
    "numba": ("fastgrad.kernels.jit", "pip install numba"),
    "numpy": ("fastgrad.kernels.reference", "pip install numpy"),
}


class Backend(Protocol):
    """What a backend module holds (see the contract above)."""

    PAGE_LINKS: int
    CALL_ELEMENTS: int
    SLICE_MEMBERS: int
    LANES: int
    WORK_BYTES: int

    def backprop(
        self,
        weight: Floats,
        bias: Floats,
        x: Floats,
        cotangent: Floats,
        output: Floats,
        grad_weight_mantissa: Floats,
        grad_weight_exponent: Ints,
        grad_bias_mantissa: Floats,
        grad_bias_exponent: Ints,
        grad_x_mantissa: Floats,
        grad_x_exponent: Ints,
        start: int,
        stop: int,
    ) -> bool:
        """Fill the gradients of the members from start to stop; False if a weight or bias is not finite."""

    def grow(
        self,
        weight_law: tuple[int, float, float],
        bias_law: tuple[int, float, float],
        seed: int,
        first: int,
        last: int,
        marks: Ints,
        row: int,
        activation: Floats,
        scaled_mantissa: Floats,
        scaled_exponent: Ints,
        weight: Floats,
        input_mantissa: Floats,
        input_exponent: Ints,
        derivative_mantissa: Floats,
        derivative_exponent: Ints,
        gap_mantissa: Floats,
        gap_exponent: Ints,
        bound_mantissa: Floats,
        bound_exponent: Ints,
        carry_gap_mantissa: Floats,
        carry_gap_exponent: Ints,
        carry_bound_mantissa: Floats,
        carry_bound_exponent: Ints,
        start: int,
        stop: int,
    ) -> None:
        """Run the links from first to last of the members from start to stop."""

    def train(
        self,
        weight: Floats,
        bias: Floats,
        x: Floats,
        target: Floats,
        least_loss: Floats,
        loss: int,
        learning_rate: float,
        clip_value: float,
        clip_norm: float,
        tolerance: float,
        first: int,
        last: int,
        steps: int,
        marks: Ints,
        row: int,
        loss_at: Floats,
        moved: Ints,
        under: Ints,
        left: Ints,
        start: int,
        stop: int,
    ) -> None:
        """Take the steps from first to last of the members from start to stop."""


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name and can't run here; the message says why and what mends it."""


def load(name: str) -> tuple[BackendName, Backend]:
    """Import a backend.

    Parameters
    ----------
    name : {"auto", "cpp", "numba", "numpy"}
        "auto" is the fastest that is available.

    Returns
    -------
    name : str
        Of the backend that was loaded.
    backend : module

    Raises
    ------
    ValueError
        If there is no backend of this name, or FASTGRAD_ISA names an instruction set that does not run here.
    BackendUnavailableError
        If the one that was named can't run here.
    """
    if name == "auto":
        return next(_loadable())
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"backend: unknown backend {name!r}, expected auto, {', '.join(BACKENDS)}")
    module, remedy = BACKENDS[name]
    try:
        return name, cast("Backend", importlib.import_module(module))
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise BackendUnavailableError(f"backend: {name} is not available ({reason}); to mend it: {remedy}") from error


def _loadable() -> Iterator[tuple[BackendName, Backend]]:
    for name in BACKENDS:
        with contextlib.suppress(BackendUnavailableError):
            yield load(name)


def available_backends() -> list[BackendName]:
    """Names of the backends that can run here, fastest first."""
    return [name for name, _ in _loadable()]
