"""Chains in NumPy: the definition of what the compiled backends compute, formula by formula. It is not tuned.

The contract is `fastgrad.kernels.contract`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad import philox
from fastgrad.kernels.constants import (
    CROSS_ENTROPY,
    EXPONENT_MIN,
    SQUARED,
    STAND_IN_MAX,
    STAND_IN_MIN,
    TINY_OFFSET,
)
from fastgrad.kernels.reference.nonlinearity import NONLINEARITIES, Nonlinearity, renormalize
from fastgrad.laws import FAMILY_CODES, Law
from fastgrad.scaled import Scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fastgrad.kernels.contract import BackpropJob, PropagateJob, State, TrainJob

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

WORK_ELEMENTS = 2**18  # links times members that `propagate` makes arrays of at a time
PRODUCT_ROWS = 64  # links whose product is taken at once; the compiled backends take GROUP_LINKS
RECORD_ROWS = 300  # recorded links that are multiplied at a time: three mantissas each, from 1/2, end above 2^-901
RECORD_ELEMENTS = 2**17  # and their members: they stay in the cache, and beside the records they are few
EXPONENT_SUM_MAX = 2**61  # beyond it, sums of exponents might leave int64

FAMILIES = {code: family for family, code in FAMILY_CODES.items()}


def forward(phi: Nonlinearity, weight: Floats, bias: Floats, activation: Floats) -> tuple[Floats, Floats]:
    """Preactivations z of every link, shape (depth, members), and the last activation."""
    z = np.empty_like(weight)
    o = activation
    with np.errstate(over="ignore"):  # a preactivation beyond float64 is infinite: dead
        for link in range(len(weight)):
            z[link] = weight[link] * o + bias[link]
            o = phi.value(z[link])
    return z, o


def forward_offset(
    phi: Nonlinearity, weight: Floats, offset: Floats, scaled_mantissa: Floats, scaled_exponent: Ints
) -> tuple[Floats, Floats, tuple[Floats, Ints]]:
    """Preactivations and offsets d = o - phi(0) of every link with centered biases.

    z_l = w_l d_{l-1}; where z is so small that a double may not hold it, d is its slope times z.

    Parameters
    ----------
    phi : Nonlinearity
    weight : ndarray, shape (depth, members)
    offset, scaled_mantissa, scaled_exponent : ndarray, shape (members,)
        The state before: see the contract.

    Returns
    -------
    z : ndarray, shape (depth, members)
    offset : ndarray, shape (members,)
        The last one, as a double.
    scaled : tuple of ndarray, shape (depth, members)
        All as mantissa and exponent.
    """
    z, mantissas, exponents = np.empty_like(weight), np.empty_like(weight), np.empty(weight.shape, dtype=np.int64)
    w_mantissa, w_exponent = renormalize(weight, np.zeros((), dtype=np.int64))
    tiny = np.abs(offset) < TINY_OFFSET
    mantissa, exponent = renormalize(offset, np.zeros((), dtype=np.int64))
    mantissa, exponent = np.where(tiny, scaled_mantissa, mantissa), np.where(tiny, scaled_exponent, exponent)
    d = offset
    for link in range(len(weight)):
        mantissa, exponent = renormalize(mantissa * w_mantissa[link], exponent + w_exponent[link])
        z[link] = np.ldexp(mantissa, np.clip(exponent, STAND_IN_MIN, STAND_IN_MAX).astype(np.int32))
        d = phi.offset(z[link])
        fraction, shift = np.frexp(d)
        tiny = np.abs(d) < TINY_OFFSET
        mantissa = np.where(tiny, mantissa, fraction)
        exponent = np.where(tiny & (mantissa != 0), exponent + phi.slope_exponent, shift)
        mantissas[link], exponents[link] = mantissa, exponent
    return z, d, (mantissas, exponents)


class Backward(NamedTuple):
    """Gradients of every link as mantissa and exponent, and the adjoint of the input."""

    grad_weight: tuple[Floats, Ints]
    grad_bias: tuple[Floats, Ints]
    adjoint: tuple[Floats, Ints]


def backward(
    phi: Nonlinearity, w: Floats, x: Floats, z: Floats, adjoint: tuple[Floats, Ints], *, is_delta: bool = False
) -> Backward:
    """Gradients from the preactivations and the adjoint a_L; or, if `is_delta` is set, from delta_L."""
    no_shift = np.zeros((), dtype=np.int64)
    link = phi.extended(z)
    if is_delta:
        link.derivative[-1], link.derivative_exponent[-1] = 1.0, 0
    x_mantissa, x_exponent = renormalize(x, no_shift)
    input_mantissa = np.concatenate([x_mantissa[None], link.mantissa[:-1]])  # o_{l-1}
    input_exponent = np.concatenate([x_exponent[None], link.exponent[:-1]])

    # delta_l = a_l phi'(z_l),  a_{l-1} = delta_l w_l
    w_mantissa, w_exponent = renormalize(w, no_shift)
    factor_mantissa = link.derivative * w_mantissa
    factor_exponent = link.derivative_exponent + w_exponent
    adjoint_mantissa = np.empty_like(w)
    adjoint_exponent = np.empty(w.shape, dtype=np.int64)
    mantissa, exponent = adjoint
    for row in range(len(w) - 1, -1, -1):
        adjoint_mantissa[row], adjoint_exponent[row] = mantissa, exponent
        mantissa, exponent = renormalize(mantissa * factor_mantissa[row], exponent + factor_exponent[row])
    delta = renormalize(adjoint_mantissa * link.derivative, adjoint_exponent + link.derivative_exponent)
    return Backward(
        grad_weight=renormalize(delta[0] * input_mantissa, delta[1] + input_exponent),
        grad_bias=delta,
        adjoint=(mantissa, exponent),
    )


def backprop(job: BackpropJob, start: int, stop: int) -> bool:
    """Gradients of given chains."""
    phi, members = NONLINEARITIES[job.nonlinearity], slice(start, stop)
    w, b, x = job.weight[:, members], job.bias[:, members], job.x[members]
    if not (np.isfinite(w).all() and np.isfinite(b).all()):
        return False
    z, job.output[members] = forward(phi, w, b, x)
    found = backward(phi, w, x, z, renormalize(job.cotangent[members], np.zeros((), dtype=np.int64)))
    job.grad_weight.mantissa[:, members], job.grad_weight.exponent[:, members] = found.grad_weight
    job.grad_bias.mantissa[:, members], job.grad_bias.exponent[:, members] = found.grad_bias
    job.grad_x.mantissa[members], job.grad_x.exponent[members] = found.adjoint
    return True


def train(job: TrainJob, first: int, last: int, start: int, stop: int) -> None:
    """Gradient descent on given chains."""
    phi, members = NONLINEARITIES[job.nonlinearity], slice(start, stop)
    w, b, x, y = job.weight[:, members], job.bias[:, members], job.x[members], job.target[members]
    converged_at, diverged_at, last_update = (
        of[members] for of in (job.converged_at, job.diverged_at, job.last_update)
    )
    no_shift = np.zeros((), dtype=np.int64)
    rate, rate_exponent = np.frexp(job.learning_rate)
    row = int(np.searchsorted(job.recorded_steps, first))
    for step in range(first, last):
        z, output = forward(phi, w, b, x)
        error = output - y
        with np.errstate(over="ignore", under="ignore"):
            now = 0.5 * error * error if job.loss_code == SQUARED else cross_entropy(z[-1], y)
        has_diverged = diverged_at != 0
        if row < len(job.recorded_steps) and job.recorded_steps[row] == step:
            job.loss[row, members] = np.where(has_diverged, np.inf, now)
            row += 1
        low = now - job.min_loss[members] <= job.tolerance
        converged_at[:] = np.where(low, np.where(converged_at < 0, step, converged_at), -1)
        if step == job.steps:
            return

        # w_l -= rate grad_weight_l, b_l -= rate grad_bias_l
        found = backward(phi, w, x, z, renormalize(error, no_shift), is_delta=job.loss_code == CROSS_ENTROPY)
        mantissa, exponent = (np.stack(parts) for parts in zip(found.grad_weight, found.grad_bias, strict=True))
        mantissa, exponent = clip(mantissa, exponent, job.clip_value, job.clip_norm)
        after = np.stack([w, b]) - to_float(rate * mantissa, exponent + rate_exponent)
        leaves = ~np.isfinite(after).all(axis=(0, 1))
        after = np.where(leaves | has_diverged, np.stack([w, b]), after)
        diverged_at[:] = np.where(leaves & ~has_diverged, step + 1, diverged_at)
        moves = (after != np.stack([w, b])).any(axis=(0, 1))
        last_update[:] = np.where(moves, step + 1, last_update)
        w[:], b[:] = after
        if not moves.any():  # and never will: every recorded step that is left gets the same loss
            later = job.recorded_steps[row : np.searchsorted(job.recorded_steps, last)]
            job.loss[row : row + len(later), members] = np.where(diverged_at != 0, np.inf, now)
            return


def cross_entropy(z: Floats, y: Floats) -> Floats:
    """Return -y ln o - (1 - y) ln(1 - o) for o = sigmoid(z)."""
    share = np.where(z < 0, y, 1 - y)
    size = np.abs(z)
    return np.where(share == 0, 0.0, share * np.where(share == 0, 0.0, size)) + np.log1p(np.exp(-size))


def to_float(mantissa: Floats, exponent: Ints) -> Floats:
    """Return mantissa * 2^exponent, rounded once; infinite where no double holds it."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(mantissa, np.clip(exponent, -5000, 5000).astype(np.int32))


def clip(mantissa: Floats, exponent: Ints, value: float, norm: float) -> tuple[Floats, Ints]:
    """Gradients at most `value` in magnitude, and then over the first two axes at most `norm` in Euclidean norm."""
    if np.isfinite(value):
        size, size_exponent = np.frexp(value)
        large = exceeds(np.abs(mantissa), exponent, size, size_exponent)
        mantissa = np.where(large, np.copysign(size, mantissa), mantissa)
        exponent = np.where(large, size_exponent, exponent)
    if np.isfinite(norm):
        zero = mantissa == 0
        top = np.where(zero, EXPONENT_MIN, exponent).max(axis=(0, 1))
        scaled = np.where(zero, 0.0, to_float(mantissa, exponent - top))
        root, shift = np.frexp(np.sqrt((scaled * scaled).sum(axis=(0, 1))))
        limit, limit_exponent = np.frexp(norm)
        large = exceeds(root, top + shift, limit, limit_exponent)
        factor = np.where(large, limit / np.where(large, root, 1.0), 1.0)
        mantissa, exponent = renormalize(mantissa * factor, exponent + np.where(large, limit_exponent - top - shift, 0))
    return mantissa, exponent


def exceeds(mantissa: Floats, exponent: Ints, limit: float, limit_exponent: int) -> NDArray[np.bool_]:
    """Compare positive normalized numbers; zero exceeds none."""
    larger = (exponent > limit_exponent) | ((exponent == limit_exponent) & (mantissa > limit))
    return np.asarray((mantissa != 0) & larger)


def product(mantissa: Floats, exponent: Ints) -> tuple[Floats, Ints]:
    """Product over the first axis, in pairs: each member's is independent of the others that are beside it."""
    while len(mantissa) > 1:
        if len(mantissa) % 2:
            mantissa = np.concatenate([mantissa, np.ones_like(mantissa[:1])])
            exponent = np.concatenate([exponent, np.zeros_like(exponent[:1])])
        mantissa, exponent = renormalize(mantissa[0::2] * mantissa[1::2], exponent[0::2] + exponent[1::2])
    return mantissa[0], exponent[0]


def propagate(job: PropagateJob, state: State, first: int, last: int, start: int, stop: int) -> None:
    """Drawn chains, streamed forward."""
    recorded, activation, scaled = job.recorded_links, state.activation, state.scaled
    phi, members = NONLINEARITIES[job.nonlinearity], slice(start, stop)
    laws = [Law(FAMILIES[code], location, scale, "") for code, location, scale in (job.weight_law, job.bias_law)]
    for mantissa, exponent in (state.product_before, state.bound_before):
        mantissa[members], exponent[members] = 0.5, 1  # the number 1
    first_row, end_row = (int(at) for at in np.searchsorted(recorded, [first, last]))
    row = first_row - 1  # of the last recorded link passed in this call; before the first, the state's products
    step = max(1, WORK_ELEMENTS // (stop - start) // PRODUCT_ROWS) * PRODUCT_ROWS
    for first_link in range(first, last, step):
        links = np.arange(first_link, min(first_link + step, last))
        w, b = philox.draw(laws[0], laws[1], job.seed, links, np.arange(start, stop))

        # forward: z_l = w_l o_{l-1} + b_l,  o_l = phi(z_l)
        first_input = scaled.mantissa[members], scaled.exponent[members]
        if laws[1].family == "centered":
            tiny = np.abs(activation[members]) < TINY_OFFSET
            z, activation[members], offset = forward_offset(phi, w, activation[members], *first_input)
            values = phi.extended(z)
            if phi.rest == 0:  # else a tiny offset is nothing beside it
                values = values._replace(mantissa=offset[0], exponent=offset[1])
            else:
                rest, rest_exponent = np.frexp(phi.rest)
                first_input = np.where(tiny, rest, first_input[0]), np.where(tiny, rest_exponent, first_input[1])
        else:
            z, activation[members] = forward(phi, w, b, activation[members])
            values = phi.extended(z)
        input_mantissa = np.concatenate([first_input[0][None], values.mantissa[:-1]])
        input_exponent = np.concatenate([first_input[1][None], values.exponent[:-1]])
        scaled.mantissa[members], scaled.exponent[members] = renormalize(values.mantissa[-1], values.exponent[-1])
        if laws[1].family == "centered":
            tiny = np.abs(activation[members]) < TINY_OFFSET
            scaled.mantissa[members] = np.where(tiny, offset[0][-1], scaled.mantissa[members])
            scaled.exponent[members] = np.where(tiny, offset[1][-1], scaled.exponent[members])

        # recorded links: what their gradients are made of
        rows = slice(row + 1, int(np.searchsorted(recorded[:end_row], links[-1], side="right")))
        at = recorded[rows] - first_link
        job.weight[rows, members] = w[at]
        job.input.mantissa[rows, members], job.input.exponent[rows, members] = renormalize(
            input_mantissa[at], input_exponent[at]
        )
        job.slope.mantissa[rows, members], job.slope.exponent[rows, members] = renormalize(
            values.derivative[at], values.derivative_exponent[at]
        )
        for mantissa, exponent in (job.product, job.bound):
            mantissa[rows, members], exponent[rows, members] = 0.5, 1

        # the products over the links between two recorded ones
        w_mantissa, w_exponent = renormalize(w, np.zeros((), dtype=np.int64))
        product_factor = values.derivative * w_mantissa, values.derivative_exponent + w_exponent
        bound_factor = np.abs(w_mantissa), w_exponent + phi.slope_exponent
        # Cut at recorded links and every PRODUCT_ROWS links: the bits don't depend on how wide the slice is.
        starts = np.union1d(at, np.arange(0, len(links), PRODUCT_ROWS))
        is_recorded = np.isin(starts, at)
        for start_at, after, is_at_recorded in zip(starts, [*starts[1:], len(links)], is_recorded, strict=True):
            between = slice(start_at + 1 if is_at_recorded else start_at, after)
            if is_at_recorded:
                row += 1
            if between.start < between.stop:
                is_before = row < first_row
                cell = members if is_before else (row, members)
                products = (state.product_before, state.bound_before) if is_before else (job.product, job.bound)
                for (mantissa, exponent), factor in zip(products, (product_factor, bound_factor), strict=True):
                    fraction, shift = product(factor[0][between], factor[1][between])
                    mantissa[cell], exponent[cell] = renormalize(mantissa[cell] * fraction, exponent[cell] + shift)


def suffix_products(job: PropagateJob, start: int, stop: int) -> None:
    """Recorded gradients from what `propagate` leaves, in place."""
    phi, members = NONLINEARITIES[job.nonlinearity], slice(start, stop)
    weight = job.weight[:, members]
    input_at, slope, product, bound = (
        Scaled.of_parts(of.mantissa[:, members], of.exponent[:, members])
        for of in (job.input, job.slope, job.product, job.bound)
    )
    following = bound_following = Scaled.from_float(np.ones(stop - start))
    rows = max(1, min(RECORD_ROWS, RECORD_ELEMENTS // (stop - start)))
    for last in range(len(weight), 0, -rows):
        block = slice(max(0, last - rows), last)
        w = Scaled.from_float(weight[block])
        of_bound = Scaled.of_parts(np.abs(w.mantissa), w.exponent + phi.slope_exponent)
        delta, adjoint = running_products((product[block], slope[block], w), following)
        (bounds,) = running_products((bound[block], of_bound), bound_following)
        input_at[block] = delta * input_at[block]
        slope[block], product[block], bound[block] = delta, adjoint, bounds
        following, bound_following = adjoint[0], bounds[0]


def running_products(factors: tuple[Scaled, ...], start: Scaled) -> Iterator[Scaled]:
    """Products from the last row up, beginning with `start`: for each factor, all that has been multiplied after it.

    The bits are those of one product after the other. Renormalizing is exact, and is done once at the end: until then
    mantissas alone are multiplied, which over `RECORD_ROWS` rows stay normal numbers, and exponents are summed.

    Parameters
    ----------
    factors : tuple of Scaled, shape (rows, ensemble)
        At most three, and at most `RECORD_ROWS` rows. The first one's products are not given back.
    start : Scaled, shape (ensemble,)
    """
    rows = len(factors[0])
    largest = [int(np.abs(factor.exponent).max(initial=0)) for factor in (*factors, start)]
    if rows * sum(largest) > EXPONENT_SUM_MAX:
        results = [Scaled.empty(factors[0].shape) for _ in factors]
        run = start
        for row in range(rows - 1, -1, -1):
            for factor, result in zip(factors, results, strict=True):
                run = run * factor[row]
                result[row] = run
        yield from results[1:]
        return
    mantissas = [np.empty(factor.shape) for factor in factors]
    mantissa: Floats = start.mantissa
    for row in range(rows - 1, -1, -1):
        for factor, products in zip(factors, mantissas, strict=True):
            mantissa = np.multiply(mantissa, factor.mantissa[row], out=products[row])
    of_row = np.sum([factor.exponent for factor in factors], axis=0)
    exponent: Ints = np.cumsum(of_row[::-1], axis=0)[::-1]
    exponent += start.exponent
    exponent -= of_row  # before the first factor of each row
    for i, (factor, products) in enumerate(zip(factors, mantissas, strict=True)):
        exponent += factor.exponent
        if i:
            fraction, shift = np.frexp(products)
            shifted = exponent + shift
            if not fraction.all():
                zero = fraction == 0
                fraction[zero], shifted[zero] = 0.0, 0
            yield Scaled.of_parts(fraction, shifted)
