"""Drawn chains, streamed forward: see csrc/propagate.h."""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastgrad.kernels.constants import BURN_IN_LINKS, CENTERED, GROUP_LINKS, IN_RANGE_MIN, TINY_OFFSET
from fastgrad.kernels.jit.backprop import BLOCK
from fastgrad.kernels.jit.compiler import bits_of, njit, njit_row
from fastgrad.kernels.jit.draws import draw
from fastgrad.kernels.jit.forward import new_scaled, scaled_activation
from fastgrad.kernels.jit.nonlinearity import (
    CHAIN_NONLINEARITIES,
    is_outside,
    preactivation,
    stand_in,
)
from fastgrad.kernels.jit.numbers import (
    EXPONENT_MIN,
    multiply,
    renormalize,
    renormalize_in_range,
    set_to_one,
    to_scaled,
)

if TYPE_CHECKING:
    from fastgrad.kernels.contract import PropagateJob, ScaledArrays, State


class SegmentProducts(NamedTuple):
    """Products that the segments of one call leave: see csrc/propagate.h."""

    product: ScaledArrays  #          (groups, BLOCK)  over a group's links since its last recorded one
    bound: ScaledArrays
    recorded_product: ScaledArrays  # (record,)        over a group's links before a recorded one
    recorded_bound: ScaledArrays


@njit
def beside_rest(phi, mantissa, exponent):
    """phi(0) + d of an offset far below phi(0), which is nothing beside it, unless that is 0."""
    return (mantissa, exponent) if phi.REST == 0.0 else to_scaled(phi.REST)


@njit_row
def advance_tiny(phi, w, activation, scaled, scaled_exponent, product, product_exponent, bound, bound_exponent):
    """One link of every lane where all offsets are below TINY_OFFSET; False, and nothing done, where some are not.

    The offsets are multiplied by w MAX_SLOPE, and the slope is MAX_SLOPE, in the bits of the general path.
    """
    lanes = len(w)
    outside = np.int64(0)
    for lane in range(lanes):
        outside |= is_outside(phi, 0.0, w[lane]) | np.int64(abs(activation[lane]) >= TINY_OFFSET)
    if outside != 0:
        return False
    for lane in range(lanes):
        mantissa, exponent = renormalize(scaled[lane] * w[lane], scaled_exponent[lane])
        offset = phi.MAX_SLOPE * stand_in(mantissa, exponent)
        tiny = abs(offset) < TINY_OFFSET
        activation[lane] = offset
        exponent = exponent + phi.MAX_SLOPE_EXPONENT if mantissa != 0.0 else 0
        if not tiny:
            mantissa, exponent = beside_rest(phi, mantissa, exponent)
        scaled[lane], scaled_exponent[lane] = mantissa, exponent
        product[lane], product_exponent[lane] = renormalize_in_range(
            (product[lane] * phi.MAX_SLOPE) * w[lane], product_exponent[lane]
        )
        bound[lane], bound_exponent[lane] = renormalize_in_range(
            bound[lane] * abs(w[lane]), bound_exponent[lane] + phi.MAX_SLOPE_EXPONENT
        )
    return True


@njit_row
def advance(
    phi,
    centered,
    w,
    b,
    z,
    activation,
    scaled,
    scaled_exponent,
    product,
    product_exponent,
    bound,
    bound_exponent,
    extended,
):
    """One link of every lane; returns whether it was in range, and whether the products need extended range.

    In range are the links whose z, w and products plain doubles hold: csrc/constants.py has the limits. Such a link
    makes no `scaled`, which is stale then. With centered biases the activations are offsets.
    """
    lanes = len(w)
    outside = np.int64(extended)
    if centered:
        for lane in range(lanes):
            z[lane] = w[lane] * activation[lane]
            size = abs(activation[lane])
            outside |= is_outside(phi, z[lane], w[lane]) | np.int64((size < IN_RANGE_MIN) & (size != 0.0))
    else:
        for lane in range(lanes):
            z[lane] = w[lane] * activation[lane] + b[lane]
            outside |= is_outside(phi, z[lane], w[lane])
    if outside == 0 and centered:
        for lane in range(lanes):
            activation[lane], derivative = phi.offset_in_range(z[lane])
            product[lane], product_exponent[lane] = renormalize_in_range(
                (product[lane] * derivative) * w[lane], product_exponent[lane]
            )
            bound[lane], bound_exponent[lane] = renormalize_in_range(
                bound[lane] * abs(w[lane]), bound_exponent[lane] + phi.MAX_SLOPE_EXPONENT
            )
        return True, False
    if outside == 0:
        for lane in range(lanes):
            activation[lane], derivative = phi.in_range(z[lane])
            product[lane], product_exponent[lane] = renormalize_in_range(
                (product[lane] * derivative) * w[lane], product_exponent[lane]
            )
            bound[lane], bound_exponent[lane] = renormalize_in_range(
                bound[lane] * abs(w[lane]), bound_exponent[lane] + phi.MAX_SLOPE_EXPONENT
            )
        return True, False
    if (
        centered
        and not extended
        and advance_tiny(phi, w, activation, scaled, scaled_exponent, product, product_exponent, bound, bound_exponent)
    ):
        return False, False
    extended = False
    for lane in range(lanes):
        if centered:
            mantissa, exponent, z[lane] = preactivation(w[lane], activation[lane], scaled[lane], scaled_exponent[lane])
            _, scaled[lane], scaled_exponent[lane], derivative, derivative_exponent = phi.extended(z[lane])
            activation[lane] = phi.offset(z[lane])
            if abs(activation[lane]) < TINY_OFFSET:  # and then d is MAX_SLOPE z
                scaled[lane], scaled_exponent[lane] = renormalize(mantissa, exponent + phi.MAX_SLOPE_EXPONENT)
        else:
            activation[lane], scaled[lane], scaled_exponent[lane], derivative, derivative_exponent = phi.extended(
                z[lane]
            )
        factor, factor_exponent = to_scaled(w[lane])
        delta, delta_exponent = renormalize(product[lane] * derivative, product_exponent[lane] + derivative_exponent)
        product[lane], product_exponent[lane] = renormalize(delta * factor, delta_exponent + factor_exponent)
        bound[lane], bound_exponent[lane] = renormalize(
            bound[lane] * abs(factor), bound_exponent[lane] + (factor_exponent + phi.MAX_SLOPE_EXPONENT)
        )
        if product[lane] == 0.0 or product_exponent[lane] < EXPONENT_MIN // 2:
            extended = True
        if bound[lane] == 0.0 or bound_exponent[lane] < EXPONENT_MIN // 2:
            extended = True
    return False, extended


@njit
def scaled_state(phi, centered, lane, z, activation, scaled, scaled_exponent, is_in_range):
    """Scaled part of a state between links, beside the activation or the offset: see the contract."""
    if centered and is_in_range and abs(activation[lane]) >= TINY_OFFSET:
        _, mantissa, exponent, _, _ = phi.extended(z[lane])
        return renormalize(mantissa, exponent)
    return scaled_activation(lane, activation, scaled, scaled_exponent, is_in_range and not centered)


@njit
def recorded_link(phi, centered, lane, w, b, z, activation, scaled, scaled_exponent, is_in_range):
    """Input and derivative of the next link, both as mantissa and exponent."""
    next_z = w[lane] * activation[lane] + b[lane]
    mantissa, exponent = scaled_state(phi, centered, lane, z, activation, scaled, scaled_exponent, is_in_range)
    if centered:
        _, _, next_z = preactivation(w[lane], activation[lane], scaled[lane], scaled_exponent[lane])
        if abs(activation[lane]) < TINY_OFFSET:
            mantissa, exponent = beside_rest(phi, mantissa, exponent)
    _, _, _, derivative, derivative_exponent = phi.extended(next_z)
    derivative, derivative_exponent = renormalize(derivative, derivative_exponent)
    return mantissa, exponent, derivative, derivative_exponent


@njit
def propagate_abreast(phi, job, state, first, last, first_member, lanes):
    """Chains side by side: members first_member to first_member + lanes - 1."""
    weight_law, bias_law, seed, recorded = job.weight_law, job.bias_law, job.seed, job.recorded_links
    next_link = np.empty(lanes, dtype=np.uint64)
    members = np.empty(lanes, dtype=np.uint64)
    w, b, z = np.empty(lanes), np.empty(lanes), np.empty(lanes)
    activation, scaled = np.empty(lanes), np.empty(lanes)
    scaled_exponent = np.empty(lanes, dtype=np.int64)
    product, bound = np.full(lanes, 0.5), np.full(lanes, 0.5)  # since the last recorded link, or group
    product_exponent, bound_exponent = np.ones(lanes, dtype=np.int64), np.ones(lanes, dtype=np.int64)
    for lane in range(lanes):
        member = first_member + lane
        members[lane] = member
        activation[lane] = state.activation[member]
        scaled[lane], scaled_exponent[lane] = state.scaled.mantissa[member], state.scaled.exponent[member]
        set_to_one(state.product_before, member)
        set_to_one(state.bound_before, member)
    is_in_range = False
    extended = False
    centered = bias_law[0] == CENTERED
    first_row = np.searchsorted(recorded, first)
    row = first_row - 1  # of the last recorded link passed in this call; before the first, the state's products
    for link in range(first, last):
        next_link[:] = np.uint64(link)
        draw(weight_law, bias_law, phi.REST, seed, next_link, members, w, b, z)
        is_recorded = row + 1 < len(recorded) and recorded[row + 1] == link
        if is_recorded:
            for lane in range(lanes):
                member = first_member + lane
                if row < first_row:
                    multiply(state.product_before, member, product[lane], product_exponent[lane])
                    multiply(state.bound_before, member, bound[lane], bound_exponent[lane])
                else:
                    multiply(job.product, (row, member), product[lane], product_exponent[lane])
                    multiply(job.bound, (row, member), bound[lane], bound_exponent[lane])
            row += 1
            for lane in range(lanes):
                cell = row, first_member + lane
                job.weight[cell] = w[lane]
                (
                    job.input.mantissa[cell],
                    job.input.exponent[cell],
                    job.slope.mantissa[cell],
                    job.slope.exponent[cell],
                ) = recorded_link(phi, centered, lane, w, b, z, activation, scaled, scaled_exponent, is_in_range)
                set_to_one(job.product, cell)
                set_to_one(job.bound, cell)
        is_in_range, extended = advance(
            phi,
            centered,
            w,
            b,
            z,
            activation,
            scaled,
            scaled_exponent,
            product,
            product_exponent,
            bound,
            bound_exponent,
            extended,
        )
        if not is_recorded and (link % GROUP_LINKS == 0 or link + 1 == last):
            for lane in range(lanes):
                member = first_member + lane
                if row < first_row:
                    multiply(state.product_before, member, product[lane], product_exponent[lane])
                    multiply(state.bound_before, member, bound[lane], bound_exponent[lane])
                else:
                    multiply(job.product, (row, member), product[lane], product_exponent[lane])
                    multiply(job.bound, (row, member), bound[lane], bound_exponent[lane])
        if is_recorded or link % GROUP_LINKS == 0:
            product[:], product_exponent[:] = 0.5, 1
            bound[:], bound_exponent[:] = 0.5, 1
            extended = False
    for lane in range(lanes):
        member = first_member + lane
        state.activation[member] = activation[lane]
        state.scaled.mantissa[member], state.scaled.exponent[member] = scaled_state(
            phi, centered, lane, z, activation, scaled, scaled_exponent, is_in_range
        )


@njit
def run_segments(
    phi, job, first_row, member, firsts, lasts, befores, before_exponents, afters, after_exponents, column, products
):
    """Run segments of one chain side by side, one in each lane; more than one only if each begins a group of links.

    States before and after are rows of activation and mantissa, and exponents beside them. `products` gets those of the
    segments, from `column` on.
    """
    weight_law, bias_law, seed, recorded = job.weight_law, job.bias_law, job.seed, job.recorded_links
    recorded_product, recorded_bound = products.recorded_product, products.recorded_bound
    count = len(firsts)
    next_link = np.empty(count, dtype=np.uint64)
    members = np.full(count, np.uint64(member))
    w, b, z = np.empty(count), np.empty(count), np.empty(count)
    activation, scaled = np.empty(count), np.empty(count)
    scaled_exponent = np.empty(count, dtype=np.int64)
    product, bound = np.full(count, 0.5), np.full(count, 0.5)
    product_exponent, bound_exponent = np.ones(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    next_row = np.empty(count, dtype=np.int64)
    length = 0
    for lane in range(count):
        next_link[lane] = firsts[lane]
        activation[lane], scaled[lane] = befores[lane, 0], befores[lane, 1]
        scaled_exponent[lane] = before_exponents[lane]
        next_row[lane] = max(first_row, np.searchsorted(recorded, firsts[lane]))
        length = max(length, lasts[lane] - firsts[lane])
    is_in_range = False
    extended = False
    centered = bias_law[0] == CENTERED
    next_event = 0  # the next step at which a lane stands before a link to record, or has come to its end
    group = 0
    for step in range(length + 1):
        is_recorded = False
        if step == next_event:
            next_event = length
            for lane in range(count):
                here = firsts[lane] + step
                if here == lasts[lane]:
                    afters[lane, 0] = activation[lane]
                    afters[lane, 1], after_exponents[lane] = scaled_state(
                        phi, centered, lane, z, activation, scaled, scaled_exponent, is_in_range
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
        draw(weight_law, bias_law, phi.REST, seed, next_link, members, w, b, z)
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
                    ) = recorded_link(phi, centered, lane, w, b, z, activation, scaled, scaled_exponent, is_in_range)
                    at = row - first_row
                    recorded_product.mantissa[at], recorded_product.exponent[at] = product[lane], product_exponent[lane]
                    recorded_bound.mantissa[at], recorded_bound.exponent[at] = bound[lane], bound_exponent[lane]
        is_in_range, extended = advance(
            phi,
            centered,
            w,
            b,
            z,
            activation,
            scaled,
            scaled_exponent,
            product,
            product_exponent,
            bound,
            bound_exponent,
            extended,
        )
        if is_recorded:
            for lane in range(count):
                here = firsts[lane] + step
                row = next_row[lane]
                if here < lasts[lane] and row < len(recorded) and recorded[row] == here:
                    product[lane], product_exponent[lane] = 0.5, 1
                    bound[lane], bound_exponent[lane] = 0.5, 1
                    next_row[lane] += 1
        for lane in range(count):
            next_link[lane] += np.uint64(1)
        if (firsts[0] + step) % GROUP_LINKS == 0 or (count == 1 and step + 1 == length):
            for lane in range(count):
                cell = group, column + lane
                products.product.mantissa[cell], products.product.exponent[cell] = product[lane], product_exponent[lane]
                products.bound.mantissa[cell], products.bound.exponent[cell] = bound[lane], bound_exponent[lane]
            product[:], product_exponent[:] = 0.5, 1
            bound[:], bound_exponent[:] = 0.5, 1
            extended = False
            group += 1


@njit
def combine(job, state, first_row, member, first, last, column, products, row):
    """Multiply a segment's products onto the job's, in the order of the links; returns the last row passed."""
    recorded = job.recorded_links
    link = first
    group = 0
    while link < last:
        end = min(((link - 1) // GROUP_LINKS + 1) * GROUP_LINKS + 1, last)
        group_left = True
        while group_left:
            is_recorded = row + 1 < len(recorded) and recorded[row + 1] < end
            if is_recorded:
                at = row + 1 - first_row
                recorded_product, recorded_bound = products.recorded_product, products.recorded_bound
                product, product_exponent = recorded_product.mantissa[at], recorded_product.exponent[at]
                bound, bound_exponent = recorded_bound.mantissa[at], recorded_bound.exponent[at]
            else:
                cell = group, column
                product, product_exponent = products.product.mantissa[cell], products.product.exponent[cell]
                bound, bound_exponent = products.bound.mantissa[cell], products.bound.exponent[cell]
            if row < first_row:
                multiply(state.product_before, member, product, product_exponent)
                multiply(state.bound_before, member, bound, bound_exponent)
            else:
                multiply(job.product, (row, member), product, product_exponent)
                multiply(job.bound, (row, member), bound, bound_exponent)
            if is_recorded:
                row += 1
                set_to_one(job.product, (row, member))
                set_to_one(job.bound, (row, member))
            group_left = is_recorded
        link = end
        group += 1
    return row


@njit
def can_be_guessed(bias_law, activation):
    """Tell if links forget where they began, or stay there: see csrc/propagate.h."""
    return bias_law[0] != CENTERED or activation == 0.0 or abs(activation) >= IN_RANGE_MIN


@njit
def burn_in(phi, job, member, before, sign, firsts, befores, before_exponents):
    """Guess the states before links `firsts` by running the links that lead to them: see csrc/propagate.h.

    They run from rest, or from an offset of `sign` / 2; from 0 if `before`, the offset before all of them, is 0.
    """
    weight_law, bias_law, seed = job.weight_law, job.bias_law, job.seed
    centered = bias_law[0] == CENTERED
    start = phi.REST
    if centered:
        start = 0.0 if before == 0.0 else 0.5 * sign
    count = len(firsts)
    next_link = np.empty(count, dtype=np.uint64)
    members = np.full(count, np.uint64(member))
    w, b, z = np.empty(count), np.empty(count), np.empty(count)
    activation, scaled = np.full(count, start), np.zeros(count)
    scaled_exponent = np.zeros(count, dtype=np.int64)
    product, bound = np.full(count, 0.5), np.full(count, 0.5)
    product_exponent, bound_exponent = np.ones(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    for lane in range(count):
        next_link[lane] = firsts[lane] - BURN_IN_LINKS
    is_in_range = False
    extended = False
    for _ in range(BURN_IN_LINKS):
        draw(weight_law, bias_law, phi.REST, seed, next_link, members, w, b, z)
        is_in_range, extended = advance(
            phi,
            centered,
            w,
            b,
            z,
            activation,
            scaled,
            scaled_exponent,
            product,
            product_exponent,
            bound,
            bound_exponent,
            extended,
        )
        for lane in range(count):
            next_link[lane] += np.uint64(1)
    for lane in range(count):
        befores[lane, 0] = activation[lane]
        befores[lane, 1], before_exponents[lane] = scaled_state(
            phi, centered, lane, z, activation, scaled, scaled_exponent, is_in_range
        )


@njit
def correct_signs(phi, job, member, before, firsts, befores, before_exponents, afters):
    """Guess again the starts of segments whose offset had the wrong sign; True if there are any: see csrc."""
    mirrored, mirrored_exponents = befores.copy(), before_exponents.copy()
    burn_in(phi, job, member, before, -1.0, firsts[1:], mirrored[1:], mirrored_exponents[1:])
    wrong, any_wrong = False, False
    for i in range(1, len(firsts)):
        # One that began with the wrong sign ends with it: whether they agree tells of the next one.
        if (befores[i, 0] < 0.0) != (afters[i - 1, 0] < 0.0):
            wrong = not wrong
        if wrong:
            befores[i, 0], befores[i, 1] = mirrored[i, 0], mirrored[i, 1]
            before_exponents[i] = mirrored_exponents[i]
            any_wrong = True
    return any_wrong


@njit
def propagate_deep(phi, job, state, first, last, member):
    """One chain, cut in depth: see csrc/propagate.h."""
    bias_law, recorded = job.bias_law, job.recorded_links
    first_row = np.searchsorted(recorded, first)
    groups = (last - 1) // GROUP_LINKS - (first - 1) // GROUP_LINKS + 1
    n_recorded = np.searchsorted(recorded, last) - first_row
    products = SegmentProducts(
        new_scaled((groups, BLOCK)), new_scaled((groups, BLOCK)), new_scaled(n_recorded), new_scaled(n_recorded)
    )
    set_to_one(state.product_before, member)
    set_to_one(state.bound_before, member)

    # The links before the first whole group and after the last run by themselves, the groups between in segments.
    first_whole = min((first - 1 + GROUP_LINKS - 1) // GROUP_LINKS * GROUP_LINKS + 1, last)
    whole_groups = (last - first_whole) // GROUP_LINKS
    groups_per_segment = (whole_groups + BLOCK - 1) // BLOCK
    if (
        whole_groups < 4 or n_recorded * 8 >= last - first or not can_be_guessed(bias_law, state.activation[member])
    ):  # with more than one recorded link in eight, segments do not pay
        first_whole, whole_groups, groups_per_segment = last, 0, 0
    count = -(-whole_groups // groups_per_segment) if whole_groups else 0
    firsts, lasts = np.empty(count + 2, dtype=np.int64), np.empty(count + 2, dtype=np.int64)
    befores, afters = np.empty((count + 2, 2)), np.empty((count + 2, 2))
    before_exponents, after_exponents = np.empty(count + 2, dtype=np.int64), np.empty(count + 2, dtype=np.int64)
    for i in range(count):
        firsts[i + 1] = first_whole + i * groups_per_segment * GROUP_LINKS
        lasts[i + 1] = first_whole + min((i + 1) * groups_per_segment, whole_groups) * GROUP_LINKS
    firsts[0], lasts[0] = first, first_whole
    firsts[count + 1], lasts[count + 1] = first_whole + whole_groups * GROUP_LINKS, last

    row = first_row - 1  # of the last recorded link passed
    activation = state.activation[member]
    mantissa, exponent = state.scaled.mantissa[member], state.scaled.exponent[member]
    for i in range(count + 2):
        if i == 1 and count:
            befores[1, 0], befores[1, 1], before_exponents[1] = activation, mantissa, exponent
            guessed = slice(2, count + 1)
            burn_in(phi, job, member, activation, 1.0, firsts[guessed], befores[guessed], before_exponents[guessed])
            of_segments = slice(1, count + 1)
            for turn in range(2 if bias_law[0] == CENTERED else 1):
                if turn == 1 and not correct_signs(
                    phi,
                    job,
                    member,
                    activation,
                    firsts[of_segments],
                    befores[of_segments],
                    before_exponents[of_segments],
                    afters[of_segments],
                ):
                    break
                run_segments(
                    phi,
                    job,
                    first_row,
                    member,
                    firsts[of_segments],
                    lasts[of_segments],
                    befores[of_segments],
                    before_exponents[of_segments],
                    afters[of_segments],
                    after_exponents[of_segments],
                    0,
                    products,
                )
        same = (
            1 <= i <= count
            and bits_of(befores[i, 0]) == bits_of(activation)
            and befores[i, 1] == mantissa
            and before_exponents[i] == exponent
        )
        column = i - 1 if 1 <= i <= count else 0
        if not same:
            befores[i, 0], befores[i, 1], before_exponents[i] = activation, mantissa, exponent
            alone = slice(i, i + 1)
            run_segments(
                phi,
                job,
                first_row,
                member,
                firsts[alone],
                lasts[alone],
                befores[alone],
                before_exponents[alone],
                afters[alone],
                after_exponents[alone],
                column,
                products,
            )
        activation, mantissa, exponent = afters[i, 0], afters[i, 1], after_exponents[i]
        row = combine(job, state, first_row, member, firsts[i], lasts[i], column, products, row)
    state.activation[member] = activation
    state.scaled.mantissa[member], state.scaled.exponent[member] = mantissa, exponent


@njit
def propagate_compiled(phi, job, state, first, last, start, stop):
    """Drawn chains, streamed forward: an ensemble abreast, a few deep chains cut in depth."""
    if stop - start <= BLOCK // 4 and last - first >= 8 * GROUP_LINKS:
        for member in range(start, stop):
            propagate_deep(phi, job, state, first, last, member)
    else:
        for first_member in range(start, stop, BLOCK):
            propagate_abreast(phi, job, state, first, last, first_member, min(BLOCK, stop - first_member))


@njit
def suffix_products_compiled(phi, job, start, stop):
    """Recorded gradients from what `propagate` leaves, in place, from the last row up."""
    (input_at, input_exponent), (slope, slope_exponent), (product, product_exponent), (bound, bound_exponent) = (
        job.input,
        job.slope,
        job.product,
        job.bound,
    )
    lanes = stop - start
    adjoint, exponent = np.full(lanes, 0.5), np.ones(lanes, dtype=np.int64)
    bound_after, bound_after_exponent = np.full(lanes, 0.5), np.ones(lanes, dtype=np.int64)
    for row in range(len(job.recorded_links) - 1, -1, -1):
        for lane in range(lanes):
            cell = row, start + lane
            factor, factor_exponent = to_scaled(job.weight[cell])
            delta, delta_exponent = renormalize(adjoint[lane] * product[cell], exponent[lane] + product_exponent[cell])
            delta, delta_exponent = renormalize(delta * slope[cell], delta_exponent + slope_exponent[cell])
            adjoint[lane], exponent[lane] = renormalize(delta * factor, delta_exponent + factor_exponent)
            upper, upper_exponent = renormalize(
                bound_after[lane] * bound[cell], bound_after_exponent[lane] + bound_exponent[cell]
            )
            bound_after[lane], bound_after_exponent[lane] = renormalize(
                upper * abs(factor), upper_exponent + (factor_exponent + phi.MAX_SLOPE_EXPONENT)
            )
            input_at[cell], input_exponent[cell] = renormalize(
                delta * input_at[cell], delta_exponent + input_exponent[cell]
            )
            slope[cell], slope_exponent[cell] = delta, delta_exponent
            product[cell], product_exponent[cell] = adjoint[lane], exponent[lane]
            bound[cell], bound_exponent[cell] = bound_after[lane], bound_after_exponent[lane]


def suffix_products(job: PropagateJob, start: int, stop: int) -> None:
    """Recorded gradients, in place."""
    seed: Any = np.uint64(job.seed)
    suffix_products_compiled(CHAIN_NONLINEARITIES[job.nonlinearity], job._replace(seed=seed), start, stop)


def propagate(job: PropagateJob, state: State, first: int, last: int, start: int, stop: int) -> None:
    """Drawn chains, streamed forward."""
    seed: Any = np.uint64(job.seed)
    phi = CHAIN_NONLINEARITIES[job.nonlinearity]
    propagate_compiled(phi, job._replace(seed=seed), state, first, last, start, stop)
