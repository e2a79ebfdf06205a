"""Reports as data: no markup in them, values beside texts, and one file that knows rich."""

import ast
import io
import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import fastgrad
from fastgrad.jobs.backprop import log10_bound
from fastgrad.report import writing
from fastgrad.report.backprop import gradients_report
from fastgrad.report.console import show
from fastgrad.report.document import Cell, Figure, Map, Report, Table, Text, numbers, words
from fastgrad.report.text import power_of_ten

COMMANDS = {
    "example": "example",
    "example beyond float64": "example --weight 1e300",
    "simulate": "simulate --depth 500 --ensemble 7",
    "simulate one chain": "simulate --depth 1e5 --ensemble 1",
    "simulate zeros": "simulate --depth 5 --ensemble 3 --weight zero",
    "simulate what holds": "simulate --depth 60 --ensemble 3 --weight constant:4 --bias centered",
    "backprop": "backprop chain.npz",
    "backprop an ensemble": "backprop chains.npz",
    "train": "train --ensemble 50 --steps 100 --weight normal:std=500",
    "train one chain": "train --example",
    "schemes": "schemes --depth 3 --ensemble 20 --steps 5",
    "compare": "compare --depth 10 --ensemble 3 --repeats 2",
    "sweep": "sweep --grid weight=zero,constant:4,normal:std=20 --grid bias=zero,centered --depth 900 --ensemble 3",
    "sweep of training": "sweep --job train --grid steps=1,5 --grid weight.std=1,1e200 --ensemble 9",
    "dry run": "sweep --grid depth=10,20 --ensemble 5 --dry-run",
    "info": "info",
}


@pytest.fixture
def reported(tmp_path, monkeypatch, rng, cli):
    """A function that runs a command and returns its report."""
    monkeypatch.chdir(tmp_path)
    np.savez("chain.npz", weight=rng.normal(0, 5, 400), bias=rng.normal(size=400))
    np.savez("chains.npz", weight=[[1.0, 2.0], [0.0, 3.0], [2.0, 4.0]])
    reports = []
    monkeypatch.setattr(writing, "write", lambda report, *_: reports.append(report))

    def run(command):
        result = cli(*command.split())
        assert result.exit_code == 0, result.exc_info
        return reports.pop()

    return run


def tables(report):
    return [part for part in report.content if isinstance(part, Table)]


def shown(*content, color=False):
    show(content, file := io.StringIO(), color)
    return file.getvalue()


def test_only_the_console_imports_rich():
    importing = set()
    for path in (Path(fastgrad.__file__).parent / "report").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            importing |= {path.name for name in names if name.partition(".")[0] == "rich"}
    assert importing == {"console.py"}


@pytest.mark.parametrize("command", COMMANDS)
def test_contents_are_plain_data(command, reported):
    report = reported(COMMANDS[command])
    assert report.content
    for part in report.content:
        assert type(part) in (Text, Table, Figure, Map)
    texts = [part.words for part in report.content if isinstance(part, Text)]
    for table in tables(report):
        texts += [table.title or "", *(column.name for column in table.columns)]
        texts += [cell.text for row in table.rows for cell in row.cells]
    assert [text for text in texts if re.search(r"\[/?[a-z ]*\]|\x1b", text)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_values_of_a_column_can_be_sorted(command, reported):
    for table in tables(reported(COMMANDS[command])):
        for i, column in enumerate(table.columns):
            values = [row.cells[i].value for row in table.rows if row.cells[i].value is not None]
            kinds = {str} if column.kind == "words" else {int, float}
            if column.name not in ("", "link"):  # a dry run's remark, and links under the left edge of their table
                assert {type(value) for value in values} <= kinds, column.name
            assert all(value == value for value in values)
            sorted(values)


@pytest.mark.parametrize("command", ["simulate", "simulate one chain", "simulate zeros", "backprop"])
def test_values_keep_the_order_that_texts_lose(command, reported):
    def decades(text):
        if text.startswith("10^"):
            return float(text[3:].split()[0])
        return (
            -math.inf
            if text.split()[0] == "0"
            else math.log10(abs(float(re.sub(r"e.*", "", text)))) + int(text.partition("e")[2])
        )

    for column in range(1, len((table := tables(reported(COMMANDS[command]))[0]).columns)):
        cells = sorted((row.cells[column] for row in table.rows), key=lambda cell: cell.value)
        read = [decades(cell.text) for cell in cells]
        assert all(before <= after for before, after in pairwise(read))
        for value, cell in zip(read, cells, strict=True):
            assert cell.value == value or abs(cell.value - value) < 0.0501


def test_counts_beyond_what_was_searched_sort_last(reported):
    table = tables(reported(COMMANDS["simulate what holds"]))[1]
    assert {row.cells[1].text for row in table.rows} == {"not in 60"}
    assert {row.cells[1].value for row in table.rows} == {math.inf}


def test_a_cell_is_of_python_values():
    cell = Cell.of(np.float64(-3.25), power_of_ten)
    assert (type(cell.value), cell) == (float, Cell(-3.25, "10^-3.2"))
    assert type(Cell.of(np.int64(3)).value) is int
    assert Cell.of(np.float64("nan"), power_of_ten) == Cell(None, "undefined")
    assert Cell.of(float("nan")) == Cell(None, "nan")


def test_a_row_needs_a_cell_for_each_column():
    table = Table([*words("a"), *numbers("b")])
    table.add("x", Cell.of(1))
    with pytest.raises(ValueError, match="cells: expected 2, one a column, got 1"):
        table.add("x")
    assert len(table.rows) == 1


def test_the_figure_of_a_report_is_in_its_content(reported):
    report = reported(COMMANDS["simulate"])
    assert report.figure is report.content[-1]
    assert reported(COMMANDS["example"]).figure is None


def test_brackets_are_shown_as_they_are(rng):
    odd = "[bold]a[/] [dim] :warning: [0].npz"
    table = Table([*words(odd), *numbers(odd)], title=odd)
    table.add(odd, Cell(1, odd), emphasized=True)
    for role in ("title", "line", "note", "warning"):
        assert shown(Text(odd, role)) == odd + "\n"
    assert shown(table).count(odd) == 5
    chain = fastgrad.Chain.of(rng.normal(0, 5, 30), rng.normal(size=30))
    gradients = fastgrad.backprop(chain.weight[:, 0], chain.bias[:, 0], 0.5, backend="numpy")
    report = gradients_report(chain, gradients, log10_bound(chain), {"file": odd})
    assert shown(*report.content).splitlines()[0] == f"1 chain of 30 links from {odd}"


def test_roles_in_color():
    assert shown(Text("a"), color=True) == "a\n"
    assert shown(Text("a\n  b", "note"), color=True) == "\x1b[2ma\x1b[0m\n  \x1b[2mb\x1b[0m\n"
    assert shown(Text("a", "title"), color=True) == "\x1b[1ma\x1b[0m\n"
    assert shown(Text("a", "warning"), color=True) == "\x1b[1;31ma\x1b[0m\n"
    assert shown(Text.emphasizing("x a ", "a", " a"), color=True) == "x a \x1b[1ma\x1b[0m a\n"
    assert shown(Text.emphasizing("", "a", " b", "warning"), color=True) == "\x1b[1;31ma\x1b[0m b\n"
    assert "\x1b" not in shown(Text("a", "warning"), Text("a", "note"))


def test_sections_stand_apart():
    table = Table(words("of"))
    table.add("x")
    table.add("y", begins_section=True)
    assert shown(Text("a"), Text("b", "title"), Text("c")) == "a\n\nb\nc\n"
    assert shown(Text("b", "title")) == "b\n"
    lines = shown(table, Text("b", "title")).splitlines()
    assert [line.strip("─ ") for line in lines] == ["", "of", "", "x", "", "y", "", "b"]


def test_a_report_of_words_needs_no_figure():
    assert Report("merge", {}, {}, [], [Text("a")]).figure is None
