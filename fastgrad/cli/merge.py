"""The command `fastgrad merge`."""

from __future__ import annotations

from functools import partial

import click

from fastgrad.cli.options import output_options
from fastgrad.cli.output import check_outputs, show, shown_warnings


@click.command()
@click.argument("stores", nargs=-1, required=True)
@click.option("--salvage", is_flag=True, help="Leave out what is damaged, and make a new store of the rest.")
@partial(
    output_options,
    output=click.option("--output", "-o", required=True, metavar="FILE", help="The store to make, or to extend."),
)
def merge(stores: tuple[str, ...], output: str, salvage: bool, form: str | None, color: str, quiet: bool) -> None:
    """Put the points of several STORES into one.

    They must be of one job, and agree where they hold the same point; otherwise nothing is written. A point that is
    damaged in one of them, or in FILE, is taken from another.

    \b
    Example: fastgrad merge part1.db part2.db -o study.db
    """
    from fastgrad.report.sweep import merge_report
    from fastgrad.sweeps.store import merge as merge_stores

    check_outputs(output)
    with shown_warnings(quiet):
        points = merge_stores(stores, output, salvage=salvage)
    show(merge_report(stores, output, points), form or "table", None, color)
