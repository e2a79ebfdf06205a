"""The command `fastgrad theory`."""

from __future__ import annotations

from typing import Any

import click

import fastgrad
from fastgrad.cli.options import job_options
from fastgrad.cli.output import Output, output_options


@click.command()
@job_options("theory")
@output_options()
def theory(parameters: dict[str, Any], output: Output) -> None:
    """Say what theory knows, without drawing a weight.

    Of chains the Lyapunov exponent and the bound's rate. Of layers, which have a width or another nonlinearity, the
    mean field with its critical weights, and what is exact at the width. And how soon float formats lose the gradient.

    \b
    Example: fastgrad theory --width 256 --weight he_normal --nonlinearity tanh
    """
    from fastgrad.report.theory import theory_report

    output.check()
    with output.warnings():
        known = fastgrad.theory.survey(**parameters)
    output.show(theory_report(known, parameters))
