"""Gradient descent on given chains: see csrc/train.h."""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.kernels.constants import CROSS_ENTROPY
from fastgrad.kernels.contract import ScaledArrays
from fastgrad.kernels.jit.backprop import BLOCK, Gradients, RowBuffer, new_gradients, new_tape, run_taped
from fastgrad.kernels.jit.compiler import njit, njit_row, read_only
from fastgrad.kernels.jit.forward import LARGEST, UINT, new_scaled
from fastgrad.kernels.jit.nonlinearity import CHAIN_NONLINEARITIES, is_outside
from fastgrad.kernels.jit.numbers import (
    EXPONENT_MIN,
    exp_reduced,
    log_reduced,
    power_of_two,
    reduce_exp_argument,
    renormalize,
    to_float,
    to_scaled,
)

if TYPE_CHECKING:
    from fastgrad.kernels.contract import TrainJob


@njit
def softplus_rest(z):
    """ln(1 + exp(-|z|))."""
    r, k = reduce_exp_argument(min(1000.0, abs(z)))  # where exp(-|z|) is 0
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
    (grad_weight, grad_weight_exponent), (grad_bias, grad_bias_exponent) = gradients
    total, total_exponent = 0.0, EXPONENT_MIN
    for link in range(len(grad_weight)):
        mantissa, exponent = clipped(value_rule, grad_weight[link, lane], grad_weight_exponent[link, lane])
        total, total_exponent = add_square(total, total_exponent, mantissa, exponent)
        mantissa, exponent = clipped(value_rule, grad_bias[link, lane], grad_bias_exponent[link, lane])
        total, total_exponent = add_square(total, total_exponent, mantissa, exponent)
    if total == 0.0:
        return 0.5, np.int64(1)
    norm, norm_exponent = renormalize(math.sqrt(total), total_exponent)
    limit, limit_exponent, _ = norm_rule
    if not exceeds(norm, norm_exponent, limit, limit_exponent):
        return 0.5, np.int64(1)
    return renormalize(limit / norm, limit_exponent - norm_exponent)


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
def evaluate(phi, loss, lanes, depth, tape, row_buffer, input_slot, packed, carried, start, back, target, now):
    """The loss of the parameters as they are, and what the way back begins with."""
    activation, _ = carried
    mantissa, exponent = back[5]
    activation[:] = start
    last = depth - 1
    nothing = 0, 0, 0, 0, back[4], back[5], back[6]
    if loss == CROSS_ENTROPY:
        run_taped(phi, tape, row_buffer, False, input_slot, (0, last, 0, lanes, packed, carried), nothing)
        for lane in range(lanes):
            now[lane] = cross_entropy(packed[0][last, lane] * activation[lane] + packed[1][last, lane], target[lane])
        run_taped(phi, tape, row_buffer, False, input_slot + last, (last, 1, 0, lanes, packed, carried), nothing)
    else:
        run_taped(phi, tape, row_buffer, False, input_slot, (0, depth, 0, lanes, packed, carried), nothing)
    for lane in range(lanes):
        error = activation[lane] - target[lane]
        mantissa[lane], exponent[lane] = to_scaled(error)
        if loss == CROSS_ENTROPY:  # delta_L = o_L - y: as if phi' were 1
            tape.derivative[input_slot + last, lane] = 1.0
            tape.exponent[input_slot + last, lane] = 0
        else:
            now[lane] = 0.5 * error * error


@njit
def train_block(phi, job, rate, value_rule, norm_rule, first, last, row, begin, lanes):
    """All steps of the call for one block of lanes: see csrc/train.h."""
    weight, bias, recorded = job.weight, job.bias, job.recorded_steps
    last_update, converged_at, diverged_at = job.last_update, job.converged_at, job.diverged_at
    depth = weight.shape[0]
    tape, row_buffer = new_tape(depth + 1), RowBuffer(False, new_scaled((1, BLOCK)), new_scaled((1, BLOCK)))
    (next_weight, grad_weight_exponent), (next_bias, grad_bias_exponent) = new_gradients(depth)
    now_weight, now_bias = np.empty((depth, BLOCK)), np.empty((depth, BLOCK))
    carried = np.empty(BLOCK), np.empty(BLOCK)
    adjoint, origin = new_scaled(BLOCK), new_scaled(BLOCK)
    start, target, now = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    factor, factor_exponent = new_scaled(BLOCK)
    moves, leaves = np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK, dtype=np.int64)
    outside = np.int64(0)
    for lane in range(lanes):
        for link in range(depth):
            now_weight[link, lane], now_bias[link, lane] = weight[link, begin + lane], bias[link, begin + lane]
        start[lane], target[lane] = job.x[begin + lane], job.target[begin + lane]
        origin.mantissa[lane], origin.exponent[lane] = to_scaled(start[lane])
        # The input lies where the activation before link 0 would be, if it is a number of that kind.
        outside |= is_outside(phi, 0.0, start[lane])
        tape.activation[0, lane] = start[lane]
    tape.extended[0] = False
    input_slot = 0 if outside else 1
    clips_norm = norm_rule[2]
    for step in range(first, last):
        out = Gradients(ScaledArrays(next_weight, grad_weight_exponent), ScaledArrays(next_bias, grad_bias_exponent))
        packed = now_weight, now_bias
        back = 0, depth, 0, lanes, out, adjoint, origin
        evaluate(
            phi, job.loss_code, lanes, depth, tape, row_buffer, input_slot, packed, carried, start, back, target, now
        )
        for lane in range(lanes):
            member = begin + lane
            if not now[lane] - job.min_loss[member] <= job.tolerance:
                converged_at[member] = -1
            elif converged_at[member] < 0:
                converged_at[member] = step
        any_moves = False
        if step < job.steps:
            run_taped(phi, tape, row_buffer, True, input_slot, (0, 0, 0, 0, packed, carried), back)
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
def train_compiled(phi, job, first, last, start, stop):
    """Gradient descent on given chains, block by block."""
    clips_value, clips_norm = job.clip_value <= LARGEST, job.clip_norm <= LARGEST
    value, value_exponent = to_scaled(job.clip_value if clips_value else 1.0)
    norm, norm_exponent = to_scaled(job.clip_norm if clips_norm else 1.0)
    value_rule, norm_rule = (value, value_exponent, clips_value), (norm, norm_exponent, clips_norm)
    rate = to_scaled(job.learning_rate)
    row = np.searchsorted(job.recorded_steps, first)
    for begin in range(start, stop, BLOCK):
        train_block(phi, job, rate, value_rule, norm_rule, first, last, row, begin, min(BLOCK, stop - begin))


def train(job: TrainJob, first: int, last: int, start: int, stop: int) -> None:
    """Gradient descent on given chains."""
    given = {name: read_only(getattr(job, name)) for name in ("x", "target", "min_loss", "recorded_steps")}
    train_compiled(CHAIN_NONLINEARITIES[job.nonlinearity], job._replace(**given), first, last, start, stop)
