"""The one place that compiles, and the intrinsics: instructions that no loop in Python makes."""

# The compiled functions carry no annotations: Numba infers and checks their types.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, no-check-untyped-defs

from __future__ import annotations

import hashlib
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable


LINE = 8  # doubles of a cache line


def _can_cache() -> bool:
    """Tell if Numba has a place on disk for machine code; there is none in a read-only install without a home."""
    try:
        numba.njit(lambda: None, cache=True)
    except RuntimeError:
        warnings.warn(
            "numba: has no place to keep compiled kernels, so each process compiles them again, for half a minute; "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            stacklevel=2,
        )
        return False
    return True


CACHE = _can_cache()
# Numba looks for changes in a function's own file alone, and not where the functions that it calls, its constants, and
# the fields that it reads are defined.
_SOURCES = sorted(Path(__file__).parent.glob("*.py")) + [
    Path(__file__).parent.with_name(name) for name in ("constants.py", "contract.py")
]
SOURCES_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()


# ``error_model="numpy"`` because Python's tests every division and keeps loops scalar; no ``fastmath`` and no
# contraction, so that the bits are those of the C++ backend.
STRICT = {"nogil": True, "error_model": "numpy", "fastmath": False}


def njit(function: Callable[..., Any], **more: Any) -> Any:
    """Compile strictly and without the GIL; the machine code is cached on disk where there is a place to write."""
    compiled = numba.njit(function, **STRICT, cache=CACHE, **more)
    if CACHE:
        file = compiled._cache._cache_file
        file._source_stamp = file._source_stamp, SOURCES_DIGEST
        file._load_index = partial(_index_of, file._load_index)
    return compiled


def _index_of(load: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
    """Load the index of a function's machine code: empty where it names types that the sources have no more."""
    try:
        return load()
    except (AttributeError, ImportError):
        return {}


def njit_row(function: Callable[..., Any]) -> Any:
    """Compile what runs for each link: it makes no arrays, and counts no references to those that it is given.

    Counting is an atomic operation, which waits until every store before it is done: that takes longer than the
    arithmetic.
    """
    return njit(function, _nrt=False)


@intrinsic
def bits_of(typing_context, value):
    """The 64 bits of a double as an integer."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def float_of(typing_context, bits):
    """The double that has these 64 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic
def prefetch(typing_context, array, row, column):
    """Ask for the cache line of array[row, column] before it is needed: see csrc/backprop.h."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, signature.args[0], view, list(arguments[1:]))
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0"
        )
        to_read, second_level, data = number(0), number(2), number(1)
        builder.call(function, [builder.bitcast(pointer, byte), to_read, second_level, data])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


@intrinsic
def stream_row(typing_context, array, row, column, source, at, count):
    """Copy the first `count` of source[at], a multiple of LINE, to array[row, column:], past the cache.

    That is an instruction of the processor, which no loop in Python makes. The place must begin a cache line.
    """

    def generate(context, builder, signature, arguments):
        to_type, _, _, from_type, _, _ = signature.args
        to = context.make_array(to_type)(context, builder, arguments[0])
        origin = context.make_array(from_type)(context, builder, arguments[3])
        zero = arguments[1].type(0)
        line = ir.VectorType(context.get_data_type(to_type.dtype), LINE).as_pointer()
        place = cgutils.get_item_pointer(context, builder, to_type, to, list(arguments[1:3]))
        made = cgutils.get_item_pointer(context, builder, from_type, origin, [arguments[4], zero])
        place, made = builder.bitcast(place, line), builder.bitcast(made, line)
        past_the_cache = builder.module.add_metadata([ir.IntType(32)(1)])
        with cgutils.for_range(builder, builder.udiv(arguments[5], zero.type(LINE))) as loop:
            value = builder.load(builder.gep(made, [loop.index]), align=8)
            store = builder.store(value, builder.gep(place, [loop.index]), align=8 * LINE)
            store.set_metadata("nontemporal", past_the_cache)
        return context.get_dummy_value()

    return types.void(array, types.uintp, types.uintp, source, types.uintp, types.uintp), generate


def read_only(array: Any) -> Any:
    """View an array as one that can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
