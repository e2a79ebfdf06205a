"""Sweeps: the points of a grid, what they are known by, what is kept of them however a sweep ends, and the commands."""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import psutil
import pytest

import fastgrad as fg
from fastgrad import laws
from fastgrad.checks import size_text
from fastgrad.jobs.parameters import job_parameters
from fastgrad.kernels import KERNEL_VERSION
from fastgrad.sweeps import estimate as estimate_module
from fastgrad.sweeps import plan as plan_module
from fastgrad.sweeps import run as run_module
from fastgrad.sweeps.estimate import estimate
from fastgrad.sweeps.grid import read_values
from fastgrad.sweeps.plan import plan, point_key
from fastgrad.sweeps.points import deviation, stored_rows, with_equal_columns
from fastgrad.sweeps.run import run
from fastgrad.sweeps.store import Store

SMALL = {"depth": 20, "ensemble": 8}
VALUES = {"weight.value": [0.5, 2.0, 8.0], "seed": [0, 1]}  # constants, whose theory takes no time
CLI_SMALL = ("--depth", "20", "--ensemble", "8", "--weight", "zero")


class Started(subprocess.Popen):
    """A process that is killed where a test ends before it, with all that it has started."""

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        super().__exit__(*error)


@pytest.fixture
def start(environment_of):
    """Function that starts ``python -m fastgrad`` in a process group of its own."""

    def run(*arguments, cwd):
        return Started(
            [sys.executable, "-m", "fastgrad", *map(str, arguments)],
            cwd=cwd,
            env=environment_of(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    return run


def count(path):
    """How many points a store has that a process is writing."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
    ):
        return db.execute("SELECT count(*) FROM points").fetchone()[0]
    return 0


def wait_for(points, path, process):
    """Until the store has so many points; how many it then has."""
    deadline = time.monotonic() + 60
    while count(path) < points:
        assert process.poll() is None, process.communicate(timeout=10)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return count(path)


@pytest.fixture(scope="module")
def contents(cli):
    """Function that returns what a store has that does not depend on the run, by key, and the exported text."""

    def run(path):
        with Store.read(path) as store:
            rows = {row.key: (row.parameters, row.result) for row in store.rows()}
            assert len(rows) == len(store)
        return rows, cli("export", path, "--format", "csv").stdout

    return run


def keys(grid, job="simulate", **arguments):
    return list(plan(grid, job, **arguments).points)


# Rows


def test_a_row_is_what_simulate_finds():
    rows = fg.sweep({"weight.std": [1, 4], "seed": [7]}, depth=300, ensemble=50, bias="normal:std=1", x=0.25, record=20)
    assert [row["weight.std"] for row in rows] == [1.0, 4.0]
    for row in rows:
        growth = fg.simulate(300, 50, f"normal:std={row['weight.std']}", "normal:std=1", 0.25, 7, 20)
        summary = growth.summary()
        assert (row["lyapunov"], row["lyapunov_stderr"]) == growth.lyapunov
        assert (row["stationary"], row["stationary_stderr"]) == growth.stationary
        assert row["stationary_link"] == growth.stationary_link
        assert row["bound_rate"] == summary["bound_rate"]
        assert row["zero_share"] == summary["zero_share"]
        for name, events in summary["first_depth"].items():
            assert {event: row[f"{name}_{event}"] for event in events} == events
        assert row["theory"] == pytest.approx(fg.theory.lyapunov(growth.weight, growth.bias), rel=1e-9)
        assert row["theory_bound"] == fg.theory.bound(growth.weight).mean
        parameters = {"depth": 300, "ensemble": 50, "weight": str(growth.weight), "bias": "normal:std=1", "x": 0.25}
        parameters |= {"seed": 7, "record": 20, "weight.mean": 0.0, "bias.mean": 0.0, "bias.std": 1.0}
        assert parameters.items() <= row.items()


def test_a_row_is_what_train_finds():
    given = {"ensemble": 40, "weight": "normal:std=300", "learning_rate": 5.0, "target": 0.5, "tolerance": 1e-5}
    rows = fg.sweep({"steps": [10, 400]}, job="train", **given)
    for row in rows:
        training = fg.train_drawn(steps=row["steps"], **given)
        for status in ("converged", "stalled", "diverged", "running"):
            assert row[status] == np.mean(training.status == status)
        assert row["median_loss"] == np.quantile(training.loss[-1], 0.5, method="inverted_cdf")
        done = training.last_step[training.status == "converged"]
        assert row["median_step"] == (np.quantile(done, 0.5, method="inverted_cdf") if done.size else None)
        assert (row["target"], row["target.value"], row["clip_norm"]) == ("constant:0.5", 0.5, None)
    assert rows[0]["converged"] < rows[1]["converged"] < 1


def test_what_is_not_finite_says_why():
    (row,) = fg.sweep({"weight": ["zero"]}, depth=3, ensemble=2)
    assert (row["lyapunov"], row["lyapunov_why"]) == (None, "minus infinity")
    assert (row["lyapunov_stderr"], row["lyapunov_stderr_why"]) == (None, "undefined for these data")
    assert (row["bound_rate"], row["theory"], row["theory_bound"]) == (None, None, None)
    assert row["theory_why"] == "minus infinity"
    assert row["zero_share"] == 1.0


def test_without_a_theory_it_says_why():
    (row,) = fg.sweep({"weight.value": [8]}, depth=3, ensemble=2, weight="zero", bias="constant:-3", x=0.5)
    assert row["theory"] is None
    assert row["theory_why"].startswith("weight, bias: the exponent depends on the start")
    assert row["lyapunov"] < 0


def test_a_diverged_training_says_why():
    given = {"depth": 1, "ensemble": 4, "weight": "zero", "x": 1000, "target": 0.1, "steps": 3}
    (row,) = fg.sweep({"learning_rate": [1e308]}, job="train", **given)
    assert row["diverged"] == 1.0
    assert (row["median_loss"], row["median_loss_why"]) == (None, "infinity")


# The grid


def test_points_are_the_product_in_the_grids_order():
    rows = fg.sweep({"weight.value": [3, 1, 2], "seed": [5, 4]}, weight="zero", **SMALL)
    assert [(row["weight.value"], row["seed"]) for row in rows] == [(w, s) for w in (3, 1, 2) for s in (5, 4)]


def test_equal_points_are_one():
    rows = fg.sweep({"weight": ["constant:2", laws.constant(2), "constant:2.0"], "seed": [0, 0]}, **SMALL)
    assert len(rows) == 1


def test_a_whole_law_and_its_parameters():
    grid = {"weight.std": [1, 2], "weight": ["normal:mean=3", "constant:-1"]}
    points = plan(grid, "simulate", **SMALL).points.values()
    assert [point["weight"] for point in points] == [
        "normal:mean=3,std=1",
        "normal:mean=-1,std=1",
        "normal:mean=3,std=2",
        "normal:mean=-1,std=2",
    ]


@pytest.mark.parametrize(
    ("base", "changes", "law"),
    [
        ("normal:mean=1,std=2", {"std": 3}, "normal:mean=1,std=3"),
        ("normal:mean=1,std=2", {"mean": 0}, "normal:std=2"),
        ("uniform:low=0,high=1", {"high": 2}, "uniform:low=0,high=2"),
        ("he_normal", {"gain": 0.5}, "he_normal:gain=0.5"),
        ("constant:2", {"value": 3}, "constant:3"),
        ("zero", {"value": 3}, "constant:3"),
        ("zero", {"std": 3}, "normal:std=3"),
        ("zero", {"std": 0}, "normal:std=0"),
        ("constant:2", {"std": 3}, "normal:mean=2,std=3"),
        ("constant:2", {"mean": 3}, "normal:mean=3,std=0"),
        ("constant:2", {"low": -1, "high": 3}, "uniform:low=-1,high=3"),
    ],
)
def test_a_laws_parameter_is_changed(base, changes, law):
    grid = {f"bias.{name}": [value] for name, value in changes.items()}
    (point,) = plan(grid, "simulate", weight="zero", bias=base, **SMALL).points.values()
    assert point["bias"] == law
    assert laws.replace(laws.parse(base, "bias"), changes, "bias") == laws.parse(law, "bias")


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("normal:std=2", {"low": 0}, "bias.low: the law normal:std=2 takes mean=, std="),
        ("he_normal", {"std": 1}, "bias.std: the law he_normal takes gain="),
        ("centered", {"std": 1}, "bias.std: the law centered takes no parameters"),
        ("constant:2", {"low": 0}, "bias.low: the law constant:2 takes value=, or mean= and std=, or low= and high="),
        ("zero", {"gain": 1}, "bias.gain: the law zero takes value=, or mean= and std=, or low= and high="),
        ("normal:std=2", {"std": -1}, "bias: normal: std: expected at least 0, got -1.0"),
        ("uniform:low=0,high=1", {"high": -1}, "bias: uniform: high: expected at least low=0.0, got -1.0"),
    ],
)
def test_a_laws_parameter_that_it_does_not_take(base, changes, message):
    with pytest.raises(ValueError) as caught:
        plan({f"bias.{name}": [value] for name, value in changes.items()}, "simulate", bias=base, **SMALL)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        ("normal:std=4", {"mean": 0, "std": 4}),
        ("normal", {"mean": 0, "std": 1}),
        ("normal:mean=-1e-30,std=0.1", {"mean": -1e-30, "std": 0.1}),
        ("uniform:low=-1e5,high=2", {"low": -1e5, "high": 2}),
        ("constant:-2.5e-9", {"value": -2.5e-9}),
        ("zero", {}),
        ("centered", {}),
        ("he_uniform", {"gain": 1}),
        ("torch_default:gain=0.3", {"gain": 0.3}),
    ],
)
def test_parameters_of_a_law(law, expected):
    assert laws.parameters(laws.parse(law, "bias")) == expected


@pytest.mark.parametrize(
    ("error", "message", "grid", "more"),
    [
        (ValueError, "grid: is empty, expected values of one of depth, ensemble, weight", {}, {}),
        (ValueError, "grid: unknown key 'units', expected one of depth", {"units": [1]}, {}),
        (ValueError, "width: expected 1 to 65536", {"width": [8, 0]}, {}),
        (ValueError, "width: expected 1 to 65536", {"width": [8, 65537]}, {}),
        (ValueError, "nonlinearity: unknown nonlinearity 'gelu'", {"nonlinearity": ["relu", "gelu"]}, {"width": 2}),
        (ValueError, "weight: orthogonal", {"weight": ["zero", "orthogonal:gain=1"]}, {}),
        (ValueError, "bias: centered is a law of chains", {"bias": ["zero", "centered"]}, {"width": 2}),
        (ValueError, "point depth 1000000000, ensemble 8", {"seed": [1]}, {"depth": 10**9, "width": 1024}),
        (ValueError, "grid: unknown key 'weight.sd', expected", {"weight.sd": [1]}, {}),
        (ValueError, "grid: unknown key 'depth.std', expected", {"depth.std": [1]}, {}),
        (ValueError, "grid: unknown key 'weight.', expected", {"weight.": [1]}, {}),
        (ValueError, "grid: unknown key 'threads', expected", {"threads": [1]}, {}),
        (ValueError, "grid: unknown key 'steps', expected", {"steps": [1]}, {}),
        (ValueError, "seed has no values", {"seed": []}, {}),
        (TypeError, "seed: expected a list of values, got 3", {"seed": 3}, {}),
        (TypeError, "weight: expected a list of values, got 'zero'", {"weight": "zero"}, {}),
        (ValueError, "depth: is missing, expected in the grid or beside it", {"seed": [1]}, {"depth": None}),
        (ValueError, "seed: is given twice, in the grid and beside it", {"seed": [1]}, {"seed": 2}),
        (ValueError, "steps: no parameter of simulate, which takes depth", {"seed": [1]}, {"steps": 2}),
        (ValueError, "job: unknown job 'fit', expected simulate or train", {"seed": [1]}, {"job": "fit"}),
        (ValueError, "backend: unknown backend 'gpu'", {"seed": [1]}, {"backend": "gpu"}),
        (TypeError, "seed: expected an integer, got 1.5", {"seed": [1, 1.5]}, {}),
        (ValueError, "seed: expected 0 to 18446744073709551615, got -1", {"seed": [3, -1, 2]}, {}),
        (ValueError, "seed: expected 0 to 18446744073709551615, got 18446744073709551616", {"seed": [1, 2**64]}, {}),
        (ValueError, "depth: expected 1 to", {"depth": [5, 0]}, {"depth": None}),
        (ValueError, "record: expected 2 to", {"record": [5, 1]}, {}),
        (ValueError, "weight.std: expected finite numbers, got inf", {"weight.std": [1, math.inf]}, {}),
        (TypeError, "weight.std: expected real numbers", {"weight.std": ["1"]}, {}),
        (ValueError, "weight: unknown law 'nrmal'", {"weight": ["normal", "nrmal"]}, {}),
        (ValueError, "weight: centered is a law of the bias", {"weight": ["centered"]}, {}),
        (ValueError, "x: expected one number for all chains, got an array of shape (8,)", {"x": [np.zeros(8)]}, {}),
        (ValueError, "loss: expected squared or cross_entropy", {"loss": ["squared", "l1"]}, {"job": "train"}),
        (TypeError, "loss: expected a name, got 2", {"loss": [2]}, {"job": "train"}),
        (ValueError, "learning_rate: expected a number above 0", {"learning_rate": [1, 0]}, {"job": "train"}),
        (ValueError, "clip_norm: expected a number above 0", {"clip_norm": [None, 2, -1]}, {"job": "train"}),
        (ValueError, "steps: expected 1 to", {"steps": [1, 0]}, {"job": "train"}),
        (
            fg.TooLargeError,
            "point depth 1000000000000000, ensemble 8, weight normal:std=4, bias zero",
            {"depth": [5, 10**15]},
            {"depth": None},
        ),
    ],
)
def test_bad_input_is_found_before_anything_runs(error, message, grid, more, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "run_point", None)
    given = {name: value for name, value in {**SMALL, **more}.items() if value is not None}
    with pytest.raises(error) as caught:
        fg.sweep(grid, store=tmp_path / "study.db", **given)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "message", "given"),
    [
        (TypeError, "grid: expected names of parameters as keys, got 1", {"grid": {1: [2]}}),
        (TypeError, "grid: expected a dict of values, got ['seed']", {"grid": ["seed"]}),
        (TypeError, "job: expected simulate or train, got ['train']", {"job": ["train"]}),
        (TypeError, "executor: expected a concurrent.futures.Executor, got 5", {"executor": 5}),
        (TypeError, "progress: expected a function of two numbers, got 5", {"progress": 5}),
        (TypeError, "threads: expected an integer, got '2'", {"threads": "2"}),
        (ValueError, "threads: expected 1 to", {"threads": 0}),
        (TypeError, "store: expected a path, got b'a.db'", {"store": b"a.db"}),
        (ValueError, "store: expected the name of a file, got ''", {"store": ""}),
        (ValueError, "backend: unknown backend 5", {"backend": 5}),
    ],
)
def test_an_argument_of_another_kind_is_named(error, message, given, monkeypatch):
    monkeypatch.setattr(run_module, "run_point", None)
    with pytest.raises(error) as caught:
        fg.sweep(**{"grid": {"seed": [1]}, **SMALL, **given})
    assert str(caught.value).startswith(message)


def test_a_law_that_its_text_does_not_describe():
    with pytest.raises(ValueError, match="weight: unknown law 'mine'"):
        plan({"weight": [laws.Law("normal", 0.0, 4.0, "mine")]}, "simulate", **SMALL)
    with pytest.raises(ValueError, match=r"weight: expected a law of fastgrad\.laws, got Law"):
        plan({"weight": [laws.Law("normal", 0.0, 4.0, "normal:std=3")]}, "simulate", **SMALL)


def test_what_does_not_fit_in_memory_is_refused(tmp_path):
    with pytest.raises(fg.TooLargeError, match=r"point depth 100000, .* would take 72\.8 TiB of memory"):
        fg.sweep({"seed": [1]}, depth=10**5, ensemble=10**7, record=10**5, store=tmp_path / "study.db")
    # 32 bytes a link: the chains, and the parameters that training moves.
    with pytest.raises(fg.TooLargeError, match=r"point depth 1000000, .* would take 29\.1 TiB of memory"):
        fg.sweep({"seed": [1]}, job="train", depth=10**6, ensemble=10**6, record=2)


# Values as they are written


@pytest.mark.parametrize(
    ("key", "text", "values"),
    [
        ("weight.std", "0.1:1000:5:log", [0.1, 1, 10, 100, 1000]),
        ("weight.std", "0:1:11", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ("weight.std", "1:0:3", [1, 0.5, 0]),
        ("weight.mean", "-1e0,.5, 2", [-1, 0.5, 2]),
        ("depth", "10:1000:3:log", [10, 100, 1000]),
        ("depth", "1:9:5", [1, 3, 5, 7, 9]),
        ("depth", "1e3,7", [1000, 7]),
        ("seed", "12345678901234567.0", [12345678901234567]),
        ("weight.std", "5e-324:1e300:2:log", [5e-324, 1e300]),
        ("seed", "18446744073709551615", [2**64 - 1]),
        ("weight", "he_normal,normal:mean=1,std=2,uniform:low=0,high=1", ["he_normal", "normal:mean=1,std=2"]),
        ("x", "0.5,1e-3", [0.5, 0.001]),
    ],
)
def test_values_as_they_are_written(key, text, values):
    found = read_values("simulate", key, text)
    assert found[: len(values)] == values
    assert [type(value) for value in found[:1]] == [{"depth": int, "seed": int, "weight": str}.get(key, float)]
    assert len(found) == len(values) + text.count("uniform")


@pytest.mark.parametrize(
    ("key", "text", "values"),
    [
        ("loss", "squared,cross_entropy", ["squared", "cross_entropy"]),
        ("clip_norm", "none,1,1e300", [None, 1, 1e300]),
        ("x", "0:1:3", [0, 0.5, 1]),
        ("target", "0.5,uniform:low=0,high=1", ["0.5", "uniform:low=0,high=1"]),
        ("learning_rate", "1e-3:1:4:log", [0.001, 0.01, 0.1, 1]),
    ],
)
def test_values_of_training_as_they_are_written(key, text, values):
    assert read_values("train", key, text) == values
    assert plan({key: values}, "train").points


def test_a_whole_number_is_read_exactly_everywhere(cli):
    for text in ("12345678901234567.0", "1234567890123456.7e1", "12345678901234567"):
        for command in (("simulate", *CLI_SMALL), ("sweep", *CLI_SMALL, "--grid", "x=0.5")):
            document = json.loads(cli(*command, "--seed", text, "--format", "json").stdout)
            assert document["parameters"]["seed"] == 12345678901234567


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "1e999999999999", "1.5", "1e-999999999999", "sNaN", "x", ""])
def test_what_is_no_whole_number(text, cli):
    result = cli("simulate", "--seed", text)
    assert result.exit_code == 2
    assert result.stderr == f"fastgrad: Invalid value for '--seed': expected a whole number, got {text!r}\n"


def test_values_of_a_range_are_the_nearest_floats():
    found = read_values("simulate", "weight.std", "0.1:1000:40:log")
    assert found == pytest.approx(np.geomspace(0.1, 1000, 40), rel=1e-14)
    assert (found[0], found[-1]) == (0.1, 1000)
    for i, value in enumerate(found[1:-1], 1):  # value^39 against 0.1^39 10^(4 i), exactly
        exact = Fraction(1, 10) ** 39 * Fraction(10) ** (4 * i)
        below, above = (Fraction(math.nextafter(value, to)) for to in (0, math.inf))
        assert ((below + Fraction(value)) / 2) ** 39 <= exact <= ((above + Fraction(value)) / 2) ** 39


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("weight.std", "0.1:10:5:lg", "weight.std: expected LOW:HIGH:COUNT or LOW:HIGH:COUNT:log, got '0.1:10:5:lg'"),
        ("weight.std", "1:2", "weight.std: expected LOW:HIGH:COUNT"),
        ("weight.std", "1:2:1", "weight.std: expected a COUNT from 2 to 1000000, got '1' in '1:2:1'"),
        ("weight.std", "1:2:2.5", "weight.std: expected a COUNT from 2"),
        ("weight.std", "1:2:1e9", "weight.std: expected a COUNT from 2 to 1000000, got '1e9'"),
        ("weight.std", "0:2:3:log", "weight.std: expected LOW and HIGH above 0 for :log, got '0:2:3:log'"),
        ("weight.std", "", "weight.std has no value, or an empty one, in ''"),
        ("weight.std", "1,,2", "weight.std has no value, or an empty one, in '1,,2'"),
        ("weight.std", "one", "weight.std: expected finite numbers, got 'one'"),
        ("weight.std", "nan", "weight.std: expected finite numbers, got 'nan'"),
        ("weight.std", "1e400", "weight.std: expected finite numbers, got '1e400'"),
        ("depth", "1.5", "depth: expected whole numbers, got 1.5 from '1.5'"),
        ("depth", "10:1000:4:log", "depth: expected whole numbers, got 46.4159 from '10:1000:4:log'"),
        ("depth", "1e300", "depth: expected whole numbers"),
        ("depth", "none", "depth: expected finite numbers, got 'none'"),
        ("weight.std", "1e-999999999999:1:3:log", "weight.std: expected LOW and HIGH above 0 for :log"),
        ("weight.std", "1:1e999999999999:3:log", "weight.std: expected finite numbers, got '1e999999999999'"),
        ("weight.std", "1:2:1e999999999999", "weight.std: expected finite numbers, got '1e999999999999'"),
        ("depth", "1e-999999999999:9:3", "depth: expected whole numbers"),
        ("wieght.std", "1", "grid: unknown key 'wieght.std'"),
    ],
)
def test_values_that_can_not_be_read(key, text, message):
    with pytest.raises(ValueError) as caught:
        read_values("simulate", key, text)
    assert str(caught.value).startswith(message)


# Keys


def test_a_key_is_a_hash_of_what_decides_the_result(compiled):
    planned = plan({"seed": [3]}, "simulate", "cpp", depth=20, weight=laws.normal(std=4), bias="constant:1", x=1)
    ((key, point),) = planned.points.items()
    assert point == {
        "depth": 20,
        "ensemble": 1000,
        "weight": "normal:std=4",
        "bias": "constant:1",
        "x": 1.0,
        "seed": 3,
        "record": 64,
        "width": 1,
        "nonlinearity": "sigmoid",
    }
    del point["width"], point["nonlinearity"]  # which the first stores did not know
    document = {"arithmetic": "compiled", "job": "simulate", "kernel_version": KERNEL_VERSION, "parameters": point}
    assert key == hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    assert key == point_key(planned.identity, point)
    # Pinned: stores that people have are known by these.
    assert (KERNEL_VERSION, key[:16]) == (2, "41d3bfd90b0a9fe7")


def test_a_key_does_not_depend_on_how_a_point_was_asked_for(compiled):
    (key,) = keys({"seed": [3]}, backend="cpp", weight="normal:std=4", **SMALL)
    assert keys({"depth": [20]}, backend="cpp", weight="normal:std=4.0,mean=0", seed=3, ensemble=8) == [key]
    assert keys({"weight.std": np.array([4])}, weight=laws.normal, seed=3, **SMALL) == [key]
    assert keys({"x": [np.float32(0.5)]}, seed=np.int8(3), weight="normal:std=4", **SMALL) == [key]
    assert keys({"seed": [3]}, backend="numba", weight="normal:std=4", **SMALL) == [key]
    assert key in keys({"weight.std": [2, 4], "seed": [9, 3]}, **SMALL)


def test_a_key_depends_on_all_that_decides_the_result(monkeypatch):
    given = {"depth": 20, "ensemble": 8, "weight": "constant:1", "bias": "zero", "x": 0.5, "seed": 0, "record": 9}
    given |= {"width": 2, "nonlinearity": "tanh"}
    changed = {
        "depth": 21,
        "ensemble": 9,
        "weight": "constant:2",
        "bias": "constant:1",
        "x": 0.25,
        "seed": 1,
        "record": 8,
        "width": 3,
        "nonlinearity": "relu",
    }
    assert changed.keys() == job_parameters("simulate").keys()

    def key(backend="auto", **changes):
        (found,) = keys({name: [value] for name, value in {**given, **changes}.items()}, backend=backend)
        return found

    found = [key(), key(backend="numpy"), *keys({"seed": [0]}, "train", ensemble=8)]
    found += [key(**{name: value}) for name, value in changed.items()]
    monkeypatch.setattr(plan_module, "KERNEL_VERSION", KERNEL_VERSION + 1)
    found.append(key())
    assert len(set(found)) == len(found) == 4 + len(changed)


def test_parameters_are_those_of_the_functions():
    assert job_parameters("simulate")["record"] == 64
    train = job_parameters("train")
    assert (train["depth"], train["learning_rate"], train["clip_norm"], train["loss"]) == (3, 1.0, None, "squared")
    for job in ("simulate", "train"):
        assert not {"backend", "threads", "progress", "how"} & job_parameters(job).keys()


# Running, and running again


def test_a_grid_can_grow(tmp_path, monkeypatch):
    path = tmp_path / "study.db"
    done = []
    run_point = run_module.run_point
    monkeypatch.setattr(run_module, "run_point", lambda *given: done.append(given[3]["seed"]) or run_point(*given))
    first = fg.sweep({"weight.value": [2.0], "seed": [1, 2]}, weight="zero", store=path, **SMALL)
    told = []
    grid = {"seed": [4, 2, 3, 1], "weight.value": [2.0]}
    rows = fg.sweep(grid, weight="zero", store=path, progress=lambda *of: told.append(of), **SMALL)
    assert done == [1, 2, 4, 3]
    assert told == [(2, 4), (3, 4), (4, 4)]
    assert [row["seed"] for row in rows] == [4, 2, 3, 1]
    assert [rows[3], rows[1]] == first
    monkeypatch.setattr(run_module, "run_point", run_point)
    assert rows == fg.sweep(grid, weight="zero", **SMALL)


def test_a_point_is_stored_as_soon_as_it_is_finished(tmp_path):
    stored = []
    fg.sweep(
        VALUES,
        weight="zero",
        store=tmp_path / "a.db",
        **SMALL,
        progress=lambda *_: stored.append(count(tmp_path / "a.db")),
    )
    assert stored == [0, 1, 2, 3, 4, 5, 6]


def test_provenance_and_seconds_are_stored(tmp_path):
    fg.sweep({"seed": [5]}, weight="zero", store=tmp_path / "a.db", backend="numpy", **SMALL)
    with Store.read(tmp_path / "a.db") as store:
        (row,) = store.rows()
        assert store.identity == {"job": "simulate", "kernel_version": KERNEL_VERSION, "arithmetic": "numpy"}
    provenance = json.loads(row.provenance)
    assert (provenance["backend"], provenance["seed"], provenance["fastgrad"]) == ("numpy", 5, fg.__version__)
    assert 0 < row.seconds < 10


class Failing:
    """In place of simulate: fails at one seed."""

    def __init__(self, error):
        self.error = error

    def __call__(self, **given):
        if given["seed"] == 3 and given["depth"] > 1:  # not when it is checked
            raise self.error
        return fg.simulate(**given)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (fg.TooLargeError("no room"), fg.TooLargeError),
        (ValueError("no room"), ValueError),
        (TypeError("no room"), TypeError),
        (np._core._exceptions._ArrayMemoryError((9,), np.dtype(float)), MemoryError),
    ],
    ids=lambda of: getattr(of, "__name__", ""),
)
@pytest.mark.parametrize("threads", [0, 1])
def test_a_point_that_fails_is_named_and_those_before_are_kept(error, kind, threads, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "job_function", lambda _: Failing(error))
    job_parameters("simulate")  # remembers those of the function that is replaced
    executor = ThreadPoolExecutor(threads) if threads else contextlib.nullcontext()
    with executor as given, pytest.raises(kind) as caught:
        fg.sweep({"seed": [1, 2, 3, 4]}, weight="zero", store=tmp_path / "a.db", executor=given, **SMALL)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(
        "point depth 20, ensemble 8, weight zero, bias zero, x 0.5, seed 3, record 64: "
    )
    assert count(tmp_path / "a.db") == 2


def test_an_interrupt_keeps_what_was_done(tmp_path):
    def progress(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fg.sweep(VALUES, weight="zero", store=tmp_path / "a.db", progress=progress, **SMALL)
    assert count(tmp_path / "a.db") == 3


def test_an_executor_gives_the_same_rows(tmp_path):
    here = fg.sweep(VALUES, weight="zero", **SMALL)
    with ThreadPoolExecutor(3) as executor:
        assert fg.sweep(VALUES, weight="zero", executor=executor, store=tmp_path / "a.db", **SMALL) == here
        assert fg.sweep(VALUES, weight="zero", executor=executor, store=tmp_path / "a.db", **SMALL) == here


def test_few_points_wait_in_an_executor_and_none_after_an_error(monkeypatch):
    class Executor(ThreadPoolExecutor):
        waiting, most = 0, 0

        def submit(self, *call):
            future = super().submit(*call)
            futures.append(future)
            Executor.most = max(Executor.most, sum(not future.done() for future in futures))
            return future

    futures = []
    monkeypatch.setattr(run_module, "POINTS_IN_FLIGHT", 5)
    planned = plan({"seed": range(40)}, "simulate", weight="zero", **SMALL)
    with Executor(1) as executor:
        assert len(run(planned, executor=executor)) == 40
        assert 2 <= Executor.most <= 5
        futures.clear()
        monkeypatch.setattr(run_module, "job_function", lambda _: Failing(ValueError("no room")))
        with pytest.raises(ValueError, match="seed 3"):
            run(planned, executor=executor)
        assert len(futures) == 3 + 5  # after seeds 0, 1 and 2 one more each
        assert any(future.cancelled() for future in futures)


def test_points_are_made_when_they_are_asked_for():
    """Their keys are worked out from pieces, and their parameters from their place in the grid."""
    grid = {"weight.std": [1, 2, 3], "weight": ["normal:mean=-1", "zero"], "seed": [5, 4], "x": [0.5, 0.25]}
    grid |= {"depth": [20, 30], "bias.value": [1e300, -0.0, 0.1, 0]}  # of which the zeros are one
    planned = plan(grid, "simulate", ensemble=8)
    points = planned.points
    assert len(points) == len(list(points)) == 3 * 2 * 2 * 2 * 2 * 3
    for key, point in points.items():
        assert key == point_key(planned.identity, point)
        assert points[key] == point
    last = list(points.values())[-1]
    assert (last["weight"], last["bias"], last["seed"], last["depth"]) == ("normal:std=3", "constant:0.1", 4, 30)
    found = points.counts("depth", "weight")
    assert found == {(depth, law): 12 for depth in (20, 30) for law in {point["weight"] for point in points.values()}}
    first = next(iter(points))
    assert sum(points.counts("depth", without=frozenset([first])).values()) == len(points) - 1
    varied = points.varied()
    for name in last:
        assert len({point[name] for point in varied}) > 1 or len({point[name] for point in points.values()}) == 1
    with pytest.raises(KeyError):
        points[f"{0:064x}"]


@pytest.mark.slow
def test_a_dry_run_of_a_million_points(tmp_path, start):
    process = start("sweep", "--grid", "seed=1:1000000:1000000", *CLI_SMALL, "--dry-run", cwd=tmp_path)
    most = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            most = max(most, psutil.Process(process.pid).memory_info().rss)
        time.sleep(0.02)
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert stdout.startswith("simulate, 1000000 points: 0 done before, 1000000 to do\n")
    assert "… and 999960 more points: --format csv has all" in stdout
    assert 50e6 < most < 500e6


def test_a_worker_with_other_kernels_is_refused():
    planned = plan({"seed": [1]}, "simulate", weight="zero", **SMALL)
    ((key, point),) = planned.points.items()
    with pytest.raises(ValueError, match="this worker's fastgrad has kernels of another version"):
        run_module.run_point("simulate", planned.backend, key[::-1], point, 1)


# Parts, exports, and what a sweep would take


def test_parts_make_the_whole():
    planned = plan({"seed": range(50)}, "simulate", **SMALL)
    again = plan({"seed": range(49, -1, -1)}, "simulate", **SMALL)
    parts = [planned.shard(i, 3).points for i in (1, 2, 3)]
    assert all(parts)
    assert {**parts[0], **parts[1], **parts[2]} == planned.points
    assert sum(map(len, parts)) == 50
    assert [again.shard(i, 3).points for i in (1, 2, 3)] == parts  # wherever they are in the grid
    for index, parts_in_all in ((0, 3), (4, 3), (1, 0)):
        with pytest.raises(ValueError, match="shard: expected i/n with i from 1 to n"):
            planned.shard(index, parts_in_all)


def test_exports_do_not_depend_on_how_a_store_came_about(tmp_path, cli):
    grid = {"weight.value": [10.0, 2.0, 0.5], "seed": [11, 2]}
    for name, executor in (("a", None), ("b", ThreadPoolExecutor(2))):
        with executor or contextlib.nullcontext() as given:
            fg.sweep(grid, weight="zero", executor=given, store=tmp_path / f"{name}.db", **SMALL)
        grid = {key: values[::-1] for key, values in grid.items()}
        for ending in ("csv", "json", "parquet"):
            result = cli("export", tmp_path / f"{name}.db", "-o", tmp_path / f"{name}.{ending}")
            assert (result.exit_code, result.output) == (0, "")
    for ending in ("csv", "json", "parquet"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [(row["weight.value"], row["seed"]) for row in rows] == [
        (value, seed) for value in ("0.5", "2.0", "10.0") for seed in ("2", "11")
    ]


def test_exports_have_every_digit(tmp_path, cli):
    import pyarrow.parquet

    grid = {"seed": [0, 2**64 - 1], "weight": ["constant:2", "uniform:low=-1,high=1", "zero"]}
    rows = {(row["seed"], row["weight"]): row for row in fg.sweep(grid, store=tmp_path / "a.db", **SMALL)}
    for ending in ("csv", "json", "parquet"):
        cli("export", tmp_path / "a.db", "-o", tmp_path / f"a.{ending}")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document.keys() == {"schema", "command", "parameters", "result"}  # nothing about the run
    assert document["parameters"] == {"job": "simulate", "kernel_version": KERNEL_VERSION, "arithmetic": "compiled"}
    assert {(row["seed"], row["weight"]): row for row in document["result"]["points"]} == rows
    columns = with_equal_columns(rows.values())
    parquet = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert sorted(map(repr, parquet.to_pylist())) == sorted(map(repr, columns))
    assert {str(parquet.schema.field(name).type) for name in ("seed", "float64_overflow", "theory")} == {
        "uint64",
        "int64",
        "double",
    }
    for row in csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())):
        expected = rows[int(row["seed"]), row["weight"]]
        assert {name: text for name, text in row.items() if text} == {
            name: str(value) for name, value in expected.items() if value is not None
        }


def test_rows_are_ordered_by_numbers_not_by_their_text(tmp_path):
    grid = {"weight": ["zero", "normal:std=10", "constant:100", "normal:std=9", "constant:20"], "depth": [100, 20]}
    fg.sweep(grid, ensemble=2, store=tmp_path / "a.db")
    with Store.read(tmp_path / "a.db") as store:
        found = [(row["depth"], row["weight"]) for row in stored_rows(store)]
    order = ["constant:20", "constant:100", "normal:std=9", "normal:std=10", "zero"]
    assert found == [(depth, law) for depth in (20, 100) for law in order]


def test_even_rows_keep_neighbors_together():
    rows = [{"a": 1, "b": 2}, {"a": None, "a_why": "so", "b": 3, "c": 4}]
    assert with_equal_columns(rows) == [
        {"a": 1, "a_why": None, "b": 2, "c": None},
        {"a": None, "a_why": "so", "b": 3, "c": 4},
    ]
    assert [list(row) for row in with_equal_columns(rows)] == [["a", "a_why", "b", "c"]] * 2


def test_deviation_is_in_standard_errors_of_the_stationary_exponent():
    row = {"depth": 1000, "ensemble": 10**9, "stationary_link": 33, "lyapunov": -9.0, "lyapunov_stderr": 0.5}
    row |= {"stationary": -1.0, "stationary_stderr": 0.25, "theory": -2.0}
    assert deviation(row) == pytest.approx(4, abs=1e-6)
    assert deviation({**row, "ensemble": 2}) == pytest.approx(math.sqrt(math.log(17)) * 9 / 11)  # uncertain itself
    missing = (("theory", None), ("stationary", None), ("stationary_stderr", 0.0), ("stationary_stderr", None))
    for name, value in missing:
        assert deviation({**row, name: value}) is None
    assert deviation({"converged": 1.0}) is None
    # A point of an older store has the finite-depth exponent only, which is not compared.
    assert deviation({"lyapunov": -1.0, "lyapunov_stderr": 0.25, "theory": -2.0}) is None


def test_no_distance_where_the_start_is_not_forgotten(cli):
    (row,) = fg.sweep({"weight.std": [4]}, depth=40, ensemble=20)
    assert (row["stationary"], row["stationary_stderr"], row["stationary_link"]) == (None, None, None)
    assert row["stationary_why"] == "the start is not forgotten within half of the links"
    assert deviation(row) is None
    lines = cli("sweep", "--grid", "weight.std=4", "--depth", 40, "--ensemble", 20).stdout.splitlines()
    cells = next(line.split() for line in lines if "±" in line)
    assert (cells[0], cells[2][-1], cells[5]) == (f"{row['lyapunov']:.3f}", "*", "-")
    assert "*: finite-depth, and not compared with theory: the start is not forgotten" in lines


def test_cost_from_the_store(tmp_path, monkeypatch):
    fg.sweep({"seed": range(3)}, weight="zero", store=tmp_path / "a.db", **SMALL)
    planned = plan({"seed": range(1, 11)}, "simulate", weight="zero", **SMALL)
    monkeypatch.setattr(Store, "seconds", lambda _: [4.0, 5.0, 6.0])
    with Store.read(tmp_path / "a.db") as store:
        found = estimate(planned, store, together=4)
    assert found.done == set(list(planned.points)[:2])
    assert (found.seconds, found.together) == (8 * 5 / 4, 4)
    assert found.source == "the median of 3 points in the store"
    assert found.memory == 4 * 80 * (20 + 1) * 8


def test_cost_from_a_piece_of_a_point(monkeypatch):
    grid = {"ensemble": [100, 10_000]}
    planned = plan(grid, "simulate", weight="zero", depth=1000)
    ran = []
    monkeypatch.setattr(
        estimate_module, "job_function", lambda _: lambda **given: ran.append(given) or fg.simulate(**given)
    )
    found = estimate(planned, None)
    assert found.source == "100000 links of the first point"
    assert 0 < found.seconds < 10
    assert {(given["depth"], given["ensemble"]) for given in ran} == {(1000, 100)}
    ran.clear()
    assert estimate(plan({"ensemble": [10**6]}, "simulate", depth=10), None).source == "200000 links of the first point"
    assert (ran[-1]["depth"], ran[-1]["ensemble"]) == (10, 20_000)
    monkeypatch.setattr(estimate_module, "_timed", lambda *_: (1e-6, 0.5))
    assert estimate(planned, None, together=2).seconds == pytest.approx((2 * 0.5 + 0.1 + 10) / 2)


def test_cost_of_layers_is_that_of_their_weights(monkeypatch):
    monkeypatch.setattr(estimate_module, "_timed", lambda *_: (1e-9, 0.5))
    planned = plan({"width": [1, 100]}, "simulate", depth=1000, ensemble=100)
    found = estimate(planned, None)
    assert found.seconds == pytest.approx(2 * 0.5 + 1e-9 * 1000 * 100 * (1 + 100**2))
    wide = plan({"width": [100]}, "simulate", depth=1000, ensemble=100)
    assert estimate(wide, None).source == "200000 weights of the first point"
    chains = plan({"width": [1]}, "simulate", depth=1000, ensemble=100)
    assert wide.point_bytes(1) > 8 * 100 * 100 * 1000 > chains.point_bytes(1)


class ByHand(Executor):
    """An executor as a cluster's is: what it is given is pickled, runs later, and comes back in another order."""

    def __init__(self):
        self.waiting, self.order = [], []
        self.closed = False

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        self.waiting.append((future, pickle.dumps((function, args, kwargs))))
        if len(self.waiting) == 6:  # all of them: a thread of its own, the last one first
            threading.Thread(target=self.work).start()
        return future

    def work(self):
        for future, task in reversed(self.waiting):
            function, args, kwargs = pickle.loads(task)
            future.set_running_or_notify_cancel()
            try:
                future.set_result(pickle.loads(pickle.dumps(function(*args, **kwargs))))
            except Exception as error:
                future.set_exception(error)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.closed = True


def test_any_executor_runs_the_points(tmp_path):
    grid = {"weight.std": [1.0, 2.0, 4.0], "width": [1, 4]}
    executor = ByHand()
    found = fg.sweep(grid, depth=30, ensemble=8, executor=executor, store=tmp_path / "by_hand.db")
    assert found == fg.sweep(grid, depth=30, ensemble=8)
    assert len(executor.waiting) == 6
    assert not executor.closed  # it is the caller's
    assert fg.sweep(grid, depth=30, ensemble=8, store=tmp_path / "by_hand.db") == found


# The commands


def test_sweep_prints_what_varies_and_what_was_found(tmp_path, cli):
    arguments = ("sweep", "--grid", "weight.std=1,4", "--grid", "seed=1:3:3", "--depth", "500", "--ensemble", "200")
    first = cli(*arguments, "--store", tmp_path / "a.db")
    assert (first.exit_code, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert lines[0] == "simulate, 6 points: 0 done before, 6 now"
    assert lines[1] == "depth 500, ensemble 200, weight normal, bias zero, x 0.5, record 64"
    assert lines[3].split() == ["weight.std", "seed", "exponent", "finite", "theory", "off", "bound", "float32"]
    rows = fg.sweep({"weight.std": [1, 4], "seed": [1, 2, 3]}, depth=500, ensemble=200)
    for row, line in zip(rows, lines[5:11], strict=True):
        cells = line.split()
        assert cells[:2] == [f"{row['weight.std']:g}", str(row["seed"])]
        assert float(cells[2]) == pytest.approx(row["stationary"], abs=1e-3)
        assert float(cells[4]) == pytest.approx(row["stationary_stderr"], rel=0.1)
        assert float(cells[5]) == pytest.approx(row["lyapunov"], rel=1e-3)
        assert float(cells[6]) == pytest.approx(row["theory"], rel=1e-4)
        assert float(cells[7]) == pytest.approx(deviation(row), abs=0.051)
        assert float(cells[8]) == pytest.approx(row["bound_rate"], rel=5e-3)
        assert int(cells[9]) == row["float32_underflow"]
    two, four = (sum(abs(deviation(row)) > limit for row in rows) for limit in (2, 4))
    assert f"Of 6 points with a theory {two} are more than 2 off, {four} more than 4." in lines
    again = cli(*arguments, "--store", tmp_path / "a.db").stdout
    assert again == first.stdout.replace("0 done before, 6 now", "6 done before, 0 now")


def test_sweep_writes_json_and_csv(tmp_path, cli):
    arguments = ("sweep", *CLI_SMALL, "--grid", "weight.value=0,2", "--grid", "seed=1,2")
    document = json.loads(cli(*arguments, "--format", "json").stdout)
    rows = fg.sweep({"weight.value": [0, 2], "seed": [1, 2]}, weight="zero", **SMALL)
    assert document["result"]["points"] == rows
    assert document["parameters"]["grid"] == {"weight.value": [0, 2], "seed": [1, 2]}
    assert document["provenance"]["backend"] == fg.available_backends()[0]
    table = list(csv.DictReader(io.StringIO(cli(*arguments, "--format", "csv").stdout)))
    assert [row["lyapunov"] for row in table] == [
        "" if row["lyapunov"] is None else repr(row["lyapunov"]) for row in rows
    ]
    assert [row["lyapunov_why"] for row in table] == ["minus infinity"] * 2 + [""] * 2


def test_sweep_shows_the_first_forty_points(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    arguments = ("sweep", *CLI_SMALL, "--grid", "seed=1:50:50")
    assert "… and 10 more points: -o FILE.csv has all" in cli(*arguments).stdout
    assert "… and 10 more points: fastgrad export a.db has all" in cli(*arguments, "--store", "a.db").stdout
    assert "more point" not in cli("export", "a.db").stdout


def test_wide_tables_are_not_cut(cli):
    grid = ["x=0.123456789,1", "seed=1,18446744073709551615", "record=20,21", "depth=20,30", "ensemble=1234,2"]
    result = cli("sweep", "--weight", "zero", *(part for text in grid for part in ("--grid", text)))
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) > 80


def test_train_is_swept(cli):
    arguments = ("sweep", "--job", "train", "--grid", "learning_rate=1,10", "--ensemble", "20", "--target", "0.5")
    lines = cli(*arguments).stdout.splitlines()
    assert lines[0] == "train, 2 points: 0 done before, 2 now"
    header = next(line for line in lines if "median" in line).split()
    assert header[:5] == ["learning_rate", "converged", "stalled", "diverged", "running"]
    document = json.loads(cli(*arguments, "--format", "json").stdout)
    expected = fg.sweep({"learning_rate": [1.0, 10.0]}, job="train", ensemble=20, target=0.5)
    assert document["result"]["points"] == expected


def test_dry_run_runs_nothing(tmp_path, monkeypatch, cli):
    arguments = ("sweep", "--grid", "seed=1:4:4", *CLI_SMALL, "--store", tmp_path / "a.db")
    result = cli(*arguments, "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
    lines = result.stdout.splitlines()
    assert lines[0] == "simulate, 4 points: 0 done before, 4 to do"
    assert f"memory: {size_text(80 * 21 * 8)} for 1 point at a time" in lines
    assert sum(line.startswith("time: about ") and "160 links of the first point" in line for line in lines) == 1
    cli(*arguments, "--shard", "1/2")
    done = count(tmp_path / "a.db")
    assert 0 < done < 4
    document = json.loads(cli(*arguments, "--dry-run", "--workers", "3", "--format", "json").stdout)
    assert document["result"]["waiting"] == 4 - done
    assert document["result"]["memory_bytes"] == 3 * 80 * 21 * 8
    assert document["result"]["seconds_from"] == f"the median of {done} points in the store" or done == 1
    assert [row["done"] for row in document["result"]["points"]].count(True) == done
    assert count(tmp_path / "a.db") == done


def test_parts_are_merged(tmp_path, monkeypatch, cli, contents):
    monkeypatch.chdir(tmp_path)
    arguments = ("sweep", *CLI_SMALL, "--grid", "seed=1:9:9")
    for part in (1, 2):
        assert cli(*arguments, "--shard", f"{part}/2", "--store", f"{part}.db").exit_code == 0
    merged = cli("merge", "1.db", "2.db", "-o", "all.db")
    assert (merged.exit_code, merged.output) == (0, "all.db: 9 points from 2 stores\n")
    cli(*arguments, "--store", "whole.db")
    assert contents("all.db") == contents("whole.db")


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "Missing option '--grid'.", ()),
        (2, "grid: expected KEY=VALUES, got 'seed'", ("--grid", "seed")),
        (2, "grid: seed is given twice", ("--grid", "seed=1", "--grid", "seed=2")),
        (2, "grid: unknown key 'units'", ("--grid", "units=1")),
        (2, "nonlinearity: unknown nonlinearity 'gelu'", ("--grid", "nonlinearity=gelu")),
        (2, "seed has no value, or an empty one, in ''", ("--grid", "seed=")),
        (2, "seed: expected one value, got '1,2'; for several: --grid seed=1,2", ("--grid", "x=1", "--seed", "1,2")),
        (2, "seed: is given twice, in the grid and beside it", ("--grid", "seed=1", "--seed", "1")),
        (2, "steps: no parameter of simulate", ("--grid", "seed=1", "--steps", "5")),
        (
            2,
            "Invalid value for '--shard': expected i/n with i from 1 to n, got '3/2'",
            ("--grid", "seed=1", "--shard", "3/2"),
        ),
        (
            2,
            "--workers is for processes of this machine",
            ("--grid", "seed=1", "--workers", "2", "--scheduler", "tcp://a:1"),
        ),
        (2, "study.db: is no store of a sweep", ("--grid", "seed=1", "--store", "study.db")),
        (2, "train.db: holds points of job train, expected job simulate", ("--grid", "seed=1", "--store", "train.db")),
        (1, "nowhere/a.db: can't be opened", ("--grid", "seed=1", "--store", "nowhere/a.db")),
        (1, "folder: can't be opened", ("--grid", "seed=1", "--store", "folder")),
    ],
    ids=lambda of: "" if isinstance(of, int) else None,
)
def test_a_failed_sweep_is_one_line(code, message, arguments, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.db").write_text("weight,bias\n" * 100)
    (tmp_path / "folder").mkdir()
    fg.sweep({"seed": [1]}, job="train", ensemble=2, steps=2, store="train.db")
    depth = ("--depth", "20") if "steps" not in message else ()
    result = cli("sweep", *depth, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"fastgrad: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (1, "none.db: No such file or directory", ("export", "none.db")),
        (2, "text.db: is no store of a sweep", ("export", "text.db")),
        (
            2,
            "output: can't tell the format of 'a.npz'; expected .json, .csv, .txt, .html, .parquet",
            ("export", "a.db", "-o", "a.npz"),
        ),
        (2, "Missing option '--output' / '-o'.", ("merge", "a.db")),
        (2, "Missing argument 'STORES...'.", ("merge", "-o", "b.db")),
        (1, "none.db: No such file or directory", ("merge", "a.db", "none.db", "-o", "b.db")),
        (2, "text.db: is no store of a sweep", ("merge", "a.db", "-o", "text.db")),
    ],
)
def test_a_failed_export_or_merge_is_one_line(code, message, arguments, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("weight,bias\n" * 100)
    fg.sweep({"seed": [1]}, weight="zero", store="a.db", **SMALL)
    result = cli(*arguments)
    assert result.stderr.startswith(f"fastgrad: {message}")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert not (tmp_path / "b.db").exists()


@pytest.mark.parametrize(("name", "extra"), [("distributed", "cluster"), ("pyarrow", "parquet")])
def test_an_extra_that_is_missing(name, extra, tmp_path, monkeypatch, cli):
    fg.sweep({"seed": [1]}, weight="zero", store=tmp_path / "a.db", **SMALL)
    monkeypatch.setitem(sys.modules, name, None)
    arguments = {
        "cluster": ("sweep", "--grid", "seed=1", *CLI_SMALL, "--scheduler", "local"),
        "parquet": ("export", tmp_path / "a.db", "-o", tmp_path / "a.parquet"),
    }[extra]
    result = cli(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert f"pip install 'fastgrad[{extra}]'" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


def test_importing_fastgrad_stays_light(python):
    heavy = {"sqlite3", "distributed", "dask", "pyarrow", "concurrent.futures", "multiprocessing", "hashlib", "rich"}
    assert not heavy & set(python("import fastgrad, sys; print(*sys.modules)").split())


# However it ends

# Of 24 points: three laws with a theory, and eight seeds.
ENDED = (
    "sweep",
    "--grid",
    "weight.std=0.5,3,20",
    "--grid",
    "seed=0:7:8",
    "--depth",
    "200",
    "--ensemble",
    "64",
    "--quiet",
)
ENDED_GRID = {"weight.std": [0.5, 3.0, 20.0], "seed": range(8)}
ENDED_GIVEN = {"depth": 200, "ensemble": 64}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, contents):
    """What a store holds after a sweep that nothing happened to."""
    path = tmp_path_factory.mktemp("uninterrupted") / "study.db"
    fg.sweep(ENDED_GRID, store=path, **ENDED_GIVEN)
    found = contents(path)
    assert len(found[0]) == 24
    return found


@pytest.mark.slow
def test_kill_9_at_20_moments(tmp_path, uninterrupted, start, contents):
    """Each sweep is killed after some of its points, in the middle of the next one, and then goes on."""
    generator = random.Random(20260101)
    moments = [0] * 2 + [generator.randrange(1, 24) for _ in range(18)]
    seen = []
    for i, points in enumerate(moments):
        path = tmp_path / f"{i}.db"
        with start(*ENDED, "--store", path, cwd=tmp_path) as process:
            seen.append(wait_for(points, path, process))
            time.sleep(generator.uniform(0, 0.02 if points else 0.6))  # without points also while Python starts
            process.kill()
            process.communicate(timeout=10)
        told = []
        fg.sweep(ENDED_GRID, store=path, progress=lambda *of: told.append(of), **ENDED_GIVEN)  # noqa: B023
        assert seen[-1] <= told[0][0] <= 24
        assert told[-1] == (24, 24)
        assert contents(path) == uninterrupted
    assert sum(0 < points < 24 for points in seen) >= 15


@pytest.mark.slow
def test_a_dask_worker_that_is_killed(tmp_path, uninterrupted, start, contents):
    path = tmp_path / "study.db"
    with start(*ENDED, "--store", path, "--scheduler", "local", "--workers", "2", cwd=tmp_path) as process:
        wait_for(5, path, process)
        workers = [of for of in psutil.Process(process.pid).children() if "spawn_main" in " ".join(of.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        assert count(path) < 24
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    assert stdout.startswith("simulate, 24 points: 0 done before, 24 now\n")
    assert contents(path) == uninterrupted


def test_a_worker_process_that_is_killed(tmp_path, uninterrupted, start, contents):
    path = tmp_path / "study.db"
    with start(*ENDED, "--store", path, "--workers", "2", cwd=tmp_path) as process:
        wait_for(5, path, process)
        workers = [of for of in psutil.Process(process.pid).children() if "spawn_main" in " ".join(of.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        stdout, stderr = process.communicate(timeout=20)
    done = count(path)
    assert (process.returncode, stdout) == (1, "")
    assert stderr == (
        f"fastgrad: a worker process was killed, perhaps for want of memory; {done} points are kept in {path}, "
        "the same command goes on from there\n"
    )
    assert 5 <= done < 24
    fg.sweep(ENDED_GRID, store=path, **ENDED_GIVEN)
    assert contents(path) == uninterrupted


@pytest.mark.parametrize("how", [(), ("--workers", "2"), ("--scheduler", "local")], ids=" ".join)
def test_ctrl_c(how, tmp_path, uninterrupted, start, contents):
    """From a terminal it goes to the workers too, which have nothing to say."""
    path = tmp_path / "study.db"
    with start(*ENDED, "--store", path, *how, cwd=tmp_path) as process:
        wait_for(3, path, process)
        children = psutil.Process(process.pid).children()
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    done = count(path)
    assert (process.returncode, stdout) == (130, "")
    assert stderr == f"fastgrad: interrupted; {done} points are kept in {path}, the same command goes on from there\n"
    assert 3 <= done < 24
    assert not psutil.wait_procs(children, timeout=5)[1]
    fg.sweep(ENDED_GRID, store=path, **ENDED_GIVEN)
    assert contents(path) == uninterrupted


@pytest.mark.parametrize("how", [(), ("--workers", "2"), ("--scheduler", "local")], ids=" ".join)
def test_ctrl_c_pressed_six_times(how, tmp_path, start):
    """Impatient while it ends: the first one counts, and the rest are not heard."""
    path = tmp_path / "study.db"
    with start(*ENDED, "--store", path, *how, cwd=tmp_path) as process:
        wait_for(3, path, process)
        children = psutil.Process(process.pid).children()
        for pause in (0.001, 0.001, 0.02, 0.1, 0.1, 0):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            time.sleep(pause)
        stdout, stderr = process.communicate(timeout=20)
        assert (process.returncode, stdout) == (130, "")
        assert stderr.startswith("fastgrad: interrupted; ")
        assert stderr.count("\n") == 1
        assert not psutil.wait_procs(children, timeout=5)[1]


def test_workers_end_with_the_sweep_that_is_killed(tmp_path, start):
    path = tmp_path / "study.db"
    with start(*ENDED, "--store", path, "--workers", "2", cwd=tmp_path) as process:
        wait_for(1, path, process)
        children = psutil.Process(process.pid).children()
        assert len(children) >= 2
        process.kill()
        process.wait(timeout=10)
        assert not psutil.wait_procs(children, timeout=5)[1]


def test_processes_give_the_same_rows(uninterrupted, tmp_path, contents, start):
    """Of both laws whose points end in the same digits only if the workers' linear algebra does not matter."""
    result = start(*ENDED, "--store", tmp_path / "a.db", "--workers", "2", cwd=tmp_path).communicate(timeout=60)
    assert result[1] == ""
    assert contents(tmp_path / "a.db") == uninterrupted


def test_two_sweeps_share_a_store(tmp_path, uninterrupted, start, contents):
    both = [start(*ENDED, "--store", "a.db", "--shard", f"{part}/2", cwd=tmp_path) for part in (1, 2)]
    told = [process.communicate(timeout=60)[1] for process in both]
    assert (told, [process.returncode for process in both]) == (["", ""], [0, 0])
    assert contents(tmp_path / "a.db") == uninterrupted


def test_a_scheduler_that_is_not_there(python, tmp_path):
    code = f"""
import contextlib, io, sys, time
from fastgrad.sweeps import executors
from fastgrad.cli import main
assert executors.CONNECT_SECONDS <= 10
executors.CONNECT_SECONDS = 0.5
given = "--grid seed=1 --depth 5 --weight zero --scheduler tcp://127.0.0.1:9"
sys.argv = ["fastgrad", "sweep", *given.split(), "--store", {str(tmp_path / "a.db")!r}]
err = io.StringIO()
start = time.monotonic()
with contextlib.redirect_stderr(err):
    try:
        main()
    except SystemExit as exit:
        print(exit.code, time.monotonic() - start < 5, err.getvalue(), end="")
"""
    assert python(code, warnings="default") == (
        "1 True fastgrad: scheduler: Timed out trying to connect to tcp://127.0.0.1:9 after 0.5 s\n"
    )


def test_an_executor_that_is_broken():
    class Broken(ThreadPoolExecutor):
        def submit(self, *_):
            raise BrokenExecutor("all workers are gone")

    with pytest.raises(BrokenExecutor), Broken() as executor:
        fg.sweep({"seed": [1]}, weight="zero", executor=executor, **SMALL)


def test_a_full_disk_in_a_sweep(tmp_path, uninterrupted, contents):
    """The process may not write files beyond a size, as a quota has it."""
    import resource

    path = tmp_path / "study.db"
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # noqa: E731
    process = subprocess.run(
        [sys.executable, "-m", "fastgrad", *ENDED, "--store", str(path)],
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.startswith(f"fastgrad: {path}: ")
    assert "disk" in process.stderr
    assert process.stderr.count("\n") == 1
    told = []
    fg.sweep(ENDED_GRID, store=path, progress=lambda *of: told.append(of), **ENDED_GIVEN)
    assert 0 < told[0][0] < 24
    assert contents(path) == uninterrupted
