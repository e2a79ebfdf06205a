"""The command `fastgrad merge`."""

from __future__ import annotations

import click

from fastgrad.cli.output import Output, output_options


@click.command()
@click.argument("stores", nargs=-1, required=True)
@click.option("--salvage", is_flag=True, help="Leave out what is damaged, and make a new store of the rest.")
@click.option("--output", "-o", "into", required=True, metavar="FILE", help="The store to make, or to extend.")
@output_options(to_file=False)
def merge(stores: tuple[str, ...], into: str, salvage: bool, output: Output) -> None:
    """Put the points of several STORES into one.

    They must be of one job, and agree where they hold the same point; otherwise nothing is written. A point that is
    damaged in one of them, or in FILE, is taken from another.

    \b
    Example: fastgrad merge part1.db part2.db -o study.db
    """
    from fastgrad.files import check_writable
    from fastgrad.report.sweep import merge_report
    from fastgrad.sweeps.store import merge as merge_stores

    check_writable("output", into)
    with output.warnings():
        points = merge_stores(stores, into, salvage=salvage)
    output.show(merge_report(stores, into, points))
