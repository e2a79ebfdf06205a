"""Streamed chains: pages of links and slices of members, shared among threads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fastgrad import kernels
from fastgrad.kernels import ScaledArrays
from fastgrad.kernels.constants import TINY_OFFSET
from fastgrad.scaled import Scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastgrad.jobs.threads import Threads
    from fastgrad.kernels import Backend, PropagateJob

    Floats = NDArray[np.float64]


SPECULATIVE_ENSEMBLE_MAX = 16  # members: so few leave threads idle, and are cut in depth for them
BURN_IN_LINKS = (
    1024  # links, a whole block of them: from a guess to the bits of the true state, if the chain forgets at all
)


class State:
    """State of chains between two links, and the products over the links before a page's first recorded one.

    `arrays` is the same memory as the kernels take it.
    """

    def __init__(self, activation: Floats, scaled: Scaled, rest: float, is_centered: bool) -> None:
        self.activation, self.scaled, self.rest, self.is_centered = activation, scaled, rest, is_centered
        self.product_before, self.bound_before = Scaled.empty(activation.shape), Scaled.empty(activation.shape)
        numbers = (scaled, self.product_before, self.bound_before)
        self.arrays = kernels.State(activation, *map(ScaledArrays.of, numbers))

    @classmethod
    def at(cls, activation: Floats, rest: float, is_centered: bool) -> State:
        """Return the state of chains that stand at these activations: with centered biases the offsets from rest."""
        scaled = Scaled.from_float(activation)
        if not is_centered:
            return cls(activation.copy(), scaled, rest, is_centered)
        offset = activation - rest
        at_rest = offset == 0
        mantissa, exponent = np.where(at_rest, 0.0, scaled.mantissa), np.where(at_rest, 0, scaled.exponent)
        return cls(offset, Scaled.of_parts(mantissa, exponent), rest, is_centered)

    def guess(self) -> State:
        """Return a state to warm up from: every activation at rest.

        With centered biases that is a fixed point, and right for the chains that are there. The others run from 1/2
        above it: their offsets forget their size but not their sign, so that half of these guesses are wrong.
        """
        start = np.full(len(self.activation), self.rest)
        if self.is_centered:
            start += np.where(self.activation == 0, 0.0, 0.5)
        return State.at(start, self.rest, self.is_centered)

    def output(self) -> Floats:
        """Return the activations."""
        if not self.is_centered:
            return self.activation
        return np.where(np.abs(self.activation) < TINY_OFFSET, self.rest, self.scaled.to_float())

    def copy(self) -> State:
        """Return an independent copy; the products are not part of it."""
        scaled = Scaled.of_parts(self.scaled.mantissa.copy(), self.scaled.exponent.copy())
        return State(self.activation.copy(), scaled, self.rest, self.is_centered)

    def same_bits(self, other: State) -> bool:
        """Compare with another state, bit for bit."""
        return np.array_equal(self.activation, other.activation) and bool(np.all(self.scaled == other.scaled))


@dataclass
class _Page:
    """A run of links that a kernel takes in one call: first … last - 1."""

    first: int
    last: int
    state: State
    guess: State | None = None  # of the state at its start, where that was not known yet


def run_pages(
    backend: Backend,
    job: PropagateJob,
    state: State,
    depth: int,
    pool: Threads,
    progress: Callable[[int, int], None] | None,
) -> State:
    """Run all links, page after page; returns the state at the end.

    An ensemble's slices share a page among the threads. Too few chains for that share the pages instead: of the pages
    that run at the same time each but the first starts from a guess, the state after some links from rest, which is
    then compared with the end of the page before. Trajectories forget their start within a few dozen links; a page
    whose guess was wrong is run again.
    """
    ensemble = len(state.activation)
    together = pool.count if ensemble <= SPECULATIVE_ENSEMBLE_MAX else 1
    limits = backend.LIMITS
    at_most = max(1, limits.elements // min(depth, limits.links))
    product, bound = Scaled.of_parts(*job.product), Scaled.of_parts(*job.bound)
    unrecorded = job._replace(recorded_links=job.recorded_links[:0])

    def run(page: _Page, start: int = 0, stop: int = ensemble) -> None:
        backend.propagate(job, page.state.arrays, page.first, page.last, start, stop)

    def run_from_guess(page: _Page) -> None:
        backend.propagate(unrecorded, page.state.arrays, page.first - BURN_IN_LINKS, page.first, 0, ensemble)
        page.guess = page.state.copy()
        run(page)

    firsts = range(1, depth + 1, limits.links)
    for at in range(0, len(firsts), together):
        pages = [_Page(first, min(first + limits.links, depth + 1), state) for first in firsts[at : at + together]]
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
            row = int(np.searchsorted(job.recorded_links, page.first)) - 1  # the last one before the page
            if row >= 0:
                for products, before in ((product, page.state.product_before), (bound, page.state.bound_before)):
                    products[row] = products[row] * before
            state = page.state
        if progress is not None:
            progress(pages[-1].last - 1, depth)
    return state
