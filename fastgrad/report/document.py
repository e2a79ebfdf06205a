"""Reports as data: texts, tables and figures that know nothing of terminals and files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


Format = Literal["table", "json", "csv"]
Binary = Literal["npz", "parquet", "html"]
JSON_SCHEMA = "fastgrad/1"

Role = Literal["title", "line", "note", "warning"]


@dataclass(frozen=True)
class Text:
    """One or more lines of words, without markup.

    Attributes
    ----------
    words : str
        Lines end where 80 columns would; a format that breaks lines by itself may join those that are not indented.
    role : {"title", "line", "note", "warning"}
        A title begins a new section, a note stands back behind what is reported, a warning must not be missed.
    emphasis : tuple of two ints, optional
        Begin and end, within the words, of the part that stands out; without it all of a title or a warning does.
    """

    words: str
    role: Role = "line"
    emphasis: tuple[int, int] | None = None

    @classmethod
    def emphasizing(cls, before: str, emphasized: str, after: str = "", role: Role = "line") -> Text:
        """Join three texts; the second one stands out."""
        return cls(before + emphasized + after, role, (len(before), len(before) + len(emphasized)))


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    kind : {"words", "numbers"}
        Words stand to the left and may be broken over lines; numbers stand to the right and may not.
    """

    name: str
    kind: Literal["words", "numbers"]


@dataclass(frozen=True)
class Cell:
    """A value of a table and how it is written.

    Attributes
    ----------
    value : int, float or str, optional
        A column is sorted by it: a number, of a magnitude its decimal logarithm, of a range its lower end, or words.
        None where there is none; never NaN.
    text : str
    """

    value: float | str | None
    text: str

    @classmethod
    def of(cls, value: Any, write: Callable[[Any], str] = str) -> Cell:
        """Make a cell of a value, which may be NumPy's, and the text that `write` makes of it."""
        plain = value.item() if isinstance(value, np.generic) else value
        return cls(None if plain != plain else plain, write(value))  # NaN alone differs from itself


@dataclass(frozen=True)
class Row:
    """A row of a table, which may stand out, and may begin a section."""

    cells: tuple[Cell, ...]
    emphasized: bool = False
    begins_section: bool = False


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of cells.

    Attributes
    ----------
    columns : list of Column
    title : str, optional
    rows : list of Row
    dense : bool
        There may be many columns: they stand close together, and none is broken over lines.
    """

    columns: list[Column]
    title: str | None = None
    rows: list[Row] = field(default_factory=list)
    dense: bool = False

    def add(self, *cells: Cell | str, emphasized: bool = False, begins_section: bool = False) -> None:
        """Add a row; a text is a cell by itself.

        Raises
        ------
        ValueError
            If there are not as many cells as columns.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"cells: expected {len(self.columns)}, one a column, got {len(cells)}")
        row = tuple(Cell(cell, cell) if isinstance(cell, str) else cell for cell in cells)
        self.rows.append(Row(row, emphasized, begins_section))


def words(*names: str) -> list[Column]:
    """Columns of words."""
    return [Column(name, "words") for name in names]


def numbers(*names: str) -> list[Column]:
    """Columns of numbers."""
    return [Column(name, "numbers") for name in names]


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
    content : sequence of Text, Table, Figure and Map
        For people, in the order of reading.
    backend, seed : optional
        For the provenance.
    arrays : dict
        What an .npz file gets.
    reproducible : bool
        The JSON says nothing of the run, so that equal results make equal files.
    """

    command: str
    parameters: dict[str, Any]
    result: dict[str, Any]
    rows: Iterable[dict[str, Any]]
    content: Sequence[Part]
    backend: str | None = None
    seed: int | None = None
    arrays: dict[str, Any] = field(default_factory=dict)
    reproducible: bool = False

    @property
    def figure(self) -> Figure | Map | None:
        """The figure, for a file of its own; None if there is none."""
        return next((part for part in self.content if isinstance(part, Figure | Map)), None)


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
        Lower and upper edge: 5 % and 95 % of the members.
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
    """Curves over a common x axis, which is logarithmic if `x_log` is set; bands are over `members`."""

    title: str
    x_label: str
    y_label: str
    x: Floats
    curves: list[Curve] = field(default_factory=list)
    x_log: bool = False
    members: str = "chains"


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


def cell_edges(centers: Floats, log: bool) -> Floats:
    """Edges of cells around ascending centers: halfway between them, on the axis as it is drawn."""
    at = np.log10(centers) if log else centers
    if len(at) == 1:
        between = np.array([at[0] - 0.5, at[0] + 0.5])
    else:
        middle = (at[1:] + at[:-1]) / 2
        between = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    return np.asarray(10.0**between if log else between)


def band_of(curve: Curve, figure: Figure) -> tuple[Floats, Floats, Floats]:
    """Return x, lower and upper edge of a curve's band, where it has one.

    A lower edge of minus infinity, the logarithm of 0, is drawn at the least number that the figure shows.
    """
    if curve.band is None:
        return np.empty(0), np.empty(0), np.empty(0)
    low, high = curve.band
    shown = np.concatenate([edge for each in figure.curves for edge in (each.y, *(each.band or ()))])
    floor = np.min(shown[np.isfinite(shown)], initial=np.inf)
    low = np.where(low == -np.inf, floor, low)
    inside = np.isfinite(low) & np.isfinite(high)
    return figure.x[inside], low[inside], high[inside]


def curve_label(curve: Curve, figure: Figure) -> str:
    """Name a curve for a legend, with what its band is."""
    return curve.label if curve.band is None else f"{curve.label}, with 5 % to 95 % of {figure.members}"


Part = Text | Table | Figure | Map
