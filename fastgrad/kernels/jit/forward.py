"""Forward pass without a tape: see csrc/forward.h."""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.kernels.contract import ScaledArrays
from fastgrad.kernels.jit.compiler import LINE, njit, njit_row, prefetch
from fastgrad.kernels.jit.nonlinearity import is_outside
from fastgrad.kernels.jit.numbers import EXPONENT_MIN, renormalize, renormalize_in_range, to_scaled

if TYPE_CHECKING:
    from fastgrad.kernels.contract import Floats

LARGEST = float(np.finfo(np.float64).max)
UINT = np.uintp
PREFETCH_DISTANCE = 8  # links


class ForwardState(NamedTuple):
    """States of lanes between two links: o as a double, and as mantissa and exponent."""

    activation: Floats
    scaled: ScaledArrays


@njit_row
def prefetch_row(weight, bias, link, begin, end):
    """Ask for a row of weights and biases.

    Rows of a block lie pages apart, where no prefetcher of the processor looks.
    """
    for column in range(begin, end, LINE):
        prefetch(weight, link, column)
        prefetch(bias, link, column)


@njit_row
def advance_row(
    phi, weight, bias, link, begin, lanes, z, activation, scaled, scaled_exponent, mantissa, exponent, extended
):
    """One link of every lane forward, and the product of w phi' as mantissa and exponent; nothing is kept.

    The activation is also made as mantissa and exponent where the result says that a double can't hold it. Returns
    that, and whether the products need extended range.
    """
    outside = np.int64(extended)
    for lane in range(lanes):
        z[lane] = weight[link, begin + lane] * activation[lane] + bias[link, begin + lane]
        outside |= is_outside(phi, z[lane], weight[link, begin + lane])
    if outside == 0:
        for lane in range(lanes):
            activation[lane], derivative = phi.in_range(z[lane])
            mantissa[lane], exponent[lane] = renormalize_in_range(
                (mantissa[lane] * derivative) * weight[link, begin + lane], exponent[lane]
            )
        return True, False
    extended = False
    for lane in range(lanes):
        activation[lane], scaled[lane], scaled_exponent[lane], derivative, derivative_exponent = phi.extended(z[lane])
        factor, factor_exponent = to_scaled(weight[link, begin + lane])
        delta, delta_exponent = renormalize(mantissa[lane] * derivative, exponent[lane] + derivative_exponent)
        mantissa[lane], exponent[lane] = renormalize(delta * factor, delta_exponent + factor_exponent)
        extended |= mantissa[lane] == 0.0 or exponent[lane] < EXPONENT_MIN // 2
    return False, extended


@njit
def advance_rows(phi, given, first, last, begin, lanes, z, states, product):
    """Take links first to last - 1 forward; `states` is where they start, and where they end."""
    (weight, bias), (mantissa, exponent) = given, product
    activation, (scaled, scaled_exponent) = states
    depth = weight.shape[0]
    mantissa[:], exponent[:] = 0.5, 1
    is_in_range, extended = False, False
    for link in range(first, last):
        prefetch_row(weight, bias, min(link + PREFETCH_DISTANCE, depth - 1), begin, begin + lanes)
        is_in_range, extended = advance_row(
            phi,
            weight,
            bias,
            UINT(link),
            UINT(begin),
            UINT(lanes),
            z,
            activation,
            scaled,
            scaled_exponent,
            mantissa,
            exponent,
            extended,
        )
    for lane in range(lanes):
        scaled[lane], scaled_exponent[lane] = scaled_activation(lane, activation, scaled, scaled_exponent, is_in_range)


@njit
def new_scaled(shape):
    """Room for numbers as mantissa and exponent."""
    return ScaledArrays(np.empty(shape), np.empty(shape, dtype=np.int64))


@njit
def new_states(shape):
    """Room for states between links."""
    return ForwardState(np.empty(shape), new_scaled(shape))


@njit
def set_state(states, at, activation):
    """Start from a given activation."""
    states.activation[at] = activation
    states.scaled.mantissa[at], states.scaled.exponent[at] = to_scaled(activation)


@njit
def copy_state(to, at, states, lane):
    """Copy one state."""
    to.activation[at] = states.activation[lane]
    to.scaled.mantissa[at], to.scaled.exponent[at] = states.scaled.mantissa[lane], states.scaled.exponent[lane]


@njit
def scaled_activation(lane, activation, scaled, scaled_exponent, is_in_range):
    """The activation as mantissa and exponent."""
    if is_in_range:
        return to_scaled(activation[lane])
    return renormalize(scaled[lane], scaled_exponent[lane])
