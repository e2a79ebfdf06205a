"""backprop: closed forms, other ways to the same gradient, agreement, equal bits, and what becomes of the arguments."""

import math
import warnings

import mpmath as mp
import numpy as np
import pytest

import fastgrad as fg
from fastgrad.chain import Chain
from fastgrad.jobs.backprop import log10_bound, log10_medians

SHAPES = [(1,), (2,), (1000,), (1, 1), (7, 1), (5, 2), (5, 3), (40, 63), (40, 64), (40, 65), (33, 130), (3, 1000)]
DEEP_SHAPES = [(100_000,), (20_000, 3), (9000, 17), (9000, 70)]
FIELDS = ("grad_weight", "grad_bias", "grad_x")


def chains(rng, shape, std=4.0, bias_std=1.0):
    """Weights, biases, inputs and cotangents."""
    members = shape[1:]
    x, cotangent = rng.uniform(size=members)[()], rng.normal(size=members)[()]
    return rng.normal(scale=std, size=shape), rng.normal(scale=bias_std, size=shape), x, cotangent


# Closed forms


def test_powers_of_two_with_centered_biases_are_exact(backend, rng):
    depth, members = 3000, 5
    power = rng.integers(-3, 9, size=(depth, members))
    sign = rng.choice([-1.0, 1.0], size=(depth, members))
    w = sign * 2.0**power
    g = fg.backprop(w, -w / 2, 0.5, 3.0, backend=backend)

    # The adjoint of o_l is c times the product of w_k / 4 over k > l.
    after = np.zeros((1, members), dtype=np.int64)
    log2 = np.concatenate([np.cumsum((power - 2)[::-1], axis=0)[::-1], after])
    signs = np.concatenate([np.cumprod(sign[::-1], axis=0)[::-1], after + 1])
    assert np.all(g.grad_x == fg.Scaled(3.0 * signs[0], log2[0]))
    assert np.all(g.grad_bias == fg.Scaled(3.0 * signs[1:], log2[1:] - 2))
    assert np.all(g.grad_weight == fg.Scaled(3.0 * signs[1:], log2[1:] - 3))
    assert np.all(g.output == 0.5)


def test_the_worked_example_is_exact(backend):
    w, b, x, y = [500, 500, 400], [-100_000, -250, -200], 200, -149.5
    output = fg.backprop(w, b, x, backend=backend).output
    g = fg.backprop(w, b, x, output - y, backend=backend)
    assert output == 0.5
    assert g.grad_weight[0].to_float() == 93_750_000
    assert g.grad_bias[0].to_float() == 93_750_000 / 200
    assert g.grad_weight[2].to_float() == 150 / 4 * 0.5
    assert 500 - 0.01 * g.grad_weight[0].to_float() == -937_000


def test_after_the_step_of_the_worked_example_the_gradient_has_270_million_bits(backend, golden, agree):
    w, b, x = [-937_000, 500, 400], [-100_000, -250, -200], 200
    g = fg.backprop(w, b, x, 149.5, backend=backend)
    truth = golden.oracle(w, b, x, 149.5)
    rounding_alone = fg.agreement_rtol(np.zeros(3), 0)  # the large preactivation is exact
    agree(g.grad_weight, fg.Scaled(*golden.mantissa_exponent(truth.grad_weight)), rounding_alone)
    agree(g.grad_x, fg.Scaled(*golden.mantissa_exponent([truth.grad_x]))[0], rounding_alone)
    unit = fg.backprop(w[:1], b[:1], x, backend=backend)
    assert round(unit.grad_bias[0].log2()) == -270_505_320


@pytest.mark.parametrize(("fixed", "w"), [(0.3, 2.0), (0.9, -5.0), (0.01, 90.0), (0.5, -3.5)])
def test_a_constant_chain_loses_its_factor_every_link(backend, fixed, w, agree):
    depth, b = 2000, math.log(fixed / (1 - fixed)) - w * fixed
    with mp.workdps(30):
        exact = mp.findroot(lambda o: 1 / (1 + mp.exp(-(w * o + b))) - o, fixed)
        factor = w * exact * (1 - exact)
        mantissa, exponent = mp.frexp(factor**depth)
    g = fg.backprop(np.full(depth, w), np.full(depth, b), float(exact), backend=backend)
    assert abs(factor) < 1
    agree(g.grad_x, fg.Scaled(float(mantissa), int(exponent)), fg.agreement_rtol(np.full(depth, w), b))


def test_the_critical_chain_decays_by_its_power_law(backend):
    depth = 20_000
    g = fg.backprop(np.full(depth, 4.0), np.full(depth, -2.0), 0.9, backend=backend)
    # 1 / (o - 1/2)² = 8L/3 + O(ln L), and so |J| ~ C L^(-3/2): the corrections are of relative size ln L / L.
    correction = math.log(depth) / depth
    assert abs((g.output - 0.5) ** 2 * depth / (3 / 8) - 1) < correction
    assert abs(g.grad_x.to_float() * depth**1.5 / 3.3479 - 1) < 2 * correction


# Other ways to the same gradient


def tangent(w, b, x, direction):
    """Output's derivative along a direction (dw, db, dx): forward mode in plain float64."""
    dw, db, do = direction
    o = x
    for link in range(len(w)):
        do = dw[link] * o + w[link] * do + db[link]
        z = w[link] * o + b[link]
        o = 1 / (1 + math.exp(-z))
        do *= math.exp(-z) * o * o
    return do


@pytest.mark.parametrize("std", [1.0, 4.0])
@pytest.mark.parametrize("depth", [1, 3, 12])
def test_the_dot_product_test(backend, rng, depth, std):
    w, b, x, cotangent = chains(rng, (depth,), std)
    direction = rng.normal(size=depth), rng.normal(size=depth), rng.normal()
    g = fg.backprop(w, b, x, cotangent, backend=backend)
    forward = cotangent * tangent(w, b, x, direction)
    terms = np.concatenate(
        [
            g.grad_weight.to_float() * direction[0],
            g.grad_bias.to_float() * direction[1],
            [g.grad_x.to_float() * direction[2]],
        ]
    )
    assert abs(terms.sum() - forward) <= fg.agreement_rtol(w, b) * np.abs(terms).sum()


def test_finite_differences_at_60_digits(backend, rng, golden):
    depth = 6
    w, b, x, _ = chains(rng, (depth,), 3.0)
    g = fg.backprop(w, b, x, backend=backend)
    rtol = fg.agreement_rtol(w, b)

    def difference(name, link=None):
        with mp.workdps(golden.DIGITS):
            step = mp.mpf(10) ** -20
            outputs = []
            for moved in (step, -step):
                arguments = {"weight": list(w), "bias": list(b), "x": mp.mpf(x)}
                if link is None:
                    arguments[name] += moved
                else:
                    arguments[name][link] = mp.mpf(arguments[name][link]) + moved
                outputs.append(golden.oracle(**arguments).output)
            return (outputs[0] - outputs[1]) / (2 * step)  # its error is of relative size step²

    assert abs(float(g.grad_x) / difference("x") - 1) <= rtol
    for link in range(depth):
        assert abs(float(g.grad_weight[link]) / difference("weight", link) - 1) <= rtol
        assert abs(float(g.grad_bias[link]) / difference("bias", link) - 1) <= rtol


def test_two_halves_make_the_whole(backend, rng, agree):
    w, b, x, cotangent = chains(rng, (60, 10), std=2.0)
    rtol = fg.agreement_rtol(w, b)
    whole = fg.backprop(w, b, x, cotangent, backend=backend)
    middle = fg.backprop(w[:25], b[:25], x, backend=backend).output
    second = fg.backprop(w[25:], b[25:], middle, cotangent, backend=backend)
    first = fg.backprop(w[:25], b[:25], x, second.grad_x.to_float(), backend=backend)
    agree(first.grad_x, whole.grad_x, rtol)
    for name in ("grad_weight", "grad_bias"):
        agree(getattr(first, name), getattr(whole, name)[:25], rtol)
        agree(getattr(second, name), getattr(whole, name)[25:], rtol)


@pytest.mark.parametrize("power", [-1070, -3, 1, 900])
def test_linear_in_the_cotangent(backend, rng, power):
    w, b, x, _ = chains(rng, (50, 9))
    base = fg.backprop(w, b, x, 1.0, backend=backend)
    scaled = fg.backprop(w, b, x, -(2.0**power), backend=backend)
    for name in FIELDS:
        expected = getattr(base, name)
        assert np.array_equal(getattr(scaled, name).mantissa, -expected.mantissa)
        assert np.array_equal(getattr(scaled, name).exponent, expected.exponent + power)
    assert np.array_equal(scaled.output, base.output)


# Zeros


def all_zero(scaled):
    return not any(scaled.mantissa.tobytes()) and not any(scaled.exponent.tobytes())


def test_a_zero_cotangent_has_zero_gradients(backend, rng):
    w, b, x, _ = chains(rng, (20, 3))
    for cotangent in (0.0, -0.0):
        g = fg.backprop(w, b, x, cotangent, backend=backend)
        assert all(all_zero(getattr(g, name)) for name in FIELDS)
        assert np.array_equal(g.output, fg.backprop(w, b, x, backend=backend).output)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_one_dead_link_stops_what_comes_before_it(backend, rng, zero, same_bits):
    w, b, x, cotangent = chains(rng, (9, 70))
    w[4, 1::2] = zero
    dead, alive = np.arange(70) % 2 == 1, np.arange(70) % 2 == 0
    g = fg.backprop(w, b, x, cotangent, backend=backend)
    for name in ("grad_weight", "grad_bias"):
        gradient = getattr(g, name)
        assert all_zero(gradient[:4, dead])
        assert np.all(gradient[4:, dead].mantissa)
        assert np.all(gradient[:, alive].mantissa)
    assert all_zero(g.grad_x[dead])
    # From there on, the chain is one that starts at that link, wherever it came from.
    rest = fg.backprop(w[4:, dead], b[4:, dead], 0.123, cotangent[dead], backend=backend)
    same_bits(g.grad_bias[4:, dead], rest.grad_bias)
    same_bits(g.grad_weight[5:, dead], rest.grad_weight[1:])


def test_an_input_of_zero_has_a_gradient(backend, rng):
    w, b, _, _ = chains(rng, (5,))
    g = fg.backprop(w, b, 0.0, backend=backend)
    assert g.grad_weight[0].mantissa == 0
    assert np.all(g.grad_weight[1:].mantissa)
    assert g.grad_x.mantissa != 0


# Caught at exactly 1/2


def ln_gradient(w, x):
    """ln |do_L/do_0| with biases -w/2, by a recursion of d = o - 1/2, which no rounding can hold at 0."""
    d, total = x - 0.5, 0.0
    for row in w:
        z = row * d
        d = np.tanh(z / 2) / 2
        total = total + np.log(np.abs(row)) - np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z)))
    return total


@pytest.mark.parametrize(("std", "least", "most"), [(9, 1, 5), (8, 20, 20), (7, 0, 2), (3, 0, 0), (12, 0, 0)])
def test_chains_that_rounding_holds_at_one_half_are_told(backend, std, least, most):
    w, _ = fg.draw(20_000, 20, f"normal:std={std}", seed=5)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        g = fg.backprop(w, -w / 2, 0.3, backend=backend)
    count = np.count_nonzero(g.caught)
    assert least <= count <= most
    start = f"{count} of 20 chains are caught at 1/2 by rounding"
    assert [str(warning.message)[: len(start)] for warning in record] == ([start] if count else [])
    assert all(warning.filename == __file__ for warning in record)
    # Those that are told are wrong by much more than the rounding of all other chains that end at 1/2.
    wrong = np.abs(g.grad_x.ln() - ln_gradient(w, 0.3))
    assert np.all(wrong[g.caught] > 1.0)
    assert np.all(wrong[(g.output == 0.5) & ~g.caught] < 1e-3)


CAUGHT = np.array([9.0] * 3 + [1e-20] + [9.0] * 100)  # the distance is lost at link 4, and would be back at link 59


def test_any_chain_is_told_whatever_stands_beside_it(backend, rng):
    w = rng.normal(scale=4.0, size=(104, 150))
    b = rng.normal(size=(104, 150))
    w[:, 3::7] = CAUGHT[:, None]
    b[:, 3::7] = -w[:, 3::7] / 2
    b[2, 10::14] += 1.0  # the links before do not matter
    b[50, 17::28] += 1.0  # this one brings the chain away from 1/2
    with pytest.warns(UserWarning, match="of 150 chains are caught"):
        g = fg.backprop(w, b, 0.3, backend=backend)
    expected = np.zeros(150, dtype=bool)
    expected[3::7] = True
    expected[17::28] = False
    assert g.caught.tolist() == expected.tolist()
    with pytest.warns(UserWarning, match="1 of 1 chains are caught"):
        one = fg.backprop(CAUGHT, -CAUGHT / 2, 0.3, backend=backend)
    assert one.caught.shape == ()
    assert one.caught
    assert not fg.backprop(CAUGHT, -CAUGHT / 2, 0.5, backend=backend, out=one).caught


def test_a_deep_chain_is_told_wherever_it_is_caught(compiled_backend):
    for before in (0, 1000, 1021, 1500):  # around the links that are looked at together
        w = np.concatenate([np.full(before, 12.0), CAUGHT, np.full(4000, 3.0)])
        with pytest.warns(UserWarning, match="1 of 1 chains"):
            assert fg.backprop(w, -w / 2, 0.3, backend=compiled_backend).caught
        w[before + 4 : before + 104] = 3.0
        assert not fg.backprop(w, -w / 2, 0.3, backend=compiled_backend).caught


@pytest.mark.parametrize("weight", [5.0, -5.0, 4.1])
@pytest.mark.parametrize("before", [0, 40])
def test_a_chain_that_rounding_holds_beside_one_half_is_told(backend, weight, before):
    # Rounded to 2^-51, w (1/2 - 2^-53) is w/2 - 2^-51; the true distance grows by w/4.
    w = np.concatenate([np.full(before, 1.0), np.full(4000, weight)])
    x = 0.5 - 2.0**-53 if before == 0 else 0.4
    with pytest.warns(UserWarning, match="1 of 1 chains are caught at 1/2"):
        g = fg.backprop(w, -w / 2, x, backend=backend)
    assert 0 <= abs(g.output - 0.5) < 2.0**-45
    assert g.caught
    assert g.grad_x.ln() > ln_gradient(w[:, None], x) + 100


@pytest.mark.parametrize(
    ("weight", "bias", "x"),
    [
        ([500, 500, 400], [-100_000, -250, -200], 200),  # the worked example: z = 0 exactly
        (CAUGHT, -CAUGHT / 2, 0.5),
        (CAUGHT[:20], -CAUGHT[:20] / 2, 0.3),  # not back yet
        ([1e30] + [0.1] * 30, [-0.5e30] + [-0.05] * 30, 0.3),  # |w/4| > 1 on average, but contracting since
        ([9.0, 0.0, 9.0, 9.0] * 30, [-4.5, 0.0, -4.5, -4.5] * 30, 0.3),  # a dead link leads to 1/2 exactly
        ([1e-20] * 40, [0.0] * 40, 0.3),
        (np.full(60, 2.0), np.full(60, -1.0), 0.9),
    ],
)
def test_chains_that_come_to_one_half_honestly_are_not(backend, weight, bias, x):
    g = fg.backprop(weight, bias, x, backend=backend)  # a warning would be an error
    assert abs(g.output - 0.5) < 2.0**-50
    assert not g.caught


# Backends and threads


@pytest.mark.parametrize("shape", [(1, 500), (100, 300), (2000, 20)])
@pytest.mark.parametrize(
    ("std", "bias_std"), [(0.1, 0.0), (1.0, 1.0), (4.0, 0.0), (30.0, 5.0), (1000.0, 1.0), (1.0, 3000.0)]
)
def test_compiled_backends_agree_with_the_reference(compiled_backend, rng, shape, std, bias_std, agree):
    w, b, x, cotangent = chains(rng, shape, std, bias_std)
    ours, reference = (fg.backprop(w, b, x, cotangent, backend=name) for name in (compiled_backend, "numpy"))
    for name in FIELDS:
        agree(getattr(ours, name), getattr(reference, name), fg.agreement_rtol(w, b))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("std", "bias_std"), [(0.3, 0.0), (4.0, 1.0), (700.0, 100.0)])
def test_compiled_backends_return_equal_bits(compiled, rng, shape, std, bias_std, same_bits):
    arguments = chains(rng, shape, std, bias_std)
    ours, theirs = (fg.backprop(*arguments, backend=name) for name in compiled)
    same_bits(ours, theirs)


@pytest.mark.parametrize("shape", DEEP_SHAPES, ids=str)
@pytest.mark.parametrize(("std", "centered"), [(4.0, False), (4.0, True), (12.0, True), (900.0, False)])
def test_compiled_backends_return_equal_bits_for_deep_chains(compiled, rng, shape, std, centered, same_bits):
    w, b, _, cotangent = chains(rng, shape, std)
    x = np.linspace(0.2, 0.45, shape[1])[()] if len(shape) > 1 else 0.3
    ours, theirs = (fg.backprop(w, -w / 2 if centered else b, x, cotangent, backend=name) for name in compiled)
    same_bits(ours, theirs)


def test_chains_beside_each_other_may_be_tame_wild_or_dead(compiled_backend, rng, agree):
    # Where every link fits plain floats, kernels may take a shorter way: here some do not, in any mixture.
    shape = 60, 200
    w, b, x, cotangent = chains(rng, shape)
    wild = rng.uniform(size=shape) < np.linspace(0, 0.5, shape[1]) ** 3
    weights = rng.choice([0.0, 1e-310, 2.0**-401, 2.0**-399, 500.0, -3.0], size=shape, p=[0.1] + [0.18] * 5)
    w = np.where(wild, weights, w)
    b = np.where(wild, rng.choice([339.5, 340.5, 700.0, 750.0, 5e3], size=shape) * rng.choice([-1, 1], size=shape), b)
    cotangent[::17] = 0.0
    ours, reference = (fg.backprop(w, b, x, cotangent, backend=name) for name in (compiled_backend, "numpy"))
    assert 0.1 < (ours.grad_x.mantissa == 0).mean() < 0.9
    for name in FIELDS:
        agree(getattr(ours, name), getattr(reference, name), fg.agreement_rtol(w, b))


@pytest.mark.parametrize("ensemble", [1, 65, 300])
def test_threads_do_not_change_a_bit(backend, rng, ensemble, same_bits):
    arguments = chains(rng, (30, ensemble))
    one, *more = (fg.backprop(*arguments, backend=backend, threads=threads) for threads in (1, 2, 3, 4, 64, None))
    for other in more:
        same_bits(one, other)


def test_members_do_not_know_each_other(backend, rng, same_bits):
    w, b, x, cotangent = chains(rng, (30, 131))
    g = fg.backprop(w, b, x, cotangent, backend=backend)
    order = rng.permutation(131)
    shuffled = fg.backprop(w[:, order], b[:, order], x[order], cotangent[order], backend=backend)
    for name in FIELDS:
        same_bits(getattr(g, name)[..., order], getattr(shuffled, name))
    same_bits(g.output[order], shuffled.output)
    for member in (0, 63, 64, 130):
        alone = fg.backprop(w[:, member], b[:, member], x[member], cotangent[member], backend=backend)
        same_bits(alone.grad_weight, g.grad_weight[:, member])
        same_bits(alone.grad_x, g.grad_x[member])


def test_shapes_of_the_result(backend):
    one = fg.backprop([1.0, 2.0, 3.0], 0, 0.5, backend=backend)
    assert (one.grad_weight.shape, one.grad_bias.shape, one.grad_x.shape, one.output.shape) == ((3,), (3,), (), ())
    many = fg.backprop(np.ones((3, 2)), [0, 1], 0.5, backend=backend)
    assert (many.grad_weight.shape, many.grad_bias.shape, many.grad_x.shape, many.output.shape) == (
        (3, 2),
        (3, 2),
        (2,),
        (2,),
    )
    assert one.backend == many.backend == backend


def test_auto_says_which_backend_ran():
    assert fg.backprop([1.0], 0, 0.5).backend == fg.available_backends()[0]


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a[::-1].copy()[::-1], lambda a: a.astype(">f8")])
def test_the_layout_of_the_input_does_not_change_a_bit(backend, rng, layout, same_bits):
    w, b, x, cotangent = chains(rng, (20, 66))
    plain = fg.backprop(w, b, x, cotangent, backend=backend)
    same_bits(plain, fg.backprop(layout(w), layout(b), layout(x), layout(cotangent), backend=backend))


@pytest.mark.parametrize(
    ("threads", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)]
)
def test_a_wrong_number_of_threads_is_named(threads, error):
    with pytest.raises(error, match=r"^threads: expected"):
        fg.backprop([1.0], 0, 0.5, threads=threads)


@pytest.mark.parametrize("argument", ["weight", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("shape", "index"),
    [
        ((1,), (0,)),
        ((5000,), (4999,)),
        ((40, 131), (0, 0)),
        ((40, 131), (17, 130)),
        ((40, 131), (39, 64)),
        ((3, 3), (1, 2)),
    ],
)
def test_a_value_that_is_not_finite_is_located(backend, rng, argument, value, shape, index):
    w, b, x, cotangent = chains(rng, shape)
    arguments = {"weight": w, "bias": b, "x": x, "cotangent": cotangent}
    arguments[argument][index] = value
    place = ", ".join(map(str, index))
    with pytest.raises(ValueError, match=rf"^{argument}: expected finite numbers, got {value} at index \[{place}\]$"):
        fg.backprop(**arguments, backend=backend)


def test_a_broadcast_bias_that_is_not_finite_is_named(backend):
    for bias in (math.nan, [[0.0], [math.nan], [0.0]], [0.0, math.nan]):
        with pytest.raises(ValueError, match=r"^bias: expected finite numbers, got nan"):
            fg.backprop(np.ones((3, 2)), bias, 0.5, backend=backend)


# Inputs, and results used again


def test_inputs_are_never_written_to(backend, rng):
    arguments = chains(rng, (40, 70))
    copies = [array.copy() for array in arguments]
    fg.backprop(*arguments, backend=backend)
    for array, copy in zip(arguments, copies, strict=True):
        assert array.tobytes() == copy.tobytes()
        array.flags.writeable = False
    fg.backprop(*arguments, backend=backend)


@pytest.mark.parametrize("shape", [(50,), (50, 70)])
def test_out_is_filled_again_with_the_same_bits(backend, rng, shape, same_bits):
    first, second = chains(rng, shape), chains(rng, shape)
    out = fg.backprop(*first, backend=backend)
    memory = [array.ctypes.data for array in (out.output, out.grad_weight.mantissa, out.grad_x.exponent)]
    again = fg.backprop(*second, backend=backend, out=out)
    assert again is out
    assert memory == [array.ctypes.data for array in (out.output, out.grad_weight.mantissa, out.grad_x.exponent)]
    same_bits(again, fg.backprop(*second, backend=backend))


def test_out_says_which_backend_filled_it(compiled):
    out = fg.backprop([1.0], 0, 0.5, backend=compiled[0])
    assert fg.backprop([1.0], 0, 0.5, backend=compiled[1], out=out).backend == compiled[1]


@pytest.mark.parametrize("shape", [(3,), (4, 2), (3, 3), (3, 1)])
def test_out_of_another_shape_is_refused(shape):
    out = fg.backprop(np.ones(shape), 0, 0.5)
    with pytest.raises(ValueError, match=r"^out: expected \w+ of shape \("):
        fg.backprop(np.ones((3, 2)), 0, 0.5, out=out)


@pytest.mark.parametrize("out", ["result", {}, np.ones((3, 2)), fg.Scaled([1.0])])
def test_out_that_is_no_result_is_refused(out):
    with pytest.raises(TypeError, match=r"^out: expected the Gradients of an earlier call, got"):
        fg.backprop(np.ones((3, 2)), 0, 0.5, out=out)


def test_out_that_shares_memory_with_an_input_is_refused():
    out = fg.backprop(np.ones((3, 2)), 0, 0.5)
    given = [
        (out.grad_weight.mantissa, 0, 0.5, 1),
        (np.ones((3, 2)), out.grad_bias.mantissa, 0.5, 1),
        (np.ones((3, 2)), 0, out.output, 1),
        (np.ones((3, 2)), 0, 0.5, out.grad_x.mantissa),
        (out.grad_weight.mantissa[::-1][:, ::-1][::-1, ::-1], 0, 0.5, 1),  # views of views
        (np.frombuffer(out.grad_weight.mantissa).reshape(3, 2), 0, 0.5, 1),  # by way of another kind of object
        (np.asarray(memoryview(out.grad_bias.mantissa)), 0, 0.5, 1),
    ]
    for arguments in given:
        before = [np.array(argument) for argument in arguments]
        with pytest.raises(ValueError, match=r"^out: shares memory with an input"):
            fg.backprop(*arguments, out=out)
        assert all(np.array_equal(a, b) for a, b in zip(arguments, before, strict=True))


def test_out_of_another_type_is_refused():
    out = fg.backprop(np.ones((3, 2)), 0, 0.5)
    out.grad_bias.exponent = out.grad_bias.exponent.astype(np.int32)
    with pytest.raises(ValueError, match=r"^out: expected arrays of shape \(3, 2\) and int64, got \(3, 2\) and int32$"):
        fg.backprop(np.ones((3, 2)), 0, 0.5, out=out)


def test_out_whose_arrays_are_one_is_refused():
    out = fg.backprop(np.ones((3, 2)), 0, 0.5)
    out.grad_bias = out.grad_weight
    with pytest.raises(ValueError, match=r"^out: its arrays share memory with each other$"):
        fg.backprop(np.ones((3, 2)), 0, 0.5, out=out)


def test_out_that_cannot_be_filled_is_refused():
    out = fg.backprop(np.ones((3, 2)), 0, 0.5)
    out.grad_weight.mantissa.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out: .* a view or read-only"):
        fg.backprop(np.ones((3, 2)), 0, 0.5, out=out)


# The textbook's bound


def test_log10_bound_is_the_product_of_quarters(rng):
    w, b, x, cotangent = chains(rng, (5, 3))
    bound = log10_bound(Chain.of(w, b, x, cotangent))
    expected = [[abs(cotangent[m]) / 4 * np.prod(np.abs(w[link + 1 :, m]) / 4) for m in range(3)] for link in range(5)]
    assert bound == pytest.approx(np.log10(expected), abs=5 * 2**-50, rel=0)


@pytest.mark.parametrize("elements", [1, 12, 2**16])
def test_medians_are_those_of_a_member(elements, rng, monkeypatch):
    monkeypatch.setattr("fastgrad.jobs.backprop.MEDIAN_ELEMENTS", elements)
    gradients = fg.backprop(*chains(rng, (9, 5)), backend="numpy")
    bound, links = rng.normal(size=(9, 5)), np.array([0, 2, 3, 8])
    medians = log10_medians(gradients, bound, links)
    assert medians["bound"].tolist() == [sorted(row)[2] for row in bound[links].tolist()]
    for name in ("grad_weight", "grad_bias"):
        expected = [math.log10(sorted(map(abs, row))[2]) for row in getattr(gradients, name)[links].to_float().tolist()]
        assert medians[name] == pytest.approx(expected, rel=1e-14)


def test_log10_bound_of_a_zero_weight_or_cotangent_is_minus_infinity():
    bound = log10_bound(Chain.of([[4.0, 4.0], [0.0, 4.0], [4.0, 4.0]], 0, 0.5, [4.0, 0.0]))
    assert bound.tolist() == [[-math.inf, -math.inf], [0.0, -math.inf], [0.0, -math.inf]]
