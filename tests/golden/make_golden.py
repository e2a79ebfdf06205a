"""The oracle: gradients of a chain at 60 digits, and the stored values that it makes.

Run ``python tests/golden/make_golden.py`` to write the .npz files beside this script. With E = exp(-z), the sigmoid is
1 / (1 + E) and its derivative 1 / (E + 2 + 1/E): no cancellation, where o (1 - o) would leave nothing of 60 digits from
z = 138 on. mpmath's exponents have no limits.
"""

from pathlib import Path
from typing import NamedTuple

import mpmath as mp
import numpy as np

DIGITS = 60
DEPTHS = (1, 10, 1000)
STDS = (0.1, 1.0, 4.0, 30.0, 1000.0)
BIASES = ("zero", "normal", "centered")
HERE = Path(__file__).parent


class Truth(NamedTuple):
    """Gradients of one chain: lists of mpf, links first, and two mpf."""

    grad_weight: list[mp.mpf]
    grad_bias: list[mp.mpf]
    grad_x: mp.mpf
    output: mp.mpf


def sigmoid(z):
    """Value and derivative."""
    e = mp.exp(-z)
    return 1 / (1 + e), 1 / (e + 2 + 1 / e)


def oracle(weight, bias, x, cotangent=1.0):
    """Gradients of one chain; the arguments are numbers, and two sequences of numbers, taken as exact."""
    with mp.workdps(DIGITS):
        w = [mp.mpf(value) for value in weight]
        b = [mp.mpf(value) for value in bias]
        activation, slope = [mp.mpf(x)], []
        for link in range(len(w)):
            value, derivative = sigmoid(w[link] * activation[link] + b[link])
            activation.append(value)
            slope.append(derivative)
        adjoint = mp.mpf(cotangent)
        grad_weight, grad_bias = [], []
        for link in reversed(range(len(w))):
            delta = adjoint * slope[link]
            grad_bias.append(delta)
            grad_weight.append(delta * activation[link])
            adjoint = delta * w[link]
        return Truth(grad_weight[::-1], grad_bias[::-1], adjoint, activation[-1])


def mantissa_exponent(values):
    """The nearest float64 mantissas, 1/2 to 1 (the upper end too, where one is rounded up), and int64 exponents."""
    pairs = [mp.frexp(value) for value in values]
    return np.array([float(m) for m, _ in pairs]), np.array([int(e) for _, e in pairs], dtype=np.int64)


def chain(depth, std, bias, seed):
    """A drawn chain: weight, bias, x and cotangent in float64."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(scale=std, size=depth)
    x, cotangent = rng.uniform(), rng.normal()
    if bias == "centered":
        return weight, -weight / 2, 0.5, cotangent
    return weight, rng.normal(size=depth) if bias == "normal" else np.zeros(depth), x, cotangent


def table(depth):
    """Every (std, bias) at one depth, side by side: the arrays of one file."""
    columns = []
    for seed, (std, bias) in enumerate((std, bias) for std in STDS for bias in BIASES):
        weight, b, x, cotangent = chain(depth, std, bias, seed)
        truth = oracle(weight, b, x, cotangent)
        column = {"weight": weight, "bias": b, "x": x, "cotangent": cotangent, "output": float(truth.output)}
        for name in ("grad_weight", "grad_bias"):
            column[f"{name}_mantissa"], column[f"{name}_exponent"] = mantissa_exponent(getattr(truth, name))
        (column["grad_x_mantissa"],), (column["grad_x_exponent"],) = mantissa_exponent([truth.grad_x])
        columns.append(column)
    return {name: np.stack([column[name] for column in columns], axis=-1) for name in columns[0]}


if __name__ == "__main__":
    for depth in DEPTHS:
        np.savez_compressed(HERE / f"depth_{depth}.npz", **table(depth))
