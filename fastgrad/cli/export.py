"""The command `fastgrad export`."""

from __future__ import annotations

import click

from fastgrad.cli.options import output_options
from fastgrad.cli.output import check_outputs, chosen_format, show, shown_warnings


@click.command()
@click.argument("store")
@output_options
def export(store: str, form: str | None, output: str | None, color: str, quiet: bool) -> None:
    """Write the points of the sweep in STORE as a table.

    Into a .csv, .json or .parquet file, ordered by their parameters, in full precision (theory in ten digits). Equal
    points make equal files, however they came about.

    \b
    Example: fastgrad export study.db -o study.csv
    """
    from fastgrad.report.sweep import export_report
    from fastgrad.sweeps.points import stored_rows
    from fastgrad.sweeps.store import Store

    chosen = chosen_format(form, output, "parquet")
    check_outputs(output, source=store)
    with shown_warnings(quiet), Store.read(store) as kept:
        report = export_report(kept.identity, stored_rows(kept))
    show(report, chosen, output, color)
