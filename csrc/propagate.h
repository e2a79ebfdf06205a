// propagate: drawn chains, streamed forward in O(record) memory. The contract and the formulas are in
// fastgrad/kernels/contract.py; the stages and names are those of reference.py and jit.py.
//
// An ensemble runs in blocks of chains side by side. A chain that has too few companions to fill the vectors is cut in
// depth: its segments run side by side, each but the first from a guess that is warmed up over the links before it, for
// the floating-point trajectories of a contracting chain become equal, bit for bit, whatever they start from. Then each
// segment's start is compared with the end of the one before, and a segment that differs is run again from there.
#pragma once

#include "draws.h"
#include "forward.h"
#include "jobs.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

struct RecordedLink {
    Floats weight;
    Scaled input, slope;
};

FASTGRAD_INLINE bool is_centered(const PropagateJob& a) { return a.bias_law.family == CENTERED; }

FASTGRAD_INLINE void begin_products(ForwardState& front) {
    begin_product(front);
    for (int j = 0; j < VECTORS; ++j) front.bound[j] = one();
    front.extended_bound = 0;
}

struct Draws {
    alignas(64) double weight[TILE * BLOCK], bias[TILE * BLOCK];
};

// Multiplies |w| / 4 of `count` links onto the bounds.
template <class Phi, int N>
static void multiply_bounds(ForwardState& front, const Draws& draws, int64_t count) {
    Mask is_in_range = ALL;
    for (int64_t t = 0; t < count; ++t)
        for (int j = 0; j < N; ++j) {
            const Floats size = abs(load(draws.weight + t * BLOCK + j * VECTOR_LANES));
            is_in_range = at_most(at_least(is_in_range, size, IN_RANGE_MIN), size, IN_RANGE_MAX);
        }
    if (all(is_in_range) && !front.extended_bound) {
        Scaled bound[N];
        FASTGRAD_ROW(N) bound[j] = front.bound[j];
        for (int64_t t = 0; t < count; ++t)
            FASTGRAD_ROW(N) {
                const Floats size = abs(load(draws.weight + t * BLOCK + j * VECTOR_LANES));
                bound[j] = renormalize_in_range(bound[j].mantissa * size, bound[j].exponent + Phi::SLOPE_EXPONENT);
            }
        FASTGRAD_ROW(N) front.bound[j] = bound[j];
        return;
    }
    front.extended_bound = 0;
    for (int j = 0; j < N; ++j) {
        for (int64_t t = 0; t < count; ++t) {
            const Scaled factor = to_scaled(load(draws.weight + t * BLOCK + j * VECTOR_LANES));
            front.bound[j] = times(front.bound[j], abs(factor.mantissa), factor.exponent + Phi::SLOPE_EXPONENT);
        }
        front.extended_bound |= (uint32_t)needs_extended(front.bound[j]) << j;
    }
}

// `count` links of N vectors of lanes: drawn, and run forward. `link` and `member` are the next ones of each lane.
template <class Phi, int N>
static void run_links(const PropagateJob& a, ForwardState& front, UInts* link, const UInts* member, int64_t count) {
    Draws draws;
    for (int64_t at = 0; at < count; at += TILE) {
        const int64_t n = min(count - at, TILE);
        draw_rows<N>(a.weight_law, a.bias_law, Phi::REST, a.seed, link, member, n, draws.weight, draws.bias);
        for (int j = 0; j < N; ++j) link[j] += (uint64_t)n;
        multiply_bounds<Phi, N>(front, draws, n);
        if (is_centered(a))
            advance_rows<Phi, true, N, true>(front, draws.weight, draws.bias, BLOCK, n, at + n == count);
        else
            advance_rows<Phi, true, N>(front, draws.weight, draws.bias, BLOCK, n, at + n == count);
    }
}

// What a recorded link leaves, before the chain advances over it.
template <class Phi>
FASTGRAD_INLINE RecordedLink recorded_link(const PropagateJob& a, const ForwardState& front, int j, UInts link, UInts member) {
    double weight[VECTOR_LANES], bias[VECTOR_LANES];
    draw_rows<1>(a.weight_law, a.bias_law, Phi::REST, a.seed, &link, &member, 1, weight, bias);
    const Floats w = load(weight);
    Floats z = w * front.activation[j] + load(bias);
    Scaled input = front.scaled[j];
    if (is_centered(a)) {
        const Ints tiny = abs(front.activation[j]) < TINY_OFFSET;
        z = preactivation(w, front.activation[j], front.scaled[j]).z;
        input = {select(tiny, broadcast(0.5), input.mantissa), select(tiny, Ints{}, input.exponent)};
    }
    const ExtendedValues next = Phi::extended(z);
    return {w, input, renormalize(next.derivative, next.derivative_exponent)};
}

FASTGRAD_INLINE void store(ScaledArrays to, int64_t cell, Scaled v, int n) {
    store(to.mantissa + cell, v.mantissa, n);
    store(to.exponent + cell, v.exponent, n);
}

FASTGRAD_INLINE Scaled load(ScaledArrays from, int64_t cell, int n) {
    return {load(from.mantissa + cell, n, 0.5), load(from.exponent + cell, n)};
}

FASTGRAD_INLINE void multiply(ScaledArrays to, int64_t cell, Scaled v, int n) {
    store(to, cell, times(load(to, cell, n), v.mantissa, v.exponent), n);
}

FASTGRAD_INLINE void store_link(const PropagateJob& a, int64_t cell, const RecordedLink& link, int n) {
    store(a.weight + cell, link.weight, n);
    store(a.input, cell, link.input, n);
    store(a.slope, cell, link.slope, n);
    store(a.product, cell, one(), n);
    store(a.bound, cell, one(), n);
}

// Chains side by side: members begin to begin + count - 1, at most 32 of them.
template <class Phi, int N>
static void propagate_abreast(const PropagateJob& a, int64_t begin, int count) {
    ForwardState front;
    UInts member[N], number[N];
    const int vectors = (count + VECTOR_LANES - 1) / VECTOR_LANES;
    const auto lanes = [&](int j) { return count - j * VECTOR_LANES < VECTOR_LANES ? count - j * VECTOR_LANES : VECTOR_LANES; };
    for (int j = 0; j < N; ++j) {
        front.activation[j] = broadcast(0.5);
        front.scaled[j] = one();
        number[j] = UInts{} + (uint64_t)a.first;
        for (int i = 0; i < VECTOR_LANES; ++i) member[j][i] = (uint64_t)(begin + j * VECTOR_LANES + i);
    }
    for (int j = 0; j < vectors; ++j) {
        const int64_t cell = begin + j * VECTOR_LANES;
        front.activation[j] = load(a.state.activation + cell, lanes(j), 0.5);
        front.scaled[j] = load(a.state.scaled, cell, lanes(j));
        store(a.state.product_before, cell, one(), lanes(j));
        store(a.state.bound_before, cell, one(), lanes(j));
    }
    begin_products(front);
    int64_t row = a.row - 1;  // of the last recorded link passed in this call; before the first, the state's products
    const auto multiply_onto = [&](int64_t onto) {
        const bool is_before = onto < a.row;
        for (int j = 0; j < vectors; ++j) {
            const int64_t cell = (is_before ? 0 : onto * a.ensemble) + begin + j * VECTOR_LANES;
            multiply(is_before ? a.state.product_before : a.product, cell, front.product[j], lanes(j));
            multiply(is_before ? a.state.bound_before : a.bound, cell, front.bound[j], lanes(j));
        }
        begin_products(front);
    };
    for (int64_t link = a.first; link < a.last;) {
        const int64_t next_recorded = row + 1 < a.record ? a.recorded_links[row + 1] : a.last;
        if (next_recorded == link) {
            multiply_onto(row++);
            for (int j = 0; j < vectors; ++j) {
                const RecordedLink recorded = recorded_link<Phi>(a, front, j, number[j], member[j]);
                store_link(a, row * a.ensemble + begin + j * VECTOR_LANES, recorded, lanes(j));
            }
            run_links<Phi, N>(a, front, number, member, 1);
            begin_products(front);
            ++link;
            continue;
        }
        const int64_t block_end = ((link - 1) / PRODUCT_LINKS + 1) * PRODUCT_LINKS + 1;
        const int64_t stop = min(min(next_recorded, block_end), a.last);
        run_links<Phi, N>(a, front, number, member, stop - link);
        link = stop;
        if (link == block_end || link == a.last) multiply_onto(row);
    }
    for (int j = 0; j < vectors; ++j) {
        store(a.state.activation + begin + j * VECTOR_LANES, front.activation[j], lanes(j));
        store(a.state.scaled, begin + j * VECTOR_LANES, front.scaled[j], lanes(j));
    }
}

// The state of one chain between two links: o, or with centered biases the offset.
struct ChainState {
    double activation, mantissa;
    int64_t exponent;
};

FASTGRAD_INLINE bool same_bits(const ChainState& a, const ChainState& b) {
    return __builtin_memcmp(&a, &b, sizeof a) == 0;
}

// A run of links of one chain.
struct Segment {
    int64_t first, last;
    ChainState begin, end;
};

// Room for what the segments of one call leave.
struct Pieces {
    // (blocks, SEGMENTS): products over a block's links since its last recorded one
    double *product_mantissa, *bound_mantissa;
    int64_t *product_exponent, *bound_exponent;
    // (record,): products over a block's links between a recorded one and the one before
    double *recorded_product_mantissa, *recorded_bound_mantissa;
    int64_t *recorded_product_exponent, *recorded_bound_exponent;
};

constexpr int64_t NEVER = INT64_MAX;

FASTGRAD_INLINE int64_t first_row(const PropagateJob& a, int64_t link) {
    int64_t row = a.row;
    while (row < a.record && a.recorded_links[row] < link) ++row;
    return row;
}

// Runs segments side by side, one in each lane; more than one only if each begins a block. `column` is the first one's
// place among the pieces.
template <class Phi, int N>
static void run_segments(const PropagateJob& a, int64_t member, Segment* segments, int count, int column,
                         const Pieces& pieces) {
    ForwardState front;
    UInts link[N], members[N];
    int64_t next_row[BLOCK], length = 0;
    bool at_event[BLOCK];
    for (int i = 0; i < N * VECTOR_LANES; ++i) {
        const Segment& from = segments[i < count ? i : count - 1];
        const int j = i / VECTOR_LANES, k = i % VECTOR_LANES;
        front.activation[j][k] = from.begin.activation;
        front.scaled[j].mantissa[k] = from.begin.mantissa;
        front.scaled[j].exponent[k] = from.begin.exponent;
        link[j][k] = (uint64_t)from.first;
        members[j][k] = (uint64_t)member;
    }
    begin_products(front);
    for (int i = 0; i < count; ++i) {
        next_row[i] = first_row(a, segments[i].first);
        if (segments[i].last - segments[i].first > length) length = segments[i].last - segments[i].first;
    }
    // An event of a lane is a step at which it stands before a link to record, or has come to its end.
    int64_t next_event = 0, block = 0;
    for (int64_t step = 0;;) {
        bool events = false;
        if (step == next_event) {
            next_event = NEVER;
            for (int i = 0; i < count; ++i) {
                const Segment& of = segments[i];
                const int64_t here = of.first + step;
                const int j = i / VECTOR_LANES, k = i % VECTOR_LANES;
                at_event[i] = false;
                if (here == of.last)
                    segments[i].end = {front.activation[j][k], front.scaled[j].mantissa[k],
                                       front.scaled[j].exponent[k]};
                if (here >= of.last) continue;
                const int64_t next = next_row[i] < a.record ? a.recorded_links[next_row[i]] : NEVER;
                at_event[i] = next == here;
                events |= at_event[i];
                next_event = min(next_event, at_event[i] ? step + 1 : min(next, of.last) - of.first);
            }
        }
        if (step == length) break;
        const int64_t to_block_end = PRODUCT_LINKS - (segments[0].first + step - 1) % PRODUCT_LINKS;
        int64_t steps = min(min(next_event, length) - step, to_block_end);
        if (events) {
            steps = 1;
            RecordedLink recorded[N];
            for (int j = 0; j < N; ++j) recorded[j] = recorded_link<Phi>(a, front, j, link[j], members[j]);
            const ForwardState before = front;
            run_links<Phi, N>(a, front, link, members, 1);
            for (int i = 0; i < count; ++i) {
                if (!at_event[i]) continue;
                const int j = i / VECTOR_LANES, k = i % VECTOR_LANES;
                const int64_t row = next_row[i]++;
                const int64_t cell = row * a.ensemble + member;
                a.weight[cell] = recorded[j].weight[k];
                a.input.mantissa[cell] = recorded[j].input.mantissa[k];
                a.input.exponent[cell] = recorded[j].input.exponent[k];
                a.slope.mantissa[cell] = recorded[j].slope.mantissa[k];
                a.slope.exponent[cell] = recorded[j].slope.exponent[k];
                pieces.recorded_product_mantissa[row - a.row] = before.product[j].mantissa[k];
                pieces.recorded_product_exponent[row - a.row] = before.product[j].exponent[k];
                pieces.recorded_bound_mantissa[row - a.row] = before.bound[j].mantissa[k];
                pieces.recorded_bound_exponent[row - a.row] = before.bound[j].exponent[k];
                front.product[j].mantissa[k] = front.bound[j].mantissa[k] = 0.5;
                front.product[j].exponent[k] = front.bound[j].exponent[k] = 1;
            }
        } else {
            run_links<Phi, N>(a, front, link, members, steps);
        }
        step += steps;
        if (steps == to_block_end || (count == 1 && step == length)) {
            for (int i = 0; i < count; ++i) {
                const int64_t piece = block * BLOCK + column + i;
                pieces.product_mantissa[piece] = front.product[i / VECTOR_LANES].mantissa[i % VECTOR_LANES];
                pieces.product_exponent[piece] = front.product[i / VECTOR_LANES].exponent[i % VECTOR_LANES];
                pieces.bound_mantissa[piece] = front.bound[i / VECTOR_LANES].mantissa[i % VECTOR_LANES];
                pieces.bound_exponent[piece] = front.bound[i / VECTOR_LANES].exponent[i % VECTOR_LANES];
            }
            begin_products(front);
            ++block;
        }
    }
}

FASTGRAD_INLINE void multiply_piece(ScaledArrays to, int64_t cell, double mantissa, int64_t exponent) {
    multiply(to, cell, {broadcast(mantissa), broadcast(exponent)}, 1);
}

// Multiplies a segment's pieces onto the products, in the order of the links. `row` is that of the last recorded link
// passed.
static void combine(const PropagateJob& a, int64_t member, const Segment& of, int column, const Pieces& pieces,
                    int64_t& row) {
    int64_t link = of.first;
    for (int64_t block = 0; link < of.last; ++block) {
        int64_t end = ((link - 1) / PRODUCT_LINKS + 1) * PRODUCT_LINKS + 1;
        if (end > of.last) end = of.last;
        while (true) {
            const bool is_before = row < a.row;
            const ScaledArrays product = is_before ? a.state.product_before : a.product;
            const ScaledArrays bound = is_before ? a.state.bound_before : a.bound;
            const int64_t cell = is_before ? member : row * a.ensemble + member;
            if (row + 1 < a.record && a.recorded_links[row + 1] < end) {
                ++row;
                const int64_t piece = row - a.row, at = row * a.ensemble + member;
                multiply_piece(product, cell, pieces.recorded_product_mantissa[piece],
                               pieces.recorded_product_exponent[piece]);
                multiply_piece(bound, cell, pieces.recorded_bound_mantissa[piece],
                               pieces.recorded_bound_exponent[piece]);
                a.product.mantissa[at] = a.bound.mantissa[at] = 0.5;
                a.product.exponent[at] = a.bound.exponent[at] = 1;
            } else {
                const int64_t piece = block * BLOCK + column;
                multiply_piece(product, cell, pieces.product_mantissa[piece], pieces.product_exponent[piece]);
                multiply_piece(bound, cell, pieces.bound_mantissa[piece], pieces.bound_exponent[piece]);
                break;
            }
        }
        link = end;
    }
}

// An offset of exactly 0 stays 0 for ever; one that is very small is multiplied by w / 4 at each link, and forgets
// nothing.
FASTGRAD_INLINE bool can_be_guessed(const PropagateJob& a, const ChainState& state) {
    return !is_centered(a) || state.activation == 0.0 || __builtin_fabs(state.activation) >= IN_RANGE_MIN;
}

// Guesses each segment's start by running the links that lead to it, from 1/2, or from an offset of `sign` / 2; from 0
// if that is what the chain has.
template <class Phi>
static void burn_in(const PropagateJob& a, int64_t member, const ChainState& state, double sign, Segment* segments,
                    int count) {
    ForwardState front;
    UInts link[VECTORS], members[VECTORS];
    const double start = is_centered(a) ? (state.activation == 0.0 ? 0.0 : 0.5 * sign) : Phi::REST;
    for (int i = 0; i < BLOCK; ++i) {
        front.activation[i / VECTOR_LANES][i % VECTOR_LANES] = start;
        front.scaled[i / VECTOR_LANES].mantissa[i % VECTOR_LANES] = 0.0;
        front.scaled[i / VECTOR_LANES].exponent[i % VECTOR_LANES] = 0;
        link[i / VECTOR_LANES][i % VECTOR_LANES] = (uint64_t)(segments[i < count ? i : 0].first - BURN_IN_LINKS);
        members[i / VECTOR_LANES][i % VECTOR_LANES] = (uint64_t)member;
    }
    begin_products(front);
    run_links<Phi, VECTORS>(a, front, link, members, BURN_IN_LINKS);
    for (int i = 0; i < count; ++i) {
        const Scaled& scaled = front.scaled[i / VECTOR_LANES];
        segments[i].begin = {front.activation[i / VECTOR_LANES][i % VECTOR_LANES], scaled.mantissa[i % VECTOR_LANES],
                             scaled.exponent[i % VECTOR_LANES]};
    }
}

// Offsets forget their size, but not their sign, which is known once the segments have run: guesses again the starts of
// those that began with the wrong one. True if there are any.
template <class Phi>
static bool correct_signs(const PropagateJob& a, int64_t member, const ChainState& state, Segment* segments,
                          int count) {
    Segment mirrored[BLOCK];
    for (int i = 0; i < count; ++i) mirrored[i] = segments[i];
    burn_in<Phi>(a, member, state, -1.0, mirrored + 1, count - 1);
    bool wrong = false, any_wrong = false;
    for (int i = 1; i < count; ++i) {
        const bool began_below = segments[i].begin.activation < 0.0;
        wrong ^= began_below != (segments[i - 1].end.activation < 0.0);
        if (wrong) segments[i].begin = mirrored[i].begin;
        any_wrong |= wrong;
    }
    return any_wrong;
}

// One chain, cut in depth.
template <class Phi>
static Status propagate_deep(const PropagateJob& a, int64_t member) {
    const int64_t blocks = (a.last - 1) / PRODUCT_LINKS - (a.first - 1) / PRODUCT_LINKS + 1;
    const int64_t record = first_row(a, a.last) - a.row;
    const int64_t arena = blocks * BLOCK + record;
    double* const memory = (double*)__builtin_malloc((size_t)(arena * 32));
    if (!memory) return NO_MEMORY;
    int64_t* const integers = (int64_t*)memory + 2 * arena;
    const int64_t cells = blocks * BLOCK;
    const Pieces pieces{memory,         memory + arena,         integers,         integers + arena,
                        memory + cells, memory + arena + cells, integers + cells, integers + arena + cells};

    // The links before the first whole block and after the last run by themselves, the blocks between in segments.
    const int64_t aligned = ((a.first - 1 + PRODUCT_LINKS - 1) / PRODUCT_LINKS) * PRODUCT_LINKS + 1;
    const int64_t begin = aligned < a.last ? aligned : a.last;
    const int64_t whole = (a.last - begin) / PRODUCT_LINKS;
    const int64_t each = (whole + BLOCK - 1) / BLOCK;
    ChainState state{a.state.activation[member], a.state.scaled.mantissa[member], a.state.scaled.exponent[member]};
    a.state.product_before.mantissa[member] = a.state.bound_before.mantissa[member] = 0.5;
    a.state.product_before.exponent[member] = a.state.bound_before.exponent[member] = 1;
    int64_t row = a.row - 1;

    Segment segments[BLOCK];
    int count = 0;
    const auto run_alone = [&](int64_t first, int64_t last) {
        if (first >= last) return;
        Segment alone{first, last, state, {}};
        run_segments<Phi, 1>(a, member, &alone, 1, 0, pieces);
        combine(a, member, alone, 0, pieces, row);
        state = alone.end;
    };
    // With more than one recorded link in eight, segments do not pay.
    const bool cut = whole >= 4 && record * 8 < a.last - a.first && can_be_guessed(a, state);
    if (!cut) {
        run_alone(a.first, a.last);
    } else {
        run_alone(a.first, begin);
        const int64_t end = begin + whole * PRODUCT_LINKS;
        for (int64_t first = begin; first < end; first += each * PRODUCT_LINKS, ++count) {
            const int64_t last = first + each * PRODUCT_LINKS < end ? first + each * PRODUCT_LINKS : end;
            segments[count] = {first, last, state, {}};
        }
        burn_in<Phi>(a, member, state, 1.0, segments + 1, count - 1);
        run_segments<Phi, VECTORS>(a, member, segments, count, 0, pieces);
        if (is_centered(a) && correct_signs<Phi>(a, member, state, segments, count))
            run_segments<Phi, VECTORS>(a, member, segments, count, 0, pieces);
        for (int i = 0; i < count; ++i) {
            if (i > 0 && !same_bits(segments[i].begin, segments[i - 1].end)) {
                segments[i].begin = segments[i - 1].end;
                run_segments<Phi, 1>(a, member, segments + i, 1, i, pieces);
            }
            combine(a, member, segments[i], i, pieces, row);
        }
        state = segments[count - 1].end;
        run_alone(end, a.last);
    }
    a.state.activation[member] = state.activation;
    a.state.scaled.mantissa[member] = state.mantissa;
    a.state.scaled.exponent[member] = state.exponent;
    __builtin_free(memory);
    return OK;
}

template <class Phi>
static Status propagate(const PropagateJob& job) {
    const int64_t count = job.stop - job.start;
    if (count <= BLOCK / 2 && job.last - job.first >= 8 * PRODUCT_LINKS) {
        for (int64_t member = job.start; member < job.stop; ++member)
            if (propagate_deep<Phi>(job, member) != OK) return NO_MEMORY;
        return OK;
    }
    for (int64_t begin = job.start; begin < job.stop; begin += BLOCK) {
        const int lanes = (int)min(job.stop - begin, BLOCK);
        (lanes > VECTOR_LANES ? propagate_abreast<Phi, VECTORS> : propagate_abreast<Phi, 1>)(job, begin, lanes);
    }
    return OK;
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
