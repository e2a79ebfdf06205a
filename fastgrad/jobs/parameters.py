"""The table of parameters: what decides a job's result, for the command line, for sweeps, and for their tests.

A new parameter is a row here and an argument of its job. The options of the command line and the keys of sweeps follow;
tests compare signatures and docstrings with the table.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

from fastgrad.losses import LOSSES
from fastgrad.nonlinearities import NONLINEARITIES

JobName = Literal["simulate", "train"]  # jobs that a sweep runs; train: of drawn chains, as in `train_drawn`
CommandName = Literal["simulate", "train", "schemes", "compare", "theory"]
Kind = Literal["whole", "number", "law", "law or number", "number or law", "name"]

JOBS: tuple[JobName, ...] = ("simulate", "train")
EXECUTION_ARGUMENTS = ("backend", "threads", "progress")  # arguments that say how a job is run, and not what it gives
REQUIRED = object()  # in place of a default
GIVEN_LEARNING_RATE = 0.01  # of the lecture's example, for chains that are given


class Parameter(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    name : str
        Of the argument in Python, the key of a sweep, and the option (with - for _).
    kind : {"whole", "number", "law", "law or number", "number or law", "name"}
        Of its values. The keys of sweeps know a "number or law" as a number.
    help : str
        A line that stands alone.
    defaults : dict of str to object
        Its default in each job that takes it: `REQUIRED` if it has none, None for a number that may be left out.
    unit : str
        Of a number.
    choices : tuple of str
        The names, if names are its values.
    is_swept : bool
        Whether it is part of a sweep's points.
    is_added : bool
        Whether it came when there were stores already: a point with its default is kept, and known, without it.
    """

    name: str
    kind: Kind
    help: str
    defaults: dict[CommandName, Any]
    unit: str = ""
    choices: tuple[str, ...] = ()
    is_swept: bool = True
    is_added: bool = False

    @property
    def is_law(self) -> bool:
        """Tell if its values are laws, whose own parameters are keys of sweeps too."""
        return self.kind in ("law", "law or number")

    @property
    def is_optional(self) -> bool:
        """Tell if it may be left out: None is one of its values."""
        return None in self.defaults.values()


def _everywhere(default: Any, *but: CommandName) -> dict[CommandName, Any]:
    jobs: tuple[CommandName, ...] = ("simulate", "train", "schemes", "compare", "theory")
    return {job: default for job in jobs if job not in but}


def _in_training(default: Any) -> dict[CommandName, Any]:
    return {"train": default, "schemes": default}


# In the order of the signatures. How much is run is each job's own choice; any other name has one default.
PARAMETERS = (
    Parameter(
        "depth",
        "whole",
        "Links of each chain.",
        {"simulate": REQUIRED, "train": 3, "schemes": 10, "compare": 1000},
        "links",
    ),
    Parameter("ensemble", "whole", "Independent chains.", _everywhere(1000, "theory"), "chains"),
    Parameter(
        "weight",
        "law",
        "Law of the weights: constant:VALUE, normal:mean=,std=, uniform:low=,high=, glorot_normal, glorot_uniform, "
        "he_normal, he_uniform, lecun_normal, torch_default, orthogonal (of layers; each from glorot_normal on takes "
        ":gain=, and normal:gain= is the std times √width).",
        _everywhere("normal:std=4", "schemes"),
    ),
    Parameter(
        "bias",
        "law",
        "Law of the biases: one of those of --weight, zero, or centered (-w/2).",
        _everywhere("zero", "schemes"),
    ),
    Parameter("x", "number or law", "Input of every chain: a number or a law.", {"simulate": 0.5, "theory": 0.5}),
    Parameter("x", "law or number", "Input of each chain: a number or a law.", {"train": "uniform:low=0,high=1"}),
    Parameter(
        "target", "law or number", "Target of each chain: a number or a law.", {"train": "uniform:low=0.1,high=0.9"}
    ),
    Parameter("seed", "whole", "Seed, 0 to 2^64 - 1.", _everywhere(0, "theory")),
    # Of drawn chains: within (0, 1) gradients are small. In 1000 steps of `GIVEN_LEARNING_RATE` none of the default
    # chains comes within the tolerance of its target; with 1, 98 % do.
    Parameter("learning_rate", "number", "Factor on each gradient.", _in_training(1.0)),
    Parameter("steps", "whole", "Steps of gradient descent.", _in_training(1000), "steps"),
    Parameter(
        "loss",
        "name",
        f"{', or '.join(loss.formula for loss in LOSSES.values())}.",
        _in_training("squared"),
        choices=tuple(LOSSES),
    ),
    Parameter("clip_value", "number", "Largest magnitude of a gradient.", _in_training(None)),
    Parameter("clip_norm", "number", "Largest Euclidean norm of a chain's gradients.", _in_training(None)),
    Parameter("tolerance", "number", "Distance of a converged chain's loss from its least.", _in_training(1e-12)),
    Parameter("record", "whole", "Links to record.", {"simulate": 64}, "links"),
    Parameter("record", "whole", "Losses to record.", {"train": 64}, "losses"),
    Parameter(
        "width",
        "whole",
        "Units of a layer; 1 is a chain.",
        _everywhere(1, "train"),
        "units",
        is_added=True,
    ),
    Parameter(
        "nonlinearity",
        "name",
        "What makes activations of preactivations; a chain has the sigmoid.",
        _everywhere("sigmoid", "train"),
        choices=tuple(NONLINEARITIES),
        is_added=True,
    ),
    Parameter(
        "inputs", "whole", "Inputs of each network: of two the correlation is shown.", {"simulate": 1}, is_swept=False
    ),
)


@cache
def parameters_of(job: CommandName) -> dict[str, Parameter]:
    """Return the rows of a job's parameters, by name."""
    return {row.name: row for row in PARAMETERS if job in row.defaults}


@cache
def swept_parameters(job: CommandName) -> dict[str, Parameter]:
    """Return the rows of what a sweep of a job takes, by name."""
    return {name: row for name, row in parameters_of(job).items() if row.is_swept}


@cache
def job_parameters(job: CommandName) -> dict[str, Any]:
    """Return what a sweep of a job takes, with its defaults, in the order of the signature.

    One without a default has `REQUIRED`.
    """
    return {name: row.defaults[job] for name, row in swept_parameters(job).items()}


@cache
def added_defaults(job: CommandName) -> dict[str, Any]:
    """Return the defaults that a sweep's point is kept without."""
    return {name: row.defaults[job] for name, row in swept_parameters(job).items() if row.is_added}


@cache
def law_names(job: CommandName) -> tuple[str, ...]:
    """Return the names of a job's parameters that are laws."""
    return tuple(name for name, row in parameters_of(job).items() if row.is_law)


def require_job(job: Any) -> None:
    """Refuse what is no job that a sweep runs.

    Raises
    ------
    TypeError, ValueError
    """
    if not isinstance(job, str):
        raise TypeError(f"job: expected {' or '.join(JOBS)}, got {job!r}")
    if job not in JOBS:
        raise ValueError(f"job: unknown job {job!r}, expected {' or '.join(JOBS)}")
