"""The compiled backend, and the page on PyPI; everything else about the package is in pyproject.toml."""

import re
import sys
from pathlib import Path

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
HEADERS = [
    "constants.h",
    "jobs.h",
    "simd.h",
    "numbers.h",
    "nonlinearity.h",
    "draws.h",
    "arena.h",
    "forward.h",
    "backprop.h",
    "propagate.h",
    "train.h",
    "layers.h",
    "instruction_set.h",
]

# PyPI has no files beside the page: an image becomes the sentence that describes it, a link into the repository text.
README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
PAGE = re.sub(r"!\[([^]]*)\]\(docs/[^)]*\)", r"*(Figure: \1.)*", README)
PAGE = re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", PAGE)

setup(
    long_description=PAGE,
    long_description_content_type="text/markdown",
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
    ],
)
