"""Gradients of small chains by mpmath, and how far a result in float64 may be from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import mpmath
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ULP = 2.0**-52
EXPONENT_MIN = -(2**62) + 2**20  # of a product: one below 2^-(2^62) becomes 0, and what it is multiplied by stays 0
EXPONENT_HELD = 2.0**59  # of a preactivation; from 2^60 on a derivative reads 0
NAMES = ("grad_weight", "grad_bias", "grad_x")


class Exact(NamedTuple):
    """Gradients of one chain, first link first, and the relative error that rounding may cause in them."""

    gradients: dict[str, list[Any]]
    tolerance: float


def exact(weight: Any, bias: Any, x: float, cotangent: float) -> Exact | None:
    """Gradients of one chain; None where a preactivation is so large that the definition sets a derivative to 0."""
    with mpmath.workprec(300):
        # The error of an activation grows by |w|/4 at most; of a preactivation it is at most the relative error of the
        # derivative, because |sigmoid''/sigmoid'| <= 1.
        activations, slopes, error, total = [mpmath.mpf(float(x))], [], 0.0, 0.0
        for w, b in zip(map(float, weight), map(float, bias), strict=True):
            z = mpmath.mpf(w) * activations[-1] + mpmath.mpf(b)
            if abs(z) > EXPONENT_HELD:
                return None
            size = abs(w) * abs(float(activations[-1])) + abs(b)
            moved = abs(w) * error + 2 * ULP * size
            total += moved + 16 * ULP
            error = moved / 4 + ULP
            small = mpmath.exp(-abs(z))
            slopes.append(small / (1 + small) ** 2)
            activations.append((1 if z >= 0 else small) / (1 + small))
        adjoint, deltas = mpmath.mpf(float(cotangent)), []
        for w, slope in zip(reversed(list(map(float, weight))), reversed(slopes), strict=True):
            deltas.append(adjoint * slope)
            adjoint = deltas[-1] * w
        deltas.reverse()
        grads = [delta * before for delta, before in zip(deltas, activations, strict=False)]
        # An activation's own relative error enters its weight's gradient: of the size of its preactivation's.
        return Exact({"grad_weight": grads, "grad_bias": deltas, "grad_x": [adjoint]}, 2 * total + 16 * ULP)


def close(exact_value: Any, mantissa: float, exponent: int, tolerance: float) -> bool:
    """Whether mantissa * 2^exponent is the exact value: its sign and zero always, its size where it can be known."""
    if mantissa == 0 and mpmath.mag(exact_value) < EXPONENT_MIN:  # exponents end there
        return True
    if mpmath.sign(exact_value) != np.sign(mantissa):
        return False
    if exact_value == 0 or not tolerance <= 0.05:  # NaN where the error may be of any size
        return True
    with mpmath.workprec(300):
        ratio = mpmath.ldexp(mpmath.mpf(float(mantissa)), int(exponent)) / exact_value
        return bool(abs(ratio - 1) <= tolerance)


def members(arrays: Mapping[str, Any]) -> Iterator[tuple[Any, Any, float, float]]:
    """Each chain of a file's arrays: weights, biases, input and cotangent."""
    weight = np.asarray(arrays["weight"], dtype=float)
    bias = np.broadcast_to(np.asarray(arrays.get("bias", 0.0), dtype=float), weight.shape)
    many = weight.ndim == 2
    weight, bias = (weight, bias) if many else (weight[:, None], bias[:, None])
    x, cotangent = (
        np.broadcast_to(arrays.get(name, usual), weight.shape[1:]) for name, usual in (("x", 0.5), ("cotangent", 1.0))
    )
    yield from zip(weight.T, bias.T, x, cotangent, strict=True)


def gradients_agree(result: Mapping[str, Any], arrays: Mapping[str, Any]) -> bool:
    """Whether a result of `fastgrad backprop`, as JSON, has the gradients of these arrays."""
    many = np.ndim(arrays["weight"]) == 2
    for member, one in enumerate(members(arrays)):
        known = exact(*one)
        if known is None:
            continue
        for name, values in known.gradients.items():
            mantissas, exponents = (np.asarray(result[name][part]) for part in ("mantissa", "exponent"))
            if many:
                mantissas, exponents = mantissas[..., member], exponents[..., member]
            parts = zip(values, np.atleast_1d(mantissas), np.atleast_1d(exponents), strict=True)
            if not all(close(value, *part, known.tolerance) for value, *part in parts):
                return False
    return True
