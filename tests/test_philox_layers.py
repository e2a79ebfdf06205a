"""The draws of dense layers: counters word by word, purity, and distributions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgrad import laws, philox

SEEDS = st.integers(0, 2**64 - 1)
MEMBERS = st.integers(0, 2**32 - 1)
LAYERS = st.integers(1, 2**56 - 1)
WIDTHS = st.integers(1, 2**16)
NORMAL, UNIFORM = laws.normal(mean=1.0, std=2.0), laws.uniform(-1.0, 3.0)
UNIFORM_01, STANDARD = laws.uniform(0.0, 1.0), laws.normal()


def uniforms(seed, counter):
    """U and V of one counter, by integers: 53 high bits and a half."""
    words = philox.philox4x32(tuple(np.array(counter, dtype=np.uint64)), (seed % 2**32, seed >> 32))
    a, b, c, d = (int(word) for word in words)
    return [min((((high << 32 | low) >> 11) + 0.5) * 2.0**-53, 1 - 2.0**-53) for high, low in ((a, b), (c, d))]


def normals(seed, counter):
    u, v = uniforms(seed, counter)
    radius = math.sqrt(-2 * math.log(u))
    return [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]


@given(SEEDS, LAYERS, MEMBERS, WIDTHS, st.data())
def test_words_of_a_weight(seed, layer, member, width, data):
    row, column = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, width - 1))
    counter = layer % 2**32, row * ((width + 1) // 2) + column // 2, member, 2 + 256 * (layer >> 32)
    got = {
        law: philox.draw_weights(law, seed, layer, np.array([member]), width, np.array([row]))[0, 0, column]
        for law in (UNIFORM_01, STANDARD)
    }
    assert got[UNIFORM_01] == uniforms(seed, counter)[column % 2]
    assert math.isclose(got[STANDARD], normals(seed, counter)[column % 2], rel_tol=1e-12, abs_tol=1e-14)


@given(SEEDS, LAYERS, MEMBERS, st.integers(1, 300), st.data())
def test_words_of_a_bias(seed, layer, member, width, data):
    unit = data.draw(st.integers(0, width - 1))
    counter = layer % 2**32, width * ((width + 1) // 2) + unit // 2, member, 2 + 256 * (layer >> 32)
    drawn = philox.draw_biases(UNIFORM_01, seed, layer, np.array([member]), width)
    assert drawn.shape == (1, width)
    assert drawn[0, unit] == uniforms(seed, counter)[unit % 2]


@given(SEEDS, st.integers(1, 1000), MEMBERS, st.integers(1, 300), st.data())
def test_words_of_inputs(seed, number, member, width, data):
    unit = data.draw(st.integers(0, width - 1))
    drawn = philox.draw_input_units(UNIFORM_01, seed, number, np.array([member]), width)
    assert drawn[0, unit] == uniforms(seed, (number, unit // 2, member, 1))[unit % 2]


@given(SEEDS, st.integers(1, 1000), MEMBERS, st.integers(1, 20))
def test_words_of_cotangents(seed, number, member, width):
    expected = [normals(seed, (number, unit // 2, member, 3))[unit % 2] for unit in range(width)]
    norm = math.sqrt(math.fsum(value * value for value in expected))
    drawn = philox.draw_cotangents(seed, number, np.array([member]), width)
    assert np.allclose(drawn[0], np.array(expected) / norm, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("law", [STANDARD, UNIFORM_01], ids=str)
def test_the_first_unit_of_an_input_is_the_input_of_a_chain(law):
    members = np.arange(100)
    chain, _ = philox.draw_inputs(law, laws.zero(), 7, members)
    assert np.array_equal(philox.draw_input_units(law, 7, 1, members, 5)[:, 0], chain)


@given(SEEDS, LAYERS, MEMBERS, st.integers(1, 40), st.data())
def test_any_weight_drawn_alone_is_that_of_the_whole(seed, layer, member, width, data):
    members, rows = member + np.arange(3), np.arange(width)
    row = data.draw(st.integers(0, width - 1))
    for law in (NORMAL, UNIFORM):
        whole = philox.draw_weights(law, seed, layer, members, width, rows)
        assert whole.shape == (3, width, width)
        assert np.array_equal(
            whole[1:2, [row]], philox.draw_weights(law, seed, layer, members[1:2], width, rows[[row]])
        )


def test_numbers_of_layers_share_no_counter():
    """Rows and biases of all layers and members, and the inputs and cotangents beside them."""
    for width in (1, 2, 3, 8, 9):
        values = []
        for member in (np.array([0]), np.array([1])):
            for layer in (1, 2, 2**32 + 1, 2**33 + 1):
                values += philox.draw_weights(UNIFORM_01, 0, layer, member, width, np.arange(width)).ravel().tolist()
                values += philox.draw_biases(UNIFORM_01, 0, layer, member, width).ravel().tolist()
            for number in (1, 2):
                values += philox.draw_input_units(UNIFORM_01, 0, number, member, width).ravel().tolist()
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("law", [NORMAL, UNIFORM], ids=str)
def test_constants_have_the_value_and_laws_their_moments(law):
    weight = philox.draw_weights(law, 5, 1, np.arange(20), 101, np.arange(101))
    bias = philox.draw_biases(law, 5, 1, np.arange(2000), 101)
    mean, std, kurtosis = (1.0, 2.0, 3.0) if law is NORMAL else (1.0, 4 / math.sqrt(12), 1.8)
    for values in (weight, bias):
        standard = (values.ravel() - mean) / std
        assert abs(standard.mean()) < 4 / math.sqrt(standard.size)
        assert abs((standard**2).mean() - 1) < 4 * math.sqrt((kurtosis - 1) / standard.size)
        assert abs((standard**4).mean() - kurtosis) < 4 * (standard**4).std() / math.sqrt(standard.size)
    constant = philox.draw_weights(laws.constant(0.25), 5, 1, np.arange(2), 3, np.arange(3))
    assert constant.tolist() == np.full((2, 3, 3), 0.25).tolist()


@pytest.mark.parametrize("law", [STANDARD, laws.uniform(-1.0, 1.0)], ids=str)
def test_weights_are_uncorrelated(law):
    """Neighbours in a row, in a column, in layers and in members, their squares, and weights with biases."""
    layers = [philox.draw_weights(law, 9, layer, np.arange(30), 64, np.arange(64)) for layer in (1, 2, 3)]
    weight, bias = np.stack(layers), philox.draw_biases(law, 9, 1, np.arange(30), 64)
    pairs = [
        (weight[..., :-1], weight[..., 1:]),
        (weight[..., :-2], weight[..., 2:]),
        (weight[..., :-1, :], weight[..., 1:, :]),
        (weight[:, :-1], weight[:, 1:]),
        (weight[:-1], weight[1:]),
        (weight[0, :, :, 0], bias),
        (weight[0, :, 63, :], bias),
        (bias[:, :-1], bias[:, 1:]),
    ]
    for a, b in pairs:
        for power in (1, 2):
            x, y = (part.ravel() ** power for part in (a, b))
            assert abs(np.corrcoef(x, y)[0, 1]) < 4.5 / math.sqrt(x.size)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_cotangents_are_uniform_on_the_sphere(width):
    unit = philox.draw_cotangents(4, 1, np.arange(40_000), width)
    assert np.allclose(np.square(unit).sum(axis=1), 1, rtol=1e-14)
    covariance = np.einsum("mi,mj->ij", unit, unit) / len(unit)
    assert np.all(np.abs(unit.mean(axis=0)) < 4.5 / math.sqrt(width * len(unit)))
    assert np.all(np.abs(covariance - np.eye(width) / width) < 4.5 / math.sqrt(len(unit)) / width)
    assert np.all(np.abs((unit**4).mean(axis=0) - 3 / (width * (width + 2))) < 4.5 / math.sqrt(len(unit)))
    other = philox.draw_cotangents(4, 2, np.arange(40_000), width)
    assert abs((unit * other).sum(axis=1).mean()) < 4.5 / math.sqrt(width * len(unit))
