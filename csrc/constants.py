"""Make the constants that C++ and Python share: numbers, codes, and the coefficients of polynomials.

Run ``python csrc/constants.py`` after a change of this file, or of a table in ``fastgrad/`` that has codes (it needs
mpmath and NumPy); it writes ``csrc/constants.h`` and ``fastgrad/kernels/constants.py``. With ``--check`` it writes
nothing and exits with 1 when a file differs from what it would write.

Each polynomial interpolates its function at the Chebyshev nodes of the interval, which is within a
small factor of the minimax polynomial; the error that remains is printed, relative to the function
it serves, and lies below half an ulp: rounding dominates.
"""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mpmath as mp

ROOT = Path(__file__).parent.parent

# The tables alone: the package's own __init__ would import what reads the file that is written here.
PACKAGE = ModuleType("fastgrad")
PACKAGE.__path__ = [str(ROOT / "fastgrad")]
sys.modules["fastgrad"] = PACKAGE

from fastgrad import laws, losses, nonlinearities, philox  # noqa: E402

mp.mp.dps = 60
LN2 = mp.log(2)


def chebyshev_fit(f: Callable[[mp.mpf], mp.mpf], low: mp.mpf, high: mp.mpf, degree: int) -> list[mp.mpf]:
    """Coefficients, lowest first, of the polynomial that meets f at the Chebyshev nodes."""
    n = degree + 1
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    powers = mp.matrix(n, n)
    for i, node in enumerate(nodes):
        for j in range(n):
            powers[i, j] = node**j
    return list(mp.lu_solve(powers, mp.matrix([f(node) for node in nodes])))


def at(coefficients: list[float], t: mp.mpf) -> mp.mpf:
    return mp.polyval([mp.mpf(c) for c in reversed(coefficients)], t)


def exp_fit(end: mp.mpf) -> tuple[list[mp.mpf], list[mp.mpf]]:
    """A and B in exp(r) = (A + r B) / (A - r B), polynomials in t = r² of degree 2 with A(0) = 1.

    They meet r B / A = tanh(r / 2) at the Chebyshev nodes of t. One division then serves exp and sigmoid together, with
    half the operations of a polynomial.
    """
    n = 5
    rows, right = mp.matrix(n, n), mp.matrix(n, 1)
    for i in range(n):
        t = end**2 / 2 * (1 + mp.cos(mp.pi * (2 * i + 1) / (2 * n)))
        tanh = mp.tanh(mp.sqrt(t) / 2) / mp.sqrt(t)
        rows[i, :] = mp.matrix([[-tanh * t, -tanh * t**2, 1, t, t**2]])
        right[i] = tanh
    solution = list(mp.lu_solve(rows, right))
    return [mp.mpf(1), *solution[:2]], solution[2:]


def log_remainder(t: mp.mpf) -> mp.mpf:
    """R in ln(1 + f) = 2 s + s t R(t), with s = f / (2 + f) and t = s²."""
    s = mp.sqrt(t)
    return (2 * mp.atanh(s) - 2 * s) / (s * t) if t else mp.mpf(2) / 3


def sin_turns(t: mp.mpf) -> mp.mpf:
    """S in sin(2πf) = f S(t), with t = f²."""
    f = mp.sqrt(t)
    return mp.sin(2 * mp.pi * f) / f if t else 2 * mp.pi


def cos_turns(t: mp.mpf) -> mp.mpf:
    """C in cos(2πf) = 1 + t C(t), with t = f²."""
    return (mp.cos(2 * mp.pi * mp.sqrt(t)) - 1) / t if t else -2 * mp.pi**2


# The reduced argument of exp reaches ln2/2, and a little more where |z| is so large that k ln2 is rounded.
EXP_END = LN2 / 2 * mp.mpf("1.01")
LOG_END = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
TURN_END = mp.mpf(1) / 64

EXP_EVEN, EXP_ODD = exp_fit(EXP_END)
FITS = {
    "EXP_EVEN": EXP_EVEN,
    "EXP_ODD": EXP_ODD,
    "LOG": chebyshev_fit(log_remainder, mp.mpf(0), LOG_END, 6),
    "SIN": chebyshev_fit(sin_turns, mp.mpf(0), TURN_END, 6),
    "COS": chebyshev_fit(cos_turns, mp.mpf(0), TURN_END, 6),
}
POLYNOMIALS = {name: [float(c) for c in coefficients] for name, coefficients in FITS.items()}
# The sine of quarter turns: exact, by powers of two.
POLYNOMIALS["QUARTER_SIN"] = [c * 0.25 ** (2 * i + 1) for i, c in enumerate(POLYNOMIALS["SIN"])]

# Part of every sweep point's key, and compiled into the extension. Increment it when any result changes in any bit; the
# pinned digests in tests/ show when.
KERNEL_VERSION = 2

# By what number kernels know a law's family, a loss, a nonlinearity.
CODES = {
    "Family": {name.upper(): code for name, code in laws.FAMILY_CODES.items()},
    "Loss": {name.upper(): of.code for name, of in losses.LOSSES.items()},
    "Stage": {"GUESS": 0, "FORWARD": 1, "ADJOINTS": 2, "BACKWARD": 3},  # of one deep chain: see the contract
    "NonlinearityCode": {name.upper(): of.code for name, of in nonlinearities.NONLINEARITIES.items()},
}

LN2_ROUNDED = float(LN2)
SPLITTER = 2.0**27 + 1
LN2_FRONT = SPLITTER * LN2_ROUNDED - (SPLITTER * LN2_ROUNDED - LN2_ROUNDED)
LN2_HIGH = float(mp.floor(LN2 * 2**32)) / 2.0**32

# What they are for, their type in C++, and their values.
NUMBERS: list[tuple[str, str, dict[str, float]]] = [
    ("Version of the bits of all results.", "int", {"KERNEL_VERSION": KERNEL_VERSION}),
    (
        """ln 2 = LN2 + LN2_TAIL to 106 bits, and LN2 = LN2_FRONT + LN2_BACK in halves: k ln 2 can be formed exactly
        for large k (Dekker 1971). LN2_HIGH has 32 significant bits, so that k * LN2_HIGH is exact for |k| < 2^21.""",
        "double",
        {
            "LOG2_E": float(1 / LN2),
            "LN2": LN2_ROUNDED,
            "LN2_FRONT": LN2_FRONT,
            "LN2_BACK": LN2_ROUNDED - LN2_FRONT,
            "LN2_TAIL": float(LN2 - LN2_ROUNDED),
            "LN2_HIGH": LN2_HIGH,
            "LN2_LOW": float(LN2 - LN2_HIGH),
        },
    ),
    ("Veltkamp's constant, to split a double in two halves.", "double", {"SPLITTER": SPLITTER}),
    (
        """Adding ROUNDER leaves the nearest integer of |v| < 2^51 in the low bits, and taking it off again leaves that
        integer as a double. ROUNDER_BITS are its own bits.""",
        "double",
        {"ROUNDER": 1.5 * 2.0**52},
    ),
    ("", "int64_t", {"ROUNDER_BITS": 0x4338000000000000}),
    (
        """Sizes |z|. From LARGE_Z on k * LN2_HIGH is rounded, and k ln 2 is formed in two doubles; from HUGE_Z on
        ROUNDER does not round |z| / ln 2 to an integer, but clearing its last bits does; from DEAD on the exponent
        of exp(-|z|) can't be held, and the derivative is 0.""",
        "double",
        {"LARGE_Z": 2.0**20, "HUGE_Z": 2.0**50, "DEAD": 2.0**60},
    ),
    (
        "Bits of doubles: all but sign and exponent, all but the exponent, 1/2 and sqrt(1/2).",
        "int64_t",
        {
            "FRACTION": 0xFFFFFFFFFFFFF,
            "SIGN_AND_FRACTION": -0x7FF0000000000001,
            "EXPONENT_OF_HALF": 1022 << 52,
            "SQRT_HALF_BITS": 0x3FE6A09E667F3BCD,
        },
    ),
    (
        "A product whose exponent falls below this becomes 0: exponents can't overflow.",
        "int64_t",
        {"EXPONENT_MIN": -(2**62)},
    ),
    (
        """Bounds of |z| and |w| within which a link is in range: activation, derivative, weight and the products of
        any two of them are normal doubles. No exponent need be kept apart, and the bits are the same: powers of two
        scale exactly.""",
        "double",
        {"SIGMOID_RANGE": 340.0, "IN_RANGE_MIN": 2.0**-400, "IN_RANGE_MAX": 2.0**400},
    ),
    (
        """From here down an offset d = o - 1/2 is kept as mantissa and exponent. A link in range begins at
        IN_RANGE_MIN or above, and makes none as small as that.""",
        "double",
        {"TINY_OFFSET": 2.0**-900},
    ),
    (
        """Exponents of the double that stands for the preactivation of an offset: below, d is z / 4 to all digits, and
        above, the derivative is 0.""",
        "int64_t",
        {"STAND_IN_MIN": -950, "STAND_IN_MAX": 100},
    ),
    (
        "Links of a segment that is run where its chains lie, and of one whose lanes are copied.",
        "int64_t",
        {"IN_PLACE_SEGMENT": 1024, "COPIED_SEGMENT": 128},
    ),
    (
        "`backprop` cuts chains into segments in ensembles up to this size, and from this depth on.",
        "int64_t",
        {"SEGMENTED_ENSEMBLE_MAX": 8, "SEGMENTED_DEPTH_MIN": 8192},
    ),
    (
        """`propagate` takes products over so many links first, and then over those: segments of whole ones can be
        multiplied out by themselves, and the bits don't depend on how a chain was cut.""",
        "int64_t",
        {"GROUP_LINKS": 1024},
    ),
    (
        "Links after which a contracting chain has forgotten its start, bit for bit: 37 / |lambda| as a rule.",
        "int64_t",
        {"BURN_IN_LINKS": 128},
    ),
    (
        """Dense layers. A vector of zeros has ZERO_EXPONENT; a law is scaled by at most this power of two. Where the
        preactivations of sigmoid and tanh are below 2 to LINEAR_EXPONENT, these are linear to all digits.""",
        "int64_t",
        {"ZERO_EXPONENT": -(2**62), "LAW_EXPONENT_MAX": 1000, "LINEAR_EXPONENT": -400},
    ),
    (
        """Sizes |z|: sigmoid and tanh are taken of preactivations held to the first, and are called saturated above
        the second.""",
        "double",
        {"LARGEST_Z": 2.0**1000, "SATURATED_Z": 6.0},
    ),
    (
        """Units of a layer from which on they lie in lanes; before, members do where there are more of them than units.
        Partial sums of a reflection of an orthogonal layer, of its even units and of its odd ones.""",
        "int64_t",
        {"WIDE_LAYER": 64, "REFLECTION_LANES": 8},
    ),
    (
        "Philox4x32-10, and its streams.",
        "uint64_t",
        {
            "MULTIPLIER_0": int(philox.MULTIPLIERS[0]),
            "MULTIPLIER_1": int(philox.MULTIPLIERS[1]),
            "KEY_STEP_0": philox.KEY_STEPS[0],
            "KEY_STEP_1": philox.KEY_STEPS[1],
            **{name: int(number) for name, number in vars(philox).items() if name.startswith("STREAM_")},
        },
    ),
]


def errors() -> dict[str, float]:
    """log2 of the largest relative error of each approximation, rounding of the coefficients included."""
    worst = {}
    grid = [mp.mpf(i) / 1000 for i in range(1, 1001)]
    rounded = POLYNOMIALS
    cases = {
        "EXP": [
            abs((even + odd) / (even - odd) / mp.exp(r) - 1)
            for u in grid
            for r in (u * LN2 / 2, -u * LN2 / 2)
            for even, odd in [(at(rounded["EXP_EVEN"], r**2), r * at(rounded["EXP_ODD"], r**2))]
        ],
        "LOG": [
            abs((2 * s + s**3 * at(rounded["LOG"], s**2)) / (2 * mp.atanh(s)) - 1)
            for s in (u * mp.sqrt(LOG_END) for u in grid)
        ],
        "SIN": [abs(f * at(rounded["SIN"], f**2) / mp.sin(2 * mp.pi * f) - 1) for f in (u / 8 for u in grid)],
        "COS": [abs((1 + f**2 * at(rounded["COS"], f**2)) / mp.cos(2 * mp.pi * f) - 1) for f in (u / 8 for u in grid)],
    }
    for name, values in cases.items():
        worst[name] = float(mp.log(max(values), 2))
    return worst


def integer_text(number: int) -> str:
    return str(number) if abs(number) < 2**20 else f"{'-' * (number < 0)}0x{abs(number):X}"


def header() -> str:
    lines = [
        "// Made by csrc/constants.py: do not edit.",
        "#pragma once",
        "",
        "#include <cstdint>",
        "",
        "namespace fastgrad {",
    ]
    for kind, codes in CODES.items():
        lines += ["", f"enum {kind} : int {{ {', '.join(f'{name} = {code}' for name, code in codes.items())} }};"]
    for comment, kind, numbers in NUMBERS:
        lines += (
            ["", *textwrap.wrap(f"// {' '.join(comment.split())}", 120, subsequent_indent="// ")] if comment else []
        )
        for name, number in numbers.items():
            text = number.hex() if isinstance(number, float) else integer_text(number)
            lines += [f"constexpr {kind} {name} = {text};"]
    for name, values in POLYNOMIALS.items():
        lines += ["", f"constexpr double {name}[] = {{"] + [f"    {value.hex()}," for value in values] + ["};"]
    return "\n".join([*lines, "", "}  // namespace fastgrad", ""])


def module() -> str:
    lines = ['"""Made by csrc/constants.py: do not edit."""', ""]
    for codes in CODES.values():
        lines += [f"{', '.join(codes)} = {', '.join(str(code) for code in codes.values())}"]
    for comment, _, numbers in NUMBERS:
        lines += ["", *textwrap.wrap(f"# {' '.join(comment.split())}", 120, subsequent_indent="# ")] if comment else []
        for name, number in numbers.items():
            text = f'float.fromhex("{number.hex()}")' if isinstance(number, float) else integer_text(number)
            lines += [f"{name} = {text}"]
    for name, values in POLYNOMIALS.items():
        lines += ["", f"{name} = ("] + [f'    float.fromhex("{value.hex()}"),' for value in values] + [")"]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    for name, log2_error in errors().items():
        print(f"{name}: relative error 2^{log2_error:.1f}")
        assert log2_error < -53, f"{name}: degree too low"
    stale = []
    for path, text in [(ROOT / "csrc/constants.h", header()), (ROOT / "fastgrad/kernels/constants.py", module())]:
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text() != text:
            stale.append(path.name)
    sys.exit(f"stale: {', '.join(stale)}" if stale else 0)
