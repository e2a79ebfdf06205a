"""The command `fastgrad simulate`."""

from __future__ import annotations

from typing import Any

import click

import fastgrad
from fastgrad.cli.options import backend_option, job_options, output_options, plot_option, threads_option
from fastgrad.cli.output import check_outputs, chosen_format, progress_bar, show, shown_warnings


@click.command()
@job_options("simulate", defaults={"depth": 1000})
@backend_option
@threads_option
@plot_option
@output_options
def simulate(
    parameters: dict[str, Any],
    backend: str,
    threads: int | None,
    plot: str | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
) -> None:
    """Measure the gradient through drawn chains.

    Draws independent chains, and shows the gradient of the output by each link's input beside the textbook's bound, the
    Lyapunov exponent with its standard error, and the depth at which each float format fails.

    \b
    Example: fastgrad simulate --depth 1e6 --ensemble 1 --weight normal:std=4 --bias normal:std=1
    """
    from fastgrad.checks import require_memory
    from fastgrad.report.simulate import growth_bytes, growth_report
    from fastgrad.report.text import plural

    chosen = chosen_format(form, output)
    check_outputs(output, plot)
    depth, record = parameters["depth"], parameters["record"]
    require_memory(f"the statistics of {plural(min(record, depth), 'recorded link')}", growth_bytes(depth, record))
    with shown_warnings(quiet), progress_bar("simulating", quiet, color) as progress:
        growth = fastgrad.simulate(**parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    show(growth_report(growth, parameters), chosen, output, color, plot)
