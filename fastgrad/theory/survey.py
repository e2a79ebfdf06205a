"""All that theory says of chains, or of networks with width, with given laws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from fastgrad import nonlinearities
from fastgrad.checks import integer
from fastgrad.laws import LawLike, parse
from fastgrad.scaled import FLOAT_LIMITS
from fastgrad.theory.chain import lyapunov
from fastgrad.theory.finite_width import expansion
from fastgrad.theory.fixed_points import FixedPoint, fixed_points
from fastgrad.theory.layers import gain, layers_bound, layers_exponent, ln_gain
from fastgrad.theory.linear import WIDTH_MAX, dead_probability, layer_growth, spectrum
from fastgrad.theory.mean_field import SIGMA_MAX, SIGMA_MIN, MeanField, critical_sigma_w, mean_field
from fastgrad.theory.moments import Moments, bound, ln_weight

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastgrad.laws import Law
    from fastgrad.nonlinearities import Nonlinearity
    from fastgrad.theory.linear import Floats


class Prediction(NamedTuple):
    """Theory of an ensemble of chains, or of networks with width.

    Attributes
    ----------
    lyapunov : float or None
        Exponent of an endless chain or network, in nats per link or layer; None if there is no theory of it. Of relu
        layers given that a unit is alive in each: see `dead_probability`.
    why_not : str or None
        The reason, then.
    bound : Moments
        Mean and variance per link of the logarithm of the bound, in nats and nats²: of chains the textbook's, |w| / 4;
        of layers the largest singular value times the largest slope of phi, as the width grows without limit.
    holds_for : {"chains", "every width", "n -> infinity"}
        What `lyapunov` is exact for; "n -> infinity" is the mean field, from which a network of n units differs by
        some 1/n.
    at_width : float or None
        The exponent at the width itself, to first order in 1/n (see `width_correction`), where `lyapunov` is that of
        n -> infinity, weights and biases are normal, and the width is not too narrow.
    is_too_narrow : bool
        Tells that `lyapunov` is that of n -> infinity and says little of this width: what the width changes, to first
        order and with normal weights, is more than a quarter nat a layer, or the length of a layer fluctuates by more
        than half of its square.
    """

    lyapunov: float | None
    why_not: str | None
    bound: Moments
    holds_for: Literal["chains", "every width", "n -> infinity"] = "chains"
    at_width: float | None = None
    is_too_narrow: bool = False

    @property
    def best(self) -> float | None:
        """The exponent that is closest to that of the width: `at_width`, else `lyapunov`; None if it says little."""
        if self.is_too_narrow:
            return None
        return self.lyapunov if self.at_width is None else self.at_width


def predict(
    weight: LawLike, bias: LawLike = "zero", x: ArrayLike = 0.5, width: int = 1, nonlinearity: str = "sigmoid"
) -> Prediction:
    """Return the exponent of chains, or layers, with these laws and inputs, and the rate of the bound.

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
    if not _is_sigmoid_chain(width, phi):
        exponent, why_not, holds_for = layers_exponent(w, b, width, phi)
        prediction = Prediction(exponent, why_not, layers_bound(w, width, phi), holds_for)
        return _at_width(prediction, w, b, width, phi)
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


def _at_width(prediction: Prediction, w: Law, b: Law, width: int, phi: Nonlinearity) -> Prediction:
    """Add what the width changes in a mean field."""
    exponent = prediction.lyapunov
    if prediction.holds_for != "n -> infinity" or exponent is None or exponent == -math.inf:
        return prediction
    corrected = expansion(gain(w, width), b.std, phi.name)
    if not corrected.holds_at(width):
        return prediction._replace(is_too_narrow=True)
    if w.family != "normal" or b.family == "uniform":
        return prediction
    return prediction._replace(at_width=exponent + corrected.coefficient / (2 * width))


class Survey(NamedTuple):
    """All that theory knows of some laws; what it does not is None.

    Attributes
    ----------
    weight, bias : Law
        At the width.
    width : int
    nonlinearity : str
    prediction : Prediction
        The exponent, the reason where there is none, and the bound.
    lost_after : dict of str to int or None
        For each float format, the links or layers after which a gradient that follows the exponent (the best of the
        prediction) has left its range, to 0 or to inf; None if it never does, or there is no such exponent.
    ln_weight : Moments or None
        Of chains: mean and variance of ln|w|, in nats and nats².
    fixed_points : list of FixedPoint or None
        Of chains of constant links.
    sigma_w, sigma_b : float or None
        Of layers: √n times the standard deviation of a weight (of orthogonal ones the gain; inf beyond float64), and
        that of a bias.
    mean_field : MeanField or None
        Of layers whose laws have no mean, as n -> infinity.
    critical_sigma_w : float or None
        Of such layers: the sigma_w at which gradients neither vanish nor explode.
    layer_growth : Moments or None
        Of linear and relu layers with normal weights, at this width: mean and variance of what a layer adds to ln
        |gradient|.
    spectrum : ndarray of float64, shape (width,), or None
        Their Lyapunov exponents.
    dead_probability : float or None
        Of relu layers with symmetric laws: the share of single layers in which every unit is dead.
    """

    weight: Law
    bias: Law
    width: int
    nonlinearity: str
    prediction: Prediction
    lost_after: dict[str, int | None]
    ln_weight: Moments | None = None
    fixed_points: list[FixedPoint] | None = None
    sigma_w: float | None = None
    sigma_b: float | None = None
    mean_field: MeanField | None = None
    critical_sigma_w: float | None = None
    layer_growth: Moments | None = None
    spectrum: Floats | None = None
    dead_probability: float | None = None


def survey(
    weight: LawLike = "normal:std=4",
    bias: LawLike = "zero",
    x: float | str = 0.5,
    width: int = 1,
    nonlinearity: str = "sigmoid",
) -> Survey:
    """Collect all that theory says of chains, or of layers, with these laws.

    Parameters
    ----------
    weight, bias : str or Law
    x : float or str
        The input of chains; of a law none is exactly 1/2, which is all that matters, and only with centered biases.
    width : int
        Units of a layer, 1 to 65536. With the sigmoid 1 is a chain.
    nonlinearity : {"sigmoid", "tanh", "relu", "linear"}

    Raises
    ------
    ValueError, TypeError
        If an argument is no law, or out of its range.

    Examples
    --------
    >>> import fastgrad as fg
    >>> known = fg.theory.survey("he_normal", width=256, nonlinearity="relu")
    >>> round(known.prediction.lyapunov, 6), known.prediction.holds_for, known.lost_after["float16"]
    (-0.004914, 'every width', 3527)
    """
    width, phi = integer("width", width, 1, WIDTH_MAX), nonlinearities.parse(nonlinearity)
    w, b = parse(weight, "weight", width), parse(bias, "bias", width)
    if isinstance(x, str):
        parse(x, "x")
    prediction = predict(w, b, math.nan if isinstance(x, str) else x, width, phi.name)
    lost = {name: _lost_after(prediction.best, *limits) for name, limits in FLOAT_LIMITS.items()}
    known = Survey(w, b, width, phi.name, prediction, lost)
    if not _is_sigmoid_chain(width, phi):
        return _of_layers(known, w, b, phi)
    constant = w.family == "constant" and b.family in ("constant", "centered")
    of_bias = -w.location / 2 if b.family == "centered" else b.location
    return known._replace(ln_weight=ln_weight(w), fixed_points=fixed_points(w.location, of_bias) if constant else None)


def _is_sigmoid_chain(width: int, phi: Nonlinearity) -> bool:
    """Tell the chains of which the transfer operator knows; all else is layers, of one unit too."""
    return width == 1 and phi.name == "sigmoid"


def _of_layers(known: Survey, w: Law, b: Law, phi: Nonlinearity) -> Survey:
    width, sigma_w, sigma_b, shift = known.width, gain(w, known.width), b.std, ln_gain(w, known.width)
    in_range = all(sigma == 0 or SIGMA_MIN <= sigma <= SIGMA_MAX for sigma in (sigma_w, sigma_b))
    has_field = width > 1 and w.mean == 0 and b.mean == 0 and in_range and known.prediction.why_not is None
    exact = w.family == "normal" and w.mean == 0 and sigma_w > 0
    exact &= phi.name == "linear" or (phi.name == "relu" and b.mean == 0)
    symmetric = phi.name == "relu" and w.mean == 0 and b.mean == 0
    dead = 1.0 if sigma_w == sigma_b == 0 else dead_probability(width)
    growth = layer_growth(width, nonlinearity=phi.name) if exact else None  # type: ignore[arg-type]
    return known._replace(
        sigma_w=sigma_w,
        sigma_b=sigma_b,
        mean_field=mean_field(sigma_w, sigma_b, phi.name) if has_field else None,
        critical_sigma_w=critical_sigma_w(sigma_b, phi.name) if has_field else None,
        layer_growth=growth and Moments(growth.mean + shift, growth.variance),
        spectrum=spectrum(width, nonlinearity=phi.name) + shift if exact else None,  # type: ignore[arg-type]
        dead_probability=dead if symmetric else None,
    )


def _lost_after(exponent: float | None, log2_underflow: float, log2_overflow: float) -> int | None:
    """Smallest number of links after which exp(exponent links) is out of a format's range."""
    if exponent is None or exponent == 0 or math.isnan(exponent):
        return None
    if exponent == -math.inf:
        return 1
    links = (log2_underflow if exponent < 0 else log2_overflow) * math.log(2) / exponent
    return math.ceil(links) if links < 2**62 else None
