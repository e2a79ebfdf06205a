"""Fixtures of all tests: the backends, the comparisons, the oracle, the command line, and fresh interpreters."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

# Tests run side by side, and BLAS threads of several processes would wait for each other. NumPy reads it when loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import Phase

import fastgrad as fg
from fastgrad.cli import main
from fastgrad.kernels import BACKENDS, BackendUnavailableError, load

ROOT = Path(__file__).parent.parent

# A shell that starts pytest in the background lets it ignore Ctrl-C, and the processes of the tests with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A terminal of 80 columns that says nothing about color, whatever the tests run in; None removes a variable.
PLAIN = {"COLUMNS": "80", "NO_COLOR": None, "FORCE_COLOR": None, "CLICOLOR_FORCE": None, "TTY_COMPATIBLE": None}
PLAIN |= {f"FASTGRAD_{name}": None for name in ("BACKEND", "THREADS", "FORMAT", "COLOR", "QUIET")}

# Derandomized: a run tells about the code, not about the day. A failing example is shown as it was found, at once;
# pytest --hypothesis-profile=shrink takes minutes to make it small.
COMMON = {"derandomize": True, "deadline": None, "database": None, "max_examples": 100}
hypothesis.settings.register_profile("shrink", **COMMON)
hypothesis.settings.register_profile("fastgrad", **COMMON, phases=[Phase.explicit, Phase.generate])
hypothesis.settings.load_profile("fastgrad")


def require(name):
    """The name of a backend that can run here; a missing one skips the test, and fails it in CI."""
    try:
        return load(name)[0]
    except BackendUnavailableError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture(params=sorted(BACKENDS), scope="module")
def backend(request):
    """Each backend in turn."""
    return require(request.param)


@pytest.fixture(params=sorted(n for n, of in BACKENDS.items() if of.arithmetic == "compiled"), scope="module")
def compiled_backend(request):
    """Each compiled backend in turn."""
    return require(request.param)


@pytest.fixture(scope="session")
def compiled():
    """The two backends that promise equal bits."""
    return require("cpp"), require("numba")


@pytest.fixture
def rng():
    """A generator with a fixed seed, new for each test."""
    return np.random.default_rng(20260101)


def parts(result):
    """Arrays of a result, by name."""
    if isinstance(result, np.ndarray | np.generic):
        return {"array": np.asarray(result)}
    if isinstance(result, fg.Scaled):
        return {"mantissa": result.mantissa, "exponent": result.exponent}
    names = ("output", "grad_weight", "grad_bias", "grad_x", "adjoint", "bound")
    found = {name: getattr(result, name) for name in names if hasattr(result, name)}
    return {f"{name}.{key}": array for name, value in found.items() for key, array in parts(value).items()}


@pytest.fixture(scope="session")
def same_bits():
    """Function that asserts that two results (arrays, Scaled, Gradients or Growth) are equal bit for bit."""

    def check(a, b):
        ours, theirs = parts(a), parts(b)
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            other = theirs[name]
            assert (array.shape, array.dtype) == (other.shape, other.dtype), name
            if array.tobytes() != other.tobytes():
                different = np.argwhere(array != other)
                raise AssertionError(f"{name}: {len(different)} of {array.size} differ, first at {different[:1]}")

    return check


@pytest.fixture(scope="session")
def agree():
    """Function that asserts |ln|a/b|| <= rtol for each pair of values, equal signs, and zeros at the same places."""

    def check(a, b, rtol):
        assert a.shape == b.shape
        excess = fg.log2_distance(a, b) * math.log(2) / rtol
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        assert np.all(excess <= 1), f"{a[worst]} and {b[worst]} at {worst}: {excess[worst]:.3g} times the bound"

    return check


@pytest.fixture(scope="session")
def expanding_rtol():
    """Function like `agreement_rtol`, for chains that need not contract.

    The error of an activation then grows by at most |w|/4 a link, and a preactivation's error is the largest relative
    error that it can give its derivative, because |sigmoid''/sigmoid'| <= 1.
    """

    def bound(weight, bias):
        size = np.abs(weight) + np.abs(bias)
        activation, total = np.zeros(size.shape[1:]), np.zeros(size.shape[1:])
        for link in range(len(size)):
            preactivation = np.abs(weight[link]) * activation + 2.0**-52 * size[link]
            activation = preactivation / 4 + 2.0**-51
            total = total + preactivation
        return 2 * total + fg.agreement_rtol(weight, bias)

    return bound


def module_from(path):
    """Import a file that is no part of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden():
    """The module tests/golden/make_golden.py: the oracle at 60 digits."""
    return module_from(ROOT / "tests/golden/make_golden.py")


@pytest.fixture(scope="session")
def second_solver():
    """The module tests/theory/second_solver.py: another way to Lyapunov exponents."""
    return module_from(ROOT / "tests/theory/second_solver.py")


@pytest.fixture(scope="session")
def cli():
    """Function that runs a command in this process; anything but an exit is a failure.

    Keywords change the environment; None removes a variable.
    """

    def run(*arguments, **environment):
        result = CliRunner(env=PLAIN | environment).invoke(main, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return run


@pytest.fixture(scope="session")
def output(cli):
    """Function like `cli` that returns what a command prints that succeeds without a word on stderr."""

    def run(*arguments, **environment):
        result = cli(*arguments, **environment)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    return run


@pytest.fixture(scope="session")
def strict_json():
    """Function that parses JSON, and takes NaN and Infinity for a failure."""

    def refuse(token):
        raise AssertionError(f"{token} in JSON")

    return partial(json.loads, parse_constant=refuse)


@pytest.fixture(scope="session")
def document(output, strict_json):
    """Function like `output` that returns the JSON, parsed strictly."""
    return lambda *arguments: strict_json(output(*arguments, "--format", "json"))


@pytest.fixture(scope="session")
def environment_of():
    """Function that returns the environment of a command in a process of its own, with these changes."""

    def environment(**changes):
        found = {**os.environ, **PLAIN, "PYTHONIOENCODING": "utf-8", **changes}
        return {name: value for name, value in found.items() if value is not None}

    return environment


@pytest.fixture(scope="session")
def process(environment_of):
    """Function that runs ``python -m fastgrad`` in a process of its own."""

    def run(*arguments, cwd, stdout=subprocess.PIPE, **environment):
        return subprocess.run(
            [sys.executable, "-m", "fastgrad", *arguments],
            cwd=cwd,
            env=environment_of(**environment),
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding=environment.get("PYTHONIOENCODING", "utf-8"),
            timeout=60,
        )

    return run


@pytest.fixture(scope="session")
def python():
    """Function that runs code in a fresh interpreter, warnings as errors, and returns what it printed.

    Keywords change the environment; None removes a variable.
    """

    def run(code, *, warnings="error", cwd=None, **environment):
        variables = {**os.environ, **environment}
        done = subprocess.run(
            [sys.executable, "-W", warnings, "-c", code],
            env={name: value for name, value in variables.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
