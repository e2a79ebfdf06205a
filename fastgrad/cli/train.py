"""The command `fastgrad train`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from fastgrad.cli.options import backend_option, job_options, threads_option
from fastgrad.cli.output import Output, output_options
from fastgrad.jobs.parameters import GIVEN_LEARNING_RATE, job_parameters

DRAWN = job_parameters("train")
DRAWING = ("depth", "ensemble", "weight", "bias", "seed")  # parameters that a given chain does not have


@click.command()
@click.argument("file", required=False)
@click.option("--example", "worked", is_flag=True, help="Train the chain of the textbook's worked example.")
@job_options(
    "train",
    sources={
        "x": f"from FILE, or {DRAWN['x']}",
        "target": f"from FILE, or {DRAWN['target']}",
        "learning_rate": f"{DRAWN['learning_rate']:g}; with FILE or --example {GIVEN_LEARNING_RATE}",
    },
)
@backend_option
@threads_option
@output_options("npz", figure=True)
@click.pass_context
def train(
    ctx: click.Context,
    file: str | None,
    worked: bool,
    parameters: dict[str, Any],
    backend: str,
    threads: int | None,
    output: Output,
) -> None:
    """Train chains by gradient descent, and tell what becomes of them.

    Draws independent chains, each with an input and a target; or takes those of FILE, an .npz with the arrays weight,
    bias, x and target, an .npy or a .csv as for backprop; or the worked example. Shows the loss, and how many chains
    converge, stand still, run away, or are still on their way.

    \b
    Example: fastgrad train --weight normal:std=500
    """
    from fastgrad.files import load_task
    from fastgrad.jobs.example import worked_task
    from fastgrad.jobs.train import drawn_task, train_chain
    from fastgrad.report.text import plural
    from fastgrad.report.train import drawn_text, training_report

    output.check(file)
    if file is not None and worked:
        raise click.UsageError("FILE or --example, not both")
    is_drawn = file is None and not worked
    typed = [name for name in DRAWING if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if not is_drawn and typed:
        raise click.UsageError(f"--{typed[0]} is for chains that are drawn, not for {file or '--example'}")
    task = {name: parameters.pop(name) for name in (*DRAWING, "x", "target")}
    given = {name: value for name, value in task.items() if value is not None}
    if parameters["learning_rate"] is None:
        parameters["learning_rate"] = DRAWN["learning_rate"] if is_drawn else GIVEN_LEARNING_RATE
    if is_drawn:
        task = {name: given.get(name, DRAWN[name]) for name in DRAWN if name in task}
        chain, target = drawn_task(**task)
        what = drawn_text(task)
    else:
        numbers = {name: _as_number(name, given[name]) for name in ("x", "target") if name in given}
        if worked:
            chain, target = worked_task(**numbers)
            what = "the worked example, one chain of 3 links"
        else:
            try:
                chain, target = load_task(str(file), **numbers)
            except ValueError as error:
                raise click.ClickException(str(error)) from None
            what = f"{plural(chain.ensemble, 'chain')} of {plural(chain.depth, 'link')} from {file}"
        task = {"x": chain.x, "target": target}
    with output.progress("training") as progress:
        training = train_chain(chain, target, **parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    told = {"file": file, "example": worked, **task, **parameters}
    output.show(training_report(training, chain, what, told))


def _as_number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{name}: expected a number for chains that are given, got {text!r}") from None
