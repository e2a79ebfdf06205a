"""Parameters of the jobs that a sweep runs, as in their signatures."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from fastgrad.jobs.simulate import simulate
from fastgrad.jobs.train import train, train_drawn

if TYPE_CHECKING:
    from collections.abc import Callable


JobName = Literal["simulate", "train"]
JOBS: tuple[JobName, ...] = ("simulate", "train")
LAWS: dict[JobName, tuple[str, ...]] = {"simulate": ("weight", "bias"), "train": ("weight", "bias", "x", "target")}
EXECUTION_ARGUMENTS = ("backend", "threads", "progress")  # arguments that say how a job is run, and not what it gives
REQUIRED = object()  # in place of a default


@cache
def job_parameters(job: JobName) -> dict[str, Any]:
    """Return what decides a job's result: its parameters with their defaults, as in its signature.

    One without a default has `REQUIRED`.

    Raises
    ------
    ValueError
        If there is no such job.
    """
    if job not in JOBS:
        raise ValueError(f"job: unknown job {job!r}, expected {' or '.join(JOBS)}")
    import inspect  # here: import fastgrad stays light

    taken = dict(inspect.signature(job_function(job)).parameters)
    if taken.pop("how", None) is not None:  # what train_drawn hands on to train
        inner = inspect.signature(train).parameters
        taken |= {name: of for name, of in inner.items() if of.kind is of.KEYWORD_ONLY and name not in taken}
    return {
        name: REQUIRED if of.default is of.empty else of.default
        for name, of in taken.items()
        if name not in EXECUTION_ARGUMENTS
    }


def job_function(job: JobName) -> Callable[..., Any]:
    """Return what runs the job."""
    return simulate if job == "simulate" else train_drawn
