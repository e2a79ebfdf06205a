"""What a demanding user meets at the edges of the command line: pipes, narrow terminals, odd files, wrong words."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import fastgrad
from fastgrad.cli.errors import _discard_what_is_stuck
from fastgrad.cli.output import _show_warning
from fastgrad.report.document import Curve, Figure
from fastgrad.report.terminal import terminal
from fastgrad.report.text import power_of_ten

SMALL = ("simulate", "--depth", "20", "--ensemble", "9", "--backend", "numpy")


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
def test_simulate_draws_every_chain(arguments, cli):
    result = cli("simulate", *arguments, "--backend", "numpy")
    assert result.exit_code == 0
    assert "(link)" in result.stdout


@pytest.mark.parametrize("at", [0, 10, 20, 30, 39])
def test_label_at_the_highest_point(at):
    y = -np.abs(np.arange(40.0) - at) + 5
    text = terminal(Figure("", "link", "log10", np.arange(40.0), [Curve("gradient", "gradient", y)]), 78, 16, False)
    assert "gradient" in text


# stdout that can't hold every character


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("arguments", [("example",), ("compare", "--depth", "5", "--ensemble", "2")])
def test_stdout_that_is_not_utf8(encoding, arguments, tmp_path, process):
    done = process(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("encoding", "lost"), [("ascii", "±…"), ("latin-1", "…"), ("cp1252", "")])
def test_what_stdout_can_not_hold_becomes_a_question_mark(encoding, lost, tmp_path, process):
    whole = process(*SMALL, cwd=tmp_path).stdout
    held = process(*SMALL, cwd=tmp_path, PYTHONIOENCODING=encoding).stdout
    for text in (re.search(r"^.* ± .*$", whole, flags=re.MULTILINE)[0], re.search(r"10\^\S+ … 10\^\S+", whole)[0]):
        assert "".join("?" if character in lost else character for character in text) in held
    assert "(a plot needs a UTF-8 terminal; --plot FILE draws it into a file)" in held


# what -o may not replace


def test_output_follows_a_symbolic_link(tmp_path, cli):
    (tmp_path / "target.json").write_text("old")
    (tmp_path / "link.json").symlink_to("target.json")
    assert cli("info", "-o", tmp_path / "link.json").exit_code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())["command"] == "info"


def test_output_into_a_pipe(tmp_path, cli):
    """As into /dev/null, /dev/stdout or >(process): never replaced by a file."""
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", "pipe"], cwd=tmp_path, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        result = cli("info", "--format", "json", "-o", tmp_path / "pipe")
        assert (tmp_path / "pipe").is_fifo()
        assert result.exit_code == 0
        assert json.loads(reader.communicate(timeout=10)[0])["command"] == "info"
    finally:
        reader.kill()
        reader.communicate()


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="needs /dev/stdout")  # noqa: PTH110
@pytest.mark.parametrize("to", ["a pipe", "a file"])
def test_output_into_dev_stdout(to, tmp_path, process):
    with (tmp_path / "a.json").open("w") as file:
        arguments = ("info", "--format", "json", "-o", "/dev/stdout")
        done = process(*arguments, cwd=tmp_path, stdout=file if to == "a file" else subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout or (tmp_path / "a.json").read_text())["command"] == "info"


def test_output_into_a_process(tmp_path, environment_of):
    """As bash has it: -o >(process)."""
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fastgrad", "info", "--format", "json", "-o", f"/dev/fd/{writing}"],
            cwd=tmp_path,
            env=environment_of(),
            pass_fds=[writing],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        os.close(writing)
        with os.fdopen(os.dup(reading), encoding="utf-8") as file:
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert json.loads(file.read())["command"] == "info"
    finally:
        os.close(reading)


def test_output_into_a_device(tmp_path, cli):
    before = Path(os.devnull).stat()
    result = cli("info", "--format", "json", "-o", os.devnull)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert Path(os.devnull).stat().st_rdev == before.st_rdev


def test_output_through_a_symbolic_link_that_hangs(tmp_path, cli):
    (tmp_path / "link.json").symlink_to("new.json")
    assert cli("info", "-o", tmp_path / "link.json").exit_code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "new.json").read_text())["command"] == "info"


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_output_through_a_symbolic_link_to_itself(option, tmp_path, process):
    path = tmp_path / ("loop.json" if option == "-o" else "loop.png")
    path.symlink_to(path.name)
    done = process(*SMALL, option, str(path), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    name = "output" if option == "-o" else "plot"
    assert done.stderr == f"fastgrad: {name}: {path}: is a symbolic link to itself\n"


def test_output_leaves_other_files_alone(tmp_path, cli):
    others = [".a.json", ".a.json.part", "a.json.part", "a.json.tmp", "a.json~"]
    for name in others:
        (tmp_path / name).write_text("mine")
    cli("info", "-o", tmp_path / "a.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "a.json"])
    assert {(tmp_path / name).read_text() for name in others} == {"mine"}


def test_two_at_once_write_one_whole_file(tmp_path, environment_of):
    arguments = [sys.executable, "-m", "fastgrad", *SMALL, "-o", "a.json", "--seed"]
    jobs = [subprocess.Popen([*arguments, seed], cwd=tmp_path, env=environment_of()) for seed in "12"]
    assert [job.wait(timeout=60) for job in jobs] == [0, 0]
    assert json.loads((tmp_path / "a.json").read_text())["parameters"]["seed"] in (1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_output_has_the_permissions_of_any_new_file_and_keeps_those_of_an_old_one(tmp_path, cli):
    path = tmp_path / "a.json"
    (tmp_path / "other").touch()
    cli("info", "-o", path)
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    path.chmod(0o604)
    cli("info", "-o", path)
    assert path.stat().st_mode & 0o7777 == 0o604


# no command


def test_no_command(cli):
    result = cli()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == cli("--help").stdout


# early readers


def test_reader_that_stops_early_is_no_failure(tmp_path, process):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = process(*SMALL, cwd=tmp_path, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_stdout_that_is_closed(tmp_path, environment_of):
    command = f"{sys.executable} -m fastgrad info >&-"
    done = subprocess.run(["sh", "-c", command], env=environment_of(), stderr=subprocess.PIPE, encoding="utf-8")
    assert (done.returncode, done.stderr) == (1, "fastgrad: stdout is closed\n")


@pytest.fixture
def shell(environment_of):
    """Function that runs a line of bash in which `fastgrad` is the command."""

    def run(command, **environment):
        done = subprocess.run(
            ["bash", "-c", f'set -o pipefail; fastgrad() {{ {sys.executable} -m fastgrad "$@"; }}; {command}'],
            env=environment_of(**environment),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize("arguments", ["--help", "--version", "simulate --help", "info"])
def test_nobody_reads_what_is_asked_for(arguments, shell):
    assert shell(f"fastgrad {arguments} | true") == (0, "")


def test_nobody_reads_completions_and_errors(shell):
    assert shell("_FASTGRAD_COMPLETE=bash_source fastgrad | true") == (0, "")
    assert shell("fastgrad bogus 2>&1 | true") == (2, "")
    assert shell("fastgrad 2>&1 | true") == (2, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("arguments", ["--help", "--version", "simulate --help", "info"])
def test_what_is_asked_for_can_not_be_written(arguments, shell):
    assert shell(f"fastgrad {arguments} > /dev/full") in [
        (1, "fastgrad: No space left on device\n"),
        (1, "fastgrad: stdout: No space left on device\n"),
    ]
    assert shell(f"fastgrad {arguments} >&-") == (1, "fastgrad: stdout is closed\n")


@pytest.mark.parametrize("to", ["> /dev/full 2>&1", ">&- 2>&-", ">&- 2>&- <&-"])
def test_nothing_can_be_written_at_all(to, shell):
    assert [shell(f"fastgrad {arguments} {to}") for arguments in ("--help", "bogus")] == [(1, ""), (2, "")]


def test_a_warning_that_can_not_be_written_is_no_failure(monkeypatch):
    monkeypatch.setattr(sys, "stderr", open("/dev/full", "w"))  # noqa: PTH123, SIM115
    _show_warning("lost")
    _discard_what_is_stuck(sys.stderr)
    sys.stderr.close()


@pytest.mark.parametrize(
    "value", ["THREADS=abc", "THREADS=0", "QUIET=maybe", "FORMAT=xml", "COLOR=blue", "BACKEND=gpu"]
)
def test_a_wrong_value_from_the_environment_is_named_after_its_variable(value, cli):
    name, _, text = value.partition("=")
    result = cli("simulate", "--depth", "5", **{f"FASTGRAD_{name}": text})
    assert (result.exit_code, result.stdout) == (2, "")
    option = f"--{name.lower()} (FASTGRAD_{name} in the environment)"
    assert result.stderr.startswith(f"fastgrad: Invalid value for {option}: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"COLUMNS": "1"},
        {"TERM": "dumb"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": None, "PYTHONCOERCECLOCALE": "0"},
        {"HOME": None, "TERM": None},
    ],
    ids=str,
)
def test_odd_environments(environment, shell):
    for arguments in ("--help", " ".join(SMALL)):
        assert shell(f"fastgrad {arguments} < /dev/null", **environment) == (0, "")
        assert shell(f"fastgrad {arguments} <&-", **environment) == (0, "")


# Ctrl-C, before the command runs too

PRESSED_WHEN_IMPORTED = """
import builtins, os, signal, sys
before = builtins.__import__

def hooked(name, *arguments, **more):
    if name == {module!r}:
        builtins.__import__ = before
        for _ in range({presses}):
            os.kill(os.getpid(), signal.SIGINT)
    return before(name, *arguments, **more)

builtins.__import__ = hooked
"""


@pytest.mark.parametrize(
    ("module", "presses"),
    [("numpy", 1), ("fastgrad.laws", 3), ("click", 1), ("fastgrad.report.writing", 3), ("numba", 3)],
)
@pytest.mark.parametrize("way", ["-m", "script"])
def test_ctrl_c_while_something_is_imported(way, module, presses, tmp_path, environment_of):
    """Pressed at the very moment, not after so many milliseconds; the script is as installers make it."""
    (tmp_path / "sitecustomize.py").write_text(PRESSED_WHEN_IMPORTED.format(module=module, presses=presses))
    script = tmp_path / "fastgrad"
    script.write_text("import sys\nfrom fastgrad.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    program = ["-m", "fastgrad"] if way == "-m" else [str(script)]
    backend = "numba" if module == "numba" else "numpy"
    done = subprocess.run(
        [sys.executable, *program, *SMALL[:-1], backend],
        env=environment_of(PYTHONPATH=f"{tmp_path}{os.pathsep}{Path(fastgrad.__file__).parent.parent}"),
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fastgrad: interrupted\n")


def test_an_import_changes_no_handler(python):
    code = "import signal, sys, fastgrad.cli; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert python(code) == "True\n"


def in_main(body):
    """Run the command with `body` in place of a job, as Ctrl-C finds it."""
    code = f"""
import os, signal, sys, time
sys.argv = ["fastgrad", *{SMALL!r}]
sys.orig_argv = [sys.executable, *sys.argv]
import fastgrad
from fastgrad import cli, interrupts
interrupts.GRACE_SECONDS = 1.0

def press(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)

def job(*_, **__):
{textwrap.indent(textwrap.dedent(body), "    ")}

fastgrad.simulate = job
cli.main()
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60)


@pytest.mark.parametrize(
    "body",
    [
        "press()",
        "try: press()\nfinally: press(5)",
        "try: press()\nexcept KeyboardInterrupt: raise ImportError('a library hides it')",
        "try: press()\nexcept KeyboardInterrupt: time.sleep(60)",  # what should be closed hangs
        "class Finalized:\n    def __del__(self): press()\nFinalized()\ntime.sleep(60)",
        "import threading\nthreading.Thread(target=time.sleep, args=[60]).start()\npress(3)",
        "import atexit\natexit.register(press, 3)\npress()",
    ],
)
def test_ctrl_c_ends_the_command_whatever_it_meets(body):
    done = in_main(body)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fastgrad: interrupted\n")


# the environment is the weaker wish


def test_ending_beats_the_environment(tmp_path, cli):
    cli(*SMALL, "-o", tmp_path / "a.csv", FASTGRAD_FORMAT="json")
    assert (tmp_path / "a.csv").read_text().startswith("link,")
    cli(*SMALL, "--format", "json", "-o", tmp_path / "b.csv", FASTGRAD_FORMAT="table")
    assert json.loads((tmp_path / "b.csv").read_text())["command"] == "simulate"


def test_environment_chooses_the_format_where_no_ending_does(tmp_path, cli):
    cli(*SMALL, "-o", tmp_path / "growth", FASTGRAD_FORMAT="json")
    assert json.loads((tmp_path / "growth").read_text())["command"] == "simulate"
    assert json.loads(cli(*SMALL, "-o", "-", FASTGRAD_FORMAT="json").stdout)["command"] == "simulate"


# color


def test_color_always_colors_the_plot(cli):
    lines = cli(*SMALL, "--color", "always").stdout.splitlines()
    assert any("⠤" in line and "\x1b[" in line for line in lines)


# chains in files


def test_csv_of_blank_lines(tmp_path, cli):
    (tmp_path / "a.csv").write_text("weight,bias\n\n\n")
    result = cli("backprop", tmp_path / "a.csv")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "no links" in result.stderr


def test_csv_with_a_column_twice(tmp_path, cli):
    (tmp_path / "a.csv").write_text("weight,weight\n1,2\n")
    assert cli("backprop", tmp_path / "a.csv").exit_code == 1


@pytest.mark.parametrize("option", ["--x", "--bias", "--cotangent"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_option_that_is_not_finite_is_wrong_usage(option, value, tmp_path, cli):
    np.save(tmp_path / "a.npy", np.ones(3))
    result = cli("backprop", tmp_path / "a.npy", f"{option}={value}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"fastgrad: Invalid value for '{option}': expected a finite number, got {value}\n"


def test_text_file_is_not_recommended_for_unpickling(tmp_path, cli):
    (tmp_path / "a.npz").write_text("weight,bias\n1,2\n")
    assert "pickle" not in cli("backprop", tmp_path / "a.npz").stderr


def test_deep_chain_is_quick(tmp_path, cli):
    np.save(tmp_path / "a.npy", np.full(200_000, 4.0))
    start = time.perf_counter()
    assert cli("backprop", tmp_path / "a.npy").exit_code == 0
    assert time.perf_counter() - start < 10  # 0.1 s; link by link in Python it would be minutes


# words and numbers


def test_reason_of_a_weight_that_left_float64(cli):
    result = json.loads(cli("example", "--learning-rate", "1e308", "--format", "json").stdout)["result"]
    assert "zero" not in result["weight_after_why"]


def test_weight_is_said_to_be_beyond_float64_only_when_it_is(cli):
    text = cli("example", "--learning-rate", "1e300").stdout
    assert "w11 = 500 - 1e+300 x 93 750 000 = -9.375e+307" in text
    assert "weight has left float64" not in text


@pytest.mark.parametrize("log10", [-0.04, -0.0])
def test_no_negative_zero(log10):
    assert power_of_ten(log10) == "10^0.0"


def test_ticks_have_no_negative_zero():
    y = np.linspace(0.6, -2.5, 30)
    assert not re.search(
        r" -0\.0+ ", terminal(Figure("", "x", "y", np.arange(30.0), [Curve("bound", "b", y)]), 78, 16, False)
    )


@pytest.mark.parametrize(
    ("depth", "ensemble", "line"),
    [(1, 1, "1 chain of 1 link,"), (2, 1, "1 chain of 2 links,"), (1, 2, "2 chains of 1 link,")],
)
def test_one_is_no_plural(depth, ensemble, line, cli):
    text = cli("simulate", "--depth", depth, "--ensemble", ensemble, "--backend", "numpy").stdout
    assert text.startswith(line)
    assert not re.search(r"\b1 (links|chains)\b", text)


def test_one_chain_has_no_median(tmp_path, cli):
    np.save(tmp_path / "a.npy", np.ones(3))
    np.save(tmp_path / "b.npy", np.ones((3, 2)))
    simulated = ("simulate", "--depth", "30", "--backend", "numpy", "--ensemble")
    assert "median" not in cli(*simulated, "1").stdout
    assert "median" in cli(*simulated, "2").stdout
    assert ", median" not in cli("backprop", tmp_path / "a.npy").stdout
    assert ", median" in cli("backprop", tmp_path / "b.npy").stdout


@pytest.mark.parametrize(
    ("stderr", "shown"),
    [
        (0.00395, " -1.5347 ± 0.0040 nats"),
        (0.25, " -1.53 ± 0.25 nats"),
        (0.1, " -1.53 ± 0.10 nats"),
        (2e-5, " -1.534679 ± 0.000020 nats"),
        (7, " -1.5 ± 7.0 nats"),
        (42, " -2 ± 42 nats"),
        (0.0, " -1.53468 nats"),
        (float("nan"), " -1.53468 nats"),
    ],
)
def test_standard_error_has_two_digits_and_the_mean_as_many_decimals(stderr, shown, monkeypatch, cli):
    from fastgrad import simulate
    from fastgrad.jobs.growth import Lyapunov

    monkeypatch.setattr(sys.modules[simulate.__module__], "lyapunov_of", lambda *_: Lyapunov(-1.534679, stderr))
    assert shown in cli(*SMALL).stdout


def test_all_zero_is_said_in_the_plot(cli):
    text = cli("simulate", "--weight", "zero", "--depth", "10", "--ensemble", "3", "--backend", "numpy").stdout
    assert "(exactly zero throughout)" in text


@pytest.mark.parametrize("columns", ["20", "60", "79"])
def test_narrow_terminal_gets_80_columns(columns, tmp_path, cli):
    """Its own wrapping loses nothing."""
    np.save(tmp_path / "a.npy", np.ones(300))
    for arguments in (("example",), ("info",), SMALL, ("backprop", tmp_path / "a.npy")):
        assert cli(*arguments, COLUMNS=columns).stdout == cli(*arguments).stdout


def test_narrow_tables_keep_their_keys(cli):
    lines = cli("simulate", "--depth", "1000", "--backend", "numpy", COLUMNS="60").stdout.splitlines()
    assert any(line.split()[:1] == ["1000"] for line in lines)
    lines = cli("compare", "--depth", "5", "--ensemble", "2", COLUMNS="60").stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Time"))
    assert any(line.split()[:1] == ["numpy"] for line in lines[start:])


def test_wrong_output_is_caught_by_compare(monkeypatch):
    from fastgrad.jobs.compare import compare
    from fastgrad.kernels import BACKENDS, load

    monkeypatch.setitem(
        BACKENDS, "numba", BACKENDS["numba"]._replace(module="fastgrad.kernels.absent", remedy="install it")
    )
    kernels = load("cpp")[1]
    right = kernels.backprop

    def wrong(job, start, stop):
        finite = right(job, start, stop)
        job.output[0] += 0.125
        return finite

    monkeypatch.setattr(kernels, "backprop", wrong)
    assert not compare("backprop", 5, 3, threads=1).agree
