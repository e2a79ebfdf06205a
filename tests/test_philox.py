"""The counter-based draws: known answers, purity, and the kernels against the definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgrad as fg
from fastgrad import laws, philox
from fastgrad.kernels import PropagateJob, ScaledArrays, State, load

# Salmon et al. 2011, kat_vectors of Random123: counter, key, output.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
WORD = 2**32 - 1
MIXED = [("normal:std=3", "uniform:low=-1,high=2"), ("uniform:low=-1,high=2", "normal:mean=1,std=3")]
PAIRS = [
    ("normal", "normal"),
    ("uniform:low=-1,high=2", "uniform:low=0,high=1"),
    ("normal:std=3", "centered"),
    *MIXED,
]
SEEDS = st.integers(0, 2**64 - 1)
LINKS = st.integers(1, 2**63 - 2)
MEMBERS = st.integers(0, 2**32 - 1)

# What a compiled draw may differ from the definition by, in units of 2^-53 of its magnitude: log, root, cosine, their
# product and the two libraries' own errors.
DRAW_ULPS = 8


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter, key, output):
    got = philox.philox4x32(tuple(np.array(words(counter), dtype=np.uint64)), words(key))
    assert [int(word) for word in got] == words(output)


def test_words_of_many_counters_are_those_of_each():
    counter = np.array([words(known[0]) for known in KNOWN], dtype=np.uint64).T
    together = np.array(philox.philox4x32(tuple(counter), (1, 2))).T
    alone = [philox.philox4x32(tuple(column), (1, 2)) for column in counter.T]
    assert together.tolist() == np.array(alone).tolist()


def integers(monkeypatch, answer):
    """Uniforms U and V where the generator answers with these words."""
    monkeypatch.setattr(
        philox, "philox4x32", lambda *_: tuple(np.full((1, 1), word, dtype=np.uint64) for word in answer)
    )
    u, v = philox.uniforms(0, np.array([1]), np.array([0]))
    return u.item(), v.item()


def test_uniforms_are_the_53_high_bits_and_a_half(monkeypatch):
    assert integers(monkeypatch, (0, 0, 0, 2**11)) == (2.0**-54, 3 * 2.0**-54)
    assert integers(monkeypatch, (2**31, 2**11 - 1, 1, 0)) == (0.5, (2**21 + 0.5) * 2.0**-53)


def test_uniforms_never_reach_0_or_1(monkeypatch):
    assert integers(monkeypatch, (0, 0, WORD, WORD)) == (2.0**-54, 1 - 2.0**-53)
    assert integers(monkeypatch, (WORD, WORD, 0, 0)) == (1 - 2.0**-53, 2.0**-54)


def test_the_largest_normal_is_what_laws_allow_for(monkeypatch):
    smallest, _ = integers(monkeypatch, (0, 0, 0, 0))
    assert 8.65 < math.sqrt(-2 * math.log(smallest)) < laws.LARGEST_NORMAL


@given(SEEDS, LINKS, MEMBERS)
def test_the_key_is_the_seed_and_the_counter_is_link_member_and_stream_0(seed, link, member):
    counter = np.array([link % 2**32, link >> 32, member, 0], dtype=np.uint64)
    r = [int(word) for word in philox.philox4x32(tuple(counter), (seed % 2**32, seed >> 32))]
    u, v = philox.uniforms(seed, np.array([link]), np.array([member]))
    for value, a, b in ((u, *r[:2]), (v, *r[2:])):
        # min: the largest of the 2^53 values would be rounded to 1
        assert value.item() == min((((a << 32 | b) >> 11) + 0.5) * 2.0**-53, 1 - 2.0**-53)


def variates(seed, link, member, stream):
    """U, V, R cos 2πV and R sin 2πV of one block, by its words."""
    counter = np.array([link % 2**32, link >> 32, member, stream], dtype=np.uint64)
    r = [int(word) for word in philox.philox4x32(tuple(counter), (seed % 2**32, seed >> 32))]
    u, v = (min((((a << 32 | b) >> 11) + 0.5) * 2.0**-53, 1 - 2.0**-53) for a, b in (r[:2], r[2:]))
    radius = math.sqrt(-2 * math.log(u))
    return u, v, radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)


def close(a, b):
    return a == pytest.approx(b, rel=1e-13, abs=1e-14)


@given(SEEDS, LINKS, MEMBERS)
def test_a_bias_of_another_family_has_a_block_of_its_own(seed, link, member):
    normal, uniform = laws.normal(0.5, 2), laws.uniform(-1, 3)
    at = seed, np.array([link]), np.array([member])
    u, _, cosine, _ = variates(seed, link, member, 0)
    _, v, _, sine = variates(seed, link, member, 4)
    w, b = (part.item() for part in philox.draw(normal, uniform, *at))
    assert close(w, 0.5 + 2 * cosine)
    assert b == -1 + 4 * v
    w, b = (part.item() for part in philox.draw(uniform, normal, *at))
    assert w == -1 + 4 * u
    assert close(b, 0.5 + 2 * sine)


@given(SEEDS, MEMBERS)
def test_a_target_of_another_family_has_a_block_that_no_link_has(seed, member):
    normal, uniform = laws.normal(0.5, 2), laws.uniform(-1, 3)
    members = np.array([member])
    u, v, cosine, _ = variates(seed, 1, member, 1)
    _, own_v, _, own_sine = variates(seed, 0, member, 4)
    x, target = (part.item() for part in philox.draw_inputs(normal, uniform, seed, members))
    assert close(x, 0.5 + 2 * cosine)
    assert target == -1 + 4 * own_v
    x, target = (part.item() for part in philox.draw_inputs(uniform, normal, seed, members))
    assert x == -1 + 4 * u
    assert close(target, 0.5 + 2 * own_sine)
    x, target = (part.item() for part in philox.draw_inputs(uniform, uniform, seed, members))
    assert (x, target) == (-1 + 4 * u, -1 + 4 * v)  # of one family: from one block


NO_WIDTH = [
    ("normal:mean=3,std=0", "uniform:low=-1,high=2"),
    ("uniform:low=-1,high=2", "normal:mean=3,std=0"),
    ("uniform:low=3,high=3", "normal:std=2"),
    ("normal:std=2", "uniform:low=3,high=3"),
]


@pytest.mark.parametrize(("weight", "bias"), NO_WIDTH)
def test_a_law_without_width_is_a_constant(weight, bias, backend, same_bits):
    constant = [law if law.endswith(("std=2", "high=2")) else "constant:3" for law in (weight, bias)]
    for a, b in zip(fg.draw(50, 40, weight, bias, seed=8), fg.draw(50, 40, *constant, seed=8), strict=True):
        assert np.array_equal(a, b)
    same_bits(*(fg.simulate(50, 40, *laws, seed=8, backend=backend) for laws in ((weight, bias), constant)))


def correlations(pairs):
    """Correlation of the two halves of a pair, of their magnitudes and of their squares, and how many there were."""
    count, sums = 0, 0.0
    for pair in pairs:
        values = np.array([[v, np.abs(v), v * v] for v in pair]).transpose(1, 0, 2)  # (3, 2, n)
        products = np.einsum("kin,kjn->kij", values, values)
        sums = sums + np.concatenate([products, values.sum(axis=2)[:, :, None]], axis=2)
        count += values.shape[2]
    means = sums[:, :, 2] / count
    covariance = sums[:, :, :2] / count - means[:, :, None] * means[:, None, :]
    return covariance[:, 0, 1] / np.sqrt(covariance[:, 0, 0] * covariance[:, 1, 1]), count


@pytest.mark.parametrize(("weight", "bias"), MIXED)
def test_weight_and_bias_of_different_families_are_independent(weight, bias):
    made = laws.parse(weight, "weight"), laws.parse(bias, "bias"), 11
    members = np.arange(100)

    def pairs():
        for first in range(1, 10**5, 2000):
            w, b = philox.draw(*made, np.arange(first, first + 2000), members)
            yield w.ravel(), b.ravel()

    found, count = correlations(pairs())
    assert count == 10**7
    assert np.all(np.abs(found) < 4 / math.sqrt(count))


@pytest.mark.parametrize(("x", "target"), MIXED)
def test_input_and_target_of_different_families_are_independent(x, target):
    made = laws.parse(x, "x"), laws.parse(target, "target"), 5, np.arange(10**6)
    found, count = correlations([philox.draw_inputs(*made)])
    assert np.all(np.abs(found) < 4 / math.sqrt(count))


def test_targets_and_the_biases_of_the_first_link_are_independent():
    members = np.arange(10**5)
    normal, uniform = laws.normal(), laws.uniform(-1, 1)
    target = philox.draw_inputs(normal, uniform, 5, members)[1]
    bias = philox.draw(normal, uniform, 5, np.array([1]), members)[1][0]
    found, count = correlations([(target, bias)])
    assert np.all(np.abs(found) < 4 / math.sqrt(count))


@pytest.mark.parametrize(("weight", "bias"), MIXED)
def test_a_bias_of_another_family_follows_its_law(weight, bias):
    b = np.sort(fg.draw(20_000, 10, weight, bias, seed=3)[1].ravel())
    n = len(b)
    if bias.startswith("uniform"):
        mean, std, kurtosis, cdf = 0.5, 3 / math.sqrt(12), 1.8, (b + 1) / 3
    else:
        mean, std, kurtosis = 1, 3, 3
        cdf = np.array([0.5 * math.erfc(-(value - mean) / std / math.sqrt(2)) for value in b])
    standard = (b - mean) / std
    assert abs(standard.mean()) < 4 / math.sqrt(n)
    assert abs((standard**2).mean() - 1) < 4 * math.sqrt((kurtosis - 1) / n)
    # Kolmogorov and Smirnov: beyond 2.23 / sqrt(n) once in 10 000 times
    steps = np.arange(n + 1) / n
    assert max(np.max(cdf - steps[:-1]), np.max(steps[1:] - cdf)) < 2.23 / math.sqrt(n)


@pytest.mark.parametrize(("weight", "bias"), PAIRS)
@given(SEEDS, st.integers(1, 2**40), st.integers(0, 2**32 - 40), st.integers(0, 29), st.integers(0, 39))
def test_any_block_is_that_of_the_whole(weight, bias, seed, first, member, row, column):
    made = laws.parse(weight, "weight"), laws.parse(bias, "bias"), seed
    links, members = first + np.arange(30), member + np.arange(40)
    whole = philox.draw(*made, links, members)
    part = philox.draw(*made, links[row:], members[column:])
    one = philox.draw(*made, links[[row]], members[[column]])
    for all_of_it, block, single in zip(whole, part, one, strict=True):
        assert np.array_equal(all_of_it[row:, column:], block)
        assert all_of_it[row, column] == single


@pytest.mark.parametrize(("weight", "bias"), PAIRS)
def test_a_longer_or_wider_draw_begins_with_the_shorter_one(weight, bias):
    large = fg.draw(3000, 130, weight, bias, seed=9)
    small = fg.draw(1000, 7, weight, bias, seed=9)
    for a, b in zip(large, small, strict=True):
        assert np.array_equal(a[:1000, :7], b)


def test_another_seed_link_or_member_is_another_draw():
    values = [
        philox.draw(laws.normal(), laws.normal(), seed, np.array([link]), np.array([member]))[0].item()
        for seed, link, member in [(0, 1, 0), (1, 1, 0), (2**32, 1, 0), (0, 2, 0), (0, 2**32 + 1, 0), (0, 1, 1)]
    ]
    assert len(set(values)) == len(values)


def test_uniforms_are_uniform_and_independent():
    n = 200_000
    u, v = (values.ravel() for values in philox.uniforms(3, np.arange(1, n // 10 + 1), np.arange(10)))
    for values in (u, v):
        counts = np.bincount((values * 100).astype(int), minlength=100)
        chi_square = ((counts - n / 100) ** 2 / (n / 100)).sum()
        assert abs(chi_square - 99) < 4 * math.sqrt(2 * 99)
    joint = np.bincount((u * 10).astype(int) * 10 + (v * 10).astype(int), minlength=100)
    assert abs(((joint - n / 100) ** 2 / (n / 100)).sum() - 99) < 4 * math.sqrt(2 * 99)
    by_member = u.reshape(-1, 10)
    for p, q in ((u, v), (by_member[1:], by_member[:-1]), (by_member[:, 1:], by_member[:, :-1])):
        assert abs(np.corrcoef(p.ravel(), q.ravel())[0, 1]) < 4 / math.sqrt(p.size)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_quarter_turns_come_off_exactly(v):
    cosine, sine = (part.item() for part in philox.cos_sin_turns(np.array(v)))
    quarter = round(4 * v)
    rest = 2 * math.pi * (v - quarter / 4)
    turned = [(math.cos(rest), math.sin(rest)), (-math.sin(rest), math.cos(rest))]
    turned += [(-c, -s) for c, s in turned]
    for got, expected in zip((cosine, sine), turned[quarter % 4], strict=True):
        assert abs(got - expected) <= math.ulp(expected)


def kernel_draws(name, weight, bias, seed, links, members):
    """Weights that a kernel draws at any links, and activations sigmoid(w/2 + b): `propagate` by its contract."""
    w, b = laws.parse(weight, "weight"), laws.parse(bias, "bias")
    drawn = np.empty((len(links), members))
    activations = np.empty((len(links), members))
    for at, link in enumerate(links):
        start = fg.Scaled(np.full(members, 0.5))
        state = State(start.to_float(), ScaledArrays.of(start), *empty((members,), 2))
        filled = empty((1, members), 4)
        job = PropagateJob(w.code, b.code, seed, 0, np.array([link]), drawn[at : at + 1], *filled)
        load(name)[1].propagate(job, state, link, link + 1, 0, members)
        activations[at] = state.activation
    return drawn, activations


def empty(shape, count):
    """Scaled numbers to be filled."""
    return [ScaledArrays.of(fg.Scaled.empty(shape)) for _ in range(count)]


FAR = [1, 2, 2**32 - 1, 2**32, 2**32 + 1, 2**40 + 17, 2**62]


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**64 - 1])
@pytest.mark.parametrize(("weight", "bias"), PAIRS)
def test_kernels_draw_the_definition_at_any_link(weight, bias, seed, backend):
    got, activation = kernel_draws(backend, weight, bias, seed, FAR, 67)
    made = laws.parse(weight, "weight"), laws.parse(bias, "bias"), seed
    w, b = philox.draw(*made, np.array(FAR), np.arange(67))
    # location + scale * variate: the error is relative to the larger of the terms
    size = np.maximum(np.abs(w), abs(made[0].location))
    assert np.all(np.abs(got - w) <= DRAW_ULPS * 2.0**-53 * size)
    if bias == "centered":  # the state is an offset from 1/2, here of 1/2: z = w / 2
        assert np.all(np.abs(activation - np.tanh(0.25 * w) / 2) <= DRAW_ULPS * 2.0**-53 * (1 + np.abs(w)))
        return
    z = 0.5 * w + b
    assert np.all(np.abs(activation - 1 / (1 + np.exp(-z))) <= DRAW_ULPS * 2.0**-53 * (1 + np.abs(w) + np.abs(b)))


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
@pytest.mark.parametrize(("weight", "bias"), PAIRS)
def test_compiled_kernels_draw_equal_bits_at_any_link(weight, bias, seed, compiled, same_bits):
    ours, theirs = (kernel_draws(name, weight, bias, seed, FAR, 67) for name in compiled)
    for a, b in zip(ours, theirs, strict=True):
        same_bits(a, b)


@pytest.mark.parametrize(("weight", "bias"), PAIRS)
def test_simulate_runs_the_weights_of_draw(weight, bias, backend):
    members = 1000
    growth = fg.simulate(1, members, weight, bias, seed=5, backend=backend)
    w, _ = fg.draw(1, members, weight, bias, seed=5)
    magnitude = 4 * growth.bound[0].to_float()  # at depth 1 the bound is |w| / 4
    size = np.maximum(np.abs(w[0]), 1.0 if weight.startswith("uniform") else 0.0)
    assert np.all(np.abs(magnitude - np.abs(w[0])) <= DRAW_ULPS * 2.0**-53 * size)
    assert np.array_equal(growth.adjoint[0].sign(), np.sign(w[0]))


@pytest.mark.parametrize(("weight", "bias"), PAIRS)
def test_compiled_backends_run_equal_weights(weight, bias, compiled, same_bits):
    ours, theirs = (fg.simulate(1, 5000, weight, bias, seed=5, backend=name) for name in compiled)
    same_bits(ours, theirs)


def test_compiled_draws_of_constants_are_exact(backend):
    growth = fg.simulate(1, 3, "constant:0.1", "constant:-0.3", backend=backend)
    assert (4 * growth.bound[0].to_float()).tolist() == [0.1] * 3
