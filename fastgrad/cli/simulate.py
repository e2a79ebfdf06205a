"""The command `fastgrad simulate`."""

from __future__ import annotations

import click

import fastgrad
from fastgrad.cli.options import (
    backend_option,
    finite,
    law_options,
    output_options,
    plot_option,
    size_options,
    threads_option,
    whole_number,
)
from fastgrad.cli.output import check_outputs, chosen_format, progress_bar, show, shown_warnings


@click.command()
@size_options(1000, 1000)
@law_options("normal:std=10", "zero")
@click.option("--x", type=float, callback=finite, default=0.5, show_default=True, help="The input of every chain.")
@click.option("--record", callback=whole_number, metavar="N", default="64", show_default=True, help="Links to record.")
@backend_option
@threads_option
@plot_option
@output_options
def simulate(
    depth: int,
    ensemble: int,
    weight: str,
    bias: str,
    seed: int,
    x: float,
    record: int,
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
    require_memory(f"the statistics of {plural(min(record, depth), 'recorded link')}", growth_bytes(depth, record))
    parameters = {
        "depth": depth,
        "ensemble": ensemble,
        "weight": weight,
        "bias": bias,
        "x": x,
        "seed": seed,
        "record": record,
    }
    with shown_warnings(quiet), progress_bar("simulating", quiet, color) as progress:
        growth = fastgrad.simulate(**parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    show(growth_report(growth, parameters), chosen, output, color, plot)
