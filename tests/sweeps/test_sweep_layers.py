"""Sweeps over width and nonlinearity: rows, stores, theory."""

import json

import pytest

import fastgrad as fg
from fastgrad.sweeps.points import deviation

SMALL = {"depth": 30, "ensemble": 20, "record": 5}


def test_points_are_those_of_simulate():
    rows = fg.sweep({"width": [1, 2, 16], "nonlinearity": ["sigmoid", "tanh"]}, weight="normal:std=1", **SMALL)
    assert len(rows) == 6
    for row in rows:
        alone = fg.simulate(**SMALL, weight="normal:std=1", width=row["width"], nonlinearity=row["nonlinearity"])
        assert (row["lyapunov"], row["lyapunov_stderr"]) == alone.lyapunov
        theory = fg.theory.predict("normal:std=1", width=row["width"], nonlinearity=row["nonlinearity"])
        assert row["theory"] == (theory.lyapunov and pytest.approx(theory.lyapunov, rel=1e-9))
        assert row["theory_bound"] == theory.bound.mean
        is_chain = row["width"] == 1 and row["nonlinearity"] == "sigmoid"
        assert row.get("theory_holds_for") == (None if is_chain else theory.holds_for)


def test_a_store_has_chains_and_layers(tmp_path, cli):
    store = tmp_path / "study.db"
    chains = fg.sweep({"seed": [1, 2]}, store=store, **SMALL)
    both = fg.sweep({"seed": [1, 2], "width": [1, 8]}, store=store, **SMALL)
    assert [row for row in both if row["width"] == 1] == chains
    with pytest.raises(ValueError, match="width"):
        fg.sweep({"width": [0]}, store=store, **SMALL)
    done = json.loads(cli("sweep", "--grid", "seed=1,2", "--grid", "width=1,8", "--store", store, "--dry-run",
                          *options(SMALL), "--format", "json").stdout)  # fmt: skip
    assert done["result"]["waiting"] == 0
    exported = json.loads(cli("export", store, "--format", "json").stdout)["result"]["points"]
    assert sorted(row["lyapunov"] for row in exported) == sorted(row["lyapunov"] for row in both)
    parts = [tmp_path / f"part{i}.db" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        cli("sweep", "--grid", "seed=1,2", "--grid", "width=1,8", "--store", part, "--shard", f"{i}/2", *options(SMALL))
    assert cli("merge", *parts, "-o", tmp_path / "whole.db").exit_code == 0
    assert (
        cli("export", tmp_path / "whole.db", "--format", "json").stdout
        == cli("export", store, "--format", "json").stdout
    )


def options(given):
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


@pytest.mark.parametrize(
    ("message", "grid"),
    [
        ("weight: orthogonal is a law of layers", {"weight": ["normal:gain=1", "orthogonal"], "width": [8, 1]}),
        (
            "bias: centered is a law of sigmoid chains",
            {"bias": ["zero", "centered"], "nonlinearity": ["sigmoid", "tanh"]},
        ),
        (
            "bias: centered is a law of chains .width 1., got width 300",
            {"bias": ["zero", "centered"], "width": [1, 300]},
        ),
    ],
)
def test_laws_and_units_that_meet_late_in_the_grid_are_refused_before_it_runs(message, grid):
    seen = []
    with pytest.raises(ValueError, match=f"^{message}"):
        fg.sweep(grid, **SMALL, progress=lambda *done: seen.append(done))
    assert not seen
    allowed = {**grid, "width": [2]} if "weight" in grid else {"bias": ["zero", "centered"]}
    assert len(fg.sweep(allowed, **SMALL)) == 2


def test_gain_and_orthogonal_in_a_grid():
    (drawn,) = fg.sweep({"weight.gain": [2.0]}, weight="orthogonal:gain=1", width=4, nonlinearity="linear", **SMALL)
    assert drawn["weight"] == "orthogonal:gain=2"
    assert drawn["lyapunov"] == pytest.approx(0.6931471805599453, rel=1e-12)


def test_theory_of_every_width_is_compared_and_that_of_endless_ones_is_not(cli):
    rows = fg.sweep({"nonlinearity": ["linear", "tanh"]}, width=8, weight="normal:gain=1", depth=50, ensemble=400)
    linear, tanh = rows
    assert abs(deviation(linear)) < 4
    expected = (linear["lyapunov"] - linear["theory"]) / linear["lyapunov_stderr"]
    assert deviation(linear) == pytest.approx(expected, rel=1e-2)  # of 400 members, whose error is known
    assert deviation(tanh) is None
    shown = cli(
        "sweep", "--grid", "nonlinearity=linear,tanh", "--width", 8, "--weight", "normal:gain=1", *options(SMALL)
    )
    assert "Of 1 point with a theory" in shown.stdout
    assert "layers: the exponent is finite-depth" in shown.stdout
    assert "*" not in shown.stdout


def test_a_map_over_both_standard_deviations(tmp_path, cli):
    store = tmp_path / "map.db"
    grid = ("--grid", "weight.gain=0.5:3:6", "--grid", "bias.std=0.1:1:4")
    laws = ("--weight", "normal:gain=1", "--bias", "normal:std=1", "--width", "8", "--nonlinearity", "tanh")
    assert cli("sweep", *grid, *laws, "--depth", "20", "--ensemble", "5", "--store", store).exit_code == 0
    shown = cli("plot", store, "--plot", tmp_path / "map.png")
    assert shown.exit_code == 0
    assert "nonlinearity tanh" in shown.stdout
    assert (tmp_path / "map.png").stat().st_size > 10_000
