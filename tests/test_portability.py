"""The C++ kernels on systems and processors other than this one: they compile, without a warning."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETS = ("baseline", "avx2", "avx512")
TARGETS = ("aarch64-linux-gnu", "aarch64-macos", "x86_64-windows-gnu", "wasm32-wasi")
STRICT = ("-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Werror")


@pytest.fixture(scope="module")
def compile_for(tmp_path_factory):
    """Function that compiles a source for a target with ziglang's clang, and returns the object's bytes."""
    if importlib.util.find_spec("ziglang") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs the package ziglang")
    folder = tmp_path_factory.mktemp("objects")

    def run(target, source, *options):
        made = folder / f"{target}.o"
        command = [sys.executable, "-m", "ziglang", "c++", "-target", target, "-O0", *STRICT, *options, "-c"]
        done = subprocess.run(
            [*command, "-o", made, source],
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(folder / "cache")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return made.read_bytes()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_elsewhere(target, compile_for):
    for name in SETS:
        made = compile_for(target, ROOT / f"csrc/isa_{name}.cpp")
        # Kernels for newer x86-64 processors are left out elsewhere, and only there: look for their mangled namespace.
        assert (f"{len(name)}{name}".encode() in made) == (name == "baseline" or target.startswith("x86_64"))


@pytest.mark.slow
def test_kernels_for_newer_processors_do_not_depend_on_the_name_gnu(compile_for, tmp_path):
    source = tmp_path / "guard.cpp"
    # Where clang stands in for the compiler of Windows, it does not define __GNUC__.
    source.write_text(
        "#include <cstddef>\n#include <cstdint>\n#undef __GNUC__\n"
        f'#include "{ROOT / "csrc/jobs.h"}"\n'
        "#if !defined(FASTGRAD_X86_64_SETS)\n#error\n#endif\n"
    )
    compile_for("x86_64-windows-gnu", source)
