"""Figures: one description, drawn in the terminal or into a file."""

from __future__ import annotations

import contextlib
import os
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FILE_TYPES = (".png", ".svg", ".pdf")
# Of Okabe and Ito, told apart by every kind of color vision; names for terminals of 16 colors.
PALETTE = (
    ("#0072B2", "bright_blue"),
    ("#D55E00", "bright_red"),
    ("#009E73", "bright_green"),
    ("#CC79A7", "bright_magenta"),
    ("#E69F00", "bright_yellow"),
    ("#56B4E9", "bright_cyan"),
    ("#000000", "white"),
)
BLACK = 6
# Color and line of each kind of curve, and where along it its name stands in a terminal.
KINDS = {
    "gradient": (0, "-", 1 / 3),
    "bound": (1, "--", 2 / 3),
    "theory": (2, ":", 5 / 6),
    "loss": (0, "-", 1 / 2),
    "series": (0, "-", 1 / 2),
}
MARKED = 60  # points of a series: so many can be told apart
DRAWABLE = 1e-200, 1e200  # matplotlib's margins would leave float64
SHADES = " ·:-=+*#%@"  # of a map in a terminal, from its lowest value to its highest


@dataclass(frozen=True)
class Curve:
    """A line over the figure's x, with a band around it if there is one.

    Attributes
    ----------
    kind : {"gradient", "bound", "theory", "loss", "series"}
        Chooses color and line.
    label : str
        Empty for a curve that needs no name.
    y : ndarray
        What is not finite is left out.
    band : tuple of two ndarrays, optional
        Lower and upper edge: 5 % and 95 % of chains.
    color : int, optional
        Place in the palette, instead of the kind's own.
    """

    kind: str
    label: str
    y: Floats
    band: tuple[Floats, Floats] | None = None
    color: int | None = None

    @property
    def colors(self) -> tuple[str, str]:
        """Color for files, and its name for terminals."""
        return PALETTE[(KINDS[self.kind][0] if self.color is None else self.color) % len(PALETTE)]


@dataclass(frozen=True)
class Figure:
    """Curves over a common x axis, which is logarithmic if `x_log` is set."""

    title: str
    x_label: str
    y_label: str
    x: Floats
    curves: list[Curve] = field(default_factory=list)
    x_log: bool = False


@dataclass(frozen=True)
class Map:
    """A value over two axes, as a picture.

    Attributes
    ----------
    x, y : ndarray, shapes (columns,) and (rows,)
        Ascending.
    values : ndarray, shape (rows, columns)
        NaN where there is none.
    x_log, y_log : bool
        Whether the axis is logarithmic.
    """

    title: str
    x_label: str
    y_label: str
    value_label: str
    x: Floats
    y: Floats
    values: Floats
    x_log: bool = False
    y_log: bool = False


def terminal(figure: Figure | Map, width: int, height: int, color: bool) -> str:
    """Draw in Braille dots, or a map in characters from light to dark.

    Parameters
    ----------
    width, height : int
        Of the whole figure, in characters.
    color : bool
        Without it the curves are told apart by their names alone, which stand at their ends either way.
    """
    if isinstance(figure, Map):
        return _terminal_map(figure, width)
    import plotille

    canvas = plotille.Figure()
    x_label = f"log10 {figure.x_label}" if figure.x_log else figure.x_label
    margin = max(24, 20 + len(x_label))  # the axis, its numbers and its name
    canvas.width, canvas.height = max(20, width - margin), height
    canvas.color_mode = "names"
    canvas.with_colors = color
    canvas.origin = False
    canvas.x_label, canvas.y_label = x_label, figure.y_label.split()[0]  # ten characters fit
    along = np.log10(figure.x) if figure.x_log else figure.x
    canvas.register_label_formatter(float, _tick)
    remarks = []
    shown = [(curve, thinned(np.flatnonzero(np.isfinite(curve.y)), 8 * width)) for curve in figure.curves]
    if not any(len(kept) for _, kept in shown):
        remarks.append(f"({_why_empty(figure.curves)} throughout)")
    baseline = [np.zeros(1)] if any(curve.kind == "gradient" for curve in figure.curves) else []
    heights = np.concatenate([curve.y[kept] for curve, kept in shown] + baseline)
    heights = heights if len(heights) else np.zeros(1)
    if any(curve.kind == "loss" for curve in figure.curves):  # a decade at least: less is little for a loss
        middle = (heights.max() + heights.min()) / 2
        heights = np.concatenate([heights, [middle - 0.5, middle + 0.5]])
    low, high = float(heights.min()), float(heights.max())
    room = 0.08 * (high - low) or 1.0  # for a name, and above it
    canvas.set_x_limits(float(along[0]), float(along[-1]) if along[-1] > along[0] else along[0] + 1.0)
    canvas.set_y_limits(low - 1.5 * room, high + 1.5 * room)
    series = [curve for curve in figure.curves if curve.kind == "series"]
    letters = dict(zip(map(id, series), "abcdefghijklmnopqrstuvwxyz", strict=False)) if len(series) > 3 else {}
    places = {id(curve): (i + 1) / (len(series) + 1) for i, curve in enumerate(series)}
    for curve, kept in shown:
        x, y = along[kept], curve.y[kept]
        if not len(x):
            continue
        name_color = curve.colors[1] if color else None
        canvas.plot(x.tolist(), y.tolist(), lc=name_color)
        # The name stands beside the curve, on the side away from the middle of the figure, and apart from other names.
        at = int(len(x) * places.get(id(curve), KINDS[curve.kind][2]))
        above = y[at] > (low + high) / 2
        letter = letters.get(id(curve))
        if letter is None:
            # A name that would end beyond the edge begins further to the left.
            last = along[0] + (along[-1] - along[0]) * (1 - (len(curve.label) + 1) / canvas.width)
            begin = max(min(float(x[at]), float(last)), float(along[0]))
            canvas.text([begin], [float(y[at]) + (room if above else -room)], [curve.label], lc=name_color)
        else:  # names would cover each other
            canvas.text([float(x[at])], [float(y[at])], [letter], lc=name_color)
    with _color_as_told(color):
        drawn = "\n".join([*textwrap.wrap(figure.title, width), *remarks, canvas.show()])
    names = [f"{letters[id(curve)]} {curve.label}" for curve in series if id(curve) in letters and curve.label]
    return "\n".join([drawn, *textwrap.wrap("   ".join(names), width)])


def _terminal_map(figure: Map, width: int) -> str:
    """One line a row, the highest y first, and a line that tells what the shades mean."""
    finite = figure.values[np.isfinite(figure.values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    names = [f"{y:.4g}" for y in figure.y]
    margin = max(map(len, names)) + 2
    shown = thinned(np.arange(len(figure.x)), width - margin - 2)
    cell = max(1, min(6, (width - margin - 2) // len(shown)))
    lines = [*textwrap.wrap(figure.title, width), f"{figure.y_label} (up) against {figure.x_label} (right)"]
    for name, row in reversed(list(zip(names, figure.values[:, shown], strict=True))):
        place = (row - low) / ((high - low) or 1.0) * len(SHADES)
        shades = ["?" if np.isnan(p) else SHADES[min(int(p), len(SHADES) - 1)] for p in place]
        lines.append(f"{name:>{margin - 2}} |{''.join(shade * cell for shade in shades)}|")
    left, right = f"{figure.x[0]:.4g}", f"{figure.x[-1]:.4g}"
    lines.append(" " * margin + left + right.rjust(max(len(shown) * cell - len(left), len(right) + 1)))
    unknown = "; ?: none" if finite.size < figure.values.size else ""
    lines.append(f"{figure.value_label}: '{SHADES}' from {low:.4g} to {high:.4g}{unknown}")
    return "\n".join(lines)


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


def _why_empty(curves: list[Curve]) -> str:
    """Tell what logarithms are that can't be drawn."""
    return "beyond float64" if any(np.isposinf(curve.y).any() for curve in curves) else "exactly zero"


def _tick(value: float, chars: int, delta: float, left: bool = False) -> str:
    """Write a tick of an axis that is `delta` long."""
    decimals = next((n for n, length in enumerate((30, 3, 0.3)) if delta >= length), 3)
    text = f"{round(value, decimals) + 0.0:.{decimals}f}" if abs(value) < 1e9 else f"{value:.2e}"
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


def save(figure: Figure | Map, path: str | Path) -> None:
    """Draw with matplotlib into a .png, .svg or .pdf file.

    Raises
    ------
    ValueError, ModuleNotFoundError
        See `check_path`; and if an axis would reach too far to be drawn.
    OSError
        If the file can't be written.
    """
    path = check_path(path)
    values = [curve.y for curve in figure.curves] if isinstance(figure, Figure) else [figure.y, figure.values]
    for axis in (figure.x, *values):
        sizes = np.abs(axis[np.isfinite(axis) & (axis != 0)])
        if sizes.size and not DRAWABLE[0] < sizes.min() <= sizes.max() < DRAWABLE[1]:
            raise ValueError(f"plot: a figure can't show numbers from {sizes.min():.3g} to {sizes.max():.3g}")
    from matplotlib.figure import Figure as NewCanvas

    canvas = NewCanvas(figsize=(7.2, 4.5), layout="constrained")
    axes = canvas.subplots()
    if isinstance(figure, Map):
        _draw_map(figure, canvas, axes)
    else:
        _draw_curves(figure, axes)
    axes.set(xlabel=figure.x_label, ylabel=figure.y_label)
    axes.set_title(figure.title, fontsize="medium", loc="left", wrap=True)
    canvas.savefig(path, dpi=150)


def _draw_curves(figure: Figure, axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    if any(curve.kind == "gradient" for curve in figure.curves):
        axes.axhline(0, color="0.8", linewidth=0.8)
    for curve in figure.curves:
        kept = np.isfinite(curve.y)
        color = curve.colors[0]
        _, style, _ = KINDS[curve.kind]
        if curve.color is not None and curve.color >= len(PALETTE):  # the colors come round again
            style = "--"
        alone = "o" if kept.sum() == 1 else None  # a line of one point can't be seen
        if curve.kind == "series" and len(figure.x) <= MARKED:
            alone = "."
        label = curve.label if curve.band is None else f"{curve.label}, with 5 % to 95 % of chains"
        # What is not a whole line lies above the others, so that both are seen where they coincide.
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
            text = f"{curve.label}: {_why_empty([curve])}"
            axes.text(0.98, 0.9, text, transform=axes.transAxes, ha="right", color=color)
        if curve.band is not None:
            inside = np.isfinite(curve.band[0]) & np.isfinite(curve.band[1])
            low, high = (edge[inside] for edge in curve.band)
            axes.fill_between(figure.x[inside], low, high, color=color, alpha=0.2, linewidth=0)
    axes.margins(x=0.01)
    bottom, top = axes.get_ylim()
    if any(curve.kind == "loss" for curve in figure.curves) and top - bottom < 1:  # see `terminal`
        axes.set_ylim((bottom + top) / 2 - 0.5, (bottom + top) / 2 + 0.5)
    if figure.x_log:
        axes.set_xscale("log")
    elif np.array_equal(figure.x, np.round(figure.x)):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _draw_map(figure: Map, canvas: Canvas, axes: Axes) -> None:
    edges = _edges(figure.x, figure.x_log), _edges(figure.y, figure.y_log)
    axes.set_facecolor("0.85")  # where there is no value
    mesh = axes.pcolormesh(*edges, np.ma.masked_invalid(figure.values), cmap="viridis", rasterized=True)
    if figure.x_log:
        axes.set_xscale("log")
    if figure.y_log:
        axes.set_yscale("log")
    canvas.colorbar(mesh, ax=axes, label=figure.value_label)


def _edges(centers: Floats, log: bool) -> Floats:
    """Edges of cells around ascending centers: halfway between them, on the axis as it is drawn."""
    at = np.log10(centers) if log else centers
    if len(at) == 1:
        between = np.array([at[0] - 0.5, at[0] + 0.5])
    else:
        middle = (at[1:] + at[:-1]) / 2
        between = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    return np.asarray(10.0**between if log else between)
