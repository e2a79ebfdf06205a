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
``predict``           all that theory says of chains, or layers, with given laws; the reason where it says nothing
``lyapunov``          the Lyapunov exponent lim ln|do_L/do_0| / L of chains, by the transfer operator's Poisson equation
``bound``             mean and variance per link of the logarithm of the textbook's bound, the product of |w| / 4
``ln_weight``         mean and variance of ln|w|, in closed form or by quadrature
``fixed_points``      the activations at which a chain of constant links can stay, and what a link multiplies there
``mean_field``        layers of endless width: length, correlation, and the factor chi_1 of the squared gradient norm
``critical_sigma_w``  the standard deviation of weights, times √n, at which chi_1 is 1
``layer_growth``      linear and relu layers of any width: exact mean and variance of ln |gradient| per layer
``spectrum``          their Lyapunov exponents
``dead_probability``  how often a relu network passes no gradient at all
====================  ==============================================================================================

Laws are those of `fastgrad.laws`. All logarithms are natural, all rates in nats per link, or per layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from fastgrad import nonlinearities
from fastgrad.checks import integer
from fastgrad.laws import LawLike, parse
from fastgrad.theory.chain import lyapunov
from fastgrad.theory.fixed_points import FixedPoint, fixed_points
from fastgrad.theory.layers import layers_bound, layers_exponent
from fastgrad.theory.linear import WIDTH_MAX, dead_probability, layer_growth, spectrum
from fastgrad.theory.mean_field import MeanField, critical_sigma_w, mean_field
from fastgrad.theory.moments import Moments, bound, ln_weight

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "FixedPoint",
    "MeanField",
    "Moments",
    "Prediction",
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
]


class Prediction(NamedTuple):
    """Theory of an ensemble of chains, or of networks with width.

    Attributes
    ----------
    lyapunov : float or None
        Exponent of an endless chain or network, in nats per link or layer; None if there is no theory of it.
    why_not : str or None
        The reason, then.
    bound : Moments
        Mean and variance per link of the logarithm of the bound, in nats and nats²: of chains the textbook's, |w| / 4;
        of layers the largest singular value times the largest slope of phi, as the width grows without limit.
    holds_for : {"chains", "every width", "n -> infinity"}
        What `lyapunov` is exact for; "n -> infinity" is the mean field, from which a network of n units differs by
        some 1/n.
    """

    lyapunov: float | None
    why_not: str | None
    bound: Moments
    holds_for: Literal["chains", "every width", "n -> infinity"] = "chains"


def predict(
    weight: LawLike, bias: LawLike = "zero", x: ArrayLike = 0.5, width: int = 1, nonlinearity: str = "sigmoid"
) -> Prediction:
    """Collect what theory says of chains, or layers, with these laws and inputs.

    Chains are those of width 1 with the sigmoid; with centered biases one that starts at exactly 1/2 stays there, and
    reaches the bound. Linear and relu layers with normal weights, and orthogonal linear ones, have a law that is exact
    at every width (`layer_growth`); for all others, and for the bound, there is the mean field of `mean_field`.

    Parameters
    ----------
    weight, bias : str or Law
    x : array_like
        The input of each chain.
    width : int
        Units of a layer, 1 to 65536.
    nonlinearity : {"sigmoid", "tanh", "relu", "linear"}

    Raises
    ------
    ValueError, TypeError
        If an argument is no law, or out of its range.
    """
    width, phi = integer("width", width, 1, WIDTH_MAX), nonlinearities.parse(nonlinearity)
    w, b = parse(weight, "weight", width), parse(bias, "bias", width)
    if not nonlinearities.is_chain(width, phi.name):
        exponent, why_not, holds_for = layers_exponent(w, b, width, phi)
        return Prediction(exponent, why_not, layers_bound(w, width, phi), holds_for)
    of_bound = bound(w)
    if b.family == "centered":
        at_half = np.asarray(x) == 0.5
        if at_half.all():
            return Prediction(of_bound.mean, None, of_bound)
        if at_half.any():
            return Prediction(None, "some chains start at exactly 1/2, and others do not", of_bound)
    try:
        return Prediction(lyapunov(w, b), None, of_bound)
    except ValueError as error:
        return Prediction(None, str(error), of_bound)
