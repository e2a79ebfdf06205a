"""Drawn dense layers against mpmath on the same network, PyTorch, exact laws, and each other."""

import hashlib
import math
from itertools import pairwise
from types import SimpleNamespace

import hypothesis
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgrad as fg
from fastgrad import laws, philox
from fastgrad.kernels import LayersJob, ScaledArrays, ScaledVectors, load
from fastgrad.nonlinearities import NONLINEARITIES

DIGITS = 50
RTOL = 1e-12
ULP = 2.0**-53
SMALLEST = 1e-290  # preactivations below are of no consequence, and the tape need not hold them
SEED = 3


@pytest.fixture
def kernels(backend):
    """Module of each backend."""
    return load(backend)[1]


def orthogonal(gain=1.0):
    """Law of an orthogonal layer, as kernels know it."""
    return laws.Law("orthogonal", 0.0, gain, "orthogonal")


def empty(shape):
    """Scaled numbers to be filled."""
    return ScaledArrays.of(fg.Scaled.empty(shape))


def make_job(weight, bias, nonlinearity, recorded, ensemble, seed=SEED):
    """A job with room for its records."""
    shape = len(recorded), ensemble
    return LayersJob(
        weight_law=weight.code,
        bias_law=bias.code,
        seed=seed,
        nonlinearity=NONLINEARITIES[nonlinearity].code,
        recorded_layers=np.array(recorded, dtype=np.int64),
        length=empty(shape),
        mean_activation=empty(shape),
        saturated=np.full(shape, np.nan),
        dead=np.full(shape, np.nan),
        correlation=np.full(shape, np.nan),
        input_norm=empty(shape),
        delta_norm=empty(shape),
        adjoint_norm=empty(shape),
    )


def inputs(ensemble, width, count=1, law=None, seed=SEED):
    """Drawn inputs, shape (ensemble, count, width)."""
    law, members = law or laws.normal(), np.arange(ensemble)
    return np.stack([philox.draw_input_units(law, seed, t, members, width) for t in range(1, count + 1)], axis=1)


def cotangents(ensemble, width, count=1, seed=SEED):
    """Random unit vectors, shape (ensemble, count, width)."""
    members = np.arange(ensemble)
    return np.stack([philox.draw_cotangents(seed, t, members, width) for t in range(1, count + 1)], axis=1)


def run(kernels, job, depth, x, c, calls=None, slices=None):
    """Forward and backward, in calls and slices if they are given; the state, the adjoints and the tape."""
    ensemble, _, width = x.shape
    state, adjoint = ScaledVectors.of(x), ScaledVectors.of(c)
    tape = np.full((depth, ensemble, width), np.nan)
    cuts = [1, *(calls or []), depth + 1]
    parts = [0, *(slices or []), ensemble]
    for start, stop in pairwise(parts):
        of_slice = np.full((depth, stop - start, width), np.nan)
        pages = list(pairwise(cuts))
        for first, last in pages:
            kernels.layers_forward(job, state, of_slice[first - 1 : last - 1], first, last, start, stop)
        for first, last in reversed(pages):
            kernels.layers_backward(job, adjoint, of_slice[first - 1 : last - 1], first, last, start, stop)
        tape[:, start:stop] = of_slice
    return SimpleNamespace(job=job, state=state, adjoint=adjoint, tape=tape)


def measure(kernels, weight, bias, nonlinearity, depth, ensemble, width, count=1, **more):
    """Run drawn inputs and cotangents, every layer recorded."""
    job = make_job(weight, bias, nonlinearity, range(1, depth + 1), ensemble)
    return run(kernels, job, depth, inputs(ensemble, width, count), cotangents(ensemble, width), **more)


def vectors(scaled):
    """Scaled vectors as numbers."""
    return fg.Scaled(scaled.value, scaled.exponent[..., None])


def matrices(weight, bias, depth, member, width):
    """Weights and biases of one member, layer by layer."""
    members, rows = np.array([member]), np.arange(width)
    for layer in range(1, depth + 1):
        w = philox.draw_weights(weight, SEED, layer, members, width, rows)[0]
        yield w, philox.draw_biases(bias, SEED, layer, members, width)[0]


def exact(array):
    """Doubles as mpf."""
    return [exact(row) for row in array] if np.ndim(array) else mp.mpf(float(array))


def phi(nonlinearity, z):
    """The nonlinearity and its derivative at DIGITS digits, without cancellation."""
    if nonlinearity == "linear":
        return z, mp.mpf(1)
    if nonlinearity == "relu":
        return (z, mp.mpf(1)) if z > 0 else (mp.mpf(0), mp.mpf(0))
    e = mp.exp(-z if nonlinearity == "sigmoid" else -2 * z)
    if nonlinearity == "sigmoid":
        return 1 / (1 + e), 1 / (e + 2 + 1 / e)
    return mp.tanh(z), 4 / (e + 2 + 1 / e)


def norm(vector):
    return mp.sqrt(mp.fsum(v * v for v in vector))


def distance(numbers, truth):
    """Largest relative distance of scaled numbers from mpf."""
    worst = mp.mpf(0)
    for index, expected in np.ndenumerate(np.array(truth, dtype=object)):
        got = mp.mpf(float(numbers.mantissa[index])) * mp.mpf(2) ** int(numbers.exponent[index])
        worst = max(worst, abs(got / expected - 1) if expected else abs(got))
    return float(worst)


def oracle(net, member, tape=None):
    """Norms of one member's records at DIGITS digits; along the preactivations of `tape` if they are given."""
    n = len(net.x[member])
    o, layers = exact(net.x[member]), []
    found = {name: [] for name in ("length", "mean_activation", "input_norm", "delta_norm", "adjoint_norm")}
    for layer, (w, b) in enumerate(matrices(net.weight, net.bias, net.depth, member, n)):
        w, b = exact(w), exact(b)
        z = [mp.fdot(w[i], o) + b[i] for i in range(n)]
        if tape is not None:  # what rounding leaves of one layer; then on from there
            given = exact(tape[layer, member])
            for i in range(n):
                size = mp.fsum(abs(wi * oi) for wi, oi in zip(w[i], o, strict=True)) + abs(b[i])
                assert abs(given[i] - z[i]) <= (2 * n + 16) * ULP * size + SMALLEST
            z = [own if abs(own) < SMALLEST else value for own, value in zip(z, given, strict=True)]
        found["input_norm"].append(norm(o))
        o, slopes = zip(*(phi(net.nonlinearity, zi) for zi in z), strict=True)
        found["length"].append(mp.fsum(zi * zi for zi in z) / n)
        found["mean_activation"].append(mp.fsum(o) / n)
        layers.append((w, slopes))
    adjoint = exact(net.c[member])
    for w, slopes in reversed(layers):
        delta = [a * slope for a, slope in zip(adjoint, slopes, strict=True)]
        adjoint = [mp.fsum(w[i][j] * delta[i] for i in range(n)) for j in range(n)]
        found["delta_norm"].insert(0, norm(delta))
        found["adjoint_norm"].insert(0, norm(adjoint))
    return found


def check_against_oracle(kernels, weight, bias, nonlinearity, width, depth=50, ensemble=2, *, along):
    done = measure(kernels, weight, bias, nonlinearity, depth, ensemble, width)
    net = SimpleNamespace(
        weight=weight,
        bias=bias,
        nonlinearity=nonlinearity,
        depth=depth,
        x=inputs(ensemble, width)[:, 0],
        c=cotangents(ensemble, width)[:, 0],
    )
    with mp.workdps(DIGITS):
        for member in range(ensemble):
            for name, truth in oracle(net, member, done.tape if along else None).items():
                numbers = getattr(done.job, name)
                got = ScaledArrays(numbers.mantissa[:, member], numbers.exponent[:, member])
                if name == "mean_activation" and nonlinearity in ("tanh", "linear"):
                    continue  # a sum that cancels
                assert distance(got, truth) <= RTOL, (name, member)


STDS = (0.1, 1.0, 4.0, 30.0, 500.0)
BIASES = (laws.zero(), laws.normal(std=1.0))


@pytest.mark.parametrize("bias", BIASES, ids=str)
@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("width", [3, 8])
@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh"])
def test_norms_are_exact_along_the_trajectory(nonlinearity, width, std, bias, kernels):
    check_against_oracle(kernels, laws.normal(std=std), bias, nonlinearity, width, along=True)


@pytest.mark.parametrize("bias", BIASES, ids=str)
@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("width", [3, 8])
@pytest.mark.parametrize("nonlinearity", ["relu", "linear"])
def test_norms_of_layers_that_never_saturate_are_exact(nonlinearity, width, std, bias, kernels):
    check_against_oracle(kernels, laws.normal(std=std), bias, nonlinearity, width, along=False)


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh"])
def test_norms_of_contracting_layers_are_exact_from_the_input_on(nonlinearity, kernels):
    weight = laws.normal(std=0.3) if nonlinearity == "tanh" else laws.normal(std=1.0)
    for width in (3, 8):
        check_against_oracle(kernels, weight, laws.normal(std=0.1), nonlinearity, width, along=False)


@pytest.mark.parametrize("law", [laws.uniform(-1, 3), laws.constant(0.3)], ids=str)
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_norms_with_other_laws_are_exact(nonlinearity, law, kernels):
    bias = laws.uniform(-0.5, 0.25)
    along = nonlinearity in ("sigmoid", "tanh")
    check_against_oracle(kernels, law, bias, nonlinearity, 5, along=along)


def as_floats(numbers):
    """Scaled numbers as doubles."""
    return fg.Scaled.of_parts(*numbers).to_float()


@pytest.mark.parametrize("width", [1, 7, 16, 41])
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_torch_finds_the_same_norms(nonlinearity, width, kernels):
    torch = pytest.importorskip("torch")
    depth, ensemble = 6, 3
    weight, bias = laws.normal(std=1.5 / math.sqrt(width)), laws.normal(std=0.3)
    done = measure(kernels, weight, bias, nonlinearity, depth, ensemble, width)
    function = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "linear": lambda z: z,
    }[nonlinearity]
    for member in range(ensemble):
        layers = [
            (torch.from_numpy(w.copy()), torch.from_numpy(b.copy()))
            for w, b in matrices(weight, bias, depth, member, width)
        ]
        o = torch.from_numpy(inputs(ensemble, width)[member, 0].copy())
        activations, biases, weights, lengths = [], [], [], []
        for w, b in layers:
            w, b = w.requires_grad_(), b.requires_grad_()
            o = o.detach().requires_grad_() if not activations else o
            o.retain_grad()
            activations.append(o)
            z = w @ o + b
            lengths.append(float((z * z).mean().detach()))
            o = function(z)
            weights.append(w)
            biases.append(b)
        (o @ torch.from_numpy(cotangents(ensemble, width)[member, 0].copy())).backward()
        for got, expected in (
            (as_floats(done.job.length)[:, member], lengths),
            (as_floats(done.job.adjoint_norm)[:, member], [float(a.grad.norm()) for a in activations]),
            (as_floats(done.job.delta_norm)[:, member], [float(b.grad.norm()) for b in biases]),
            (
                (as_floats(done.job.delta_norm) * as_floats(done.job.input_norm))[:, member],
                [float(w.grad.norm()) for w in weights],
            ),
        ):
            assert np.allclose(got, expected, rtol=RTOL, atol=0)


def test_records_of_the_forward_pass(kernels):
    """Length, mean, shares and correlation by their definitions, on doubles."""
    width, depth, ensemble = 40, 4, 3
    for nonlinearity in NONLINEARITIES:
        weight, bias = laws.normal(std=4 / math.sqrt(width)), laws.normal(std=1.0)
        done = measure(kernels, weight, bias, nonlinearity, depth, ensemble, width, count=2)
        for member in range(ensemble):
            o = list(inputs(ensemble, width, 2)[member])
            for layer, (w, b) in enumerate(matrices(weight, bias, depth, member, width)):
                z = [w @ each + b for each in o]
                o = [NONLINEARITIES[nonlinearity].value(each) for each in z]
                at = layer, member
                saturated = np.mean(np.abs(z[0]) > 6) if nonlinearity in ("sigmoid", "tanh") else 0
                assert done.job.saturated[at] == saturated
                assert done.job.dead[at] == (np.mean(z[0] <= 0) if nonlinearity == "relu" else 0)
                cosine = z[0] @ z[1] / math.sqrt(z[0] @ z[0] * (z[1] @ z[1]))
                assert math.isclose(done.job.correlation[at], cosine, rel_tol=1e-11, abs_tol=1e-13)
                assert math.isclose(as_floats(done.job.mean_activation)[at], np.mean(o[0]), rel_tol=1e-11)
        assert 0 < done.job.saturated.mean() < 1 or nonlinearity in ("relu", "linear")
        assert 0 < done.job.dead.mean() < 1 or nonlinearity != "relu"
        output = np.array([vectors(done.state)[member, t].to_float() for member in range(3) for t in range(2)])
        assert np.allclose(output[-2:], o, rtol=1e-11)


# Exact laws: theory.md, section 6. z-scores at 1e-3, two-sided, are 3.29.

NORMAL_QUANTILE = 3.29


def check_mean_and_variance(sample, mean, variance):
    """Test both at 1e-3; the variance by the sample's own fourth moment."""
    n = len(sample)
    assert abs(sample.mean() - mean) < NORMAL_QUANTILE * math.sqrt(variance / n)
    squares = (sample - mean) ** 2
    assert abs(squares.mean() - variance) < NORMAL_QUANTILE * squares.std() / math.sqrt(n)


def ln_norms(kernels, weight, nonlinearity, depth, ensemble, width):
    """ln |J^T c| of each member."""
    job = make_job(weight, laws.zero(), nonlinearity, [1], ensemble)
    run(kernels, job, depth, inputs(ensemble, width), cotangents(ensemble, width))
    return fg.Scaled.of_parts(*job.adjoint_norm)[0].ln()


@pytest.mark.parametrize("width", [1, 2, 8, 64])
def test_linear_layers_follow_their_exact_law(width, kernels):
    depth, ensemble = 3, 10_000 if width < 64 else 2000
    found = ln_norms(kernels, laws.normal(std=1.0), "linear", depth, ensemble, width)
    mean = depth / 2 * float(mp.log(2) + mp.psi(0, mp.mpf(width) / 2))
    check_mean_and_variance(found, mean, depth / 4 * float(mp.psi(1, mp.mpf(width) / 2)))


@pytest.mark.parametrize("width", [2, 8])
def test_relu_layers_follow_their_exact_law(width, kernels):
    depth, ensemble = 4, 10_000
    found = ln_norms(kernels, laws.normal(std=math.sqrt(2 / width)), "relu", depth, ensemble, width)
    dead = np.isneginf(found)
    share = 1 - (1 - 0.5**width) ** depth
    assert abs(dead.mean() - share) < NORMAL_QUANTILE * math.sqrt(share * (1 - share) / ensemble)
    given_alive = [math.comb(width, k) / (2**width - 1) for k in range(1, width + 1)]
    moment = [
        (math.log(2 / width) + math.log(2) + float(mp.psi(0, k / 2)), float(mp.psi(1, k / 2)))
        for k in range(1, width + 1)
    ]
    mean = sum(p * m for p, (m, _) in zip(given_alive, moment, strict=True))
    variance = sum(p * (v + m * m) for p, (m, v) in zip(given_alive, moment, strict=True)) - mean**2
    # ln |.|^2 has these moments a layer, ln |.| half the mean and a quarter of the variance
    between = sum(p * (m - mean) ** 2 for p, (m, _) in zip(given_alive, moment, strict=True))
    within = sum(p * v for p, (_, v) in zip(given_alive, moment, strict=True))
    assert math.isclose(variance, between + within)
    check_mean_and_variance(found[~dead], depth * mean / 2, depth * variance / 4)


# Orthogonal layers


def orthogonal_matrices(kernels, width, ensemble, layer=1):
    """Q of each member: what it makes of the unit vectors, side by side."""
    job = make_job(orthogonal(), laws.zero(), "linear", [], ensemble)
    state = ScaledVectors.of(np.broadcast_to(np.eye(width), (ensemble, width, width)))
    kernels.layers_forward(job, state, np.empty((0, ensemble, width)), layer, layer + 1, 0, ensemble)
    return vectors(state).to_float().transpose(0, 2, 1)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 17, 33])
def test_orthogonal_layers_are_orthogonal(width, kernels):
    q = orthogonal_matrices(kernels, width, 5)
    assert np.abs(q @ q.transpose(0, 2, 1) - np.eye(width)).max() < 1e-14 * width


@pytest.mark.parametrize("width", [1, 2, 3, 8, 17])
def test_the_way_back_through_an_orthogonal_layer_is_its_transpose(width, kernels):
    ensemble = 4
    q = orthogonal_matrices(kernels, width, ensemble)
    job = make_job(orthogonal(0.75), laws.zero(), "linear", [], ensemble)
    back = ScaledVectors.of(np.broadcast_to(np.eye(width), (ensemble, width, width)))
    kernels.layers_backward(job, back, np.zeros((1, ensemble, width)), 1, 2, 0, ensemble)
    assert np.abs(vectors(back).to_float() - 0.75 * q).max() < 1e-14


def test_the_first_column_of_an_orthogonal_layer_is_the_first_vector_drawn(kernels):
    q = orthogonal_matrices(kernels, 6, 50)
    normals = philox.draw_weights(laws.normal(), SEED, 1, np.arange(50), 6, np.arange(1))[:, 0]
    assert np.abs(q[:, :, 0] - normals / np.linalg.norm(normals, axis=1)[:, None]).max() < 1e-15 * 8


def test_qr_of_the_drawn_normals_makes_the_first_two_columns(kernels):
    """A second method for two columns: the second is what Householder makes of the second row, turned by the first."""
    width, ensemble = 5, 20
    q = orthogonal_matrices(kernels, width, ensemble)
    normals = philox.draw_weights(laws.normal(), SEED, 1, np.arange(ensemble), width, np.arange(2))
    for member in range(ensemble):
        x, y = normals[member, 0], normals[member, 1, 1:]
        u = x + math.copysign(np.linalg.norm(x), x[0]) * np.eye(width)[0]
        turn = np.eye(width) - 2 * np.outer(u, u) / (u @ u)
        assert np.allclose(q[member, :, 1], turn @ [0, *y / np.linalg.norm(y)], rtol=0, atol=1e-14)


@pytest.mark.parametrize("width", [2, 3, 8])
def test_orthogonal_layers_are_haar_distributed(width, kernels):
    """Moments of entries, of a pair in one row and in one column, of the trace, and the sign of the determinant."""
    ensemble = 20_000
    q = orthogonal_matrices(kernels, width, ensemble)

    def check(values, expected):
        error = values.std() / math.sqrt(len(values))
        assert abs(values.mean() - expected) < 4.5 * error

    for i in range(width):
        for j in range(width):
            check(q[:, i, j], 0)
            check(q[:, i, j] ** 2, 1 / width)
            check(q[:, i, j] ** 4, 3 / (width * (width + 2)))
            if j:
                check(q[:, i, 0] ** 2 * q[:, i, j] ** 2, 1 / (width * (width + 2)))
                check(q[:, 0, i] ** 2 * q[:, j, i] ** 2, 1 / (width * (width + 2)))
                check(q[:, i, 0] * q[:, i, j], 0)
    check(np.linalg.det(q).round(), 0)
    trace = np.trace(q, axis1=1, axis2=2)
    check(trace, 0)
    check(trace**2, 1)
    # the eigenangles of one Haar matrix and of a product of two have one law
    two = np.trace(q @ orthogonal_matrices(kernels, width, ensemble, layer=2), axis1=1, axis2=2)
    check(two**2, 1)
    check(trace**4 - two**4, 0)


@pytest.mark.parametrize("width", [2, 8])
def test_orthogonal_layers_keep_the_norm(width, kernels):
    depth = 10_000 if width == 2 else 2000
    job = make_job(orthogonal(), laws.zero(), "linear", [1], 1)
    run(kernels, job, depth, inputs(1, width), cotangents(1, width))
    assert abs(float(fg.Scaled.of_parts(*job.adjoint_norm)[0, 0]) - 1) < 1e-11


# Calls, slices, extremes


def assert_equal_runs(ours, theirs):
    for name in ("state", "adjoint", *LayersJob._fields[5:]):
        parts = [getattr(of if hasattr(of, name) else of.job, name) for of in (ours, theirs)]
        for a, b in zip(*((p,) if isinstance(p, np.ndarray) else p for p in parts), strict=True):
            assert a.tobytes() == b.tobytes(), name


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("law", [laws.normal(std=1.0), orthogonal(1.25)], ids=str)
def test_cuts_in_layers_change_no_bit(law, nonlinearity, kernels):
    arguments = kernels, law, laws.normal(std=0.5), nonlinearity, 12, 7, 5, 2
    assert_equal_runs(measure(*arguments), measure(*arguments, calls=[2, 3, 8]))


def test_a_tape_made_again_is_the_same(kernels):
    depth, ensemble, width = 9, 3, 6
    job = make_job(laws.normal(std=1.0), laws.normal(), "tanh", [], ensemble)
    whole = run(kernels, job, depth, inputs(ensemble, width), cotangents(ensemble, width))
    state = ScaledVectors.of(inputs(ensemble, width))
    nothing = np.empty((0, ensemble, width))
    kernels.layers_forward(job, state, nothing, 1, 6, 0, ensemble)
    tape = np.empty((4, ensemble, width))
    kernels.layers_forward(job, state, tape, 6, 10, 0, ensemble)
    assert tape.tobytes() == whole.tape[5:].tobytes()
    assert state.value.tobytes() == whole.state.value.tobytes()


@pytest.mark.parametrize("std", [1e-300, 1e-30, 1e300])
@pytest.mark.parametrize("nonlinearity", ["relu", "linear"])
def test_powers_of_two_in_the_weights_are_powers_of_two_in_the_gradient(nonlinearity, std, kernels):
    power = int(np.frexp(std)[1])
    depth, arguments = 30, (nonlinearity, 30, 3, 8)
    small, one = (
        measure(kernels, laws.normal(std=of), laws.zero(), *arguments) for of in (math.ldexp(0.7, power), 0.7)
    )
    for name in ("adjoint_norm", "input_norm", "length"):
        a, b = (fg.Scaled.of_parts(*getattr(of.job, name)) for of in (small, one))
        assert np.array_equal(a.mantissa, b.mantissa)
    assert np.all(
        fg.Scaled.of_parts(*small.job.adjoint_norm).exponent[0] - fg.Scaled.of_parts(*one.job.adjoint_norm).exponent[0]
        == depth * power
    )


def test_tanh_far_below_one_is_linear(kernels):
    """Activations fall below every double within 500 layers, and the gradients are those of linear layers."""
    arguments = 2000, 2, 8
    tanh, linear = (
        measure(kernels, laws.normal(std=0.01), laws.zero(), name, *arguments) for name in ("tanh", "linear")
    )
    last = fg.Scaled.of_parts(*tanh.job.input_norm)[-1]
    assert np.all(last.log2() < -8000)
    ratio = fg.Scaled.of_parts(*tanh.job.input_norm).log2() - fg.Scaled.of_parts(*linear.job.input_norm).log2()
    assert np.all(np.abs(ratio[1500:] - ratio[1500]) < 1e-9)  # directions have met, and tanh is linear
    for layer in (100, 1999):
        ours, theirs = (fg.Scaled.of_parts(*of.job.adjoint_norm)[layer] for of in (tanh, linear))
        assert np.all(fg.log2_distance(ours, theirs) < 1e-10)


def test_a_layer_of_saturated_units_keeps_its_digits(kernels):
    """Every |z| near 3000: sigmoid(-3000) = 2^-4328 and sigmoid' are below every double, and so are the norms."""
    width = 4
    job = make_job(laws.constant(0.0), laws.constant(-3000.0), "sigmoid", [1, 2], 1)
    done = run(kernels, job, 2, inputs(1, width), cotangents(1, width))
    with mp.workdps(DIGITS):
        o, slope = phi("sigmoid", mp.mpf(-3000))
        assert distance(ScaledArrays(*(of[1] for of in job.input_norm)), [2 * o]) < RTOL
        assert distance(ScaledArrays(*(of[1] for of in job.delta_norm)), [slope]) < RTOL
    assert done.job.saturated.tolist() == [[1.0], [1.0]]
    assert done.job.adjoint_norm.mantissa.tolist() == [[0.0], [0.0]]  # through weights of 0


def test_nothing_passes_dead_layers(kernels):
    job = make_job(laws.normal(), laws.constant(-1e6), "relu", [1, 2, 3], 2)
    done = run(kernels, job, 3, inputs(2, 5), cotangents(2, 5))
    assert np.all(done.job.dead == 1)
    for numbers in (job.adjoint_norm, job.delta_norm):
        assert not numbers.mantissa.any()
        assert not numbers.exponent.any()
    assert not done.state.value.any()
    assert np.all(done.state.exponent == -(2**62))
    assert as_floats(job.length).tolist() == [
        [as_floats(job.length)[0, 0], as_floats(job.length)[0, 1]],
        [1e12] * 2,
        [1e12] * 2,
    ]


def test_a_dead_layer_comes_back_to_life_by_its_biases(kernels):
    """The exponent of a vector of zeros is below that of every bias, however large the weights are."""
    job = make_job(laws.constant(1e300), laws.constant(1e-300), "relu", [1, 2], 1)
    state = ScaledVectors.of(np.zeros((1, 1, 3)))
    kernels.layers_forward(job, state, np.empty((0, 1, 3)), 1, 3, 0, 1)
    assert as_floats(job.length)[0].tolist() == [0.0]  # 1e-600
    assert fg.Scaled.of_parts(*job.length).log10() == pytest.approx(np.array([[-600.0], [2 * math.log10(3.0)]]))


def test_weights_near_the_end_of_float64(kernels):
    """Sums that would be infinite, or infinite minus infinite."""
    for nonlinearity in NONLINEARITIES:
        done = measure(kernels, laws.normal(std=2e307), laws.normal(std=2e307), nonlinearity, 20, 3, 30)
        for name in ("length", "mean_activation", "input_norm", "delta_norm", "adjoint_norm"):
            assert np.isfinite(getattr(done.job, name).mantissa).all(), (nonlinearity, name)
        assert np.isfinite(done.state.value).all()
        alive = fg.Scaled.of_parts(*done.job.adjoint_norm).ln()[0] > 0
        assert alive.all() if nonlinearity in ("relu", "linear") else not alive.any()


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh"])
def test_preactivations_beyond_float64(nonlinearity, kernels):
    """W o and b may both be beyond every double: phi takes the sign of their sum, records have its size and angle."""
    rng = np.random.default_rng(11)
    width, members = 3, np.arange(1)
    for _ in range(60):
        weight, bias = (laws.normal(std=10.0 ** rng.uniform(285, 307.2)) for _ in range(2))
        x = rng.standard_normal((1, 2, width)) * 10.0 ** rng.uniform(-10, 307)
        job = make_job(weight, bias, nonlinearity, [1], 1)
        state = ScaledVectors.of(x)
        kernels.layers_forward(job, state, np.empty((0, 1, width)), 1, 2, 0, 1)
        w = exact(philox.draw_weights(weight, SEED, 1, members, width, np.arange(width))[0])
        b = exact(philox.draw_biases(bias, SEED, 1, members, width)[0])
        with mp.workdps(DIGITS):
            z, other = ([mp.fdot(w[i], exact(x[0, t])) + b[i] for i in range(width)] for t in range(2))
            assert distance(ScaledArrays(*(of[0] for of in job.length)), [mp.fdot(z, z) / width]) < 1e-11
            cosine = mp.fdot(z, other) / (norm(z) * norm(other))
        assert job.correlation[0, 0] == pytest.approx(float(cosine), abs=1e-12)
        assert job.saturated.tolist() == [[1.0]]
        low = 0.0 if nonlinearity == "sigmoid" else -1.0
        assert vectors(state).to_float()[0, 0].tolist() == [1.0 if zi > 0 else low for zi in z]


@pytest.mark.parametrize("law", [laws.normal(std=0.1), laws.uniform(-0.1, 0.1), orthogonal()], ids=str)
@pytest.mark.parametrize("width", [63, 127])
def test_slices_of_members_change_no_bit(width, law, kernels):
    arguments = kernels, law, laws.normal(std=0.5), "tanh", 3, 5, width, 2
    assert_equal_runs(measure(*arguments), measure(*arguments, slices=[1, 3]))


def test_several_cotangents_run_through_the_same_weights(kernels):
    depth, ensemble, width = 6, 3, 9
    job = make_job(laws.normal(std=0.5), laws.normal(), "tanh", [], ensemble)
    x, c = inputs(ensemble, width), cotangents(ensemble, width, 4)
    together = run(kernels, job, depth, x, c)
    for t in range(4):
        alone = run(kernels, job, depth, x, c[:, t : t + 1])
        assert np.allclose(together.adjoint.value[:, t], alone.adjoint.value[:, 0], rtol=1e-12)
        assert np.array_equal(together.adjoint.exponent[:, t], alone.adjoint.exponent[:, 0])


def test_scaled_vectors_are_exact():
    values = np.array([[[3.0, -0.25, 0.0], [0.0, 0.0, 0.0]], [[2.0**-1070, 2.0**-1074, 0.0], [1.5e308, 1.0, -1.0]]])
    scaled = ScaledVectors.of(values)
    assert np.array_equal(vectors(scaled).to_float(), values)
    largest = np.abs(scaled.value).max(axis=-1)
    assert np.array_equal((largest >= 0.5) & (largest < 1), [[True, False], [True, True]])
    assert scaled.exponent[0, 1] == -(2**62)


# Bits: of both compiled backends, every instruction set, and however members are cut into slices. Inputs and cotangents
# are multiples of 1/4, so that NumPy's own functions have no part in them.

NETWORKS = {
    "sigmoid, narrow": (laws.normal(std=1.0), laws.normal(std=0.5), "sigmoid", 5, 37),
    "sigmoid, saturated": (laws.normal(std=500.0), laws.zero(), "sigmoid", 3, 11),
    "tanh, wide": (laws.normal(mean=0.01, std=0.25), laws.uniform(-1, 1), "tanh", 67, 3),
    "tanh, tiny": (laws.normal(std=1e-40), laws.zero(), "tanh", 8, 20),
    "relu, narrow": (laws.normal(std=0.5), laws.constant(0.125), "relu", 8, 33),
    "linear, wide": (laws.uniform(-1e200, 1e200), laws.normal(std=1e-100), "linear", 33, 2),
    "orthogonal": (orthogonal(1.5), laws.normal(), "tanh", 21, 4),
}
PINNED = {
    "sigmoid, narrow": "21d771240bf872277f08aed873b5d94148b2b41d8be6836eb3811c257b1ca1b1",
    "sigmoid, saturated": "14e2cc20652e4f56a5d173427df76c32ce2945556623d8e7edea0e5d75527eb7",
    "tanh, wide": "d16a94210b5eedd072efa5ba95decd953d19fa58bbcbde198b78a7c08fb4d132",
    "tanh, tiny": "492490d022e9e4f1e8bf783748daf4fcc7275e71b865c94353d2b216cdf976b9",
    "relu, narrow": "d7dc90d9d743166a04b912bff7096fcd0704efa6dc96923cb81fcf83290f1e44",
    "linear, wide": "efdd4c9a96b978d5eb3a22ad78773f8bd068bb3602a077d4ccd4ebd93555b5de",
    "orthogonal": "a8553c8e245593019f1254f3b00654ad5deb620c9b384721348a57f884bf2130",
}


def quarters(shape, modulus):
    """Multiples of 1/4 of both signs, none of a vector all 0."""
    return ((np.arange(math.prod(shape)) * 5 % modulus) - modulus // 2).reshape(shape) / 4.0


def digest(kernels, network, cuts):
    """SHA-256 of all that a network of 12 layers leaves."""
    weight, bias, nonlinearity, width, ensemble = NETWORKS[network]
    job = make_job(weight, bias, nonlinearity, [1, 2, 7, 12], ensemble)
    x, c = quarters((ensemble, 2, width), 13), quarters((ensemble, 3, width), 11)
    slices = sorted({ensemble * cut // 4 for cut in range(1, cuts)} - {0})
    done = run(kernels, job, 12, x, c, calls=[5], slices=slices)
    made = hashlib.sha256()
    for of in (*job[5:], done.state, done.adjoint, done.tape):
        for array in [of] if isinstance(of, np.ndarray) else of:
            made.update(str(array.shape).encode() + array.tobytes())
    return made.hexdigest()


@pytest.mark.parametrize("network", NETWORKS)
def test_bits_of_layers_are_those_that_were_pinned(network, compiled_backend):
    kernels = load(compiled_backend)[1]
    found = set()
    before = fg._cpp.chosen() if compiled_backend == "cpp" else ""
    try:
        for name in fg._cpp.instruction_sets() if compiled_backend == "cpp" else [""]:
            if name:
                fg._cpp.choose(name)
            found |= {digest(kernels, network, cuts) for cuts in (1, 2, 4)}
    finally:
        if before:
            fg._cpp.choose(before)
    assert found == {PINNED[network]}


def test_every_network_is_pinned():
    assert list(PINNED) == list(NETWORKS)


@given(
    st.integers(1, 40),
    st.sampled_from(list(NONLINEARITIES)),
    st.floats(-320, 300),
    st.sampled_from(["normal", "uniform", "orthogonal", "shifted"]),
    st.floats(-320, 300) | st.none(),
    st.integers(1, 20),
    st.integers(0, 2**64 - 1),
    st.integers(1, 2**56 - 10),
)
@hypothesis.settings(max_examples=200)
def test_compiled_backends_return_equal_bits(
    compiled, width, nonlinearity, power, kind, bias_power, ensemble, seed, first
):
    """At any scale of weights and biases, seed and layer."""
    scale = 10.0**power
    weight = {
        "normal": laws.normal(std=scale),
        "uniform": laws.uniform(-scale, scale),
        "shifted": laws.normal(mean=-scale, std=scale / 8),
        "orthogonal": orthogonal(scale),
    }[kind]
    bias = laws.zero() if bias_power is None else laws.normal(std=10.0**bias_power)
    results = []
    for name in compiled:
        kernels = load(name)[1]
        job = make_job(weight, bias, nonlinearity, [first, first + 2], ensemble, seed)
        state, adjoint = (ScaledVectors.of(quarters((ensemble, 2, width), m)) for m in (13, 11))
        tape = np.empty((3, ensemble, width))
        kernels.layers_forward(job, state, tape, first, first + 3, 0, ensemble)
        kernels.layers_backward(job, adjoint, tape, first, first + 3, 0, ensemble)
        results.append(SimpleNamespace(job=job, state=state, adjoint=adjoint))
        assert np.isfinite(adjoint.value).all()
        assert np.isfinite(state.value).all()
    assert_equal_runs(*results)


def test_compiled_draws_are_those_of_the_definition(compiled_backend):
    """Unit vectors through linear layers show the weights, to a few units in the last place."""
    width, ensemble, kernels = 23, 3, load(compiled_backend)[1]
    for law in (laws.normal(std=3.0), laws.normal(mean=1.0, std=2.0), laws.uniform(-1.0, 3.0)):
        for layer in (1, 2**32 - 1, 2**32, 2**40 + 5, 2**56 - 1):
            job = make_job(law, laws.zero(), "linear", [], ensemble, seed=2**64 - 1)
            state = ScaledVectors.of(np.broadcast_to(np.eye(width), (ensemble, width, width)))
            kernels.layers_forward(job, state, np.empty((0, ensemble, width)), layer, layer + 1, 0, ensemble)
            got = vectors(state).to_float().transpose(0, 2, 1)
            rows = np.arange(width)
            expected = philox.draw_weights(law, 2**64 - 1, layer, np.arange(ensemble), width, rows)
            size = np.maximum(np.abs(expected), abs(law.location))
            assert np.all(np.abs(got - expected) <= 10 * ULP * size)
