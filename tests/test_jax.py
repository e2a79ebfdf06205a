"""Chains in JAX: the bits of backprop under jit, vmap and grad."""

from functools import partial

import numpy as np
import pytest

import fastgrad as fg

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
import fastgrad.jax as fj  # noqa: E402


@pytest.fixture(autouse=True)
def double_precision():
    """JAX in double precision, for a test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def same(found, expected):
    """Compare a pytree with the result of `fg.backprop`, bit for bit."""
    assert np.array_equal(found.output, expected.output)
    for name in ("grad_weight", "grad_bias", "grad_x"):
        numbers = getattr(expected, name)
        assert np.array_equal(getattr(found, name).mantissa, numbers.mantissa)
        assert np.array_equal(getattr(found, name).exponent, numbers.exponent)


@pytest.mark.parametrize("shape", [(50, 7), (3, 1), (9000, 2), (40,), (1,)])
@pytest.mark.parametrize("jit", [False, True])
def test_the_bits_of_backprop(shape, jit, rng):
    weight, bias = rng.normal(scale=8, size=(2, *shape))
    x, cotangent = rng.random((2, *shape[1:]))
    backprop = jax.jit(fj.backprop) if jit else fj.backprop
    same(backprop(weight, bias, x, cotangent), fg.backprop(weight, bias, x, cotangent, backend="cpp"))
    same(backprop(weight, bias, 0.3), fg.backprop(weight, bias, 0.3, backend="cpp"))


@pytest.mark.parametrize("axes", [(0, 0, 0, 0), (0, None, None, None), (None, None, 0, None), (1, 1, None, 0)])
def test_a_batch_has_the_bits_of_each(axes, rng):
    given = [rng.normal(scale=6, size=s) for s in ((30, 5), (30, 5), (5,), (5,))]
    batched = [
        value if axis is None else np.stack([value * (i + 1) for i in range(4)], axis)
        for value, axis in zip(given, axes, strict=True)
    ]
    found = jax.jit(jax.vmap(fj.backprop, in_axes=axes))(*batched)
    for i in range(4):
        one = [value if axis is None else np.take(value, i, axis) for value, axis in zip(batched, axes, strict=True)]
        same(jax.tree.map(lambda array: array[i], found), fg.backprop(*one, backend="cpp"))  # noqa: B023


def test_a_batch_of_batches(rng):
    weight, bias = rng.normal(scale=6, size=(2, 3, 4, 20))
    found = jax.vmap(jax.vmap(partial(fj.backprop, x=0.5)))(weight, bias)
    same(jax.tree.map(lambda array: array[2, 1], found), fg.backprop(weight[2, 1], bias[2, 1], 0.5, backend="cpp"))


@pytest.mark.parametrize("jit", [False, True])
def test_grad_is_the_gradient_of_backprop(jit, rng):
    weight, bias = rng.normal(scale=3, size=(2, 12, 6))
    x, y = rng.random((2, 6))

    def loss(weight, bias, x):
        return 0.5 * jnp.sum((fj.chain(weight, bias, x) - y) ** 2)

    value, found = (jax.jit if jit else lambda f: f)(jax.value_and_grad(loss, argnums=(0, 1, 2)))(weight, bias, x)
    output = fg.backprop(weight, bias, x).output
    expected = fg.backprop(weight, bias, x, output - y, backend="cpp")
    assert float(value) == pytest.approx(0.5 * np.sum((output - y) ** 2), rel=1e-14)
    for gradient, name in zip(found, ("grad_weight", "grad_bias", "grad_x"), strict=True):
        assert np.array_equal(gradient, getattr(expected, name).to_float())


def test_an_input_for_all_members_gets_the_sum(rng):
    weight, bias = rng.normal(scale=3, size=(2, 5, 4))
    found = jax.grad(lambda x: fj.chain(weight, bias, x).sum())(0.3)
    assert float(found) == pytest.approx(fg.backprop(weight, bias, 0.3).grad_x.to_float().sum(), rel=1e-13)


def test_integers_and_single_precision_are_taken():
    weight, bias = jnp.array([4, 3, 2]), jnp.array([-2, -1, 0])
    expected = fg.backprop([4.0, 3.0, 2.0], [-2.0, -1.0, 0.0], 0.25)
    assert float(jax.grad(lambda x: fj.chain(weight, bias, x))(jnp.float32(0.25))) == pytest.approx(
        float(expected.grad_x.to_float()), rel=1e-6
    )
    same(fj.backprop(weight, bias, 0.25), fg.backprop([4.0, 3.0, 2.0], [-2.0, -1.0, 0.0], 0.25, backend="cpp"))


def test_numbers_that_no_float_holds():
    weight, bias = np.full(2000, 4.0), np.full(2000, -1.5)
    found, expected = fj.backprop(weight, bias, 0.3).grad_x, fg.backprop(weight, bias, 0.3).grad_x
    assert float(found.log10()) == pytest.approx(float(expected.log10()), rel=1e-14)
    assert float(found.to_float()) == 0.0
    assert float(jax.grad(fj.chain, argnums=2)(weight, bias, 0.3)) == 0.0
    mantissa, exponent = np.array([0.5, -0.75, 0.0, 0.9, 0.6]), np.array([-1021, 3, 0, 1024, 1025])
    assert fj.Scaled(jnp.asarray(mantissa), jnp.asarray(exponent)).to_float().tolist() == [
        *np.ldexp(mantissa[:3], exponent[:3]),
        np.ldexp(0.9, 1024),
        np.inf,
    ]


def test_subnormal_numbers_are_not_flushed(rng):
    # XLA tells the processor to take them for 0.
    weight, bias = rng.normal(scale=3, size=(2, 6, 5))
    weight[0, :3] = [5e-324, -1e-310, 3e-308]
    bias[0, :3] = [1e-320, 5e-324, 0.0]
    cotangent = np.array([1e-310, 5e-324, 1.0, -1e-315, 2.0])
    found = jax.jit(fj.backprop)(weight, bias, 1e-312, cotangent)
    same(found, fg.backprop(weight, bias, 1e-312, cotangent, backend="cpp"))


def test_a_model_around_it_is_trained():
    weight, bias = jnp.full(3, 2.0), jnp.zeros(3)
    step = jax.jit(jax.value_and_grad(lambda p: (fj.chain(*p, 0.3) - 0.25) ** 2))
    losses = []
    parameters = (weight, bias)
    for _ in range(200):
        value, gradient = step(parameters)
        losses.append(float(value))
        parameters = jax.tree.map(lambda p, g: p - 0.5 * g, parameters, gradient)
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.parametrize("jit", [False, True])
def test_what_is_not_finite_is_told(jit):
    backprop = jax.jit(fj.backprop) if jit else fj.backprop
    with pytest.raises(Exception, match="weight or bias: expected finite numbers"):
        jax.block_until_ready(backprop(np.array([1.0, np.inf]), np.zeros(2), 0.5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((np.ones(0), np.ones(0), 0.5), r"weight: expected the shape \(depth,\) or \(depth, ensemble\), got \(0,\)"),
        ((np.ones((2, 2, 2)), np.ones((2, 2, 2)), 0.5), "weight: expected the shape"),
        ((np.ones(3), np.ones(2), 0.5), r"bias: expected the shape of weight, \(3,\), got \(2,\)"),
        ((np.ones((3, 2)), np.ones((3, 2)), np.ones(3)), r"x: expected a number or the shape \(2,\), got \(3,\)"),
        ((np.ones(3), np.ones(3), 0.5, np.ones(2)), "cotangent: expected a number"),
    ],
)
def test_bad_shapes(given, message):
    with pytest.raises(ValueError, match=message):
        fj.backprop(*given)


def test_single_precision_is_refused_by_the_name_of_its_switch():
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(ValueError, match=r'jax\.config\.update\("jax_enable_x64", True\)'):
        fj.chain(np.ones(3), np.ones(3), 0.5)
