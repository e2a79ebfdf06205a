"""What a demanding user meets at the edges of the command line: pipes, narrow terminals, odd files, wrong words."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from fastgrad.cli import main
from fastgrad.plot import Curve, Figure, terminal
from fastgrad.report import decades

PLAIN = {"COLUMNS": "80", "NO_COLOR": None, "FORCE_COLOR": None, "CLICOLOR_FORCE": None, "TTY_COMPATIBLE": None}
PLAIN |= {f"FASTGRAD_{name}": None for name in ("BACKEND", "THREADS", "FORMAT", "COLOR", "QUIET")}
SMALL = ("simulate", "--depth", "20", "--ensemble", "9", "--backend", "numpy")


def run(*arguments, **environment):
    result = CliRunner(env=PLAIN | environment).invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def environment_of(**changes):
    found = {**os.environ, **PLAIN, "PYTHONIOENCODING": "utf-8", **changes}
    return {name: value for name, value in found.items() if value is not None}


def process(*arguments, cwd, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fastgrad", *arguments],
        cwd=cwd,
        env=environment_of(**environment),
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        timeout=60,
    )


# plot labels outside of the canvas


@pytest.mark.parametrize(
    "arguments",
    [
        ("--depth", "20", "--ensemble", "8"),
        ("--depth", "2", "--ensemble", "1", "--weight", "constant:12", "--bias", "centered"),
        ("--depth", "10", "--ensemble", "1", "--weight", "torch_default:gain=2"),
        ("--depth", "100", "--ensemble", "9", "--weight", "constant:4", "--bias", "constant:-2", "--x", "0.9"),
        ("--depth", "1e5", "--ensemble", "2", "--weight", "normal:std=1000"),
    ],
    ids=" ".join,
)
def test_simulate_draws_every_chain(arguments):
    result = run("simulate", *arguments, "--backend", "numpy")
    assert result.exit_code == 0
    assert "(link)" in result.stdout


@pytest.mark.parametrize("at", [0, 10, 20, 30, 39])
def test_label_at_the_highest_point(at):
    y = -np.abs(np.arange(40.0) - at) + 5
    text = terminal(Figure("", "link", "log10", np.arange(40.0), [Curve("gradient", "gradient", y)]), 78, 16, False)
    assert "gradient" in text


# stdout that can't hold every character


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("arguments", [("example",), SMALL, ("compare", "--depth", "5", "--ensemble", "2")])
def test_stdout_that_is_not_utf8(encoding, arguments, tmp_path):
    done = process(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")


# what -o may not replace


def test_output_follows_a_symbolic_link(tmp_path):
    (tmp_path / "target.json").write_text("old")
    (tmp_path / "link.json").symlink_to("target.json")
    assert run("info", "-o", tmp_path / "link.json").exit_code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())["command"] == "info"


def test_output_into_a_pipe(tmp_path):
    """As into /dev/null, /dev/stdout or >(process): never replaced by a file."""
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", "pipe"], cwd=tmp_path, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        result = run("info", "--format", "json", "-o", tmp_path / "pipe")
        assert (tmp_path / "pipe").is_fifo()
        assert result.exit_code == 0
        assert json.loads(reader.communicate(timeout=10)[0])["command"] == "info"
    finally:
        reader.kill()
        reader.communicate()


def test_output_leaves_other_files_alone(tmp_path):
    (tmp_path / "a.json.part").write_text("mine")
    run("info", "-o", tmp_path / "a.json")
    assert (tmp_path / "a.json.part").read_text() == "mine"


# no command


def test_no_command():
    result = run()
    assert result.exit_code == 2
    assert max(map(len, (result.stdout + result.stderr).splitlines())) <= 100


# early readers


def test_reader_that_stops_early_is_no_failure(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = process(*SMALL, cwd=tmp_path, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_stdout_that_is_closed(tmp_path):
    command = f"{sys.executable} -m fastgrad info >&-"
    done = subprocess.run(["sh", "-c", command], env=environment_of(), stderr=subprocess.PIPE, encoding="utf-8")
    assert "Traceback" not in done.stderr


# the environment is the weaker wish


def test_ending_beats_the_environment(tmp_path):
    run(*SMALL, "-o", tmp_path / "a.csv", FASTGRAD_FORMAT="json")
    assert (tmp_path / "a.csv").read_text().startswith("link,")


# color


def test_color_always_colors_the_plot():
    lines = run(*SMALL, "--color", "always").stdout.splitlines()
    assert any("⠤" in line and "\x1b[" in line for line in lines)


# chains in files


def test_csv_of_blank_lines(tmp_path):
    (tmp_path / "a.csv").write_text("weight,bias\n\n\n")
    result = run("backprop", tmp_path / "a.csv")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "no links" in result.stderr


def test_csv_with_a_column_twice(tmp_path):
    (tmp_path / "a.csv").write_text("weight,weight\n1,2\n")
    assert run("backprop", tmp_path / "a.csv").exit_code == 1


@pytest.mark.parametrize("option", ["--x", "--bias", "--cotangent"])
def test_option_that_is_not_finite_is_wrong_usage(option, tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    result = run("backprop", tmp_path / "a.npy", option, "nan")
    assert result.exit_code == 2
    assert "a.npy" not in result.stderr
    assert option[2:] in result.stderr


def test_text_file_is_not_recommended_for_unpickling(tmp_path):
    (tmp_path / "a.npz").write_text("weight,bias\n1,2\n")
    assert "pickle" not in run("backprop", tmp_path / "a.npz").stderr


def test_deep_chain_is_quick(tmp_path):
    import time

    np.save(tmp_path / "a.npy", np.full(200_000, 4.0))
    start = time.perf_counter()
    assert run("backprop", tmp_path / "a.npy").exit_code == 0
    assert time.perf_counter() - start < 2


# words and numbers


def test_reason_of_a_weight_that_left_float64():
    result = json.loads(run("example", "--learning-rate", "1e308", "--format", "json").stdout)["result"]
    assert "zero" not in result["weight_after_why"]


def test_weight_is_said_to_be_beyond_float64_only_when_it_is():
    text = run("example", "--learning-rate", "1e300").stdout
    assert "w11 = 500 - 1e+300 x 93 750 000 = -9.375e+307" in text
    assert "weight has left float64" not in text


@pytest.mark.parametrize("log10", [-0.04, -0.0])
def test_no_negative_zero(log10):
    assert decades(log10) == "10^0.0"


def test_ticks_have_no_negative_zero():
    y = np.linspace(0.6, -2.5, 30)
    assert not re.search(
        r" -0\.0+ ", terminal(Figure("", "x", "y", np.arange(30.0), [Curve("bound", "b", y)]), 78, 16, False)
    )


def test_one_link():
    text = run("simulate", "--depth", "1", "--ensemble", "1", "--backend", "numpy").stdout
    assert "1 links" not in text
    assert "median" not in text


def test_narrow_tables_keep_their_keys():
    lines = run("simulate", "--depth", "1000", "--backend", "numpy", COLUMNS="60").stdout.splitlines()
    assert any(line.split()[:1] == ["1000"] for line in lines)
    lines = run("compare", "--depth", "5", "--ensemble", "2", COLUMNS="60").stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Time"))
    assert any(line.split()[:1] == ["numpy"] for line in lines[start:])


def test_wrong_output_is_caught_by_compare(monkeypatch):
    from fastgrad.compare import compare
    from fastgrad.kernels import BACKENDS, load

    monkeypatch.setitem(BACKENDS, "numba", ("fastgrad.kernels.absent", "install it"))
    kernels = load("cpp")[1]
    right = kernels.backprop

    def wrong(*arguments):
        right(*arguments)
        arguments[4][0] += 0.125

    monkeypatch.setattr(kernels, "backprop", wrong)
    assert not compare("backprop", 5, 3, threads=1).agree
