"""The 1/n term of the exponent, against exact laws and drawn networks."""

import math

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.theory import width_correction

# sigma_w, sigma_b, nonlinearity, width: c from -1.2 to -6.7, ordered and chaotic, with small and large biases
DRAWN = [
    (1.0, 0.0, "sigmoid", 40),
    (1.0, 1.0, "sigmoid", 40),
    (4.0, 3.0, "sigmoid", 40),
    (10.0, 0.0, "sigmoid", 80),
    (1.3, 0.3, "tanh", 40),
    (0.7, 0.5, "tanh", 40),
    (1.5, 1.0, "tanh", 40),
    (4.0, 0.3, "tanh", 80),
]


def stationary_start(sigma_w, sigma_b, q):
    """The input, the same for every unit, whose first layer has the length q."""
    return math.sqrt(q - sigma_b**2) / sigma_w


@pytest.mark.parametrize(("sigma_w", "sigma_b", "nonlinearity", "width"), DRAWN)
def test_drawn_networks(sigma_w, sigma_b, nonlinearity, width):
    field, c = fg.theory.mean_field(sigma_w, sigma_b, nonlinearity), width_correction(sigma_w, sigma_b, nonlinearity)
    laws = f"normal:gain={sigma_w}", f"normal:std={sigma_b}" if sigma_b else "zero"
    x = stationary_start(sigma_w, sigma_b, field.q)
    growth = fg.simulate(60, 1500, *laws, x, 11, 60, width, nonlinearity)
    ln = growth.adjoint.ln()
    rates = 2 * (ln[10] - ln[50]) / 40  # the random cotangent, and the given input, are a few layers away
    excess = width * (rates - math.log(field.chi_1))
    error = excess.std(ddof=1) / math.sqrt(len(excess))
    assert error < 0.05 * abs(c)  # so that a term which is left out would be seen
    assert abs(excess.mean() - c) < 4 * error + c**2 / width  # what is left is of order 1/n²


@pytest.mark.parametrize("nonlinearity", ["linear", "relu"])
def test_exact_laws(nonlinearity):
    n = 4096
    exact = 2 * fg.theory.layer_growth(n, 1.5, nonlinearity).mean
    expected = (
        math.log(1.5**2 * (0.5 if nonlinearity == "relu" else 1.0)) + width_correction(1.5, 0.3, nonlinearity) / n
    )
    assert exact == pytest.approx(expected, abs=10 / n**2)


def test_limits():
    assert width_correction(0.9, 0.0, "tanh") == -1  # q is 0, and tanh linear
    assert width_correction(1.0, 0.0, "tanh") == -1
    assert width_correction(0.5, 1e-3, "tanh") == pytest.approx(-1, abs=1e-5)
    assert width_correction(1e-3) == pytest.approx(-1, abs=1e-5)
    for sigma_w in (1e3, 1e4):  # units that are not saturated are rare: kappa grows with sigma_w, and c with it
        assert width_correction(sigma_w) / sigma_w == pytest.approx(width_correction(1e5) / 1e5, rel=0.02)


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh"])
def test_sums_are_resolved(nonlinearity, monkeypatch):
    points = [(s, b) for s in (0.3, 1.2, 5.0, 200.0) for b in (0.0, 0.1, 3.0)]
    found = [width_correction(*point, nonlinearity) for point in points]
    monkeypatch.setattr("fastgrad.theory.finite_width.STEP", 0.023)
    monkeypatch.setattr("fastgrad.theory.finite_width.STEPS_PER_SIGMA", 17.0)
    monkeypatch.setattr("fastgrad.theory.finite_width.SATURATED", 90.0)
    assert [width_correction(*point, nonlinearity) for point in points] == pytest.approx(found, rel=1e-9)


def test_bad_input():
    with pytest.raises(ValueError, match="sigma_w"):
        width_correction(-1)
    with pytest.raises(ValueError, match="nonlinearity: unknown"):
        width_correction(1, 0, "gelu")


def test_predictions_have_it_where_weights_are_normal():
    found = fg.theory.predict("normal:gain=4", "normal:std=1", width=100)
    chi_1 = fg.theory.mean_field(4, 1).chi_1
    assert found.at_width == pytest.approx((math.log(chi_1) + width_correction(4, 1) / 100) / 2, rel=1e-12)
    for weight, more in (
        ("glorot_uniform", {"width": 100}),
        ("orthogonal", {"width": 100}),
        ("he_normal", {"width": 100, "nonlinearity": "relu"}),
        ("normal:std=4", {}),
    ):
        assert fg.theory.predict(weight, **more).at_width is None
    assert np.isfinite(found.at_width)
