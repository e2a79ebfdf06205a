"""The command `fastgrad export`."""

from __future__ import annotations

import click

from fastgrad.cli.output import Output, output_options


@click.command()
@click.argument("store")
@output_options("parquet")
def export(store: str, output: Output) -> None:
    """Write the points of the sweep in STORE as a table.

    Into a .csv, .json or .parquet file, ordered by their parameters, in full precision (theory in ten digits). Equal
    points make equal files, however they came about.

    \b
    Example: fastgrad export study.db -o study.csv
    """
    from fastgrad.report.sweep import export_report
    from fastgrad.sweeps.points import stored_rows
    from fastgrad.sweeps.store import Store

    output.check(store)
    with output.warnings(), Store.read(store) as kept:
        report = export_report(kept.identity, stored_rows(kept))
    output.show(report)
