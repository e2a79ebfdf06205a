"""The command `fastgrad schemes`."""

from __future__ import annotations

from typing import Any

import click

from fastgrad.cli.options import backend_option, job_options, output_options, plot_option, threads_option
from fastgrad.cli.output import check_outputs, chosen_format, progress_bar, show, shown_warnings


@click.command()
@job_options("schemes")
@backend_option
@threads_option
@plot_option
@output_options
def schemes(
    parameters: dict[str, Any],
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
    from fastgrad.report.schemes import schemes_report

    chosen = chosen_format(form, output)
    check_outputs(output, plot)
    with shown_warnings(quiet), progress_bar("comparing schemes", quiet, color) as progress:
        results = run(**parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    show(schemes_report(results, parameters), chosen, output, color, plot)
