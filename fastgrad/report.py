"""How results read: as tables and plots for a person, as JSON and CSV for a program."""

from __future__ import annotations

import io
import itertools
import statistics
import sys
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from fastgrad import framework
from fastgrad.chain import size_text
from fastgrad.files import Derived, replacing, write_csv, write_json, write_npz
from fastgrad.info import provenance
from fastgrad.plot import BLACK, Curve, Figure, Map, terminal
from fastgrad.scaled import Scaled
from fastgrad.simulate import NOT_FORGOTTEN
from fastgrad.sweep import LAWS, deviation, flat_row, job_parameters, planned_rows
from fastgrad.theory import predict
from fastgrad.train import STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.console import Console, RenderableType

    from fastgrad.backprop import Gradients
    from fastgrad.chain import Chain
    from fastgrad.compare import Comparison
    from fastgrad.example import Example
    from fastgrad.files import ChainFile
    from fastgrad.schemes import Schemes
    from fastgrad.simulate import Growth
    from fastgrad.sweep import Cost, Identity, JobName, Plan
    from fastgrad.theory import Prediction
    from fastgrad.train import Training

Format = Literal["table", "json", "csv"]
Binary = Literal["npz", "parquet"]
SCHEMA = "fastgrad/1"
TABLE_ROWS = 10
SWEEP_ROWS = 40
FIGURE_LINKS = 2000  # two a pixel
PART_ELEMENTS = 2**16  # of arrays that are worked on part after part
STATISTICS_BYTES = 2000  # of a recorded link: 24 numbers in lists and arrays, and their copies
WORKSPACE_BYTES = 32 * 2**20  # of the kernels' threads, and of what the table and the plot are made of
NPZ_BUFFER_BYTES = 32 * 2**20  # NumPy copies 16 MiB of an array at a time
TEXT_BYTES = 500  # of an element on its way to a .csv or .json: columns, lists of numbers and their text
MATPLOTLIB_BYTES = 50 * 2**20
PLOT_HEIGHT = 16
SERIES_MAX = 7  # lines that can be told apart; more values of a second parameter make a map
VALUE_LABELS = {
    "lyapunov": "finite-depth Lyapunov exponent (nats per link)",
    "stationary": "Lyapunov exponent after the start is forgotten (nats per link)",
    "bound_rate": "rate of the bound (nats per link)",
    "converged": "share of chains that converge",
    "stalled": "share of chains that stall",
    "diverged": "share of chains that diverge",
    "running": "share of chains still running",
}
PLOT_WIDTH = 78
TABLE_WIDTH = 80


@dataclass(eq=False)
class Report:
    """A command's result, ready to be written in each format.

    Attributes
    ----------
    command : str
    parameters : dict
        What was asked for.
    result : dict
        Everything, in full precision: the JSON.
    rows : iterable of dict
        The CSV; made when it is written. A dict of arrays is a block of rows.
    human : list
        Rich renderables: what a person reads.
    figure : Figure or Map, optional
        Drawn below the tables, or into a file.
    backend, seed : optional
        For the provenance.
    arrays : dict
        What an .npz file gets.
    reproducible : bool
        Nothing is told of the run, so that equal results make equal files.
    """

    command: str
    parameters: dict[str, Any]
    result: dict[str, Any]
    rows: Iterable[dict[str, Any]]
    human: list[RenderableType]
    figure: Figure | Map | None = None
    backend: str | None = None
    seed: int | None = None
    arrays: dict[str, Any] = field(default_factory=dict)
    reproducible: bool = False


def write(report: Report, form: Format | Binary, output: str | None, color: bool | None) -> None:
    """Write a report to a file, or to stdout where `output` is None or ``-``.

    A regular file is written whole or not at all. `color`: True, False, or None to let the terminal decide.

    Raises
    ------
    ValueError
        If an .npz or .parquet is wanted on stdout.
    OSError
        If it can't be written.
    """
    if output is None or output == "-":
        if form == "npz" or form == "parquet":
            raise ValueError(f"format: {form} is written to a file only, expected -o FILE.{form}")
        if sys.stdout is None:
            raise OSError("stdout is closed")
        try:
            _write_text(report, form, sys.stdout, color)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, "stdout") from None
        return
    with replacing(output) as path:
        _write_file(report, form, path, color)


def _write_file(report: Report, form: Format | Binary, path: Path, color: bool | None) -> None:
    if form == "npz":
        write_npz(report.arrays, path)
    elif form == "parquet":
        _write_parquet(list(report.rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as text:
            _write_text(report, form, text, color or False)


def _write_text(report: Report, form: Format, file: IO[str], color: bool | None) -> None:
    if form == "table":
        _print(report, file, color)
    elif form == "json":
        document = {
            "schema": SCHEMA,
            "command": report.command,
            "parameters": report.parameters,
            **({} if report.reproducible else {"provenance": provenance(report.backend, report.seed)}),
            "result": report.result,
        }
        write_json(document, file)
    else:
        write_csv(report.rows, file)


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ModuleNotFoundError("format: parquet needs pyarrow; pip install 'fastgrad[parquet]'") from None

    def column(name: str) -> Any:
        values = [row[name] for row in rows]
        if name == "seed":  # up to 2^64 - 1
            return pyarrow.array(values, pyarrow.uint64())
        if any(value is not None for value in values):
            return pyarrow.array(values)
        whole = name.endswith(("_underflow", "_overflow", "_step"))  # the type that values would have
        return pyarrow.array(values, pyarrow.int64() if whole else pyarrow.float64())

    pyarrow.parquet.write_table(pyarrow.table({name: column(name) for name in (rows[0] if rows else {})}), path)


def _print(report: Report, file: IO[str], color: bool | None) -> None:
    from rich.console import Console
    from rich.table import Table

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would exit with 1; whoever called decides

    if isinstance(file, io.TextIOWrapper) and not (file.encoding or "").lower().startswith("utf"):
        file.reconfigure(errors="replace")
    if color is None:
        console = Stdout(file=file, highlight=False)
    else:
        system: Literal["standard"] | None = "standard" if color else None
        console = Stdout(file=file, highlight=False, force_terminal=color, color_system=system, no_color=not color)
    # Where a terminal is narrower than the tables, its own wrapping loses nothing, and rich's would.
    tables = [part for part in report.human if isinstance(part, Table) and all(of.no_wrap for of in part.columns)]
    unbounded = console.options.update(max_width=sys.maxsize)
    console.width = max(console.width, TABLE_WIDTH, *(console.measure(of, options=unbounded).maximum for of in tables))
    for part in report.human:
        console.print(part)
    if report.figure is not None:
        _print_figure(report.figure, console)


def _print_figure(figure: Figure | Map, console: Console) -> None:
    from rich.text import Text

    if not console.encoding.lower().startswith("utf"):
        console.print("(a plot needs a UTF-8 terminal; --plot FILE draws it into a file)")
        return
    colored = console.color_system is not None and not console.no_color
    drawn = terminal(figure, min(PLOT_WIDTH, console.width), PLOT_HEIGHT, colored)
    console.print(Text.from_ansi(drawn), no_wrap=True, overflow="crop")


def _table(title: str | None, *columns: str, left: Iterable[int] = (0,)) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i in left else "right", no_wrap=i not in left)
    return table


def decades(log10: float) -> str:
    """Write a magnitude given by its decimal logarithm."""
    if np.isnan(log10):
        return "undefined"
    return "0" if log10 == -np.inf else f"10^{round(log10, 1) + 0.0:.1f}"


def counted(number: int, what: str) -> str:
    """Write a number of things: 1 link, 2 links."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def grouped(value: float) -> str:
    """Write a number with its digits in groups of three: 93 750 000."""
    if not np.isfinite(value):
        return "beyond float64"
    if abs(value) < 1e15 and value == round(value):
        return f"{round(value):,}".replace(",", " ")
    return f"{value:,.9g}".replace(",", " ") if 1e-3 <= abs(value) < 1e15 else f"{value:.4g}"


def _scaled_text(value: Scaled) -> str:
    as_float = float(value)
    return grouped(as_float) if value.mantissa == 0 or 1e-3 <= abs(as_float) < 1e15 else format(value, ".3e")


def _scaled_json(value: Scaled) -> dict[str, Any]:
    """Full precision, and for readers its decimal logarithm and a rounded text."""
    return {
        "mantissa": value.mantissa,
        "exponent": value.exponent,
        "log10": value.log10() if value.ndim == 0 else Derived(value.shape, lambda part: value[part].log10()),
        **({"text": format(value, ".6e")} if value.ndim == 0 else {}),
    }


def example_report(example: Example, parameters: dict[str, Any]) -> Report:
    """The worked example, as an explanation that a student follows."""
    w, b = example.weight, example.bias
    meaning = {
        "dloss/do31": "o31 - y",
        "do31/do21": f"1/4 x w31 = {grouped(w[2])} / 4",
        "do21/do11": f"1/4 x w21 = {grouped(w[1])} / 4",
        "do11/dw11": "1/4 x x = 200 / 4",
    }
    gradient_text, after_text = _scaled_text(example.gradient), grouped(example.weight_after)
    gradient, after = float(example.gradient), example.gradient_after
    factors = _table(None, "factor", "what it is", "value", left=(0, 1))
    for name, factor in example.factors.items():
        factors.add_row(name, meaning[name], _scaled_text(factor))
    factors.add_section()
    factors.add_row("dloss/dw11", "their product, by the kernel", gradient_text, style="bold")
    for unit, of in enumerate(example.grad_bias, start=1):
        factors.add_row(f"dloss/db{unit}1", f"for the bias b{unit}1, likewise", _scaled_text(of))

    next_step = [
        f"z11 is now {grouped(example.preactivation_after)}, where sigmoid' is {_scaled_text(example.slope_after)}.",
        f"gradient   {gradient_text} -> {_scaled_text(after)}",
        f"loss       {grouped(example.loss)} -> {grouped(example.loss_after)}",
        f"The loss {_moved(example.loss, example.loss_after)}: no further step moves this weight."
        if _negligible(after, example.weight_after, example.learning_rate)
        else "The weight still moves.",
    ]
    if not np.isfinite(example.preactivation_after):
        what = "The weight" if not np.isfinite(example.weight_after) else "Its preactivation z11"
        next_step = [f"{what} has left float64: there is no next step."]
    lesson = _table(None, "weights", "biases", "exact, below its range", "a framework reads 0", left=(0, 1))
    for laws, exact in example.float32_links.items():
        lost = (exact, example.framework_float32_links[laws])
        lesson.add_row(*laws, *(f"more than {example.lesson_depth}" if v is None else str(v) for v in lost))
    on_bias = [abs(float(g)) for g in example.grad_bias]
    explode = ["The biases' gradients explode as well.", ""] if on_bias[0] > on_bias[1] > on_bias[2] else []
    ratio = abs(example.step / w[0]) if w[0] else 0.0
    times = f", {ratio:.4g} times the weight itself" if 1 < ratio < np.inf else ""
    human: list[RenderableType] = [
        "Three sigmoid units in a row, o11 -> o21 -> o31, and the loss (o31 - y)² / 2.",
        f"x = 200, y = -149.5, w = {', '.join(map(grouped, w))}, b = {', '.join(map(grouped, b))}",
        "",
        "[bold]1. The textbook's gradient.[/] The biases are centered: every preactivation",
        "z = w o + b is 0, where the sigmoid's derivative is 1/4, the most it can be.",
        "So each link multiplies by w/4:",
        factors,
        *explode,
        f"[bold]2. One step of gradient descent[/], learning rate {example.learning_rate:g}:",
        f"   w11 = {grouped(w[0])} - {example.learning_rate:g} x {gradient_text} = [bold]{after_text}[/]",
        f"   a step of {grouped(example.step)}{times}",
        "",
        "[bold]3. What the true sigmoid does next[/] (the bias is kept).",
        *(f"   {line}" for line in next_step),
        "",
        "[bold]4. The same weights with every bias 0 instead of centered.[/]",
        f"   the bound   {_scaled_text(example.zero_bias_bound)}: still {grouped(abs(w[1]) / 4)} a link",
        f"   the truth   {_scaled_text(example.zero_bias_gradient)}",
        "",
        "[bold]5. What an initialization does[/]: links back from the output until float32",
        "loses the median gradient of drawn chains.",
        lesson,
        "A better one delays the end; weights of 4, centered, keep the gradient at 1.",
        "See for yourself: fastgrad simulate --weight he_normal",
        f"[dim]backend {example.backend}[/]",
    ]
    result = {
        "weight": list(w),
        "bias": list(b),
        "x": 200.0,
        "target": -149.5,
        "factors": {name: float(factor) for name, factor in example.factors.items()},
        "gradient": gradient,
        "grad_bias": [float(each) for each in example.grad_bias],
        "bound": float(example.bound),
        "step": example.step,
        "weight_before": w[0],
        "weight_after": example.weight_after,
        "loss_before": example.loss,
        "after_step": {
            "preactivation": example.preactivation_after,
            "slope": _scaled_json(example.slope_after),
            "gradient": _scaled_json(after),
            "loss": example.loss_after,
        },
        "float32_links": [
            {
                "weight": laws[0],
                "bias": laws[1],
                "links": links,
                "framework_links": example.framework_float32_links[laws],
            }
            for laws, links in example.float32_links.items()
        ],
        "zero_bias": {
            "bound": _scaled_json(example.zero_bias_bound),
            "gradient": _scaled_json(example.zero_bias_gradient),
        },
    }
    rows: list[dict[str, Any]] = [{"quantity": name, "value": float(f)} for name, f in example.factors.items()]
    rows += [
        {"quantity": "dloss/dw11", "value": gradient},
        *({"quantity": f"dloss/db{unit}1", "value": float(of)} for unit, of in enumerate(example.grad_bias, start=1)),
        {"quantity": "step", "value": example.step},
        {"quantity": "w11 before", "value": w[0]},
        {"quantity": "w11 after", "value": example.weight_after},
        {"quantity": "dloss/dw11 after", "value": format(after, ".16e")},
        {"quantity": "loss before", "value": example.loss},
        {"quantity": "loss after", "value": example.loss_after},
        {"quantity": "bound with bias 0", "value": float(example.zero_bias_bound)},
        {"quantity": "dloss/dw11 with bias 0", "value": format(example.zero_bias_gradient, ".16e")},
    ]
    return Report("example", parameters, result, rows, human, backend=example.backend)


def _moved(before: float, after: float) -> str:
    """Write what one step has done to the loss, and no other will."""
    share = abs(after / before - 1)
    return (
        "stays high"
        if share == 0
        else f"{'falls' if after < before else 'rises'} by {100 * share:.2g} % and stays high"
    )


def _negligible(gradient: Scaled, weight: float, learning_rate: float) -> bool:
    """Whether a step of gradient descent leaves the weight as it is."""
    return np.isfinite(weight) and weight - learning_rate * float(gradient) == weight


def growth_report(growth: Growth, parameters: dict[str, Any]) -> Report:
    """How the gradient of an ensemble grows or vanishes."""
    summary = growth.summary()
    theory = predict(growth.weight, growth.bias, growth.x)
    curve = {
        name: {
            key: np.array([-np.inf if v is None else v for v in values])
            for key, values in of.items()
            if "why" not in key
        }
        for name, of in summary["curve"].items()
        if isinstance(of, dict)
    }
    single = growth.ensemble == 1
    table = _table(
        None,
        "link",
        "|gradient|" if single else "|gradient|, median",
        *(() if single else ("5 % to 95 % of chains",)),
        "bound" if single else "bound, median",
        left=(),
    )
    picked = np.unique(np.linspace(0, len(growth.link) - 1, TABLE_ROWS).round().astype(int))
    adjoint, bound = curve["adjoint"], curve["bound"]
    for i in picked:
        band = () if single else (f"{decades(adjoint['q05'][i])} … {decades(adjoint['q95'][i])}",)
        table.add_row(str(growth.link[i]), decades(adjoint["q50"][i]), *band, decades(bound["q50"][i]))

    chains = counted(growth.ensemble, "chain")
    human: list[RenderableType] = [
        f"{chains} of {counted(growth.depth, 'link')}, weight {growth.weight}, bias {growth.bias}, seed {growth.seed}",
        "[dim]gradient: of the chain's output with respect to the link's input, do_L/do_(l-1)[/]",
        table,
        *_exponent_lines(growth, summary, theory),
        *_failures(growth, summary["first_depth"], "gradient" if single else "median gradient"),
    ]
    if summary["zero_share"]:
        human.append(f"Exactly zero: {100 * summary['zero_share']:.3g} % of the recorded gradients.")
    human.append(f"[dim]backend {growth.backend}[/]")
    label = "gradient" if single else "gradient (median)"
    figure = Figure(
        title=f"log10 |gradient| against the link: {growth.weight}, bias {growth.bias}, {chains}",
        x_label="link",
        y_label="log10 |gradient|",
        x=growth.link.astype(float),
        curves=[
            Curve(
                "bound",
                "bound" if single else "bound (median)",
                bound["q50"],
                None if single else (bound["q05"], bound["q95"]),
            ),
            Curve("gradient", label, adjoint["q50"], None if single else (adjoint["q05"], adjoint["q95"])),
        ],
    )
    if theory.lyapunov is not None:
        rest = growth.depth + 1 - growth.link  # links between this one's input and the output
        figure.curves.append(Curve("theory", "theory", rest * theory.lyapunov / np.log(10)))
    block = {f"log10_{name}_{key}": values for name, of in curve.items() for key, values in of.items()}
    rows = [{"link": growth.link, **block}]
    result = {
        **summary,
        "framework_depth": growth.framework_depth,
        "theory": {
            "lyapunov": theory.lyapunov,
            **_distance(growth, theory),
            **({} if theory.why_not is None else {"lyapunov_why": theory.why_not}),
            "bound_rate": theory.bound.mean,
            "bound_variance": theory.bound.variance,
        },
    }
    return Report("simulate", parameters, result, rows, human, figure, growth.backend, growth.seed)


def _distance(growth: Growth, theory: Prediction) -> dict[str, Any]:
    """By how many standard errors the stationary exponent is above the theory's, or why that is not said."""
    sigmas = None if theory.lyapunov is None else growth.deviation(theory.lyapunov)
    if sigmas is not None:
        return {"standard_errors": sigmas}
    if theory.lyapunov is None:
        why = "no theory"
    elif growth.stationary_link is None:
        why = NOT_FORGOTTEN
    else:
        why = "the measurement has no standard error"
    return {"standard_errors": None, "standard_errors_why": why}


def _exponent_lines(growth: Growth, summary: dict[str, Any], theory: Prediction) -> list[str]:
    forgotten = growth.stationary_link is not None and np.isfinite(growth.stationary.mean)
    mean, stderr = growth.stationary if forgotten else growth.lyapunov
    rate = summary["bound_rate"]
    lines = []
    if not np.isfinite(mean):
        lines.append("Lyapunov exponent: minus infinity, a gradient is exactly zero.")
    else:
        lines.append(
            f"[bold]Lyapunov exponent {_with_error(mean, stderr)} nats per link[/]: a factor {_factor(mean)} a link."
        )
        if forgotten:
            finite = _with_error(*growth.lyapunov)
            lines.append(f"   from link {growth.stationary_link} on, the start forgotten; finite-depth: {finite}")
        else:
            lines.append(f"   finite-depth, over all {counted(growth.depth, 'link')}")
        if theory.lyapunov is not None:
            sigmas = growth.deviation(theory.lyapunov)
            lines.append(f"   theory of an endless chain {theory.lyapunov:.6f}{_away(sigmas)}")
            if not forgotten:
                lines.append(f"   [dim]not compared: {NOT_FORGOTTEN}[/]")
    if rate is not None:
        lines.append(f"Textbook's bound  {rate:.6g} nats per link: a factor {_factor(rate)} a link.")
    if rate is not None and theory.bound.variance:
        error = np.sqrt(theory.bound.variance / (growth.depth * growth.ensemble))
        lines.append(f"   theory {theory.bound.mean:.6g}{_away((rate - theory.bound.mean) / error)}")
    if theory.why_not is not None:
        lines.append(f"[dim]no theory of the exponent: {theory.why_not}[/]")
    return lines


def _away(sigmas: float | None) -> str:
    """Write how far a measurement is from theory; nothing where it has no error of its own."""
    return "" if sigmas is None else f", {abs(sigmas):.1f} standard errors away"


def _with_error(mean: float, stderr: float) -> str:
    """Write a mean with as many decimals as its standard error has in two digits."""
    if not np.isfinite(stderr) or stderr < 1e-12 * abs(mean) or stderr == 0:
        return f"{mean:.6g}"
    decimals = max(0, 1 - int(np.floor(np.log10(stderr))))
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"


def _factor(nats: float) -> str:
    return f"{np.exp(nats):.3g}" if abs(nats) < 50 else decades(nats / np.log(10))


def _failures(growth: Growth, first_depth: dict[str, dict[str, int | None]], gradient: str) -> list[RenderableType]:
    """Links back from the output after which each float format has lost the gradient, exact and in its arithmetic."""

    def cell(events: dict[str, int | None], searched: int) -> str:
        for event, mark in (("underflow", ""), ("overflow", " (inf)")):
            if events[event] is not None:
                return f"{events[event]}{mark}"
        return f"not in {searched}"

    searched = min(growth.depth, framework.LINKS_MAX)
    run = min(growth.ensemble, framework.MEMBERS_MAX)
    chains = "this chain" if growth.ensemble == 1 else f"{'the first' if run < growth.ensemble else 'all'} {run} chains"
    table = _table(None, "format", "exact gradient leaves its range", "a framework reads 0 or inf")
    for name, exact in first_depth.items():
        table.add_row(name, cell(exact, growth.depth), cell(growth.framework_depth[name], searched))
    return [
        f"Links back from the output until the {gradient} is lost:",
        table,
        "[dim]exact: rounding it to the format gives 0 or inf; framework: backprop in the[/]",
        f"[dim]format itself as PyTorch does it, with o (1 - o), on {chains}[/]",
    ]


def training_report(training: Training, start: Chain, what: str, parameters: dict[str, Any]) -> Report:
    """What became of chains in training; `what` says which chains."""
    summary = training.summary()
    ensemble = summary["ensemble"]
    q05, q50, q95 = (_log10_of_losses(summary["loss"][key]) for key in ("q05", "q50", "q95"))
    human: list[RenderableType] = [
        what,
        f"{parameters['loss']} loss, {parameters['steps']} steps of learning rate {parameters['learning_rate']:g}",
    ]
    if ensemble == 1:
        human += _one_training(training, start)
    else:
        table = _table(None, "outcome", "chains", "step, median", "loss, median")
        for name, share in summary["share"].items():
            step, loss = summary["last_step"][name], summary["final_loss"][name]
            cells = ("-", "-") if step is None else (str(step), "beyond float64" if loss is None else f"{loss:.4g}")
            table.add_row(name, f"{100 * share:.1f} %", *cells)
        human.append(table)
        if summary["unchanged"]:
            human.append(
                f"{100 * summary['unchanged']:.1f} % run in name only: a parameter near 0 moves, and the loss does not."
            )
    human += [
        f"[dim]converged: the loss is within {parameters['tolerance']:g} of its least; diverged: out of float64;[/]",
        "[dim]stalled: each update is below half a unit in the last place of its parameter[/]",
        f"[dim]backend {training.backend}[/]",
    ]
    figure = Figure(
        title=f"log10 loss against the step: {what}",
        x_label="step",
        y_label="log10 loss",
        x=training.step.astype(float),
        curves=[
            Curve("loss", "loss" if ensemble == 1 else "loss (median)", q50, None if ensemble == 1 else (q05, q95))
        ],
    )
    columns = {f"loss_{key}": values for key, values in summary["loss"].items() if "why" not in key}
    if ensemble == 1:
        columns = {"loss": summary["loss"]["q50"]}
    rows = [
        {"step": int(step), **{name: values[i] for name, values in columns.items()}}
        for i, step in enumerate(training.step)
    ]
    names = ("step", "loss", "weight", "bias", "status", "last_step")
    arrays = {name: np.asarray(getattr(training, name)) for name in names}
    result = {**summary, **({name: arrays[name] for name in ("weight", "bias", "status")} if ensemble == 1 else {})}
    seed = parameters.get("seed")
    return Report("train", parameters, result, rows, human, figure, training.backend, seed, arrays)


def _log10_of_losses(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Decades; None is beyond float64."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log10([np.inf if v is None else v for v in values]))


def _one_training(training: Training, start: Chain) -> list[RenderableType]:
    """Each parameter of one chain, before and after, and what became of it."""
    table = _table(None, "link", "weight", "after", "bias", "after")
    before = start.weight[:, 0], start.bias[:, 0]
    after = training.weight.reshape(-1), training.bias.reshape(-1)
    for i in np.unique(np.linspace(0, start.depth - 1, TABLE_ROWS).round().astype(int)):
        table.add_row(str(i + 1), *(grouped(v[i]) for pair in zip(before, after, strict=True) for v in pair))
    first, last = training.loss.reshape(len(training.step), -1)[[0, -1], 0]
    status, step = np.atleast_1d(training.status)[0], np.atleast_1d(training.last_step)[0]
    losses = f"the loss goes from {grouped(first)} to {grouped(last)}"
    became = {
        "converged": f"Converged at step {step}: {losses}.",
        "stalled": f"Stalled after step {step}: {losses}, and stays there.",
        "diverged": f"Diverged: step {step} would take a parameter out of float64, and was not taken.",
        "running": f"Still running after step {step}: {losses}.",
    }
    return [table, f"[bold]{became[status]}[/]"]


def schemes_report(found: Schemes, parameters: dict[str, Any]) -> Report:
    """Which initialization: gradients and training of each scheme."""
    table = _table(None, "weights", "exponent", "factor", "float32", "float64", "trained", "w_1 moves")
    rows = []
    for scheme in found.schemes:
        name = scheme.weight if scheme.bias == "zero" else f"{scheme.weight}*"
        with np.errstate(divide="ignore"):
            change = np.log10(scheme.first_change)
        failed = {name: scheme.first_depth[name] for name in ("float32", "float64")}
        table.add_row(
            name,
            f"{scheme.stationary.mean:.3f}",
            _factor(scheme.stationary.mean),
            *("-" if links is None else str(links) for links in failed.values()),
            f"{100 * scheme.share[-1]:.1f} %",
            decades(change[-1]),
        )
        rows.append(
            {
                "weight": scheme.weight,
                "bias": scheme.bias,
                "lyapunov": scheme.lyapunov.mean,
                "lyapunov_stderr": scheme.lyapunov.stderr,
                "stationary": scheme.stationary.mean,
                "stationary_stderr": scheme.stationary.stderr,
                "theory": scheme.theory,
                "float32_underflow": failed["float32"],
                "float64_underflow": failed["float64"],
                "converged": float(scheme.share[-1]),
                "first_weight_change": float(scheme.first_change[-1]),
            }
        )
    depth, ensemble = parameters["depth"], parameters["ensemble"]
    human: list[RenderableType] = [
        f"{counted(ensemble, 'chain')} of each scheme; biases are 0, or with * drawn as the weights",
        table,
        "exponent, factor: of the gradient, nats and times per link, the start forgotten",
        "float32, float64: links until the exact median gradient is below their range",
        f"trained: share of chains of {counted(depth, 'link')} that come within {parameters['tolerance']:g} of the",
        f"   least loss in {parameters['steps']} steps of learning rate {parameters['learning_rate']:g}",
        "w_1 moves: how far training takes the first weight, median",
        "Where gradients vanish only the last links learn; with huge weights, few do.",
        f"[dim]backend {found.backend}[/]",
    ]
    names: dict[bytes, list[str]] = {}  # schemes that are one and the same in a chain make one curve
    for scheme in found.schemes:
        names.setdefault(scheme.first_change.tobytes(), []).append(scheme.weight)
    with np.errstate(divide="ignore"):
        curves = [
            Curve("series", ", ".join(alike), np.log10(np.frombuffer(change)), color=i)
            for i, (change, alike) in enumerate(names.items())
        ]
    figure = Figure(
        title=f"How far training moves the first weight: {counted(ensemble, 'chain')} of each scheme, median",
        x_label="depth",
        y_label="log10 |change of the first weight|",
        x=found.depths.astype(float),
        curves=curves,
    )
    result = {
        "depths": found.depths,
        "schemes": [
            {**row, "converged_by_depth": scheme.share, "first_weight_change_by_depth": scheme.first_change}
            for row, scheme in zip(rows, found.schemes, strict=True)
        ],
    }
    return Report("schemes", parameters, result, rows, human, figure, found.backend, parameters["seed"])


def gradients_report(chain: Chain, gradients: Gradients, log10_bound: Any, parameters: dict[str, Any]) -> Report:
    """Gradients of a given chain or ensemble."""
    depth, ensemble = chain.depth, chain.ensemble
    parts = {"grad_weight": gradients.grad_weight, "grad_bias": gradients.grad_bias, "grad_x": gradients.grad_x}

    def typical(links: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Medians over chains, in decades, some links at a time: an ensemble's logarithms take much memory."""
        step = max(1, PART_ELEMENTS // ensemble)
        found: dict[str, list[NDArray[np.float64]]] = {"grad_weight": [], "grad_bias": [], "bound": []}
        for first in range(0, len(links), step):
            at = links[first : first + step]
            for name, medians in found.items():
                values = log10_bound[at] if name == "bound" else parts[name][at].log10().reshape(len(at), ensemble)
                medians.append(np.quantile(values, 0.5, axis=1, method="inverted_cdf"))
        return {name: np.concatenate(medians) for name, medians in found.items()}

    of_chains = "" if ensemble == 1 else ", median"
    names = ("grad_weight", "grad_bias") if ensemble == 1 else ("|grad_weight|, median", "|grad_bias|, median")
    table = _table(None, "link", *names, f"bound{of_chains}", left=())
    listed = _some_of(depth, TABLE_ROWS)
    for i, *values in zip(listed, *typical(listed).values(), strict=True):
        cells = [decades(value) for value in values]
        if ensemble == 1:  # the numbers themselves, with their signs
            cells[:2] = [format(g.flat(i), ".4e") for g in (gradients.grad_weight, gradients.grad_bias)]
        table.add_row(str(i + 1), *cells)
    chains = counted(ensemble, "chain")
    human: list[RenderableType] = [f"{chains} of {counted(depth, 'link')} from {parameters['file']}", table]
    if ensemble == 1:
        output, grad_x = float(chain_item(gradients.output)), gradients.grad_x[() if gradients.grad_x.ndim == 0 else 0]
        human.append(f"output {output:.6g}, gradient with respect to the input {_scaled_text(grad_x)}")
    human.append("[dim]bound: of |grad_bias|; -o FILE.npz, .csv or .json keeps every gradient[/]")
    human.append(f"[dim]backend {gradients.backend}[/]")
    drawn = _some_of(depth, FIGURE_LINKS)
    curves = typical(drawn)
    figure = Figure(
        title=f"log10 |gradient| against the link: {chains} from {parameters['file']}",
        x_label="link",
        y_label="log10 |gradient|",
        x=1.0 + drawn.astype(np.float64),
        curves=[Curve("bound", "bound", curves["bound"]), Curve("gradient", "grad_bias", curves["grad_bias"])],
    )
    arrays: dict[str, Any] = {"output": gradients.output}
    for name, scaled in parts.items():
        arrays[f"{name}_mantissa"], arrays[f"{name}_exponent"] = scaled.mantissa, scaled.exponent
    result = {"output": gradients.output, **{name: _scaled_json(scaled) for name, scaled in parts.items()}}
    rows = _gradient_rows(gradients, log10_bound)
    return Report("backprop", parameters, result, rows, human, figure, gradients.backend, arrays=arrays)


def growth_bytes(depth: int, record: int) -> int:
    """Memory of the statistics of recorded links, which `fastgrad simulate` holds beside the records."""
    return STATISTICS_BYTES * max(0, min(depth, record))


def gradients_bytes(file: ChainFile, form: Format | Binary, plot: bool, work_bytes: int) -> int:
    """Memory that `fastgrad backprop` takes as a whole: reading, gradients, the report and its writer.

    Parameters
    ----------
    file : ChainFile
    form : str
        Format of the result.
    plot : bool
        Whether a figure is drawn into a file.
    work_bytes : int
        Of the kernel, for each link of each chain.

    Returns
    -------
    int
        Bytes beside what the interpreter and its libraries take.
    """
    links, ensemble = file.links, file.ensemble
    gradients = file.kept_bytes + 32 * links + 40 * ensemble
    kernel = (work_bytes + 1) * links
    # The bound is one array; medians take the logarithms of as many chains as a link has, and their sorting.
    report = 8 * links + 64 * max(ensemble, PART_ELEMENTS)
    writer = {"table": 0, "npz": NPZ_BUFFER_BYTES}.get(form, TEXT_BYTES * PART_ELEMENTS)
    highest = max(file.load_bytes, gradients + max(kernel, report + writer))
    return highest + WORKSPACE_BYTES + (MATPLOTLIB_BYTES if plot else 0)


def _some_of(depth: int, at_most: int) -> NDArray[np.int64]:
    """Evenly spaced links, counted from 0, the first and the last among them."""
    return np.unique(np.linspace(0, depth - 1, min(depth, at_most)).round().astype(np.int64))


def chain_item(values: Any) -> Any:
    """The one value of an array of one."""
    return np.asarray(values).reshape(-1)[0]


def _gradient_rows(gradients: Gradients, log10_bound: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    """Blocks of rows, links first: the logarithms of all links would take half as much as the gradients."""
    ensemble = log10_bound.shape[1]
    flat = {
        name: Scaled.of_parts(scaled.mantissa.reshape(-1), scaled.exponent.reshape(-1))
        for name, scaled in (("grad_weight", gradients.grad_weight), ("grad_bias", gradients.grad_bias))
    }
    bound = log10_bound.reshape(-1)
    for first in range(0, len(bound), PART_ELEMENTS):
        part = slice(first, min(first + PART_ELEMENTS, len(bound)))
        link, member = np.divmod(np.arange(part.start, part.stop), ensemble)
        yield {
            "link": link + 1,
            **({"member": member} if ensemble > 1 else {}),
            **{f"{name}_{of}": getattr(flat[name], of)[part] for name in flat for of in ("mantissa", "exponent")},
            **{f"log10_{name}": scaled[part].log10() for name, scaled in flat.items()},
            "log10_bound": bound[part],
        }


def comparison_report(comparison: Comparison, parameters: dict[str, Any]) -> Report:
    """Agreement and speed of the backends."""
    rows = []
    for row in comparison.backends:
        timed: dict[str, Any] = {}
        if row.seconds:
            speedup = comparison.speedup(row)
            timed = {
                "median_s": statistics.median(row.seconds),
                "min_s": min(row.seconds),
                "max_s": max(row.seconds),
                "ns_per_link": 1e9 * statistics.median(row.seconds) / comparison.links,
                "speedup": statistics.median(speedup),
                "speedup_low": min(speedup),
                "speedup_high": max(speedup),
            }
        rows.append(
            {
                "backend": row.backend,
                "distance": row.distance,
                "same_bits_as": row.same_bits_as,
                "warm_up_s": row.warm_up,
                **timed,
            }
        )
    agreement = _table(
        "Agreement with the reference", "backend", "largest distance / allowed", "equal bits with", left=(0, 2)
    )
    for row in comparison.backends:
        agreement.add_row(row.backend, f"{row.distance:.3g}", ", ".join(row.same_bits_as) or "-")
    human: list[RenderableType] = [
        f"{comparison.job}: {counted(parameters['depth'], 'link')} x {counted(parameters['ensemble'], 'chain')}",
        agreement,
    ]
    if comparison.agree:
        times = _table(
            f"Time, {len(comparison.backends[0].seconds)} interleaved rounds",
            "backend", "median", "min … max", "ns/link", "speedup", "min … max",
        )  # fmt: skip
        for times_row in rows:
            times.add_row(
                times_row["backend"],
                seconds_text(times_row["median_s"]),
                f"{seconds_text(times_row['min_s'])} … {seconds_text(times_row['max_s'])}",
                _three_digits(times_row["ns_per_link"]),
                f"{times_row['speedup']:.2f}",
                f"{times_row['speedup_low']:.2f} … {times_row['speedup_high']:.2f}",
            )
        human.append(times)
        warm = ", ".join(f"{row.backend} {seconds_text(row.warm_up)}" for row in comparison.backends)
        human.append("[dim]speedup: t_numpy / t_backend, median and range over the rounds[/]")
        human.append(f"[dim]first call, compilation or its cache included: {warm}[/]")
    else:
        human.append("[bold red]The backends disagree[/]; nothing was timed. Chains that expand (centered biases")
        human.append("and weights beyond 4) may part by rounding alone; anything else is a defect.")
    result: dict[str, Any] = {"job": comparison.job, "links": comparison.links, "agree": comparison.agree}
    result["backends"] = [
        {**row, "seconds": list(of.seconds)} for row, of in zip(rows, comparison.backends, strict=True)
    ]
    flat = ({**row, "same_bits_as": " ".join(row["same_bits_as"])} for row in rows)
    return Report("compare", parameters, result, flat, human, seed=parameters.get("seed"))


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def seconds_text(seconds: float) -> str:
    """Write a duration in the unit that suits it."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def sweep_report(
    planned: Plan, rows: list[dict[str, Any]], before: int, parameters: dict[str, Any], hint: str
) -> Report:
    """The points of a sweep, `before` of them done before; `hint` says where to find what the table leaves out."""
    human: list[RenderableType] = [
        f"{planned.job}, {counted(len(rows), 'point')}: {before} done before, {len(rows) - before} now",
        *_points(planned.job, rows, _result_columns(planned.job), hint),
        *_theory_lines(planned.job, rows),
        f"[dim]backend {planned.backend}[/]",
    ]
    return Report("sweep", parameters, {"points": rows}, even(rows), human, backend=planned.backend)


def dry_run_report(planned: Plan, cost: Cost, parameters: dict[str, Any], hint: str, in_full: bool) -> Report:
    """What a sweep would run, and what that would take; the points in the JSON only if it is wanted `in_full`."""
    first = list(itertools.islice(planned_rows(planned, cost.done), SWEEP_ROWS))
    different = [flat_row(planned.job, point, {"done": False}) for point in planned.points.varied()]
    columns = even(different)[0] if planned.points else {}
    count = len(planned.points)
    waiting = count - len(cost.done)
    human: list[RenderableType] = [
        f"{planned.job}, {counted(count, 'point')}: {len(cost.done)} done before, {waiting} to do",
        *_points(planned.job, first, {"": lambda row: "done" if row["done"] else "to do"}, hint, different, count),
        f"memory: {size_text(cost.memory)} for {counted(cost.together, 'point')} at a time",
        f"time: about {seconds_text(cost.seconds)}, from {cost.source}",
        "[dim]nothing was run[/]",
    ]
    result = {
        "waiting": waiting,
        "memory_bytes": cost.memory,
        "together": cost.together,
        "seconds": cost.seconds,
        "seconds_from": cost.source,
        "points": list(planned_rows(planned, cost.done)) if in_full else [],
    }
    rows = ({name: row.get(name) for name in columns} for row in planned_rows(planned, cost.done))
    return Report("sweep", parameters, result, rows, human, backend=planned.backend)


def export_report(identity: Identity, rows: list[dict[str, Any]]) -> Report:
    """Every point of a store."""
    job: Any = identity["job"]
    human: list[RenderableType] = [
        f"{job}, {counted(len(rows), 'point')}",
        *_points(job, rows, _result_columns(job), None),
        *_theory_lines(job, rows),
    ]
    return Report("export", {**identity}, {"points": rows}, even(rows), human, reproducible=True)


def merge_report(sources: Sequence[str], target: str, points: int) -> Report:
    """What a merged store holds."""
    result = {"store": target, "points": points}
    human: list[RenderableType] = [f"{target}: {counted(points, 'point')} from {counted(len(sources), 'store')}"]
    return Report("merge", {"stores": list(sources)}, result, [result], human)


def _points(
    job: JobName,
    rows: list[dict[str, Any]],
    results: dict[str, Callable[[dict[str, Any]], str]],
    hint: str | None,
    different: list[dict[str, Any]] | None = None,
    count: int | None = None,
) -> list[RenderableType]:
    """A table of points: what varies among them, and their results; with a hint only the first of very many.

    If `rows` are the first of `count` themselves, `different` are rows that differ in all in which those differ.
    """
    varying, fixed = _varying(job, rows if different is None else different)
    table = _table(None, *varying, *results, left=[i for i, name in enumerate(varying) if name in LAWS[job]])
    table.collapse_padding = True
    for column in table.columns:
        column.no_wrap = True
    shown = rows if hint is None else rows[:SWEEP_ROWS]
    for row in shown:
        table.add_row(*(_cell(row.get(name)) for name in varying), *(write(row) for write in results.values()))
    left = (len(rows) if count is None else count) - len(shown)
    more = [f"… and {counted(left, 'more point')}: {hint}"] if left else []
    return [f"[dim]{', '.join(fixed)}[/]", table, *more]


def _varying(job: JobName, rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Names of the parameters that vary among points, and what the others are."""
    families = {law: {row[law].partition(":")[0] for row in rows} for law in LAWS[job]}
    varying, fixed = [], []
    for name in next(iter(even(rows)), {}):
        of, in_law, _ = name.partition(".")
        if of not in job_parameters(job):
            continue
        if len({row.get(name) for row in rows}) > 1:
            # Laws of one family are told apart by their parameters, others by their text.
            if in_law == "" and len(families.get(of, ())) == 1:
                fixed.append(f"{of} {min(families[of])}")
            elif not in_law or len(families[of]) == 1:
                varying.append(name)
        elif not in_law and rows[0][name] is not None:
            fixed.append(f"{name} {rows[0][name]}")
    return varying, fixed


def study_report(
    job: JobName, rows: list[dict[str, Any]], value: str | None, x: str | None, where: Mapping[str, str]
) -> Report:
    """A result of a sweep over one parameter, as a line, or over two, as a family of lines or as a map.

    Parameters
    ----------
    value : str, optional
        The result that is drawn; by default the exponent, or the share of chains that converge.
    x : str, optional
        The parameter to the right; by default the one with the most values.
    where : dict
        Values of parameters, as text: points with other values are left out.

    Raises
    ------
    ValueError
        If there is no such value or parameter, nothing or too much varies, or no point is left.
    """
    value = value or ("lyapunov" if job == "simulate" else "converged")
    for name, wanted in where.items():
        if not any(name in row for row in rows):
            raise ValueError(f"where: unknown parameter {name!r}, expected one of {', '.join(_parameters(job, rows))}")
        rows = [row for row in rows if _is(row.get(name), wanted)]
    if not rows:
        raise ValueError("where: no point has these values")
    results = [name for name in even(rows)[0] if name not in _parameters(job, rows)]
    if value not in results or not any(_is_number(row.get(value)) for row in rows):
        drawable = [name for name in results if any(_is_number(row.get(name)) for row in rows)]
        raise ValueError(f"value: expected one of {', '.join(drawable)}, got {value!r}")
    varying, fixed = _varying(job, rows)
    axes = [name for name in varying if all(_is_number(row.get(name)) for row in rows)]
    if x is not None and x not in axes:
        raise ValueError(
            f"x: expected a parameter whose numbers vary ({', '.join(axes) or 'there is none'}), got {x!r}"
        )
    count = {name: len({row[name] for row in rows}) for name in varying}
    axes.sort(key=lambda name: (name != x, -count[name]))
    others = [name for name in varying if name not in axes[:1]]
    if not axes or len(others) > 1:
        several = f"{', '.join(varying)} vary" if varying else "nothing varies"
        raise ValueError(f"where: {several}; expected one parameter with numbers, and at most one other: fix the rest")

    across, up = axes[0], others[0] if others else None
    shown = [name for name in (across, up) if name is not None]
    right = np.array(sorted({row[across] for row in rows}), dtype=float)
    groups = [None] if up is None else sorted({row[up] for row in rows})
    values = np.full((len(groups), len(right)), np.nan)
    theory = np.full(values.shape, np.nan)
    for row in rows:
        at = 0 if up is None else groups.index(row[up]), int(np.searchsorted(right, row[across]))
        values[at] = np.nan if row.get(value) is None else row[value]
        if value in ("lyapunov", "stationary") and row["theory"] is not None:
            theory[at] = row["theory"]
    label = VALUE_LABELS.get(value, value.replace("_", " "))
    if value.endswith(("_underflow", "_overflow")):
        label = "links until the exact median gradient would {1} in {0}".format(*value.split("_"))
    title = f"{label[0].upper()}{label[1:]} over {' and '.join(shown)}: {counted(len(rows), 'point')} of {job}"
    figure: Figure | Map
    if up is not None and up in axes and len(groups) > SERIES_MAX:
        ends = np.array(groups, dtype=float)
        figure = Map(title, across, up, label, right, ends, values, _is_geometric(right), _is_geometric(ends))
    else:
        names = [value if up is None else f"{up} {_cell(group)}" for group in groups]
        curves = [Curve("series", name, row, color=i) for i, (name, row) in enumerate(zip(names, values, strict=True))]
        lines = [row for row in theory if np.isfinite(row).any()]
        curves += [Curve("theory", "" if k else "theory", row, color=BLACK) for k, row in enumerate(lines)]
        figure = Figure(title, across, label, right, curves, x_log=_is_geometric(right))
    human: list[RenderableType] = [f"[dim]{', '.join(fixed)}[/]"]
    flat = [{name: row.get(name) for name in (*shown, value)} for row in rows]
    result = {"value": value, "axes": shown, "points": flat}
    return Report("plot", {"value": value, "x": across, "where": dict(where)}, result, flat, human, figure)


def _parameters(job: JobName, rows: list[dict[str, Any]]) -> list[str]:
    """Names of what is given, and not found, in the rows of a sweep."""
    return [name for name in even(rows)[0] if name.partition(".")[0] in job_parameters(job)]


def _is(value: Any, wanted: str) -> bool:
    """Whether a parameter has the value that a user wrote."""
    if not _is_number(value):
        return str(value) == wanted
    try:
        return float(wanted) == float(value)
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_geometric(values: NDArray[np.float64]) -> bool:
    """Whether ascending values belong on a logarithmic axis: positive, and denser where they are small."""
    return bool(len(values) > 2 and values[0] > 0 and np.median(values) < (values[0] + values[-1]) / 4)


def _result_columns(job: JobName) -> dict[str, Callable[[dict[str, Any]], str]]:
    """The main results of a point, and how they are written."""
    if job == "train":
        shares = {name: lambda row, name=name: f"{100 * row[name]:.1f} %" for name in STATUSES}
        rest = {name: lambda row, name=name: _cell(row[name]) for name in ("median_loss", "median_step")}
        return {**shares, **{name.replace("_", " "): cell for name, cell in rest.items()}}

    def exponent(row: dict[str, Any]) -> str:
        name, mark = ("lyapunov", "*") if row.get("stationary_link") is None else ("stationary", "")
        mean, stderr = row[name], row[f"{name}_stderr"]
        return f"{'-inf' if mean is None else _with_error(mean, np.nan if stderr is None else stderr)}{mark}"

    def off(row: dict[str, Any]) -> str:
        sigmas = deviation(row)
        return "-" if sigmas is None else f"{sigmas:+.1f}"

    return {
        "exponent": exponent,
        "finite": lambda row: "-inf" if row["lyapunov"] is None else f"{row['lyapunov']:.4g}",
        "theory": lambda row: _cell(row["theory"]),
        "off": off,
        "bound": lambda row: "-" if row["bound_rate"] is None else f"{row['bound_rate']:.3g}",
        "float32": lambda row: _cell(row["float32_underflow"]),
    }


def _theory_lines(job: JobName, rows: list[dict[str, Any]]) -> list[str]:
    """What the columns of a sweep of simulate are, and how far the exponents are from the theory's."""
    if job != "simulate":
        return []
    lines = [
        "[dim]exponent: over the links that have forgotten the start; finite: finite-depth,[/]",
        "[dim]over all links; these, theory and bound in nats per link; off: exponent minus[/]",
        "[dim]theory in standard errors; float32: links until the exact median gradient is[/]",
        "[dim]below its range[/]",
    ]
    if any(row.get("stationary_link") is None for row in rows):
        lines.append("[dim]*: finite-depth, and not compared with theory: the start is not forgotten[/]")
    off = [abs(sigmas) for sigmas in map(deviation, rows) if sigmas is not None]
    if off:
        two, four = (sum(sigmas > limit for sigmas in off) for limit in (2, 4))
        lines.append(f"Of {counted(len(off), 'point')} with a theory {two} are more than 2 off, {four} more than 4.")
    return lines


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def even(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give all rows the same columns, None where one has none; a column that few have stays beside its neighbor."""
    rows = list(rows)
    columns: list[str] = []
    for names in dict.fromkeys(tuple(row) for row in rows):
        at = 0
        for name in names:
            if name in columns:
                at = columns.index(name) + 1
            else:
                columns.insert(at, name)
                at += 1
    return [{name: row.get(name) for name in columns} for row in rows]


def info_report(info: dict[str, Any]) -> Report:
    """What runs here."""
    flat: dict[str, Any] = {}
    for key, value in info.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            flat[key] = value
    table = _table(None, "what", "value", left=(0, 1))
    for key, value in flat.items():
        table.add_row(key, "-" if value is None else str(value))
    rows = [{"what": key, "value": value} for key, value in flat.items()]
    return Report("info", {}, info, rows, [table])
