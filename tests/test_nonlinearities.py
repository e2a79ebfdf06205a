"""The table of nonlinearities: values and derivatives against mpmath, and the facts beside them."""

import mpmath as mp
import numpy as np
import pytest

from fastgrad.nonlinearities import NONLINEARITIES, parse

POINTS = np.array(
    [s * z for z in (1e-300, 1e-9, 0.1, 1.0, 5.0, 19.0, 25.0, 36.7, 50.0, 300.0, 700.0, 1e5) for s in (1, -1)]
)
# 1 / (1 + E) and 1 / (E + 2 + 1/E), E = exp(-z), do not cancel.
ORACLES = {
    "sigmoid": (lambda z: 1 / (1 + mp.exp(-z)), lambda z: 1 / (mp.exp(-z) + 2 + mp.exp(z))),
    "tanh": (mp.tanh, lambda z: 4 / (mp.exp(-2 * z) + 2 + mp.exp(2 * z))),
    "relu": (lambda z: max(z, 0), lambda z: 1 if z > 0 else 0),
    "linear": (lambda z: z, lambda z: 1),
}


def as_double(value):
    """Nearest double, with 0 below the smallest one."""
    return float(value) if abs(value) > mp.mpf(2) ** -1075 else 0.0


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_values_and_derivatives_have_relative_precision(name):
    of, (value, derivative) = NONLINEARITIES[name], ORACLES[name]
    with mp.workdps(50):
        values = np.array([as_double(value(mp.mpf(z))) for z in POINTS])
        derivatives = np.array([as_double(derivative(mp.mpf(z))) for z in POINTS])
    smallest = np.finfo(float).smallest_subnormal
    np.testing.assert_allclose(of.value(POINTS), values, rtol=1e-15, atol=smallest)
    np.testing.assert_allclose(of.derivative(POINTS), derivatives, rtol=2e-15, atol=smallest)


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_facts(name):
    of, at_rest = NONLINEARITIES[name], np.zeros(1)
    grid = np.linspace(-8, 8, 1601)  # with 0
    assert of.name == name
    assert of.slope == np.abs(of.derivative(grid)).max()
    assert of.rest == of.value(at_rest)[0]
    weight = 7.0
    assert weight * of.rest + of.centering * weight == 0  # a unit at rest stays at rest


def test_codes_differ():
    assert sorted(of.code for of in NONLINEARITIES.values()) == list(range(len(NONLINEARITIES)))


@pytest.mark.parametrize("name", ["Sigmoid", "", None, 3, []])
def test_what_is_no_nonlinearity(name):
    with pytest.raises(
        ValueError, match=r"activation: unknown nonlinearity .*, expected sigmoid, tanh, relu or linear"
    ):
        parse(name, "activation")
