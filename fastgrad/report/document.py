"""Reports, tables' rows and figures as data, before they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import RenderableType

    Floats = NDArray[np.float64]


Format = Literal["table", "json", "csv"]
Binary = Literal["npz", "parquet"]
JSON_SCHEMA = "fastgrad/1"


@dataclass(eq=False)
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
        The CSV; made when it is written. A dict of arrays is a block of rows.
    human : list
        Rich renderables: what a person reads.
    figure : Figure or Map, optional
        Drawn below the tables, or into a file.
    backend, seed : optional
        For the provenance.
    arrays : dict
        What an .npz file gets.
    reproducible : bool
        Nothing is told of the run, so that equal results make equal files.
    """

    command: str
    parameters: dict[str, Any]
    result: dict[str, Any]
    rows: Iterable[dict[str, Any]]
    human: list[RenderableType]
    figure: Figure | Map | None = None
    backend: str | None = None
    seed: int | None = None
    arrays: dict[str, Any] = field(default_factory=dict)
    reproducible: bool = False


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
# Color and line of each kind of curve, and where along it its name stands in a terminal.
KINDS = {
    "gradient": (0, "-", 1 / 3),
    "bound": (1, "--", 2 / 3),
    "theory": (2, ":", 5 / 6),
    "loss": (0, "-", 1 / 2),
    "series": (0, "-", 1 / 2),
}


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
