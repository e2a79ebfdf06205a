// Weights and biases as a pure function of (seed, member, link): Philox4x32-10 (Salmon, Moraes, Dror and Shaw,
// SC 2011) and the transforms of the laws. fastgrad/philox.py is the definition; fastgrad/kernels/jit.py holds the
// twins that return the same bits.
#pragma once

#include <cmath>
#include <cstdint>

#include "scaled.h"

namespace fastgrad {

enum Family : int { CONSTANT = 0, NORMAL = 1, UNIFORM = 2, CENTERED = 3 };

// value = location + scale * variate; a constant is its location; centered is -weight / 2.
struct Law {
    int family;
    double location;
    double scale;
};

struct Pair {
    double first, second;
};

struct Words {
    uint32_t r[4];
};

inline Words philox(Words counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t product0 = uint64_t{0xD2511F53u} * counter.r[0];
        const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.r[2];
        counter = {{
            static_cast<uint32_t>(product1 >> 32) ^ counter.r[1] ^ key0,
            static_cast<uint32_t>(product1),
            static_cast<uint32_t>(product0 >> 32) ^ counter.r[3] ^ key1,
            static_cast<uint32_t>(product0),
        }};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// (i + 1/2) * 2^-53 from the 53 high bits; the largest is rounded to 1, and taken back inside (0, 1).
inline double uniform(uint32_t high, uint32_t low) {
    const uint64_t i = ((uint64_t{high} << 32) | low) >> 11;
    const double u = (static_cast<double>(static_cast<int64_t>(i)) + 0.5) * 0x1p-53;
    return u < 1.0 ? u : 1.0 - 0x1p-53;
}

inline Pair uniforms(uint64_t seed, uint64_t link, uint32_t member) {
    const Words words = philox({{static_cast<uint32_t>(link), static_cast<uint32_t>(link >> 32), member, 0}},
                               static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
    return {uniform(words.r[0], words.r[1]), uniform(words.r[2], words.r[3])};
}

// ln u for 0 < u < 1: u = 2^k (1 + f) with 1 + f from sqrt(1/2) to sqrt(2); ln(1 + f) by s = f / (2 + f).
inline double log_of(double u) {
    const int64_t offset = bits_of(u) - 0x3FE6A09E667F3BCD;
    const int64_t k = offset >> 52;
    const double f = float_of(bits_of(u) - (k << 52)) - 1.0;
    const double whole = float_of(k + bits_of(ROUNDER)) - ROUNDER;
    const double s = f / (2.0 + f);
    const double t = s * s;
    const double t2 = t * t;
    const double even = (LOG[0] + LOG[2] * t2) + (LOG[4] + LOG[6] * t2) * (t2 * t2);
    const double odd = (LOG[1] + LOG[3] * t2) + LOG[5] * (t2 * t2);
    const double remainder = t * (even + odd * t);
    const double half_square = 0.5 * f * f;
    return whole * LN2_HIGH - ((half_square - (s * (half_square + remainder) + whole * LN2_LOW)) - f);
}

// cos(2πv), sin(2πv) for 0 < v < 1; the quarter turns come off exactly, so that small values keep all their digits.
inline Pair cos_sin_turns(double v) {
    const double shifted = 4.0 * v + ROUNDER;
    const int64_t quarter = bits_of(shifted) & 3;
    const double f = v - 0.25 * (shifted - ROUNDER);
    const double t = f * f;
    const double t2 = t * t;
    const double c = 1.0 + t * (((COS[0] + COS[1] * t) + (COS[2] + COS[3] * t) * t2) +
                                ((COS[4] + COS[5] * t) + COS[6] * t2) * (t2 * t2));
    const double s = f * (((SIN[0] + SIN[1] * t) + (SIN[2] + SIN[3] * t) * t2) +
                          ((SIN[4] + SIN[5] * t) + SIN[6] * t2) * (t2 * t2));
    const bool swap = (quarter & 1) != 0;
    const double cosine = swap ? s : c;
    const double sine = swap ? c : s;
    return {quarter == 1 || quarter == 2 ? -cosine : cosine, quarter >= 2 ? -sine : sine};
}

// Box and Muller: two independent standard normals.
inline Pair normals(Pair uniform) {
    const double radius = std::sqrt(-2.0 * log_of(uniform.first));
    const Pair turn = cos_sin_turns(uniform.second);
    return {radius * turn.first, radius * turn.second};
}

// The weight and the bias of one link of one chain.
inline Pair draw(const Law& weight, const Law& bias, uint64_t seed, uint64_t link, uint32_t member) {
    Pair uniform{0.0, 0.0}, normal{0.0, 0.0};
    if (weight.family == NORMAL || weight.family == UNIFORM || bias.family == NORMAL || bias.family == UNIFORM)
        uniform = uniforms(seed, link, member);
    if (weight.family == NORMAL || bias.family == NORMAL) normal = normals(uniform);
    Pair value{weight.location, bias.location};
    if (weight.family == NORMAL) value.first = weight.location + weight.scale * normal.first;
    if (weight.family == UNIFORM) value.first = weight.location + weight.scale * uniform.first;
    if (bias.family == NORMAL) value.second = bias.location + bias.scale * normal.second;
    if (bias.family == UNIFORM) value.second = bias.location + bias.scale * uniform.second;
    if (bias.family == CENTERED) value.second = -0.5 * value.first;
    return value;
}

}  // namespace fastgrad
