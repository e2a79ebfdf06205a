// grow: drawn chains, streamed forward in O(record) memory. The contract and the formulas are in
// fastgrad/kernels/__init__.py; the stages and names are those of reference.py and jit.py.
//
// An ensemble runs in blocks of chains side by side. A chain that has too few companions to fill the vectors is cut in
// depth: its segments run side by side, each but the first from a guess that is warmed up over the links before it, for
// the floating-point trajectories of a contracting chain become equal, bit for bit, whatever they start from. Then each
// segment's start is compared with the end of the one before, and a segment that differs is run again from there.
#pragma once

#include "draws.h"
#include "jobs.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

// Products are taken over whole blocks of links first, and then over the blocks: a segment of whole blocks can then be
// multiplied out by itself, and the bits don't depend on how a chain was cut.
constexpr int64_t LINK_BLOCK = 1024;

// What a vector of chains carries from link to link.
struct Running {
    Floats activation;
    Scaled scaled;           // the activation, where `narrow` says that a double can't hold it
    bool narrow;
    Scaled gap, bound;       // products since the last mark or block
    bool wide_products;      // some product is zero or near the smallest exponent
};

struct Marked {
    Floats weight;
    Scaled input, derivative;
};

FASTGRAD_INLINE Scaled scaled_activation(const Running& s) {
    return s.narrow ? split(s.activation) : normalize(s.scaled.mantissa, s.scaled.exponent);
}

FASTGRAD_INLINE void clear_products(Running& s) {
    s.gap = s.bound = one();
    s.wide_products = false;
}

FASTGRAD_INLINE Running running(Floats activation, Scaled scaled) {
    Running s{activation, scaled, false, {}, {}, false};
    clear_products(s);
    return s;
}

// One link: z = w o + b, o = sigmoid(z), and the products grow by w sigmoid'(z) and |w| / 4.
FASTGRAD_INLINE void advance(Running& s, Floats w, Floats b) {
    const Floats z = w * s.activation + b;
    const Floats size = absolute(w);
    if (!s.wide_products && all(narrow(EVERY, z, w))) {
        const NarrowLink next = sigmoid_narrow(z);
        s.activation = next.activation;
        s.narrow = true;
        s.gap = normalize_narrow((s.gap.mantissa * next.derivative) * w, s.gap.exponent);
        s.bound = normalize_narrow(s.bound.mantissa * size, s.bound.exponent - 2);
    } else {
        const Link next = sigmoid(z);
        const Scaled factor = split(w);
        s.activation = next.activation;
        s.scaled = {next.mantissa, next.exponent};
        s.narrow = false;
        const Scaled delta = times(s.gap, next.derivative, next.derivative_exponent);
        s.gap = times(delta, factor.mantissa, factor.exponent);
        s.bound = times(s.bound, absolute(factor.mantissa), factor.exponent - 2);
        s.wide_products = any((s.gap.mantissa == 0.0) | (s.gap.exponent < EXPONENT_MIN / 2) | (s.bound.mantissa == 0.0));
    }
}

// What a recorded link leaves, before the chain advances over it.
FASTGRAD_INLINE Marked at_mark(const Running& s, Floats w, Floats b) {
    const Link next = sigmoid(w * s.activation + b);
    return {w, scaled_activation(s), normalize(next.derivative, next.derivative_exponent)};
}

FASTGRAD_INLINE void store(ScaledPointer to, int64_t cell, Scaled v, int n) {
    store(to.mantissa + cell, v.mantissa, n);
    store(to.exponent + cell, v.exponent, n);
}

FASTGRAD_INLINE Scaled load(ScaledPointer from, int64_t cell, int n) {
    return {load(from.mantissa + cell, n, 0.5), load(from.exponent + cell, n)};
}

FASTGRAD_INLINE void multiply(ScaledPointer to, int64_t cell, Scaled v, int n) {
    store(to, cell, times(load(to, cell, n), v.mantissa, v.exponent), n);
}

FASTGRAD_INLINE void record_mark(const GrowJob& a, int64_t cell, const Marked& marked, int n) {
    store(a.weight + cell, marked.weight, n);
    store(a.input, cell, marked.input, n);
    store(a.derivative, cell, marked.derivative, n);
    store(a.gap, cell, one(), n);
    store(a.bound, cell, one(), n);
}

// Chains side by side: members begin to begin + count - 1, at most 32 of them.
static void grow_abreast(const GrowJob& a, int64_t begin, int count) {
    Running s[VECTORS];
    Words member[VECTORS];
    const int vectors = (count + LANES - 1) / LANES;
    for (int j = 0; j < vectors; ++j) {
        const int n = count - j * LANES < LANES ? count - j * LANES : LANES;
        const int64_t cell = begin + j * LANES;
        for (int i = 0; i < LANES; ++i) member[j][i] = (uint64_t)(cell + i);
        s[j] = running(load(a.activation + cell, n, 0.5), load(a.scaled, cell, n));
        store(a.carry_gap, cell, one(), n);
        store(a.carry_bound, cell, one(), n);
    }
    int64_t row = a.row - 1;  // of the last mark passed in this call; before the first, the carry
    bool carried = true;
    for (int64_t link = a.first; link < a.last; ++link) {
        const bool marked = row + 1 < a.record && a.marks[row + 1] == link;
        const bool block_ends = link % LINK_BLOCK == 0 || link + 1 == a.last;
        if (marked) ++row;
        for (int j = 0; j < vectors; ++j) {
            const int n = count - j * LANES < LANES ? count - j * LANES : LANES;
            const Pair drawn = draw(a.weight_law, a.bias_law, a.seed, Words{} + (uint64_t)link, member[j]);
            if (marked) {
                const int64_t above = carried ? begin + j * LANES : (row - 1) * a.ensemble + begin + j * LANES;
                multiply(carried ? a.carry_gap : a.gap, above, s[j].gap, n);
                multiply(carried ? a.carry_bound : a.bound, above, s[j].bound, n);
                record_mark(a, row * a.ensemble + begin + j * LANES, at_mark(s[j], drawn.first, drawn.second), n);
            }
            advance(s[j], drawn.first, drawn.second);
            if (marked) clear_products(s[j]);
            if (block_ends) {
                const bool to_carry = carried && !marked;
                const int64_t cell = to_carry ? begin + j * LANES : row * a.ensemble + begin + j * LANES;
                multiply(to_carry ? a.carry_gap : a.gap, cell, s[j].gap, n);
                multiply(to_carry ? a.carry_bound : a.bound, cell, s[j].bound, n);
                clear_products(s[j]);
            }
        }
        if (marked) carried = false;
    }
    for (int j = 0; j < vectors; ++j) {
        const int n = count - j * LANES < LANES ? count - j * LANES : LANES;
        const int64_t cell = begin + j * LANES;
        store(a.activation + cell, s[j].activation, n);
        store(a.scaled, cell, scaled_activation(s[j]), n);
    }
}

// The state of one chain between two links.
struct State {
    double activation, mantissa;
    int64_t exponent;
};

FASTGRAD_INLINE bool same_bits(const State& a, const State& b) { return __builtin_memcmp(&a, &b, sizeof a) == 0; }

// A run of links of one chain.
struct Segment {
    int64_t first, last;
    State begin, end;
};

// Room for what the segments of one call leave.
struct Pieces {
    double *gap_mantissa, *bound_mantissa;    // (blocks, SEGMENTS): the product of a block's links since its last mark
    int64_t *gap_exponent, *bound_exponent;
    double *mark_gap_mantissa, *mark_bound_mantissa;  // (record,): of a block's links before a mark, since the one before
    int64_t *mark_gap_exponent, *mark_bound_exponent;
};

constexpr int64_t NEVER = INT64_MAX;

FASTGRAD_INLINE int64_t first_mark(const GrowJob& a, int64_t link) {
    int64_t row = a.row;
    while (row < a.record && a.marks[row] < link) ++row;
    return row;
}

// Runs segments side by side, one in each lane; more than one only if each begins a block. `column` is the first one's
// place among the pieces.
static void run_segments(const GrowJob& a, int64_t member, Segment* segments, int count, int column, const Pieces& pieces) {
    Running s[VECTORS];
    Words link[VECTORS];
    int64_t next_mark[SEGMENTS], event[SEGMENTS], length = 0;
    const int vectors = (count + LANES - 1) / LANES;
    for (int i = 0; i < vectors * LANES; ++i) {
        const Segment& from = segments[i < count ? i : count - 1];
        Running& lane = s[i / LANES];
        lane.activation[i % LANES] = from.begin.activation;
        lane.scaled.mantissa[i % LANES] = from.begin.mantissa;
        lane.scaled.exponent[i % LANES] = from.begin.exponent;
        link[i / LANES][i % LANES] = (uint64_t)from.first;
    }
    for (int j = 0; j < vectors; ++j) s[j] = running(s[j].activation, s[j].scaled);
    for (int i = 0; i < count; ++i) {
        next_mark[i] = first_mark(a, segments[i].first);
        event[i] = 0;  // found below, at the first step
        if (segments[i].last - segments[i].first > length) length = segments[i].last - segments[i].first;
    }
    // An event of a lane is a step at which it stands before a marked link, or has come to its end.
    int64_t next_event = 0, block = 0;
    for (int64_t step = 0; step <= length; ++step) {
        bool events = step == next_event;
        if (events) {
            events = false;
            next_event = NEVER;
            for (int i = 0; i < count; ++i) {
                const Segment& of = segments[i];
                const int64_t here = of.first + step;
                if (here == of.last) {
                    const Running& lane = s[i / LANES];
                    const Scaled scaled = scaled_activation(lane);
                    segments[i].end = {lane.activation[i % LANES], scaled.mantissa[i % LANES], scaled.exponent[i % LANES]};
                }
                event[i] = NEVER;
                if (here >= of.last) continue;
                if (next_mark[i] < a.record && a.marks[next_mark[i]] == here) {
                    event[i] = step;
                    events = true;
                    next_event = step + 1;
                } else {
                    const int64_t mark = next_mark[i] < a.record ? a.marks[next_mark[i]] : NEVER;
                    const int64_t at = (mark < of.last ? mark : of.last) - of.first;
                    if (at < next_event) next_event = at;
                }
            }
            if (step == length) break;
        }
        const bool block_ends = (segments[0].first + step) % LINK_BLOCK == 0 || (count == 1 && step + 1 == length);
        for (int j = 0; j < vectors; ++j) {
            const Pair drawn = draw(a.weight_law, a.bias_law, a.seed, link[j], Words{} + (uint64_t)member);
            link[j] += 1;
            if (!events) {
                advance(s[j], drawn.first, drawn.second);
            } else {
                const Marked marked = at_mark(s[j], drawn.first, drawn.second);
                const Running before = s[j];
                advance(s[j], drawn.first, drawn.second);
                for (int i = 0; i < LANES && j * LANES + i < count; ++i) {
                    if (event[j * LANES + i] != step) continue;
                    const int64_t row = next_mark[j * LANES + i]++;
                    const int64_t cell = row * a.ensemble + member;
                    a.weight[cell] = marked.weight[i];
                    a.input.mantissa[cell] = marked.input.mantissa[i];
                    a.input.exponent[cell] = marked.input.exponent[i];
                    a.derivative.mantissa[cell] = marked.derivative.mantissa[i];
                    a.derivative.exponent[cell] = marked.derivative.exponent[i];
                    pieces.mark_gap_mantissa[row - a.row] = before.gap.mantissa[i];
                    pieces.mark_gap_exponent[row - a.row] = before.gap.exponent[i];
                    pieces.mark_bound_mantissa[row - a.row] = before.bound.mantissa[i];
                    pieces.mark_bound_exponent[row - a.row] = before.bound.exponent[i];
                    s[j].gap.mantissa[i] = s[j].bound.mantissa[i] = 0.5;
                    s[j].gap.exponent[i] = s[j].bound.exponent[i] = 1;
                }
            }
            if (block_ends) {
                for (int i = 0; i < LANES && j * LANES + i < count; ++i) {
                    const int64_t piece = block * SEGMENTS + column + j * LANES + i;
                    pieces.gap_mantissa[piece] = s[j].gap.mantissa[i];
                    pieces.gap_exponent[piece] = s[j].gap.exponent[i];
                    pieces.bound_mantissa[piece] = s[j].bound.mantissa[i];
                    pieces.bound_exponent[piece] = s[j].bound.exponent[i];
                }
                clear_products(s[j]);
            }
        }
        if (block_ends) ++block;
    }
}

FASTGRAD_INLINE void multiply_piece(ScaledPointer to, int64_t cell, double mantissa, int64_t exponent) {
    multiply(to, cell, {all_of(mantissa), all_of(exponent)}, 1);
}

// Multiplies a segment's pieces onto the gaps, in the order of the links. `row` is the last mark passed.
static void combine(const GrowJob& a, int64_t member, const Segment& of, int column, const Pieces& pieces, int64_t& row) {
    int64_t link = of.first;
    for (int64_t block = 0; link < of.last; ++block) {
        int64_t end = ((link - 1) / LINK_BLOCK + 1) * LINK_BLOCK + 1;
        if (end > of.last) end = of.last;
        while (true) {
            const bool carried = row < a.row;
            const ScaledPointer gap = carried ? a.carry_gap : a.gap, bound = carried ? a.carry_bound : a.bound;
            const int64_t cell = carried ? member : row * a.ensemble + member;
            if (row + 1 < a.record && a.marks[row + 1] < end) {
                ++row;
                const int64_t mark = row - a.row, at = row * a.ensemble + member;
                multiply_piece(gap, cell, pieces.mark_gap_mantissa[mark], pieces.mark_gap_exponent[mark]);
                multiply_piece(bound, cell, pieces.mark_bound_mantissa[mark], pieces.mark_bound_exponent[mark]);
                a.gap.mantissa[at] = a.bound.mantissa[at] = 0.5;
                a.gap.exponent[at] = a.bound.exponent[at] = 1;
            } else {
                const int64_t piece = block * SEGMENTS + column;
                multiply_piece(gap, cell, pieces.gap_mantissa[piece], pieces.gap_exponent[piece]);
                multiply_piece(bound, cell, pieces.bound_mantissa[piece], pieces.bound_exponent[piece]);
                break;
            }
        }
        link = end;
    }
}

// Guesses each segment's start by running the links that lead to it, from 1/2.
static void warm_up(const GrowJob& a, int64_t member, Segment* segments, int count) {
    for (int from = 0; from < count; from += LANES) {
        const int n = count - from < LANES ? count - from : LANES;
        Running s = running(all_of(0.5), one());
        Words link{};
        for (int i = 0; i < n; ++i) link[i] = (uint64_t)(segments[from + i].first - WARM_UP);
        for (int64_t step = 0; step < WARM_UP; ++step) {
            const Pair drawn = draw(a.weight_law, a.bias_law, a.seed, link, Words{} + (uint64_t)member);
            advance(s, drawn.first, drawn.second);
            link += 1;
        }
        const Scaled scaled = scaled_activation(s);
        for (int i = 0; i < n; ++i)
            segments[from + i].begin = {s.activation[i], scaled.mantissa[i], scaled.exponent[i]};
    }
}

// One chain, cut in depth.
static Outcome grow_deep(const GrowJob& a, int64_t member) {
    const int64_t blocks = (a.last - 1) / LINK_BLOCK - (a.first - 1) / LINK_BLOCK + 1;
    const int64_t marks = first_mark(a, a.last) - a.row;
    const int64_t room = blocks * SEGMENTS + marks;
    double* const memory = (double*)__builtin_malloc((size_t)(room * 32));
    if (!memory) return NO_MEMORY;
    int64_t* const integers = (int64_t*)memory + 2 * room;
    const Pieces pieces{memory,   memory + room,   integers, integers + room, memory + blocks * SEGMENTS,
                        memory + room + blocks * SEGMENTS, integers + blocks * SEGMENTS, integers + room + blocks * SEGMENTS};

    // The links before the first whole block and after the last run by themselves, the blocks between in segments.
    const int64_t aligned = ((a.first - 1 + LINK_BLOCK - 1) / LINK_BLOCK) * LINK_BLOCK + 1;
    const int64_t begin = aligned < a.last ? aligned : a.last;
    const int64_t whole = (a.last - begin) / LINK_BLOCK;
    const int64_t each = (whole + SEGMENTS - 1) / SEGMENTS;
    State state{a.activation[member], a.scaled.mantissa[member], a.scaled.exponent[member]};
    a.carry_gap.mantissa[member] = a.carry_bound.mantissa[member] = 0.5;
    a.carry_gap.exponent[member] = a.carry_bound.exponent[member] = 1;
    int64_t row = a.row - 1;

    Segment segments[SEGMENTS];
    int count = 0;
    const auto run_alone = [&](int64_t first, int64_t last) {
        if (first >= last) return;
        Segment alone{first, last, state, {}};
        run_segments(a, member, &alone, 1, 0, pieces);
        combine(a, member, alone, 0, pieces, row);
        state = alone.end;
    };
    // Marks as dense as that leave nothing to gain.
    const bool cut = whole >= 4 && marks * 8 < a.last - a.first;
    if (!cut) {
        run_alone(a.first, a.last);
    } else {
        run_alone(a.first, begin);
        const int64_t end = begin + whole * LINK_BLOCK;
        for (int64_t first = begin; first < end; first += each * LINK_BLOCK, ++count) {
            const int64_t last = first + each * LINK_BLOCK < end ? first + each * LINK_BLOCK : end;
            segments[count] = {first, last, state, {}};
        }
        warm_up(a, member, segments + 1, count - 1);
        run_segments(a, member, segments, count, 0, pieces);
        for (int i = 0; i < count; ++i) {
            if (i > 0 && !same_bits(segments[i].begin, segments[i - 1].end)) {
                segments[i].begin = segments[i - 1].end;
                run_segments(a, member, segments + i, 1, i, pieces);
            }
            combine(a, member, segments[i], i, pieces, row);
        }
        state = segments[count - 1].end;
        run_alone(end, a.last);
    }
    a.activation[member] = state.activation;
    a.scaled.mantissa[member] = state.mantissa;
    a.scaled.exponent[member] = state.exponent;
    __builtin_free(memory);
    return DONE;
}

static Outcome grow(const GrowJob& job) {
    const int64_t count = job.stop - job.start;
    if (count <= SEGMENTS / 2 && job.last - job.first >= 8 * LINK_BLOCK) {
        for (int64_t member = job.start; member < job.stop; ++member)
            if (grow_deep(job, member) != DONE) return NO_MEMORY;
        return DONE;
    }
    for (int64_t begin = job.start; begin < job.stop; begin += SEGMENTS)
        grow_abreast(job, begin, job.stop - begin < SEGMENTS ? (int)(job.stop - begin) : SEGMENTS);
    return DONE;
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
