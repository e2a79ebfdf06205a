"""simulate: what it records, equal bits, known exponents, the bound beside the gradient, summaries, bad input."""

import json
import math
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.compare import compare
from fastgrad.jobs.growth import Lyapunov
from fastgrad.jobs.schemes import schemes

LAWS = [
    ("normal:std=4", "zero"),
    ("normal:std=4", "normal:std=1"),
    ("normal:std=500", "normal:std=100"),
    ("normal:std=8", "centered"),
    ("uniform:low=-6,high=6", "uniform:low=-1,high=1"),
    ("torch_default", "torch_default"),
    ("he_normal:gain=3", "zero"),
    ("constant:-3", "constant:0.5"),
    ("constant:2", "normal"),
]
EULER = 0.5772156649015329

# theory.md, section 3: the Lyapunov exponents of N(0, std²) weights, by transfer operator.
EXPONENTS = [
    (1, "zero", -2.085199165132),
    (3.188939, "zero", -1.447436767379),
    (4, "zero", -1.486986360569),
    (10, "zero", -2.823624291935),
    (4, "normal:std=1", -1.658044404232),
    (8, "normal:std=4", -3.764510846856),
]


# What is recorded


def test_shapes_and_fields(backend):
    growth = fg.simulate(100, 7, "normal:std=2", "normal", x=np.linspace(0, 1, 7), seed=3, record=10, backend=backend)
    for name in ("adjoint", "grad_weight", "grad_bias", "bound"):
        scaled = getattr(growth, name)
        assert isinstance(scaled, fg.Scaled)
        assert scaled.shape == (10, 7)
    assert growth.output.shape == (7,)
    assert growth.link.dtype == np.int64
    assert isinstance(growth.lyapunov, Lyapunov)
    assert (growth.depth, growth.ensemble, growth.seed, growth.backend) == (100, 7, 3, backend)
    assert (str(growth.weight), str(growth.bias)) == ("normal:std=2", "normal:std=1")


@pytest.mark.parametrize(
    ("depth", "record"), [(1, 64), (2, 2), (5, 64), (64, 64), (65, 64), (1000, 2), (1000, 7), (10**6, 64)]
)
@pytest.mark.parametrize("ensemble", [1, 2])
def test_recorded_links_are_evenly_spaced_with_both_ends(depth, record, ensemble):
    growth = fg.simulate(depth, ensemble, record=record)
    link = growth.link
    assert len(link) == min(depth, record) == len(growth.adjoint)
    assert (link[0], link[-1]) == (1, depth)
    if depth > record:
        gaps = np.diff(link)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1
    else:
        assert np.array_equal(link, np.arange(1, depth + 1))


@pytest.mark.parametrize(("weight", "bias"), LAWS)
@pytest.mark.parametrize(("depth", "ensemble", "record"), [(1, 5, 64), (50, 70, 64), (300, 20, 17), (2000, 1, 64)])
def test_recorded_gradients_are_those_of_backprop(backend, weight, bias, depth, ensemble, record, agree):
    x = 0.5 if bias == "centered" else np.linspace(0.1, 0.9, ensemble)
    growth = fg.simulate(depth, ensemble, weight, bias, x=x, seed=11, record=record, backend=backend)
    w, b = fg.draw(depth, ensemble, weight, bias, seed=11)
    g = fg.backprop(w, b, x, backend=backend)
    rtol, rows = fg.agreement_rtol(w, b), growth.link - 1
    agree(growth.grad_weight, g.grad_weight[rows], rtol)
    agree(growth.grad_bias, g.grad_bias[rows], rtol)
    agree(growth.adjoint, g.grad_bias[rows] * fg.Scaled.from_float(w[rows]), rtol)
    agree(growth.adjoint[0], g.grad_x, rtol)
    agree(fg.Scaled.from_float(growth.output), fg.Scaled.from_float(g.output), rtol)


@pytest.mark.parametrize(("weight", "bias"), LAWS)
def test_the_bound_is_the_product_of_quarters(backend, weight, bias, agree):
    depth, ensemble = 700, 3
    growth = fg.simulate(depth, ensemble, weight, bias, seed=2, record=30, backend=backend)
    w, _ = fg.draw(depth, ensemble, weight, bias, seed=2)
    expected = fg.Scaled.from_float(np.ones(ensemble))
    rounding_alone = fg.agreement_rtol(np.zeros((depth, ensemble)), 0)
    for link in range(depth, 0, -1):
        expected = expected * fg.Scaled(np.abs(w[link - 1]), -2)
        at = np.flatnonzero(growth.link == link)
        if len(at):
            agree(growth.bound[at[0]], expected, rounding_alone)


@pytest.mark.parametrize("weight", ["normal:std=0.5", "normal:std=4", "normal:std=500"])
def test_no_adjoint_exceeds_the_bound(backend, weight):
    growth = fg.simulate(200, 100, weight, "normal", record=200, backend=backend)
    rounding_alone = fg.agreement_rtol(np.zeros(200), 0)
    ratio = np.log(np.abs(growth.adjoint.mantissa / growth.bound.mantissa))
    exponent = growth.adjoint.exponent - growth.bound.exponent
    assert np.all(ratio + exponent * math.log(2) <= rounding_alone)


# Equal bits


@pytest.mark.parametrize(("weight", "bias"), LAWS)
@pytest.mark.parametrize(
    ("depth", "ensemble", "record"), [(1, 1, 2), (3000, 1, 64), (500, 2, 5), (100, 65, 100), (40, 200, 7)]
)
def test_compiled_backends_return_equal_bits(compiled, weight, bias, depth, ensemble, record, same_bits):
    ours, theirs = (
        fg.simulate(depth, ensemble, weight, bias, x=0.3, seed=2**64 - 1, record=record, backend=name)
        for name in compiled
    )
    same_bits(ours, theirs)
    assert np.array_equal(ours.lyapunov, theirs.lyapunov, equal_nan=True)


def test_compiled_backends_return_equal_bits_for_a_deep_chain(compiled, same_bits):
    for bias in ("zero", "centered", "normal"):
        ours, theirs = (fg.simulate(300_000, 1, "normal:std=12", bias, x=0.4, backend=name) for name in compiled)
        same_bits(ours, theirs)


@pytest.mark.parametrize("ensemble", [1, 65, 300])
def test_threads_do_not_change_a_bit(backend, ensemble, same_bits):
    one, *more = (
        fg.simulate(400, ensemble, "normal:std=4", "normal", backend=backend, threads=threads)
        for threads in (1, 2, 3, 4, 64, None)
    )
    for other in more:
        same_bits(one, other)
        assert one.lyapunov == other.lyapunov


def test_the_same_seed_is_the_same_run(backend, same_bits):
    runs = [fg.simulate(50, 3, seed=seed, backend=backend) for seed in (5, 5, 6)]
    same_bits(runs[0], runs[1])
    assert not np.any(runs[0].adjoint[0] == runs[2].adjoint[0])


# Independence of how it is cut


@pytest.mark.parametrize("bias", ["zero", "normal", "centered"])
def test_a_member_does_not_depend_on_the_ensemble(backend, bias, agree):
    depth = 3000
    rounding_alone = fg.agreement_rtol(np.zeros((depth, 1)), 0)
    large = fg.simulate(depth, 300, bias=bias, x=0.4, backend=backend)
    for ensemble in (1, 2, 65):
        small = fg.simulate(depth, ensemble, bias=bias, x=0.4, backend=backend)
        assert np.array_equal(small.output, large.output[:ensemble])
        for name in ("adjoint", "grad_weight", "grad_bias", "bound"):
            agree(getattr(small, name), getattr(large, name)[:, :ensemble], rounding_alone)


@pytest.mark.parametrize("depth", [20, 300, 3000, 20_000])
def test_a_single_chain_differs_from_a_member_in_its_last_bits_alone(backend, depth):
    single, two, many = (fg.simulate(depth, n, "normal:std=4", "normal", seed=3, backend=backend) for n in (1, 2, 40))
    assert single.output[0] == many.output[0]
    for name in ("adjoint", "grad_weight", "grad_bias", "bound"):
        assert np.all(getattr(two, name) == getattr(many, name)[:, :2])
        distance = fg.log2_distance(getattr(single, name)[:, 0], getattr(many, name)[:, 0]) * math.log(2)
        assert np.max(distance) < 2.0**-52 * depth
        assert (np.max(distance) > 0) == (depth > 31)  # where its 31 batches are not recorded anyway


@pytest.mark.parametrize("ensemble", [1, 66])
def test_gradients_do_not_depend_on_how_many_are_recorded(backend, ensemble, agree):
    depth = 2049
    rounding_alone = fg.agreement_rtol(np.zeros((depth, 1)), 0)
    every = fg.simulate(depth, ensemble, record=depth, backend=backend)
    for record in (2, 3, 64, 1000):
        some = fg.simulate(depth, ensemble, record=record, backend=backend)
        assert np.array_equal(some.output, every.output)
        for name in ("adjoint", "grad_weight", "grad_bias", "bound"):
            agree(getattr(some, name), getattr(every, name)[some.link - 1], rounding_alone)


# Chains cut in depth

# Weights, biases and inputs. The last never forget their start: there are two attractors that mirror each other.
# `backprop` of given arrays can't follow these, whose offsets from 1/2 no activation holds: see test_centered.py.
DEEP = [("normal:std=4", "zero", 0.5), ("normal:std=4", "centered", 0.4), ("normal:std=12", "centered", 0.3)]


@pytest.mark.parametrize(("weight", "bias", "x"), DEEP[:2])
@pytest.mark.parametrize(("depth", "ensemble"), [(8192, 1), (100_001, 1), (20_000, 3), (9000, 16), (9000, 17)])
def test_a_deep_chain_is_the_one_that_backprop_runs(compiled_backend, weight, bias, x, depth, ensemble, agree):
    growth = fg.simulate(depth, ensemble, weight, bias, x=x, seed=3, backend=compiled_backend)
    w, b = fg.draw(depth, ensemble, weight, bias, seed=3)
    g = fg.backprop(w, b, x, backend=compiled_backend)
    rtol, rows = fg.agreement_rtol(w, b), growth.link - 1
    agree(growth.grad_weight, g.grad_weight[rows], rtol)
    agree(growth.grad_bias, g.grad_bias[rows], rtol)
    agree(fg.Scaled.from_float(growth.output), fg.Scaled.from_float(g.output), rtol)


@pytest.mark.parametrize(("weight", "bias", "x"), DEEP)
@pytest.mark.parametrize(("ensemble", "record"), [(1, 700), (3, 2), (17, 64)])
def test_the_pages_of_a_chain_change_only_its_rounding(
    backend, monkeypatch, weight, bias, x, ensemble, record, same_bits, agree
):
    def run(threads):
        return fg.simulate(depth, ensemble, weight, bias, x=x, record=record, backend=backend, threads=threads)

    depth, kernels = 4500, fg.kernels.load(backend)[1]
    rounding_alone = fg.agreement_rtol(np.zeros((depth, 1)), 0)
    whole = run(threads=1)
    for links in (1024, 2048):
        monkeypatch.setattr(kernels, "LIMITS", kernels.LIMITS._replace(links=links))
        cut = run(threads=1)
        same_bits(cut, run(threads=3))
        assert np.array_equal(cut.output, whole.output)
        for name in ("adjoint", "grad_weight", "grad_bias", "bound"):
            agree(getattr(cut, name), getattr(whole, name), rounding_alone)


@pytest.mark.parametrize(("weight", "bias", "x"), DEEP)
def test_threads_on_the_pages_of_one_chain_do_not_change_a_bit(compiled_backend, weight, bias, x, same_bits):
    depth = 5 * fg.kernels.load(compiled_backend)[1].LIMITS.links // 2
    one, *more = (
        fg.simulate(depth, 1, weight, bias, x=x, backend=compiled_backend, threads=threads) for threads in (1, 2, 3)
    )
    for other in more:
        same_bits(one, other)


# Exponents


@pytest.mark.parametrize(("std", "bias", "expected"), EXPONENTS)
def test_known_exponents_within_four_standard_errors(std, bias, expected):
    growth = fg.simulate(10_000, 500, f"normal:std={std}", bias, seed=1)
    assert abs(growth.lyapunov.mean - expected) < 4 * growth.lyapunov.stderr


def test_known_exponent_away_from_the_center():
    growth = fg.simulate(10_000, 500, "normal:std=12", "centered", x=0.3, seed=1)
    assert abs(growth.lyapunov.mean - -1.5473105598) < 4 * growth.lyapunov.stderr


def normal_cdf(v):
    return np.array([0.5 * math.erfc(-t / math.sqrt(2)) for t in v.ravel()]).reshape(v.shape)


# Weight, bias, E ln|w|, the density of the next preactivation z = w o + b, and where z lies.
MIXED_FAMILIES = [
    (
        "uniform:low=-6,high=6",
        "normal:mean=1,std=2",
        math.log(6) - 1,
        lambda z, o: (normal_cdf((z - 1 + 6 * o) / 2) - normal_cdf((z - 1 - 6 * o) / 2)) / (12 * o),
        (-25, 25),
    ),
    (
        "normal:std=4",
        "uniform:low=-1,high=3",
        math.log(4) - (EULER + math.log(2)) / 2,
        lambda z, o: (normal_cdf((z + 1) / (4 * o)) - normal_cdf((z - 3) / (4 * o))) / 4,
        (-36, 38),
    ),
]


@pytest.mark.parametrize(("weight", "bias", "ln_weight", "density", "ends"), MIXED_FAMILIES)
def test_exponents_of_mixed_families_are_those_of_quadrature(weight, bias, ln_weight, density, ends, backend):
    # The stationary density of z on a grid, by power iteration; the second has edges, which cost it some 1e-4.
    z, step = np.linspace(*ends, 500, retstep=True)
    kernel = step * density(z[:, None], 1 / (1 + np.exp(-z))[None, :])
    kernel /= kernel.sum(axis=0)
    p = np.full(len(z), 1 / len(z))
    for _ in range(200):
        p = kernel @ p
    expected = ln_weight + p @ (-np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z))))

    growth = fg.simulate(1100, 2000, weight, bias, seed=3, record=12, backend=backend)
    rates = growth.adjoint[1].ln() / (1101 - growth.link[1])  # from link 101 on the start is forgotten
    assert abs(rates.mean() - expected) < 4 * rates.std(ddof=1) / math.sqrt(len(rates))


@pytest.mark.parametrize(("std", "variance"), [(1, 1.112456), (4, 1.579568), (10, 16.6226)])
def test_the_standard_error_is_that_of_the_known_variance(std, variance):
    depth, ensemble = 2000, 2000
    growth = fg.simulate(depth, ensemble, f"normal:std={std}", seed=1)
    ratio = growth.lyapunov.stderr / math.sqrt(variance / depth / ensemble)
    # A sample's standard deviation has a relative standard error of 1 / sqrt(2n).
    assert abs(ratio - 1) < 4 / math.sqrt(2 * ensemble)


@pytest.mark.parametrize("std", [4, 7.549458, 500])
def test_the_centered_exponent_is_that_of_the_bound(std, backend):
    depth = 3000
    growth = fg.simulate(depth, 100, f"normal:std={std}", "centered", backend=backend)
    expected = math.log(std / 4) - (EULER + math.log(2)) / 2
    # Var ln|w| = π²/8
    assert abs(growth.lyapunov.mean - expected) < 4 * math.pi / math.sqrt(8 * depth * 100)
    assert np.array_equal(growth.bound.exponent, growth.adjoint.exponent)


def test_one_chain_of_a_million_links():
    growth = fg.simulate(10**6, 1, "normal:std=4", seed=1)
    assert abs(growth.lyapunov.mean - -1.486986360569) < 4 * growth.lyapunov.stderr
    # theory.md: Var(ln|J|) / L = 1.579568; thirty batches tell a standard error to about 13 %
    assert abs(growth.lyapunov.stderr / math.sqrt(1.579568e-6) - 1) < 4 / math.sqrt(2 * 29)


def test_a_centered_chain_of_a_million_links_is_the_sum_of_its_logarithms(compiled_backend):
    depth = 10**6
    growth = fg.simulate(depth, 1, "normal:std=4", "centered", seed=1, backend=compiled_backend)
    w, _ = fg.draw(depth, 1, "normal:std=4", "centered", seed=1)
    total = math.fsum(np.log(np.abs(w[:, 0]) / 4))
    # The products of mantissas round once a link, at random: sqrt(depth) of 2^-53; the draws differ by a few ulp.
    assert abs(growth.lyapunov.mean * depth - total) < 1e-12 * abs(total)


def test_batch_means_tell_the_spread_over_seeds():
    depth, seeds = 4000, 200
    runs = [fg.simulate(depth, 1, "normal:std=4", seed=seed).lyapunov for seed in range(seeds)]
    means, errors = np.array(runs).T
    # Standard errors of a sample's deviation (200 runs) and of the mean of 200 estimates (29 degrees of freedom each).
    spread = 4 * math.hypot(1 / math.sqrt(2 * seeds), 1 / math.sqrt(2 * 29 * seeds))
    assert abs(np.sqrt((errors**2).mean()) / means.std(ddof=1) - 1) < spread


def test_batch_means_are_those_of_thirty_batches():
    growth = fg.simulate(30_001, 1, "normal:std=4", record=31)
    rates = -np.diff(growth.adjoint.ln()[:, 0]) / 1000
    # The last batch has one link more.
    assert growth.lyapunov.stderr == pytest.approx(rates.std(ddof=1) / math.sqrt(30), rel=2 / 1000)


def test_too_few_links_have_no_standard_error():
    assert math.isnan(fg.simulate(3, 1).lyapunov.stderr)
    assert math.isfinite(fg.simulate(4, 1).lyapunov.stderr)
    assert math.isfinite(fg.simulate(1, 2).lyapunov.stderr)


def test_the_exponent_is_the_mean_over_members():
    growth = fg.simulate(300, 50)
    rates = growth.adjoint[0].ln() / 300
    assert growth.lyapunov == (rates.mean(), rates.std(ddof=1) / math.sqrt(50))


# The bound is not the gradient


def test_the_bound_explodes_where_the_gradient_vanishes():
    growth = fg.simulate(1000, 1000, "normal:std=500")
    rate = growth.summary()["bound_rate"]
    expected = math.log(500 / 4) - (EULER + math.log(2)) / 2
    assert round(expected, 2) == 4.19
    assert abs(rate - expected) < 4 * math.pi / math.sqrt(8 * 10**6)
    assert growth.lyapunov.mean < -100
    curve = growth.summary()["curve"]
    assert curve["bound"]["mean"][0] > 1800
    assert curve["adjoint"]["mean"][0] < -40_000
    assert np.all(np.diff(curve["adjoint"]["mean"]) > 0)


def test_an_offset_from_the_center_explodes_first_and_then_vanishes(backend):
    # theory.md: w = 8 has maxima 1941, 1.98e7 and 1.90e11 at depth 12, 25, 38, for offsets of 1e-4, 1e-8, 1e-12.
    for offset, depth, largest in ((1e-4, 12, 1941), (1e-8, 25, 1.98e7), (1e-12, 38, 1.90e11)):
        size = {
            n: fg.simulate(n, 1, "constant:8", "centered", x=0.5 + offset, backend=backend).adjoint[0, 0].to_float()
            for n in (1, 5, *range(depth - 3, depth + 4), 60)
        }
        assert max(size, key=size.get) == depth
        assert f"{size[depth]:.2e}" == f"{largest:.2e}"
        assert size[60] < 1


# Summaries


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"ensemble": 1},
        {"depth": 1, "ensemble": 1},
        {"weight": "zero"},
        {"weight": "constant:1e300", "bias": "normal"},
        {"weight": "normal:std=500", "depth": 3000},
    ],
)
def test_summaries_are_json(backend, arguments):
    growth = fg.simulate(**{"depth": 100, "ensemble": 5, "backend": backend, **arguments})
    summary = growth.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["backend"] == backend
    for name in ("adjoint", "grad_weight", "grad_bias", "bound"):
        curve = summary["curve"][name]
        assert set(curve) >= {"mean", "q05", "q25", "q50", "q75", "q95"}
        assert all(len(curve[key]) == len(summary["curve"]["link"]) for key in ("mean", "q05", "q95"))


def test_quantiles_are_values_of_members():
    growth = fg.simulate(50, 101, "normal:std=4")
    curve = growth.summary()["curve"]["adjoint"]
    decades = np.sort(growth.adjoint.log10(), axis=1)
    assert curve["q05"] == decades[:, 5].tolist()
    assert curve["q50"] == decades[:, 50].tolist()
    assert curve["q95"] == decades[:, 95].tolist()
    assert curve["mean"] == growth.adjoint.log10().mean(axis=1).tolist()


@pytest.mark.parametrize("record", [2, 64, 600])
@pytest.mark.parametrize("ensemble", [1, 2])
def test_first_depths_of_quarters(backend, record, ensemble):
    growth = fg.simulate(600, ensemble, "constant:1", "centered", record=record, backend=backend)
    assert growth.summary()["first_depth"] == {
        "float16": {"underflow": 13, "overflow": None},
        "bfloat16": {"underflow": 67, "overflow": None},
        "float32": {"underflow": 75, "overflow": None},
        "float64": {"underflow": 538, "overflow": None},
    }


@pytest.mark.parametrize("record", [2, 64, 600])
def test_first_depths_of_125(backend, record):
    growth = fg.simulate(600, 3, "constant:500", "centered", record=record, backend=backend)
    assert growth.summary()["first_depth"] == {
        "float16": {"underflow": None, "overflow": 3},
        "bfloat16": {"underflow": None, "overflow": 19},
        "float32": {"underflow": None, "overflow": 19},
        "float64": {"underflow": None, "overflow": 148},
    }


@pytest.mark.parametrize("depth", [537, 538])
def test_first_depth_is_none_before_it(depth):
    underflow = fg.simulate(depth, 2, "constant:1", "centered").summary()["first_depth"]["float64"]["underflow"]
    assert underflow == (538 if depth == 538 else None)


def test_zero_weights_are_zero_gradients_with_a_reason(backend):
    growth = fg.simulate(20, 4, "zero", "normal", backend=backend)
    assert not growth.adjoint.mantissa.any()
    assert not growth.bound.mantissa.any()
    assert not growth.grad_bias.mantissa[:-1].any()
    assert np.all(growth.grad_bias.mantissa[-1])
    assert growth.lyapunov.mean == -math.inf
    summary = growth.summary()
    assert summary["zero_share"] == 1
    assert summary["lyapunov"]["mean"] is None
    assert summary["lyapunov"]["mean_why"] == "minus infinity"
    assert summary["lyapunov"]["stderr"] is None
    assert "stderr_why" in summary["lyapunov"]
    assert summary["bound_rate"] is None
    assert summary["bound_rate_why"] == "minus infinity"
    assert summary["first_depth"]["float64"] == {"underflow": 1, "overflow": None}
    assert set(summary["curve"]["adjoint"]["mean"]) == {None}
    assert "mean_why" in summary["curve"]["adjoint"]


# Memory, progress, bad input


def test_memory_does_not_grow_with_depth(compiled_backend, python):
    code = (
        "import resource, fastgrad as fg\n"
        f"fg.simulate({{depth}}, 1, backend={compiled_backend!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    shallow, deep = (int(python(code.format(depth=depth))) for depth in (1000, 10**6))
    assert abs(deep - shallow) < 20 * 1024  # KiB


@pytest.mark.parametrize(("depth", "ensemble", "threads"), [(1, 1, 1), (30_000, 1, 1), (30_000, 1, 3), (5000, 70, 2)])
def test_progress_rises_to_the_depth(backend, monkeypatch, depth, ensemble, threads):
    kernels = fg.kernels.load(backend)[1]
    monkeypatch.setattr(kernels, "LIMITS", kernels.LIMITS._replace(links=4096))
    calls = []
    fg.simulate(depth, ensemble, backend=backend, threads=threads, progress=lambda *call: calls.append(call))
    done = [links for links, _ in calls]
    assert {total for _, total in calls} == {depth}
    assert done == sorted(set(done))
    assert done[0] > 0
    assert done[-1] == depth
    together = threads if ensemble == 1 else 1  # threads share the members of an ensemble, or the pages of a chain
    assert len(calls) == -(-depth // (4096 * together))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_progress_raises_comes_through(backend, error, same_bits):
    def stop(done, depth):
        raise error

    with pytest.raises(error):
        fg.simulate(20_000, 70, backend=backend, progress=stop)
    same_bits(fg.simulate(5, 2, backend=backend), fg.simulate(5, 2, backend=backend))


def test_a_signal_interrupts_between_calls(backend):
    fg.simulate(2, 1, backend=backend)  # compiled before the clock starts
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        fg.simulate(10**9, 1, backend=backend)
    assert time.perf_counter() - start < 20  # all of it would take minutes


@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("depth", 0, ValueError, "expected 1 to"),
        ("depth", -1, ValueError, "expected 1 to"),
        ("depth", 1.5, TypeError, "expected an integer, got 1.5"),
        ("depth", True, TypeError, "expected an integer, got True"),
        ("depth", "10", TypeError, "expected an integer, got '10'"),
        ("depth", None, TypeError, "expected an integer"),
        ("ensemble", 0, ValueError, "expected 1 to 4294967296, got 0"),
        ("ensemble", 2**32 + 1, ValueError, "expected 1 to 4294967296"),
        ("ensemble", 2.0, TypeError, "expected an integer"),
        ("seed", -1, ValueError, "expected 0 to 18446744073709551615, got -1"),
        ("seed", 2**64, ValueError, "expected 0 to 18446744073709551615"),
        ("seed", np.float64(1), TypeError, "expected an integer"),
        ("record", 1, ValueError, "expected 2 to"),
        ("record", 2.5, TypeError, "expected an integer"),
        ("weight", "gauss", ValueError, "unknown law"),
        ("bias", 3, TypeError, "expected a law"),
        ("x", math.nan, ValueError, "expected finite numbers, got nan"),
        ("x", [0.1, 0.2, math.inf], ValueError, r"got inf at index \[2\]"),
        ("x", [0.1, 0.2], ValueError, r"expected a number or shape \(3,\), got \(2,\)"),
        ("x", "a", ValueError, "unknown law 'a'"),
        ("x", 1j, TypeError, "expected real numbers"),
        ("backend", "fortran", ValueError, "unknown backend 'fortran', expected auto, cpp, numba, numpy"),
        ("threads", 0, ValueError, "expected 1 to"),
        ("threads", True, TypeError, "expected an integer"),
    ],
)
def test_bad_input_is_named(argument, value, error, message):
    with pytest.raises(error, match=f"^{argument}: .*{message}"):
        fg.simulate(**{"depth": 10, "ensemble": 3, argument: value})
    if argument in ("depth", "ensemble", "seed", "weight", "bias"):
        with pytest.raises(error, match=f"^{argument}: .*{message}"):
            fg.draw(**{"depth": 10, "ensemble": 3, argument: value})


def test_numpy_integers_are_integers(same_bits):
    numpys = fg.simulate(np.int32(10), np.uint8(3), seed=np.uint64(2**64 - 1), record=np.int64(4), threads=np.int8(1))
    same_bits(numpys, fg.simulate(10, 3, seed=2**64 - 1, record=4))


def test_what_would_not_end_is_refused():
    with pytest.raises(
        fg.TooLargeError, match=r"^depth: 1000000000000 links x 1000000 chains are 1e\+18 links .* at most 1e\+15"
    ):
        fg.simulate(10**12, 10**6)
    with pytest.raises(fg.TooLargeError, match=r"^records of 1000000 links x 100000000 chains would take 7\.11 PiB"):
        fg.simulate(10**7, 10**8, record=10**6)


@pytest.mark.parametrize("progress", [0, "", {}, "bar"])
def test_progress_is_a_function(progress):
    for job in (partial(fg.simulate, 2), schemes, partial(compare, "simulate", 2, 2)):
        with pytest.raises(TypeError, match=r"^progress: expected a function of two numbers, got "):
            job(progress=progress)


# Beside theory


def test_distances_of_the_bound_are_those_of_a_mean_over_all_links():
    growths = [fg.simulate(40, 25, "normal:std=3", seed=seed, record=2, backend="numpy") for seed in range(200)]
    distances = np.array([growth.beside_theory().bound_deviation for growth in growths])
    rate, variance = math.log(3) - (EULER + math.log(2)) / 2 - math.log(4), math.pi**2 / 8  # of ln|w/4|
    factors = np.array([fg.draw(40, 25, "normal:std=3", seed=seed)[0] for seed in range(3)])
    expected = (np.log(np.abs(factors) / 4).mean(axis=(1, 2)) - rate) / math.sqrt(variance / 1000)
    np.testing.assert_allclose(distances[:3], expected, rtol=1e-9)
    assert abs(distances.mean()) < 4 / math.sqrt(200)
    assert abs(distances.std() - 1) < 4 / math.sqrt(400)


@pytest.mark.parametrize(
    ("weight", "bias", "depth", "why_not"),
    [
        ("normal:std=4", "normal:std=1", 400, None),
        ("normal:std=4", "normal:std=1", 3, "the start is not forgotten within half of the links"),
        ("constant:3", "constant:0.5", 400, "the measurement has no standard error"),
        ("constant:12", "constant:-5.8", 400, "no theory"),
    ],
)
def test_a_missing_distance_has_a_reason(weight, bias, depth, why_not):
    beside = fg.simulate(depth, 20, weight, bias, record=2, backend="numpy").beside_theory()
    assert beside.why_not == why_not
    assert (beside.deviation is None) == (why_not is not None)
    assert (beside.theory.lyapunov is None) == (why_not == "no theory")
    assert (beside.bound_deviation is None) == (weight != "normal:std=4")


def test_a_bound_of_zero_has_no_distance():
    assert fg.simulate(5, 2, "zero", backend="numpy").beside_theory().bound_deviation is None
