"""The command `fastgrad info`."""

from __future__ import annotations

import click

import fastgrad
from fastgrad.cli.options import output_options
from fastgrad.cli.output import check_outputs, chosen_format, show, shown_warnings


@click.command()
@output_options
def info(form: str | None, output: str | None, color: str, quiet: bool) -> None:
    """Show what runs here: versions, backends, compiler, processor.

    \b
    Example: fastgrad info --format json
    """
    from fastgrad.report.info import info_report

    chosen = chosen_format(form, output)
    check_outputs(output)
    with shown_warnings(quiet):
        build = fastgrad.build_info()
    show(info_report(build), chosen, output, color)
