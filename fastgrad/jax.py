"""Chains in JAX: the C++ kernel as a function that XLA calls, under `jit`, `vmap` and `grad`.

>>> import jax, jax.numpy as jnp
>>> jax.config.update("jax_enable_x64", True)
>>> import fastgrad.jax as fj
>>> weight, bias = jnp.full(2000, 4.0), jnp.full(2000, -1.5)
>>> round(float(jax.jit(fj.backprop)(weight, bias, 0.3).grad_x.log10()), 6)  # do_L/dx, where no float holds it
-778.220123
>>> round(float(jax.grad(fj.chain, argnums=2)(weight[:20], bias[:20], 0.3)), 12)  # where a float does
6.91088e-07

The kernel runs on the CPU, in double precision: JAX has to be told ``jax_enable_x64``. It runs on one thread of XLA's.
Floats are XLA's, which takes subnormal numbers for 0; mantissas and exponents are not concerned.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from fastgrad.kernels import load

if TYPE_CHECKING:
    from jax.typing import ArrayLike

__all__ = ["Gradients", "Scaled", "backprop", "chain"]

TARGET = "fastgrad_backprop"
EXPONENT_MAX = 2100  # beyond it a number is 0 or infinite as a float


class Scaled(NamedTuple):
    """Numbers mantissa * 2**exponent, a pytree of two arrays of one shape.

    Attributes
    ----------
    mantissa : jax.Array of float64
        1/2 <= |mantissa| < 1, or 0.
    exponent : jax.Array of int64
    """

    mantissa: jax.Array
    exponent: jax.Array

    def to_float(self) -> jax.Array:
        """Return the doubles: 0 or infinite where no normal number holds it."""
        # Three factors, each a double by its bits: exp2 is not exact, and ldexp is not there in every version.
        exponent = jnp.clip(self.exponent, -EXPONENT_MAX, EXPONENT_MAX)
        parts = exponent // 3, (exponent + 1) // 3, (exponent + 2) // 3
        powers = [jax.lax.bitcast_convert_type((part + 1023) << 52, jnp.float64) for part in parts]
        return self.mantissa * powers[0] * powers[1] * powers[2]

    def log2(self) -> jax.Array:
        """Return the binary logarithm of the magnitude; -inf for 0."""
        return jnp.where(self.mantissa == 0, -jnp.inf, jnp.log2(jnp.abs(self.mantissa)) + self.exponent)

    def log10(self) -> jax.Array:
        """Return the decimal logarithm of the magnitude; -inf for 0."""
        return self.log2() * jnp.log10(2.0)


class Gradients(NamedTuple):
    """Result of `backprop`, a pytree.

    Attributes
    ----------
    output : jax.Array of float64, shape (ensemble,) or ()
    grad_weight, grad_bias : Scaled, shape (depth, ensemble) or (depth,)
    grad_x : Scaled, shape (ensemble,) or ()
    """

    output: jax.Array
    grad_weight: Scaled
    grad_bias: Scaled
    grad_x: Scaled


def backprop(weight: ArrayLike, bias: ArrayLike, x: ArrayLike, cotangent: ArrayLike = 1.0) -> Gradients:
    """Exact gradients of given chains: the bits of `fastgrad.backprop`.

    Parameters
    ----------
    weight, bias : array_like, shape (depth, ensemble) or (depth,)
        Finite; of sigmoid units, o_l = sigmoid(w_l o_{l-1} + b_l).
    x : array_like, shape (ensemble,) or ()
        o_0.
    cotangent : array_like, shape (ensemble,) or ()
        dloss/do_L.

    Returns
    -------
    Gradients

    Raises
    ------
    ValueError
        If shapes do not go together, or JAX computes in single precision. When it runs, XLA raises an error where a
        weight or bias is not finite.
    fastgrad.BackendUnavailableError
        Without the C++ kernels.
    """
    weight, bias, x, cotangent = _checked(weight, bias, x, cotangent)
    if weight.ndim == 1:
        alone = _backprop(weight[:, None], bias[:, None], x[None], cotangent[None])
        found: Gradients = jax.tree.map(lambda array: array[..., 0], alone)
        return found
    return _backprop(weight, bias, x, cotangent)


def chain(weight: ArrayLike, bias: ArrayLike, x: ArrayLike) -> jax.Array:
    """Output of given chains; its gradients are those of `backprop`, rounded to doubles.

    They are 0 where no double holds them: `backprop` has them all. Parameters, errors and shapes are those of
    `backprop`. Reverse mode only, and once: JAX refuses `jvp` and second derivatives.
    """
    weight, bias, x, _ = _checked(weight, bias, x, 1.0)
    return _chain(weight, bias, x)


@jax.custom_vjp  # type: ignore[untyped-decorator,unused-ignore]
def _chain(weight: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    return backprop(weight, bias, x).output


def _chain_forward(*given: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _chain(*given), given


def _chain_backward(given: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, ...]:
    weight, bias, x = given
    found = backprop(weight, bias, x, cotangent)
    return found.grad_weight.to_float(), found.grad_bias.to_float(), found.grad_x.to_float()


_chain.defvjp(_chain_forward, _chain_backward)


@functools.cache
def _register() -> None:
    load("cpp")  # or the reason why it is not there
    from fastgrad import _cpp

    jax.ffi.register_ffi_target(TARGET, _cpp.xla_backprop, platform="cpu")


def _checked(*given: ArrayLike) -> tuple[jax.Array, ...]:
    if not jax.config.jax_enable_x64:
        raise ValueError(
            "fastgrad.jax: expected double precision, and JAX computes in single; switch it on with "
            'jax.config.update("jax_enable_x64", True) or JAX_ENABLE_X64=1, before anything else'
        )
    weight, bias, x, cotangent = (jnp.asarray(value, dtype=jnp.float64) for value in given)
    if weight.ndim not in (1, 2) or 0 in weight.shape:
        raise ValueError(f"weight: expected the shape (depth,) or (depth, ensemble), got {weight.shape}")
    if bias.shape != weight.shape:
        raise ValueError(f"bias: expected the shape of weight, {weight.shape}, got {bias.shape}")
    members = weight.shape[1:]
    for name, value in (("x", x), ("cotangent", cotangent)):
        if value.shape not in ((), members):
            raise ValueError(f"{name}: expected a number or the shape {members}, got {value.shape}")
    return weight, bias, jnp.broadcast_to(x, members), jnp.broadcast_to(cotangent, members)


def _backprop(weight: jax.Array, bias: jax.Array, x: jax.Array, cotangent: jax.Array) -> Gradients:
    """Call the kernel: links and members are the last axes, and all before them a batch."""
    _register()

    def pair(shape: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        return jax.ShapeDtypeStruct(shape, jnp.float64), jax.ShapeDtypeStruct(shape, jnp.int64)

    made = (jax.ShapeDtypeStruct(x.shape, jnp.float64), *pair(weight.shape), *pair(weight.shape), *pair(x.shape))
    call = jax.ffi.ffi_call(TARGET, made, vmap_method="broadcast_all")
    output, *arrays = call(weight, bias, x, cotangent)
    grad_weight, grad_bias, grad_x = (Scaled(*arrays[i : i + 2]) for i in (0, 2, 4))
    return Gradients(output, grad_weight, grad_bias, grad_x)
