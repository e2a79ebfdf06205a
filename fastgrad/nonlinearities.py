"""The table of nonlinearities: each one's formula, and what the bound, the laws and theory need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["NONLINEARITIES", "Nonlinearity", "is_chain", "parse"]


@dataclass(frozen=True)
class Nonlinearity:
    """A map from a preactivation z to an activation phi(z).

    Attributes
    ----------
    name : str
    code : int
        What kernels know it by.
    slope : float
        The largest magnitude of its derivative.
    rest : float
        phi(0).
    centering : float
        The bias per weight with which a unit that rests stays at rest, -phi(0).
    image : tuple of float
        Least and largest value.
    value, derivative : callable
        phi and phi' of an array of doubles, elementwise. The derivative is accurate where |z| is large, and 0 where
        it is below the smallest double: kernels keep it as mantissa and exponent instead.
    offset : callable
        phi(z) - phi(0), in full relative precision.
    of_chains : bool
        Whether the kernels of chains have it; those of layers have all.
    """

    name: str
    code: int
    slope: float
    rest: float
    centering: float
    image: tuple[float, float]
    value: Callable[[Floats], Floats]
    derivative: Callable[[Floats], Floats]
    offset: Callable[[Floats], Floats]
    of_chains: bool = False


def _sigmoid(z: Floats) -> Floats:
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1.0) / (1.0 + e)


def _sigmoid_derivative(z: Floats) -> Floats:
    e = np.exp(-np.abs(z))
    return e / np.square(1.0 + e)


def _sigmoid_offset(z: Floats) -> Floats:
    return np.tanh(z / 2) / 2


def _tanh_derivative(z: Floats) -> Floats:
    # tanh(z) = 2 sigmoid(2z) - 1. 1 - tanh(z)² would be 0 from z = 19.1 on.
    return 4.0 * _sigmoid_derivative(2.0 * z)


def _relu(z: Floats) -> Floats:
    return np.maximum(z, 0.0)


def _relu_derivative(z: Floats) -> Floats:
    return np.where(z > 0, 1.0, 0.0)


def _identity(z: Floats) -> Floats:
    return z


NONLINEARITIES = {
    of.name: of
    for of in (
        Nonlinearity(
            "sigmoid", 0, 0.25, 0.5, -0.5, (0.0, 1.0), _sigmoid, _sigmoid_derivative, _sigmoid_offset, of_chains=True
        ),
        Nonlinearity("tanh", 1, 1.0, 0.0, 0.0, (-1.0, 1.0), np.tanh, _tanh_derivative, np.tanh),
        Nonlinearity("relu", 2, 1.0, 0.0, 0.0, (0.0, np.inf), _relu, _relu_derivative, _relu),
        Nonlinearity("linear", 3, 1.0, 0.0, 0.0, (-np.inf, np.inf), _identity, np.ones_like, _identity),
    )
}


def parse(name: str, argument: str = "nonlinearity") -> Nonlinearity:
    """Return the nonlinearity of that name.

    Raises
    ------
    ValueError
        If there is none; the message names the argument and those that there are.
    """
    try:
        return NONLINEARITIES[name]
    except (KeyError, TypeError):
        *most, last = NONLINEARITIES
        raise ValueError(f"{argument}: unknown nonlinearity {name!r}, expected {', '.join(most)} or {last}") from None


def is_chain(width: int, nonlinearity: str) -> bool:
    """Tell chains, units one after the other for which there are kernels of their own, from layers."""
    return width == 1 and NONLINEARITIES[nonlinearity].of_chains
