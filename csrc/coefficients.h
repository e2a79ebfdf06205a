// Made by csrc/coefficients.py: do not edit.
#pragma once

namespace fastgrad {

constexpr double LOG2_E = 0x1.71547652b82fep+0;
constexpr double LN2 = 0x1.62e42fefa39efp-1;
constexpr double LN2_FRONT = 0x1.62e4300000000p-1;
constexpr double LN2_BACK = -0x1.05c6110000000p-29;
constexpr double LN2_TAIL = 0x1.abc9e3b39803fp-56;
constexpr double LN2_HIGH = 0x1.62e42fee00000p-1;
constexpr double LN2_LOW = 0x1.a39ef35793c76p-33;

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

}  // namespace fastgrad
