// Nonlinearities phi: a type for each, with which the kernels of chains are instantiated by instruction_set.h. All that
// these know of one is here, but for the losses that go with it.
#pragma once

#include "numbers.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

// phi(z) and phi'(z), where doubles hold both.
struct Values {
    Floats activation, derivative;
};

// phi(z) for every z, as a double and as mantissa * 2^exponent, and phi'(z) = derivative * 2^derivative_exponent. The
// mantissas lie in (1/8, 3/2) or are 0; `renormalize` follows where they are multiplied.
struct ExtendedValues {
    Floats activation, mantissa;
    Ints exponent;
    Floats derivative;
    Ints derivative_exponent;
};

// o = 1 / (1 + exp(-z)).
struct Sigmoid {
    static constexpr int CODE = SIGMOID;
    static constexpr double REST = 0.5;            // phi(0)
    static constexpr double MAX_SLOPE = 0.25;          // the largest of phi', at 0: a power of two
    static constexpr int64_t MAX_SLOPE_EXPONENT = -2;  // MAX_SLOPE = 2^MAX_SLOPE_EXPONENT

    // The lanes of `mask` for which `in_range` holds.
    FASTGRAD_INLINE Mask covers(Mask mask, Floats z) { return at_most(mask, abs(z), SIGMOID_RANGE); }

    // For |z| <= SIGMOID_RANGE.
    FASTGRAD_INLINE Values in_range(Floats z) {
        // e = exp(-z), also where z < 0: there numerator and denominator change places, and all is scaled by 2^k,
        // exactly.
        const Floats shifted = z * LOG2_E + ROUNDER;
        const Floats whole = shifted - ROUNDER;
        const Quotient p = exp_reduced((whole * LN2_HIGH - z) + whole * LN2_LOW);
        const Floats scaled = float_of(bits_of(p.numerator) - (bits_of(shifted) << 52));  // times 2^-k
        const Floats inverse = 1.0 / (p.denominator + scaled);
        const Floats activation = p.denominator * inverse;     // 1 / (1 + e)
        return {activation, (scaled * inverse) * activation};  // e / (1 + e)^2
    }

    // For every z. Relative error of the derivative: 5.2 * 2^-53 at most, measured up to |z| = 2^50; 1.2e-13 towards
    // 2^60.
    FASTGRAD_INLINE ExtendedValues extended(Floats z) {
        const Ints dead = ~(abs(z) <= DEAD);
        const ExpArgument argument = reduce_exp_argument(select(dead, Floats{}, abs(z)));
        const Quotient p = exp_reduced(argument.r);
        const Ints k = argument.k;

        // e = p 2^-k; where the power is clipped, 1 + e is 1 all the same
        const Ints near_k = select(k < 1000, k, broadcast((int64_t)1000));
        const Ints rest = k - near_k;
        const Ints far_k = select(rest < 1000, rest, broadcast((int64_t)1000));
        const Floats scale = power_of_two(-near_k);
        const Floats inverse = 1.0 / (p.denominator + p.numerator * scale);
        const Floats positive = p.denominator * inverse;  // 1 / (1 + e)
        const Floats negative = p.numerator * inverse;    // e / (1 + e) = negative * 2^-k

        // two factors, so that a subnormal activation is rounded once
        const Floats small = (negative * scale) * power_of_two(-far_k);
        const Ints below = z < 0.0;
        return {
            select(below, select(dead, Floats{}, small), select(dead, broadcast(1.0), positive)),
            select(below, select(dead, Floats{}, negative), select(dead, broadcast(1.0), positive)),
            select(below, -k, Ints{}),
            select(dead, Floats{}, negative * positive),
            -k,
        };
    }

    // One integer from which a tape gives both exponents back, 0 for two that are 0: k of exp(-|z|) = p 2^-k, with the
    // sign of z.
    FASTGRAD_INLINE Ints pack_exponents(Floats z, const ExtendedValues& values) {
        return select(z < 0.0, values.derivative_exponent, -values.derivative_exponent);
    }
    FASTGRAD_INLINE Ints activation_exponent(Ints packed) { return select(packed < 0, packed, Ints{}); }
    FASTGRAD_INLINE Ints derivative_exponent(Ints packed) { return select(packed < 0, packed, -packed); }

    // The offset from rest, d = o - 1/2 = tanh(z/2) / 2, in place of the activation, for |z| <= SIGMOID_RANGE.
    //
    // With exp(-z) = N/D 2^-k, N = even + odd and D = even - odd, d = (D - N 2^-k) / (2 (D + N 2^-k)). Written with
    // even and odd parts the numerator is even (1 - 2^-k) - odd (1 + 2^-k): for k = 0, where D and N may agree in all
    // digits, it is -2 odd exactly, and for every other k it is at least a quarter of its first term. So d has relative
    // precision for every z, and changes its sign alone with z, bit for bit. Where |z| is small, it is z / 4.
    FASTGRAD_INLINE Values offset_in_range(Floats z) {
        const Floats shifted = z * LOG2_E + ROUNDER;
        const Floats whole = shifted - ROUNDER;
        const ExpParts p = exp_parts((whole * LN2_HIGH - z) + whole * LN2_LOW);
        const Floats scale = float_of(bits_of(broadcast(1.0)) - (bits_of(shifted) << 52));  // 2^-k
        const Floats scaled = (p.even + p.odd) * scale;
        const Floats denominator = p.even - p.odd;
        const Floats inverse = 1.0 / (denominator + scaled);
        const Floats difference = p.even * (1.0 - scale) - p.odd * (1.0 + scale);
        return {(0.5 * difference) * inverse, (scaled * inverse) * (denominator * inverse)};
    }

    // The offset for every z.
    FASTGRAD_INLINE Floats offset(Floats z) {
        const Ints dead = ~(abs(z) <= DEAD);
        const ExpArgument argument = reduce_exp_argument(select(dead, Floats{}, abs(z)));
        const ExpParts p = exp_parts(argument.r);
        const Floats scale = power_of_two(-select(argument.k < 1000, argument.k, broadcast((int64_t)1000)));
        const Floats inverse = 1.0 / ((p.even - p.odd) + (p.even + p.odd) * scale);
        const Floats difference = p.even * (1.0 - scale) - p.odd * (1.0 + scale);
        const Floats size = select(dead, broadcast(0.5), (0.5 * difference) * inverse);
        return select(z < 0.0, -size, size);
    }
};

template <class... Phis>
struct Nonlinearities {};
using ChainNonlinearities = Nonlinearities<Sigmoid>;

// The lanes of `mask` in which a factor is so far from 0 and from infinity that products with it stay normal numbers.
FASTGRAD_INLINE Mask in_range(Mask mask, Floats factor) {
    const Floats size = abs(factor);
    return at_most(at_least(mask, size, IN_RANGE_MIN), size, IN_RANGE_MAX);
}

// The lanes of `mask` whose link is in range: no exponents need be kept apart.
template <class Phi>
FASTGRAD_INLINE Mask in_range(Mask mask, Floats z, Floats w) {
    return in_range(Phi::covers(mask, z), w);
}

// The double that stands for a preactivation z = w d with centered biases.
FASTGRAD_INLINE Floats stand_in(Scaled z) {
    const Ints raised = select(z.exponent < STAND_IN_MIN, broadcast(STAND_IN_MIN), z.exponent);
    return z.mantissa * power_of_two(select(raised > STAND_IN_MAX, broadcast(STAND_IN_MAX), raised));
}

// z = w d with centered biases, as mantissa * 2^exponent and as the double that stands for it. Where |d| is below
// TINY_OFFSET, `scaled` holds d.
struct Preactivation {
    Scaled scaled;
    Floats z;
};

FASTGRAD_INLINE Preactivation preactivation(Floats w, Floats offset, Scaled scaled) {
    const Ints tiny = abs(offset) < TINY_OFFSET;
    const Scaled z = times(select(tiny, scaled, to_scaled(offset)), to_scaled(w));
    return {z, stand_in(z)};
}

// Layers take their nonlinearity by its code: it is no more than one in `width` of their operations.

// phi(2 z) is 2 phi(z): any power of two can be taken out.
FASTGRAD_INLINE bool is_homogeneous(int nonlinearity) { return nonlinearity == RELU || nonlinearity == LINEAR; }

// phi(z), and phi'(z), as mantissa * 2^exponent; not normalized.
FASTGRAD_INLINE Scaled activation_of(int nonlinearity, Floats z) {
    if (nonlinearity == SIGMOID) {
        const ExtendedValues values = Sigmoid::extended(z);
        return {values.mantissa, values.exponent};
    }
    if (nonlinearity == TANH) return {2.0 * Sigmoid::offset(2.0 * z), Ints{}};
    return {nonlinearity == RELU ? select(z > 0.0, z, Floats{}) : z, Ints{}};
}

FASTGRAD_INLINE Scaled slope_of(int nonlinearity, Floats z) {
    if (nonlinearity == SIGMOID) {
        const ExtendedValues values = Sigmoid::extended(z);
        return {values.derivative, values.derivative_exponent};
    }
    if (nonlinearity == TANH) {
        const ExtendedValues values = Sigmoid::extended(2.0 * z);
        return {values.derivative, values.derivative_exponent + 2};
    }
    return {nonlinearity == RELU ? select(z > 0.0, broadcast(1.0), Floats{}) : broadcast(1.0), Ints{}};
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
