"""The command `fastgrad plot`."""

from __future__ import annotations

from typing import Any

import click

from fastgrad.cli.options import output_options, plot_option
from fastgrad.cli.output import check_outputs, chosen_format, show, shown_warnings


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
@plot_option
@output_options
def plot(
    store: str,
    value: str | None,
    x: str | None,
    where: tuple[str, ...],
    plot: str | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
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

    chosen = chosen_format(form, output)
    check_outputs(output, plot, store)
    only = {}
    for condition in where:
        name, equals, text = condition.partition("=")
        if not equals:
            raise click.UsageError(f"where: expected NAME=VALUE, got {condition!r}")
        only[name] = text
    with shown_warnings(quiet), Store.read(store) as kept:
        job: Any = kept.identity["job"]
        found = study(job, stored_rows(kept), value, x, only)
    show(study_report(found, only), chosen, output, color, plot)
