"""Pages: figures and whole reports as one HTML file, by bokeh, which needs nothing from the network."""

from __future__ import annotations

import html
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report.document import KINDS, PALETTE, Figure, Map, Table, Text, band_of, cell_edges, curve_label
from fastgrad.report.text import reason_empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fastgrad.report.document import Part

    Floats = NDArray[np.float64]

HEIGHT = 400  # pixels, of a figure without its legend
LEGEND_LINE = 24  # pixels
LABEL_WIDTH = 40  # characters, of a line beside the axis
HOVER_DIGITS = 17  # that bring a double back exactly
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1.5rem auto; padding: 0 1rem;
  background: light-dark(#fff, #16181c); color: light-dark(#1b1b1b, #e4e4e4); }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; }
p { margin: .3rem 0; white-space: pre-line; }
.note { color: light-dark(#5b5b5b, #a6a6a6); } .warning { color: light-dark(#a40000, #ff8a80); }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap; }
.words { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: bold; } th button:focus-visible { outline: 2px solid; }
thead { border-bottom: 1px solid; } .section { border-top: 1px solid; } .strong { font-weight: bold; }
figure { background: #fff; color: #1b1b1b; border-radius: .4rem; padding: .5rem; margin: 1rem 0; }
figure, p, td { overflow-wrap: anywhere; } figcaption { font-weight: bold; }
"""
# A column is sorted by its cells' values, numbers before words, and the other way round at the second click.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, at = head.cellIndex, body = head.closest("table").tBodies[0];
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[at].dataset.value ?? "";
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)], [p, q] = [a === "" || isNaN(x), b === "" || isNaN(y)];
    return p || q ? (p && q ? a.localeCompare(b) : p - q) : x - y;
  };
  for (const row of [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(key(a), key(b)))) body.append(row);
});
"""


def page(content: Sequence[Part], title: str, details: dict[str, Any] | None = None) -> str:
    """Make a page of texts, tables and figures, and at its end a table of details by name."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    figures = [part for part in content if isinstance(part, Figure | Map)]
    script, libraries = "", ""
    divisions: Sequence[str] = ()
    if figures:
        script, divisions = components([drawn(figure) for figure in figures])
        libraries = Resources(mode="inline", components=["bokeh"], log_level="error").render_js()
    places = iter(divisions)
    body = []
    for part in content:
        if isinstance(part, Text):
            body.append(_text(part))
        elif isinstance(part, Table):
            body.append(_table(part))
        else:
            body.append(f"<figure><figcaption>{html.escape(part.title)}</figcaption>{next(places)}</figure>")
    if details:
        rows = "".join(
            f'<tr><th class="words">{html.escape(str(name))}</th><td class="words">{html.escape(str(value))}</td></tr>'
            for name, value in details.items()
        )
        body.append(f'<h2>How it was made</h2><div class="table"><table>{rows}</table></div>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{STYLE}</style>{libraries}</head>'
        f"<body><main>{''.join(body)}</main>{script}<script>{SCRIPT}</script></body></html>\n"
    )


def words(content: Sequence[Part]) -> str:
    """Make the texts and tables of a content, without its figures."""
    made = []
    for part in content:
        if isinstance(part, Text):
            made.append(_text(part))
        elif isinstance(part, Table):
            made.append(_table(part))
    return "".join(made)


def _text(text: Text) -> str:
    words = html.escape(text.words)
    if text.emphasis is not None:
        begin, end = text.emphasis
        parts = text.words[:begin], text.words[begin:end], text.words[end:]
        words = f"{html.escape(parts[0])}<strong>{html.escape(parts[1])}</strong>{html.escape(parts[2])}"
    if text.role == "title":
        return f"<h2>{words}</h2>"
    return f'<p class="{text.role}">{words}</p>'


def _table(table: Table) -> str:
    kinds = ["words" if column.kind == "words" else "" for column in table.columns]
    names = zip(table.columns, kinds, strict=True)
    head = "".join(
        f'<th scope="col" class="{kind}"><button>{html.escape(column.name)}</button></th>' for column, kind in names
    )
    rows = []
    for row in table.rows:
        classes = " ".join(
            name for name, is_set in (("strong", row.emphasized), ("section", row.begins_section)) if is_set
        )
        cells = "".join(
            f'<td class="{kind}" data-value="{html.escape(_key(cell.value))}">{html.escape(cell.text)}</td>'
            for cell, kind in zip(row.cells, kinds, strict=True)
        )
        rows.append(f'<tr class="{classes}">{cells}</tr>')
    caption = "" if table.title is None else f"<caption>{html.escape(table.title)}</caption>"
    return (
        f'<div class="table"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _key(value: float | str | None) -> str:
    """Key by which JavaScript sorts a cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return repr(float(value)).replace("inf", "Infinity")


def drawn(figure: Figure | Map) -> Any:
    """Draw with bokeh."""
    from bokeh.plotting import figure as new_plot

    plot = new_plot(
        height=HEIGHT,
        sizing_mode="stretch_width",
        x_axis_label=figure.x_label,
        y_axis_label=_wrapped(figure.y_label),
        x_axis_type="log" if figure.x_log else "linear",
        y_axis_type="log" if isinstance(figure, Map) and figure.y_log else "linear",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        toolbar_location="above",
        active_scroll=None,
    )
    plot.toolbar.logo = None
    if isinstance(figure, Map):
        _draw_map(plot, figure)
    else:
        _draw_curves(plot, figure)
    return plot


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, LABEL_WIDTH))


def _draw_curves(plot: Any, figure: Figure) -> None:
    from bokeh.models import HoverTool
    from bokeh.models.annotations import Legend, LegendItem, Title

    styles = {"-": "solid", "--": "dashed", ":": "dotted"}
    named: dict[str, list[Any]] = {}
    for curve in figure.curves:
        color, style = curve.colors[0], styles[KINDS[curve.kind][1]]
        if curve.color is not None and curve.color >= len(PALETTE):
            style = "dashed"
        drawn = []
        if curve.band is not None:
            drawn.append(plot.varea(*band_of(curve, figure), fill_color=color, fill_alpha=0.2))
        y = _drawable(curve.y)
        line = plot.line(figure.x, y, line_color=color, line_dash=style, line_width=2)
        drawn.append(line)
        if np.isfinite(y).sum() <= 1:
            drawn.append(plot.scatter(figure.x, y, color=color))
        values = [(figure.x_label, f"@x{{%0.{HOVER_DIGITS}g}}"), (curve.label or "value", f"@y{{%0.{HOVER_DIGITS}g}}")]
        formats: Any = {"@x": "printf", "@y": "printf"}
        plot.add_tools(HoverTool(renderers=[line], tooltips=values, formatters=formats, mode="vline"))
        if not np.isfinite(y).any():
            plot.add_layout(Title(text=f"{curve.label}: {reason_empty([curve])}", text_font_style="normal"), "below")
        if curve.label:
            named.setdefault(curve_label(curve, figure), []).extend(drawn)
    items = [LegendItem(label=label, renderers=renderers) for label, renderers in named.items()]
    if items:
        look: Any = {"border_line_alpha": 0, "padding": 2, "label_text_font_size": "11px"}  # for narrow screens
        legend = Legend(items=items, click_policy="hide", location="left", **look)
        plot.add_layout(legend, "below")
        plot.height = HEIGHT + LEGEND_LINE * len(items)


def _drawable(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def redraw(plot: Any, shown: Figure, figure: Figure) -> bool:
    """Give a plot that shows one figure the numbers of another; False where they do not look alike.

    A browser draws new numbers several times faster than a new plot.
    """
    if _look(shown) != _look(figure) or not _look(figure)[-1]:
        return False
    renderers = iter(plot.renderers)
    for curve in figure.curves:
        if curve.band is not None:
            x, low, high = band_of(curve, figure)
            next(renderers).data_source.data = {"x": x, "y1": low, "y2": high}
        next(renderers).data_source.data = {"x": figure.x, "y": _drawable(curve.y)}
    return True


def _look(figure: Figure) -> list[object]:
    curves = [
        (curve_label(curve, figure), curve.kind, curve.color, curve.band is None, bool(np.isfinite(curve.y).sum() > 1))
        for curve in figure.curves
    ]
    return [figure.x_label, figure.y_label, figure.x_log, *curves, all(alive for *_, alive in curves)]


def _draw_map(plot: Any, figure: Map) -> None:
    from bokeh.models import HoverTool
    from bokeh.models.annotations import ColorBar
    from bokeh.transform import linear_cmap

    x, y = cell_edges(figure.x, figure.x_log), cell_edges(figure.y, figure.y_log)
    rows, columns = figure.values.shape
    values = np.where(np.isfinite(figure.values), figure.values, np.nan)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    source = {
        "left": np.tile(x[:-1], rows),
        "right": np.tile(x[1:], rows),
        "bottom": np.repeat(y[:-1], columns),
        "top": np.repeat(y[1:], columns),
        "x": np.tile(figure.x, rows),
        "y": np.repeat(figure.y, columns),
        "value": values.ravel(),
    }
    color = linear_cmap("value", "Viridis256", low, high if high > low else low + 1, nan_color="#d8d8d8")
    cells = plot.quad(
        left="left", right="right", bottom="bottom", top="top", source=source, fill_color=color, line_color=None
    )
    names = ((figure.x_label, "x"), (figure.y_label, "y"), (figure.value_label, "value"))
    plot.add_tools(
        HoverTool(
            renderers=[cells],
            tooltips=[(label, f"@{name}{{%0.{HOVER_DIGITS}g}}") for label, name in names],
            formatters={f"@{name}": "printf" for _, name in names},
        )
    )
    plot.add_layout(ColorBar(color_mapper=color["transform"], title=_wrapped(figure.value_label)), "right")
