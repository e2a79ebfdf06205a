// Weights and biases as a pure function of (seed, member, link): Philox4x32-10 (Salmon, Moraes, Dror and Shaw,
// SC 2011) and the transforms of the laws, on vectors. fastgrad/philox.py is the definition; fastgrad/kernels/jit.py
// holds the twins that return the same bits.
#pragma once

#include "jobs.h"
#include "numbers.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

struct Pair {
    Floats first, second;
};

// (i + 1/2) * 2^-53 from the 53 high bits; the largest is rounded to 1, and taken back inside (0, 1).
FASTGRAD_INLINE Floats uniform(UInts high, UInts low) {
    const UInts i = ((high << 32) | (low & 0xFFFFFFFFu)) >> 11;
    const Floats u = (to_floats(i) + 0.5) * 0x1p-53;
    return select(u < 1.0, u, broadcast(1.0 - 0x1p-53));
}

// Two uniforms for each counter r0 … r3. Of each 64-bit lane only the low half counts; what the operations leave above it is
// never read.
FASTGRAD_INLINE Pair uniforms(uint64_t seed, UInts r0, UInts r1, UInts r2, UInts r3) {
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const UInts product0 = multiply_low(r0, UInts{} + MULTIPLIER_0);
        const UInts product1 = multiply_low(r2, UInts{} + MULTIPLIER_1);
        r0 = (product1 >> 32) ^ r1 ^ (uint64_t)key0;
        r2 = (product0 >> 32) ^ r3 ^ (uint64_t)key1;
        r1 = product1;
        r3 = product0;
        key0 += (uint32_t)KEY_STEP_0;
        key1 += (uint32_t)KEY_STEP_1;
    }
    return {uniform(r0, r1), uniform(r2, r3)};
}

FASTGRAD_INLINE Pair link_uniforms(uint64_t stream, uint64_t seed, UInts link, UInts member) {
    return uniforms(seed, link, link >> 32, member, UInts{} + stream);
}

// ln u for 0 < u < 1: u = 2^k (1 + f).
FASTGRAD_INLINE Floats log_of(Floats u) {
    const UInts offset = (UInts)(bits_of(u) - SQRT_HALF_BITS + ((int64_t)1024 << 52));
    const Ints k = (Ints)(offset >> 52) - 1024;
    return log_reduced(float_of(k + ROUNDER_BITS) - ROUNDER, float_of(bits_of(u) - (k << 52)) - 1.0);
}

// cos(2πv), sin(2πv) for 0 < v < 1; the quarter turns come off exactly, so that small values keep all their digits.
FASTGRAD_INLINE Pair cos_sin_turns(Floats v) {
    const Floats shifted = 4.0 * v + ROUNDER;
    const Ints quarter = bits_of(shifted) & 3;
    const Floats f = v - 0.25 * (shifted - ROUNDER);
    const Floats t = f * f;
    const Floats t2 = t * t;
    const Floats c = 1.0 + t * (((COS[0] + COS[1] * t) + (COS[2] + COS[3] * t) * t2) +
                                ((COS[4] + COS[5] * t) + COS[6] * t2) * (t2 * t2));
    const Floats s = f * (((SIN[0] + SIN[1] * t) + (SIN[2] + SIN[3] * t) * t2) +
                          ((SIN[4] + SIN[5] * t) + SIN[6] * t2) * (t2 * t2));
    const Ints swap = (quarter & 1) != 0;
    const Floats cosine = select(swap, s, c), sine = select(swap, c, s);
    return {select(((quarter + 1) & 2) != 0, -cosine, cosine), select((quarter & 2) != 0, -sine, sine)};
}

FASTGRAD_INLINE bool is_drawn(const Law& law) { return law.family == NORMAL || law.family == UNIFORM; }

// Two independent variates of a family, uniforms or standard normals, for `rows` rows of N vectors, WIDTH doubles apart;
// `link` and `member` belong to the first row, and each row is one link further. Stage by stage: a stage is short enough for
// the processor to work on several vectors at once.
template <int N>
static void draw_variates(int family, uint64_t stream, uint64_t seed, const UInts* link, const UInts* member, int64_t rows,
                          double* first, double* second) {
    for (int64_t t = 0; t < rows; ++t)
        for (int j = 0; j < N; ++j) {
            const Pair uniform = link_uniforms(stream, seed, link[j] + (uint64_t)t, member[j]);
            store(first + t * BLOCK + j * VECTOR_LANES, uniform.first);
            store(second + t * BLOCK + j * VECTOR_LANES, uniform.second);
        }
    if (family != NORMAL) return;
    // Box and Muller: the normals take the places of the uniforms
    Floats radius[TILE * N];
    for (int64_t t = 0; t < rows; ++t)
        for (int j = 0; j < N; ++j) radius[t * N + j] = square_root(-2.0 * log_of(load(first + t * BLOCK + j * VECTOR_LANES)));
    for (int64_t t = 0; t < rows; ++t)
        for (int j = 0; j < N; ++j) {
            const int64_t cell = t * BLOCK + j * VECTOR_LANES;
            const Pair turn = cos_sin_turns(load(second + cell));
            store(first + cell, radius[t * N + j] * turn.first);
            store(second + cell, radius[t * N + j] * turn.second);
        }
}

// Weights and biases of `rows` rows, as above. Centered biases hold units that rest, at REST.
template <int N>
static void draw_rows(const Law& weight, const Law& bias, double rest, uint64_t seed, const UInts* link, const UInts* member, int64_t rows,
                      double* weights, double* biases) {
    if (is_drawn(weight) || is_drawn(bias))
        draw_variates<N>(is_drawn(weight) ? weight.family : bias.family, STREAM_LINKS, seed, link, member, rows, weights,
                         biases);
    if (is_drawn(weight) && is_drawn(bias) && weight.family != bias.family) {
        alignas(64) double unused[TILE * BLOCK];
        draw_variates<N>(bias.family, STREAM_MIXED, seed, link, member, rows, unused, biases);
    }
    for (int64_t t = 0; t < rows; ++t)
        for (int j = 0; j < N; ++j) {
            const int64_t cell = t * BLOCK + j * VECTOR_LANES;
            Floats w = broadcast(weight.location), b = broadcast(bias.location);
            if (is_drawn(weight)) w = weight.location + weight.scale * load(weights + cell);
            if (is_drawn(bias)) b = bias.location + bias.scale * load(biases + cell);
            if (bias.family == CENTERED) b = -rest * w;
            store(weights + cell, w);
            store(biases + cell, b);
        }
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
