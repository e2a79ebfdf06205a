"""The contract of the kernels: the arrays that a job is made of, and what a backend does with them.

A backend is a module with a function for each job. A kernel is serial, releases the GIL where it is compiled, reads and
fills arrays, and never checks, prints, or knows about threads. Its last two arguments are the range of members to run
(of `backprop_segments` the range of segments, and the member), so that several threads can share one job. All arrays
are C-contiguous, float64 or int64, links first.

Backprop
    forward   z_l = w_l o_{l-1} + b_l,   o_l = phi(z_l)
    backward  a_L = c,   delta_l = a_l phi'(z_l),   a_{l-1} = delta_l w_l,
    grad_bias_l = delta_l,   grad_weight_l = delta_l o_{l-1},   grad_x = a_0

    The compiled backends cut a chain of 8192 links or more, in an ensemble of at most 8, into segments of 128 links
    that run side by side. The adjoint at the end of a segment is the cotangent times the products of w_l phi'(z_l)
    over the segments after it (a product is taken from the segment's first link to its last); within the segment it
    goes on link by link. The roundings differ from those of the plain loop, and the bits don't depend on threads or
    instruction sets.

Propagate
    Links are drawn and run forward, and only the recorded ones kept: `suffix_products` makes their gradients at the
    end, and memory does not grow with depth. The compiled backends take products over groups of 1024 links first
    (links 1 … 1024, and so on), and then over the groups: a chain can be cut in depth, and the bits don't depend on
    how. A call should begin with a group: the products of one that is cut by calls have other last bits. All products,
    and the adjoints made of them, are relative to dloss/do_L = 1.

    With centered biases (b_l = -w_l phi(0)) the state is the offset d_l = o_l - phi(0): z_l = w_l d_{l-1}, and for the
    sigmoid d_l = tanh(z_l/2)/2, with relative precision however small d is. An activation can't hold it: from
    |d| = 2^-54 down that is exactly 1/2, and a chain that comes so near by chance would stay there for ever, and its
    gradient would be the bound. Offsets below 2^-900 are common: they shrink for ever where chains contract to rest
    (E ln|w phi'(0)| < 0), and return from any depth at the critical law (E ln|w phi'(0)| = 0).

Train
    w_l -= rate grad_weight_l and b_l -= rate grad_bias_l, all at once. With the cross entropy the way back starts from
    delta_L = o_L - y: there is no 0/0 where the sigmoid is saturated. That difference is taken in doubles, as the
    cotangent of a backprop job is one; from there on a gradient is exact to rounding however large or small, and only
    its product with the learning rate becomes a double again.

Layers
    forward   z_l = W_l o_{l-1} + b_l,   o_l = phi(z_l),   W_l (n, n), b_l (n,), of the units of one layer
    backward  a_L = c,   delta_l = a_l phi'(z_l),   a_{l-1} = W_l^T delta_l,
    grad_bias_l = delta_l,   grad_weight_l = delta_l o_{l-1}^T: its Frobenius norm is |delta_l| |o_{l-1}|

    Weights are drawn and never stored: once on the way forward, and once more on the way back. `philox` says which
    counter makes which. An orthogonal layer is gain times H_0 H_1 ... H_{n-1} D (G. Stewart, SIAM J. Numer. Anal. 17
    (1980) 403), which is Haar distributed: H_k reflects the part x of row k of a matrix of standard normals from its
    diagonal on to -sign(x_0) |x| times its first axis, and D has -sign(x_0) of each k. It is applied to vectors in
    O(n^2), and never formed.

    A vector of activations or adjoints has one exponent, those of its largest element: elements 2^-1022 below it may
    become 0. phi' of each unit is mantissa and exponent until it has been multiplied. Laws are drawn with their
    parameters scaled by a power of two, exactly, so that no sum leaves float64, and the preactivations of a layer have
    one exponent as well. Sigmoid and tanh are taken of doubles: of preactivations held to ±2^1000, which only laws of
    1e290 and more pass; where those of a layer are all below 2^-400, tanh is linear, and they keep their exponent.

    The compiled backends take every sum in the order of its index (over columns forward, over rows backward, over the
    units in norms), so that bits depend neither on vectors nor on threads; in a reflection, by the index modulo 8
    first. The reference sums in an order of its own. Nowhere do they depend on how members are cut into slices and
    layers into calls, on what is recorded, or on whether the tape was kept or made again from a state in between.

    What "exact" means: where chi_1 > 1 a network is chaotic. A rounding error grows by sqrt(chi_1) a layer, and after
    some 73 / ln(chi_1) layers the activations depend on every rounding before: the numpy backend, which rounds
    differently, then follows another trajectory of the same network, and so would one that rounds less. Gradients are
    exact along the trajectory that float64 computed: those of the drawn weights and the preactivations that the forward
    pass left, in full relative precision however large or small.

The sigmoid (e = exp(-|z|) = p 2^-k, sigmoid = 1/(1+e) or e/(1+e), sigmoid' = e/(1+e)²) never uses o (1 - o), which is
wrong from z = 20 and zero from z = 36.74. Beyond |z| = 2^60 the slope is 0, and so is a product whose exponent falls
below -2^62: exponents can't overflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from fastgrad.kernels.constants import ZERO_EXPONENT

LawCode = tuple[int, float, float]

if TYPE_CHECKING:
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
    nonlinearity: int  #                               in      `nonlinearities.Nonlinearity.code`, of one of chains
    x: Floats  #                    (ensemble,)        in      o_0
    cotangent: Floats  #            (ensemble,)        in      c = dloss/do_L
    output: Floats  #               (ensemble,)        out     o_L
    grad_weight: ScaledArrays  #    (depth, ensemble)  out     dloss/dw_l
    grad_bias: ScaledArrays  #      (depth, ensemble)  out     dloss/db_l
    grad_x: ScaledArrays  #         (ensemble,)        out     dloss/do_0


class Segments(NamedTuple):
    """States, products and adjoints of one deep chain, cut into segments: what its stages leave to each other."""

    activation: Floats  #           (segments,)        in, out o at the start of each
    scaled: ScaledArrays  #         (segments,)        in, out o at the start of each
    end_activation: Floats  #       (1,)               in, out o after the last segment of the call, as in `activation`
    end_scaled: ScaledArrays  #     (1,)               in, out likewise
    product: ScaledArrays  #        (segments,)        in, out product of w_l phi'(z_l) over each
    adjoint: ScaledArrays  #        (segments,)        in, out a at the end of each


class State(NamedTuple):
    """State of drawn chains between two calls of `propagate`, and the products that a call leaves behind."""

    activation: Floats  #           (ensemble,)        in, out o_l; with centered biases d_l, and below 2^-900 a double
    #                                                          of its sign below 2^-900 that stands for it: 0 only for 0
    scaled: ScaledArrays  #         (ensemble,)        in, out o_l; with centered biases d_l where |d_l| < 2^-900,
    #                                                          otherwise o_l too
    product_before: ScaledArrays  # (ensemble,)        out     product of w_k phi'(z_k) over the links k of the call
    #                                                          before its first recorded one
    bound_before: ScaledArrays  #   (ensemble,)        out     product of |w_k| max phi' over the same links


class PropagateJob(NamedTuple):
    """Drawn chains, streamed forward."""

    weight_law: LawCode  #                             in      family, location and scale: `laws.Law.code`
    bias_law: LawCode  #                               in
    seed: int  #                                       in      0 to 2^64 - 1
    nonlinearity: int  #                               in
    recorded_links: Ints  #         (record,)          in      links to record, ascending, counted from 1
    weight: Floats  #               (record, ensemble) out     w_l at each recorded link l of the call
    input: ScaledArrays  #          (record, ensemble) out     o_{l-1}
    slope: ScaledArrays  #          (record, ensemble) out     phi'(z_l)
    product: ScaledArrays  #        (record, ensemble) out     product of w_k phi'(z_k) over the links k after l and
    #                                                          before the next recorded one or the end of the call
    bound: ScaledArrays  #          (record, ensemble) out     product of |w_k| max phi' over the same links


class TrainJob(NamedTuple):
    """Gradient descent on given chains."""

    weight: Floats  #               (depth, ensemble)  in, out w_l after `first` steps becomes that after `last`
    bias: Floats  #                 (depth, ensemble)  in, out b_l, likewise
    nonlinearity: int  #                               in
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


class ScaledVectors(NamedTuple):
    """Vectors value * 2^exponent, one exponent each: the largest |value| is in [1/2, 1), or all are 0 * 2^-(2^62)."""

    value: Floats  #                (ensemble, vectors, width)
    exponent: Ints  #               (ensemble, vectors)

    @classmethod
    def of(cls, values: Floats) -> ScaledVectors:
        """Scale copies of vectors of doubles, shape (ensemble, vectors, width)."""
        shift = np.frexp(np.abs(values).max(axis=-1))[1].astype(np.int64)
        scaled = np.ldexp(values, -shift[..., None])
        return cls(scaled, np.where(scaled.any(axis=-1), shift, ZERO_EXPONENT))


class LayersJob(NamedTuple):
    """Drawn dense layers, forward and backward."""

    weight_law: LawCode  #                             in      family, location and scale of a weight, or of an
    #                                                          orthogonal layer the family, 0 and its gain
    bias_law: LawCode  #                               in
    seed: int  #                                       in      0 to 2^64 - 1
    nonlinearity: int  #                               in      `nonlinearities.Nonlinearity.code`
    recorded_layers: Ints  #        (record,)          in      layers to record, ascending, counted from 1
    length: ScaledArrays  #         (record, ensemble) out     |z_l|^2 / n of the first input, from `layers_forward`
    mean_activation: ScaledArrays  # (record, ensemble) out    mean over the units of o_l
    saturated: Floats  #            (record, ensemble) out     share of units with |z_l| > 6; sigmoid and tanh, else 0
    dead: Floats  #                 (record, ensemble) out     share of units with z_l <= 0; relu, else 0
    correlation: Floats  #          (record, ensemble) out     z_l . z_l' / (|z_l| |z_l'|) of the first two inputs, nan
    #                                                          where one is 0; not touched if there is one input
    input_norm: ScaledArrays  #     (record, ensemble) out     |o_{l-1}| of the first input
    delta_norm: ScaledArrays  #     (record, ensemble) out     |delta_l| of the first cotangent, from `layers_backward`
    adjoint_norm: ScaledArrays  #   (record, ensemble) out     |a_{l-1}|


class Limits(NamedTuple):
    """Sizes of a backend's calls: each lasts a fraction of a second, so that progress and Ctrl-C work between them."""

    links: int  # of a call of `propagate`
    elements: int  # links x members of a call of `propagate`, links x members x steps of a call of `train`
    members: int  # of a call of `train`: so many are best run together
    lanes: int  # members that `train` works on side by side, in memory of its own; 0: in whole arrays
    work_bytes: int  # memory that `backprop` takes for each link of each member beside the arrays of its job
    weights: int  # layers x members x width² of a call of `layers_forward` or `layers_backward`
    segment: int  # links of a segment of a deep chain; 0: chains are not cut, and there is no `backprop_segments`


class Backend(Protocol):
    """A backend module."""

    LIMITS: Limits

    def backprop(self, job: BackpropJob, start: int, stop: int) -> bool:
        """Fill the gradients of the members start … stop - 1; False where a weight or bias is not finite.

        The results then mean nothing, and the caller says where.
        """

    def backprop_segments(
        self, job: BackpropJob, segments: Segments, stage: int, first: int, last: int, member: int
    ) -> bool:
        """Run a stage of one deep chain over its segments first … last - 1 (counted from 0); the result as `backprop`.

        Chains are cut that have SEGMENTED_DEPTH_MIN links or more, in ensembles of SEGMENTED_ENSEMBLE_MAX at most.
        Their stages are FORWARD, from the state at the start of segment `first`, which fills states and products and
        leaves the state after the last one; ADJOINTS, with the state after all segments and `last` their number, which
        also does the links that fill no segment; and BACKWARD. FORWARD and BACKWARD may be cut at any segment. GUESS
        fills the state at the start of `first` by running the segment before it from rest: it is right if it has the
        bits of the state that FORWARD leaves there, as it has as a rule.
        """

    def propagate(self, job: PropagateJob, state: State, first: int, last: int, start: int, stop: int) -> None:
        """Run the links first … last - 1 (counted from 1) of the members start … stop - 1."""

    def suffix_products(self, job: PropagateJob, start: int, stop: int) -> None:
        """Make recorded gradients of what `propagate` left of the members start … stop - 1, in place.

        From the last recorded link on: delta_l = (product a) phi'(z_l), where a is the adjoint of the next recorded
        link's input, 1 after the last, and a_{l-1} = delta_l w_l. `product` becomes a_{l-1}, the adjoint of the link's
        input, `slope` delta_l = grad_bias, `input` delta_l o_{l-1} = grad_weight, and `bound` the bound from the link
        to the output.
        """

    def train(self, job: TrainJob, first: int, last: int, start: int, stop: int) -> None:
        """Take the steps first … last - 1 of the members start … stop - 1; `last` is at most `job.steps` + 1."""

    def layers_forward(
        self, job: LayersJob, state: ScaledVectors, tape: Floats, first: int, last: int, start: int, stop: int
    ) -> None:
        """Run the layers first … last - 1 (counted from 1) of the members start … stop - 1.

        `state` (in, out) has the activations of each input before and after, (ensemble, inputs, width); `tape` (out) is
        what `layers_backward` needs of those layers and members, (last - first, stop - start, width) doubles, or has no
        rows where nothing is kept.
        """

    def layers_backward(
        self, job: LayersJob, adjoint: ScaledVectors, tape: Floats, first: int, last: int, start: int, stop: int
    ) -> None:
        """Run the layers last - 1 … first backward.

        `adjoint` (in, out) has the adjoints a_{last - 1} and then a_{first - 1} of each cotangent, (ensemble,
        cotangents, width): all are multiplied by the same weights, drawn once.
        """

    def build(self) -> dict[str, str]:
        """Tell compiler, compile_flags and instruction_set of what was compiled beforehand; empty without."""
