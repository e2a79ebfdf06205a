// Numbers as mantissa * 2^exponent, and the sigmoid in that form (design: 1/2 <= |mantissa| < 1, or 0 * 2^0).
// Every function here has a twin of the same name in fastgrad/kernels/jit.py that does the same IEEE
// operations in the same order: the two return the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "coefficients.h"

namespace fastgrad {

inline int64_t bits_of(double value) {
    int64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline double float_of(int64_t bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

constexpr int64_t SIGN_AND_FRACTION = static_cast<int64_t>(0x800FFFFFFFFFFFFFull);
constexpr int64_t EXPONENT_OF_HALF = int64_t{1022} << 52;

// Adding this leaves the nearest integer of |v| < 2^51 in the low bits, and taking it off again leaves that
// integer as a double.
constexpr double ROUNDER = 0x1.8p52;

// From here on half an ulp of z is a factor exp(1/16): the mantissa of exp(-|z|) is noise and only its exponent counts.
constexpr double COARSE = 0x1p50;
// From here on the exponent of exp(-|z|) can't be held: the derivative is 0.
constexpr double DEAD = 0x1p60;
// A product whose exponent falls below this becomes 0, so that exponents can't overflow.
constexpr int64_t EXPONENT_MIN = -(int64_t{1} << 62);

struct Scaled {
    double mantissa;
    int64_t exponent;
};

constexpr Scaled ONE{0.5, 1};

// 2^k for -1022 <= k <= 1023.
inline double power_of_two(int64_t k) { return float_of((k + 1023) << 52); }

// mantissa * 2^exponent, renormalized; the mantissa is 0 or a normal number.
inline Scaled normalize(double mantissa, int64_t exponent) {
    const int64_t bits = bits_of(mantissa);
    const int64_t field = (bits >> 52) & 0x7FF;
    const int64_t sum = exponent + field - 1022;
    const bool zero = field == 0 || sum < EXPONENT_MIN;
    const double fraction = float_of((bits & SIGN_AND_FRACTION) | EXPONENT_OF_HALF);
    return {zero ? 0.0 : fraction, zero ? 0 : sum};
}

// The scaled form of any finite double, subnormals included.
inline Scaled split(double value) {
    const bool subnormal = std::fabs(value) < 0x1p-1022;
    return normalize(subnormal ? value * 0x1p64 : value, subnormal ? -64 : 0);
}

inline Scaled times(Scaled a, double mantissa, int64_t exponent) {
    return normalize(a.mantissa * mantissa, a.exponent + exponent);
}

// One link: sigmoid(z) as a double and as mantissa * 2^exponent, and sigmoid'(z) = derivative * 2^derivative_exponent.
// The mantissas lie in (1/8, 3/2) here; `normalize` follows where they are multiplied.
struct Link {
    double activation;
    double mantissa;
    int64_t exponent;
    double derivative;
    int64_t derivative_exponent;
};

inline Link sigmoid(double z) {
    const double t = std::fabs(z);
    const bool dead = t > DEAD;
    const bool coarse = t > COARSE;

    // exp(-t) = p * 2^-k with |r| <= ln2 / 2
    const double near = coarse ? COARSE : t;
    const double shifted = near * LOG2_E + ROUNDER;
    const double whole = shifted - ROUNDER;
    const double r = (whole * LN2_HIGH - near) + whole * LN2_LOW;
    const double r2 = r * r;
    const double r4 = r2 * r2;
    const double low = (EXP[0] + EXP[1] * r) + (EXP[2] + EXP[3] * r) * r2;
    const double high = (EXP[4] + EXP[5] * r) + (EXP[6] + EXP[7] * r) * r2;
    const double top = (EXP[8] + EXP[9] * r) * (r4 * r4);
    const double q = (low + high * r4) + top;
    const double p = coarse ? 1.0 : 1.0 + (r + r2 * q);
    const int64_t k = coarse ? (dead ? 0 : static_cast<int64_t>((dead ? 0.0 : t) * LOG2_E))
                             : bits_of(shifted) - bits_of(ROUNDER);

    // e = p * 2^-k; where the power is clipped, 1 + e is 1 all the same
    const int64_t near_k = k < 1000 ? k : 1000;
    const int64_t far_k = k - near_k < 1000 ? k - near_k : 1000;
    const double scale = power_of_two(-near_k);
    const double inverse = 1.0 / (1.0 + p * scale);
    const double h = p * inverse;  // e / (1 + e) = h * 2^-k

    // two factors, so that a subnormal activation is rounded once
    const double small = (h * scale) * power_of_two(-far_k);
    const bool negative = z < 0.0;
    return {
        negative ? (dead ? 0.0 : small) : (dead ? 1.0 : inverse),
        negative ? (dead ? 0.0 : h) : (dead ? 1.0 : inverse),
        negative ? -k : 0,
        dead ? 0.0 : h * inverse,
        -k,
    };
}

}  // namespace fastgrad
