"""`fastgrad report`: all of a sweep."""

import json
import re

import pytest

import fastgrad as fg

GRID = {"weight.std": [1.0, 4.0, 9.0], "bias.std": [0.0, 1.0]}


@pytest.fixture
def store(tmp_path):
    fg.sweep(GRID, depth=60, ensemble=20, bias="normal:std=1", store=tmp_path / "study.db")
    return tmp_path / "study.db"


def test_it_has_every_point_and_what_computed_it(store, cli):
    shown = cli("report", store)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "study.db: simulate, 6 points" in shown.stdout
    assert "Lyapunov exponent" in shown.stdout
    assert "underflow in float32" in shown.stdout
    assert fg.__version__ in shown.stdout.partition("Computed by")[2]
    result = json.loads(cli("report", store, "--format", "json").stdout)["result"]
    exported = json.loads(cli("export", store, "--format", "json").stdout)["result"]
    assert result["points"] == exported["points"]
    (origin,) = result["origins"]
    assert (origin["points"], origin["fastgrad"]) == (6, fg.__version__)
    assert origin["first"] <= origin["last"]
    assert "seed" not in origin


def test_one_page(store, tmp_path, cli):
    assert cli("report", store, "-o", tmp_path / "study.html").exit_code == 0
    text = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert text.count("<figure>") == 2
    assert len(re.findall(r"<tr class", text)) == 7  # the points, and one origin
    assert len(text) < 2_000_000


def test_what_can_not_be_drawn_says_why(tmp_path, cli):
    fg.sweep({"depth": [20, 30], "weight.std": [1, 2], "seed": [1, 2]}, ensemble=9, store=tmp_path / "a.db")
    shown = cli("report", tmp_path / "a.db")
    assert shown.exit_code == 0
    assert "No figure: " in shown.stdout
    assert "fix the rest" in shown.stdout


def test_training(tmp_path, cli):
    grid = {"learning_rate": [0.1, 1.0, 10.0]}
    fg.sweep(grid, job="train", ensemble=50, steps=50, store=tmp_path / "t.db")
    assert "share of chains that converge" in cli("report", tmp_path / "t.db").stdout.lower()


def test_the_store_is_not_overwritten(store, cli):
    before = store.read_bytes()
    assert cli("report", store, "-o", store, "--format", "json").exit_code == 2
    assert store.read_bytes() == before
    assert cli("report", store.parent / "absent.db").exit_code == 1
