"""The command `fastgrad schemes`."""

from __future__ import annotations

from typing import Any

import click

from fastgrad.cli.options import (
    backend_option,
    output_options,
    plot_option,
    size_options,
    threads_option,
    training_options,
    whole_number,
)
from fastgrad.cli.output import check_outputs, chosen_format, progress_bar, show, shown_warnings


@click.command()
@size_options(10, 1000)
@click.option("--seed", callback=whole_number, metavar="N", default="0", show_default=True, help="Seed, 0 to 2^64 - 1.")
@training_options("1")
@backend_option
@threads_option
@plot_option
@output_options
def schemes(
    depth: int,
    ensemble: int,
    seed: int,
    learning_rate: float | None,
    steps: int,
    loss: str,
    clip_value: float | None,
    clip_norm: float | None,
    tolerance: float,
    backend: str,
    threads: int | None,
    plot: str | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
) -> None:
    """Compare initialization schemes.

    Each named scheme, one that is too small and two that are large: the exponent of its gradient, the depth at which
    float32 and float64 lose it, the share of chains of the given depth that train, and how far the first weight moves.

    \b
    Example: fastgrad schemes --depth 20 --learning-rate 10
    """
    from fastgrad.jobs.schemes import schemes as run
    from fastgrad.jobs.train import DRAWN_LEARNING_RATE
    from fastgrad.report.schemes import schemes_report

    chosen = chosen_format(form, output)
    check_outputs(output, plot)
    parameters: dict[str, Any] = {
        "depth": depth,
        "ensemble": ensemble,
        "seed": seed,
        "learning_rate": DRAWN_LEARNING_RATE if learning_rate is None else learning_rate,
        "steps": steps,
        "loss": loss,
        "clip_value": clip_value,
        "clip_norm": clip_norm,
        "tolerance": tolerance,
    }
    with shown_warnings(quiet), progress_bar("comparing schemes", quiet, color) as progress:
        found = run(**parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    show(schemes_report(found, parameters), chosen, output, color, plot)
