// backprop: the gradients of given chains. The contract and the formulas are in fastgrad/kernels/__init__.py; the
// stages and names are those of reference.py and jit.py.
//
// A block of chains, side by side in vectors, is taken through its whole depth and back before the next one is begun, so
// that what reverse mode keeps stays in the second-level cache. Kept for each link: activation, derivative, and a copy
// of the weight (an ensemble of a power of two makes the rows of the array itself collide in the sets of the cache).
// Where a block is too deep for that, the gradients' own memory keeps them, and the array is read again.
#pragma once

#include "jobs.h"
#include "scaled.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

constexpr int BLOCK = SEGMENTS;  // chains
constexpr int64_t PREFETCH = 8;  // links
constexpr int64_t KEPT_MAX = 8 * 1024 * 1024;  // bytes of the cache-sized copy, per thread

// Where a block keeps o_l, sigmoid'(z_l) and w_l, and, of wide links, the exponent k of exp(-|z_l|) with the sign of z_l.
struct Kept {
    double *activation, *derivative;
    int64_t* exponent;
    const double* weight;
    int64_t stride;
    double* weight_copy;  // null where the array itself is read again
    unsigned char* wide;  // (depth, VECTORS)
};

FASTGRAD_INLINE bool is_narrow(Floats z, Floats w) {
    return !any_outside(absolute(z), NARROW_Z, absolute(w), NARROW_LOW, NARROW_HIGH);
}

// Lanes of vector j of a block; all of them, if the block is known to fill its vectors.
template <bool FULL>
FASTGRAD_INLINE int lanes_of(int j, int lanes) {
    return FULL || lanes - j * LANES > LANES ? LANES : lanes - j * LANES;
}

// Is any lane of either infinite or not a number? Such values are never narrow: only the general path asks.
FASTGRAD_INLINE bool not_finite(Floats a, Floats b) {
    return any(~((absolute(a) <= __DBL_MAX__) & (absolute(b) <= __DBL_MAX__)));
}

// Returns whether every weight and bias was finite.
template <bool FULL>
static bool forward(const BackpropJob& in, const Kept& kept, int64_t begin, int lanes) {
    bool finite = true;
    Floats activation[VECTORS];
    for (int j = 0; j * LANES < lanes; ++j) {
        const int n = lanes_of<FULL>(j, lanes);
        activation[j] = load(in.x + begin + j * LANES, n, 0.5);
    }
    // Rows of a block lie pages apart, where no prefetcher of the processor looks.
    const int64_t ahead = PREFETCH * in.ensemble;
    for (int64_t link = 0; link < in.depth; ++link) {
        const int64_t row = link * in.ensemble + begin;
        for (int j = 0; j * LANES < lanes; ++j) {
            const int n = lanes_of<FULL>(j, lanes);
            const int64_t slot = link * kept.stride + j * LANES;
            __builtin_prefetch(in.weight + row + ahead + j * LANES);
            __builtin_prefetch(in.bias + row + ahead + j * LANES);
            const Floats w = load(in.weight + row + j * LANES, n, 1.0);
            const Floats b = load(in.bias + row + j * LANES, n, 0.0);
            const Floats z = w * activation[j] + b;
            if (kept.weight_copy) store(kept.weight_copy + slot, w, n);
            const bool narrow = is_narrow(z, w);
            kept.wide[link * VECTORS + j] = !narrow;
            if (narrow) {
                const NarrowLink next = sigmoid_narrow(z);
                store(kept.activation + slot, next.activation, n);
                store(kept.derivative + slot, next.derivative, n);
                activation[j] = next.activation;
            } else {
                finite &= !not_finite(w, b);
                const Link next = sigmoid(z);
                store(kept.activation + slot, next.mantissa, n);
                store(kept.derivative + slot, next.derivative, n);
                store(kept.exponent + slot, select(z < 0.0, next.derivative_exponent, -next.derivative_exponent), n);
                activation[j] = next.activation;
            }
        }
    }
    for (int j = 0; j * LANES < lanes; ++j) {
        const int n = lanes_of<FULL>(j, lanes);
        store(in.output + begin + j * LANES, activation[j], n);
    }
    return finite;
}

// The adjoint of a vector of chains on its way back.
struct Adjoint {
    Floats mantissa;  // normalized, or times a narrow weight
    Ints exponent;
    bool wide;  // some lane is zero, or near the smallest exponent: only the general formula may go on
};

FASTGRAD_INLINE bool stays_wide(Scaled a) { return any((a.mantissa == 0.0) | (a.exponent < EXPONENT_MIN / 2)); }

template <bool STREAM, typename T, typename V>
FASTGRAD_INLINE void put(T* to, V v, int n) {
    if (STREAM)
        stream(to, v);
    else
        store(to, v, n);
}

template <bool FULL, bool STREAM>
static void backward(const BackpropJob& out, const Kept& kept, int64_t begin, int lanes) {
    Adjoint adjoint[VECTORS];
    Scaled input[VECTORS];
    for (int j = 0; j * LANES < lanes; ++j) {
        const int n = lanes_of<FULL>(j, lanes);
        const Scaled c = split(load(out.cotangent + begin + j * LANES, n, 1.0));
        adjoint[j] = {c.mantissa, c.exponent, stays_wide(c)};
        input[j] = split(load(out.x + begin + j * LANES, n, 0.5));
    }
    for (int64_t link = out.depth - 1; link >= 0; --link) {
        const int64_t row = link * out.ensemble + begin;
        for (int j = 0; j * LANES < lanes; ++j) {
            const int n = lanes_of<FULL>(j, lanes);
            const int64_t slot = link * kept.stride + j * LANES, before = slot - kept.stride;
            const bool wide = kept.wide[link * VECTORS + j];
            const bool wide_before = link == 0 || kept.wide[(link - 1) * VECTORS + j];
            const Floats derivative = load(kept.derivative + slot, n, 0.25);
            const Floats w = load(kept.weight + slot, n, 1.0);
            Scaled delta, grad_weight;
            if (!(wide | wide_before | adjoint[j].wide)) {
                delta = normalize_narrow(adjoint[j].mantissa * derivative, adjoint[j].exponent);
                grad_weight = normalize_narrow(delta.mantissa * load(kept.activation + before, n, 0.5), delta.exponent);
                adjoint[j].mantissa = delta.mantissa * w;
                adjoint[j].exponent = delta.exponent;
            } else {
                Ints k{};
                Scaled o = input[j];
                if (wide) k = load(kept.exponent + slot, n);
                if (link > 0) {
                    o = {load(kept.activation + before, n, 0.5), Ints{}};
                    if (wide_before) {
                        const Ints k_before = load(kept.exponent + before, n);
                        o.exponent = select(k_before < 0, k_before, Ints{});
                    }
                }
                delta = times(normalize(adjoint[j].mantissa, adjoint[j].exponent), derivative, select(k < 0, k, -k));
                grad_weight = times(delta, o.mantissa, o.exponent);
                const Scaled factor = split(w);
                const Scaled next = times(delta, factor.mantissa, factor.exponent);
                adjoint[j] = {next.mantissa, next.exponent, stays_wide(next)};
            }
            put<STREAM>(out.grad_bias_mantissa + row + j * LANES, delta.mantissa, n);
            put<STREAM>(out.grad_bias_exponent + row + j * LANES, delta.exponent, n);
            put<STREAM>(out.grad_weight_mantissa + row + j * LANES, grad_weight.mantissa, n);
            put<STREAM>(out.grad_weight_exponent + row + j * LANES, grad_weight.exponent, n);
        }
    }
    for (int j = 0; j * LANES < lanes; ++j) {
        const int n = lanes_of<FULL>(j, lanes);
        const Scaled grad_x = normalize(adjoint[j].mantissa, adjoint[j].exponent);
        store(out.grad_x_mantissa + begin + j * LANES, grad_x.mantissa, n);
        store(out.grad_x_exponent + begin + j * LANES, grad_x.exponent, n);
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
                const bool narrow = is_narrow(z, weight);
                wide[t][j] = !narrow;
                any_wide |= !narrow;
                if (narrow) {
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
    const bool copies = depth * BLOCK * 32 <= KEPT_MAX;
    const int64_t floats = copies ? depth * BLOCK * 4 + 8 : 0;  // 8 more, so that the rows can begin a cache line
    double* const memory = (double*)__builtin_malloc((size_t)(floats * 8 + depth * VECTORS));
    if (!memory) return NO_MEMORY;
    double* const lines = (double*)(((uintptr_t)memory + 63) / 64 * 64);
    unsigned char* const wide = (unsigned char*)(memory + floats);
    const bool streams = copies && ensemble % LANES == 0 && is_aligned(job.grad_weight_mantissa + job.start) &&
                         is_aligned(job.grad_weight_exponent + job.start) &&
                         is_aligned(job.grad_bias_mantissa + job.start) && is_aligned(job.grad_bias_exponent + job.start);
    for (int64_t begin = job.start; begin < job.stop; begin += BLOCK) {
        const int lanes = job.stop - begin < BLOCK ? (int)(job.stop - begin) : BLOCK;
        double* const copy = lines + 3 * depth * BLOCK;
        Kept kept{lines, lines + depth * BLOCK, (int64_t*)lines + 2 * depth * BLOCK, copy, BLOCK, copy, wide};
        if (!copies)
            kept = {job.grad_weight_mantissa + begin, job.grad_bias_mantissa + begin, job.grad_bias_exponent + begin,
                    job.weight + begin, ensemble, nullptr, wide};
        if (lanes % LANES != 0) {
            finite &= forward<false>(job, kept, begin, lanes);
            backward<false, false>(job, kept, begin, lanes);
        } else {
            finite &= forward<true>(job, kept, begin, lanes);
            (streams ? backward<true, true> : backward<true, false>)(job, kept, begin, lanes);
        }
    }
    if (streams) stream_end();
    __builtin_free(memory);
    return finite ? DONE : NOT_FINITE;
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
