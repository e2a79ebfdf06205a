"""The command `fastgrad plot`."""

from __future__ import annotations

from typing import Any

import click

from fastgrad.cli.output import Output, output_options


@click.command()
@click.argument("store")
@click.option(
    "--value",
    metavar="NAME",
    help="The result that is drawn.  [default: stationary, or where no point has it lyapunov; to train converged]",
)
@click.option("--x", metavar="NAME", help="The parameter to the right.  [default: the one with the most values]")
@click.option(
    "--where", multiple=True, metavar="NAME=VALUE", help="Only points with this value of a parameter.  [default: all]"
)
@output_options(figure=True)
def plot(
    store: str,
    value: str | None,
    x: str | None,
    where: tuple[str, ...],
    output: Output,
) -> None:
    """Draw a result of the sweep in STORE.

    Over one parameter that varies, as a line; over two, as a line for each value of the second, or as a map.

    \b
    Example: fastgrad plot study.db --value float32_underflow --plot study.png
    """
    from fastgrad.report.plot import study_report
    from fastgrad.sweeps.points import stored_rows
    from fastgrad.sweeps.store import Store
    from fastgrad.sweeps.study import study

    output.check(store)
    only = {}
    for condition in where:
        name, equals, text = condition.partition("=")
        if not equals:
            raise click.UsageError(f"where: expected NAME=VALUE, got {condition!r}")
        only[name] = text
    with output.warnings(), Store.read(store) as kept:
        job: Any = kept.identity["job"]
        found = study(job, stored_rows(kept), value, x, only)
    output.show(study_report(found, only))
