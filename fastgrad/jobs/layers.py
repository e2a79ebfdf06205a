"""Drawn dense layers, forward and back: slices of members, pages of layers, and checkpoints for long tapes."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fastgrad.checks import TooLargeError, real_array, require_memory, size_text
from fastgrad.jobs.growth import Growth, Lyapunov, lyapunov_of
from fastgrad.jobs.threads import SLICE_MIN, Threads
from fastgrad.kernels import BackendName, LayersJob, ScaledArrays, ScaledVectors, load
from fastgrad.kernels.constants import WIDE_LAYER
from fastgrad.laws import Law, law_or_number, parse
from fastgrad.philox import draw_cotangents, draw_input_units
from fastgrad.scaled import LN_2, Scaled
from fastgrad.theory.layers import layers_bound

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from fastgrad.kernels import Backend, Limits
    from fastgrad.laws import LawLike
    from fastgrad.nonlinearities import Nonlinearity

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

WEIGHTS_MAX = 10**15  # drawn weights; at 3 ns each that is a month
RECORD_BYTES = 250  # a recorded layer of a member: nine Scaled, three doubles, and what summing up takes
TAPE_BYTES = 2**28  # of preactivations that are kept at a time, on all threads together


def simulate_layers(
    depth: int,
    ensemble: int,
    weight: LawLike,
    bias: LawLike,
    x: LawLike | ArrayLike,
    seed: int,
    recorded: Ints,
    links: Ints,
    width: int,
    phi: Nonlinearity,
    inputs: int,
    backend: BackendName | Literal["auto"],
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> Growth:
    """Run `simulate` for layers; its sizes are checked already.

    Parameters
    ----------
    recorded, links : ndarray of int64
        The layers that the result has, and those to record for it.
    """
    weight_law, bias_law = parse(weight, "weight", width), parse(bias, "bias", width)
    if bias_law.family == "centered":
        raise ValueError(
            f"bias: centered is a law of sigmoid chains, got nonlinearity {phi.name}; expected another law"
        )
    shape = len(links), ensemble
    with Threads(threads) as pool:
        name, kernels = load(backend)
        memory = layers_bytes(depth, ensemble, width, len(links), inputs, pool.count, kernels.LIMITS)
        if depth * ensemble * width**2 > WEIGHTS_MAX:
            raise TooLargeError(
                f"depth: {depth} layers x {ensemble} members x {width}² weights are {depth * ensemble * width**2:.3g} "
                f"weights (and would take {size_text(memory)} of memory), expected at most {WEIGHTS_MAX:.0e}"
            )
        require_memory(f"records of {len(links)} layers x {ensemble} members", memory)
        drawn = drawn_inputs(x, width, inputs, ensemble, seed)
        given = given_inputs(x, width, inputs, ensemble) if drawn is None else drawn
        length, mean_activation, input_norm, delta_norm, adjoint = (Scaled.empty(shape) for _ in range(5))
        job = LayersJob(
            weight_law=weight_law.code,
            bias_law=bias_law.code,
            seed=seed,
            nonlinearity=phi.code,
            recorded_layers=links,
            length=ScaledArrays.of(length),
            mean_activation=ScaledArrays.of(mean_activation),
            saturated=np.empty(shape),
            dead=np.empty(shape),
            correlation=np.full(shape, np.nan),
            input_norm=ScaledArrays.of(input_norm),
            delta_norm=ScaledArrays.of(delta_norm),
            adjoint_norm=ScaledArrays.of(adjoint),
        )
        state = ScaledVectors.of(given)
        cotangent = ScaledVectors.of(draw_cotangents(seed, 1, np.arange(ensemble), width)[:, None])
        run_layers(kernels, job, state, cotangent, depth, pool, progress)
    kept: Any = slice(None) if len(links) == len(recorded) else np.isin(links, recorded)
    return Growth(
        link=recorded,
        adjoint=adjoint[kept],
        grad_weight=(delta_norm * input_norm)[kept],
        grad_bias=delta_norm[kept],
        bound=_bound_at(layers_bound(weight_law, width, phi).mean, depth + 1 - recorded, ensemble),
        output=Scaled(state.value[:, 0], state.exponent[:, 0, None]).to_float(),
        lyapunov=lyapunov_of(links, adjoint, depth),
        stationary=Lyapunov(np.nan, np.nan),
        stationary_link=None,
        depth=depth,
        ensemble=ensemble,
        weight=weight_law,
        bias=bias_law,
        seed=seed,
        x=given[:, 0] if inputs == 1 else given,
        backend=name,
        width=width,
        nonlinearity=phi.name,
        length=length[kept],
        mean_activation=mean_activation[kept],
        saturated=job.saturated[kept],
        dead=job.dead[kept],
        correlation=job.correlation[kept] if inputs == 2 else None,
    )


def layers_bytes(
    depth: int, ensemble: int, width: int, recorded: int, inputs: int, threads: int, limits: Limits
) -> int:
    """Memory of a run: tapes and checkpoints, records, and the vectors of every member."""
    cut = plan(depth, ensemble, width, inputs, threads, limits.weights)
    return cut.bytes + RECORD_BYTES * recorded * ensemble + 24 * ensemble * (inputs + 1) * width


def drawn_inputs(x: LawLike | ArrayLike, width: int, inputs: int, ensemble: int, seed: int) -> Floats | None:
    """Draw the inputs of every member, shape (ensemble, inputs, width); None if `x` is no law."""
    if not (isinstance(x, str | Law) or callable(x)):
        return None
    law, members = law_or_number(x, "x"), np.arange(ensemble)
    return np.stack([draw_input_units(law, seed, t, members, width) for t in range(1, inputs + 1)], axis=1)


def given_inputs(x: Any, width: int, inputs: int, ensemble: int) -> Floats:
    """Check the inputs of every member, and lay them out in the shape (ensemble, inputs, width)."""
    given = real_array("x", x)
    if inputs == 2:
        if given.shape not in ((2, width), (ensemble, 2, width)):
            raise ValueError(
                f"x: for two inputs expected a law such as 'normal:std=1', or shape (2, {width}) or "
                f"({ensemble}, 2, {width}), got {given.shape}"
            )
        return np.array(np.broadcast_to(given, (ensemble, 2, width)), order="C")
    if given.shape not in ((), (width,), (ensemble, width)):
        raise ValueError(f"x: expected a law, a number or shape ({width},) or ({ensemble}, {width}), got {given.shape}")
    return np.array(np.broadcast_to(given, (ensemble, width))[:, None], order="C")


def _bound_at(rate: float, layers: Ints, ensemble: int) -> Scaled:
    """Return exp(rate layers) for every member."""
    if rate == -np.inf:
        return Scaled.from_float(np.zeros((len(layers), ensemble)))
    log2 = rate / LN_2 * layers
    whole = np.floor(log2)
    mantissa = np.broadcast_to(np.exp2(log2 - whole)[:, None], (len(layers), ensemble))
    return Scaled(mantissa, whole.astype(np.int64)[:, None])


class Plan(NamedTuple):
    """Cut of a run into slices of members, segments and pages of layers. No result depends on it."""

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
    page: int | None = None,
    after_page: Callable[[int, int, list[Floats]], None] | None = None,
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
    page : int, optional
        Layers of a call on the way back, at most; else as many as a call should have.
    after_page : callable, optional
        Called after each call on the way back as ``after_page(first, last, preactivations)``, when the layers
        last - 1 … first have been run, with their preactivations, of shape (layers, members, width) for each slice of
        members; it may change `adjoint`.
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
        back = kernel is backend.layers_backward
        step = cut.page if page is None or not back else min(cut.page, page)
        pages = list(pairwise([*range(first, last, step), last]))
        for begin, end in reversed(pages) if back else pages:
            kept = slice(begin - first, end - first)
            of_page = [tape[kept] for tape in tapes]
            pool.run_all(
                [
                    partial(kernel, job, vectors, tape, begin, end, *of)
                    for tape, of in zip(of_page, together, strict=True)
                ]
            )
            if back and after_page is not None:
                after_page(begin, end, of_page)
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
