"""Kernels to call from your own Numba code.

>>> import numba
>>> import fastgrad.njit as fj
>>> @numba.njit
... def product(values):
...     mantissa, exponent = 0.5, 1                       # the number 1
...     for value in values:
...         factor, shift = fj.to_scaled(value)
...         mantissa, exponent = fj.multiply(mantissa, exponent, factor, shift)
...     return mantissa, exponent
>>> import numpy as np
>>> mantissa, exponent = product(np.full(1000, 1e-300))
>>> round(float(fj.log2_of(mantissa, exponent) * np.log10(2)), 6)  # 10^-300000
-300000.0

Each function has the bits of the Numba backend, and so of ``cpp``; each can be called from Python too. Arguments are
not checked. A caller that is compiled with ``cache=True`` keeps their machine code with its own.

====================  ==============================================================================================
``to_scaled``         mantissa and exponent of a double
``renormalize``       mantissa * 2^exponent with the mantissa brought to 1/2 … 1
``multiply``          product of two such numbers
``to_float``          a double, rounded once
``log2_of``           binary logarithm of the magnitude
``sigmoid``           activation, and the slope as mantissa and exponent, for every preactivation
``uniforms``          two uniforms of a link, by Philox4x32-10
``draw_normal``       two standard normals of a link
``draw``              weight and bias of a link of given laws, those of `fastgrad.simulate`
``backprop``          gradients of one chain, or of an ensemble, into given arrays
``backprop_cpp``      the same by the C++ kernel, which is faster and takes no time to compile
``gradients``         arrays for it
``chain_gradient``    derivative of a chain's output by its input
====================  ==============================================================================================

Numba does not notice that a function which a cached caller uses has changed (numba issue 1833): after an update of
fastgrad the old machine code runs on. ``VERSION`` changes with the source of the kernels. Write it into your module,
and compare: ``assert fastgrad.njit.VERSION == "…"`` fails after an update, and the edit that mends it makes Numba
compile again.
"""

# Numba infers the types of what it compiles.
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from __future__ import annotations

import ctypes
import functools
import inspect
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import binding
from numba import types
from numba.extending import get_cython_function_address, overload

from fastgrad.kernels.constants import NORMAL, SEGMENTED_DEPTH_MIN, SEGMENTED_ENSEMBLE_MAX, SIGMOID, UNIFORM
from fastgrad.kernels.contract import ScaledArrays
from fastgrad.kernels.jit import draws, nonlinearity, numbers
from fastgrad.kernels.jit.backprop import Gradients as GradientRows
from fastgrad.kernels.jit.backprop import backprop_blocks, backprop_deep
from fastgrad.kernels.jit.compiler import SOURCES_DIGEST, njit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "VERSION",
    "Gradients",
    "backprop",
    "backprop_cpp",
    "chain_gradient",
    "draw",
    "draw_normal",
    "gradients",
    "log2_of",
    "multiply",
    "renormalize",
    "sigmoid",
    "to_float",
    "to_scaled",
    "uniforms",
]

VERSION = SOURCES_DIGEST[:16]
PHI = nonlinearity.CHAIN_NONLINEARITIES[SIGMOID]


class Gradients(NamedTuple):
    """Arrays that `backprop` fills, in C order: see `gradients`.

    Attributes
    ----------
    output : ndarray of float64, shape (ensemble,)
    grad_weight, grad_weight_exponent, grad_bias, grad_bias_exponent : ndarray, shape (depth, ensemble)
        Mantissas (float64) and exponents (int64).
    grad_x, grad_x_exponent : ndarray, shape (ensemble,)
    """

    output: Any
    grad_weight: Any
    grad_weight_exponent: Any
    grad_bias: Any
    grad_bias_exponent: Any
    grad_x: Any
    grad_x_exponent: Any


def _public(body: Callable[..., Any]) -> Any:
    """Make a function for Python, and for compiled code, of a body that Numba compiles strictly whatever calls it."""
    compiled = njit(body)

    @functools.wraps(body)
    def function(*arguments: Any, **keywords: Any) -> Any:
        return compiled(*arguments, **keywords)

    def typed(*_: Any) -> Any:
        return body

    typed.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
    overload(function, jit_options={"error_model": "numpy", "nogil": True})(typed)
    return function


@_public
def to_scaled(value):
    """Mantissa and exponent of a finite double: 1/2 <= |mantissa| < 1, or 0 and 0."""
    return numbers.to_scaled(value)


@_public
def renormalize(mantissa, exponent):
    """Bring the mantissa, 0 or a normal double, to 1/2 … 1 by a power of two, exactly.

    What falls below 2^(-2^62) is 0.
    """
    return numbers.renormalize(mantissa, exponent)


@_public
def multiply(mantissa, exponent, other_mantissa, other_exponent):
    """Multiply two numbers, each a mantissa and an exponent; one rounding, of the mantissas' product."""
    return numbers.renormalize(mantissa * other_mantissa, exponent + other_exponent)


@_public
def to_float(mantissa, exponent):
    """Return the nearest double: inf and 0 where none holds the number."""
    return numbers.to_float(mantissa, exponent)


@_public
def log2_of(mantissa, exponent):
    """Binary logarithm of the magnitude; -inf for 0."""
    return -np.inf if mantissa == 0.0 else math.log2(abs(mantissa)) + exponent


@_public
def sigmoid(z):
    """Activation 1 / (1 + exp(-z)) as a double, and the slope sigmoid'(z) as mantissa and exponent.

    The slope is never taken from o (1 - o), and is right for |z| up to 2^60: see ``fastgrad.kernels.contract``.
    """
    activation, _, _, slope, exponent = nonlinearity.sigmoid(z)
    slope, exponent = numbers.renormalize(slope, exponent)
    return activation, slope, exponent


@njit
def _variates(family, seed, member, link):
    links, members = np.full(1, np.uint64(link)), np.full(1, np.uint64(member))
    first, second = np.empty(1), np.empty(1)
    draws.draw_variates(family, draws.STREAM_LINKS, np.uint64(seed), links, members, first, second)
    return first[0], second[0]


@_public
def uniforms(seed, member, link):
    """Two uniforms inside (0, 1), U and V of the draws: those of this link (from 1) of this member (from 0)."""
    return _variates(UNIFORM, seed, member, link)


@_public
def draw_normal(seed, member, link):
    """Two independent standard normals of a link, R cos(2 pi V) and R sin(2 pi V)."""
    return _variates(NORMAL, seed, member, link)


@_public
def draw(weight, bias, seed, member, link):
    """Weight and bias of one link, as the compiled kernels of `fastgrad.simulate` draw them.

    `fastgrad.draw`, which is NumPy's, may differ in the last bit of a normal.

    Parameters
    ----------
    weight, bias : tuple of (int, float, float)
        Codes of laws: ``fastgrad.laws.parse("normal:std=4", "weight").code``.
    seed, member, link : int
        Members are counted from 0, links from 1.
    """
    links, members = np.full(1, np.uint64(link)), np.full(1, np.uint64(member))
    w, b, spare = np.empty(1), np.empty(1), np.empty(1)
    draws.draw(weight, bias, PHI.REST, np.uint64(seed), links, members, w, b, spare)
    return w[0], b[0]


@_public
def gradients(depth, ensemble):
    """Make the arrays that `backprop` fills: to be kept, as fresh memory costs more than the kernel."""
    return Gradients(
        np.empty(ensemble),
        np.empty((depth, ensemble)),
        np.empty((depth, ensemble), np.int64),
        np.empty((depth, ensemble)),
        np.empty((depth, ensemble), np.int64),
        np.empty(ensemble),
        np.empty(ensemble, np.int64),
    )


@_public
def backprop(weight, bias, x, cotangent, out):
    """Fill the gradients of given chains: the bits of `fastgrad.backprop`, on the thread that calls.

    Parameters
    ----------
    weight, bias : ndarray of float64, shape (depth, ensemble), C order
    x, cotangent : ndarray of float64, shape (ensemble,)
    out : Gradients
        See `gradients`.

    Returns
    -------
    bool
        False where a weight or bias is not finite: `out` then means nothing. Nothing else is checked.
    """
    depth, ensemble = weight.shape
    given, grad_x = (weight, bias), ScaledArrays(out.grad_x, out.grad_x_exponent)
    of_weight = ScaledArrays(out.grad_weight, out.grad_weight_exponent)
    grads = GradientRows(of_weight, ScaledArrays(out.grad_bias, out.grad_bias_exponent))
    if ensemble > SEGMENTED_ENSEMBLE_MAX or depth < SEGMENTED_DEPTH_MIN:
        return backprop_blocks(PHI, given, x, cotangent, out.output, grads, grad_x, 0, ensemble)
    finite = True
    for member in range(ensemble):
        finite &= backprop_deep(PHI, given, x, cotangent, out.output, grads, grad_x, member)
    return finite


# Machine code that is cached names the function, and not its address, which is another in each process. The number is
# that of the arguments: raise it when they change.
CPP_SYMBOL = "fastgrad_backprop_arrays_1"
CPP_ARGUMENTS = types.int32(types.int64, types.int64, *[types.intp] * 11)
NO_CPP = -1  # status where there is no extension
NO_MEMORY = 2  # as in csrc/include/fastgrad/api.h


# In the place of the C++ kernel: machine code that names an unknown function would end the process.
_no_cpp = ctypes.CFUNCTYPE(ctypes.c_int32)(lambda: NO_CPP)


def _address_of_cpp() -> int:
    try:
        import fastgrad.kernels.native  # noqa: F401 (compares the versions, and looks at FASTGRAD_ISA)
    except ImportError:
        return ctypes.cast(_no_cpp, ctypes.c_void_p).value or 0
    return int(get_cython_function_address("fastgrad._cpp", "backprop_arrays"))


binding.add_symbol(CPP_SYMBOL, _address_of_cpp())
_backprop_arrays = types.ExternalFunction(CPP_SYMBOL, CPP_ARGUMENTS)


@_public
def backprop_cpp(weight, bias, x, cotangent, out):
    """Fill the gradients of given chains by the C++ kernel: arguments, bits and result are those of `backprop`.

    Raises
    ------
    RuntimeError
        If the extension is not there.
    MemoryError
    """
    depth, ensemble = weight.shape
    status = _backprop_arrays(
        depth,
        ensemble,
        weight.ctypes.data,
        bias.ctypes.data,
        x.ctypes.data,
        cotangent.ctypes.data,
        out.output.ctypes.data,
        out.grad_weight.ctypes.data,
        out.grad_weight_exponent.ctypes.data,
        out.grad_bias.ctypes.data,
        out.grad_bias_exponent.ctypes.data,
        out.grad_x.ctypes.data,
        out.grad_x_exponent.ctypes.data,
    )
    if status == NO_CPP:
        raise RuntimeError("backprop_cpp: the extension fastgrad._cpp is not there; see fastgrad info")
    if status == NO_MEMORY:
        raise MemoryError("backprop_cpp")
    return status == 0


@_public
def chain_gradient(weight, bias, x):
    """Output of one chain, and the derivative do_L/dx as mantissa and exponent.

    Parameters
    ----------
    weight, bias : ndarray of float64, shape (depth,)
    x : float
    """
    depth = len(weight)
    given = np.ascontiguousarray(weight).reshape(depth, 1), np.ascontiguousarray(bias).reshape(depth, 1)
    out = gradients(depth, 1)
    backprop(given[0], given[1], np.full(1, np.float64(x)), np.ones(1), out)
    return out.output[0], out.grad_x[0], out.grad_x_exponent[0]
