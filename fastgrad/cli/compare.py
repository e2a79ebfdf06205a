"""The command `fastgrad compare`."""

from __future__ import annotations

from typing import Any

import click

from fastgrad.cli.errors import EXIT_DISAGREE, say
from fastgrad.cli.options import job_options, output_options, threads_option
from fastgrad.cli.output import check_outputs, chosen_format, progress_bar, show, shown_warnings


@click.command()
@click.option(
    "--job", type=click.Choice(["backprop", "simulate"]), default="backprop", show_default=True, help="What is run."
)
@job_options("compare")
@click.option("--repeats", type=click.IntRange(2), default=7, show_default=True, help="Timed rounds.")
@threads_option
@output_options
@click.pass_context
def compare(
    ctx: click.Context,
    job: str,
    parameters: dict[str, Any],
    repeats: int,
    threads: int | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
) -> None:
    """Run one job on every available backend.

    Agreement first (exit code 3 if it fails), then the time of each in interleaved rounds, as a ratio to NumPy's.

    \b
    Example: fastgrad compare --job simulate --depth 10000 --ensemble 100
    """
    from fastgrad.jobs.compare import compare as run
    from fastgrad.report.compare import comparison_report

    chosen = chosen_format(form, output)
    check_outputs(output)
    parameters = {"job": job, **parameters, "repeats": repeats, "threads": threads}
    with shown_warnings(quiet), progress_bar("comparing", quiet, color) as progress:
        comparison = run(**parameters, progress=progress)
    show(comparison_report(comparison, parameters), chosen, output, color)
    if not comparison.agree:
        say("fastgrad: the backends disagree")
        ctx.exit(EXIT_DISAGREE)
