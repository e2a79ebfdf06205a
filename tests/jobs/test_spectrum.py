"""Lyapunov spectra of drawn networks, against exact laws and a decomposition of their own matrices."""

import json
import math

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import philox
from fastgrad.laws import parse


def test_newmans_spectrum():
    found = fg.lyapunov_spectrum(5000, 8, nonlinearity="linear", seed=1)
    assert np.all(np.abs(found.exponents - fg.theory.spectrum(8)) < 4 * found.stderr)
    assert np.all(found.stderr < 0.03)
    assert found.layers == (501, 4500)


@pytest.mark.parametrize("law", ["normal:gain=3", "normal:std=0.01"])
def test_the_gain_only_shifts_it(law):
    gain = parse(law, "weight", 6).scale * 6**0.5
    found = fg.lyapunov_spectrum(300, 6, weight=law, nonlinearity="linear", seed=5)
    unit = fg.lyapunov_spectrum(300, 6, nonlinearity="linear", seed=5)
    assert found.exponents == pytest.approx(unit.exponents + np.log(gain), abs=1e-12)


def test_relu_networks_as_far_as_units_are_alive():
    found = fg.lyapunov_spectrum(2000, 32, 3, "he_normal", nonlinearity="relu", seed=2)
    exact = fg.theory.spectrum(32, 2**0.5, "relu")[:3]
    assert np.all(np.abs(found.exponents - exact) < 4 * found.stderr)
    narrow = fg.lyapunov_spectrum(40, 8, 8, "he_normal", nonlinearity="relu", seed=2)
    alive = np.isfinite(narrow.exponents)
    assert alive[0]
    assert not alive[-1]  # of eight units all alive in forty layers
    assert not np.any(alive[1:] & ~alive[:-1])


def alive_units(depth, width, law, seed):
    """Number of units with z > 0 in each layer of a relu network."""
    o, alive = np.full(width, 0.5), []
    weight = parse(law, "weight", width)
    for layer in range(1, depth + 1):
        z = philox.draw_weights(weight, seed, layer, np.arange(1), width, np.arange(width))[0] @ o
        o = np.maximum(z, 0) / np.linalg.norm(z)  # relu is homogeneous
        alive.append(int((z > 0).sum()))
    return alive


@pytest.mark.parametrize("seed", range(8))
def test_relu_networks_have_as_many_finite_ones_as_units_that_were_alive(seed):
    depth, width = 40, 16
    alive = alive_units(depth, width, "he_normal", seed)
    assert min(alive) > 0
    found = fg.lyapunov_spectrum(depth, width, width, "he_normal", nonlinearity="relu", seed=seed)
    assert np.isfinite(found.exponents).sum() == min(alive[4:])


def test_relu_vectors_that_became_parallel_are_not_called_dead():
    # Over so many layers all are parallel to within rounding, though half of the units are alive in each.
    with pytest.raises(ValueError, match="every: expected less than 200, the gradient of number"):
        fg.lyapunov_spectrum(400, 32, 4, "he_normal", nonlinearity="relu", seed=2, every=200)


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize("weight", ["zero", "normal:std=0", "orthogonal:gain=0"])
def test_gradients_of_exactly_zero(weight, nonlinearity):
    found = fg.lyapunov_spectrum(20, 4, 3, weight, nonlinearity=nonlinearity)
    assert found.exponents.tolist() == [-math.inf] * 3
    assert found.summary()["exponents_why"]


def test_units_saturated_beyond_all_exponents_pass_nothing():
    assert fg.lyapunov_spectrum(100, 3, weight="normal:std=1e300").exponents.tolist() == [-math.inf] * 3


def test_orthogonal_layers_have_none_but_their_gain():
    found = fg.lyapunov_spectrum(2000, 8, weight="orthogonal:gain=2", nonlinearity="linear")
    assert np.abs(found.exponents - np.log(2)).max() < 1e-13


@pytest.mark.parametrize("nonlinearity", ["tanh", "sigmoid"])
def test_a_decomposition_of_the_drawn_matrices_themselves(nonlinearity):
    depth, width, seed = 200, 6, 7
    weight, bias = parse("normal:gain=2", "weight", width), parse("normal:std=0.5", "bias", width)
    phi, slope = (
        (np.tanh, lambda z: 1 / np.cosh(z) ** 2)
        if nonlinearity == "tanh"
        else (lambda z: 1 / (1 + np.exp(-z)), lambda z: 1 / (4 * np.cosh(z / 2) ** 2))
    )
    o, jacobians = np.full(width, 0.5), []
    for layer in range(1, depth + 1):
        w = philox.draw_weights(weight, seed, layer, np.arange(1), width, np.arange(width))[0]
        z = w @ o + philox.draw_biases(bias, seed, layer, np.arange(1), width)[0]
        o = phi(z)
        jacobians.append(slope(z)[:, None] * w)
    q = np.linalg.qr(np.array([philox.draw_cotangents(seed, i, np.arange(1), width)[0] for i in range(1, 5)]).T)[0]
    logs = []
    for jacobian in reversed(jacobians):
        q, r = np.linalg.qr(jacobian.T @ q)
        logs.append(np.log(np.abs(np.diag(r))))
    margin = depth // 10
    expected = np.mean(logs[margin:-margin], axis=0)
    laws = ("normal:gain=2", "normal:std=0.5")
    found = fg.lyapunov_spectrum(depth, width, 4, *laws, seed=seed, nonlinearity=nonlinearity)
    assert found.exponents == pytest.approx(expected, abs=1e-11)
    several = fg.lyapunov_spectrum(depth, width, 4, *laws, seed=seed, nonlinearity=nonlinearity, every=3)
    assert several.exponents == pytest.approx(expected, abs=0.05)  # over a few layers more or less


def test_the_largest_is_that_of_simulate():
    laws = ("normal:gain=3", "zero", 0.3)
    found = fg.lyapunov_spectrum(3000, 16, 1, *laws, seed=3, nonlinearity="tanh")
    growth = fg.simulate(3000, 1, *laws, seed=3, width=16, nonlinearity="tanh")
    assert found.exponents[0] == pytest.approx(growth.lyapunov.mean, abs=4 * found.stderr[0])
    assert 0.3 < found.stderr[0] / growth.lyapunov.stderr < 3


def test_many_layers_do_not_overflow_and_cuts_do_not_matter(monkeypatch):
    laws = {"weight": "normal:gain=20", "nonlinearity": "linear"}
    whole = fg.lyapunov_spectrum(4000, 4, 2, **laws)
    assert whole.exponents[0] == pytest.approx(np.log(20) + fg.theory.spectrum(4)[0], abs=0.05)
    monkeypatch.setattr("fastgrad.jobs.layers.TAPE_BYTES", 2**14)
    assert fg.lyapunov_spectrum(4000, 4, 2, **laws).exponents.tolist() == whole.exponents.tolist()


def test_compiled_backends_agree_in_every_bit(compiled):
    found = [fg.lyapunov_spectrum(50, 5, backend=name, nonlinearity="tanh").exponents for name in ("cpp", "numba")]
    assert found[0].tolist() == found[1].tolist()


def test_summary_and_progress():
    seen = []
    found = fg.lyapunov_spectrum(60, 3, 2, progress=lambda *done: seen.append(done))
    assert seen[-1] == (60, 60)
    summary = json.loads(json.dumps(found.summary()))
    assert summary["exponents"] == found.exponents.tolist()
    assert summary["weight"] == "normal:gain=1"


@pytest.mark.parametrize(
    ("error", "message", "given"),
    [
        (ValueError, "width: expected 2 to 65536, got 1", {"width": 1}),
        (ValueError, "k: expected 1 to 8, got 9", {"k": 9}),
        (ValueError, "k: expected 1 to 8, got 0", {"k": 0}),
        (ValueError, "every: expected 1 to", {"every": 0}),
        (ValueError, "depth: expected 1 to", {"depth": 0}),
        (ValueError, "nonlinearity: unknown", {"nonlinearity": "gelu"}),
        (ValueError, "bias: centered is a law of chains", {"bias": "centered"}),
        (ValueError, "every: expected less than", {"every": 60, "nonlinearity": "linear"}),
        (ValueError, "k: expected less than 8", {"weight": "normal:std=500"}),
        (ValueError, "x: expected a law", {"x": np.ones(3)}),
        (TypeError, "progress: ", {"progress": 3}),
        (fg.TooLargeError, "depth: ", {"depth": 10**12, "width": 1000}),
    ],
)
def test_bad_input(error, message, given):
    with pytest.raises(error, match=message):
        fg.lyapunov_spectrum(**{"depth": 100, "width": 8, **given})
