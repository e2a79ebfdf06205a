"""Gradients of given chains: see csrc/backprop.h."""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgrad.kernels.constants import COPIED_SEGMENT, IN_PLACE_SEGMENT, SEGMENTED_DEPTH_MIN, SEGMENTED_ENSEMBLE_MAX
from fastgrad.kernels.jit.compiler import LINE, bits_of, njit, njit_row, prefetch, read_only, stream_row
from fastgrad.kernels.jit.forward import (
    LARGEST,
    PREFETCH_DISTANCE,
    UINT,
    advance_rows,
    copy_state,
    new_states,
    prefetch_row,
    set_state,
)
from fastgrad.kernels.jit.nonlinearity import CHAIN_NONLINEARITIES, is_outside
from fastgrad.kernels.jit.numbers import EXPONENT_MIN, renormalize, renormalize_in_range, to_scaled

if TYPE_CHECKING:
    from fastgrad.kernels.contract import BackpropJob


FIRST = UINT(0)
BLOCK = 128  # chains, or segments of one chain, side by side: loops over them become vector instructions


@njit_row
def forward_row(phi, weight, bias, link, begin, lanes, activation, z, o, derivative, copy, exponent, extended, at):
    """One link of every lane forward, keeping o_l, phi'(z_l) and w_l, and of extended links the exponent too.

    Returns whether every weight and bias was finite: values that are not are never in range, and only the general path
    asks.
    """
    outside = 0
    for lane in range(lanes):
        w = weight[link, begin + lane]
        z[lane] = w * activation[lane] + bias[link, begin + lane]
        outside |= is_outside(phi, z[lane], w)
        o[at, lane], derivative[at, lane] = phi.in_range(z[lane])  # as if all were in range
        copy[at, lane] = w
        activation[lane] = o[at, lane]
    extended[at] = outside != 0
    if outside == 0:
        return True
    finite = True
    for lane in range(lanes):
        finite &= abs(weight[link, begin + lane]) <= LARGEST and abs(bias[link, begin + lane]) <= LARGEST
        activation[lane], o[at, lane], _, derivative[at, lane], derivative_exponent = phi.extended(z[lane])
        exponent[at, lane] = phi.pack_exponents(z[lane], derivative_exponent)
    return finite


@njit_row
def backward_in_range(
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
    """One link in range of every lane back, into row 0; (mantissa, exponent) is the adjoint."""
    for lane in range(lanes):
        delta, delta_exponent = renormalize_in_range(mantissa[lane] * derivative[at, lane], exponent[lane])
        grad, grad_exponent = renormalize_in_range(delta * o[before, lane], delta_exponent)
        mantissa[lane] = delta * copy[at, lane]
        exponent[lane] = delta_exponent
        grad_bias[FIRST, lane] = delta
        grad_bias_exponent[FIRST, lane] = delta_exponent
        grad_weight[FIRST, lane] = grad
        grad_weight_exponent[FIRST, lane] = grad_exponent


@njit_row
def backward_extended(phi, out, link, begin, lanes, adjoint, tape, at, before, origin):
    """One link of every lane back by the general formula; returns whether the next one needs it too."""
    (grad_weight, grad_weight_exponent, grad_bias, grad_bias_exponent), (mantissa, exponent) = out, adjoint
    (tape_o, derivative, copy, tape_exponent, extended) = tape
    is_first, input_mantissa, input_exponent = origin
    needs_extended = False  # some adjoint is zero, or near the smallest exponent
    for lane in range(lanes):
        derivative_exponent = phi.derivative_exponent(tape_exponent[at, lane]) if extended[at] else 0
        if is_first:
            o, o_exponent = input_mantissa[lane], input_exponent[lane]
        else:
            o = tape_o[before, lane]
            o_exponent = phi.activation_exponent(tape_exponent[before, lane]) if extended[before] else 0
        scaled, scaled_exponent = renormalize(mantissa[lane], exponent[lane])
        factor, factor_exponent = to_scaled(copy[at, lane])
        delta, delta_exponent = renormalize(scaled * derivative[at, lane], scaled_exponent + derivative_exponent)
        grad, grad_exponent = renormalize(delta * o, delta_exponent + o_exponent)
        mantissa[lane], exponent[lane] = renormalize(delta * factor, delta_exponent + factor_exponent)
        needs_extended |= mantissa[lane] == 0.0 or exponent[lane] < EXPONENT_MIN // 2
        grad_bias[link, begin + lane] = delta
        grad_bias_exponent[link, begin + lane] = delta_exponent
        grad_weight[link, begin + lane] = grad
        grad_weight_exponent[link, begin + lane] = grad_exponent
    return needs_extended


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
        np.empty((rows, BLOCK)),
        np.empty((rows, BLOCK), dtype=np.int64),
        np.empty((rows, BLOCK)),
        np.empty((rows, BLOCK), dtype=np.int64),
    )


@njit
def new_row_buffer(out):
    """Room for a row of gradients, and whether it may go past the cache."""
    return (out[0].shape[1] % LINE == 0 and all_begin_lines(out),) + new_rows(1)  # noqa: RUF005  (Numba has no *)


@njit_row
def run_taped(phi, tape, row_buffer, mirror, input_slot, ahead, back):
    """Take one segment of links forward and, at the same time, the one before it back.

    A segment is its first link, how many, its first member and how many; its links, as weight and bias, or as the four
    arrays of gradients; and what its lanes carry. Rows of `tape` that the one leaves the other takes, in opposite order
    if `mirror` is set. With `input_slot` = 1 row 0 holds the input as if it were an activation; the links follow it.
    Returns whether every weight and bias was finite.
    """
    o, derivative, copy, exponents, extended = tape
    first, count, begin, lanes, (weight, bias), (activation, z) = ahead
    back_first, back_count, back_begin, back_lanes, out, adjoint, (input_mantissa, input_exponent) = back
    grad_weight, grad_weight_exponent, grad_bias, grad_bias_exponent = out
    mantissa, exponent = adjoint
    rows, depth = len(extended), weight.shape[0]
    streams, row_weight, row_weight_exponent, row_bias, row_bias_exponent = row_buffer
    streams = streams and back_begin % LINE == 0 and back_lanes % LINE == 0
    needs_extended = False
    for lane in range(back_lanes):
        needs_extended |= mantissa[lane] == 0.0 or exponent[lane] < EXPONENT_MIN // 2
    finite = True
    for step in range(max(count, back_count)):
        if step < back_count:
            i = back_count - 1 - step
            at = input_slot + i if mirror else rows - 1 - i
            before = max(at - 1, 0) if mirror else min(at + 1, rows - 1)
            link, column, n = UINT(back_first + i), UINT(back_begin), UINT(back_lanes)
            if i + input_slot > 0 and not (extended[at] or extended[before] or needs_extended):
                backward_in_range(
                    row_weight,
                    row_weight_exponent,
                    row_bias,
                    row_bias_exponent,
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
                    stream_row(grad_weight, link, column, row_weight, UINT(0), n)
                    stream_row(grad_weight_exponent, link, column, row_weight_exponent, UINT(0), n)
                    stream_row(grad_bias, link, column, row_bias, UINT(0), n)
                    stream_row(grad_bias_exponent, link, column, row_bias_exponent, UINT(0), n)
                else:
                    for lane in range(n):
                        grad_weight[link, column + lane] = row_weight[0, lane]
                        grad_weight_exponent[link, column + lane] = row_weight_exponent[0, lane]
                        grad_bias[link, column + lane] = row_bias[0, lane]
                        grad_bias_exponent[link, column + lane] = row_bias_exponent[0, lane]
            else:
                origin = i + input_slot == 0, input_mantissa, input_exponent
                needs_extended = backward_extended(
                    phi, out, link, column, n, adjoint, tape, UINT(at), UINT(before), origin
                )
        # Backward first: the forward pass then overwrites the row that the backward pass has just read.
        if step < count:
            link, at = first + step, rows - 1 - step if mirror else input_slot + step
            prefetch_row(weight, bias, min(link + PREFETCH_DISTANCE, depth - 1), begin, begin + lanes)
            finite &= forward_row(
                phi,
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
                exponents,
                extended,
                UINT(at),
            )
    return finite


@njit
def new_tape(rows):
    """Memory for what the way back needs of a link: o_l, phi'(z_l), w_l, their exponents, and if it is extended."""
    return (
        np.empty((rows, BLOCK)),
        np.empty((rows, BLOCK)),
        np.empty((rows, BLOCK)),
        np.empty((rows, BLOCK), dtype=np.int64),
        np.empty(rows, dtype=np.bool_),
    )


@njit
def backprop_blocks(phi, given, x, cotangent, output, out, grad_x, start, stop):
    """Chains where they lie, block by block: see csrc/backprop.h."""
    depth = given[0].shape[0]
    segments = (depth + IN_PLACE_SEGMENT - 1) // IN_PLACE_SEGMENT
    tape, row_buffer = new_tape(min(depth, IN_PLACE_SEGMENT)), new_row_buffer(out)
    starts = np.empty((segments, BLOCK)), np.empty((segments, BLOCK)), np.empty((segments, BLOCK), dtype=np.int64)
    states, carried = new_states(BLOCK), (np.empty(BLOCK), np.empty(BLOCK))
    adjoint = np.empty(BLOCK), np.empty(BLOCK, dtype=np.int64)
    origin = np.empty(BLOCK), np.empty(BLOCK, dtype=np.int64)
    product = np.empty(BLOCK), np.empty(BLOCK, dtype=np.int64)
    finite = True
    mirror = False
    back_first, back_count, back_begin, back_lanes = 0, 0, start, 0
    for begin in range(start, stop + BLOCK, BLOCK):  # once more at the end, for the last one's way back
        lanes = max(min(BLOCK, stop - begin), 0)
        for lane in range(lanes):
            set_state(states, lane, x[begin + lane])
        for s in range(segments):
            starts[0][s], starts[1][s], starts[2][s] = states
            if lanes and s + 1 < segments:
                advance_rows(
                    phi,
                    given,
                    s * IN_PLACE_SEGMENT,
                    (s + 1) * IN_PLACE_SEGMENT,
                    begin,
                    lanes,
                    carried[1],
                    states,
                    product,
                )
        for s in range(segments - 1, -1, -1):
            first = s * IN_PLACE_SEGMENT
            count = min(depth - first, IN_PLACE_SEGMENT) if lanes else 0
            carried[0][:] = starts[0][s]
            ahead = first, count, begin, lanes, given, carried
            finite &= run_taped(
                phi,
                tape,
                row_buffer,
                mirror,
                0,
                ahead,
                (back_first, back_count, back_begin, back_lanes, out, adjoint, origin),
            )
            if s == segments - 1:
                for lane in range(back_lanes):
                    member = back_begin + lane
                    grad_x[0][member], grad_x[1][member] = renormalize(adjoint[0][lane], adjoint[1][lane])
                for lane in range(lanes):
                    output[begin + lane] = carried[0][lane]
                    adjoint[0][lane], adjoint[1][lane] = to_scaled(cotangent[begin + lane])
            if lanes == 0:
                break
            origin[0][:], origin[1][:] = starts[1][s], starts[2][s]
            back_first, back_count, back_begin, back_lanes = first, count, begin, lanes
            mirror = not mirror
    return finite


@njit_row
def gather(tile, lanes, array, member, first, lane_stride, ahead):
    """Copy links first to first + len(tile) - 1 of a chain into lane 0, those `lane_stride` links further into lane 1.

    Cache line by cache line, as in `scatter`: the squares of a transposition fit the first-level cache. What lies
    `ahead` comes next.
    """
    column, n, line = UINT(member), UINT(tile.shape[0]), UINT(LINE)
    for lane_0 in range(UINT(0), UINT(lanes), line):
        for t_0 in range(UINT(0), n, line):
            for lane in range(lane_0, min(lane_0 + line, UINT(lanes))):
                at = UINT(first) + lane * UINT(lane_stride)
                prefetch(array, min(max(np.int64(at + t_0) + ahead, 0), array.shape[0] - 1), member)
                for t in range(t_0, min(t_0 + line, n)):
                    tile[t, lane] = array[at + t, column]


@njit_row
def scatter(array, member, first, lane_stride, tile, lanes, line_of_lanes, streams):
    """Copy a tile back into a chain, if `streams` is set past the cache."""
    column, n, line = UINT(member), UINT(tile.shape[0]), UINT(LINE)
    for lane_0 in range(UINT(0), UINT(lanes), line):
        end = min(lane_0 + line, UINT(lanes))
        for t_0 in range(UINT(0), n, line):
            for lane in range(lane_0, end):
                for t in range(t_0, min(t_0 + line, n)):
                    line_of_lanes[lane - lane_0, t] = tile[t, lane]
        for lane in range(lane_0, end):
            at = UINT(first) + lane * UINT(lane_stride)
            if streams:
                stream_row(array, at, column, line_of_lanes, lane - lane_0, n)
            else:
                for t in range(n):
                    array[at + t, column] = line_of_lanes[lane - lane_0, t]


@njit
def run_forward(phi, given, member, first, lane_stride, runs, length, ends, starts, products):
    """Run segments of one deep chain forward, several runs side by side: see csrc/backprop.h."""
    segments = len(products[0])
    tile = np.empty((COPIED_SEGMENT, runs)), np.empty((COPIED_SEGMENT, runs))
    z, product = np.empty(runs), (np.empty(runs), np.empty(runs, dtype=np.int64))
    for s in range(first, first + length):
        running = runs if s + (runs - 1) * lane_stride < segments else runs - 1
        gather(tile[0], running, given[0], member, s * COPIED_SEGMENT, lane_stride * COPIED_SEGMENT, COPIED_SEGMENT)
        gather(tile[1], running, given[1], member, s * COPIED_SEGMENT, lane_stride * COPIED_SEGMENT, COPIED_SEGMENT)
        for i in range(running):
            copy_state(starts, s + i * lane_stride, ends, i)
        advance_rows(phi, tile, 0, COPIED_SEGMENT, 0, running, z, ends, product)
        for i in range(running):
            products[0][s + i * lane_stride], products[1][s + i * lane_stride] = product[0][i], product[1][i]


@njit
def run_page(phi, given, out, member, first, lanes, count, tape, row_buffer, tiles, starts, adjoint, carried):
    """Segments of one deep chain, `first` and those after it, a lane each: forward, and back."""
    tile, tile_out, (floats, integers), may_stream = tiles
    streams = may_stream and count == COPIED_SEGMENT
    at = first * COPIED_SEGMENT
    gather(tile[0][:count], lanes, given[0], member, at, COPIED_SEGMENT, -BLOCK * COPIED_SEGMENT)
    gather(tile[1][:count], lanes, given[1], member, at, COPIED_SEGMENT, -BLOCK * COPIED_SEGMENT)
    for lane in range(lanes):
        carried[0][lane] = starts[0][first + lane]
    origin = starts[1][first:], starts[2][first:]
    finite = True
    for back in (0, 1):  # one call, which is compiled once
        ahead = 0, (1 - back) * count, 0, (1 - back) * lanes, tile, carried
        finite &= run_taped(
            phi, tape, row_buffer, back == 1, 0, ahead, (0, back * count, 0, back * lanes, tile_out, adjoint, origin)
        )
    scatter(out[0], member, at, COPIED_SEGMENT, tile_out[0][:count], lanes, floats, streams)
    scatter(out[1], member, at, COPIED_SEGMENT, tile_out[1][:count], lanes, integers, streams)
    scatter(out[2], member, at, COPIED_SEGMENT, tile_out[2][:count], lanes, floats, streams)
    scatter(out[3], member, at, COPIED_SEGMENT, tile_out[3][:count], lanes, integers, streams)
    return finite


@njit
def backprop_deep(phi, given, x, cotangent, output, out, grad_x, member):
    """One deep chain, in segments whose adjoints are defined one by one: see csrc/backprop.h."""
    depth = given[0].shape[0]
    segments, rest = depth // COPIED_SEGMENT, depth % COPIED_SEGMENT
    length = (segments + BLOCK - 1) // BLOCK
    runs = (segments + length - 1) // length
    starts, guesses, ends = new_states(segments + 1), new_states(runs), new_states(runs)
    products = np.empty(segments), np.empty(segments, dtype=np.int64)

    # Forward: each run but the first is warmed up over the segment before it.
    if runs > 1:
        warm = new_states(runs - 1)
        for i in range(runs - 1):
            set_state(warm, i, phi.REST)
        nowhere = new_states(segments)
        unused = np.empty(segments), np.empty(segments, dtype=np.int64)
        run_forward(phi, given, member, length - 1, length, runs - 1, 1, warm, nowhere, unused)
        for i in range(1, runs):
            copy_state(guesses, i, warm, i - 1)
    set_state(guesses, 0, x[member])
    for i in range(runs):
        copy_state(ends, i, guesses, i)
    run_forward(phi, given, member, 0, length, runs, length, ends, starts, products)
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
            run_forward(phi, given, member, i * length, 0, 1, run, alone, starts, products)
            copy_state(ends, i, alone, 0)
    copy_state(starts, segments, ends, runs - 1)

    # Back: the links that fill no segment, and then a lane for each segment.
    tape = new_tape(COPIED_SEGMENT)
    tile_out = new_rows(COPIED_SEGMENT)
    tiles = (
        (np.empty((COPIED_SEGMENT, BLOCK)), np.empty((COPIED_SEGMENT, BLOCK))),
        tile_out,
        (np.empty((LINE, COPIED_SEGMENT)), np.empty((LINE, COPIED_SEGMENT), dtype=np.int64)),
        given[0].shape[1] == 1 and all_begin_lines(out),
    )
    carried = np.empty(BLOCK), np.empty(BLOCK)
    row_buffer = (False,) + new_rows(1)  # noqa: RUF005
    adjoints = np.empty(segments + 1), np.empty(segments + 1, dtype=np.int64)
    mantissa, exponent = to_scaled(cotangent[member])
    adjoints[0][segments], adjoints[1][segments] = mantissa, exponent
    output[member] = ends[0][runs - 1]
    finite = True
    if rest > 0:
        last = adjoints[0][segments:], adjoints[1][segments:]
        finite &= run_page(phi, given, out, member, segments, 1, rest, tape, row_buffer, tiles, starts, last, carried)
        output[member] = carried[0][0]
        mantissa, exponent = renormalize(last[0][0], last[1][0])
    for s in range(segments - 1, -1, -1):
        adjoints[0][s], adjoints[1][s] = mantissa, exponent
        mantissa, exponent = renormalize(mantissa * products[0][s], exponent + products[1][s])
    grad_x[0][member], grad_x[1][member] = mantissa, exponent
    for first in range((segments - 1) // BLOCK * BLOCK, -1, -BLOCK):
        lanes = min(segments - first, BLOCK)
        page = adjoints[0][first : first + lanes], adjoints[1][first : first + lanes]
        finite &= run_page(
            phi, given, out, member, first, lanes, COPIED_SEGMENT, tape, row_buffer, tiles, starts, page, carried
        )
    return finite


def backprop(job: BackpropJob, start: int, stop: int) -> bool:
    """Gradients of given chains: an ensemble block by block, a few deep chains cut in depth."""
    phi = CHAIN_NONLINEARITIES[job.nonlinearity]
    # Read-only or not is part of a type for Numba, which compiles for each.
    given = read_only(job.weight), read_only(job.bias)
    ends = read_only(job.x), read_only(job.cotangent), job.output
    out, grad_x = (*job.grad_weight, *job.grad_bias), tuple(job.grad_x)
    depth, ensemble = job.weight.shape
    if ensemble > SEGMENTED_ENSEMBLE_MAX or depth < SEGMENTED_DEPTH_MIN:
        return bool(backprop_blocks(phi, given, *ends, out, grad_x, start, stop))
    return all(backprop_deep(phi, given, *ends, out, grad_x, member) for member in range(start, stop))
