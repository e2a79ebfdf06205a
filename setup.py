"""The compiled backend, its headers, and the page on PyPI; everything else about the package is in pyproject.toml."""

import os
import re
import shutil
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# As in fastgrad/headers.py, which says why.
FLAGS = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
STRICT = ["/O2", *(f"/clang:{flag}" for flag in FLAGS)] if sys.platform == "win32" else ["-O3", *FLAGS]

SOURCES = ["bindings.cpp", "isa_baseline.cpp", "isa_avx2.cpp", "isa_avx512.cpp"]
CSRC = Path("csrc")
HEADERS = sorted([*CSRC.glob("*.h"), *CSRC.glob("include/fastgrad/*.h")])


class BuildWithHeaders(build_py):
    """Put the headers into the package, in one folder."""

    def run(self):
        super().run()
        if not self.editable_mode:  # there they are found in csrc
            folder = Path(self.build_lib) / "fastgrad/include/fastgrad"
            folder.mkdir(parents=True, exist_ok=True)
            for header in HEADERS:
                shutil.copy(header, folder)

    def get_outputs(self, include_bytecode=True):
        folder = Path(self.build_lib) / "fastgrad/include/fastgrad"
        copied = [] if self.editable_mode else [str(folder / header.name) for header in HEADERS]
        return super().get_outputs(include_bytecode) + copied


class BuildByClang(build_ext):
    """On Windows, compile by clang-cl: the kernels are written in the vector extensions of GCC and Clang.

    Where there is only Microsoft's compiler the package is installed without them, and says so.
    """

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            of_visual_studio = Path(os.environ.get("VCINSTALLDIR", "")) / "Tools/Llvm/x64/bin"
            clang = shutil.which("clang-cl") or shutil.which("clang-cl", path=str(of_visual_studio))
            if clang is None:
                self.extensions.clear()
                print(
                    "\n*** fastgrad: no clang-cl was found, so the C++ kernels are NOT compiled. The Numba backend has "
                    "the same bits, and compiles for some seconds at its first call. To have them: install LLVM, or "
                    "the component 'C++ Clang tools' of Visual Studio, and fastgrad again. ***\n",
                    file=sys.stderr,
                )
                return
            self.compiler.initialize()
            self.compiler.cc = clang
        super().build_extensions()


# PyPI has no files beside the page: an image becomes the sentence that describes it, a link into the repository text.
README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
PAGE = re.sub(r"!\[([^]]*)\]\(docs/[^)]*\)", r"*(Figure: \1.)*", README)
PAGE = re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", PAGE)

setup(
    cmdclass={"build_py": BuildWithHeaders, "build_ext": BuildByClang},
    long_description=PAGE,
    long_description_content_type="text/markdown",
    ext_modules=[
        Pybind11Extension(
            "fastgrad._cpp",
            [f"csrc/{name}" for name in SOURCES],
            depends=[str(header) for header in HEADERS],
            cxx_std=17,
            extra_compile_args=STRICT,
            # Recorded for fastgrad.build_info().
            define_macros=[("FASTGRAD_COMPILE_FLAGS", '"' + " ".join(STRICT) + '"')],
        )
    ],
)
