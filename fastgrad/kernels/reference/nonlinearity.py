"""Nonlinearities in NumPy, in extended range, by the codes that jobs have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad import nonlinearities
from fastgrad.kernels.constants import (
    DEAD,
    EXPONENT_MIN,
    LINEAR,
    LN2,
    LN2_HIGH,
    LN2_LOW,
    LN2_TAIL,
    RELU,
    SIGMOID,
    SPLITTER,
    TANH,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def renormalize(mantissa: Floats, exponent: Ints) -> tuple[Floats, Ints]:
    """Renormalize mantissa * 2^exponent."""
    fraction, shift = np.frexp(mantissa)
    shift = shift.astype(np.int64)
    zero = (fraction == 0) | (exponent < EXPONENT_MIN - shift)  # before the sum, which could pass the smallest integer
    return np.where(zero, 0.0, fraction), np.where(zero, 0, exponent + shift)


def two_product(a: Floats, b: float) -> tuple[Floats, Floats]:
    """Product of doubles as a rounded double and its error, exactly (Dekker, Numerische Mathematik 18 (1971) 224)."""
    product = a * b
    a_front, b_front = SPLITTER * a - (SPLITTER * a - a), SPLITTER * b - (SPLITTER * b - b)
    a_back, b_back = a - a_front, b - b_front
    return product, ((a_front * b_front - product) + a_front * b_back + a_back * b_front) + a_back * b_back


class Extended(NamedTuple):
    """phi(z) and phi'(z) for every z, each as mantissa * 2^exponent; not normalized."""

    mantissa: Floats
    exponent: Ints
    derivative: Floats
    derivative_exponent: Ints


def sigmoid(z: Floats) -> Extended:
    """Sigmoid and derivative from e = exp(-|z|) = p 2^-k: 1/(1+e) or e/(1+e), and e/(1+e)²."""
    t = np.abs(z)
    dead = t > DEAD
    t = np.where(dead, 0.0, t)
    k = np.rint(t / LN2)
    product, error = two_product(k, LN2)  # k ln 2 in two doubles: t - k ln 2 keeps its digits however large t is
    rest = ((product - t) + error) + k * LN2_TAIL
    again = np.rint(rest / LN2)  # 0, except where k has no last digit
    p = np.exp((rest - again * LN2_HIGH) - again * LN2_LOW)
    k = k.astype(np.int64) - again.astype(np.int64)
    e = np.ldexp(p, -np.minimum(k, 2000).astype(np.int32))
    negative = z < 0
    return Extended(
        mantissa=np.where(dead, np.where(negative, 0.0, 1.0), np.where(negative, p, 1.0) / (1 + e)),
        exponent=np.where(negative, -k, 0),
        derivative=np.where(dead, 0.0, p / (1 + e) ** 2),
        derivative_exponent=-k,
    )


def tanh(z: Floats) -> Extended:
    """2 sigmoid(2z) - 1, and its derivative."""
    of_double = sigmoid(2.0 * z)
    return Extended(np.tanh(z), no_shift(z), of_double.derivative, of_double.derivative_exponent + 2)


def relu(z: Floats) -> Extended:
    """Z where it is positive, and else 0."""
    return Extended(np.maximum(z, 0.0), no_shift(z), np.where(z > 0, 1.0, 0.0), no_shift(z))


def linear(z: Floats) -> Extended:
    """Z itself."""
    return Extended(z, no_shift(z), np.ones_like(z), no_shift(z))


def no_shift(z: Floats) -> Ints:
    """Exponents 0."""
    return np.zeros(z.shape, dtype=np.int64)


@dataclass(frozen=True)
class Nonlinearity:
    """A nonlinearity, as the stages of chains and layers need it.

    Attributes
    ----------
    value, extended : callable
        phi(z) as doubles, and phi(z) and phi'(z) in extended range.
    offset : callable
        phi(z) - phi(0), in full relative precision.
    rest : float
        phi(0).
    slope_exponent : int
        The largest phi', a power of two, is 2^slope_exponent.
    """

    value: Callable[[Floats], Floats]
    extended: Callable[[Floats], Extended]
    offset: Callable[[Floats], Floats]
    rest: float
    slope_exponent: int


EXTENDED = {SIGMOID: sigmoid, TANH: tanh, RELU: relu, LINEAR: linear}
NONLINEARITIES = {
    of.code: Nonlinearity(of.value, EXTENDED[of.code], of.offset, of.rest, int(np.log2(of.slope)))
    for of in nonlinearities.NONLINEARITIES.values()
}
