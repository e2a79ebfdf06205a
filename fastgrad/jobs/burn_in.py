"""Burn-in of drawn chains: the links after which nothing depends on the input any more.

A link is a monotone map of an interval, for the sigmoid (0, 1), into itself, so two chains that run through the same
links from either end have every other start between them. Once the two have met, a chain is in its stationary law
whatever its input was (forward coupling; Levin and Peres, Markov Chains and Mixing Times, chapter 5). A law that mixes
slowly, because it has several wells or hardly contracts, shows in chains that are long in meeting.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.jobs.pages import State
from fastgrad.kernels import PropagateJob, ScaledArrays
from fastgrad.scaled import Scaled
from fastgrad.theory import ln_weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.kernels import Backend
    from fastgrad.laws import Law
    from fastgrad.nonlinearities import Nonlinearity

    Floats = NDArray[np.float64]

MEMBERS = 256  # that are run from both ends, and all have to meet
MARGIN = 2  # times the links of the last one that meets: of the other members too few are left to be seen
LINKS_MAX = 2**14  # of a burn-in that is looked for
PAGE_LINKS = 16  # between two looks at who has met
BLOCK = 32  # members that are run together as long as one of them has not met
MET = 1e-10  # distance of activations below which they are one
RARE = 1e-4  # probability of a stationary state so near to rest that no start below it is tried
DISTANCE_MIN = 1e-300  # from rest, at which a centered chain can be started


def burn_in_links(
    weight: Law, bias: Law, phi: Nonlinearity, x: Floats, seed: int, at_most: int, kernels: Backend
) -> int | None:
    """Count the links after which a drawn chain has forgotten its input.

    Parameters
    ----------
    weight, bias : Law
    phi : Nonlinearity
    x : ndarray, shape (ensemble,)
        The inputs, of which centered biases remember how far they are from rest; no others matter.
    seed : int
        0 to 2^64 - 1: of the draws, whose first members are looked at.
    at_most : int
        Links.
    kernels : module
        The backend that runs them.

    Returns
    -------
    int or None
        Twice the links that the slowest of 256 members takes; None if that is more than `at_most` or 2^14. 0 with
        centered biases at rest exactly, where every link has the same law.
    """
    bottom, top = phi.image
    centered = bias.family == "centered"
    members = MEMBERS if weight.scale or bias.scale else 1
    if centered:
        offset = np.abs(x - phi.rest)
        if not offset.any():
            return 0
        bottom, top = _nearest_start(weight, phi, offset), top - phi.rest
    ends = [_state_at(end, members, phi, centered) for end in (bottom, top)]
    job = _without_records(weight, bias, phi, seed, members)
    expands = centered and _ln_slope(weight, phi) > 0
    apart = np.ones(members, dtype=bool)
    for page in range(min(at_most, LINKS_MAX) // MARGIN // PAGE_LINKS):
        first = page * PAGE_LINKS + 2  # the first link takes any input to between bottom and top
        for start in range(0, members, BLOCK):
            if apart[start : start + BLOCK].any():
                for end in ends:
                    kernels.propagate(job, end.arrays, first, first + PAGE_LINKS, start, min(start + BLOCK, members))
        low, high = (np.abs(end.activation) for end in ends)
        # Chains that expand near rest rise from there again: they have met where they do so together.
        apart &= np.abs(high - low) > (MET * high if expands else MET)
        if not apart.any():
            return MARGIN * (page + 1) * PAGE_LINKS
    return None


def _state_at(start: float, members: int, phi: Nonlinearity, centered: bool) -> State:
    """State of members that start at an activation, or with centered biases at a distance from rest."""
    activation = np.full(members, start)
    return State(activation, Scaled.from_float(activation), phi.rest, centered)


def _without_records(weight: Law, bias: Law, phi: Nonlinearity, seed: int, members: int) -> PropagateJob:
    none = ScaledArrays.of(Scaled.empty((0, members)))
    return PropagateJob(
        weight_law=weight.code,
        bias_law=bias.code,
        seed=seed,
        nonlinearity=phi.code,
        recorded_links=np.empty(0, dtype=np.int64),
        weight=np.empty((0, members)),
        input=none,
        slope=none,
        product=none,
        bound=none,
    )


def _ln_slope(weight: Law, phi: Nonlinearity) -> float:
    """Mean of ln|w phi'(0)|: the drift of ln|o - phi(0)| near rest with centered biases."""
    return ln_weight(weight).mean + math.log(phi.slope)


def _nearest_start(weight: Law, phi: Nonlinearity, offset: Floats) -> float:
    """Distance from rest that is below those of the inputs, and below all but a share `RARE` of the stationary ones.

    ln|o - phi(0)| is a random walk with the drift and variance of ln|w phi'(0)|, reflected near 0: its stationary law
    falls off as exp(2 drift / variance) (Asmussen, Applied Probability and Queues, chapter XIII).
    """
    start = float(offset[offset > 0].min(initial=0.25))
    drift, variance = _ln_slope(weight, phi), ln_weight(weight).variance
    if drift > 0:
        start = min(start, 0.25 * math.exp(max(-700.0, math.log(RARE) * variance / (2 * drift))))
    return max(start, DISTANCE_MIN)
