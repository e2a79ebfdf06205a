"""Theory: exponents against a second solver, closed forms and simulations; fixed points against mpmath."""

import doctest
import importlib
import math
import re
import time
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest

import fastgrad as fg
from fastgrad import theory

# From other programs, of 10 to 13 digits: transfer operators in ln|z|, and stationary densities by the trapezoid rule.
EXPONENTS = [
    ("normal:std=1", "zero", -2.085199165132),
    ("normal:std=4", "zero", -1.486986360569),
    ("normal:std=10", "zero", -2.823624291935),
    ("normal:std=4", "normal:std=1", -1.658044404232),
    ("normal:std=8", "normal:std=4", -3.764510846856),
    ("normal:std=12", "centered", -1.5473105598),
    ("normal:std=3.188939", "zero", -1.447436767379),
    ("normal:std=8", "centered", -0.156179649052),
    ("normal:std=9", "centered", -0.50259736414),
    ("normal:std=10", "centered", -0.84956235811),
    ("uniform:low=-12,high=12", "centered", -0.244859825873),
    ("uniform:low=-30,high=30", "uniform:low=-10,high=10", -7.75288460765),
    ("uniform:low=-35.21395117499336,high=12.165735243096886", "constant:-0.48159347580887474", -2.66267278451),
    ("constant:-10", "normal:mean=5,std=0.5", -2.631830441171),
    ("normal:mean=-6,std=0.001", "constant:3", -0.930610128454),
    ("normal:std=10", "uniform:low=-1,high=1", -2.864681055027),
    ("uniform:low=-3,high=8", "normal:mean=-1,std=2", -1.937632504487),
]


@pytest.mark.parametrize(("weight", "bias", "expected"), EXPONENTS)
def test_exponents_have_ten_digits(weight, bias, expected):
    assert theory.lyapunov(weight, bias) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        ("normal:mean=-47.7,std=51.5", "normal:mean=-4.1,std=0.27"),
        ("constant:-20", "uniform:low=9,high=10"),  # it alternates
        ("uniform:low=-2,high=-1.9", "normal:mean=1,std=0.2"),
        ("normal:mean=0.3,std=6", "uniform:low=-3,high=-2.9"),
    ],
)
def test_a_second_solver_finds_the_same(second_solver, weight, bias):
    expected, error = second_solver.exponent(weight, bias)
    assert error < 1e-10 * abs(expected)
    assert theory.lyapunov(weight, bias) == pytest.approx(expected, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_second_solver_finds_the_same_for_random_laws(second_solver, seed):
    for weight, bias in second_solver.random_pairs(1000 + seed, 5):
        found = theory.predict(weight, bias, 0.3)
        if found.lyapunov is None:
            assert "depends on the start" in found.why_not
        elif found.lyapunov != found.bound.mean:  # which is the closed form where centered chains fall into 1/2
            assert found.lyapunov == pytest.approx(second_solver.exponent(weight, bias)[0], rel=1e-9)


def test_few_random_laws_are_refused_and_they_take_little_time(second_solver):
    found, seconds = [], []
    for weight, bias in second_solver.random_pairs(7, 150):
        start = time.process_time()
        found.append(theory.predict(weight, bias, 0.3))
        seconds.append(time.process_time() - start)
    refused = [prediction.why_not for prediction in found if prediction.lyapunov is None]
    assert len(refused) <= 3
    assert all("depends on the start" in why for why in refused)
    assert all(prediction.lyapunov < 0 for prediction in found if prediction.lyapunov is not None)
    assert np.median(seconds) < 0.2  # 0.005 on a quiet machine


def exponent_near_critical(std):
    """By the trapezoid rule for the stationary density of ln|z|; far down it is exactly proportional to |z|^theta."""
    with mp.workdps(40):
        start = 2 * theory.bound(f"normal:std={std}").mean / (math.pi**2 / 8)
        theta = float(
            mp.findroot(
                lambda t: mp.gamma((1 - t) / 2) / mp.sqrt(mp.pi) * (std / mp.sqrt(8)) ** -t - 1, min(start, 0.6)
            )
        )
    step, cut = 0.08, 30.0
    r = np.arange(-cut - 70.0, math.log(9 * std), step)
    first = round(70.0 / step)
    after = np.where(r < -25, r - math.log(4), np.log(np.tanh(np.exp(r) / 2) / 2))
    w = np.exp(r[:, None] - after)
    transfer = 2 * step * w / std * np.exp(-((w / std) ** 2) / 2) / math.sqrt(2 * math.pi)
    tail = transfer[first:, :first] @ np.exp(theta * (r[:first] - r[first]))
    transfer = transfer[first:, first:]
    transfer[:, 0] += tail
    system = transfer - np.eye(len(transfer))
    system[-1], system[-1, 0] = 1.0, 1 / -math.expm1(-theta * step)  # of total 1, with the whole tail
    density = np.linalg.solve(system, np.eye(len(transfer))[-1])
    y = np.exp(r[first:]) / 2
    gain = (
        np.where(y < 1e-8, 0.0, -2 * np.log(np.cosh(np.minimum(y, 300)))) - np.maximum(y - 300, 0) * 2
    )  # beside -ln 4
    return theory.bound(f"normal:std={std}").mean + density @ gain


@pytest.mark.parametrize("std", [7.5495, 7.55, 7.6, 7.9, 8.0, 9.0, 20.0])
def test_centered_chains_near_the_critical_point(std):
    bound = theory.bound(f"normal:std={std}").mean
    found = theory.lyapunov(f"normal:std={std}", "centered")
    assert found == pytest.approx(exponent_near_critical(std), rel=2e-10)
    assert found < 0 < bound


def test_best_standard_deviation_is_a_maximum():
    below, best, above = (theory.lyapunov(f"normal:std={3.188939 + d}") for d in (-0.01, 0, 0.01))
    assert max(below, above) < best
    assert (below + above) / 2 == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        ("normal:std=0.01", "zero"),
        ("normal:std=100", "normal:std=3"),
        ("normal:mean=3,std=1", "normal:mean=-1,std=0.5"),
        ("uniform:low=-5,high=5", "zero"),
        ("uniform:low=0,high=9", "uniform:low=-3,high=-1"),
        ("uniform:low=-12,high=14", "centered"),
        ("torch_default", "torch_default"),
        ("constant:3", "normal:std=1"),
        ("constant:-20", "normal:mean=9,std=10"),
        ("normal:std=20", "constant:1"),
        ("glorot_normal:gain=20", "centered"),
    ],
)
def test_simulations_agree(weight, bias):
    measured = fg.simulate(3000, 300, weight, bias, x=0.3, seed=3).lyapunov
    # A chain takes some links to forget its start.
    assert theory.lyapunov(weight, bias) == pytest.approx(measured.mean, abs=4 * measured.stderr + 2e-3)


@pytest.mark.parametrize("o", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("weight", [-3.0, 0.5, 3.0])
def test_exponent_at_a_fixed_point(weight, o):
    bias = math.log(o / (1 - o)) - weight * o
    expected = math.log(abs(weight) * o * (1 - o))
    assert theory.lyapunov(f"constant:{weight!r}", f"constant:{bias!r}") == pytest.approx(expected, rel=1e-9)


def test_a_chain_that_alternates():
    measured = fg.simulate(2001, 1, "constant:-9", "constant:4", x=0.3).lyapunov.mean
    assert theory.lyapunov("constant:-9", "constant:4") == pytest.approx(measured, abs=1e-2)


def test_centered_chains_that_contract_come_to_one_half():
    for std in (1, 4, 7.5):
        bound = theory.bound(f"normal:std={std}").mean
        assert bound < 0
        assert theory.lyapunov(f"normal:std={std}", "centered") == pytest.approx(bound, rel=1e-14)
    assert theory.lyapunov("constant:-3", "centered") == pytest.approx(math.log(3 / 4), rel=1e-14)


def test_zero_weights():
    assert theory.lyapunov("zero") == -math.inf
    assert theory.ln_weight("zero") == (-math.inf, 0.0)


@pytest.mark.parametrize(
    ("weight", "bias", "why"),
    [
        ("constant:8", "constant:-3.8", "depends on the start: -1.55919 from 0, -2.01961 from 1"),
        ("constant:12", "normal:mean=-5.9,std=0.01", r"depends on the start: -3.3\d+ from 0, -3.5\d+ from 1"),
        ("nothing", "zero", "weight: unknown law"),
        ("centered", "zero", "weight: centered is a law of the bias"),
    ],
)
def test_where_there_is_no_theory(weight, bias, why):
    with pytest.raises(ValueError, match=why):
        theory.lyapunov(weight, bias)


@pytest.mark.parametrize(
    ("weight", "mean", "variance"),
    [
        ("normal:std=4", math.log(4) - 0.6351814227307391, math.pi**2 / 8),
        ("uniform:low=-3,high=3", math.log(3) - 1, 1.0),
        ("uniform:low=0,high=3", math.log(3) - 1, 1.0),
        ("constant:-5", math.log(5), 0.0),
    ],
)
def test_moments_in_closed_form(weight, mean, variance):
    assert theory.ln_weight(weight) == pytest.approx((mean, variance), rel=1e-13, abs=1e-13)
    assert theory.bound(weight) == pytest.approx((mean - math.log(4), variance), rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("weight", ["normal:mean=3,std=1", "normal:mean=-0.1,std=2", "uniform:low=-1,high=5"])
def test_moments_of_draws(weight):
    ln = np.log(np.abs(fg.draw(1000, 1000, weight, seed=1)[0]))
    mean, variance = theory.ln_weight(weight)
    assert ln.mean() == pytest.approx(mean, abs=4 * ln.std() / 1000)
    assert ln.var() == pytest.approx(variance, rel=2e-2)


@pytest.mark.parametrize(
    ("weight", "bias"), [(8.0, -4.0), (8.0, -3.8), (2.0, 0.3), (-9.0, 0.0), (500.0, -250.0), (0.0, 1.0)]
)
def test_fixed_points_stay(weight, bias):
    points = theory.fixed_points(weight, bias)
    assert len(points) == (3 if weight > 4 else 1)
    for o, multiplier in points:
        assert 1 / (1 + math.exp(-(weight * o + bias))) == pytest.approx(o, rel=1e-9)
        assert multiplier == pytest.approx(weight * o * (1 - o), rel=1e-6)
    assert [abs(point.multiplier) < 1 for point in points] == ([True, False, True] if weight > 4 else [weight > -9])


def zeros_of_excess(weight, bias):
    """Zeros of w sigmoid(z) + b - z with 60 digits, by sign changes between its turning points."""
    with mp.workdps(60):
        w, b = mp.mpf(weight), mp.mpf(bias)

        def excess(z):
            return w / (1 + mp.exp(-z)) + b - z

        ends = [b + min(w, 0) - 1, b + max(w, 0) + 1]
        if w > 4:
            turn = 2 * mp.acosh(mp.sqrt(w) / 2)
            ends = [ends[0], -turn, turn, ends[1]]
        return [
            mp.findroot(excess, (a, c), solver="anderson", tol=1e-80, maxsteps=400)
            for a, c in pairwise(ends)
            if excess(a) * excess(c) < 0
        ]


def test_fixed_points_have_all_digits():
    rng = np.random.default_rng(5)
    pairs = [(w, b) for w, b in zip(rng.normal(0, 20, 40), rng.normal(0, 10, 40), strict=True)]
    for w in np.exp(rng.uniform(math.log(4.001), math.log(300), 40)):
        turn = 2 * math.acosh(math.sqrt(w) / 2)  # where two points touch, or nearly
        touch = turn - w / (1 + math.exp(-turn))
        pairs.append((w, touch + rng.integers(-3, 4) * np.spacing(touch)))
        pairs.append((w, touch * (1 + 1e-9 * rng.normal())))
    numbers = set()
    for w, b in pairs:
        found = theory.fixed_points(float(w), float(b))
        expected = zeros_of_excess(float(w), float(b))
        numbers.add(len(expected))
        assert len(found) == len(expected)
        for (activation, multiplier), z in zip(found, expected, strict=True):
            with mp.workdps(60):
                o = 1 / (1 + mp.exp(-z))
                size = 1 + abs(float(z))  # exp(z) magnifies the rounding of z
                assert activation == pytest.approx(float(o), rel=3e-16 * size, abs=0)
                assert multiplier == pytest.approx(float(w * o * (1 - o)), rel=6e-16 * size, abs=0)
    assert numbers == {1, 3}


def test_fixed_points_that_touch():
    assert theory.fixed_points(4.0, -2.0) == [(0.5, 1.0)]
    assert [p.activation for p in theory.fixed_points(500.0, -250.0)][1:] == [0.5, 1.0]


@pytest.mark.parametrize("arguments", [(math.nan, 0.0), (1.0, math.inf)])
def test_fixed_points_of_what_is_not_finite(arguments):
    with pytest.raises(ValueError, match="weight, bias: expected finite numbers"):
        theory.fixed_points(*arguments)


@pytest.mark.parametrize(
    ("law", "mean", "variance"),
    [
        # mpmath, 30 digits; the singularity of the logarithm lies far from or close to the law's middle
        ("normal:mean=1e-5,std=1", -0.6351814227307391 + 5e-11, 1.2337005501361697),
        ("normal:mean=0.1,std=1", -0.630189744964855495, None),
        ("normal:mean=19,std=1", 2.94304812866665970, None),
        ("normal:mean=21,std=1", 3.04338476495566221, None),
        ("normal:mean=3,std=0.5", 1.08408112785108589, None),
        ("normal:mean=1e-300,std=1", -0.6351814227307391, math.pi**2 / 8),
        ("normal:mean=1,std=1e-17", -5e-35, 1e-34),
        ("uniform:low=0,high=1e306", 306 * math.log(10) - 1, 1.0),
        ("uniform:low=-1e307,high=1e307", 307 * math.log(10) - 1, 1.0),
        ("uniform:low=0,high=5e-324", math.log(5e-324) - 1, 1.0),
        ("uniform:low=1,high=1.000001", 4.9999983333e-07, 8.33332500e-14),
    ],
)
def test_moments_at_the_edges(law, mean, variance):
    found = theory.ln_weight(law)
    assert found.mean == pytest.approx(mean, rel=2e-9, abs=1e-16)
    if variance is not None:
        assert found.variance == pytest.approx(variance, rel=1e-8)


@pytest.mark.parametrize(
    ("weight", "bias", "exponent"),
    [
        ("constant:4", "constant:-2", 0.0),  # critical
        ("constant:-4", "constant:2", 0.0),
        ("constant:4.0001", "centered", -4.999974999e-05),
        ("constant:-3.9999", "constant:1.99995", -2.500031251e-05),
        ("constant:1e308", "zero", -1e308),
        ("constant:-1e308", "zero", -2.5e307),  # it alternates between z = 0 and -5e307
    ],
)
def test_exponents_of_constant_chains_at_the_edges(weight, bias, exponent):
    assert theory.lyapunov(weight, bias) == pytest.approx(exponent, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize(
    ("weight", "bias", "why"),
    [
        # Two wells: which one a chain is in is settled by where it starts, for longer than anyone waits.
        ("constant:12", "normal:mean=-5.8,std=0.6", "depends on the start, which the chain forgets too slowly"),
        ("normal:mean=8,std=.3", "normal:mean=-4,std=.3", "depends on the start, which the chain forgets too slowly"),
        ("normal:mean=-4,std=1e-6", "constant:2", r"which the chain forgets too slowly \(in about \de\+"),
        ("normal:std=7.54946", "centered", "too near to where centered chains turn from falling into 1/2"),
        # -2e-5 are left of 1.39 - 1.39
        ("normal:mean=-4,std=1e-4", "constant:2", "not resolved to nine digits|forgets too slowly"),
        ("uniform:low=0,high=1e306", "zero", "expected values up to 1e.280, got laws that reach 1e.306"),
        ("normal", "constant:1e308", "expected values up to 1e.280"),
        ("normal:std=1e290", "centered", "expected values up to 1e.280"),
    ],
)
def test_no_number_where_it_would_be_wrong(weight, bias, why):
    with pytest.raises(ValueError, match=why):
        theory.lyapunov(weight, bias)


def test_two_wells_have_two_exponents():
    weight, bias = "constant:12", "uniform:low=-5.9,high=-5.7"
    why = theory.predict(weight, bias).why_not
    numbers = re.fullmatch(r"weight, bias: the exponent depends on the start: (\S+) from 0, (\S+) from 1", why).groups()
    for x, number in zip((0.0, 1.0), numbers, strict=True):
        measured = fg.simulate(4000, 50, weight, bias, x=x).lyapunov
        assert float(number) == pytest.approx(measured.mean, abs=4 * measured.stderr + 2e-3)


def test_two_wells_that_mirror_each_other_have_one_exponent():
    weight, bias = "constant:12", "uniform:low=-6.1,high=-5.9"
    for x in (0.0, 1.0):
        measured = fg.simulate(4000, 50, weight, bias, x=x).lyapunov
        assert theory.lyapunov(weight, bias) == pytest.approx(measured.mean, abs=4 * measured.stderr + 2e-3)


@pytest.mark.parametrize(
    ("weight", "bias", "exponent"),
    [
        # E |w| / sqrt(8 pi): half the time z is positive, then the next one is w
        ("normal:std=1e30", "zero", -1e30 / math.sqrt(2 * math.pi)),
        ("normal:std=1e270", "zero", -1e270 / math.sqrt(2 * math.pi)),
        ("normal:std=1e30", "centered", -1e30 / math.sqrt(2 * math.pi)),
        ("normal:std=1e-10", "zero", math.log(1e-10 / 4) - 0.6351814227307391),
        ("normal:std=1e-300", "constant:3", math.log(1e-300) - 0.6351814227307391 - 3 - 2 * math.log1p(math.exp(-3))),
        ("normal:mean=3,std=1e-12", "constant:1", theory.lyapunov("constant:3", "constant:1")),
        ("constant:-9", "uniform:low=4,high=4.000000001", theory.lyapunov("constant:-9", "constant:4.0000000005")),
    ],
)
def test_exponents_of_very_wide_and_very_narrow_laws(weight, bias, exponent):
    assert theory.lyapunov(weight, bias) == pytest.approx(exponent, rel=1e-9)


@pytest.mark.parametrize(("module", "examples"), [("theory", 5), ("theory.mean_field", 5), ("theory.linear", 5)])
def test_examples_of_the_documentation(module, examples):
    assert doctest.testmod(importlib.import_module(f"fastgrad.{module}")) == (0, examples)


def test_predictions():
    assert theory.predict("normal:std=4").lyapunov == theory.lyapunov("normal:std=4")
    assert theory.predict("normal:std=4").bound == theory.bound("normal:std=4")
    at_half = theory.predict("normal:std=12", "centered")
    assert at_half.lyapunov == theory.bound("normal:std=12").mean > 0  # the bound is reached
    assert theory.predict("normal:std=12", "centered", 0.3).lyapunov < 0
    both = theory.predict("normal:std=12", "centered", [0.3, 0.5])
    assert both.lyapunov is None
    assert "1/2" in both.why_not
    assert theory.predict("constant:8", "constant:-3.8").lyapunov is None
    with pytest.raises(ValueError, match="unknown law"):
        theory.predict("nothing")


@pytest.mark.parametrize(
    ("weight", "bias", "same_as"),
    [
        ("uniform:low=-3,high=3", "normal:std=0", ("uniform:low=-3,high=3", "zero")),
        ("normal:mean=2,std=0", "uniform:low=-1,high=1", ("constant:2", "uniform:low=-1,high=1")),
        ("normal:std=3", "uniform:low=1,high=1", ("normal:std=3", "constant:1")),
        ("normal:mean=3,std=0", "uniform:low=1,high=1", ("constant:3", "constant:1")),
    ],
)
def test_a_law_without_width_is_a_constant(weight, bias, same_as):
    assert theory.lyapunov(weight, bias) == theory.lyapunov(*same_as)


@pytest.mark.parametrize("bias", ["constant:1", "constant:-3"])
@pytest.mark.parametrize("weight", ["uniform:low=-3,high=3", "he_uniform", "uniform:low=1,high=8", "normal:std=3"])
def test_random_weights_beside_a_constant_bias(weight, bias):
    depth = 4000
    measured = fg.simulate(depth, 400, weight, bias).lyapunov
    transient = 5 / depth  # of the first links
    assert abs(measured.mean - theory.lyapunov(weight, bias)) < 4 * measured.stderr + transient
