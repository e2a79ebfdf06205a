"""Statistics over an ensemble: evenly spaced picks, and the scale of an axis."""

import numpy as np
import pytest

from fastgrad.summary import evenly_spaced, is_geometric, log10_of


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 64, 1000, 10**6, 10**12])
@pytest.mark.parametrize("at_most", [1, 2, 10, 2000])
def test_picks_are_evenly_spaced_with_both_ends(count, at_most):
    picked = evenly_spaced(count, at_most)
    assert len(picked) == min(count, at_most)
    assert picked[0] == 0
    if at_most > 1:
        assert picked[-1] == count - 1
    steps = np.diff(picked)
    if len(steps):
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 2  # each pick is rounded by at most half


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 10, 100], True), ([1, 2, 4, 8, 16], True), ([1, 2, 6], False), ([0, 1, 100], False), ([1, 100], False)],
)
def test_values_that_are_denser_where_they_are_small_take_a_logarithmic_axis(values, expected):
    assert is_geometric(np.array(values, dtype=float)) is expected


def test_logarithms_of_zero_and_infinity():
    assert log10_of([0.0, 1e-300, 1.0, 1000.0, np.inf]).tolist() == [-np.inf, -300, 0, 3, np.inf]
