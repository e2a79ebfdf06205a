"""Figures in Braille dots and maps in characters."""

from __future__ import annotations

import contextlib
import math
import os
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.report.document import KINDS, Figure, Map
from fastgrad.report.text import reason_empty
from fastgrad.summary import thinned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


EMPTY = "\u2800"  # the character without Braille dots
HARD_SPACE = "\u00a0"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHADES = " ·:-=+*#%@"  # of a map in a terminal, from its lowest value to its highest


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
    remarks = [] if shown else [f"({reason_empty(figure.curves)} throughout)"]
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
