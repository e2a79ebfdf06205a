"""Result of `simulate`: curves, exponents, and the depths at which float formats fail."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastgrad.jobs.framework import framework_depths
from fastgrad.scaled import FLOAT_LIMITS, Scaled
from fastgrad.summary import json_ready, log10_statistics, spaced
from fastgrad.theory import Prediction, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas
    from numpy.typing import NDArray

    from fastgrad.kernels import BackendName
    from fastgrad.laws import Law

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


BATCHES = 30  # for the standard error of a single chain
NOT_FORGOTTEN = "the start is not forgotten within half of the links"
OF_CHAINS = "it is of chains, not of layers"
ROUNDING = 1e-12  # a standard error of this size, relatively, is that of chains which are all alike
CORRELATED = 1.28  # standard errors: neighboring batches of 10 % of uncorrelated chains are correlated by more


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
    return (ensemble if ensemble > 1 else batches(links)) - 1


def batches(links: int) -> int:
    """Count the batches of the standard error of a single chain."""
    return min(BATCHES, math.isqrt(links))


class BesideTheory(NamedTuple):
    """Theory of an ensemble, and distances of what was measured from it.

    Attributes
    ----------
    theory : Prediction
    deviation : float or None
        Standard errors by which the stationary exponent is above the theory's: see `Growth.deviation`.
    why_not : str or None
        The reason, where that is None.
    bound_deviation : float or None
        Standard errors by which the bound's rate is above its expectation: those of a mean over all links of all
        chains, which are independent. None if the weights do not vary, or one of them is 0.
    log10_adjoint : ndarray of float64 or None
        The adjoint at each recorded link by the theory's exponent, in decades; None without one.
    """

    theory: Prediction
    deviation: float | None
    why_not: str | None
    bound_deviation: float | None
    log10_adjoint: Floats | None


@dataclass(frozen=True, eq=False)
class Growth:
    """Result of `simulate`.

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
        A link after the burn-in, of which ``fastgrad.jobs.burn_in`` tells the length; None if that takes more than half
        of the links.
    depth, ensemble, weight, bias, seed
        As given.
    x : ndarray of float64, shape (ensemble,), of layers (ensemble, width) or (ensemble, 2, width)
        The inputs o_0.
    backend : str
        The backend that ran.
    width, nonlinearity
        As given: 1 and "sigmoid" of a chain.
    length, mean_activation : Scaled, shape (record, ensemble), or None
        Of layers: ``|z_l|² / n`` and the mean over units of o_l, of the first input.
    saturated, dead : ndarray of float64, shape (record, ensemble), or None
        Of layers: shares of units with ``|z| > 6`` (sigmoid and tanh), and with ``z <= 0`` (relu).
    correlation : ndarray of float64, shape (record, ensemble), or None
        Of layers with two inputs: the cosine of the angle between their preactivations; NaN where one is 0.

    Notes
    -----
    Of layers the gradients are norms: `adjoint` is the Euclidean norm of d(c·o_L)/do_{l-1} for a random unit vector c,
    `grad_bias` that of d(c·o_L)/db_l, and `grad_weight` the Frobenius norm of d(c·o_L)/dW_l. Their `bound` is the
    largest singular value of a layer's weights times the largest slope of the nonlinearity, as the width grows without
    limit, to the power of the layers from l on. `output` has shape (ensemble, width). There is no `stationary`
    exponent, and no `framework_depth`: both are of chains.
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
    width: int = 1
    nonlinearity: str = "sigmoid"
    length: Scaled | None = None
    mean_activation: Scaled | None = None
    saturated: Floats | None = None
    dead: Floats | None = None
    correlation: Floats | None = None

    @property
    def is_chain(self) -> bool:
        """Tell if its links are single units, and not layers: its gradients then have a sign."""
        return self.length is None

    def plot(self) -> Canvas:
        """Draw the figure of `fastgrad simulate`: a matplotlib figure, which a notebook shows."""
        from fastgrad.report.notebook import growth_plot

        return growth_plot(self)

    def _repr_html_(self) -> str:
        from fastgrad.report.notebook import growth_html

        return growth_html(self)

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
            What is not finite is None, with ``<key>_why`` beside it. Of layers also ``width``, ``nonlinearity`` and
            ``layers``: means over members at each recorded layer of log10 of the length and of the mean activation's
            magnitude, of the shares of units, and of the correlation.
        """
        is_default = self.is_chain and self.nonlinearity == "sigmoid"
        of_layers = {} if is_default else {"width": self.width, "nonlinearity": self.nonlinearity}
        return json_ready(  # type: ignore[no-any-return]
            {
                "depth": self.depth,
                "ensemble": self.ensemble,
                **of_layers,
                "weight": str(self.weight),
                "bias": str(self.bias),
                "seed": self.seed,
                "backend": self.backend,
                "lyapunov": self.lyapunov._asdict(),
                "stationary": self._stationary(),
                "bound_rate": self._bound_rate(),
                "zero_share": float(np.mean(self.adjoint.mantissa == 0)),
                "first_depth": self._first_depth(),
                "curve": {"link": self.link, **self.log10_curve},
                **({} if self.is_chain else {"layers": self.layer_means}),
            }
        )

    @cached_property
    def layer_means(self) -> dict[str, Floats]:
        """Means over members at each recorded layer; of chains there are none.

        ``log10_length`` and ``log10_mean_activation`` (of the magnitude) in decades, ``saturated``, ``dead`` and, with
        two inputs, ``correlation``.
        """
        means: dict[str, Floats] = {}
        if self.length is not None and self.mean_activation is not None:
            means["log10_length"] = self.length.log10().mean(axis=1)
            means["log10_mean_activation"] = self.mean_activation.log10().mean(axis=1)
        for name in ("saturated", "dead", "correlation"):
            values = getattr(self, name)
            if values is not None:
                means[name] = values.mean(axis=1)
        return means

    @cached_property
    def log10_curve(self) -> dict[str, dict[str, Floats]]:
        """Statistics over members at each recorded link, in decades.

        Of ``adjoint``, ``grad_weight``, ``grad_bias`` and ``bound`` the mean and the quantiles of log10 of the
        magnitude, as in `summary`; -inf for what is exactly zero.
        """
        names = ("adjoint", "grad_weight", "grad_bias", "bound")
        return {name: log10_statistics(getattr(self, name)) for name in names}

    def deviation(self, expected: float) -> float | None:
        """Return by how many standard errors the stationary exponent is above `expected`.

        With fewer than some thirty chains these errors are uncertain, and that is allowed for: see
        `Lyapunov.deviation`. None without a stationary exponent, or if it has no error of its own.
        """
        if not self.is_chain:  # each layer is drawn anew: no start has to be forgotten where theory is of every width
            return self.lyapunov.deviation(expected, degrees_of_freedom(self.ensemble, self.depth))
        if self.stationary_link is None:
            return None
        links = self.depth - self.stationary_link + 1
        return self.stationary.deviation(expected, degrees_of_freedom(self.ensemble, links))

    def beside_theory(self) -> BesideTheory:
        """Compare the exponent and the bound's rate with their theory."""
        return self._beside_theory

    @cached_property
    def _beside_theory(self) -> BesideTheory:
        # Kept: of chains theory takes 10 ms, and the figure, the words and the page all ask for it.
        theory = predict(self.weight, self.bias, self.x, self.width, self.nonlinearity)
        deviation = None if theory.lyapunov is None else self.deviation(theory.lyapunov)
        why_not = None
        if theory.lyapunov is None:
            why_not = "no theory"
        elif theory.holds_for == "n -> infinity":
            deviation, why_not = None, f"theory is of n -> infinity, and the width is {self.width}"
        elif deviation is None and self.is_chain and self.stationary_link is None:
            why_not = NOT_FORGOTTEN
        elif deviation is None:
            why_not = "the measurement has no standard error"
            if not math.isfinite(self.lyapunov.mean):
                why_not = "a gradient is exactly zero"
        bound_deviation, rate = None, self._bound_rate()
        if self.is_chain and theory.bound.variance and math.isfinite(rate):
            error = math.sqrt(theory.bound.variance / (self.depth * self.ensemble))
            bound_deviation = (rate - theory.bound.mean) / error
        links_after = self.depth + 1 - self.link  # between the link's input and the output
        log10_adjoint = None if theory.best is None else links_after * theory.best / np.log(10)
        return BesideTheory(theory, deviation, why_not, bound_deviation, log10_adjoint)

    @cached_property
    def framework_depth(self) -> dict[str, dict[str, int | None]]:
        """Links back from the output after which a framework's own arithmetic has lost the median gradient.

        By float format, ``underflow`` where it reads 0 and ``overflow`` where it reads inf or nan; None where it does
        neither within the depth or within 1024 links. Computed when it is first asked for, in some 0.1 s, by running
        backpropagation of at most 500 of the chains in the format: see ``fastgrad.jobs.framework``. `summary` has the
        links after which the exact gradient would leave the format's range instead. Empty for all but sigmoid chains.
        """
        if not self.is_chain or self.nonlinearity != "sigmoid":
            return {}
        return framework_depths(self.depth, self.weight, self.bias, self.x, self.seed)

    def _bound_rate(self) -> float:
        """Mean growth of the bound, in nats per link."""
        return float(np.mean(self.bound[0].ln())) / self.depth

    def _stationary(self) -> dict[str, Any]:
        if self.stationary_link is None:
            names = ("mean", "stderr", "link")
            why = NOT_FORGOTTEN if self.is_chain else OF_CHAINS
            return dict.fromkeys(names) | {f"{key}_why": why for key in names}
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


def lyapunov_of(recorded_links: Ints, adjoint: Scaled, depth: int) -> Lyapunov:
    """Estimate the exponent from the recorded adjoints, as `Growth.lyapunov` says."""
    rates = adjoint[0].ln() / depth
    if not np.isfinite(rates).all():
        return Lyapunov(-np.inf, np.nan)
    mean = float(rates.mean())
    if len(rates) > 1:
        return Lyapunov(mean, float(rates.std(ddof=1) / np.sqrt(len(rates))))
    count = batches(depth)
    if count < 2:
        return Lyapunov(mean, np.nan)
    edges = np.unique(np.searchsorted(recorded_links, spaced(depth, count + 1)))
    links = np.diff(np.append(recorded_links[edges[:-1]], depth + 1))
    return Lyapunov(mean, batch_means_stderr(-np.diff(np.append(adjoint[edges[:-1], 0].ln(), 0.0)), links))


def batch_means_stderr(growth: Floats, links: Ints) -> float:
    """Standard error of the rate of what grows by so much over each of several batches of so many links.

    The log factors of links are correlated over a few links mostly, and batches of many links hardly are. Where they
    are, the error is enlarged by the lag-1 autocorrelation: see `Growth.lyapunov`.
    """
    depth = links.sum()
    deviation = growth - growth.sum() / depth * links
    squares = (deviation**2).sum()
    variance = squares / depth**2 * len(links) / (len(links) - 1)
    lag_1 = (deviation[1:] * deviation[:-1]).sum() / squares if squares > 0 else 0.0
    if lag_1 > CORRELATED / np.sqrt(len(links)):
        variance *= (1 + lag_1) / (1 - lag_1)
    return float(np.sqrt(variance))
