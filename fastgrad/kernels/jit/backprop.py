"""Gradients of given chains: see csrc/backprop.h."""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.kernels.constants import (
    ADJOINTS,
    BACKWARD,
    COPIED_SEGMENT,
    FORWARD,
    GUESS,
    IN_PLACE_SEGMENT,
    SEGMENTED_DEPTH_MIN,
    SEGMENTED_ENSEMBLE_MAX,
)
from fastgrad.kernels.contract import ScaledArrays, Segments
from fastgrad.kernels.jit.compiler import LINE, bits_of, njit, njit_row, prefetch, read_only, stream_row
from fastgrad.kernels.jit.forward import (
    LARGEST,
    PREFETCH_DISTANCE,
    UINT,
    ForwardState,
    advance_rows,
    copy_state,
    new_scaled,
    new_states,
    prefetch_row,
    set_state,
)
from fastgrad.kernels.jit.nonlinearity import CHAIN_NONLINEARITIES, is_outside
from fastgrad.kernels.jit.numbers import EXPONENT_MIN, renormalize, renormalize_in_range, to_scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.kernels.contract import BackpropJob, Floats, Ints


FIRST = UINT(0)
BLOCK = 128  # chains, or segments of one chain, side by side: loops over them become vector instructions


class Tape(NamedTuple):
    """Values of a segment's links that the way back needs, a row for each link."""

    activation: Floats  #          (rows, lanes)  o_l
    derivative: Floats  #          (rows, lanes)  phi'(z_l)
    weight: Floats  #              (rows, lanes)  w_l
    exponent: Ints  #              (rows, lanes)  of o_l and phi'(z_l), packed; only of extended links
    extended: NDArray[np.bool_]  # (rows,)        whether a link was run in extended range


class Gradients(NamedTuple):
    """Gradients of links."""

    weight: ScaledArrays
    bias: ScaledArrays


class RowBuffer(NamedTuple):
    """A row of gradients on its way to memory."""

    streams: bool  # whether it may go past the cache
    weight: ScaledArrays
    bias: ScaledArrays


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
    (grad_weight, grad_weight_exponent), (grad_bias, grad_bias_exponent) = out
    mantissa, exponent = adjoint
    extended = tape.extended
    is_first, (input_mantissa, input_exponent) = origin
    needs_extended = False  # some adjoint is zero, or near the smallest exponent
    for lane in range(lanes):
        derivative_exponent = phi.derivative_exponent(tape.exponent[at, lane]) if extended[at] else 0
        if is_first:
            o, o_exponent = input_mantissa[lane], input_exponent[lane]
        else:
            o = tape.activation[before, lane]
            o_exponent = phi.activation_exponent(tape.exponent[before, lane]) if extended[before] else 0
        scaled, scaled_exponent = renormalize(mantissa[lane], exponent[lane])
        factor, factor_exponent = to_scaled(tape.weight[at, lane])
        delta, delta_exponent = renormalize(scaled * tape.derivative[at, lane], scaled_exponent + derivative_exponent)
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
    (a, b), (c, d) = out
    return begins_line(a) and begins_line(b) and begins_line(c) and begins_line(d)


@njit
def new_gradients(rows):
    """Room for gradients of a block's links."""
    return Gradients(new_scaled((rows, BLOCK)), new_scaled((rows, BLOCK)))


@njit
def new_row_buffer(out):
    """Room for a row of gradients, and whether it may go past the cache."""
    streams = out.weight.mantissa.shape[1] % LINE == 0 and all_begin_lines(out)
    return RowBuffer(streams, new_scaled((1, BLOCK)), new_scaled((1, BLOCK)))


@njit_row
def run_taped(phi, tape, row_buffer, mirror, input_slot, ahead, back):
    """Take one segment of links forward and, at the same time, the one before it back.

    A segment is its first link, how many, its first member and how many; its links, as weight and bias, or as their
    gradients; and what its lanes carry. Rows of `tape` that the one leaves the other takes, in opposite order
    if `mirror` is set. With `input_slot` = 1 row 0 holds the input as if it were an activation; the links follow it.
    Returns whether every weight and bias was finite.
    """
    o, derivative, copy, exponents, extended = tape
    first, count, begin, lanes, (weight, bias), (activation, z) = ahead
    back_first, back_count, back_begin, back_lanes, out, adjoint, chain_input = back
    (grad_weight, grad_weight_exponent), (grad_bias, grad_bias_exponent) = out
    mantissa, exponent = adjoint
    rows, depth = len(extended), weight.shape[0]
    streams, (row_weight, row_weight_exponent), (row_bias, row_bias_exponent) = row_buffer
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
                origin = i + input_slot == 0, chain_input
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
    """Room for the links of a segment."""
    return Tape(
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
    starts = new_states((segments, BLOCK))
    states, carried = new_states(BLOCK), (np.empty(BLOCK), np.empty(BLOCK))
    adjoint, origin, product = new_scaled(BLOCK), new_scaled(BLOCK), new_scaled(BLOCK)
    finite = True
    mirror = False
    back_first, back_count, back_begin, back_lanes = 0, 0, start, 0
    for begin in range(start, stop + BLOCK, BLOCK):  # once more at the end, for the last one's way back
        lanes = max(min(BLOCK, stop - begin), 0)
        for lane in range(lanes):
            set_state(states, lane, x[begin + lane])
        for s in range(segments):
            starts.activation[s] = states.activation
            starts.scaled.mantissa[s], starts.scaled.exponent[s] = states.scaled
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
            carried[0][:] = starts.activation[s]
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
                    grad_x.mantissa[member], grad_x.exponent[member] = renormalize(
                        adjoint.mantissa[lane], adjoint.exponent[lane]
                    )
                for lane in range(lanes):
                    output[begin + lane] = carried[0][lane]
                    adjoint.mantissa[lane], adjoint.exponent[lane] = to_scaled(cotangent[begin + lane])
            if lanes == 0:
                break
            origin.mantissa[:], origin.exponent[:] = starts.scaled.mantissa[s], starts.scaled.exponent[s]
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
def run_forward(phi, given, member, first, lane_stride, runs, length, end, ends, starts, products):
    """Run segments of one deep chain forward, several runs side by side: see csrc/backprop.h."""
    tile = np.empty((COPIED_SEGMENT, runs)), np.empty((COPIED_SEGMENT, runs))
    z, product = np.empty(runs), new_scaled(runs)
    for s in range(first, first + length):
        running = runs if s + (runs - 1) * lane_stride < end else runs - 1
        gather(tile[0], running, given[0], member, s * COPIED_SEGMENT, lane_stride * COPIED_SEGMENT, COPIED_SEGMENT)
        gather(tile[1], running, given[1], member, s * COPIED_SEGMENT, lane_stride * COPIED_SEGMENT, COPIED_SEGMENT)
        for i in range(running):
            copy_state(starts, s + i * lane_stride, ends, i)
        advance_rows(phi, tile, 0, COPIED_SEGMENT, 0, running, z, ends, product)
        for i in range(running):
            at = s + i * lane_stride
            products.mantissa[at], products.exponent[at] = product.mantissa[i], product.exponent[i]


@njit
def run_page(phi, given, out, member, first, row, lanes, count, tape, row_buffer, tiles, starts, adjoint, carried):
    """Segments of one deep chain, `first` and those after it, a lane each: forward, and back.

    The state of the first is that of `row` in `starts`.
    """
    tile, tile_out, (floats, integers), may_stream = tiles
    streams = may_stream and count == COPIED_SEGMENT
    at = first * COPIED_SEGMENT
    gather(tile[0][:count], lanes, given[0], member, at, COPIED_SEGMENT, -BLOCK * COPIED_SEGMENT)
    gather(tile[1][:count], lanes, given[1], member, at, COPIED_SEGMENT, -BLOCK * COPIED_SEGMENT)
    for lane in range(lanes):
        carried[0][lane] = starts.activation[row + lane]
    origin = ScaledArrays(starts.scaled.mantissa[row:], starts.scaled.exponent[row:])
    finite = True
    for back in (0, 1):  # one call, which is compiled once
        ahead = 0, (1 - back) * count, 0, (1 - back) * lanes, tile, carried
        finite &= run_taped(
            phi, tape, row_buffer, back == 1, 0, ahead, (0, back * count, 0, back * lanes, tile_out, adjoint, origin)
        )
    for to, made in ((out.weight, tile_out.weight), (out.bias, tile_out.bias)):
        scatter(to.mantissa, member, at, COPIED_SEGMENT, made.mantissa[:count], lanes, floats, streams)
        scatter(to.exponent, member, at, COPIED_SEGMENT, made.exponent[:count], lanes, integers, streams)
    return finite


@njit
def guess_states(phi, given, member, first, lane_stride, guesses):
    """Burn lanes in over the segment before segment first + i * lane_stride each, from rest."""
    count = len(guesses.activation)
    for i in range(count):
        set_state(guesses, i, phi.REST)
    nowhere, unused = new_states(first + count * lane_stride), new_scaled(first + count * lane_stride)
    end = first + count * lane_stride
    run_forward(phi, given, member, first - 1, lane_stride, count, 1, end, guesses, nowhere, unused)


@njit
def forward_segments(phi, given, segments, first, last, member):
    """Run segments forward, from a state that is known: each lane but the first is burnt in."""
    length = (last - first + BLOCK - 1) // BLOCK
    runs = (last - first + length - 1) // length
    starts, products = ForwardState(segments.activation, segments.scaled), segments.product
    guesses, ends = new_states(runs), new_states(runs)
    if runs > 1:
        warm = new_states(runs - 1)
        guess_states(phi, given, member, first + length, length, warm)
        for i in range(1, runs):
            copy_state(guesses, i, warm, i - 1)
    copy_state(guesses, 0, starts, first)
    for i in range(runs):
        copy_state(ends, i, guesses, i)
    run_forward(phi, given, member, first, length, runs, length, last, ends, starts, products)
    for i in range(1, runs):
        same = (
            bits_of(guesses.activation[i]) == bits_of(ends.activation[i - 1])
            and guesses.scaled.mantissa[i] == ends.scaled.mantissa[i - 1]
            and guesses.scaled.exponent[i] == ends.scaled.exponent[i - 1]
        )
        if not same:
            begin = first + i * length
            alone = new_states(1)
            copy_state(alone, 0, ends, i - 1)
            run_forward(phi, given, member, begin, 0, 1, min(length, last - begin), last, alone, starts, products)
            copy_state(ends, i, alone, 0)
    copy_state(ForwardState(segments.end_activation, segments.end_scaled), 0, ends, runs - 1)


@njit
def new_workspace(given, out):
    """Room for `run_page`: the tape, a row of gradients, tiles, and what lanes carry."""
    tiles = (
        (np.empty((COPIED_SEGMENT, BLOCK)), np.empty((COPIED_SEGMENT, BLOCK))),
        new_gradients(COPIED_SEGMENT),
        (np.empty((LINE, COPIED_SEGMENT)), np.empty((LINE, COPIED_SEGMENT), dtype=np.int64)),
        given[0].shape[1] == 1 and all_begin_lines(out),
    )
    row_buffer = RowBuffer(False, new_scaled((1, BLOCK)), new_scaled((1, BLOCK)))
    return new_tape(COPIED_SEGMENT), row_buffer, tiles, (np.empty(BLOCK), np.empty(BLOCK))


@njit
def define_adjoints(phi, given, cotangent, output, out, grad_x, segments, last, member):
    """Fill the adjoints at the ends of all segments, and the gradients of the links after them."""
    depth = given[0].shape[0]
    finite = True
    mantissa, exponent = to_scaled(cotangent[member])
    output[member] = segments.end_activation[0]
    if depth > last * COPIED_SEGMENT:
        tape, row_buffer, tiles, carried = new_workspace(given, out)
        begin, adjoint = ForwardState(segments.end_activation, segments.end_scaled), new_scaled(1)
        adjoint.mantissa[0], adjoint.exponent[0] = mantissa, exponent
        rest = depth - last * COPIED_SEGMENT
        finite &= run_page(phi, given, out, member, last, 0, 1, rest, tape, row_buffer, tiles, begin, adjoint, carried)
        output[member] = carried[0][0]
        mantissa, exponent = renormalize(adjoint.mantissa[0], adjoint.exponent[0])
    for s in range(last - 1, -1, -1):
        segments.adjoint.mantissa[s], segments.adjoint.exponent[s] = mantissa, exponent
        mantissa, exponent = renormalize(
            mantissa * segments.product.mantissa[s], exponent + segments.product.exponent[s]
        )
    grad_x.mantissa[member], grad_x.exponent[member] = mantissa, exponent
    return finite


@njit
def backward_segments(phi, given, out, segments, first, last, member):
    """Fill the gradients of segments, a lane for each."""
    tape, row_buffer, tiles, carried = new_workspace(given, out)
    starts, finite = ForwardState(segments.activation, segments.scaled), True
    for begin in range(first + (last - first - 1) // BLOCK * BLOCK, first - 1, -BLOCK):
        lanes = min(last - begin, BLOCK)
        of_page = slice(begin, begin + lanes)
        adjoint = ScaledArrays(segments.adjoint.mantissa[of_page], segments.adjoint.exponent[of_page])
        finite &= run_page(
            phi,
            given,
            out,
            member,
            begin,
            begin,
            lanes,
            COPIED_SEGMENT,
            tape,
            row_buffer,
            tiles,
            starts,
            adjoint,
            carried,
        )
    return finite


@njit
def run_stage(phi, given, cotangent, output, out, grad_x, segments, stage, first, last, member):
    """Run a stage of one deep chain: see the contract."""
    if stage == GUESS:
        guess = new_states(1)
        guess_states(phi, given, member, first, 1, guess)
        copy_state(ForwardState(segments.activation, segments.scaled), first, guess, 0)
        return True
    if stage == FORWARD:
        forward_segments(phi, given, segments, first, last, member)
        return True
    if stage == ADJOINTS:
        return define_adjoints(phi, given, cotangent, output, out, grad_x, segments, last, member)
    return backward_segments(phi, given, out, segments, first, last, member)


@njit
def backprop_deep(phi, given, x, cotangent, output, out, grad_x, member):
    """One deep chain, all stages."""
    count = given[0].shape[0] // COPIED_SEGMENT
    segments = Segments(
        np.empty(count), new_scaled(count), np.empty(1), new_scaled(1), new_scaled(count), new_scaled(count)
    )
    set_state(ForwardState(segments.activation, segments.scaled), 0, x[member])
    finite = True
    for stage in range(FORWARD, BACKWARD + 1):
        finite &= run_stage(phi, given, cotangent, output, out, grad_x, segments, stage, 0, count, member)
    return finite


def backprop(job: BackpropJob, start: int, stop: int) -> bool:
    """Gradients of given chains: an ensemble block by block, a few deep chains cut in depth."""
    phi = CHAIN_NONLINEARITIES[job.nonlinearity]
    # Read-only or not is part of a type for Numba, which compiles for each.
    given = read_only(job.weight), read_only(job.bias)
    ends = read_only(job.x), read_only(job.cotangent), job.output
    out, grad_x = Gradients(job.grad_weight, job.grad_bias), job.grad_x
    depth, ensemble = job.weight.shape
    if ensemble > SEGMENTED_ENSEMBLE_MAX or depth < SEGMENTED_DEPTH_MIN:
        return bool(backprop_blocks(phi, given, *ends, out, grad_x, start, stop))
    return all(backprop_deep(phi, given, *ends, out, grad_x, member) for member in range(start, stop))


def backprop_segments(job: BackpropJob, segments: Segments, stage: int, first: int, last: int, member: int) -> bool:
    """A stage of one deep chain."""
    phi, given = CHAIN_NONLINEARITIES[job.nonlinearity], (read_only(job.weight), read_only(job.bias))
    out = Gradients(job.grad_weight, job.grad_bias)
    cotangent = read_only(job.cotangent)
    return bool(run_stage(phi, given, cotangent, job.output, out, job.grad_x, segments, stage, first, last, member))
