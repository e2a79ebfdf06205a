"""Figures: one description, drawn in the terminal or into a file."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FILE_TYPES = (".png", ".svg", ".pdf")
# Blue and vermilion of Okabe and Ito, told apart by every kind of color vision; names for terminals of 16 colors.
COLORS = {"gradient": ("#0072B2", "bright_blue"), "bound": ("#D55E00", "bright_red")}


@dataclass(frozen=True)
class Curve:
    """A line over the recorded links, with a band around it if there is one.

    Attributes
    ----------
    kind : {"gradient", "bound"}
        Chooses the color.
    label : str
    y : ndarray
        Decades (log10); what is not finite is left out.
    band : tuple of two ndarrays, optional
        Lower and upper edge.
    """

    kind: str
    label: str
    y: Floats
    band: tuple[Floats, Floats] | None = None


@dataclass(frozen=True)
class Figure:
    """Curves over a common x axis."""

    title: str
    x_label: str
    y_label: str
    x: Floats
    curves: list[Curve] = field(default_factory=list)


def terminal(figure: Figure, width: int, height: int, color: bool) -> str:
    """Draw in Braille dots.

    Parameters
    ----------
    width, height : int
        Of the whole figure, in characters.
    color : bool
        Without it the curves are told apart by their names alone, which stand at their ends either way.
    """
    import plotille

    canvas = plotille.Figure()
    margin = 24  # the axis, its numbers and its name
    canvas.width, canvas.height = max(20, width - margin), height
    canvas.color_mode = "names"
    canvas.with_colors = color
    canvas.origin = False
    canvas.x_label, canvas.y_label = figure.x_label, figure.y_label.split()[0]  # ten characters fit
    canvas.register_label_formatter(float, _tick)
    title = figure.title
    shown = [(curve, thinned(np.flatnonzero(np.isfinite(curve.y)), 8 * width)) for curve in figure.curves]
    if not any(len(kept) for _, kept in shown):
        title += "\n(exactly zero throughout)"
    heights = np.concatenate([curve.y[kept] for curve, kept in shown] + [np.zeros(1)])
    low, high = float(heights.min()), float(heights.max())
    room = 0.08 * (high - low) or 1.0  # for a name, and above it
    canvas.set_x_limits(float(figure.x[0]), float(figure.x[-1]) if figure.x[-1] > figure.x[0] else figure.x[0] + 1.0)
    canvas.set_y_limits(low - 1.5 * room, high + 1.5 * room)
    for curve, kept in shown:
        x, y = figure.x[kept], curve.y[kept]
        if not len(x):
            continue
        name_color = COLORS[curve.kind][1] if color else None
        canvas.plot(x.tolist(), y.tolist(), lc=name_color)
        # The name stands beside the curve, on the side away from the middle of the figure.
        at = len(x) * (1 if curve.kind == "gradient" else 2) // 3  # apart, where two curves coincide
        above = y[at] > (low + high) / 2
        canvas.text([float(x[at])], [float(y[at]) + (room if above else -room)], [curve.label], lc=name_color)
    with _color_as_told(color):
        return f"{title}\n{canvas.show()}"


def thinned(indices: NDArray[np.intp], at_most: int) -> NDArray[np.intp]:
    """Evenly spaced ones of many indices, the first and the last among them."""
    if len(indices) <= at_most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, at_most).astype(np.intp)]


@contextlib.contextmanager
def _color_as_told(color: bool) -> Iterator[None]:
    """Keep plotille from looking at the terminal and at NO_COLOR by itself: the caller has done so."""
    before = {name: os.environ.pop(name, None) for name in ("NO_COLOR", "FORCE_COLOR")}
    os.environ["FORCE_COLOR"] = "1" if color else "0"
    try:
        yield
    finally:
        del os.environ["FORCE_COLOR"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _tick(value: float, chars: int, delta: float, left: bool = False) -> str:
    """Write a tick of an axis that is `delta` long."""
    decimals = next((n for n, length in enumerate((30, 3, 0.3)) if delta >= length), 3)
    text = f"{round(value, decimals) + 0.0:.{decimals}f}"
    return text.ljust(chars) if left else text.rjust(chars)


def check_path(path: str | Path) -> Path:
    """Check that a figure can be written to the path, before a long job is started.

    Raises
    ------
    ValueError
        If its ending is not .png, .svg or .pdf.
    ModuleNotFoundError
        Without matplotlib, with the command that installs it.
    """
    path = Path(path)
    if path.suffix.lower() not in FILE_TYPES:
        raise ValueError(f"plot: expected a file ending in {', '.join(FILE_TYPES)}, got {str(path)!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ModuleNotFoundError("plot: needs matplotlib: pip install 'fastgrad[plot]'") from None
    return path


def save(figure: Figure, path: str | Path) -> None:
    """Draw with matplotlib into a .png, .svg or .pdf file.

    Raises
    ------
    ValueError, ModuleNotFoundError
        See `check_path`.
    OSError
        If the file can't be written.
    """
    path = check_path(path)
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    canvas = Canvas(figsize=(7.2, 4.5), layout="constrained")
    axes = canvas.subplots()
    axes.axhline(0, color="0.8", linewidth=0.8)
    for curve in figure.curves:
        kept = np.isfinite(curve.y)
        color = COLORS[curve.kind][0]
        style = "--" if curve.kind == "bound" else "-"
        alone = "o" if kept.sum() == 1 else None  # a line of one point can't be seen
        # The dashed bound lies above the gradient, so that both are seen where they coincide.
        order = 3 if curve.kind == "bound" else 2
        axes.plot(
            figure.x[kept],
            curve.y[kept],
            color=color,
            linestyle=style,
            marker=alone,
            label=curve.label if curve.band is None else f"{curve.label}, with 5 % to 95 % of chains",
            zorder=order,
        )
        if not kept.any():
            axes.text(0.5, 0.5, f"{curve.label}: exactly zero", transform=axes.transAxes, ha="center", color=color)
        if curve.band is not None:
            inside = np.isfinite(curve.band[0]) & np.isfinite(curve.band[1])
            low, high = (edge[inside] for edge in curve.band)
            axes.fill_between(figure.x[inside], low, high, color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel=figure.x_label, ylabel=figure.y_label)
    axes.set_title(figure.title, fontsize="medium", loc="left", wrap=True)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    canvas.savefig(path, dpi=150)
