"""The compiled backend; everything else about the package is in pyproject.toml."""

import sys

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

# Strict IEEE arithmetic: no contraction into fused multiply-adds, nothing "fast", no -march. The two
# -fno-* flags only say that nobody reads errno or the floating-point exception flags; values stay.
STRICT = (
    ["/O2", "/fp:strict"]
    if sys.platform == "win32"
    else ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
)

setup(
    ext_modules=[
        Pybind11Extension(
            "fastgrad._cpp",
            ["csrc/bindings.cpp"],
            depends=["csrc/coefficients.h", "csrc/scaled.h", "csrc/draws.h", "csrc/backprop.h", "csrc/grow.h"],
            cxx_std=17,
            extra_compile_args=STRICT,
            # Recorded for fastgrad.build_info().
            define_macros=[("FASTGRAD_COMPILE_FLAGS", '"' + " ".join(STRICT) + '"')],
        )
    ]
)
