"""Make the polynomial coefficients that both compiled backends share.

Run ``python csrc/coefficients.py`` after a change (it needs mpmath); it writes
``csrc/coefficients.h`` and ``fastgrad/kernels/coefficients.py``. With ``--check`` it writes
nothing and exits with 1 when a file differs from what it would write.

Each polynomial interpolates its function at the Chebyshev nodes of the interval, which is within a
small factor of the minimax polynomial; the error that remains is printed, relative to the function
it serves, and lies below half an ulp: rounding dominates.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import mpmath as mp

mp.mp.dps = 60
ROOT = Path(__file__).parent.parent
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
POLYNOMIALS = {
    "EXP_EVEN": EXP_EVEN,
    "EXP_ODD": EXP_ODD,
    "LOG": chebyshev_fit(log_remainder, mp.mpf(0), LOG_END, 6),
    "SIN": chebyshev_fit(sin_turns, mp.mpf(0), TURN_END, 6),
    "COS": chebyshev_fit(cos_turns, mp.mpf(0), TURN_END, 6),
}
ROUNDED = {name: [float(c) for c in coefficients] for name, coefficients in POLYNOMIALS.items()}

# ln 2 in two parts: the high part has 32 significant bits, so that k * LN2_HIGH is exact for |k| < 2^21.
LN2_HIGH = float(mp.floor(LN2 * 2**32)) / 2.0**32
# ln 2 to 106 bits, and its first part in two halves, so that k ln 2 can be formed exactly for large k (Dekker 1971).
LN2_ROUNDED = float(LN2)
VELTKAMP = 2.0**27 + 1
LN2_FRONT = VELTKAMP * LN2_ROUNDED - (VELTKAMP * LN2_ROUNDED - LN2_ROUNDED)
CONSTANTS = {
    "LOG2_E": float(1 / LN2),
    "LN2": LN2_ROUNDED,
    "LN2_FRONT": LN2_FRONT,
    "LN2_BACK": LN2_ROUNDED - LN2_FRONT,
    "LN2_TAIL": float(LN2 - LN2_ROUNDED),
    "LN2_HIGH": LN2_HIGH,
    "LN2_LOW": float(LN2 - LN2_HIGH),
}


def errors() -> dict[str, float]:
    """log2 of the largest relative error of each approximation, rounding of the coefficients included."""
    worst = {}
    grid = [mp.mpf(i) / 1000 for i in range(1, 1001)]
    rounded = ROUNDED
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


def header() -> str:
    lines = ["// Made by csrc/coefficients.py: do not edit.", "#pragma once", "", "namespace fastgrad {", ""]
    lines += [f"constexpr double {name} = {value.hex()};" for name, value in CONSTANTS.items()]
    for name, values in ROUNDED.items():
        lines += ["", f"constexpr double {name}[] = {{"] + [f"    {value.hex()}," for value in values] + ["};"]
    return "\n".join([*lines, "", "}  // namespace fastgrad", ""])


def module() -> str:
    lines = ['"""Made by csrc/coefficients.py: do not edit."""', ""]
    lines += [f'{name} = float.fromhex("{value.hex()}")' for name, value in CONSTANTS.items()]
    for name, values in ROUNDED.items():
        lines += [f"{name} = ("] + [f'    float.fromhex("{value.hex()}"),' for value in values] + [")"]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    for name, log2_error in errors().items():
        print(f"{name}: relative error 2^{log2_error:.1f}")
        assert log2_error < -53, f"{name}: degree too low"
    stale = []
    for path, text in [(ROOT / "csrc/coefficients.h", header()), (ROOT / "fastgrad/kernels/coefficients.py", module())]:
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text() != text:
            stale.append(path.name)
    sys.exit(f"stale: {', '.join(stale)}" if stale else 0)
