"""Runs of dense layers: the cut into slices, pages and segments changes nothing but time and memory."""

import itertools
import tracemalloc

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import laws, philox
from fastgrad.jobs import layers
from fastgrad.jobs.threads import Threads
from fastgrad.kernels import LayersJob, ScaledArrays, ScaledVectors, load
from fastgrad.nonlinearities import NONLINEARITIES

RECORDED = [1, 5, 6, 30]
DEPTH = 30


def run(backend, width, ensemble, threads=1, progress=None, depth=DEPTH):
    """Everything that a run leaves."""
    shape = len(RECORDED), ensemble
    numbers = [ScaledArrays.of(fg.Scaled.empty(shape)) for _ in range(5)]
    job = LayersJob(
        weight_law=laws.normal(std=1.0).code,
        bias_law=laws.normal(std=0.5).code,
        seed=1,
        nonlinearity=NONLINEARITIES["tanh"].code,
        recorded_layers=np.array(RECORDED),
        length=numbers[0],
        mean_activation=numbers[1],
        saturated=np.empty(shape),
        dead=np.empty(shape),
        correlation=np.empty(shape),
        input_norm=numbers[2],
        delta_norm=numbers[3],
        adjoint_norm=numbers[4],
    )
    values = (np.arange(ensemble * 2 * width) % 7 - 3.0).reshape(ensemble, 2, width)
    state, adjoint = ScaledVectors.of(values), ScaledVectors.of(values[:, ::-1])
    with Threads(threads) as pool:
        layers.run_layers(load(backend)[1], job, state, adjoint, depth, pool, progress)
    return [
        array.tobytes() for of in (*job[5:], state, adjoint) for array in ([of] if isinstance(of, np.ndarray) else of)
    ]


CUTS = [  # bytes of tape, weights of a call
    (2**27, 2**26),
    (2**27, 1),
    (0, 2**26),
    (8 * 5 * 7 * 3, 1000),
]


@pytest.mark.parametrize(("width", "ensemble"), [(5, 70), (5, 1), (16, 7), (33, 3)])
def test_no_bit_depends_on_the_cut(width, ensemble, monkeypatch, compiled_backend):
    module = load(compiled_backend)[1]
    expected = run(compiled_backend, width, ensemble)
    for (tape, weights), threads in itertools.product(CUTS, [1, 2, 3]):
        monkeypatch.setattr(layers, "TAPE_BYTES", tape)
        monkeypatch.setattr(module, "LIMITS", module.LIMITS._replace(weights=weights))
        assert run(compiled_backend, width, ensemble, threads) == expected


def test_the_reference_is_cut_too(monkeypatch):
    expected = run("numpy", 6, 5)
    monkeypatch.setattr(layers, "TAPE_BYTES", 0)
    assert run("numpy", 6, 5, threads=2) == expected


@pytest.mark.parametrize("tape", [2**27, 0])
def test_progress_rises_to_the_depth(tape, monkeypatch, compiled_backend):
    module, told = load(compiled_backend)[1], []
    monkeypatch.setattr(layers, "TAPE_BYTES", tape)
    monkeypatch.setattr(module, "LIMITS", module.LIMITS._replace(weights=2000))
    run(compiled_backend, 16, 5, 2, lambda done, depth: told.append((done, depth)))
    done = [of for of, _ in told]
    assert done == sorted(done)
    assert len(set(done)) > 10
    assert told[-1] == (DEPTH, DEPTH)
    assert {depth for _, depth in told} == {DEPTH}


@pytest.mark.parametrize(
    ("depth", "ensemble", "width", "inputs", "threads"),
    [(1, 1, 1, 1, 1), (100, 30, 400, 1, 2), (10**5, 1, 256, 1, 1), (10**6, 10**6, 8, 2, 4), (10**9, 3, 64, 2, 2)],
)
def test_plans(depth, ensemble, width, inputs, threads):
    plan = layers.plan(depth, ensemble, width, inputs, threads, 2**26)
    assert 1 <= plan.members <= ensemble
    assert 1 <= plan.segment <= depth
    assert plan.page >= 1
    assert plan.page * plan.members * width**2 <= 2**26 or plan.page == 1
    square_root = 8 * threads * plan.members * width * 2 * (depth * inputs) ** 0.5
    assert plan.bytes <= 2 * layers.TAPE_BYTES + 2 * square_root


def test_short_networks_are_run_forward_once():
    assert layers.plan(1000, 10**6, 64, 2, 4, 2**26).segment == 1000


def test_memory_is_that_of_the_plan(monkeypatch, compiled_backend):
    monkeypatch.setattr(layers, "TAPE_BYTES", 2**20)
    depth, ensemble, width = 20_000, 20, 16
    plan = layers.plan(depth, ensemble, width, 2, 1, load(compiled_backend)[1].LIMITS.weights)
    assert plan.segment < depth
    run(compiled_backend, width, ensemble)  # compiled
    tracemalloc.start()
    run(compiled_backend, width, ensemble, depth=depth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * plan.bytes + 2**19


def test_an_error_in_progress_ends_the_run(compiled_backend):
    def interrupt(done, depth):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(compiled_backend, 16, 5, 2, interrupt)


def largest_exponent(width):
    """Largest rate of ln |adjoint| a layer over a grid of sigma_w, sigmoid without biases, and its standard error."""
    found, depth, ensemble, settled = [], 300, 64, 101
    for sigma_w in (12, 16, 20, 25, 30, 40, 60, 100):
        shape = 1, ensemble
        numbers = [ScaledArrays.of(fg.Scaled.empty(shape)) for _ in range(5)]
        floats = [np.empty(shape) for _ in range(3)]
        job = LayersJob(
            laws.normal(std=sigma_w / width**0.5).code,
            laws.zero().code,
            1,
            NONLINEARITIES["sigmoid"].code,
            np.array([settled]),
            *numbers[:2],
            *floats,
            *numbers[2:],
        )
        state = ScaledVectors.of(np.full((ensemble, 1, width), 0.5))
        adjoint = ScaledVectors.of(philox.draw_cotangents(1, 1, np.arange(ensemble), width)[:, None])
        with Threads(1) as pool:
            layers.run_layers(load("auto")[1], job, state, adjoint, depth, pool)
        rates = fg.Scaled.of_parts(*job.adjoint_norm)[0].ln() / (depth - settled + 1)
        found.append((rates.mean(), rates.std() / ensemble**0.5))
    return max(found)


def test_narrow_sigmoid_layers_never_explode_and_wider_ones_do():
    """Between 16 and 32 units lies the width from which on some sigma_w makes a gradient grow."""
    mean, error = largest_exponent(16)
    assert mean < -5 * error
    mean, error = largest_exponent(32)
    assert mean > 5 * error
