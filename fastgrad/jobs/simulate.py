"""Drawn ensembles of chains: how the gradient grows or vanishes with depth."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastgrad import nonlinearities
from fastgrad.chain import DEFAULT_X
from fastgrad.checks import TooLargeError, integer, per_member, require_memory, require_progress, size_text
from fastgrad.jobs.burn_in import burn_in_links
from fastgrad.jobs.draw import checked_sizes
from fastgrad.jobs.growth import BATCHES, Growth, Lyapunov, lyapunov_of
from fastgrad.jobs.layers import drawn_inputs, simulate_layers
from fastgrad.jobs.pages import State, run_pages
from fastgrad.jobs.threads import Threads
from fastgrad.kernels import BackendName, PropagateJob, ScaledArrays, load
from fastgrad.laws import LawLike, parse
from fastgrad.scaled import Scaled
from fastgrad.summary import spaced
from fastgrad.theory.linear import WIDTH_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


LINKS_MAX = 10**15  # depth times ensemble; at 5 ns a link that is two months
BURN_IN_WASTE = 1 / 8  # of the links after the burn-in: the share that a recorded link may leave unused
RECORD_BYTES = 80  # a recorded link of a member: four Scaled, a weight, and what summing up takes


def simulate(
    depth: int,
    ensemble: int = 1000,
    weight: LawLike = "normal:std=4",
    bias: LawLike = "zero",
    x: LawLike | ArrayLike = DEFAULT_X,
    seed: int = 0,
    record: int = 64,
    width: int = 1,
    nonlinearity: str = "sigmoid",
    inputs: int = 1,
    backend: BackendName | Literal["auto"] = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Growth:
    """Gradients through drawn chains, or through drawn layers of any width: an ensemble, or one of any depth.

    Chains are drawn and run forward link by link, and only the recorded links are kept: with the identity loss the
    adjoint of link l is the product of w_k sigmoid'(z_k) over k = l … L, and the recorded ones are suffix products of
    those between two recorded links. Memory is 80 (record + 1) ensemble bytes, whatever the depth.

    With a width, or another nonlinearity, links are dense layers: ``z_l = W_l o_{l-1} + b_l`` and ``o_l = phi(z_l)``
    with W_l of shape (width, width). Weights are drawn and never stored, once on the way forward and once more on the
    way back; the gradients are norms: see `Growth`. A network is chaotic where chi_1 of `fastgrad.theory.mean_field` is
    above 1, and "exact" then means: along the trajectory that float64 computed.

    Parameters
    ----------
    depth, ensemble : int
        Links and independent chains; their product at most 10^15, and the ensemble at most 2^32.
    weight, bias : str or Law
        What each link's weight and bias are drawn from; see `fastgrad.laws`.
    x : str or Law, or array_like, a number or shape (ensemble,)
        The input o_0, or the law that it is drawn from, for layers each unit. Arrays of layers have the shape (width,)
        or (ensemble, width), and two inputs (2, width) or (ensemble, 2, width).
    seed : int
        0 to 2^64 - 1.
    record : int
        How many links to record, at least 2: evenly spaced, the first and the last among them.
    width : int
        Units of a layer, 1 to 65536. With the sigmoid 1 is a chain.
    nonlinearity : {"sigmoid", "tanh", "relu", "linear"}
    inputs : int
        1, or of layers 2: how their preactivations are correlated is recorded too; gradients are those of the first.
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
    depth, ensemble, seed = checked_sizes(depth, ensemble, seed)
    record = integer("record", record, 2, 2**31)
    width, inputs = integer("width", width, 1, WIDTH_MAX), integer("inputs", inputs, 1, 2)
    phi = nonlinearities.parse(nonlinearity)
    require_progress(progress)
    recorded = spaced(depth, min(record, depth))
    # A single chain needs batches for its standard error, however few links are recorded.
    links = np.union1d(recorded, spaced(depth, min(BATCHES + 1, depth))) if ensemble == 1 else recorded
    if not nonlinearities.is_chain(width, phi.name):
        of_run = backend, threads, progress
        return simulate_layers(depth, ensemble, weight, bias, x, seed, recorded, links, width, phi, inputs, *of_run)
    if inputs > 1:
        raise ValueError(f"inputs: a chain has one, got {inputs}; layers (another width or nonlinearity) may have two")
    weight_law, bias_law = parse(weight, "weight"), parse(bias, "bias")
    memory = simulation_bytes(len(links), ensemble)
    if depth * ensemble > LINKS_MAX:
        raise TooLargeError(
            f"depth: {depth} links x {ensemble} chains are {depth * ensemble:.3g} links (and would take "
            f"{size_text(memory)} of memory), expected at most {LINKS_MAX:.0e}"
        )
    require_memory(f"records of {len(links)} links x {ensemble} chains", memory)
    drawn = drawn_inputs(x, 1, 1, ensemble, seed)
    given = per_member("x", x, ensemble) if drawn is None else np.ascontiguousarray(drawn[:, 0, 0])  # type: ignore[arg-type]
    name, kernels = load(backend)
    burn_in = burn_in_links(weight_law, bias_law, phi, given, seed, depth // 2, kernels)
    if burn_in is not None:
        links = _with_link_after(links, burn_in, depth)

    weight_at = np.empty((len(links), ensemble))
    input_at, slope, product, bound = (Scaled.empty(weight_at.shape) for _ in range(4))
    job = PropagateJob(
        weight_law=weight_law.code,
        bias_law=bias_law.code,
        seed=seed,
        nonlinearity=phi.code,
        recorded_links=links,
        weight=weight_at,
        input=ScaledArrays.of(input_at),
        slope=ScaledArrays.of(slope),
        product=ScaledArrays.of(product),
        bound=ScaledArrays.of(bound),
    )
    start_state = State.at(given, phi.rest, bias_law.family == "centered")
    with Threads(threads, depth * ensemble) as pool:
        state = run_pages(kernels, job, start_state, depth, pool, progress)
        pool.run(partial(kernels.suffix_products, job), ensemble)

    adjoint, grad_weight, grad_bias = product, input_at, slope
    lyapunov = lyapunov_of(links, adjoint, depth)
    stationary, stationary_link = Lyapunov(np.nan, np.nan), None
    if burn_in is not None:  # a chain that begins after it
        row = int(np.searchsorted(links, burn_in, side="right"))
        stationary_link = int(links[row])
        before = stationary_link - 1
        stationary = lyapunov_of(links[row:] - before, adjoint[row:], depth - before)
    kept: Any = slice(None) if len(links) == len(recorded) else np.isin(links, recorded)
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
        x=given,
        backend=name,
    )


def simulation_bytes(recorded_links: int, ensemble: int) -> int:
    """Memory that a simulation takes."""
    return RECORD_BYTES * (recorded_links + 1) * ensemble  # one more for the burn-in


def _with_link_after(links: Ints, burn_in: int, depth: int) -> Ints:
    """Links to record with one soon after the burn-in among them; most have it already."""
    first = links[np.searchsorted(links, burn_in, side="right")]
    return links if first - burn_in - 1 <= BURN_IN_WASTE * (depth - burn_in) else np.union1d(links, burn_in + 1)
