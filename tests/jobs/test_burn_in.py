"""Burn-in: known times of meeting, starts that are never forgotten, and what the links after it measure."""

import math
import statistics

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.burn_in import burn_in_links
from fastgrad.jobs.growth import Lyapunov
from fastgrad.kernels import load
from fastgrad.laws import parse
from fastgrad.nonlinearities import NONLINEARITIES


def links(weight, bias, x=0.3, at_most=10**6):
    _, kernels = load("auto")
    laws = parse(weight, "weight"), parse(bias, "bias")
    return burn_in_links(*laws, NONLINEARITIES["sigmoid"], np.array([x]), 0, at_most, kernels)


# theory.md, section 5: the most links until chains from 0 and from 1 are bitwise equal, of 2000 chains.
@pytest.mark.parametrize(
    ("weight", "bias", "most"),
    [
        ("normal:std=1", "zero", 27),
        ("normal:std=3.19", "zero", 40),
        ("normal:std=4", "normal:std=1", 38),
        ("normal:std=100", "normal:std=1", 15),
        ("normal:std=4", "centered", 109),
    ],
)
def test_burn_in_is_of_the_order_of_the_known_times(weight, bias, most):
    assert most / 2 <= links(weight, bias) <= 2 * most + 32


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        ("constant:8", "constant:-4"),  # two attracting fixed points
        ("constant:8", "normal:mean=-4,std=0.3"),  # and noise that takes a chain from one to the other too rarely
        ("constant:-8", "constant:4"),  # a cycle of two, whose phase is remembered
        ("constant:4", "centered"),  # critical: o - 1/2 falls off as 1 / sqrt(link)
    ],
)
def test_starts_that_are_not_forgotten(weight, bias):
    assert links(weight, bias) is None


def test_rare_changes_of_wells_take_long_but_end():
    assert 1000 < links("constant:8", "normal:mean=-4,std=1") < 20_000


def test_a_burn_in_longer_than_allowed_is_none():
    needed = links("normal:std=4", "zero")
    assert links("normal:std=4", "zero", at_most=needed) == needed
    assert links("normal:std=4", "zero", at_most=needed - 1) is None


def test_centered_chains_at_one_half_have_no_start_to_forget():
    assert links("normal:std=9", "centered", x=0.5, at_most=0) == 0
    growth = fg.simulate(50, 20, "normal:std=9", "centered", x=0.5)
    assert growth.stationary_link == 1
    assert growth.stationary == growth.lyapunov


def test_a_start_near_one_half_is_forgotten_later():
    near, far = links("normal:std=12", "centered", x=0.5 + 1e-15), links("normal:std=12", "centered", x=0.9)
    assert near >= far
    assert links("constant:8", "centered", x=0.5 + 1e-15) > links("constant:8", "centered", x=0.9)


# With drift m and variance v of ln|w/4| the state near 1/2 is a reflected random walk, which relaxes in 2 v / m² links.
@pytest.mark.parametrize("std", [9, 10, 12])
def test_centered_chains_are_given_several_relaxation_times(std):
    drift = math.log(std / 4) - 0.6351814227307391
    assert links(f"normal:std={std}", "centered") > 5 * (math.pi**2 / 4) / drift**2


# The exponent that is measured


def test_the_stationary_exponent_is_over_the_links_that_it_names():
    growth = fg.simulate(400, 30, "normal:std=4", "normal:std=1", record=400)
    row = growth.stationary_link - 1
    rates = growth.adjoint[row].ln() / (400 - row)
    assert growth.stationary == (rates.mean(), rates.std(ddof=1) / math.sqrt(30))
    assert growth.summary()["stationary"] == {**growth.stationary._asdict(), "link": growth.stationary_link}
    assert 32 <= row <= 200


@pytest.mark.parametrize("record", [2, 3, 64])
@pytest.mark.parametrize("ensemble", [1, 40])
def test_few_recorded_links_lose_few_links(record, ensemble):
    growth = fg.simulate(3000, ensemble, "normal:std=4", record=record)
    assert len(growth.link) == record
    assert links("normal:std=4", "zero") < growth.stationary_link <= 3000 / 8 + 100
    # theory.md: -1.486986360569, and Var(ln|J|) / L = 1.579568
    assert abs(growth.deviation(-1.486986360569)) < 4
    expected = math.sqrt(1.579568 / (3001 - growth.stationary_link) / ensemble)
    assert growth.stationary.stderr == pytest.approx(expected, rel=4 / math.sqrt(2 * min(29, max(ensemble - 1, 29))))


def test_too_few_links_have_no_stationary_exponent():
    growth = fg.simulate(40, 5)
    assert np.isnan(growth.stationary).all()
    assert growth.stationary_link is None
    found = growth.summary()["stationary"]
    assert [found[key] for key in ("mean", "stderr", "link")] == [None] * 3
    assert found["mean_why"] == "the start is not forgotten within half of the links"


def test_deviation_needs_an_error():
    assert Lyapunov(-1.0, 0.25).deviation(-2.0) == 4
    for measured in (Lyapunov(-1.0, 0.0), Lyapunov(-1.0, 1e-15), Lyapunov(-1.0, math.nan), Lyapunov(-math.inf, 1.0)):
        assert measured.deviation(-2.0) is None


@pytest.mark.parametrize("t", [0.1, 1.0, 5.0, 40.0])
@pytest.mark.parametrize(
    ("freedom", "tail", "rel"),
    [
        (1, lambda t: 2 / math.pi * math.atan(1 / t), 0.13),  # Cauchy's law
        (2, lambda t: 2 / ((2 + t * t) * (1 + t / math.hypot(math.sqrt(2), t))), 0.08),
        (4, lambda t: 1 - t / math.hypot(2, t) * (1 + 2 / (t * t + 4)), 0.05),
    ],
)
def test_an_error_of_few_chains_is_uncertain_itself(t, freedom, tail, rel):
    expected = -statistics.NormalDist().inv_cdf(tail(t) / 2)
    assert Lyapunov(t, 1.0).deviation(0.0, freedom) == pytest.approx(expected, rel=rel)
    assert Lyapunov(-t, 1.0).deviation(0.0, freedom) == pytest.approx(-expected, rel=rel)


def test_an_error_of_many_chains_is_not():
    assert Lyapunov(4.0, 1.0).deviation(0.0, 10**6) == pytest.approx(4.0, rel=1e-4)
    assert Lyapunov(0.0, 1.0).deviation(0.0, 1) == 0


@pytest.mark.parametrize("ensemble", [1, 2])
def test_distances_of_few_chains_are_standard_normal(ensemble):
    # theory.md: -1.658044404232; of two chains the plain quotient has Cauchy's law, which has no variance.
    growths = [fg.simulate(300, ensemble, "normal:std=4", "normal:std=1", seed=seed) for seed in range(100)]
    distances = np.array([growth.deviation(-1.658044404232) for growth in growths])
    assert 0.5 < distances.var() < 1.6
    assert np.abs(distances).max() < 4.5


def test_equal_on_all_backends(compiled):
    ours, theirs = (fg.simulate(500, 30, "normal:std=5", "normal", backend=name) for name in compiled)
    assert (ours.stationary, ours.stationary_link) == (theirs.stationary, theirs.stationary_link)


def random_laws(rng):
    """Weight and bias of one family, with means away from 0."""
    normal = rng.random() < 0.5

    def law(size):
        center, half = rng.uniform(-1, 1) * size, 10 ** rng.uniform(-1, 1) * size / 4
        if normal:
            return f"normal:mean={center:.3g},std={half:.3g}"
        return f"uniform:low={center - half:.4g},high={center + half:.4g}"

    return law(10 ** rng.uniform(0, 2)), law(10 ** rng.uniform(0, 1))


@pytest.mark.slow
def test_distances_from_theory_are_standard_normal():
    rng = np.random.default_rng(1)
    distances, finite_depth, remembered = [], [], 0
    while len(distances) < 60:
        weight, bias = random_laws(rng)
        expected = fg.theory.predict(weight, bias).lyapunov
        growth = fg.simulate(1000, 1000, weight, bias, seed=int(rng.integers(2**32)))
        if expected is None:
            continue
        if growth.stationary_link is None:
            remembered += 1
            continue
        distances.append(growth.deviation(expected))
        finite_depth.append(growth.lyapunov.deviation(expected))
    assert remembered <= 6  # chains that alternate between two states, as weights far below 0 make them
    distances = np.sort(distances)
    assert distances.var() < 1.5
    assert np.abs(distances).max() < 4.5
    # Kolmogorov and Smirnov: the 1 % point is 1.63 / sqrt(n).
    below = np.array([0.5 * math.erfc(-d / math.sqrt(2)) for d in distances])
    steps = np.arange(61) / 60
    assert max((steps[1:] - below).max(), (below - steps[:-1]).max()) < 1.63 / math.sqrt(60)
    # Chi-square with 60 degrees of freedom, its 0.1 % points on both sides.
    assert 31.7 < (distances**2).sum() < 99.6
    # The test has the power to tell: the start's links, counted in, fail it.
    assert np.var(finite_depth) > 3
