"""Gradient descent on chains: which of them learn, stand still, or run away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastgrad import losses
from fastgrad.chain import Chain
from fastgrad.checks import integer, per_member, real_array, require_memory
from fastgrad.jobs.backprop import caught_at_start, warn_of_caught
from fastgrad.jobs.draw import draw
from fastgrad.jobs.parameters import GIVEN_LEARNING_RATE
from fastgrad.jobs.threads import SLICE_MIN, Threads
from fastgrad.kernels import BackendName, TrainJob, load
from fastgrad.kernels.constants import SIGMOID
from fastgrad.laws import LawLike, law_or_number
from fastgrad.philox import draw_inputs
from fastgrad.summary import QUANTILES, json_ready, log10_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure as Canvas
    from numpy.typing import ArrayLike, NDArray

    from fastgrad.kernels.contract import Limits
    from fastgrad.losses import LossName

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

STATUSES = ("converged", "stalled", "diverged", "running")
STEPS_MAX = 10**15
LANE_BYTES = 90  # that a compiled backend works in, for each link of a lane


@dataclass(frozen=True, eq=False)
class Training:
    """Result of `train`; for a single chain the ensemble axis is absent.

    Attributes
    ----------
    step : ndarray of int64, shape (record,)
        After how many steps the loss was recorded; 0 and the last are among them.
    loss : ndarray of float64, shape (record, ensemble)
        Infinite from the step on that takes a chain out of float64.
    weight, bias : ndarray of float64, shape (depth, ensemble)
        After the last step; of a diverged chain the last ones that float64 holds.
    status : ndarray of str, shape (ensemble,)
        ``converged``: the loss is within `tolerance` of the least it can be. ``stalled``: it is not, and no parameter
        moves any more, because each update is below half a unit in the last place, or zero. ``diverged``: a parameter
        left float64. ``running``: none of these yet.
    last_step : ndarray of int64, shape (ensemble,)
        The step since which the loss of a converged chain stays within the tolerance; the last step that moved anything
        in a stalled one; the one that took a diverged one out of float64; or the number of steps.
    backend : str
        The backend that ran.
    caught : ndarray of bool, shape (ensemble,)
        Chains that rounding holds at 1/2 where training starts: see the notes of `backprop`. A UserWarning
        tells how many they are.
    """

    step: Ints
    loss: Floats
    weight: Floats
    bias: Floats
    status: Any
    last_step: Any
    backend: BackendName
    caught: Any = False

    def plot(self) -> Canvas:
        """Draw the figure of `fastgrad train`: a matplotlib figure, which a notebook shows."""
        from fastgrad.report.notebook import training_plot

        return training_plot(self)

    def _repr_html_(self) -> str:
        from fastgrad.report.notebook import training_html

        return training_html(self)

    def summary(self) -> dict[str, Any]:
        """Return the result in few numbers, as a plain dict that `json.dumps` takes.

        Returns
        -------
        dict
            ``ensemble``, ``backend``; by status the ``share`` of the chains, and their medians ``last_step`` and
            ``final_loss`` (None for a status that no chain has); ``unchanged``: the share of chains that are running,
            but whose loss was the same at each recorded step of the second half; ``loss``: its quantiles over chains
            ``q05`` … ``q95`` at each ``step``. Medians and quantiles are values of a member. What is not finite is
            None, with ``<key>_why`` beside it.
        """
        status, last_step = np.atleast_1d(self.status), np.atleast_1d(self.last_step)
        loss = self.loss.reshape(len(self.step), -1)
        is_status = {name: status == name for name in STATUSES}
        same = (loss[len(loss) // 2 :] == loss[-1]).all(axis=0) & np.isfinite(loss[-1])

        def median(values: Floats | Ints, of: NDArray[np.bool_]) -> float | None:
            return np.quantile(values[of], 0.5, method="inverted_cdf").item() if of.any() else None

        return json_ready(  # type: ignore[no-any-return]
            {
                "ensemble": len(status),
                "backend": self.backend,
                "share": {name: float(np.mean(of)) for name, of in is_status.items()},
                "last_step": {name: median(last_step, of) for name, of in is_status.items()},
                "final_loss": {name: median(loss[-1], of) for name, of in is_status.items()},
                "unchanged": float(np.mean(same & is_status["running"])),
                "step": self.step,
                "loss": self._loss_quantiles,
            }
        )

    @property
    def log10_loss(self) -> dict[str, Floats]:
        """Quantiles ``q05`` … ``q95`` over chains of the loss at each `step`, in decades; -inf for a loss of 0."""
        return {name: log10_of(losses) for name, losses in self._loss_quantiles.items()}

    @cached_property
    def _loss_quantiles(self) -> dict[str, Floats]:
        loss = self.loss.reshape(len(self.step), -1)
        rows = max(1, 2**18 // loss.shape[1])  # sorting takes a copy or two: not of all losses at once
        quantiles = np.concatenate(
            [
                np.quantile(loss[first : first + rows], QUANTILES, axis=1, method="inverted_cdf")
                for first in range(0, len(loss), rows)
            ],
            axis=1,
        )
        return {f"q{100 * q:02.0f}": row for q, row in zip(QUANTILES, quantiles, strict=True)}


def train(
    weight: ArrayLike,
    bias: ArrayLike,
    x: ArrayLike,
    target: ArrayLike,
    *,
    learning_rate: float = GIVEN_LEARNING_RATE,
    steps: int = 1000,
    loss: LossName = "squared",
    clip_value: float | None = None,
    clip_norm: float | None = None,
    tolerance: float = 1e-12,
    record: int = 64,
    backend: BackendName | Literal["auto"] = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Plain gradient descent on a chain, or on many, each with an input and a target of its own.

    All parameters of a chain move at once: ``w_l -= learning_rate dloss/dw_l`` and ``b_l -= learning_rate dloss/db_l``.
    The gradients are those of `backprop` with the cotangent o_L - y, which is a float; from there on they are exact to
    rounding however large or small, and only a parameter's change is a float again.

    Parameters
    ----------
    weight : array_like, shape (depth,) or (depth, ensemble)
        Where training starts. Not written to.
    bias : array_like
        The shape of `weight`, or one that broadcasts to it.
    x, target : array_like, a number or shape (ensemble,)
        The input o_0 and the target y of the output.
    learning_rate : float
        Above 0.
    steps : int
        From 1.
    loss : {"squared", "cross_entropy"}
        (o_L - y)² / 2; or -y ln o_L - (1 - y) ln(1 - o_L), for targets from 0 to 1.
    clip_value : float, optional
        Largest magnitude of a gradient: above 0.
    clip_norm : float, optional
        Largest Euclidean norm of all gradients of a chain, after `clip_value`: above 0. The factor is exactly
        ``clip_norm / norm`` where the norm is larger; ``torch.nn.utils.clip_grad_norm_`` divides by ``norm + 1e-6``.
    tolerance : float
        A chain has converged where its loss is at most this above the least value that the loss can have: 0, or for the
        cross entropy the entropy of the target. Steps go on all the same. 0 compares rounded numbers: with the cross
        entropy some chains at their optimum then have a loss that is a unit in the last place above the entropy, and
        are ``stalled``; for the targets 0 and 1 a chain runs until the loss itself rounds to 0.
    record : int
        After how many numbers of steps to record the loss, at least 2: evenly spaced, 0 and `steps` among them.
    backend : {"auto", "cpp", "numba", "numpy"}
        "numba" and "cpp" return equal bits.
    threads : int, optional
        By default all processors that this process may use. The result does not depend on it.
    progress : callable, optional
        Called as ``progress(done, total)`` from time to time.

    Returns
    -------
    Training

    Raises
    ------
    TypeError, ValueError
        For bad input, with the argument's name, what was wrong and what was expected.
    BackendUnavailableError
        If the backend that was named can't run here.
    TooLargeError
        If the arrays would not fit in memory.

    Notes
    -----
    What becomes of a chain does not depend on those beside it. Memory: 16 bytes a link and chain for the parameters,
    8 record a chain for the loss; the compiled backends work on 32 or 128 chains at a time, in 90 bytes a link of each.

    Examples
    --------
    The textbook's chain: one step, and it never moves again.

    >>> import fastgrad as fg
    >>> t = fg.train([500, 500, 400], [-100_000, -250, -200], 200, -149.5, steps=10)
    >>> float(t.weight[0]), str(t.status), int(t.last_step)
    (-937000.0, 'stalled', 1)
    """
    return train_chain(
        Chain.of(weight, bias, x),
        target,
        learning_rate=learning_rate,
        steps=steps,
        loss=loss,
        clip_value=clip_value,
        clip_norm=clip_norm,
        tolerance=tolerance,
        record=record,
        backend=backend,
        threads=threads,
        progress=progress,
    )


def train_chain(
    chain: Chain,
    target: ArrayLike,
    *,
    learning_rate: float,
    steps: int,
    loss: LossName,
    clip_value: float | None,
    clip_norm: float | None,
    tolerance: float,
    record: int,
    backend: BackendName | Literal["auto"],
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> Training:
    """Do the work of `train` for a chain that is checked already."""
    ensemble = chain.ensemble
    y = per_member("target", target, ensemble)
    steps = integer("steps", steps, 1, STEPS_MAX)
    record = integer("record", record, 2, 2**31)
    of_loss = losses.parse(loss)
    of_loss.check_targets(y)
    rate = _positive("learning_rate", learning_rate)
    largest = math.inf if clip_value is None else _positive("clip_value", clip_value)
    norm = math.inf if clip_norm is None else _positive("clip_norm", clip_norm)
    tolerance = _number("tolerance", tolerance)
    if tolerance < 0:
        raise ValueError(f"tolerance: expected at least 0, got {tolerance!r}")
    name, kernels = load(backend)
    caught = caught_at_start(chain, name, threads)
    warn_of_caught(caught, stacklevel=4)

    with Threads(threads) as pool:
        side_by_side = min(ensemble, kernels.LIMITS.members)
        require_memory(
            f"training {chain.depth} links x {ensemble} chains",
            training_bytes(chain.depth, ensemble, steps, record, kernels.LIMITS, pool.count),
        )
        recorded_steps = np.unique(np.linspace(0, steps, min(record, steps + 1)).round().astype(np.int64))
        job = TrainJob(
            weight=chain.weight.copy(),
            bias=chain.bias.copy(),
            nonlinearity=SIGMOID,
            x=chain.x,
            target=y,
            min_loss=of_loss.least(y),
            loss_code=of_loss.code,
            learning_rate=rate,
            clip_value=largest,
            clip_norm=norm,
            tolerance=tolerance,
            steps=steps,
            recorded_steps=recorded_steps,
            loss=np.empty((len(recorded_steps), ensemble)),
            last_update=np.zeros(ensemble, dtype=np.int64),
            converged_at=np.full(ensemble, -1, dtype=np.int64),
            diverged_at=np.zeros(ensemble, dtype=np.int64),
        )
        # One more call than steps: after the last one the loss is looked at.
        page = max(1, kernels.LIMITS.elements // (chain.depth * side_by_side))
        last = 0
        while last <= steps:
            at_rest = last > 0 and bool(np.all((job.diverged_at > 0) | (job.last_update < last)))
            first, last = last, steps + 1 if at_rest else min(last + page, steps + 1)  # one step shows it: all the rest

            def run(start: int, stop: int, first: int = first, last: int = last) -> None:
                kernels.train(job, first, last, start, stop)

            def report_progress(members: int, first: int = first, last: int = last) -> None:
                if progress is not None:
                    progress(first * ensemble + (last - first) * members, (steps + 1) * ensemble)

            pool.run(run, ensemble, side_by_side, report_progress)

    ways = [job.diverged_at > 0, job.converged_at >= 0, job.last_update < steps]
    status = np.select(ways, ["diverged", "converged", "stalled"], "running")
    last_step = np.select(ways, [job.diverged_at, job.converged_at, job.last_update], steps)
    one: Any = 0 if chain.single else slice(None)
    return Training(
        step=recorded_steps,
        loss=job.loss[:, one],
        weight=job.weight[:, one],
        bias=job.bias[:, one],
        status=status[one],
        last_step=last_step[one],
        backend=name,
        caught=caught[one],
    )


def training_bytes(depth: int, ensemble: int, steps: int, record: int, limits: Limits, threads: int) -> int:
    """Memory that training takes beside the chains it starts from: parameters, losses, and what a backend works in."""
    blocks = -(-ensemble // SLICE_MIN)
    parameters = 16 * depth * ensemble
    losses = 8 * min(record, steps + 1) * (ensemble + 4)
    in_lanes = LANE_BYTES * depth * limits.lanes * min(threads, blocks)
    in_arrays = limits.work_bytes * depth * min(ensemble, limits.members) * threads
    return parameters + losses + in_lanes + in_arrays


def drawn_training_bytes(depth: int, ensemble: int, steps: int, record: int, limits: Limits, threads: int) -> int:
    """Memory that `train_drawn` takes: its chains, and what `training_bytes` counts."""
    return 16 * depth * ensemble + training_bytes(depth, ensemble, steps, record, limits, threads)


def train_drawn(
    depth: int = 3,
    ensemble: int = 1000,
    weight: LawLike = "normal:std=4",
    bias: LawLike = "zero",
    x: LawLike | float = "uniform:low=0,high=1",
    target: LawLike | float = "uniform:low=0.1,high=0.9",
    seed: int = 0,
    *,
    learning_rate: float = 1.0,
    **options: Any,
) -> Training:
    """Train drawn chains on drawn inputs and targets.

    Parameters
    ----------
    depth, ensemble, weight, bias, seed
        As for `draw`.
    x, target : str, Law or float
        What each chain's input and target are drawn from, independent of each other and of the weights and biases; a
        number is the same for all.
    learning_rate : float
        Larger than the default of `train`: inputs and targets lie within (0, 1), where gradients are small.
    **options
        What else `train` takes.

    Raises
    ------
    TypeError, ValueError, TooLargeError
        As `draw` and `train` do.
    """
    chain, y = drawn_task(depth, ensemble, weight, bias, x, target, seed)
    return train(chain.weight, chain.bias, chain.x, y, learning_rate=learning_rate, **options)


def drawn_task(
    depth: int,
    ensemble: int,
    weight: LawLike,
    bias: LawLike,
    x: LawLike | float,
    target: LawLike | float,
    seed: int,
) -> tuple[Chain, Floats]:
    """Chains with their inputs, and their targets, as `train_drawn` draws them."""
    laws = law_or_number(x, "x"), law_or_number(target, "target")
    chains = draw(depth, ensemble, weight, bias, seed)
    inputs, targets = draw_inputs(*laws, seed, np.arange(ensemble))
    return Chain.of(*chains, inputs), targets


def _number(name: str, value: Any) -> float:
    number = real_array(name, value)
    if number.shape != ():
        raise ValueError(f"{name}: expected a number, got shape {number.shape}")
    return float(number)


def _positive(name: str, value: Any) -> float:
    number = _number(name, value)
    if number <= 0:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return number
