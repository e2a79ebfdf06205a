"""Kernels inside other people's C and C++: by header, by capsule, and without a compiler; each built here, and run."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import headers

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
COMPILER = os.environ.get("CXX", "c++")
FLAGS_OF_SETS = {"baseline": [], "avx2": ["-mavx2"], "avx512": ["-mavx512f", "-mavx512dq"]}
LECTURE = ["dloss/dw11 = 93750000", "10000 links: dloss/dx = 10^-3897.653082"]
# Reads sizes and given chains, and writes what backprop makes of them.
PIPE = """
#include <cstdio>
#include <fastgrad/fastgrad.h>

template <class T>
static void put(const std::vector<T>& values) {
    std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

static std::vector<double> get(size_t count) {
    std::vector<double> values(count);
    if (std::fread(values.data(), sizeof(double), count, stdin) != count) throw std::runtime_error("too short");
    return values;
}

int main() {
    int64_t size[2];
    if (std::fread(size, sizeof size, 1, stdin) != 1) return 1;
    const size_t links = size[0] * size[1], members = size[1];
    const auto weight = get(links), bias = get(links), x = get(members), cotangent = get(members);
    try {
        const auto g = fastgrad::backprop(weight, bias, x, cotangent);
        put(g.output);
        for (const auto* of : {&g.weight, &g.bias, &g.x}) put(of->mantissa), put(of->exponent);
        std::fprintf(stderr, "%s", fastgrad::kernels().instruction_set);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s", error.what());
        return 3;
    }
}
"""


def run(*command, **options):
    """Run a command that must succeed; what it prints."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def available_sets():
    """Instruction sets that run here."""
    from fastgrad import _cpp

    return _cpp.instruction_sets()


def is_installed():
    """Tell an installed package, which has the headers, from an editable one."""
    return (Path(fg.__file__).parent / "include").exists()


@pytest.fixture(scope="module", params=sorted(FLAGS_OF_SETS))
def pipe(request, tmp_path_factory):
    """A program that reads chains and writes gradients, for each instruction set."""
    if request.param not in available_sets():
        pytest.skip(f"this processor has no {request.param}")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "pipe.cpp").write_text(PIPE)
    warnings = ["-Wall", "-Wextra", "-Werror"]
    cflags = run(sys.executable, "-m", "fastgrad", "--cflags").split()
    run(COMPILER, "pipe.cpp", *warnings, *cflags, *FLAGS_OF_SETS[request.param], "-o", "pipe", cwd=folder)
    return folder / "pipe", request.param


def through(program, weight, bias, x, cotangent):
    """What the program makes of chains."""
    given = b"".join(np.ascontiguousarray(a, float).tobytes() for a in (weight, bias, x, cotangent))
    size = np.array(weight.shape, np.int64).tobytes()
    return subprocess.run([program], input=size + given, capture_output=True, timeout=120)


@pytest.mark.parametrize("shape", [(30, 10_000), (1, 1), (9000, 2)])
def test_a_program_has_the_bits_of_backprop(pipe, shape, rng):
    program, name = pipe
    weight, bias = rng.normal(scale=8, size=(2, *shape))
    x, cotangent = rng.random((2, shape[1]))
    weight[0, 0] = 1e200
    done = through(program, weight, bias, x, cotangent)
    assert (done.returncode, done.stderr.decode()) == (0, name)
    expected = fg.backprop(weight, bias, x, cotangent, backend="cpp")
    arrays = [expected.output]
    for of in (expected.grad_weight, expected.grad_bias, expected.grad_x):
        arrays += [of.mantissa, of.exponent]
    assert done.stdout == b"".join(array.tobytes() for array in arrays)


def test_a_program_is_told_what_is_wrong(pipe):
    done = through(pipe[0], np.full((3, 2), np.inf), np.zeros((3, 2)), np.ones(2), np.ones(2))
    assert (done.returncode, done.stderr) == (3, b"weight or bias: expected finite numbers")


def test_files_with_different_flags_are_linked(tmp_path):
    for name in ("baseline", "avx2"):
        (tmp_path / f"{name}.cpp").write_text(
            "#include <fastgrad/fastgrad.h>\n"
            f"const char* {name}() {{ return fastgrad::kernels().instruction_set; }}\n"
            f"double {name}_gradient() {{\n"
            "    return fastgrad::backprop({4}, {-2}, {0.5}, {1}).x[0].to_double();\n"
            "}\n"
        )
    (tmp_path / "main.cpp").write_text(
        "#include <cstdio>\n"
        "const char* baseline(); const char* avx2(); double baseline_gradient(); double avx2_gradient();\n"
        'int main() { std::printf("%s %s %g", baseline(), avx2(), baseline_gradient()); }\n'
    )
    if "avx2" not in available_sets():
        pytest.skip("this processor has no avx2")
    for name in ("baseline", "avx2"):
        run(COMPILER, "-c", f"{name}.cpp", *headers.cflags().split(), *FLAGS_OF_SETS[name], cwd=tmp_path)
    run(COMPILER, "main.cpp", "baseline.o", "avx2.o", "-o", "both", cwd=tmp_path)
    assert run(tmp_path / "both") == "baseline avx2 1"


def test_the_example_by_cflags(tmp_path):
    cflags = run(sys.executable, "-m", "fastgrad", "--cflags").split()
    run(COMPILER, EXAMPLES / "cpp/main.cpp", *cflags, "-o", tmp_path / "chain")
    assert run(tmp_path / "chain").splitlines() == LECTURE


def test_the_example_by_cmake(tmp_path):
    directory = run(sys.executable, "-m", "fastgrad", "--cmakedir").strip()
    programs = Path(sysconfig.get_path("scripts"))
    run(
        programs / "cmake",
        *("-S", EXAMPLES / "cpp", "-B", tmp_path, "-G", "Ninja"),
        *(
            f"-DCMAKE_MAKE_PROGRAM={programs / 'ninja'}",
            f"-Dfastgrad_DIR={directory}",
            f"-DCMAKE_CXX_COMPILER={COMPILER}",
        ),
    )
    run(programs / "cmake", "--build", tmp_path)
    assert run(tmp_path / "chain").splitlines() == LECTURE


def test_the_example_by_pkg_config(tmp_path):
    if not is_installed():
        with pytest.raises(
            FileNotFoundError, match="pkgconfigdir: the headers of an editable install lie in its checkout"
        ):
            headers.pkgconfig_directory()
        return
    directory = run(sys.executable, "-m", "fastgrad", "--pkgconfigdir").strip()
    environment = {**os.environ, "PKG_CONFIG_PATH": directory}
    cflags = run(sys.executable, "-m", "pkgconf", "--cflags", "fastgrad", env=environment).split()
    run(COMPILER, EXAMPLES / "cpp/main.cpp", *cflags, "-o", tmp_path / "chain")
    assert run(tmp_path / "chain").splitlines() == LECTURE
    assert run(sys.executable, "-m", "pkgconf", "--modversion", "fastgrad", env=environment).strip() == fg.__version__


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "fastgrad: the flags that keep the bits are missing; add what `python -m fastgrad --cflags` prints"),
        (["-ffast-math", "-DFASTGRAD_STRICT"], "fastgrad: -ffast-math changes the bits of every result"),
        (["-Ofast", "-DFASTGRAD_STRICT"], "fastgrad: -ffast-math changes the bits of every result"),
    ],
)
def test_flags_that_would_change_the_bits_are_refused(flags, told, tmp_path):
    command = [
        COMPILER,
        "-std=c++17",
        *flags,
        f"-I{fg.get_include()}",
        EXAMPLES / "cpp/main.cpp",
        "-o",
        tmp_path / "chain",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert told in done.stderr


def built_extension(folder, include=None):
    """Build the example's extension; its folder."""
    shutil.copytree(EXAMPLES / "extension", folder, dirs_exist_ok=True)
    if include is not None:
        setup = (folder / "setup.py").read_text()
        (folder / "setup.py").write_text(setup.replace("fastgrad.get_include()", repr(str(include))))
    run(
        sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", cwd=folder, env={**os.environ, "CXX": COMPILER}
    )
    return folder


def test_an_extension_on_the_capsule_has_the_bits_on_every_instruction_set(tmp_path):
    folder = built_extension(tmp_path)
    code = (
        "import chains, numpy as np, fastgrad as fg\n"
        "w, b = fg.draw(40, 10_000, 'normal:std=20', 'normal:std=3', seed=5)\n"
        "expected = fg.backprop(w, b, 0.3, backend='cpp').grad_x\n"
        "assert np.all(fg.Scaled(*chains.gradient(w, b, 0.3)) == expected)\n"
        "print(chains.instruction_set())"
    )
    for name in available_sets():
        assert run(sys.executable, "-c", code, cwd=folder, env={**os.environ, "FASTGRAD_ISA": name}).strip() == name


def test_a_capsule_of_another_version_is_refused(tmp_path):
    include = tmp_path / "include"
    shutil.copytree(Path(fg.get_include(), "fastgrad"), include / "fastgrad")
    api = include / "fastgrad/api.h"
    api.write_text(api.read_text().replace("FASTGRAD_API_VERSION 1", "FASTGRAD_API_VERSION 99"))
    folder = built_extension(tmp_path / "extension", include)
    done = subprocess.run(
        [sys.executable, "-c", "import chains"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert (
        "ImportError: the C interface of fastgrad has version 1, and this extension was compiled for version 99: "
        "compile it again with the headers of the fastgrad that is installed"
    ) in done.stderr.splitlines()


@pytest.mark.parametrize("standard", ["c99", "c11", "c++17"])
def test_the_plain_headers_are_c_and_cpp(standard, tmp_path):
    suffix = "cpp" if "+" in standard else "c"
    source = tmp_path / f"plain.{suffix}"
    source.write_text("#include <fastgrad/capsule.h>\nconst void* kernels(void) { return fastgrad_import(); }\n")
    python = f"-I{sysconfig.get_path('include')}"
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-std={standard}"]
    compiler = COMPILER if suffix == "cpp" else os.environ.get("CC", "cc")
    run(compiler, "-c", source, *strict, f"-I{fg.get_include()}", python, "-o", tmp_path / "plain.o")


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("cffi_chain", r"status 0, do_L/dx = .*0\.87582108205\d+\)? \* 2\^-2585"),
        ("njit_loop", r"weight 4\.000: gradient 2\^-7\.19"),
    ],
)
def test_examples_in_python(name, printed, tmp_path):
    shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    assert re.fullmatch(printed, run(sys.executable, f"{name}.py", cwd=tmp_path).strip())


def test_cython_and_numba_find_the_functions(compiled):
    import ctypes

    from numba.extending import get_cython_function_address

    from fastgrad import _cpp

    for name in ("backprop", "propagate", "train", "backprop_arrays"):
        assert get_cython_function_address("fastgrad._cpp", name)
    kernel = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(get_cython_function_address("fastgrad._cpp", "backprop"))
    w, b, x, c, output = np.full(3, 4.0), np.full(3, -2.0), np.full(1, 0.5), np.ones(1), np.empty(1)
    made = [np.empty(n, t) for n in (3, 3, 1) for t in (np.float64, np.int64)]
    # depth, ensemble, start, stop, weight, bias, nonlinearity, x, cotangent, output, and the gradients in pairs
    pointers = [array.ctypes.data for array in (x, c, output, *made)]
    job = np.array([3, 1, 0, 1, w.ctypes.data, b.ctypes.data, 0, *pointers], dtype=np.int64)
    assert kernel(job.ctypes.data) == 0
    assert (output[0], made[4][0] * 2.0 ** made[5][0]) == (0.5, 1.0)
    assert _cpp._C_API is not None


def test_flags_and_versions_are_the_same_everywhere(compiled):
    share = Path(fg.__file__).parent / "share"
    flags = set(headers.STRICT_FLAGS) - {"-DFASTGRAD_STRICT"}
    package = (share / "pkgconfig/fastgrad.pc").read_text()
    assert set(headers.STRICT_FLAGS) < set(re.search("Cflags: (.*)", package)[1].split())
    assert re.search("Version: (.*)", package)[1] == fg.__version__
    config = (share / "cmake/fastgrad/fastgradConfig.cmake").read_text()
    assert set(re.search('COMPILE_OPTIONS "(.*)"', config)[1].split(";")) == flags
    assert f'PACKAGE_VERSION "{fg.__version__}"' in (share / "cmake/fastgrad/fastgradConfigVersion.cmake").read_text()
    assert flags < set(fg.build_info()["compile_flags"].split())
