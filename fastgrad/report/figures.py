"""Figures in files: pictures by matplotlib, pages by bokeh."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastgrad.files import replacing
from fastgrad.report import html, image
from fastgrad.report.document import Figure

if TYPE_CHECKING:
    from fastgrad.report.document import Map

FILE_TYPES = (*image.FILE_TYPES, ".html")
DRAWABLE = 1e-200, 1e200  # margins would leave float64


def require(module: str, extra: str, what: str) -> None:
    """Check that a library is there, before a long job is started.

    Raises
    ------
    ModuleNotFoundError
        With the command that installs it; `what` begins the message.
    """
    try:
        import_module(module)
    except ImportError:
        raise ModuleNotFoundError(f"{what} needs {module}: pip install 'fastgrad[{extra}]'") from None


def require_pages(option: str) -> None:
    """Check that pages can be made; `option` names what was asked for."""
    require("bokeh", "explore", f"{option}: .html")


def check_path(path: str | Path) -> Path:
    """Check that a figure can be written to the path, before a long job is started.

    Raises
    ------
    ValueError
        If its ending is not .png, .svg, .pdf or .html.
    ModuleNotFoundError
        Without matplotlib, or for pages bokeh, with the command that installs it.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in FILE_TYPES:
        raise ValueError(f"plot: expected a file ending in {', '.join(FILE_TYPES)}, got {str(path)!r}")
    if ending == ".html":
        require_pages("plot")
    else:
        require("matplotlib", "plot", "plot:")
    return path


def save(figure: Figure | Map, path: str | Path) -> None:
    """Draw into a .png, .svg, .pdf or .html file, which is written whole or not at all.

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
    ending = path.suffix.lower()
    with replacing(path) as part:
        if ending == ".html":
            part.write_text(html.page([figure], figure.title), encoding="utf-8")
        else:
            image.save(figure, part, ending[1:])
