"""The command `fastgrad schemes`."""

from __future__ import annotations

from typing import Any

import click

from fastgrad.cli.options import backend_option, job_options, threads_option
from fastgrad.cli.output import Output, output_options


@click.command()
@job_options("schemes")
@backend_option
@threads_option
@output_options(figure=True)
def schemes(
    parameters: dict[str, Any],
    backend: str,
    threads: int | None,
    output: Output,
) -> None:
    """Compare initialization schemes.

    Each named scheme, one that is too small and two that are large: the exponent of its gradient, the depth at which
    float32 and float64 lose it, the share of chains of the given depth that train, and how far the first weight moves.
    With a width, or another nonlinearity, the gradients of networks of the given depth, beside theory; none is trained.

    \b
    Example: fastgrad schemes --depth 20 --learning-rate 10

    \b
    Example: fastgrad schemes --width 256 --nonlinearity relu --depth 50 --ensemble 20
    """
    from fastgrad.jobs.schemes import Schemes
    from fastgrad.jobs.schemes import schemes as run
    from fastgrad.report.layer_schemes import layer_schemes_report
    from fastgrad.report.schemes import schemes_report

    output.check()
    with output.progress("comparing schemes") as progress:
        results = run(**parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    if isinstance(results, Schemes):
        output.show(schemes_report(results, parameters))
    else:
        output.show(layer_schemes_report(results, parameters))
