"""The command line: a command parses, calls, and prints."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

import click
from click.core import ParameterSource

import fastgrad
from fastgrad.interrupts import EXIT_INTERRUPTED, RaisedOnce
from fastgrad.jobs.parameters import JOBS, REQUIRED, job_parameters
from fastgrad.kernels import BACKENDS
from fastgrad.sweeps.grid import whole

# rich, plotille, matplotlib and the jobs' reports are imported in the commands: --help must be quick.
if TYPE_CHECKING:
    from concurrent.futures import Executor

    from fastgrad.jobs.parameters import JobName
    from fastgrad.report.document import Report

EXIT_FAILED, EXIT_USAGE, EXIT_DISAGREE = 1, 2, 3
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
        with RaisedOnce() as ctrl_c:
            try:
                code = super().main(args, standalone_mode=False, **extra)
                if sys.stdout is not None:
                    sys.stdout.flush()
            except click.exceptions.NoArgsIsHelpError as error:
                _say(error.ctx.get_help() if error.ctx else "")
                _exit("", EXIT_USAGE)
            except Interrupted as error:
                _exit(error.format_message(), error.exit_code)
            except (Exception, KeyboardInterrupt) as error:
                if ctrl_c.pressed:
                    _exit("interrupted", EXIT_INTERRUPTED)  # whatever it has become on its way
                _exit(*_described(error))
            sys.exit(code if isinstance(code, int) else 0)

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Read the arguments; --help and --version print here."""
        with _translated():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _translated():
            return super().invoke(ctx)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translate what Click would answer with a blank line, with exit code 1, or not at all."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except BrokenPipeError as error:
        raise (ReaderGoneError if _reader_is_gone() else OtherPipeError)(_os_text(error)) from None
    except click.exceptions.Exit as error:
        if error.exit_code == 0 and sys.stdout is None:  # Click has printed nothing, and says nothing
            raise OSError("stdout is closed") from None
        raise


class ReaderGoneError(Exception):
    """Who reads stdout has read enough (`| head`): no failure."""


class OtherPipeError(Exception):
    """A pipe to something else is broken."""


def _reader_is_gone() -> bool:
    """Whether it is stdout that nobody reads any more. Windows does not tell."""
    import select

    if sys.stdout is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    with contextlib.suppress(OSError):  # no file
        poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _described(error: BaseException) -> tuple[str, int]:
    """Return the line and the exit code that say what went wrong; a bug is raised again."""
    if isinstance(error, ReaderGoneError) or (isinstance(error, BrokenPipeError) and _reader_is_gone()):
        return "", 0
    if isinstance(error, click.ClickException):
        return _named_after_its_variable(error).format_message(), error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, fastgrad.BackendUnavailableError | OtherPipeError):
        return str(error), EXIT_FAILED
    if isinstance(error, ValueError | TypeError):
        return str(error), EXIT_USAGE
    if isinstance(error, OSError | MemoryError | ModuleNotFoundError):
        return _os_text(error), EXIT_FAILED
    raise error


def _named_after_its_variable(error: click.ClickException) -> click.ClickException:
    """Let a wrong value from the environment be named after its variable: nobody has typed the option."""
    if isinstance(error, click.BadParameter) and error.ctx is not None and error.param is not None:
        source = error.ctx.get_parameter_source(error.param.name or "")
        if source is ParameterSource.ENVIRONMENT:
            error.param_hint = f"{error.param.opts[0]} ({error.param.envvar} in the environment)"
    return error


def _exit(message: str, code: int) -> NoReturn:
    """Exit, after a line on stderr if there is something to say."""
    if message:
        _say(f"fastgrad: {' '.join(message.split())}")
    for stream in (sys.stdout, sys.stderr):
        _discard_what_is_stuck(stream)
    sys.exit(code)


def _say(text: str) -> None:
    """Write a line to stderr, if anybody listens."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _discard_what_is_stuck(stream: TextIO | None) -> None:
    """Point a stream that can't be flushed at the null device: Python would try again at its end, and say so."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _os_text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or "out of memory"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"fastgrad: warning: {' '.join(str(message).split())}")


def output_options(command: Command, output: Callable[[Command], Command] | None = None) -> Command:
    """Options of every command: how and where the result is written; `output` replaces the usual --output."""
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
        output
        or click.option(
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
        return whole(value)
    except ValueError:
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
    context = click.get_current_context()
    source = context.get_parameter_source("form")
    ending = Path(output or "").suffix.lower()
    formats = {**ENDINGS, **{f".{kind}": kind for kind in more}}
    if to_file and ending in formats and source is not ParameterSource.COMMANDLINE:
        return formats[ending]  # the environment is the weaker wish
    if form is not None:
        return form
    if not to_file:
        return "table"
    if ending not in formats:
        from fastgrad.report.image import FILE_TYPES

        hint = (
            f"; the figure is drawn with --plot {output}" if ending in FILE_TYPES and "plot" in context.params else ""
        )
        raise click.UsageError(
            f"output: can't tell the format of {output!r}; expected {', '.join(formats)}, or --format{hint}"
        )
    return formats[ending]


def _color(color: str) -> bool | None:
    if color == "auto":
        return False if os.environ.get("NO_COLOR") else None
    return color == "always"


def _finish(report: Report, form: str, output: str | None, color: str, plot: str | None = None) -> None:
    from fastgrad.report.image import save
    from fastgrad.report.writing import write

    with _unwinding():
        if plot is not None and report.figure is not None:
            save(report.figure, plot)
        write(report, form, output, _color(color))  # type: ignore[arg-type]  # click has checked it


@contextlib.contextmanager
def _unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind what is being written, so that no hidden file is left; exit code 128 + signal."""
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}
    if threading.current_thread() is not threading.main_thread():
        before = {}  # Python hears signals on its main thread only

    def end(number: int, _: Any) -> NoReturn:
        for each in taken:  # another one must not stop the cleaning up
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    taken = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _check_outputs(output: str | None, plot: str | None = None, source: str | None = None) -> None:
    """Check where a result and its figure are to go, before a long job is started; not over what it starts from."""
    from fastgrad.files import check_writable

    for option, path in (("output", output), ("plot", plot)):
        check_writable(option, path)
        if source is not None and path is not None and os.path.realpath(path) == os.path.realpath(source):
            raise click.UsageError(f"{option}: {path} is the file that is read")
    if plot is None:
        return
    from fastgrad.report.image import check_path

    check_path(plot)
    if output is not None and os.path.realpath(output) == os.path.realpath(plot):
        raise click.UsageError(f"plot: {plot} is the file of --output too")


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Main, context_settings=CONTEXT)
@click.version_option(fastgrad.__version__, prog_name="fastgrad")
def main() -> None:
    """How gradients grow or vanish through very deep sigmoid networks.

    Exact at any depth: a gradient of 10^-300000 is an ordinary result.

    \b
    Example: fastgrad simulate --depth 1000 --weight normal:std=500

    FASTGRAD_BACKEND, FASTGRAD_THREADS, FASTGRAD_FORMAT, FASTGRAD_COLOR and FASTGRAD_QUIET in the environment set the
    options of these names. Shell completion: eval "$(_FASTGRAD_COMPLETE=bash_source fastgrad)", or zsh_source,
    fish_source.
    """


@main.command()
@click.option("--weight", type=float, default=500.0, show_default=True, help="w11 and w21; the biases follow.")
@click.option("--learning-rate", type=float, default=0.01, show_default=True, help="Learning rate of the one step.")
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
    from fastgrad.jobs.example import worked_example
    from fastgrad.report.example import example_report

    chosen = _format(form, output)
    _check_outputs(output)
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
    from fastgrad.checks import require_memory
    from fastgrad.report.simulate import growth_bytes, growth_report
    from fastgrad.report.text import plural

    chosen = _format(form, output)
    _check_outputs(output, plot)
    require_memory(f"the statistics of {plural(min(record, depth), 'recorded link')}", growth_bytes(depth, record))
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


def training_options(learning_rate: str) -> Callable[[Command], Command]:
    """Build the options of gradient descent."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--tolerance",
                type=float,
                default=1e-12,
                show_default=True,
                help="Distance of a converged chain's loss from its least.",
            ),
            click.option(
                "--clip-norm", type=float, help="Largest Euclidean norm of a chain's gradients.  [default: none]"
            ),
            click.option("--clip-value", type=float, help="Largest magnitude of a gradient.  [default: none]"),
            click.option(
                "--loss",
                type=click.Choice(["squared", "cross_entropy"]),
                default="squared",
                show_default=True,
                help="(o - y)² / 2, or -y ln o - (1 - y) ln(1 - o).",
            ),
            click.option(
                "--steps",
                callback=_number,
                metavar="N",
                default="1000",
                show_default=True,
                help="Steps of gradient descent.",
            ),
            click.option("--learning-rate", type=float, help=f"Factor on each gradient.  [default: {learning_rate}]"),
        ):
            command = option(command)
        return command

    return add


@main.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--example", "worked", is_flag=True, help="Train the chain of the textbook's worked example.")
@size_options(3, 1000)
@law_options("normal:std=4", "zero")
@click.option("--x", metavar="LAW", help="Inputs: a number or a law.  [default: from FILE, or uniform:low=0,high=1]")
@click.option(
    "--target", metavar="LAW", help="Targets: a number or a law.  [default: from FILE, or uniform:low=0.1,high=0.9]"
)
@training_options("1; with --example 0.01")
@click.option("--record", callback=_number, metavar="N", default="64", show_default=True, help="Losses to record.")
@backend_option
@threads_option
@plot_option
@output_options
@click.pass_context
def train(
    ctx: click.Context,
    file: str | None,
    worked: bool,
    depth: int,
    ensemble: int,
    weight: str,
    bias: str,
    seed: int,
    x: str | None,
    target: str | None,
    learning_rate: float | None,
    steps: int,
    loss: str,
    clip_value: float | None,
    clip_norm: float | None,
    tolerance: float,
    record: int,
    backend: str,
    threads: int | None,
    plot: str | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
) -> None:
    """Train chains by gradient descent, and tell what becomes of them.

    Draws independent chains, each with an input and a target; or takes those of FILE, an .npz with the arrays weight,
    bias, x and target, an .npy or a .csv as for backprop; or the worked example. Shows the loss, and how many chains
    converge, stand still, run away, or are still on their way.

    \b
    Example: fastgrad train --weight normal:std=500
    """
    from fastgrad.files import load_task
    from fastgrad.jobs.example import worked_task
    from fastgrad.jobs.train import DRAWN_LEARNING_RATE, DRAWN_TARGET, DRAWN_X, drawn_task, train_chain
    from fastgrad.report.text import plural
    from fastgrad.report.train import training_report

    chosen = _format(form, output, "npz")
    _check_outputs(output, plot, file)
    how: dict[str, Any] = {
        "learning_rate": (0.01 if worked else DRAWN_LEARNING_RATE) if learning_rate is None else learning_rate,
        "steps": steps,
        "loss": loss,
        "clip_value": clip_value,
        "clip_norm": clip_norm,
        "tolerance": tolerance,
        "record": record,
    }
    drawing = ("depth", "ensemble", "weight", "bias", "seed")
    given = [name for name in drawing if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if file is not None and worked:
        raise click.UsageError("FILE or --example, not both")
    if (file is not None or worked) and given:
        raise click.UsageError(f"--{given[0]} is for chains that are drawn, not for {file or '--example'}")
    parameters: dict[str, Any] = {"file": file, "example": worked}
    if file is None and not worked:
        drawn = {
            "depth": depth,
            "ensemble": ensemble,
            "weight": weight,
            "bias": bias,
            "x": DRAWN_X if x is None else x,
            "target": DRAWN_TARGET if target is None else target,
            "seed": seed,
        }
        chain, wanted = drawn_task(**drawn)  # type: ignore[arg-type]
        parameters |= drawn
        what = f"{plural(ensemble, 'chain')} of {plural(depth, 'link')}, weight {weight}, bias {bias}, seed {seed}"
    else:
        numbers = {name: _as_number(name, text) for name, text in (("x", x), ("target", target)) if text is not None}
        if worked:
            chain, wanted = worked_task(**numbers)
            what = "the worked example, one chain of 3 links"
        else:
            try:
                chain, wanted = load_task(str(file), **numbers)
            except ValueError as error:
                raise click.ClickException(str(error)) from None
            what = f"{plural(chain.ensemble, 'chain')} of {plural(chain.depth, 'link')} from {file}"
        parameters |= {"x": chain.x, "target": wanted}
    with _warnings(quiet), _progress("training", quiet, color) as progress:
        training = train_chain(chain, wanted, **how, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    _finish(training_report(training, chain, what, {**parameters, **how}), chosen, output, color, plot)


@main.command()
@size_options(10, 1000)
@click.option("--seed", callback=_number, metavar="N", default="0", show_default=True, help="Seed, 0 to 2^64 - 1.")
@training_options("1")
@backend_option
@threads_option
@plot_option
@output_options
def schemes(
    depth: int,
    ensemble: int,
    seed: int,
    learning_rate: float | None,
    steps: int,
    loss: str,
    clip_value: float | None,
    clip_norm: float | None,
    tolerance: float,
    backend: str,
    threads: int | None,
    plot: str | None,
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
) -> None:
    """Compare initialization schemes.

    Each named scheme, one that is too small and two that are large: the exponent of its gradient, the depth at which
    float32 and float64 lose it, the share of chains of the given depth that train, and how far the first weight moves.

    \b
    Example: fastgrad schemes --depth 20 --learning-rate 10
    """
    from fastgrad.jobs.schemes import schemes as run
    from fastgrad.jobs.train import DRAWN_LEARNING_RATE
    from fastgrad.report.schemes import schemes_report

    chosen = _format(form, output)
    _check_outputs(output, plot)
    parameters: dict[str, Any] = {
        "depth": depth,
        "ensemble": ensemble,
        "seed": seed,
        "learning_rate": DRAWN_LEARNING_RATE if learning_rate is None else learning_rate,
        "steps": steps,
        "loss": loss,
        "clip_value": clip_value,
        "clip_norm": clip_norm,
        "tolerance": tolerance,
    }
    with _warnings(quiet), _progress("comparing schemes", quiet, color) as progress:
        found = run(**parameters, backend=backend, threads=threads, progress=progress)  # type: ignore[arg-type]
    _finish(schemes_report(found, parameters), chosen, output, color, plot)


def _as_number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{name}: expected a number for chains that are given, got {text!r}") from None


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
    from fastgrad.checks import require_memory
    from fastgrad.files import open_chain
    from fastgrad.jobs.backprop import backprop_chain, log10_bound
    from fastgrad.kernels import load
    from fastgrad.report.backprop import gradients_bytes, gradients_report
    from fastgrad.report.text import plural

    chosen = _format(form, output, "npz")
    _check_outputs(output, plot, file)
    given = {"bias": bias, "x": x, "cotangent": cotangent}
    try:
        source = open_chain(file)
        size = gradients_bytes(source, chosen, plot is not None, load(backend)[1].WORK_BYTES)  # type: ignore[arg-type]
        require_memory(f"{file}: the gradients of {plural(source.links, 'link')}", size)
        chain = source.load(**{name: value for name, value in given.items() if value is not None})
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
    from fastgrad.jobs.compare import compare as run
    from fastgrad.report.compare import comparison_report

    chosen = _format(form, output)
    _check_outputs(output)
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
        _say("fastgrad: the backends disagree")
        ctx.exit(EXIT_DISAGREE)


@main.command()
@output_options
def info(form: str | None, output: str | None, color: str, quiet: bool) -> None:
    """Show what runs here: versions, backends, compiler, processor.

    \b
    Example: fastgrad info --format json
    """
    from fastgrad.report.info import info_report

    chosen = _format(form, output)
    _check_outputs(output)
    with _warnings(quiet):
        found = fastgrad.build_info()
    _finish(info_report(found), chosen, output, color)


JOB_OPTIONS = {
    "depth": "Links of each chain.",
    "ensemble": "Independent chains.",
    "weight": "Law of the weights, as for simulate.",
    "bias": "Law of the biases, as for simulate.",
    "x": "The input of every chain; to train also a law.",
    "target": "The wanted output: a number or a law.",
    "seed": "Seed, 0 to 2^64 - 1.",
    "learning_rate": "Factor on each gradient.",
    "steps": "Steps of gradient descent.",
    "loss": "squared or cross_entropy.",
    "clip_value": "Largest magnitude of a gradient.",
    "clip_norm": "Largest Euclidean norm of a chain's gradients.",
    "tolerance": "Distance of a converged chain's loss from its least.",
    "record": "Links, or losses, to record.",
}


def job_options(command: Command) -> Command:
    """One option for each parameter of the jobs of a sweep, with the job's own default."""
    for name, help_text in reversed(JOB_OPTIONS.items()):
        taken = {job: job_parameters(job)[name] for job in JOBS if name in job_parameters(job)}
        texts = {job: "needed" if of is REQUIRED else str(of).lower() for job, of in taken.items()}
        same = len(texts) == len(JOBS) and len(set(texts.values())) == 1
        default = texts[JOBS[0]] if same else ", ".join(f"{text} for {job}" for job, text in texts.items())
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, metavar="VALUE", help=f"{help_text}  [default: {default}]")(command)
    return command


def _shard(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Part i of n, as i/n."""
    if value is None:
        return None
    index, _slash, count = value.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"expected i/n with i from 1 to n, got {value!r}")
    return int(index), int(count)


@main.command()
@click.option("--job", type=click.Choice(JOBS), default="simulate", show_default=True, help="What runs at each point.")
@click.option(
    "--grid",
    multiple=True,
    required=True,
    metavar="KEY=VALUES",
    help="Values of a parameter below, or of one of a law, as weight.std: 1,2,4 or LOW:HIGH:COUNT or "
    "LOW:HIGH:COUNT:log. Once for each parameter; the points are all combinations.",
)
@job_options
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
    callback=_shard,
    metavar="i/n",
    help="Only part i of n, for job arrays; fastgrad merge puts the stores together.  [default: 1/1]",
)
@click.option("--dry-run", is_flag=True, help="Show the points, memory and time; run nothing.")
@backend_option
@threads_option
@output_options
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
    form: str | None,
    output: str | None,
    color: str,
    quiet: bool,
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

    chosen = _format(form, output)
    _check_outputs(output, source=store)
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
    with _warnings(quiet), contextlib.ExitStack() as stack:
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
            taken = estimate(planned, kept, together)
            report = dry_run_report(planned, taken, parameters, "--format csv has all", chosen == "json")
            _finish(report, chosen, output, color)
            return
        before = len(stored_results(planned, kept))
        try:
            with _executor(workers, scheduler) as executor, _progress("sweeping", quiet, color) as progress:
                rows = run(planned, kept, executor, threads, progress)
        except (KeyboardInterrupt, ChildProcessError) as error:
            text = str(error) or "interrupted"
            if kept is not None:
                text += f"; {len(kept)} points are kept in {store}, the same command goes on from there"
            raise (Interrupted if isinstance(error, KeyboardInterrupt) else click.ClickException)(text) from None
    hint = "-o FILE.csv has all" if store is None else f"fastgrad export {store} has all"
    _finish(sweep_report(planned, rows, before, parameters, hint), chosen, output, color)


@contextlib.contextmanager
def _executor(workers: int | None, scheduler: str | None) -> Iterator[Executor | None]:
    if workers is None and scheduler is None:
        yield None
        return
    from fastgrad.sweeps import executors

    on = executors.cluster(scheduler, workers) if scheduler is not None else executors.processes(workers or 1)
    with on as executor:
        yield executor


@main.command()
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

    chosen = _format(form, output, "parquet")
    _check_outputs(output, source=store)
    with _warnings(quiet), Store.read(store) as kept:
        report = export_report(kept.identity, stored_rows(kept))
    _finish(report, chosen, output, color)


@main.command()
@click.argument("store")
@click.option("--value", metavar="NAME", help="The result that is drawn.  [default: lyapunov, or converged]")
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

    chosen = _format(form, output)
    _check_outputs(output, plot, store)
    only = {}
    for condition in where:
        name, equals, wanted = condition.partition("=")
        if not equals:
            raise click.UsageError(f"where: expected NAME=VALUE, got {condition!r}")
        only[name] = wanted
    with _warnings(quiet), Store.read(store) as kept:
        job: Any = kept.identity["job"]
        report = study_report(job, stored_rows(kept), value, x, only)
    _finish(report, chosen, output, color, plot)


@main.command()
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

    _check_outputs(output)
    with _warnings(quiet):
        points = merge_stores(stores, output, salvage=salvage)
    _finish(merge_report(stores, output, points), form or "table", None, color)


@contextlib.contextmanager
def _warnings(quiet: bool) -> Iterator[None]:
    """Show warnings as one line on stderr each, or not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if quiet else "default")
        warnings.showwarning = _show_warning
        yield
