"""Report of `fastgrad simulate`: growth of the gradient through an ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.jobs.framework import searched_by_framework
from fastgrad.jobs.growth import NOT_FORGOTTEN
from fastgrad.report.document import Cell, Curve, Figure, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import (
    TABLE_ROWS,
    away_text,
    decades_factor_text,
    factor_text,
    percent,
    plural,
    power_of_ten,
    with_error,
)
from fastgrad.summary import evenly_spaced

if TYPE_CHECKING:
    from fastgrad.jobs.growth import BesideTheory, Growth


GRADIENT = "gradient: of the chain's output with respect to the link's input, do_L/do_(l-1)"
GRADIENT_OF_LAYERS = "gradient: of c·o_L with respect to the layer's input, c a random unit vector"
STATISTICS_BYTES = 2000  # bytes, of a recorded link: 24 numbers in lists and arrays, and their copies


def _fixed(value: float) -> str:
    return f"{value:.4f}"


WRITTEN = {
    "log10_length": decades_factor_text,
    "log10_mean_activation": decades_factor_text,
    "saturated": percent,
    "dead": percent,
    "correlation": _fixed,
}


def growth_report(growth: Growth, parameters: dict[str, Any]) -> Report:
    """Report how the gradient of an ensemble grows or vanishes."""
    summary = growth.summary()
    beside = growth.beside_theory()
    theory = beside.theory
    single = growth.ensemble == 1
    chain = growth.is_chain
    link, one, gradient, chains, of = _words(growth)
    adjoint, bound = growth.log10_curve["adjoint"], growth.log10_curve["bound"]
    if single:
        table = Table(numbers(link, gradient, "bound"))
    else:
        table = Table(
            numbers(link, f"{gradient}, median", f"5 % to 95 % of {one}s", f"bound{', median' if chain else ''}")
        )
    for i in evenly_spaced(len(growth.link), TABLE_ROWS):
        low, median, high = (adjoint[key][i].item() for key in ("q05", "q50", "q95"))
        band = [] if single else [Cell(low, f"{power_of_ten(low)} … {power_of_ten(high)}")]
        table.add(Cell.of(growth.link[i]), Cell.of(median, power_of_ten), *band, Cell.of(bound["q50"][i], power_of_ten))

    laws = f"weight {growth.weight}, bias {growth.bias}"
    zeros = []
    if summary["zero_share"]:
        zeros.append(Text(f"Exactly zero: {100 * summary['zero_share']:.3g} % of the recorded gradients."))
    content: list[Part] = [
        Text(f"{chains} of {plural(growth.depth, link)}{of}, {laws}, seed {growth.seed}"),
        Text(GRADIENT if chain else GRADIENT_OF_LAYERS, "note"),
        table,
        *_layers_table(growth),
        *_exponent_lines(growth, summary, beside),
        *_failures(growth, summary["first_depth"], "gradient" if single else "median gradient"),
        *zeros,
        Text(f"backend {growth.backend}", "note"),
        growth_figure(growth),
    ]
    curve = growth.log10_curve
    block = {f"log10_{name}_{key}": values for name, columns in curve.items() for key, values in columns.items()}
    rows = [{"link": growth.link, **block, **growth.layer_means}]
    result = {
        **summary,
        **({"framework_depth": growth.framework_depth} if chain else {}),
        "theory": {
            "lyapunov": theory.lyapunov,
            "standard_errors": beside.deviation,
            **({} if beside.why_not is None else {"standard_errors_why": beside.why_not}),
            **({} if theory.why_not is None else {"lyapunov_why": theory.why_not}),
            "bound_rate": theory.bound.mean,
            "bound_variance": theory.bound.variance,
            **({} if chain else {"holds_for": theory.holds_for, "at_width": theory.at_width}),
            **({} if chain else {"is_too_narrow": theory.is_too_narrow}),
        },
    }
    return Report("simulate", parameters, result, rows, content, growth.backend, growth.seed)


def growth_figure(growth: Growth) -> Figure:
    """The gradient against the link, with its bound and the line that theory draws."""
    single, chain = growth.ensemble == 1, growth.is_chain
    link, one, gradient, chains, of = _words(growth)
    adjoint, bound = growth.log10_curve["adjoint"], growth.log10_curve["bound"]
    label = "gradient" if single else "gradient (median)"
    figure = Figure(
        title=f"log10 {gradient} against the {link}{of}: {growth.weight}, bias {growth.bias}, {chains}",
        x_label=link,
        y_label=f"log10 {gradient}",
        x=growth.link.astype(float),
        members=f"{one}s",
        curves=[
            Curve(
                "bound",
                "bound" if single or not chain else "bound (median)",
                bound["q50"],
                None if single or not chain else (bound["q05"], bound["q95"]),
            ),
            Curve("gradient", label, adjoint["q50"], None if single else (adjoint["q05"], adjoint["q95"])),
        ],
    )
    of_theory = growth.beside_theory().log10_adjoint
    if of_theory is not None:
        figure.curves.append(Curve("theory", "theory", of_theory))
    return figure


def _words(growth: Growth) -> tuple[str, str, str, str, str]:
    """Words for a link, a member, the size of a gradient, the ensemble, and the units that links are made of."""
    if growth.is_chain:
        return "link", "chain", "|gradient|", plural(growth.ensemble, "chain"), ""
    units = f" of {plural(growth.width, f'{growth.nonlinearity} unit')}"
    return "layer", "network", "norm of the gradient", plural(growth.ensemble, "network"), units


def _layers_table(growth: Growth) -> list[Text | Table]:
    """Means over networks of what layers do to their inputs."""
    means = growth.layer_means
    if not means:
        return []
    labels = {"log10_length": "|z|²/n", "log10_mean_activation": "|mean activation|"}
    if growth.nonlinearity in ("sigmoid", "tanh"):
        labels["saturated"] = "saturated units"
    if growth.nonlinearity == "relu":
        labels["dead"] = "dead units"
    if "correlation" in means:
        labels["correlation"] = "correlation of the inputs"
    table = Table(numbers("layer", *labels.values()))
    for i in evenly_spaced(len(growth.link), TABLE_ROWS):
        values = {name: means[name][i].item() for name in labels}
        table.add(Cell.of(growth.link[i]), *(Cell.of(value, WRITTEN[name]) for name, value in values.items()))
    return [Text(f"Means over the {'network' if growth.ensemble == 1 else 'networks'}:"), table]


def _theory_name(growth: Growth, beside: BesideTheory) -> str:
    if growth.is_chain:
        return "an endless chain"
    return f"layers of {'any width' if beside.theory.holds_for == 'every width' else 'n -> infinity units'}"


def _exponent_lines(growth: Growth, summary: dict[str, Any], beside: BesideTheory) -> list[Text]:
    """Exponent and bound, each beside its theory."""
    theory = beside.theory
    forgotten = growth.stationary_link is not None and np.isfinite(growth.stationary.mean)
    mean, stderr = growth.stationary if forgotten else growth.lyapunov
    rate = summary["bound_rate"]
    link = "link" if growth.is_chain else "layer"
    lines = []
    if not np.isfinite(mean):
        lines.append(Text("Lyapunov exponent: minus infinity, a gradient is exactly zero."))
    else:
        exponent = f"Lyapunov exponent {with_error(mean, stderr)} nats per {link}"
        lines.append(Text.emphasizing("", exponent, f": a factor {factor_text(mean)} a {link}."))
        if forgotten:
            finite = with_error(*growth.lyapunov)
            lines.append(Text(f"   from link {growth.stationary_link} on, the start forgotten; finite-depth: {finite}"))
        else:
            lines.append(Text(f"   finite-depth, over all {plural(growth.depth, link)}"))
        if theory.lyapunov is not None:
            away = away_text(beside.deviation)
            lines.append(Text(f"   theory of {_theory_name(growth, beside)} {theory.lyapunov:.6f}{away}"))
            if theory.at_width is not None:
                lines.append(Text(f"   of {growth.width} units, to order 1/n, {theory.at_width:.6f}"))
            elif theory.is_too_narrow:
                lines.append(Text(f"   {growth.width} units are too few for it to say much", "note"))
            if growth.is_chain and not forgotten:
                lines.append(Text(f"   not compared: {NOT_FORGOTTEN}", "note"))
    if rate is not None:
        if growth.is_chain:
            lines.append(Text(f"Textbook's bound  {rate:.6g} nats per link: a factor {factor_text(rate)} a link."))
        else:
            lines.append(Text(f"Bound  {rate:.6g} nats per layer: a factor {factor_text(rate)} a layer."))
            of = "the largest singular value as n -> infinity" if growth.width > 1 else "a typical |w|, exp(E ln|w|)"
            lines.append(Text(f"   {of}, times the largest slope", "note"))
    if beside.bound_deviation is not None:
        lines.append(Text(f"   theory {theory.bound.mean:.6g}{away_text(beside.bound_deviation)}"))
    if theory.why_not is not None:
        lines.append(Text(f"no theory of the exponent: {theory.why_not}", "note"))
    return lines


def _failures(growth: Growth, first_depth: dict[str, dict[str, int | None]], gradient: str) -> list[Text | Table]:
    """Links back from the output after which each float format has lost the gradient, exact and in its arithmetic."""

    def cell(events: dict[str, int | None], searched: int) -> Cell:
        for event, mark in (("underflow", ""), ("overflow", " (inf)")):
            if events[event] is not None:
                return Cell(events[event], f"{events[event]}{mark}")
        return Cell(np.inf, f"not in {searched}")

    if not growth.is_chain:
        table = Table([*words("format"), *numbers("exact gradient leaves its range")])
        for name, exact in first_depth.items():
            table.add(name, cell(exact, growth.depth))
        return [Text(f"Layers back from the output until the {gradient} is lost:"), table]
    searched, run = searched_by_framework(growth.depth, growth.ensemble)
    chains = "this chain" if growth.ensemble == 1 else f"{'the first' if run < growth.ensemble else 'all'} {run} chains"
    table = Table([*words("format"), *numbers("exact gradient leaves its range", "a framework reads 0 or inf")])
    for name, exact in first_depth.items():
        table.add(name, cell(exact, growth.depth), cell(growth.framework_depth[name], searched))
    return [
        Text(f"Links back from the output until the {gradient} is lost:"),
        table,
        Text(
            "exact: rounding it to the format gives 0 or inf; framework: backprop in the\n"
            f"format itself as PyTorch does it, with o (1 - o), on {chains}",
            "note",
        ),
    ]


def growth_bytes(depth: int, record: int) -> int:
    """Memory of the statistics of recorded links, which `fastgrad simulate` holds beside the records."""
    return STATISTICS_BYTES * max(0, min(depth, record))
