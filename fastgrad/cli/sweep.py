"""The command `fastgrad sweep`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastgrad.cli.errors import Interrupted
from fastgrad.cli.options import backend_option, shard_of, sweep_options, threads_option
from fastgrad.cli.output import Output, output_options
from fastgrad.jobs.parameters import JOBS, job_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from fastgrad.jobs.parameters import JobName


@click.command()
@click.option("--job", type=click.Choice(JOBS), default="simulate", show_default=True, help="What runs at each point.")
@click.option(
    "--grid",
    multiple=True,
    required=True,
    metavar="KEY=VALUES",
    help="Values of a parameter below, or of one of a law, as weight.std: 1,2,4 or LOW:HIGH:COUNT or "
    "LOW:HIGH:COUNT:log. Once for each parameter; the points are all combinations.",
)
@sweep_options
@click.option(
    "--store", metavar="FILE", help="SQLite file that keeps what is done; run again to go on.  [default: none is kept]"
)
@click.option("--workers", type=click.IntRange(1), help="Processes that share the points.  [default: this one]")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run on the Dask cluster with this scheduler, as tcp://host:8786, or on one started here: local.  "
    "[default: no cluster]",
)
@click.option(
    "--shard",
    callback=shard_of,
    metavar="i/n",
    help="Only part i of n, for job arrays; fastgrad merge puts the stores together.  [default: 1/1]",
)
@click.option("--dry-run", is_flag=True, help="Show the points, memory and time; run nothing.")
@backend_option
@threads_option
@output_options()
def sweep(
    job: JobName,
    grid: tuple[str, ...],
    store: str | None,
    workers: int | None,
    scheduler: str | None,
    shard: tuple[int, int] | None,
    dry_run: bool,
    backend: str,
    threads: int | None,
    output: Output,
    **given: str | None,
) -> None:
    """Run a job at every point of a grid.

    With a store, what is done is kept at once, whatever ends the sweep; the same command goes on from there, and a grid
    can grow. --workers, and --scheduler for Dask, run points side by side; without them each has all threads.

    \b
    Example: fastgrad sweep --grid weight.std=1:1000:4:log --depth 100 --store study.db
    """
    from fastgrad.jobs.threads import default_threads
    from fastgrad.report.sweep import dry_run_report, sweep_report
    from fastgrad.sweeps.estimate import estimate
    from fastgrad.sweeps.grid import read_values
    from fastgrad.sweeps.plan import plan
    from fastgrad.sweeps.run import run, stored_results
    from fastgrad.sweeps.store import Store

    output.check(store)
    if workers is not None and scheduler not in (None, "local"):
        raise click.UsageError("--workers is for processes of this machine; a cluster has its own")
    values: dict[str, list[Any]] = {}
    for text in grid:
        key, equals, listed = text.partition("=")
        if not equals:
            raise click.UsageError(f"grid: expected KEY=VALUES, got {text!r}")
        if key in values:
            raise click.UsageError(f"grid: {key} is given twice")
        values[key] = read_values(job, key, listed)
    arguments: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None and name in job_parameters(job):
            arguments[name], *more = read_values(job, name, value)
            if more:
                raise click.UsageError(f"{name}: expected one value, got {value!r}; for several: --grid {name}={value}")
        elif value is not None:
            arguments[name] = value  # no parameter of the job, as it will say
    parameters = {"job": job, "grid": values, **arguments, "shard": "/".join(map(str, shard)) if shard else None}
    with output.warnings(), contextlib.ExitStack() as stack:
        planned = plan(values, job, backend, **arguments)
        if shard is not None:
            planned = planned.shard(*shard)
        kept = None
        if store is not None and not dry_run:
            kept = stack.enter_context(Store.write(store, planned.identity))
        elif store is not None and Path(store).exists():
            kept = stack.enter_context(Store.read(store, planned.identity))
            kept.warn_of_damage()
        if dry_run:
            together = workers or (default_threads() if scheduler == "local" else 1)
            taken = estimate(planned, kept, together, threads if workers is None and scheduler is None else 1)
            report = dry_run_report(planned, taken, parameters, "--format csv has all", output.form == "json")
            output.show(report)
            return
        before = len(stored_results(planned, kept))
        try:
            with _executor(workers, scheduler) as executor, output.progress("sweeping") as progress:
                rows = run(planned, kept, executor, threads, progress)
        except (KeyboardInterrupt, ChildProcessError) as error:
            text = str(error) or "interrupted"
            if kept is not None:
                text += f"; {len(kept)} points are kept in {store}, the same command goes on from there"
            raise (Interrupted if isinstance(error, KeyboardInterrupt) else click.ClickException)(text) from None
    hint = "-o FILE.csv has all" if store is None else f"fastgrad export {store} has all"
    output.show(sweep_report(planned, rows, before, parameters, hint))


@contextlib.contextmanager
def _executor(workers: int | None, scheduler: str | None) -> Iterator[Executor | None]:
    if workers is None and scheduler is None:
        yield None
        return
    from fastgrad.sweeps import executors

    on = executors.cluster(scheduler, workers) if scheduler is not None else executors.processes(workers or 1)
    with on as executor:
        yield executor
