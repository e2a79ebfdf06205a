"""Exact laws of linear and relu networks of any width and depth, with weights N(0, sigma_w² / n).

A layer multiplies the norm of a vector by sigma_w √(chi²_K / n), with K = n in a linear network, and independently of
all other layers: in a linear one because a normal matrix looks the same from every direction (Newman, Commun. Math.
Phys. 103, 121 (1986)); in a relu one because a weight row and its negative are equally likely, and exactly one of them
makes the unit alive, so that the number K of units alive is binomial and independent of what the rows do to any vector
(Hanin and Nica, Commun. Math. Phys. 376, 287 (2019)). That holds for tangents of any direction, and for the gradient
from a cotangent of random direction; also with biases, in a relu network with those of a symmetric law.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastgrad.checks import integer, real_array
from fastgrad.theory.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Homogeneous = Literal["linear", "relu"]

WIDTH_MAX = 2**16  # units of a layer, as kernels draw them
ASYMPTOTIC_FROM = 12.0  # where six terms of the asymptotic series have 1e-16
NEGLIGIBLE = 1e-20  # share of a probability
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)  # B_2, B_4, …


def layer_growth(width: int, sigma_w: float = 1.0, nonlinearity: Homogeneous = "linear") -> Moments:
    """Mean and variance of what a layer adds to ln of the gradient's norm, in nats and nats²: exact at every width.

    Over L layers ln |J^T c| has L times both. In a relu network given that a unit is alive in every layer: see
    `dead_probability`.

    Parameters
    ----------
    width : int
        Units n of a layer, 1 to 65536.
    sigma_w : float
        √n times the standard deviation of a weight, above 0.
    nonlinearity : {"linear", "relu"}

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> import fastgrad as fg
    >>> mean, variance = fg.theory.layer_growth(8, 2**0.5, "relu")  # He's initialization
    >>> round(2 * 10 * mean, 3), round(4 * 10 * variance, 2)  # of ln |J^T c|² over ten layers
    (-3.988, 12.47)
    """
    alive, share = _units_alive(width, nonlinearity)
    ln_chi = np.log(2.0) + digamma(alive / 2)  # E ln chi²_K
    mean = float(share @ ln_chi)
    variance = float(share @ (trigamma(alive / 2) + (ln_chi - mean) ** 2))
    return Moments(_ln_std(sigma_w, width) + mean / 2, variance / 4)


def dead_probability(width: int, depth: int = 1) -> float:
    """Probability that all units of some layer of a relu network are dead, and every gradient before it is zero.

    1 - (1 - 2^-n)^L, for weights and biases of symmetric laws, which are not both 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is no positive integer, or the width above 65536.
    """
    width, depth = integer("width", width, 1, WIDTH_MAX), integer("depth", depth, 1, 10**18)
    if width > 200:  # L 2^-n is far below rounding, and may be below float64 where 2^-n alone is
        return math.ldexp(float(depth), -width)
    return -math.expm1(depth * math.log1p(-(2.0**-width)))


def spectrum(width: int, sigma_w: float = 1.0, nonlinearity: Homogeneous = "linear") -> Floats:
    """Lyapunov exponents of an endless network, in nats per layer, the largest first.

    Linear: ln(sigma_w / √n) + (ln 2 + psi((n - i + 1) / 2)) / 2 for i = 1 … n (Newman 1986). Relu: the mean of that
    over the number K of units alive in place of n, given that at least i are alive in every layer.

    Parameters
    ----------
    width, sigma_w, nonlinearity
        As for `layer_growth`.

    Returns
    -------
    ndarray of float64, shape (width,)

    Raises
    ------
    TypeError, ValueError
        As `layer_growth` does.

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.theory.spectrum(2).round(4).tolist()
    [-0.2886, -0.9818]
    """
    alive, share = _units_alive(width, nonlinearity)
    half = digamma(np.arange(1, width + 1) / 2)  # psi of 1/2, 1, …, n/2
    if nonlinearity == "linear":
        means = half[::-1]
    else:
        means = np.empty(width)
        low, high = np.flatnonzero(share > NEGLIGIBLE * share.max())[[0, -1]]
        # Given that i + 1 units are alive at least. Where i is below nearly all of the binomial law, that is no news.
        means[: low + 1] = np.correlate(half[: high + 1], share[low : high + 1])[::-1]
        for i in range(low + 1, width):
            if i < width / 2:
                given = share[i : high + 1]
            else:  # in units of the probability of i + 1, which may underflow
                given = np.cumprod(np.append(1.0, _ratio(alive[i + 1 : i + 1 + high - low], width)))
            means[i] = given @ half[: len(given)] / given.sum()
    exponents: Floats = _ln_std(sigma_w, width) + (math.log(2) + means) / 2
    return exponents


def digamma(x: Floats) -> Floats:
    """Derivative of ln Gamma at x > 0: by recurrence to where its asymptotic series is exact to rounding.

    Abramowitz and Stegun (1964), 6.3.5 and 6.3.18.
    """
    x, value = np.array(x, dtype=np.float64), np.zeros(np.shape(x))
    while (small := x < ASYMPTOTIC_FROM).any():
        value -= np.where(small, 1 / x, 0.0)
        x = np.where(small, x + 1, x)
    series = sum(b / (2 * k * x ** (2 * k)) for k, b in enumerate(BERNOULLI, 1))
    found: Floats = value + np.log(x) - 1 / (2 * x) - series
    return found


def trigamma(x: Floats) -> Floats:
    """Derivative of `digamma`, likewise: 6.4.6 and 6.4.12."""
    x, value = np.array(x, dtype=np.float64), np.zeros(np.shape(x))
    while (small := x < ASYMPTOTIC_FROM).any():
        value += np.where(small, 1 / x**2, 0.0)
        x = np.where(small, x + 1, x)
    series = sum(b / x ** (2 * k + 1) for k, b in enumerate(BERNOULLI, 1))
    found: Floats = value + 1 / x + 1 / (2 * x**2) + series
    return found


def _units_alive(width: int, nonlinearity: str) -> tuple[Floats, Floats]:
    """Numbers of units that pass a gradient, and their probabilities given that it is one at least."""
    width = integer("width", width, 1, WIDTH_MAX)
    if nonlinearity == "linear":
        return np.array([float(width)]), np.ones(1)
    if nonlinearity != "relu":
        raise ValueError(f"nonlinearity: expected linear or relu, which have an exact law, got {nonlinearity!r}")
    alive = np.arange(1.0, width + 1)
    # Binomial(n, 1/2) in units of its largest probability, by ratios away from it: none overflows.
    most = (width + 1) // 2
    above = np.cumprod(_ratio(alive[most:], width))
    below = np.cumprod(1 / _ratio(alive[1:most], width)[::-1])[::-1]
    share = np.concatenate([below, [1.0], above])
    return alive, share / share.sum()


def _ratio(k: Floats, n: int) -> Floats:
    """Probability of k in Binomial(n, 1/2) over that of k - 1."""
    ratio: Floats = (n - k + 1) / k
    return ratio


def _ln_std(sigma_w: float, width: int) -> float:
    """Logarithm of the standard deviation of a weight."""
    given = real_array("sigma_w", sigma_w)
    if given.shape != () or not given > 0:
        raise ValueError(f"sigma_w: expected a number above 0, got {sigma_w!r}")
    return math.log(float(given)) - math.log(width) / 2
