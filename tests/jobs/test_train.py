"""Gradient descent: what the steps are, what becomes of a chain, and that every backend says the same."""

import csv
import io
import json
import math
import signal
import subprocess
import sys
import time
import tracemalloc
from functools import partial

import mpmath
import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.train import training_bytes
from fastgrad.kernels import load
from fastgrad.philox import philox4x32

WORKED_EXAMPLE = ([500, 500, 400], [-100_000, -250, -200], 200, -149.5)
FIELDS = ("loss", "weight", "bias", "status", "last_step")


def assert_same(a, b):
    for name in FIELDS:
        ours, theirs = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes(), name


def chains(rng, depth, ensemble, std=1.0):
    """Weights and biases of order `std`, inputs and targets in (0, 1)."""
    shape = depth, ensemble
    return rng.normal(0, std, shape), rng.normal(0, std, shape), rng.random(ensemble), rng.random(ensemble)


def test_no_tolerance_compares_the_rounded_cross_entropy(rng):
    weight, bias = rng.normal(size=(2, 2, 100))
    t = fg.train(weight, bias, rng.random(100), 0.3, loss="cross_entropy", tolerance=0, steps=20_000, learning_rate=1)
    assert set(t.status) == {"converged", "stalled"}  # all have come to rest at their optimum
    least = -0.3 * math.log(0.3) - 0.7 * math.log1p(-0.3)
    assert np.all(t.loss[-1][t.status == "converged"] <= least + 2.0**-54)
    assert np.all(np.abs(t.loss[-1] - least) <= 2.0**-52)


def test_chains_that_are_caught_at_the_start_are_told(backend, rng):
    w = np.array([9.0] * 3 + [1e-20] + [9.0] * 100)[:, None] * np.ones(5)
    b = -w / 2
    w[:, 3] = rng.normal(size=104)
    b[3, 4] = 0.1  # by a link that is not centered the chain does not come to 1/2
    with pytest.warns(UserWarning, match="2 of 5 chains are caught at 1/2") as record:
        t = fg.train(w, b, [0.3, 0.5, 0.9, 0.3, 0.3], 0.2, steps=2, backend=backend)
    assert t.caught.tolist() == [True, False, True, False, False]
    assert [warning.filename for warning in record] == [__file__]
    with pytest.warns(UserWarning, match="1 of 1 chains"):
        one = fg.train(w[:, 0], b[:, 0], 0.3, 0.2, steps=2, backend=backend)
    assert one.caught.shape == ()
    assert one.caught
    assert not fg.train(*WORKED_EXAMPLE, steps=2, backend=backend).caught


def test_worked_example_stalls_after_one_step(backend):
    t = fg.train(*WORKED_EXAMPLE, steps=1000, backend=backend)
    assert t.weight.tolist() == [-937_000.0, 500 - 18.75, 400 - 0.1875]
    assert t.bias.tolist() == [-104_687.5, -287.5, -200.375]
    assert (t.status, t.last_step, t.backend) == ("stalled", 1, backend)
    assert t.step[0] == 0
    assert t.step[-1] == 1000
    assert t.loss[0] == 11_250
    assert np.all(t.loss[1:] == 149.5**2 / 2)


def test_a_step_is_the_gradient_of_backprop(backend, rng):
    w, b, x, y = chains(rng, 7, 40, 3.0)
    output = fg.backprop(w, b, x, backend=backend).output
    g = fg.backprop(w, b, x, output - y, backend=backend)
    t = fg.train(w, b, x, y, learning_rate=0.25, steps=1, backend=backend)
    assert np.array_equal(t.weight, w - 0.25 * g.grad_weight.to_float())
    assert np.array_equal(t.bias, b - 0.25 * g.grad_bias.to_float())
    assert np.array_equal(t.loss[0], 0.5 * (output - y) * (output - y))


def descend(w, b, x, y, rate, steps, loss):
    """Gradient descent with mpmath: parameters and the losses before each step and after the last."""
    w, b = [mpmath.mpf(v) for v in w], [mpmath.mpf(v) for v in b]
    losses = []
    while True:
        o = [mpmath.mpf(x)]
        for w_l, b_l in zip(w, b, strict=True):
            o.append(1 / (1 + mpmath.exp(-(w_l * o[-1] + b_l))))
        if loss == "squared":
            losses.append((o[-1] - y) ** 2 / 2)
            adjoint = o[-1] - y
        else:
            losses.append(-y * mpmath.log(o[-1]) - (1 - y) * mpmath.log(1 - o[-1]))
            adjoint = (1 - y) / (1 - o[-1]) - y / o[-1]
        if len(losses) > steps:
            return w, b, losses
        for i in range(len(w) - 1, -1, -1):
            delta = adjoint * o[i + 1] * (1 - o[i + 1])
            adjoint = delta * w[i]
            w[i] -= rate * delta * o[i]
            b[i] -= rate * delta


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_against_the_oracle(backend, loss, rng):
    w, b, x, y = chains(rng, 4, 3, 2.0)
    t = fg.train(w, b, x, y, learning_rate=0.5, steps=30, loss=loss, record=31, backend=backend)
    with mpmath.workdps(40):
        for i in range(3):
            wanted_w, wanted_b, losses = descend(w[:, i], b[:, i], x[i], mpmath.mpf(y[i]), 0.5, 30, loss)
            assert t.weight[:, i] == pytest.approx(np.array(wanted_w, dtype=float), rel=1e-13)
            assert t.bias[:, i] == pytest.approx(np.array(wanted_b, dtype=float), rel=1e-13)
            assert t.loss[:, i] == pytest.approx(np.array(losses, dtype=float), rel=1e-12)


# Weights after 100 steps of torch.optim.SGD in float64, torch 2.13.0, from the chains of `torch_case`.
PINNED = {
    ("squared", 3): (
        [0.8065772421447923, -0.6002812695051254, -1.4816719320090916, -0.9800146744372713],
        [-1.641246603130237, 1.2308875661632246, -1.4067952445006568, 1.2194248664771061],
    ),
    ("squared", 10): (
        [0.8104533933963662, -0.6242202612265916, -1.4849887428324173, -0.980465436597905],
        [-1.6672022678653362, -0.06703685084074364, 0.2540103891419528, 0.027509340416798835],
    ),
    ("cross_entropy", 5): (
        [0.8104869368193341, -0.6244874053498644, -1.4822736995985628, -0.9804052296321328],
        [-0.24300139514040564, -0.8447934815342294, -0.6216634303278721, 0.6785454229489644],
    ),
}


def torch_case(depth):
    """Chains with weights of order 1 that need no random generator."""
    link = np.arange(1.0, depth + 1)[:, None]
    member = np.arange(4.0)
    w, b = 1.5 * np.cos(link * (member + 1)), np.sin(2 * link + member)
    return w, b, 0.2 * (member + 1), 0.15 + 0.2 * member


@pytest.mark.parametrize(("loss", "depth"), PINNED)
def test_against_pinned_values_of_torch(backend, loss, depth):
    t = fg.train(*torch_case(depth), learning_rate=0.3, steps=100, loss=loss, backend=backend)
    assert t.weight[0] == pytest.approx(PINNED[loss, depth][0], rel=1e-10)
    assert t.weight[-1] == pytest.approx(PINNED[loss, depth][1], rel=1e-10)


def torch_training(torch, w, b, x, y, rate, steps, loss):
    weight, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (w, b))
    x, y = (torch.tensor(v, dtype=torch.float64) for v in (x, y))
    optimizer = torch.optim.SGD([weight, bias], lr=rate)
    for _ in range(steps):
        o = x
        for link in range(len(w)):
            o = torch.sigmoid(weight[link] * o + bias[link])
        if loss == "squared":
            total = (0.5 * (o - y) ** 2).sum()
        else:
            total = torch.nn.functional.binary_cross_entropy(o, y, reduction="sum")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return weight.detach().numpy(), bias.detach().numpy()


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("depth", [3, 6, 10])
def test_against_torch(backend, loss, depth, rng):
    torch = pytest.importorskip("torch", reason="compared with PyTorch where it is installed")
    for case in (torch_case(depth), chains(rng, depth, 20)):
        weight, bias = torch_training(torch, *case, 0.3, 100, loss)
        t = fg.train(*case, learning_rate=0.3, steps=100, loss=loss, backend=backend)
        assert t.weight == pytest.approx(weight, rel=1e-10)
        assert t.bias == pytest.approx(bias, rel=1e-10)


def test_compiled_backends_return_equal_bits(compiled, rng):
    """Over every scale: narrow links and wide ones, dead ones, steps that leave float64, clipped and not."""
    outcomes = set()
    for case in range(60):
        depth, ensemble = int(rng.integers(1, 13)), int(rng.choice([1, 5, 32, 33, 129, 200]))
        w, b, x, y = chains(rng, depth, ensemble, float(rng.choice([0.1, 1, 4, 30, 500, 1e4, 1e160, 1e300])))
        if case % 5 == 0:
            w[rng.integers(depth)] = 0.0
        how = {
            "loss": ("squared", "cross_entropy")[case % 2],
            "steps": int(rng.integers(1, 40)),
            "learning_rate": float(rng.choice([1e-310, 1e-3, 0.1, 1, 30, 1e10, 1e300])),
            "clip_value": rng.choice([None, None, 1e-3, 1e-320, 1e300]),
            "clip_norm": rng.choice([None, None, 1e-3, 1e-320, 1e300]),
            "tolerance": float(rng.choice([0, 1e-12, 1e-3])),
        }
        x = x * float(rng.choice([0, 1, -1, 1e-320, 200, 1e200]))
        if case % 6 == 0:
            y, how = y * -1e306, {**how, "learning_rate": 1e10, "clip_value": None, "clip_norm": None}
        run = partial(fg.train, w, b, x, y if case % 3 else np.round(y), **how)
        first = run(backend=compiled[0], threads=1)
        assert_same(first, run(backend=compiled[1], threads=2))
        outcomes |= set(first.status)
        assert np.isfinite(first.weight).all()
        assert not np.isnan(first.loss).any()
    assert outcomes == {"converged", "stalled", "diverged", "running"}


def test_reference_agrees(compiled_backend, rng):
    for loss in ("squared", "cross_entropy"):
        for clip in ({}, {"clip_value": 0.01}, {"clip_norm": 0.02}, {"clip_value": 0.01, "clip_norm": 0.02}):
            case = chains(rng, 5, 100, 2.0)
            how = {"learning_rate": 0.5, "steps": 100, "loss": loss, **clip}
            t, reference = fg.train(*case, **how, backend=compiled_backend), fg.train(*case, **how, backend="numpy")
            assert t.weight == pytest.approx(reference.weight, rel=1e-11)
            assert t.bias == pytest.approx(reference.bias, rel=1e-11)
            assert np.array_equal(t.status, reference.status)


def test_a_chain_does_not_depend_on_its_neighbors(backend, rng):
    w, b, x, y = chains(rng, 3, 150, 4.0)
    whole = fg.train(w, b, x, y, steps=50, backend=backend)
    for i in (0, 31, 149):
        alone = fg.train(w[:, i], b[:, i], x[i], y[i], steps=50, backend=backend)
        assert np.array_equal(alone.weight, whole.weight[:, i])
        assert np.array_equal(alone.loss, whole.loss[:, i])
        assert (alone.status, alone.last_step) == (whole.status[i], whole.last_step[i])


@pytest.mark.parametrize("elements", [1, 4000])
def test_calls_can_be_cut_anywhere(backend, elements, rng, monkeypatch):
    w, b, x, y = chains(rng, 3, 100, 30.0)
    y[:50] = -1.0  # some stand still soon
    how = {"steps": 40, "learning_rate": 100.0, "backend": backend}
    whole = fg.train(w, b, x, y, **how)
    kernels = load(backend)[1]
    monkeypatch.setattr(kernels, "LIMITS", kernels.LIMITS._replace(elements=elements))
    assert_same(whole, fg.train(w, b, x, y, **how))
    assert {"stalled", "running"} <= set(whole.status)


def test_converged(backend):
    t = fg.train([1.0], [0.0], 0.5, 0.6, learning_rate=5.0, steps=400, record=401, backend=backend)
    assert t.status == "converged"
    assert t.loss[t.last_step] <= 1e-12 < t.loss[t.last_step - 1]
    assert np.all(t.loss[t.last_step :] <= 1e-12)
    assert t.loss[-1] < 1e-25  # steps go on


def test_converged_at_the_start_and_lost_again(backend):
    # A step so large that it throws the chain off the minimum that it nearly sat on.
    output = float(fg.backprop([1.0], [0.0], 0.5).output)
    t = fg.train([1.0], [0.0], 0.5, output + 1e-7, learning_rate=1e9, steps=20, backend=backend)
    assert t.loss[0] <= 1e-12
    assert t.status != "converged"


def test_cross_entropy_converges_to_the_entropy_of_the_target(backend):
    y = 0.3
    t = fg.train([1.0], [0.0], 0.5, y, loss="cross_entropy", learning_rate=1.0, steps=300, backend=backend)
    assert t.status == "converged"
    assert t.loss[-1] == pytest.approx(-y * math.log(y) - (1 - y) * math.log(1 - y), rel=1e-14)


def test_running(backend):
    t = fg.train([1.0], [0.0], 0.5, 0.9, steps=5, backend=backend)
    assert (t.status, t.last_step) == ("running", 5)
    assert np.all(np.diff(t.loss) < 0)


def test_diverged_keeps_what_float64_holds(backend):
    w, b = np.array([[1e300, 1.0]]), np.array([[-5e299, 0.0]])
    t = fg.train(w, b, 0.5, [1e300, 0.6], learning_rate=1e100, steps=8, record=9, backend=backend)
    assert t.status.tolist()[0] == "diverged"
    assert t.last_step[0] == 1
    assert t.weight[0, 0] == 1e300
    assert t.bias[0, 0] == -5e299
    assert np.all(np.isinf(t.loss[1:, 0]))
    assert t.status[1] != "diverged"
    assert np.isfinite(t.loss[:, 1]).all()


def test_gradients_beyond_float64_make_ordinary_steps(backend):
    # The gradient is about 1e370, and the learning rate brings the step back.
    w, b = [[4e150], [4e220]], [[-2e150], [-2e220]]
    t = fg.train(w, b, 0.5, -1.0, learning_rate=1e-300, steps=1, backend=backend)
    gradient = fg.backprop(w, b, 0.5, 1.5).grad_bias[0, 0]
    assert gradient.log10() > 219
    assert t.bias[0, 0] == -2e150 - 1e-300 * float(gradient)


@pytest.mark.parametrize(("limit", "rate"), [(1e-3, 1.0), (1e-300, 1e299), (3.0, 1e-3)])
def test_clip_value(backend, limit, rate, rng):
    w, b, x, y = chains(rng, 3, 64, 1.0)
    w[:, ::2] *= 300.0  # some gradients are tiny
    g = fg.backprop(w, b, x, fg.backprop(w, b, x).output - y)
    t = fg.train(w, b, x, y, learning_rate=rate, steps=1, clip_value=limit, backend=backend)
    wanted = w - rate * np.clip(g.grad_weight.to_float(), -limit, limit)
    assert t.weight == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("limit", [1e-3, 1e-200, 1e3])
def test_clip_norm(backend, limit, rng):
    w, b, x, y = chains(rng, 3, 64, 1.0)
    g = fg.backprop(w, b, x, fg.backprop(w, b, x).output - y)
    grads = np.concatenate([g.grad_weight.to_float(), g.grad_bias.to_float()])
    norm = np.sqrt((grads**2).sum(axis=0))
    rate = 0.1 / limit
    t = fg.train(w, b, x, y, learning_rate=rate, steps=1, clip_norm=limit, backend=backend)
    wanted = b - rate * grads[3:] * np.minimum(1.0, limit / norm)
    assert t.bias == pytest.approx(wanted, rel=1e-13)


def test_clip_norm_beyond_float64(backend):
    # Both gradients are beyond 1e400, and their squares beyond 1e800.
    w, b = [[4e200], [4e200], [4.0]], [[-2e200], [-2e200], [-2.0]]
    t = fg.train(w, b, 0.5, -1.0, learning_rate=1e199, steps=1, clip_norm=2.0, backend=backend)
    step = np.array([-2e200 - t.bias[0, 0], 4e200 - t.weight[0, 0]]) / 1e199
    assert step == pytest.approx(2.0 / math.sqrt(1.25) * np.array([1.0, 0.5]), rel=1e-13)


@pytest.mark.parametrize("z", [-1e308, -800.0, -50.0, -1.0, 0.0, 0.5, 30.0, 745.0, 1e308])
@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
def test_cross_entropy_of_every_preactivation(backend, z, y):
    t = fg.train([1.0], [z], 0.0, y, loss="cross_entropy", learning_rate=1e-3, steps=1, backend=backend)
    with mpmath.workdps(400):
        softplus = mpmath.log1p(mpmath.exp(-abs(mpmath.mpf(z))))
        wanted = float((y if z < 0 else 1 - y) * abs(mpmath.mpf(z)) + softplus)
    assert t.loss[0] == pytest.approx(wanted, rel=1e-15, abs=1e-323)
    output = float(fg.backprop([1.0], [z], 0.0).output)
    assert t.bias[0] == z - 1e-3 * (output - y)


def test_one_link_and_an_input_of_zero(backend):
    t = fg.train([2.0], [0.0], 0.0, 1.0, learning_rate=1.0, steps=1, backend=backend)
    assert t.weight.tolist() == [2.0]
    assert t.bias.tolist() == [0.125]


def test_recorded_steps(backend):
    t = fg.train([1.0], [0.0], 0.5, 0.9, steps=1000, record=5, backend=backend)
    assert t.step.tolist() == [0, 250, 500, 750, 1000]
    every = fg.train([1.0], [0.0], 0.5, 0.9, steps=1000, record=10**6, backend=backend)
    assert every.step.tolist() == list(range(1001))
    assert np.array_equal(t.loss, every.loss[t.step])


def test_inputs_are_left_alone(backend):
    w, b = np.array([[1.0, 2.0]]), np.array([[0.0, 0.5]])
    x, y = np.array([0.5, 0.25]), np.array([0.1, 0.9])
    before = [v.copy() for v in (w, b, x, y)]
    for array in (w, b, x, y):
        array.flags.writeable = False
    fg.train(w, b, x, y, steps=3, backend=backend)
    assert all(np.array_equal(a, v) for a, v in zip(before, (w, b, x, y), strict=True))


def test_summary(backend):
    t = fg.train([[1.0, 500.0]], [[0.0, -1.0]], 0.5, [0.6, 0.5], learning_rate=5.0, steps=300, backend=backend)
    s = t.summary()
    assert s["share"] == {"converged": 0.5, "stalled": 0.5, "diverged": 0.0, "running": 0.0}
    assert s["last_step"]["diverged"] is None
    assert s["last_step"]["stalled"] == t.last_step[1] == 0
    assert s["loss"]["q95"][-1] == t.loss[-1].max() == 0.125


def test_progress():
    seen = []
    fg.train(*chains(np.random.default_rng(1), 3, 3000), steps=2000, progress=lambda *done: seen.append(done))
    assert seen[-1] == (3000 * 2001, 3000 * 2001)
    assert len(seen) > 3
    assert seen == sorted(seen)


def test_drawn_inputs_are_a_stream_of_their_own():
    t = fg.train_drawn(2, 5, "normal:std=2", "zero", seed=9, steps=1, learning_rate=1e-300, record=2)
    w, b = fg.draw(2, 5, "normal:std=2", "zero", seed=9)
    words = philox4x32(tuple(np.array(v, dtype=np.uint64) for v in (1, 0, 3, 1)), (9, 0))
    u, v = (((int(words[i]) << 32 | int(words[i + 1])) >> 11) * 2.0**-53 + 2.0**-54 for i in (0, 2))
    alone = fg.train(w[:, 3], b[:, 3], u, 0.1 + 0.8 * v, steps=1, learning_rate=1e-300, record=2)
    assert t.loss[0, 3] == pytest.approx(alone.loss[0], rel=1e-12)
    fixed = fg.train_drawn(2, 5, "normal:std=2", x=0.25, target="constant:0.5", seed=9, steps=1)
    assert fixed.loss[0, 3] == fg.train(w[:, 3], b[:, 3], 0.25, 0.5, steps=1).loss[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 0}, "learning_rate: expected a number above 0, got 0"),
        ({"learning_rate": math.nan}, "learning_rate: expected finite"),
        ({"learning_rate": [0.1, 0.2]}, "learning_rate: expected a number, got shape"),
        ({"steps": 0}, "steps: expected 1 to"),
        ({"steps": 1.5}, "steps: expected an integer"),
        ({"loss": ["squared"]}, "loss: expected squared or cross_entropy"),
        ({"loss": "hinge"}, "loss: expected squared or cross_entropy, got 'hinge'"),
        ({"loss": "cross_entropy", "target": 1.5}, "target: expected 0 to 1 for the cross entropy, got 1.5"),
        ({"clip_value": -1}, "clip_value: expected a number above 0"),
        ({"clip_norm": 0.0}, "clip_norm: expected a number above 0"),
        ({"tolerance": -1e-3}, "tolerance: expected at least 0"),
        ({"record": 1}, "record: expected 2 to"),
        ({"target": [0.1, 0.2]}, "target: expected a number or shape"),
        ({"target": math.inf}, "target: expected finite numbers, got inf"),
        ({"weight": [math.nan]}, "weight: expected finite numbers, got nan"),
        ({"x": "a"}, "x: expected real numbers"),
        ({"backend": "cuda"}, "backend: unknown backend 'cuda'"),
        ({"threads": 0}, "threads: expected 1 to"),
        ({"steps": 10**15, "record": 2**31, "weight": np.ones((1, 10**6))}, "would take .* of memory"),
    ],
)
def test_bad_input(change, words):
    arguments = {"weight": [1.0], "bias": [0.0], "x": 0.5, "target": 0.5, **change}
    if np.ndim(arguments["weight"]) == 2:
        arguments["bias"] = 0.0
    with pytest.raises((ValueError, TypeError), match=words):
        fg.train(**arguments)


def test_bad_laws():
    with pytest.raises(ValueError, match="target: centered is a law of the bias"):
        fg.train_drawn(target="centered")
    with pytest.raises(ValueError, match="x: value: expected a finite number"):
        fg.train_drawn(x=math.inf)


@pytest.mark.parametrize("clip", ["clip_value", "clip_norm"])
def test_the_largest_limit_is_a_limit(backend, clip):
    largest = float(np.finfo(float).max)
    run = partial(fg.train, [1e308] * 3, [-5e307] * 3, 0.5, 1e300, learning_rate=1e-300, steps=1, backend=backend)
    t, unlimited = run(**{clip: largest}), run()
    assert unlimited.status == "diverged"
    assert t.status == "stalled"


@pytest.mark.parametrize(("depth", "ensemble", "steps", "record"), [(100, 20_000, 20, 2), (1, 20_000, 600, 500)])
def test_memory_is_what_is_counted(depth, ensemble, steps, record, compiled_backend):
    w, b = np.zeros((2, depth, ensemble))
    run = partial(
        fg.train, w, b, 0.5, 0.6, steps=steps, tolerance=1, record=record, backend=compiled_backend, threads=1
    )
    fg.train(w[:, :1], b[:, :1], 0.5, 0.6, steps=1, backend=compiled_backend)  # compiles
    tracemalloc.start()
    try:
        run()
        arrays = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    limits = load(compiled_backend)[1].LIMITS._replace(lanes=0)  # kernels allocate their lanes unseen
    assert arrays == pytest.approx(training_bytes(depth, ensemble, steps, record, limits, 1), rel=0.1)


def test_what_stands_still_costs_nothing(backend):
    t = fg.train(*WORKED_EXAMPLE, steps=10**15, backend=backend)
    assert (t.status, t.last_step, t.step[-1]) == ("stalled", 1, 10**15)
    assert np.all(t.loss[1:] == 149.5**2 / 2)


def test_entropy_of_a_tiny_target(backend):
    y = 1e-20
    t = fg.train([0.0], [math.log(y)], 0.0, y, loss="cross_entropy", steps=1, tolerance=1e-26, backend=backend)
    assert t.status == "converged"


def test_ctrl_c_pressed_twice():
    """The second one comes while the first waits for the kernels: Python must not end before their threads."""
    code = """
import fastgrad as fg
fg.train_drawn(3, 100_000, steps=10**6, backend="cpp", progress=lambda *_: print("running", flush=True))
"""
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
            assert job.stdout.readline() == b"running\n"
            job.send_signal(signal.SIGINT)
            time.sleep(0.01)
            job.send_signal(signal.SIGINT)
            _, stderr = job.communicate(timeout=30)
        assert b"KeyboardInterrupt" in stderr
        assert job.returncode in (-signal.SIGINT, 1)


# The command line


@pytest.fixture
def run(cli):
    """Function that runs ``fastgrad train``."""
    return partial(cli, "train")


@pytest.fixture
def document(document):
    """Function that returns the JSON of ``fastgrad train``."""
    return partial(document, "train")


def test_command_tells_the_worked_example(backend, run, document):
    text = run("--example", "--backend", backend).stdout
    assert "Stalled after step 1: the loss goes from 11 250 to 11 175.125, and stays there." in text
    for row in ("1 500 -937 000 -100 000 -104 687.5", "2 500 481.25 -250 -287.5", "3 400 399.8125 -200 -200.375"):
        assert row in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    result = document("--example", "--backend", backend)["result"]
    assert result["weight"] == [-937_000, 481.25, 399.8125]
    assert result["status"] == "stalled"
    assert result["last_step"]["stalled"] == 1
    assert result["final_loss"]["stalled"] == 11_175.125


def test_command_draws_chains(document, run):
    found = document("--weight", "normal:std=500", "--ensemble", 200, "--steps", 50, "--seed", 3)
    t = fg.train_drawn(3, 200, "normal:std=500", seed=3, learning_rate=1.0, steps=50)
    assert found["result"] == json.loads(json.dumps(t.summary()))
    assert found["parameters"]["learning_rate"] == 1.0
    text = run("--weight", "normal:std=500", "--ensemble", 200, "--steps", 50, "--seed", 3).stdout
    assert f"{100 * np.mean(t.status == 'converged'):.1f} %" in text
    assert "loss (median)" in text


@pytest.mark.parametrize("ending", ["npz", "npy", "csv"])
def test_command_trains_a_file(ending, tmp_path, document):
    w, b = np.array([1.0, -2.0]), np.array([0.5, 0.25])
    path = tmp_path / f"chain.{ending}"
    if ending == "npz":
        np.savez(path, weight=w, bias=b, x=0.25, target=0.75)
    elif ending == "npy":
        np.save(path, w)
    else:
        path.write_text("weight,bias\n1,0.5\n-2,0.25\n")
    how = () if ending == "npz" else ("--x", 0.25, "--target", 0.75)
    result = document(path, *how, "--steps", 10)["result"]
    wanted = fg.train(w, b if ending != "npy" else 0.0, 0.25, 0.75, steps=10)
    assert result["weight"] == wanted.weight.tolist()


def test_command_writes_what_training_leaves(tmp_path, run):
    run("--ensemble", 20, "--steps", 10, "--record", 6, "-o", tmp_path / "t.npz", "--plot", tmp_path / "t.png")
    t = fg.train_drawn(3, 20, steps=10, record=6, learning_rate=1.0)
    with np.load(tmp_path / "t.npz") as found:
        assert np.array_equal(found["weight"], t.weight)
        assert np.array_equal(found["loss"], t.loss)
        assert found["status"].tolist() == t.status.tolist()
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    rows = list(
        csv.DictReader(io.StringIO(run("--ensemble", 20, "--steps", 10, "--record", 6, "--format", "csv").stdout))
    )
    assert [int(row["step"]) for row in rows] == t.step.tolist()
    assert float(rows[-1]["loss_q50"]) == t.summary()["loss"]["q50"][-1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--example", "--depth", 5), 2, "--depth is for chains that are drawn, not for --example"),
        (("{file}",), 1, "chain.npz: has no array 'target', expected one or --target VALUE"),
        (("{file}", "--target", "uniform:low=0,high=1"), 2, "target: expected a number for chains that are given"),
        (("{file}", "--example"), 2, "FILE or --example, not both"),
        (("{file}", "--target", "nan"), 1, "target: expected finite numbers"),
        (("--target", 2, "--loss", "cross_entropy"), 2, "target: expected 0 to 1 for the cross entropy, got 2.0"),
        (("--learning-rate", -1), 2, "learning_rate: expected a number above 0"),
        (("--steps", "1.5"), 2, "expected a whole number"),
        (("--x", "gaussian"), 2, "x: unknown law 'gaussian'"),
        (("--clip-norm", "nan"), 2, "'--clip-norm': expected a finite number, got nan"),
    ],
)
def test_command_refuses(arguments, code, words, tmp_path, run):
    np.savez(tmp_path / "chain.npz", weight=np.ones(3))
    result = run(*(str(a).format(file=tmp_path / "chain.npz") for a in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_command_tells_a_loss_beyond_float64(run):
    text = run("--target", 1e300, "--ensemble", 5, "--steps", 3).stdout
    assert "(beyond float64 throughout)" in text
    assert "exactly zero" not in text
