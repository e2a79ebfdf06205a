"""Results in notebooks: a small table with a sparkline, and matplotlib's figure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report import image
from fastgrad.report.document import PALETTE, Curve, Figure
from fastgrad.report.figures import require
from fastgrad.report.simulate import growth_figure
from fastgrad.report.text import factor_text, percent, plural, power_of_ten, with_error
from fastgrad.report.train import loss_figure
from fastgrad.summary import evenly_spaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas
    from numpy.typing import NDArray

    from fastgrad.jobs.backprop import Gradients
    from fastgrad.jobs.growth import Growth
    from fastgrad.jobs.train import Training
    from fastgrad.torch.measurement import Measurement

    Floats = NDArray[np.float64]

LINKS_SHOWN = 200  # of given chains
SPARK_WIDTH, SPARK_HEIGHT = 220, 44  # pixels


def growth_html(growth: Growth) -> str:
    """Show a result of `simulate`."""
    each = "link" if growth.is_chain else "layer"
    what = plural(growth.ensemble, "chain" if growth.is_chain else "network")
    of = "" if growth.is_chain else f" of {plural(growth.width, f'{growth.nonlinearity} unit')}"
    mean, stderr = growth.lyapunov
    theory = growth.beside_theory().theory
    rows = [
        ("", f"{what}, {plural(growth.depth, each)}{of}"),
        ("weight, bias", f"{growth.weight}, {growth.bias}"),
        ("exponent", f"{with_error(mean, stderr)} nats per {each}" if np.isfinite(mean) else "minus infinity"),
        ("theory", "-" if theory.lyapunov is None else f"{theory.lyapunov:.6g} ({theory.holds_for})"),
        ("factor", f"{factor_text(mean)} a {each}"),
        ("gradient", f"{power_of_ten(growth.log10_curve['adjoint']['q50'][0])} at the first {each}, median"),
    ]
    return _table("Growth", rows, growth.log10_curve["adjoint"]["q50"], f"log10 |gradient| against the {each}")


def training_html(training: Training) -> str:
    """Show a result of `train`."""
    summary = training.summary()
    shares = ", ".join(f"{name} {percent(share)}" for name, share in summary["share"].items() if share)
    median = training.log10_loss["q50"]
    rows = [
        ("", f"{plural(summary['ensemble'], 'chain')}, {plural(int(training.step[-1]), 'step')}"),
        ("outcome", shares),
        ("loss", f"{power_of_ten(median[0])} at first, {power_of_ten(median[-1])} at last, median"),
    ]
    return _table("Training", rows, median, "log10 loss against the step")


def gradients_html(gradients: Gradients) -> str:
    """Show a result of `backprop`."""
    medians = _medians(gradients, "grad_weight")
    ensemble = np.size(gradients.output)
    rows = [
        ("", f"{plural(ensemble, 'chain')}, {plural(len(gradients.grad_weight), 'link')}"),
        (
            "|dloss/dw|",
            f"{power_of_ten(medians[0])} at the first link, {power_of_ten(medians[-1])} at the last, median",
        ),
        ("backend", gradients.backend),
    ]
    return _table("Gradients", rows, medians, "log10 |dloss/dw| against the link")


def measurement_html(measured: Measurement) -> str:
    """Show a result of `fastgrad.torch.measure`."""
    mean, stderr = measured.decades_per_layer
    lost = ", ".join(f"{name} at {where}" for name, where in measured.first_lost.items() if where is not None)
    heights = measured.heights()
    log10 = heights.get("output", heights.get("parameters", np.empty(0)))
    rows = [
        ("", f"{measured.model}, loss {measured.loss:.6g}"),
        ("growth", f"{with_error(mean, stderr)} decades a layer" if np.isfinite(mean) else "-"),
        ("lost first", lost or "nowhere"),
    ]
    return _table("Measurement", rows, log10, "log10 |gradient| against the layer")


def _canvas(figure: Figure) -> Canvas:
    """Draw with matplotlib.

    Raises
    ------
    ModuleNotFoundError
        Without it, with the command that installs it.
    """
    require("matplotlib", "plot", "plot:")
    return image.drawn(figure)


def growth_plot(growth: Growth) -> Canvas:
    """Draw the curves of `fastgrad simulate`."""
    return _canvas(growth_figure(growth))


def training_plot(training: Training) -> Canvas:
    """Draw the curve of `fastgrad train`."""
    return _canvas(loss_figure(training, plural(training.summary()["ensemble"], "chain")))


def gradients_plot(gradients: Gradients) -> Canvas:
    """Draw the medians of the gradients against the link."""
    names = ("grad_weight", "grad_bias")
    curves = [Curve("series", name, _medians(gradients, name), color=i) for i, name in enumerate(names)]
    links = _links(gradients).astype(np.float64) + 1
    figure = Figure("log10 |gradient| against the link: median", "link", "log10 |gradient|", links, curves)
    return _canvas(figure)


def _links(gradients: Gradients) -> NDArray[np.int64]:
    return evenly_spaced(len(gradients.grad_weight), LINKS_SHOWN)


def _medians(gradients: Gradients, name: str) -> Floats:
    """Median over chains of log10 of the magnitude, at evenly spaced links."""
    links = _links(gradients)
    log10 = getattr(gradients, name)[links].log10().reshape(len(links), -1)
    medians: Floats = np.quantile(log10, 0.5, axis=1, method="inverted_cdf")
    return medians


def _table(name: str, rows: list[tuple[str, Any]], values: Floats, title: str) -> str:
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(what)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for what, value in rows
    )
    caption = f'<caption style="text-align:left"><strong>{name}</strong></caption>'
    return f"<table>{caption}{cells}<tr><th></th><td>{_sparkline(values, title)}</td></tr></table>"


def _sparkline(values: Floats, title: str) -> str:
    """Draw a line of values, evenly spaced, as SVG; what is not finite is left out."""
    kept = np.flatnonzero(np.isfinite(values))
    if len(kept) < 2:
        return ""
    low, high = values[kept].min(), values[kept].max()
    x = 2 + (SPARK_WIDTH - 4) * kept / (len(values) - 1)
    y = 2 + (SPARK_HEIGHT - 4) * (high - values[kept]) / ((high - low) or 1)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg width="{SPARK_WIDTH}" height="{SPARK_HEIGHT}" role="img"><title>{html.escape(title)}</title>'
        f'<polyline points="{points}" fill="none" stroke="{PALETTE[0][0]}" stroke-width="1.5"/></svg>'
    )
