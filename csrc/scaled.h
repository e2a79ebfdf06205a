// Numbers as mantissa * 2^exponent, and the sigmoid in that form (design: 1/2 <= |mantissa| < 1, or 0 * 2^0), on vectors
// of chains. Every function here has a twin of the same name in fastgrad/kernels/jit.py that does the same IEEE
// operations in the same order: the two return the same bits.
#pragma once

#include "coefficients.h"
#include "simd.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

constexpr int64_t SIGN_AND_FRACTION = (int64_t)0x800FFFFFFFFFFFFFull;
constexpr int64_t EXPONENT_OF_HALF = (int64_t)1022 << 52;

// Adding this leaves the nearest integer of |v| < 2^51 in the low bits, and taking it off again leaves that integer as
// a double.
constexpr double ROUNDER = 0x1.8p52;
constexpr int64_t ROUNDER_BITS = 0x4338000000000000;

// From here on k * LN2_HIGH is rounded, and k ln 2 is formed in two doubles.
constexpr double LARGE = 0x1p20;
// From here on ROUNDER does not round |z| / ln 2 to an integer; clearing its last bits does.
constexpr double HUGE_Z = 0x1p50;
// Veltkamp's constant, to split a double in two halves.
constexpr double SPLITTER = 0x1p27 + 1.0;
// From here on the exponent of exp(-|z|) can't be held: the derivative is 0.
constexpr double DEAD = 0x1p60;
// A product whose exponent falls below this becomes 0, so that exponents can't overflow.
constexpr int64_t EXPONENT_MIN = -((int64_t)1 << 62);

// Within these bounds a link is narrow: activation, derivative, weight and the products of any two of them are normal
// doubles, so that no exponent need be kept apart. The bits are the same: powers of two scale exactly.
constexpr double NARROW_Z = 340.0;
constexpr double NARROW_LOW = 0x1p-400, NARROW_HIGH = 0x1p400;

// From here down an offset d = o - 1/2 is kept as mantissa and exponent. A narrow link begins at NARROW_LOW or above, and
// makes none as small as that. The double that stands for a preactivation has an exponent within these bounds: below, d
// is z / 4 to all digits, and above, the derivative is 0.
constexpr double TINY_OFFSET = 0x1p-900;
constexpr int64_t STAND_IN_MIN = -950, STAND_IN_MAX = 100;

// Links after which a contracting chain has forgotten its start, bit for bit: 37 / |lambda| as a rule.
constexpr int64_t WARM_UP = 128;

struct Scaled {
    Floats mantissa;
    Ints exponent;
};

FASTGRAD_INLINE Scaled one() { return {all_of(0.5), all_of((int64_t)1)}; }

// 2^k for -1022 <= k <= 1023.
FASTGRAD_INLINE Floats power_of_two(Ints k) { return float_of((k + 1023) << 52); }

// mantissa * 2^exponent, renormalized; the mantissa is a normal number and the exponent far from its limits.
FASTGRAD_INLINE Scaled normalize_narrow(Floats mantissa, Ints exponent) {
    const Ints bits = bits_of(mantissa);
    const Ints field = (Ints)((Words)(bits << 1) >> 53);
    return {float_of((bits & SIGN_AND_FRACTION) | EXPONENT_OF_HALF), exponent + (field - 1022)};
}

// mantissa * 2^exponent, renormalized; the mantissa is 0 or a normal number.
FASTGRAD_INLINE Scaled normalize(Floats mantissa, Ints exponent) {
    const Scaled scaled = normalize_narrow(mantissa, exponent);
    // Compared before the sum, which could pass the smallest integer.
    const Ints field = (Ints)((Words)(bits_of(mantissa) << 1) >> 53);
    const Ints zero = (mantissa == 0.0) | (exponent < EXPONENT_MIN + 1022 - field);
    return {select(zero, Floats{}, scaled.mantissa), select(zero, Ints{}, scaled.exponent)};
}

// The scaled form of any finite double, subnormals included.
FASTGRAD_INLINE Scaled split(Floats value) {
    const Ints subnormal = absolute(value) < 0x1p-1022;
    return normalize(select(subnormal, value * 0x1p64, value), select(subnormal, all_of((int64_t)-64), Ints{}));
}

FASTGRAD_INLINE Scaled times(Scaled a, Floats mantissa, Ints exponent) {
    return normalize(a.mantissa * mantissa, a.exponent + exponent);
}

// exp(r) = (even + odd) / (even - odd) for |r| <= ln2 / 2, and a little beyond.
struct Parts {
    Floats even, odd;
};

FASTGRAD_INLINE Parts exp_parts(Floats r) {
    const Floats t = r * r;
    return {EXP_EVEN[0] + t * (EXP_EVEN[1] + t * EXP_EVEN[2]), r * (EXP_ODD[0] + t * (EXP_ODD[1] + t * EXP_ODD[2]))};
}

struct Quotient {
    Floats numerator, denominator;
};

FASTGRAD_INLINE Quotient exp_reduced(Floats r) {
    const Parts p = exp_parts(r);
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

// The lanes of `mask` that are narrow.
FASTGRAD_INLINE Mask narrow(Mask mask, Floats z, Floats w) {
    const Floats size = absolute(w);
    return at_most(at_least(at_most(mask, absolute(z), NARROW_Z), size, NARROW_LOW), size, NARROW_HIGH);
}

// sigmoid(z) and sigmoid'(z) for |z| <= NARROW_Z.
struct NarrowLink {
    Floats activation, derivative;
};

FASTGRAD_INLINE NarrowLink sigmoid_narrow(Floats z) {
    // e = exp(-z), also where z < 0: there numerator and denominator change places, and all is scaled by 2^k, exactly.
    const Floats shifted = z * LOG2_E + ROUNDER;
    const Floats whole = shifted - ROUNDER;
    const Quotient p = exp_reduced((whole * LN2_HIGH - z) + whole * LN2_LOW);
    const Floats scaled = float_of(bits_of(p.numerator) - (bits_of(shifted) << 52));  // times 2^-k
    const Floats inverse = 1.0 / (p.denominator + scaled);
    const Floats activation = p.denominator * inverse;   // 1 / (1 + e)
    return {activation, (scaled * inverse) * activation};  // e / (1 + e)^2
}

// sigmoid(z) for every z as a double and as mantissa * 2^exponent, and sigmoid'(z) = derivative * 2^derivative_exponent.
// The mantissas lie in (1/8, 3/2) or are 0; `normalize` follows where they are multiplied.
struct Link {
    Floats activation, mantissa;
    Ints exponent;
    Floats derivative;
    Ints derivative_exponent;
};

// exp(-t) = exp(r) 2^-k with |r| <= ln2 / 2, for t up to DEAD.
struct Reduced {
    Floats r;
    Ints k;
};

FASTGRAD_INLINE Reduced reduce(Floats t) {
    const Floats near = select(t > LARGE, all_of(LARGE), t);
    const Floats shifted = near * LOG2_E + ROUNDER;
    const Floats whole = shifted - ROUNDER;
    Reduced reduced{(whole * LN2_HIGH - near) + whole * LN2_LOW, bits_of(shifted) - ROUNDER_BITS};
    const Ints large = t > LARGE;
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
        reduced.r = select(large, (rest - again * LN2_HIGH) - again * LN2_LOW, reduced.r);
        for (int i = 0; i < LANES; ++i)
            if (large[i]) reduced.k[i] = (int64_t)k[i] - (int64_t)again[i];
    }
    return reduced;
}

FASTGRAD_INLINE Link sigmoid(Floats z) {
    const Ints dead = ~(absolute(z) <= DEAD);
    const Reduced reduced = reduce(select(dead, Floats{}, absolute(z)));
    const Quotient p = exp_reduced(reduced.r);
    const Ints k = reduced.k;

    // e = p 2^-k; where the power is clipped, 1 + e is 1 all the same
    const Ints near_k = select(k < 1000, k, all_of((int64_t)1000));
    const Ints rest = k - near_k;
    const Ints far_k = select(rest < 1000, rest, all_of((int64_t)1000));
    const Floats scale = power_of_two(-near_k);
    const Floats inverse = 1.0 / (p.denominator + p.numerator * scale);
    const Floats positive = p.denominator * inverse;  // 1 / (1 + e)
    const Floats negative = p.numerator * inverse;    // e / (1 + e) = negative * 2^-k

    // two factors, so that a subnormal activation is rounded once
    const Floats small = (negative * scale) * power_of_two(-far_k);
    const Ints below = z < 0.0;
    return {
        select(below, select(dead, Floats{}, small), select(dead, all_of(1.0), positive)),
        select(below, select(dead, Floats{}, negative), select(dead, all_of(1.0), positive)),
        select(below, -k, Ints{}),
        select(dead, Floats{}, negative * positive),
        -k,
    };
}

// The offset d = o - 1/2 = tanh(z/2) / 2 and the derivative, for |z| <= NARROW_Z.
//
// With exp(-z) = N/D 2^-k, N = even + odd and D = even - odd, d = (D - N 2^-k) / (2 (D + N 2^-k)). Written with even and
// odd parts the numerator is even (1 - 2^-k) - odd (1 + 2^-k): for k = 0, where D and N may agree in all digits, it is
// -2 odd exactly, and for every other k it is at least a quarter of its first term. So d has relative precision for every
// z, and changes its sign alone with z, bit for bit. Where |z| is small, it is z / 4.
struct OffsetLink {
    Floats offset, derivative;
};

FASTGRAD_INLINE OffsetLink offset_narrow(Floats z) {
    const Floats shifted = z * LOG2_E + ROUNDER;
    const Floats whole = shifted - ROUNDER;
    const Parts p = exp_parts((whole * LN2_HIGH - z) + whole * LN2_LOW);
    const Floats scale = float_of(bits_of(all_of(1.0)) - (bits_of(shifted) << 52));  // 2^-k
    const Floats scaled = (p.even + p.odd) * scale;
    const Floats denominator = p.even - p.odd;
    const Floats inverse = 1.0 / (denominator + scaled);
    const Floats difference = p.even * (1.0 - scale) - p.odd * (1.0 + scale);
    return {(0.5 * difference) * inverse, (scaled * inverse) * (denominator * inverse)};
}

// The offset for every z.
FASTGRAD_INLINE Floats offset_of(Floats z) {
    const Ints dead = ~(absolute(z) <= DEAD);
    const Reduced reduced = reduce(select(dead, Floats{}, absolute(z)));
    const Parts p = exp_parts(reduced.r);
    const Floats scale = power_of_two(-select(reduced.k < 1000, reduced.k, all_of((int64_t)1000)));
    const Floats inverse = 1.0 / ((p.even - p.odd) + (p.even + p.odd) * scale);
    const Floats difference = p.even * (1.0 - scale) - p.odd * (1.0 + scale);
    const Floats size = select(dead, all_of(0.5), (0.5 * difference) * inverse);
    return select(z < 0.0, -size, size);
}

// z = w d with centered biases, as mantissa * 2^exponent and as the double that stands for it. Where |d| is below
// TINY_OFFSET, `scaled` holds d.
FASTGRAD_INLINE Floats stand_in(Scaled z) {
    const Ints raised = select(z.exponent < STAND_IN_MIN, all_of(STAND_IN_MIN), z.exponent);
    return z.mantissa * power_of_two(select(raised > STAND_IN_MAX, all_of(STAND_IN_MAX), raised));
}

struct Preactivation {
    Scaled scaled;
    Floats z;
};

FASTGRAD_INLINE Preactivation preactivation(Floats w, Floats offset, Scaled scaled) {
    const Ints tiny = absolute(offset) < TINY_OFFSET;
    const Scaled factor = split(w), whole = split(offset);
    const Scaled d{select(tiny, scaled.mantissa, whole.mantissa), select(tiny, scaled.exponent, whole.exponent)};
    const Scaled z = times(d, factor.mantissa, factor.exponent);
    return {z, stand_in(z)};
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
