"""Recorded gradients from what propagate leaves: one product after the other, on every backend."""

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.kernels import PropagateJob, ScaledArrays, load


@pytest.mark.parametrize(("rows", "ensemble", "largest"), [(1, 1, 3), (64, 50, 1000), (901, 3, 10**6), (60, 7, 2**57)])
def test_they_are_one_product_after_the_other(rows, ensemble, largest, backend, rng):
    def drawn():
        exponent = -rng.integers(0, largest, (rows, ensemble))
        mantissa = rng.uniform(0.5, 1, exponent.shape) * rng.choice([-1, 1], exponent.shape)
        is_zero = rng.random(exponent.shape) < 0.001
        return fg.Scaled(np.where(is_zero, 0, mantissa), np.where(is_zero, 0, exponent))

    weight = rng.normal(size=(rows, ensemble)) * 10.0 ** rng.integers(-300, 300, (rows, ensemble))
    input_at, slope, product, bound = drawn(), drawn(), drawn(), abs(drawn())
    following = bound_following = fg.Scaled(np.ones(ensemble))
    expected = []
    for row in range(rows - 1, -1, -1):
        w = fg.Scaled(weight[row])
        delta = product[row] * following * slope[row]
        following = delta * w
        bound_following = bound[row] * bound_following * fg.Scaled(abs(w.mantissa), w.exponent - 2)
        expected.append((following, delta * input_at[row], delta, bound_following))
    arrays = [ScaledArrays.of(of) for of in (input_at, slope, product, bound)]
    law = (0, 0.0, 0.0)
    job = PropagateJob(law, law, 0, 0, np.arange(1, rows + 1), weight, *arrays)
    _, kernels = load(backend)
    cut = ensemble // 3  # slices do not touch each other
    for start, stop in ((cut, ensemble), (0, cut)):
        if start < stop:
            kernels.suffix_products(job, start, stop)
    found = product, input_at, slope, bound
    for row, each in enumerate(reversed(expected)):
        for ours, theirs in zip(found, each, strict=True):
            assert np.all(ours[row] == theirs)
