"""The kernels on every backend: gradients of three shapes, and training; run with ``pytest bench`` (see README.md)."""

import math

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.train import drawn_task

SHAPES = {
    "one chain of 10^6 links": (1_000_000, 1),
    "1000 links x 4096 chains": (1000, 4096),
    "64 links x 65536 chains": (64, 65536),
}
WEIGHT, BIAS, SEED = "normal:std=4", "normal:std=1", 0
ROUNDS, REFERENCE_ROUNDS = 15, 3  # the reference takes minutes
TRAINING = {"depth": 10, "ensemble": 100_000, "steps": 5}


@pytest.fixture(scope="module", params=SHAPES)
def job(request):
    """A shape with its draws, the bound of agreement, and room for the reference's results, made once."""
    depth, ensemble = SHAPES[request.param]
    weight, bias = fg.draw(depth, ensemble, WEIGHT, BIAS, SEED)
    return {
        "name": request.param,
        "size": (depth, ensemble),
        "chain": (weight, bias),
        "rtol": fg.agreement_rtol(weight, bias),
    }


def rounds(backend):
    return REFERENCE_ROUNDS if backend == "numpy" else ROUNDS


def agree(a, b, rtol):
    return bool(np.all(fg.log2_distance(a, b) * math.log(2) <= rtol))


def timed(benchmark, backend, job, kernel, run, fields):
    """Check, then time, then check what was timed."""
    if kernel not in job:
        job[kernel] = run("numpy", None)
    reference = job[kernel]
    first = run(backend, None)  # compiles, or loads the cache
    assert all(agree(getattr(first, field), getattr(reference, field), job["rtol"]) for field in fields)

    benchmark.group = f"{kernel}: {job['name']}"
    depth, ensemble = job["size"]
    last = benchmark.pedantic(run, args=(backend, first), rounds=rounds(backend), warmup_rounds=1)
    benchmark.extra_info["links"] = depth * ensemble
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["ns_per_link"] = 1e9 * benchmark.stats.stats.median / (depth * ensemble)
    assert all(agree(getattr(last, field), getattr(reference, field), job["rtol"]) for field in fields)


def test_backprop(benchmark, backend, job):
    weight, bias = job["chain"]

    def run(name, out):
        return fg.backprop(weight, bias, 0.5, backend=name, threads=1, out=out)

    timed(benchmark, backend, job, "backprop", run, ("grad_weight", "grad_bias", "grad_x"))


def test_simulate(benchmark, backend, job):
    depth, ensemble = job["size"]

    def run(name, _):
        return fg.simulate(depth, ensemble, WEIGHT, BIAS, seed=SEED, backend=name, threads=1)

    timed(benchmark, backend, job, "simulate", run, ("adjoint", "grad_weight", "grad_bias", "bound"))


@pytest.fixture(scope="module")
def task():
    """Chains with inputs and targets, and what the reference makes of them."""
    chain, target = drawn_task(TRAINING["depth"], TRAINING["ensemble"], "normal", "normal", 0.5, 0.25, SEED)
    arguments = chain.weight, chain.bias, chain.x, target
    return arguments, fg.train(*arguments, steps=TRAINING["steps"], backend="numpy", threads=1)


def test_train(benchmark, backend, task):
    arguments, reference = task

    def run():
        return fg.train(*arguments, steps=TRAINING["steps"], record=2, backend=backend, threads=1)

    def check(training):
        assert np.allclose(training.weight, reference.weight, rtol=1e-12, atol=1e-12)
        assert np.array_equal(training.status, reference.status)

    check(run())  # compiles, or loads the cache
    depth, ensemble, steps = TRAINING.values()
    benchmark.group = f"train: {depth} links x {ensemble} chains, {steps} steps"
    last = benchmark.pedantic(run, rounds=rounds(backend), warmup_rounds=1)
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["ns_per_link"] = 1e9 * benchmark.stats.stats.median / (depth * ensemble * steps)
    check(last)
