"""The draws of links, as fastgrad/philox.py defines them: the twins of csrc/draws.h."""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

import math

import numpy as np

from fastgrad.kernels import constants
from fastgrad.kernels.constants import CENTERED, CONSTANT, COS, NORMAL, ROUNDER, SIN, UNIFORM
from fastgrad.kernels.jit.compiler import bits_of, float_of, njit, njit_row
from fastgrad.kernels.jit.numbers import ROUNDER_BITS, log_reduced

KEY_STEP_0 = np.uint64(constants.KEY_STEP_0)
KEY_STEP_1 = np.uint64(constants.KEY_STEP_1)
MULTIPLIER_0 = np.uint64(constants.MULTIPLIER_0)
MULTIPLIER_1 = np.uint64(constants.MULTIPLIER_1)
SQRT_HALF_BITS = np.int64(constants.SQRT_HALF_BITS)
STREAM_LINKS = np.uint64(constants.STREAM_LINKS)
STREAM_MIXED = np.uint64(constants.STREAM_MIXED)
LOW_32 = np.uint64(0xFFFFFFFF)
BITS_32 = np.uint64(32)
BITS_11 = np.uint64(11)
ULP_53 = 2.0**-53


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
def draw(weight_law, bias_law, rest, seed, link, member, w, b, spare):
    """Fill w and b with the weight and the bias of each lane's link and member; `spare` has room for as many.

    Centered biases hold units that rest at `rest`.
    """
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
            b[lane] = -rest * w[lane]
    else:
        for lane in range(lanes):
            b[lane] = bias_location + bias_scale * b[lane]
