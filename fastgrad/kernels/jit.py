"""The Numba backend: the stages of reference.py as loops, with the IEEE operations of csrc/ in the same order.

The contract is `fastgrad.kernels.contract`. Each scalar function has a twin of the same name in
``csrc/scaled.h`` or ``csrc/draws.h``, and returns the same bits. All compiled functions are in this one file: Numba's
cache on disk does not notice when an imported function changes.
"""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastgrad.kernels.constants import (
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
from fastgrad.kernels.contract import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastgrad.kernels.contract import BackpropJob, PropagateJob, State, TrainJob

LINE = 8  # doubles of a cache line


def _can_cache() -> bool:
    """Whether Numba has a place on disk for machine code; there is none in a read-only install without a home."""
    try:
        numba.njit(lambda: None, cache=True)
    except RuntimeError:
        warnings.warn(
            "numba: has no place to keep compiled kernels, so each process compiles them again, for half a minute; "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            stacklevel=2,
        )
        return False
    return True


CACHE = _can_cache()
# Of the modules whose constants and fields are compiled in.
IMPORTED = [Path(__file__).with_name(name) for name in ("constants.py", "contract.py")]
IMPORTED_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in IMPORTED)).hexdigest()


def njit(function: Callable[..., Any], **more: Any) -> Any:
    """Compile strictly and without the GIL.

    ``error_model="numpy"`` because Python's tests every division and keeps loops scalar; no ``fastmath`` and no
    contraction, so that the bits are those of the C++ backend. The machine code is cached on disk where there is a
    place to write.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": False, "cache": CACHE, **more}
    compiled = numba.njit(function, **options)
    if CACHE:
        # Numba looks for changes in this file alone: fields of a job that changed places would be read at the old ones.
        file = compiled._cache._cache_file
        file._source_stamp = file._source_stamp, IMPORTED_DIGEST
    return compiled


def njit_row(function: Callable[..., Any]) -> Any:
    """Compile what runs for each link: it makes no arrays, and counts no references to those that it is given.

    Counting is an atomic operation, which waits until every store before it is done: that takes longer than the
    arithmetic.
    """
    return njit(function, _nrt=False)


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


@intrinsic
def prefetch(typing_context, array, row, column):
    """Ask for the cache line of array[row, column] before it is needed: see csrc/backprop.h."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, signature.args[0], view, list(arguments[1:]))
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0"
        )
        to_read, second_level, data = number(0), number(2), number(1)
        builder.call(function, [builder.bitcast(pointer, byte), to_read, second_level, data])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


@intrinsic
def stream_row(typing_context, array, row, column, source, at, count):
    """Copy the first `count` of source[at], a multiple of LINE, to array[row, column:], past the cache.

    That is an instruction of the processor, which no loop in Python makes. The place must begin a cache line.
    """

    def generate(context, builder, signature, arguments):
        to_type, _, _, from_type, _, _ = signature.args
        to = context.make_array(to_type)(context, builder, arguments[0])
        origin = context.make_array(from_type)(context, builder, arguments[3])
        zero = arguments[1].type(0)
        line = ir.VectorType(context.get_data_type(to_type.dtype), LINE).as_pointer()
        place = cgutils.get_item_pointer(context, builder, to_type, to, list(arguments[1:3]))
        made = cgutils.get_item_pointer(context, builder, from_type, origin, [arguments[4], zero])
        place, made = builder.bitcast(place, line), builder.bitcast(made, line)
        past_the_cache = builder.module.add_metadata([ir.IntType(32)(1)])
        with cgutils.for_range(builder, builder.udiv(arguments[5], zero.type(LINE))) as loop:
            value = builder.load(builder.gep(made, [loop.index]), align=8)
            store = builder.store(value, builder.gep(place, [loop.index]), align=8 * LINE)
            store.set_metadata("nontemporal", past_the_cache)
        return context.get_dummy_value()

    return types.void(array, types.uintp, types.uintp, source, types.uintp, types.uintp), generate


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
STREAM_LINKS, STREAM_MIXED = np.uint64(0), np.uint64(4)
SQUARED, CROSS_ENTROPY = 0, 1
LOW_32 = np.uint64(0xFFFFFFFF)
BITS_32 = np.uint64(32)
BITS_11 = np.uint64(11)
ONE = np.uint64(1)
UINT = np.uintp
FIRST = UINT(0)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEP_0, KEY_STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
ULP_53 = 2.0**-53

NARROW_Z = 340.0  # within these bounds a link is narrow: see csrc/scaled.h
NARROW_LOW, NARROW_HIGH = 2.0**-400, 2.0**400
TINY_OFFSET = 2.0**-900  # from here down an offset is kept as mantissa and exponent: see csrc/scaled.h
STAND_IN_MIN, STAND_IN_MAX = np.int64(-950), np.int64(100)

LANES = 128  # chains, or segments of one chain, side by side: loops over them become vector instructions
# No memory for `backprop`: the result's own holds what reverse mode keeps.
LIMITS = Limits(links=2**18, elements=2**22, members=2**9, lanes=LANES, work_bytes=0)
STRETCH = 1024  # links of a stretch where chains lie
SEGMENT = 128  # links of a segment of one deep chain
DEEP_MEMBERS, DEEP_LINKS = 8, 8192  # few chains, and deep: worth cutting
LINK_BLOCK = 1024  # links whose products are taken first: see csrc/propagate.h
WARM_UP = 128  # links
PREFETCH = 8  # links


@njit
def power_of_two(k):
    """2^k for -1022 <= k <= 1023."""
    return float_of((k + 1023) << 52)


@njit
def normalize(mantissa, exponent):
    """Renormalize mantissa * 2^exponent; the mantissa is 0 or a normal number."""
    bits = bits_of(mantissa)
    field = (bits >> 52) & 0x7FF
    zero = field == 0 or exponent < EXPONENT_MIN + 1022 - field  # before the sum, which could pass the smallest integer
    fraction = float_of((bits & SIGN_AND_FRACTION) | EXPONENT_OF_HALF)
    return 0.0 if zero else fraction, 0 if zero else exponent + (field - 1022)


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
def exp_parts(r):
    """Even and odd part: exp(r) = (even + odd) / (even - odd) for |r| <= ln2 / 2 and a little beyond."""
    t = r * r
    return EXP_EVEN[0] + t * (EXP_EVEN[1] + t * EXP_EVEN[2]), r * (EXP_ODD[0] + t * (EXP_ODD[1] + t * EXP_ODD[2]))


@njit
def exp_reduced(r):
    """exp(r) as numerator and denominator."""
    even, odd = exp_parts(r)
    return even + odd, even - odd


@njit
def sigmoid_narrow(z):
    """Activation and derivative for |z| <= NARROW_Z."""
    shifted = z * LOG2_E + ROUNDER
    whole = shifted - ROUNDER
    numerator, denominator = exp_reduced((whole * LN2_HIGH - z) + whole * LN2_LOW)
    scaled = float_of(bits_of(numerator) - (bits_of(shifted) << 52))  # times 2^-k
    inverse = 1.0 / (denominator + scaled)
    activation = denominator * inverse  # 1 / (1 + e), where e = exp(-z) for either sign
    return activation, (scaled * inverse) * activation


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
def offset_narrow(z):
    """The offset o - 1/2 and the derivative for |z| <= NARROW_Z; the formula is explained in csrc/scaled.h."""
    shifted = z * LOG2_E + ROUNDER
    whole = shifted - ROUNDER
    even, odd = exp_parts((whole * LN2_HIGH - z) + whole * LN2_LOW)
    scale = float_of(bits_of(1.0) - (bits_of(shifted) << 52))  # 2^-k
    scaled = (even + odd) * scale
    denominator = even - odd
    inverse = 1.0 / (denominator + scaled)
    difference = even * (1.0 - scale) - odd * (1.0 + scale)
    return (0.5 * difference) * inverse, (scaled * inverse) * (denominator * inverse)


@njit
def offset_of(z):
    """The offset for every z."""
    dead = not (abs(z) <= DEAD)
    r, k = reduce(0.0 if dead else abs(z))
    even, odd = exp_parts(r)
    scale = power_of_two(-min(k, 1000))
    inverse = 1.0 / ((even - odd) + (even + odd) * scale)
    difference = even * (1.0 - scale) - odd * (1.0 + scale)
    size = 0.5 if dead else (0.5 * difference) * inverse
    return -size if z < 0.0 else size


@njit
def stand_in(mantissa, exponent):
    """The double that stands for a preactivation."""
    return mantissa * power_of_two(min(max(exponent, STAND_IN_MIN), STAND_IN_MAX))


@njit
def preactivation(w, offset, scaled, scaled_exponent):
    """Mantissa and exponent of z = w d with centered biases, and the double that stands for it.

    Where |d| is below TINY_OFFSET, `scaled` holds d.
    """
    factor, factor_exponent = split(w)
    mantissa, exponent = split(offset)
    if abs(offset) < TINY_OFFSET:
        mantissa, exponent = scaled, scaled_exponent
    mantissa, exponent = normalize(mantissa * factor, exponent + factor_exponent)
    return mantissa, exponent, stand_in(mantissa, exponent)


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


@njit_row
def uniforms(stream, seed, link, member, first, second):
    """Fill two uniforms for each lane, from one block of Philox4x32-10.

    The rounds are written out inside the loop over the lanes: as a function of its own, or as a loop, they would be
    optimized before the loop over the lanes is seen, into instructions that have no vector form.
    """
    for lane in range(len(link)):
        k0, k1 = seed & LOW_32, seed >> BITS_32
        r0, r1, r2, r3 = link[lane], link[lane] >> BITS_32, member[lane], stream
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
def log_reduced(whole, f):
    """Natural logarithm of 2^whole (1 + f), 1 + f from sqrt(1/2) to sqrt(2), by s = f / (2 + f)."""
    s = f / (2.0 + f)
    t = s * s
    t2 = t * t
    even = (LOG[0] + LOG[2] * t2) + (LOG[4] + LOG[6] * t2) * (t2 * t2)
    odd = (LOG[1] + LOG[3] * t2) + LOG[5] * (t2 * t2)
    remainder = t * (even + odd * t)
    half_square = 0.5 * f * f
    return whole * LN2_HIGH - ((half_square - (s * (half_square + remainder) + whole * LN2_LOW)) - f)


@njit
def log_of(u):
    """Natural logarithm of 0 < u < 1: u = 2^k (1 + f)."""
    k = (bits_of(u) - SQRT_HALF_BITS) >> 52
    return log_reduced(float_of(k + ROUNDER_BITS) - ROUNDER, float_of(bits_of(u) - (k << 52)) - 1.0)


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


@njit_row
def draw_variates(family, stream, seed, link, member, first, second):
    """Fill two independent variates of a family for each lane: uniforms, or standard normals."""
    uniforms(stream, seed, link, member, first, second)
    if family == NORMAL:
        for lane in range(len(link)):  # Box and Muller: the normals take the places of the uniforms
            radius = math.sqrt(-2.0 * log_of(first[lane]))
            cosine, sine = cos_sin_turns(second[lane])
            first[lane] = radius * cosine
            second[lane] = radius * sine


@njit_row
def draw(weight_law, bias_law, seed, link, member, w, b, spare):
    """Fill w and b with the weight and the bias of each lane's link and member; `spare` has room for as many."""
    weight_family, weight_location, weight_scale = weight_law
    bias_family, bias_location, bias_scale = bias_law
    weight_is_drawn = weight_family == NORMAL or weight_family == UNIFORM
    bias_is_drawn = bias_family == NORMAL or bias_family == UNIFORM
    lanes = len(link)
    if weight_is_drawn or bias_is_drawn:
        draw_variates(weight_family if weight_is_drawn else bias_family, STREAM_LINKS, seed, link, member, w, b)
    if weight_is_drawn and bias_is_drawn and weight_family != bias_family:
        draw_variates(bias_family, STREAM_MIXED, seed, link, member, spare, b)
    if weight_family == CONSTANT:
        for lane in range(lanes):
            w[lane] = weight_location
    else:
        for lane in range(lanes):
            w[lane] = weight_location + weight_scale * w[lane]
    if bias_family == CONSTANT:
        for lane in range(lanes):
            b[lane] = bias_location
    elif bias_family == CENTERED:
        for lane in range(lanes):
            b[lane] = -0.5 * w[lane]
    else:
        for lane in range(lanes):
            b[lane] = bias_location + bias_scale * b[lane]


# Rows of links. All indices are unsigned: one that may be negative, for all Numba knows, keeps loops scalar.


@njit_row
def forward_row(weight, bias, link, begin, lanes, activation, z, o, derivative, copy, exponent, wide, at):
    """One link of every lane forward, keeping o_l, sigmoid'(z_l) and w_l, and of wide links the exponent too.

    Returns whether every weight and bias was finite: values that are not are never narrow, and only the general path
    asks.
    """
    outside = 0
    for lane in range(lanes):
        w = weight[link, begin + lane]
        z[lane] = w * activation[lane] + bias[link, begin + lane]
        outside |= is_outside(z[lane], w)
        o[at, lane], derivative[at, lane] = sigmoid_narrow(z[lane])  # as if all were narrow
        copy[at, lane] = w
        activation[lane] = o[at, lane]
    wide[at] = outside != 0
    if outside == 0:
        return True
    finite = True
    for lane in range(lanes):
        finite &= abs(weight[link, begin + lane]) <= LARGEST and abs(bias[link, begin + lane]) <= LARGEST
        activation[lane], o[at, lane], _, derivative[at, lane], k = sigmoid(z[lane])
        exponent[at, lane] = k if z[lane] < 0.0 else -k
    return finite


@njit_row
def backward_narrow(
    grad_weight,
    grad_weight_exponent,
    grad_bias,
    grad_bias_exponent,
    lanes,
    mantissa,
    exponent,
    o,
    derivative,
    copy,
    at,
    before,
):
    """One narrow link of every lane back, into row 0; (mantissa, exponent) is the adjoint."""
    for lane in range(lanes):
        delta, delta_exponent = normalize_narrow(mantissa[lane] * derivative[at, lane], exponent[lane])
        grad, grad_exponent = normalize_narrow(delta * o[before, lane], delta_exponent)
        mantissa[lane] = delta * copy[at, lane]
        exponent[lane] = delta_exponent
        grad_bias[FIRST, lane] = delta
        grad_bias_exponent[FIRST, lane] = delta_exponent
        grad_weight[FIRST, lane] = grad
        grad_weight_exponent[FIRST, lane] = grad_exponent


@njit_row
def backward_wide(out, link, begin, lanes, adjoint, kept, at, before, origin):
    """One link of every lane back by the general formula; returns whether the next one needs it too."""
    (grad_weight, grad_weight_exponent, grad_bias, grad_bias_exponent), (mantissa, exponent) = out, adjoint
    (kept_o, derivative, copy, kept_k, wide) = kept
    is_first, input_mantissa, input_exponent = origin
    stays_wide = False  # some adjoint is zero, or near the smallest exponent
    for lane in range(lanes):
        k = abs(kept_k[at, lane]) if wide[at] else 0
        if is_first:
            o, o_exponent = input_mantissa[lane], input_exponent[lane]
        else:
            o, o_exponent = kept_o[before, lane], min(kept_k[before, lane], 0) if wide[before] else 0
        scaled, scaled_exponent = normalize(mantissa[lane], exponent[lane])
        factor, factor_exponent = split(copy[at, lane])
        delta, delta_exponent = normalize(scaled * derivative[at, lane], scaled_exponent - k)
        grad, grad_exponent = normalize(delta * o, delta_exponent + o_exponent)
        mantissa[lane], exponent[lane] = normalize(delta * factor, delta_exponent + factor_exponent)
        stays_wide |= mantissa[lane] == 0.0 or exponent[lane] < EXPONENT_MIN // 2
        grad_bias[link, begin + lane] = delta
        grad_bias_exponent[link, begin + lane] = delta_exponent
        grad_weight[link, begin + lane] = grad
        grad_weight_exponent[link, begin + lane] = grad_exponent
    return stays_wide


@njit
def begins_line(array):
    """Tell whether the array begins at a cache line."""
    return array.ctypes.data % (8 * LINE) == 0


@njit
def all_begin_lines(out):
    """Tell whether all four arrays of gradients do."""
    return begins_line(out[0]) and begins_line(out[1]) and begins_line(out[2]) and begins_line(out[3])


@njit
def new_rows(rows):
    """Room for two numbers of each row and lane, mantissa and exponent each."""
    return (
        np.empty((rows, LANES)),
        np.empty((rows, LANES), dtype=np.int64),
        np.empty((rows, LANES)),
        np.empty((rows, LANES), dtype=np.int64),
    )


@njit
def new_made(out):
    """Room for a row of gradients, and whether it may go past the cache."""
    return (out[0].shape[1] % LINE == 0 and all_begin_lines(out),) + new_rows(1)  # noqa: RUF005  (Numba has no *)


@njit_row
def run_stretches(kept, made, mirror, lead, ahead, back):
    """Take one stretch of links forward and, at the same time, the one before it back.

    A stretch is its first link, how many, its first member and how many; its links, as weight and bias, or as the four
    arrays of gradients; and what its lanes carry. Rows of `kept` that the one leaves the other takes, in opposite order
    if `mirror` is set. With `lead` = 1 row 0 holds the input as if it were an activation, and the links follow it.
    Returns whether every weight and bias was finite.
    """
    o, derivative, copy, k, wide = kept
    first, count, begin, lanes, (weight, bias), (activation, z) = ahead
    back_first, back_count, back_begin, back_lanes, out, adjoint, (input_mantissa, input_exponent) = back
    grad_weight, grad_weight_exponent, grad_bias, grad_bias_exponent = out
    mantissa, exponent = adjoint
    rows, depth = len(wide), weight.shape[0]
    streams, made_weight, made_weight_exponent, made_bias, made_bias_exponent = made
    streams = streams and back_begin % LINE == 0 and back_lanes % LINE == 0
    stays_wide = False
    for lane in range(back_lanes):
        stays_wide |= mantissa[lane] == 0.0 or exponent[lane] < EXPONENT_MIN // 2
    finite = True
    for step in range(max(count, back_count)):
        if step < back_count:
            i = back_count - 1 - step
            at = lead + i if mirror else rows - 1 - i
            before = max(at - 1, 0) if mirror else min(at + 1, rows - 1)
            link, column, n = UINT(back_first + i), UINT(back_begin), UINT(back_lanes)
            if i + lead > 0 and not (wide[at] or wide[before] or stays_wide):
                backward_narrow(
                    made_weight,
                    made_weight_exponent,
                    made_bias,
                    made_bias_exponent,
                    n,
                    mantissa,
                    exponent,
                    o,
                    derivative,
                    copy,
                    UINT(at),
                    UINT(before),
                )
                if streams:
                    stream_row(grad_weight, link, column, made_weight, UINT(0), n)
                    stream_row(grad_weight_exponent, link, column, made_weight_exponent, UINT(0), n)
                    stream_row(grad_bias, link, column, made_bias, UINT(0), n)
                    stream_row(grad_bias_exponent, link, column, made_bias_exponent, UINT(0), n)
                else:
                    for lane in range(n):
                        grad_weight[link, column + lane] = made_weight[0, lane]
                        grad_weight_exponent[link, column + lane] = made_weight_exponent[0, lane]
                        grad_bias[link, column + lane] = made_bias[0, lane]
                        grad_bias_exponent[link, column + lane] = made_bias_exponent[0, lane]
            else:
                origin = i + lead == 0, input_mantissa, input_exponent
                stays_wide = backward_wide(out, link, column, n, adjoint, kept, UINT(at), UINT(before), origin)
        # What goes back leaves its place to what goes forward: first the one, then the other.
        if step < count:
            link, at = first + step, rows - 1 - step if mirror else lead + step
            prefetch_row(weight, bias, min(link + PREFETCH, depth - 1), begin, begin + lanes)
            finite &= forward_row(
                weight,
                bias,
                UINT(link),
                UINT(begin),
                UINT(lanes),
                activation,
                z,
                o,
                derivative,
                copy,
                k,
                wide,
                UINT(at),
            )
    return finite


@njit_row
def prefetch_row(weight, bias, link, begin, end):
    """Ask for a row of weights and biases.

    Rows of a block lie pages apart, where no prefetcher of the processor looks.
    """
    for column in range(begin, end, LINE):
        prefetch(weight, link, column)
        prefetch(bias, link, column)


@njit
def new_kept(rows):
    """Room for what a stretch keeps of each link: o_l, sigmoid'(z_l), w_l, the exponent k, and whether it is wide."""
    return (
        np.empty((rows, LANES)),
        np.empty((rows, LANES)),
        np.empty((rows, LANES)),
        np.empty((rows, LANES), dtype=np.int64),
        np.empty(rows, dtype=np.bool_),
    )


@njit_row
def advance_row(weight, bias, link, begin, lanes, z, activation, scaled, scaled_exponent, mantissa, exponent, wide):
    """One link of every lane forward, and the product of w sigmoid' as mantissa and exponent; nothing is kept.

    The activation is also made as mantissa and exponent where the result says that a double can't hold it. Returns
    that, and whether the products stay wide.
    """
    outside = np.int64(wide)
    for lane in range(lanes):
        z[lane] = weight[link, begin + lane] * activation[lane] + bias[link, begin + lane]
        outside |= is_outside(z[lane], weight[link, begin + lane])
    if outside == 0:
        for lane in range(lanes):
            activation[lane], derivative = sigmoid_narrow(z[lane])
            mantissa[lane], exponent[lane] = normalize_narrow(
                (mantissa[lane] * derivative) * weight[link, begin + lane], exponent[lane]
            )
        return True, False
    wide = False
    for lane in range(lanes):
        activation[lane], scaled[lane], scaled_exponent[lane], derivative, derivative_exponent = sigmoid(z[lane])
        factor, factor_exponent = split(weight[link, begin + lane])
        delta, delta_exponent = normalize(mantissa[lane] * derivative, exponent[lane] + derivative_exponent)
        mantissa[lane], exponent[lane] = normalize(delta * factor, delta_exponent + factor_exponent)
        wide |= mantissa[lane] == 0.0 or exponent[lane] < EXPONENT_MIN // 2
    return False, wide


@njit
def advance_rows(given, first, last, begin, lanes, z, states, product):
    """Take links first to last - 1 forward; `states` is where they start, and where they end."""
    (weight, bias), (activation, scaled, scaled_exponent), (mantissa, exponent) = given, states, product
    depth = weight.shape[0]
    mantissa[:], exponent[:] = 0.5, 1
    narrow, wide = False, False
    for link in range(first, last):
        prefetch_row(weight, bias, min(link + PREFETCH, depth - 1), begin, begin + lanes)
        narrow, wide = advance_row(
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
            wide,
        )
    for lane in range(lanes):
        scaled[lane], scaled_exponent[lane] = scaled_activation(lane, activation, scaled, scaled_exponent, narrow)


@njit
def new_states(count):
    """Room for states between links: o, and o as mantissa and exponent."""
    return np.empty(count), np.empty(count), np.empty(count, dtype=np.int64)


@njit
def set_state(states, at, activation):
    """Start from a given activation."""
    states[0][at] = activation
    states[1][at], states[2][at] = split(activation)


@njit
def copy_state(to, at, states, lane):
    """Copy one state."""
    to[0][at], to[1][at], to[2][at] = states[0][lane], states[1][lane], states[2][lane]


@njit
def backprop_blocks(given, x, cotangent, output, out, grad_x, start, stop):
    """Chains where they lie, block by block: see csrc/backprop.h."""
    depth = given[0].shape[0]
    stretches = (depth + STRETCH - 1) // STRETCH
    kept, made = new_kept(min(depth, STRETCH)), new_made(out)
    starts = np.empty((stretches, LANES)), np.empty((stretches, LANES)), np.empty((stretches, LANES), dtype=np.int64)
    states, carried = new_states(LANES), (np.empty(LANES), np.empty(LANES))
    adjoint = np.empty(LANES), np.empty(LANES, dtype=np.int64)
    origin = np.empty(LANES), np.empty(LANES, dtype=np.int64)
    product = np.empty(LANES), np.empty(LANES, dtype=np.int64)
    finite = True
    mirror = False
    back_first, back_count, back_begin, back_lanes = 0, 0, start, 0
    for begin in range(start, stop + LANES, LANES):  # once more at the end, for the last one's way back
        lanes = max(min(LANES, stop - begin), 0)
        for lane in range(lanes):
            set_state(states, lane, x[begin + lane])
        for s in range(stretches):
            starts[0][s], starts[1][s], starts[2][s] = states
            if lanes and s + 1 < stretches:
                advance_rows(given, s * STRETCH, (s + 1) * STRETCH, begin, lanes, carried[1], states, product)
        for s in range(stretches - 1, -1, -1):
            first = s * STRETCH
            count = min(depth - first, STRETCH) if lanes else 0
            carried[0][:] = starts[0][s]
            ahead = first, count, begin, lanes, given, carried
            finite &= run_stretches(
                kept, made, mirror, 0, ahead, (back_first, back_count, back_begin, back_lanes, out, adjoint, origin)
            )
            if s == stretches - 1:
                for lane in range(back_lanes):
                    member = back_begin + lane
                    grad_x[0][member], grad_x[1][member] = normalize(adjoint[0][lane], adjoint[1][lane])
                for lane in range(lanes):
                    output[begin + lane] = carried[0][lane]
                    adjoint[0][lane], adjoint[1][lane] = split(cotangent[begin + lane])
            if lanes == 0:
                break
            origin[0][:], origin[1][:] = starts[1][s], starts[2][s]
            back_first, back_count, back_begin, back_lanes = first, count, begin, lanes
            mirror = not mirror
    return finite


@njit_row
def fill(tile, lanes, array, member, first, pitch, ahead):
    """Copy links first to first + len(tile) - 1 of a chain into lane 0, those `pitch` links further into lane 1.

    Cache line by cache line, as in `drain`: the squares of a transposition fit the first-level cache. What lies `ahead`
    comes next.
    """
    column, n, line = UINT(member), UINT(tile.shape[0]), UINT(LINE)
    for lane_0 in range(UINT(0), UINT(lanes), line):
        for t_0 in range(UINT(0), n, line):
            for lane in range(lane_0, min(lane_0 + line, UINT(lanes))):
                at = UINT(first) + lane * UINT(pitch)
                prefetch(array, min(max(np.int64(at + t_0) + ahead, 0), array.shape[0] - 1), member)
                for t in range(t_0, min(t_0 + line, n)):
                    tile[t, lane] = array[at + t, column]


@njit_row
def drain(array, member, first, pitch, tile, lanes, line_of_lanes, streams):
    """Copy a tile back into a chain, if `streams` is set past the cache."""
    column, n, line = UINT(member), UINT(tile.shape[0]), UINT(LINE)
    for lane_0 in range(UINT(0), UINT(lanes), line):
        end = min(lane_0 + line, UINT(lanes))
        for t_0 in range(UINT(0), n, line):
            for lane in range(lane_0, end):
                for t in range(t_0, min(t_0 + line, n)):
                    line_of_lanes[lane - lane_0, t] = tile[t, lane]
        for lane in range(lane_0, end):
            at = UINT(first) + lane * UINT(pitch)
            if streams:
                stream_row(array, at, column, line_of_lanes, lane - lane_0, n)
            else:
                for t in range(n):
                    array[at + t, column] = line_of_lanes[lane - lane_0, t]


@njit
def run_forward(given, member, first, pitch, runs, length, ends, starts, products):
    """Run segments of one deep chain forward, several runs side by side: see csrc/backprop.h."""
    segments = len(products[0])
    tile = np.empty((SEGMENT, runs)), np.empty((SEGMENT, runs))
    z, product = np.empty(runs), (np.empty(runs), np.empty(runs, dtype=np.int64))
    for s in range(first, first + length):
        running = runs if s + (runs - 1) * pitch < segments else runs - 1
        fill(tile[0], running, given[0], member, s * SEGMENT, pitch * SEGMENT, SEGMENT)
        fill(tile[1], running, given[1], member, s * SEGMENT, pitch * SEGMENT, SEGMENT)
        for i in range(running):
            copy_state(starts, s + i * pitch, ends, i)
        advance_rows(tile, 0, SEGMENT, 0, running, z, ends, product)
        for i in range(running):
            products[0][s + i * pitch], products[1][s + i * pitch] = product[0][i], product[1][i]


@njit
def run_page(given, out, member, first, lanes, count, kept, made, tiles, starts, adjoint, carried):
    """Segments of one deep chain, `first` and those after it, a lane each: forward, and back."""
    tile, tile_out, (floats, integers), may_stream = tiles
    streams = may_stream and count == SEGMENT
    at = first * SEGMENT
    fill(tile[0][:count], lanes, given[0], member, at, SEGMENT, -LANES * SEGMENT)
    fill(tile[1][:count], lanes, given[1], member, at, SEGMENT, -LANES * SEGMENT)
    for lane in range(lanes):
        carried[0][lane] = starts[0][first + lane]
    origin = starts[1][first:], starts[2][first:]
    finite = True
    for back in (0, 1):  # one call, which is compiled once
        ahead = 0, (1 - back) * count, 0, (1 - back) * lanes, tile, carried
        finite &= run_stretches(
            kept, made, back == 1, 0, ahead, (0, back * count, 0, back * lanes, tile_out, adjoint, origin)
        )
    drain(out[0], member, at, SEGMENT, tile_out[0][:count], lanes, floats, streams)
    drain(out[1], member, at, SEGMENT, tile_out[1][:count], lanes, integers, streams)
    drain(out[2], member, at, SEGMENT, tile_out[2][:count], lanes, floats, streams)
    drain(out[3], member, at, SEGMENT, tile_out[3][:count], lanes, integers, streams)
    return finite


@njit
def backprop_deep(given, x, cotangent, output, out, grad_x, member):
    """One deep chain, in segments whose adjoints are defined one by one: see csrc/backprop.h."""
    depth = given[0].shape[0]
    segments, rest = depth // SEGMENT, depth % SEGMENT
    length = (segments + LANES - 1) // LANES
    runs = (segments + length - 1) // length
    starts, guesses, ends = new_states(segments + 1), new_states(runs), new_states(runs)
    products = np.empty(segments), np.empty(segments, dtype=np.int64)

    # Forward: each run but the first is warmed up over the segment before it.
    if runs > 1:
        warm = new_states(runs - 1)
        for i in range(runs - 1):
            set_state(warm, i, 0.5)
        nowhere = new_states(segments)
        unused = np.empty(segments), np.empty(segments, dtype=np.int64)
        run_forward(given, member, length - 1, length, runs - 1, 1, warm, nowhere, unused)
        for i in range(1, runs):
            copy_state(guesses, i, warm, i - 1)
    set_state(guesses, 0, x[member])
    for i in range(runs):
        copy_state(ends, i, guesses, i)
    run_forward(given, member, 0, length, runs, length, ends, starts, products)
    for i in range(1, runs):
        same = (
            bits_of(guesses[0][i]) == bits_of(ends[0][i - 1])
            and guesses[1][i] == ends[1][i - 1]
            and guesses[2][i] == ends[2][i - 1]
        )
        if not same:
            alone = new_states(1)
            copy_state(alone, 0, ends, i - 1)
            run = min(length, segments - i * length)
            run_forward(given, member, i * length, 0, 1, run, alone, starts, products)
            copy_state(ends, i, alone, 0)
    copy_state(starts, segments, ends, runs - 1)

    # Back: the links that fill no segment, and then a lane for each segment.
    kept = new_kept(SEGMENT)
    tile_out = new_rows(SEGMENT)
    tiles = (
        (np.empty((SEGMENT, LANES)), np.empty((SEGMENT, LANES))),
        tile_out,
        (np.empty((LINE, SEGMENT)), np.empty((LINE, SEGMENT), dtype=np.int64)),
        given[0].shape[1] == 1 and all_begin_lines(out),
    )
    carried = np.empty(LANES), np.empty(LANES)
    made = (False,) + new_rows(1)  # noqa: RUF005
    adjoints = np.empty(segments + 1), np.empty(segments + 1, dtype=np.int64)
    mantissa, exponent = split(cotangent[member])
    adjoints[0][segments], adjoints[1][segments] = mantissa, exponent
    output[member] = ends[0][runs - 1]
    finite = True
    if rest > 0:
        last = adjoints[0][segments:], adjoints[1][segments:]
        finite &= run_page(given, out, member, segments, 1, rest, kept, made, tiles, starts, last, carried)
        output[member] = carried[0][0]
        mantissa, exponent = normalize(last[0][0], last[1][0])
    for s in range(segments - 1, -1, -1):
        adjoints[0][s], adjoints[1][s] = mantissa, exponent
        mantissa, exponent = normalize(mantissa * products[0][s], exponent + products[1][s])
    grad_x[0][member], grad_x[1][member] = mantissa, exponent
    for first in range((segments - 1) // LANES * LANES, -1, -LANES):
        lanes = min(segments - first, LANES)
        page = adjoints[0][first : first + lanes], adjoints[1][first : first + lanes]
        finite &= run_page(given, out, member, first, lanes, SEGMENT, kept, made, tiles, starts, page, carried)
    return finite


def build() -> dict[str, str]:
    """Nothing is compiled beforehand."""
    return {}


def backprop(job: BackpropJob, start: int, stop: int) -> bool:
    """Gradients of given chains: an ensemble block by block, a few deep chains cut in depth."""
    # Read-only or not is part of a type for Numba, which compiles for each.
    given = read_only(job.weight), read_only(job.bias)
    ends = read_only(job.x), read_only(job.cotangent), job.output
    out, grad_x = (*job.grad_weight, *job.grad_bias), tuple(job.grad_x)
    depth, ensemble = job.weight.shape
    if ensemble > DEEP_MEMBERS or depth < DEEP_LINKS:
        return bool(backprop_blocks(given, *ends, out, grad_x, start, stop))
    return all(backprop_deep(given, *ends, out, grad_x, member) for member in range(start, stop))


@njit
def to_float(mantissa, exponent):
    """Return mantissa * 2^exponent as a double, rounded once; infinite where no double holds it."""
    first = min(max(exponent, -1000), 1000)
    second = min(max(exponent - first, -1000), 1000)
    return (mantissa * power_of_two(first)) * power_of_two(second)


@njit
def softplus_rest(z):
    """ln(1 + exp(-|z|))."""
    r, k = reduce(abs(z) if abs(z) < 1000.0 else 1000.0)  # where exp(-|z|) is 0
    numerator, denominator = exp_reduced(r)
    e = to_float(0.5 * (numerator / denominator), 1 - k)
    large = e > 0.4  # 1 + e = 2 (1 + f)
    return log_reduced(1.0 if large else 0.0, 0.5 * (e - 1.0) if large else e)


@njit
def cross_entropy(z, y):
    """-y ln o - (1 - y) ln(1 - o) for o = sigmoid(z)."""
    share = y if z < 0.0 else 1.0 - y
    return (0.0 if share == 0.0 else share * abs(z)) + softplus_rest(z)  # z may be infinite


@njit
def exceeds(mantissa, exponent, limit, limit_exponent):
    """Compare positive numbers; zero exceeds none."""
    return (mantissa != 0.0) & ((exponent > limit_exponent) | ((exponent == limit_exponent) & (mantissa > limit)))


@njit
def clipped(rule, mantissa, exponent):
    """A gradient, at most clip_value in magnitude."""
    limit, limit_exponent, clips = rule
    if not clips:
        return mantissa, exponent
    large = exceeds(abs(mantissa), exponent, limit, limit_exponent)
    return (-limit if mantissa < 0.0 else limit) if large else mantissa, limit_exponent if large else exponent


@njit
def add_square(total, total_exponent, mantissa, exponent):
    """Add a square to total * 4^total_exponent."""
    higher = 0 if mantissa == 0.0 else exponent - total_exponent
    lower = power_of_two(-2 * min(abs(higher), 500))
    square = mantissa * mantissa
    if higher > 0:
        return total * lower + square, exponent
    return total + square * lower, total_exponent


@njit
def norm_factor(value_rule, norm_rule, gradients, lane):
    """Factor by which the gradients of a chain are multiplied, so that their norm is at most clip_norm."""
    grad_weight, grad_weight_exponent, grad_bias, grad_bias_exponent = gradients
    total, total_exponent = 0.0, EXPONENT_MIN
    for link in range(len(grad_weight)):
        mantissa, exponent = clipped(value_rule, grad_weight[link, lane], grad_weight_exponent[link, lane])
        total, total_exponent = add_square(total, total_exponent, mantissa, exponent)
        mantissa, exponent = clipped(value_rule, grad_bias[link, lane], grad_bias_exponent[link, lane])
        total, total_exponent = add_square(total, total_exponent, mantissa, exponent)
    if total == 0.0:
        return 0.5, np.int64(1)
    norm, norm_exponent = normalize(math.sqrt(total), total_exponent)
    limit, limit_exponent, _ = norm_rule
    if not exceeds(norm, norm_exponent, limit, limit_exponent):
        return 0.5, np.int64(1)
    return normalize(limit / norm, limit_exponent - norm_exponent)


@njit_row
def move(rule, rate, factor, factor_exponent, clips_norm, link, lanes, before, after, exponents, moves, leaves):
    """One link's parameters after a step, in the place of their gradients; marks lanes that move or leave float64."""
    rate_mantissa, rate_exponent = rate
    for lane in range(lanes):
        mantissa, exponent = clipped(rule, after[link, lane], exponents[link, lane])
        exponent = exponent + rate_exponent
        if clips_norm:
            mantissa = mantissa * factor[lane]
            exponent = exponent + factor_exponent[lane]
        moved = before[link, lane] - to_float(rate_mantissa * mantissa, exponent)
        moves[lane] |= np.int64(moved != before[link, lane])
        leaves[lane] |= np.int64(not (abs(moved) <= LARGEST))
        after[link, lane] = moved


@njit
def evaluate(loss, lanes, depth, kept, made, lead, packed, carried, start, back, target, now):
    """The loss of the parameters as they are, and what the way back begins with."""
    activation, _ = carried
    mantissa, exponent = back[5]
    activation[:] = start
    last = depth - 1
    nothing = 0, 0, 0, 0, back[4], back[5], back[6]
    if loss == CROSS_ENTROPY:
        run_stretches(kept, made, False, lead, (0, last, 0, lanes, packed, carried), nothing)
        for lane in range(lanes):
            now[lane] = cross_entropy(packed[0][last, lane] * activation[lane] + packed[1][last, lane], target[lane])
        run_stretches(kept, made, False, lead + last, (last, 1, 0, lanes, packed, carried), nothing)
    else:
        run_stretches(kept, made, False, lead, (0, depth, 0, lanes, packed, carried), nothing)
    for lane in range(lanes):
        error = activation[lane] - target[lane]
        mantissa[lane], exponent[lane] = split(error)
        if loss == CROSS_ENTROPY:  # delta_L = o_L - y: as if sigmoid' were 1
            kept[1][lead + last, lane] = 1.0
            kept[3][lead + last, lane] = 0
        else:
            now[lane] = 0.5 * error * error


@njit
def train_block(job, rate, value_rule, norm_rule, first, last, row, begin, lanes):
    """All steps of the call for one block of lanes: see csrc/train.h."""
    weight, bias, recorded = job.weight, job.bias, job.recorded_steps
    last_update, converged_at, diverged_at = job.last_update, job.converged_at, job.diverged_at
    depth = weight.shape[0]
    kept, made = new_kept(depth + 1), (False,) + new_rows(1)  # noqa: RUF005  (Numba has no *)
    next_weight, grad_weight_exponent, next_bias, grad_bias_exponent = new_rows(depth)
    now_weight, now_bias = np.empty((depth, LANES)), np.empty((depth, LANES))
    carried = np.empty(LANES), np.empty(LANES)
    adjoint = np.empty(LANES), np.empty(LANES, dtype=np.int64)
    origin = np.empty(LANES), np.empty(LANES, dtype=np.int64)
    start, target, now = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    factor, factor_exponent = np.empty(LANES), np.empty(LANES, dtype=np.int64)
    moves, leaves = np.empty(LANES, dtype=np.int64), np.empty(LANES, dtype=np.int64)
    outside = np.int64(0)
    for lane in range(lanes):
        for link in range(depth):
            now_weight[link, lane], now_bias[link, lane] = weight[link, begin + lane], bias[link, begin + lane]
        start[lane], target[lane] = job.x[begin + lane], job.target[begin + lane]
        origin[0][lane], origin[1][lane] = split(start[lane])
        # The input lies where the activation before link 0 would be, if it is a number of that kind.
        outside |= is_outside(0.0, start[lane])
        kept[0][0, lane] = start[lane]
    kept[4][0] = False
    lead = 0 if outside else 1
    clips_norm = norm_rule[2]
    for step in range(first, last):
        out = next_weight, grad_weight_exponent, next_bias, grad_bias_exponent
        packed = now_weight, now_bias
        back = 0, depth, 0, lanes, out, adjoint, origin
        evaluate(job.loss_code, lanes, depth, kept, made, lead, packed, carried, start, back, target, now)
        for lane in range(lanes):
            member = begin + lane
            if not now[lane] - job.min_loss[member] <= job.tolerance:
                converged_at[member] = -1
            elif converged_at[member] < 0:
                converged_at[member] = step
        any_moves = False
        if step < job.steps:
            run_stretches(kept, made, True, lead, (0, 0, 0, 0, packed, carried), back)
            for lane in range(lanes):
                moves[lane] = leaves[lane] = 0
                if clips_norm:
                    factor[lane], factor_exponent[lane] = norm_factor(value_rule, norm_rule, out, lane)
            for link in range(UINT(0), UINT(depth)):
                move(
                    value_rule,
                    rate,
                    factor,
                    factor_exponent,
                    clips_norm,
                    link,
                    UINT(lanes),
                    now_weight,
                    next_weight,
                    grad_weight_exponent,
                    moves,
                    leaves,
                )
                move(
                    value_rule,
                    rate,
                    factor,
                    factor_exponent,
                    clips_norm,
                    link,
                    UINT(lanes),
                    now_bias,
                    next_bias,
                    grad_bias_exponent,
                    moves,
                    leaves,
                )
            for lane in range(lanes):
                member = begin + lane
                if leaves[lane] != 0 or diverged_at[member] != 0:  # it keeps what it had
                    for link in range(depth):
                        next_weight[link, lane], next_bias[link, lane] = now_weight[link, lane], now_bias[link, lane]
                    if diverged_at[member] == 0:
                        diverged_at[member] = step + 1
                elif moves[lane] != 0:
                    last_update[member] = step + 1
                    any_moves = True
            now_weight, next_weight = next_weight, now_weight
            now_bias, next_bias = next_bias, now_bias
        # A block that stands still stays as it is: the recorded steps that are left get the same loss.
        known = step + 1 if any_moves else last
        while row < len(recorded) and recorded[row] < known:
            for lane in range(lanes):
                member = begin + lane
                is_out = diverged_at[member] != 0 and diverged_at[member] <= recorded[row]
                job.loss[row, member] = np.inf if is_out else now[lane]
            row += 1
        if not any_moves:
            break
    for lane in range(lanes):
        for link in range(depth):
            weight[link, begin + lane], bias[link, begin + lane] = now_weight[link, lane], now_bias[link, lane]


@njit
def train_compiled(job, first, last, start, stop):
    """Gradient descent on given chains, block by block."""
    clips_value, clips_norm = job.clip_value <= LARGEST, job.clip_norm <= LARGEST
    value, value_exponent = split(job.clip_value if clips_value else 1.0)
    norm, norm_exponent = split(job.clip_norm if clips_norm else 1.0)
    value_rule, norm_rule = (value, value_exponent, clips_value), (norm, norm_exponent, clips_norm)
    rate = split(job.learning_rate)
    row = np.searchsorted(job.recorded_steps, first)
    for begin in range(start, stop, LANES):
        train_block(job, rate, value_rule, norm_rule, first, last, row, begin, min(LANES, stop - begin))


def train(job: TrainJob, first: int, last: int, start: int, stop: int) -> None:
    """Gradient descent on given chains."""
    given = {name: read_only(getattr(job, name)) for name in ("x", "target", "min_loss", "recorded_steps")}
    train_compiled(job._replace(**given), first, last, start, stop)


def read_only(array: Any) -> Any:
    """View an array as one that can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


@njit
def advance_tiny(w, activation, scaled, scaled_exponent, product, product_exponent, bound, bound_exponent):
    """One link of every lane where all offsets are below TINY_OFFSET; False, and nothing done, where some are not.

    The offsets are multiplied by w / 4, and the slope is 1/4, in the bits of the general path.
    """
    lanes = len(w)
    outside = np.int64(0)
    for lane in range(lanes):
        outside |= is_outside(0.0, w[lane]) | np.int64(abs(activation[lane]) >= TINY_OFFSET)
    if outside != 0:
        return False
    for lane in range(lanes):
        mantissa, exponent = normalize(scaled[lane] * w[lane], scaled_exponent[lane])
        offset = 0.25 * stand_in(mantissa, exponent)
        tiny = abs(offset) < TINY_OFFSET
        activation[lane] = offset
        scaled[lane] = mantissa if tiny else 0.5
        scaled_exponent[lane] = exponent - 2 if tiny and mantissa != 0.0 else 0
        product[lane], product_exponent[lane] = normalize_narrow(
            (product[lane] * 0.25) * w[lane], product_exponent[lane]
        )
        bound[lane], bound_exponent[lane] = normalize_narrow(bound[lane] * abs(w[lane]), bound_exponent[lane] - 2)
    return True


@njit
def advance(
    centered, w, b, z, activation, scaled, scaled_exponent, product, product_exponent, bound, bound_exponent, wide
):
    """One link of every lane; returns whether it was narrow, and whether the products stay wide.

    A narrow link does not make `scaled`. With centered biases the activations are offsets.
    """
    lanes = len(w)
    outside = np.int64(wide)
    if centered:
        for lane in range(lanes):
            z[lane] = w[lane] * activation[lane]
            size = abs(activation[lane])
            outside |= is_outside(z[lane], w[lane]) | np.int64((size < NARROW_LOW) & (size != 0.0))
    else:
        for lane in range(lanes):
            z[lane] = w[lane] * activation[lane] + b[lane]
            outside |= is_outside(z[lane], w[lane])
    if outside == 0 and centered:
        for lane in range(lanes):
            activation[lane], derivative = offset_narrow(z[lane])
            product[lane], product_exponent[lane] = normalize_narrow(
                (product[lane] * derivative) * w[lane], product_exponent[lane]
            )
            bound[lane], bound_exponent[lane] = normalize_narrow(bound[lane] * abs(w[lane]), bound_exponent[lane] - 2)
        return True, False
    if outside == 0:
        for lane in range(lanes):
            activation[lane], derivative = sigmoid_narrow(z[lane])
            product[lane], product_exponent[lane] = normalize_narrow(
                (product[lane] * derivative) * w[lane], product_exponent[lane]
            )
            bound[lane], bound_exponent[lane] = normalize_narrow(bound[lane] * abs(w[lane]), bound_exponent[lane] - 2)
        return True, False
    if (
        centered
        and not wide
        and advance_tiny(w, activation, scaled, scaled_exponent, product, product_exponent, bound, bound_exponent)
    ):
        return False, False
    wide = False
    for lane in range(lanes):
        if centered:
            mantissa, exponent, z[lane] = preactivation(w[lane], activation[lane], scaled[lane], scaled_exponent[lane])
            _, scaled[lane], scaled_exponent[lane], derivative, derivative_exponent = sigmoid(z[lane])
            activation[lane] = offset_of(z[lane])
            if abs(activation[lane]) < TINY_OFFSET:  # and then d is z / 4
                scaled[lane], scaled_exponent[lane] = normalize(mantissa, exponent - 2)
        else:
            activation[lane], scaled[lane], scaled_exponent[lane], derivative, derivative_exponent = sigmoid(z[lane])
        factor, factor_exponent = split(w[lane])
        delta, delta_exponent = normalize(product[lane] * derivative, product_exponent[lane] + derivative_exponent)
        product[lane], product_exponent[lane] = normalize(delta * factor, delta_exponent + factor_exponent)
        bound[lane], bound_exponent[lane] = normalize(
            bound[lane] * abs(factor), bound_exponent[lane] + (factor_exponent - 2)
        )
        if product[lane] == 0.0 or product_exponent[lane] < EXPONENT_MIN // 2:
            wide = True
        if bound[lane] == 0.0 or bound_exponent[lane] < EXPONENT_MIN // 2:
            wide = True
    return False, wide


@njit
def scaled_activation(lane, activation, scaled, scaled_exponent, narrow):
    """The activation as mantissa and exponent."""
    if narrow:
        return split(activation[lane])
    return normalize(scaled[lane], scaled_exponent[lane])


@njit
def scaled_state(centered, lane, z, activation, scaled, scaled_exponent, narrow):
    """Scaled part of a state between links, beside the activation or the offset: see the contract."""
    if centered and narrow and abs(activation[lane]) >= TINY_OFFSET:
        _, mantissa, exponent, _, _ = sigmoid(z[lane])
        return normalize(mantissa, exponent)
    return scaled_activation(lane, activation, scaled, scaled_exponent, narrow and not centered)


@njit
def recorded_link(centered, lane, w, b, z, activation, scaled, scaled_exponent, narrow):
    """Input and derivative of the next link, both as mantissa and exponent."""
    next_z = w[lane] * activation[lane] + b[lane]
    mantissa, exponent = scaled_state(centered, lane, z, activation, scaled, scaled_exponent, narrow)
    if centered:
        _, _, next_z = preactivation(w[lane], activation[lane], scaled[lane], scaled_exponent[lane])
        if abs(activation[lane]) < TINY_OFFSET:
            mantissa, exponent = 0.5, np.int64(0)
    _, _, _, derivative, derivative_exponent = sigmoid(next_z)
    derivative, derivative_exponent = normalize(derivative, derivative_exponent)
    return mantissa, exponent, derivative, derivative_exponent


@njit
def multiply(to, cell, mantissa, exponent):
    """Multiply a stored number."""
    to.mantissa[cell], to.exponent[cell] = normalize(to.mantissa[cell] * mantissa, to.exponent[cell] + exponent)


@njit
def set_to_one(to, cell):
    """Store the number 1."""
    to.mantissa[cell], to.exponent[cell] = 0.5, 1


@njit
def propagate_abreast(job, state, first, last, begin, lanes):
    """Chains side by side: members begin to begin + lanes - 1."""
    weight_law, bias_law, seed, recorded = job.weight_law, job.bias_law, job.seed, job.recorded_links
    link_of = np.empty(lanes, dtype=np.uint64)
    member_of = np.empty(lanes, dtype=np.uint64)
    w, b, z = np.empty(lanes), np.empty(lanes), np.empty(lanes)
    activation, scaled = np.empty(lanes), np.empty(lanes)
    scaled_exponent = np.empty(lanes, dtype=np.int64)
    product, factor = np.full(lanes, 0.5), np.full(lanes, 0.5)  # since the last recorded link or block; of the bound
    product_exponent, factor_exponent = np.ones(lanes, dtype=np.int64), np.ones(lanes, dtype=np.int64)
    for lane in range(lanes):
        member = begin + lane
        member_of[lane] = member
        activation[lane] = state.activation[member]
        scaled[lane], scaled_exponent[lane] = state.scaled.mantissa[member], state.scaled.exponent[member]
        set_to_one(state.product_before, member)
        set_to_one(state.bound_before, member)
    narrow = False
    wide = False
    centered = bias_law[0] == CENTERED
    first_row = np.searchsorted(recorded, first)
    row = first_row - 1  # of the last recorded link passed in this call; before the first, the state's products
    for link in range(first, last):
        link_of[:] = np.uint64(link)
        draw(weight_law, bias_law, seed, link_of, member_of, w, b, z)
        is_recorded = row + 1 < len(recorded) and recorded[row + 1] == link
        if is_recorded:
            for lane in range(lanes):
                member = begin + lane
                if row < first_row:
                    multiply(state.product_before, member, product[lane], product_exponent[lane])
                    multiply(state.bound_before, member, factor[lane], factor_exponent[lane])
                else:
                    multiply(job.product, (row, member), product[lane], product_exponent[lane])
                    multiply(job.bound, (row, member), factor[lane], factor_exponent[lane])
            row += 1
            for lane in range(lanes):
                cell = row, begin + lane
                job.weight[cell] = w[lane]
                (
                    job.input.mantissa[cell],
                    job.input.exponent[cell],
                    job.slope.mantissa[cell],
                    job.slope.exponent[cell],
                ) = recorded_link(centered, lane, w, b, z, activation, scaled, scaled_exponent, narrow)
                set_to_one(job.product, cell)
                set_to_one(job.bound, cell)
        narrow, wide = advance(
            centered,
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
        if not is_recorded and (link % LINK_BLOCK == 0 or link + 1 == last):
            for lane in range(lanes):
                member = begin + lane
                if row < first_row:
                    multiply(state.product_before, member, product[lane], product_exponent[lane])
                    multiply(state.bound_before, member, factor[lane], factor_exponent[lane])
                else:
                    multiply(job.product, (row, member), product[lane], product_exponent[lane])
                    multiply(job.bound, (row, member), factor[lane], factor_exponent[lane])
        if is_recorded or link % LINK_BLOCK == 0:
            product[:], product_exponent[:] = 0.5, 1
            factor[:], factor_exponent[:] = 0.5, 1
            wide = False
    for lane in range(lanes):
        member = begin + lane
        state.activation[member] = activation[lane]
        state.scaled.mantissa[member], state.scaled.exponent[member] = scaled_state(
            centered, lane, z, activation, scaled, scaled_exponent, narrow
        )


@njit
def run_segments(
    job, first_row, member, firsts, lasts, begins, begin_exponents, ends, end_exponents, column, pieces, recorded_pieces
):
    """Run segments of one chain side by side, one in each lane; more than one only if each begins a block of links.

    States are rows of activation and mantissa, and exponents beside them. Of each block of links `pieces` gets the
    products since its last recorded link, and `recorded_pieces` those that end before one.
    """
    weight_law, bias_law, seed, recorded = job.weight_law, job.bias_law, job.seed, job.recorded_links
    (piece_product, piece_product_exponent, piece_bound, piece_bound_exponent) = pieces
    (recorded_product, recorded_product_exponent, recorded_bound, recorded_bound_exponent) = recorded_pieces
    count = len(firsts)
    link_of = np.empty(count, dtype=np.uint64)
    member_of = np.full(count, np.uint64(member))
    w, b, z = np.empty(count), np.empty(count), np.empty(count)
    activation, scaled = np.empty(count), np.empty(count)
    scaled_exponent = np.empty(count, dtype=np.int64)
    product, factor = np.full(count, 0.5), np.full(count, 0.5)
    product_exponent, factor_exponent = np.ones(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    next_row = np.empty(count, dtype=np.int64)
    length = 0
    for lane in range(count):
        link_of[lane] = firsts[lane]
        activation[lane], scaled[lane] = begins[lane, 0], begins[lane, 1]
        scaled_exponent[lane] = begin_exponents[lane]
        next_row[lane] = max(first_row, np.searchsorted(recorded, firsts[lane]))
        length = max(length, lasts[lane] - firsts[lane])
    narrow = False
    wide = False
    centered = bias_law[0] == CENTERED
    next_event = 0  # the next step at which a lane stands before a link to record, or has come to its end
    block = 0
    for step in range(length + 1):
        is_recorded = False
        if step == next_event:
            next_event = length
            for lane in range(count):
                here = firsts[lane] + step
                if here == lasts[lane]:
                    ends[lane, 0] = activation[lane]
                    ends[lane, 1], end_exponents[lane] = scaled_state(
                        centered, lane, z, activation, scaled, scaled_exponent, narrow
                    )
                elif here < lasts[lane]:
                    at = lasts[lane]
                    if next_row[lane] < len(recorded) and recorded[next_row[lane]] < at:
                        at = recorded[next_row[lane]]
                    if at == here:
                        is_recorded = True
                        at += 1
                    next_event = min(next_event, at - firsts[lane])
        if step == length:
            break
        draw(weight_law, bias_law, seed, link_of, member_of, w, b, z)
        if is_recorded:
            for lane in range(count):
                here = firsts[lane] + step
                row = next_row[lane]
                if here < lasts[lane] and row < len(recorded) and recorded[row] == here:
                    job.weight[row, member] = w[lane]
                    (
                        job.input.mantissa[row, member],
                        job.input.exponent[row, member],
                        job.slope.mantissa[row, member],
                        job.slope.exponent[row, member],
                    ) = recorded_link(centered, lane, w, b, z, activation, scaled, scaled_exponent, narrow)
                    recorded_product[row - first_row], recorded_product_exponent[row - first_row] = (
                        product[lane],
                        product_exponent[lane],
                    )
                    recorded_bound[row - first_row], recorded_bound_exponent[row - first_row] = (
                        factor[lane],
                        factor_exponent[lane],
                    )
        narrow, wide = advance(
            centered,
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
        if is_recorded:
            for lane in range(count):
                here = firsts[lane] + step
                row = next_row[lane]
                if here < lasts[lane] and row < len(recorded) and recorded[row] == here:
                    product[lane], product_exponent[lane] = 0.5, 1
                    factor[lane], factor_exponent[lane] = 0.5, 1
                    next_row[lane] += 1
        for lane in range(count):
            link_of[lane] += ONE
        if (firsts[0] + step) % LINK_BLOCK == 0 or (count == 1 and step + 1 == length):
            for lane in range(count):
                piece_product[block, column + lane], piece_product_exponent[block, column + lane] = (
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
def combine(job, state, first_row, member, first, last, column, pieces, recorded_pieces, row):
    """Multiply a segment's pieces onto the products, in the order of the links; returns the last row passed."""
    recorded = job.recorded_links
    (piece_product, piece_product_exponent, piece_bound, piece_bound_exponent) = pieces
    (recorded_product, recorded_product_exponent, recorded_bound, recorded_bound_exponent) = recorded_pieces
    link = first
    block = 0
    while link < last:
        end = min(((link - 1) // LINK_BLOCK + 1) * LINK_BLOCK + 1, last)
        block_left = True
        while block_left:
            is_recorded = row + 1 < len(recorded) and recorded[row + 1] < end
            if is_recorded:
                at = row + 1 - first_row
                g, g_exponent = recorded_product[at], recorded_product_exponent[at]
                f, f_exponent = recorded_bound[at], recorded_bound_exponent[at]
            else:
                g, g_exponent = piece_product[block, column], piece_product_exponent[block, column]
                f, f_exponent = piece_bound[block, column], piece_bound_exponent[block, column]
            if row < first_row:
                multiply(state.product_before, member, g, g_exponent)
                multiply(state.bound_before, member, f, f_exponent)
            else:
                multiply(job.product, (row, member), g, g_exponent)
                multiply(job.bound, (row, member), f, f_exponent)
            if is_recorded:
                row += 1
                set_to_one(job.product, (row, member))
                set_to_one(job.bound, (row, member))
            block_left = is_recorded
        link = end
        block += 1
    return row


@njit
def can_be_guessed(bias_law, activation):
    """Tell if links forget where they began, or stay there: see csrc/propagate.h."""
    return bias_law[0] != CENTERED or activation == 0.0 or abs(activation) >= NARROW_LOW


@njit
def warm_up(job, member, before, sign, firsts, begins, begin_exponents):
    """Guess the states before links `firsts` by running the links that lead to them: see csrc/propagate.h.

    They run from 1/2, or from an offset of `sign` / 2; from 0 if `before`, the offset before all of them, is 0.
    """
    weight_law, bias_law, seed = job.weight_law, job.bias_law, job.seed
    centered = bias_law[0] == CENTERED
    start = 0.5
    if centered:
        start = 0.0 if before == 0.0 else 0.5 * sign
    count = len(firsts)
    link_of = np.empty(count, dtype=np.uint64)
    member_of = np.full(count, np.uint64(member))
    w, b, z = np.empty(count), np.empty(count), np.empty(count)
    activation, scaled = np.full(count, start), np.zeros(count)
    scaled_exponent = np.zeros(count, dtype=np.int64)
    product, factor = np.full(count, 0.5), np.full(count, 0.5)
    product_exponent, factor_exponent = np.ones(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    for lane in range(count):
        link_of[lane] = firsts[lane] - WARM_UP
    narrow = False
    wide = False
    for _ in range(WARM_UP):
        draw(weight_law, bias_law, seed, link_of, member_of, w, b, z)
        narrow, wide = advance(
            centered,
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
        begins[lane, 1], begin_exponents[lane] = scaled_state(
            centered, lane, z, activation, scaled, scaled_exponent, narrow
        )


@njit
def correct_signs(job, member, before, firsts, begins, begin_exponents, ends):
    """Guess again the starts of segments whose offset had the wrong sign; True if there are any: see csrc."""
    mirrored, mirrored_exponents = begins.copy(), begin_exponents.copy()
    warm_up(job, member, before, -1.0, firsts[1:], mirrored[1:], mirrored_exponents[1:])
    wrong, any_wrong = False, False
    for i in range(1, len(firsts)):
        if (begins[i, 0] < 0.0) != (ends[i - 1, 0] < 0.0):
            wrong = not wrong
        if wrong:
            begins[i, 0], begins[i, 1] = mirrored[i, 0], mirrored[i, 1]
            begin_exponents[i] = mirrored_exponents[i]
            any_wrong = True
    return any_wrong


@njit
def propagate_deep(job, state, first, last, member):
    """One chain, cut in depth: see csrc/propagate.h."""
    bias_law, recorded = job.bias_law, job.recorded_links
    row = np.searchsorted(recorded, first)
    blocks = (last - 1) // LINK_BLOCK - (first - 1) // LINK_BLOCK + 1
    n_recorded = np.searchsorted(recorded, last) - row
    pieces = new_rows(blocks)
    recorded_pieces = (
        np.empty(n_recorded),
        np.empty(n_recorded, dtype=np.int64),
        np.empty(n_recorded),
        np.empty(n_recorded, dtype=np.int64),
    )
    set_to_one(state.product_before, member)
    set_to_one(state.bound_before, member)

    # The links before the first whole block and after the last run by themselves, the blocks between in segments.
    begin = min((first - 1 + LINK_BLOCK - 1) // LINK_BLOCK * LINK_BLOCK + 1, last)
    whole = (last - begin) // LINK_BLOCK
    each = (whole + LANES - 1) // LANES
    if (
        whole < 4 or n_recorded * 8 >= last - first or not can_be_guessed(bias_law, state.activation[member])
    ):  # nothing to gain
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
    activation = state.activation[member]
    mantissa, exponent = state.scaled.mantissa[member], state.scaled.exponent[member]
    for i in range(count + 2):
        if i == 1 and count:
            begins[1, 0], begins[1, 1], begin_exponents[1] = activation, mantissa, exponent
            guessed = slice(2, count + 1)
            warm_up(job, member, activation, 1.0, firsts[guessed], begins[guessed], begin_exponents[guessed])
            cut = slice(1, count + 1)
            for turn in range(2 if bias_law[0] == CENTERED else 1):
                if turn == 1 and not correct_signs(
                    job, member, activation, firsts[cut], begins[cut], begin_exponents[cut], ends[cut]
                ):
                    break
                run_segments(
                    job,
                    row,
                    member,
                    firsts[cut],
                    lasts[cut],
                    begins[cut],
                    begin_exponents[cut],
                    ends[cut],
                    end_exponents[cut],
                    0,
                    pieces,
                    recorded_pieces,
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
                row,
                member,
                firsts[alone],
                lasts[alone],
                begins[alone],
                begin_exponents[alone],
                ends[alone],
                end_exponents[alone],
                column,
                pieces,
                recorded_pieces,
            )
        activation, mantissa, exponent = ends[i, 0], ends[i, 1], end_exponents[i]
        passed = combine(job, state, row, member, firsts[i], lasts[i], column, pieces, recorded_pieces, passed)
    state.activation[member] = activation
    state.scaled.mantissa[member], state.scaled.exponent[member] = mantissa, exponent


@njit
def propagate_compiled(job, state, first, last, start, stop):
    """Drawn chains, streamed forward: an ensemble abreast, a few deep chains cut in depth."""
    if stop - start <= LANES // 4 and last - first >= 8 * LINK_BLOCK:
        for member in range(start, stop):
            propagate_deep(job, state, first, last, member)
    else:
        for begin in range(start, stop, LANES):
            propagate_abreast(job, state, first, last, begin, min(LANES, stop - begin))


def propagate(job: PropagateJob, state: State, first: int, last: int, start: int, stop: int) -> None:
    """Drawn chains, streamed forward."""
    seed: Any = np.uint64(job.seed)
    propagate_compiled(job._replace(seed=seed), state, first, last, start, stop)
