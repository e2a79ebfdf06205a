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
from numba.core import cgutils
from numba.extending import intrinsic

from fastgrad.kernels.coefficients import (
    COS,
    EXP_EVEN,
    EXP_ODD,
    LN2,
    LN2_BACK,
    LN2_FRONT,
    LN2_HIGH,
    LN2_LOW,
    LN2_TAIL,
    LOG,
    LOG2_E,
    SIN,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE_LINKS = 2**18
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


def _prefetch(write):
    """Build a function that asks for the cache line of array[row, column] before it is needed."""

    @intrinsic
    def prefetch(typing_context, array, row, column):
        def generate(context, builder, signature, arguments):
            view = context.make_array(signature.args[0])(context, builder, arguments[0])
            pointer = cgutils.get_item_pointer(context, builder, signature.args[0], view, list(arguments[1:]))
            byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0"
            )
            near, data = number(3), number(1)
            builder.call(function, [builder.bitcast(pointer, byte), number(write), near, data])
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp), generate

    return prefetch


prefetch_to_read, prefetch_to_write = _prefetch(0), _prefetch(1)


SIGN_AND_FRACTION = np.int64(-0x7FF0000000000001)
EXPONENT_OF_HALF = np.int64(1022 << 52)
ROUNDER = 1.5 * 2.0**52  # adding it leaves the nearest integer of |v| < 2^51 in the low bits
ROUNDER_BITS = np.float64(ROUNDER).view(np.int64)
LARGE = 2.0**20  # from here on k ln 2 is formed in two doubles
HUGE_Z = 2.0**50  # from here on ROUNDER does not round |z| / ln 2 to an integer; clearing its last bits does
SPLITTER = 2.0**27 + 1.0  # Veltkamp's constant, to split a double in two halves
DEAD = 2.0**60  # from here on its exponent can't be held: the derivative is 0
EXPONENT_MIN = np.int64(-(2**62))  # a product below this becomes 0, so that exponents can't overflow
SMALLEST_NORMAL = 2.0**-1022
LARGEST = float(np.finfo(np.float64).max)
TWO_64 = 2.0**64

CONSTANT, NORMAL, UNIFORM, CENTERED = 0, 1, 2, 3
LOW_32 = np.uint64(0xFFFFFFFF)
BITS_32 = np.uint64(32)
BITS_11 = np.uint64(11)
ZERO, ONE = np.uint64(0), np.uint64(1)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEP_0, KEY_STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
ULP_53 = 2.0**-53

NARROW_Z = 340.0  # within these bounds a link is narrow: see csrc/scaled.h
NARROW_LOW, NARROW_HIGH = 2.0**-400, 2.0**400

LANES = 64  # chains, or segments of one chain, side by side: loops over them become vector instructions
KEPT_MAX = 8 * 2**20  # bytes of the copies that a block of chains keeps in the cache
LINK_BLOCK = 1024  # links whose products are taken first: see csrc/grow.h
WARM_UP = 128  # links
PREFETCH = 4  # links
LINE = 8  # doubles of a cache line


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
def normalize_narrow(mantissa, exponent):
    """Renormalize mantissa * 2^exponent; the mantissa is a normal number and the exponent far from its limits."""
    bits = bits_of(mantissa)
    field = (bits >> 52) & 0x7FF
    return float_of((bits & SIGN_AND_FRACTION) | EXPONENT_OF_HALF), exponent + (field - 1022)


@njit
def is_outside(z, w):
    """1 where a link is not narrow, 0 where it is."""
    size = abs(w)
    return np.int64(not ((abs(z) <= NARROW_Z) & (size >= NARROW_LOW) & (size <= NARROW_HIGH)))  # nan is outside


@njit
def exp_reduced(r):
    """exp(r) as numerator and denominator, for |r| <= ln2 / 2 and a little beyond."""
    t = r * r
    even = EXP_EVEN[0] + t * (EXP_EVEN[1] + t * EXP_EVEN[2])
    odd = r * (EXP_ODD[0] + t * (EXP_ODD[1] + t * EXP_ODD[2]))
    return even + odd, even - odd


@njit
def sigmoid_narrow(z):
    """Activation and derivative for |z| <= NARROW_Z."""
    t = abs(z)
    shifted = t * LOG2_E + ROUNDER
    whole = shifted - ROUNDER
    numerator, denominator = exp_reduced((whole * LN2_HIGH - t) + whole * LN2_LOW)
    scaled = numerator * float_of((ROUNDER_BITS + 1023 - bits_of(shifted)) << 52)  # times 2^-k
    inverse = 1.0 / (denominator + scaled)
    positive = denominator * inverse  # 1 / (1 + e)
    negative = scaled * inverse  # e / (1 + e)
    return negative if z < 0.0 else positive, negative * positive


@njit
def reduce(t):
    """Return r and k with exp(-t) = exp(r) 2^-k and |r| <= ln2 / 2, for t up to DEAD."""
    near = LARGE if t > LARGE else t
    shifted = near * LOG2_E + ROUNDER
    whole = shifted - ROUNDER
    if t <= LARGE:
        return (whole * LN2_HIGH - near) + whole * LN2_LOW, bits_of(shifted) - ROUNDER_BITS
    # k ln 2 = product + error exactly; what is left of t, and once more where k itself was coarse
    ratio = t * LOG2_E
    k = float_of(bits_of(ratio) & ~7) if t > HUGE_Z else (ratio + ROUNDER) - ROUNDER
    product = k * LN2
    front = SPLITTER * k - (SPLITTER * k - k)
    back = k - front
    error = ((front * LN2_FRONT - product) + front * LN2_BACK + back * LN2_FRONT) + back * LN2_BACK
    rest = ((product - t) + error) + k * LN2_TAIL
    again = (rest * LOG2_E + ROUNDER) - ROUNDER
    return (rest - again * LN2_HIGH) - again * LN2_LOW, np.int64(k) - np.int64(again)


@njit
def sigmoid(z):
    """Activation, the same as mantissa and exponent, derivative mantissa and exponent; not normalized."""
    dead = not (abs(z) <= DEAD)
    r, k = reduce(0.0 if dead else abs(z))
    numerator, denominator = exp_reduced(r)

    # e = p 2^-k; where the power is clipped, 1 + e is 1 all the same
    near_k = min(k, 1000)
    far_k = min(k - near_k, 1000)
    scale = power_of_two(-near_k)
    inverse = 1.0 / (denominator + numerator * scale)
    positive = denominator * inverse  # 1 / (1 + e)
    negative = numerator * inverse  # e / (1 + e) = negative * 2^-k

    # two factors, so that a subnormal activation is rounded once
    small = (negative * scale) * power_of_two(-far_k)
    if z < 0.0:
        activation = 0.0 if dead else small
        mantissa = 0.0 if dead else negative
        exponent = -k
    else:
        activation = 1.0 if dead else positive
        mantissa = activation
        exponent = 0
    return activation, mantissa, exponent, 0.0 if dead else negative * positive, -k


@njit
def uniform(high, low):
    """(i + 1/2) 2^-53 from the 53 high bits; the largest is rounded to 1, and taken back inside (0, 1)."""
    u = (np.float64(np.int64(((high << BITS_32) | (low & LOW_32)) >> BITS_11)) + 0.5) * ULP_53
    return u if u < 1.0 else 1.0 - ULP_53


@njit
def philox_round(r0, r1, r2, r3, key0, key1):
    """One round; of each word only the low 32 bits count, and what stands above them is never read."""
    product0 = MULTIPLIER_0 * (r0 & LOW_32)
    product1 = MULTIPLIER_1 * (r2 & LOW_32)
    return (product1 >> BITS_32) ^ r1 ^ key0, product1, (product0 >> BITS_32) ^ r3 ^ key1, product0


@njit
def uniforms(seed, link, member, first, second):
    """Fill two uniforms for each lane, from one block of Philox4x32-10.

    The rounds are written out inside the loop over the lanes: as a function of its own, or as a loop, they would be
    optimized before the loop over the lanes is seen, into instructions that have no vector form.
    """
    for lane in range(len(link)):
        k0, k1 = seed & LOW_32, seed >> BITS_32
        r0, r1, r2, r3 = link[lane], link[lane] >> BITS_32, member[lane], ZERO
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        k0, k1 = k0 + KEY_STEP_0, k1 + KEY_STEP_1
        r0, r1, r2, r3 = philox_round(r0, r1, r2, r3, k0, k1)
        first[lane], second[lane] = uniform(r0, r1), uniform(r2, r3)


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
    return -cosine if ((quarter + 1) & 2) != 0 else cosine, -sine if (quarter & 2) != 0 else sine


@njit
def draw(weight_law, bias_law, seed, link, member, w, b):
    """Fill w and b with the weight and the bias of each lane's link and member."""
    weight_family, weight_location, weight_scale = weight_law
    bias_family, bias_location, bias_scale = bias_law
    normal = weight_family == NORMAL or bias_family == NORMAL
    lanes = len(link)
    if normal or weight_family == UNIFORM or bias_family == UNIFORM:
        uniforms(seed, link, member, w, b)
    if normal and (weight_family == UNIFORM or bias_family == UNIFORM):
        for lane in range(lanes):  # one of the two stays uniform
            u, v = w[lane], b[lane]
            radius = math.sqrt(-2.0 * log_of(u))
            cosine, sine = cos_sin_turns(v)
            w[lane] = radius * cosine if weight_family == NORMAL else u
            b[lane] = radius * sine if bias_family == NORMAL else v
    elif normal:
        for lane in range(lanes):  # Box and Muller: two independent standard normals
            radius = math.sqrt(-2.0 * log_of(w[lane]))
            cosine, sine = cos_sin_turns(b[lane])
            w[lane] = radius * cosine
            b[lane] = radius * sine
    if weight_family == CONSTANT:
        w[:] = weight_location
    else:
        for lane in range(lanes):
            w[lane] = weight_location + weight_scale * w[lane]
    if bias_family == CONSTANT:
        b[:] = bias_location
    elif bias_family == CENTERED:
        for lane in range(lanes):
            b[lane] = -0.5 * w[lane]
    else:
        for lane in range(lanes):
            b[lane] = bias_location + bias_scale * b[lane]


@njit
def forward(weight, bias, begin, lanes, activation, kept, weight_copy, at, wide):
    """Forward through a block of chains, keeping o_l, sigmoid'(z_l) and w_l, and of wide links the exponent too.

    Returns whether every weight and bias was finite: such values are never narrow, and only the general path asks.
    Rows are taken as slices: an index that may be negative, for all Numba knows, keeps loops scalar.
    """
    end = begin + lanes
    finite = True
    z = np.empty(lanes)
    for link in range(weight.shape[0]):
        # Rows of a block lie pages apart, where no prefetcher of the processor looks.
        ahead = min(link + PREFETCH, weight.shape[0] - 1)
        for column in range(begin, end, LINE):
            prefetch_to_read(weight, ahead, column)
            prefetch_to_read(bias, ahead, column)
        w, b = weight[link, begin:end], bias[link, begin:end]
        o, derivative = kept[0][link, at : at + lanes], kept[1][link, at : at + lanes]
        outside = 0
        for lane in range(lanes):
            z[lane] = w[lane] * activation[lane] + b[lane]
            outside |= is_outside(z[lane], w[lane])
            o[lane], derivative[lane] = sigmoid_narrow(z[lane])  # as if all were narrow
        wide[link] = outside != 0
        if outside == 0:
            for lane in range(lanes):
                activation[lane] = o[lane]
        else:
            exponent = kept[2][link, at : at + lanes]
            for lane in range(lanes):
                finite &= abs(w[lane]) <= LARGEST and abs(b[lane]) <= LARGEST
                activation[lane], o[lane], _, derivative[lane], k = sigmoid(z[lane])
                exponent[lane] = k if z[lane] < 0.0 else -k
        if len(weight_copy) > 0:
            copy = weight_copy[link]
            for lane in range(lanes):
                copy[lane] = w[lane]
    return finite


@njit
def backward(kept, kept_w, at, wide, block, out):
    """Back through a block of chains; (mantissa, exponent) is the adjoint, cotangent on entry, grad_x on return."""
    begin, lanes, input_mantissa, input_exponent, mantissa, exponent = block
    end = begin + lanes
    stays_wide = True  # some adjoint is zero, or near the smallest exponent; not known yet
    for link in range(len(wide) - 1, -1, -1):
        if stays_wide:
            stays_wide = False
            for lane in range(lanes):
                if mantissa[lane] == 0.0 or exponent[lane] < EXPONENT_MIN // 2:
                    stays_wide = True
        ahead = max(link - PREFETCH, 0)
        for column in range(begin, end, LINE):
            prefetch_to_write(out[0], ahead, column)
            prefetch_to_write(out[1], ahead, column)
            prefetch_to_write(out[2], ahead, column)
            prefetch_to_write(out[3], ahead, column)
        derivative, w = kept[1][link, at : at + lanes], kept_w[link, at : at + lanes]
        grad_weight, grad_weight_exponent = out[0][link, begin:end], out[1][link, begin:end]
        grad_bias, grad_bias_exponent = out[2][link, begin:end], out[3][link, begin:end]
        if not (wide[link] or link == 0 or wide[link - 1] or stays_wide):
            o = kept[0][link - 1, at : at + lanes]
            for lane in range(lanes):
                delta, delta_exponent = normalize_narrow(mantissa[lane] * derivative[lane], exponent[lane])
                grad, grad_exponent = normalize_narrow(delta * o[lane], delta_exponent)
                mantissa[lane] = delta * w[lane]
                exponent[lane] = delta_exponent
                grad_bias[lane] = delta
                grad_bias_exponent[lane] = delta_exponent
                grad_weight[lane] = grad
                grad_weight_exponent[lane] = grad_exponent
        else:
            for lane in range(lanes):
                k = abs(kept[2][link, at + lane]) if wide[link] else 0
                if link == 0:
                    o_mantissa, o_exponent = input_mantissa[lane], input_exponent[lane]
                else:
                    o_mantissa = kept[0][link - 1, at + lane]
                    o_exponent = min(kept[2][link - 1, at + lane], 0) if wide[link - 1] else 0
                adjoint, adjoint_exponent = normalize(mantissa[lane], exponent[lane])
                factor, factor_exponent = split(w[lane])
                delta, delta_exponent = normalize(adjoint * derivative[lane], adjoint_exponent - k)
                grad, grad_exponent = normalize(delta * o_mantissa, delta_exponent + o_exponent)
                mantissa[lane], exponent[lane] = normalize(delta * factor, delta_exponent + factor_exponent)
                grad_bias[lane] = delta
                grad_bias_exponent[lane] = delta_exponent
                grad_weight[lane] = grad
                grad_weight_exponent[lane] = grad_exponent
            stays_wide = True
    for lane in range(lanes):
        mantissa[lane], exponent[lane] = normalize(mantissa[lane], exponent[lane])


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
    """Gradients of given chains, block by block: see csrc/backprop.h for the memory that is kept."""
    depth = weight.shape[0]
    finite = True
    copies = depth * LANES * 32 <= KEPT_MAX
    kept = np.empty((3, depth if copies else 0, LANES))
    kept_exponent = np.empty((depth if copies else 0, LANES), dtype=np.int64)
    wide = np.empty(depth, dtype=np.bool_)
    activation = np.empty(LANES)
    mantissa = np.empty(LANES)
    exponent = np.empty(LANES, dtype=np.int64)
    input_mantissa = np.empty(LANES)
    input_exponent = np.empty(LANES, dtype=np.int64)
    for begin in range(start, stop, LANES):
        lanes = min(LANES, stop - begin)
        for lane in range(lanes):
            activation[lane] = x[begin + lane]
            input_mantissa[lane], input_exponent[lane] = split(x[begin + lane])
            mantissa[lane], exponent[lane] = split(cotangent[begin + lane])
        block = begin, lanes, input_mantissa, input_exponent, mantissa, exponent
        out = grad_weight_mantissa, grad_weight_exponent, grad_bias_mantissa, grad_bias_exponent
        if copies:
            in_cache = kept[0], kept[1], kept_exponent
            finite &= forward(weight, bias, begin, lanes, activation, in_cache, kept[2], 0, wide)
            backward(in_cache, kept[2], 0, wide, block, out)
        else:
            in_place = grad_weight_mantissa, grad_bias_mantissa, grad_bias_exponent
            finite &= forward(weight, bias, begin, lanes, activation, in_place, kept[2], begin, wide)
            backward(in_place, weight, begin, wide, block, out)
        for lane in range(lanes):
            output[begin + lane] = activation[lane]
            grad_x_mantissa[begin + lane] = mantissa[lane]
            grad_x_exponent[begin + lane] = exponent[lane]
    return finite


@njit
def advance(w, b, z, activation, scaled, scaled_exponent, gap, gap_exponent, bound, bound_exponent, wide):
    """One link of every lane; returns whether `scaled` holds the activation, and whether the products stay wide."""
    lanes = len(w)
    outside = np.int64(wide)
    for lane in range(lanes):
        z[lane] = w[lane] * activation[lane] + b[lane]
        outside |= is_outside(z[lane], w[lane])
    if outside == 0:
        for lane in range(lanes):
            activation[lane], derivative = sigmoid_narrow(z[lane])
            gap[lane], gap_exponent[lane] = normalize_narrow((gap[lane] * derivative) * w[lane], gap_exponent[lane])
            bound[lane], bound_exponent[lane] = normalize_narrow(bound[lane] * abs(w[lane]), bound_exponent[lane] - 2)
        return True, False
    wide = False
    for lane in range(lanes):
        activation[lane], scaled[lane], scaled_exponent[lane], derivative, derivative_exponent = sigmoid(z[lane])
        factor, factor_exponent = split(w[lane])
        delta, delta_exponent = normalize(gap[lane] * derivative, gap_exponent[lane] + derivative_exponent)
        gap[lane], gap_exponent[lane] = normalize(delta * factor, delta_exponent + factor_exponent)
        bound[lane], bound_exponent[lane] = normalize(
            bound[lane] * abs(factor), bound_exponent[lane] + (factor_exponent - 2)
        )
        if gap[lane] == 0.0 or gap_exponent[lane] < EXPONENT_MIN // 2 or bound[lane] == 0.0:
            wide = True
    return False, wide


@njit
def scaled_activation(lane, activation, scaled, scaled_exponent, narrow):
    """The activation as mantissa and exponent."""
    if narrow:
        return split(activation[lane])
    return normalize(scaled[lane], scaled_exponent[lane])


@njit
def multiply(to, to_exponent, cell, mantissa, exponent):
    """Multiply a stored number."""
    to[cell], to_exponent[cell] = normalize(to[cell] * mantissa, to_exponent[cell] + exponent)


@njit
def grow_abreast(job, begin, lanes):
    """Chains side by side: members begin to begin + lanes - 1."""
    (weight_law, bias_law, seed, first, last, marks, row) = job[0]
    (state, state_mantissa, state_exponent) = job[1]
    (weight, input_mantissa, input_exponent, derivative_mantissa, derivative_exponent) = job[2]
    (gap, gap_exponent, bound, bound_exponent) = job[3]
    (carry_gap, carry_gap_exponent, carry_bound, carry_bound_exponent) = job[4]
    link_of = np.empty(lanes, dtype=np.uint64)
    member_of = np.empty(lanes, dtype=np.uint64)
    w, b, z = np.empty(lanes), np.empty(lanes), np.empty(lanes)
    activation, scaled = np.empty(lanes), np.empty(lanes)
    scaled_exponent = np.empty(lanes, dtype=np.int64)
    product, factor = np.full(lanes, 0.5), np.full(lanes, 0.5)  # since the last mark or block: of the gap, the bound
    product_exponent, factor_exponent = np.ones(lanes, dtype=np.int64), np.ones(lanes, dtype=np.int64)
    for lane in range(lanes):
        member = begin + lane
        member_of[lane] = member
        activation[lane] = state[member]
        scaled[lane], scaled_exponent[lane] = state_mantissa[member], state_exponent[member]
        carry_gap[member], carry_gap_exponent[member] = 0.5, 1
        carry_bound[member], carry_bound_exponent[member] = 0.5, 1
    narrow = False
    wide = False
    first_row = row
    row -= 1  # of the last mark passed in this call; before the first, the carry
    for link in range(first, last):
        link_of[:] = np.uint64(link)
        draw(weight_law, bias_law, seed, link_of, member_of, w, b)
        marked = row + 1 < len(marks) and marks[row + 1] == link
        if marked:
            for lane in range(lanes):
                member = begin + lane
                if row < first_row:
                    multiply(carry_gap, carry_gap_exponent, member, product[lane], product_exponent[lane])
                    multiply(carry_bound, carry_bound_exponent, member, factor[lane], factor_exponent[lane])
                else:
                    multiply(gap, gap_exponent, (row, member), product[lane], product_exponent[lane])
                    multiply(bound, bound_exponent, (row, member), factor[lane], factor_exponent[lane])
            row += 1
            for lane in range(lanes):
                cell = row, begin + lane
                next_link = sigmoid(w[lane] * activation[lane] + b[lane])
                weight[cell] = w[lane]
                input_mantissa[cell], input_exponent[cell] = scaled_activation(
                    lane, activation, scaled, scaled_exponent, narrow
                )
                derivative_mantissa[cell], derivative_exponent[cell] = normalize(next_link[3], next_link[4])
                gap[cell], gap_exponent[cell] = 0.5, 1
                bound[cell], bound_exponent[cell] = 0.5, 1
        narrow, wide = advance(
            w,
            b,
            z,
            activation,
            scaled,
            scaled_exponent,
            product,
            product_exponent,
            factor,
            factor_exponent,
            wide,
        )
        if not marked and (link % LINK_BLOCK == 0 or link + 1 == last):
            for lane in range(lanes):
                member = begin + lane
                if row < first_row:
                    multiply(carry_gap, carry_gap_exponent, member, product[lane], product_exponent[lane])
                    multiply(carry_bound, carry_bound_exponent, member, factor[lane], factor_exponent[lane])
                else:
                    multiply(gap, gap_exponent, (row, member), product[lane], product_exponent[lane])
                    multiply(bound, bound_exponent, (row, member), factor[lane], factor_exponent[lane])
        if marked or link % LINK_BLOCK == 0:
            product[:], product_exponent[:] = 0.5, 1
            factor[:], factor_exponent[:] = 0.5, 1
            wide = False
    for lane in range(lanes):
        member = begin + lane
        state[member] = activation[lane]
        state_mantissa[member], state_exponent[member] = scaled_activation(
            lane, activation, scaled, scaled_exponent, narrow
        )


@njit
def run_segments(job, member, firsts, lasts, begins, begin_exponents, ends, end_exponents, column, pieces, mark_pieces):
    """Run segments of one chain side by side, one in each lane; more than one only if each begins a block of links.

    States are rows of activation and mantissa, and exponents beside them. Of each block of links `pieces` gets the
    products since its last mark, and `mark_pieces` those that end before a mark.
    """
    (weight_law, bias_law, seed, _, _, marks, first_row) = job[0]
    (weight, input_mantissa, input_exponent, derivative_mantissa, derivative_exponent) = job[2]
    (piece_gap, piece_gap_exponent, piece_bound, piece_bound_exponent) = pieces
    (mark_gap, mark_gap_exponent, mark_bound, mark_bound_exponent) = mark_pieces
    count = len(firsts)
    link_of = np.empty(count, dtype=np.uint64)
    member_of = np.full(count, np.uint64(member))
    w, b, z = np.empty(count), np.empty(count), np.empty(count)
    activation, scaled = np.empty(count), np.empty(count)
    scaled_exponent = np.empty(count, dtype=np.int64)
    product, factor = np.full(count, 0.5), np.full(count, 0.5)
    product_exponent, factor_exponent = np.ones(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    next_mark = np.empty(count, dtype=np.int64)
    length = 0
    for lane in range(count):
        link_of[lane] = firsts[lane]
        activation[lane], scaled[lane] = begins[lane, 0], begins[lane, 1]
        scaled_exponent[lane] = begin_exponents[lane]
        next_mark[lane] = max(first_row, np.searchsorted(marks, firsts[lane]))
        length = max(length, lasts[lane] - firsts[lane])
    narrow = False
    wide = False
    next_event = 0  # the next step at which a lane stands before a marked link, or has come to its end
    block = 0
    for step in range(length + 1):
        marked = False
        if step == next_event:
            next_event = length
            for lane in range(count):
                here = firsts[lane] + step
                if here == lasts[lane]:
                    ends[lane, 0] = activation[lane]
                    ends[lane, 1], end_exponents[lane] = scaled_activation(
                        lane, activation, scaled, scaled_exponent, narrow
                    )
                elif here < lasts[lane]:
                    at = lasts[lane]
                    if next_mark[lane] < len(marks) and marks[next_mark[lane]] < at:
                        at = marks[next_mark[lane]]
                    if at == here:
                        marked = True
                        at += 1
                    next_event = min(next_event, at - firsts[lane])
        if step == length:
            break
        draw(weight_law, bias_law, seed, link_of, member_of, w, b)
        if marked:
            for lane in range(count):
                here = firsts[lane] + step
                mark = next_mark[lane]
                if here < lasts[lane] and mark < len(marks) and marks[mark] == here:
                    next_link = sigmoid(w[lane] * activation[lane] + b[lane])
                    weight[mark, member] = w[lane]
                    input_mantissa[mark, member], input_exponent[mark, member] = scaled_activation(
                        lane, activation, scaled, scaled_exponent, narrow
                    )
                    derivative_mantissa[mark, member], derivative_exponent[mark, member] = normalize(
                        next_link[3], next_link[4]
                    )
                    mark_gap[mark - first_row], mark_gap_exponent[mark - first_row] = (
                        product[lane],
                        product_exponent[lane],
                    )
                    mark_bound[mark - first_row], mark_bound_exponent[mark - first_row] = (
                        factor[lane],
                        factor_exponent[lane],
                    )
        narrow, wide = advance(
            w,
            b,
            z,
            activation,
            scaled,
            scaled_exponent,
            product,
            product_exponent,
            factor,
            factor_exponent,
            wide,
        )
        if marked:
            for lane in range(count):
                here = firsts[lane] + step
                mark = next_mark[lane]
                if here < lasts[lane] and mark < len(marks) and marks[mark] == here:
                    product[lane], product_exponent[lane] = 0.5, 1
                    factor[lane], factor_exponent[lane] = 0.5, 1
                    next_mark[lane] += 1
        for lane in range(count):
            link_of[lane] += ONE
        if (firsts[0] + step) % LINK_BLOCK == 0 or (count == 1 and step + 1 == length):
            for lane in range(count):
                piece_gap[block, column + lane], piece_gap_exponent[block, column + lane] = (
                    product[lane],
                    product_exponent[lane],
                )
                piece_bound[block, column + lane], piece_bound_exponent[block, column + lane] = (
                    factor[lane],
                    factor_exponent[lane],
                )
            product[:], product_exponent[:] = 0.5, 1
            factor[:], factor_exponent[:] = 0.5, 1
            wide = False
            block += 1


@njit
def combine(job, member, first, last, column, pieces, mark_pieces, row):
    """Multiply a segment's pieces onto the gaps, in the order of the links; returns the last mark passed."""
    marks, first_row = job[0][5], job[0][6]
    (gap, gap_exponent, bound, bound_exponent) = job[3]
    (carry_gap, carry_gap_exponent, carry_bound, carry_bound_exponent) = job[4]
    (piece_gap, piece_gap_exponent, piece_bound, piece_bound_exponent) = pieces
    (mark_gap, mark_gap_exponent, mark_bound, mark_bound_exponent) = mark_pieces
    link = first
    block = 0
    while link < last:
        end = min(((link - 1) // LINK_BLOCK + 1) * LINK_BLOCK + 1, last)
        block_left = True
        while block_left:
            marked = row + 1 < len(marks) and marks[row + 1] < end
            if marked:
                at = row + 1 - first_row
                g, g_exponent = mark_gap[at], mark_gap_exponent[at]
                f, f_exponent = mark_bound[at], mark_bound_exponent[at]
            else:
                g, g_exponent = piece_gap[block, column], piece_gap_exponent[block, column]
                f, f_exponent = piece_bound[block, column], piece_bound_exponent[block, column]
            if row < first_row:
                multiply(carry_gap, carry_gap_exponent, member, g, g_exponent)
                multiply(carry_bound, carry_bound_exponent, member, f, f_exponent)
            else:
                multiply(gap, gap_exponent, (row, member), g, g_exponent)
                multiply(bound, bound_exponent, (row, member), f, f_exponent)
            if marked:
                row += 1
                gap[row, member], gap_exponent[row, member] = 0.5, 1
                bound[row, member], bound_exponent[row, member] = 0.5, 1
            block_left = marked
        link = end
        block += 1
    return row


@njit
def warm_up(job, member, firsts, begins, begin_exponents):
    """Guess the states before links `firsts` by running the links that lead to them, from 1/2."""
    (weight_law, bias_law, seed, _, _, _, _) = job[0]
    count = len(firsts)
    link_of = np.empty(count, dtype=np.uint64)
    member_of = np.full(count, np.uint64(member))
    w, b, z = np.empty(count), np.empty(count), np.empty(count)
    activation, scaled = np.full(count, 0.5), np.full(count, 0.5)
    scaled_exponent = np.ones(count, dtype=np.int64)
    product, factor = np.full(count, 0.5), np.full(count, 0.5)
    product_exponent, factor_exponent = np.ones(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    for lane in range(count):
        link_of[lane] = firsts[lane] - WARM_UP
    narrow = False
    wide = False
    for _ in range(WARM_UP):
        draw(weight_law, bias_law, seed, link_of, member_of, w, b)
        narrow, wide = advance(
            w,
            b,
            z,
            activation,
            scaled,
            scaled_exponent,
            product,
            product_exponent,
            factor,
            factor_exponent,
            wide,
        )
        for lane in range(count):
            link_of[lane] += ONE
    for lane in range(count):
        begins[lane, 0] = activation[lane]
        begins[lane, 1], begin_exponents[lane] = scaled_activation(lane, activation, scaled, scaled_exponent, narrow)


@njit
def grow_deep(job, member):
    """One chain, cut in depth: see csrc/grow.h."""
    (_, _, _, first, last, marks, row) = job[0]
    (state, state_mantissa, state_exponent) = job[1]
    (carry_gap, carry_gap_exponent, carry_bound, carry_bound_exponent) = job[4]
    blocks = (last - 1) // LINK_BLOCK - (first - 1) // LINK_BLOCK + 1
    n_marks = np.searchsorted(marks, last) - row
    pieces = (
        np.empty((blocks, LANES)),
        np.empty((blocks, LANES), dtype=np.int64),
        np.empty((blocks, LANES)),
        np.empty((blocks, LANES), dtype=np.int64),
    )
    mark_pieces = (
        np.empty(n_marks),
        np.empty(n_marks, dtype=np.int64),
        np.empty(n_marks),
        np.empty(n_marks, dtype=np.int64),
    )
    carry_gap[member], carry_gap_exponent[member] = 0.5, 1
    carry_bound[member], carry_bound_exponent[member] = 0.5, 1

    # The links before the first whole block and after the last run by themselves, the blocks between in segments.
    begin = min((first - 1 + LINK_BLOCK - 1) // LINK_BLOCK * LINK_BLOCK + 1, last)
    whole = (last - begin) // LINK_BLOCK
    each = (whole + LANES - 1) // LANES
    if whole < 4 or n_marks * 8 >= last - first:  # nothing to gain
        begin, whole, each = last, 0, 0
    count = -(-whole // each) if whole else 0
    firsts, lasts = np.empty(count + 2, dtype=np.int64), np.empty(count + 2, dtype=np.int64)
    begins, ends = np.empty((count + 2, 2)), np.empty((count + 2, 2))
    begin_exponents, end_exponents = np.empty(count + 2, dtype=np.int64), np.empty(count + 2, dtype=np.int64)
    for i in range(count):
        firsts[i + 1] = begin + i * each * LINK_BLOCK
        lasts[i + 1] = begin + min((i + 1) * each, whole) * LINK_BLOCK
    firsts[0], lasts[0] = first, begin
    firsts[count + 1], lasts[count + 1] = begin + whole * LINK_BLOCK, last

    passed = row - 1
    activation, mantissa, exponent = state[member], state_mantissa[member], state_exponent[member]
    for i in range(count + 2):
        if i == 1 and count:
            begins[1, 0], begins[1, 1], begin_exponents[1] = activation, mantissa, exponent
            guessed = slice(2, count + 1)
            warm_up(job, member, firsts[guessed], begins[guessed], begin_exponents[guessed])
            cut = slice(1, count + 1)
            run_segments(
                job,
                member,
                firsts[cut],
                lasts[cut],
                begins[cut],
                begin_exponents[cut],
                ends[cut],
                end_exponents[cut],
                0,
                pieces,
                mark_pieces,
            )
        same = (
            1 <= i <= count
            and bits_of(begins[i, 0]) == bits_of(activation)
            and begins[i, 1] == mantissa
            and begin_exponents[i] == exponent
        )
        column = i - 1 if 1 <= i <= count else 0
        if not same:
            begins[i, 0], begins[i, 1], begin_exponents[i] = activation, mantissa, exponent
            alone = slice(i, i + 1)
            run_segments(
                job,
                member,
                firsts[alone],
                lasts[alone],
                begins[alone],
                begin_exponents[alone],
                ends[alone],
                end_exponents[alone],
                column,
                pieces,
                mark_pieces,
            )
        activation, mantissa, exponent = ends[i, 0], ends[i, 1], end_exponents[i]
        passed = combine(job, member, firsts[i], lasts[i], column, pieces, mark_pieces, passed)
    state[member], state_mantissa[member], state_exponent[member] = activation, mantissa, exponent


@njit
def grow_compiled(job, start, stop):
    """Drawn chains, streamed forward: an ensemble abreast, a few deep chains cut in depth."""
    first, last = job[0][3], job[0][4]
    if stop - start <= LANES // 4 and last - first >= 8 * LINK_BLOCK:
        for member in range(start, stop):
            grow_deep(job, member)
    else:
        for begin in range(start, stop, LANES):
            grow_abreast(job, begin, min(LANES, stop - begin))


def grow(weight_law: Any, bias_law: Any, seed: int, first: int, last: int, marks: Any, row: int, *arrays: Any) -> None:
    """Drawn chains, streamed forward."""
    *arrays_only, start, stop = arrays
    job = (
        (weight_law, bias_law, np.uint64(seed), first, last, marks, row),
        tuple(arrays_only[0:3]),
        tuple(arrays_only[3:8]),
        tuple(arrays_only[8:12]),
        tuple(arrays_only[12:16]),
    )
    grow_compiled(job, start, stop)
