"""What holds for every chain: integrals, convexity, bounds, equal bits. Hypothesis looks for the exception."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fastgrad as fg

GRID = np.linspace(0, 1, 301)
WEIGHTS = st.floats(0.01, 20) | st.floats(-20, -0.01)
BIASES = st.floats(-20, 20)
# Where kernels change their way: no mantissa, no exponent, no plain float any more.
EDGES = [0.0, 5e-324, 1e-310, 2.0**-401, 2.0**-400, 339.9, 340.0, 340.1, 745.2, 2.0**50, 2.0**60, 2.0**400, 1e308]
ANY_FLOAT = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(EDGES + [-edge for edge in EDGES])
TAME_FLOAT = st.floats(-100, 100)
FIELDS = ("grad_weight", "grad_bias", "grad_x")


@st.composite
def tame_chains(draw):
    """One chain that may stretch its inputs, but whose gradients float64 holds: weight and bias of shape (depth, 1)."""
    depth = draw(st.integers(1, 7))
    weight = draw(st.lists(WEIGHTS, min_size=depth, max_size=depth))
    bias = draw(st.lists(BIASES, min_size=depth, max_size=depth))
    return np.array(weight)[:, None], np.array(bias)[:, None]


@st.composite
def ensembles(draw, elements):
    """Weight and bias of shape (depth, ensemble), x and cotangent."""
    shape = draw(st.tuples(st.integers(1, 6), st.sampled_from([1, 2, 3, 65])))
    members = draw(st.tuples(arrays(float, shape[1:], elements=elements), arrays(float, shape[1:], elements=elements)))
    return draw(arrays(float, shape, elements=elements)), draw(arrays(float, shape, elements=elements)), *members


def lower_sum(density, step):
    """The least integral of a function that rises and then falls: in each cell it is at least its lower end."""
    return math.fsum(np.minimum(density[1:], density[:-1]) * step)


def log2_ratio(a, b):
    """log2 |a/b|; -inf where a is 0."""
    with np.errstate(divide="ignore"):
        return np.log2(np.abs(a.mantissa / b.mantissa)) + (a.exponent - b.exponent)


@given(tame_chains())
def test_the_gradient_by_the_input_has_an_integral_of_at_most_1(backend, expanding_rtol, chain):
    # The map from input to output is monotone and stays inside (0, 1).
    w, b = chain
    g = fg.backprop(np.repeat(w, GRID.size, axis=1), b, GRID, backend=backend)
    assert lower_sum(np.abs(g.grad_x.to_float()), GRID[1]) <= math.exp(expanding_rtol(w, b).item())


@given(tame_chains(), st.integers(0, 6), st.floats(-2, 2))
def test_the_gradient_by_a_bias_has_an_integral_of_at_most_1(backend, expanding_rtol, chain, link, center):
    w, b = chain
    link %= len(w)
    many = np.repeat(b, 401, axis=1)
    many[link] = center + np.linspace(-10, 10, 401)
    g = fg.backprop(np.repeat(w, 401, axis=1), many, 0.3, backend=backend)
    rtol = expanding_rtol(np.repeat(w, 401, axis=1), many).max()
    assert lower_sum(np.abs(g.grad_bias[link].to_float()), 20 / 400) <= math.exp(rtol)


@given(tame_chains())
def test_the_inverse_root_of_the_gradient_is_convex_in_the_input(backend, expanding_rtol, chain):
    # Its Schwarzian derivative is negative.
    w, b = chain
    g = fg.backprop(np.repeat(w, GRID.size, axis=1), b, GRID, backend=backend)
    f = 1 / np.sqrt(np.abs(g.grad_x.to_float()))
    sag = 2 * f[1:-1] - (f[:-2] + f[2:])
    assert np.all(sag <= expanding_rtol(w, b) * (2 * f[1:-1] + f[:-2] + f[2:]))


@given(tame_chains())
def test_outputs_keep_the_order_of_the_inputs(backend, chain):
    w, b = chain
    g = fg.backprop(np.repeat(w, GRID.size, axis=1), b, GRID, backend=backend)
    direction = np.prod(np.sign(w))
    assert np.all(g.grad_x.sign() == direction)
    assert direction * (g.output[-1] - g.output[0]) >= -(2.0**-52)


@given(ensembles(TAME_FLOAT))
def test_no_gradient_exceeds_the_textbooks_bound(backend, chain):
    w, b, x, cotangent = chain
    x = np.abs(x) / 100
    g = fg.backprop(w, b, x, cotangent, backend=backend)
    bound = fg.Scaled.from_float(np.abs(cotangent))
    rounding_alone = fg.agreement_rtol(np.zeros_like(w), 0).max() / math.log(2)
    for link in reversed(range(len(w))):
        bound = bound * fg.Scaled(0.25)
        zero = bound.mantissa == 0
        for gradient in (g.grad_bias[link], g.grad_weight[link]):
            assert not gradient.mantissa[zero].any()
            assert np.all(log2_ratio(gradient[~zero], bound[~zero]) <= rounding_alone)
        bound = bound * fg.Scaled.from_float(np.abs(w[link]))


@given(ensembles(ANY_FLOAT))
def test_compiled_backends_return_equal_bits_for_any_floats(compiled, same_bits, chain):
    ours, theirs = (fg.backprop(*chain, backend=name) for name in compiled)
    same_bits(ours, theirs)


@given(ensembles(TAME_FLOAT))
def test_compiled_backends_agree_with_the_reference(compiled_backend, agree, expanding_rtol, chain):
    w, b, x, cotangent = chain
    x = np.abs(x) / 100
    ours, reference = (fg.backprop(w, b, x, cotangent, backend=name) for name in (compiled_backend, "numpy"))
    for name in FIELDS:
        agree(getattr(ours, name), getattr(reference, name), expanding_rtol(w, b))


@pytest.mark.filterwarnings("ignore:.* caught at 1/2:UserWarning")  # as some of any chains are
@given(ensembles(ANY_FLOAT))
def test_any_finite_chain_has_normalized_gradients(backend, chain):
    g = fg.backprop(*chain, backend=backend)
    assert np.all((g.output >= 0) & (g.output <= 1))
    for name in FIELDS:
        scaled = getattr(g, name)
        size = np.abs(scaled.mantissa)
        assert np.all(((size >= 0.5) & (size < 1)) | ((size == 0) & (scaled.exponent == 0)))
        assert np.all(scaled.exponent >= -(2**62))


@settings(max_examples=30)
@given(ensembles(ANY_FLOAT), st.sampled_from([1, 2, 3]))
def test_threads_do_not_change_a_bit(backend, same_bits, chain, threads):
    same_bits(fg.backprop(*chain, backend=backend), fg.backprop(*chain, backend=backend, threads=threads))


@pytest.mark.parametrize("law", ["normal:std={}", "uniform:low=-{0},high={0}", "constant:{}"])
@given(st.floats(0, 1e300), st.integers(0, 2**64 - 1), st.integers(1, 40), st.integers(1, 5), st.integers(2, 9))
def test_compiled_simulations_return_equal_bits(compiled, same_bits, law, scale, seed, depth, ensemble, record):
    text = law.format(scale)
    ours, theirs = (
        fg.simulate(depth, ensemble, text, text, seed=seed, record=record, backend=name) for name in compiled
    )
    same_bits(ours, theirs)
    assert ours.lyapunov == theirs.lyapunov or math.isinf(ours.lyapunov.mean)
