"""Every backend against the oracle at 60 digits: stored chains, and chains of 100 000 links made on the spot."""

import math
from functools import cache

import numpy as np
import pytest

import fastgrad as fg

DEEP = [(0.1, "normal"), (12.0, "centered"), (1000.0, "zero")]


@pytest.fixture(scope="module", params=(1, 10, 1000))
def stored(golden, request):
    with np.load(golden.HERE / f"depth_{request.param}.npz") as file:
        return dict(file)


def scaled(table, name):
    return fg.Scaled(table[f"{name}_mantissa"], table[f"{name}_exponent"])


def test_stored_files_are_what_the_script_makes(golden):
    for depth in (1, 10):
        with np.load(golden.HERE / f"depth_{depth}.npz") as file:
            fresh = golden.table(depth)
            assert fresh.keys() == set(file)
            for name, array in fresh.items():
                assert np.array_equal(file[name], array), name


def test_stored_files_are_small(golden):
    assert sum(path.stat().st_size for path in golden.HERE.glob("*.npz")) < 2**20


@pytest.mark.parametrize("name", ["grad_weight", "grad_bias", "grad_x"])
def test_gradients_are_the_oracles(stored, name, backend, agree):
    w, b = stored["weight"], stored["bias"]
    got = fg.backprop(w, b, stored["x"], stored["cotangent"], backend=backend)
    agree(getattr(got, name), scaled(stored, name), fg.agreement_rtol(w, b))


def test_output_is_the_oracles(stored, backend, agree):
    w, b = stored["weight"], stored["bias"]
    got = fg.backprop(w, b, stored["x"], backend=backend).output
    normal = stored["output"] >= np.finfo(float).tiny
    rtol = fg.agreement_rtol(w, b)[normal]
    agree(fg.Scaled.from_float(got[normal]), fg.Scaled.from_float(stored["output"][normal]), rtol)
    # Below, the ulp is a number: nearest to within one of it.
    assert np.all(np.abs(got - stored["output"])[~normal] <= math.ulp(0.0))


def test_the_bound_holds_for_any_input(backend, golden, agree, rng):
    depth, members = 15, 60
    w, b = rng.normal(scale=4.0, size=(depth, members)), rng.normal(size=(depth, members))
    x = rng.choice([-1.0, 1.0], size=members) * 10.0 ** rng.uniform(-3, 12, size=members)
    x[:5] = 1e8
    got = fg.backprop(w, b, x, backend=backend)
    rtol = fg.agreement_rtol(w, b, x)
    outside = 0
    for member in range(members):
        truth = golden.oracle(w[:, member], b[:, member], x[member])
        for name in ("grad_weight", "grad_bias"):
            exact = fg.Scaled(*golden.mantissa_exponent(getattr(truth, name)))
            agree(getattr(got, name)[:, member], exact, rtol[member])
            distance = np.max(fg.log2_distance(getattr(got, name)[:, member], exact)) * math.log(2)
            outside += distance > fg.agreement_rtol(w[:, member], b[:, member])
        agree(got.grad_x[member : member + 1], fg.Scaled(*golden.mantissa_exponent([truth.grad_x])), rtol[member])
    assert outside > members  # an input within [-1, 1] is not to be assumed


def test_no_gradient_is_lost(stored, backend):
    got = fg.backprop(stored["weight"], stored["bias"], stored["x"], stored["cotangent"], backend=backend)
    assert np.all(got.grad_weight.mantissa)
    assert np.all(got.grad_bias.mantissa)


@pytest.fixture(scope="session")
def deep_chain(golden):
    """A chain of 100 000 links and its oracle's grad_weight and grad_bias; some five seconds each, once a session."""

    @cache
    def make(std, bias):
        weight, b, x, cotangent = golden.chain(100_000, std, bias, seed=1)
        truth = golden.oracle(weight, b, x, cotangent)
        return (weight, b, x, cotangent), *(
            fg.Scaled(*golden.mantissa_exponent(values)) for values in (truth.grad_weight, truth.grad_bias)
        )

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("std", "bias"), DEEP)
def test_every_gradient_of_100_000_links_is_the_oracles(deep_chain, std, bias, backend, agree):
    (w, b, x, cotangent), grad_weight, grad_bias = deep_chain(std, bias)
    got = fg.backprop(w, b, x, cotangent, backend=backend)
    rtol = fg.agreement_rtol(w, b)
    agree(got.grad_weight, grad_weight, rtol)
    agree(got.grad_bias, grad_bias, rtol)
    assert np.all(got.grad_weight.mantissa)
