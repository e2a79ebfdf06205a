"""Exact laws of linear and relu layers: against mpmath, and networks that NumPy draws."""

import math

import mpmath as mp
import numpy as np
import pytest

from fastgrad import theory
from fastgrad.theory.linear import digamma, trigamma


@pytest.mark.parametrize("width", [1, 2, 3, 8, 64, 999, 65536])
def test_linear_layers(width):
    half = mp.mpf(width) / 2
    mean, variance = theory.layer_growth(width, 1.3)
    expected = mp.log(1.3) - mp.log(width) / 2 + (mp.log(2) + mp.psi(0, half)) / 2
    assert mean == pytest.approx(float(expected), rel=1e-14, abs=2e-15)
    assert variance == pytest.approx(float(mp.psi(1, half) / 4), rel=1e-14)


def relu_by_sums(width, sigma_w):
    """Mean and variance of a layer's ln |.| by sums over all numbers of units alive but 0, with 40 digits."""
    with mp.workdps(40):
        weights = [mp.binomial(width, k) for k in range(1, width + 1)]
        total = mp.fsum(weights)
        means = [mp.log(2) + mp.psi(0, mp.mpf(k) / 2) for k in range(1, width + 1)]
        mean = mp.fsum(w * m for w, m in zip(weights, means, strict=True)) / total
        second = [mp.psi(1, mp.mpf(k) / 2) + (m - mean) ** 2 for k, m in enumerate(means, 1)]
        variance = mp.fsum(w * s for w, s in zip(weights, second, strict=True)) / total
        return float(mp.log(sigma_w) + (mean - mp.log(width)) / 2), float(variance / 4)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 31, 64, 300])
def test_relu_layers(width):
    expected = relu_by_sums(width, 1.4)
    assert theory.layer_growth(width, 1.4, "relu") == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_relu_layers_as_they_become_wide():
    """Hanin and Nica: ln |.|² is N(-beta/2, beta) over the layers, beta = 5 sum of 1/n."""
    for width in (1000, 65536):
        mean, variance = theory.layer_growth(width, math.sqrt(2), "relu")
        assert 2 * mean == pytest.approx(-2.5 / width, rel=10 / width)
        assert 4 * variance == pytest.approx(5 / width, rel=10 / width)


def test_known_values_of_relu_layers():
    for width, layers, mean, variance in [(8, 10, -3.988, 12.47), (32, 12, -0.9905, 2.13)]:
        found = theory.layer_growth(width, math.sqrt(2), "relu")
        assert 2 * layers * found.mean == pytest.approx(mean, abs=6e-4)
        assert 4 * layers * found.variance == pytest.approx(variance, abs=6e-3)


def drawn_products(width, depth, members, nonlinearity, sigma_w):
    """Ln of the norm of the gradient of a random unit cotangent, through networks that NumPy draws."""
    rng = np.random.default_rng(width)
    vectors = rng.normal(size=(members, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    inputs, ln = rng.normal(size=(members, width)), np.zeros(members)
    weights = rng.normal(0, sigma_w / math.sqrt(width), (depth, members, width, width))
    alive = np.ones((depth, members, width), dtype=bool)
    for layer in range(depth):
        inputs = (weights[layer] @ inputs[..., None])[..., 0]
        if nonlinearity == "relu":
            alive[layer] = inputs > 0
            inputs = np.maximum(inputs, 0)
    for layer in reversed(range(depth)):
        vectors = ((vectors * alive[layer])[:, None] @ weights[layer])[:, 0]
        norm = np.linalg.norm(vectors, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ln += np.log(norm)
            vectors /= norm[:, None]
    return ln


@pytest.mark.parametrize("nonlinearity", ["linear", "relu"])
@pytest.mark.parametrize("width", [2, 6])
def test_drawn_networks(width, nonlinearity):
    depth, members = 6, 20_000
    ln = drawn_products(width, depth, members, nonlinearity, 1.4)
    alive = np.isfinite(ln)
    dead = theory.dead_probability(width, depth) if nonlinearity == "relu" else 0.0
    assert np.mean(~alive) == pytest.approx(dead, abs=4 * math.sqrt(dead * (1 - dead) / members))
    mean, variance = theory.layer_growth(width, 1.4, nonlinearity)
    found, count = ln[alive], np.count_nonzero(alive)
    assert found.mean() == pytest.approx(depth * mean, abs=4 * math.sqrt(depth * variance / count))
    kurtosis = np.mean((found - found.mean()) ** 4) / found.var() ** 2
    assert found.var() == pytest.approx(depth * variance, rel=4 * math.sqrt((kurtosis - 1) / count))


def test_newmans_spectrum():
    spectrum = theory.spectrum(8, 2.0)
    for i, found in enumerate(spectrum, 1):
        expected = mp.log(2) - mp.log(8) / 2 + (mp.log(2) + mp.psi(0, mp.mpf(8 - i + 1) / 2)) / 2
        assert found == pytest.approx(float(expected), rel=1e-14, abs=1e-15)
    # the largest exponent is that of a vector; all together are ln |det|
    assert spectrum[0] == pytest.approx(theory.layer_growth(8, 2.0).mean, rel=1e-14)
    rng = np.random.default_rng(1)
    ln_det = np.linalg.slogdet(rng.normal(0, 2 / math.sqrt(8), (20_000, 8, 8)))[1]
    assert ln_det.mean() == pytest.approx(spectrum.sum(), abs=4 * ln_det.std() / math.sqrt(len(ln_det)))


def test_spectrum_of_relu_networks():
    with mp.workdps(30):
        for i, found in enumerate(theory.spectrum(12, 1.0, "relu"), 1):
            weights = {k: mp.binomial(12, k) for k in range(i, 13)}
            mean = sum(w * mp.psi(0, mp.mpf(k - i + 1) / 2) for k, w in weights.items()) / sum(weights.values())
            assert found == pytest.approx(float((mp.log(2) - mp.log(12) + mean) / 2), rel=1e-13)
    with mp.workdps(30):  # the same where most of the law's ends are negligible, on either side of n / 2
        for i in (1, 60, 139, 160, 290):
            weights = {k: mp.binomial(300, k) for k in range(i, 301)}
            mean = sum(w * mp.psi(0, mp.mpf(k - i + 1) / 2) for k, w in weights.items()) / sum(weights.values())
            found = theory.spectrum(300, 1.0, "relu")[i - 1]
            assert found == pytest.approx(float((mp.log(2) - mp.log(300) + mean) / 2), rel=1e-13)
    wide = theory.spectrum(2500, math.sqrt(2), "relu")  # its tail has probabilities below the smallest double
    assert np.isfinite(wide).all()
    assert (np.diff(wide) < 0).all()
    assert wide[-1] == pytest.approx(0.5 * (math.log(2 / 2500) + math.log(2) + float(mp.psi(0, 0.5))), rel=1e-13)


def test_dead_networks():
    assert theory.dead_probability(1, 3) == 1 - 0.5**3
    assert theory.dead_probability(100, 10**6) == pytest.approx(10**6 * 2.0**-100, rel=1e-12)
    assert theory.dead_probability(65536, 1) == 0
    for width in (199, 200, 201, 1000):
        assert theory.dead_probability(width, 10**18) == pytest.approx(10.0**18 * 2.0**-width, rel=1e-15)
    assert theory.dead_probability(1100, 10**18) == pytest.approx(float(mp.mpf(10) ** 18 / 2**1100), rel=1e-9)


@pytest.mark.parametrize("x", [0.5, 1.0, 1.4616321449683622, 7.0, 11.5, 12.0, 12.5, 1e5])
def test_gamma_functions(x):
    assert digamma(np.array(x)) == pytest.approx(float(mp.psi(0, x)), rel=1e-15, abs=1e-15)
    assert trigamma(np.array(x)) == pytest.approx(float(mp.psi(1, x)), rel=1e-15)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "width: expected 1 to 65536, got 0"),
        ((2.0,), TypeError, "width: expected an integer, got 2.0"),
        ((2, 0.0), ValueError, "sigma_w: expected a number above 0, got 0.0"),
        ((2, 1.0, "tanh"), ValueError, "nonlinearity: expected linear or relu, which have an exact law, got 'tanh'"),
    ],
)
def test_bad_input(arguments, error, message):
    for function in (theory.layer_growth, theory.spectrum):
        with pytest.raises(error, match=message):
            function(*arguments)
