"""Made by csrc/coefficients.py: do not edit."""

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN2 = float.fromhex("0x1.62e42fefa39efp-1")
LN2_FRONT = float.fromhex("0x1.62e4300000000p-1")
LN2_BACK = float.fromhex("-0x1.05c6110000000p-29")
LN2_TAIL = float.fromhex("0x1.abc9e3b39803fp-56")
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
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
