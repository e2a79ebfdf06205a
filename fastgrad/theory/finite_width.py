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
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.nonlinearities import parse
from fastgrad.theory.mean_field import mean_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EXACT = {"linear": -1.0, "relu": -2.5}
LINEAR_BELOW = 1e-8  # q, from where on phi is linear to as many digits
STEP = 0.1  # of the trapezoid rule in z: the poles of tanh are pi/2 from the axis, and the error is e^-98
SATURATED = 60.0  # |z| from which on the even parts of all integrands are 0
SIGMAS = 14.0  # of z: 1e-43 is beyond
STEPS_PER_SIGMA = 6.0  # for a normal density: an error of e^-700


def width_correction(sigma_w: float, sigma_b: float = 0.0, nonlinearity: str = "sigmoid") -> float:
    """First coefficient of the gradient's growth in 1/n: the exponent at width n is ½ (ln chi_1 + c/n) + O(1/n²).

    Of networks with normal weights and biases, in nats per layer, for the squared norm. Measured in drawn networks of
    30 to 200 units it is met within some 3 % and 1/n: see the tests. The derivation is this module's first paragraph.

    Parameters
    ----------
    sigma_w, sigma_b, nonlinearity
        As for `mean_field`.

    Returns
    -------
    float
        c; -inf in the limit of a critical tanh network without biases, whose length has no scale.

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
    phi, field = parse(nonlinearity), mean_field(sigma_w, sigma_b, nonlinearity)
    if phi.name in EXACT:
        return EXACT[phi.name]
    if field.q < LINEAR_BELOW:
        return EXACT["linear"]
    if field.chi_q == 1:
        return -math.inf
    q, of_weights = field.q, field.q - sigma_b**2  # the variance of W o
    scale = math.sqrt(q)
    reach = min(SIGMAS * scale, SATURATED)
    z = np.arange(0.0, reach, min(STEP, scale / STEPS_PER_SIGMA))
    x = z / scale
    weight = np.exp(-(x**2) / 2) * (z[1] / scale) * math.sqrt(2 / math.pi)
    weight[0] /= 2

    def mean(even: Floats) -> float:
        return float(weight @ even)

    def slope(even: Floats) -> float:  # by q
        return mean(even * (x**2 - 1)) / (2 * q)

    def curvature(even: Floats) -> float:
        return mean(even * (x**4 - 6 * x**2 + 3)) / (4 * q**2)

    # Even parts of powers of phi, but for constants: with the derivative p they are polynomials of p.
    p = phi.derivative(z)
    t = np.tanh(z / 2) if phi.name == "sigmoid" else np.tanh(z)
    if phi.name == "sigmoid":
        limits, square, fourth, product = (0.5, 0.5), -p, p**2 - 2 * p, p * t / 2  # phi², phi⁴, phi phi'
        square_slope = p**2 * (0.5 - p)  # phi'² phi²
    else:
        limits, square, fourth, product = (1.0, 1.0), -p, p**2 - 2 * p, p * t
        square_slope = p**2 * (1 - p)
    of_square, of_fourth = limits[0] + mean(square), limits[1] + mean(fourth)
    of_slope = mean(p**2)  # E phi'²
    kappa = mean(p**4) / of_slope**2
    tau = mean(square_slope) / (of_square * of_slope)

    share = of_weights / q  # of the variance of z that W o has
    along = share * mean(z * product)
    noise = share**2 * mean(z**2 * p**2) + share * sigma_b**2 * of_slope - along**2 / of_square
    rho = noise / (of_slope * of_weights) / (1 - field.chi_q**2 / field.chi_1)

    variance = sigma_w**4 * (of_fourth - of_square**2) / (1 - field.chi_q**2)
    shift = sigma_w**2 * curvature(square) * variance / (2 * (1 - field.chi_q))
    first = slope(p**2) / of_slope
    second = curvature(p**2) / of_slope - first**2
    return (rho - 1) * tau - 1 - 1.5 * (kappa - 1) + first * shift + second * variance / 2
