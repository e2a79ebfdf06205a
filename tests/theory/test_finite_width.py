"""The 1/n term of the exponent, against exact laws and drawn networks."""

import math

import mpmath as mp
import numpy as np
import pytest

import fastgrad as fg
from fastgrad.theory import width_correction
from fastgrad.theory.finite_width import expansion

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
    (20.0, 0.0, "sigmoid", 32),  # |c| / n is 0.41
    (10.0, 0.0, "tanh", 40),  # 0.46
    (1.1, 0.0, "tanh", 16),  # V / (n q²) is 0.30
    (0.95, 0.05, "tanh", 16),  # likewise
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
    spread = expansion(sigma_w, sigma_b, nonlinearity).length_spread
    assert abs(excess.mean() - c) < 4 * error + (c**2 + abs(c) * spread) / width  # what is left is of order 1/n²
    assert fg.theory.predict(*laws, width=width, nonlinearity=nonlinearity).at_width is not None


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
    # towards the critical network, and to it along sigma_w = 1
    for near in (1e-3, 1e-8, 2e-8, 1e-12, 2**-52):
        assert width_correction(1 + near, 0.0, "tanh") == pytest.approx(-1, abs=1e-6 + 30 * near)
    for sigma_b in (1e-4, 1e-7, 1.3e-8, 1e-15, 1e-100):
        assert width_correction(1, sigma_b, "tanh") == pytest.approx(-17 / 12, abs=1e-6 + 3 * sigma_b)
    assert width_correction(0.5, 1e-3, "tanh") == pytest.approx(-1, abs=1e-5)
    assert width_correction(1e-3) == pytest.approx(-1, abs=1e-5)
    for sigma_w in (
        1e3,
        1e4,
        1e20,
        1e78,
        1e100,
    ):  # units that are not saturated are rare: kappa grows with sigma_w, and c with it
        assert width_correction(sigma_w) / sigma_w == pytest.approx(width_correction(1e5) / 1e5, rel=0.02)


def oracle(sigma_w, sigma_b, nonlinearity):
    """c by the formula of the module, each expectation by a trapezoid rule, derivatives by parts: at 60 digits."""
    with mp.workdps(60):
        sigma_w, sigma_b = mp.mpf(sigma_w), mp.mpf(sigma_b)
        value = mp.tanh if nonlinearity == "tanh" else lambda z: 1 / (1 + mp.exp(-z))
        slope = (lambda z: mp.sech(z) ** 2) if nonlinearity == "tanh" else (lambda z: 1 / (mp.exp(z) + 2 + mp.exp(-z)))

        def grid(q):
            scale = mp.sqrt(q)
            step = min(mp.mpf("0.05"), scale / 10)
            z = [i * step for i in range(int(-13 * scale / step) - 1, int(13 * scale / step) + 2)]
            return z, [mp.exp(-((of / scale) ** 2) / 2) * step / (scale * mp.sqrt(2 * mp.pi)) for of in z]

        def off(q):
            z, share = grid(q)
            return sigma_w**2 * mp.fdot(share, [value(of) ** 2 for of in z]) + sigma_b**2 - q

        near = mp.mpf(fg.theory.mean_field(float(sigma_w), float(sigma_b), nonlinearity).q)
        q = mp.findroot(off, (near, near * (1 + mp.mpf(10) ** -9)), solver="secant", tol=mp.mpf(10) ** -95)
        z, share = grid(q)
        o, p, x = [value(of) for of in z], [slope(of) for of in z], [of / mp.sqrt(q) for of in z]
        o2, p2 = [of**2 for of in o], [of**2 for of in p]

        def first(values):
            return mp.fdot(share, [v * (t * t - 1) for v, t in zip(values, x, strict=True)]) / (2 * q)

        def second(values):
            return mp.fdot(share, [v * (t**4 - 6 * t * t + 3) for v, t in zip(values, x, strict=True)]) / (4 * q * q)

        of_o2, of_p2 = mp.fdot(share, o2), mp.fdot(share, p2)
        chi_1, chi_q = sigma_w**2 * of_p2, sigma_w**2 * first(o2)
        kappa = mp.fdot(share, [of**2 for of in p2]) / of_p2**2
        tau = mp.fdot(share, [a * b for a, b in zip(o2, p2, strict=True)]) / (of_o2 * of_p2)
        part = sigma_w**2 * of_o2 / q  # W o is part z, and noise; A = (z - b) v / |o|
        along = part * mp.fdot(share, [a * b * c for a, b, c in zip(z, o, p, strict=True)])
        noise = part**2 * mp.fdot(share, [a * a * b for a, b in zip(z, p2, strict=True)])
        noise += part * sigma_b**2 * of_p2 - along**2 / of_o2
        rho = noise / (of_p2 * sigma_w**2 * of_o2) / (1 - chi_q**2 / chi_1)
        variance = sigma_w**4 * (mp.fdot(share, [of**2 for of in o2]) - of_o2**2) / (1 - chi_q**2)
        shift = sigma_w**2 * second(o2) * variance / (2 * (1 - chi_q))
        slope_of_ln = first(p2) / of_p2
        bend_of_ln = second(p2) / of_p2 - slope_of_ln**2
        return float((rho - 1) * tau - 1 - 1.5 * (kappa - 1) + slope_of_ln * shift + bend_of_ln * variance / 2)


def test_digits():
    rng = np.random.default_rng(5)
    for _ in range(12):
        nonlinearity, sigma_w, sigma_b = (
            rng.choice(["sigmoid", "tanh"]),
            10 ** rng.uniform(-4, 1),
            10 ** rng.uniform(-4, 1),
        )
        found = width_correction(sigma_w, sigma_b, nonlinearity)
        assert found == pytest.approx(oracle(sigma_w, sigma_b, nonlinearity), rel=1e-9), (sigma_w, sigma_b)
    for _ in range(12):
        sigma_w, sigma_b = 1 + rng.choice([-1, 1]) * 10 ** rng.uniform(-12, -3), 10 ** rng.uniform(-12, -3)
        found = width_correction(sigma_w, sigma_b, "tanh")
        assert found == pytest.approx(oracle(sigma_w, sigma_b, "tanh"), rel=1e-6), (sigma_w, sigma_b)


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
