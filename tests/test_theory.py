"""Theory: exponents against theory.md's high-precision values, closed forms, and what simulations measure."""

import math

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import theory

# From a transfer operator on ln|z|, by other people's program; 12 digits, the last one 11.
EXPONENTS = [
    ("normal:std=1", "zero", -2.085199165132),
    ("normal:std=4", "zero", -1.486986360569),
    ("normal:std=10", "zero", -2.823624291935),
    ("normal:std=4", "normal:std=1", -1.658044404232),
    ("normal:std=8", "normal:std=4", -3.764510846856),
    ("normal:std=12", "centered", -1.5473105598),
    ("normal:std=3.188939", "zero", -1.447436767379),
]


@pytest.mark.parametrize(("weight", "bias", "expected"), EXPONENTS)
def test_exponents_have_ten_digits(weight, bias, expected):
    assert theory.lyapunov(weight, bias) == pytest.approx(expected, rel=1e-10)


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
        ("constant:12", "uniform:low=-6.1,high=-5.9", "depends on the start: from 0 no chain passes 0.00283"),
        ("constant:12", "normal:mean=-6,std=0.01", "depends on the start"),
        ("constant:-20", "uniform:low=9,high=10", "too narrow to be resolved"),
        ("normal", "torch_default", "expected the family of the weight's law, or a constant"),
        ("uniform:low=0,high=1", "normal", "expected the family of the weight's law, or a constant"),
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


def test_fixed_points_that_touch():
    assert [p.activation for p in theory.fixed_points(4.0, -2.0)] == [pytest.approx(0.5, abs=1e-4)]


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
        ("normal:std=7.9", "centered", "too near to where chains come to rest at 1/2"),
        ("uniform:low=0,high=1e306", "zero", "expected values up to 1e.30, got laws that reach 1e.306"),
        ("normal", "constant:1e308", "expected values up to 1e.30"),
        ("normal:std=1e40", "centered", "expected values up to 1e.30"),
    ],
)
def test_no_number_where_it_would_be_wrong(weight, bias, why):
    with pytest.raises(ValueError, match=why):
        theory.lyapunov(weight, bias)


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
