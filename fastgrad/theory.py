"""Theory of a chain of random links: the moments of ln|w|, the bound's growth, fixed points, the Lyapunov exponent.

The exponent is lim ln|do_L/do_0| / L = E ln|w| + E ln sigmoid'(z), in nats per link, with z = w o + b and o from its
stationary law. That law is the left eigenvector of the transfer operator, (P f)(o) = E f(sigmoid(w o + b)), which is
discretized here by collocation on Gauss-Legendre panels; all integrals are Gauss-Legendre too. About twelve digits, and
nine at least.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.laws import Law, LawLike, constant, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

EULER = 0.5772156649015329
POINTS = 20  # of a panel
PANEL = 4.0  # its width, in preactivations
PANEL_SIGMAS = 2.0  # or in standard deviations of the preactivation
PANELS = (2.6, 2.0, 1.3, 0.8)  # and in the logarithm of the state: finer, until two in a row agree
RESOLVED = 1e-9  # by how much they may differ, relatively
SATURATED = 45.0  # from here on sigmoid is 0 or 1 for float64
MIXING = 4096  # half links after which a chain has to have forgotten its start
CUTS = (70.0, 140.0)  # of ln|o - 1/2| with centered biases, and the share of time spent there at most
CUT_SHARE = 1e-13
REACH_MAX = 1e30  # of weights and biases: beyond, there are too many scales between 0 and 1
LITTLE = 0.1  # of a law's width: closed forms cancel below
NARROW = 1e-8  # a law as narrow as that is a point: its variance is below float64's rounding
SIGMAS = 9.0  # of a normal law: 1e-19 is beyond


class Moments(NamedTuple):
    """Mean and variance of a logarithm, in nats and nats²."""

    mean: float
    variance: float


class Prediction(NamedTuple):
    """What theory says of an ensemble of chains.

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


class FixedPoint(NamedTuple):
    """Where a constant chain stays.

    Attributes
    ----------
    activation : float
        o with o = sigmoid(w o + b).
    multiplier : float
        w o (1 - o): by how much one link multiplies a gradient there. It attracts where the magnitude is below 1.
    """

    activation: float
    multiplier: float


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


def _ln_uniform(low: float, width: float) -> Moments:
    size = max(abs(low), abs(low + width))  # nothing leaves float64 in units of it
    low, high, width = low / size, (low + width) / size, width / size
    middle = abs(low + width / 2)
    if width < LITTLE * middle:  # where closed forms cancel
        t, share = _quadrature(np.array([-1.0, 1.0]))
        return _moments(math.log(size) + math.log(middle), np.log1p(width / (2 * middle) * t), share / 2)
    mean = (_ln_integral(high) - _ln_integral(low)) / width
    square = (_ln_square_integral(high) - _ln_square_integral(low)) / width
    return Moments(math.log(size) + mean, max(square - mean * mean, 0.0))


def _ln_normal(center: float, std: float) -> Moments:
    grid = np.arange(-SIGMAS, SIGMAS + 1)
    if std < LITTLE / 2 * center:
        t, share = _quadrature(grid)
        return _moments(math.log(center), np.log1p(std / center * t), share * _normal_density(t))
    # In units of std, on panels that shrink towards the logarithm's singularity.
    center /= std
    ends = grid + center
    near = (center + SIGMAS) * 0.5 ** np.arange(120)
    w, share = _quadrature(np.unique(np.concatenate([ends, [0.0], near, -near]).clip(ends[0], ends[-1])))
    return _moments(math.log(std), np.log(np.abs(w)), share * _normal_density(w - center))


def _moments(offset: float, values: Floats, share: Floats) -> Moments:
    mean = float(share @ values)
    return Moments(offset + mean, float(share @ (values - mean) ** 2))


def _normal_density(t: Floats) -> Floats:
    density: Floats = np.exp(-0.5 * t**2) / math.sqrt(2 * math.pi)
    return density


def bound(weight: LawLike) -> Moments:
    """Mean and variance, per link, of the logarithm of the textbook bound: the product of |w| / 4.

    Over L links the logarithm has L times both, and is Gaussian for large L.
    """
    mean, variance = ln_weight(weight)
    return Moments(mean - math.log(4), variance)


def fixed_points(weight: float, bias: float) -> list[FixedPoint]:
    """All points o with o = sigmoid(weight o + bias), ascending: one, or up to three where `weight` > 4.

    Raises
    ------
    ValueError
        If an argument is not finite.
    """
    if not (math.isfinite(weight) and math.isfinite(bias)):
        raise ValueError(f"weight, bias: expected finite numbers, got {weight!r} and {bias!r}")

    points = [FixedPoint(_sigmoid(z), weight * _sigmoid(z) * _sigmoid(-z)) for z in _resting(weight, bias)]
    return [p for i, p in enumerate(points) if i == 0 or p.activation != points[i - 1].activation]


def _resting(weight: float, bias: float) -> list[float]:
    """Preactivations that stay, z = weight sigmoid(z) + bias, ascending."""

    def excess(z: float) -> float:
        return weight * _sigmoid(z) + bias - z

    # Between the turning points of the excess, where w o (1 - o) = 1, there is one zero at most.
    ends = [bias + min(weight, 0.0), bias + max(weight, 0.0)]
    if weight > 4:
        turn = 2 * math.acosh(math.sqrt(weight) / 2)
        ends += [turn for turn in (-turn, turn) if ends[0] < turn < ends[1]]
    ends.sort()
    zeros = []
    for low, high in pairwise(ends):
        if (excess(low) > 0) == (excess(high) > 0) and excess(low) != 0 and excess(high) != 0:
            continue
        rising = excess(low) < 0 or excess(high) > 0
        zeros.append(_bisect(lambda z, rising=rising: (excess(z) < 0) == rising, low, high))  # type: ignore[misc]
    return sorted(set(zeros or ends[:1]))


def _bisect(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """Return where `is_below` turns from true to false."""
    for _ in range(1200):  # until the two are neighbors
        middle = low / 2 + high / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low


def lyapunov(weight: LawLike, bias: LawLike = "zero") -> float:
    """Lyapunov exponent of a chain of random links, in nats per link, to about twelve digits and nine at least.

    With centered biases it is that of a chain which does not start at exactly 1/2.

    Raises
    ------
    ValueError
        If the exponent depends on where the chain starts (several attractors); if one law is normal and the other
        uniform: the two are then not independent, and there is no such theory; or if the stationary law is not
        resolved, as where steep links have very little noise.
    """
    w, b = _without_width(parse(weight, "weight")), _without_width(parse(bias, "bias"))
    mean = ln_weight(w).mean
    if mean == -math.inf:
        return mean
    if {w.family, b.family} == {"normal", "uniform"} and w.scale and b.scale:
        raise ValueError(
            "bias: expected the family of the weight's law, or a constant: normal and uniform depend on each other"
        )
    if b.family == "centered":
        return mean + _centered(w, mean)
    if not (w.scale or b.scale):
        return _of_constants(w.location, b.location)
    reach = max(abs(end) for law in (w, b) for end in _ends(law))
    if reach > REACH_MAX:
        raise ValueError(f"weight, bias: expected values up to {REACH_MAX:g}, got laws that reach {reach:.3g}")
    _require_one_attractor(w, b)
    return mean + _stationary_mean(_Random(w, b))


def _without_width(law: Law) -> Law:
    """Return a law that always gives the same as a constant."""
    return constant(law.location) if law.family in ("normal", "uniform") and law.scale == 0.0 else law


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


class _Random:
    """Links with random weights or biases, in the coordinate q = ln o: smooth on the scale 1, flat far down."""

    cut_share = 1.0  # far down all states are alike
    may_trap = True

    def __init__(self, weight: Law, bias: Law) -> None:
        self.weight, self.bias = weight, bias
        reach = max(abs(weight.location) + SIGMAS * weight.scale, 1.0)
        self.ends = -(SATURATED + math.log(reach)), 0.0

    def preactivations(self, q: float) -> tuple[Floats, Floats]:
        """Points z and weights to integrate over the law of z, from the state q."""
        o = math.exp(q)
        center = self.weight.location * o + self.bias.location
        if "normal" in (self.weight.family, self.bias.family):
            std = math.hypot(self.weight.scale * o, self.bias.scale)
            if std < NARROW * (1 + abs(center)):
                return np.array([center]), np.ones(1)
            steps = 2 * math.ceil(SIGMAS / PANEL_SIGMAS)
            z, share = _quadrature(_edges(center + std * np.linspace(-SIGMAS, SIGMAS, steps + 1)))
            return z, share * (_normal_density((z - center) / std) / std)
        # the sum of two uniforms: a trapezoid
        short, long = sorted([self.weight.scale * o, self.bias.scale])
        if long < NARROW * (1 + abs(center)):
            return np.array([center + long / 2]), np.ones(1)
        short = short if short > NARROW * long else 0.0
        corners = center + np.unique([0.0, short, long, short + long])
        z, share = _quadrature(_edges(corners))
        density = np.minimum(1.0, np.minimum(z - corners[0], corners[-1] - z) / short) if short else np.ones_like(z)
        return z, share * density / long

    def states(self, z: Floats) -> Floats:
        """The state after a preactivation."""
        return np.minimum(z, 0.0) - np.log1p(np.exp(-np.abs(z)))


class _Centered:
    """Links with biases -w/2, in the coordinate q = ln|o - 1/2|: z = w (o - 1/2), and only |w| matters."""

    cut_share = CUT_SHARE
    may_trap = False

    def __init__(self, weight: Law, cut: float) -> None:
        self.ends = -cut, math.log(0.5)
        ends = weight.location + weight.scale * (
            np.arange(-SIGMAS, SIGMAS + 1) if weight.family == "normal" else np.arange(2)
        )
        # Panels that shrink towards w = 0, where the next state goes to -inf.
        near = np.max(np.abs(ends)) * 0.5 ** np.arange(50)
        edges = np.unique(np.concatenate([ends, [0.0], near, -near]).clip(ends[0], ends[-1]))
        self.w, share = _quadrature(edges)
        if weight.family == "normal":
            share = share * _normal_density((self.w - weight.location) / weight.scale)
        self.share = share / weight.scale

    def preactivations(self, q: float) -> tuple[Floats, Floats]:
        return self.w * math.exp(q), self.share

    def states(self, z: Floats) -> Floats:
        return np.log(0.5 * np.tanh(0.5 * np.abs(z)))


class _TooShallow(Exception):  # noqa: N818  (nobody sees it)
    """The states are cut off where the chain still is."""


def _centered(weight: Law, ln_mean: float) -> float:
    """E ln sigmoid'(z) with centered biases."""
    if ln_mean <= math.log(4):  # the chain comes to 1/2, where it stays
        return -math.log(4)
    if weight.scale == 0.0:
        return _of_constants(abs(weight.location), -abs(weight.location) / 2) - ln_mean
    if max(map(abs, _ends(weight))) > REACH_MAX:
        raise ValueError(f"weight: expected values up to {REACH_MAX:g}, got {weight}")
    for cut in CUTS:
        with suppress(_TooShallow):
            return _stationary_mean(_Centered(weight, cut))
    raise ValueError("weight, bias: too near to where chains come to rest at 1/2, their stationary law is too wide")


def _of_constants(weight: float, bias: float) -> float:
    """Exponent of a deterministic chain: where it ends up from 0 and from 1, which all others lie between."""
    ln_size = math.log(abs(weight))

    def rate(z: float) -> float:
        return ln_size + float(_ln_derivative(np.array(z)))

    def after(z: float) -> float:
        return weight * _sigmoid(z) + bias

    at_rest = _resting(weight, bias)
    low, high = rate(at_rest[0]), rate(at_rest[-1])
    if weight < 0 and low > 0:  # it is driven away from where it would rest, and ends up alternating
        z = _bisect(lambda z: after(after(z)) > z, bias + weight, at_rest[0])
        low = high = rate(z) / 2 + rate(after(z)) / 2
    if abs(low - high) > 1e-9 * (1 + abs(low)):
        raise ValueError(f"weight, bias: the exponent depends on the start: {low:.6g} from 0, {high:.6g} from 1")
    return low


def _require_one_attractor(weight: Law, bias: Law) -> None:
    """Refuse chains that stay below some state if they start there, and above a higher one if they start there."""
    least_w, most_w = _ends(weight)
    least_b, most_b = _ends(bias)
    if least_w < 0:  # no order is kept
        return
    low, high = 0.0, 1.0
    for _ in range(100_000):
        last = low, high
        low, high = _sigmoid(most_w * low + most_b), _sigmoid(least_w * high + least_b)
        if last == (low, high) or low >= high:
            break
    if low < high:
        raise ValueError(
            f"weight, bias: the exponent depends on the start: from 0 no chain passes {low:.3g}, from 1 none {high:.3g}"
        )


def _ends(law: Law) -> tuple[float, float]:
    reach = SIGMAS * law.scale
    return (
        (law.location - reach, law.location + reach)
        if law.family == "normal"
        else (law.location, law.location + law.scale)
    )


def _stationary_mean(links: _Random | _Centered) -> float:
    """E ln sigmoid'(z) over the stationary law of the state."""
    coarse = fine = math.inf
    for width in PANELS:
        coarse, fine = fine, _collocate(links, width)
        if abs(fine - coarse) <= RESOLVED * (1 + abs(fine)):
            return fine
    raise ValueError(f"weight, bias: the stationary law is too narrow to be resolved (about {fine:.3g}, {coarse:.3g})")


def _collocate(links: _Random | _Centered, width: float) -> float:
    """Do so on panels of about this width."""
    low, high = links.ends
    edges = np.linspace(low, high, 1 + math.ceil((high - low) / width))
    nodes, _ = _quadrature(edges)
    size = len(nodes)
    transfer, gain = np.empty((size, size)), np.empty(size)
    points, _ = _legendre()
    barycentric = np.array([1 / np.prod(p - np.delete(points, k)) for k, p in enumerate(points)])
    half = (edges[1] - edges[0]) / 2
    for i, q in enumerate(nodes):
        z, share = links.preactivations(q)
        share = share / share.sum()  # where the law is narrow, rounding leaves a little less or more
        gain[i] = share @ _ln_derivative(z)
        state = np.maximum(links.states(z), edges[0])
        panel = np.minimum(((state - edges[0]) / (2 * half)).astype(np.int64), len(edges) - 2)
        at = (state - edges[panel]) / half - 1.0
        away = at[:, None] - points
        hit = away == 0.0
        cardinal = barycentric / np.where(hit, 1.0, away)
        cardinal = np.where(hit.any(axis=1)[:, None], hit, cardinal / cardinal.sum(axis=1)[:, None])
        column = panel[:, None] * POINTS + np.arange(POINTS)
        transfer[i] = np.bincount(column.ravel(), (share[:, None] * cardinal).ravel(), minlength=size)
    if links.may_trap:
        _require_mixing(transfer, gain)
    # stationary P = stationary, of total 1: that takes the place of one equation, which follows from the others
    system = transfer.T - np.eye(size)
    system[-1] = 1.0
    total = np.zeros(size)
    total[-1] = 1.0
    stationary = np.linalg.solve(system, total)
    if abs(stationary[:POINTS].sum()) > links.cut_share:
        raise _TooShallow
    return float(stationary @ gain)


def _require_mixing(transfer: Floats, gain: Floats) -> None:
    """Refuse chains that stay for very long where they started: the linear system would not tell."""
    later = gain  # the mean gain of the link after so many, from each state: it has to become the same for all
    for done in range(MIXING):
        if done % 32 == 0 and np.ptp(later) <= RESOLVED * (1 + abs(later[0])):
            return
        later = (later + transfer @ later) / 2  # half, for chains that alternate
    raise ValueError("weight, bias: the exponent depends on the start, which the chain forgets too slowly")


@cache
def _legendre() -> tuple[Floats, Floats]:
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    return points, weights


def _quadrature(edges: Floats) -> tuple[Floats, Floats]:
    """Gauss-Legendre points and weights over panels."""
    points, weights = _legendre()
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (points + 1)).ravel(), (half * weights).ravel()


def _edges(edges: Floats) -> Floats:
    """Panels with these edges, and no wider than PANEL where the sigmoid is not saturated."""
    fine = np.arange(-SATURATED, SATURATED + PANEL, PANEL)
    return np.unique(np.concatenate([edges, fine[(fine > edges[0]) & (fine < edges[-1])]]))


def _sigmoid(z: float) -> float:
    e = math.exp(-abs(z))
    return (e if z < 0 else 1.0) / (1 + e)


def _ln_derivative(z: Floats) -> Floats:
    """Ln sigmoid'(z)."""
    ln: Floats = -np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z)))
    return ln


def _ln_integral(w: float) -> float:
    return w * math.log(abs(w)) - w if w else 0.0


def _ln_square_integral(w: float) -> float:
    return w * (math.log(abs(w)) ** 2 - 2 * math.log(abs(w)) + 2) if w else 0.0
