"""The table of losses: least values against mpmath, and targets."""

import mpmath
import numpy as np
import pytest

from fastgrad.losses import LOSSES, parse


def test_the_cross_entropy_is_least_at_its_target(rng):
    targets = np.array([0.0, 1.0, 0.5, 1e-300, 1 - 2.0**-53, *rng.random(20)])
    with mpmath.workdps(700):  # digits of 1 - 1e-300
        for target, found in zip(targets, LOSSES["cross_entropy"].least(targets), strict=True):
            y = mpmath.mpf(target)
            terms = [-p * mpmath.log(p) for p in (y, 1 - y) if p > 0]
            assert found == pytest.approx(float(sum(terms)), rel=1e-14, abs=0)


def test_the_squared_loss_can_be_zero():
    assert LOSSES["squared"].least(np.array([-3.0, 0.5])).tolist() == [0, 0]


def test_targets():
    LOSSES["squared"].check_targets(np.array([-1e300, 1e300]))
    LOSSES["cross_entropy"].check_targets(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"target: expected 0 to 1 for the cross entropy, got 1.5 at index \[1\]"):
        LOSSES["cross_entropy"].check_targets(np.array([0.5, 1.5]))


@pytest.mark.parametrize("name", ["hinge", ["squared"], None])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="loss: expected squared or cross_entropy, got"):
        parse(name)
