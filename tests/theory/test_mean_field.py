"""Mean field of wide networks: against mpmath's quadrature, double integrals, closed limits and drawn networks."""

import json
import math
import time
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

from fastgrad import theory

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mean_field.json").read_text())

# From other programs: q, chi_1 and 1 / |ln chi_1|.
LOGISTIC = [
    (1, 0, 0.264686875182, 0.055720706770, 0.346332),
    (math.sqrt(2), 0, 0.555289591370, 0.100977080691, 0.436136),
    (4, 1, 6.982875676682, 0.370497405115, 1.007142),
    (10, 0, 44.207441825282, 0.985806055482, 69.951388),
    (12, 0, 65.048390425953, 1.175577690104, 6.182010),
    (20, 0, 188.475999336356, 1.930684191191, 1.520047),
    (1, 1, 1.3021340363, 0.0419597346, None),
]
TANH = [
    (1.3, 0.3, 0.6070467919, 0.9398074287),
    (2.5, 0.3, 4.0791238753, 1.5852247650),
    (4.0, 0.3, 12.6041494978, 2.3672610355),
    (1.0, math.sqrt(0.05), 0.193592520, 0.759031647),
    (math.sqrt(2), math.sqrt(0.05), 0.721761873, 1.047666),
    (2.0, math.sqrt(0.05), 2.195493928, 1.342402414),
]


@pytest.mark.parametrize(("sigma_w", "sigma_b", "q", "chi_1", "xi_1"), LOGISTIC)
def test_known_values_of_the_logistic(sigma_w, sigma_b, q, chi_1, xi_1):
    field = theory.mean_field(sigma_w, sigma_b)
    assert field.q == pytest.approx(q, rel=1e-11 if xi_1 else 1e-10)
    assert field.chi_1 == pytest.approx(chi_1, rel=1e-11 if xi_1 else 1e-9)
    if xi_1:
        assert field.xi_1 == pytest.approx(xi_1, abs=6e-7)


@pytest.mark.parametrize(("sigma_w", "sigma_b", "q", "chi_1"), TANH)
def test_known_values_of_tanh(sigma_w, sigma_b, q, chi_1):
    field = theory.mean_field(sigma_w, sigma_b, "tanh")
    assert field.q == pytest.approx(q, rel=3e-9)
    assert field.chi_1 == pytest.approx(chi_1, rel=4e-7 if chi_1 == 1.047666 else 1e-9)


def test_known_critical_values():
    assert theory.critical_sigma_w() == pytest.approx(10.149263710020, rel=1e-12)
    assert theory.critical_sigma_w(1) == pytest.approx(10.264992936053, rel=1e-12)
    assert theory.critical_sigma_w(math.sqrt(0.05), "tanh") ** 2 == pytest.approx(1.760954639595, rel=1e-11)
    assert theory.critical_sigma_w(0, "tanh") == 1
    for sigma_b in (0, 3.5):
        assert theory.critical_sigma_w(sigma_b, "relu") == math.sqrt(2)
        assert theory.critical_sigma_w(sigma_b, "linear") == 1


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['nonlinearity']}-{row['sigma_w']:g}-{row['sigma_b']:g}")
def test_quadrature_finds_the_same(row):
    field = theory.mean_field(row["sigma_w"], row["sigma_b"], row["nonlinearity"])
    for name in ("q", "chi_1", "chi_q"):
        assert getattr(field, name) == pytest.approx(float(row[name]), rel=1e-12, abs=0), name
    chi_q = mp.mpf(row["chi_q"])
    assert field.xi_q == pytest.approx(float(1 / abs(mp.log(chi_q))), rel=float(1e-13 / abs(1 - chi_q)) + 1e-12)


def double_integrals(name, q, c):
    """E (phi(u) - phi(v))² and E phi'(u) phi'(v) by the trapezoid rule over u + v and u - v."""
    axes = []
    for variance in (q * (1 + c) / 2, q * (1 - c) / 2):
        std = math.sqrt(variance)
        step = min(0.2, std / 3)
        points = np.arange(-math.ceil(9 * std / step), math.ceil(9 * std / step) + 1) * step
        axes.append((points, step / math.sqrt(2 * math.pi * variance) * np.exp(-(points**2) / (2 * variance))))
    (mean, mean_share), (half, half_share) = axes
    u, v = mean[:, None] + half, mean[:, None] - half
    if name == "tanh":
        of_u, of_v = np.tanh(u), np.tanh(v)
        slopes = 1 / (np.cosh(u) * np.cosh(v)) ** 2
    else:
        of_u, of_v = 1 / (1 + np.exp(-u)), 1 / (1 + np.exp(-v))
        slopes = 1 / (16 * (np.cosh(u / 2) * np.cosh(v / 2)) ** 2)
    return mean_share @ (of_u - of_v) ** 2 @ half_share, mean_share @ slopes @ half_share


@pytest.mark.parametrize(
    ("sigma_w", "sigma_b", "nonlinearity"),
    [
        (12, 0, "sigmoid"),
        (20, 0, "sigmoid"),
        (40, 5, "sigmoid"),
        (10.2, 0, "sigmoid"),
        (2.5, 0.3, "tanh"),
        (4, 0.3, "tanh"),
        (1.33, math.sqrt(0.05), "tanh"),
        (1.5, 0, "tanh"),
        (8, 3, "tanh"),
    ],
)
def test_double_integrals_find_the_same_correlation(sigma_w, sigma_b, nonlinearity):
    field = theory.mean_field(sigma_w, sigma_b, nonlinearity)
    assert field.chi_1 > 1
    squares, slopes = double_integrals(nonlinearity, field.q, field.c)
    factor = sigma_w**2 * slopes
    assert factor < 1
    assert field.xi_c == pytest.approx(-1 / math.log(factor), rel=1e-9)
    # The map of 1 - c has the slope `factor` there: the error of c is what is missing here, over 1 - factor.
    missing = sigma_w**2 / field.q * squares / 2 - (1 - field.c)
    assert abs(missing) < 1e-11 * (1 - factor)


def test_inputs_become_alike_in_ordered_networks_and_depth_scales_agree():
    for field in (theory.mean_field(4, 1), theory.mean_field(1, 0.3, "tanh"), theory.mean_field(1, 2, "relu")):
        assert field.c == 1
        assert field.xi_c == field.xi_1 == pytest.approx(1 / abs(math.log(field.chi_1)), rel=1e-14)


@pytest.mark.parametrize(
    ("sigma_w", "sigma_b", "nonlinearity", "q", "chi_1", "c", "xi_c"),
    [
        (0.9, 0, "tanh", 0, 0.81, math.nan, math.inf),
        (1, 0, "tanh", 0, 1, math.nan, math.inf),
        (0, 0, "sigmoid", 0, 0, math.nan, math.inf),
        (0, 2, "sigmoid", 4, 0, 1, 0),
        (1, 0, "relu", 0, 0.5, 1, math.inf),
        (1, 1, "relu", 2, 0.5, 1, 1 / math.log(2)),
        (math.sqrt(2), 0, "relu", math.nan, 1, 1, math.inf),
        (math.sqrt(2), 1, "relu", math.inf, 1, 1, math.inf),
        (2, 0, "relu", math.inf, 2, 1, math.inf),
        (2, 1, "relu", math.inf, 2, 1, math.inf),
        (0.5, 0, "linear", 0, 0.25, math.nan, math.inf),
        (0.5, 3, "linear", 12, 0.25, 1, 1 / math.log(4)),
        (1, 0, "linear", math.nan, 1, math.nan, math.inf),
        (1, 1, "linear", math.inf, 1, 1, math.inf),
        (2, 0, "linear", math.inf, 4, math.nan, math.inf),
        (2, 1, "linear", math.inf, 4, math.nan, math.inf),
    ],
)
def test_closed_forms(sigma_w, sigma_b, nonlinearity, q, chi_1, c, xi_c):
    field = theory.mean_field(sigma_w, sigma_b, nonlinearity)
    found = field.q, field.chi_1, field.c, field.xi_c
    assert found == pytest.approx((q, chi_1, c, xi_c), rel=1e-15, nan_ok=True)


def test_huge_weights_make_a_step():
    """phi is a step, with E phi² = 1/2 and covariances of arc sines, and phi'² is a delta function."""
    for sigma_w in (1e9, 1e100):
        field = theory.mean_field(sigma_w)
        assert field.q == pytest.approx(sigma_w**2 / 2, rel=1e-8)
        # sigmoid'² has the integral 1/6
        assert field.chi_1 == pytest.approx(sigma_w**2 / 6 / math.sqrt(2 * math.pi * field.q), rel=1e-14)
        with mp.workdps(30):
            c = mp.findroot(lambda c: (mp.mpf(1) / 4 + mp.asin(c) / (2 * mp.pi)) * 2 - c, (0.5, 0.9), solver="anderson")
            slope = 1 / (mp.pi * mp.sqrt(1 - c**2))
        assert field.c == pytest.approx(float(c), rel=1e-8)
        assert field.xi_c == pytest.approx(float(1 / abs(mp.log(slope))), rel=1e-7)


def test_close_to_the_critical_point_of_tanh():
    """By hand, from tanh² z = z² - 2/3 z^4 + 17/45 z^6, with E z^4 = 3 q² and E z^6 = 15 q³."""
    for e in (2.0**-20, 2.0**-40, 2.0**-51):
        field = theory.mean_field(1 + e, 0, "tanh")
        above = 2 * e + e * e
        # q = (1 + above) (q - 2 q² + 17/3 q³)
        q = above / (1 + above) / 2 * (1 + 17 / 12 * above)
        assert field.q == pytest.approx(q, rel=1e-14 + 5 * e**2)
        assert field.c == 0
    for sigma_b in (1e-3, 1e-6, 1e-60):
        assert theory.mean_field(1, sigma_b, "tanh").q == pytest.approx(
            (sigma_b**2 / 2) ** 0.5, rel=3 * sigma_b + 1e-14
        )


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh"])
@pytest.mark.parametrize("sigma_b", [0, 1e-100, 1e-9, 1e-3, 0.2, 1, 20, 1e3, 1e90])
def test_networks_are_critical_at_the_critical_weights(nonlinearity, sigma_b):
    critical = theory.critical_sigma_w(sigma_b, nonlinearity)
    assert theory.mean_field(critical, sigma_b, nonlinearity).chi_1 == pytest.approx(1, abs=1e-11)
    assert theory.mean_field(critical * (1 - 1e-3), sigma_b, nonlinearity).chi_1 < 1
    assert theory.mean_field(critical * (1 + 1e-3), sigma_b, nonlinearity).chi_1 > 1


def test_each_takes_less_than_a_tenth_of_a_second():
    theory.mean_field(3)
    for arguments in [(12, 0), (1 + 1e-12, 0, "tanh"), (1e3, 1e2), (10.15, 0)]:
        seconds = []
        for _ in range(3):  # the least: a neighbour on the same core slows down the processor's time, too
            begin = time.process_time()
            theory.mean_field(*arguments)
            theory.critical_sigma_w(*arguments[1:])
            seconds.append(time.process_time() - begin)
        assert min(seconds) < 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, r"sigma_w: expected 0, or 1e-100 to 1e\+100, got -1.0"),
        ((1e101,), ValueError, "sigma_w: expected 0, or"),
        ((1, 1e-101), ValueError, "sigma_b: expected 0, or"),
        ((math.nan,), ValueError, "sigma_w: expected finite numbers"),
        (("4",), TypeError, "sigma_w: expected real numbers"),
        (([1, 2],), ValueError, r"sigma_w: expected a number, got shape \(2,\)"),
        (
            (1, 0, "softmax"),
            ValueError,
            "nonlinearity: unknown nonlinearity 'softmax', expected sigmoid, tanh, relu or linear",
        ),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        theory.mean_field(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("sigma_w", "sigma_b"), [(4, 1), (20, 0)])
def test_a_wide_drawn_network_has_these_lengths_and_correlations(sigma_w, sigma_b):
    rng = np.random.default_rng(4)
    n, field = 1000, theory.mean_field(sigma_w, sigma_b)
    lengths, correlations, outputs = [], [], rng.random((n, 2))
    for layer in range(60):
        z = rng.normal(0, sigma_w / math.sqrt(n), (n, n)) @ outputs + rng.normal(0, sigma_b, (n, 1))
        outputs = 1 / (1 + np.exp(-z))
        if layer >= 20:
            lengths.append(np.mean(z**2))
            correlations.append(np.corrcoef(z.T)[0, 1])
    assert np.mean(lengths) == pytest.approx(field.q, rel=0.03)
    assert np.mean(correlations) == pytest.approx(field.c, abs=0.01)


def test_lengths_of_critical_networks_with_small_biases():
    """f = q - 2 q² + sigma_b²: Newton's method halves the distance until q is about sigma_b, however small that is."""
    for sigma_b in (1e-4, 1e-20, 1e-60, 1e-100):
        assert theory.mean_field(1, sigma_b, "tanh").q == pytest.approx(sigma_b / math.sqrt(2), rel=1e-12 + 2 * sigma_b)


@pytest.mark.parametrize("sigma_b", [1e-18, 1e-20, 1e-30, 1e-60])
def test_a_critical_network_with_biases_is_on_the_ordered_side(sigma_b):
    """chi_1 is 1 - √2 sigma_b there, which rounds to 1 or to a unit in the last place above it."""
    field = theory.mean_field(1, sigma_b, "tanh")
    assert (field.chi_1, field.chi_q, field.c, field.xi_c) == (1.0, 1.0, 1.0, math.inf)
