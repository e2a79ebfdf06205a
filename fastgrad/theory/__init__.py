"""Theory of a chain of random links, to nine digits at least, without drawing a single one.

>>> import fastgrad as fg
>>> round(fg.theory.lyapunov("normal:std=4"), 10)  # nats per link of an endless chain
-1.4869863606
>>> round(fg.theory.bound("normal:std=500").mean, 10)  # while the textbook's bound explodes
4.1931323146
>>> fg.theory.fixed_points(4, -2)
[FixedPoint(activation=0.5, multiplier=1.0)]

==================  ================================================================================================
``predict``         all that theory says of chains with given laws and inputs; the reason where it says nothing
``lyapunov``        the Lyapunov exponent lim ln|do_L/do_0| / L, by the Poisson equation of the transfer operator
``bound``           mean and variance per link of the logarithm of the textbook's bound, the product of |w| / 4
``ln_weight``       mean and variance of ln|w|, in closed form or by quadrature
``fixed_points``    the activations at which a chain of constant links can stay, and what a link multiplies there
==================  ================================================================================================

Laws are those of `fastgrad.laws`. All logarithms are natural, all rates in nats per link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.laws import LawLike, parse
from fastgrad.theory.chain import lyapunov
from fastgrad.theory.fixed_points import FixedPoint, fixed_points
from fastgrad.theory.moments import Moments, bound, ln_weight

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["FixedPoint", "Moments", "Prediction", "bound", "fixed_points", "ln_weight", "lyapunov", "predict"]


class Prediction(NamedTuple):
    """Theory of an ensemble of chains.

    Attributes
    ----------
    lyapunov : float or None
        Exponent of an endless chain, in nats per link; None if there is no theory of it.
    why_not : str or None
        The reason, then.
    bound : Moments
        Mean and variance per link of the logarithm of the textbook's bound, in nats and nats².
    """

    lyapunov: float | None
    why_not: str | None
    bound: Moments


def predict(weight: LawLike, bias: LawLike = "zero", x: ArrayLike = 0.5) -> Prediction:
    """Collect what theory says of chains with these laws and inputs.

    With centered biases a chain that starts at exactly 1/2 stays there, and reaches the bound.

    Raises
    ------
    ValueError, TypeError
        If an argument is no law.
    """
    w, b = parse(weight, "weight"), parse(bias, "bias")
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
