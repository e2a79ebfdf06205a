"""The command `fastgrad report`."""

from __future__ import annotations

from typing import Any

import click

from fastgrad.cli.output import Output, output_options


@click.command()
@click.argument("store")
@output_options()
def report(store: str, output: Output) -> None:
    """Show all of the sweep in STORE: figures, points, and what computed them.

    With -o FILE.html one page that can be sent: figures to zoom into, tables to sort.

    \b
    Example: fastgrad report study.db -o study.html
    """
    from fastgrad.report.report import store_report
    from fastgrad.sweeps.points import stored_rows
    from fastgrad.sweeps.store import Store
    from fastgrad.sweeps.study import studies

    output.check(store)
    with output.warnings(), Store.read(store) as kept:
        job: Any = kept.identity["job"]
        rows = stored_rows(kept)
        document = store_report(store, kept.identity, rows, *studies(job, rows), kept.origins())
    output.show(document)
