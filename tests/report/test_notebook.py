"""Results in notebooks."""

import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

import fastgrad as fg

RESULTS = {
    "growth": lambda: fg.simulate(200, 20, "normal:std=4", seed=1),
    "one chain": lambda: fg.simulate(50, 1),
    "dead chain": lambda: fg.simulate(50, 2, "zero"),
    "layers": lambda: fg.simulate(30, 4, "normal:gain=2", width=8, nonlinearity="tanh"),
    "gradients": lambda: fg.backprop(*fg.draw(300, 5), 0.5),
    "one chain's": lambda: fg.backprop([2.0, 3.0, 4.0], [0.0, 1.0, 0.0], 0.5),
    "training": lambda: fg.train_drawn(3, 20, steps=30),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_a_table_with_a_sparkline(name):
    result = RESULTS[name]()
    shown = result._repr_html_()
    table = ElementTree.fromstring(shown)  # well formed
    assert table.tag == "table"
    assert type(result).__name__ in "".join(table.itertext())
    assert len(shown) < 10_000
    lines = table.findall(".//polyline")
    assert len(lines) == (name != "dead chain")
    for line in lines:
        points = np.array([pair.split(",") for pair in line.get("points").split()], dtype=float)
        assert np.all(np.diff(points[:, 0]) > 0)
        assert points.min() >= 2
        assert points[:, 1].max() <= 42


def test_a_sparkline_falls_where_the_gradient_does():
    growth = RESULTS["growth"]()
    heights = [float(y) for y in re.findall(r",([\d.]+)", growth._repr_html_().partition("points=")[2])]
    median = growth.log10_curve["adjoint"]["q50"]
    assert np.argmin(heights) == np.argmax(median)
    assert np.argmax(heights) == np.argmin(median)
    assert "-1.4" in growth._repr_html_()  # the exponent


@pytest.mark.parametrize("name", RESULTS)
def test_plot_is_matplotlibs_figure(name, tmp_path):
    canvas = RESULTS[name]().plot()
    assert isinstance(canvas, Canvas)
    canvas.savefig(tmp_path / "a.png")
    assert canvas._repr_png_().startswith(b"\x89PNG")  # which IPython asks for


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"plot: needs matplotlib: pip install 'fastgrad\[plot\]'"):
        RESULTS["growth"]().plot()
