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

SOURCES = ["bindings.cpp", "isa_baseline.cpp", "isa_avx2.cpp", "isa_avx512.cpp"]
HEADERS = ["coefficients.h", "jobs.h", "simd.h", "scaled.h", "draws.h", "front.h", "backprop.h", "grow.h", "train.h"]

setup(
    ext_modules=[
        Pybind11Extension(
            "fastgrad._cpp",
            [f"csrc/{name}" for name in SOURCES],
            depends=[f"csrc/{name}" for name in HEADERS],
            cxx_std=17,
            extra_compile_args=STRICT,
            # Recorded for fastgrad.build_info().
            define_macros=[("FASTGRAD_COMPILE_FLAGS", '"' + " ".join(STRICT) + '"')],
        )
    ]
)
