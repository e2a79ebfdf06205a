"""The command `fastgrad info`."""

from __future__ import annotations

import click

import fastgrad
from fastgrad.cli.output import Output, output_options


@click.command()
@output_options()
def info(output: Output) -> None:
    """Show what runs here: versions, backends, compiler, processor.

    \b
    Example: fastgrad info --format json
    """
    from fastgrad.report.info import info_report

    output.check()
    with output.warnings():
        build = fastgrad.build_info()
    output.show(info_report(build))
