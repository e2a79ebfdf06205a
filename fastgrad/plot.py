"""Figures: one description, drawn in the terminal or into a file."""

from __future__ import annotations

import contextlib
import math
import os
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FILE_TYPES = (".png", ".svg", ".pdf")
# Okabe and Ito's, then five that lie at least as far from these and each other for every kind of color vision (17 in
# Lab or more, with red or green cones missing too); beside each its name among the 16 colors of terminals.
PALETTE = (
    ("#0072B2", "bright_blue"),
    ("#D55E00", "bright_red"),
    ("#009E73", "bright_green"),
    ("#CC79A7", "bright_magenta"),
    ("#E69F00", "bright_yellow"),
    ("#56B4E9", "bright_cyan"),
    ("#00441B", "green"),
    ("#DDCC77", "yellow"),
    ("#332288", "blue"),
    ("#94346E", "magenta"),
    ("#117733", "cyan"),
    ("#000000", "white"),
)
BLACK = len(PALETTE) - 1
EMPTY = "\u2800"  # the character without Braille dots
HARD_SPACE = "\u00a0"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Color and line of each kind of curve, and where along it its name stands in a terminal.
KINDS = {
    "gradient": (0, "-", 1 / 3),
    "bound": (1, "--", 2 / 3),
    "theory": (2, ":", 5 / 6),
    "loss": (0, "-", 1 / 2),
    "series": (0, "-", 1 / 2),
}
TITLE_WIDTH = 72  # characters: from the axes to the right edge
TITLE_WIDTH_BESIDE_LEGEND = 56  # characters: as wide as axes with a legend to their right
LABEL_WIDTH = 48  # characters: as high as the axes
BAND_LABEL = ", with 5 % to 95 % of chains"
LEGEND_BELOW = 3  # curves whose names stand below the figure; those of more stand to its right
LEGEND_WIDTH = 80  # characters of a line below the figure
MARKED = 60  # points of a series: so many can be told apart
DRAWABLE = 1e-200, 1e200  # matplotlib's margins would leave float64
SHADES = " ·:-=+*#%@"  # of a map in a terminal, from its lowest value to its highest


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Figure:
    """Curves over a common x axis, which is logarithmic if `x_log` is set."""

    title: str
    x_label: str
    y_label: str
    x: Floats
    curves: list[Curve] = field(default_factory=list)
    x_log: bool = False


@dataclass(frozen=True, eq=False)
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
        Characters of a line, and lines of the data.
    color : bool
        Without it the curves are told apart by their names alone, which stand beside them either way.
    """
    if isinstance(figure, Map):
        return _terminal_map(figure, width)
    import plotille

    shown = [(curve, thinned(np.flatnonzero(np.isfinite(curve.y)), 8 * width)) for curve in figure.curves]
    shown = [(curve, kept) for curve, kept in shown if len(kept)]
    remarks = [] if shown else [f"({_reason_empty(figure.curves)} throughout)"]
    has_zero_line = any(curve.kind == "gradient" for curve in figure.curves)
    heights = np.concatenate([*(curve.y[kept] for curve, kept in shown), np.zeros(int(has_zero_line or not shown))])
    low, high = _limits(heights, figure)
    along = np.log10(figure.x) if figure.x_log else figure.x
    begin, length = float(along[0]), float(along[-1] - along[0]) or 1.0
    y_ticks = _ticks(low, high, height // 4)
    columns = width - 3 - max(map(len, y_ticks.values()))  # beside the frame, and the ticks to its right
    # In dots, two by four in a character: what plotille makes of numbers would leave room at the edges.
    canvas = plotille.Canvas(columns, height, xmax=2 * columns, ymax=4 * height, mode="names")
    series = [curve for curve, _ in shown if curve.kind == "series"]
    letters = dict(zip(map(id, series), LETTERS, strict=False)) if len(series) > 3 else {}
    places = {id(curve): (i + 1) / (len(series) + 1) for i, curve in enumerate(series)}
    names: list[tuple[str, int, int, str | None]] = []  # text, column, row from the bottom, color
    for curve, kept in shown:
        name_color = curve.colors[1] if color else None
        x = ((along[kept] - begin) / length * (2 * columns - 1)).round()
        y = ((curve.y[kept] - low) / (high - low) * (4 * height - 1)).round()
        canvas.point(x[0], y[0], color=name_color)
        for dots in zip(x[:-1], y[:-1], x[1:], y[1:], strict=True):
            canvas.line(*dots, color=name_color)
        at = int(len(kept) * places.get(id(curve), KINDS[curve.kind][2]))
        column, row = int(x[at]) // 2, int(y[at]) // 4
        if id(curve) in letters:  # names would cover each other
            names.append((letters[id(curve)], column, row, name_color))
        else:  # beside the curve, on the side away from the middle of the figure
            names.append((curve.label, column, row + (1 if row >= height / 2 else -1), name_color))
    taken: list[tuple[int, int, int]] = []  # row, first column and the one after the last
    for text, column, row, name_color in names:  # one that would end beyond the edge begins further to the left
        begins = max(0, min(column, columns - len(text)))
        row = _free_row(max(0, min(row, height - 1)), begins, begins + len(text), taken, height)
        taken.append((row, begins, begins + len(text)))
        canvas.text(2 * begins, 4 * row, text[:columns], color=name_color)
    with _forced_color(color):
        rows = canvas.plot("\n").split("\n")
    beside = {_row(at, low, high, height): text for at, text in y_ticks.items()}
    zero = _row(0.0, low, high, height) if has_zero_line else None
    lines = [
        f"│{row.replace(EMPTY, '─' if i == zero else ' ')}│ {beside.get(i, '')}".rstrip() for i, row in enumerate(rows)
    ]
    named = [f"{letters[id(curve)]} {curve.label}" for curve in series if id(curve) in letters and curve.label]
    # A letter on one line and its name on the next would be read with its neighbor.
    legend = textwrap.wrap("   ".join(name.replace(" ", HARD_SPACE) for name in named), width)
    return "\n".join(
        [
            *textwrap.wrap(figure.title, width),
            *remarks,
            f"({figure.y_label})",
            f"┌{'─' * columns}┐",
            *lines,
            f"└{'─' * columns}┘",
            _x_axis(_x_ticks(figure, begin, length), begin, length, columns),
            f"({figure.x_label})".rjust(columns + 2),
            *(line.replace(HARD_SPACE, " ") for line in legend),
        ]
    )


def _free_row(row: int, begins: int, ends: int, taken: list[tuple[int, int, int]], height: int) -> int:
    """Row next to the given one where a name touches no other; that row if there is none."""
    full = {of for of, first, after in taken if begins <= after and first <= ends}
    return min((each for each in range(height) if each not in full), key=lambda each: abs(each - row), default=row)


def _row(value: float, low: float, high: float, height: int) -> int:
    """Row of a value in a terminal figure, from the top."""
    return height - 1 - int(round((value - low) / (high - low) * (4 * height - 1)) // 4)


@contextlib.contextmanager
def _forced_color(color: bool) -> Iterator[None]:
    """Keep plotille from looking at the terminal and at NO_COLOR by itself: the caller has done so."""
    before = {name: os.environ.pop(name, None) for name in ("NO_COLOR", "FORCE_COLOR")}
    os.environ["FORCE_COLOR"] = "1" if color else "0"
    try:
        yield
    finally:
        del os.environ["FORCE_COLOR"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _ticks(low: float, high: float, count: int) -> dict[float, str]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, about `count` of them, as they are written."""
    least = (high - low) / max(1, count)
    power = math.floor(math.log10(least))
    step = next(step for step in (1, 2, 5, 10) if step * 10.0**power >= least * (1 - 1e-9))
    if step == 10:
        step, power = 1, power + 1
    unit = step * 10.0**power
    numbers = range(math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9) + 1)
    decimals = max(0, -power)
    large = max(abs(low), abs(high)) >= 1e9 or decimals > 6
    return {i * unit: f"{i * unit:.6g}" if large else f"{i * unit + 0.0:.{decimals}f}" for i in numbers}


def _x_ticks(figure: Figure, begin: float, length: float) -> dict[float, str]:
    """Ticks of the x axis by their places on it.

    On a logarithmic axis powers of ten, if there are two of them, or 1, 2 and 5 times these, if there are three; a
    shorter one is nearly even. Between two links there is none.
    """
    end = begin + length
    if not figure.x_log:
        whole = np.array_equal(figure.x, np.round(figure.x))
        return _ticks(begin, end, max(1, min(5, int(length))) if whole else 5)
    powers = range(math.floor(begin), math.floor(end + 1e-9) + 1)
    for factors, enough in (((1,), 2), ((1, 2, 5), 3)):
        places = {math.log10(k) + i: f"{k * 10.0**i:g}" for i in powers for k in factors}
        inside = {at: text for at, text in places.items() if begin - 1e-9 <= at <= end + 1e-9}
        if len(inside) >= enough:
            return inside
    return {math.log10(at): text for at, text in _ticks(10.0**begin, 10.0**end, 5).items() if at > 0}


def _x_axis(ticks: dict[float, str], begin: float, length: float, width: int) -> str:
    """Line of ticks below the frame, each in the middle below its place; one that would touch another is left out."""
    line = " " * (width + 2)
    for at, text in ticks.items():
        column = 1 + min(int((at - begin) / length * width), width - 1)
        first = max(0, min(column - len(text) // 2, len(line) - len(text)))
        if not line[max(0, first - 1) : first + len(text) + 1].strip():
            line = line[:first] + text + line[first + len(text) :]
    return line.rstrip()


def _limits(heights: Floats, figure: Figure) -> tuple[float, float]:
    """Lower and upper end of the y axis: the data fill it."""
    low, high = float(heights.min()), float(heights.max())
    if any(curve.kind == "loss" for curve in figure.curves) and high - low < 1:  # less than a decade is little
        low, high = (low + high) / 2 - 0.5, (low + high) / 2 + 0.5
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - max(1.0, abs(low) / 100), high + max(1.0, abs(high) / 100)
    return low, high


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


def _reason_empty(curves: list[Curve]) -> str:
    """Tell what logarithms are that can't be drawn."""
    return "beyond float64" if any(np.isposinf(curve.y).any() for curve in curves) else "exactly zero"


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
    """Draw with matplotlib into a .png, .svg or .pdf file, which is written whole or not at all.

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
    axes.set(xlabel=figure.x_label, ylabel=_wrapped(figure.y_label, LABEL_WIDTH))
    title_width = TITLE_WIDTH_BESIDE_LEGEND if _has_legend_beside(figure) else TITLE_WIDTH
    axes.set_title(_wrapped(figure.title, title_width), fontsize="medium", loc="left")
    with replacing(path) as part:
        canvas.savefig(part, dpi=150, format=path.suffix[1:].lower())


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines of at most so many characters: matplotlib would run out of the figure."""
    return "\n".join(textwrap.wrap(text, width))


def _has_legend_beside(figure: Figure | Map) -> bool:
    """Whether the names of so many curves stand to the right."""
    return isinstance(figure, Figure) and sum(bool(curve.label) for curve in figure.curves) > LEGEND_BELOW


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
        label = curve.label if curve.band is None else curve.label + BAND_LABEL
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
            text = f"{curve.label}: {_reason_empty([curve])}"
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
    named = [curve for curve in figure.curves if curve.label]
    many = _has_legend_beside(figure)
    in_one_line = sum(len(curve.label) + (len(BAND_LABEL) if curve.band else 0) + 8 for curve in named) <= LEGEND_WIDTH
    axes.figure.legend(
        frameon=False,
        loc="outside right center" if many else "outside lower center",  # off the data
        ncols=len(named) if in_one_line and named and not many else 1,
        fontsize="small" if many else "medium",
    )


def _draw_map(figure: Map, canvas: Canvas, axes: Axes) -> None:
    edges = _edges(figure.x, figure.x_log), _edges(figure.y, figure.y_log)
    axes.set_facecolor("0.85")  # where there is no value
    mesh = axes.pcolormesh(*edges, np.ma.masked_invalid(figure.values), cmap="viridis", rasterized=True)
    if figure.x_log:
        axes.set_xscale("log")
    if figure.y_log:
        axes.set_yscale("log")
    canvas.colorbar(mesh, ax=axes, label=_wrapped(figure.value_label, LABEL_WIDTH))


def _edges(centers: Floats, log: bool) -> Floats:
    """Edges of cells around ascending centers: halfway between them, on the axis as it is drawn."""
    at = np.log10(centers) if log else centers
    if len(at) == 1:
        between = np.array([at[0] - 0.5, at[0] + 0.5])
    else:
        middle = (at[1:] + at[:-1]) / 2
        between = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    return np.asarray(10.0**between if log else between)
