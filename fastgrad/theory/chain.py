"""Lyapunov exponent of a chain of random links, by the Poisson equation of its transfer operator.

The exponent is lim ln|do_L/do_0| / L = E ln|w| + E ln sigmoid'(z), in nats per link, with z from its stationary law:
the ergodic theorem for products of random factors (Furstenberg, Trans. Amer. Math. Soc. 108, 377 (1963)). The transfer
operator P maps a function h to (P h)(z) = E h(z'), with z' = w sigmoid(z) + b the next preactivation. The constant a in
the Poisson equation

    h - P h + a = g,  g(z) = E ln sigmoid'(z'),

is the stationary mean of g (Meyn and Tweedie, Markov Chains and Stochastic Stability (2009), chapter 17). Unlike a
stationary density h is smooth, also where densities of weights and biases have kinks, which the integral P h smooths.
So h is a polynomial on each of some panels, the equation holds at Gauss-Legendre points (collocation; Atkinson, The
Numerical Solution of Integral Equations of the Second Kind (1997), chapter 3), and panels are split until each resolves
h; every integral is cut at their ends and at the kinks, so that the only error is that of h. And that is known:
whatever h is, the stationary mean of g + P h - h is exactly a, so the error of a is at most the mean of what is
missing in the equation between the points.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from threadpoolctl import ThreadpoolController

from fastgrad.laws import Law, LawLike, constant, parse
from fastgrad.theory import quadrature
from fastgrad.theory.fixed_points import bisect, fixed_preactivations, sigmoid
from fastgrad.theory.moments import SIGMAS, ln_weight, normal_density

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESOLVED = 3e-10  # largest estimate of the relative error of an exponent: nine digits, and a reserve
TOLERANCE = 1e-12  # relative: up to which panels are split
ROUNDING = 1e-14  # of h, relative
PANELS_MAX = 100
SATURATED = 37.0  # from here on 1 - sigmoid(z) is below float64's rounding
EDGES = (0.0, 1.5, 3.5, 7.0, 13.0, 22.0)  # of panels, before any is split; in preactivations, also negative
GAIN_EDGES = np.array([-40.0, -25, -12, -5, 0, 5, 12, 25, 40])  # between which 16 points resolve ln sigmoid'
STEP = 3.0  # standard deviations of a normal law that 16 points resolve
CHECKS = np.array([-1.0, -0.97, -0.45, 0.15, 0.62, 1.0])  # of a panel, where the equation is tested
MIXING_LINKS = 4096.0  # after which a chain has to have forgotten its start
SUPPORT_MAX = 1e280  # of weights and biases: exp(-ln w) has to stay above the subnormals
LOWER_CUTOFFS = (40.0, 120.0)  # of -ln|z| with centered biases, beyond the least that matters
LEAST = 1e-300  # width, so that nothing is divided by 0
NARROW = 1e-7  # width, relative, of what counts as a point: its variance is below float64's rounding
EPSILON = 2.0**-52


class Kernel(Protocol):
    """Law of the next state, given this one: ``center + scale * t`` with a density of t.

    A row is a state: ``states`` has shape (rows,), and each method gives an array of as many rows.
    """

    domain: tuple[float, float]
    edges: list[float]
    whole: float  # t's that a panel may span and still resolve the density, without breaks; 0 where breaks are kinks

    def place(self, states: Floats) -> tuple[Floats, Floats]:
        """Center and scale, each of shape (rows,)."""

    def breaks(self, states: Floats) -> Floats:
        """All t, ascending, between which the density is smooth, with its ends: shape (rows, breaks)."""

    def density(self, t: Floats, states: Floats) -> Floats:
        """Density at t, shape (pieces, n), for states of shape (pieces,)."""

    def means(self, states: Floats) -> tuple[Floats, Floats]:
        """The right side of the Poisson equation and what its constant is multiplied by, each of shape (rows,)."""


def _support(law: Law) -> tuple[float, float]:
    """Least and largest value; a normal law is cut off at `SIGMAS` standard deviations."""
    reach = SIGMAS * law.scale
    return (
        (law.location - reach, law.location + reach)
        if law.family == "normal"
        else (law.location, law.location + law.scale)
    )


class _Random:
    """Weights and biases that are independent of each other, at least one of them random; the state is z."""

    def __init__(self, weight: Law, bias: Law, domain: tuple[float, float]) -> None:
        self.weight, self.bias, self.domain = weight, bias, domain
        families = {law.family for law in (weight, bias) if law.scale}
        self.mixed = families == {"normal", "uniform"}
        self.normal = families == {"normal"}
        self.whole = STEP if "normal" in families else 0.0
        # Beyond, o = sigmoid(z) is 0 or 1 for every weight.
        reach = SATURATED + math.log(max(1.0, *map(abs, _support(weight))))
        self.edges = [sign * edge for edge in (*EDGES, reach) for sign in (-1.0, 1.0)]

    def _widths(self, states: Floats) -> tuple[Floats, Floats, Floats]:
        """Standard deviation of the normal part of z'; the longer and the shorter of its uniform parts."""
        o = _sigmoids(states)
        parts = [(law.family, law.scale * factor) for law, factor in ((self.weight, o), (self.bias, np.ones_like(o)))]
        nothing = np.zeros_like(o)
        normal = [part for family, part in parts if family == "normal"] + [nothing]
        uniform = [part for family, part in parts if family == "uniform"] + [nothing, nothing]
        return np.hypot(normal[0], normal[-2] if len(normal) > 2 else 0.0), *np.sort(uniform[:2], axis=0)[::-1]

    def place(self, states: Floats) -> tuple[Floats, Floats]:
        """Center: means of normal parts plus lower ends of uniform ones; scale: the standard deviation or the width."""
        w, b = self.weight.location, self.bias.location
        center = np.where(states < 0, w * _sigmoids(states) + b, (w + b) - w * _sigmoids(-states))
        std, long, short = self._widths(states)
        return center, np.maximum(
            std if self.normal else np.maximum(std, 1e-17 * long) if self.mixed else long + short, LEAST
        )

    def breaks(self, states: Floats) -> Floats:
        rows = len(states)
        of_normal = np.arange(-SIGMAS, SIGMAS + 1, STEP)
        if self.normal:
            return np.broadcast_to(of_normal, (rows, len(of_normal)))
        _, long, short = self._widths(states)
        if self.mixed:
            ratio = self._ratio(states)[:, None]
            return np.sort(
                np.concatenate([np.broadcast_to(of_normal, (rows, len(of_normal))), ratio + of_normal], axis=1)
            )
        ramp = (short / np.maximum(long + short, LEAST))[:, None]
        return np.concatenate([0 * ramp, ramp, 1 - ramp, 0 * ramp + 1], axis=1)

    def _ratio(self, states: Floats) -> Floats:
        """Width of the uniform part in standard deviations of the normal one."""
        _, long, _ = self._widths(states)
        return long / self.place(states)[1]

    def density(self, t: Floats, states: Floats) -> Floats:
        if self.normal:
            return normal_density(t)
        if self.mixed:
            return _smoothed_box(t, self._ratio(states)[:, None])
        _, long, short = self._widths(states)
        ramp = (short / np.maximum(long + short, LEAST))[:, None]
        height: Floats = np.minimum(1.0, np.minimum(t, 1 - t) / np.maximum(ramp, LEAST)).clip(0.0) / (1 - ramp)
        return height

    def means(self, states: Floats) -> tuple[Floats, Floats]:
        return _mean(self, states, GAIN_EDGES, _ln_derivative), np.ones_like(states)


class _Centered:
    """Biases -w/2: z' = w tanh(z/2) / 2, and only |w| matters. The state is ln|z|.

    Far down z' = w z / 4 exactly: ln|z| is a random walk, whose stationary law has an exponential tail, the wider the
    nearer E ln|w/4| is to 0. So h gets the slope of the walk taken out: with h = slope * ln|z| + u the equation is

        u - P u + slope * E ln(y / tanh(y)) = -2 E ln cosh(y),  y = |z'| / 2,

    where all terms but u vanish as z² far down, and u goes to a constant. The exponent is (1 + slope) E ln|w/4|.
    """

    whole = 0.0

    def __init__(self, weight: Law, cutoff: float) -> None:
        self.weight = weight
        ends = _support(weight)
        least, most = sorted(map(abs, ends))
        if ends[0] <= 0 <= ends[1]:
            least = 0.0
        top = math.log(most / 2) + 1e-9
        bottom = -cutoff - max(0.0, math.log(most))
        if least > 4:  # the chain comes to where weights of the least size rest, and stays above
            bottom = math.log(fixed_preactivations(least, -least / 2)[-1]) - 1e-9
        self.domain = min(bottom, top), top
        self.edges = [-math.log(most) - 4, *np.arange(-12.0, 4.0, 2.0), math.log(2 * SATURATED)]
        sizes = np.abs(
            weight.location + weight.scale * np.arange(-SIGMAS, SIGMAS + 1, STEP / 2)
            if weight.family == "normal"
            else ends
        )
        # Far down the density of ln|w| is proportional to |w|.
        logs = np.concatenate([np.log(sizes[sizes > 0]), math.log(most) - np.array([2.0, 5, 10, 17, 25, 34, 44])])
        self.logs = np.unique(logs[logs >= (math.log(least) if least else math.log(most) - 44)])

    def place(self, states: Floats) -> tuple[Floats, Floats]:
        return np.log(0.5 * np.tanh(0.5 * np.exp(np.minimum(states, 6.0)))), np.ones_like(states)

    def breaks(self, states: Floats) -> Floats:
        return np.broadcast_to(self.logs, (len(states), len(self.logs)))

    def density(self, t: Floats, states: Floats) -> Floats:
        size: Floats = np.exp(t)
        m, s = self.weight.location, self.weight.scale
        if self.weight.family == "normal":
            both_signs = normal_density((size - m) / s) + normal_density((size + m) / s)
        else:
            both_signs = np.where((m <= size) & (size <= m + s), 1.0, 0.0)
            both_signs += np.where((m <= -size) & (-size <= m + s), 1.0, 0.0)
        return size / s * both_signs

    def means(self, states: Floats) -> tuple[Floats, Floats]:
        edges = np.array([-60.0, -40, -25, -15, -10, -7, -5, -3.5, -2, -1, 0, 1, 2, 3, 4, 5, 7, 10, 20, 40, 80])
        return (
            _mean(self, states, edges, lambda r: -2 * _ln_cosh(0.5 * np.exp(r))),
            _mean(self, states, edges, lambda r: -_ln_tanh_share(0.5 * np.exp(r))),
        )


def _mean(kernel: Kernel, states: Floats, edges: Floats, function: Callable[[Floats], Floats]) -> Floats:
    """E function(next state) for each of the states, with integrals split at the edges."""
    center, scale = kernel.place(states)
    breaks = kernel.breaks(states)
    with np.errstate(over="ignore"):
        cuts = ((edges - center[:, None]) / scale[:, None]).clip(breaks[:, :1], breaks[:, -1:])
    all_breaks = np.sort(np.concatenate([breaks, cuts], axis=1), axis=1)
    row, piece = np.nonzero(np.diff(all_breaks) > 0)
    t, share = quadrature.on_panels(all_breaks[row, piece], all_breaks[row, piece + 1])
    share = share * kernel.density(t, states[row])
    values = (share * function(center[row, None] + scale[row, None] * t)).sum(axis=1)
    total = np.bincount(row, share.sum(axis=1), minlength=len(states))
    means: Floats = np.bincount(row, values, minlength=len(states)) / total
    return means


def _transfer(kernel: Kernel, states: Floats, lows: Floats, highs: Floats) -> Floats:
    """Weights of h at the points of panels in (P h)(state): shape (states, panels, POINTS)."""
    center, scale = kernel.place(states)
    breaks = kernel.breaks(states)
    with np.errstate(over="ignore"):
        low = (lows - center[:, None]) / scale[:, None]
        high = (highs - center[:, None]) / scale[:, None]
    first, last = breaks[:, :1], breaks[:, -1:]
    weights = np.zeros((*low.shape, quadrature.POINTS))

    # Panels that resolve the density, by the points they have.
    if kernel.whole:
        whole = highs - lows <= kernel.whole * scale[:, None]
    else:
        inner = ((breaks[:, None, :] > low[..., None]) & (breaks[:, None, :] < high[..., None])).any(axis=2)
        whole = ~inner & (low >= first) & (high <= last)
    row, panel = np.nonzero(whole & (high > first) & (low < last))
    z, share = quadrature.on_panels(lows[panel], highs[panel])
    t = (z - center[row, None]) / scale[row, None]
    weights[row, panel] = share / scale[row, None] * kernel.density(t, states[row])

    # The others in pieces.
    row, panel = np.nonzero(~whole & (high > first) & (low < last))
    ends = np.concatenate(
        [
            low[row, panel, None].clip(first[row], last[row]),
            breaks[row].clip(low[row, panel, None], high[row, panel, None]),
            high[row, panel, None].clip(first[row], last[row]),
        ],
        axis=1,
    )
    pair, piece = np.nonzero(np.diff(ends) > 0)
    row, panel = row[pair], panel[pair]
    t, share = quadrature.on_panels(ends[pair, piece], ends[pair, piece + 1])
    z = center[row, None] + scale[row, None] * t
    half = ((highs - lows) / 2)[panel, None]
    at = ((z - lows[panel, None]) / half - 1.0).clip(-1.0, 1.0)
    parts = quadrature.interpolation_weights(at, share * kernel.density(t, states[row]))
    np.add.at(weights, (row, panel), parts)
    return weights


class _Solution(NamedTuple):
    """Solution of the Poisson equation.

    Attributes
    ----------
    total : float
        offset + a.
    error : float
        Estimate of its error.
    memory : float
        By how much h differs between states, in units of how much its right side does: links to forget the start.
    """

    total: float
    error: float
    memory: float


def _solve(kernel: Kernel, offset: float) -> _Solution:
    """Solve the Poisson equation on panels, which are split until offset + a is resolved or there are too many."""
    points = quadrature.POINTS
    edges = np.unique(np.concatenate([kernel.domain, kernel.edges]).clip(*kernel.domain))
    old, new = np.empty((2, 0)), np.stack([edges[:-1], edges[1:]])  # panels: low ends, high ends
    transfer, right, factor = np.empty((0, 0, points)), np.empty(0), np.empty(0)
    while True:
        # The rows of the new panels' points, and the columns for the old rows.
        panels = np.concatenate([old, new], axis=1)
        states = quadrature.on_panels(*new)[0].ravel()
        columns = _transfer(kernel, quadrature.on_panels(*old)[0].ravel(), *new)
        transfer = np.concatenate([np.concatenate([transfer, columns], axis=1), _transfer(kernel, states, *panels)])
        means = kernel.means(states)
        right, factor = np.concatenate([right, means[0]]), np.concatenate([factor, means[1]])

        h, constant_, stationary = _solve_linear(transfer.reshape(len(right), -1), right, factor)
        values = h.reshape(-1, points)
        share = np.abs(stationary).reshape(-1, points).sum(axis=1)  # of the links that end in a panel
        lost = share * (quadrature.tails(values) - ROUNDING * np.abs(values).max(axis=1))
        poor = ~(lost <= TOLERANCE / len(share) * abs(offset + constant_))  # nan is poor too
        if not poor.any() or len(share) + poor.sum() > PANELS_MAX:
            break
        old, (low, high) = panels[:, ~poor], panels[:, poor]
        middle = low / 2 + high / 2
        new = np.stack([np.concatenate([low, middle]), np.concatenate([middle, high])])
        row = np.repeat(~poor, points)
        transfer, right, factor = transfer[row][:, ~poor], right[row], factor[row]

    error = _error(kernel, panels, values, share, constant_)
    memory = float(np.ptp(h) / max(np.ptp(right), EPSILON * np.max(np.abs(right)), LEAST))
    return _Solution(offset + constant_, error, memory if math.isfinite(memory) else math.inf)


@cache
def _blas() -> ThreadpoolController:
    """The threads of the linear algebra that NumPy has loaded."""
    return ThreadpoolController()


def _solve_linear(transfer: Floats, right: Floats, factor: Floats) -> tuple[Floats, float, Floats]:
    """Solve the collocated equation: h at the points, the constant, and the stationary law, whose factor has mean 1."""
    system = np.eye(len(right)) - transfer / transfer.sum(axis=1)[:, None]  # rounding leaves a little less than 1
    system[:, 0] = factor  # h is 0 at the first point; the constant takes its place
    unit = np.zeros(len(right))
    unit[0] = 1.0
    try:
        with _blas().limit(
            limits=1, user_api="blas"
        ):  # of more threads, small systems gain nothing but other roundings
            h, stationary = np.linalg.solve(system, right), np.linalg.solve(system.T, unit)
    except np.linalg.LinAlgError:  # there are several stationary laws
        return np.full(len(right), np.nan), math.nan, unit
    exponent, h[0] = float(h[0]), 0.0
    return h, exponent, stationary


def _error(kernel: Kernel, panels: Floats, values: Floats, share: Floats, exponent: float) -> float:
    """Mean of the Poisson equation's residual between the points of collocation, and of what leaves the domain."""
    low, high = panels[:, :, None]
    half = high / 2 - low / 2
    states = np.where(CHECKS < 0, low + half * (1 + CHECKS), high - half * (1 - CHECKS)).ravel()
    weights = _transfer(kernel, states, *panels).reshape(len(states), -1)
    total = weights.sum(axis=1)
    right, factor = kernel.means(states)
    residual = (
        right + weights @ values.ravel() / total - quadrature.values_at(CHECKS, values).ravel() - exponent * factor
    )
    lowest = values[np.argmin(panels[0])]
    residual = np.abs(residual) + np.abs(1 - total) * np.ptp(lowest)
    return float(share @ residual.reshape(len(share), -1).max(axis=1))


def lyapunov(weight: LawLike, bias: LawLike = "zero") -> float:
    """Lyapunov exponent of a chain of random links, in nats per link, to nine digits at least, most often twelve.

    Weights and biases are independent of each other, within a link and between links, or ``centered``; then the
    exponent is that of a chain which does not start at exactly 1/2.

    Parameters
    ----------
    weight, bias : Law, str or callable
        As `fastgrad.laws` has them.

    Raises
    ------
    ValueError
        If the exponent depends on where the chain starts (several attractors), or the chain forgets its start too
        slowly; if a law reaches beyond `SUPPORT_MAX`; or if nine digits are not reached, as close to where centered
        chains turn from falling into 1/2 to leaving it.
    TypeError
        If an argument is no law.
    """
    w, b = _without_width(parse(weight, "weight")), _without_width(parse(bias, "bias"))
    mean = ln_weight(w).mean
    if mean == -math.inf:
        return mean
    reach = max(abs(end) for law in (w, b) for end in _support(law))
    if (w.scale or b.scale) and reach > SUPPORT_MAX:
        raise ValueError(f"weight, bias: expected values up to {SUPPORT_MAX:g}, got laws that reach {reach:.3g}")
    if b.family == "centered":
        return _of_centered(w, mean)
    if not (w.scale or b.scale):
        return _of_constants(w.location, b.location)
    low, high = _wells(w, b)
    if low >= high:
        return _of_random(w, b, mean, _narrowed(w, b, (0.0, 1.0)))
    from_0, from_1 = (_of_random(w, b, mean, _narrowed(w, b, within)) for within in ((0.0, low), (high, 1.0)))
    return _of_either(from_0, from_1)


def _of_random(weight: Law, bias: Law, ln_mean: float, domain: tuple[float, float]) -> float:
    """Exponent of a chain with independent weights and biases, whose preactivations stay in a domain."""
    low, high = domain
    if high - low <= NARROW * (1 + abs(low)):  # the variance is below float64's rounding
        return ln_mean + float(_ln_derivative(np.array(low / 2 + high / 2)))
    solution = _solve(_Random(weight, bias, domain), ln_mean)
    if solution.memory > MIXING_LINKS:
        raise ValueError(
            "weight, bias: the exponent depends on the start, which the chain forgets too slowly "
            f"(in about {min(solution.memory, 1e16):.0e} links)"
        )
    return _resolved(solution.total, solution.error + EPSILON * (abs(ln_mean) + abs(solution.total - ln_mean)))


def _of_centered(weight: Law, ln_mean: float) -> float:
    """Exponent with biases -w/2, from anywhere but 1/2."""
    drift = ln_mean - math.log(4)
    if drift <= 0:  # the chain comes to 1/2, where it stays
        return drift
    size = abs(weight.location + (weight.scale / 2 if weight.family == "uniform" else 0.0))
    if weight.scale <= NARROW * size:
        return _of_constants(size, -size / 2)
    rounding = EPSILON * (abs(ln_mean) + math.log(4))
    if rounding > RESOLVED * drift:
        raise ValueError(
            "weight: too near to where centered chains turn from falling into 1/2 to leaving it, and the exponent is 0 "
            f"(E ln|w/4| is {drift:.3g}, of which rounding leaves less than nine digits)"
        )
    for cutoff in LOWER_CUTOFFS:
        solution = _solve(_Centered(weight, cutoff), 1.0)
        exponent, error = drift * solution.total, drift * solution.error + rounding
        if error <= RESOLVED * abs(exponent):
            break
    return _resolved(exponent, error)


def _resolved(exponent: float, error: float) -> float:
    if error <= RESOLVED * abs(exponent):
        return exponent
    about = (
        f"the exponent is about {exponent:.6g}, give or take {error:.1g}"
        if error < abs(exponent)
        else "no digit is certain"
    )
    raise ValueError(f"weight, bias: the stationary law is not resolved to nine digits ({about})")


def _wells(weight: Law, bias: Law) -> tuple[float, float]:
    """Activations that no chain from 0 passes upward, and none from 1 downward: there are two attractors if low < high.

    And not more, as the steepest and highest sigmoid has only one fixed point more between them, and so has the lowest.
    """
    least_w, most_w = _support(weight)
    least_b, most_b = _support(bias)
    if least_w < 0:  # no order is kept
        return 1.0, 0.0
    low, high = 0.0, 1.0
    for _ in range(100_000):
        last = low, high
        low, high = sigmoid(most_w * low + most_b), sigmoid(least_w * high + least_b)
        if last == (low, high) or low >= high:
            break
    return low, high


def _narrowed(weight: Law, bias: Law, activations: tuple[float, float]) -> tuple[float, float]:
    """Preactivations where a chain ends up that stays between two activations."""
    ws, bs = _support(weight), _support(bias)
    low, high = activations
    rounding = 4 * EPSILON * (max(map(abs, ws)) + max(map(abs, bs)))
    last = -math.inf, math.inf
    for _ in range(5000):
        products = [w * o for w in ws for o in (low, high)]
        domain = min(products) + bs[0] - rounding, max(products) + bs[1] + rounding
        if max(domain[0] - last[0], last[1] - domain[1]) <= 1e-4 * (domain[1] - domain[0]):
            break
        last = domain
        low, high = sigmoid(domain[0]), sigmoid(domain[1])
    return domain


def _of_constants(weight: float, bias: float) -> float:
    """Exponent of a deterministic chain: where it ends up from 0 and from 1, which all others lie between."""
    ln_size = math.log(abs(weight))

    def rate(z: float) -> float:
        return ln_size + float(_ln_derivative(np.array(z)))

    def after(z: float) -> float:
        return weight * sigmoid(z) + bias

    at_rest = fixed_preactivations(weight, bias)
    low, high = rate(at_rest[0]), rate(at_rest[-1])
    if weight < 0 and low > 0:  # it is driven away from where it would rest, and ends up alternating
        z = bisect(lambda z: after(after(z)) > z, bias + weight, at_rest[0])
        low = high = rate(z) / 2 + rate(after(z)) / 2
    return _of_either(low, high)


def _of_either(from_0: float, from_1: float) -> float:
    """Exponent of a chain with two attractors, if it is the same."""
    if abs(from_0 - from_1) > 1e-9 * abs(from_0) + 4 * EPSILON:
        raise ValueError(f"weight, bias: the exponent depends on the start: {from_0:.6g} from 0, {from_1:.6g} from 1")
    return from_0


def _without_width(law: Law) -> Law:
    """Return a law that always gives the same as a constant."""
    return constant(law.location) if law.family in ("normal", "uniform") and law.scale == 0.0 else law


def _sigmoids(z: Floats) -> Floats:
    e = np.exp(-np.abs(z))
    values: Floats = np.where(z < 0, e, 1.0) / (1 + e)
    return values


def _ln_derivative(z: Floats) -> Floats:
    """Ln sigmoid'(z)."""
    ln: Floats = -np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z)))
    return ln


def _ln_cosh(y: Floats) -> Floats:
    """Ln cosh(y), y >= 0, with relative precision."""
    small = np.minimum(y, 1.0)
    ln: Floats = np.where(y < 1, np.log1p(2 * np.sinh(small / 2) ** 2), y - math.log(2) + np.log1p(np.exp(-2 * y)))
    return ln


def _ln_tanh_share(y: Floats) -> Floats:
    """Ln(tanh(y) / y), y > 0."""
    square = np.minimum(y, 0.2) ** 2
    series = (
        -square / 3 + square**2 * 7 / 90 - square**3 * 62 / 2835 + square**4 * 127 / 18900 - square**5 * 146 / 66825
    )
    ln: Floats = np.where(y < 0.05, series, np.log(np.tanh(np.maximum(y, 0.05)) / np.maximum(y, 0.05)))
    return ln


def _smoothed_box(t: Floats, width: Floats) -> Floats:
    """Density of a standard normal variate plus a uniform one between 0 and width."""
    t, width = np.broadcast_arrays(np.minimum(t, width - t), width)  # it is symmetric
    density = np.empty(t.shape)
    narrow = width < 0.2
    v, share = quadrature.between(np.array([0.0, 1.0]))
    density[narrow] = normal_density(t[narrow, None] - width[narrow, None] * v) @ share
    wide = ~narrow
    density[wide] = (_normal_distribution(t[wide]) - _normal_distribution(t[wide] - width[wide])) / width[wide]
    return density


def _normal_distribution(t: Floats) -> Floats:
    distribution = np.where(t > 0, 1.0, 0.0)
    inner = np.abs(t) < SIGMAS
    distribution[inner] = [0.5 * math.erfc(-x) for x in (t[inner] / math.sqrt(2)).tolist()]
    return distribution
