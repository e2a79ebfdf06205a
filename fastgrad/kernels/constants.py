"""Made by csrc/constants.py: do not edit."""

CONSTANT, NORMAL, UNIFORM, CENTERED, ORTHOGONAL = 0, 1, 2, 3, 4
SQUARED, CROSS_ENTROPY = 0, 1
GUESS, FORWARD, ADJOINTS, BACKWARD = 0, 1, 2, 3
SIGMOID, TANH, RELU, LINEAR = 0, 1, 2, 3

# Version of the bits of all results.
KERNEL_VERSION = 2

# ln 2 = LN2 + LN2_TAIL to 106 bits, and LN2 = LN2_FRONT + LN2_BACK in halves: k ln 2 can be formed exactly for large k
# (Dekker 1971). LN2_HIGH has 32 significant bits, so that k * LN2_HIGH is exact for |k| < 2^21.
LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN2 = float.fromhex("0x1.62e42fefa39efp-1")
LN2_FRONT = float.fromhex("0x1.62e4300000000p-1")
LN2_BACK = float.fromhex("-0x1.05c6110000000p-29")
LN2_TAIL = float.fromhex("0x1.abc9e3b39803fp-56")
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")

# Veltkamp's constant, to split a double in two halves.
SPLITTER = float.fromhex("0x1.0000002000000p+27")

# Adding ROUNDER leaves the nearest integer of |v| < 2^51 in the low bits, and taking it off again leaves that integer
# as a double. ROUNDER_BITS are its own bits.
ROUNDER = float.fromhex("0x1.8000000000000p+52")
ROUNDER_BITS = 0x4338000000000000

# Sizes |z|. From LARGE_Z on k * LN2_HIGH is rounded, and k ln 2 is formed in two doubles; from HUGE_Z on ROUNDER does
# not round |z| / ln 2 to an integer, but clearing its last bits does; from DEAD on the exponent of exp(-|z|) can't be
# held, and the derivative is 0.
LARGE_Z = float.fromhex("0x1.0000000000000p+20")
HUGE_Z = float.fromhex("0x1.0000000000000p+50")
DEAD = float.fromhex("0x1.0000000000000p+60")

# Bits of doubles: all but sign and exponent, all but the exponent, 1/2 and sqrt(1/2).
FRACTION = 0xFFFFFFFFFFFFF
SIGN_AND_FRACTION = -0x7FF0000000000001
EXPONENT_OF_HALF = 0x3FE0000000000000
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD

# A product whose exponent falls below this becomes 0: exponents can't overflow.
EXPONENT_MIN = -0x4000000000000000

# Bounds of |z| and |w| within which a link is in range: activation, derivative, weight and the products of any two of
# them are normal doubles. No exponent need be kept apart, and the bits are the same: powers of two scale exactly.
SIGMOID_RANGE = float.fromhex("0x1.5400000000000p+8")
IN_RANGE_MIN = float.fromhex("0x1.0000000000000p-400")
IN_RANGE_MAX = float.fromhex("0x1.0000000000000p+400")

# From here down an offset d = o - 1/2 is kept as mantissa and exponent. A link in range begins at IN_RANGE_MIN or
# above, and makes none as small as that.
TINY_OFFSET = float.fromhex("0x1.0000000000000p-900")

# Exponents of the double that stands for the preactivation of an offset: below, d is z / 4 to all digits, and above,
# the derivative is 0.
STAND_IN_MIN = -950
STAND_IN_MAX = 100

# Links of a segment that is run where its chains lie, and of one whose lanes are copied.
IN_PLACE_SEGMENT = 1024
COPIED_SEGMENT = 128

# `backprop` cuts chains into segments in ensembles up to this size, and from this depth on.
SEGMENTED_ENSEMBLE_MAX = 8
SEGMENTED_DEPTH_MIN = 8192

# `propagate` takes products over so many links first, and then over those: segments of whole ones can be multiplied out
# by themselves, and the bits don't depend on how a chain was cut.
GROUP_LINKS = 1024

# Links after which a contracting chain has forgotten its start, bit for bit: 37 / |lambda| as a rule.
BURN_IN_LINKS = 128

# Dense layers. A vector of zeros has ZERO_EXPONENT; a law is scaled by at most this power of two. Where the
# preactivations of sigmoid and tanh are below 2 to LINEAR_EXPONENT, these are linear to all digits.
ZERO_EXPONENT = -0x4000000000000000
LAW_EXPONENT_MAX = 1000
LINEAR_EXPONENT = -400

# Sizes |z|: sigmoid and tanh are taken of preactivations held to the first, and are called saturated above the second.
LARGEST_Z = float.fromhex("0x1.0000000000000p+1000")
SATURATED_Z = float.fromhex("0x1.8000000000000p+2")

# Units of a layer from which on they lie in lanes; before, members do where there are more of them than units. Partial
# sums of a reflection of an orthogonal layer, of its even units and of its odd ones.
WIDE_LAYER = 64
REFLECTION_LANES = 8

# Philox4x32-10, and its streams.
MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
KEY_STEP_0 = 0x9E3779B9
KEY_STEP_1 = 0xBB67AE85
STREAM_LINKS = 0
STREAM_INPUTS = 1
STREAM_LAYERS = 2
STREAM_COTANGENTS = 3
STREAM_MIXED = 4

EXP_EVEN = (
    float.fromhex("0x1.0000000000000p+0"),
    float.fromhex("0x1.c7193983d42b5p-4"),
    float.fromhex("0x1.03fba668ceb04p-10"),
)

EXP_ODD = (
    float.fromhex("0x1.0000000000000p-1"),
    float.fromhex("0x1.c70f90b9fb7f6p-7"),
    float.fromhex("0x1.152fc31a00ea3p-15"),
)

LOG = (
    float.fromhex("0x1.5555555555558p-1"),
    float.fromhex("0x1.99999999952e2p-2"),
    float.fromhex("0x1.2492492df148dp-2"),
    float.fromhex("0x1.c71c62e5800a1p-3"),
    float.fromhex("0x1.7462b4ab2ef6bp-3"),
    float.fromhex("0x1.39fe606542ddep-3"),
    float.fromhex("0x1.2b584aae78a57p-3"),
)

SIN = (
    float.fromhex("0x1.921fb54442d18p+2"),
    float.fromhex("-0x1.4abbce625be41p+5"),
    float.fromhex("0x1.466bc677587f8p+6"),
    float.fromhex("-0x1.32d2cce2e5b19p+6"),
    float.fromhex("0x1.50782fda12d96p+5"),
    float.fromhex("-0x1.e30071afc3e59p+3"),
    float.fromhex("0x1.e3f38399551bfp+1"),
)

COS = (
    float.fromhex("-0x1.3bd3cc9be45dep+4"),
    float.fromhex("0x1.03c1f081b5ac0p+6"),
    float.fromhex("-0x1.55d3c7e3cb241p+6"),
    float.fromhex("0x1.e1f5068688d5bp+5"),
    float.fromhex("-0x1.a6d1eef479be1p+4"),
    float.fromhex("0x1.f9ce245cada0bp+2"),
    float.fromhex("-0x1.b2f3eb054afcdp+0"),
)

QUARTER_SIN = (
    float.fromhex("0x1.921fb54442d18p+0"),
    float.fromhex("-0x1.4abbce625be41p-1"),
    float.fromhex("0x1.466bc677587f8p-4"),
    float.fromhex("-0x1.32d2cce2e5b19p-8"),
    float.fromhex("0x1.50782fda12d96p-13"),
    float.fromhex("-0x1.e30071afc3e59p-19"),
    float.fromhex("0x1.e3f38399551bfp-25"),
)
