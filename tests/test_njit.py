"""Kernels inside other people's Numba code: bits, caches, threads."""

import os
import subprocess
import sys
import textwrap

import mpmath
import numpy as np
import pytest

import fastgrad as fg
from fastgrad import philox
from fastgrad.laws import parse

numba = pytest.importorskip("numba")
import fastgrad.njit as fj  # noqa: E402


@numba.njit
def products(values):
    mantissa, exponent = 0.5, 1
    for value in values:
        factor, shift = fj.to_scaled(value)
        mantissa, exponent = fj.multiply(mantissa, exponent, factor, shift)
    return mantissa, exponent


@numba.njit
def outputs(weight, bias, seed, ensemble, depth, x):
    found = np.empty(ensemble)
    for member in range(ensemble):
        o = x
        for link in range(1, depth + 1):
            w, b = fj.draw(weight, bias, seed, member, link)
            o, _, _ = fj.sigmoid(w * o + b)
        found[member] = o
    return found


def test_products_are_those_of_scaled(rng):
    values = rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500)
    expected = fg.Scaled(1.0)
    for value in values:
        expected = expected * fg.Scaled(value)
    assert products(values) == (expected.mantissa, expected.exponent)
    assert products(np.array([5e-324, 0.0])) == (0.0, 0)


@pytest.mark.parametrize("value", [0.0, -3.5, 5e-324, 1.7e308, 2.0**-1022])
def test_scaled_numbers_go_there_and_back(value):
    mantissa, exponent = fj.to_scaled(value)
    assert (mantissa, exponent) == (fg.Scaled(value).mantissa, fg.Scaled(value).exponent)
    assert fj.to_float(mantissa, exponent) == value
    assert fj.renormalize(mantissa / 8, exponent + 3) == (mantissa, exponent)
    assert fj.log2_of(mantissa, exponent) == pytest.approx(float(fg.Scaled(value).log2()), rel=1e-15)


@pytest.mark.parametrize("z", [0.0, 1.5, -30.0, 400.0, -3000.0, 1e9])
def test_the_sigmoid_of_every_preactivation(z):
    activation, mantissa, exponent = fj.sigmoid(z)
    with mpmath.workdps(30):
        e = mpmath.exp(-abs(mpmath.mpf(z)))
        slope = e / (1 + e) ** 2
        assert abs(mantissa * mpmath.mpf(2) ** exponent / slope - 1) < 2.0**-49
        assert activation == pytest.approx(float((e if z < 0 else 1) / (1 + e)), rel=2.0**-51)


@pytest.mark.parametrize(
    "laws",
    [("normal:std=4", "normal:std=1"), ("uniform:low=-9,high=9", "normal:std=2"), ("normal:std=500", "zero")],
)
def test_chains_made_by_hand_are_those_of_simulate(laws, compiled):
    codes = parse(laws[0], "weight").code, parse(laws[1], "bias").code
    found = outputs(*codes, 2**63 + 5, 50, 80, 0.3)
    expected = fg.simulate(80, 50, *laws, x=0.3, seed=2**63 + 5, backend="cpp")
    assert found.tolist() == expected.output.tolist()


def test_uniforms_and_normals_are_those_of_philox():
    code = parse("uniform:low=0,high=1", "weight").code
    u, v = fj.uniforms(7, 3, 11)
    assert (u, v) == fj.draw(code, code, 7, 3, 11)
    law = parse("uniform:low=0,high=1", "weight")
    w, b = philox.draw(law, law, 7, np.array([11]), np.array([3]))
    assert (u, v) == (w[0, 0], b[0, 0])
    expected = np.sqrt(-2 * np.log(u)) * np.array([np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)])
    assert fj.draw_normal(7, 3, 11) == pytest.approx(tuple(expected), rel=1e-14)


def test_python_calls_have_the_bits_of_backprop(compiled, rng):
    for depth, ensemble in ((1, 1), (70, 130), (9000, 2)):
        w, b = rng.normal(scale=6, size=(2, depth, ensemble))
        x, c = rng.random((2, ensemble))
        expected = fg.backprop(w, b, x, c, backend="cpp")
        for backprop in (fj.backprop, fj.backprop_cpp):
            out = fj.gradients(depth, ensemble)
            assert backprop(w, b, x, c, out)
            assert out.output.tolist() == expected.output.tolist()
            for name in ("grad_weight", "grad_bias", "grad_x"):
                found = fg.Scaled(getattr(out, name), getattr(out, f"{name}_exponent"))
                assert np.all(found == getattr(expected, name))
        output, mantissa, exponent = fj.chain_gradient(w[:, 0], b[:, 0], x[0])
        alone = fg.backprop(w[:, 0], b[:, 0], x[0], backend="cpp")
        assert (output, mantissa, exponent) == (alone.output, alone.grad_x.mantissa, alone.grad_x.exponent)
    w[3, 0] = np.inf
    assert not fj.backprop(w, b, x, c, out)
    assert not fj.backprop_cpp(w, b, x, c, out)


USER = """
import threading
import numba, numpy as np
import fastgrad.njit as fj

@numba.njit(cache=True, parallel=True, nogil=True)
def slices(w, b, x, c, count):
    members = w.shape[1] // count
    mantissa, exponent = np.empty(w.shape), np.empty(w.shape, np.int64)
    for i in numba.prange(count):
        here = slice(i * members, (i + 1) * members)
        out = fj.gradients(w.shape[0], members)
        fj.backprop(np.ascontiguousarray(w[:, here]), np.ascontiguousarray(b[:, here]), x[here], c[here], out)
        mantissa[:, here], exponent[:, here] = out.grad_weight, out.grad_weight_exponent
    return mantissa, exponent
"""
RUN = """
    from concurrent.futures import ThreadPoolExecutor
    import numpy as np, fastgrad as fg, user
    w, b = fg.draw(100, 10_000, "normal:std=10", "normal:std=1", seed=3)
    x, c = np.full(10_000, 0.3), np.full(10_000, 2.0)
    expected = fg.backprop(w, b, x, c).grad_weight
    found = [user.slices(w, b, x, c, 8)]
    with ThreadPoolExecutor(8) as pool:
        found += pool.map(lambda _: user.slices(w[:, :80].copy(), b[:, :80].copy(), x, c, 1), range(8))
    for mantissa, exponent in found:
        members = mantissa.shape[1]
        assert np.array_equal(mantissa, expected.mantissa[:, :members])
        assert np.array_equal(exponent, expected.exponent[:, :members])
    print(len(user.slices.stats.cache_hits), len(user.slices.stats.cache_misses))
"""


@pytest.mark.slow
def test_a_module_of_a_user_is_cached_and_runs_in_parallel(tmp_path):
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    # One thread pool of Numba's may be entered by one thread at a time; tbb and omp allow more, and may be absent.
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "omp"}
    printed = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(RUN)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for _ in range(2)
    ]
    assert [run.stderr for run in printed] == ["", ""]
    assert [run.stdout.split() for run in printed] == [["0", "1"], ["1", "0"]]


def test_the_version_is_that_of_the_sources():
    assert len(fj.VERSION) == 16
    assert set(fj.VERSION) <= set("0123456789abcdef")


CPP_USER = """
import numba, numpy as np
import fastgrad.njit as fj

@numba.njit(cache=True)
def loss(w, b):
    out = fj.gradients(*w.shape)
    fj.backprop_cpp(w, b, np.full(w.shape[1], 0.3), np.ones(w.shape[1]), out)
    return out.grad_x, out.grad_x_exponent
"""
CPP_RUN = """
import numpy as np, fastgrad as fg
import sys
{hide}
import user
w, b = fg.draw(50, 100, "normal:std=10", "normal:std=1", seed=3)
try:
    mantissa, exponent = user.loss(w, b)
    expected = fg.backprop(w, b, 0.3).grad_x
    assert mantissa.tolist() == expected.mantissa.tolist() and exponent.tolist() == expected.exponent.tolist()
    print(*user.loss.stats.cache_hits.values())
except RuntimeError as error:
    print(error)
"""


def test_machine_code_that_calls_cpp_is_cached_and_refuses_where_it_is_gone(tmp_path, compiled, python):
    (tmp_path / "user.py").write_text(CPP_USER, encoding="utf-8")
    told = "backprop_cpp: the extension fastgrad._cpp is not there; see fastgrad info"
    hide = "sys.modules['fastgrad._cpp'] = None"
    for hidden, expected in (("", ""), ("", "1"), (hide, told)):
        printed = python(CPP_RUN.format(hide=hidden), cwd=tmp_path, PYTHONPATH=str(tmp_path), FASTGRAD_BACKEND=None)
        assert printed.strip() == expected
