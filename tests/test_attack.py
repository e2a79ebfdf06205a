"""The attack itself: it runs, its rules see what they are for, and what it found can be found again."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ATTACK = Path(__file__).parent / "attack"
TRACE = "Traceback (most recent call last):\n  File 'fastgrad/cli/errors.py'\nKeyError: 'job'\n"


@pytest.fixture
def core(monkeypatch):
    """The module tests/attack/core.py."""
    monkeypatch.syspath_prepend(ATTACK.parent)
    from attack import core

    return core


def kinds(core, **of):
    return [kind for kind, _ in core.judge(core.Done(["fastgrad"], **{"status": 0, **of}), of.pop("named", ()))]


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("traceback", {"status": 1, "stderr": TRACE}),
        ("traceback", {"status": 130, "stderr": TRACE.replace("fastgrad/", "/fastgrad/"), "sent": (signal.SIGINT,)}),
        ("traceback", {"stderr": "Exception ignored in: <_io.TextIOWrapper>\n"}),
        ("killed", {"status": -signal.SIGSEGV}),
        ("killed", {"status": -signal.SIGKILL}),
        ("memory", {"peak": 1 << 40}),
        ("memory", {"exhausted": True}),
        ("hang", {"hung": True}),
        ("message", {"status": 1}),
        ("message", {"status": 7, "stderr": "fastgrad: x: no\n"}),
        ("message", {"status": 2, "stderr": "fastgrad: \n"}),
        ("message", {"status": 2, "stderr": "fastgrad: : Is a directory\n"}),
        ("message", {"status": 2, "stderr": "fastgrad: x: no\nfastgrad: y: no\n"}),
        ("message", {"status": 2, "stderr": "x: no\n"}),
        ("message", {"status": 2, "stderr": "fastgrad: x: no\n", "stdout": b"half"}),
        ("message", {"status": 0, "stderr": "fastgrad: x: no\n"}),
        ("message", {"status": 0, "stderr": "RuntimeWarning: overflow\n"}),
        ("message", {"status": 0, "stderr": "fastgrad: warning: x\n" * 57}),
        ("message", {"status": 130, "stderr": "fastgrad: interrupted\n"}),
    ],
)
def test_rules_see_what_they_are_for(kind, of, core):
    assert kinds(core, **of) == [kind]


@pytest.mark.parametrize(
    "of",
    [
        {"stdout": b"{}"},
        {"stderr": "fastgrad: warning: x\n"},
        {"status": 2, "stderr": "fastgrad: x: no\n"},
        {"status": 3, "stdout": b"{}", "stderr": "fastgrad: the backends disagree\n"},
        {"status": 130, "stderr": "fastgrad: interrupted\n", "sent": (signal.SIGINT,)},
        {"status": -signal.SIGKILL, "sent": (signal.SIGKILL,)},
    ],
)
def test_rules_let_pass_what_is_right(of, core):
    assert kinds(core, **of) == []


def test_message_must_name_what_was_bad(core):
    done = core.Done(["fastgrad"], 2, stderr="fastgrad: depth: expected 1, got 0\n")
    assert core.judge(done, ["depth"]) == []
    assert [kind for kind, _ in core.judge(done, ["ensemble"])] == ["message"]


def test_what_is_left_behind_is_found(core, tmp_path, monkeypatch):
    monkeypatch.setattr(core, "GRACE", 0.2)
    attempt = core.Attempt("files", 1, 0, tmp_path)
    (attempt.folder / "input").write_text("mine")
    script = "echo x > input; echo x > .hidden; echo x > result; sleep 60 & exit 0"
    attempt.run(program=["sh", "-c", script], writes=["result"])
    assert sorted(why.split()[0] for _, why in attempt.findings) == [".hidden", "input", "process"]
    assert {kind for kind, _ in attempt.findings} == {"left behind"}


def test_memory_is_watched_and_what_hangs_is_ended(core, tmp_path, monkeypatch):
    monkeypatch.setattr(core, "SLACK", 64 << 20)
    monkeypatch.setattr(core, "BUDGET", 64 << 20)
    attempt = core.Attempt("files", 1, 0, tmp_path)
    attempt.run(program=[sys.executable, "-c", "x = bytearray(b'x') * (1 << 28)\nwhile True: pass"], timeout=30)
    # Until it has become another program, a child has the memory of this process, which other tests have filled.
    monkeypatch.setattr(core, "SLACK", 8 << 30)
    attempt.run(program=["sleep", "60"], timeout=0.2)
    assert [kind for kind, _ in attempt.findings] == ["memory", "hang"]


def test_the_oracle_knows_a_wrong_number(core):
    from attack.files import chain
    from attack.oracle import gradients_agree

    import fastgrad as fg

    for seed in range(20):
        arrays = chain(random.Random(seed))
        gradients = fg.backprop(**{"bias": 0.0, "x": 0.5, **arrays}, backend="numpy")
        result = {
            name: {part: getattr(getattr(gradients, name), part) for part in ("mantissa", "exponent")}
            for name in ("grad_weight", "grad_bias", "grad_x")
        }
        assert gradients_agree(result, arrays)
        result["grad_bias"]["mantissa"] = result["grad_bias"]["mantissa"] * (1 + 1e-10)
        assert not gradients_agree(result, arrays)


def test_the_attack_runs(tmp_path):
    """A few attempts of the topics that are cheap; what they find is for the attack to say, that they work for us."""
    only = [word for topic in ("options", "streams") for word in ("--only", topic)]
    done = subprocess.run(
        [sys.executable, ATTACK, "--seed", "6", "--attempts", "3", "--findings", tmp_path / "found", *only],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode in (0, 1), done.stderr
    *_, total = [line for line in done.stdout.splitlines() if line.startswith("all")]
    assert total.split()[2] == "3"
    assert total.split()[-1] == "0", done.stderr  # defects of the script itself
