"""The contract of the kernels: the arrays that a job is made of, and what a backend does with them.

A backend is a module with a function for each job. A kernel is serial, releases the GIL where it is compiled, reads and
fills arrays, and never checks, prints, or knows about threads. Its last two arguments are the range of members to run,
so that several threads can share one job. All arrays are C-contiguous, float64 or int64, links first.

Backprop
    forward   z_l = w_l o_{l-1} + b_l,   o_l = sigmoid(z_l)
    backward  a_L = c,   delta_l = a_l sigmoid'(z_l),   a_{l-1} = delta_l w_l,
    grad_bias_l = delta_l,   grad_weight_l = delta_l o_{l-1},   grad_x = a_0

    The compiled backends cut a chain of 8192 links or more, in an ensemble of at most 8, into segments of 128 links
    that run side by side. The adjoint at the end of a segment is the cotangent times the products of w_l sigmoid'(z_l)
    over the segments after it (a product is taken from the segment's first link to its last); within the segment it
    goes on link by link. The roundings differ from those of the plain loop, and the bits don't depend on threads or
    instruction sets.

Propagate
    Links are drawn and run forward, and only the recorded ones kept: `simulate` makes their gradients by suffix
    products, and memory does not grow with depth. The compiled backends take products over whole blocks of 1024 links
    first (links 1 … 1024, and so on), and then over the blocks: a chain can be cut in depth, and the bits don't depend
    on how. A call should begin with a block.

    With centered biases (b_l = -w_l/2) the state is the offset d_l = o_l - 1/2: z_l = w_l d_{l-1}, d_l = tanh(z_l/2)/2,
    with relative precision however small d is. An activation can't hold it: from |d| = 2^-54 down it is exactly 1/2,
    and a chain that comes so near by chance would stay there for ever, and its gradient would be the bound. Offsets
    below 2^-900 are common: they shrink for ever where chains contract to 1/2 (E ln|w/4| < 0), and return from any
    depth at the critical law (E ln|w/4| = 0).

Train
    w_l -= rate grad_weight_l and b_l -= rate grad_bias_l, all at once. With the cross entropy the way back starts from
    delta_L = o_L - y: there is no 0/0 where the sigmoid is saturated. That difference is taken in doubles, as the
    cotangent of a backprop job is one; from there on a gradient is exact to rounding however large or small, and only
    its product with the learning rate becomes a double again.

The sigmoid (e = exp(-|z|) = p 2^-k, sigmoid = 1/(1+e) or e/(1+e), sigmoid' = e/(1+e)²) never uses o (1 - o), which is
wrong from z = 20 and zero from z = 36.74. Beyond |z| = 2^60 the slope is 0, and so is a product whose exponent falls
below -2^62: exponents can't overflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

LawCode = tuple[int, float, float]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastgrad.scaled import Scaled

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


class ScaledArrays(NamedTuple):
    """Numbers mantissa * 2^exponent with 1/2 <= |mantissa| < 1, or 0 and 0."""

    mantissa: Floats
    exponent: Ints

    @classmethod
    def of(cls, numbers: Scaled, *shape: int) -> ScaledArrays:
        """View the memory of `numbers`, in their shape or in another."""
        shape = shape or numbers.mantissa.shape
        return cls(numbers.mantissa.reshape(shape), numbers.exponent.reshape(shape))


class BackpropJob(NamedTuple):
    """Gradients of given chains."""

    weight: Floats  #               (depth, ensemble)  in      w_l
    bias: Floats  #                 (depth, ensemble)  in      b_l
    x: Floats  #                    (ensemble,)        in      o_0
    cotangent: Floats  #            (ensemble,)        in      c = dloss/do_L
    output: Floats  #               (ensemble,)        out     o_L
    grad_weight: ScaledArrays  #    (depth, ensemble)  out     dloss/dw_l
    grad_bias: ScaledArrays  #      (depth, ensemble)  out     dloss/db_l
    grad_x: ScaledArrays  #         (ensemble,)        out     dloss/do_0


class State(NamedTuple):
    """State of drawn chains between two calls of `propagate`, and the products that a call leaves behind."""

    activation: Floats  #           (ensemble,)        in, out o_l; with centered biases d_l, and below 2^-900 a double
    #                                                          of its sign below 2^-900 that stands for it: 0 only for 0
    scaled: ScaledArrays  #         (ensemble,)        in, out o_l; with centered biases d_l where |d_l| < 2^-900
    product_before: ScaledArrays  # (ensemble,)        out     product of w_k sigmoid'(z_k) over the links k of the call
    #                                                          before its first recorded one
    bound_before: ScaledArrays  #   (ensemble,)        out     product of |w_k|/4 over the same links


class PropagateJob(NamedTuple):
    """Drawn chains, streamed forward."""

    weight_law: LawCode  #                             in      family, location and scale: `laws.Law.code`
    bias_law: LawCode  #                               in
    seed: int  #                                       in      0 to 2^64 - 1
    recorded_links: Ints  #         (record,)          in      links to record, ascending, counted from 1
    weight: Floats  #               (record, ensemble) out     w_l at each recorded link l of the call
    input: ScaledArrays  #          (record, ensemble) out     o_{l-1}
    slope: ScaledArrays  #          (record, ensemble) out     sigmoid'(z_l)
    product: ScaledArrays  #        (record, ensemble) out     product of w_k sigmoid'(z_k) over the links k after l and
    #                                                          before the next recorded one or the end of the call
    bound: ScaledArrays  #          (record, ensemble) out     product of |w_k|/4 over the same links


class TrainJob(NamedTuple):
    """Gradient descent on given chains."""

    weight: Floats  #               (depth, ensemble)  in, out w_l after `first` steps becomes that after `last`
    bias: Floats  #                 (depth, ensemble)  in, out b_l, likewise
    x: Floats  #                    (ensemble,)        in      o_0
    target: Floats  #               (ensemble,)        in      y
    min_loss: Floats  #             (ensemble,)        in      the least value that the loss can have
    loss_code: int  #                                  in      0: (o_L - y)²/2,  1: -y ln o_L - (1 - y) ln(1 - o_L)
    learning_rate: float  #                            in
    clip_value: float  #                               in      largest magnitude of a gradient; infinite: none
    clip_norm: float  #                                in      after that, largest Euclidean norm of a chain's gradients
    tolerance: float  #                                in      of the loss above `min_loss`, for `converged_at`
    steps: int  #                                      in      after so many the loss is looked at, and nothing moves
    recorded_steps: Ints  #         (record,)          in      steps to record, ascending
    loss: Floats  #                 (record, ensemble) out     after each recorded step of the call; inf once diverged
    last_update: Ints  #            (ensemble,)        in, out the last step that changed any parameter
    converged_at: Ints  #           (ensemble,)        in, out step since which the loss is within `tolerance`, or -1
    diverged_at: Ints  #            (ensemble,)        in, out step that would have taken a parameter out of float64,
    #                                                          or 0; such a chain keeps what it had, and moves no more


class Limits(NamedTuple):
    """Sizes of a backend's calls: each lasts a fraction of a second, so that progress and Ctrl-C work between them."""

    links: int  # of a call of `propagate`
    elements: int  # links x members of a call of `propagate`, links x members x steps of a call of `train`
    members: int  # of a call of `train`: so many are best run together
    lanes: int  # members that `train` works on side by side, in memory of its own; 0: in whole arrays
    work_bytes: int  # memory that `backprop` takes for each link of each member beside the arrays of its job


class Backend(Protocol):
    """A backend module."""

    LIMITS: Limits

    def backprop(self, job: BackpropJob, start: int, stop: int) -> bool:
        """Fill the gradients of the members start … stop - 1; False where a weight or bias is not finite.

        The results then mean nothing, and the caller says where.
        """

    def propagate(self, job: PropagateJob, state: State, first: int, last: int, start: int, stop: int) -> None:
        """Run the links first … last - 1 (counted from 1) of the members start … stop - 1."""

    def train(self, job: TrainJob, first: int, last: int, start: int, stop: int) -> None:
        """Take the steps first … last - 1 of the members start … stop - 1; `last` is at most `job.steps` + 1."""

    def build(self) -> dict[str, str]:
        """Tell compiler, compile_flags and instruction_set of what was compiled beforehand; empty without."""
