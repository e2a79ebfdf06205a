"""Chains with centered biases: they carry the offset from 1/2, so that rounding never catches them there."""

import importlib
import math

import mpmath
import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.pages import State

# theory.md: exponents of chains with centered biases that do not start at 1/2. The last is by collocation of the
# stationary density of ln|z| on a grid that is fine at its upper end, at three resolutions.
EXPONENTS = [
    ("normal:std=8", -0.1561796491),
    ("normal:std=9", -0.5025973570),
    ("normal:std=10", -0.849562),
    ("normal:std=12", -1.5473105598),
    ("uniform:low=-12,high=12", -0.2448598259),
]


@pytest.fixture
def drawn_weights(monkeypatch):
    """Function that gives the weights of a simulation's links as its backend draws them."""
    simulate = importlib.import_module("fastgrad.jobs.simulate")

    class DrawnError(Exception):
        pass

    run_pages = simulate.run_pages

    def stop(backend, job, *more):
        run_pages(backend, job, *more)
        raise DrawnError(job.weight)

    def draw(depth, ensemble, weight, **more):
        with monkeypatch.context() as patched:
            patched.setattr(simulate, "run_pages", stop)
            with pytest.raises(DrawnError) as drawn:
                fg.simulate(depth, ensemble, weight, "centered", record=depth, **more)
        return drawn.value.args[0]

    return draw


def inputs_of(growth):
    """The activations o_{l-1} before the recorded links: what grad_weight has more than grad_bias."""
    weight, bias = growth.grad_weight, growth.grad_bias
    dead = bias.mantissa == 0
    return np.ldexp(weight.mantissa / np.where(dead, 1.0, bias.mantissa), weight.exponent - bias.exponent)


def exactly(weights, start, links, precision=1000):
    """ln|do_L/do_{l-1}| and its sign, and o_{l-1}, for each of these links: by o = 1 / (1 + e^-z) in many bits."""
    with mpmath.workprec(precision):
        o, factors, inputs = mpmath.mpf(start), [], []
        for w in map(mpmath.mpf, weights):
            inputs.append(o)
            o = 1 / (1 + mpmath.exp(w / 2 - w * o))
            factors.append(w * o * (1 - o))
        adjoint, found, wanted = mpmath.mpf(1), {}, set(links)
        for link in range(len(weights), 0, -1):
            adjoint *= factors[link - 1]
            if link in wanted:
                found[link] = float(mpmath.log(abs(adjoint))), float(mpmath.sign(adjoint)), float(inputs[link - 1])
        return [np.array(column) for column in zip(*(found[link] for link in links), strict=True)]


# The offset


def some_z(rng, count):
    """Preactivations of any size, both signs."""
    size = np.concatenate([2.0 ** rng.uniform(-800, 8, count), rng.uniform(0, 340, count), rng.uniform(0, 3, count)])
    return size * rng.choice([-1.0, 1.0], len(size))


def test_offsets_have_relative_precision(compiled, rng):
    jit = importlib.import_module("fastgrad.kernels.jit.nonlinearity")
    with mpmath.workdps(500):
        for z in some_z(rng, 2000):
            expected = mpmath.tanh(mpmath.mpf(z) / 2) / 2
            offset, _ = jit.offset_in_range(z)
            assert abs(offset / expected - 1) < 5 * 2.0**-53, z


def test_offsets_are_odd_and_of_equal_bits_on_both_paths(compiled, rng):
    jit = importlib.import_module("fastgrad.kernels.jit.nonlinearity")
    for z in some_z(rng, 5000):
        offset, derivative = jit.offset_in_range(z)
        assert jit.offset_in_range(-z) == (-offset, derivative)
        assert jit.offset_of(z) == offset
        assert jit.sigmoid_in_range(z)[1] == derivative


@pytest.mark.parametrize("z", [0.0, -0.0, 5e-324, 400.0, 1e6, 2.0**55, 2.0**60, 1e300, math.inf])
def test_offsets_at_the_ends(compiled, z):
    expected = 0.5 if z > 100 else z / 4
    jit = importlib.import_module("fastgrad.kernels.jit.nonlinearity")
    assert jit.offset_of(z) == expected
    assert jit.offset_of(-z) == -expected


# Against many digits


@pytest.mark.slow
def test_twenty_thousand_links_are_those_of_many_bits(drawn_weights):
    depth, weight, x, seed = 20_000, "normal:std=9", 0.3, 0
    exact = {}
    for name in fg.available_backends():
        weights = drawn_weights(depth, 1, weight, seed=seed, backend=name)[:, 0]
        alone, beside = (  # one chain is cut in depth where that is faster, and many run in the order of their links
            fg.simulate(depth, ensemble, weight, "centered", x, seed, backend=name) for ensemble in (1, 20)
        )
        key = weights.tobytes()
        if key not in exact:
            exact[key] = exactly(weights, x, alone.link)
        ln, sign, inputs = exact[key]
        for growth in (alone, beside):
            np.testing.assert_allclose(growth.adjoint.ln()[:, 0], ln, rtol=1e-9, atol=1e-9)
            assert np.array_equal(growth.adjoint.sign()[:, 0], sign)
            np.testing.assert_allclose(inputs_of(growth)[:, 0], inputs, rtol=1e-9)
    assert fg.draw(depth, 1, weight, "centered", seed=seed)[0].tobytes() in exact
    assert len(exact) == 2  # NumPy's draws, and those of the compiled backends


@pytest.mark.parametrize(("std", "exponent"), [(30, -1300), (30, -40_000), (4, -890), (1e-100, -800)])
def test_offsets_that_no_double_holds_come_back(backend, monkeypatch, drawn_weights, std, exponent):
    # Near the critical law offsets wander as far down; here they start there, and large weights bring them back.
    depth = 1500 if exponent > -2000 else 25_000
    mantissa = np.array([0.7, -0.9])

    def at_tiny_offset(activation, rest, is_centered):
        stand_in = np.ldexp(mantissa, max(exponent, -1000))
        scaled = fg.Scaled.of_parts(mantissa.copy(), np.full(2, exponent))
        return State(stand_in, scaled if exponent < -900 else fg.Scaled.from_float(np.full(2, 0.5)), rest, is_centered)

    monkeypatch.setattr(State, "at", at_tiny_offset)
    weight = f"normal:std={std}"
    growth = fg.simulate(depth, 2, weight, "centered", record=40, backend=backend)
    weights = drawn_weights(depth, 2, weight, backend=backend)
    for member in range(2):
        # ln|d| and ln|J| in doubles: a second method, good to 1e-12 or so
        height, total = math.log(abs(mantissa[member])) + exponent * math.log(2), 0.0
        for w in np.abs(weights[:, member]):
            y = height + math.log(w)
            z = math.exp(min(y, 700.0))
            height = y - math.log(4) if y < -20 else math.log(math.tanh(z / 2) / 2)
            total += math.log(w) - z - 2 * math.log1p(math.exp(-z))
        assert growth.adjoint.ln()[0, member] == pytest.approx(total, rel=1e-9)
        sign = np.sign(mantissa[member]) * np.prod(np.sign(weights[:, member]))
        if std == 30:
            assert abs(growth.output[member] - 0.5) == pytest.approx(math.exp(height), rel=1e-9)
            assert np.sign(growth.output[member] - 0.5) == sign
            assert growth.bound.ln()[0, member] > total + 10
        else:
            assert growth.output[member] == 0.5
            assert growth.bound.ln()[0, member] == pytest.approx(total, rel=1e-14)


# Exponents, and none caught


@pytest.mark.parametrize(("weight", "expected"), EXPONENTS)
def test_centered_exponents_within_four_standard_errors(compiled_backend, weight, expected):
    growth = fg.simulate(10**5, 200, weight, "centered", x=0.3, seed=1, record=2, backend=compiled_backend)
    assert abs(growth.lyapunov.mean - expected) < 4 * growth.lyapunov.stderr
    assert growth.lyapunov.stderr < 1e-3
    # Caught, a member would go on with the bound, here thousands of nats above.
    assert np.all(growth.bound[0].ln() - growth.adjoint[0].ln() > 1000)


@pytest.mark.parametrize(("weight", "expected"), EXPONENTS)
def test_numpy_agrees_on_centered_chains(weight, expected, agree):
    depth, ensemble = 1500, 40
    ours, theirs = (
        fg.simulate(depth, ensemble, weight, "centered", x=0.3, seed=5, backend=name)
        for name in ("numpy", fg.available_backends()[0])
    )
    rtol = fg.agreement_rtol(*fg.draw(depth, ensemble, weight, "centered", seed=5))
    for name in ("adjoint", "grad_weight", "grad_bias", "bound"):
        agree(getattr(ours, name), getattr(theirs, name), rtol)


@pytest.mark.slow
def test_ten_million_centered_links(compiled_backend):
    growth = fg.simulate(10**7, 1, "normal:std=9", "centered", x=0.3, seed=4, backend=compiled_backend)
    assert abs(growth.lyapunov.mean - -0.5025973570) < 4 * growth.lyapunov.stderr
    assert growth.lyapunov.stderr < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("std", [8, 9, 12])
def test_batch_means_tell_the_spread_of_centered_chains(std):
    depth, seeds = 30_000, 150
    runs = [
        fg.simulate(depth, 1, f"normal:std={std}", "centered", x=0.3, seed=seed, record=2).lyapunov
        for seed in range(seeds)
    ]
    means, errors = np.array(runs).T
    # As in test_simulate.py; the mean of the squares also has what correlated batches add.
    assert abs(np.sqrt((errors**2).mean()) / means.std(ddof=1) - 1) < 4 / math.sqrt(2 * seeds)


# At exactly 1/2


@pytest.mark.parametrize("weight", ["normal:std=4", "normal:std=12", "uniform:low=-50,high=3", "normal:std=1e-200"])
@pytest.mark.parametrize(("depth", "ensemble", "record"), [(700, 70, 20), (9000, 1, 64), (8500, 3, 5)])
def test_at_one_half_every_gradient_is_the_bound(backend, weight, depth, ensemble, record):
    growth = fg.simulate(depth, ensemble, weight, "centered", record=record, seed=8, backend=backend)
    assert np.array_equal(np.abs(growth.adjoint.mantissa), growth.bound.mantissa)
    assert np.array_equal(growth.adjoint.exponent, growth.bound.exponent)
    assert np.all(growth.output == 0.5)
    # grad_weight = delta / 2
    assert np.array_equal(growth.grad_weight.mantissa, growth.grad_bias.mantissa)
    assert np.array_equal(growth.grad_weight.exponent, growth.grad_bias.exponent - 1)


def test_members_at_one_half_stay_there_beside_others(backend, same_bits):
    x = np.array([0.5, 0.3, 0.5, np.nextafter(0.5, 1)])
    growth = fg.simulate(3000, 4, "normal:std=10", "centered", x=x, backend=backend)
    at_half = np.array([True, False, True, False])
    equal = np.abs(growth.adjoint.mantissa[0]) == growth.bound.mantissa[0]
    assert np.array_equal(equal & (growth.adjoint.exponent[0] == growth.bound.exponent[0]), at_half)
    assert np.array_equal(growth.output == 0.5, at_half)
    alone = fg.simulate(3000, 4, "normal:std=10", "centered", backend=backend)
    same_bits(growth.adjoint[:, ::2], alone.adjoint[:, ::2])


def test_inputs_of_any_size(backend):
    x = np.array([0.0, 5e-324, 1e-300, 1e-20, 1.0, -3.0, 1e17, 1e300, -1e308])
    growth = fg.simulate(3, len(x), "constant:9", "centered", x=x, backend=backend)
    with mpmath.workdps(700):
        for member, start in enumerate(x):
            o, adjoint = mpmath.mpf(start), mpmath.mpf(1)
            dead = abs(9 * (o - 0.5)) > 2**60  # the derivative is 0 by definition
            for _ in range(3):
                o = 1 / (1 + mpmath.exp(-9 * (o - mpmath.mpf(0.5)))) if abs(o) < 1e6 else mpmath.mpf(o > 0)
                adjoint *= 9 * o * (1 - o)
            assert growth.output[member] == pytest.approx(float(o), rel=1e-13)
            if dead or start == 1e17:
                assert (growth.adjoint.mantissa[0, member] == 0) == dead
            else:
                assert growth.adjoint.ln()[0, member] == pytest.approx(float(mpmath.log(adjoint)), rel=1e-13)
                assert inputs_of(growth)[0, member] == pytest.approx(start, rel=1e-14)
