"""Statistics over an ensemble: picks of evenly spaced rows."""

import numpy as np
import pytest

from fastgrad.summary import evenly_spaced


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
