"""How the gradient of an ensemble grows or vanishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.jobs import framework
from fastgrad.jobs.growth import NOT_FORGOTTEN
from fastgrad.report.document import Curve, Figure, Report
from fastgrad.report.text import TABLE_ROWS, away_text, factor_text, plural, power_of_ten, table_of, with_error
from fastgrad.theory import predict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fastgrad.jobs.growth import Growth
    from fastgrad.theory import Prediction


STATISTICS_BYTES = 2000  # of a recorded link: 24 numbers in lists and arrays, and their copies


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
    table = table_of(
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
        band = () if single else (f"{power_of_ten(adjoint['q05'][i])} … {power_of_ten(adjoint['q95'][i])}",)
        table.add_row(str(growth.link[i]), power_of_ten(adjoint["q50"][i]), *band, power_of_ten(bound["q50"][i]))

    chains = plural(growth.ensemble, "chain")
    human: list[RenderableType] = [
        f"{chains} of {plural(growth.depth, 'link')}, weight {growth.weight}, bias {growth.bias}, seed {growth.seed}",
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
            f"[bold]Lyapunov exponent {with_error(mean, stderr)} nats per link[/]: a factor {factor_text(mean)} a link."
        )
        if forgotten:
            finite = with_error(*growth.lyapunov)
            lines.append(f"   from link {growth.stationary_link} on, the start forgotten; finite-depth: {finite}")
        else:
            lines.append(f"   finite-depth, over all {plural(growth.depth, 'link')}")
        if theory.lyapunov is not None:
            sigmas = growth.deviation(theory.lyapunov)
            lines.append(f"   theory of an endless chain {theory.lyapunov:.6f}{away_text(sigmas)}")
            if not forgotten:
                lines.append(f"   [dim]not compared: {NOT_FORGOTTEN}[/]")
    if rate is not None:
        lines.append(f"Textbook's bound  {rate:.6g} nats per link: a factor {factor_text(rate)} a link.")
    if rate is not None and theory.bound.variance:
        error = np.sqrt(theory.bound.variance / (growth.depth * growth.ensemble))
        lines.append(f"   theory {theory.bound.mean:.6g}{away_text((rate - theory.bound.mean) / error)}")
    if theory.why_not is not None:
        lines.append(f"[dim]no theory of the exponent: {theory.why_not}[/]")
    return lines


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
    table = table_of(None, "format", "exact gradient leaves its range", "a framework reads 0 or inf")
    for name, exact in first_depth.items():
        table.add_row(name, cell(exact, growth.depth), cell(growth.framework_depth[name], searched))
    return [
        f"Links back from the output until the {gradient} is lost:",
        table,
        "[dim]exact: rounding it to the format gives 0 or inf; framework: backprop in the[/]",
        f"[dim]format itself as PyTorch does it, with o (1 - o), on {chains}[/]",
    ]


def growth_bytes(depth: int, record: int) -> int:
    """Memory of the statistics of recorded links, which `fastgrad simulate` holds beside the records."""
    return STATISTICS_BYTES * max(0, min(depth, record))
