"""Given deep chains on several threads: parts of a chain side by side, each but the first from a guess of its start."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.kernels import ScaledArrays, Segments
from fastgrad.kernels.constants import (
    ADJOINTS,
    BACKWARD,
    FORWARD,
    GUESS,
    SEGMENTED_DEPTH_MIN,
    SEGMENTED_ENSEMBLE_MAX,
)
from fastgrad.scaled import Scaled

if TYPE_CHECKING:
    from fastgrad.jobs.threads import Threads
    from fastgrad.kernels import Backend, BackpropJob

PART_SEGMENTS = 128  # a part has a multiple of this: kernels run so many side by side


def is_cut(backend: Backend, depth: int, ensemble: int) -> bool:
    """Tell if chains are cut into segments, and so can be shared among threads."""
    return bool(backend.LIMITS.segment) and depth >= SEGMENTED_DEPTH_MIN and ensemble <= SEGMENTED_ENSEMBLE_MAX


def run_segments(backend: Backend, job: BackpropJob, pool: Threads) -> bool:
    """Fill the gradients of deep chains; False where a weight or bias is not finite.

    The bits are those of ``backend.backprop``: adjoints are defined segment by segment, however many are run at a time.
    """
    ensemble = job.weight.shape[1]
    chains = [_Parts(backend, job, member, -(-pool.count // ensemble)) for member in range(ensemble)]
    pool.run_all([call for chain in chains for call in chain.forward()])
    pool.run_all([chain.mend for chain in chains])
    pool.run_all([chain.define_adjoints for chain in chains])
    pool.run_all([call for chain in chains for call in chain.backward()])
    return all(chain.finite for chain in chains)


class _Parts:
    """One chain, cut into parts."""

    def __init__(self, backend: Backend, job: BackpropJob, member: int, parts: int) -> None:
        self._backend, self._job, self._member = backend, job, member
        self._count = job.weight.shape[0] // backend.LIMITS.segment
        blocks = -(-self._count // PART_SEGMENTS)
        parts = min(parts, blocks)
        self._edges = [min(self._count, PART_SEGMENTS * (blocks * i // parts)) for i in range(parts + 1)]
        self._activation, self._scaled, self._product, self._adjoint = np.empty(self._count), *self._empty(3)
        self._ends = np.empty(parts), self._empty_of(parts)
        start = Scaled.from_float(job.x[member])
        self._activation[0], self._scaled.mantissa[0], self._scaled.exponent[0] = (
            job.x[member],
            start.mantissa,
            start.exponent,
        )
        self.finite = True

    def _empty_of(self, count: int) -> ScaledArrays:
        return ScaledArrays.of(Scaled.empty((count,)))

    def _empty(self, arrays: int) -> list[ScaledArrays]:
        return [self._empty_of(self._count) for _ in range(arrays)]

    def _run(self, stage: int, part: int, first: int, last: int) -> None:
        end = slice(part, part + 1)
        activation, scaled = self._ends
        segments = Segments(
            activation=self._activation,
            scaled=self._scaled,
            end_activation=activation[end],
            end_scaled=ScaledArrays(scaled.mantissa[end], scaled.exponent[end]),
            product=self._product,
            adjoint=self._adjoint,
        )
        if not self._backend.backprop_segments(self._job, segments, stage, first, last, self._member):
            self.finite = False

    def forward(self) -> list[partial[None]]:
        """Make a call for each part."""
        return [partial(self._forward, part, *edges) for part, edges in enumerate(pairwise(self._edges))]

    def _forward(self, part: int, first: int, last: int) -> None:
        if part:
            self._run(GUESS, part, first, last)
        self._run(FORWARD, part, first, last)

    def mend(self) -> None:
        """Run the parts again whose guesses were wrong."""
        for part, (first, last) in enumerate(pairwise(self._edges)):
            if part and self._start(first) != self._end(part - 1):
                activation, scaled = self._ends
                self._activation[first] = activation[part - 1]
                self._scaled.mantissa[first], self._scaled.exponent[first] = (
                    scaled.mantissa[part - 1],
                    scaled.exponent[part - 1],
                )
                self._run(FORWARD, part, first, last)

    def _start(self, first: int) -> tuple[float, float, int]:
        return self._activation[first], self._scaled.mantissa[first], self._scaled.exponent[first]

    def _end(self, part: int) -> tuple[float, float, int]:
        activation, scaled = self._ends
        return activation[part], scaled.mantissa[part], scaled.exponent[part]

    def define_adjoints(self) -> None:
        """Define the adjoint at the end of each segment."""
        self._run(ADJOINTS, len(self._edges) - 2, 0, self._count)

    def backward(self) -> list[partial[None]]:
        """Make a call for each part."""
        return [partial(self._run, BACKWARD, part, *edges) for part, edges in enumerate(pairwise(self._edges))]
