"""Pages: figures and reports in one HTML file."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from fastgrad.report.document import Cell, Curve, Figure, Map, Table, Text, numbers, words
from fastgrad.report.figures import save
from fastgrad.report.html import page

SIMULATE = ("simulate", "--depth", "40", "--ensemble", "9", "-q")


class Page(HTMLParser):
    """Tags with their attributes, and the words of table cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # what is opened is closed, in order

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1].append(data)


def test_a_page_asks_no_other_host(tmp_path, cli):
    assert cli(*SIMULATE, "-o", tmp_path / "a.html", "--plot", tmp_path / "b.html").exit_code == 0
    for name in ("a.html", "b.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert len(text) < 2_000_000
        parsed = Page(text)
        assert parsed.open == []
        sources = [attributes.get("src") or attributes.get("href") for _, attributes in parsed.tags]
        assert {source for source in sources if source} == {"data:,"}
        assert not re.search(r"@import|url\(\s*['\"]?http", text.partition("<script")[0])


def test_tables_are_those_of_the_terminal(tmp_path, cli):
    cli(*SIMULATE, "-o", tmp_path / "a.html")
    shown = cli(*SIMULATE).stdout
    rows = [row for row in Page((tmp_path / "a.html").read_text(encoding="utf-8")).rows if len(row) == 4]
    assert len(rows) == 11
    for row in rows[1:]:
        (line,) = [line for line in shown.splitlines() if line.split() == " ".join(row).split()]
        assert line


def test_cells_are_sorted_by_their_values():
    table = Table([*words("name"), *numbers("size")])
    for name, size in (("<b>", 2.5), ("b", -np.inf), ("c", None)):
        table.add(name, Cell(size, "some"))
    values = [of.get("data-value") for tag, of in Page(page([table], "t")).tags if tag == "td"]
    assert values == ["<b>", "2.5", "b", "-Infinity", "c", ""]


def test_words_are_no_markup():
    text = page([Text.emphasizing("a < b & ", "<script>", " c", role="warning"), Text("<i>", "title")], "<t>")
    assert "<title>&lt;t&gt;</title>" in text
    assert "<strong>&lt;script&gt;</strong>" in text
    assert "<h2>&lt;i&gt;</h2>" in text
    assert "a &lt; b &amp; " in text


def test_how_it_was_made(tmp_path, cli):
    cli(*SIMULATE, "--seed", "5", "-o", tmp_path / "a.html")
    rows = Page((tmp_path / "a.html").read_text(encoding="utf-8")).rows
    assert ["seed", "5"] in rows
    assert ["command", "fastgrad simulate"] in rows
    assert any(row[:1] == ["numpy"] for row in rows)


@pytest.mark.parametrize("x_log", [False, True])
def test_curves_of_every_kind(tmp_path, x_log):
    x = np.array([1.0, 10.0, 100.0])
    figure = Figure("title & more", "x", "y", x, x_log=x_log)
    figure.curves.append(Curve("gradient", "g", np.array([1.0, np.nan, -np.inf]), band=(x - 1, x + 1)))
    figure.curves.append(Curve("bound", "nothing", np.full(3, -np.inf)))
    figure.curves.append(Curve("series", "s", x, color=14))
    save(figure, tmp_path / "f.html")
    text = (tmp_path / "f.html").read_text(encoding="utf-8")
    assert "title &amp; more" in text
    assert "nothing: exactly zero" in text
    assert ('"LogScale"' in text.partition("</head>")[2]) == x_log  # the library itself has the word too


def test_a_map_with_holes(tmp_path):
    values = np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 6.0]])
    save(
        Map("m", "x", "y", "v", np.array([1.0, 10.0]), np.array([0.0, 1.0, 2.0]), values, x_log=True),
        tmp_path / "m.html",
    )
    assert "Quad" in (tmp_path / "m.html").read_text(encoding="utf-8")
    nothing = np.full((1, 1), np.nan)
    save(Map("m", "x", "y", "v", np.ones(1), np.ones(1), nothing), tmp_path / "n.html")


def test_without_bokeh(monkeypatch, tmp_path, cli):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    for option, name in (("-o", "output"), ("--plot", "plot")):
        result = cli(*SIMULATE, option, tmp_path / "a.html")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"fastgrad: {name}: .html needs bokeh: pip install 'fastgrad[explore]'\n"
    assert not list(tmp_path.iterdir())


def test_a_page_is_for_a_file(cli):
    assert cli(*SIMULATE, "--format", "html").exit_code == 2  # no format of stdout
