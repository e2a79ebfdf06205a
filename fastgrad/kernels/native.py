"""The C++ backend: a thin adapter over the compiled module ``fastgrad._cpp`` (sources in ``csrc/``).

The contract is the docstring of `fastgrad.kernels`.
"""

try:
    from fastgrad import _cpp
except ImportError as error:
    error.add_note("The extension fastgrad._cpp is missing or broken: was the package compiled? pip install .")
    raise

CALL_LINKS = 2**22
CALL_ELEMENTS = 2**22
WORK_BYTES = 0  # the result's own memory holds what reverse mode keeps

backprop = _cpp.backprop
grow = _cpp.grow
