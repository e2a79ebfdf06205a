"""Figures: the same curves in the terminal and in files."""

import json
import math
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.backprop import log10_bound
from fastgrad.report.backprop import gradients_report
from fastgrad.report.document import PALETTE, Curve, Figure, Map, Text
from fastgrad.report.figures import check_path, save
from fastgrad.report.plot import study_report
from fastgrad.report.simulate import growth_report
from fastgrad.report.terminal import SHADES, terminal
from fastgrad.summary import thinned
from fastgrad.sweeps.study import study as lay_out

SMALL = ("simulate", "--depth", "20", "--ensemble", "9", "--backend", "numpy")
MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF-"}


def figure(gradient, bound=None, x=None):
    """A figure of one or two curves."""
    x = np.arange(1.0, len(gradient) + 1) if x is None else np.asarray(x, dtype=float)
    curves = [Curve("gradient", "gradient", np.asarray(gradient, dtype=float))]
    if bound is not None:
        curves.insert(0, Curve("bound", "bound", np.asarray(bound, dtype=float)))
    return Figure("a title", "link", "log10", x, curves)


def frame(text):
    """The lines within the frame of a terminal plot."""
    return [line[1 : line.index("│", 1)] for line in text.splitlines() if line.startswith("│")]


def ticks(text):
    """Numbers to the right of the frame, from the top."""
    return [float(number) for number in re.findall(r"│ (-?[\d.e+-]+)$", text, flags=re.MULTILINE)]


def dots(text):
    """The Braille dots of a terminal plot: (column, row), rows counted from the bottom, four in a character."""
    rows = frame(text)
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]  # of Unicode's bits, from the lowest
    found = set()
    for i, row in enumerate(rows):
        for j, character in enumerate(row):
            code = ord(character) - 0x2800
            if 0 <= code < 256:
                shown = [place for bit, place in enumerate(places) if code >> bit & 1]
                found |= {(2 * j + dx, 4 * (len(rows) - i) - dy - 1) for dx, dy in shown}
    return found


# The terminal


@pytest.mark.parametrize("width", [60, 78, 120])
def test_terminal_figure_has_the_asked_size(width):
    lines = terminal(figure(-np.arange(50.0), np.arange(50.0)), width, 16, color=False).splitlines()
    assert lines[:2] == ["a title", "(log10)"]
    assert width - 2 <= max(map(len, lines)) <= width
    assert len(frame("\n".join(lines))) == 16
    assert lines[-1].endswith("(link)")


def test_terminal_figure_names_its_curves():
    text = terminal(figure(-np.arange(50.0), np.arange(50.0)), 78, 16, color=False)
    assert text.count("gradient") == 1
    assert text.count("bound") == 1
    assert any("⠁" <= character <= "⣿" for character in text)


@pytest.mark.parametrize("slope", [-3.0, 2.0])
def test_terminal_figure_has_a_line_where_it_belongs(slope):
    text = terminal(figure(slope * np.arange(100.0)), 78, 16, color=False)
    found, columns = dots(text), 2 * len(frame(text)[0])
    assert {x for x, _ in found}.issuperset(range(20))  # the name, at a third of the width, may cover some of the rest
    x, y = np.array(sorted(found)).T
    fit = np.polyfit(x, y, 1)
    assert fit[0] == pytest.approx(math.copysign(64 / columns, slope), rel=0.05)  # from corner to corner
    assert np.abs(np.polyval(fit, x) - y).max() < 2


def places(text, name):
    """Where a name stands in a terminal plot: its first column and its row, rows counted from the bottom."""
    rows = frame(text)
    return [(row.index(name), len(rows) - i - 1) for i, row in enumerate(rows) if name in row]


@pytest.mark.parametrize("width", [60, 78, 120])
def test_names_stand_beside_their_curves_at_two_thirds_and_one_third(width):
    # Two lines that are level, in the fifth row from the bottom and in the fifth from the top.
    edges = Curve("theory", "theory", np.linspace(-20, 20, 91))
    drawn = figure(np.full(91, -9.0), np.full(91, 9.0))
    text = terminal(Figure("a title", "link", "log10", drawn.x, [*drawn.curves, edges]), width, 16, color=False)
    canvas = len(frame(text)[0])
    ((bound, above),) = places(text, "bound")
    ((gradient, below),) = places(text, "gradient")
    assert bound == pytest.approx(canvas * 2 / 3, abs=2)
    assert gradient == pytest.approx(canvas / 3, abs=2)
    assert (below, above) == (3, 12)  # each on the side away from the middle


def test_names_of_curves_that_coincide_stand_apart():
    flat = np.full(60, 3.0)
    text = terminal(figure(flat, flat), 78, 16, color=False)
    ((bound, _),) = places(text, "bound")
    ((gradient, _),) = places(text, "gradient")
    assert abs(bound - gradient) > len("gradient")


@pytest.mark.parametrize(("low", "high"), [(-100.0, 0.0), (0.0, 1e6), (-3.0, 5.0), (-0.007, -0.002)])
def test_data_fill_the_height(low, high):
    for kind in ("gradient", "series"):
        x = np.arange(50.0)
        text = terminal(Figure("t", "x", "y", x, [Curve(kind, "a", np.linspace(low, high, 50))]), 78, 16, color=False)
        rows = {y for _, y in dots(text)}
        zero_in = kind == "gradient"  # 0 is in every figure of gradients
        span = max(high, 0.0) - min(low, 0.0) if zero_in else high - low
        assert max(rows) - min(rows) >= 63 * (high - low) / span - 1


def test_terminal_figure_reaches_both_ends():
    text = terminal(figure(np.full(30, -5.0)), 78, 16, color=False)
    x, _ = np.array(sorted(dots(text))).T
    assert (x.min(), x.max()) == (0, 2 * len(frame(text)[0]) - 1)


def test_terminal_figure_leaves_out_what_is_not_finite():
    whole = np.concatenate([np.full(50, -np.inf), -1 - np.arange(50.0)])
    x, _ = np.array(sorted(dots(terminal(figure(whole), 78, 16, color=False)))).T
    assert x.min() > 50


@pytest.mark.parametrize(
    "gradient",
    [
        np.zeros(1),
        np.full(1, -3.0),
        np.full(5, -np.inf),
        np.zeros(64),
        -1e6 * np.arange(64.0),
        1e15 * np.arange(64.0),
        np.array([-0.5, -1.5]),
    ],
    ids=["0", "one link", "exact zeros", "constant", "deep", "deepest", "two links"],
)
@pytest.mark.parametrize("width", [60, 78])
def test_terminal_figure_of_extremes(gradient, width):
    lines = terminal(figure(gradient), width, 16, color=False).splitlines()
    assert max(map(len, lines)) <= width
    assert "nan" not in "".join(lines)
    assert "inf" not in "".join(lines)


@pytest.mark.parametrize("curves", [(-np.inf,), (-np.inf, -np.inf), (-np.inf, 1.0), (-1.0,)])
def test_terminal_figure_says_when_all_is_zero(curves):
    drawn = figure(*(np.full(9, value) for value in curves))
    lines = terminal(drawn, 78, 16, color=False).splitlines()
    assert lines[0] == "a title"
    assert (lines[1] == "(exactly zero throughout)") == (not np.isfinite(curves).any())


@pytest.mark.parametrize("high", [0.6, 6.0, 0.04, 60.0])
def test_no_tick_is_a_negative_zero(high):
    text = terminal(figure(np.linspace(high, -4.2 * high, 30)), 78, 16, color=False)
    assert 0.0 in ticks(text)
    assert not re.search(r"-0(\.0*)?(?![\d.])", text)


@pytest.mark.parametrize("links", [10**3, 10**6])
@pytest.mark.parametrize("width", [60, 78])
def test_terminal_figure_thins_its_points(links, width, monkeypatch):
    import plotille

    lines, real = [], plotille.Canvas.line

    def watch(self, *dots, **keywords):
        lines.append(dots)
        real(self, *dots, **keywords)

    monkeypatch.setattr(plotille.Canvas, "line", watch)
    y = -np.arange(float(links))
    y[:5] = -np.inf  # left out first
    text = terminal(figure(y), width, 16, color=False)
    columns = len(frame(text)[0])
    assert len(lines) == min(links - 5, 8 * width) - 1
    assert lines[0][0] == round(5 / (links - 1) * (2 * columns - 1))
    assert lines[-1][2:] == (2 * columns - 1, 0)


def test_thinned_indices_are_evenly_spaced():
    indices = np.arange(7, 1007)
    assert thinned(indices, 1000) is indices
    some = thinned(indices, 64)
    assert (len(some), some[0], some[-1]) == (64, 7, 1006)
    assert set(np.diff(some)) <= {15, 16}


@pytest.mark.parametrize("height", [1e6, 284.0, 60.0, 5.0, 0.5, 0.05, 1.79, 7.5e-4])
def test_ticks_are_round_and_fall(height):
    shown = ticks(terminal(figure(np.linspace(0, -height, 40)), 78, 16, color=False))
    assert len(shown) >= 2
    steps = -np.diff(shown)
    assert steps == pytest.approx(np.full(len(steps), steps[0]), rel=1e-6)
    leading = steps[0] / 10 ** np.floor(np.log10(steps[0]) + 1e-9)
    assert min(abs(leading - of) for of in (1, 2, 5)) < 1e-6
    assert -height <= shown[-1] < shown[0] <= 0


@pytest.mark.parametrize("x_log", [False, True])
def test_ticks_stand_where_they_belong(x_log, rng):
    """A tick's row and column hold a point of the line from one corner to the other that has the tick's value."""
    for _ in range(20):
        low, span = rng.normal() * 10 ** rng.uniform(-2, 4), 10 ** rng.uniform(-2, 4)
        x = np.geomspace(1, 10 ** rng.uniform(1, 6), 200) if x_log else np.linspace(low, low + span, 200)
        along = np.log10(x) if x_log else x
        y = low + span * (along - along[0]) / (along[-1] - along[0])
        text = terminal(Figure("t", "x", "y", x, [Curve("series", "", y)], x_log), 78, 16, color=False)
        rows = [line for line in text.splitlines() if line.startswith("│")]
        for row, line in enumerate(rows):
            tick = line.rpartition("│ ")[2]
            if not line.endswith("│"):
                exact = 16 * (y[-1] - float(tick)) / span
                assert abs(exact - row - 0.5) < 0.63  # a row, and half a dot of rounding
        axis, width = text.splitlines()[-2], len(frame(text)[0])
        for match in re.finditer(r"\S+", axis):
            value = float(match[0])
            place = ((np.log10(value) if x_log else value) - along[0]) / (along[-1] - along[0]) * width + 1
            assert (
                abs((match.start() + match.end()) / 2 - place) <= 1.5 or match.start() == 0 or match.end() == width + 2
            )


@pytest.mark.parametrize(
    ("low", "high", "x_log", "expected"),
    [
        (0.3, 8, True, "0.5 1 2 5"),
        (2, 45, True, "2 5 10 20"),
        (0.3, 30, True, "1 10"),
        (3, 8, True, "3 4 5 6 7 8"),
        (1, 3, False, "1 2 3"),
        (1, 2, False, "1 2"),
        (1, 7, False, "2 4 6"),
    ],
)
def test_ticks_of_short_axes(low, high, x_log, expected):
    """Round on a logarithmic axis, and never between two links."""
    x = np.geomspace(low, high, 9) if x_log else np.arange(low, high + 1.0)
    text = terminal(Figure("t", "x", "y", x, [Curve("series", "", x)], x_log), 78, 16, color=False)
    assert text.splitlines()[-2].split() == expected.split()


@pytest.mark.parametrize(
    "environment", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}]
)
def test_colors_tell_the_curves_apart(environment, monkeypatch):
    """What the caller says counts, whatever the environment and the terminal say."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    drawn = figure(-np.arange(50.0), np.arange(50.0))
    plain, colored = (terminal(drawn, 78, 16, color) for color in (False, True))
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == plain
    assert len(set(re.findall(r"\x1b\[([\d;]+)m", colored)) - {"0"}) == 2


def test_twelve_series_have_twelve_colors():
    assert len({color for color, _ in PALETTE}) == len({name for _, name in PALETTE}) == 12
    colored = terminal(family(12), 78, 16, color=True)
    assert len(set(re.findall(r"\x1b\[(\d+)m", colored)) - {"0"}) == 12


# Into files


@pytest.mark.parametrize("kind", MAGIC)
@pytest.mark.parametrize("ending", [str.lower, str.upper], ids=["lower", "upper"])
def test_save(kind, ending, tmp_path):
    path = tmp_path / f"figure.{ending(kind)}"
    save(figure(-np.arange(50.0), np.arange(50.0)), path)
    content = path.read_bytes()
    assert content.startswith(MAGIC[kind])
    assert len(content) > 2000
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_svg_shows_the_curves(tmp_path):
    zigzag = np.arange(50.0) % 2  # which no simplification makes shorter
    drawn = figure(-10 - zigzag, 10 + zigzag)
    band = Curve("gradient", "gradient", drawn.curves[1].y, (drawn.curves[1].y - 1, drawn.curves[1].y + 1))
    save(Figure(drawn.title, "link", "log10", drawn.x, [drawn.curves[0], band]), tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    paths = ET.fromstring(text).iter("{http://www.w3.org/2000/svg}path")
    lines = [(path.get("style", ""), path.get("d", "").split()) for path in paths]
    for label in ("a title", "link", "log10", "gradient, with 5 % to 95 % of chains", "bound"):
        assert f"<!-- {label} -->" in text  # matplotlib writes letters as curves, with the text in a comment
    for color in ("#0072b2", "#d55e00"):
        counts = [d.count("L") for style, d in lines if f"stroke: {color}" in style and "fill: none" in style]
        assert max(counts) == 49  # the other is that of the legend


@pytest.mark.parametrize(
    "gradient", [np.zeros(1), np.full(5, -np.inf), np.zeros(5)], ids=["one link", "zeros", "constant"]
)
def test_save_extremes(gradient, tmp_path):
    save(figure(gradient), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(MAGIC["png"])


def test_saving_needs_no_display_and_no_pyplot(python, tmp_path):
    code = f"""
import sys
import numpy as np
from fastgrad.report.document import Curve, Figure
from fastgrad.report.figures import save
x = np.arange(3.0)
save(Figure("", "link", "log10", x, [Curve("bound", "bound", x)]), {str(tmp_path / "a.png")!r})
print("matplotlib.pyplot" in sys.modules)
"""
    assert python(code, DISPLAY=None, MPLBACKEND=None) == "False\n"


@pytest.mark.parametrize("name", ["figure.gif", "figure", "figure.png.txt", ""])
def test_unknown_ending(name):
    with pytest.raises(ValueError, match=r"^plot: expected a file ending in \.png, \.svg, \.pdf, \.html, got "):
        check_path(name)


def test_without_matplotlib(monkeypatch, tmp_path, cli):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"^plot: needs matplotlib: pip install 'fastgrad\[plot\]'$"):
        check_path(tmp_path / "figure.png")

    def too_late(*_, **__):
        raise AssertionError("the job ran before the figure was checked")

    monkeypatch.setattr(fg, "simulate", too_late)
    result = cli(*SMALL, "--plot", tmp_path / "figure.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "fastgrad: plot: needs matplotlib: pip install 'fastgrad[plot]'\n"
    assert list(tmp_path.iterdir()) == []


def test_terminal_needs_no_matplotlib(monkeypatch, cli):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = cli(*SMALL)
    assert result.exit_code == 0
    assert "⠒" in result.stdout


# The commands


@pytest.mark.parametrize("kind", MAGIC)
def test_plot_option_of_simulate(kind, tmp_path, cli):
    plain, drawn = cli(*SMALL), cli(*SMALL, "--plot", tmp_path / f"figure.{kind}")
    assert (drawn.exit_code, drawn.stderr) == (0, "")
    assert drawn.stdout == plain.stdout  # data as ever
    assert (tmp_path / f"figure.{kind}").read_bytes().startswith(MAGIC[kind])


def test_plot_option_with_an_output_file(tmp_path, cli):
    result = cli(*SMALL, "--plot", tmp_path / "figure.png", "-o", tmp_path / "growth.json")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "growth.json"]


@pytest.mark.parametrize("name", ["figure.png", "figure.SVG"])
def test_output_into_a_figure_names_the_option(name, tmp_path, cli):
    result = cli(*SMALL, "-o", tmp_path / name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.rstrip().endswith(f"or --format; the figure is drawn with --plot {tmp_path / name}")
    assert "--plot" not in cli("example", "-o", tmp_path / name).stderr  # which has no figure
    assert list(tmp_path.iterdir()) == []


def test_plot_option_of_backprop(tmp_path, cli):
    np.save(tmp_path / "weight.npy", np.full((30, 2), 5.0))
    result = cli("backprop", tmp_path / "weight.npy", "--plot", tmp_path / "figure.svg", "--format", "csv")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "<!-- grad_bias -->" in (tmp_path / "figure.svg").read_text(encoding="utf-8")


def test_default_output_has_the_plot(cli):
    lines = cli(*SMALL).stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("log10 |gradient| against the link"))
    shown = "\n".join(lines[start:])
    assert len(dots(shown)) > 50
    assert "bound (median)" in shown
    assert "gradient (median)" in shown


def test_figure_shows_the_numbers_of_the_result():
    growth = fg.simulate(200, 20, weight="normal:std=5", bias="normal:std=1", record=16, backend="numpy")
    drawn = growth_report(growth, {}).figure
    assert drawn.x.tolist() == growth.link.tolist()
    for curve, scaled in zip(drawn.curves[:2], (growth.bound, growth.adjoint), strict=True):
        quantiles = np.quantile(scaled.log10(), (0.05, 0.5, 0.95), axis=1, method="inverted_cdf")
        assert curve.y.tolist() == quantiles[1].tolist()
        assert [edge.tolist() for edge in curve.band] == [quantiles[0].tolist(), quantiles[2].tolist()]
    assert [curve.kind for curve in drawn.curves] == ["bound", "gradient", "theory"]
    rate = fg.theory.lyapunov("normal:std=5", "normal:std=1") / math.log(10)
    assert drawn.curves[2].y == pytest.approx((201 - growth.link) * rate, rel=1e-12)


def test_figure_of_one_chain_has_no_band():
    figure = growth_report(fg.simulate(50, 1, backend="numpy"), {}).figure
    assert [curve.band for curve in figure.curves] == [None, None, None]


def test_figure_of_given_chains_shows_their_numbers(rng):
    chain = fg.Chain.of(rng.normal(0, 5, 30), rng.normal(size=30))
    gradients = fg.backprop(chain.weight[:, 0], chain.bias[:, 0], 0.5, backend="numpy")
    drawn = gradients_report(chain, gradients, log10_bound(chain), {"file": "chain.npz"}).figure
    curves = {curve.label: curve.y for curve in drawn.curves}
    assert drawn.x.tolist() == list(range(1, 31))
    assert curves["grad_bias"].tolist() == gradients.grad_bias.log10().tolist()
    weight = np.abs(chain.weight[:, 0])
    bound = [math.log10(0.25) + np.log10(weight[link:] / 4).sum() for link in range(1, 31)]
    np.testing.assert_allclose(curves["bound"], bound, rtol=0, atol=1e-12)
    assert np.all(curves["bound"] >= curves["grad_bias"])


# Several series, logarithmic axes, maps


def family(count, x_log=True):
    x = np.geomspace(0.1, 1000, 9)
    return Figure(
        "title",
        "std",
        "exponent",
        x,
        [Curve("series", f"law {i}", np.log(x) - i, color=i) for i in range(count)],
        x_log,
    )


def test_a_logarithmic_axis_is_even_in_decades():
    straight = dots(terminal(family(1), 78, 16, False))
    columns = sorted({column for column, _ in straight})
    rows = [np.mean([row for column, row in straight if column == at]) for at in columns]
    assert np.corrcoef(columns, rows)[0, 1] > 0.998  # its name covers some dots


@pytest.mark.parametrize("count", [2, 9])
def test_every_series_is_named(count):
    text = terminal(family(count), 78, 16, False)
    assert all(f"law {i}" in text for i in range(count))
    assert max(map(len, text.splitlines())) <= 78


@pytest.mark.parametrize("width", range(60, 79))
def test_a_letter_stands_beside_its_name(width):
    _, _, legend = terminal(family(9), width, 16, color=False).rpartition("(std)\n")
    lines = legend.splitlines()
    named = [entry for line in lines for entry in line.split("   ")]
    assert named == [f"{letter} law {i}" for i, letter in enumerate("abcdefghi")]
    assert max(map(len, lines)) <= width


def test_names_of_curves_that_coincide_are_all_read():
    names = {"bound": "bound (median)", "gradient": "gradient (median)", "theory": "theory"}
    for slope in (0.0, 1.0, -1.0):
        y = slope * np.arange(50.0)
        drawn = Figure("t", "link", "log10", np.arange(1.0, 51), [Curve(kind, name, y) for kind, name in names.items()])
        text = "\n".join(frame(terminal(drawn, 78, 16, color=False)))
        assert [len(re.findall(rf"(?<![\w)]){re.escape(name)}(?![\w(])", text)) for name in names.values()] == [1, 1, 1]


@pytest.mark.parametrize("count", [2, 5])
def test_series_of_one_name(count):
    x = np.arange(5.0)
    alike = [Curve("series", "weight.std 1", x * i) for i in range(count)]  # told apart beyond the digits of a name
    assert terminal(Figure("title", "x", "y", x, alike), 78, 16, False).count("weight.std 1") == count


def test_series_have_colors_and_lines_of_their_own(tmp_path):
    figure = family(len(PALETTE) + 1)
    save(figure, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text(encoding="utf-8").lower()
    assert all(color.lower() in text for color, _ in PALETTE)
    assert "stroke-dasharray" in text  # the one whose color comes a second time


def shaded(values, **more):
    values = np.asarray(values, dtype=float)
    rows, columns = values.shape
    return Map("title", "std", "rate", "share", np.arange(1.0, columns + 1), np.arange(1.0, rows + 1), values, **more)


def test_map_in_a_terminal():
    text = terminal(shaded([[0, 1, 2], [np.nan, 3, 9]]), 78, 16, False).splitlines()
    assert text[0] == "title"
    assert text[2] == f"2 |{'?' * 6}{SHADES[3] * 6}{SHADES[-1] * 6}|"
    assert text[3] == f"1 |{SHADES[0] * 6}{SHADES[1] * 6}{SHADES[2] * 6}|"
    assert text[-1] == f"share: '{SHADES}' from 0 to 9; ?: none"


def test_map_of_one_value_and_of_many_columns():
    assert "from 0.5 to 0.5" in terminal(shaded([[0.5]]), 78, 16, False)
    assert max(map(len, terminal(shaded(np.eye(3, 500)), 78, 16, False).splitlines())) <= 78
    assert "none" in terminal(shaded([[np.nan]]), 78, 16, False)


@pytest.mark.parametrize("kind", MAGIC)
def test_save_map(kind, tmp_path):
    drawn = Map("t", "x", "y", "v", np.geomspace(1, 1000, 4), np.arange(3.0), np.arange(12.0).reshape(3, 4), x_log=True)
    save(drawn, tmp_path / f"map.{kind}")
    assert (tmp_path / f"map.{kind}").read_bytes().startswith(MAGIC[kind])


@pytest.mark.parametrize("kind", ["one curve", "three curves", "five curves", "map"])
def test_long_texts_stay_within_the_file(kind, tmp_path, monkeypatch):
    from matplotlib.figure import Figure as Canvas

    title, x, saved = "log10 |gradient| against the link: uniform:low=-30.125,high=17.5 " * 3, np.arange(1.0, 4), []
    label = "links until the exact median gradient would underflow in bfloat16"
    count = ["map", "one curve", "", "three curves", "", "five curves"].index(kind)
    lines = [Curve("series", f"a curve with a long name {i}", x + i) for i in range(count)]
    drawn = Figure(title, "x", label, x, lines) if count else Map(title, "x", "y", label, x, x, np.eye(3))
    savefig = Canvas.savefig
    monkeypatch.setattr(Canvas, "savefig", lambda self, *a, **k: (saved.append(self), savefig(self, *a, **k)))
    save(drawn, tmp_path / "figure.png")
    saved[0].draw_without_rendering()
    axes = saved[0].axes
    for text in (axes[-1].yaxis.label, axes[0]._left_title):
        extent = text.get_window_extent()
        assert 0 <= extent.y0 < extent.y1 <= saved[0].bbox.y1
        assert 0 <= extent.x0 < extent.x1 <= saved[0].bbox.x1


@pytest.mark.parametrize("count", [1, 4])
def test_joined_names_leave_room_for_the_axes(count, tmp_path, monkeypatch, recwarn):
    x, name = np.arange(1.0, 12), ", ".join(["a scheme of a name"] * 10)
    from fastgrad.report import image

    draw, canvas = image.drawn, []
    monkeypatch.setattr(image, "drawn", lambda figure: canvas.append(draw(figure)) or canvas[0])
    figure = Figure(
        "title", "layer", "y", x, [Curve("series", f"{name} {i}", x * np.nan if i else x) for i in range(count)]
    )
    save(figure, tmp_path / "figure.png")
    assert [str(warning.message) for warning in recwarn] == []
    box = canvas[0].axes[0].get_position()
    assert min(box.width, box.height) > 0.3


def test_cells_of_a_logarithmic_map_lie_around_their_values():
    from fastgrad.report.document import cell_edges

    assert cell_edges(np.array([1.0, 100.0]), True) == pytest.approx([0.1, 10.0, 1000.0])
    assert cell_edges(np.array([0.0, 1.0, 4.0]), False).tolist() == [-0.5, 0.5, 2.5, 5.5]
    assert cell_edges(np.array([3.0]), False).tolist() == [2.5, 3.5]


# The store of a sweep

STUDY = {"weight.std": [1, 10, 100], "bias.std": [0.0, 1.0], "depth": [20, 40]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A store with three parameters that vary, and its rows."""
    path = tmp_path_factory.mktemp("study") / "study.db"
    return path, fg.sweep(STUDY, store=path, ensemble=30)


def only(rows, **where):
    return [row for row in rows if all(row[name.replace("__", ".")] == value for name, value in where.items())]


def drawn_study(job, rows, value, x, where):
    return study_report(lay_out(job, rows, value, x, where), where).figure


def test_study_as_a_family_of_lines(study):
    _, rows = study
    drawn = drawn_study("simulate", only(rows, depth=40), None, None, {})
    assert drawn.x.tolist() == [1, 10, 100]
    assert drawn.x_log
    lines = [curve for curve in drawn.curves if curve.kind == "series"]
    assert [line.label for line in lines] == ["bias.std 0", "bias.std 1"]
    for line, std in zip(lines, (0.0, 1.0), strict=True):
        assert line.y.tolist() == [row["lyapunov"] for row in only(rows, depth=40, bias__std=std)]
    theory = [curve for curve in drawn.curves if curve.kind == "theory"]
    assert theory[1].y.tolist() == [row["theory"] for row in only(rows, depth=40, bias__std=1.0)]


def test_the_exponent_that_theory_knows_is_drawn_where_there_is_one():
    grid = {"depth": [20, 1000], "weight.std": [2, 4]}
    rows = fg.sweep(grid, ensemble=30)
    assert [row["stationary"] is None for row in rows] == [True, True, False, False]
    report = study_report(lay_out("simulate", rows, None, "weight.std", {}), {})
    (long,) = (curve for curve in report.figure.curves if curve.kind == "series")
    assert long.label == "depth 1000"
    assert long.y.tolist() == [row["stationary"] for row in rows[2:]]
    assert report.content[-1] == Text("2 points of 4 have not forgotten the start: --value lyapunov has all", "note")
    report = study_report(lay_out("simulate", rows, None, None, {"depth": "20"}), {"depth": "20"})
    assert report.figure.curves[0].y.tolist() == [row["lyapunov"] for row in rows[:2]]
    assert report.content[-1] is report.figure


def test_study_as_one_line(study, cli):
    path, rows = study
    arguments = ("--where", "bias.std=1", "--where", "weight.std=10", "--value", "bound_rate", "--format", "json")
    result = json.loads(cli("plot", path, *arguments).stdout)["result"]
    wanted = only(rows, bias__std=1.0, weight__std=10.0)
    assert result["axes"] == ["depth"]
    assert [point["bound_rate"] for point in result["points"]] == [row["bound_rate"] for row in wanted]


def test_study_as_a_map():
    rows = fg.sweep({"weight.std": [1, 2, 3], "bias.std": np.arange(8.0)}, depth=5, ensemble=4)
    drawn = drawn_study("simulate", rows, "zero_share", "weight.std", {})
    assert isinstance(drawn, Map)
    assert (drawn.x.tolist(), drawn.y.tolist()) == ([1, 2, 3], list(range(8)))
    assert drawn.values.shape == (8, 3)
    exponents = drawn_study("simulate", rows[:-1], None, "weight.std", {}).values
    assert exponents[2, 1] == only(rows, weight__std=2.0, bias__std=2.0)[0]["lyapunov"]
    assert np.isnan(exponents[7, 2])


def test_study_of_training_over_named_laws():
    rows = fg.sweep({"weight": ["he_normal", "normal:std=500"], "steps": [5, 50]}, job="train", ensemble=20)
    drawn = drawn_study("train", rows, "running", None, {})
    assert drawn.x.tolist() == [5, 50]
    assert [curve.label for curve in drawn.curves] == ["weight he_normal", "weight normal:std=500"]


def test_plot_command_draws_the_figure(study, tmp_path, cli):
    path, _ = study
    result = cli("plot", path, "--where", "depth=20", "--plot", tmp_path / "study.png")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "bias.std 0" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert (tmp_path / "study.png").read_bytes().startswith(MAGIC["png"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "where: depth, weight.std, bias.std vary; expected one parameter with numbers, and at most one other"),
        (("--where", "depth=20", "--value", "loss"), 2, "value: expected one of lyapunov, lyapunov_stderr, bound_rate"),
        (
            ("--where", "depth=20", "--x", "seed"),
            2,
            "x: expected a parameter whose numbers vary (weight.std, bias.std)",
        ),
        (("--where", "depth=21"), 2, "where: no point has these values"),
        (("--where", "units=2"), 2, "where: unknown parameter 'units', expected one of depth"),
        (("--where", "depth"), 2, "where: expected NAME=VALUE, got 'depth'"),
        (("--where", "depth=20", "--where", "weight.std=1", "--where", "bias.std=1"), 2, "nothing varies"),
        (("--plot", "study.txt"), 2, "plot: expected a file ending in"),
    ],
)
def test_plot_command_refuses(arguments, code, words, study, cli):
    result = cli("plot", study[0], *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_text_parameters_can_be_picked():
    grid = {"loss": ["squared", "cross_entropy"], "clip_value": [0.1, 1.0], "weight": ["normal", "he_normal"]}
    rows = fg.sweep(grid, job="train", depth=1, ensemble=5, steps=5)
    drawn = drawn_study("train", rows, "median_loss", None, {"loss": "squared", "weight": "he_normal"})
    assert drawn.curves[0].y.tolist() == [row["median_loss"] for row in only(rows, loss="squared", weight="he_normal")]
    drawn = drawn_study("train", rows, None, None, {"weight": "normal:std=1", "loss": "squared"})
    assert drawn.x.tolist() == [0.1, 1.0]


@pytest.mark.parametrize("values", [[1e-300, 1.0, 1e300], [1.0, 2.0, 1e250]])
def test_numbers_beyond_what_can_be_drawn(values, tmp_path):
    x = np.arange(1.0, 4)
    for drawn in (
        Figure("", "x", "y", np.array(values), [Curve("series", "s", x)], x_log=True),
        Figure("", "x", "y", x, [Curve("series", "s", np.array(values))]),
        Map("", "x", "y", "v", np.array(values), x, np.eye(3), x_log=True),
    ):
        with pytest.raises(ValueError, match="plot: a figure can't show numbers from 1"):
            save(drawn, tmp_path / "a.png")
        assert max(map(len, terminal(drawn, 78, 16, False).splitlines())) <= 80


def test_plot_command_of_what_is_no_store(tmp_path, cli):
    assert cli("plot", tmp_path / "absent.db").exit_code == 1
    (tmp_path / "chain.csv").write_text("weight\n1\n")
    result = cli("plot", tmp_path / "chain.csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is no store of a sweep, but another kind of file" in result.stderr
