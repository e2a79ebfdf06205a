"""The command `fastgrad train`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from fastgrad.cli.options import (
    backend_option,
    law_options,
    output_options,
    plot_option,
    size_options,
    threads_option,
    training_options,
    whole_number,
)
from fastgrad.cli.output import check_outputs, chosen_format, progress_bar, show, shown_warnings


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--example", "worked", is_flag=True, help="Train the chain of the textbook's worked example.")
@size_options(3, 1000)
@law_options("normal:std=4", "zero")
@click.option("--x", metavar="LAW", help="Inputs: a number or a law.  [default: from FILE, or uniform:low=0,high=1]")
@click.option(
    "--target", metavar="LAW", help="Targets: a number or a law.  [default: from FILE, or uniform:low=0.1,high=0.9]"
)
@training_options("1; with --example 0.01")
@click.option("--record", callback=whole_number, metavar="N", default="64", show_default=True, help="Losses to record.")
@backend_option
@threads_option
@plot_option
@output_options
@click.pass_context
def train(
    ctx: click.Context,
    file: str | None,
    worked: bool,
    depth: int,
    ensemble: int,
    weight: str,
    bias: str,
    seed: int,
    x: str | None,
    target: str | None,
    learning_rate: float | None,
    steps: int,
    loss: str,
    clip_value: float | None,
    clip_norm: float | None,
    tolerance: float,
    record: int,
    backend: str,
    threads: int | None,
    plot: str | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
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
    from fastgrad.jobs.train import DRAWN_LEARNING_RATE, DRAWN_TARGET, DRAWN_X, drawn_task, train_chain
    from fastgrad.report.text import plural
    from fastgrad.report.train import training_report

    chosen = chosen_format(form, output, "npz")
    check_outputs(output, plot, file)
    how: dict[str, Any] = {
        "learning_rate": (0.01 if worked else DRAWN_LEARNING_RATE) if learning_rate is None else learning_rate,
        "steps": steps,
        "loss": loss,
        "clip_value": clip_value,
        "clip_norm": clip_norm,
        "tolerance": tolerance,
        "record": record,
    }
    drawing = ("depth", "ensemble", "weight", "bias", "seed")
    given = [name for name in drawing if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if file is not None and worked:
        raise click.UsageError("FILE or --example, not both")
    if (file is not None or worked) and given:
        raise click.UsageError(f"--{given[0]} is for chains that are drawn, not for {file or '--example'}")
    parameters: dict[str, Any] = {"file": file, "example": worked}
    if file is None and not worked:
        drawn = {
            "depth": depth,
            "ensemble": ensemble,
            "weight": weight,
            "bias": bias,
            "x": DRAWN_X if x is None else x,
            "target": DRAWN_TARGET if target is None else target,
            "seed": seed,
        }
        chain, wanted = drawn_task(**drawn)  # type: ignore[arg-type]
        parameters |= drawn
        what = f"{plural(ensemble, 'chain')} of {plural(depth, 'link')}, weight {weight}, bias {bias}, seed {seed}"
    else:
        numbers = {name: _as_number(name, text) for name, text in (("x", x), ("target", target)) if text is not None}
        if worked:
            chain, wanted = worked_task(**numbers)
            what = "the worked example, one chain of 3 links"
        else:
            try:
                chain, wanted = load_task(str(file), **numbers)
            except ValueError as error:
                raise click.ClickException(str(error)) from None
            what = f"{plural(chain.ensemble, 'chain')} of {plural(chain.depth, 'link')} from {file}"
        parameters |= {"x": chain.x, "target": wanted}
    with shown_warnings(quiet), progress_bar("training", quiet, color) as progress:
        training = train_chain(chain, wanted, **how, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    show(training_report(training, chain, what, {**parameters, **how}), chosen, output, color, plot)


def _as_number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{name}: expected a number for chains that are given, got {text!r}") from None
