"""The C++ backend: a thin adapter over the compiled module ``fastgrad._cpp`` (sources in ``csrc/``).

The contract is `fastgrad.kernels.contract`. The kernels are compiled once per instruction set; the newest that
the processor has is chosen, or the one that the environment variable ``FASTGRAD_ISA`` names; a name that does not run
here is a ValueError, for "auto" too. All return the same bits.
"""

import os

from fastgrad.kernels import KERNEL_VERSION
from fastgrad.kernels.constants import COPIED_SEGMENT
from fastgrad.kernels.contract import Limits

try:
    from fastgrad import _cpp
except ImportError as error:
    error.add_note("The extension fastgrad._cpp is missing or broken: was the package compiled? pip install .")
    raise

_compiled_version = getattr(_cpp, "kernel_version", "none")
if _compiled_version != KERNEL_VERSION:  # a sweep would store its bits as those of this version
    raise ImportError(
        f"the extension fastgrad._cpp has kernels of version {_compiled_version}, and this package is of version "
        f"{KERNEL_VERSION}: compile it again, in a checkout with pip install -e ."
    )

INSTRUCTION_SET_VARIABLE = "FASTGRAD_ISA"

# No memory for `backprop`: the result's own holds what reverse mode keeps, or a few MiB per thread.
LIMITS = Limits(
    links=2**18, elements=2**22, members=2**9, lanes=32, work_bytes=0, weights=2**26, segment=COPIED_SEGMENT
)

backprop = _cpp.backprop
backprop_segments = _cpp.backprop_segments
propagate = _cpp.propagate
suffix_products = _cpp.suffix_products
train = _cpp.train
layers_forward = _cpp.layers_forward
layers_backward = _cpp.layers_backward

_wanted = os.environ.get(INSTRUCTION_SET_VARIABLE)
if _wanted and _wanted not in _cpp.instruction_sets():
    # No ImportError: that would make this backend unavailable, and "auto" take another one without a word.
    _sets = ", ".join(_cpp.instruction_sets())
    raise ValueError(
        f"{INSTRUCTION_SET_VARIABLE}: expected one of {_sets}, which run on this processor, got {_wanted!r}"
    )
if _wanted:
    _cpp.choose(_wanted)


def build() -> dict[str, str]:
    """Compiler, its flags, and the instruction set that runs."""
    return {
        "compiler": _cpp.compiler,
        "compile_flags": _cpp.compile_flags,
        "instruction_set": _cpp.chosen(),
    }
