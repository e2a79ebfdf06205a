"""Scaled arithmetic and the polynomials: the twins of csrc/numbers.h, with the same bits."""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

import numpy as np

from fastgrad.kernels import constants
from fastgrad.kernels.constants import (
    EXP_EVEN,
    EXP_ODD,
    HUGE_Z,
    LARGE_Z,
    LN2,
    LN2_BACK,
    LN2_FRONT,
    LN2_HIGH,
    LN2_LOW,
    LN2_TAIL,
    LOG,
    LOG2_E,
    ROUNDER,
    SPLITTER,
)
from fastgrad.kernels.jit.compiler import bits_of, float_of, njit

EXPONENT_MIN = np.int64(constants.EXPONENT_MIN)
EXPONENT_OF_HALF = np.int64(constants.EXPONENT_OF_HALF)
ROUNDER_BITS = np.int64(constants.ROUNDER_BITS)
SIGN_AND_FRACTION = np.int64(constants.SIGN_AND_FRACTION)
SMALLEST_NORMAL = 2.0**-1022
TWO_64 = 2.0**64


@njit
def power_of_two(k):
    """2^k for -1022 <= k <= 1023."""
    return float_of((k + 1023) << 52)


@njit
def renormalize(mantissa, exponent):
    """Renormalize mantissa * 2^exponent; the mantissa is 0 or a normal number."""
    bits = bits_of(mantissa)
    field = (bits >> 52) & 0x7FF
    zero = field == 0 or exponent < EXPONENT_MIN + 1022 - field  # before the sum, which could pass the smallest integer
    fraction = float_of((bits & SIGN_AND_FRACTION) | EXPONENT_OF_HALF)
    return 0.0 if zero else fraction, 0 if zero else exponent + (field - 1022)


@njit
def to_scaled(value):
    """Mantissa and exponent of any finite double, subnormals included."""
    subnormal = abs(value) < SMALLEST_NORMAL
    return renormalize(value * TWO_64 if subnormal else value, -64 if subnormal else 0)


@njit
def renormalize_in_range(mantissa, exponent):
    """Renormalize mantissa * 2^exponent; the mantissa is a normal number and the exponent far from its limits."""
    bits = bits_of(mantissa)
    field = (bits >> 52) & 0x7FF
    return float_of((bits & SIGN_AND_FRACTION) | EXPONENT_OF_HALF), exponent + (field - 1022)


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
def reduce_exp_argument(t):
    """Return r and k with exp(-t) = exp(r) 2^-k and |r| <= ln2 / 2, for t up to DEAD."""
    near = min(t, LARGE_Z)
    shifted = near * LOG2_E + ROUNDER
    whole = shifted - ROUNDER
    if t <= LARGE_Z:
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
def to_float(mantissa, exponent):
    """Return mantissa * 2^exponent as a double, rounded once; infinite where no double holds it."""
    first = min(max(exponent, -1000), 1000)
    second = min(max(exponent - first, -1000), 1000)
    return (mantissa * power_of_two(first)) * power_of_two(second)


@njit
def multiply(to, cell, mantissa, exponent):
    """Multiply a stored number."""
    to.mantissa[cell], to.exponent[cell] = renormalize(to.mantissa[cell] * mantissa, to.exponent[cell] + exponent)


@njit
def set_to_one(to, cell):
    """Store the number 1."""
    to.mantissa[cell], to.exponent[cell] = 0.5, 1
