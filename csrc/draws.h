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

// i + 1/2 from the 53 high bits of two words; the largest is rounded to 2^53, and taken back.
FASTGRAD_INLINE Floats half_integer(UInts high, UInts low) {
    const Floats number = to_floats(join_words(high, low) >> 11) + 0.5, largest = broadcast(0x1p53 - 1.0);
    return number < largest ? number : largest;
}

// Inside (0, 1).
FASTGRAD_INLINE Floats uniform(UInts high, UInts low) { return half_integer(high, low) * 0x1p-53; }

// Keys of the rounds, in memory, where each is an operand of the instruction that needs it.
constexpr int ROUNDS = 10;

struct Keys {
    uint64_t first[ROUNDS], second[ROUNDS];
};

FASTGRAD_INLINE Keys keys_of(uint64_t seed) {
    Keys keys;
    uint32_t first = (uint32_t)seed, second = (uint32_t)(seed >> 32);
    for (int round = 0; round < ROUNDS; ++round) {
        keys.first[round] = first;
        keys.second[round] = second;
        first += (uint32_t)KEY_STEP_0;
        second += (uint32_t)KEY_STEP_1;
    }
    return keys;
}

// The words of each counter r0 … r3, in their place, from one round on. Of each 64-bit lane only the low half counts; what
// the operations leave above it is never read. Step by step for N vectors: they hide each other's latency.
template <int N, int FIRST_ROUND = 0>
FASTGRAD_INLINE void run_rounds(const Keys& keys, UInts* r0, UInts* r1, UInts* r2, UInts* r3) {
#pragma GCC unroll 10
    for (int round = FIRST_ROUND; round < ROUNDS; ++round) FASTGRAD_ROW(N) {
            const UInts product0 = multiply_low(r0[j], UInts{} + MULTIPLIER_0);
            const UInts product1 = multiply_low(r2[j], UInts{} + MULTIPLIER_1);
            r0[j] = high_words(product1) ^ r1[j] ^ keys.first[round];
            r2[j] = high_words(product0) ^ r3[j] ^ keys.second[round];
            r1[j] = product1;
            r3[j] = product0;
        }
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
    const Floats s =
        f * (((SIN[0] + SIN[1] * t) + (SIN[2] + SIN[3] * t) * t2) + ((SIN[4] + SIN[5] * t) + SIN[6] * t2) * (t2 * t2));
    const Ints swap = (quarter & 1) != 0;
    const Floats cosine = select(swap, s, c), sine = select(swap, c, s);
    return {select(((quarter + 1) & 2) != 0, -cosine, cosine), select((quarter & 2) != 0, -sine, sine)};
}

// Two normals in place of 2^53 u and 2^53 v: sqrt(factor ln u) times cos(2πv) and sin(2πv), with factor = -2 scale².
// Fewer operations than above: the cosine of the angle that quarter turns leave is sqrt(1 - sin²), and its square goes
// under the root of the radius.
template <int N>
FASTGRAD_INLINE void scaled_normals(double factor, Pair* drawn) {
    Floats k[N], s[N], sine[N], square[N];
    Ints quarter[N];
    FASTGRAD_ROW(N) {  // u = 2^k (1 + f), s = f / (2 + f)
        const Ints offset = bits_of(drawn[j].first) - (SQRT_HALF_BITS - ((int64_t)1024 << 52));
        k[j] = float_of((Ints)((UInts)offset >> 52) + (ROUNDER_BITS - 1024 - 53)) - ROUNDER;
        const Floats f = float_of((offset & FRACTION) + SQRT_HALF_BITS) - 1.0;
        s[j] = f / (2.0 + f);
    }
    FASTGRAD_ROW(N) {
        const Floats quarters = 0x1p-51 * drawn[j].second;
        const Floats shifted = quarters + ROUNDER;
        const Floats a = quarters - (shifted - ROUNDER);  // in quarter turns, at most 1/2
        const Floats t = a * a;
        const Floats tail = QUARTER_SIN[3] + t * (QUARTER_SIN[4] + t * (QUARTER_SIN[5] + t * QUARTER_SIN[6]));
        sine[j] = a * (QUARTER_SIN[0] + t * (QUARTER_SIN[1] + t * (QUARTER_SIN[2] + t * tail)));
        quarter[j] = bits_of(shifted);
    }
    FASTGRAD_ROW(N) {
        const Floats t = s[j] * s[j];
        const Floats tail = LOG[3] + t * (LOG[4] + t * (LOG[5] + t * LOG[6]));
        const Floats remainder = t * (LOG[0] + t * (LOG[1] + t * (LOG[2] + t * tail)));
        square[j] = factor * (k[j] * LN2 + (s[j] * remainder + (s[j] + s[j])));
    }
    FASTGRAD_ROW(N) {
        const Floats x = square_root(square[j] * (1.0 - sine[j] * sine[j])), y = square_root(square[j]) * sine[j];
        const Ints swap = (quarter[j] & 1) != 0;
        drawn[j] = {float_of(bits_of(select(swap, y, x)) ^ (((quarter[j] + 1) << 62) & INT64_MIN)),
                    float_of(bits_of(select(swap, x, y)) ^ ((quarter[j] << 62) & INT64_MIN))};
    }
}

FASTGRAD_INLINE bool is_drawn(const Law& law) { return law.family == NORMAL || law.family == UNIFORM; }

// Two independent variates of a family, uniforms or standard normals, for `rows` rows of N vectors, WIDTH doubles
// apart; `link` and `member` belong to the first row, and each row is one link further. Stage by stage: a stage is
// short enough for the processor to work on several vectors at once.
template <int N>
static void draw_variates(int family, uint64_t stream, uint64_t seed, const UInts* link, const UInts* member,
                          int64_t rows, double* first, double* second) {
    const Keys keys = keys_of(seed);
    for (int64_t t = 0; t < rows; ++t) {
        UInts r0[N], r1[N], r2[N], r3[N];
        FASTGRAD_ROW(N) {
            r0[j] = link[j] + (uint64_t)t;
            r1[j] = r0[j] >> 32;
            r2[j] = member[j];
            r3[j] = UInts{} + stream;
        }
        run_rounds<N>(keys, r0, r1, r2, r3);
        FASTGRAD_ROW(N) {
            store(first + t * BLOCK + j * VECTOR_LANES, uniform(r0[j], r1[j]));
            store(second + t * BLOCK + j * VECTOR_LANES, uniform(r2[j], r3[j]));
        }
    }
    if (family != NORMAL) return;
    // Box and Muller: the normals take the places of the uniforms
    Floats radius[TILE * N];
    for (int64_t t = 0; t < rows; ++t)
        for (int j = 0; j < N; ++j)
            radius[t * N + j] = square_root(-2.0 * log_of(load(first + t * BLOCK + j * VECTOR_LANES)));
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
static void draw_rows(const Law& weight, const Law& bias, double rest, uint64_t seed, const UInts* link,
                      const UInts* member, int64_t rows, double* weights, double* biases) {
    if (is_drawn(weight) || is_drawn(bias))
        draw_variates<N>(is_drawn(weight) ? weight.family : bias.family, STREAM_LINKS, seed, link, member, rows,
                         weights, biases);
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
