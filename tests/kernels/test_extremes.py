"""What the package is for: depths, magnitudes and preactivations that no float survives."""

import math

import mpmath as mp
import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.pages import State
from fastgrad.kernels import PropagateJob, ScaledArrays, load
from fastgrad.laws import parse
from fastgrad.nonlinearities import NONLINEARITIES

SMALLEST, LARGEST = 5e-324, 1.7976931348623157e308
DEAD = 2.0**60  # beyond it the derivative is 0
EXPONENT_MIN = -(2**62)  # a product whose exponent falls below is 0

# name: weight, bias, x, cotangent
CHAINS = {
    "one link": ([3.0], [-1.0], 0.25, 1.0),
    "exploding": ([500.0] * 400, [-250.0] * 400, 0.5, 1.0),
    "vanishing": ([1.0] * 2000, [0.0] * 2000, 0.5, 1.0),
    "saturated": ([900.0, -900.0] * 30, [100.0] * 60, 0.5, -1.0),
    "largest weights": ([LARGEST] * 50, [-LARGEST / 2] * 50, 0.5, 1.0),
    "largest weights, dead": ([LARGEST, -LARGEST, LARGEST], [0.0] * 3, 0.5, 1.0),
    "subnormal weights": ([SMALLEST] * 20, [0.0] * 20, 0.5, 1.0),
    "subnormal beside large": ([1e-310, 1e5, 1e-320, -30.0], [0.0] * 4, 0.75, 1.0),
    "subnormal activations": ([-1.0, 1e300, 3.0], [-735.0, 0.0, 1.0], 1.0, 1.0),
    "smallest activations": ([2.0, 1e308, 2.0, 1e308], [-745.9, 0.0, -746.0, -744.9], 0.5, 1.0),
    "vanished activations": ([-1.0, 1e300, 3.0], [-2000.0, 0.0, 1.0], 1.0, 1.0),
    "infinite preactivation": ([LARGEST, 2.0], [LARGEST, 0.5], 10.0, 1.0),
    "minus infinite preactivation": ([-LARGEST, 2.0], [LARGEST, 0.5], 10.0, 1.0),
    "huge input": ([1e-308, 2.0], [0.5, -1.0], 1e308, 1.0),
    "huge negative input": ([1e-300, 2.0], [0.5, -1.0], -1e300, 1.0),
    "subnormal input": ([1e300, 2.0], [0.0, -1.0], SMALLEST, 1.0),
    "subnormal cotangent": ([4.0] * 300, [-2.0] * 300, 0.3, SMALLEST),
    "largest cotangent": ([40.0] * 300, [-20.0] * 300, 0.5, LARGEST),
    "around 340": ([1.0, -1.0, 2.0, -2.0] * 5, [339.0, -339.5, 338.2, -340.0] * 5, 0.5, 1.0),
    "weights around 2^400": ([2.0**401, -(2.0**400), 2.0**399] * 5, [-(2.0**400), 2.0**399, -(2.0**398)] * 5, 0.5, 1.0),
    "weights around 2^-400": ([2.0**-401, 2.0**-400, -(2.0**-399)] * 5, [0.5] * 15, 0.5, 1.0),
    "around 2^50": ([1.0] * 4, [2.0**50, -(2.0**50), 2.0**50 - 0.25, -(2.0**50) - 0.25], 0.5, 1.0),
    "around 2^60": ([0.0, 1.0], [DEAD, 1.0 - DEAD], 0.5, 1.0),
    "beyond 2^63": ([1.0, 2.0, 1.0], [1.0, 8 * DEAD, 1.0], 0.5, 1.0),
    "many near 2^59": ([1.0, -1.0] * 20, [DEAD / 2, -DEAD / 2] * 20, 0.5, 1.0),
}


@pytest.fixture(params=CHAINS)
def chain(request):
    return CHAINS[request.param]


def gradients(result):
    return [result.grad_weight, result.grad_bias, result.grad_x]


def test_results_are_normalized_and_finite(chain, backend):
    g = fg.backprop(*chain, backend=backend)  # a warning would be an error
    assert 0 <= g.output <= 1
    for scaled in gradients(g):
        size = np.abs(scaled.mantissa)
        zero = size == 0
        assert np.all(zero | ((size >= 0.5) & (size < 1)))
        assert not np.any(scaled.exponent[zero])
        assert not np.any(np.signbit(scaled.mantissa[zero]))


def test_compiled_backends_return_equal_bits(chain, compiled, same_bits):
    ours, theirs = (fg.backprop(*chain, backend=name) for name in compiled)
    same_bits(ours, theirs)


def test_nothing_depends_on_how_numpy_treats_errors(chain, backend, same_bits):
    usual = fg.backprop(*chain, backend=backend)
    with np.errstate(all="raise"):
        strict = fg.backprop(*chain, backend=backend)
    same_bits(usual, strict)


def test_gradients_are_the_oracles(chain, backend, golden, agree):
    g = fg.backprop(*chain, backend=backend)
    truth = golden.oracle(*chain)
    # agreement_rtol, with the inputs o_{l-1} = grad_weight / grad_bias that it takes to be at most 1
    terms = [(w * p / q, b) for w, b, p, q in zip(*chain[:2], truth.grad_weight, truth.grad_bias, strict=True)]
    rounded = sum(abs(wo) + abs(b) for wo, b in terms if wo + b)
    rtol = float(mp.ldexp(16 * len(terms) + 4 * rounded, -52))
    for name in ("grad_weight", "grad_bias"):
        expected = getattr(truth, name)
        held = [mp.frexp(value)[1] >= EXPONENT_MIN for value in expected]
        got = getattr(g, name)
        assert not got.mantissa[np.logical_not(held)].any()
        values = fg.Scaled(*golden.mantissa_exponent([v for v, hold in zip(expected, held, strict=True) if hold]))
        if any(held):
            agree(got[np.array(held)], values, rtol)


def test_what_no_exponent_can_hold_becomes_zero(backend):
    depth, z = 40, DEAD / 2
    g = fg.backprop(np.ones(depth), np.full(depth, z), 0.5, backend=backend)
    links = round(2**62 / (z / math.log(2)) - 0.5)  # whole links before the exponent falls below -2^62
    assert links == 5
    assert np.all(g.grad_bias.mantissa[-links:])
    assert not g.grad_bias.mantissa[:-links].any()
    assert g.grad_x.mantissa == 0


def test_an_exponent_falls_to_its_limit_in_small_steps_too(backend):
    # From the output back: a few links of 2^60, 2^59, … nats use up nearly all of the 2^62 bits, and then each of many
    # plain links takes two more.
    bits, bias = 2.0**62 - 3000, []
    for power in range(60, 9, -1):
        while bits > 2.0**power / math.log(2):
            bits -= 2.0**power / math.log(2)
            bias.append(2.0**power)
    b = np.concatenate([np.full(3000, -0.5), bias])
    g = fg.backprop(np.ones(len(b)), b, 0.5, backend=backend)
    alive = g.grad_bias.mantissa != 0
    first = int(np.argmax(alive))
    assert 0 < first < 3000
    assert np.all(alive[first:])
    assert not alive[:first].any()
    assert g.grad_bias.exponent[first] >= EXPONENT_MIN > g.grad_bias.exponent[first] - 4
    assert g.grad_x.mantissa == 0


def test_simulate_makes_zero_of_what_no_exponent_can_hold(backend):
    growth = fg.simulate(40, 2, weight="constant:1", bias=f"constant:{DEAD / 2!r}", backend=backend)
    assert np.all(growth.adjoint.mantissa[-5:])
    assert not growth.adjoint.mantissa[:-5].any()
    assert not growth.adjoint.exponent[:-5].any()
    assert growth.lyapunov.mean == -math.inf


def test_derivative_is_zero_beyond_2_to_60_only(backend):
    def derivative(z):
        return fg.backprop([0.0], [z], 0.5, backend=backend).grad_bias[0]

    for sign in (1, -1):
        at_the_edge = derivative(sign * DEAD)
        assert at_the_edge.mantissa > 0
        assert round(float(at_the_edge.exponent) / 2**60 * math.log(2), 12) == -1
        assert derivative(sign * np.nextafter(DEAD, math.inf)).mantissa == 0
        assert derivative(sign * LARGEST).mantissa == 0


def test_derivative_falls_without_a_step_up(backend):
    powers = np.linspace(-3, 60, 5000)
    z = 2.0**powers
    z = np.sort(np.concatenate([z, np.nextafter(z, 0), 2.0**50 + 0.25 * np.arange(-8, 8), DEAD - 256.0 * np.arange(8)]))
    g = fg.backprop(np.zeros((1, z.size)), [z], 0.5, backend=backend)
    log2 = g.grad_bias[0].log2()
    # A neighbor may round up: by no more than the ulp allowed to each, and the rounding of the logarithm.
    assert np.all(np.diff(log2) <= 2 * ulps_allowed(z[1:]) * 2.0**-52 / math.log(2) + np.spacing(np.abs(log2[1:])))
    assert np.all(g.grad_bias.mantissa)


@pytest.fixture(scope="module")
def sigmoids(golden):
    """Preactivations, and the sigmoid and its derivative there at 60 digits."""
    rng = np.random.default_rng(0)
    sizes = [
        rng.uniform(0, 50, 1500),
        10.0 ** rng.uniform(-320, 0, 500),
        2.0 ** rng.uniform(0, 60, 3000),
        [0.0, SMALLEST, 2.0**-1022, 2.0**-53, 36.74, 708.4, 709.8, 744.4, 745.2, 1e6],
        math.log(2) * (0.5 + np.arange(40)),  # where the range reduction changes its integer
        [2.0**power * (1 + step * 2.0**-52) for power in (21, 50, 51, 52, 53, 59) for step in (-0.5, 0, 1)],
        [DEAD, np.nextafter(DEAD, 0.0)],
    ]
    t = np.concatenate(sizes)
    z = np.concatenate([t, -t])
    with mp.workdps(golden.DIGITS):
        values = [golden.sigmoid(mp.mpf(value)) for value in z]
    return z, *(fg.Scaled(*golden.mantissa_exponent(column)) for column in zip(*values, strict=True))


def ulps(got, expected):
    """Distance in units in the last place of the mantissa."""
    shift = (got.exponent - expected.exponent).astype(np.float64)
    return np.abs(got.mantissa * 2.0**shift - expected.mantissa) * 2.0**53


def ulps_allowed(z):
    """Four up to |z| = 2^51; from there on the reduction of exp's argument loses digits, in proportion to |z|."""
    return 4 * np.maximum(1, np.abs(z) / 2.0**51)


def test_derivative_is_good_to_4_ulp(sigmoids, backend):
    z, _, derivative = sigmoids
    g = fg.backprop(z[None], 0, 1.0, backend=backend)
    assert np.all(ulps(g.grad_bias[0], derivative) <= ulps_allowed(z))


def test_activation_is_good_to_4_ulp_where_no_float_holds_it(sigmoids, backend):
    z, activation, _ = sigmoids
    # The next link has weight 0: its grad_weight is o / 4.
    g = fg.backprop(np.stack([z, np.zeros_like(z)]), 0, 1.0, backend=backend)
    assert np.all(ulps(g.grad_weight[1] * fg.Scaled(4.0), activation) <= ulps_allowed(z))


def test_output_is_good_to_4_ulp_and_rounded_to_a_subnormal(sigmoids, backend):
    z, activation, _ = sigmoids
    output = fg.backprop(z[None], 0, 1.0, backend=backend).output
    expected = activation.to_float()
    assert np.all(np.abs(output - expected) <= np.maximum(4 * 2.0**-52 * expected, SMALLEST))
    assert np.any((output > 0) & (output < 2.0**-1022))


def test_a_million_links(compiled_backend, agree):
    depth = 10**6
    w = 2.0 ** np.random.default_rng(1).integers(-4, 9, depth)
    g = fg.backprop(w, -w / 2, 0.5, backend=compiled_backend)
    log2 = np.cumsum(np.log2(w[::-1]) - 2)[::-1].astype(np.int64)
    assert np.all(g.grad_bias[:-1] == fg.Scaled(0.25, log2[1:]))
    assert g.grad_x == fg.Scaled(1.0, log2[0])

    constant = fg.backprop(np.full(depth, 500.0), np.full(depth, -250.0), 0.5, backend=compiled_backend)
    with mp.workdps(40):
        mantissa, exponent = mp.frexp(mp.mpf(125) ** depth)
    rounding_alone = fg.agreement_rtol(np.zeros(depth), 0)  # every preactivation is 0
    agree(constant.grad_x, fg.Scaled(float(mantissa), int(exponent)), rounding_alone)


def test_subnormal_numbers_are_not_flushed(backend, python):
    fg.simulate(100, 100, backend=backend, threads=2)
    fg.backprop([1.0], 0, 0.5, backend=backend)
    assert 1e-308 * 1e-2 == 1e-310
    assert np.array([1e-308]) * np.array([1e-2]) == 1e-310
    printed = python(
        "import fastgrad as fg\n"
        "before = 1e-308 * float('1e-2')\n"
        f"fg.simulate(100, 100, backend={backend!r}, threads=2)\n"
        f"fg.backprop([1.0], 0, 0.5, backend={backend!r})\n"
        "print(before, 1e-308 * float('1e-2'))"
    )
    assert printed.split() == ["1e-310", "1e-310"]


def test_products_of_the_smallest_exponents_are_zero(backend):
    """Two segments of a deep chain whose products have the smallest exponent, -2^62: the sum of both passes int64."""
    w, b = np.ones(128), np.zeros(128)
    b[0] = b[1] = 1.15e18

    def excess():
        """Exponent of the segment's product, from -2^62 on."""
        return int(fg.backprop(w, b, 0.5).grad_x.exponent) + 2**62

    for _ in range(6):
        if excess() < 2000:
            break
        b[2] += (excess() - 500) * math.log(2.0)
    for link in range(3, 20):
        w[link] = 2.0 ** -min(900, excess())
    assert excess() == 0
    mantissa = float(fg.backprop(w, b, 0.5).grad_x.mantissa)
    if mantissa > 0.7:
        w[1] *= 0.55 / mantissa
    assert excess() == 0
    weight, bias = np.ones(8192), np.zeros(8192)
    weight[-256:], bias[-256:] = np.tile(w, 2), np.tile(b, 2)
    gradients = fg.backprop(weight, bias, 0.5, backend=backend)
    assert (gradients.grad_x.mantissa, gradients.grad_x.exponent) == (0.0, 0)
    assert np.all(gradients.grad_bias.mantissa[: 8192 - 256] == 0)
    assert np.all(gradients.grad_bias.exponent <= 0)


def test_tiny_offsets_of_a_nonlinearity_that_rests_at_zero():
    """The definition knows tanh too: its inputs fall below every double, and are the offsets themselves."""
    phi, (_, reference) = NONLINEARITIES["tanh"], load("numpy")
    links = np.array([1, 800, 1200, 1500])
    records = [fg.Scaled.empty((4, 1)) for _ in range(4)]
    laws = parse("constant:0.5", "weight").code, parse("centered", "bias").code
    job = PropagateJob(*laws, 0, phi.code, links, np.empty((4, 1)), *map(ScaledArrays.of, records))
    state = State.at(np.array([0.3]), phi.rest, True)
    reference.propagate(job, state.arrays, 1, 1501, 0, 1)
    with mp.workdps(40):
        o, expected = mp.mpf(0.3), {}
        for link in range(1, 1501):
            expected[link], o = mp.log(abs(o), 2), mp.tanh(o / 2)
    assert records[0].log2()[:, 0] == pytest.approx([float(expected[link]) for link in links], abs=1e-9)
