"""The command `fastgrad simulate`."""

from __future__ import annotations

from typing import Any

import click

import fastgrad
from fastgrad.cli.options import backend_option, job_options, threads_option
from fastgrad.cli.output import Output, output_options


@click.command()
@job_options("simulate", defaults={"depth": 1000})
@backend_option
@threads_option
@output_options(figure=True)
def simulate(
    parameters: dict[str, Any],
    backend: str,
    threads: int | None,
    output: Output,
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

    output.check()
    depth, record = parameters["depth"], parameters["record"]
    require_memory(f"the statistics of {plural(min(record, depth), 'recorded link')}", growth_bytes(depth, record))
    with output.progress("simulating") as progress:
        growth = fastgrad.simulate(**parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    output.show(growth_report(growth, parameters))
