"""The C++ backend: a thin adapter over the compiled module ``fastgrad._cpp`` (sources in ``csrc/``).

The contract is the docstring of `fastgrad.kernels`. The kernels are compiled once per instruction set; the newest that
the processor has is chosen, or the one that the environment variable ``FASTGRAD_ISA`` names; a name that does not run
here is a ValueError, for "auto" too. All return the same bits.
"""

import os

try:
    from fastgrad import _cpp
except ImportError as error:
    error.add_note("The extension fastgrad._cpp is missing or broken: was the package compiled? pip install .")
    raise

INSTRUCTION_SET_VARIABLE = "FASTGRAD_ISA"

PAGE_LINKS = 2**18
CALL_ELEMENTS = 2**22
LANES = 32  # chains that `train` works on side by side
SLICE_MEMBERS = 2**9
WORK_BYTES = 0  # the result's own memory holds what reverse mode keeps, or a few MiB per thread

backprop = _cpp.backprop
grow = _cpp.grow
train = _cpp.train

_wanted = os.environ.get(INSTRUCTION_SET_VARIABLE)
if _wanted and _wanted not in _cpp.instruction_sets():
    # No ImportError: that would make this backend unavailable, and "auto" take another one without a word.
    _sets = ", ".join(_cpp.instruction_sets())
    raise ValueError(
        f"{INSTRUCTION_SET_VARIABLE}: expected one of {_sets}, which run on this processor, got {_wanted!r}"
    )
if _wanted:
    _cpp.choose(_wanted)


def instruction_set() -> str:
    """Name of the instruction set that runs."""
    return _cpp.chosen()
