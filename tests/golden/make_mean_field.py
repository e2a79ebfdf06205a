"""Mean field at 25 digits: Gaussian integrals by mpmath's adaptive quadrature, and fixed points of its length map.

Run ``python tests/golden/make_mean_field.py`` to write mean_field.json beside this script: random sigma_w and sigma_b,
and those at which something is close to breaking. Sums of the shared normal mixture of fastgrad.theory.mean_field are
nowhere in it.
"""

import json
from pathlib import Path

import mpmath as mp
import numpy as np

DIGITS = 25
HERE = Path(__file__).parent
SEED = 11
RANDOM = 8  # points of each nonlinearity
HARD = {
    "sigmoid": [(1e-3, 0.0), (1e3, 0.0), (1e3, 1e2), (1e-3, 1e2), (10.149263710020, 0.0)],
    "tanh": [
        (1.0001, 0.0),
        (1.000001, 0.0),
        (1.0, 1e-3),
        (0.999, 1e-4),
        (1e3, 0.0),
        (1e3, 1e2),
        (0.5, 1e2),
        (1.5, 0.0),
    ],
}


def curves(name):
    """Square of phi, square of its derivative, and half the second derivative of the square of phi."""

    def sigmoid(z):
        e = mp.exp(-abs(z))
        o, slope = (e if z < 0 else 1) / (1 + e), e / (1 + e) ** 2
        return o, slope, slope * (1 - e) / (1 + e) * (-1 if z > 0 else 1)

    def tanh(z):
        _, slope, bend = sigmoid(2 * z)
        return mp.tanh(z), 4 * slope, 8 * bend

    phi = {"sigmoid": sigmoid, "tanh": tanh}[name]

    def square(z):
        return phi(z)[0] ** 2

    def slope_square(z):
        return phi(z)[1] ** 2

    def bend(z):
        o, slope, second = phi(z)
        return slope**2 + o * second

    return square, slope_square, bend


def expectation(f, q):
    """E f(√q Z); f changes on a scale of 1 near 0, and becomes constant away from it."""
    root = mp.sqrt(q)
    reach = 16 * root
    ends = sorted({mp.mpf(0), reach, *(mp.mpf(p) for p in (1, 2, 4, 8, 16, 32, 64) if p < reach), reach / 2, reach / 4})
    density = mp.sqrt(2 * mp.pi * q)
    return mp.quad(lambda z: (f(z) + f(-z)) * mp.exp(-z * z / (2 * q)), ends) / density


def solve(name, sigma_w, sigma_b):
    """Fixed point of the length map, and the two factors there."""
    square, slope_square, bend = curves(name)
    w2, b2 = mp.mpf(sigma_w) ** 2, mp.mpf(sigma_b) ** 2
    q = w2 + b2  # above the fixed point of a concave map: Newton's method falls to it
    for _ in range(100):
        slope = w2 * expectation(bend, q)
        following = (w2 * expectation(square, q) + b2 - q * slope) / (1 - slope)
        if abs(following - q) < q * mp.mpf(10) ** -20:
            break
        q = following
    else:
        raise ArithmeticError(f"no fixed point for {name}, {sigma_w}, {sigma_b}")
    return q, w2 * expectation(slope_square, q), w2 * expectation(bend, q)


def main():
    """Write the file."""
    rng = np.random.default_rng(SEED)
    rows = []
    with mp.workdps(DIGITS):
        for name, hard in HARD.items():
            low = 0.05 if name == "sigmoid" else 1.05  # below 1 and without bias, q of tanh is 0
            ws = np.exp(rng.uniform(np.log(low), np.log(300), RANDOM))
            bs = np.where(rng.random(RANDOM) < 0.3, 0.0, np.exp(rng.uniform(np.log(1e-2), np.log(30), RANDOM)))
            for w, b in [*hard, *zip(ws.tolist(), bs.tolist(), strict=True)]:
                q, chi_1, chi_q = (mp.nstr(value, 20) for value in solve(name, w, b))
                rows.append({"nonlinearity": name, "sigma_w": w, "sigma_b": b, "q": q, "chi_1": chi_1, "chi_q": chi_q})
                print(rows[-1])
    (HERE / "mean_field.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
