"""Correction of the mean field's exponent for a finite width, to first order in 1/n.

With weights N(0, sigma_w² / n) and biases N(0, sigma_b²), the mean of ln |a_{l-1}|² - ln |a_l|² over networks of n
units is ln chi_1 + c / n + O(1/n²). A layer has z = W o + b; with the gradient a by its outputs, v = phi'(z) a, and
W^T v is that by its inputs:

1. W is normal and independent of v, but for W o, which made z: across o, W^T v has n - 1 normal components, of which
   the logarithm of the squared norm has the mean -1/n; along o it has A = (z - b) v / |o|.
2. So a is isotropic across the layer's o, and along it has rho times the square of any other component. A is a linear
   recursion from layer to layer, A' = chi_q A + noise, whose variance is stationary in units of |a|².
3. |v|² / |a|² is a mean of phi'(z)² with random shares: its logarithm loses half of a relative variance of
   3 (kappa - 1) / n, with kappa = E phi'⁴ / (E phi'²)². The share along o is seen with tau = E phi'² phi² / (E phi²
   E phi'²) in place of 1.
4. The variance q of z is sigma_w² |o|² / n + sigma_b², a mean over n units: it fluctuates around q* with
   s² = sigma_w⁴ Var(phi²) / n each layer, V = s² / (1 - chi_q²) in the long run, and is off by f'' V / (2 (1 - chi_q))
   in the mean, f being the length map.

Together c = (rho - 1) tau - 1 - (3/2) (kappa - 1) + n ((ln chi_1)' E(q - q*) + (ln chi_1)'' V / 2), derivatives by q.
For linear layers this is -1, and for relu -5/2, as in the exact laws (Hanin and Nica 2019).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.nonlinearities import parse
from fastgrad.theory.mean_field import mean_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.nonlinearities import Nonlinearity

    Floats = NDArray[np.float64]

EXACT = {"linear": -1.0, "relu": -2.5}
EXPANSION_MAX = 0.5  # of |c| / n and V / (n q*²): as far the first order is met within c²/n² + |c| V / (n q*)²
SMALL_Q = 1e-8  # up to which the leading terms in q have as many digits as the sums
STEP = 0.1  # of the trapezoid rule in z: the poles of tanh are pi/2 from the axis, and the error is e^-98
SATURATED = 60.0  # |z| from which on phi is constant to all digits
SIGMAS = 14.0  # of z: 1e-43 is beyond
STEPS_PER_SIGMA = 6.0  # for a normal density: an error of e^-700


class WidthCorrection(NamedTuple):
    """First terms of an expansion in 1/n.

    Attributes
    ----------
    coefficient : float
        c of the module's first paragraph, in nats per layer.
    length_spread : float
        n times the variance of the length q, in units of q*², in the long run: V / q*².
    """

    coefficient: float
    length_spread: float

    def holds_at(self, width: int) -> bool:
        """Tell if n is large enough for the first order to be most of what a width changes."""
        return max(-self.coefficient, self.length_spread) <= EXPANSION_MAX * width


def width_correction(sigma_w: float, sigma_b: float = 0.0, nonlinearity: str = "sigmoid") -> float:
    """First coefficient of the gradient's growth in 1/n: the exponent at width n is ½ (ln chi_1 + c/n) + O(1/n²).

    Of networks with normal weights and biases, in nats per layer, for the squared norm. To nine digits; of tanh
    networks close to the critical one, whose lengths are small, to six. Drawn networks meet it within the square of
    what it adds, c²/n², where \\|c\\| is well below n; where lengths are small it also takes n q well above 1. c goes
    with sigma_w where units saturate, and with it the width that it takes. The derivation is this module's first
    paragraph.

    Parameters
    ----------
    sigma_w, sigma_b, nonlinearity
        As for `mean_field`.

    Returns
    -------
    float
        c: -1 for linear networks, -5/2 for relu; towards the critical tanh network -1 from above or below, and -17/12
        along sigma_w = 1 as the biases become small.

    Raises
    ------
    TypeError, ValueError
        As `mean_field` does.

    Examples
    --------
    >>> import math
    >>> import fastgrad as fg
    >>> chi_1, c = fg.theory.mean_field(20).chi_1, fg.theory.width_correction(20)
    >>> [round((math.log(chi_1) + c / n) / 2, 3) for n in (64, 256, 1024)]
    [0.226, 0.303, 0.322]
    """
    return expansion(sigma_w, sigma_b, nonlinearity).coefficient


def expansion(sigma_w: float, sigma_b: float = 0.0, nonlinearity: str = "sigmoid") -> WidthCorrection:
    """Return `width_correction`, and how far the length of a layer is from its limit.

    Raises
    ------
    TypeError, ValueError
        As `mean_field` does.
    """
    phi, field = parse(nonlinearity), mean_field(sigma_w, sigma_b, nonlinearity)
    if phi.name in EXACT:
        return WidthCorrection(EXACT[phi.name], 0.0)  # the exponent of these does not depend on the length
    if field.q == 0:
        return WidthCorrection(EXACT["linear"], 0.0)
    if field.q < SMALL_Q:
        return _of_small_lengths(float(sigma_w), float(sigma_b), field.q, phi)
    q, scale = field.q, math.sqrt(field.q)
    reach = min(SIGMAS * scale, SATURATED)
    step = min(STEP, scale / STEPS_PER_SIGMA)
    half = np.arange(0.0, reach, step)
    z = np.concatenate([-half[:0:-1], half])
    x, rest = z / scale, len(half) - 1
    weight = np.exp(-(x**2) / 2) * (step / scale / math.sqrt(2 * math.pi))
    # Sums are of what is left of a constant on either side: of the values far out where the sum ends before the normal
    # density does, else of the value at 0. Then no digit cancels, in small lengths and in large ones.
    saturates = reach == SATURATED

    def constant(values: Floats) -> Floats:
        low, high = (values[0], values[-1]) if saturates else (values[rest], values[rest])
        far: Floats = np.where(z < 0, low, np.where(z > 0, high, (low + high) / 2))
        return far

    def mean(values: Floats) -> float:
        far = constant(values)
        return float((far[0] + far[-1]) / 2 + weight @ (values - far))

    def slope(values: Floats) -> float:  # q times the derivative by q
        return float(weight @ ((values - constant(values)) * (x**2 - 1))) / 2

    def curvature(values: Floats) -> float:  # q² times the second one
        return float(weight @ ((values - constant(values)) * (x**4 - 6 * x**2 + 3))) / 4

    activation, p = phi.value(z), phi.derivative(z)
    if saturates:
        p[[0, -1]] = 0.0  # E phi' may be smaller than what is left of it there
    square, square_slope = activation**2, p**2
    of_square, of_slope = mean(square), mean(square_slope)
    kappa = mean(p**4) / of_slope**2
    tau = mean(square_slope * square) / (of_square * of_slope)

    growth = (sigma_w / scale) ** 2  # of |o|² / n, to z in units of q*
    share = growth * of_square  # of the variance of z that W o has
    residual = mean((z * p - mean(z * p * activation) / of_square * activation) ** 2)
    noise = (share * residual / of_slope + sigma_b**2) / q
    rho = noise / (1 - growth * slope(square) ** 2 / (q * of_slope))  # 1 - chi_q² / chi_1

    spread = growth**2 * mean((square - of_square) ** 2) / (1 - field.chi_q**2)
    shift = growth * curvature(square) * spread / (2 * (1 - field.chi_q))
    first = slope(square_slope) / of_slope
    second = curvature(square_slope) / of_slope - first**2
    coefficient = (rho - 1) * tau - 1 - 1.5 * (kappa - 1) + first * shift + second * spread / 2
    return WidthCorrection(coefficient, spread)


def _of_small_lengths(sigma_w: float, sigma_b: float, q: float, phi: Nonlinearity) -> WidthCorrection:
    """Leading terms in q: of tanh f = sigma_w² (q - 2 q²) + sigma_b², E phi'² = 1 - 2 q; sigmoid layers are linear."""
    if phi.rest != 0:
        return WidthCorrection(EXACT["linear"], 0.0)
    missing = (1 - sigma_w) * (1 + sigma_w)  # 1 - sigma_w²
    chi_q = 1 - missing - 4 * q
    spread = 2 / ((missing + 4 * q) * (1 + chi_q))
    rho = sigma_b**2 / q / (missing + 6 * q)
    shift = -4 * q * spread / (2 * (missing + 4 * q))
    return WidthCorrection(rho - 2 - 2 * q * shift, spread)
