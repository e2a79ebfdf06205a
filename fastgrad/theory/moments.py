"""Mean and variance of ln|w|, in closed form or by Gauss-Legendre quadrature, and of the textbook's bound."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.laws import LawLike, parse
from fastgrad.nonlinearities import NONLINEARITIES
from fastgrad.theory.quadrature import between

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EULER = 0.5772156649015329
RELATIVE_WIDTH_MIN = 0.1  # of a law: closed forms cancel below
SIGMAS = 9.0  # of a normal law: 1e-19 is beyond


class Moments(NamedTuple):
    """Mean and variance of a logarithm, in nats and nats²."""

    mean: float
    variance: float


def ln_weight(weight: LawLike) -> Moments:
    """Mean and variance of ln|w|, in nats and nats² per link.

    Closed forms: ln S - (gamma + ln 2) / 2 and pi² / 8 for a centered normal law; integrals of ln and ln² for a uniform
    one. A normal law with another mean is integrated numerically.

    Raises
    ------
    ValueError, TypeError
        If `weight` is no law of weights. A law that is always 0 gives -inf and 0.
    """
    law = parse(weight, "weight")
    if law.family == "constant" or law.scale == 0.0:
        return Moments(math.log(abs(law.location)) if law.location else -math.inf, 0.0)
    if law.family == "uniform":
        return _ln_uniform(law.location, law.scale)
    if law.location == 0.0:
        return Moments(math.log(law.scale) - (EULER + math.log(2)) / 2, math.pi**2 / 8)
    return _ln_normal(abs(law.location), law.scale)


def bound(weight: LawLike) -> Moments:
    """Mean and variance, per link, of the logarithm of the textbook bound: the product of |w| / 4.

    Over L links the logarithm has L times both, and is Gaussian for large L.

    Raises
    ------
    ValueError, TypeError
        As `ln_weight` does.
    """
    mean, variance = ln_weight(weight)
    return Moments(mean + math.log(NONLINEARITIES["sigmoid"].slope), variance)


def normal_density(t: Floats) -> Floats:
    """Density of the standard normal law."""
    density: Floats = np.exp(-0.5 * t**2) / math.sqrt(2 * math.pi)
    return density


def _ln_uniform(low: float, width: float) -> Moments:
    size = max(abs(low), abs(low + width))  # nothing leaves float64 in units of it
    low, high, width = low / size, (low + width) / size, width / size
    middle = abs(low + width / 2)
    if width < RELATIVE_WIDTH_MIN * middle:  # where closed forms cancel
        t, share = between(np.array([-1.0, 1.0]))
        return _moments(math.log(size) + math.log(middle), np.log1p(width / (2 * middle) * t), share / 2)
    mean = (_ln_integral(high) - _ln_integral(low)) / width
    square = (_ln_square_integral(high) - _ln_square_integral(low)) / width
    return Moments(math.log(size) + mean, max(square - mean * mean, 0.0))


def _ln_normal(center: float, std: float) -> Moments:
    grid = np.arange(-SIGMAS, SIGMAS + 1)
    if std < RELATIVE_WIDTH_MIN / 2 * center:
        t, share = between(grid)
        return _moments(math.log(center), np.log1p(std / center * t), share * normal_density(t))
    # In units of std, on panels that shrink towards the logarithm's singularity.
    center /= std
    ends = grid + center
    near = (center + SIGMAS) * 0.5 ** np.arange(120)
    w, share = between(np.unique(np.concatenate([ends, [0.0], near, -near]).clip(ends[0], ends[-1])))
    return _moments(math.log(std), np.log(np.abs(w)), share * normal_density(w - center))


def _moments(offset: float, values: Floats, share: Floats) -> Moments:
    mean = float(share @ values)
    return Moments(offset + mean, float(share @ (values - mean) ** 2))


def _ln_integral(w: float) -> float:
    return w * math.log(abs(w)) - w if w else 0.0


def _ln_square_integral(w: float) -> float:
    return w * (math.log(abs(w)) ** 2 - 2 * math.log(abs(w)) + 2) if w else 0.0
