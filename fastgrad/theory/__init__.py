"""Theory of chains and of wide networks, to nine digits at least, without drawing a single weight.

>>> import fastgrad as fg
>>> round(fg.theory.lyapunov("normal:std=4"), 10)  # nats per link of an endless chain
-1.4869863606
>>> round(fg.theory.bound("normal:std=500").mean, 10)  # while the textbook's bound explodes
4.1931323146
>>> fg.theory.fixed_points(4, -2)
[FixedPoint(activation=0.5, multiplier=1.0)]
>>> round(fg.theory.critical_sigma_w(), 6)  # standard initializations of sigmoid networks have 1 to 1.41
10.149264

====================  ==============================================================================================
``predict``           the exponent of chains, or layers, with given laws, or the reason why there is none; the bound
``survey``            all that theory says of them
``lyapunov``          the Lyapunov exponent lim ln|do_L/do_0| / L of chains, by the transfer operator's Poisson equation
``bound``             mean and variance per link of the logarithm of the textbook's bound, the product of |w| / 4
``ln_weight``         mean and variance of ln|w|, in closed form or by quadrature
``fixed_points``      the activations at which a chain of constant links can stay, and what a link multiplies there
``mean_field``        layers of endless width: length, correlation, and the factor chi_1 of the squared gradient norm
``critical_sigma_w``  the standard deviation of weights, times √n, at which chi_1 is 1
``width_correction``  what a finite width changes in the exponent, to first order in 1/n
``layer_growth``      linear and relu layers of any width: exact mean and variance of ln |gradient| per layer
``spectrum``          their Lyapunov exponents
``dead_probability``  how often a relu network passes no gradient at all
====================  ==============================================================================================

Laws are those of `fastgrad.laws`. All logarithms are natural, all rates in nats per link, or per layer.
"""

from __future__ import annotations

from fastgrad.theory.chain import lyapunov
from fastgrad.theory.finite_width import width_correction
from fastgrad.theory.fixed_points import FixedPoint, fixed_points
from fastgrad.theory.linear import dead_probability, layer_growth, spectrum
from fastgrad.theory.mean_field import MeanField, critical_sigma_w, mean_field
from fastgrad.theory.moments import Moments, bound, ln_weight
from fastgrad.theory.survey import Prediction, Survey, predict, survey

__all__ = [
    "FixedPoint",
    "MeanField",
    "Moments",
    "Prediction",
    "Survey",
    "bound",
    "critical_sigma_w",
    "dead_probability",
    "fixed_points",
    "layer_growth",
    "ln_weight",
    "lyapunov",
    "mean_field",
    "predict",
    "spectrum",
    "survey",
    "width_correction",
]
