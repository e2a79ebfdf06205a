"""Figures in files, by matplotlib."""

from __future__ import annotations

import functools
import io
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.report.document import KINDS, PALETTE, Figure, Map, band_of, cell_edges, curve_label
from fastgrad.report.text import reason_empty

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


FILE_TYPES = (".png", ".svg", ".pdf")
TITLE_WIDTH = 72  # characters: from the axes to the right edge
TITLE_WIDTH_BESIDE_LEGEND = 56  # characters: as wide as axes with a legend to their right
LABEL_WIDTH = 48  # characters: as high as the axes
LEGEND_BELOW = 3  # curves, whose names stand below the figure; those of more stand to its right
LEGEND_WIDTH = 80  # characters, of a line below the figure
NAME_WIDTH = 32  # characters, of a line beside it
MARKED = 60  # points, of a series: so many can be told apart


@functools.cache
def _canvas_class() -> type[Canvas]:
    from matplotlib.figure import Figure as Canvas

    class ShownCanvas(Canvas):
        """A figure that shows itself in a notebook: IPython knows matplotlib's own only once pyplot is imported."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return ShownCanvas


def drawn(figure: Figure | Map) -> Canvas:
    """Draw with matplotlib."""
    canvas = _canvas_class()(figsize=(7.2, 4.5), layout="constrained")
    axes = canvas.subplots()
    if isinstance(figure, Map):
        _draw_map(figure, canvas, axes)
    else:
        _draw_curves(figure, axes)
    axes.set(xlabel=figure.x_label, ylabel=_wrapped(figure.y_label, LABEL_WIDTH))
    title_width = TITLE_WIDTH_BESIDE_LEGEND if _has_legend_beside(figure) else TITLE_WIDTH
    axes.set_title(_wrapped(figure.title, title_width), fontsize="medium", loc="left")
    return canvas


def save(figure: Figure | Map, file: Path, form: str) -> None:
    """Draw into a file, in a format of `FILE_TYPES`."""
    drawn(figure).savefig(file, dpi=150, format=form)


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines of at most so many characters: matplotlib would run out of the figure."""
    return "\n".join(textwrap.wrap(text, width))


def _has_legend_beside(figure: Figure | Map) -> bool:
    """Tell if the names of the curves are so many that they stand to the right."""
    return isinstance(figure, Figure) and sum(bool(curve.label) for curve in figure.curves) > LEGEND_BELOW


def _draw_curves(figure: Figure, axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    if any(curve.kind == "gradient" for curve in figure.curves):
        axes.axhline(0, color="0.8", linewidth=0.8)
    many = _has_legend_beside(figure)
    for curve in figure.curves:
        kept = np.isfinite(curve.y)
        color = curve.colors[0]
        _, style, _ = KINDS[curve.kind]
        if curve.color is not None and curve.color >= len(PALETTE):  # the colors come round again
            style = "--"
        alone = "o" if kept.sum() == 1 else None  # a line of one point can't be seen
        if curve.kind == "series" and len(figure.x) <= MARKED:
            alone = "."
        label = _wrapped(curve_label(curve, figure), NAME_WIDTH if many else LEGEND_WIDTH)
        # A broken line lies above the whole ones, so that both are seen where they coincide.
        order = 2 if style == "-" else 3
        axes.plot(
            figure.x[kept],
            curve.y[kept],
            color=color,
            linestyle=style,
            marker=alone,
            label=label or None,
            zorder=order,
        )
        if not kept.any():
            text = _wrapped(f"{curve.label}: {reason_empty([curve])}", TITLE_WIDTH)
            axes.text(0.98, 0.95, text, transform=axes.transAxes, ha="right", va="top", color=color)
        if curve.band is not None:
            axes.fill_between(*band_of(curve, figure), color=color, alpha=0.2, linewidth=0)
    axes.margins(x=0.01)
    bottom, top = axes.get_ylim()
    if any(curve.kind == "loss" for curve in figure.curves) and top - bottom < 1:  # see `terminal`
        axes.set_ylim((bottom + top) / 2 - 0.5, (bottom + top) / 2 + 0.5)
    if figure.x_log:
        axes.set_xscale("log")
    elif np.array_equal(figure.x, np.round(figure.x)):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    named = [curve for curve in figure.curves if curve.label]
    in_one_line = sum(len(curve_label(curve, figure)) + 8 for curve in named) <= LEGEND_WIDTH
    axes.figure.legend(
        frameon=False,
        loc="outside right center" if many else "outside lower center",  # off the data
        ncols=len(named) if in_one_line and named and not many else 1,
        fontsize="small" if many else "medium",
    )


def _draw_map(figure: Map, canvas: Canvas, axes: Axes) -> None:
    edges = cell_edges(figure.x, figure.x_log), cell_edges(figure.y, figure.y_log)
    axes.set_facecolor("0.85")  # where there is no value
    mesh = axes.pcolormesh(*edges, np.ma.masked_invalid(figure.values), cmap="viridis", rasterized=True)
    if figure.x_log:
        axes.set_xscale("log")
    if figure.y_log:
        axes.set_yscale("log")
    canvas.colorbar(mesh, ax=axes, label=_wrapped(figure.value_label, LABEL_WIDTH))
