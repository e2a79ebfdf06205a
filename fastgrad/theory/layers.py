"""Theory of layers with given laws: exact at their width where it is known, or that of the mean field."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from fastgrad.theory.linear import layer_growth
from fastgrad.theory.mean_field import SIGMA_MAX, SIGMA_MIN, mean_field
from fastgrad.theory.moments import Moments, ln_weight

if TYPE_CHECKING:
    from fastgrad.laws import Law
    from fastgrad.nonlinearities import Nonlinearity

TINY, RAISED = 1e-290, 200
HoldsFor = Literal["every width", "n -> infinity"]


def gain(weight: Law, width: int) -> float:
    """Return sigma_w: of an orthogonal law its gain, of others √n times the standard deviation; inf beyond float64."""
    return weight.scale if weight.family == "orthogonal" else math.sqrt(width) * weight.std


def ln_gain(weight: Law, width: int) -> float:
    """Return the logarithm of `gain`, which float64 holds for every law; -inf for 0."""
    if not weight.scale or weight.family == "constant":
        return -math.inf
    if _is_tiny(weight):
        return ln_gain(_raised(weight), width) - RAISED * math.log(2)
    sigma_w = gain(weight, width)
    return math.log(sigma_w) if math.isfinite(sigma_w) else math.log(weight.std) + math.log(width) / 2


def _is_tiny(weight: Law) -> bool:
    """Tell if a product with the law's parameters may be subnormal, and lose digits."""
    return 0 < max(abs(weight.location), weight.scale) < TINY


def _raised(weight: Law) -> Law:
    """Return the law of weights that are 2^RAISED times as large."""
    return replace(weight, location=math.ldexp(weight.location, RAISED), scale=math.ldexp(weight.scale, RAISED))


def layers_bound(weight: Law, width: int, phi: Nonlinearity) -> Moments:
    """Logarithm of the largest singular value times the largest slope as the width grows, in nats per layer.

    Of one unit the mean and the variance of the logarithm of |w| times that slope.

    A random matrix has 2 sigma_w (Geman, Ann. Probab. 8, 252 (1980)); if its elements have a mean m with n |m| above
    sigma_w, it has n |m| + sigma_w² / (n |m|) (Benaych-Georges and Nadakuditi, J. Multivar. Anal. 111, 120 (2012)).

    Parameters
    ----------
    weight : Law
        At this width; that of one unit is a chain's.
    """
    if width == 1:
        mean, variance = ln_weight(weight)
        return Moments(mean + math.log(phi.slope), variance)
    if _is_tiny(weight):
        return Moments(layers_bound(_raised(weight), width, phi).mean - RAISED * math.log(2), 0.0)
    sigma_w, shift = gain(weight, width), width * abs(weight.mean)
    if weight.family == "orthogonal":
        largest = sigma_w
    elif shift > sigma_w:
        largest = shift + sigma_w * (sigma_w / shift)
    else:
        largest = 2 * sigma_w
    if not math.isfinite(largest):  # 1 / width of it is in range
        unit = replace(weight, location=weight.location / width, scale=weight.scale / width)
        return Moments(layers_bound(unit, width, phi).mean + math.log(width), 0.0)
    return Moments(math.log(largest * phi.slope) if largest else -math.inf, 0.0)


def layers_exponent(weight: Law, bias: Law, width: int, phi: Nonlinearity) -> tuple[float | None, str | None, HoldsFor]:
    """Exponent of the gradient's norm in nats per layer, or None and why there is none, and what it holds for.

    Parameters
    ----------
    weight, bias : Law
        At this width.
    """
    if _is_tiny(weight) and phi.name in ("linear", "relu"):  # which multiply
        exponent, why_not, holds_for = layers_exponent(_raised(weight), bias, width, phi)
        return None if exponent is None else exponent - RAISED * math.log(2), why_not, holds_for
    sigma_w = gain(weight, width)
    if sigma_w == 0 and weight.mean == 0:
        return -math.inf, None, "every width"
    if phi.name == "linear" and weight.family == "orthogonal":
        return math.log(sigma_w), None, "every width"
    if phi.name == "linear" and width == 1:
        return ln_weight(weight).mean, None, "every width"
    if weight.mean != 0:
        return None, "the weights have a mean", "n -> infinity"
    if bias.mean != 0 and phi.name != "linear":
        return None, "the biases have a mean", "n -> infinity"
    if phi.name in ("linear", "relu") and weight.family == "normal":
        growth = layer_growth(width, 1.0, phi.name)  # type: ignore[arg-type]
        return growth.mean + ln_gain(weight, width), None, "every width"
    if width == 1:
        return None, f"no theory of chains of {phi.name} units", "every width"
    if bias.family == "uniform" and bias.fan_in is None and bias.scale > 0 and phi.name != "linear":
        return None, "the biases are not normal", "n -> infinity"
    if not all(sigma == 0 or SIGMA_MIN <= sigma <= SIGMA_MAX for sigma in (sigma_w, bias.std)):
        return None, f"the laws are beyond {SIGMA_MIN:g} to {SIGMA_MAX:g}", "n -> infinity"
    chi_1 = mean_field(sigma_w, bias.std, phi.name).chi_1
    return math.log(chi_1) / 2 if chi_1 > 0 else -math.inf, None, "n -> infinity"
