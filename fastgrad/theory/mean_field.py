"""Mean field of wide random networks: lengths, correlations and gradients from layer to layer as the width grows.

A layer is z = W o + b, o = phi(z), with independent W_ij ~ N(0, sigma_w² / n) and b_i ~ N(0, sigma_b²). As n grows
the preactivations of one input become normal with mean 0 and variance q, those of two inputs jointly normal with
correlation c, and a layer takes q to

    sigma_w² E phi(√q Z)² + sigma_b²

(Poole et al., Exponential expressivity in deep neural networks through transient chaos, NIPS 2016; Schoenholz et al.,
Deep information propagation, ICLR 2017). Every expectation here is a finite sum. The logistic function is the
distribution function of 2 K Z with Z standard normal and K of Kolmogorov's law (Andrews and Mallows, J. R. Stat. Soc. B
36, 99 (1974)), so that sigmoid and tanh are mixtures over v of normal distribution functions Phi(z / v), for which

    E Phi'(u/v) Phi'(u'/v') / (v v')            = 1 / (2 pi √((q + v²) (q + v'²) - c² q²))
    E (Phi(u/v) - 1/2) (Phi(u'/v') - 1/2)       = arcsin(c q / √((q + v²) (q + v'²))) / (2 pi).

In ln K the density of Kolmogorov's law is analytic in the strip of half width pi/4, and the trapezoid rule with step
1/16 has the expectations to the last digits at every q: no integrand becomes narrow where q is large. The mixture also
shows that q has one stable fixed point: E phi'(√q Z) is a convex function of q, so that the map is concave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.checks import real_array
from fastgrad.nonlinearities import parse
from fastgrad.theory.fixed_points import bisect

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from fastgrad.nonlinearities import Nonlinearity

    Floats = NDArray[np.float64]

STEP = 1 / 16  # of the trapezoid rule, in ln K
LN_K_RANGE = -2.0, 1.6  # outside, Kolmogorov's law has less than 1e-17
TERMS = 30  # of the two series of its density
SIGMA_MIN, SIGMA_MAX = 1e-100, 1e100  # whose squares are within float64
ITERATIONS_MAX = 1000  # of Newton's method, which halves the distance near critical points: from 1 to 1e-100, 333 times
LOG2_Q_RANGE = -1000.0, 1020.0  # of a critical network: sigma_b² is about q³ or q
CRITICAL = 2.0**-50  # distance of a factor from 1 that rounding makes
SERIES_MAX = 0.2  # the largest t for which t - atan(t) is taken from its series


class MeanField(NamedTuple):
    """Stationary state of an endlessly wide and deep network, and how a layer changes what differs from it.

    Attributes
    ----------
    q : float
        Fixed point of the length map that lengths come to: mean square of the preactivations. inf if they grow without
        limit; nan if each length stays as it is (relu with sigma_w = √2 and linear with sigma_w = 1, both with
        sigma_b = 0).
    chi_1 : float
        sigma_w² E phi'(√q Z)²: factor by which a layer multiplies the squared gradient norm, the other way round also
        the squared distance of two inputs close to each other. Ordered below 1, chaotic above.
    chi_q : float
        Slope of the length map at q: factor by which a layer multiplies a small distance from q.
    xi_q : float
        1 / |ln chi_q|, in layers: depth scale of the length. inf at chi_q = 1, 0 at chi_q = 0.
    c : float
        Stable fixed point of the correlation map, in [0, 1]: what the correlation of two inputs' preactivations comes
        to. nan if each correlation stays as it is, or comes to a value that depends on the start: in linear networks
        with sigma_b = 0 or sigma_w > 1, and where q = 0.
    xi_c : float
        1 / |ln chi_c|, in layers, with chi_c the slope of the correlation map at c: depth scale of the correlation,
        and with it of what a network can be trained to (Schoenholz et al. 2017). inf at chi_c = 1, or if c is nan.
    """

    q: float
    chi_1: float
    chi_q: float
    xi_q: float
    c: float
    xi_c: float

    @property
    def xi_1(self) -> float:
        """1 / \\|ln chi_1\\|, in layers: depth scale of the squared gradient norm."""
        return depth_scale(self.chi_1)


def mean_field(sigma_w: float, sigma_b: float = 0.0, nonlinearity: str = "sigmoid") -> MeanField:
    """Stationary length and correlation of an endlessly wide random network, and the factors of a layer there.

    Weights are N(0, sigma_w² / n), biases N(0, sigma_b²): `sigma_w` is the gain of ``normal:gain=``. With weights of
    another law of mean 0 and variance sigma_w² / n the limit is the same.

    Relative errors are below 1e-12, those of c and the depth scales below 1e-13 / \\|1 - chi\\| where a factor is close
    to 1. A factor within 2^-50 of 1 counts as 1, and its network as critical.

    Parameters
    ----------
    sigma_w, sigma_b : float
        0, or 1e-100 to 1e100.
    nonlinearity : {"sigmoid", "tanh", "relu", "linear"}

    Raises
    ------
    TypeError, ValueError
        If an argument is no number of that range, or the nonlinearity is unknown.

    Examples
    --------
    >>> import fastgrad as fg
    >>> field = fg.theory.mean_field(20)
    >>> round(field.chi_1, 12), round(field.q, 9)  # the squared gradient norm grows by 1.93 a layer
    (1.930684191191, 188.475999336)
    """
    sigma_w, sigma_b, phi = _sigma("sigma_w", sigma_w), _sigma("sigma_b", sigma_b), parse(nonlinearity)
    return _sigmoidal(sigma_w, sigma_b, phi) if phi.name in MIXTURES else _homogeneous(sigma_w, sigma_b, phi)


def critical_sigma_w(sigma_b: float = 0.0, nonlinearity: str = "sigmoid") -> float:
    """Standard deviation of the weights, times √n, at which gradients of wide networks neither vanish nor explode.

    chi_1 is 1 there, below it less, above it more. To 12 digits.

    Parameters
    ----------
    sigma_b : float
        0, or 1e-100 to 1e100.
    nonlinearity : {"sigmoid", "tanh", "relu", "linear"}

    Raises
    ------
    TypeError, ValueError
        As `mean_field` does.

    Examples
    --------
    >>> import fastgrad as fg
    >>> round(fg.theory.critical_sigma_w(), 9), round(fg.theory.critical_sigma_w(0.05**0.5, "tanh") ** 2, 9)
    (10.14926371, 1.76095464)
    """
    sigma_b, phi = _sigma("sigma_b", sigma_b), parse(nonlinearity)
    if phi.name not in MIXTURES:
        return math.sqrt(_critical_square(phi))
    mixture = MIXTURES[phi.name]
    if phi.rest == 0 and sigma_b == 0:
        return 1 / phi.slope

    # With sigma_w² = 1 / E phi'², the bias that makes q a fixed point; it rises with q.
    def is_below(log2_q: float) -> bool:
        q = 2.0**log2_q
        return mixture.excess_of_slope(q) - phi.rest**2 < sigma_b**2 * mixture.derivatives(q)

    return 1 / math.sqrt(mixture.derivatives(2.0 ** bisect(is_below, *LOG2_Q_RANGE)))


def depth_scale(factor: float) -> float:
    """1 / \\|ln factor\\|, in layers: 0 for the factor 0, inf for 1 and nan."""
    if factor == 0:
        return 0.0
    return 1 / abs(math.log(factor)) if factor != 1 and not math.isnan(factor) else math.inf


@dataclass(frozen=True)
class Mixture:
    """A nonlinearity that is ``rest + height * (mean over K of Phi(z / (spread K)) - height / 2``.

    Methods take q, a variance, and give expectations over normal preactivations; `distance` is one minus the
    correlation of two of them. Sums run over pairs v, v' of the mixture, with D² = v² v'² + q (v² + v'²).
    """

    height: float
    spread: float

    @property
    def _pairs(self) -> tuple[Floats, Floats, Floats]:
        return _pairs_of(self.height, self.spread)

    def _root(self, q: float) -> tuple[Floats, Floats, Floats, Floats]:
        """Shares, v v', v² + v'² and D of each pair."""
        share, product, squares = self._pairs
        return share, product, squares, np.sqrt(product**2 + q * squares)

    def variance(self, q: float) -> float:
        """E (phi - rest)²."""
        share, _, _, root = self._root(q)
        return float((share * np.arctan(q / root)).sum())

    def variance_slope(self, q: float) -> float:
        """Derivative of the variance by q."""
        share, product, squares, root = self._root(q)
        whole = np.hypot(root, q)
        return float((share * ((product**2 + q * squares / 2) / whole / whole) / root).sum())

    def derivatives(self, q: float, distance: float = 0.0) -> float:
        """E phi'(u) phi'(u')."""
        share, _, _, root = self._root(q)
        return float((share / np.hypot(root, q * math.sqrt(distance * (2 - distance)))).sum())

    def covariance_deficit(self, q: float, distance: float) -> float:
        """E phi(u)² - E phi(u) phi(u'), of full relative precision where the distance is small."""
        share, _, _, root = self._root(q)
        whole, apart = np.hypot(root, q), np.hypot(root, q * math.sqrt(distance * (2 - distance)))
        # arcsin(q / whole) - arcsin((1 - distance) q / whole), by sine and cosine of the difference
        sine = q * distance * (2 - distance) / (apart + (1 - distance) * root)
        cosine = root / whole * (apart / whole) + (q / whole) ** 2 * (1 - distance)
        return float((share * np.arctan2(sine, cosine)).sum())

    def excess_of_slope(self, q: float) -> float:
        """Q E phi'² - E (phi - rest)², of full relative precision where q is small: it falls like q³."""
        share, _, _, root = self._root(q)
        return float((share * _minus_arctan(q / root)).sum())

    def variance_deficit(self, q: float) -> float:
        """phi'(0)² q - E (phi - rest)², of full relative precision where q is small."""
        share, product, squares, root = self._root(q)
        of_slope = q * q * squares / (product * root * (product + root))
        return float((share * (of_slope + _minus_arctan(q / root))).sum())

    def variance_slope_deficit(self, q: float) -> float:
        """Derivative of that by q, likewise."""
        share, product, squares, root = self._root(q)
        of_cubes = q * squares * (root**2 + root * product + product**2) / (root + product)  # D³ - (v v')³
        missing = of_cubes + root * q**2 - q * squares * product / 2
        return float((share * missing / (product * root * (root**2 + q**2))).sum())


MIXTURES = {"sigmoid": Mixture(1.0, 2.0), "tanh": Mixture(2.0, 1.0)}


@cache
def _kolmogorov() -> tuple[Floats, Floats]:
    """Places and shares of Kolmogorov's law, by the trapezoid rule in their logarithm."""
    k = np.exp(np.arange(*LN_K_RANGE, STEP))
    i = np.arange(1, TERMS)[:, None]
    odd = ((2 * i - 1) * math.pi) ** 2
    low = math.sqrt(2 * math.pi) * (odd / (4 * k**4) - 1 / k**2) * np.exp(-odd / (8 * k**2))
    high = -8 * k * (-1.0) ** i * i**2 * np.exp(-2 * i**2 * k**2)
    return k, STEP * k * np.where(k < 1, low.sum(axis=0), high.sum(axis=0))


@cache
def _pairs_of(height: float, spread: float) -> tuple[Floats, Floats, Floats]:
    """Shares height² / 2 pi times the law's, v v', and v² + v'² of all pairs of a mixture."""
    k, share = _kolmogorov()
    v = spread * k
    return height**2 / (2 * math.pi) * np.outer(share, share), np.outer(v, v), np.add.outer(v**2, v**2)


def _minus_arctan(t: Floats) -> Floats:
    """Return t - atan(t), of full relative precision."""
    series = np.zeros_like(t)
    square = np.minimum(t, SERIES_MAX) ** 2
    for power in range(25, 1, -2):
        series = 1 / power - square * series
    difference: Floats = np.where(t < SERIES_MAX, t * square * series, t - np.arctan(t))
    return difference


def _sigmoidal(sigma_w: float, sigma_b: float, phi: Nonlinearity) -> MeanField:
    mixture = MIXTURES[phi.name]
    q = _fixed_length(sigma_w, sigma_b, phi)
    chi_1, chi_q = (_snapped(sigma_w**2 * of(q)) for of in (mixture.derivatives, mixture.variance_slope))
    if q == 0:
        return MeanField(q, chi_1, chi_q, depth_scale(chi_q), math.nan, math.inf)
    distance = 0.0
    if phi.rest == 0 and sigma_b == 0:
        distance = 1.0  # by symmetry, and q > 0 means that the network is chaotic
    elif chi_1 > 1:
        distance = _fixed_distance(sigma_w, phi, q)
    chi_c = _snapped(sigma_w**2 * mixture.derivatives(q, distance))
    return MeanField(q, chi_1, chi_q, depth_scale(chi_q), 1 - distance, depth_scale(chi_c))


def _snapped(factor: float) -> float:
    """Return 1 for what is 1 to within rounding, whose side can't be told."""
    return 1.0 if abs(factor - 1) < CRITICAL else factor


def _fixed_length(sigma_w: float, sigma_b: float, phi: Nonlinearity) -> float:
    """Fixed point of the length map, which is concave, from the largest value that the map takes."""
    mixture = MIXTURES[phi.name]
    at_rest = sigma_w**2 * phi.rest**2 + sigma_b**2  # the map at 0
    gain = sigma_w * phi.slope
    if at_rest == 0 and gain <= 1:
        return 0.0

    def tangent(q: float) -> tuple[float, float]:
        if q > 1:
            slope = mixture.variance_slope(q)
            return at_rest + sigma_w**2 * (mixture.variance(q) - q * slope), 1 - sigma_w**2 * slope
        missing = mixture.variance_slope_deficit(q)  # q* can be as small as gain - 1, or at_rest
        ordinate = at_rest + sigma_w**2 * (q * missing - mixture.variance_deficit(q))
        return ordinate, (1 - gain) * (1 + gain) + sigma_w**2 * missing

    return _descend(tangent, at_rest + sigma_w**2 * mixture.height**2 / 4)


def _fixed_distance(sigma_w: float, phi: Nonlinearity, q: float) -> float:
    """Fixed point of the map of one minus the correlation, which is concave, where chi_1 is above 1."""
    mixture = MIXTURES[phi.name]

    def tangent(distance: float) -> tuple[float, float]:
        slope = sigma_w**2 * mixture.derivatives(q, distance)
        return sigma_w**2 / q * mixture.covariance_deficit(q, distance) - distance * slope, 1 - slope

    return _descend(tangent, 1.0)


def _descend(tangent: Callable[[float], tuple[float, float]], start: float) -> float:
    """Fixed point of a concave map, by Newton's method: from above it falls, until rounding stops it.

    `tangent` returns the ordinate at 0 of the map's tangent, and one minus its slope.
    """
    at = start
    for _ in range(ITERATIONS_MAX):
        ordinate, descent = tangent(at)
        following = ordinate / descent if descent > 0 else at
        if not 0 < following < at * (1 - 2**-52):
            break
        at = following
    return at


def _critical_square(phi: Nonlinearity) -> float:
    """sigma_w² of critical networks that multiply: E phi'² is 1/2 for relu, and 1 for linear."""
    return 2.0 if phi.name == "relu" else 1.0


def _homogeneous(sigma_w: float, sigma_b: float, phi: Nonlinearity) -> MeanField:
    """Mean field of relu and linear networks, in which phi(2 z) = 2 phi(z): lengths multiply."""
    factor = _snapped(sigma_w**2 / _critical_square(phi))
    if sigma_b == 0:
        q = 0.0 if factor < 1 else math.nan if factor == 1 else math.inf
    else:
        q = sigma_b**2 / (1 - factor) if factor < 1 else math.inf
    xi = depth_scale(factor)
    if sigma_b > 0 and factor < 1:  # the bias, which two inputs share, makes up for what the length loses
        return MeanField(q, factor, factor, xi, 1.0, xi)
    # Correlations come to 1, but ever more slowly: in relu networks; in critical linear ones as biases add up.
    comes_to_one = (phi.name == "relu" and factor > 0) or (sigma_b > 0 and factor == 1)
    return MeanField(q, factor, factor, xi, 1.0 if comes_to_one else math.nan, math.inf)


def _sigma(name: str, value: ArrayLike) -> float:
    given = real_array(name, value)
    if given.shape != ():
        raise ValueError(f"{name}: expected a number, got shape {given.shape}")
    sigma = float(given)
    if sigma != 0 and not SIGMA_MIN <= sigma <= SIGMA_MAX:
        raise ValueError(f"{name}: expected 0, or {SIGMA_MIN:g} to {SIGMA_MAX:g}, got {sigma!r}")
    return sigma + 0.0
