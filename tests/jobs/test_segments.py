"""Given deep chains on several threads: the bits of one, right guesses and wrong ones."""

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs import segments
from fastgrad.jobs.threads import Threads
from fastgrad.kernels import constants, load


def same(found, expected):
    """Compare all results, bit for bit."""
    assert np.array_equal(found.output, expected.output)
    for name in ("grad_weight", "grad_bias", "grad_x"):
        assert np.array_equal(getattr(found, name).mantissa, getattr(expected, name).mantissa)
        assert np.array_equal(getattr(found, name).exponent, getattr(expected, name).exponent)


@pytest.fixture
def stages(monkeypatch):
    """The stages that are run, as (stage, first, last, member)."""
    seen = []
    run = segments._Parts._run
    monkeypatch.setattr(
        segments._Parts,
        "_run",
        lambda self, stage, part, *of: (seen.append((stage, *of, self._member)), run(self, stage, part, *of))[1],
    )
    return seen


@pytest.mark.parametrize(
    "laws",
    [
        ("normal:std=4", "normal:std=1"),
        ("normal:std=500", "zero"),
        ("constant:20", "constant:-10"),  # stays where it begins
        ("constant:9", "centered"),  # rest is a fixed point that pushes away
        ("normal:std=12", "centered"),
        ("uniform:low=-1,high=1", "normal:std=300"),  # saturated
    ],
)
@pytest.mark.parametrize("shape", [(100_001, 1), (32_768, 2), (50_000, 8)])
@pytest.mark.filterwarnings("ignore:.*caught at 1/2")
def test_any_number_of_threads_has_the_bits_of_one(compiled_backend, laws, shape):
    w, b = fg.draw(*shape, *laws, seed=11)
    x = np.linspace(0.3, 0.7, shape[1]) + 1e-9
    expected = fg.backprop(w, b, x, backend=compiled_backend, threads=1)
    for threads in (2, 3, 7):
        same(fg.backprop(w, b, x, backend=compiled_backend, threads=threads), expected)


def test_any_chain_of_the_oracle(compiled_backend):
    # A second way: a hundred thousand links in NumPy, which cuts nothing.
    w, b = fg.draw(100_000, 1, "normal:std=6", "normal:std=2", seed=5)
    found = fg.backprop(w, b, 0.3, backend=compiled_backend, threads=4)
    expected = fg.backprop(w, b, 0.3, backend="numpy")
    bound = np.log2(1 + fg.agreement_rtol(w, b, 0.3))
    assert np.all(fg.log2_distance(found.grad_weight, expected.grad_weight) <= bound)
    assert np.all(fg.log2_distance(found.grad_x, expected.grad_x) <= bound)


def test_parts_share_the_chain(compiled_backend, stages):
    w, b = fg.draw(128 * 128 * 5 + 77, 1, "normal:std=4")
    fg.backprop(w, b, 0.5, backend=compiled_backend, threads=3)
    forward = sorted(of[1:3] for of in stages if of[0] == constants.FORWARD)
    assert forward == [(0, 128), (128, 384), (384, 640)]
    assert sorted(of[1:3] for of in stages if of[0] == constants.BACKWARD) == forward
    assert sorted(of[1] for of in stages if of[0] == constants.GUESS) == [128, 384]
    assert [of[1:3] for of in stages if of[0] == constants.ADJOINTS] == [(0, 640)]


@pytest.mark.filterwarnings("ignore:.*caught at 1/2")
def test_a_wrong_guess_is_run_again(compiled_backend, stages):
    depth = 128 * 128 * 6
    w, b = np.full((depth, 1), 9.0), np.full((depth, 1), -4.5)
    found = fg.backprop(w, b, 0.9, backend=compiled_backend, threads=3)
    again = [of[1:3] for of in stages if of[0] == constants.FORWARD]
    assert again[3:] == [(256, 512), (512, 768)]  # from rest, 1/2, which the chain never sees
    assert found.output[0] > 0.9


@pytest.mark.parametrize("link", [0, 5000, 20_000, 39_999])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_found_wherever_it_is(compiled_backend, link, value):
    w, b = fg.draw(40_000, 2, "normal:std=4")
    w[link, 1] = value
    with pytest.raises(ValueError, match=r"^weight: expected finite numbers"):
        fg.backprop(w, b, 0.5, backend=compiled_backend, threads=2)


def test_numpy_cuts_nothing_and_wide_or_short_chains_are_not_cut():
    _, kernels = load("numpy")
    assert not segments.is_cut(kernels, 10**6, 1)
    for name in ("cpp", "numba"):
        _, kernels = load(name)
        assert segments.is_cut(kernels, 8192, 8)
        assert not segments.is_cut(kernels, 8191, 8)
        assert not segments.is_cut(kernels, 8192, 9)


def test_few_threads_take_a_chain_each(stages, compiled_backend):
    w, b = fg.draw(20_000, 4, "normal:std=4")
    fg.backprop(w, b, 0.5, backend=compiled_backend, threads=2)
    assert sum(of[0] == constants.FORWARD for of in stages) == 4
    assert not any(of[0] == constants.GUESS for of in stages)


def test_an_error_of_one_part_ends_all(monkeypatch, compiled_backend):
    w, b = fg.draw(100_000, 1, "normal:std=4")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(segments._Parts, "_forward", fail)
    with pytest.raises(MemoryError):
        fg.backprop(w, b, 0.5, backend=compiled_backend, threads=2)
    with Threads(2) as pool:
        assert pool.count == 2
