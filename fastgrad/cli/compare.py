"""The command `fastgrad compare`."""

from __future__ import annotations

from typing import Any

import click

from fastgrad.cli.errors import EXIT_DISAGREE, say
from fastgrad.cli.options import job_options, threads_option
from fastgrad.cli.output import Output, output_options


@click.command()
@click.option(
    "--job", type=click.Choice(["backprop", "simulate"]), default="backprop", show_default=True, help="What is run."
)
@job_options("compare")
@click.option("--repeats", type=click.IntRange(2), default=7, show_default=True, help="Timed rounds.")
@threads_option
@output_options()
@click.pass_context
def compare(
    ctx: click.Context,
    job: str,
    parameters: dict[str, Any],
    repeats: int,
    threads: int | None,
    output: Output,
) -> None:
    """Run one job on every available backend.

    Agreement first (exit code 3 if it fails), then the time of each in interleaved rounds, as a ratio to NumPy's.

    \b
    Example: fastgrad compare --job simulate --depth 10000 --ensemble 100
    """
    from fastgrad.jobs.compare import compare as run
    from fastgrad.report.compare import comparison_report

    output.check()
    parameters = {"job": job, **parameters, "repeats": repeats, "threads": threads}
    with output.progress("comparing") as progress:
        comparison = run(**parameters, progress=progress)
    output.show(comparison_report(comparison, parameters))
    if not comparison.agree:
        say("fastgrad: the backends disagree")
        ctx.exit(EXIT_DISAGREE)
