// propagate: drawn chains, streamed forward in O(record) memory. The contract and the formulas are in
// fastgrad/kernels/contract.py; the stages and names are those of fastgrad/kernels/reference and fastgrad/kernels/jit.
//
// An ensemble runs in blocks of chains side by side. A chain that has too few companions to fill the vectors is cut in
// depth: its segments run side by side, each but the first from a guess that is burnt in over the links before it, for
// the floating-point trajectories of a contracting chain become equal, bit for bit, whatever they start from. Then each
// segment's start is compared with the end of the one before, and a segment that differs is run again from there.
#pragma once

#include "arena.h"
#include "draws.h"
#include "forward.h"
#include "jobs.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

// Values of a recorded link.
struct RecordedLink {
    Floats weight;
    Scaled input, slope;
};

FASTGRAD_INLINE bool is_centered(const PropagateJob& job) { return job.bias_law.family == CENTERED; }

FASTGRAD_INLINE void reset_products(ForwardState& forward) {
    begin_product(forward);
    for (int j = 0; j < VECTORS; ++j) forward.bound[j] = one();
    forward.extended_bound = 0;
}

// The first link after the group to which `link` belongs.
FASTGRAD_INLINE int64_t group_end(int64_t link) { return ((link - 1) / GROUP_LINKS + 1) * GROUP_LINKS + 1; }

// A tile of drawn links.
struct Draws {
    alignas(64) double weight[TILE * BLOCK], bias[TILE * BLOCK];
};

// Multiplies |w| MAX_SLOPE of `count` links onto the bounds.
template <class Phi, int N>
static void multiply_bounds(ForwardState& forward, const Draws& draws, int64_t count) {
    Mask is_in_range = ALL;
    for (int64_t t = 0; t < count; ++t)
        for (int j = 0; j < N; ++j)
            is_in_range = in_range(is_in_range, load(draws.weight + t * BLOCK + j * VECTOR_LANES));
    if (all(is_in_range) && !forward.extended_bound) {
        Scaled bound[N];
        FASTGRAD_ROW(N) bound[j] = forward.bound[j];
        for (int64_t t = 0; t < count; ++t) FASTGRAD_ROW(N) {
                const Floats size = abs(load(draws.weight + t * BLOCK + j * VECTOR_LANES));
                bound[j] = renormalize_in_range(bound[j].mantissa * size, bound[j].exponent + Phi::MAX_SLOPE_EXPONENT);
            }
        FASTGRAD_ROW(N) forward.bound[j] = bound[j];
        return;
    }
    forward.extended_bound = 0;
    for (int j = 0; j < N; ++j) {
        for (int64_t t = 0; t < count; ++t) {
            const Scaled factor = to_scaled(load(draws.weight + t * BLOCK + j * VECTOR_LANES));
            forward.bound[j] = times(forward.bound[j], abs(factor.mantissa), factor.exponent + Phi::MAX_SLOPE_EXPONENT);
        }
        forward.extended_bound |= (uint32_t)needs_extended(forward.bound[j]) << j;
    }
}

// Draws `count` links of N vectors of lanes, and runs them forward.
//
// forward    the block's state      in, out
// link       (block,)               in, out   the next link of each lane
// member     (block,)               in
template <class Phi, int N>
static void run_links(const PropagateJob& job, ForwardState& forward, UInts* link, const UInts* member, int64_t count) {
    Draws draws;
    for (int64_t at = 0; at < count; at += TILE) {
        const int64_t n = min(count - at, TILE);
        draw_rows<N>(job.weight_law, job.bias_law, Phi::REST, job.seed, link, member, n, draws.weight, draws.bias);
        for (int j = 0; j < N; ++j) link[j] += (uint64_t)n;
        multiply_bounds<Phi, N>(forward, draws, n);
        constexpr bool PRODUCT = true, CENTERED = true;
        if (is_centered(job))
            advance_rows<Phi, PRODUCT, N, CENTERED>(forward, draws.weight, draws.bias, BLOCK, n, at + n == count);
        else
            advance_rows<Phi, PRODUCT, N>(forward, draws.weight, draws.bias, BLOCK, n, at + n == count);
    }
}

// The values of the next link of vector j, to be recorded before the chain advances over it.
template <class Phi>
FASTGRAD_INLINE RecordedLink recorded_link(const PropagateJob& job, const ForwardState& forward, int j, UInts link,
                                           UInts member) {
    double weight[VECTOR_LANES], bias[VECTOR_LANES];
    draw_rows<1>(job.weight_law, job.bias_law, Phi::REST, job.seed, &link, &member, 1, weight, bias);
    const Floats w = load(weight);
    Floats z = w * forward.activation[j] + load(bias);
    Scaled input = forward.scaled[j];
    if (is_centered(job)) {
        const Ints tiny = abs(forward.activation[j]) < TINY_OFFSET;
        z = preactivation(w, forward.activation[j], forward.scaled[j]).z;
        input = select(tiny, beside_rest<Phi>(input), input);
    }
    const ExtendedValues next = Phi::extended(z);
    return {w, input, renormalize(next.derivative, next.derivative_exponent)};
}

// Multiplies the first n lanes of v onto `to`.
FASTGRAD_INLINE void multiply(ScaledArrays to, Scaled v, int n) { store(to, times(load(to, n), v), n); }

// Chains side by side: members first_member to first_member + count - 1, a block of them at most.
template <class Phi, int N>
static void propagate_abreast(const PropagateJob& job, int64_t first_member, int count) {
    ForwardState forward;
    UInts member[N], next_link[N];
    const int vectors = (count + VECTOR_LANES - 1) / VECTOR_LANES;
    const auto lanes = [&](int j) { return (int)min(count - j * VECTOR_LANES, VECTOR_LANES); };
    for (int j = 0; j < N; ++j) {
        forward.activation[j] = broadcast(0.5);
        forward.scaled[j] = one();
        next_link[j] = UInts{} + (uint64_t)job.first;
        for (int i = 0; i < VECTOR_LANES; ++i) member[j][i] = (uint64_t)(first_member + j * VECTOR_LANES + i);
    }
    for (int j = 0; j < vectors; ++j) {
        const int64_t cell = first_member + j * VECTOR_LANES;
        forward.activation[j] = load(job.state.activation + cell, lanes(j), 0.5);
        forward.scaled[j] = load(job.state.scaled + cell, lanes(j));
        store(job.state.product_before + cell, one(), lanes(j));
        store(job.state.bound_before + cell, one(), lanes(j));
    }
    reset_products(forward);
    // Of the last recorded link passed in this call; before the first, `job.row`, the products are the state's.
    int64_t row = job.row - 1;
    const auto multiply_onto = [&](int64_t onto) {
        const bool is_before = onto < job.row;
        for (int j = 0; j < vectors; ++j) {
            const int64_t cell = (is_before ? 0 : onto * job.ensemble) + first_member + j * VECTOR_LANES;
            multiply((is_before ? job.state.product_before : job.product) + cell, forward.product[j], lanes(j));
            multiply((is_before ? job.state.bound_before : job.bound) + cell, forward.bound[j], lanes(j));
        }
        reset_products(forward);
    };
    for (int64_t link = job.first; link < job.last;) {
        const int64_t next_recorded = row + 1 < job.record ? job.recorded_links[row + 1] : job.last;
        if (next_recorded == link) {
            multiply_onto(row++);
            for (int j = 0; j < vectors; ++j) {
                const RecordedLink recorded = recorded_link<Phi>(job, forward, j, next_link[j], member[j]);
                const int64_t cell = row * job.ensemble + first_member + j * VECTOR_LANES;
                store(job.weight + cell, recorded.weight, lanes(j));
                store(job.input + cell, recorded.input, lanes(j));
                store(job.slope + cell, recorded.slope, lanes(j));
                store(job.product + cell, one(), lanes(j));
                store(job.bound + cell, one(), lanes(j));
            }
            run_links<Phi, N>(job, forward, next_link, member, 1);
            reset_products(forward);
            ++link;
            continue;
        }
        const int64_t until = min(min(next_recorded, group_end(link)), job.last);
        const bool ends_group = until == group_end(link);
        run_links<Phi, N>(job, forward, next_link, member, until - link);
        link = until;
        if (ends_group || link == job.last) multiply_onto(row);
    }
    for (int j = 0; j < vectors; ++j) {
        store(job.state.activation + first_member + j * VECTOR_LANES, forward.activation[j], lanes(j));
        store(job.state.scaled + first_member + j * VECTOR_LANES, forward.scaled[j], lanes(j));
    }
}

// The state of one chain between two links: o, or with centered biases the offset.
struct ChainState {
    double activation;
    ScaledNumber scaled;
};

FASTGRAD_INLINE bool same_bits(const ChainState& a, const ChainState& b) {
    return __builtin_memcmp(&a, &b, sizeof a) == 0;
}

// The links first to last - 1 of one chain.
struct ChainSegment {
    int64_t first, last;
    ChainState before, after;
};

// Products that the segments of one call leave.
struct SegmentProducts {
    ScaledArrays product, bound;                    // (groups, BLOCK)  over a group's links since its last recorded one
    ScaledArrays recorded_product, recorded_bound;  // (record,)        over a group's links before a recorded one
};

constexpr int64_t NEVER = INT64_MAX;

// The row of the first recorded link of the call from `link` on.
FASTGRAD_INLINE int64_t row_from(const PropagateJob& job, int64_t link) {
    int64_t row = job.row;
    while (row < job.record && job.recorded_links[row] < link) ++row;
    return row;
}

// Runs segments side by side, one in each lane; more than one only if each begins a group.
//
// segments   (count,)               in, out   their ends are set
// column     of `products`          in        of the first one
// products   of the call            out       those of these segments
template <class Phi, int N>
static void run_segments(const PropagateJob& job, int64_t member, ChainSegment* segments, int count, int column,
                         const SegmentProducts& products) {
    ForwardState forward;
    UInts link[N], members[N];
    int64_t next_row[BLOCK], length = 0;
    bool at_event[BLOCK];
    for (int i = 0; i < N * VECTOR_LANES; ++i) {
        const ChainSegment& from = segments[i < count ? i : count - 1];
        set_lane(forward.activation, i, from.before.activation);
        set_lane(forward.scaled, i, from.before.scaled);
        set_lane(link, i, (uint64_t)from.first);
        set_lane(members, i, (uint64_t)member);
    }
    reset_products(forward);
    for (int i = 0; i < count; ++i) {
        next_row[i] = row_from(job, segments[i].first);
        if (segments[i].last - segments[i].first > length) length = segments[i].last - segments[i].first;
    }
    // An event of a lane is a step at which it stands before a link to record, or has come to its end.
    int64_t next_event = 0, group = 0;
    for (int64_t step = 0;;) {
        bool events = false;
        if (step == next_event) {
            next_event = NEVER;
            for (int i = 0; i < count; ++i) {
                const ChainSegment& of = segments[i];
                const int64_t here = of.first + step;
                at_event[i] = false;
                if (here == of.last) segments[i].after = {lane(forward.activation, i), lane(forward.scaled, i)};
                if (here >= of.last) continue;
                const int64_t next = next_row[i] < job.record ? job.recorded_links[next_row[i]] : NEVER;
                at_event[i] = next == here;
                events |= at_event[i];
                next_event = min(next_event, at_event[i] ? step + 1 : min(next, of.last) - of.first);
            }
        }
        if (step == length) break;
        const int64_t to_group_end = group_end(segments[0].first + step) - (segments[0].first + step);
        int64_t steps = min(min(next_event, length) - step, to_group_end);
        if (events) {
            steps = 1;
            RecordedLink recorded[N];
            for (int j = 0; j < N; ++j) recorded[j] = recorded_link<Phi>(job, forward, j, link[j], members[j]);
            const ForwardState before = forward;
            run_links<Phi, N>(job, forward, link, members, 1);
            for (int i = 0; i < count; ++i) {
                if (!at_event[i]) continue;
                const int j = i / VECTOR_LANES, k = i % VECTOR_LANES;
                const int64_t row = next_row[i]++;
                const int64_t cell = row * job.ensemble + member;
                job.weight[cell] = recorded[j].weight[k];
                set(job.input, cell, lane(&recorded[j].input, k));
                set(job.slope, cell, lane(&recorded[j].slope, k));
                set(products.recorded_product, row - job.row, lane(before.product, i));
                set(products.recorded_bound, row - job.row, lane(before.bound, i));
                set_lane(forward.product, i, ONE);
                set_lane(forward.bound, i, ONE);
            }
        } else {
            run_links<Phi, N>(job, forward, link, members, steps);
        }
        step += steps;
        if (steps == to_group_end || (count == 1 && step == length)) {
            for (int i = 0; i < count; ++i) {
                set(products.product, group * BLOCK + column + i, lane(forward.product, i));
                set(products.bound, group * BLOCK + column + i, lane(forward.bound, i));
            }
            reset_products(forward);
            ++group;
        }
    }
}

// Multiplies a segment's products onto the job's, in the order of the links.
//
// column     of `products`          in        the segment's
// row        of the job             in, out   of the last recorded link passed
static void combine(const PropagateJob& job, int64_t member, const ChainSegment& of, int column,
                    const SegmentProducts& products, int64_t& row) {
    int64_t link = of.first;
    for (int64_t group = 0; link < of.last; ++group) {
        const int64_t end = min(group_end(link), of.last);
        while (true) {
            const bool is_before = row < job.row;
            const int64_t cell = is_before ? member : row * job.ensemble + member;
            const ScaledArrays product = (is_before ? job.state.product_before : job.product) + cell;
            const ScaledArrays bound = (is_before ? job.state.bound_before : job.bound) + cell;
            const bool is_recorded = row + 1 < job.record && job.recorded_links[row + 1] < end;
            const int64_t from = is_recorded ? row + 1 - job.row : group * BLOCK + column;
            const ScaledArrays p = is_recorded ? products.recorded_product : products.product;
            const ScaledArrays b = is_recorded ? products.recorded_bound : products.bound;
            set(product, 0, times(get(product, 0), get(p, from)));
            set(bound, 0, times(get(bound, 0), get(b, from)));
            if (!is_recorded) break;
            ++row;
            set(job.product, row * job.ensemble + member, ONE);
            set(job.bound, row * job.ensemble + member, ONE);
        }
        link = end;
    }
}

// Tells that the state before a segment can be guessed: links forget where they began, or stay there for ever, as an
// offset of exactly 0 does. One that is very small is multiplied by w MAX_SLOPE at each link, and forgets nothing.
FASTGRAD_INLINE bool can_be_guessed(const PropagateJob& job, const ChainState& state) {
    return !is_centered(job) || state.activation == 0.0 || __builtin_fabs(state.activation) >= IN_RANGE_MIN;
}

// Guesses each segment's start by running the links that lead to it: from rest, or from an offset of `sign` / 2; from 0
// if that is what the chain has.
template <class Phi>
static void burn_in(const PropagateJob& job, int64_t member, const ChainState& state, double sign,
                    ChainSegment* segments, int count) {
    ForwardState forward;
    UInts link[VECTORS], members[VECTORS];
    const double start = is_centered(job) ? (state.activation == 0.0 ? 0.0 : 0.5 * sign) : Phi::REST;
    for (int i = 0; i < BLOCK; ++i) {
        set_lane(forward.activation, i, start);
        set_lane(forward.scaled, i, ScaledNumber{0.0, 0});
        set_lane(link, i, (uint64_t)(segments[i < count ? i : 0].first - BURN_IN_LINKS));
        set_lane(members, i, (uint64_t)member);
    }
    reset_products(forward);
    run_links<Phi, VECTORS>(job, forward, link, members, BURN_IN_LINKS);
    for (int i = 0; i < count; ++i) segments[i].before = {lane(forward.activation, i), lane(forward.scaled, i)};
}

// Offsets forget their size, but not their sign, which is known once the segments have run: guesses again the starts of
// those that began with the wrong one. Returns whether there are any.
template <class Phi>
static bool correct_signs(const PropagateJob& job, int64_t member, const ChainState& state, ChainSegment* segments,
                          int count) {
    ChainSegment mirrored[BLOCK];
    for (int i = 0; i < count; ++i) mirrored[i] = segments[i];
    burn_in<Phi>(job, member, state, -1.0, mirrored + 1, count - 1);
    bool wrong = false, any_wrong = false;
    for (int i = 1; i < count; ++i) {
        // One that began with the wrong sign ends with it: whether they agree tells of the next one.
        const bool began_below = segments[i].before.activation < 0.0;
        wrong ^= began_below != (segments[i - 1].after.activation < 0.0);
        if (wrong) segments[i].before = mirrored[i].before;
        any_wrong |= wrong;
    }
    return any_wrong;
}

// One chain, cut in depth.
template <class Phi>
static Status propagate_deep(const PropagateJob& job, int64_t member) {
    const int64_t groups = (job.last - 1) / GROUP_LINKS - (job.first - 1) / GROUP_LINKS + 1;
    const int64_t record = row_from(job, job.last) - job.row;
    Arena arena(2 * Arena::scaled_bytes(groups * BLOCK) + 2 * Arena::scaled_bytes(record));
    if (!arena.memory) return NO_MEMORY;
    const ScaledArrays product = arena.take_scaled(groups * BLOCK), bound = arena.take_scaled(groups * BLOCK);
    const ScaledArrays recorded_product = arena.take_scaled(record);
    const SegmentProducts products{product, bound, recorded_product, arena.take_scaled(record)};

    // The links before the first whole group and after the last run by themselves, the groups between in segments.
    const int64_t first_whole = min((job.first - 1 + GROUP_LINKS - 1) / GROUP_LINKS * GROUP_LINKS + 1, job.last);
    const int64_t whole_groups = (job.last - first_whole) / GROUP_LINKS;
    const int64_t groups_per_segment = (whole_groups + BLOCK - 1) / BLOCK;
    ChainState state{job.state.activation[member], get(job.state.scaled, member)};
    set(job.state.product_before, member, ONE);
    set(job.state.bound_before, member, ONE);
    int64_t row = job.row - 1;  // of the last recorded link passed

    ChainSegment segments[BLOCK];
    int count = 0;
    const auto run_alone = [&](int64_t first, int64_t last) {
        if (first >= last) return;
        ChainSegment alone{first, last, state, {}};
        run_segments<Phi, 1>(job, member, &alone, 1, 0, products);
        combine(job, member, alone, 0, products, row);
        state = alone.after;
    };
    // With more than one recorded link in eight, segments do not pay.
    const bool is_cut = whole_groups >= 4 && record * 8 < job.last - job.first && can_be_guessed(job, state);
    if (!is_cut) {
        run_alone(job.first, job.last);
    } else {
        run_alone(job.first, first_whole);
        const int64_t end = first_whole + whole_groups * GROUP_LINKS;
        for (int64_t first = first_whole; first < end; first += groups_per_segment * GROUP_LINKS, ++count)
            segments[count] = {first, min(first + groups_per_segment * GROUP_LINKS, end), state, {}};
        burn_in<Phi>(job, member, state, 1.0, segments + 1, count - 1);
        run_segments<Phi, VECTORS>(job, member, segments, count, 0, products);
        if (is_centered(job) && correct_signs<Phi>(job, member, state, segments, count))
            run_segments<Phi, VECTORS>(job, member, segments, count, 0, products);
        for (int i = 0; i < count; ++i) {
            if (i > 0 && !same_bits(segments[i].before, segments[i - 1].after)) {
                segments[i].before = segments[i - 1].after;
                run_segments<Phi, 1>(job, member, segments + i, 1, i, products);
            }
            combine(job, member, segments[i], i, products, row);
        }
        state = segments[count - 1].after;
        run_alone(end, job.last);
    }
    job.state.activation[member] = state.activation;
    set(job.state.scaled, member, state.scaled);
    return OK;
}

// The links first to last - 1 of the members start to stop - 1.
template <class Phi>
static Status propagate(const PropagateJob& job) {
    if (job.stop - job.start <= BLOCK / 2 && job.last - job.first >= 8 * GROUP_LINKS) {
        for (int64_t member = job.start; member < job.stop; ++member)
            if (propagate_deep<Phi>(job, member) != OK) return NO_MEMORY;
        return OK;
    }
    for (int64_t first_member = job.start; first_member < job.stop; first_member += BLOCK) {
        const int count = (int)min(job.stop - first_member, BLOCK);
        (count > VECTOR_LANES ? propagate_abreast<Phi, VECTORS> : propagate_abreast<Phi, 1>)(job, first_member, count);
    }
    return OK;
}

// The recorded gradients of members start to stop - 1 from what `propagate` leaves, in place, from the last row up.
template <class Phi>
static Status suffix_products(const PropagateJob& job) {
    for (int64_t first_member = job.start; first_member < job.stop; first_member += BLOCK) {
        const int64_t count = min(job.stop - first_member, BLOCK), vectors = (count + VECTOR_LANES - 1) / VECTOR_LANES;
        Scaled adjoint[VECTORS], bound[VECTORS];
        for (int j = 0; j < VECTORS; ++j) adjoint[j] = bound[j] = one();
        for (int64_t row = job.record - 1; row >= 0; --row)
            for (int64_t j = 0; j < vectors; ++j) {
                const int lanes = (int)min(count - j * VECTOR_LANES, VECTOR_LANES);
                const int64_t cell = row * job.ensemble + first_member + j * VECTOR_LANES;
                const Scaled w = to_scaled(load(job.weight + cell, lanes, 0.0));
                const Scaled product = times(adjoint[j], load(job.product + cell, lanes));
                const Scaled delta = times(product, load(job.slope + cell, lanes));
                adjoint[j] = times(delta, w);
                bound[j] = times(times(bound[j], load(job.bound + cell, lanes)), abs(w.mantissa),
                                 w.exponent + Phi::MAX_SLOPE_EXPONENT);
                store(job.input + cell, times(delta, load(job.input + cell, lanes)), lanes);
                store(job.slope + cell, delta, lanes);
                store(job.product + cell, adjoint[j], lanes);
                store(job.bound + cell, bound[j], lanes);
            }
    }
    return OK;
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
