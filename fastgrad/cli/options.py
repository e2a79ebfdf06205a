"""Options that commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fastgrad.jobs.parameters import JOBS, REQUIRED, job_parameters
from fastgrad.kernels import BACKENDS
from fastgrad.sweeps.grid import whole

FORMATS = ("table", "json", "csv")

Command = TypeVar("Command", bound=Callable[..., Any])


def output_options(command: Command, output: Callable[[Command], Command] | None = None) -> Command:
    """Options of every command: how and where the result is written; `output` replaces the usual --output."""
    for option in (
        click.option("--quiet", "-q", is_flag=True, envvar="FASTGRAD_QUIET", help="No progress and no warnings."),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            envvar="FASTGRAD_COLOR",
            show_default=True,
            help="Color and bold; auto: on a terminal, unless NO_COLOR is set.",
        ),
        output
        or click.option(
            "--output",
            "-o",
            type=click.Path(allow_dash=True),
            metavar="FILE",
            help="Write the result to FILE; its ending chooses the format. - is stdout.",
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            envvar="FASTGRAD_FORMAT",
            help="Format of the result.  [default: from FILE's ending, or table]",
        ),
    ):
        command = option(command)
    return command


def backend_option(command: Command) -> Command:
    """Add the option that names the backend."""
    return click.option(
        "--backend",
        type=click.Choice(["auto", *BACKENDS]),
        default="auto",
        envvar="FASTGRAD_BACKEND",
        show_default=True,
        help="Which kernel runs; auto: the fastest that is available.",
    )(command)


def threads_option(command: Command) -> Command:
    """Add the option that says how many threads."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        envvar="FASTGRAD_THREADS",
        help="Threads; the result does not depend on it.  [default: all processors]",
    )(command)


def plot_option(command: Command) -> Command:
    """A figure in a file."""
    return click.option(
        "--plot", type=click.Path(), metavar="FILE", help="Draw the figure into FILE too: .png, .svg or .pdf."
    )(command)


def law_options(weight: str, bias: str) -> Callable[[Command], Command]:
    """Build the options that say what is drawn."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--seed",
                callback=whole_number,
                metavar="N",
                default="0",
                show_default=True,
                help="Seed, 0 to 2^64 - 1.",
            ),
            click.option(
                "--bias",
                metavar="LAW",
                default=bias,
                show_default=True,
                help="Law of the biases: one of the above, zero, or centered (-w/2).",
            ),
            click.option(
                "--weight",
                metavar="LAW",
                default=weight,
                show_default=True,
                help="Law of the weights: constant:VALUE, normal:mean=,std=, uniform:low=,high=, glorot_normal, "
                "glorot_uniform, he_normal, he_uniform, lecun_normal, torch_default (each takes :gain=).",
            ),
        ):
            command = option(command)
        return command

    return add


def finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Numbers, but not nan and inf."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"expected a finite number, got {value}")
    return value


def whole_number(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Whole numbers, also as 1e6."""
    if value is None:
        return None
    try:
        return whole(value)
    except ValueError:
        raise click.BadParameter(f"expected a whole number, got {value!r}") from None


def size_options(depth: int, ensemble: int) -> Callable[[Command], Command]:
    """Build the options that say how much is drawn."""

    def add(command: Command) -> Command:
        for name, default, help_text in (
            ("--ensemble", ensemble, "Independent chains."),
            ("--depth", depth, "Links of each chain."),
        ):
            command = click.option(
                name, callback=whole_number, metavar="N", default=str(default), show_default=True, help=help_text
            )(command)
        return command

    return add


def training_options(learning_rate: str) -> Callable[[Command], Command]:
    """Build the options of gradient descent."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--tolerance",
                type=float,
                default=1e-12,
                show_default=True,
                help="Distance of a converged chain's loss from its least.",
            ),
            click.option(
                "--clip-norm", type=float, help="Largest Euclidean norm of a chain's gradients.  [default: none]"
            ),
            click.option("--clip-value", type=float, help="Largest magnitude of a gradient.  [default: none]"),
            click.option(
                "--loss",
                type=click.Choice(["squared", "cross_entropy"]),
                default="squared",
                show_default=True,
                help="(o - y)² / 2, or -y ln o - (1 - y) ln(1 - o).",
            ),
            click.option(
                "--steps",
                callback=whole_number,
                metavar="N",
                default="1000",
                show_default=True,
                help="Steps of gradient descent.",
            ),
            click.option("--learning-rate", type=float, help=f"Factor on each gradient.  [default: {learning_rate}]"),
        ):
            command = option(command)
        return command

    return add


JOB_OPTIONS = {
    "depth": "Links of each chain.",
    "ensemble": "Independent chains.",
    "weight": "Law of the weights, as for simulate.",
    "bias": "Law of the biases, as for simulate.",
    "x": "The input of every chain; to train also a law.",
    "target": "The wanted output: a number or a law.",
    "seed": "Seed, 0 to 2^64 - 1.",
    "learning_rate": "Factor on each gradient.",
    "steps": "Steps of gradient descent.",
    "loss": "squared or cross_entropy.",
    "clip_value": "Largest magnitude of a gradient.",
    "clip_norm": "Largest Euclidean norm of a chain's gradients.",
    "tolerance": "Distance of a converged chain's loss from its least.",
    "record": "Links, or losses, to record.",
}


def job_options(command: Command) -> Command:
    """One option for each parameter of the jobs of a sweep, with the job's own default."""
    for name, help_text in reversed(JOB_OPTIONS.items()):
        taken = {job: job_parameters(job)[name] for job in JOBS if name in job_parameters(job)}
        texts = {job: "needed" if of is REQUIRED else str(of).lower() for job, of in taken.items()}
        same = len(texts) == len(JOBS) and len(set(texts.values())) == 1
        default = texts[JOBS[0]] if same else ", ".join(f"{text} for {job}" for job, text in texts.items())
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, metavar="VALUE", help=f"{help_text}  [default: {default}]")(command)
    return command


def shard_of(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Part i of n, as i/n."""
    if value is None:
        return None
    index, _slash, count = value.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"expected i/n with i from 1 to n, got {value!r}")
    return int(index), int(count)
