"""Paths and compiler flags for C and C++ that use the kernels; ``python -m fastgrad --cflags`` prints them.

The headers are copied into the package when it is built: in a checkout they lie in ``csrc``.
"""

from __future__ import annotations

import shlex
from pathlib import Path

# Strict IEEE arithmetic: no contraction into fused multiply-adds, nothing "fast", no -march. The two -fno-* flags only
# say that nobody reads errno or the floating-point exception flags; values stay. FASTGRAD_STRICT tells the header that
# they arrived. fastgradConfig.cmake and fastgrad.pc have the same.
STRICT_FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-DFASTGRAD_STRICT")
PACKAGE = Path(__file__).parent


def get_include() -> str:
    """Return the folder for the compiler's ``-I``: programs include ``<fastgrad/fastgrad.h>`` and its like.

    Examples
    --------
    >>> import fastgrad as fg
    >>> from pathlib import Path
    >>> Path(fg.get_include(), "fastgrad/fastgrad.h").exists()
    True
    """
    installed = PACKAGE / "include"
    return str(installed if installed.exists() else PACKAGE.parent / "csrc/include")


def includes() -> str:
    """Return the include flag."""
    return shlex.quote(f"-I{get_include()}")


def cflags() -> str:
    """Return the flags for a C++ compiler."""
    return " ".join(["-std=c++17", "-O3", *STRICT_FLAGS, includes()])


def cmake_directory() -> str:
    """Return the folder for CMake's ``-Dfastgrad_DIR``."""
    return str(PACKAGE / "share/cmake/fastgrad")


def pkgconfig_directory() -> str:
    """Return the folder for ``PKG_CONFIG_PATH``.

    Raises
    ------
    FileNotFoundError
        In an editable install: the headers are not beside it.
    """
    if not (PACKAGE / "include").exists():
        raise FileNotFoundError(
            "pkgconfigdir: the headers of an editable install lie in its checkout, where pkg-config does not find "
            "them; use --cflags, or install the package"
        )
    return str(PACKAGE / "share/pkgconfig")
