// backprop: the gradients of given chains. The contract and the formulas are in fastgrad/kernels/contract.py; the
// stages and names are those of fastgrad/kernels/reference and fastgrad/kernels/jit.
//
// A block of lanes runs forward through a segment of links and back again, so that what reverse mode keeps, the tape,
// stays in the second-level cache: of each link activation, derivative, and a copy of the weight. While one segment
// goes back, the next one to be run goes forward: the arithmetic of the one fills the time in which the other waits.
// The lanes are
// - a block of chains, where they lie. Chains deeper than one segment are first run forward without a tape, for the
//   state in which each segment starts; then segment after segment, from the last one;
// - fewer chains than lanes, in a copy;
// - the segments of one deep chain, in a copy. Their starts come from runs that go side by side through the whole
//   depth, each but the first from a guess that is burnt in over the links before it; then each guess is compared, bit
//   for bit, with the end of the run before, and a run that differs is run again (as in propagate.h).
#pragma once

#include "arena.h"
#include "forward.h"
#include "jobs.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

constexpr int64_t TAPE_DOUBLES = 3 * BLOCK;  // of a link on a tape: o_l, phi'(z_l) and w_l of each lane

// The values of a segment's links that reverse mode keeps. Pointers to link 0; the next one lies `step` rows further on, or
// before.
struct Tape {
    double* row;         // (links, TAPE_DOUBLES)
    int64_t* exponent;   // (links, block)   of links in extended range: Phi::pack_exponents
    uint32_t* extended;  // (links,)         bit j where vector j is in extended range
    int64_t step;
};

// Links in memory. Pointers to link 0 of lane 0; the next link lies `stride` further on, the next lane beside.
struct Links {
    const double *weight, *bias;
    ScaledArrays grad_weight, grad_bias;
    int64_t stride;
};

FASTGRAD_INLINE Links operator+(const Links& links, int64_t cells) {
    return {links.weight + cells, links.bias + cells, links.grad_weight + cells, links.grad_bias + cells, links.stride};
}

// A segment of a block's links, and what its lanes carry from link to link.
struct TapedSegment {
    Links links;
    Tape tape;
    int64_t count;       // of links
    bool input_on_tape;  // the row before that of link 0 holds the activation before it
    Scaled input[VECTORS];
    Floats activation[VECTORS];
    // The adjoint on its way back: renormalized, or times a weight in range.
    Scaled adjoint[VECTORS];
    uint32_t extended;  // bit j where adjoint j needs extended range
};

// Is any lane of either infinite or not a number? Such values are never in range, so that only extended range asks.
FASTGRAD_INLINE bool not_finite(Floats a, Floats b) {
    return any(~((abs(a) <= __DBL_MAX__) & (abs(b) <= __DBL_MAX__)));
}

FASTGRAD_INLINE void write_tape(double* slot, Floats activation, Floats derivative, Floats weight) {
    store(slot, activation);
    store(slot + BLOCK, derivative);
    store(slot + 2 * BLOCK, weight);
}

// Stores a link's gradients, past the cache with STREAM.
template <bool STREAM>
FASTGRAD_INLINE void store_gradients(const Links& out, int64_t cell, Scaled delta, Scaled grad_weight) {
    if (STREAM) {
        stream(out.grad_bias + cell, delta);
        stream(out.grad_weight + cell, grad_weight);
    } else {
        store(out.grad_bias + cell, delta);
        store(out.grad_weight + cell, grad_weight);
    }
}

// Link i of a segment, forward, for every range. Returns whether every weight and bias was finite.
template <class Phi>
static bool forward_row(TapedSegment& at, int64_t i) {
    bool finite = true;
    at.tape.extended[i * at.tape.step] = 0;
    for (int j = 0; j < VECTORS; ++j) {
        const int64_t cell = i * at.links.stride + j * VECTOR_LANES;
        double* const slot = at.tape.row + i * at.tape.step * TAPE_DOUBLES + j * VECTOR_LANES;
        const Floats w = load(at.links.weight + cell), b = load(at.links.bias + cell);
        const Floats z = w * at.activation[j] + b;
        if (all(in_range<Phi>(ALL, z, w))) {
            const Values next = Phi::in_range(z);
            write_tape(slot, next.activation, next.derivative, w);
            at.activation[j] = next.activation;
        } else {
            finite &= !not_finite(w, b);
            const ExtendedValues next = Phi::extended(z);
            write_tape(slot, next.mantissa, next.derivative, w);
            store(at.tape.exponent + i * at.tape.step * BLOCK + j * VECTOR_LANES, Phi::pack_exponents(z, next));
            at.tape.extended[i * at.tape.step] |= 1u << j;
            at.activation[j] = next.activation;
        }
    }
    return finite;
}

// Link i of a segment, back, for every range.
template <class Phi, bool STREAM>
static void backward_row(TapedSegment& at, int64_t i) {
    for (int j = 0; j < VECTORS; ++j) {
        const double* const slot = at.tape.row + i * at.tape.step * TAPE_DOUBLES + j * VECTOR_LANES;
        const int64_t* const exponent = at.tape.exponent + i * at.tape.step * BLOCK + j * VECTOR_LANES;
        Ints packed{};
        if (at.tape.extended[i * at.tape.step] >> j & 1) packed = load(exponent);
        Scaled o = at.input[j];
        if (i > 0 || at.input_on_tape) {
            o = {load(slot - at.tape.step * TAPE_DOUBLES), Ints{}};
            if (at.tape.extended[(i - 1) * at.tape.step] >> j & 1) {
                o.exponent = Phi::activation_exponent(load(exponent - at.tape.step * BLOCK));
            }
        }
        const Scaled adjoint = renormalize(at.adjoint[j].mantissa, at.adjoint[j].exponent);
        const Scaled delta = times(adjoint, load(slot + BLOCK), Phi::derivative_exponent(packed));
        at.adjoint[j] = times(delta, to_scaled(load(slot + 2 * BLOCK)));
        at.extended = (at.extended & ~(1u << j)) | (uint32_t)needs_extended(at.adjoint[j]) << j;
        store_gradients<STREAM>(at.links, i * at.links.stride + j * VECTOR_LANES, delta, times(delta, o));
    }
}

// Runs steps while they are in range, each a link of `back` from its end and a link of `ahead` from its start. Returns
// the step that is not, or `end`.
template <class Phi, bool FORWARD, bool BACKWARD, bool STREAM>
static int64_t rows_in_range(TapedSegment& ahead, TapedSegment& back, int64_t step, int64_t end) {
    if (BACKWARD && back.extended) return step;
    // Copies, so that no store can seem to change them.
    const Links from = ahead.links, to = back.links;
    const Tape tape = ahead.tape, tape_back = back.tape;
    const int64_t last = BACKWARD ? back.count - 1 : 0;
    const bool input_on_tape = BACKWARD && back.input_on_tape;
    Floats activation[VECTORS];
    Scaled adjoint[VECTORS];
    FASTGRAD_ROW(VECTORS) {
        if (FORWARD) activation[j] = ahead.activation[j];
        if (BACKWARD) adjoint[j] = {back.adjoint[j].mantissa, back.adjoint[j].exponent};
    }
    for (; step < end; ++step) {
        Floats w[VECTORS], z[VECTORS];
        if (FORWARD) {
            Mask is_in_range = ALL;
            const double* const weight = from.weight + step * from.stride;
            const double* const bias = from.bias + step * from.stride;
            FASTGRAD_ROW(VECTORS) {
                prefetch(weight + PREFETCH_LINKS * from.stride + j * VECTOR_LANES);
                prefetch(bias + PREFETCH_LINKS * from.stride + j * VECTOR_LANES);
                w[j] = load(weight + j * VECTOR_LANES);
                z[j] = w[j] * activation[j] + load(bias + j * VECTOR_LANES);
                is_in_range = in_range<Phi>(is_in_range, z[j], w[j]);
            }
            if (!all(is_in_range)) break;
        }
        const int64_t i = last - step;
        if (BACKWARD && i == 0 && !input_on_tape) break;
        if (BACKWARD && (tape_back.extended[i * tape_back.step] | tape_back.extended[(i - 1) * tape_back.step])) break;
        if (FORWARD) tape.extended[step * tape.step] = 0;
        double* const place = tape.row + step * tape.step * TAPE_DOUBLES;
        const double* const slot = tape_back.row + i * tape_back.step * TAPE_DOUBLES;
        const double* const before = slot - tape_back.step * TAPE_DOUBLES;
        FASTGRAD_ROW(VECTORS) {
            if (BACKWARD) {
                const Scaled delta = renormalize_in_range(adjoint[j].mantissa * load(slot + BLOCK + j * VECTOR_LANES),
                                                          adjoint[j].exponent);
                const Floats grad_weight = delta.mantissa * load(before + j * VECTOR_LANES);
                adjoint[j] = {delta.mantissa * load(slot + 2 * BLOCK + j * VECTOR_LANES), delta.exponent};
                store_gradients<STREAM>(to, i * to.stride + j * VECTOR_LANES, delta,
                                        renormalize_in_range(grad_weight, delta.exponent));
            }
            // Backward first: the forward pass then overwrites the row that the backward pass has just read.
            if (FORWARD) {
                const Values next = Phi::in_range(z[j]);
                write_tape(place + j * VECTOR_LANES, next.activation, next.derivative, w[j]);
                activation[j] = next.activation;
            }
        }
    }
    FASTGRAD_ROW(VECTORS) {
        if (FORWARD) ahead.activation[j] = activation[j];
        if (BACKWARD) {  // by members: GCC copies the struct in halves, for which the next loads would wait
            back.adjoint[j].mantissa = adjoint[j].mantissa;
            back.adjoint[j].exponent = adjoint[j].exponent;
        }
    }
    return step;
}

// Runs the steps `step` to `end` - 1 in range or in extended range. Returns whether every weight and bias was finite.
template <class Phi, bool FORWARD, bool BACKWARD, bool STREAM>
static bool run_rows(TapedSegment& ahead, TapedSegment& back, int64_t step, int64_t end) {
    bool finite = true;
    for (; step < end; ++step) {
        step = rows_in_range<Phi, FORWARD, BACKWARD, STREAM>(ahead, back, step, end);
        if (step == end) break;
        if (BACKWARD) backward_row<Phi, STREAM>(back, back.count - 1 - step);
        if (FORWARD) finite &= forward_row<Phi>(ahead, step);
    }
    return finite;
}

// Runs one segment forward and, at the same time, the one that went forward before it back. Returns whether every
// weight and bias was finite.
template <class Phi, bool STREAM>
static bool run_both(TapedSegment& ahead, TapedSegment& back) {
    const int64_t both = min(ahead.count, back.count);
    bool finite = run_rows<Phi, true, true, STREAM>(ahead, back, 0, both);
    finite &= run_rows<Phi, true, false, STREAM>(ahead, back, both, ahead.count);
    run_rows<Phi, false, true, STREAM>(ahead, back, both, back.count);
    return finite;
}

// States o of lanes, as doubles and as mantissa * 2^exponent.
struct LaneStates {
    double* activation;   // (lanes,)
    ScaledArrays scaled;  // (lanes,)
};

FASTGRAD_INLINE LaneStates operator+(LaneStates states, int64_t lanes) {
    return {states.activation + lanes, states.scaled + lanes};
}

FASTGRAD_INLINE void set_state(LaneStates to, int64_t lane, double activation) {
    to.activation[lane] = activation;
    set(to.scaled, lane, to_scaled(activation));
}

FASTGRAD_INLINE void copy_state(LaneStates to, int64_t at, LaneStates from, int64_t lane) {
    to.activation[at] = from.activation[lane];
    set(to.scaled, at, get(from.scaled, lane));
}

FASTGRAD_INLINE void load_activations(ForwardState& forward, LaneStates from) {
    for (int j = 0; j < VECTORS; ++j) forward.activation[j] = load(from.activation + j * VECTOR_LANES);
}

FASTGRAD_INLINE void store_states(LaneStates to, const ForwardState& forward) {
    for (int j = 0; j < VECTORS; ++j) {
        store(to.activation + j * VECTOR_LANES, forward.activation[j]);
        store(to.scaled + j * VECTOR_LANES, forward.scaled[j]);
    }
}

FASTGRAD_INLINE void start_segment(TapedSegment& at, LaneStates from) {
    for (int j = 0; j < VECTORS; ++j) {
        at.activation[j] = load(from.activation + j * VECTOR_LANES);
        at.input[j] = load(from.scaled + j * VECTOR_LANES);
    }
}

FASTGRAD_INLINE void mark_extended(TapedSegment& at) {
    at.extended = 0;
    for (int j = 0; j < VECTORS; ++j) at.extended |= (uint32_t)needs_extended(at.adjoint[j]) << j;
}

FASTGRAD_INLINE ScaledNumber adjoint_of(const TapedSegment& at, int64_t i) {
    const ScaledNumber adjoint = lane(at.adjoint, i);
    const Scaled scaled = renormalize(broadcast(adjoint.mantissa), broadcast(adjoint.exponent));
    return {scaled.mantissa[0], scaled.exponent[0]};
}

FASTGRAD_INLINE int64_t tape_bytes(int64_t rows) { return rows * (TAPE_DOUBLES + BLOCK) * 8 + Arena::size(rows * 4); }

FASTGRAD_INLINE Tape take_tape(Arena& arena, int64_t rows) {
    double* const row = arena.take<double>(rows * TAPE_DOUBLES);
    int64_t* const exponent = arena.take<int64_t>(rows * BLOCK);
    return {row, exponent, arena.take<uint32_t>(rows), 1};
}

FASTGRAD_INLINE int64_t states_bytes(int64_t lanes) { return Arena::size(lanes * 8) + Arena::scaled_bytes(lanes); }

FASTGRAD_INLINE LaneStates take_states(Arena& arena, int64_t lanes) {
    double* const activation = arena.take<double>(lanes);
    return {activation, arena.take_scaled(lanes)};
}

FASTGRAD_INLINE Tape tape_at(const Tape& tape, int64_t rows) {
    return {tape.row + rows * TAPE_DOUBLES, tape.exponent + rows * BLOCK, tape.extended + rows, tape.step};
}

// Two segments can share the memory of their tapes, if one lies in the opposite order of the other.
FASTGRAD_INLINE Tape mirrored(const Tape& tape, int64_t rows) {
    Tape last = tape_at(tape, rows - 1);
    last.step = -1;
    return last;
}

FASTGRAD_INLINE bool is_aligned(ScaledArrays to) {
    return ((uintptr_t)to.mantissa | (uintptr_t)to.exponent) % (8 * VECTOR_LANES) == 0;
}

FASTGRAD_INLINE Links links_at(const BackpropJob& job, int64_t link, int64_t member) {
    return Links{job.weight, job.bias, job.grad_weight, job.grad_bias, job.ensemble} + (link * job.ensemble + member);
}

FASTGRAD_INLINE bool can_stream(const Links& to) { return is_aligned(to.grad_weight) && is_aligned(to.grad_bias); }

// Whole blocks of chains: members begin to end - 1, where they lie.
template <class Phi>
static Status backprop_blocks(const BackpropJob& job, int64_t begin, int64_t end) {
    const int64_t rows = min(job.depth, IN_PLACE_SEGMENT);
    const int64_t segments = (job.depth + IN_PLACE_SEGMENT - 1) / IN_PLACE_SEGMENT;
    Arena arena(tape_bytes(rows) + states_bytes(segments * BLOCK));
    if (!arena.memory) return NO_MEMORY;
    const Tape tape = take_tape(arena, rows);
    const LaneStates starts = take_states(arena, segments * BLOCK);
    const bool is_streamed = job.ensemble % VECTOR_LANES == 0 && can_stream(links_at(job, 0, begin));
    const auto run = is_streamed ? run_both<Phi, true> : run_both<Phi, false>;
    bool finite = true, mirror = false;
    int64_t members_back = 0;      // the first of the block that goes back
    TapedSegment ahead{}, back{};  // none yet: no links
    const auto end_block = [&] {
        for (int i = 0; i < BLOCK; ++i) set(job.grad_x, members_back + i, adjoint_of(back, i));
    };
    for (int64_t members = begin; members < end; members += BLOCK) {
        for (int i = 0; i < BLOCK; ++i) set_state(starts, i, job.x[members + i]);
        for (int64_t s = 0; s + 1 < segments; ++s) {
            ForwardState forward;
            load_activations(forward, starts + s * BLOCK);
            const Links links = links_at(job, s * IN_PLACE_SEGMENT, members);
            advance_rows<Phi, false, VECTORS>(forward, links.weight, links.bias, links.stride, IN_PLACE_SEGMENT, true);
            store_states(starts + (s + 1) * BLOCK, forward);
        }
        for (int64_t s = segments - 1; s >= 0; --s, mirror = !mirror) {
            ahead.links = links_at(job, s * IN_PLACE_SEGMENT, members);
            ahead.tape = mirror ? mirrored(tape, rows) : tape;
            ahead.count = min(job.depth - s * IN_PLACE_SEGMENT, IN_PLACE_SEGMENT);
            ahead.input_on_tape = false;
            start_segment(ahead, starts + s * BLOCK);
            finite &= run(ahead, back);
            if (s == segments - 1) {
                if (back.count) end_block();
                members_back = members;
                for (int i = 0; i < BLOCK; ++i) {
                    job.output[members + i] = lane(ahead.activation, i);
                    set_lane(ahead.adjoint, i, to_scaled(job.cotangent[members + i]));
                }
            } else {
                for (int j = 0; j < VECTORS; ++j) ahead.adjoint[j] = back.adjoint[j];
            }
            mark_extended(ahead);
            back = ahead;
        }
    }
    ahead.count = 0;
    run(ahead, back);
    end_block();
    stream_end();
    return finite ? OK : NOT_FINITE;
}

// A copy of a few links, lanes side by side: weight and bias, or their gradients. It stays in the first-level cache.
struct Tile {
    alignas(64) double weight[TILE * BLOCK], bias[TILE * BLOCK];
    alignas(64) int64_t weight_exponent[TILE * BLOCK], bias_exponent[TILE * BLOCK];
    Tile() {
        for (int64_t i = 0; i < TILE * BLOCK; ++i) {
            weight[i] = 1.0;
            bias[i] = 0.0;
        }
    }
    ScaledArrays grad_weight() { return {weight, weight_exponent}; }
    ScaledArrays grad_bias() { return {bias, bias_exponent}; }
    Links links() { return {weight, bias, grad_weight(), grad_bias(), BLOCK}; }
};

// Layout of lanes whose links are copied.
struct LaneLayout {
    Links links;                // of lane 0
    int64_t lane_stride;        // in doubles
    int64_t count;              // of lanes
    int64_t prefetch_distance;  // in doubles, from what is copied to what will be copied next
};

FASTGRAD_INLINE LaneLayout at_link(LaneLayout lanes, int64_t link) {
    lanes.links = lanes.links + link * lanes.links.stride;
    return lanes;
}

// Copies `count` links into a tile. Lanes that are not there get those of lane 0, or keep what they have.
//
// tile     (TILE, block)   out
// from     of lane 0       in
FASTGRAD_INLINE void gather(double* tile, const double* from, const LaneLayout& lanes, int64_t count) {
    if (lanes.links.stride == 1 && count == TILE) {
        for (int i = 0; i < BLOCK; i += VECTOR_LANES)
            for (int64_t t = 0; t < TILE; t += VECTOR_LANES) {
                Floats v[VECTOR_LANES];
                for (int k = 0; k < VECTOR_LANES; ++k) {
                    const double* const line = from + t + (i + k < lanes.count ? (i + k) * lanes.lane_stride : 0);
                    prefetch(line + lanes.prefetch_distance);
                    v[k] = load(line);
                }
                transpose(v);
                for (int k = 0; k < VECTOR_LANES; ++k) store(tile + (t + k) * BLOCK + i, v[k]);
            }
        return;
    }
    for (int64_t t = 0; t < count; ++t)
        if (lanes.lane_stride == 1)
            __builtin_memcpy(tile + t * BLOCK, from + t * lanes.links.stride, (size_t)lanes.count * 8);
        else
            for (int i = 0; i < lanes.count; ++i)
                tile[t * BLOCK + i] = from[t * lanes.links.stride + i * lanes.lane_stride];
}

FASTGRAD_INLINE void gather(Tile& tile, const LaneLayout& lanes, int64_t count) {
    gather(tile.weight, lanes.links.weight, lanes, count);
    gather(tile.bias, lanes.links.bias, lanes, count);
}

// Writes share `share` of TILE equal ones of a whole tile, of one chain's segments, past the cache.
template <typename T>
FASTGRAD_INLINE void stream_share(T* to, const T* tile, const LaneLayout& lanes, int64_t share) {
    constexpr int64_t squares = BLOCK / VECTOR_LANES * (TILE / VECTOR_LANES);
    constexpr int64_t each = squares > TILE ? squares / TILE : 1;
    for (int64_t square = share * each; square < share * each + each && square < squares; ++square) {
        const int64_t i = square / (TILE / VECTOR_LANES) * VECTOR_LANES;
        const int64_t t = square % (TILE / VECTOR_LANES) * VECTOR_LANES;
        Floats v[VECTOR_LANES];
        for (int k = 0; k < VECTOR_LANES; ++k) v[k] = load((const double*)tile + (t + k) * BLOCK + i);
        transpose(v);
        for (int k = 0; k < VECTOR_LANES; ++k)
            if (i + k < lanes.count) stream((double*)to + (i + k) * lanes.lane_stride + t, v[k]);
    }
}

FASTGRAD_INLINE void stream_share(const LaneLayout& lanes, const Tile& tile, int64_t share) {
    // Where a tile has fewer squares than shares, two arrays take the first half of them, and two the other.
    constexpr int64_t squares = BLOCK / VECTOR_LANES * (TILE / VECTOR_LANES);
    const int64_t late = share - (squares < TILE ? TILE - squares : 0);
    stream_share(lanes.links.grad_weight.mantissa, tile.weight, lanes, share);
    stream_share(lanes.links.grad_weight.exponent, tile.weight_exponent, lanes, share);
    if (late < 0) return;
    stream_share(lanes.links.grad_bias.mantissa, tile.bias, lanes, late);
    stream_share(lanes.links.grad_bias.exponent, tile.bias_exponent, lanes, late);
}

// Copies `count` links of a tile back.
template <typename T>
FASTGRAD_INLINE void scatter(T* to, const T* tile, const LaneLayout& lanes, int64_t count) {
    for (int64_t t = 0; t < count; ++t)
        if (lanes.lane_stride == 1)
            __builtin_memcpy(to + t * lanes.links.stride, tile + t * BLOCK, (size_t)lanes.count * 8);
        else
            for (int i = 0; i < lanes.count; ++i)
                to[t * lanes.links.stride + i * lanes.lane_stride] = tile[t * BLOCK + i];
}

FASTGRAD_INLINE void scatter(const LaneLayout& lanes, const Tile& tile, int64_t count) {
    scatter(lanes.links.grad_weight.mantissa, tile.weight, lanes, count);
    scatter(lanes.links.grad_weight.exponent, tile.weight_exponent, lanes, count);
    scatter(lanes.links.grad_bias.mantissa, tile.bias, lanes, count);
    scatter(lanes.links.grad_bias.exponent, tile.bias_exponent, lanes, count);
}

// A whole segment of each lane forward, without a tape.
template <class Phi, bool PRODUCT>
static void advance_segment(ForwardState& forward, const LaneLayout& lanes) {
    Tile tile;
    for (int64_t t = 0; t < COPIED_SEGMENT; t += TILE) {
        gather(tile, at_link(lanes, t), TILE);
        const auto advance =
            lanes.count > VECTOR_LANES ? advance_rows<Phi, PRODUCT, VECTORS> : advance_rows<Phi, PRODUCT, 1>;
        advance(forward, tile.weight, tile.bias, BLOCK, TILE, t + TILE == COPIED_SEGMENT);
    }
}

// A segment of each lane, `count` links at most, forward and back. Returns whether every weight and bias was finite.
template <class Phi>
static bool run_segment(TapedSegment& at, const LaneLayout& lanes, int64_t count) {
    Tile tiles[2];
    TapedSegment none{};
    const Tape tape = at.tape;
    bool finite = true;
    for (int64_t t = 0; t < count; t += TILE) {
        at.count = min(count - t, TILE);
        at.links = tiles[0].links();
        at.tape = tape_at(tape, t);
        gather(tiles[0], at_link(lanes, t), at.count);
        finite &= run_rows<Phi, true, false, false>(at, none, 0, at.count);
    }
    mark_extended(at);
    // The gradients of one tile are written while the next one is computed.
    const bool is_streamed = lanes.links.stride == 1 && count == COPIED_SEGMENT && can_stream(lanes.links);
    for (int64_t t = (count - 1) / TILE * TILE; t >= 0; t -= TILE) {
        const int64_t parity = t / TILE % 2;
        at.count = min(count - t, TILE);
        at.tape = tape_at(tape, t);
        at.input_on_tape = t > 0;
        at.links = tiles[parity].links();
        if (!is_streamed) {
            run_rows<Phi, false, true, false>(none, at, 0, at.count);
            scatter(at_link(lanes, t), tiles[parity], at.count);
            continue;
        }
        for (int64_t i = 0; i < TILE; ++i) {
            run_rows<Phi, false, true, false>(none, at, i, i + 1);
            if (t + TILE < count) stream_share(at_link(lanes, t + TILE), tiles[1 - parity], i);
        }
    }
    if (is_streamed)
        for (int64_t i = 0; i < TILE; ++i) stream_share(lanes, tiles[0], i);
    at.tape = tape;
    return finite;
}

// Fewer chains than lanes: members begin to begin + count - 1.
template <class Phi>
static Status backprop_copied(const BackpropJob& job, int64_t begin, int64_t count) {
    const int64_t segments = (job.depth + COPIED_SEGMENT - 1) / COPIED_SEGMENT;
    Arena arena(tape_bytes(COPIED_SEGMENT) + states_bytes(segments * BLOCK));
    if (!arena.memory) return NO_MEMORY;
    TapedSegment at;
    at.tape = take_tape(arena, COPIED_SEGMENT);
    const LaneStates starts = take_states(arena, segments * BLOCK);
    const LaneLayout lanes{links_at(job, 0, begin), 1, count, 0};
    bool finite = true;
    for (int i = 0; i < BLOCK; ++i) {
        set_state(starts, i, i < count ? job.x[begin + i] : 0.5);
        set_lane(at.adjoint, i, to_scaled(i < count ? job.cotangent[begin + i] : 1.0));
    }
    for (int64_t s = 0; s + 1 < segments; ++s) {
        ForwardState forward;
        load_activations(forward, starts + s * BLOCK);
        advance_segment<Phi, false>(forward, at_link(lanes, s * COPIED_SEGMENT));
        store_states(starts + (s + 1) * BLOCK, forward);
    }
    for (int64_t s = segments - 1; s >= 0; --s) {
        const int64_t first = s * COPIED_SEGMENT;
        start_segment(at, starts + s * BLOCK);
        finite &= run_segment<Phi>(at, at_link(lanes, first), min(job.depth - first, COPIED_SEGMENT));
        if (s == segments - 1)
            for (int i = 0; i < count; ++i) job.output[begin + i] = lane(at.activation, i);
    }
    for (int i = 0; i < count; ++i) set(job.grad_x, begin + i, adjoint_of(at, i));
    stream_end();
    return finite ? OK : NOT_FINITE;
}

FASTGRAD_INLINE LaneStates starts_of(const SegmentsJob& job) { return {job.segments.activation, job.segments.scaled}; }
FASTGRAD_INLINE LaneStates end_of(const SegmentsJob& job) {
    return {job.segments.end_activation, job.segments.end_scaled};
}

// One deep chain, cut into segments.
struct SegmentedChain {
    Links links;           // of the whole chain
    int64_t end;           // one after the last segment of the run
    LaneStates starts;     // (segments,)   the state in which each begins
    ScaledArrays product;  // (segments,)   of w phi' over each
};

// Runs segments forward, `length` of them one after the other in each lane: lane i from segment first + i * spacing on,
// the last lane perhaps fewer.
//
// ends     (count,)      in, out   the state in which each lane begins, and then in which it ends
template <class Phi>
static void run_forward(const SegmentedChain& chain, int64_t first, int64_t spacing, int64_t count, int64_t length,
                        LaneStates ends) {
    ForwardState forward;
    load_activations(forward, ends);
    for (int64_t s = first; s < first + length; ++s) {
        const int64_t running = s + (count - 1) * spacing < chain.end ? count : count - 1;
        const LaneLayout lanes{chain.links, spacing * COPIED_SEGMENT * chain.links.stride, running, 4 * TILE};
        for (int64_t i = 0; i < running; ++i) copy_state(chain.starts, s + i * spacing, ends, i);
        begin_product(forward);
        advance_segment<Phi, true>(forward, at_link(lanes, s * COPIED_SEGMENT));
        for (int64_t i = 0; i < running; ++i) {
            ends.activation[i] = lane(forward.activation, i);
            set(ends.scaled, i, lane(forward.scaled, i));
            set(chain.product, s + i * spacing, lane(forward.product, i));
        }
    }
}

FASTGRAD_INLINE bool same_state(LaneStates a, int64_t i, LaneStates b, int64_t k) {
    return __builtin_memcmp(a.activation + i, b.activation + k, 8) == 0 &&
           a.scaled.mantissa[i] == b.scaled.mantissa[k] && a.scaled.exponent[i] == b.scaled.exponent[k];
}

// Burns lanes in over the segment before segment first + i * spacing each, from rest.
template <class Phi>
static void guess_states(const Links& links, int64_t first, int64_t spacing, int64_t count, LaneStates guesses) {
    for (int i = 0; i < BLOCK; ++i) set_state(guesses, i, Phi::REST);
    ForwardState forward;
    load_activations(forward, guesses);
    const LaneLayout lanes{links, spacing * COPIED_SEGMENT * links.stride, count, 0};
    advance_segment<Phi, false>(forward, at_link(lanes, (first - 1) * COPIED_SEGMENT));
    store_states(guesses, forward);
}

// The segments `first` to `last` - 1 forward, from a state that is known: each lane but the first is burnt in.
template <class Phi>
static Status forward_segments(const SegmentsJob& job) {
    const int64_t segments = job.last - job.first;
    const int64_t length = ((segments + BLOCK - 1) / BLOCK) | 1;  // odd: powers of two would collide in the cache
    const int64_t count = (segments + length - 1) / length;       // of lanes
    Arena arena(3 * states_bytes(BLOCK));
    if (!arena.memory) return NO_MEMORY;
    const LaneStates guesses = take_states(arena, BLOCK), ends = take_states(arena, BLOCK);
    const LaneStates alone = take_states(arena, BLOCK);
    const SegmentedChain chain{links_at(job.chains, 0, job.chains.start), job.last, starts_of(job),
                               job.segments.product};
    for (int i = 0; i < BLOCK; ++i) set_state(guesses, i, Phi::REST);
    if (count > 1) {
        guess_states<Phi>(chain.links, job.first + length, length, count - 1, ends);
        for (int64_t i = 1; i < count; ++i) copy_state(guesses, i, ends, i - 1);
    }
    copy_state(guesses, 0, chain.starts, job.first);
    for (int i = 0; i < BLOCK; ++i) copy_state(ends, i, guesses, i);
    run_forward<Phi>(chain, job.first, length, count, length, ends);
    for (int64_t i = 1; i < count; ++i) {
        if (same_state(guesses, i, ends, i - 1)) continue;
        const int64_t begin = job.first + i * length;
        copy_state(alone, 0, ends, i - 1);
        run_forward<Phi>(chain, begin, 0, 1, min(length, job.last - begin), alone);
        copy_state(ends, i, alone, 0);
    }
    copy_state(end_of(job), 0, ends, count - 1);
    return OK;
}

// The state before segment `first`, guessed.
template <class Phi>
static Status guess_segment(const SegmentsJob& job) {
    Arena arena(states_bytes(BLOCK));
    if (!arena.memory) return NO_MEMORY;
    const LaneStates guesses = take_states(arena, BLOCK);
    guess_states<Phi>(links_at(job.chains, 0, job.chains.start), job.first, 0, 1, guesses);
    copy_state(starts_of(job), job.first, guesses, 0);
    return OK;
}

// The adjoints at the ends of all segments, which are `last`, from the cotangent back: the links after them, which fill
// no segment, are run here, forward and back.
template <class Phi>
static Status define_adjoints(const SegmentsJob& job) {
    const BackpropJob& chains = job.chains;
    const int64_t member = chains.start, rest = chains.depth % COPIED_SEGMENT;
    Arena arena(tape_bytes(COPIED_SEGMENT) + states_bytes(BLOCK));
    if (!arena.memory) return NO_MEMORY;
    bool finite = true;
    ScaledNumber adjoint = to_scaled(chains.cotangent[member]);
    chains.output[member] = job.segments.end_activation[0];
    if (rest) {
        TapedSegment at;
        at.tape = take_tape(arena, COPIED_SEGMENT);
        const LaneStates alone = take_states(arena, BLOCK);
        for (int i = 0; i < BLOCK; ++i) {
            copy_state(alone, i, end_of(job), 0);
            set_lane(at.adjoint, i, adjoint);
        }
        start_segment(at, alone);
        finite = run_segment<Phi>(at, at_link({links_at(chains, 0, member), 0, 1, 0}, job.last * COPIED_SEGMENT), rest);
        chains.output[member] = lane(at.activation, 0);
        adjoint = adjoint_of(at, 0);
    }
    for (int64_t s = job.last - 1; s >= 0; --s) {
        set(job.segments.adjoint, s, adjoint);
        adjoint = times(adjoint, get(job.segments.product, s));
    }
    set(chains.grad_x, member, adjoint);
    return finite ? OK : NOT_FINITE;
}

// The gradients of the segments `first` to `last` - 1, a lane for each.
template <class Phi>
static Status backward_segments(const SegmentsJob& job) {
    Arena arena(tape_bytes(COPIED_SEGMENT) + states_bytes(BLOCK));
    if (!arena.memory) return NO_MEMORY;
    TapedSegment at;
    at.tape = take_tape(arena, COPIED_SEGMENT);
    const LaneStates begins = take_states(arena, BLOCK);
    const Links links = links_at(job.chains, 0, job.chains.start);
    bool finite = true;
    for (int64_t first = job.first + (job.last - job.first - 1) / BLOCK * BLOCK; first >= job.first; first -= BLOCK) {
        const int64_t distance = -BLOCK * COPIED_SEGMENT, count = min(job.last - first, BLOCK);
        for (int i = 0; i < BLOCK; ++i) {  // lanes that are not there do what the first one does
            const int64_t s = first + (i < count ? i : 0);
            copy_state(begins, i, starts_of(job), s);
            set_lane(at.adjoint, i, get(job.segments.adjoint, s));
        }
        start_segment(at, begins);
        const LaneLayout lanes{links, COPIED_SEGMENT * links.stride, count, distance};
        finite &= run_segment<Phi>(at, at_link(lanes, first * COPIED_SEGMENT), COPIED_SEGMENT);
    }
    stream_end();
    return finite ? OK : NOT_FINITE;
}

// A stage of one deep chain, `chains.start`. Its adjoints are defined segment by segment: at the end of each the
// cotangent times the products of the segments after it, within it link by link.
template <class Phi>
static Status backprop_segments(const SegmentsJob& job) {
    switch (job.stage) {
        case GUESS:
            return guess_segment<Phi>(job);
        case FORWARD:
            return forward_segments<Phi>(job);
        case ADJOINTS:
            return define_adjoints<Phi>(job);
        default:
            return backward_segments<Phi>(job);
    }
}

// One deep chain, all stages.
template <class Phi>
static Status backprop_deep(const BackpropJob& job, int64_t member) {
    const int64_t segments = job.depth / COPIED_SEGMENT, padded = (segments + BLOCK) / BLOCK * BLOCK;
    Arena arena(2 * states_bytes(padded) + 2 * Arena::scaled_bytes(padded));
    if (!arena.memory) return NO_MEMORY;
    const LaneStates starts = take_states(arena, padded), end = take_states(arena, BLOCK);
    SegmentsJob stages{};
    stages.chains = job;
    stages.chains.start = member, stages.chains.stop = member + 1;
    stages.segments.activation = starts.activation, stages.segments.scaled = starts.scaled;
    stages.segments.end_activation = end.activation, stages.segments.end_scaled = end.scaled;
    stages.segments.product = arena.take_scaled(padded), stages.segments.adjoint = arena.take_scaled(padded);
    stages.last = segments;
    set_state(starts, 0, job.x[member]);
    Status status = OK;
    for (int stage = FORWARD; stage <= BACKWARD; ++stage) {
        stages.stage = stage;
        const Status of_stage = backprop_segments<Phi>(stages);
        if (of_stage > status) status = of_stage;
    }
    return status;
}

// The gradients of the members start to stop - 1.
template <class Phi>
static Status backprop(const BackpropJob& job) {
    Status status = OK;
    const auto add = [&](Status of_members) {
        if (of_members > status) status = of_members;
    };
    if (job.ensemble <= SEGMENTED_ENSEMBLE_MAX && job.depth >= SEGMENTED_DEPTH_MIN) {
        for (int64_t member = job.start; member < job.stop; ++member) add(backprop_deep<Phi>(job, member));
        return status;
    }
    const int64_t whole = job.start + (job.stop - job.start) / BLOCK * BLOCK;
    if (whole > job.start) add(backprop_blocks<Phi>(job, job.start, whole));
    if (whole < job.stop) add(backprop_copied<Phi>(job, whole, job.stop - whole));
    return status;
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
