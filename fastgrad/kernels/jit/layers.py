"""Drawn dense layers, forward and backward: the twins of csrc/layers.h, with the same bits.

Numbers of a block lie in arrays of the axes (vectors, rows, lanes). The lanes are the units of one member, in one row:
`across`, for a sum or maximum over units goes across lanes. Or they are members, with a row for each unit. Exponents
have the axes (vectors, lanes) in both: those of units are equal.
"""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastgrad.kernels import constants
from fastgrad.kernels.constants import (
    CONSTANT,
    LARGEST_Z,
    LN2,
    LOG,
    ORTHOGONAL,
    QUARTER_SIN,
    RELU,
    ROUNDER,
    SATURATED_Z,
    SIGMOID,
    SIGMOID_RANGE,
    TANH,
    UNIFORM,
    WIDE_LAYER,
)
from fastgrad.kernels.jit.compiler import bits_of, float_of, njit, njit_row
from fastgrad.kernels.jit.draws import LOW_32, uniforms
from fastgrad.kernels.jit.nonlinearity import offset_in_range, offset_of, sigmoid, sigmoid_in_range
from fastgrad.kernels.jit.numbers import (
    EXPONENT_OF_HALF,
    ROUNDER_BITS,
    SIGN_AND_FRACTION,
    power_of_two,
    to_scaled,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.kernels.contract import LayersJob, ScaledVectors

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    UInts = NDArray[np.uint64]

FRACTION = np.int64(constants.FRACTION)
SQRT_HALF_BITS = np.int64(constants.SQRT_HALF_BITS)
OFFSET_BITS = np.int64(constants.SQRT_HALF_BITS - (1024 << 52))
SIGN = np.int64(-(2**63))
ZERO_EXPONENT = np.int64(constants.ZERO_EXPONENT)
NONE = np.int64(constants.ZERO_EXPONENT // 2)  # below every shift
LINEAR_EXPONENT = np.int64(constants.LINEAR_EXPONENT)
LAW_EXPONENT_MAX = np.int64(constants.LAW_EXPONENT_MAX)
LANES_OF_SUM = constants.REFLECTION_LANES
STREAM_LAYERS = np.uint64(constants.STREAM_LAYERS)
BITS_32, BITS_8 = np.uint64(32), np.uint64(8)
FIRST = ROW = np.uintp(0)  # of lanes; of units that are lanes
LANES = 128  # rows, pairs of columns or members that are drawn side by side


class Block(NamedTuple):
    """Members begin … begin + size - 1, and what they work in; `draws` lanes are drawn at a time."""

    begin: int
    start: int  # of the slice, where its tape begins
    size: int
    width: int
    across: bool
    values: Floats  #      (vectors, rows, lanes)  what is multiplied
    products: Floats  #    (vectors, rows, lanes)  W times it
    evens: Floats  #       (vectors, units)        products or values of even units, and of odd ones
    odds: Floats  #        (vectors, units)
    biases: Floats  #      (rows, lanes)
    arguments: Floats  #   (rows, lanes)           what phi is taken of, or phi'
    shift: Ints  #         (rows, lanes)           exponents of units before they have a common one
    top: Ints  #           (lanes,)                the largest of them
    link: UInts  #         (draws,)                counter words
    member: UInts  #       (draws,)
    first: Floats  #       (draws,)                the two numbers of each block of the generator
    second: Floats  #      (draws,)
    sums: Floats  #        (2, LANES_OF_SUM)       partial sums of a reflection
    z: Floats  #           (2, rows, lanes)        preactivations of the first two vectors
    z_exponents: Ints  #   (2, lanes)
    exponents: Ints  #     (vectors, lanes)        of `values`
    common: Ints  #        (lanes,)                exponent of a vector's preactivations, and the powers of two by which
    factor: Floats  #      (lanes,)                products and biases come to it, and it becomes 1
    bias_factor: Floats  # (lanes,)
    argument_factor: Floats  # (lanes,)


@njit
def scaled_law(law):
    """Family, location and scale times a power of two, and its exponent."""
    family, location, scale = law
    size = max(abs(location), scale)
    if size == 0.0:
        return law, ZERO_EXPONENT
    exponent = min(max(to_scaled(size)[1], -LAW_EXPONENT_MAX), LAW_EXPONENT_MAX)
    factor = power_of_two(-exponent)
    return (family, location * factor, scale * factor), exponent


@njit
def clipped_power(k):
    """2^k, and 0 where that is no normal number; 2^1023 above."""
    return 0.0 if k < -1022 else power_of_two(min(max(k, -1022), 1023))


@njit
def scaled_normals(factor, u, v):
    """sqrt(factor ln u) times cos(2πv) and sin(2πv), factor = -2 scale²; the formula is explained in csrc/draws.h."""
    offset = bits_of(u) - OFFSET_BITS
    k = float_of((offset >> 52) + (ROUNDER_BITS - 1024)) - ROUNDER
    f = float_of((offset & FRACTION) + SQRT_HALF_BITS) - 1.0
    s = f / (2.0 + f)
    t = s * s
    tail = LOG[3] + t * (LOG[4] + t * (LOG[5] + t * LOG[6]))
    remainder = t * (LOG[0] + t * (LOG[1] + t * (LOG[2] + t * tail)))
    square = factor * (k * LN2 + (s * remainder + (s + s)))

    quarters = 4.0 * v
    shifted = quarters + ROUNDER
    a = quarters - (shifted - ROUNDER)
    t = a * a
    tail = QUARTER_SIN[3] + t * (QUARTER_SIN[4] + t * (QUARTER_SIN[5] + t * QUARTER_SIN[6]))
    sine = a * (QUARTER_SIN[0] + t * (QUARTER_SIN[1] + t * (QUARTER_SIN[2] + t * tail)))
    x, y = math.sqrt(square * (1.0 - sine * sine)), math.sqrt(square) * sine
    quarter = bits_of(shifted)
    swap = (quarter & 1) != 0
    first, second = bits_of(y if swap else x), bits_of(x if swap else y)
    return float_of(first ^ (((quarter + 1) << 62) & SIGN)), float_of(second ^ ((quarter << 62) & SIGN))


@njit_row
def draw_pairs(law, layer, seed, link, member, first, second):
    """Fill the two numbers that each lane's block of the generator gives; link is pair * 2^32 + layer mod 2^32."""
    family, location, scale = law
    lanes = len(link)
    if family == CONSTANT:
        for lane in range(lanes):
            first[lane] = second[lane] = location
        return
    uniforms(STREAM_LAYERS + ((layer >> BITS_32) << BITS_8), seed, link, member, first, second)
    if family == UNIFORM:
        for lane in range(lanes):
            first[lane] = location + scale * first[lane]
            second[lane] = location + scale * second[lane]
        return
    factor = -2.0 if family == ORTHOGONAL else -2.0 * (scale * scale)
    for lane in range(lanes):
        a, b = scaled_normals(factor, first[lane], second[lane])
        first[lane] = location + a
        second[lane] = location + b


@njit_row
def set_links(link, at, lanes, layer, pair, step):
    """Words of the lanes from `at` on: their pairs are `step` apart."""
    for lane in range(lanes):
        link[at + lane] = ((pair + np.uint64(lane) * step) << BITS_32) | (layer & LOW_32)


@njit_row
def add_products(products, vector, begin, first, second, at, lanes, even, odd):
    """Add two columns' weights, from `at` on, times their values to the rows from `begin` on."""
    for lane in range(lanes):
        cell, of = begin + lane, at + lane
        products[vector, ROW, cell] = (products[vector, ROW, cell] + first[of] * even) + second[of] * odd


@njit_row
def add_columns(evens, odds, vector, begin, first, second, at, lanes, value):
    """Add one row's weights, from `at` on, times its value to the pairs of columns from `begin` on."""
    for lane in range(lanes):
        cell, of = begin + lane, at + lane
        evens[vector, cell] += first[of] * value
        odds[vector, cell] += second[of] * value


@njit_row
def add_members(products, values, vector, row, even, odd, first, second, transposed):
    """Add two weights of one row, of each member, times what they are multiplied by."""
    if transposed:
        for lane in range(len(first)):
            products[vector, even, lane] += first[lane] * values[vector, row, lane]
            products[vector, odd, lane] += second[lane] * values[vector, row, lane]
    else:
        for lane in range(len(first)):
            total = products[vector, row, lane] + first[lane] * values[vector, even, lane]
            products[vector, row, lane] = total + second[lane] * values[vector, odd, lane]


@njit
def multiply_layer(law, layer, seed, block, transposed):
    """W o of each vector, or W^T delta, with the weights of one layer."""
    values, products, evens, odds, link = block.values, block.products, block.evens, block.odds, block.link
    member, first, second, width = block.member, block.first, block.second, block.width
    pairs, vectors = np.uint64((width + 1) // 2), len(values)
    if law[0] == ORTHOGONAL:
        multiply_orthogonal(law, layer, seed, block, transposed)
        return
    products[:] = 0.0
    if not block.across:
        for row in range(width):
            for p in range(pairs):
                set_links(link, FIRST, np.uintp(len(link)), layer, np.uint64(row) * pairs + p, np.uint64(0))
                draw_pairs(law, layer, seed, link, member, first, second)
                for v in range(vectors):
                    at = np.uintp(v), np.uintp(row), np.uintp(2 * p), np.uintp(2 * p + 1)
                    add_members(products, values, at[0], at[1], at[2], at[3], first, second, transposed)
        return
    evens[:], odds[:] = 0.0, 0.0
    end = np.int64(pairs) if transposed else width
    steps = width if transposed else np.int64(pairs)
    for begin in range(0, end, LANES):
        lanes = min(end - begin, LANES)
        together = max(LANES // lanes, 1)  # rows, or pairs of columns, that are drawn at a time
        for step in range(0, steps, together):
            count = min(together, steps - step)
            for i in range(count):
                at, number = np.uintp(i * lanes), np.uint64(step + i)
                if transposed:
                    set_links(link, at, np.uintp(lanes), layer, number * pairs + np.uint64(begin), np.uint64(1))
                else:
                    set_links(link, at, np.uintp(lanes), layer, np.uint64(begin) * pairs + number, pairs)
            drawn = count * lanes
            draw_pairs(law, layer, seed, link[:drawn], member[:drawn], first[:drawn], second[:drawn])
            for i in range(count):
                at, number = np.uintp(i * lanes), step + i
                for v in range(vectors):
                    vector, to, all_of_it = np.uintp(v), np.uintp(begin), np.uintp(lanes)
                    if transposed:
                        add_columns(evens, odds, vector, to, first, second, at, all_of_it, values[v, 0, number])
                    else:
                        even, odd = values[v, 0, 2 * number], values[v, 0, 2 * number + 1]
                        add_products(products, vector, to, first, second, at, all_of_it, even, odd)
    if transposed:
        interleave(evens, odds, products, pairs)


@njit
def interleave(evens, odds, products, pairs):
    """Columns from even and odd ones."""
    for v in range(len(products)):
        for p in range(pairs):
            products[v, 0, np.int64(2 * p)] = evens[v, np.int64(p)]
            products[v, 0, np.int64(2 * p + 1)] = odds[v, np.int64(p)]


@njit
def total(even, odd):
    """Sum of the partial sums of a reflection."""
    t = even + odd
    return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]))


@njit
def partial_sums(a_even, a_odd, b_even, b_odd, begin, padded, sums):
    """Sums of products over units of equal parity and pair modulo LANES_OF_SUM."""
    sums[:] = 0.0
    for p in range(begin, padded, LANES_OF_SUM):
        for i in range(LANES_OF_SUM):
            sums[0, i] += a_even[p + i] * b_even[p + i]
            sums[1, i] += a_odd[p + i] * b_odd[p + i]
    return total(sums[0], sums[1])


@njit
def multiply_orthogonal(law, layer, seed, block, transposed):
    """Q o or Q^T delta: see `multiply` in the reference."""
    values, products, evens, odds, link = block.values, block.products, block.evens, block.odds, block.link
    member, first, second, sums = block.member, block.first, block.second, block.sums
    width, vectors = block.width, len(values)
    pairs = (width + 1) // 2
    padded = (pairs + LANES_OF_SUM - 1) // LANES_OF_SUM * LANES_OF_SUM
    evens[:], odds[:] = 0.0, 0.0
    for v in range(vectors):
        for p in range(pairs):
            evens[v, p], odds[v, p] = values[v, 0, 2 * p], values[v, 0, 2 * p + 1]
    for step in range(width):
        k = step if transposed else width - 1 - step
        begin = k // 2 // LANES_OF_SUM * LANES_OF_SUM
        links, a, b = link[begin:padded], first[begin:padded], second[begin:padded]
        set_links(links, FIRST, np.uintp(padded - begin), layer, np.uint64(k * pairs + begin), np.uint64(1))
        draw_pairs(law, layer, seed, links, member[begin:padded], a, b)
        for p in range(begin, padded):
            if 2 * p < k or 2 * p >= width:
                first[p] = 0.0
            if 2 * p + 1 < k or 2 * p + 1 >= width:
                second[p] = 0.0
        length = math.sqrt(partial_sums(first, second, first, second, begin, padded, sums))
        u, coordinates = (second, odds) if k % 2 else (first, evens)
        at = k // 2
        is_negative = u[at] < 0.0
        factor = 1.0 / (length * (length + abs(u[at])))
        u[at] += -length if is_negative else length
        for v in range(vectors):
            if not transposed and not is_negative:
                coordinates[v, at] = -coordinates[v, at]
            times = factor * partial_sums(first, second, evens[v], odds[v], begin, padded, sums)
            for p in range(begin, padded):
                evens[v, p] -= times * first[p]
                odds[v, p] -= times * second[p]
            if transposed and not is_negative:
                coordinates[v, at] = -coordinates[v, at]
    interleave(evens, odds, products, np.uint64(pairs))
    for v in range(vectors):
        for unit in range(width):
            products[v, 0, unit] *= law[2]


@njit
def draw_biases(law, layer, seed, block):
    """Biases of one layer."""
    biases, link, member, first, second = block.biases, block.link, block.member, block.first, block.second
    width, pairs = block.width, (block.width + 1) // 2
    if not block.across:
        for p in range(pairs):
            set_links(link, FIRST, np.uintp(len(link)), layer, np.uint64(width * pairs + p), np.uint64(0))
            draw_pairs(law, layer, seed, link, member, biases[2 * p], biases[2 * p + 1])
        return
    links, a, b = link[:pairs], first[:pairs], second[:pairs]
    set_links(links, FIRST, np.uintp(pairs), layer, np.uint64(width * pairs), np.uint64(1))
    draw_pairs(law, layer, seed, links, member[:pairs], a, b)
    for p in range(pairs):
        biases[0, 2 * p], biases[0, 2 * p + 1] = a[p], b[p]


@njit
def element_exponent(value, shift):
    """Exponent of value * 2^shift; NONE where it is 0 or may have lost digits."""
    field = (bits_of(value) >> 52) & 0x7FF
    return NONE if field == 0 else field - 1022 + shift


@njit_row
def raise_tops(values, vector, row, lanes, shift, top):
    """Raise `top` to the exponents of one row."""
    for lane in range(lanes):
        top[lane] = max(top[lane], element_exponent(values[vector, row, lane], shift[row, lane]))


@njit_row
def scale_row(values, vector, row, lanes, shift, top, exponents):
    """Bring one row to the exponents `top`; to 0 where the whole vector is."""
    for lane in range(lanes):
        value = values[vector, row, lane]
        exponent = element_exponent(value, shift[row, lane])
        fraction = float_of((bits_of(value) & SIGN_AND_FRACTION) | EXPONENT_OF_HALF)
        is_zero = (exponent == NONE) | (exponents[vector, lane] == ZERO_EXPONENT)
        values[vector, row, lane] = 0.0 if is_zero else fraction * clipped_power(exponent - top[lane])


@njit
def common_exponent(values, v, exponents, block):
    """Give the elements values * 2^shift of vector `v` one exponent, the largest of theirs, and add it to its own."""
    vector, shift, top, width = np.uintp(v), block.shift, block.top, block.width
    rows, lanes = (1, np.uintp(width)) if block.across else (width, np.uintp(values.shape[2]))
    top[:] = NONE
    for row in range(rows):
        raise_tops(values, vector, np.uintp(row), lanes, shift, top)
    if block.across:
        top[:] = top.max()
        values[v, 0, width:] = 0.0
    else:
        values[v, width:] = 0.0
    for lane in range(len(top)):
        exponent = exponents[v, lane] + top[lane]
        exponents[v, lane] = ZERO_EXPONENT if top[lane] == NONE or exponent <= ZERO_EXPONENT else exponent
    for row in range(rows):
        scale_row(values, vector, np.uintp(row), lanes, shift, top, exponents)


@njit_row
def largest(values, row, lanes):
    """Largest magnitude of one row."""
    found = 0.0
    for lane in range(lanes):
        found = max(found, abs(values[row, lane]))
    return found


@njit_row
def activate_row(nonlinearity, z, arguments, row, lanes, common, values, vector, shift):
    """Fill phi of one row, as mantissa * 2^shift; what is in range of doubles by their formula, with the same bits."""
    size = largest(arguments, row, lanes)
    if nonlinearity == SIGMOID:
        if size <= SIGMOID_RANGE:
            for lane in range(lanes):
                values[vector, row, lane], _ = sigmoid_in_range(arguments[row, lane])
                shift[row, lane] = 0
        else:
            for lane in range(lanes):
                _, values[vector, row, lane], shift[row, lane], _, _ = sigmoid(arguments[row, lane])
        return
    for lane in range(lanes):
        shift[row, lane] = 0
    if nonlinearity == TANH:
        if 2.0 * size <= SIGMOID_RANGE:
            for lane in range(lanes):
                offset, _ = offset_in_range(2.0 * arguments[row, lane])
                values[vector, row, lane] = z[row, lane] if common[lane] < LINEAR_EXPONENT else 2.0 * offset
        else:
            for lane in range(lanes):
                offset = 2.0 * offset_of(2.0 * arguments[row, lane])
                values[vector, row, lane] = z[row, lane] if common[lane] < LINEAR_EXPONENT else offset
    elif nonlinearity == RELU:
        for lane in range(lanes):
            values[vector, row, lane] = z[row, lane] if z[row, lane] > 0.0 else 0.0
    else:
        for lane in range(lanes):
            values[vector, row, lane] = z[row, lane]


@njit_row
def slope_row(nonlinearity, slope, row, lanes, shift):
    """Put phi' of one row in place of the preactivations, as mantissa * 2^shift."""
    if nonlinearity == SIGMOID or nonlinearity == TANH:
        scale, power = (1.0, 0) if nonlinearity == SIGMOID else (2.0, 2)
        if scale * largest(slope, row, lanes) <= SIGMOID_RANGE:
            for lane in range(lanes):
                _, slope[row, lane] = sigmoid_in_range(scale * slope[row, lane])
                shift[row, lane] = power
        else:
            for lane in range(lanes):
                _, _, _, slope[row, lane], exponent = sigmoid(scale * slope[row, lane])
                shift[row, lane] = exponent + power
        return
    for lane in range(lanes):
        slope[row, lane] = 0.0 if nonlinearity == RELU and not slope[row, lane] > 0.0 else 1.0
        shift[row, lane] = 0


@njit_row
def preactivation_row(products, vector, row, lanes, biases, factor, bias_factor, argument_factor, z, arguments):
    """Fill z of one row, and what phi is taken of."""
    for lane in range(lanes):
        z[row, lane] = products[vector, row, lane] * factor[lane] + biases[row, lane] * bias_factor[lane]
        arguments[row, lane] = min(max(z[row, lane] * argument_factor[lane], -LARGEST_Z), LARGEST_Z)


@njit
def store_number(to, row, member, value, exponent):
    """Store value * 2^exponent, renormalized."""
    mantissa, shift = to_scaled(value)
    to.mantissa[row, member] = mantissa
    to.exponent[row, member] = 0 if mantissa == 0.0 else exponent + shift


@njit
def sum_products(a, b, block, lane):
    """Sum of a b over the units of one member, in the order of their index."""
    total = 0.0
    for unit in range(block.width):
        total += a[0, unit] * b[0, unit] if block.across else a[unit, lane] * b[unit, lane]
    return total


@njit
def record_norms(to, row, block):
    """Norms of the first vector."""
    for lane in range(block.size):
        squares = sum_products(block.values[0], block.values[0], block, lane)
        store_number(to, row, block.begin + lane, math.sqrt(squares), block.exponents[0, lane])


@njit
def record_layer(job, row, block):
    """Record lengths, means and shares of a layer's preactivations and activations."""
    values, z, z_exponents, width = block.values, block.z, block.z_exponents, block.width
    kept = min(len(values), 2)
    for lane in range(block.size):
        saturated, dead, mean, member = 0.0, 0.0, 0.0, block.begin + lane
        power = clipped_power(z_exponents[0, lane])
        for unit in range(width):
            of_unit = z[0, 0, unit] if block.across else z[0, unit, lane]
            saturated += 1.0 if abs(of_unit * power) > SATURATED_Z else 0.0
            dead += 1.0 if of_unit <= 0.0 else 0.0
            mean += values[0, 0, unit] if block.across else values[0, unit, lane]
        saturates = job.nonlinearity == SIGMOID or job.nonlinearity == TANH
        job.saturated[row, member] = saturated / width if saturates else 0.0
        job.dead[row, member] = dead / width if job.nonlinearity == RELU else 0.0
        store_number(job.mean_activation, row, member, mean / width, block.exponents[0, lane])
    block.shift[:] = 0
    for v in range(kept):
        common_exponent(z, v, z_exponents, block)
    for lane in range(block.size):
        squares = sum_products(z[0], z[0], block, lane)
        store_number(job.length, row, block.begin + lane, squares / width, 2 * z_exponents[0, lane])
        if kept == 2:
            others = sum_products(z[1], z[1], block, lane)
            product = sum_products(z[0], z[1], block, lane)
            job.correlation[row, block.begin + lane] = product / math.sqrt(squares * others)


@njit
def forward_layer(job, weight, bias, layer, row, tape, block):
    """One layer of a block forward; `row` is that of its records or -1, and the tape's first one is its own."""
    values, products, biases, arguments = block.values, block.products, block.biases, block.arguments
    shift, common, exponents, width = block.shift, block.common, block.exponents, block.width
    factor, bias_factor, argument_factor = block.factor, block.bias_factor, block.argument_factor
    (weight_law, weight_exponent), (bias_law, bias_exponent) = weight, bias
    number = np.uint64(layer)
    if row >= 0:
        record_norms(job.input_norm, row, block)
    multiply_layer(weight_law, number, job.seed, block, False)
    if bias_law[0] == CONSTANT:
        biases[:] = bias_law[1]
    else:
        draw_biases(bias_law, number, job.seed, block)
    homogeneous = job.nonlinearity != SIGMOID and job.nonlinearity != TANH
    rows, lanes = (1, np.uintp(width)) if block.across else (width, np.uintp(values.shape[2]))
    for v in range(len(values)):
        vector, kept = np.uintp(v), min(v, 1)
        for lane in range(len(common)):
            of_products = exponents[v, lane] + weight_exponent
            common[lane] = max(of_products, bias_exponent)
            factor[lane] = clipped_power(of_products - common[lane])
            bias_factor[lane] = clipped_power(bias_exponent - common[lane])
            argument_factor[lane] = 1.0 if homogeneous else clipped_power(common[lane])
            block.z_exponents[kept, lane] = common[lane]
            is_linear = homogeneous or (job.nonlinearity == TANH and common[lane] < LINEAR_EXPONENT)
            exponents[v, lane] = common[lane] if is_linear else 0
        z = block.z[kept]
        for at in range(rows):
            unit = np.uintp(at)
            preactivation_row(products, vector, unit, lanes, biases, factor, bias_factor, argument_factor, z, arguments)
            activate_row(job.nonlinearity, z, arguments, unit, lanes, common, values, vector, shift)
        if v == 0 and len(tape):
            for lane in range(block.size):
                for unit in range(width):
                    z_of_unit = arguments[0, unit] if block.across else arguments[unit, lane]
                    tape[0, block.begin + lane - block.start, unit] = z_of_unit
        common_exponent(values, v, exponents, block)
    if row >= 0:
        record_layer(job, row, block)


@njit_row
def multiply_row(values, vector, row, lanes, slope):
    """Put delta of one row in place of the adjoint."""
    for lane in range(lanes):
        values[vector, row, lane] *= slope[row, lane]


@njit
def backward_layer(job, weight, layer, row, tape, block):
    """One layer of a block backward."""
    values, slope, shift, width = block.values, block.arguments, block.shift, block.width
    weight_law, weight_exponent = weight
    rows, lanes = (1, np.uintp(width)) if block.across else (width, np.uintp(values.shape[2]))
    for lane in range(block.size):
        for unit in range(width):
            at, of = (0, unit) if block.across else (unit, lane)
            slope[at, of] = tape[0, block.begin + lane - block.start, unit]
    for at in range(rows):
        slope_row(job.nonlinearity, slope, np.uintp(at), lanes, shift)
    for v in range(len(values)):  # delta_l = a_l phi'(z_l)
        for at in range(rows):
            multiply_row(values, np.uintp(v), np.uintp(at), lanes, slope)
        common_exponent(values, v, block.exponents, block)
    if row >= 0:
        record_norms(job.delta_norm, row, block)
    multiply_layer(weight_law, np.uint64(layer), job.seed, block, True)  # a_{l-1} = W_l^T delta_l
    values[:] = block.products
    shift[:] = 0
    for v in range(len(values)):
        block.exponents[v] += weight_exponent
        common_exponent(values, v, block.exponents, block)
    if row >= 0:
        record_norms(job.adjoint_norm, row, block)


@njit
def new_block(begin, start, count, vectors, width, across):
    """Block with room for its numbers, which are 0."""
    padded = (width + 2 * LANES_OF_SUM - 1) // (2 * LANES_OF_SUM) * (2 * LANES_OF_SUM)
    rows, lanes = (1, padded) if across else ((width + 1) // 2 * 2, count)
    draws = max(padded, LANES) if across else count
    block = Block(
        begin=begin,
        start=start,
        size=count,
        width=width,
        across=across,
        values=np.zeros((vectors, rows, lanes)),
        products=np.zeros((vectors, rows, lanes)),
        evens=np.zeros((vectors, padded)),
        odds=np.zeros((vectors, padded)),
        biases=np.zeros((rows, lanes)),
        arguments=np.zeros((rows, lanes)),
        shift=np.zeros((rows, lanes), dtype=np.int64),
        top=np.zeros(lanes, dtype=np.int64),
        link=np.zeros(draws, dtype=np.uint64),
        member=np.zeros(draws, dtype=np.uint64),
        first=np.zeros(draws),
        second=np.zeros(draws),
        sums=np.zeros((2, LANES_OF_SUM)),
        z=np.zeros((2, rows, lanes)),
        z_exponents=np.zeros((2, lanes), dtype=np.int64),
        exponents=np.full((vectors, lanes), ZERO_EXPONENT),
        common=np.zeros(lanes, dtype=np.int64),
        factor=np.zeros(lanes),
        bias_factor=np.zeros(lanes),
        argument_factor=np.zeros(lanes),
    )
    for lane in range(draws):
        block.member[lane] = begin if across else begin + lane
    return block


@njit
def load_vectors(state, block):
    """Take the vectors of the block's members."""
    for v in range(len(block.values)):
        for lane in range(block.size):
            block.exponents[v, lane] = state.exponent[block.begin + lane, v]
            for unit in range(block.width):
                row, at = (0, unit) if block.across else (unit, lane)
                block.values[v, row, at] = state.value[block.begin + lane, v, unit]
        if block.across:
            block.exponents[v] = state.exponent[block.begin, v]


@njit
def store_vectors(state, block):
    """Give the vectors back."""
    for v in range(len(block.values)):
        for lane in range(block.size):
            state.exponent[block.begin + lane, v] = block.exponents[v, lane]
            for unit in range(block.width):
                row, at = (0, unit) if block.across else (unit, lane)
                state.value[block.begin + lane, v, unit] = block.values[v, row, at]


@njit
def run_layers(job, state, tape, first, last, start, stop, backward):
    """All blocks of a slice."""
    width = state.value.shape[2]
    across = width >= WIDE_LAYER or stop - start < width or job.weight_law[0] == ORTHOGONAL
    together = 1 if across else LANES
    weight, bias = scaled_law(job.weight_law), scaled_law(job.bias_law)
    for begin in range(start, stop, together):
        block = new_block(begin, start, min(stop - begin, together), state.value.shape[1], width, across)
        load_vectors(state, block)
        for step in range(last - first):
            layer = last - 1 - step if backward else first + step
            row = np.searchsorted(job.recorded_layers, layer)
            if row == len(job.recorded_layers) or job.recorded_layers[row] != layer:
                row = -1
            kept = tape[min(layer - first, len(tape)) :]
            if backward:
                backward_layer(job, weight, layer, row, kept, block)
            else:
                forward_layer(job, weight, bias, layer, row, kept, block)
        store_vectors(state, block)


def layers_forward(
    job: LayersJob, state: ScaledVectors, tape: NDArray[np.float64], first: int, last: int, start: int, stop: int
) -> None:
    """Drawn dense layers, forward."""
    seed: Any = np.uint64(job.seed)
    run_layers(job._replace(seed=seed), state, tape, first, last, start, stop, False)


def layers_backward(
    job: LayersJob, adjoint: ScaledVectors, tape: NDArray[np.float64], first: int, last: int, start: int, stop: int
) -> None:
    """Drawn dense layers, backward."""
    seed: Any = np.uint64(job.seed)
    run_layers(job._replace(seed=seed), adjoint, tape, first, last, start, stop, True)
