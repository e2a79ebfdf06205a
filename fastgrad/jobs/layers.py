"""Drawn dense layers, forward and back: slices of members, pages of layers, and checkpoints for long tapes."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.jobs.threads import SLICE_MIN
from fastgrad.kernels.constants import WIDE_LAYER

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastgrad.jobs.threads import Threads
    from fastgrad.kernels import Backend, LayersJob, ScaledVectors

    Floats = NDArray[np.float64]

TAPE_BYTES = 2**28  # of preactivations that are kept at a time, on all threads together


class Plan(NamedTuple):
    """How members and layers are cut. No result depends on it."""

    members: int  # of a slice; as many slices run side by side as there are threads
    segment: int  # layers whose preactivations are kept; if fewer than all, each segment is run forward twice
    page: int  # layers of a call
    bytes: int  # of tapes and checkpoints


def plan(depth: int, ensemble: int, width: int, inputs: int, threads: int, weights: int) -> Plan:
    """Cut layers and members so that memory does not grow with the ensemble, and with depth as its square root at most.

    Parameters
    ----------
    depth, ensemble, width, inputs : int
        Layers, members, units, and inputs of a member.
    threads : int
        How many slices run side by side.
    weights : int
        Layers times members times width² of a call; see `fastgrad.kernels.contract.Limits`.
    """
    even = -(-ensemble // threads)
    block = 1 if width >= WIDE_LAYER else min(SLICE_MIN, even)  # members that a kernel runs side by side
    share = TAPE_BYTES // threads
    whole = share // (8 * depth * width)  # members whose tape is kept over all layers
    most = max(weights // width**2, 1)  # so that a call of one layer ends soon
    members = min(ensemble, -(-max(min(whole, even, most), 1) // block) * block)
    row = 8 * members * width
    segment = min(depth, max(share // row, isqrt(depth * inputs), 1))
    checkpoints = -(-depth // segment)
    return Plan(
        members=members,
        segment=segment,
        page=max(1, weights // (members * width**2)),
        bytes=threads * row * (segment + (checkpoints * inputs if checkpoints > 1 else 0)),
    )


def run_layers(
    backend: Backend,
    job: LayersJob,
    state: ScaledVectors,
    adjoint: ScaledVectors,
    depth: int,
    pool: Threads,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Run layers 1 … depth of every member forward, and back.

    Parameters
    ----------
    backend : module
    job : LayersJob
        Its records are filled.
    state : ScaledVectors, shape (ensemble, inputs, width)
        The inputs; overwritten by the activations o_L.
    adjoint : ScaledVectors, shape (ensemble, cotangents, width)
        The cotangents a_L; overwritten by the adjoints a_0.
    depth : int
    pool : Threads
    progress : callable, optional
        Called as ``progress(done, depth)``, with `done` in proportion to the work.
    """
    ensemble, inputs, width = state.value.shape
    cut = plan(depth, ensemble, width, inputs, pool.count, backend.LIMITS.weights)
    segments = list(pairwise([*range(1, depth + 1, cut.segment), depth + 1]))
    slices = [(start, min(start + cut.members, ensemble)) for start in range(0, ensemble, cut.members)]
    # The last segment is run forward once, and each other one twice.
    work = ensemble * (3 * depth - (segments[-1][1] - segments[-1][0]))
    done = 0

    def run(kernel: Callable[..., None], vectors: ScaledVectors, tapes: list[Floats], first: int, last: int) -> None:
        nonlocal done
        pages = list(pairwise([*range(first, last, cut.page), last]))
        for begin, end in reversed(pages) if kernel is backend.layers_backward else pages:
            kept = slice(begin - first, end - first)
            pool.run_all(
                [
                    partial(kernel, job, vectors, tape[kept], begin, end, *of)
                    for tape, of in zip(tapes, together, strict=True)
                ]
            )
            done += (end - begin) * (together[-1][1] - together[0][0])
            if progress is not None:
                progress(depth * done // work, depth)

    spaces = [np.empty(cut.segment * cut.members * width) for _ in slices[: pool.count]]
    for at in range(0, len(slices), pool.count):
        together = slices[at : at + pool.count]
        members = slice(together[0][0], together[-1][1])
        tapes = [
            space[: cut.segment * (stop - start) * width].reshape(cut.segment, stop - start, width)
            for space, (start, stop) in zip(spaces, together, strict=False)
        ]
        nothing = [tape[:0] for tape in tapes]
        checkpoints = []
        for first, last in segments[:-1]:
            checkpoints.append((state.value[members].copy(), state.exponent[members].copy()))
            run(backend.layers_forward, state, nothing, first, last)
        run(backend.layers_forward, state, tapes, *segments[-1])
        output = state.value[members].copy(), state.exponent[members].copy()
        run(backend.layers_backward, adjoint, tapes, *segments[-1])
        for first, last in reversed(segments[:-1]):
            state.value[members], state.exponent[members] = checkpoints.pop()
            run(backend.layers_forward, state, tapes, first, last)
            run(backend.layers_backward, adjoint, tapes, first, last)
        state.value[members], state.exponent[members] = output
