"""The command line: a command parses, calls, and prints."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

import fastgrad
from fastgrad.kernels import BACKENDS

# rich, plotille, matplotlib and the jobs' reports are imported in the commands: --help must be quick.
if TYPE_CHECKING:
    from fastgrad.report import Report

EXIT_FAILED, EXIT_USAGE, EXIT_DISAGREE, EXIT_INTERRUPTED = 1, 2, 3, 130
FORMATS = ("table", "json", "csv")
ENDINGS = {".json": "json", ".csv": "csv", ".txt": "table"}

Command = TypeVar("Command", bound=Callable[..., Any])


class Interrupted(click.ClickException):
    """Ctrl-C."""

    exit_code = EXIT_INTERRUPTED


class Main(click.Group):
    """Reports every failure as one line on stderr, with the exit code that says what kind it was."""

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command line; in standalone mode, exit."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help() if error.ctx else "", err=True)
            sys.exit(EXIT_USAGE)
        except click.ClickException as error:
            _exit(error.format_message(), error.exit_code)
        except fastgrad.BackendUnavailableError as error:
            _exit(str(error), EXIT_FAILED)
        except (ValueError, TypeError) as error:
            _exit(str(error), EXIT_USAGE)
        except (OSError, MemoryError, ModuleNotFoundError) as error:
            _exit(_os_text(error), EXIT_FAILED)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None


def _exit(message: str, code: int) -> NoReturn:
    click.echo(f"fastgrad: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _os_text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or "out of memory"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"fastgrad: warning: {' '.join(str(message).split())}", err=True)


def output_options(command: Command) -> Command:
    """Options of every command: how and where the result is written."""
    for option in (
        click.option("--quiet", "-q", is_flag=True, envvar="FASTGRAD_QUIET", help="No progress and no warnings."),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            envvar="FASTGRAD_COLOR",
            show_default=True,
            help="Color and bold; auto: on a terminal, unless NO_COLOR is set.",
        ),
        click.option(
            "--output",
            "-o",
            type=click.Path(allow_dash=True),
            metavar="FILE",
            help="Write the result to FILE; its ending chooses the format. - is stdout.",
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            envvar="FASTGRAD_FORMAT",
            help="Format of the result.  [default: from FILE's ending, or table]",
        ),
    ):
        command = option(command)
    return command


def backend_option(command: Command) -> Command:
    """Which kernel runs."""
    return click.option(
        "--backend",
        type=click.Choice(["auto", *BACKENDS]),
        default="auto",
        envvar="FASTGRAD_BACKEND",
        show_default=True,
        help="Which kernel runs; auto: the fastest that is available.",
    )(command)


def threads_option(command: Command) -> Command:
    """How many threads."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        envvar="FASTGRAD_THREADS",
        help="Threads; the result does not depend on it.  [default: all processors]",
    )(command)


def plot_option(command: Command) -> Command:
    """A figure in a file."""
    return click.option(
        "--plot", type=click.Path(), metavar="FILE", help="Draw the figure into FILE too: .png, .svg or .pdf."
    )(command)


def law_options(weight: str, bias: str) -> Callable[[Command], Command]:
    """Build the options that say what is drawn."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--seed", callback=_number, metavar="N", default="0", show_default=True, help="Seed, 0 to 2^64 - 1."
            ),
            click.option(
                "--bias",
                metavar="LAW",
                default=bias,
                show_default=True,
                help="Law of the biases: one of the above, zero, or centered (-w/2).",
            ),
            click.option(
                "--weight",
                metavar="LAW",
                default=weight,
                show_default=True,
                help="Law of the weights: constant:VALUE, normal:mean=,std=, uniform:low=,high=, glorot_normal, "
                "glorot_uniform, he_normal, he_uniform, lecun_normal, torch_default (each takes :gain=).",
            ),
        ):
            command = option(command)
        return command

    return add


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Numbers, but not nan and inf."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"expected a finite number, got {value}")
    return value


def _number(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Whole numbers, also as 1e6."""
    if value is None:
        return None
    try:
        number = int(value) if value.lstrip("+-").isdigit() else float(value)
        if number != int(number):
            raise ValueError
        return int(number)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"expected a whole number, got {value!r}") from None


def size_options(depth: int, ensemble: int) -> Callable[[Command], Command]:
    """Build the options that say how much is drawn."""

    def add(command: Command) -> Command:
        for name, default, help_text in (
            ("--ensemble", ensemble, "Independent chains."),
            ("--depth", depth, "Links of each chain."),
        ):
            command = click.option(
                name, callback=_number, metavar="N", default=str(default), show_default=True, help=help_text
            )(command)
        return command

    return add


@contextlib.contextmanager
def _progress(title: str, quiet: bool, color: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on stderr, on a terminal only."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    console = Console(stderr=True, no_color=_color(color) is False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _format(form: str | None, output: str | None, *more: str) -> str:
    """Choose the format: what was asked for, or what the file's ending says."""
    to_file = output is not None and output != "-"
    source = click.get_current_context().get_parameter_source("form")
    ending = Path(output or "").suffix.lower()
    formats = {**ENDINGS, **{f".{kind}": kind for kind in more}}
    if to_file and ending in formats and source is not ParameterSource.COMMANDLINE:
        return formats[ending]  # the environment is the weaker wish
    if form is not None:
        return form
    if not to_file:
        return "table"
    if ending not in formats:
        raise click.UsageError(
            f"output: can't tell the format of {output!r}; expected {', '.join(formats)}, or --format"
        )
    return formats[ending]


def _color(color: str) -> bool | None:
    if color == "auto":
        return False if os.environ.get("NO_COLOR") else None
    return color == "always"


def _finish(report: Report, form: str, output: str | None, color: str, plot: str | None = None) -> None:
    from fastgrad import plot as drawing
    from fastgrad.report import write

    if plot is not None and report.figure is not None:
        drawing.save(report.figure, plot)
    try:
        write(report, form, output, _color(color))  # type: ignore[arg-type]  # click has checked it
    except BrokenPipeError:
        # Who reads stdout has read enough (`| head`): no failure. Python must not flush into the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_writable(path: str | None) -> None:
    """Find out before a long job that its result has no place to go."""
    if path is None or path == "-":
        return
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        return  # a pipe or a device
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise click.ClickException(f"{path}: is a symbolic link to itself")
    if not target.parent.is_dir():
        raise click.ClickException(f"{path}: there is no folder {target.parent}")
    if target.is_dir():
        raise click.ClickException(f"{path}: is a folder, expected a file")
    if not os.access(target.parent, os.W_OK):
        raise click.ClickException(f"{path}: no permission to write there")


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Main, context_settings=CONTEXT)
@click.version_option(fastgrad.__version__, prog_name="fastgrad")
def main() -> None:
    """How gradients grow or vanish through very deep sigmoid networks.

    Exact at any depth: a gradient of 10^-300000 is an ordinary result.

    \b
    Example: fastgrad simulate --depth 1000 --weight normal:std=500

    Options can also be set by environment variables such as FASTGRAD_BACKEND, FASTGRAD_THREADS, FASTGRAD_FORMAT and
    FASTGRAD_COLOR. Shell completion: eval "$(_FASTGRAD_COMPLETE=bash_source fastgrad)", or zsh_source, fish_source.
    """


@main.command()
@click.option("--weight", type=float, default=500.0, show_default=True, help="w11 and w21; the biases follow.")
@click.option("--learning-rate", type=float, default=0.01, show_default=True, help="Of the one step.")
@backend_option
@output_options
def example(
    weight: float, learning_rate: float, backend: str, form: str | None, output: str | None, color: str, quiet: bool
) -> None:
    """Explain the textbook's worked example.

    Three sigmoid units with weights of 500: the chain rule gives 93 750 000, one step takes the weight to -937 000, and
    training never recovers. Every number comes from the real kernel.

    \b
    Example: fastgrad example --weight 8 --learning-rate 0.1
    """
    from fastgrad.example import worked_example
    from fastgrad.report import example_report

    chosen = _format(form, output)
    _check_writable(output)
    with _warnings(quiet):
        result = worked_example(weight, learning_rate, backend)  # type: ignore[arg-type]
    _finish(example_report(result, {"weight": weight, "learning_rate": learning_rate}), chosen, output, color)


@main.command()
@size_options(1000, 1000)
@law_options("normal:std=10", "zero")
@click.option("--x", type=float, callback=_finite, default=0.5, show_default=True, help="The input of every chain.")
@click.option("--record", callback=_number, metavar="N", default="64", show_default=True, help="Links to record.")
@backend_option
@threads_option
@plot_option
@output_options
def simulate(
    depth: int,
    ensemble: int,
    weight: str,
    bias: str,
    seed: int,
    x: float,
    record: int,
    backend: str,
    threads: int | None,
    plot: str | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
) -> None:
    """Measure the gradient through drawn chains.

    Draws independent chains, and shows the gradient of the output by each link's input beside the textbook's bound, the
    Lyapunov exponent with its standard error, and the depth at which each float format fails.

    \b
    Example: fastgrad simulate --depth 1e6 --ensemble 1 --weight normal:std=4 --bias normal:std=1
    """
    from fastgrad.plot import check_path
    from fastgrad.report import growth_report

    chosen = _format(form, output)
    for path in (output, plot):
        _check_writable(path)
    if plot is not None:
        check_path(plot)
    parameters = {
        "depth": depth,
        "ensemble": ensemble,
        "weight": weight,
        "bias": bias,
        "x": x,
        "seed": seed,
        "record": record,
    }
    with _warnings(quiet), _progress("simulating", quiet, color) as progress:
        growth = fastgrad.simulate(**parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    _finish(growth_report(growth, parameters), chosen, output, color, plot)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--bias", type=float, callback=_finite, help="Bias of every link.  [default: from FILE, or 0]")
@click.option("--x", type=float, callback=_finite, help="Input of every chain.  [default: from FILE, or 0.5]")
@click.option(
    "--cotangent", type=float, callback=_finite, help="dloss/doutput of every chain.  [default: from FILE, or 1]"
)
@backend_option
@threads_option
@plot_option
@output_options
def backprop(
    file: str,
    bias: float | None,
    x: float | None,
    cotangent: float | None,
    backend: str,
    threads: int | None,
    plot: str | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
) -> None:
    """Exact gradients of the chain in FILE.

    FILE is an .npz with the arrays weight, bias, x and cotangent, an .npy with the weights, or a .csv with the
    columns weight and bias. Arrays have shape (depth,) or (depth, ensemble). -o writes every gradient to an .npz,
    .csv or .json.

    \b
    Example: fastgrad backprop chain.npz -o gradients.npz
    """
    from fastgrad.backprop import backprop_chain, log10_bound
    from fastgrad.chain import Chain
    from fastgrad.plot import check_path
    from fastgrad.report import gradients_report

    chosen = _format(form, output, "npz")
    for path in (output, plot):
        _check_writable(path)
    if plot is not None:
        check_path(plot)
    given = {"bias": bias, "x": x, "cotangent": cotangent}
    try:
        chain = Chain.load(file, **{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    used = {"bias": bias, "x": chain.x, "cotangent": chain.cotangent}
    with _warnings(quiet):
        gradients = backprop_chain(chain, backend=backend, threads=threads)  # type: ignore[arg-type]
    report = gradients_report(chain, gradients, log10_bound(chain), {"file": file, **used})
    _finish(report, chosen, output, color, plot)


@main.command()
@click.option(
    "--job", type=click.Choice(["backprop", "simulate"]), default="backprop", show_default=True, help="What is run."
)
@size_options(1000, 1000)
@law_options("normal:std=4", "normal:std=1")
@click.option("--repeats", type=click.IntRange(2), default=7, show_default=True, help="Timed rounds.")
@threads_option
@output_options
@click.pass_context
def compare(
    ctx: click.Context,
    job: str,
    depth: int,
    ensemble: int,
    weight: str,
    bias: str,
    seed: int,
    repeats: int,
    threads: int | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
) -> None:
    """Run one job on every available backend.

    Agreement first (exit code 3 if it fails), then the time of each in interleaved rounds, as a ratio to NumPy's.

    \b
    Example: fastgrad compare --job simulate --depth 10000 --ensemble 100
    """
    from fastgrad.compare import compare as run
    from fastgrad.report import comparison_report

    chosen = _format(form, output)
    _check_writable(output)
    parameters = {
        "job": job,
        "depth": depth,
        "ensemble": ensemble,
        "weight": weight,
        "bias": bias,
        "seed": seed,
        "repeats": repeats,
        "threads": threads,
    }
    with _warnings(quiet), _progress("comparing", quiet, color) as progress:
        comparison = run(**parameters, progress=progress)  # type: ignore[arg-type]
    _finish(comparison_report(comparison, parameters), chosen, output, color)
    if not comparison.agree:
        click.echo("fastgrad: the backends disagree", err=True)
        ctx.exit(EXIT_DISAGREE)


@main.command()
@output_options
def info(form: str | None, output: str | None, color: str, quiet: bool) -> None:
    """Show what runs here: versions, backends, compiler, processor.

    \b
    Example: fastgrad info --format json
    """
    from fastgrad.report import info_report

    chosen = _format(form, output)
    _check_writable(output)
    with _warnings(quiet):
        found = fastgrad.build_info()
    _finish(info_report(found), chosen, output, color)


@contextlib.contextmanager
def _warnings(quiet: bool) -> Iterator[None]:
    """Show warnings as one line on stderr each, or not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if quiet else "default")
        warnings.showwarning = _show_warning
        yield
