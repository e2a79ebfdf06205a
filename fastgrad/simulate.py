"""Drawn ensembles of chains: how the gradient grows or vanishes with depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fastgrad.burn_in import burn_in_links
from fastgrad.chain import (
    DEFAULT_X,
    TooLargeError,
    integer,
    per_member,
    require_memory,
    size_text,
)
from fastgrad.framework import framework_depths
from fastgrad.kernels import Backend, BackendName, load
from fastgrad.laws import Law, LawLike, parse
from fastgrad.parallel import Threads
from fastgrad.philox import MEMBERS_MAX, SEED_MAX
from fastgrad.philox import draw as draw_links
from fastgrad.scaled import FLOAT_LIMITS, Scaled, aligned_empty, json_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LINKS_MAX = 10**15  # depth times ensemble; at 5 ns a link that is two months
ENSEMBLE_CUT_IN_DEPTH = 16  # an ensemble of so few chains leaves threads idle, and is cut in depth for them
WARM_UP = 1024  # links, a whole block of them: from a guess to the bits of the true state, if the chain forgets at all
BATCHES = 30  # for the standard error of a single chain
BURN_IN_WASTE = 1 / 8  # of the links after the burn-in: the share that a recorded link may leave unused
NOT_FORGOTTEN = "the start is not forgotten within half of the links"
ROUNDING = 1e-12  # a standard error of this size, relatively, is that of chains which are all alike
CORRELATED = 1.28  # standard errors: neighboring batches of 10 % of uncorrelated chains are correlated by more
TINY_OFFSET = 2.0**-900  # from here down the kernels keep an offset from 1/2 as mantissa and exponent
RECORD_BYTES = 80  # a recorded link of a member: four Scaled, a weight, and what summing up takes


class Lyapunov(NamedTuple):
    """A Lyapunov exponent as measured and its standard error, in nats per link."""

    mean: float
    stderr: float

    def deviation(self, expected: float, freedom: float = math.inf) -> float | None:
        """Return by how many standard errors the mean is above `expected`; None if it has no error of its own.

        The error of a few chains is uncertain itself: the quotient t follows Student's law with `freedom` degrees of
        freedom, and is turned into a standard normal variate (Wallace, Ann. Math. Stat. 30 (1959) 1124).
        """
        if not (np.isfinite(self.mean) and self.stderr > ROUNDING * (1 + abs(self.mean))):
            return None
        t = (self.mean - expected) / self.stderr
        if freedom == math.inf:
            return t
        size = math.sqrt(freedom * math.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
        return math.copysign(size, t)


def degrees_of_freedom(ensemble: int, links: int) -> int:
    """Count those of the standard error of an exponent that is measured over so many links."""
    return (ensemble if ensemble > 1 else _batches(links)) - 1


def _batches(links: int) -> int:
    return min(BATCHES, math.isqrt(links))


@dataclass(frozen=True, eq=False)
class Growth:
    """What `simulate` returns.

    Attributes
    ----------
    link : ndarray of int64, shape (record,)
        The recorded links l, counted from 1; the first and the last link are among them.
    adjoint, grad_weight, grad_bias : Scaled, shape (record, ensemble)
        do_L/do_{l-1}, do_L/dw_l and do_L/db_l.
    bound : Scaled, shape (record, ensemble)
        The textbook's bound of the adjoint: the product of |w_k|/4 over k = l … L.
    output : ndarray of float64, shape (ensemble,)
        o_L.
    lyapunov : Lyapunov
        The finite-depth exponent: mean over members of ln|do_L/do_0| / depth and its standard error, in nats per link.
        The mean is -inf where a gradient is exactly zero. It contains the links at which the chain has not forgotten
        its start. The standard error comes from the spread over members, which are independent. That of
        a single chain comes from batch means over its links: thirty batches, or the square root of the depth if that is
        less (Fishman, Management Science 24 (1978) 510). Where the lag-1 autocorrelation r of the batches is above what
        one in ten uncorrelated chains has, it is multiplied by sqrt((1 + r) / (1 - r)) (Bayley and Hammersley, J. R.
        Stat. Soc. Suppl. 8 (1946) 184). No chain can tell of correlations about as long as itself: with centered biases
        they reach over 2 Var ln|w| / (E ln|w/4|)^2 links (the relaxation time of a reflected random walk), 6300 for
        normal weights of std 7.7, where the standard error of a chain of 10^4 links comes out one seventh too small.
        Near such laws take several chains.
    stationary : Lyapunov
        The same over the links from `stationary_link` to the output, which have forgotten the start: what theory's
        exponent of an endless chain is compared with. NaN where `stationary_link` is None.
    stationary_link : int or None
        A link after the burn-in, of which `fastgrad.burn_in` tells the length; None if that takes more than half of
        the links.
    depth, ensemble, weight, bias, seed
        As given.
    x : ndarray of float64, shape (ensemble,)
        The inputs o_0.
    backend : str
        The backend that ran.
    """

    link: Ints
    adjoint: Scaled
    grad_weight: Scaled
    grad_bias: Scaled
    bound: Scaled
    output: Floats
    lyapunov: Lyapunov
    stationary: Lyapunov
    stationary_link: int | None
    depth: int
    ensemble: int
    weight: Law
    bias: Law
    seed: int
    x: Floats
    backend: BackendName

    def summary(self) -> dict[str, Any]:
        """Return the result in few numbers, as a plain dict that `json.dumps` takes.

        Returns
        -------
        dict
            ``lyapunov`` (``mean`` and ``stderr``, nats per link), ``stationary`` (likewise, and the ``link`` from which
            it is measured, the start being forgotten; None with a reason if it is not), ``bound_rate`` (mean growth of
            the bound, nats per link), ``zero_share`` (of the recorded adjoints, those exactly zero), ``first_depth``
            (per float format: the number of links back from the output at which the median of the exact gradients
            leaves the format's range, being rounded to 0 or to inf, interpolated between recorded links; None if it
            does not within the depth; `framework_depth` has what a framework reads) and ``curve``: ``link``, and for
            each of adjoint, grad_weight, grad_bias and bound the ``mean`` and the quantiles ``q05`` … ``q95`` over
            members of log10 of the magnitude (decades). A quantile is the value of a member, not interpolated.
            What is not finite is None, with ``<key>_why`` beside it.
        """
        return json_ready(  # type: ignore[no-any-return]
            {
                "depth": self.depth,
                "ensemble": self.ensemble,
                "weight": str(self.weight),
                "bias": str(self.bias),
                "seed": self.seed,
                "backend": self.backend,
                "lyapunov": self.lyapunov._asdict(),
                "stationary": self._stationary(),
                "bound_rate": float(np.mean(self.bound[0].ln())) / self.depth,
                "zero_share": float(np.mean(self.adjoint.mantissa == 0)),
                "first_depth": self._first_depth(),
                "curve": {
                    "link": self.link,
                    "adjoint": _decades(self.adjoint),
                    "grad_weight": _decades(self.grad_weight),
                    "grad_bias": _decades(self.grad_bias),
                    "bound": _decades(self.bound),
                },
            }
        )

    def deviation(self, expected: float) -> float | None:
        """Return by how many standard errors the stationary exponent is above `expected`.

        With fewer than some thirty chains these errors are uncertain, and that is allowed for: see
        `Lyapunov.deviation`. None without a stationary exponent, or if it has no error of its own.
        """
        if self.stationary_link is None:
            return None
        links = self.depth - self.stationary_link + 1
        return self.stationary.deviation(expected, degrees_of_freedom(self.ensemble, links))

    @cached_property
    def framework_depth(self) -> dict[str, dict[str, int | None]]:
        """Links back from the output after which a framework's own arithmetic has lost the median gradient.

        By float format, ``underflow`` where it reads 0 and ``overflow`` where it reads inf or nan; None where it does
        neither within the depth or within 1024 links. Computed when it is first asked for, in some 0.1 s, by running
        backpropagation of at most 500 of the chains in the format: see `fastgrad.framework`. `summary` has the links
        after which the exact gradient would leave the format's range instead.
        """
        return framework_depths(self.depth, self.weight, self.bias, self.x, self.seed)

    def _stationary(self) -> dict[str, Any]:
        if self.stationary_link is None:
            names = ("mean", "stderr", "link")
            return dict.fromkeys(names) | {f"{key}_why": NOT_FORGOTTEN for key in names}
        return {**self.stationary._asdict(), "link": self.stationary_link}

    def _first_depth(self) -> dict[str, dict[str, int | None]]:
        """Links back from the output at which the median adjoint leaves each float format."""
        links = np.concatenate([[0], self.depth + 1 - self.link[::-1]])
        median = np.quantile(self.adjoint.log2(), 0.5, axis=1, method="inverted_cdf")
        log2 = np.concatenate([[0.0], median[::-1]])
        return {
            name: {
                "underflow": _crossing(links, -log2, -limits.underflow),
                "overflow": _crossing(links, log2, limits.overflow),
            }
            for name, limits in FLOAT_LIMITS.items()
        }


def _crossing(links: Ints, height: Floats, level: float) -> int | None:
    """First whole number of links at which `height`, linear between the points, reaches `level`."""
    above = np.flatnonzero(height >= level)
    if not len(above):
        return None
    i = int(above[0])
    rise = height[i] - height[i - 1]
    step = (links[i] - links[i - 1]) * ((level - height[i - 1]) / rise) if np.isfinite(rise) else 1
    return int(links[i - 1] + max(1, np.ceil(step - 1e-9)))


def _decades(values: Scaled) -> dict[str, Floats]:
    log10 = values.log10()
    quantiles = np.quantile(log10, QUANTILES, axis=1, method="inverted_cdf")
    return {
        "mean": log10.mean(axis=1),
        **{f"q{100 * q:02.0f}": row for q, row in zip(QUANTILES, quantiles, strict=True)},
    }


def draw(
    depth: int, ensemble: int, weight: LawLike = "normal:std=4", bias: LawLike = "zero", seed: int = 0
) -> tuple[Floats, Floats]:
    """Draw the weights and biases that `simulate` runs.

    Each is a pure function of (seed, member, link): a longer or wider draw begins with the shorter one.

    Parameters
    ----------
    depth, ensemble : int
        Links and chains.
    weight, bias : str or Law
        See `fastgrad.laws`.
    seed : int
        0 to 2^64 - 1.

    Returns
    -------
    weight, bias : ndarray of float64, shape (depth, ensemble)
        The compiled backends draw the same values to within a few units in the last place.

    Raises
    ------
    TypeError, ValueError
        For bad input, naming the argument.
    TooLargeError
        If the arrays would not fit in memory.
    """
    depth, ensemble, seed = _sizes(depth, ensemble, seed)
    weight_law, bias_law = parse(weight, "weight"), parse(bias, "bias")
    require_memory(f"draws of {depth} links x {ensemble} chains", 16 * depth * ensemble)
    w, b = aligned_empty((depth, ensemble), np.float64), aligned_empty((depth, ensemble), np.float64)
    members = np.arange(ensemble)
    rows = max(1, 2**18 // ensemble)  # the generator's words take some 200 bytes a link: a few rows at a time
    for first in range(0, depth, rows):
        part = slice(first, min(first + rows, depth))
        w[part], b[part] = draw_links(weight_law, bias_law, seed, np.arange(part.start, part.stop) + 1, members)
    return w, b


def simulate(
    depth: int,
    ensemble: int = 1000,
    weight: LawLike = "normal:std=4",
    bias: LawLike = "zero",
    x: ArrayLike = DEFAULT_X,
    seed: int = 0,
    record: int = 64,
    backend: BackendName | Literal["auto"] = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Growth:
    """Gradients through drawn chains: an ensemble, or one chain of any depth.

    Chains are drawn and run forward link by link, and only the recorded links are kept: with the identity loss the
    adjoint of link l is the product of w_k sigmoid'(z_k) over k = l … L, and the recorded ones are suffix products of
    those between two recorded links. Memory is 80 (record + 1) ensemble bytes, whatever the depth.

    Parameters
    ----------
    depth, ensemble : int
        Links and independent chains; their product at most 10^15, and the ensemble at most 2^32.
    weight, bias : str or Law
        What each link's weight and bias are drawn from; see `fastgrad.laws`.
    x : array_like, a number or shape (ensemble,)
        The input o_0.
    seed : int
        0 to 2^64 - 1.
    record : int
        How many links to record, at least 2: evenly spaced, the first and the last among them.
    backend : {"auto", "cpp", "numba", "numpy"}
        "numba" and "cpp" return equal bits, "numpy" is within `agreement_rtol` of them for chains that contract.
    threads : int, optional
        By default all processors that this process may use. The result does not depend on it.
    progress : callable, optional
        Called as ``progress(links_done, depth)`` from time to time.

    Returns
    -------
    Growth

    Raises
    ------
    TypeError, ValueError
        For bad input, with the argument's name, what was wrong and what was expected.
    BackendUnavailableError
        If the backend that was named can't run here.
    TooLargeError
        If the records would not fit in memory, or the links not end.

    Notes
    -----
    Members do not depend on how many there are: in any two ensembles of at least two chains they have equal bits. A
    single chain has the same links and the same output, but its products are taken piece by piece between 31 links
    more, those of the batches of its standard error: the recorded gradients and bounds differ from those of member 0 of
    a wider run in their last bits, by less than ``2^-52 depth`` of their value and typically by ``2^-52 sqrt(depth)``.
    The same goes for runs that record other links.

    Examples
    --------
    >>> import fastgrad as fg
    >>> growth = fg.simulate(1000, ensemble=100, weight="normal:std=500")
    >>> growth.adjoint[0, 0]
    -7.283e-83049
    """
    depth, ensemble, seed = _sizes(depth, ensemble, seed)
    record = integer("record", record, 2, 2**31)
    weight_law, bias_law = parse(weight, "weight"), parse(bias, "bias")
    recorded = spaced(depth, min(record, depth))
    # A single chain needs batches for its standard error, however few links are recorded.
    marks = np.union1d(recorded, spaced(depth, min(BATCHES + 1, depth))) if ensemble == 1 else recorded
    memory = RECORD_BYTES * (len(marks) + 1) * ensemble  # one more for the burn-in
    if depth * ensemble > LINKS_MAX:
        raise TooLargeError(
            f"depth: {depth} links x {ensemble} chains are {depth * ensemble:.3g} links (and would take "
            f"{size_text(memory)} of memory), expected at most {LINKS_MAX:.0e}"
        )
    require_memory(f"records of {len(marks)} links x {ensemble} chains", memory)
    inputs = per_member("x", x, ensemble)
    name, kernels = load(backend)
    burn_in = burn_in_links(weight_law, bias_law, inputs, seed, depth // 2)
    if burn_in is not None:
        marks = _with_link_after(marks, burn_in, depth)

    weight_at = np.empty((len(marks), ensemble))
    input_at, derivative, gap, bound = (Scaled.empty(weight_at.shape) for _ in range(4))
    is_centered = bias_law.family == "centered"
    start_state = _State.at(inputs, is_centered)

    def grow(state: _State, first: int, last: int, row: int, start: int, stop: int) -> None:
        kernels.grow(
            weight_law.code,
            bias_law.code,
            seed,
            first,
            last,
            marks,
            row,
            state.activation,
            state.scaled.mantissa,
            state.scaled.exponent,
            weight_at,
            input_at.mantissa,
            input_at.exponent,
            derivative.mantissa,
            derivative.exponent,
            gap.mantissa,
            gap.exponent,
            bound.mantissa,
            bound.exponent,
            state.carry_gap.mantissa,
            state.carry_gap.exponent,
            state.carry_bound.mantissa,
            state.carry_bound.exponent,
            start,
            stop,
        )

    with Threads(threads) as pool:
        state = _run_pages(grow, start_state, marks, kernels, gap, bound, depth, pool, progress)

    adjoint, grad_weight, grad_bias = suffix_products(weight_at, input_at, derivative, gap, bound)
    lyapunov = _lyapunov(marks, adjoint, depth)
    stationary, stationary_link = Lyapunov(np.nan, np.nan), None
    if burn_in is not None:  # a chain that begins after it
        row = int(np.searchsorted(marks, burn_in, side="right"))
        stationary_link = int(marks[row])
        before = stationary_link - 1
        stationary = _lyapunov(marks[row:] - before, adjoint[row:], depth - before)
    kept: Any = slice(None) if len(marks) == len(recorded) else np.isin(marks, recorded)
    return Growth(
        link=recorded,
        adjoint=adjoint[kept],
        grad_weight=grad_weight[kept],
        grad_bias=grad_bias[kept],
        bound=bound[kept],
        output=state.output(),
        lyapunov=lyapunov,
        stationary=stationary,
        stationary_link=stationary_link,
        depth=depth,
        ensemble=ensemble,
        weight=weight_law,
        bias=bias_law,
        seed=seed,
        x=inputs,
        backend=name,
    )


class _State:
    """Where chains stand between two links, and the products over the links before a page's first mark.

    The arrays are those of `grow` in the contract of the kernels.
    """

    def __init__(self, activation: Floats, scaled: Scaled, is_centered: bool) -> None:
        self.activation, self.scaled, self.is_centered = activation, scaled, is_centered
        self.carry_gap, self.carry_bound = Scaled.empty(activation.shape), Scaled.empty(activation.shape)

    @classmethod
    def at(cls, activation: Floats, is_centered: bool) -> _State:
        """Return the state of chains that stand at these activations: with centered biases the offsets from 1/2."""
        scaled = Scaled.from_float(activation)
        if not is_centered:
            return cls(activation.copy(), scaled, is_centered)
        offset = activation - 0.5
        at_half = offset == 0
        mantissa, exponent = np.where(at_half, 0.0, scaled.mantissa), np.where(at_half, 0, scaled.exponent)
        return cls(offset, Scaled.of_parts(mantissa, exponent), is_centered)

    def guess(self) -> _State:
        """Return a state to warm up from: every activation 1/2.

        With centered biases that is a fixed point, and right for the chains that are there. The others run from 1:
        their offsets forget their size but not their sign, so that half of these guesses are wrong.
        """
        start = np.where(self.activation == 0, 0.5, 1.0) if self.is_centered else np.full(len(self.activation), 0.5)
        return _State.at(start, self.is_centered)

    def output(self) -> Floats:
        """Return the activations."""
        if not self.is_centered:
            return self.activation
        return np.where(np.abs(self.activation) < TINY_OFFSET, 0.5, self.scaled.to_float())

    def copy(self) -> _State:
        scaled = Scaled.of_parts(self.scaled.mantissa.copy(), self.scaled.exponent.copy())
        return _State(self.activation.copy(), scaled, self.is_centered)

    def same_bits(self, other: _State) -> bool:
        return np.array_equal(self.activation, other.activation) and bool(np.all(self.scaled == other.scaled))


@dataclass
class _Page:
    """A run of links that a kernel takes in one call: first … last - 1; `row` is the first mark not below them."""

    first: int
    last: int
    row: int
    state: _State
    guess: _State | None = None  # of the state at its start, where that was not known yet


def _run_pages(
    grow: Callable[[_State, int, int, int, int, int], None],
    state: _State,
    marks: Ints,
    kernels: Backend,
    gap: Scaled,
    bound: Scaled,
    depth: int,
    pool: Threads,
    progress: Callable[[int, int], None] | None,
) -> _State:
    """Run all links, page after page; returns the state at the end.

    An ensemble's slices share a page among the threads. Too few chains for that share the pages instead: of the pages
    that run at the same time each but the first starts from a guess, the state after some links from 1/2, which is then
    compared with the end of the page before. Trajectories forget their start within a few dozen links; a page whose
    guess was wrong is run again.
    """
    ensemble = len(state.activation)
    together = pool.count if ensemble <= ENSEMBLE_CUT_IN_DEPTH else 1
    at_most = max(1, kernels.CALL_ELEMENTS // min(depth, kernels.PAGE_LINKS))

    def run(page: _Page, start: int = 0, stop: int = ensemble) -> None:
        grow(page.state, page.first, page.last, page.row, start, stop)

    def run_from_guess(page: _Page) -> None:
        grow(page.state, page.first - WARM_UP, page.first, len(marks), 0, ensemble)
        page.guess = page.state.copy()
        run(page)

    firsts = range(1, depth + 1, kernels.PAGE_LINKS)
    for at in range(0, len(firsts), together):
        pages = [
            _Page(first, min(first + kernels.PAGE_LINKS, depth + 1), int(np.searchsorted(marks, first)), state)
            for first in firsts[at : at + together]
        ]
        for page in pages[1:]:
            page.state = state.guess()
        if together == 1:
            pool.run(partial(run, pages[0]), ensemble, at_most)
        else:
            pool.run_all([partial(run, pages[0]), *(partial(run_from_guess, page) for page in pages[1:])])
        for page in pages:
            if page.guess is not None and not page.guess.same_bits(state):
                page.state = state.copy()
                pool.run_all([partial(run, page)])
            if page.row > 0:
                for products, carry in ((gap, page.state.carry_gap), (bound, page.state.carry_bound)):
                    products[page.row - 1] = products[page.row - 1] * carry
            state = page.state
        if progress is not None:
            progress(pages[-1].last - 1, depth)
    return state


def _sizes(depth: int, ensemble: int, seed: int) -> tuple[int, int, int]:
    return (
        integer("depth", depth, 1, 2**63 - 2),
        integer("ensemble", ensemble, 1, MEMBERS_MAX),
        integer("seed", seed, 0, SEED_MAX),
    )


def spaced(depth: int, count: int) -> Ints:
    """`count` different links from 1 to `depth`, evenly spaced, both ends among them."""
    return np.floor(np.linspace(1, depth, count) + 0.5).astype(np.int64)


def _with_link_after(marks: Ints, burn_in: int, depth: int) -> Ints:
    """Marks with one soon after the burn-in among them; most have it already."""
    first = marks[np.searchsorted(marks, burn_in, side="right")]
    return marks if first - burn_in - 1 <= BURN_IN_WASTE * (depth - burn_in) else np.union1d(marks, burn_in + 1)


def suffix_products(
    weight: Floats, input_at: Scaled, derivative: Scaled, gap: Scaled, bound: Scaled
) -> tuple[Scaled, Scaled, Scaled]:
    """Recorded gradients from what `grow` leaves, in place.

    With a the adjoint of the link after a mark, ``delta = gap a sigmoid'``, ``grad_bias = delta``,
    ``grad_weight = delta o_{l-1}`` and ``adjoint = delta w``.

    Parameters
    ----------
    weight : ndarray, shape (record, ensemble)
    input_at, derivative, gap, bound : Scaled, shape (record, ensemble)
        Overwritten by grad_weight, grad_bias, the adjoint and the bound.

    Returns
    -------
    adjoint, grad_weight, grad_bias : Scaled
    """
    following = bound_following = Scaled.from_float(np.ones(weight.shape[1]))
    for row in range(len(weight) - 1, -1, -1):
        w = Scaled.from_float(weight[row])
        delta = gap[row] * following * derivative[row]
        following = delta * w
        bound_following = bound[row] * bound_following * Scaled.of_parts(np.abs(w.mantissa), w.exponent - 2)
        input_at[row] = delta * input_at[row]
        derivative[row] = delta
        gap[row] = following
        bound[row] = bound_following
    return gap, input_at, derivative


def _lyapunov(marks: Ints, adjoint: Scaled, depth: int) -> Lyapunov:
    ln = adjoint.ln()
    rates = ln[0] / depth
    if not np.isfinite(rates).all():
        return Lyapunov(-np.inf, np.nan)
    mean = float(rates.mean())
    if len(rates) > 1:
        return Lyapunov(mean, float(rates.std(ddof=1) / np.sqrt(len(rates))))
    # Batch means: the chain's log factors are correlated over a few links mostly, and batches of many links hardly are.
    count = _batches(depth)
    if count < 2:
        return Lyapunov(mean, np.nan)
    edges = np.unique(np.searchsorted(marks, spaced(depth, count + 1)))
    links = np.diff(np.append(marks[edges[:-1]], depth + 1))
    growth = -np.diff(np.append(ln[edges[:-1], 0], 0.0))
    deviation = growth - mean * links
    squares = (deviation**2).sum()
    variance = squares / depth**2 * len(links) / (len(links) - 1)
    lag_1 = (deviation[1:] * deviation[:-1]).sum() / squares if squares > 0 else 0.0
    if lag_1 > CORRELATED / np.sqrt(len(links)):
        variance *= (1 + lag_1) / (1 - lag_1)
    return Lyapunov(mean, float(np.sqrt(variance)))
