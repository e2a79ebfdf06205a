"""Nonlinearities: a type for each, for which the kernels are compiled anew; the twins of csrc/nonlinearity.h.

All that the kernels of chains know of a nonlinearity is here, but for the losses that go with it. They are given a
value of its type, `phi`, and call ``phi.in_range(z)``: Numba chooses by the type while it compiles.
"""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core.imputils import lower_constant
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, lower_getattr_generic, models, register_model, unbox

from fastgrad.kernels import constants
from fastgrad.kernels.constants import (
    DEAD,
    IN_RANGE_MAX,
    IN_RANGE_MIN,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    ROUNDER,
    SIGMOID,
    SIGMOID_RANGE,
    TINY_OFFSET,
)
from fastgrad.kernels.jit.compiler import bits_of, float_of, njit
from fastgrad.kernels.jit.numbers import (
    exp_parts,
    exp_reduced,
    power_of_two,
    reduce_exp_argument,
    renormalize,
    to_scaled,
)

STAND_IN_MAX = np.int64(constants.STAND_IN_MAX)
STAND_IN_MIN = np.int64(constants.STAND_IN_MIN)


@njit
def sigmoid_in_range(z):
    """Activation and derivative for |z| <= SIGMOID_RANGE."""
    shifted = z * LOG2_E + ROUNDER
    whole = shifted - ROUNDER
    numerator, denominator = exp_reduced((whole * LN2_HIGH - z) + whole * LN2_LOW)
    scaled = float_of(bits_of(numerator) - (bits_of(shifted) << 52))  # times 2^-k
    inverse = 1.0 / (denominator + scaled)
    activation = denominator * inverse  # 1 / (1 + e), where e = exp(-z) for either sign
    return activation, (scaled * inverse) * activation


@njit
def sigmoid(z):
    """Activation, the same as mantissa and exponent, derivative mantissa and exponent; not normalized."""
    dead = not (abs(z) <= DEAD)
    r, k = reduce_exp_argument(0.0 if dead else abs(z))
    numerator, denominator = exp_reduced(r)

    # e = p 2^-k; where the power is clipped, 1 + e is 1 all the same
    near_k = min(k, 1000)
    far_k = min(k - near_k, 1000)
    scale = power_of_two(-near_k)
    inverse = 1.0 / (denominator + numerator * scale)
    positive = denominator * inverse  # 1 / (1 + e)
    negative = numerator * inverse  # e / (1 + e) = negative * 2^-k

    # two factors, so that a subnormal activation is rounded once
    small = (negative * scale) * power_of_two(-far_k)
    if z < 0.0:
        activation = 0.0 if dead else small
        mantissa = 0.0 if dead else negative
        exponent = -k
    else:
        activation = 1.0 if dead else positive
        mantissa = activation
        exponent = 0
    return activation, mantissa, exponent, 0.0 if dead else negative * positive, -k


@njit
def pack_exponents(z, derivative_exponent):
    """One integer from which a tape gives both exponents back, 0 for two that are 0: k of exp(-|z|), the sign of z."""
    return derivative_exponent if z < 0.0 else -derivative_exponent


@njit
def activation_exponent(packed):
    """Exponent of the activation."""
    return min(packed, 0)


@njit
def derivative_exponent(packed):
    """Exponent of the derivative."""
    return -abs(packed)


@njit
def offset_in_range(z):
    """The sigmoid's offset o - 1/2, and derivative, for |z| <= SIGMOID_RANGE; csrc/nonlinearity.h says how."""
    shifted = z * LOG2_E + ROUNDER
    whole = shifted - ROUNDER
    even, odd = exp_parts((whole * LN2_HIGH - z) + whole * LN2_LOW)
    scale = float_of(bits_of(1.0) - (bits_of(shifted) << 52))  # 2^-k
    scaled = (even + odd) * scale
    denominator = even - odd
    inverse = 1.0 / (denominator + scaled)
    difference = even * (1.0 - scale) - odd * (1.0 + scale)
    return (0.5 * difference) * inverse, (scaled * inverse) * (denominator * inverse)


@njit
def offset_of(z):
    """The offset for every z."""
    dead = not (abs(z) <= DEAD)
    r, k = reduce_exp_argument(0.0 if dead else abs(z))
    even, odd = exp_parts(r)
    scale = power_of_two(-min(k, 1000))
    inverse = 1.0 / ((even - odd) + (even + odd) * scale)
    difference = even * (1.0 - scale) - odd * (1.0 + scale)
    size = 0.5 if dead else (0.5 * difference) * inverse
    return -size if z < 0.0 else size


class Nonlinearity:
    """A value that says by its type alone which nonlinearity kernels are compiled for.

    As an argument of its own Numba knows it in 0.4 us, for it has `_numba_type_`; as a field of a job it takes 25.
    """

    def __init__(self) -> None:
        self._numba_type_ = NonlinearityType(type(self))


class Sigmoid(Nonlinearity):
    """o = 1 / (1 + exp(-z))."""

    REST = 0.5  # phi(0)
    MAX_SLOPE = 0.25  # the largest of phi', at 0: a power of two
    MAX_SLOPE_EXPONENT = -2  # MAX_SLOPE = 2^MAX_SLOPE_EXPONENT
    RANGE = SIGMOID_RANGE  # of |z| for what is in range

    in_range = sigmoid_in_range
    extended = sigmoid
    pack_exponents = pack_exponents
    activation_exponent = activation_exponent
    derivative_exponent = derivative_exponent
    offset_in_range = offset_in_range
    offset = offset_of


class NonlinearityType(types.Type):  # type: ignore[misc]
    """Type of a `Nonlinearity` for Numba. Compiled code reads ``phi.REST`` and calls ``phi.in_range(z)``."""

    def __init__(self, of: type[Nonlinearity]) -> None:
        self.of = of
        super().__init__(name=of.__name__)


register_model(NonlinearityType)(models.OpaqueModel)


@unbox(NonlinearityType)
def _unbox(_: Any, __: Any, native: Any) -> NativeValue:
    return NativeValue(native.context.get_dummy_value())


@lower_constant(NonlinearityType)
def _constant(context: Any, *_: Any) -> Any:
    return context.get_dummy_value()


@infer_getattr
class _Attributes(AttributeTemplate):  # type: ignore[misc]
    key = NonlinearityType

    def generic_resolve(self, kind: NonlinearityType, name: str) -> Any:
        return self.context.resolve_value_type(getattr(kind.of, name))


@lower_getattr_generic(NonlinearityType)
def _attribute(context: Any, builder: Any, kind: NonlinearityType, _: Any, name: str) -> Any:
    member = getattr(kind.of, name)
    return context.get_constant_generic(builder, context.typing_context.resolve_value_type(member), member)


CHAIN_NONLINEARITIES = {SIGMOID: Sigmoid()}  # by the codes that jobs have


@njit
def is_outside(phi, z, w):
    """1 where a link is not in range, 0 where it is."""
    size = abs(w)
    return np.int64(not ((abs(z) <= phi.RANGE) & (size >= IN_RANGE_MIN) & (size <= IN_RANGE_MAX)))  # nan is outside


@njit
def stand_in(mantissa, exponent):
    """The double that stands for a preactivation."""
    return mantissa * power_of_two(min(max(exponent, STAND_IN_MIN), STAND_IN_MAX))


@njit
def preactivation(w, offset, scaled, scaled_exponent):
    """Mantissa and exponent of z = w d with centered biases, and the double that stands for it.

    Where |d| is below TINY_OFFSET, `scaled` holds d.
    """
    factor, factor_exponent = to_scaled(w)
    mantissa, exponent = to_scaled(offset)
    if abs(offset) < TINY_OFFSET:
        mantissa, exponent = scaled, scaled_exponent
    mantissa, exponent = renormalize(mantissa * factor, exponent + factor_exponent)
    return mantissa, exponent, stand_in(mantissa, exponent)
