"""The Numba backend: the stages of reference.py as loops, with the IEEE operations of csrc/ in the same order.

The contract is the docstring of `fastgrad.kernels`. Each scalar function has a twin of the same name in
``csrc/scaled.h`` or ``csrc/draws.h``, and returns the same bits. All compiled functions are in this one file: Numba's
cache on disk does not notice when an imported function changes.
"""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastgrad.kernels.coefficients import COS, EXP, LN2_HIGH, LN2_LOW, LOG, LOG2_E, SIN

if TYPE_CHECKING:
    from collections.abc import Callable

CALL_LINKS = 2**22
CALL_ELEMENTS = 2**22
WORK_BYTES = 0  # the result's own memory holds what reverse mode keeps


def njit(function: Callable[..., Any]) -> Any:
    """Compile strictly and without the GIL.

    ``error_model="numpy"`` because Python's tests every division and keeps loops scalar; no ``fastmath`` and no
    contraction, so that the bits are those of the C++ backend. The machine code is cached on disk where there is a
    place to write: Numba raises where there is none (a read-only install without a home), and then each process
    compiles its own.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError as error:
        warnings.warn(f"compiled afresh in this process: {error}", stacklevel=2)
        return numba.njit(function, **options)


@intrinsic
def bits_of(typing_context, value):
    """The 64 bits of a double as an integer."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def float_of(typing_context, bits):
    """The double that has these 64 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


SIGN_AND_FRACTION = np.int64(-0x7FF0000000000001)
EXPONENT_OF_HALF = np.int64(1022 << 52)
ROUNDER = 1.5 * 2.0**52  # adding it leaves the nearest integer of |v| < 2^51 in the low bits
ROUNDER_BITS = np.float64(ROUNDER).view(np.int64)
COARSE = 2.0**50  # from here on the mantissa of exp(-|z|) is noise
DEAD = 2.0**60  # from here on its exponent can't be held: the derivative is 0
EXPONENT_MIN = np.int64(-(2**62))  # a product below this becomes 0, so that exponents can't overflow
SMALLEST_NORMAL = 2.0**-1022
TWO_64 = 2.0**64

CONSTANT, NORMAL, UNIFORM, CENTERED = 0, 1, 2, 3
LOW_32 = np.uint64(0xFFFFFFFF)
BITS_32 = np.uint64(32)
BITS_11 = np.uint64(11)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEP_0, KEY_STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
ULP_53 = 2.0**-53

BLOCK = 64  # chains side by side: their state stays in the first-level cache


@njit
def power_of_two(k):
    """2^k for -1022 <= k <= 1023."""
    return float_of((k + 1023) << 52)


@njit
def normalize(mantissa, exponent):
    """Renormalize mantissa * 2^exponent; the mantissa is 0 or a normal number."""
    bits = bits_of(mantissa)
    field = (bits >> 52) & 0x7FF
    total = exponent + field - 1022
    zero = field == 0 or total < EXPONENT_MIN
    fraction = float_of((bits & SIGN_AND_FRACTION) | EXPONENT_OF_HALF)
    return 0.0 if zero else fraction, 0 if zero else total


@njit
def split(value):
    """Mantissa and exponent of any finite double, subnormals included."""
    subnormal = abs(value) < SMALLEST_NORMAL
    return normalize(value * TWO_64 if subnormal else value, -64 if subnormal else 0)


@njit
def sigmoid(z):
    """Activation, the same as mantissa and exponent, derivative mantissa and exponent; not normalized."""
    t = abs(z)
    dead = t > DEAD
    coarse = t > COARSE

    # exp(-t) = p * 2^-k with |r| <= ln2 / 2
    near = COARSE if coarse else t
    shifted = near * LOG2_E + ROUNDER
    whole = shifted - ROUNDER
    r = (whole * LN2_HIGH - near) + whole * LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = (EXP[0] + EXP[1] * r) + (EXP[2] + EXP[3] * r) * r2
    high = (EXP[4] + EXP[5] * r) + (EXP[6] + EXP[7] * r) * r2
    top = (EXP[8] + EXP[9] * r) * (r4 * r4)
    q = (low + high * r4) + top
    p = 1.0 if coarse else 1.0 + (r + r2 * q)
    k = np.int64((0.0 if dead else t) * LOG2_E) if coarse else bits_of(shifted) - ROUNDER_BITS

    # e = p * 2^-k; where the power is clipped, 1 + e is 1 all the same
    near_k = min(k, 1000)
    far_k = min(k - near_k, 1000)
    scale = power_of_two(-near_k)
    inverse = 1.0 / (1.0 + p * scale)
    h = p * inverse  # e / (1 + e) = h * 2^-k

    # two factors, so that a subnormal activation is rounded once
    small = (h * scale) * power_of_two(-far_k)
    if z < 0.0:
        activation = 0.0 if dead else small
        mantissa = 0.0 if dead else h
        exponent = -k
    else:
        activation = 1.0 if dead else inverse
        mantissa = activation
        exponent = 0
    return activation, mantissa, exponent, 0.0 if dead else h * inverse, -k


@njit
def uniform(high, low):
    """(i + 1/2) 2^-53 from the 53 high bits; the largest is rounded to 1, and taken back inside (0, 1)."""
    i = np.int64(((high << BITS_32) | low) >> BITS_11)
    return min((np.float64(i) + 0.5) * ULP_53, 1.0 - ULP_53)


@njit
def uniforms(seed, link, member):
    """Two uniforms from one block of Philox4x32-10."""
    r0 = link & LOW_32
    r1 = link >> BITS_32
    r2 = member
    r3 = np.uint64(0)
    key0 = seed & LOW_32
    key1 = seed >> BITS_32
    for _ in range(10):
        product0 = MULTIPLIER_0 * r0
        product1 = MULTIPLIER_1 * r2
        r0 = (product1 >> BITS_32) ^ r1 ^ key0
        r1 = product1 & LOW_32
        r2 = (product0 >> BITS_32) ^ r3 ^ key1
        r3 = product0 & LOW_32
        key0 = (key0 + KEY_STEP_0) & LOW_32
        key1 = (key1 + KEY_STEP_1) & LOW_32
    return uniform(r0, r1), uniform(r2, r3)


@njit
def log_of(u):
    """Natural logarithm of 0 < u < 1: u = 2^k (1 + f), 1 + f from sqrt(1/2) to sqrt(2), s = f / (2 + f)."""
    k = (bits_of(u) - SQRT_HALF_BITS) >> 52
    f = float_of(bits_of(u) - (k << 52)) - 1.0
    whole = float_of(k + ROUNDER_BITS) - ROUNDER
    s = f / (2.0 + f)
    t = s * s
    t2 = t * t
    even = (LOG[0] + LOG[2] * t2) + (LOG[4] + LOG[6] * t2) * (t2 * t2)
    odd = (LOG[1] + LOG[3] * t2) + LOG[5] * (t2 * t2)
    remainder = t * (even + odd * t)
    half_square = 0.5 * f * f
    return whole * LN2_HIGH - ((half_square - (s * (half_square + remainder) + whole * LN2_LOW)) - f)


@njit
def cos_sin_turns(v):
    """cos(2πv), sin(2πv) for 0 < v < 1; the quarter turns come off exactly."""
    shifted = 4.0 * v + ROUNDER
    quarter = bits_of(shifted) & 3
    f = v - 0.25 * (shifted - ROUNDER)
    t = f * f
    t2 = t * t
    c = 1.0 + t * (
        ((COS[0] + COS[1] * t) + (COS[2] + COS[3] * t) * t2) + ((COS[4] + COS[5] * t) + COS[6] * t2) * (t2 * t2)
    )
    s = f * (((SIN[0] + SIN[1] * t) + (SIN[2] + SIN[3] * t) * t2) + ((SIN[4] + SIN[5] * t) + SIN[6] * t2) * (t2 * t2))
    swap = (quarter & 1) != 0
    cosine = s if swap else c
    sine = c if swap else s
    return -cosine if quarter == 1 or quarter == 2 else cosine, -sine if quarter >= 2 else sine


@njit
def normals(u, v):
    """Two standard normals by the transform of Box and Muller."""
    radius = math.sqrt(-2.0 * log_of(u))
    cosine, sine = cos_sin_turns(v)
    return radius * cosine, radius * sine


@njit
def draw(weight_law, bias_law, seed, link, member):
    """The weight and the bias of one link of one chain."""
    weight_family, weight_location, weight_scale = weight_law
    bias_family, bias_location, bias_scale = bias_law
    uniform_w = uniform_b = normal_w = normal_b = 0.0
    if weight_family == NORMAL or weight_family == UNIFORM or bias_family == NORMAL or bias_family == UNIFORM:
        uniform_w, uniform_b = uniforms(seed, link, member)
    if weight_family == NORMAL or bias_family == NORMAL:
        normal_w, normal_b = normals(uniform_w, uniform_b)
    w = weight_location
    b = bias_location
    if weight_family == NORMAL:
        w = weight_location + weight_scale * normal_w
    if weight_family == UNIFORM:
        w = weight_location + weight_scale * uniform_w
    if bias_family == NORMAL:
        b = bias_location + bias_scale * normal_b
    if bias_family == UNIFORM:
        b = bias_location + bias_scale * uniform_b
    if bias_family == CENTERED:
        b = -0.5 * w
    return w, b


@njit
def backprop(
    weight,
    bias,
    x,
    cotangent,
    output,
    grad_weight_mantissa,
    grad_weight_exponent,
    grad_bias_mantissa,
    grad_bias_exponent,
    grad_x_mantissa,
    grad_x_exponent,
    start,
    stop,
):
    """Gradients of given chains.

    Between the two passes the gradients' memory holds what reverse mode needs: grad_weight the scaled o_{l-1},
    grad_bias the scaled sigmoid'(z_l); nothing else grows with depth.
    """
    depth = weight.shape[0]
    activation = np.empty(BLOCK)
    mantissa = np.empty(BLOCK)  # the activation again, where a double may have underflowed; then the adjoint
    exponent = np.empty(BLOCK, dtype=np.int64)
    for begin in range(start, stop, BLOCK):
        lanes = min(BLOCK, stop - begin)

        # forward: z_l = w_l o_{l-1} + b_l,  o_l = sigmoid(z_l)
        for lane in range(lanes):
            activation[lane] = x[begin + lane]
            mantissa[lane], exponent[lane] = split(x[begin + lane])
        for link in range(depth):
            for lane in range(lanes):
                member = begin + lane
                next_link = sigmoid(weight[link, member] * activation[lane] + bias[link, member])
                grad_weight_mantissa[link, member] = mantissa[lane]
                grad_weight_exponent[link, member] = exponent[lane]
                grad_bias_mantissa[link, member] = next_link[3]
                grad_bias_exponent[link, member] = next_link[4]
                activation[lane] = next_link[0]
                mantissa[lane] = next_link[1]
                exponent[lane] = next_link[2]

        # backward: delta_l = a_l sigmoid'(z_l),  a_{l-1} = delta_l w_l
        for lane in range(lanes):
            output[begin + lane] = activation[lane]
            mantissa[lane], exponent[lane] = split(cotangent[begin + lane])
        for link in range(depth - 1, -1, -1):
            for lane in range(lanes):
                member = begin + lane
                delta, delta_exponent = normalize(
                    mantissa[lane] * grad_bias_mantissa[link, member], exponent[lane] + grad_bias_exponent[link, member]
                )
                grad_weight_mantissa[link, member], grad_weight_exponent[link, member] = normalize(
                    delta * grad_weight_mantissa[link, member], delta_exponent + grad_weight_exponent[link, member]
                )
                grad_bias_mantissa[link, member] = delta
                grad_bias_exponent[link, member] = delta_exponent
                factor, factor_exponent = split(weight[link, member])
                mantissa[lane], exponent[lane] = normalize(delta * factor, delta_exponent + factor_exponent)
        for lane in range(lanes):
            grad_x_mantissa[begin + lane] = mantissa[lane]
            grad_x_exponent[begin + lane] = exponent[lane]


@njit
def grow_compiled(
    weight_law,
    bias_law,
    seed,
    first,
    last,
    marks,
    activation,
    scaled_mantissa,
    scaled_exponent,
    weight,
    input_mantissa,
    input_exponent,
    derivative_mantissa,
    derivative_exponent,
    gap_mantissa,
    gap_exponent,
    bound_mantissa,
    bound_exponent,
    start,
    stop,
):
    """Drawn chains, streamed forward; the seed is uint64."""
    row_before = np.searchsorted(marks, first) - 1
    for begin in range(start, stop, BLOCK):
        end = min(begin + BLOCK, stop)
        row = row_before
        for link in range(first, last):
            marked = row + 1 < len(marks) and marks[row + 1] == link
            if marked:
                row += 1
            for member in range(begin, end):
                w, b = draw(weight_law, bias_law, seed, np.uint64(link), np.uint64(member))
                next_link = sigmoid(w * activation[member] + b)
                if marked:
                    weight[row, member] = w
                    input_mantissa[row, member], input_exponent[row, member] = normalize(
                        scaled_mantissa[member], scaled_exponent[member]
                    )
                    derivative_mantissa[row, member], derivative_exponent[row, member] = normalize(
                        next_link[3], next_link[4]
                    )
                    gap_mantissa[row, member], gap_exponent[row, member] = 0.5, 1
                    bound_mantissa[row, member], bound_exponent[row, member] = 0.5, 1
                else:
                    factor, factor_exponent = split(w)
                    delta, delta_exponent = normalize(
                        gap_mantissa[row, member] * next_link[3], gap_exponent[row, member] + next_link[4]
                    )
                    gap_mantissa[row, member], gap_exponent[row, member] = normalize(
                        delta * factor, delta_exponent + factor_exponent
                    )
                    bound_mantissa[row, member], bound_exponent[row, member] = normalize(
                        bound_mantissa[row, member] * abs(factor), bound_exponent[row, member] + (factor_exponent - 2)
                    )
                activation[member] = next_link[0]
                scaled_mantissa[member] = next_link[1]
                scaled_exponent[member] = next_link[2]


def grow(weight_law: Any, bias_law: Any, seed: int, *rest: Any) -> None:
    """Drawn chains, streamed forward."""
    grow_compiled(weight_law, bias_law, np.uint64(seed), *rest)
