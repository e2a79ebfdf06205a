"""Burn-in of drawn chains: the links after which nothing depends on the input any more.

A link is a monotone map of an interval, for the sigmoid (0, 1), into itself, so two chains that run through the same
links from either end have
every other start between them. Once the two have met, a chain is in its stationary law whatever its input was (forward
coupling; Levin and Peres, Markov Chains and Mixing Times, chapter 5). A law that mixes slowly, because it has several
wells or hardly contracts, shows in chains that are long in meeting.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.philox import draw
from fastgrad.theory import ln_weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.laws import Law
    from fastgrad.nonlinearities import Nonlinearity

    Floats = NDArray[np.float64]

MEMBERS = 256  # that are run from both ends, and all have to meet
MARGIN = 2  # times the links of the last one that meets: of the other members too few are left to be seen
LINKS_MAX = 2**14  # of a burn-in that is looked for
PAGE_LINKS = 16  # between two looks at who has met
MET = 1e-10  # distance of activations below which they are one
RARE = 1e-4  # probability of a stationary state so near to rest that no start below it is tried
DISTANCE_MIN = 1e-300  # from rest, at which a centered chain can be started


def burn_in_links(weight: Law, bias: Law, phi: Nonlinearity, x: Floats, seed: int, at_most: int) -> int | None:
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

    Returns
    -------
    int or None
        Twice the links that the slowest of 256 members takes; None if that is more than `at_most` or 2^14. 0 with
        centered biases at rest exactly, where every link has the same law.
    """
    bottom, top = phi.image
    centered = bias.family == "centered"
    members = np.arange(MEMBERS if weight.scale or bias.scale else 1)
    if centered:
        offset = np.abs(x - phi.rest)
        if not offset.any():
            return 0
        bottom, top = _nearest_start(weight, phi, offset), top - phi.rest
    ends = np.repeat([[bottom], [top]], len(members), axis=1)
    expands = centered and _ln_slope(weight, phi) > 0
    pages = min(at_most, LINKS_MAX) // MARGIN // PAGE_LINKS
    for page in range(pages):
        # From link 2: the first takes any input to between bottom and top.
        links = np.arange(PAGE_LINKS) + page * PAGE_LINKS + 2
        w, b = draw(weight, bias, seed, links, members)
        for i in range(PAGE_LINKS):
            ends = phi.offset(np.abs(w[i]) * ends) if centered else phi.value(w[i] * ends + b[i])
        low, high = ends
        # Chains that expand near rest rise from there again: they have met where they do so together.
        apart = np.abs(high - low) > (MET * high if expands else MET)
        if not apart.any():
            return MARGIN * (page + 1) * PAGE_LINKS
        members, ends = members[apart], ends[:, apart]
    return None


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
