"""How results read: as tables and plots for a person, as JSON and CSV for a program."""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from fastgrad.info import provenance
from fastgrad.plot import Curve, Figure, terminal
from fastgrad.scaled import Scaled, json_ready

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console, RenderableType

    from fastgrad.backprop import Gradients
    from fastgrad.chain import Chain
    from fastgrad.compare import Comparison
    from fastgrad.example import Example
    from fastgrad.simulate import Growth

Format = Literal["table", "json", "csv"]
SCHEMA = "fastgrad/1"
TABLE_ROWS = 10
PLOT_HEIGHT = 16
PLOT_WIDTH = 78
TABLE_WIDTH = 80


@dataclass
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
        The CSV; made when it is written.
    human : list
        Rich renderables: what a person reads.
    figure : Figure, optional
        Drawn below the tables, or into a file.
    backend, seed : optional
        For the provenance.
    arrays : dict
        What an .npz file gets.
    """

    command: str
    parameters: dict[str, Any]
    result: dict[str, Any]
    rows: Iterable[dict[str, Any]]
    human: list[RenderableType]
    figure: Figure | None = None
    backend: str | None = None
    seed: int | None = None
    arrays: dict[str, Any] = field(default_factory=dict)


def write(report: Report, form: Format | Literal["npz"], output: str | None, color: bool | None) -> None:
    """Write a report to a file, or to stdout where `output` is None or ``-``.

    A regular file is written whole or not at all. `color`: True, False, or None to let the terminal decide.

    Raises
    ------
    ValueError
        If an .npz is wanted on stdout.
    OSError
        If it can't be written.
    """
    if output is None or output == "-":
        if form == "npz":
            raise ValueError("format: npz is written to a file only, expected -o FILE.npz")
        if sys.stdout is None:
            raise OSError("stdout is closed")
        _write_text(report, form, sys.stdout, color)
        sys.stdout.flush()
        return
    if Path(output).exists() and not Path(output).is_file():  # a pipe or a device is written to, never replaced
        _write_file(report, form, Path(output), color)
        return
    target = Path(os.path.realpath(output))  # a symbolic link stays one
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    part = Path(name)
    try:
        _write_file(report, form, part, color)
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~umask)
        part.replace(target)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, output) from None
    finally:
        part.unlink(missing_ok=True)


def _write_file(report: Report, form: Format | Literal["npz"], path: Path, color: bool | None) -> None:
    if form == "npz":
        with path.open("wb") as file:
            np.savez(file, **report.arrays)
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
            "provenance": provenance(report.backend, report.seed),
            "result": report.result,
        }
        json.dump(json_ready(document), file, allow_nan=False, indent=2)
        file.write("\n")
    else:
        rows = iter(report.rows)
        first = next(rows)
        writer = csv.DictWriter(file, list(first), lineterminator="\n")
        writer.writeheader()
        writer.writerow(first)
        writer.writerows(rows)


def _print(report: Report, file: IO[str], color: bool | None) -> None:
    from rich.console import Console

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
    console.width = max(console.width, TABLE_WIDTH)
    for part in report.human:
        console.print(part)
    if report.figure is not None:
        _print_figure(report.figure, console)


def _print_figure(figure: Figure, console: Console) -> None:
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
    return grouped(as_float) if 1e-3 <= abs(as_float) < 1e15 else format(value, ".3e")


def _scaled_json(value: Scaled) -> dict[str, Any]:
    """Full precision, and for readers its decimal logarithm and a rounded text."""
    return {
        "mantissa": value.mantissa,
        "exponent": value.exponent,
        "log10": value.log10(),
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

    next_step = [
        f"z11 is now {grouped(example.preactivation_after)}, where sigmoid' is {_scaled_text(example.slope_after)}.",
        f"gradient   {gradient_text} -> {_scaled_text(after)}",
        f"loss       {grouped(example.loss)} -> {grouped(example.loss_after)}",
        "The loss stays there: no further step moves this weight."
        if _negligible(after, example.weight_after, example.learning_rate)
        else "The weight still moves.",
    ]
    if not np.isfinite(example.preactivation_after):
        what = "The weight" if not np.isfinite(example.weight_after) else "Its preactivation z11"
        next_step = [f"{what} has left float64: there is no next step."]
    lesson = _table(None, "weights", "biases", "links until float32 reads 0", left=(0, 1))
    for (weight_law, bias_law), links in example.float32_links.items():
        lesson.add_row(weight_law, bias_law, f"more than {example.lesson_depth}" if links is None else str(links))
    human: list[RenderableType] = [
        "Three sigmoid units in a row, o11 -> o21 -> o31, and the loss (o31 - y)² / 2.",
        f"x = 200, y = -149.5, w = {', '.join(map(grouped, w))}, b = {', '.join(map(grouped, b))}",
        "",
        "[bold]1. The textbook's gradient.[/] The biases are centered: every preactivation",
        "z = w o + b is 0, where the sigmoid's derivative is 1/4, the most it can be.",
        "So each link multiplies by w/4:",
        factors,
        f"[bold]2. One step of gradient descent[/], learning rate {example.learning_rate:g}:",
        f"   w11 = {grouped(w[0])} - {example.learning_rate:g} x {gradient_text} = [bold]{after_text}[/]",
        "",
        "[bold]3. What the true sigmoid does next[/] (the bias is kept).",
        *(f"   {line}" for line in next_step),
        "",
        "[bold]4. The same weights with every bias 0 instead of centered.[/]",
        f"   the bound   {_scaled_text(example.zero_bias_bound)}: still {grouped(abs(w[1]) / 4)} a link",
        f"   the truth   {_scaled_text(example.zero_bias_gradient)}",
        "",
        "[bold]5. What an initialization does[/]: the median gradient of 1000 drawn chains.",
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
        "bound": float(example.bound),
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
            {"weight": weight_law, "bias": bias_law, "links": links}
            for (weight_law, bias_law), links in example.float32_links.items()
        ],
        "zero_bias": {
            "bound": _scaled_json(example.zero_bias_bound),
            "gradient": _scaled_json(example.zero_bias_gradient),
        },
    }
    rows: list[dict[str, Any]] = [{"quantity": name, "value": float(f)} for name, f in example.factors.items()]
    rows += [
        {"quantity": "dloss/dw11", "value": gradient},
        {"quantity": "w11 before", "value": w[0]},
        {"quantity": "w11 after", "value": example.weight_after},
        {"quantity": "dloss/dw11 after", "value": format(after, ".16e")},
        {"quantity": "loss before", "value": example.loss},
        {"quantity": "loss after", "value": example.loss_after},
        {"quantity": "bound with bias 0", "value": float(example.zero_bias_bound)},
        {"quantity": "dloss/dw11 with bias 0", "value": format(example.zero_bias_gradient, ".16e")},
    ]
    return Report("example", parameters, result, rows, human, backend=example.backend)


def _negligible(gradient: Scaled, weight: float, learning_rate: float) -> bool:
    """Whether a step of gradient descent leaves the weight as it is."""
    return np.isfinite(weight) and weight - learning_rate * float(gradient) == weight


def growth_report(growth: Growth, parameters: dict[str, Any]) -> Report:
    """How the gradient of an ensemble grows or vanishes."""
    summary = growth.summary()
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
        *_exponent_lines(growth, summary),
        *_failure_lines(summary["first_depth"], growth.depth, "gradient" if single else "median gradient"),
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
    rows = [
        {
            "link": int(link),
            **{f"log10_{name}_{key}": values[i] for name, of in curve.items() for key, values in of.items()},
        }
        for i, link in enumerate(growth.link)
    ]
    return Report("simulate", parameters, summary, rows, human, figure, growth.backend, growth.seed)


def _exponent_lines(growth: Growth, summary: dict[str, Any]) -> list[str]:
    mean, stderr = growth.lyapunov
    rate = summary["bound_rate"]
    lines = []
    if not np.isfinite(mean):
        lines.append("Lyapunov exponent: minus infinity, a gradient is exactly zero.")
    else:
        lines.append(
            f"[bold]Lyapunov exponent {_with_error(mean, stderr)} nats per link[/]: a factor {_factor(mean)} a link."
        )
    if rate is not None:
        lines.append(f"Textbook's bound  {rate:.6g} nats per link: a factor {_factor(rate)} a link.")
    return lines


def _with_error(mean: float, stderr: float) -> str:
    """Write a mean with as many decimals as its standard error has in two digits."""
    if not np.isfinite(stderr) or stderr < 1e-12 * abs(mean) or stderr == 0:
        return f"{mean:.6g}"
    decimals = max(0, 1 - int(np.floor(np.log10(stderr))))
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"


def _factor(nats: float) -> str:
    return f"{np.exp(nats):.3g}" if abs(nats) < 50 else decades(nats / np.log(10))


def _failure_lines(first_depth: dict[str, dict[str, int | None]], depth: int, gradient: str) -> list[str]:
    lines = []
    for event, reads in (("underflow", "0"), ("overflow", "inf")):
        failed = [f"{name} {links[event]}" for name, links in first_depth.items() if links[event] is not None]
        if failed:
            lines += [f"Links until the {gradient} reads {reads}:", f"   {', '.join(failed)}"]
    return lines or [f"Every float format holds the {gradient} over {counted(depth, 'link')}."]


def gradients_report(chain: Chain, gradients: Gradients, log10_bound: Any, parameters: dict[str, Any]) -> Report:
    """Gradients of a given chain or ensemble."""
    depth, ensemble = chain.depth, chain.ensemble
    log10 = {
        "grad_weight": gradients.grad_weight.log10().reshape(depth, ensemble),
        "grad_bias": gradients.grad_bias.log10().reshape(depth, ensemble),
        "bound": log10_bound,
    }
    typical = {name: np.quantile(v, 0.5, axis=1, method="inverted_cdf") for name, v in log10.items()}
    of_chains = "" if ensemble == 1 else ", median"
    names = ("grad_weight", "grad_bias") if ensemble == 1 else ("|grad_weight|, median", "|grad_bias|, median")
    table = _table(None, "link", *names, f"bound{of_chains}", left=())
    for i in np.unique(np.linspace(0, depth - 1, TABLE_ROWS).round().astype(int)):
        cells = [decades(values[i]) for values in typical.values()]
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
    figure = Figure(
        title=f"log10 |gradient| against the link: {chains} from {parameters['file']}",
        x_label="link",
        y_label="log10 |gradient|",
        x=np.arange(1.0, depth + 1),
        curves=[
            Curve("bound", "bound", typical["bound"]),
            Curve("gradient", "grad_bias", typical["grad_bias"]),
        ],
    )
    parts = {"grad_weight": gradients.grad_weight, "grad_bias": gradients.grad_bias, "grad_x": gradients.grad_x}
    arrays: dict[str, Any] = {"output": gradients.output}
    for name, scaled in parts.items():
        arrays[f"{name}_mantissa"], arrays[f"{name}_exponent"] = scaled.mantissa, scaled.exponent
    result = {"output": gradients.output, **{name: _scaled_json(scaled) for name, scaled in parts.items()}}
    rows = _gradient_rows(gradients, log10, depth, ensemble)
    return Report("backprop", parameters, result, rows, human, figure, gradients.backend, arrays=arrays)


def chain_item(values: Any) -> Any:
    """The one value of an array of one."""
    return np.asarray(values).reshape(-1)[0]


def _gradient_rows(gradients: Gradients, log10: dict[str, Any], depth: int, ensemble: int) -> Iterator[dict[str, Any]]:
    parts = {
        f"{name}_{part}": getattr(getattr(gradients, name), part).reshape(depth, ensemble)
        for name in ("grad_weight", "grad_bias")
        for part in ("mantissa", "exponent")
    }
    columns = {**parts, **{f"log10_{name}": values for name, values in log10.items()}}
    for link in range(depth):
        for member in range(ensemble):
            yield {
                "link": link + 1,
                **({"member": member} if ensemble > 1 else {}),
                **{name: values[link, member].item() for name, values in columns.items()},
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
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


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
