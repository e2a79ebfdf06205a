"""Options that commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fastgrad.jobs.parameters import JOBS, REQUIRED, parameters_of, swept_parameters
from fastgrad.kernels import BACKENDS

if TYPE_CHECKING:
    from fastgrad.jobs.parameters import CommandName, JobName, Parameter

Command = TypeVar("Command", bound=Callable[..., Any])


def backend_option(command: Command) -> Command:
    """Add the option that names the backend."""
    return click.option(
        "--backend",
        type=click.Choice(["auto", *BACKENDS]),
        default="auto",
        envvar="FASTGRAD_BACKEND",
        show_default=True,
        help="Which kernel runs; auto: the fastest that is available.",
    )(command)


def threads_option(command: Command) -> Command:
    """Add the option that says how many threads."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        envvar="FASTGRAD_THREADS",
        help="Threads; the result does not depend on it.  [default: all processors]",
    )(command)


def finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Numbers, but not nan and inf."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"expected a finite number, got {value}")
    return value


def whole_number(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Whole numbers, exactly, also as 1e6 or 12345678901234567.0."""
    if value is None:
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("nan")
    # 1e999999999 is whole too, but an integer of as many digits would not end.
    if not number.is_finite() or number.adjusted() > 308 or number != number.to_integral_value():
        raise click.BadParameter(f"expected a whole number, got {value!r}")
    return int(number)


def number_or_law(context: click.Context, option: click.Parameter, value: str) -> float | str:
    """Return the number, or the law as text."""
    try:
        number = float(value)
    except ValueError:
        from fastgrad.laws import parse  # here: --help stays fast

        try:
            parse(value, "x")
        except ValueError as error:
            raise click.BadParameter(str(error).removeprefix("x: ")) from None
        return value
    finite(context, option, number)
    return number


def job_options(
    job: CommandName, *, defaults: dict[str, Any] | None = None, sources: dict[str, str] | None = None
) -> Callable[[Command], Command]:
    """Build the options of a job's parameters, which a command receives as one dict, in the order of the table.

    Parameters
    ----------
    job : str
        A job of `PARAMETERS`.
    defaults : dict, optional
        Of what the job itself leaves to the caller.
    sources : dict, optional
        Where a value comes from that is not given: what the help says in place of a default. The command receives
        None for it.
    """
    taken = parameters_of(job)

    def add(command: Command) -> Command:
        @wraps(command)
        def run(*args: Any, **given: Any) -> Any:
            return command(*args, parameters={name: given.pop(name) for name in taken}, **given)

        for name, row in reversed(taken.items()):
            default = (defaults or {}).get(name, row.defaults[job])
            run = _option(row, default, (sources or {}).get(name))(run)
        return run  # type: ignore[return-value]

    return add


def _option(row: Parameter, default: Any, source: str | None) -> Callable[[Any], Any]:
    """Build the option of a parameter; with a source in place of the default, None is what is not given."""
    kinds: dict[str, dict[str, Any]] = {
        "whole": {"callback": whole_number, "metavar": row.unit.upper() or "N"},
        "number": {"callback": finite, "type": float},
        "law": {"metavar": "LAW"},
        "law or number": {"metavar": "LAW"},
        "number or law": {"callback": number_or_law, "metavar": "NUMBER|LAW"},
        "name": {"type": click.Choice(row.choices)},
    }
    more = kinds[row.kind]
    if source is None and default is None:
        source = "none"
    if source is not None:
        return click.option(_flag(row.name), row.name, help=f"{row.help}  [default: {source}]", **more)
    return click.option(_flag(row.name), row.name, default=_text(default), show_default=True, help=row.help, **more)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def sweep_options(command: Command) -> Command:
    """Add an option for each parameter of the jobs of a sweep, read as the values of a grid are."""
    for name in reversed(dict.fromkeys(row.name for job in JOBS for row in swept_parameters(job).values())):
        rows = {job: swept_parameters(job)[name] for job in JOBS if name in swept_parameters(job)}
        choices = next(iter(rows.values())).choices
        metavar = f"[{'|'.join(choices)}]" if choices else "VALUE"
        command = click.option(_flag(name), name, metavar=metavar, help=_sweep_help(rows))(command)
    return command


def _sweep_help(rows: dict[JobName, Parameter]) -> str:
    """Join what the jobs say of a parameter, and their defaults: once where they agree."""
    texts = {job: row.help.removesuffix(".") for job, row in rows.items()}
    defaults = {job: _default_text(row.defaults[job]) for job, row in rows.items()}
    text = texts[next(iter(rows))]
    if len(set(texts.values())) > 1:
        text = ". ".join(f"{text} ({job})" for job, text in texts.items())
    same = len(rows) == len(JOBS) and len(set(defaults.values())) == 1
    default = defaults[JOBS[0]] if same else ", ".join(f"{text} for {job}" for job, text in defaults.items())
    return f"{text}.  [default: {default}]"


def _default_text(default: Any) -> str:
    return "needed" if default is REQUIRED else "none" if default is None else _text(default)


def _text(value: Any) -> str:
    return str(value).removesuffix(".0")


def shard_of(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Part i of n, as i/n."""
    if value is None:
        return None
    index, _slash, count = value.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"expected i/n with i from 1 to n, got {value!r}")
    return int(index), int(count)
