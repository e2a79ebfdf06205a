// Numbers as mantissa * 2^exponent (1/2 <= |mantissa| < 1, or 0 * 2^0), and exp and log in double arithmetic, on
// vectors. Every function here and in nonlinearity.h has a twin in fastgrad/kernels/jit that does the same IEEE
// operations in the same order: the two return the same bits.
#pragma once

#include "jobs.h"
#include "simd.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

struct Scaled {
    Floats mantissa;
    Ints exponent;
};

// A lane of one.
struct ScaledNumber {
    double mantissa;
    int64_t exponent;
};

FASTGRAD_INLINE ScaledArrays operator+(ScaledArrays arrays, int64_t cells) {
    return {arrays.mantissa + cells, arrays.exponent + cells};
}

// The first n lanes; the others become 1/2.
FASTGRAD_INLINE Scaled load(ScaledArrays from, int n = VECTOR_LANES) {
    return {load(from.mantissa, n, 0.5), load(from.exponent, n)};
}

FASTGRAD_INLINE void store(ScaledArrays to, Scaled v, int n = VECTOR_LANES) {
    store(to.mantissa, v.mantissa, n);
    store(to.exponent, v.exponent, n);
}

FASTGRAD_INLINE void stream(ScaledArrays to, Scaled v) {
    stream(to.mantissa, v.mantissa);
    stream(to.exponent, v.exponent);
}

FASTGRAD_INLINE void set(ScaledArrays to, int64_t cell, ScaledNumber v) {
    to.mantissa[cell] = v.mantissa;
    to.exponent[cell] = v.exponent;
}

FASTGRAD_INLINE ScaledNumber get(ScaledArrays from, int64_t cell) { return {from.mantissa[cell], from.exponent[cell]}; }

// Lane i of a row of vectors.
template <typename V>
FASTGRAD_INLINE auto lane(const V* row, int64_t i) {
    return row[i / VECTOR_LANES][i % VECTOR_LANES];
}

FASTGRAD_INLINE ScaledNumber lane(const Scaled* row, int64_t i) {
    const Scaled& of = row[i / VECTOR_LANES];
    return {of.mantissa[i % VECTOR_LANES], of.exponent[i % VECTOR_LANES]};
}

template <typename V, typename T>
FASTGRAD_INLINE void set_lane(V* row, int64_t i, T value) {
    row[i / VECTOR_LANES][i % VECTOR_LANES] = value;
}

FASTGRAD_INLINE void set_lane(Scaled* row, int64_t i, ScaledNumber value) {
    row[i / VECTOR_LANES].mantissa[i % VECTOR_LANES] = value.mantissa;
    row[i / VECTOR_LANES].exponent[i % VECTOR_LANES] = value.exponent;
}

FASTGRAD_INLINE Scaled select(Ints mask, Scaled a, Scaled b) {
    return {select(mask, a.mantissa, b.mantissa), select(mask, a.exponent, b.exponent)};
}

FASTGRAD_INLINE Scaled broadcast(ScaledNumber v) { return {broadcast(v.mantissa), broadcast(v.exponent)}; }

constexpr ScaledNumber ONE{0.5, 1};

FASTGRAD_INLINE Scaled one() { return broadcast(ONE); }

// 2^k for -1022 <= k <= 1023.
FASTGRAD_INLINE Floats power_of_two(Ints k) { return float_of((k + 1023) << 52); }

// mantissa * 2^exponent, renormalized; the mantissa is a normal number and the exponent far from its limits.
FASTGRAD_INLINE Scaled renormalize_in_range(Floats mantissa, Ints exponent) {
    const Ints bits = bits_of(mantissa);
    const Ints field = (Ints)((UInts)(bits << 1) >> 53);
    return {float_of((bits & SIGN_AND_FRACTION) | EXPONENT_OF_HALF), exponent + (field - 1022)};
}

// mantissa * 2^exponent, renormalized; the mantissa is 0 or a normal number.
FASTGRAD_INLINE Scaled renormalize(Floats mantissa, Ints exponent) {
    const Scaled scaled = renormalize_in_range(mantissa, exponent);
    // Compared before the sum, which could pass the smallest integer.
    const Ints field = (Ints)((UInts)(bits_of(mantissa) << 1) >> 53);
    const Ints zero = (mantissa == 0.0) | (exponent < EXPONENT_MIN + 1022 - field);
    return {select(zero, Floats{}, scaled.mantissa), select(zero, Ints{}, scaled.exponent)};
}

// The scaled form of any finite double, subnormals included.
FASTGRAD_INLINE Scaled to_scaled(Floats value) {
    const Ints subnormal = abs(value) < 0x1p-1022;
    return renormalize(select(subnormal, value * 0x1p64, value), select(subnormal, broadcast((int64_t)-64), Ints{}));
}

FASTGRAD_INLINE ScaledNumber to_scaled(double value) {
    const Scaled scaled = to_scaled(broadcast(value));
    return {scaled.mantissa[0], scaled.exponent[0]};
}

FASTGRAD_INLINE Scaled times(Scaled a, Floats mantissa, Ints exponent) {
    return renormalize(a.mantissa * mantissa, a.exponent + exponent);
}
FASTGRAD_INLINE Scaled times(Scaled a, Scaled b) { return times(a, b.mantissa, b.exponent); }
FASTGRAD_INLINE ScaledNumber times(ScaledNumber a, ScaledNumber b) {
    const Scaled product = times(broadcast(a), broadcast(b));
    return {product.mantissa[0], product.exponent[0]};
}

// mantissa * 2^exponent as a double, rounded once, for 2^-22 <= |mantissa| < 1, or 0; infinite where no double holds
// it.
FASTGRAD_INLINE Floats to_float(Floats mantissa, Ints exponent) {
    const Ints far = (exponent < -1000) | (exponent > 1000);
    if (!any(far)) return mantissa * power_of_two(exponent);
    const Ints low = broadcast((int64_t)-1000), high = broadcast((int64_t)1000);
    const Ints first = select(exponent < low, low, select(exponent > high, high, exponent));
    const Ints rest = exponent - first;
    const Ints second = select(rest < low, low, select(rest > high, high, rest));
    return (mantissa * power_of_two(first)) * power_of_two(second);
}

// exp(r) = (even + odd) / (even - odd) for |r| <= ln2 / 2, and a little beyond.
struct ExpParts {
    Floats even, odd;
};

FASTGRAD_INLINE ExpParts exp_parts(Floats r) {
    const Floats t = r * r;
    return {EXP_EVEN[0] + t * (EXP_EVEN[1] + t * EXP_EVEN[2]), r * (EXP_ODD[0] + t * (EXP_ODD[1] + t * EXP_ODD[2]))};
}

struct Quotient {
    Floats numerator, denominator;
};

FASTGRAD_INLINE Quotient exp_reduced(Floats r) {
    const ExpParts p = exp_parts(r);
    return {p.even + p.odd, p.even - p.odd};
}

// k ln 2 + ln(1 + f) for 1 + f from sqrt(1/2) to sqrt(2), by s = f / (2 + f); `whole` is k.
FASTGRAD_INLINE Floats log_reduced(Floats whole, Floats f) {
    const Floats s = f / (2.0 + f);
    const Floats t = s * s;
    const Floats t2 = t * t;
    const Floats even = (LOG[0] + LOG[2] * t2) + (LOG[4] + LOG[6] * t2) * (t2 * t2);
    const Floats odd = (LOG[1] + LOG[3] * t2) + LOG[5] * (t2 * t2);
    const Floats remainder = t * (even + odd * t);
    const Floats half_square = 0.5 * f * f;
    return whole * LN2_HIGH - ((half_square - (s * (half_square + remainder) + whole * LN2_LOW)) - f);
}

// exp(-t) = exp(r) 2^-k with |r| <= ln2 / 2, for t up to DEAD.
struct ExpArgument {
    Floats r;
    Ints k;
};

FASTGRAD_INLINE ExpArgument reduce_exp_argument(Floats t) {
    const Floats near = select(t > LARGE_Z, broadcast(LARGE_Z), t);
    const Floats shifted = near * LOG2_E + ROUNDER;
    const Floats whole = shifted - ROUNDER;
    ExpArgument argument{(whole * LN2_HIGH - near) + whole * LN2_LOW, bits_of(shifted) - ROUNDER_BITS};
    const Ints large = t > LARGE_Z;
    if (any(large)) {
        // k ln 2 = product + error exactly; what is left of t, and once more where k itself was coarse
        const Floats ratio = t * LOG2_E;
        const Floats k = select(t > HUGE_Z, float_of(bits_of(ratio) & ~(int64_t)7), (ratio + ROUNDER) - ROUNDER);
        const Floats product = k * LN2;
        const Floats front = SPLITTER * k - (SPLITTER * k - k);
        const Floats back = k - front;
        const Floats error = ((front * LN2_FRONT - product) + front * LN2_BACK + back * LN2_FRONT) + back * LN2_BACK;
        const Floats rest = ((product - t) + error) + k * LN2_TAIL;
        const Floats again = (rest * LOG2_E + ROUNDER) - ROUNDER;
        argument.r = select(large, (rest - again * LN2_HIGH) - again * LN2_LOW, argument.r);
        for (int i = 0; i < VECTOR_LANES; ++i)
            if (large[i]) argument.k[i] = (int64_t)k[i] - (int64_t)again[i];
    }
    return argument;
}

// Is any lane 0, or near the smallest exponent? Only arithmetic with an extended range may go on from there.
FASTGRAD_INLINE bool needs_extended(Scaled a) { return any((a.mantissa == 0.0) | (a.exponent < EXPONENT_MIN / 2)); }

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
