// Made by csrc/constants.py: do not edit.
#pragma once

#include <cstdint>

namespace fastgrad {

enum Family : int { CONSTANT = 0, NORMAL = 1, UNIFORM = 2, CENTERED = 3, ORTHOGONAL = 4 };

enum Loss : int { SQUARED = 0, CROSS_ENTROPY = 1 };

enum Stage : int { GUESS = 0, FORWARD = 1, ADJOINTS = 2, BACKWARD = 3 };

enum NonlinearityCode : int { SIGMOID = 0, TANH = 1, RELU = 2, LINEAR = 3 };

// Version of the bits of all results.
constexpr int KERNEL_VERSION = 2;

// ln 2 = LN2 + LN2_TAIL to 106 bits, and LN2 = LN2_FRONT + LN2_BACK in halves: k ln 2 can be formed exactly for large k
// (Dekker 1971). LN2_HIGH has 32 significant bits, so that k * LN2_HIGH is exact for |k| < 2^21.
constexpr double LOG2_E = 0x1.71547652b82fep+0;
constexpr double LN2 = 0x1.62e42fefa39efp-1;
constexpr double LN2_FRONT = 0x1.62e4300000000p-1;
constexpr double LN2_BACK = -0x1.05c6110000000p-29;
constexpr double LN2_TAIL = 0x1.abc9e3b39803fp-56;
constexpr double LN2_HIGH = 0x1.62e42fee00000p-1;
constexpr double LN2_LOW = 0x1.a39ef35793c76p-33;

// Veltkamp's constant, to split a double in two halves.
constexpr double SPLITTER = 0x1.0000002000000p+27;

// Adding ROUNDER leaves the nearest integer of |v| < 2^51 in the low bits, and taking it off again leaves that integer
// as a double. ROUNDER_BITS are its own bits.
constexpr double ROUNDER = 0x1.8000000000000p+52;
constexpr int64_t ROUNDER_BITS = 0x4338000000000000;

// Sizes |z|. From LARGE_Z on k * LN2_HIGH is rounded, and k ln 2 is formed in two doubles; from HUGE_Z on ROUNDER does
// not round |z| / ln 2 to an integer, but clearing its last bits does; from DEAD on the exponent of exp(-|z|) can't be
// held, and the derivative is 0.
constexpr double LARGE_Z = 0x1.0000000000000p+20;
constexpr double HUGE_Z = 0x1.0000000000000p+50;
constexpr double DEAD = 0x1.0000000000000p+60;

// Bits of doubles: all but sign and exponent, all but the exponent, 1/2 and sqrt(1/2).
constexpr int64_t FRACTION = 0xFFFFFFFFFFFFF;
constexpr int64_t SIGN_AND_FRACTION = -0x7FF0000000000001;
constexpr int64_t EXPONENT_OF_HALF = 0x3FE0000000000000;
constexpr int64_t SQRT_HALF_BITS = 0x3FE6A09E667F3BCD;

// A product whose exponent falls below this becomes 0: exponents can't overflow.
constexpr int64_t EXPONENT_MIN = -0x4000000000000000;

// Bounds of |z| and |w| within which a link is in range: activation, derivative, weight and the products of any two of
// them are normal doubles. No exponent need be kept apart, and the bits are the same: powers of two scale exactly.
constexpr double SIGMOID_RANGE = 0x1.5400000000000p+8;
constexpr double IN_RANGE_MIN = 0x1.0000000000000p-400;
constexpr double IN_RANGE_MAX = 0x1.0000000000000p+400;

// From here down an offset d = o - 1/2 is kept as mantissa and exponent. A link in range begins at IN_RANGE_MIN or
// above, and makes none as small as that.
constexpr double TINY_OFFSET = 0x1.0000000000000p-900;

// Exponents of the double that stands for the preactivation of an offset: below, d is z / 4 to all digits, and above,
// the derivative is 0.
constexpr int64_t STAND_IN_MIN = -950;
constexpr int64_t STAND_IN_MAX = 100;

// Links of a segment that is run where its chains lie, and of one whose lanes are copied.
constexpr int64_t IN_PLACE_SEGMENT = 1024;
constexpr int64_t COPIED_SEGMENT = 128;

// `backprop` cuts chains into segments in ensembles up to this size, and from this depth on.
constexpr int64_t SEGMENTED_ENSEMBLE_MAX = 8;
constexpr int64_t SEGMENTED_DEPTH_MIN = 8192;

// `propagate` takes products over so many links first, and then over those: segments of whole ones can be multiplied
// out by themselves, and the bits don't depend on how a chain was cut.
constexpr int64_t GROUP_LINKS = 1024;

// Links after which a contracting chain has forgotten its start, bit for bit: 37 / |lambda| as a rule.
constexpr int64_t BURN_IN_LINKS = 128;

// Dense layers. A vector of zeros has ZERO_EXPONENT; a law is scaled by at most this power of two. Where the
// preactivations of sigmoid and tanh are below 2 to LINEAR_EXPONENT, these are linear to all digits.
constexpr int64_t ZERO_EXPONENT = -0x4000000000000000;
constexpr int64_t LAW_EXPONENT_MAX = 1000;
constexpr int64_t LINEAR_EXPONENT = -400;

// Sizes |z|: sigmoid and tanh are taken of preactivations held to the first, and are called saturated above the second.
constexpr double LARGEST_Z = 0x1.0000000000000p+1000;
constexpr double SATURATED_Z = 0x1.8000000000000p+2;

// Units of a layer from which on they lie in lanes; before, members do where there are more of them than units. Partial
// sums of a reflection of an orthogonal layer, of its even units and of its odd ones.
constexpr int64_t WIDE_LAYER = 64;
constexpr int64_t REFLECTION_LANES = 8;

// Philox4x32-10, and its streams.
constexpr uint64_t MULTIPLIER_0 = 0xD2511F53;
constexpr uint64_t MULTIPLIER_1 = 0xCD9E8D57;
constexpr uint64_t KEY_STEP_0 = 0x9E3779B9;
constexpr uint64_t KEY_STEP_1 = 0xBB67AE85;
constexpr uint64_t STREAM_LINKS = 0;
constexpr uint64_t STREAM_INPUTS = 1;
constexpr uint64_t STREAM_LAYERS = 2;
constexpr uint64_t STREAM_COTANGENTS = 3;
constexpr uint64_t STREAM_MIXED = 4;

constexpr double EXP_EVEN[] = {
    0x1.0000000000000p+0,
    0x1.c7193983d42b5p-4,
    0x1.03fba668ceb04p-10,
};

constexpr double EXP_ODD[] = {
    0x1.0000000000000p-1,
    0x1.c70f90b9fb7f6p-7,
    0x1.152fc31a00ea3p-15,
};

constexpr double LOG[] = {
    0x1.5555555555558p-1,
    0x1.99999999952e2p-2,
    0x1.2492492df148dp-2,
    0x1.c71c62e5800a1p-3,
    0x1.7462b4ab2ef6bp-3,
    0x1.39fe606542ddep-3,
    0x1.2b584aae78a57p-3,
};

constexpr double SIN[] = {
    0x1.921fb54442d18p+2,
    -0x1.4abbce625be41p+5,
    0x1.466bc677587f8p+6,
    -0x1.32d2cce2e5b19p+6,
    0x1.50782fda12d96p+5,
    -0x1.e30071afc3e59p+3,
    0x1.e3f38399551bfp+1,
};

constexpr double COS[] = {
    -0x1.3bd3cc9be45dep+4,
    0x1.03c1f081b5ac0p+6,
    -0x1.55d3c7e3cb241p+6,
    0x1.e1f5068688d5bp+5,
    -0x1.a6d1eef479be1p+4,
    0x1.f9ce245cada0bp+2,
    -0x1.b2f3eb054afcdp+0,
};

constexpr double QUARTER_SIN[] = {
    0x1.921fb54442d18p+0,
    -0x1.4abbce625be41p-1,
    0x1.466bc677587f8p-4,
    -0x1.32d2cce2e5b19p-8,
    0x1.50782fda12d96p-13,
    -0x1.e30071afc3e59p-19,
    0x1.e3f38399551bfp-25,
};

}  // namespace fastgrad
