"""The C++ kernel from cffi, without a compiler: gradients of one chain of 2000 links."""

import ctypes

import numpy as np
from cffi import FFI

from fastgrad import _cpp

ffi = FFI()
name = "int (int64_t, int64_t, double const *, double const *, double const *, double const *, double *, double *, "
name += "int64_t *, double *, int64_t *, double *, int64_t *)"
pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
address = pointer_of(_cpp.__pyx_capi__["backprop_arrays"], name.encode())  # refused if the type has changed
backprop = ffi.cast(name.replace("int (", "int (*)("), address)


def floats(array):
    """A C pointer to an array of doubles."""
    return ffi.cast("double *", ffi.from_buffer(array))


def integers(array):
    """A C pointer to an array of 64-bit integers."""
    return ffi.cast("int64_t *", ffi.from_buffer(array))


depth = 2000
weight, bias, x, cotangent = np.full(depth, 4.0), np.full(depth, -1.5), np.array([0.3]), np.ones(1)
output, grad_x, exponent_x = np.empty(1), np.empty(1), np.empty(1, np.int64)
grad_weight, grad_bias = np.empty(depth), np.empty(depth)
exponent_w, exponent_b = np.empty(depth, np.int64), np.empty(depth, np.int64)
given = [floats(array) for array in (weight, bias, x, cotangent)]
made = [floats(output)]
for mantissa, exponent in ((grad_weight, exponent_w), (grad_bias, exponent_b), (grad_x, exponent_x)):
    made += [floats(mantissa), integers(exponent)]
status = backprop(depth, 1, *given, *made)
print(f"status {status}, do_L/dx = {grad_x[0]!r} * 2^{exponent_x[0]}")
