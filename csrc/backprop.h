// backprop: the gradients of given chains. The contract and the formulas are in fastgrad/kernels/__init__.py; the
// stages and names are those of reference.py and jit.py.
//
// A block of chains, side by side in vectors, is taken forward through a stretch of links and back again, so that what
// reverse mode keeps stays in the second-level cache: for each link activation, derivative, and a copy of the weight (an
// ensemble of a power of two makes the rows of the array itself collide in the sets of the cache). A chain deeper than one
// stretch is first run forward without keeping anything but where each stretch begins; then stretch after stretch, from
// the last one. While one stretch goes back, the next one to be run goes forward: the arithmetic of the one fills the
// time in which the other waits.
#pragma once

#include "jobs.h"
#include "scaled.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

constexpr int BLOCK = SEGMENTS;     // chains
constexpr int64_t STRETCH = 1024;   // links
constexpr int64_t PREFETCH = 16;     // links
constexpr int64_t KEPT = 3 * BLOCK; // doubles of a link

// Where a stretch keeps its links: a row of o_l, sigmoid'(z_l) and w_l of each chain; and of wide links the exponent k of
// exp(-|z_l|), with the sign of z_l. Pointers to link 0; the next one lies `step` rows further on, or before.
struct Kept {
    double* row;
    int64_t* exponent;
    uint32_t* wide;  // bit j where vector j is wide
    int64_t step;
};

// A stretch of a block, and what its chains carry from link to link.
struct Stretch {
    Kept kept;
    int64_t begin, first, count;  // its first chain, its first link and how many links
    int lanes;
    Scaled input[VECTORS];
    Floats activation[VECTORS];
    // The adjoint on its way back: normalized, or times a narrow weight.
    Floats adjoint[VECTORS];
    Ints exponent[VECTORS];
    uint32_t wide;  // bit j where vector j has a zero, or nears the smallest exponent: only the general formula may go on
};

FASTGRAD_INLINE int lanes_of(int j, int lanes) { return lanes - j * LANES > LANES ? LANES : lanes - j * LANES; }

// Is any lane of either infinite or not a number? Such values are never narrow: only the general path asks.
FASTGRAD_INLINE bool not_finite(Floats a, Floats b) {
    return any(~((absolute(a) <= __DBL_MAX__) & (absolute(b) <= __DBL_MAX__)));
}

// Rows of a block lie pages apart, where no prefetcher of the processor looks. Into the second-level cache: where the
// ensemble is a power of two, the few ways of the first would lose rows before their turn.
FASTGRAD_INLINE void prefetch(const double* from) { __builtin_prefetch(from, 0, 2); }

FASTGRAD_INLINE void keep(double* slot, Floats activation, Floats derivative, Floats weight) {
    store(slot, activation);
    store(slot + BLOCK, derivative);
    store(slot + 2 * BLOCK, weight);
}

FASTGRAD_INLINE bool stays_wide(Scaled a) { return any((a.mantissa == 0.0) | (a.exponent < EXPONENT_MIN / 2)); }

template <bool STREAM>
FASTGRAD_INLINE void put(const BackpropJob& out, int64_t cell, Scaled delta, Scaled grad_weight, int n) {
    if (STREAM) {
        stream(out.grad_bias_mantissa + cell, delta.mantissa);
        stream(out.grad_bias_exponent + cell, delta.exponent);
        stream(out.grad_weight_mantissa + cell, grad_weight.mantissa);
        stream(out.grad_weight_exponent + cell, grad_weight.exponent);
    } else {
        store(out.grad_bias_mantissa + cell, delta.mantissa, n);
        store(out.grad_bias_exponent + cell, delta.exponent, n);
        store(out.grad_weight_mantissa + cell, grad_weight.mantissa, n);
        store(out.grad_weight_exponent + cell, grad_weight.exponent, n);
    }
}

// Link i of the stretch, forward, for all of its chains. Returns whether every weight and bias was finite.
static bool forward_row(const BackpropJob& in, Stretch& at, int64_t i) {
    bool finite = true;
    at.kept.wide[i * at.kept.step] = 0;
    for (int j = 0; j * LANES < at.lanes; ++j) {
        const int n = lanes_of(j, at.lanes);
        const int64_t cell = (at.first + i) * in.ensemble + at.begin + j * LANES;
        double* const slot = at.kept.row + i * at.kept.step * KEPT + j * LANES;
        const Floats w = load(in.weight + cell, n, 1.0);
        const Floats b = load(in.bias + cell, n, 0.0);
        const Floats z = w * at.activation[j] + b;
        if (all(narrow(EVERY, z, w))) {
            const NarrowLink next = sigmoid_narrow(z);
            keep(slot, next.activation, next.derivative, w);
            at.activation[j] = next.activation;
        } else {
            finite &= !not_finite(w, b);
            const Link next = sigmoid(z);
            keep(slot, next.mantissa, next.derivative, w);
            store(at.kept.exponent + i * at.kept.step * BLOCK + j * LANES,
                  select(z < 0.0, next.derivative_exponent, -next.derivative_exponent));
            at.kept.wide[i * at.kept.step] |= 1u << j;
            at.activation[j] = next.activation;
        }
    }
    return finite;
}

// Link i of the stretch, back, for all of its chains.
template <bool STREAM>
static void backward_row(const BackpropJob& out, Stretch& at, int64_t i) {
    for (int j = 0; j * LANES < at.lanes; ++j) {
        const int n = lanes_of(j, at.lanes);
        const int64_t cell = (at.first + i) * out.ensemble + at.begin + j * LANES;
        const double* const slot = at.kept.row + i * at.kept.step * KEPT + j * LANES;
        const int64_t* const exponent = at.kept.exponent + i * at.kept.step * BLOCK + j * LANES;
        Ints k{};
        if (at.kept.wide[i * at.kept.step] >> j & 1) k = load(exponent);
        Scaled o = at.input[j];
        if (i > 0) {
            o = {load(slot - at.kept.step * KEPT), Ints{}};
            if (at.kept.wide[(i - 1) * at.kept.step] >> j & 1) {
                const Ints k_before = load(exponent - at.kept.step * BLOCK);
                o.exponent = select(k_before < 0, k_before, Ints{});
            }
        }
        const Scaled adjoint = normalize(at.adjoint[j], at.exponent[j]);
        const Scaled delta = times(adjoint, load(slot + BLOCK), select(k < 0, k, -k));
        const Scaled factor = split(load(slot + 2 * BLOCK));
        const Scaled next = times(delta, factor.mantissa, factor.exponent);
        at.adjoint[j] = next.mantissa;
        at.exponent[j] = next.exponent;
        at.wide = (at.wide & ~(1u << j)) | (uint32_t)stays_wide(next) << j;
        put<STREAM>(out, cell, delta, times(delta, o.mantissa, o.exponent), n);
    }
}

// Where there are registers enough, a row of a block is written out, and its state stays in them.
#define FASTGRAD_ROW _Pragma("GCC unroll 4") for (int j = 0; j < VECTORS; ++j)

// Steps of whole blocks, each a link of `back` from its end and a link of `ahead` from its start, while both are narrow.
// Returns the step that is not, or `end`.
template <bool FORWARD, bool BACKWARD, bool STREAM>
static int64_t narrow_rows(const BackpropJob& given, Stretch& ahead, Stretch& back, int64_t step, int64_t end) {
    const BackpropJob job = given;  // a copy, so that no store can seem to change it
    Floats activation[VECTORS], adjoint[VECTORS];
    Ints exponent[VECTORS];
    FASTGRAD_ROW {
        if (FORWARD) activation[j] = ahead.activation[j];
        if (BACKWARD) {
            adjoint[j] = back.adjoint[j];
            exponent[j] = back.exponent[j];
        }
    }
    const int64_t ensemble = job.ensemble;
    const Kept kept = ahead.kept, kept_back = back.kept;
    const int64_t last = BACKWARD ? back.count - 1 : 0;  // its link 0 has no kept link before it
    if (BACKWARD && back.wide) return step;
    for (; step < end; ++step) {
        Floats w[VECTORS], z[VECTORS];
        Mask is_narrow = EVERY;
        if (FORWARD) {
            const int64_t cell = (ahead.first + step) * ensemble + ahead.begin;
            FASTGRAD_ROW {
                prefetch(job.weight + cell + PREFETCH * ensemble + j * LANES);
                prefetch(job.bias + cell + PREFETCH * ensemble + j * LANES);
                w[j] = load(job.weight + cell + j * LANES);
                z[j] = w[j] * activation[j] + load(job.bias + cell + j * LANES);
                is_narrow = narrow(is_narrow, z[j], w[j]);
            }
            if (!all(is_narrow)) break;
        }
        const int64_t i = last - step, cell = (back.first + i) * ensemble + back.begin;
        const double* const slot = kept_back.row + i * kept_back.step * KEPT;
        const double* const before = slot - kept_back.step * KEPT;
        double* const place = kept.row + step * kept.step * KEPT;
        if (BACKWARD && (i == 0 || (kept_back.wide[i * kept_back.step] | kept_back.wide[(i - 1) * kept_back.step]))) break;
        if (FORWARD) kept.wide[step * kept.step] = 0;
        FASTGRAD_ROW {
            if (BACKWARD) {
                const Scaled delta = normalize_narrow(adjoint[j] * load(slot + BLOCK + j * LANES), exponent[j]);
                const Floats grad_weight = delta.mantissa * load(before + j * LANES);
                adjoint[j] = delta.mantissa * load(slot + 2 * BLOCK + j * LANES);
                exponent[j] = delta.exponent;
                put<STREAM>(job, cell + j * LANES, delta, normalize_narrow(grad_weight, delta.exponent), LANES);
            }
            // What goes back leaves its place to what goes forward: first the one, then the other.
            if (FORWARD) {
                const NarrowLink next = sigmoid_narrow(z[j]);
                keep(place + j * LANES, next.activation, next.derivative, w[j]);
                activation[j] = next.activation;
            }
        }
    }
    FASTGRAD_ROW {
        if (FORWARD) ahead.activation[j] = activation[j];
        if (BACKWARD) {
            back.adjoint[j] = adjoint[j];
            back.exponent[j] = exponent[j];
        }
    }
    return step;
}

template <bool FORWARD, bool BACKWARD, bool STREAM>
static bool run_rows(const BackpropJob& job, Stretch& ahead, Stretch& back, int64_t step, int64_t end) {
    const bool whole = (!FORWARD || ahead.lanes == BLOCK) && (!BACKWARD || back.lanes == BLOCK);
    bool finite = true;
    for (; step < end; ++step) {
        if (whole) step = narrow_rows<FORWARD, BACKWARD, STREAM>(job, ahead, back, step, end);
        if (step == end) break;
        if (BACKWARD) backward_row<STREAM>(job, back, back.count - 1 - step);
        if (FORWARD) finite &= forward_row(job, ahead, step);
    }
    return finite;
}

// Takes one stretch forward and, at the same time, the one before it back. Returns whether every weight and bias was finite.
template <bool STREAM>
static bool run_stretches(const BackpropJob& job, Stretch& ahead, Stretch& back) {
    const int64_t both = ahead.count < back.count ? ahead.count : back.count;
    bool finite = run_rows<true, true, STREAM>(job, ahead, back, 0, both);
    finite &= run_rows<true, false, STREAM>(job, ahead, back, both, ahead.count);
    run_rows<false, true, STREAM>(job, ahead, back, both, back.count);
    return finite;
}

// The state of a chain before a link.
struct Start {
    double *activation, *mantissa;  // (stretches, BLOCK)
    int64_t* exponent;
};

// Runs whole stretches forward, and leaves the state in which each next one starts. (Weights and biases are looked at
// when the links are run again.)
static void find_starts(const BackpropJob& in, int64_t begin, int lanes, const Start& start, int64_t stretches) {
    for (int64_t s = 0; s + 1 < stretches; ++s) {
        Floats activation[VECTORS];
        for (int j = 0; j < VECTORS; ++j) activation[j] = load(start.activation + s * BLOCK + j * LANES);
        for (int64_t link = s * STRETCH; link < (s + 1) * STRETCH; ++link) {
            for (int j = 0; j * LANES < lanes; ++j) {
                const int n = lanes_of(j, lanes);
                const int64_t cell = link * in.ensemble + begin + j * LANES;
                prefetch(in.weight + cell + PREFETCH * in.ensemble);
                prefetch(in.bias + cell + PREFETCH * in.ensemble);
                const Floats w = load(in.weight + cell, n, 1.0);
                const Floats z = w * activation[j] + load(in.bias + cell, n, 0.0);
                const bool last = link + 1 == (s + 1) * STRETCH;
                if (!last && all(at_most(EVERY, absolute(z), NARROW_Z))) {
                    activation[j] = sigmoid_narrow(z).activation;
                    continue;
                }
                const Link next = sigmoid(z);
                activation[j] = next.activation;
                if (!last) continue;
                const Scaled scaled = normalize(next.mantissa, next.exponent);
                store(start.activation + (s + 1) * BLOCK + j * LANES, next.activation);
                store(start.mantissa + (s + 1) * BLOCK + j * LANES, scaled.mantissa);
                store(start.exponent + (s + 1) * BLOCK + j * LANES, scaled.exponent);
            }
        }
    }
}

static void end_forward(const BackpropJob& job, Stretch& at) {
    at.wide = 0;
    for (int j = 0; j * LANES < at.lanes; ++j) {
        const int n = lanes_of(j, at.lanes);
        store(job.output + at.begin + j * LANES, at.activation[j], n);
        const Scaled c = split(load(job.cotangent + at.begin + j * LANES, n, 1.0));
        at.adjoint[j] = c.mantissa;
        at.exponent[j] = c.exponent;
        at.wide |= (uint32_t)stays_wide(c) << j;
    }
}

static void end_backward(const BackpropJob& job, const Stretch& at) {
    for (int j = 0; j * LANES < at.lanes; ++j) {
        const int n = lanes_of(j, at.lanes);
        const Scaled grad_x = normalize(at.adjoint[j], at.exponent[j]);
        store(job.grad_x_mantissa + at.begin + j * LANES, grad_x.mantissa, n);
        store(job.grad_x_exponent + at.begin + j * LANES, grad_x.exponent, n);
    }
}

FASTGRAD_INLINE bool is_aligned(const void* pointer) { return (uintptr_t)pointer % (8 * LANES) == 0; }

// One deep chain would run link after link, each waiting for the one before. So its depth is cut into segments that run
// forward side by side, each but the first from a guess that is warmed up over the links before it; then each start is
// compared, bit for bit, with the end of the segment before, and a segment that differs is run again (as in grow.h). On the
// way back only two multiplications a link wait for each other; all else is done for a tile of links at once.
constexpr int TILE = 32, BACK_TILE = 64;  // links
constexpr int64_t DEEP_MEMBERS = 8, DEEP_LINKS = 8192;  // few chains, and deep: worth cutting
// What one chain keeps, in the gradients' own memory, `stride` apart.
struct Line {
    const double *weight, *bias;
    double *activation, *derivative;
    int64_t* exponent;
    unsigned char* wide;
    int64_t stride;
};

// Runs links first[i] to first[i] + length[i] - 1 of each of `count` segments side by side, from begin[i] to end[i];
// returns whether every weight and bias was finite.
static bool forward_segments(const Line& line, const int64_t* first, const int64_t* length, int count, const double* begin,
                             double* end, bool keep) {
    alignas(64) double w[TILE][SEGMENTS], b[TILE][SEGMENTS], k[TILE][SEGMENTS];
    unsigned char wide[TILE][VECTORS];
    Floats activation[VECTORS];
    bool finite = true;
    const int vectors = (count + LANES - 1) / LANES;
    int64_t longest = 0;
    for (int i = 0; i < vectors * LANES; ++i) {
        activation[i / LANES][i % LANES] = begin[i < count ? i : 0];
        if (i < count && length[i] > longest) longest = length[i];
    }
    for (int64_t step = 0; step < longest; step += TILE) {
        bool ends = false, any_wide = false;  // within this tile
        for (int i = 0; i < vectors * LANES; ++i) {
            const int64_t left = i < count ? length[i] - step : 0;
            ends |= left > 0 && left <= TILE;
            const double* const from_w = line.weight + (i < count ? first[i] + step : 0) * line.stride;
            const double* const from_b = line.bias + (i < count ? first[i] + step : 0) * line.stride;
            if (left >= TILE && line.stride == 1) {
                for (int t = 0; t < TILE; ++t) {
                    w[t][i] = from_w[t];
                    b[t][i] = from_b[t];
                }
                // There are more streams here than the processor follows by itself.
                for (int t = 0; t < TILE; t += 8) {
                    __builtin_prefetch(from_w + TILE + t);
                    __builtin_prefetch(from_b + TILE + t);
                    __builtin_prefetch(line.activation + first[i] + step + t, 1);
                    __builtin_prefetch(line.derivative + first[i] + step + t, 1);
                }
                continue;
            }
            for (int t = 0; t < TILE; ++t) {
                w[t][i] = t < left ? from_w[t * line.stride] : 1.0;
                b[t][i] = t < left ? from_b[t * line.stride] : 0.0;
            }
        }
        for (int t = 0; t < TILE; ++t) {
            for (int j = 0; j < vectors; ++j) {
                const Floats weight = load(&w[t][j * LANES]);
                const Floats bias = load(&b[t][j * LANES]);
                const Floats z = weight * activation[j] + bias;
                const bool is_narrow = all(narrow(EVERY, z, weight));
                wide[t][j] = !is_narrow;
                any_wide |= !is_narrow;
                if (is_narrow) {
                    const NarrowLink next = sigmoid_narrow(z);
                    store(&w[t][j * LANES], next.activation);
                    store(&b[t][j * LANES], next.derivative);
                    activation[j] = next.activation;
                } else {
                    finite &= !not_finite(weight, bias);
                    const Link next = sigmoid(z);
                    store(&w[t][j * LANES], next.mantissa);
                    store(&b[t][j * LANES], next.derivative);
                    store((int64_t*)&k[t][j * LANES],
                          select(z < 0.0, next.derivative_exponent, -next.derivative_exponent));
                    activation[j] = next.activation;
                }
                if (!ends) continue;
                for (int i = j * LANES; i < (j + 1) * LANES && i < count; ++i)
                    if (step + t + 1 == length[i]) end[i] = activation[j][i - j * LANES];
            }
        }
        if (!keep) continue;
        for (int i = 0; i < count; ++i) {
            const int64_t left = length[i] - step < TILE ? length[i] - step : TILE;
            const int64_t at = first[i] + step;
            if (left == TILE && line.stride == 1 && !any_wide) {
                for (int t = 0; t < TILE; ++t) {
                    line.activation[at + t] = w[t][i];
                    line.derivative[at + t] = b[t][i];
                }
                __builtin_memset(line.wide + at, 0, TILE);
                continue;
            }
            for (int t = 0; t < left; ++t) {
                line.activation[(at + t) * line.stride] = w[t][i];
                line.derivative[(at + t) * line.stride] = b[t][i];
                line.wide[at + t] = wide[t][i / LANES];
                if (wide[t][i / LANES]) __builtin_memcpy(line.exponent + (at + t) * line.stride, &k[t][i], 8);
            }
        }
    }
    return finite;
}

static bool forward_deep(const Line& line, int64_t depth, double x, double* output) {
    int64_t first[SEGMENTS], length[SEGMENTS], guess_first[SEGMENTS], guess_length[SEGMENTS];
    double begin[SEGMENTS], end[SEGMENTS];
    const int64_t each = ((depth + SEGMENTS - 1) / SEGMENTS + TILE - 1) / TILE * TILE;
    int count = 0;
    for (int64_t at = 0; at < depth; at += each, ++count) {
        first[count] = at;
        length[count] = depth - at < each ? depth - at : each;
        guess_first[count] = at - WARM_UP;
        guess_length[count] = WARM_UP;
        begin[count] = 0.5;
    }
    if (count > 1) forward_segments(line, guess_first + 1, guess_length + 1, count - 1, begin + 1, end + 1, false);
    begin[0] = x;
    for (int i = 1; i < count; ++i) begin[i] = end[i];
    const bool finite = forward_segments(line, first, length, count, begin, end, true);
    for (int i = 1; i < count; ++i)
        if (__builtin_memcmp(begin + i, end + i - 1, 8) != 0) {
            begin[i] = end[i - 1];
            forward_segments(line, first + i, length + i, 1, begin + i, end + i, true);
        }
    *output = end[count - 1];
    return finite;
}

// Doubles or integers `stride` apart into a tile and back; a chain that is alone lies in one piece.
template <typename T>
FASTGRAD_INLINE void gather(T* tile, const T* from, int count, int64_t stride) {
    if (stride == 1 && count == BACK_TILE)
        __builtin_memcpy(tile, from, BACK_TILE * sizeof(T));
    else
        for (int t = 0; t < count; ++t) tile[t] = from[t * stride];
}

template <typename T>
FASTGRAD_INLINE void scatter(T* to, const T* tile, int count, int64_t stride) {
    if (stride == 1 && count == BACK_TILE)
        __builtin_memcpy(to, tile, BACK_TILE * sizeof(T));
    else
        for (int t = 0; t < count; ++t) to[t * stride] = tile[t];
}

// Back over links first to first + count - 1, all narrow, from the adjoint (a, exponent); BACK_TILE of them at most.
static void backward_tile(const BackpropJob& out, const Line& line, int64_t member, int64_t first, int count, double& a,
                          int64_t& exponent) {
    alignas(64) double d[BACK_TILE], w[BACK_TILE], o[BACK_TILE];
    alignas(64) int64_t d_exponent[BACK_TILE], w_exponent[BACK_TILE];
    const int64_t cell = first * line.stride;
    gather(d, line.derivative + cell, count, line.stride);
    gather(w, line.weight + cell, count, line.stride);
    gather(o, line.activation + cell - line.stride, count, line.stride);
    for (int t = count; t < BACK_TILE; ++t) d[t] = w[t] = o[t] = 0.5;
    // The tile before this one comes next; it lies against the direction in which the processor looks ahead.
    if (line.stride == 1 && first >= 2 * BACK_TILE)
        for (int64_t near = first - 2 * BACK_TILE; near < first - BACK_TILE; near += 8) {
            __builtin_prefetch(line.derivative + near);
            __builtin_prefetch(line.weight + near);
            __builtin_prefetch(line.activation + near);
            __builtin_prefetch(line.exponent + near, 1);
            __builtin_prefetch(out.grad_weight_exponent + near, 1);
        }
    for (int t = 0; t < BACK_TILE; t += LANES) {
        const Scaled derivative = normalize_narrow(load(d + t), Ints{}), weight = normalize_narrow(load(w + t), Ints{});
        store(d + t, derivative.mantissa);
        store(d_exponent + t, derivative.exponent);
        store(w + t, weight.mantissa);
        store(w_exponent + t, weight.exponent);
    }
    // Mantissas shrink by less than a factor 4 a link: no exponent is needed within a tile.
    for (int t = count - 1; t >= 0; --t) {
        d[t] = a * d[t];
        a = d[t] * w[t];
        d_exponent[t] += exponent;
        exponent = d_exponent[t] + w_exponent[t];
    }
    for (int t = 0; t < BACK_TILE; t += LANES) {
        const Scaled delta = normalize_narrow(load(d + t), load(d_exponent + t));
        const Scaled grad_weight = normalize_narrow(delta.mantissa * load(o + t), delta.exponent);
        store(d + t, delta.mantissa);
        store(d_exponent + t, delta.exponent);
        store(w + t, grad_weight.mantissa);
        store(w_exponent + t, grad_weight.exponent);
    }
    scatter(out.grad_bias_mantissa + member + cell, d, count, line.stride);
    scatter(out.grad_bias_exponent + member + cell, d_exponent, count, line.stride);
    scatter(out.grad_weight_mantissa + member + cell, w, count, line.stride);
    scatter(out.grad_weight_exponent + member + cell, w_exponent, count, line.stride);
    const Scaled next = normalize_narrow(all_of(a), all_of(exponent));
    a = next.mantissa[0];
    exponent = next.exponent[0];
}

static bool backprop_deep(const BackpropJob& job, int64_t member, unsigned char* wide) {
    const int64_t depth = job.depth, stride = job.ensemble;
    const Line line{job.weight + member,
                    job.bias + member,
                    job.grad_weight_mantissa + member,
                    job.grad_bias_mantissa + member,
                    job.grad_bias_exponent + member,
                    wide,
                    stride};
    const bool finite = forward_deep(line, depth, job.x[member], job.output + member);
    Scaled adjoint = split(all_of(job.cotangent[member]));
    const Scaled x = split(all_of(job.x[member]));
    double a = adjoint.mantissa[0];
    int64_t exponent = adjoint.exponent[0];
    int64_t last = depth;
    while (last > 0) {
        // A tile ends above the first link, at a wide link, or where the adjoint is zero or all but too small.
        const bool general = a == 0.0 || exponent < EXPONENT_MIN / 2;
        int64_t first = last;
        if (!general)
            while (first > 1 && last - first < BACK_TILE && !wide[first - 1] && !wide[first - 2]) --first;
        if (first < last) {
            backward_tile(job, line, member, first, (int)(last - first), a, exponent);
            last = first;
            continue;
        }
        const int64_t link = last - 1, cell = link * stride;
        Ints k{};
        if (wide[link]) k = all_of(line.exponent[cell]);
        Scaled o = x;
        if (link > 0) {
            o = {all_of(line.activation[cell - stride]), Ints{}};
            if (wide[link - 1]) {
                const Ints k_before = all_of(line.exponent[cell - stride]);
                o.exponent = select(k_before < 0, k_before, Ints{});
            }
        }
        const Scaled delta = times({all_of(a), all_of(exponent)}, all_of(line.derivative[cell]), select(k < 0, k, -k));
        const Scaled grad_weight = times(delta, o.mantissa, o.exponent);
        const Scaled factor = split(all_of(line.weight[cell]));
        const Scaled next = times(delta, factor.mantissa, factor.exponent);
        a = next.mantissa[0];
        exponent = next.exponent[0];
        job.grad_bias_mantissa[cell + member] = delta.mantissa[0];
        job.grad_bias_exponent[cell + member] = delta.exponent[0];
        job.grad_weight_mantissa[cell + member] = grad_weight.mantissa[0];
        job.grad_weight_exponent[cell + member] = grad_weight.exponent[0];
        last = link;
    }
    job.grad_x_mantissa[member] = a;
    job.grad_x_exponent[member] = exponent;
    return finite;
}

static Outcome backprop(const BackpropJob& job) {
    bool finite = true;
    const int64_t depth = job.depth, ensemble = job.ensemble;
    if (job.stop - job.start <= DEEP_MEMBERS && depth >= DEEP_LINKS) {
        unsigned char* const wide = (unsigned char*)__builtin_malloc((size_t)depth);
        if (!wide) return NO_MEMORY;
        for (int64_t member = job.start; member < job.stop; ++member) finite &= backprop_deep(job, member, wide);
        __builtin_free(wide);
        return finite ? DONE : NOT_FINITE;
    }
    const int64_t stretches = (depth + STRETCH - 1) / STRETCH, rows = depth < STRETCH ? depth : STRETCH;
    const int64_t doubles = rows * (KEPT + BLOCK) + 3 * stretches * BLOCK + 8;  // 8 more, so that rows can begin a cache line
    double* const memory = (double*)__builtin_malloc((size_t)(doubles * 8 + rows * 4));
    if (!memory) return NO_MEMORY;
    double* const lines = (double*)(((uintptr_t)memory + 63) / 64 * 64);
    double* const starts = lines + rows * (KEPT + BLOCK);
    const Start start{starts, starts + stretches * BLOCK, (int64_t*)starts + 2 * stretches * BLOCK};
    const Kept kept{lines, (int64_t*)lines + rows * KEPT, (uint32_t*)(memory + doubles), 1};
    const Kept mirrored{kept.row + (rows - 1) * KEPT, kept.exponent + (rows - 1) * BLOCK, kept.wide + rows - 1, -1};

    const bool streams = ensemble % LANES == 0 && is_aligned(job.grad_weight_mantissa + job.start) &&
                         is_aligned(job.grad_weight_exponent + job.start) &&
                         is_aligned(job.grad_bias_mantissa + job.start) && is_aligned(job.grad_bias_exponent + job.start);
    Stretch ahead, back;
    back.count = 0;
    for (int64_t begin = job.start; begin < job.stop; begin += BLOCK) {
        const int lanes = job.stop - begin < BLOCK ? (int)(job.stop - begin) : BLOCK;
        for (int j = 0; j * LANES < lanes; ++j) {
            const Floats x = load(job.x + begin + j * LANES, lanes_of(j, lanes), 0.5);
            const Scaled scaled = split(x);
            store(start.activation + j * LANES, x);
            store(start.mantissa + j * LANES, scaled.mantissa);
            store(start.exponent + j * LANES, scaled.exponent);
        }
        if (stretches > 1) find_starts(job, begin, lanes, start, stretches);
        for (int64_t s = stretches - 1; s >= 0; --s) {
            ahead.kept = back.count && back.kept.step == 1 ? mirrored : kept;
            ahead.begin = begin;
            ahead.lanes = lanes;
            ahead.first = s * STRETCH;
            ahead.count = depth - ahead.first < STRETCH ? depth - ahead.first : STRETCH;
            for (int j = 0; j < VECTORS; ++j) {
                ahead.activation[j] = load(start.activation + s * BLOCK + j * LANES);
                ahead.input[j] = {load(start.mantissa + s * BLOCK + j * LANES), load(start.exponent + s * BLOCK + j * LANES)};
            }
            finite &= (streams ? run_stretches<true> : run_stretches<false>)(job, ahead, back);
            if (s < stretches - 1) {
                for (int j = 0; j < VECTORS; ++j) {
                    ahead.adjoint[j] = back.adjoint[j];
                    ahead.exponent[j] = back.exponent[j];
                }
                ahead.wide = back.wide;
            } else {
                if (back.count) end_backward(job, back);
                end_forward(job, ahead);
            }
            back = ahead;
        }
    }
    ahead.count = 0;
    (streams ? run_stretches<true> : run_stretches<false>)(job, ahead, back);
    end_backward(job, back);
    if (streams) stream_end();
    __builtin_free(memory);
    return finite ? DONE : NOT_FINITE;
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
