// backprop: the gradients of given chains. The contract and the formulas are in fastgrad/kernels/contract.py; the
// stages and names are those of reference.py and jit.py.
//
// Lanes of vectors, 32 side by side, are taken forward through a stretch of links and back again, so that what reverse
// mode keeps stays in the second-level cache: for each link activation, derivative, and a copy of the weight. While one
// stretch goes back, the next one to be run goes forward: the arithmetic of the one fills the time in which the other
// waits. What runs in the lanes is
// - a block of chains, where it lies. Chains deeper than one stretch are first run forward without keeping anything but
//   the state in which each stretch starts; then stretch after stretch, from the last one;
// - fewer chains than lanes, in a copy;
// - the segments of one deep chain, in a copy. Their starts come from runs that go side by side through the whole
//   depth, each but the first from a guess that is warmed up over the links before it; then each guess is compared, bit
//   for bit, with the end of the run before, and a run that differs is run again (as in propagate.h).
#pragma once

#include "forward.h"
#include "jobs.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

constexpr int64_t TAPE_DOUBLES = 3 * BLOCK; // doubles of a link

// Where a stretch keeps its links: a row of o_l, sigmoid'(z_l) and w_l of each lane; and of wide links the exponent k of
// exp(-|z_l|), with the sign of z_l. Pointers to link 0; the next one lies `step` rows further on, or before.
struct Tape {
    double* row;
    int64_t* exponent;
    uint32_t* extended;  // bit j where vector j is wide
    int64_t step;
};

// Links in memory: pointers to link 0 of lane 0; the next link lies `stride` further on, the next lane beside.
struct Links {
    const double *weight, *bias;
    double* grad_weight_mantissa;
    int64_t* grad_weight_exponent;
    double* grad_bias_mantissa;
    int64_t* grad_bias_exponent;
    int64_t stride;
};

// A stretch, and what its lanes carry from link to link.
struct TapedSegment {
    Links links;
    Tape tape;
    int64_t count;  // of links
    bool input_on_tape;   // a link whose kept row lies before that of link 0
    Scaled input[VECTORS];
    Floats activation[VECTORS];
    // The adjoint on its way back: normalized, or times a narrow weight.
    Floats adjoint[VECTORS];
    Ints exponent[VECTORS];
    uint32_t extended;  // bit j where vector j has a zero, or nears the smallest exponent: only the general formula may go on
};

// Is any lane of either infinite or not a number? Such values are never narrow: only the general path asks.
FASTGRAD_INLINE bool not_finite(Floats a, Floats b) {
    return any(~((abs(a) <= __DBL_MAX__) & (abs(b) <= __DBL_MAX__)));
}

FASTGRAD_INLINE void write_tape(double* slot, Floats activation, Floats derivative, Floats weight) {
    store(slot, activation);
    store(slot + BLOCK, derivative);
    store(slot + 2 * BLOCK, weight);
}

template <bool STREAM>
FASTGRAD_INLINE void store_gradients(const Links& out, int64_t cell, Scaled delta, Scaled grad_weight) {
    if (STREAM) {
        stream(out.grad_bias_mantissa + cell, delta.mantissa);
        stream(out.grad_bias_exponent + cell, delta.exponent);
        stream(out.grad_weight_mantissa + cell, grad_weight.mantissa);
        stream(out.grad_weight_exponent + cell, grad_weight.exponent);
    } else {
        store(out.grad_bias_mantissa + cell, delta.mantissa);
        store(out.grad_bias_exponent + cell, delta.exponent);
        store(out.grad_weight_mantissa + cell, grad_weight.mantissa);
        store(out.grad_weight_exponent + cell, grad_weight.exponent);
    }
}

// Link i of the stretch, forward. Returns whether every weight and bias was finite.
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
            store(at.tape.exponent + i * at.tape.step * BLOCK + j * VECTOR_LANES,
                  Phi::pack_exponents(z, next));
            at.tape.extended[i * at.tape.step] |= 1u << j;
            at.activation[j] = next.activation;
        }
    }
    return finite;
}

// Link i of the stretch, back.
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
        const Scaled adjoint = renormalize(at.adjoint[j], at.exponent[j]);
        const Scaled delta = times(adjoint, load(slot + BLOCK), Phi::derivative_exponent(packed));
        const Scaled factor = to_scaled(load(slot + 2 * BLOCK));
        const Scaled next = times(delta, factor.mantissa, factor.exponent);
        at.adjoint[j] = next.mantissa;
        at.exponent[j] = next.exponent;
        at.extended = (at.extended & ~(1u << j)) | (uint32_t)needs_extended(next) << j;
        store_gradients<STREAM>(at.links, i * at.links.stride + j * VECTOR_LANES, delta, times(delta, o.mantissa, o.exponent));
    }
}

// Steps, each a link of `back` from its end and a link of `ahead` from its start, while both are narrow. Returns the step
// that is not, or `end`.
template <class Phi, bool FORWARD, bool BACKWARD, bool STREAM>
static int64_t rows_in_range(TapedSegment& ahead, TapedSegment& back, int64_t step, int64_t end) {
    if (BACKWARD && back.extended) return step;
    // Copies, so that no store can seem to change them.
    const Links from = ahead.links, to = back.links;
    const Tape tape = ahead.tape, tape_back = back.tape;
    const int64_t last = BACKWARD ? back.count - 1 : 0;
    const bool input_on_tape = BACKWARD && back.input_on_tape;
    Floats activation[VECTORS], adjoint[VECTORS];
    Ints exponent[VECTORS];
    FASTGRAD_ROW(VECTORS) {
        if (FORWARD) activation[j] = ahead.activation[j];
        if (BACKWARD) {
            adjoint[j] = back.adjoint[j];
            exponent[j] = back.exponent[j];
        }
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
        if (BACKWARD && ((i == 0 && !input_on_tape) || (tape_back.extended[i * tape_back.step] | tape_back.extended[(i - 1) * tape_back.step]))) break;
        if (FORWARD) tape.extended[step * tape.step] = 0;
        double* const place = tape.row + step * tape.step * TAPE_DOUBLES;
        const double* const slot = tape_back.row + i * tape_back.step * TAPE_DOUBLES;
        const double* const before = slot - tape_back.step * TAPE_DOUBLES;
        FASTGRAD_ROW(VECTORS) {
            if (BACKWARD) {
                const Scaled delta = renormalize_in_range(adjoint[j] * load(slot + BLOCK + j * VECTOR_LANES), exponent[j]);
                const Floats grad_weight = delta.mantissa * load(before + j * VECTOR_LANES);
                adjoint[j] = delta.mantissa * load(slot + 2 * BLOCK + j * VECTOR_LANES);
                exponent[j] = delta.exponent;
                store_gradients<STREAM>(to, i * to.stride + j * VECTOR_LANES, delta, renormalize_in_range(grad_weight, delta.exponent));
            }
            // What goes back leaves its place to what goes forward: first the one, then the other.
            if (FORWARD) {
                const Values next = Phi::in_range(z[j]);
                write_tape(place + j * VECTOR_LANES, next.activation, next.derivative, w[j]);
                activation[j] = next.activation;
            }
        }
    }
    FASTGRAD_ROW(VECTORS) {
        if (FORWARD) ahead.activation[j] = activation[j];
        if (BACKWARD) {
            back.adjoint[j] = adjoint[j];
            back.exponent[j] = exponent[j];
        }
    }
    return step;
}

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

// Takes one stretch forward and, at the same time, the one before it back. Returns whether every weight and bias was finite.
template <class Phi, bool STREAM>
static bool run_segments(TapedSegment& ahead, TapedSegment& back) {
    const int64_t both = min(ahead.count, back.count);
    bool finite = run_rows<Phi, true, true, STREAM>(ahead, back, 0, both);
    finite &= run_rows<Phi, true, false, STREAM>(ahead, back, both, ahead.count);
    run_rows<Phi, false, true, STREAM>(ahead, back, both, back.count);
    return finite;
}

// Lane by lane: o as a double, and as mantissa * 2^exponent.
struct LaneStates {
    double *activation, *mantissa;
    int64_t* exponent;
};

FASTGRAD_INLINE LaneStates operator+(LaneStates states, int64_t lanes) {
    return {states.activation + lanes, states.mantissa + lanes, states.exponent + lanes};
}

FASTGRAD_INLINE void set_state(LaneStates to, int64_t lane, double activation) {
    const Scaled scaled = to_scaled(broadcast(activation));
    to.activation[lane] = activation;
    to.mantissa[lane] = scaled.mantissa[0];
    to.exponent[lane] = scaled.exponent[0];
}

FASTGRAD_INLINE void copy_state(LaneStates to, int64_t at, LaneStates from, int64_t lane) {
    to.activation[at] = from.activation[lane];
    to.mantissa[at] = from.mantissa[lane];
    to.exponent[at] = from.exponent[lane];
}

FASTGRAD_INLINE void load_activations(ForwardState& front, LaneStates from) {
    for (int j = 0; j < VECTORS; ++j) front.activation[j] = load(from.activation + j * VECTOR_LANES);
}

FASTGRAD_INLINE void store_states(LaneStates to, const ForwardState& front) {
    for (int j = 0; j < VECTORS; ++j) {
        store(to.activation + j * VECTOR_LANES, front.activation[j]);
        store(to.mantissa + j * VECTOR_LANES, front.scaled[j].mantissa);
        store(to.exponent + j * VECTOR_LANES, front.scaled[j].exponent);
    }
}

FASTGRAD_INLINE void start_stretch(TapedSegment& at, LaneStates from) {
    for (int j = 0; j < VECTORS; ++j) {
        at.activation[j] = load(from.activation + j * VECTOR_LANES);
        at.input[j] = {load(from.mantissa + j * VECTOR_LANES), load(from.exponent + j * VECTOR_LANES)};
    }
}

FASTGRAD_INLINE void set_adjoint(TapedSegment& at, int64_t lane, Scaled adjoint) {
    at.adjoint[lane / VECTOR_LANES][lane % VECTOR_LANES] = adjoint.mantissa[0];
    at.exponent[lane / VECTOR_LANES][lane % VECTOR_LANES] = adjoint.exponent[0];
}

FASTGRAD_INLINE void mark_extended(TapedSegment& at) {
    at.extended = 0;
    for (int j = 0; j < VECTORS; ++j) at.extended |= (uint32_t)needs_extended({at.adjoint[j], at.exponent[j]}) << j;
}

FASTGRAD_INLINE Scaled adjoint_of(const TapedSegment& at, int64_t lane) {
    return renormalize(broadcast(at.adjoint[lane / VECTOR_LANES][lane % VECTOR_LANES]), broadcast(at.exponent[lane / VECTOR_LANES][lane % VECTOR_LANES]));
}

// One piece of memory for a call, handed out in cache lines. What is asked for must be known beforehand.
struct Arena {
    char *memory, *next;
    explicit Arena(int64_t bytes) : memory((char*)__builtin_malloc((size_t)bytes + 64)) {
        next = (char*)(((uintptr_t)memory + 63) / 64 * 64);
    }
    ~Arena() { __builtin_free(memory); }
    static int64_t size(int64_t bytes) { return (bytes + 63) / 64 * 64; }
    template <typename T>
    T* take(int64_t count) {
        T* const taken = (T*)next;
        next += size(count * (int64_t)sizeof(T));
        return taken;
    }
    static int64_t tape_bytes(int64_t rows) { return rows * (TAPE_DOUBLES + BLOCK) * 8 + size(rows * 4); }
    Tape take_tape(int64_t rows) {
        double* const row = take<double>(rows * TAPE_DOUBLES);
        int64_t* const exponent = take<int64_t>(rows * BLOCK);
        return {row, exponent, take<uint32_t>(rows), 1};
    }
    static int64_t states_bytes(int64_t lanes) { return 3 * size(lanes * 8); }
    LaneStates take_states(int64_t lanes) {
        double* const activation = take<double>(lanes);
        double* const mantissa = take<double>(lanes);
        return {activation, mantissa, take<int64_t>(lanes)};
    }
};

// Two stretches can share what they keep, if one lies in the opposite order of the other.
FASTGRAD_INLINE Tape mirrored(const Tape& tape, int64_t rows) {
    return {tape.row + (rows - 1) * TAPE_DOUBLES, tape.exponent + (rows - 1) * BLOCK, tape.extended + rows - 1, -1};
}

FASTGRAD_INLINE Tape tape_at(const Tape& tape, int64_t links) {
    return {tape.row + links * TAPE_DOUBLES, tape.exponent + links * BLOCK, tape.extended + links, tape.step};
}

FASTGRAD_INLINE bool is_aligned(const void* pointer) { return (uintptr_t)pointer % (8 * VECTOR_LANES) == 0; }

FASTGRAD_INLINE Links links_at(const BackpropJob& job, int64_t link, int64_t member) {
    const int64_t cell = link * job.ensemble + member;
    return {job.weight + cell,
            job.bias + cell,
            job.grad_weight.mantissa + cell,
            job.grad_weight.exponent + cell,
            job.grad_bias.mantissa + cell,
            job.grad_bias.exponent + cell,
            job.ensemble};
}

FASTGRAD_INLINE bool can_stream(const Links& to) {
    return to.stride % VECTOR_LANES == 0 && is_aligned(to.grad_weight_mantissa) && is_aligned(to.grad_weight_exponent) &&
           is_aligned(to.grad_bias_mantissa) && is_aligned(to.grad_bias_exponent);
}

FASTGRAD_INLINE void store_grad_x(const BackpropJob& job, int64_t member, Scaled adjoint) {
    job.grad_x.mantissa[member] = adjoint.mantissa[0];
    job.grad_x.exponent[member] = adjoint.exponent[0];
}

// Whole blocks of chains: members begin to end - 1, where they lie.
template <class Phi>
static Status backprop_blocks(const BackpropJob& job, int64_t begin, int64_t end) {
    const int64_t rows = min(job.depth, IN_PLACE_SEGMENT), stretches = (job.depth + IN_PLACE_SEGMENT - 1) / IN_PLACE_SEGMENT;
    Arena arena(Arena::tape_bytes(rows) + Arena::states_bytes(stretches * BLOCK));
    if (!arena.memory) return NO_MEMORY;
    const Tape tape = arena.take_tape(rows);
    const LaneStates starts = arena.take_states(stretches * BLOCK);
    const auto run = can_stream(links_at(job, 0, begin)) ? run_segments<Phi, true> : run_segments<Phi, false>;
    bool finite = true, mirror = false;
    int64_t members_back = 0;  // the first of the block that goes back
    TapedSegment ahead{}, back{};  // none yet: no links
    const auto end_block = [&] {
        for (int i = 0; i < BLOCK; ++i) store_grad_x(job, members_back + i, adjoint_of(back, i));
    };
    for (int64_t members = begin; members < end; members += BLOCK) {
        for (int i = 0; i < BLOCK; ++i) set_state(starts, i, job.x[members + i]);
        for (int64_t s = 0; s + 1 < stretches; ++s) {
            ForwardState front;
            load_activations(front, starts + s * BLOCK);
            const Links links = links_at(job, s * IN_PLACE_SEGMENT, members);
            advance_rows<Phi, false, VECTORS>(front, links.weight, links.bias, links.stride, IN_PLACE_SEGMENT, true);
            store_states(starts + (s + 1) * BLOCK, front);
        }
        for (int64_t s = stretches - 1; s >= 0; --s, mirror = !mirror) {
            ahead.links = links_at(job, s * IN_PLACE_SEGMENT, members);
            ahead.tape = mirror ? mirrored(tape, rows) : tape;
            ahead.count = min(job.depth - s * IN_PLACE_SEGMENT, IN_PLACE_SEGMENT);
            ahead.input_on_tape = false;
            start_stretch(ahead, starts + s * BLOCK);
            finite &= run(ahead, back);
            if (s == stretches - 1) {
                if (back.count) end_block();
                members_back = members;
                for (int i = 0; i < BLOCK; ++i) {
                    job.output[members + i] = ahead.activation[i / VECTOR_LANES][i % VECTOR_LANES];
                    set_adjoint(ahead, i, to_scaled(broadcast(job.cotangent[members + i])));
                }
            } else {
                for (int j = 0; j < VECTORS; ++j) {
                    ahead.adjoint[j] = back.adjoint[j];
                    ahead.exponent[j] = back.exponent[j];
                }
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
    Links links() { return {weight, bias, weight, weight_exponent, bias, bias_exponent, BLOCK}; }
};

// Lanes whose links are copied, and what lies around them.
struct LaneLayout {
    Links links;    // of lane 0
    int64_t lane_stride;  // between lanes
    int64_t count;  // of lanes
    int64_t ahead;  // what is copied next lies so much further on
};

FASTGRAD_INLINE LaneLayout at_link(LaneLayout lanes, int64_t links) {
    const int64_t cells = links * lanes.links.stride;
    lanes.links.weight += cells;
    lanes.links.bias += cells;
    lanes.links.grad_weight_mantissa += cells;
    lanes.links.grad_weight_exponent += cells;
    lanes.links.grad_bias_mantissa += cells;
    lanes.links.grad_bias_exponent += cells;
    return lanes;
}

// Copies `count` links. Lanes that are not there get those of lane 0, or keep what they have.
FASTGRAD_INLINE void gather(double* tile, const double* from, const LaneLayout& lanes, int64_t count) {
    if (lanes.links.stride == 1 && count == TILE) {
        for (int i = 0; i < BLOCK; i += VECTOR_LANES)
            for (int64_t t = 0; t < TILE; t += VECTOR_LANES) {
                Floats v[VECTOR_LANES];
                for (int k = 0; k < VECTOR_LANES; ++k) {
                    const double* const line = from + (i + k < lanes.count ? (i + k) * lanes.lane_stride : 0) + t;
                    prefetch(line + lanes.ahead);
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
            for (int i = 0; i < lanes.count; ++i) tile[t * BLOCK + i] = from[t * lanes.links.stride + i * lanes.lane_stride];
}

FASTGRAD_INLINE void gather(Tile& tile, const LaneLayout& lanes, int64_t count) {
    gather(tile.weight, lanes.links.weight, lanes, count);
    gather(tile.bias, lanes.links.bias, lanes, count);
}

// Part `part` of TILE parts of a whole tile of one chain's segments, past the cache.
template <typename T>
FASTGRAD_INLINE void stream_share(T* to, const T* tile, const LaneLayout& lanes, int64_t part) {
    constexpr int64_t pieces = BLOCK / VECTOR_LANES * (TILE / VECTOR_LANES), share = pieces / TILE > 0 ? pieces / TILE : 1;
    for (int64_t piece = part * share; piece < part * share + share && piece < pieces; ++piece) {
        const int64_t i = piece / (TILE / VECTOR_LANES) * VECTOR_LANES, t = piece % (TILE / VECTOR_LANES) * VECTOR_LANES;
        Floats v[VECTOR_LANES];
        for (int k = 0; k < VECTOR_LANES; ++k) v[k] = load((const double*)tile + (t + k) * BLOCK + i);
        transpose(v);
        for (int k = 0; k < VECTOR_LANES; ++k)
            if (i + k < lanes.count) stream((double*)to + (i + k) * lanes.lane_stride + t, v[k]);
    }
}

FASTGRAD_INLINE void stream_share(const LaneLayout& lanes, const Tile& tile, int64_t part) {
    // Where a tile has fewer pieces than parts, two arrays take the first half of them, and two the other.
    constexpr int64_t pieces = BLOCK / VECTOR_LANES * (TILE / VECTOR_LANES);
    const int64_t late = part - (pieces < TILE ? TILE - pieces : 0);
    if (part < TILE) stream_share(lanes.links.grad_weight_mantissa, tile.weight, lanes, part);
    if (part < TILE) stream_share(lanes.links.grad_weight_exponent, tile.weight_exponent, lanes, part);
    if (late >= 0) stream_share(lanes.links.grad_bias_mantissa, tile.bias, lanes, late);
    if (late >= 0) stream_share(lanes.links.grad_bias_exponent, tile.bias_exponent, lanes, late);
}

template <typename T>
FASTGRAD_INLINE void scatter(T* to, const T* tile, const LaneLayout& lanes, int64_t count) {
    for (int64_t t = 0; t < count; ++t)
        if (lanes.lane_stride == 1)
            __builtin_memcpy(to + t * lanes.links.stride, tile + t * BLOCK, (size_t)lanes.count * 8);
        else
            for (int i = 0; i < lanes.count; ++i) to[t * lanes.links.stride + i * lanes.lane_stride] = tile[t * BLOCK + i];
}

FASTGRAD_INLINE void scatter(const LaneLayout& lanes, const Tile& tile, int64_t count) {
    scatter(lanes.links.grad_weight_mantissa, tile.weight, lanes, count);
    scatter(lanes.links.grad_weight_exponent, tile.weight_exponent, lanes, count);
    scatter(lanes.links.grad_bias_mantissa, tile.bias, lanes, count);
    scatter(lanes.links.grad_bias_exponent, tile.bias_exponent, lanes, count);
}

// A whole segment of each lane forward; nothing is kept.
template <class Phi, bool PRODUCT>
static void advance_segment(ForwardState& front, const LaneLayout& lanes) {
    Tile tile;
    for (int64_t t = 0; t < COPIED_SEGMENT; t += TILE) {
        gather(tile, at_link(lanes, t), TILE);
        (lanes.count > VECTOR_LANES ? advance_rows<Phi, PRODUCT, VECTORS> : advance_rows<Phi, PRODUCT, 1>)(
            front, tile.weight, tile.bias, BLOCK, TILE, t + TILE == COPIED_SEGMENT);
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
    // What has been made of one tile is written while the next one is computed.
    const Links& to = lanes.links;
    const bool streams = to.stride == 1 && count == COPIED_SEGMENT && is_aligned(to.grad_weight_mantissa) &&
                         is_aligned(to.grad_weight_exponent) && is_aligned(to.grad_bias_mantissa) &&
                         is_aligned(to.grad_bias_exponent);
    for (int64_t t = (count - 1) / TILE * TILE; t >= 0; t -= TILE) {
        const int64_t parity = t / TILE % 2;
        at.count = min(count - t, TILE);
        at.tape = tape_at(tape, t);
        at.input_on_tape = t > 0;
        at.links = tiles[parity].links();
        if (!streams) {
            run_rows<Phi, false, true, false>(none, at, 0, at.count);
            scatter(at_link(lanes, t), tiles[parity], at.count);
            continue;
        }
        for (int64_t i = 0; i < TILE; ++i) {
            run_rows<Phi, false, true, false>(none, at, i, i + 1);
            if (t + TILE < count) stream_share(at_link(lanes, t + TILE), tiles[1 - parity], i);
        }
    }
    if (streams)
        for (int64_t i = 0; i < TILE; ++i) stream_share(lanes, tiles[0], i);
    at.tape = tape;
    return finite;
}

// Fewer chains than lanes: members begin to begin + lanes - 1.
template <class Phi>
static Status backprop_copied(const BackpropJob& job, int64_t begin, int64_t lanes) {
    const int64_t segments = (job.depth + COPIED_SEGMENT - 1) / COPIED_SEGMENT;
    Arena arena(Arena::tape_bytes(COPIED_SEGMENT) + Arena::states_bytes(segments * BLOCK));
    if (!arena.memory) return NO_MEMORY;
    TapedSegment at;
    at.tape = arena.take_tape(COPIED_SEGMENT);
    const LaneStates starts = arena.take_states(segments * BLOCK);
    const LaneLayout from{links_at(job, 0, begin), 1, lanes, 0};
    bool finite = true;
    for (int i = 0; i < BLOCK; ++i) {
        set_state(starts, i, i < lanes ? job.x[begin + i] : 0.5);
        set_adjoint(at, i, to_scaled(broadcast(i < lanes ? job.cotangent[begin + i] : 1.0)));
    }
    for (int64_t s = 0; s + 1 < segments; ++s) {
        ForwardState front;
        load_activations(front, starts + s * BLOCK);
        advance_segment<Phi, false>(front, at_link(from, s * COPIED_SEGMENT));
        store_states(starts + (s + 1) * BLOCK, front);
    }
    for (int64_t s = segments - 1; s >= 0; --s) {
        start_stretch(at, starts + s * BLOCK);
        finite &= run_segment<Phi>(at, at_link(from, s * COPIED_SEGMENT), min(job.depth - s * COPIED_SEGMENT, COPIED_SEGMENT));
        if (s == segments - 1)
            for (int i = 0; i < lanes; ++i) job.output[begin + i] = at.activation[i / VECTOR_LANES][i % VECTOR_LANES];
    }
    for (int i = 0; i < lanes; ++i) store_grad_x(job, begin + i, adjoint_of(at, i));
    stream_end();
    return finite ? OK : NOT_FINITE;
}

// The segments of one deep chain.
struct SegmentedChain {
    Links links;           // the whole chain
    int64_t segments;
    LaneStates starts;         // the state in which each segment starts
    ScaledArrays product; // of w sigmoid' over each segment
};

// Runs segments forward, several runs of them side by side: run i begins with segment first + i * pitch and takes `length`
// of them, the last run perhaps fewer. `ends` is where the runs start, and then where they end.
template <class Phi>
static void run_forward(const SegmentedChain& cut, int64_t first, int64_t lane_stride, int64_t runs, int64_t length, LaneStates ends) {
    ForwardState front;
    load_activations(front, ends);
    for (int64_t s = first; s < first + length; ++s) {
        const int64_t running = s + (runs - 1) * lane_stride < cut.segments ? runs : runs - 1;
        const LaneLayout lanes{cut.links, lane_stride * COPIED_SEGMENT * cut.links.stride, running, 4 * TILE};
        for (int64_t i = 0; i < running; ++i) copy_state(cut.starts, s + i * lane_stride, ends, i);
        begin_product(front);
        advance_segment<Phi, true>(front, at_link(lanes, s * COPIED_SEGMENT));
        for (int64_t i = 0; i < running; ++i) {
            const int j = (int)(i / VECTOR_LANES), k = (int)(i % VECTOR_LANES);
            ends.activation[i] = front.activation[j][k];
            ends.mantissa[i] = front.scaled[j].mantissa[k];
            ends.exponent[i] = front.scaled[j].exponent[k];
            cut.product.mantissa[s + i * lane_stride] = front.product[j].mantissa[k];
            cut.product.exponent[s + i * lane_stride] = front.product[j].exponent[k];
        }
    }
}

// One deep chain, in segments. Its adjoints are defined segment by segment: at the end of each the cotangent times the
// products of the segments after it, within it link by link.
template <class Phi>
static Status backprop_deep(const BackpropJob& job, int64_t member) {
    const int64_t segments = job.depth / COPIED_SEGMENT, rest = job.depth % COPIED_SEGMENT;
    const int64_t length = ((segments + BLOCK - 1) / BLOCK) | 1;  // odd: powers of two would collide in the cache
    const int64_t runs = (segments + length - 1) / length, padded = (segments + BLOCK) / BLOCK * BLOCK;
    Arena arena(Arena::tape_bytes(COPIED_SEGMENT) + Arena::states_bytes(padded) + 3 * Arena::states_bytes(BLOCK) + 4 * Arena::size(padded * 8));
    if (!arena.memory) return NO_MEMORY;
    TapedSegment at;
    at.tape = arena.take_tape(COPIED_SEGMENT);
    const SegmentedChain cut{links_at(job, 0, member), segments, arena.take_states(padded),
                  {arena.take<double>(padded), arena.take<int64_t>(padded)}};
    const ScaledArrays adjoints{arena.take<double>(padded), arena.take<int64_t>(padded)};
    const LaneStates guesses = arena.take_states(BLOCK), ends = arena.take_states(BLOCK), alone = arena.take_states(BLOCK);
    const int64_t stride = cut.links.stride;

    // Forward: each run but the first is warmed up over the segment before it.
    for (int i = 0; i < BLOCK; ++i) set_state(guesses, i, 0.5);
    if (runs > 1) {
        ForwardState front;
        load_activations(front, guesses);
        const LaneLayout lanes{cut.links, length * COPIED_SEGMENT * stride, runs - 1, 0};
        advance_segment<Phi, false>(front, at_link(lanes, (length - 1) * COPIED_SEGMENT));
        store_states(ends, front);
        for (int64_t i = 1; i < runs; ++i) copy_state(guesses, i, ends, i - 1);
    }
    set_state(guesses, 0, job.x[member]);
    for (int i = 0; i < BLOCK; ++i) copy_state(ends, i, guesses, i);
    run_forward<Phi>(cut, 0, length, runs, length, ends);
    for (int64_t i = 1; i < runs; ++i) {
        if (__builtin_memcmp(guesses.activation + i, ends.activation + i - 1, 8) == 0 &&
            guesses.mantissa[i] == ends.mantissa[i - 1] && guesses.exponent[i] == ends.exponent[i - 1])
            continue;
        copy_state(alone, 0, ends, i - 1);
        run_forward<Phi>(cut, i * length, 0, 1, min(length, segments - i * length), alone);
        copy_state(ends, i, alone, 0);
    }

    // Back: the links that fill no segment, and then a lane for each segment.
    bool finite = true;
    Scaled adjoint = to_scaled(broadcast(job.cotangent[member]));
    job.output[member] = ends.activation[runs - 1];
    if (rest) {
        for (int i = 0; i < BLOCK; ++i) {
            copy_state(alone, i, ends, runs - 1);
            set_adjoint(at, i, adjoint);
        }
        start_stretch(at, alone);
        finite &= run_segment<Phi>(at, at_link({cut.links, 0, 1, 0}, segments * COPIED_SEGMENT), rest);
        job.output[member] = at.activation[0][0];
        adjoint = adjoint_of(at, 0);
    }
    for (int64_t s = segments - 1; s >= 0; --s) {
        adjoints.mantissa[s] = adjoint.mantissa[0];
        adjoints.exponent[s] = adjoint.exponent[0];
        adjoint = times(adjoint, broadcast(cut.product.mantissa[s]), broadcast(cut.product.exponent[s]));
    }
    store_grad_x(job, member, adjoint);
    for (int64_t s = segments; s < padded; ++s) {
        copy_state(cut.starts, s, cut.starts, 0);
        adjoints.mantissa[s] = 0.5;
        adjoints.exponent[s] = 1;
    }
    for (int64_t first = (segments - 1) / BLOCK * BLOCK; first >= 0; first -= BLOCK) {
        const LaneLayout lanes{cut.links, COPIED_SEGMENT * stride, min(segments - first, BLOCK), -BLOCK * COPIED_SEGMENT};
        start_stretch(at, cut.starts + first);
        for (int j = 0; j < VECTORS; ++j) {
            at.adjoint[j] = load(adjoints.mantissa + first + j * VECTOR_LANES);
            at.exponent[j] = load(adjoints.exponent + first + j * VECTOR_LANES);
        }
        finite &= run_segment<Phi>(at, at_link(lanes, first * COPIED_SEGMENT), COPIED_SEGMENT);
    }
    stream_end();
    return finite ? OK : NOT_FINITE;
}

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
