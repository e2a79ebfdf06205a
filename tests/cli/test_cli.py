"""The command line: help, options, exit codes, streams and files."""

import csv
import io
import os
import re
import resource
import select
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.cli import main
from fastgrad.kernels import BACKENDS

VARIABLES = ("BACKEND", "THREADS", "FORMAT", "COLOR", "QUIET")
COMMANDS = sorted(main.commands)
WRITING = [command for command in COMMANDS if command != "explore"]  # which serves a page until Ctrl-C
SMALL = ("simulate", "--depth", "20", "--ensemble", "9", "--backend", "numpy")


def one_line(stderr):
    """The message of a failure, which is one line."""
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    assert stderr.startswith("fastgrad: ")
    return stderr.removeprefix("fastgrad: ").rstrip("\n")


# Help


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command, cli):
    arguments = [command] if command else []
    long, short = cli(*arguments, "--help"), cli(*arguments, "-h")
    assert (long.exit_code, long.stderr) == (0, "")
    assert long.stdout == short.stdout
    assert long.stdout.startswith("Usage: ")
    assert re.search(r"^  Example: fastgrad ", long.stdout, flags=re.MULTILINE)
    assert max(map(len, long.stdout.splitlines())) <= 100


@pytest.mark.parametrize("command", ["", *WRITING])
def test_example_in_help_runs(command, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    np.savez("chain.npz", weight=np.full(100, 8.0), bias=np.full(100, -4.0))
    if command in ("export", "merge", "plot", "report"):
        for store, seeds in {"study.db": (1, 2), "part1.db": (1,), "part2.db": (2,)}.items():
            fg.sweep({"weight.std": [1, 4], "seed": seeds}, depth=200, ensemble=4, store=store)
    if command == "measure":
        pytest.importorskip("torch")
        Path("model.py").write_text(
            "import torch\n\ndef build():\n    return torch.nn.Linear(3, 1)(torch.ones(3)).sum()\n"
        )
    text = cli(*([command] if command else []), "--help").stdout
    program, *arguments = shlex.split(re.search(r"^  Example: (.*)$", text, flags=re.MULTILINE)[1])
    assert program == "fastgrad"
    assert not command or arguments[0] == command
    result = cli(*arguments, *(["--depth", "100"] if command == "compare" else []))  # the last one counts: less to time
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_states_every_default(command):
    import click

    context = click.Context(main.commands[command], info_name=command)
    for parameter in main.commands[command].params:
        if not isinstance(parameter, click.Option) or parameter.is_flag:
            continue
        if parameter.name in ("output", "plot") or parameter.required:  # nothing happens without them
            continue
        described = parameter.get_help_record(context)[1]
        assert "[default: " in described or "  [default: " in parameter.help, parameter.name
        assert re.search(r"[.:)\d]\s+\[default", described), f"{parameter.name}: {described}"


@pytest.mark.parametrize("command", WRITING)
def test_every_command_has_the_output_options(command):
    names = {name for parameter in main.commands[command].params for name in parameter.opts}
    assert {"--format", "--output", "-o", "--color", "--quiet", "-q"} <= names


def test_commands_are_those_of_the_design():
    assert {"example", "simulate", "backprop", "compare", "info"} <= set(main.commands)


def test_version(cli):
    assert cli("--version").stdout == f"fastgrad, version {fg.__version__}\n"


def test_module_runs_and_is_called_fastgrad(tmp_path, process):
    done = process("simulate", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: fastgrad simulate [OPTIONS]\n")


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "--help"]], ids=" ".join)
def test_help_is_quick(arguments, tmp_path, environment_of):
    def duration(*command):
        """Seconds of the processor: other jobs on the machine don't count, and one thread's are the clock's."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = environment_of(OPENBLAS_NUM_THREADS="1")
        subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Most of it is Python's and NumPy's: on a machine that needs longer for these alone, three quarters as much again.
    help_, base = [], []
    for _ in range(10):
        help_.append(duration("-m", "fastgrad", *arguments))
        base.append(duration("-c", "import numpy"))
        if min(help_) < 0.2:
            break
    assert min(help_) < max(0.2, 1.75 * min(base))


def test_help_loads_nothing_heavy(python):
    code = """
import sys
from fastgrad.cli import main
main(["simulate", "--help"], standalone_mode=False)
print([name for name in ("numba", "rich", "plotille", "matplotlib", "fastgrad._cpp") if name in sys.modules])
"""
    assert python(code).endswith("[]\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell, tmp_path, process):
    done = process(cwd=tmp_path, _FASTGRAD_COMPLETE=f"{shell}_source")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_FASTGRAD_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("fastgrad ", COMMANDS),
        ("fastgrad simulate --ens", ["--ensemble"]),
        ("fastgrad simulate --backend nu", ["numba", "numpy"]),
    ],
)
def test_completion_completes(typed, completed, tmp_path, process):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = process(cwd=tmp_path, **words, _FASTGRAD_COMPLETE="bash_complete")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.removeprefix("plain,") for line in done.stdout.splitlines()] == completed


# Wrong usage

WRONG = [
    (("simulat",), "simulat"),
    (("simulate", "--colour", "always"), "--colour"),
    (("simulate", "surplus"), "surplus"),
    (("simulate", "--depth"), "--depth"),
    (("simulate", "--backend", "cuda"), "--backend"),
    (("simulate", "--depth", "-1"), "depth"),
    (("simulate", "--depth", "0"), "depth"),
    (("simulate", "--depth", "1.5"), "depth"),
    (("simulate", "--depth", "abc"), "depth"),
    (("simulate", "--depth", "nan"), "depth"),
    (("simulate", "--depth", "inf"), "depth"),
    (("simulate", "--depth", "1e400"), "depth"),
    (("simulate", "--depth", ""), "depth"),
    (("simulate", "--depth", "1e18"), "depth"),
    (("simulate", "--depth", "1e12", "--ensemble", "1e6"), "depth"),
    (("simulate", "--ensemble", "0"), "ensemble"),
    (("simulate", "--ensemble", "2.5"), "ensemble"),
    (("simulate", "--ensemble", "4294967297"), "ensemble"),
    (("simulate", "--ensemble", "4e9", "--depth", "1000"), "memory"),
    (("simulate", "--seed", "-1"), "seed"),
    (("simulate", "--seed", str(2**64)), "seed"),
    (("simulate", "--seed", "x"), "seed"),
    (("simulate", "--seed", "1.5"), "seed"),
    (("simulate", "--seed", "1e20"), "seed"),
    (("compare", "--seed", "nan"), "seed"),
    (("simulate", "--threads", "0"), "threads"),
    (("simulate", "--threads", "1000000"), "threads"),
    (("simulate", "--record", "1"), "record"),
    (("simulate", "--record", "64.5"), "record"),
    (("simulate", "--x", "nan"), "'--x': expected a finite number, got nan"),
    (("simulate", "--x", "inf"), "'--x': expected a finite number, got inf"),
    (
        (
            "simulate",
            "--x=-inf",
        ),
        "'--x': expected a finite number, got -inf",
    ),
    (("simulate", "--x", "one"), "--x"),
    (("simulate", "--weight", "centered"), "weight"),
    (("simulate", "--weight", "normal:4"), "weight"),
    (("simulate", "--weight", "normal:sd=4"), "weight"),
    (("simulate", "--weight", "normal:std=-4"), "weight"),
    (("simulate", "--weight", "normal:std=1e308"), "weight"),
    (("simulate", "--weight", "normal:std=1,std=2"), "weight"),
    (("simulate", "--weight", "uniform"), "weight"),
    (("simulate", "--weight", "uniform:low=1,high=0"), "weight"),
    (("simulate", "--weight", "constant"), "weight"),
    (("simulate", "--weight", "constant:nan"), "weight"),
    (("simulate", "--weight", ""), "weight"),
    (("simulate", "--bias", "zero:1"), "bias"),
    (("simulate", "--format", "xml"), "--format"),
    (("simulate", "--color", "blue"), "--color"),
    (("simulate", "-o", "growth.xlsx"), "growth.xlsx"),
    (("simulate", "-o", "growth"), "growth"),
    (("simulate", "-o", ""), "output"),
    (("simulate", "-o", "growth.npz"), "growth.npz"),
    (("simulate", "--plot", "growth.gif"), "growth.gif"),
    (("compare", "--job", "train"), "--job"),
    (("compare", "--repeats", "1"), "--repeats"),
    (("compare", "--depth", "1e7", "--ensemble", "1e7"), "memory"),
    (("example", "--backend", "gpu"), "--backend"),
    (("backprop",), "FILE"),
    (("info", "--depth", "3"), "--depth"),
]


@pytest.mark.parametrize(("arguments", "named"), WRONG, ids=[" ".join(arguments)[:60] for arguments, _ in WRONG])
def test_wrong_usage(arguments, named, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in one_line(result.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "law", "meant"),
    [("--weight", "norml:std=2", "normal"), ("--weight", "glorot", "glorot_normal"), ("--bias", "centred", "centered")],
)
def test_unknown_law_is_answered_with_the_nearest(option, law, meant, cli):
    message = one_line(cli("simulate", option, law).stderr)
    assert message.startswith(f"{option[2:]}: unknown law {law.partition(':')[0]!r}")
    assert message.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(("number", "expected"), [("1e2", 100), ("100", 100), ("+100", 100), ("1E2", 100)])
def test_counts_in_scientific_notation(number, expected, cli, strict_json):
    result = cli("simulate", "--depth", number, "--ensemble", "2e0", "--backend", "numpy", "--format", "json")
    parameters = strict_json(result.stdout)["parameters"]
    assert parameters["depth"] == expected
    assert parameters["ensemble"] == 2
    assert type(parameters["depth"]) is int


def test_seed_in_scientific_notation(cli, strict_json):
    short, long = (cli(*SMALL, "--seed", seed, "--format", "json").stdout for seed in ("1e3", "1000"))
    assert short == long
    assert strict_json(short)["provenance"]["seed"] == 1000


# Exit codes in real processes


def test_exit_code_0(tmp_path, process):
    done = process(*SMALL, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Lyapunov exponent" in done.stdout


def test_exit_code_1(tmp_path, process):
    (tmp_path / "chain.npz").write_text("no archive")
    done = process("backprop", "chain.npz", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert one_line(done.stderr).startswith("chain.npz: ")


def test_exit_code_2(tmp_path, process):
    done = process("simulate", "--depth", "-3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr).startswith("depth: ")


def test_exit_code_3(tmp_path, environment_of):
    code = """
import sys
from fastgrad.cli import main
from fastgrad.kernels import load, reference
right = reference.backprop
def wrong(job, start, stop):
    finite = right(job, start, stop)
    job.grad_weight.mantissa[0] *= -1
    return finite
reference.backprop = wrong
main(["compare", "--depth", "5", "--ensemble", "3"])
"""
    if len(fg.available_backends()) < 2:
        pytest.skip("nothing to compare with")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment_of(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 3
    assert one_line(done.stderr) == "the backends disagree"


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("size", [("--depth", "1e12", "--ensemble", "1"), ("--depth", "1e8", "--ensemble", "1e4")])
def test_exit_code_130(backend, size, tmp_path, environment_of):
    arguments = ["simulate", *size, "--backend", backend, "-o", "growth.json"]
    code = f"""
import fastgrad, fastgrad.report.writing
from fastgrad.cli import main
fastgrad.simulate(2, 2, backend={backend!r})  # what Numba compiles is compiled
print("ready", flush=True)
main({arguments!r})
"""
    job = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment_of(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with job:
        try:
            assert job.stdout.readline() == "ready\n"
            time.sleep(0.7)
            assert job.poll() is None, job.stderr.read()
            start = time.perf_counter()
            job.send_signal(signal.SIGINT)
            stdout, stderr = job.communicate(timeout=30)
            duration = time.perf_counter() - start
        finally:
            job.kill()
    assert (job.returncode, stdout) == (130, "")
    assert one_line(stderr) == "interrupted"
    assert duration < 5  # a fraction of a second on an idle machine
    assert list(tmp_path.iterdir()) == []


def test_backend_that_is_missing(monkeypatch, cli):
    monkeypatch.setitem(
        BACKENDS, "numba", BACKENDS["numba"]._replace(module="fastgrad.kernels.absent", remedy="pip install numba")
    )
    result = cli(*SMALL[:-1], "numba")
    assert (result.exit_code, result.stdout) == (1, "")
    message = one_line(result.stderr)
    assert message.startswith("backend: numba is not available (")
    assert message.endswith("to mend it: pip install numba")


def test_auto_takes_the_next_backend_and_says_so(monkeypatch, cli, strict_json):
    for name in ("cpp", "numba"):
        monkeypatch.setitem(
            BACKENDS, name, BACKENDS[name]._replace(module="fastgrad.kernels.absent", remedy="install it")
        )
    result = cli("simulate", "--depth", "5", "--ensemble", "2", "--format", "json")
    assert result.exit_code == 0
    assert strict_json(result.stdout)["provenance"]["backend"] == "numpy"


def test_out_of_memory_is_one_line(monkeypatch, cli):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(fg, "simulate", fail)
    result = cli(*SMALL)
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr) == "out of memory"


# Streams


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "--depth", "2000", "--ensemble", "2", "--backend", "numpy"),
        ("simulate", "--depth", "5000", "--ensemble", "1", "--record", "5000", "--backend", "numpy", "--format", "csv"),
        (
            "simulate",
            "--depth",
            "5000",
            "--ensemble",
            "1",
            "--record",
            "5000",
            "--backend",
            "numpy",
            "--format",
            "json",
        ),
        ("example", "--backend", "numpy"),
    ],
    ids=["table", "csv", "json", "example"],
)
def test_reader_that_stops_early(arguments, tmp_path, environment_of):
    job = subprocess.Popen(
        [sys.executable, "-m", "fastgrad", *arguments],
        cwd=tmp_path,
        env=environment_of(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    head = subprocess.run(["head", "-1"], stdin=job.stdout, capture_output=True, encoding="utf-8", timeout=60)
    job.stdout.close()
    with job:
        assert job.stderr.read() == ""
    assert job.returncode == 0
    assert head.stdout.count("\n") == 1


def test_reader_that_never_reads(tmp_path, environment_of):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "fastgrad", *SMALL],
        cwd=tmp_path,
        env=environment_of(),
        stdout=writing,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("form", ["table", "json"])
def test_stdout_that_is_full(form, tmp_path, environment_of):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "fastgrad", *SMALL, "--format", form],
            cwd=tmp_path,
            env=environment_of(),
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=60,
        )
    assert done.returncode == 1
    assert one_line(done.stderr).endswith("No space left on device")


@pytest.fixture
def caught_chain(tmp_path):
    """A file with three chains, of which one is caught at 1/2 by rounding."""
    weight = np.array([9.0] * 3 + [1e-20] + [9.0] * 100)[:, None] * [1.0, 0.5, 1.0]
    path = tmp_path / "caught.npz"
    np.savez(path, weight=weight, bias=-weight / 2 + [0.0, 1.0, 0.0], x=[0.3, 0.3, 0.5], target=[0.2] * 3)
    return path


@pytest.fixture
def caught_chain_without_target(tmp_path, caught_chain):
    with np.load(caught_chain) as arrays:
        np.savez(tmp_path / "chain.npz", **{name: arrays[name] for name in ("weight", "bias", "x")})
    return tmp_path / "chain.npz"


@pytest.mark.parametrize("command", ["backprop", "train"])
def test_warnings_go_to_stderr_in_one_line(command, caught_chain, caught_chain_without_target, cli, strict_json):
    file = {"train": caught_chain, "backprop": caught_chain_without_target}[command]
    result = cli(command, file, "--format", "json")
    assert result.exit_code == 0
    assert one_line(result.stderr).startswith("warning: 1 of 3 chains are caught at 1/2 by rounding ")
    assert strict_json(result.stdout)["command"] == command


@pytest.mark.parametrize("arguments", [("--quiet",), ("-q",), ()])
def test_quiet_silences_warnings(arguments, caught_chain_without_target, cli):
    loud = cli("backprop", caught_chain_without_target, "--format", "csv")
    assert loud.stderr
    quiet = cli(
        "backprop",
        caught_chain_without_target,
        "--format",
        "csv",
        *arguments,
        FASTGRAD_QUIET=None if arguments else "1",
    )
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


def test_quiet_does_not_silence_errors(cli):
    assert one_line(cli("simulate", "--depth", "0", "--quiet").stderr).startswith("depth: ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("info",),
        ("info", "--format", "csv"),
        (*SMALL, "--format", "json"),
        (*SMALL, "--format", "csv"),
        ("example", "--format", "json"),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-1:]),
)
def test_stdout_that_is_not_utf8(encoding, arguments, tmp_path, process):
    done = process(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


# Color, progress and terminals


@pytest.mark.parametrize("command", ["example", "simulate", "info"])
def test_color_is_what_is_asked_for(command, cli):
    arguments = [command, *(SMALL[1:] if command == "simulate" else [])]
    auto = cli(*arguments)
    never = cli(*arguments, "--color", "never")
    always = cli(*arguments, "--color", "always")
    assert "\x1b" not in auto.stdout  # no terminal
    assert never.stdout == auto.stdout
    assert "\x1b[1m" in always.stdout
    assert re.sub(r"\x1b\[[\d;]*m", "", always.stdout) == never.stdout
    assert cli(*arguments, "--color", "always", NO_COLOR="1").stdout == always.stdout  # the option is the nearer wish
    assert cli(*arguments, FASTGRAD_COLOR="always").stdout == always.stdout


@pytest.mark.parametrize("form", ["json", "csv"])
def test_data_have_no_color(form, cli):
    assert "\x1b" not in cli(*SMALL, "--format", form, "--color", "always").stdout


@pytest.fixture
def on_terminal(environment_of):
    """Function that runs a command with one of its streams on a terminal.

    It returns the exit code and what stood on the terminal, and sends Ctrl-C when the text `interrupt` appears there.
    """

    def run(arguments, cwd, stream, interrupt=None, **environment):
        pty = pytest.importorskip("pty")
        ours, theirs = pty.openpty()
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
        job = subprocess.Popen(
            [sys.executable, "-m", "fastgrad", *arguments],
            cwd=cwd,
            env=environment_of(TERM="xterm", **environment),
            stdin=subprocess.DEVNULL,
            **streams,
        )
        os.close(theirs)
        shown, sent = b"", False
        with job:
            try:
                while select.select([ours], [], [], 30)[0]:
                    try:
                        part = os.read(ours, 65536)
                    except OSError:  # Linux's way to say that the other end is closed
                        break
                    if not part:
                        break
                    shown += part
                    if interrupt is not None and not sent and interrupt.encode() in shown:
                        job.send_signal(signal.SIGINT)
                        sent = True
                job.wait(timeout=30)
            finally:
                job.kill()
                os.close(ours)
        return job.returncode, shown.decode()

    return run


@pytest.mark.parametrize(
    ("options", "environment", "colored"),
    [
        ([], {}, True),
        (["--color", "never"], {}, False),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"NO_COLOR": ""}, True),  # https://no-color.org: when present and not an empty string
        ([], {"FASTGRAD_COLOR": "never"}, False),
    ],
)
def test_color_on_a_terminal(options, environment, colored, tmp_path, on_terminal):
    code, shown = on_terminal([*SMALL, *options], tmp_path, "stdout", **environment)
    assert code == 0
    assert "Lyapunov exponent" in shown
    assert ("\x1b[" in shown) is colored


def test_progress_is_shown_on_a_terminal_and_taken_away(tmp_path, on_terminal):
    code, shown = on_terminal(
        ["simulate", "--depth", "1e12", "--ensemble", "1", "--backend", "numpy", "-o", "growth.json"],
        tmp_path,
        "stderr",
        interrupt="%",
    )
    assert code == 130
    assert "simulating" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back
    assert shown.endswith("\x1b[2Kfastgrad: interrupted\r\n")  # in the place of the bar, which is erased
    assert shown.count("interrupted") == 1
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_no_progress_when_quiet(tmp_path, on_terminal):
    assert on_terminal([*SMALL, "--quiet"], tmp_path, "stderr") == (0, "")


# Environment variables


def test_environment_variables_in_a_process(tmp_path, process, strict_json):
    done = process("simulate", "--depth", "5", cwd=tmp_path, FASTGRAD_BACKEND="numpy", FASTGRAD_FORMAT="json")
    assert strict_json(done.stdout)["provenance"]["backend"] == "numpy"


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("FASTGRAD_BACKEND", "cuda", "--backend"),
        ("FASTGRAD_THREADS", "0", "--threads"),
        ("FASTGRAD_FORMAT", "xml", "--format"),
        ("FASTGRAD_COLOR", "blue", "--color"),
    ],
)
def test_environment_variables_are_checked(variable, value, named, cli):
    result = cli("simulate", "--depth", "5", **{variable: value})
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in one_line(result.stderr)


def test_options_beat_environment_variables(cli, strict_json):
    result = cli(
        "simulate",
        "--depth",
        "5",
        "--backend",
        "numpy",
        "--format",
        "json",
        FASTGRAD_BACKEND="cuda",
        FASTGRAD_FORMAT="csv",
    )
    assert strict_json(result.stdout)["provenance"]["backend"] == "numpy"


# Output files


@pytest.mark.parametrize(
    ("name", "form"), [("a.json", "json"), ("a.csv", "csv"), ("a.txt", "table"), ("a.JSON", "json")]
)
def test_file_holds_what_stdout_would(name, form, tmp_path, cli):
    shown = cli(*SMALL, "--format", form)
    written = cli(*SMALL, "-o", tmp_path / name)
    assert (written.exit_code, written.stdout, written.stderr) == (0, "", "")
    assert (tmp_path / name).read_bytes().decode() == shown.stdout
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_minus_is_stdout(form, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    assert cli(*SMALL, "--format", form, "-o", "-").stdout == cli(*SMALL, "--format", form).stdout
    assert list(tmp_path.iterdir()) == []


def test_format_beats_the_ending(tmp_path, cli, strict_json):
    cli(*SMALL, "--format", "json", "-o", tmp_path / "a.csv")
    assert strict_json((tmp_path / "a.csv").read_text())["schema"] == "fastgrad/1"


def test_format_allows_any_ending(tmp_path, cli, strict_json):
    assert cli(*SMALL, "--format", "json", "-o", tmp_path / "growth").exit_code == 0
    assert strict_json((tmp_path / "growth").read_text())["command"] == "simulate"


def test_file_is_replaced(tmp_path, cli, strict_json):
    path = tmp_path / "a.json"
    path.write_text("older and longer" * 10000)
    cli(*SMALL, "-o", path)
    assert strict_json(path.read_text())["command"] == "simulate"


@pytest.mark.parametrize("option", ["-o", "--plot"])
@pytest.mark.parametrize("place", ["absent", "folder", "below a file", "forbidden"])
def test_file_that_can_not_be_written(option, place, tmp_path, monkeypatch, cli):
    ending = ".json" if option == "-o" else ".png"
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / "file").write_text("a file")
    path, message = {
        "absent": (tmp_path / "absent" / f"a{ending}", f"there is no folder {tmp_path / 'absent'}"),
        "folder": (tmp_path / f"folder{ending}", "is a folder, expected a file"),
        "below a file": (tmp_path / "file" / f"a{ending}", f"there is no folder {tmp_path / 'file'}"),
        "forbidden": (tmp_path / f"a{ending}", "no permission to write there"),
    }[place]
    before = sorted(tmp_path.rglob("*"))
    if place == "forbidden":  # as it is for who is not root
        monkeypatch.setattr(os, "access", lambda where, mode: (Path(where), mode) != (tmp_path, os.W_OK))

    def too_late(*_, **__):
        raise AssertionError("the job ran before its output was checked")

    monkeypatch.setattr(fg, "simulate", too_late)
    result = cli(*SMALL, option, path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr) == f"{'output' if option == '-o' else 'plot'}: {path}: {message}"
    assert sorted(tmp_path.rglob("*")) == before


JOBS = {
    "simulate": "fastgrad.simulate",
    "backprop": "fastgrad.jobs.backprop.backprop_chain",
    "compare": "fastgrad.jobs.compare.compare",
    "example": "fastgrad.jobs.example.worked_example",
    "info": "fastgrad.build_info",
    "sweep": "fastgrad.sweeps.plan.plan",
    "export": "fastgrad.sweeps.points.stored_rows",
    "merge": "fastgrad.sweeps.store.merge",
    "plot": "fastgrad.sweeps.points.stored_rows",
    "theory": "fastgrad.theory.survey",
    "report": "fastgrad.sweeps.points.stored_rows",
    "train": "fastgrad.jobs.train.drawn_task",
    "schemes": "fastgrad.jobs.schemes.schemes",
    "measure": "fastgrad.torch.script.measure_script",
}
NEEDED = {"backprop": ("chain.npy",), "sweep": ("--grid", "seed=1"), "measure": ("model.py",)}
NEEDED |= dict.fromkeys(("export", "merge", "plot", "report"), ("a.db",))


@pytest.mark.parametrize("command", WRITING)
def test_every_command_checks_its_output_before_its_job(command, tmp_path, monkeypatch, cli):
    def too_late(*_, **__):
        raise AssertionError("the job ran before its output was checked")

    if command == "measure":
        pytest.importorskip("torch")
    import_module("fastgrad.sweeps.run")  # takes `plan` from its module once, and must not take the one below
    module, _, function = JOBS[command].rpartition(".")
    monkeypatch.setattr(import_module(module), function, too_late)
    monkeypatch.chdir(tmp_path)
    np.save("chain.npy", np.ones(3))
    path = tmp_path / "absent" / "a.json"
    result = cli(command, *NEEDED.get(command, ()), "-o", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr) == f"output: {path}: there is no folder {path.parent}"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path, cli):
    tmp_path.chmod(0o500)
    try:
        result = cli(*SMALL, "-o", tmp_path / "a.json")
    finally:
        tmp_path.chmod(0o700)
    assert (result.exit_code, result.stdout) == (1, "")
    assert one_line(result.stderr) == f"output: {tmp_path / 'a.json'}: no permission to write there"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="needs ulimit")
@pytest.mark.parametrize(
    "arguments",
    [
        (*SMALL, "-o", "old.json"),
        (*SMALL, "-o", "old.txt"),
        (*SMALL, "--format", "csv", "--record", "20", "-o", "old.csv"),
        ("backprop", "chain.npy", "--backend", "numpy", "-o", "old.npz"),
    ],
    ids=["json", "txt", "csv", "npz"],
)
def test_file_is_written_whole_or_not_at_all(arguments, tmp_path, environment_of):
    np.save(tmp_path / "chain.npy", np.ones(100))
    path = tmp_path / arguments[-1]
    path.write_text("old")
    before = sorted(tmp_path.iterdir())
    limited = f"ulimit -f 1; exec {shlex.join([sys.executable, '-m', 'fastgrad', *arguments])}"
    done = subprocess.run(
        ["sh", "-c", limited],
        cwd=tmp_path,
        env=environment_of(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "File too large" in one_line(done.stderr)
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before


# The same numbers, however they are made


def test_threads_do_not_change_the_result(backend, cli):
    arguments = ("simulate", "--depth", "50", "--ensemble", "300", "--backend", backend, "--format", "csv")
    assert cli(*arguments, "--threads", "1").stdout == cli(*arguments, "--threads", "3").stdout


def test_seed(cli, strict_json):
    arguments = (*SMALL, "--format", "json")
    default, zero = cli(*arguments), cli(*arguments, "--seed", "0")
    assert default.stdout == zero.stdout
    largest = strict_json(cli(*arguments, "--seed", 2**64 - 1).stdout)
    assert largest["provenance"]["seed"] == largest["parameters"]["seed"] == 2**64 - 1
    assert largest["result"]["lyapunov"] != strict_json(default.stdout)["result"]["lyapunov"]


def test_simulate_passes_every_option_on(monkeypatch, cli):
    real, seen = fg.simulate, {}

    def watch(**given):
        seen.update(given)
        return real(**given)

    monkeypatch.setattr(fg, "simulate", watch)
    options = {
        "depth": 7,
        "ensemble": 3,
        "weight": "constant:2",
        "bias": "constant:1",
        "seed": 5,
        "x": 0.25,
        "record": 4,
        "width": 3,
        "nonlinearity": "tanh",
        "inputs": 1,
        "backend": "numpy",
        "threads": 2,
    }
    result = cli("simulate", *(f"--{name}={value}" for name, value in options.items()))
    assert result.exit_code == 0
    assert seen == options | {"progress": None}


# backprop FILE


@pytest.fixture
def chain(rng):
    """An ensemble of chains with a dead link."""
    weight = rng.normal(0, 50, (30, 4))
    weight[3, 1] = 0.0
    return {
        "weight": weight,
        "bias": rng.normal(0, 5, (30, 4)),
        "x": rng.uniform(size=4),
        "cotangent": rng.normal(size=4),
    }


def single(chain):
    """One chain of an ensemble."""
    return {name: values[..., 1] for name, values in chain.items()}


def numbers(gradients):
    """Arrays of gradients, under the names that files give them."""
    found = {"output": gradients.output}
    for name in ("grad_weight", "grad_bias", "grad_x"):
        found[f"{name}_mantissa"] = getattr(gradients, name).mantissa
        found[f"{name}_exponent"] = getattr(gradients, name).exponent
    return found


@pytest.mark.parametrize("pick", [dict, single], ids=["ensemble", "one chain"])
def test_npz_to_npz(pick, chain, backend, tmp_path, cli):
    given = pick(chain)
    np.savez(tmp_path / "chain.npz", **given)
    result = cli("backprop", tmp_path / "chain.npz", "--backend", backend, "-o", tmp_path / "gradients.npz")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    expected = numbers(fg.backprop(**given, backend=backend))
    with np.load(tmp_path / "gradients.npz") as file:
        assert set(file) == set(expected)
        for name, array in expected.items():
            assert (file[name].dtype, file[name].shape) == (array.dtype, array.shape), name
            assert file[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("pick", [dict, single], ids=["ensemble", "one chain"])
def test_npz_to_json(pick, chain, backend, tmp_path, cli, strict_json):
    given = pick(chain)
    np.savez(tmp_path / "chain.npz", **given)
    document = strict_json(cli("backprop", tmp_path / "chain.npz", "--backend", backend, "--format", "json").stdout)
    result = document["result"]
    expected = fg.backprop(**given, backend=backend)
    assert result["output"] == expected.output.tolist()
    for name in ("grad_weight", "grad_bias", "grad_x"):
        scaled = getattr(expected, name)
        assert result[name]["mantissa"] == scaled.mantissa.tolist()
        assert result[name]["exponent"] == scaled.exponent.tolist()
    assert document["provenance"]["backend"] == backend


@pytest.mark.parametrize("pick", [dict, single], ids=["ensemble", "one chain"])
def test_npz_to_csv(pick, chain, backend, tmp_path, cli):
    given = pick(chain)
    np.savez(tmp_path / "chain.npz", **given)
    rows = list(
        csv.DictReader(
            io.StringIO(cli("backprop", tmp_path / "chain.npz", "--backend", backend, "--format", "csv").stdout)
        )
    )
    expected = fg.backprop(**given, backend=backend)
    ensemble = 4 if pick is dict else 1
    assert len(rows) == 30 * ensemble
    assert ("member" in rows[0]) is (ensemble > 1)
    for name in ("grad_weight", "grad_bias"):
        scaled = getattr(expected, name)
        assert [float(row[f"{name}_mantissa"]) for row in rows] == scaled.mantissa.ravel().tolist()
        assert [int(row[f"{name}_exponent"]) for row in rows] == scaled.exponent.ravel().tolist()
        assert [float(row[f"log10_{name}"]) for row in rows] == scaled.log10().ravel().tolist()
    assert [int(row["link"]) for row in rows] == np.repeat(np.arange(1, 31), ensemble).tolist()


def test_npy(chain, tmp_path, cli, strict_json):
    np.save(tmp_path / "weight.npy", chain["weight"])
    result = cli("backprop", tmp_path / "weight.npy", "--backend", "numpy", "--format", "json")
    expected = fg.backprop(chain["weight"], 0.0, 0.5, backend="numpy")
    assert strict_json(result.stdout)["result"]["grad_x"]["mantissa"] == expected.grad_x.mantissa.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "weight,bias\n4,-2\n3.5,1e-3\n-8,0\n",
        "bias,weight\r\n-2,4\r\n1e-3,3.5\r\n0,-8\r\n",
        "\ufeffweight, bias\n4, -2\n3.5, 1e-3\n-8, 0",
    ],
    ids=["plain", "other order, Windows", "mark of Excel, spaces"],
)
def test_csv(text, tmp_path, cli, strict_json):
    (tmp_path / "chain.csv").write_bytes(text.encode())
    result = cli("backprop", tmp_path / "chain.csv", "--backend", "numpy", "--format", "json")
    expected = fg.backprop([4, 3.5, -8], [-2, 1e-3, 0], 0.5, backend="numpy")
    assert strict_json(result.stdout)["result"]["grad_weight"]["mantissa"] == expected.grad_weight.mantissa.tolist()


def test_csv_without_bias(tmp_path, cli, strict_json):
    (tmp_path / "chain.csv").write_text("weight\n4\n3\n")
    result = cli("backprop", tmp_path / "chain.csv", "--backend", "numpy", "--format", "json")
    expected = fg.backprop([4, 3], 0.0, 0.5, backend="numpy")
    assert strict_json(result.stdout)["result"]["grad_bias"]["mantissa"] == expected.grad_bias.mantissa.tolist()


def test_options_replace_what_the_file_has(chain, tmp_path, cli, strict_json):
    np.savez(tmp_path / "chain.npz", **chain)
    options = ("--bias", "-1.5", "--x", "0.75", "--cotangent", "-3")
    shown = cli("backprop", tmp_path / "chain.npz", *options, "--backend", "numpy", "--format", "json").stdout
    document = strict_json(shown)
    expected = fg.backprop(chain["weight"], -1.5, 0.75, -3.0, backend="numpy")
    assert document["result"]["grad_weight"]["mantissa"] == expected.grad_weight.mantissa.tolist()
    assert [document["parameters"][name] for name in ("bias", "x", "cotangent")] == [-1.5, [0.75] * 4, [-3] * 4]


def npz(**arrays):
    """What writes an .npz."""
    return lambda path: np.savez(path, **arrays)


def text(content):
    """What writes text, or bytes."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def truncated(path):
    np.savez(path, weight=np.ones(1000))
    path.write_bytes(path.read_bytes()[:500])


def array_in_npz(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def damaged(path):
    np.savez_compressed(path, weight=np.arange(1000.0))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


BAD_FILES = {
    "truncated.npz": (truncated, "not a readable .npz"),
    "damaged.npz": (damaged, "not a readable .npz"),
    "text.npz": (text("weight,bias\n1,2\n"), "not a readable .npz"),
    "empty.npz": (text(""), "not a readable .npz"),
    "array.npz": (array_in_npz, "not a readable .npz"),
    "pickled.npz": (npz(weight=np.array([1.0, None], dtype=object)), "not a readable .npz"),
    "unknown.npz": (npz(weight=[1.0], gain=2.0), "unknown array 'gain'"),
    "no weight.npz": (npz(bias=[1.0]), "no array 'weight'"),
    "nan.npz": (npz(weight=[1.0, 2.0, np.nan]), "weight: expected finite numbers, got nan at index [2]"),
    "inf.npz": (npz(weight=[1.0], bias=[-np.inf]), "bias: expected finite numbers, got -inf at index [0]"),
    "nan x.npz": (npz(weight=np.ones((2, 2)), x=[0.0, np.nan]), "x: expected finite numbers, got nan at index [1]"),
    "nan 2.npz": (npz(weight=[[1.0, 2.0], [3.0, np.nan]]), "at index [1, 1]"),
    "bias.npz": (npz(weight=[1.0, 2.0, 3.0], bias=[1.0, 2.0]), "bias: expected the shape of weight (3,)"),
    "x.npz": (npz(weight=np.ones((3, 2)), x=np.ones(3)), "x: expected a number or shape (2,), got (3,)"),
    "3-D.npz": (npz(weight=np.ones((2, 2, 2))), "got (2, 2, 2)"),
    "no link.npz": (npz(weight=np.ones(0)), "at least one link"),
    "strings.npz": (npz(weight=["1", "2"]), "weight: expected real numbers"),
    "complex.npz": (npz(weight=[1j]), "weight: expected real numbers"),
    "text.npy": (text("1\n2\n"), "not a readable .npy"),
    "empty.npy": (text(""), "not a readable .npy"),
    "pickled.npy": (lambda path: np.save(path, np.array([1, "a"], dtype=object)), "not a readable .npy"),
    "nan.npy": (lambda path: np.save(path, [np.nan]), "at index [0]"),
    "header.csv": (text("w,b\n1,2\n"), "expected the header weight,bias, got 'w,b'"),
    "no header.csv": (text("1,2\n3,4\n"), "expected the header weight,bias, got '1,2'"),
    "cell.csv": (text("weight,bias\n1,2\n3,x\n"), "line 3: expected a number, got 'x'"),
    "no cell.csv": (text("weight,bias\n1,\n"), "line 2: expected a number, got ''"),
    "twice.csv": (text("weight,weight\n1,2\n"), "expected the header weight,bias, got 'weight,weight'"),
    "blank lines.csv": (text("weight,bias\n\n\n"), "no links below the header"),
    "ragged.csv": (text("weight,bias\n1,2\n3\n"), "line 3: expected 2 values, got 1"),
    "three.csv": (text("weight,bias\n1,2,3\n"), "line 2: expected 2 values, got 3"),
    "nan.csv": (text("weight,bias\n1,2\n3,nan\n"), "bias: expected finite numbers, got nan at index [1]"),
    "huge.csv": (text("weight\n1e999\n"), "weight: expected finite numbers, got inf"),
    "empty.csv": (text(""), "header"),
    "no links.csv": (text("weight,bias\n"), "no links below the header"),
    "binary.csv": (text(b"\xff\xfe\x00\x01"), "utf-8"),
    "chain.mat": (text("x"), "expected a file ending in .npz, .npy or .csv"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_file_that_can_not_be_read(name, tmp_path, cli):
    write, expected = BAD_FILES[name]
    write(tmp_path / name)
    result = cli("backprop", tmp_path / name, "-o", tmp_path / "gradients.npz")
    assert (result.exit_code, result.stdout) == (1, "")
    message = one_line(result.stderr)
    assert message.startswith(f"{tmp_path / name}: ")
    assert expected in message
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("place", ["absent.npz", ""])
def test_file_that_is_not_there(place, tmp_path, cli):
    result = cli("backprop", tmp_path / place)
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(tmp_path / place) in one_line(result.stderr)


def test_npz_is_for_backprop_and_for_files(chain, tmp_path, cli):
    np.savez(tmp_path / "chain.npz", **chain)
    result = cli("backprop", tmp_path / "chain.npz", "-o", tmp_path / "gradients.xyz")
    assert result.exit_code == 2
    assert ".npz" in one_line(result.stderr)
