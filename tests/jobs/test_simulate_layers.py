"""`simulate` with a width: what it measures beside theory, its arguments, and its result."""

import json

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import philox
from fastgrad.laws import normal


def test_width_1_with_the_sigmoid_is_the_chain(backend):
    chain = fg.simulate(40, 7, bias="normal:std=1", seed=3, backend=backend)
    same = fg.simulate(40, 7, bias="normal:std=1", seed=3, backend=backend, width=1, nonlinearity="sigmoid", inputs=1)
    assert chain.is_chain
    assert np.all(chain.adjoint == same.adjoint)
    assert (chain.width, chain.length, chain.correlation) == (1, None, None)


def test_inputs_of_chains_are_drawn_from_a_law():
    drawn = fg.simulate(5, 4, x="normal:std=2", seed=6)
    expected = philox.draw_input_units(normal(std=2.0), 6, 1, np.arange(4), 1)[:, 0]
    assert drawn.x.tolist() == expected.tolist()
    assert np.all(drawn.adjoint == fg.simulate(5, 4, x=expected, seed=6).adjoint)


def test_one_unit_has_the_derivative_of_its_chain():
    # dz/dx of tanh units is the product of w tanh'(z), here with plain doubles.
    growth = fg.simulate(12, 3, "normal:std=1.5", "normal:std=0.5", 0.7, seed=2, nonlinearity="tanh", backend="numpy")
    o, product = np.full(3, 0.7), np.ones(3)
    for layer in range(1, 13):
        w = philox.draw_weights(growth.weight, 2, layer, np.arange(3), 1, np.arange(1))[:, 0, 0]
        z = w * o + philox.draw_biases(growth.bias, 2, layer, np.arange(3), 1)[:, 0]
        o, product = np.tanh(z), product * w / np.cosh(z) ** 2
    assert growth.output[:, 0] == pytest.approx(o, rel=1e-12)
    assert growth.adjoint[0].to_float() == pytest.approx(abs(product), rel=1e-11)


@pytest.mark.parametrize("nonlinearity", ["linear", "relu"])
def test_the_exponent_is_that_of_the_exact_law_at_every_width(nonlinearity):
    growth = fg.simulate(60, 400, "he_normal", seed=4, width=24, nonlinearity=nonlinearity, x="normal:std=1")
    beside = growth.beside_theory()
    assert beside.theory.holds_for == "every width"
    assert beside.why_not is None
    assert abs(beside.deviation) < 4


@pytest.mark.parametrize(("nonlinearity", "depth"), [("linear", 20), ("relu", 3)])
@pytest.mark.parametrize("width", [1, 2, 8, 64])
def test_ten_thousand_networks_have_the_exact_mean_and_variance(nonlinearity, depth, width):
    laws = {"weight": "normal:gain=1", "x": "normal:std=1", "width": width, "nonlinearity": nonlinearity}
    growth = fg.simulate(depth, 10_000, **laws, seed=width, record=2)
    ln = growth.adjoint[0].ln()
    alive = ln[np.isfinite(ln)]
    if nonlinearity == "relu":
        dead = fg.theory.dead_probability(width, depth)
        assert abs(len(ln) - len(alive) - len(ln) * dead) < 4 * np.sqrt(len(ln) * dead * (1 - dead)) + 1
    else:
        assert len(alive) == len(ln)
    mean, variance = (depth * each for each in fg.theory.layer_growth(width, 1.0, nonlinearity))
    count, squares = len(alive), (alive - alive.mean()) ** 2
    off_mean = (alive.mean() - mean) / np.sqrt(alive.var(ddof=1) / count)
    off_variance = (alive.var(ddof=1) - variance) / np.sqrt(squares.var() / count)
    assert max(abs(off_mean), abs(off_variance)) < 3.29  # two-sided, at 1e-3


def test_orthogonal_linear_layers_keep_the_norm_over_ten_thousand_layers():
    growth = fg.simulate(10_000, 4, "orthogonal", width=8, nonlinearity="linear", seed=3)
    assert np.abs(growth.adjoint.ln()).max() < 1e-11


@pytest.mark.parametrize(
    ("nonlinearity", "sigma_w", "sigma_b"),
    [
        ("sigmoid", 1.0, 0.0),
        ("sigmoid", 2**0.5, 0.0),
        ("sigmoid", 4.0, 1.0),
        ("sigmoid", 10.0, 0.0),
        ("sigmoid", 12.0, 0.0),
        ("sigmoid", 20.0, 0.0),
        ("tanh", 1.3, 0.3),
        ("tanh", 2.5, 0.3),
        ("tanh", 4.0, 0.3),
    ],
)
def test_the_squared_norm_grows_by_chi_1_a_layer(nonlinearity, sigma_w, sigma_b):
    width, depth = 400, 50
    field = fg.theory.mean_field(sigma_w, sigma_b, nonlinearity)
    laws = f"normal:gain={sigma_w}", f"normal:std={sigma_b}" if sigma_b else "zero"
    x = np.sqrt(field.q - sigma_b**2) / sigma_w  # the first layer has the length q
    growth = fg.simulate(depth, 30, *laws, x, seed=1, width=width, nonlinearity=nonlinearity)
    factors = np.exp(2 * growth.adjoint[0].ln() / depth)
    error = factors.std(ddof=1) / np.sqrt(len(factors))
    # A finite width takes part of it away, to order 1/n; what is left is of order 1/n².
    correction = fg.theory.width_correction(sigma_w, sigma_b, nonlinearity) / width
    expected = field.chi_1 * np.exp(correction)
    assert abs(factors.mean() - expected) < 4 * error + field.chi_1 * correction**2
    assert "n -> infinity" in growth.beside_theory().why_not


def test_a_wide_network_explodes_beyond_every_float():
    growth = fg.simulate(4000, 1, "normal:gain=20", width=64, record=5)
    assert growth.adjoint[0, 0].log10() > 320
    assert growth.summary()["first_depth"]["float64"]["overflow"] is not None


def test_two_inputs_become_one_where_the_network_is_ordered():
    growth = fg.simulate(
        40, 10, "normal:gain=0.8", "normal:std=0.3", "normal:std=1", width=100, nonlinearity="tanh", inputs=2
    )
    assert growth.correlation.shape == growth.length.shape
    assert abs(growth.correlation[0].mean()) < 0.5
    assert (growth.correlation[-1] > 0.999).all()
    assert growth.x.shape == (10, 2, 100)


def test_records_of_orthogonal_layers():
    growth = fg.simulate(30, 4, "orthogonal:gain=2", width=6, nonlinearity="linear", x=np.eye(6)[0])
    depths = 31 - growth.link
    assert growth.adjoint.log2() == pytest.approx(np.repeat(depths[:, None], 4, axis=1), abs=1e-12)
    assert growth.bound.log2() == pytest.approx(growth.adjoint.log2(), abs=1e-9)
    assert growth.length.log2() == pytest.approx(2 * growth.link[:, None] - np.log2(6) + np.zeros(4), abs=1e-12)
    assert growth.grad_weight.log2() == pytest.approx(np.full(growth.length.shape, 29.0), abs=1e-12)


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_do_not_depend_on_threads_or_backend(threads, compiled_backend):
    job = {"depth": 9, "ensemble": 150, "bias": "normal:std=1", "x": "normal:std=1", "width": 5, "inputs": 2}
    expected = fg.simulate(**job, backend="cpp", threads=1)
    growth = fg.simulate(**job, backend=compiled_backend, threads=threads)
    for name in ("adjoint", "grad_weight", "grad_bias", "length", "mean_activation"):
        assert np.all(getattr(growth, name) == getattr(expected, name))
    assert growth.correlation.tobytes() == expected.correlation.tobytes()


def test_progress_ends_at_the_depth():
    calls = []
    fg.simulate(50, 3, width=4, progress=lambda done, depth: calls.append((done, depth)))
    assert calls[-1] == (50, 50)


def test_summary_is_json():
    growth = fg.simulate(20, 5, width=8, nonlinearity="relu", weight="he_normal", x="normal:std=1", record=4)
    summary = json.loads(json.dumps(growth.summary(), allow_nan=False))
    assert (summary["width"], summary["nonlinearity"]) == (8, "relu")
    assert len(summary["layers"]["dead"]) == 4
    assert summary["stationary"]["mean_why"] == "it is of chains, not of layers"
    assert growth.framework_depth == {}


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"^width: expected 1 to 65536, got 0$", {"width": 0}),
        (r"^width: expected 1 to 65536, got 65537$", {"width": 65537}),
        (
            r"^nonlinearity: unknown nonlinearity 'gelu', expected sigmoid, tanh, relu or linear$",
            {"nonlinearity": "gelu"},
        ),
        (r"^inputs: expected 1 to 2, got 3$", {"width": 4, "inputs": 3}),
        (r"^inputs: a chain has one, got 2", {"inputs": 2}),
        (r"^x: for two inputs expected a law .* got \(\)$", {"width": 4, "inputs": 2}),
        (r"^x: expected a law, a number or shape \(4,\) or \(3, 4\), got \(3,\)$", {"width": 4, "x": [1, 2, 3]}),
        (r"^x: expected finite numbers, got nan", {"width": 2, "x": [1, np.nan]}),
        (r"^bias: centered is a law of chains \(width 1\), got width 4", {"width": 4, "bias": "centered"}),
        (r"^bias: centered is a law of sigmoid .*, got .*tanh", {"nonlinearity": "tanh", "bias": "centered"}),
        (r"^weight: orthogonal is a law of layers, .* got 1$", {"weight": "orthogonal:gain=1"}),
        (r"^depth: .* weights .* expected at most 1e\+15$", {"width": 65536, "depth": 10**6}),
        (r"would take .* of memory, and .* are free$", {"width": 4, "ensemble": 10**9, "depth": 5}),
    ],
)
def test_bad_arguments(message, arguments):
    with pytest.raises(ValueError, match=message):
        fg.simulate(**{"depth": 10, "ensemble": 3, **arguments})


@pytest.mark.parametrize(
    ("laws", "nonlinearity", "why"),
    [
        (("orthogonal", "zero"), "linear", "the measurement has no standard error"),
        (("normal:gain=1", "zero"), "relu", "a gradient is exactly zero"),
        (("zero", "normal:std=1"), "sigmoid", "a gradient is exactly zero"),
    ],
)
def test_why_a_measurement_is_not_compared_with_theory(laws, nonlinearity, why):
    beside = fg.simulate(60, 3, *laws, width=2, nonlinearity=nonlinearity).beside_theory()
    assert (beside.deviation, beside.why_not) == (None, why)


def test_the_line_of_theory_is_that_of_the_width():
    growth = fg.simulate(60, 3, "normal:gain=20", width=64)
    theory = growth.beside_theory()
    slope = np.polyfit(60.0 + 1 - growth.link, theory.log10_adjoint, 1)[0] * np.log(10)
    assert slope == pytest.approx(theory.theory.at_width)
    assert fg.simulate(60, 3, "normal:gain=1000", width=64).beside_theory().log10_adjoint is None
