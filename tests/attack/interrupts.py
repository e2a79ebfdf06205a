"""Ctrl-C, once or several times, from the first moments on: 130, one line, and nothing goes on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

from attack.core import INTERRUPTED, OURS, Attempt
from attack.shared import SWEEPS, store, warm_numba

if TYPE_CHECKING:
    import random
    import subprocess
    from collections.abc import Callable, Iterable

# Command: how long it takes at least, so that most presses come before its end.
LONG = {
    "simulate": (["simulate", "--depth", "1e9", "--ensemble", "10"], 3),
    "simulate numpy": (["simulate", "--depth", "1e6", "--ensemble", "100", "--backend", "numpy"], 3),
    "simulate numba": (["simulate", "--depth", "1e9", "--ensemble", "10", "--backend", "numba"], 5),
    "compiling": (["simulate", "--depth", "1e9", "--ensemble", "10", "--backend", "numba"], 15),
    "train": (["train", "--steps", "1e8"], 3),
    "train compiling": (["train", "--steps", "1e8", "--backend", "numba"], 15),
    "sweep": (["sweep", "--grid", "weight.std=1:10:1000", "--depth", "1e5", "--ensemble", "100"], 3),
    "sweep store": (
        ["sweep", "--grid", "weight.std=1:10:1000", "--depth", "1e4", "--ensemble", "50", "--store", "s.db"],
        3,
    ),
    "sweep workers": (
        ["sweep", "--grid", "weight.std=1:10:1000", "--depth", "1e5", "--ensemble", "100", "--workers", "2"],
        5,
    ),
    "sweep workers store": (
        ["sweep", "--grid", "seed=1:900:900", "--depth", "1e4", "--ensemble", "9", "--workers", "2", "--store", "s.db"],
        5,
    ),
    "compare": (["compare", "--depth", "1e5", "--repeats", "50"], 5),
    "schemes": (["schemes", "--steps", "1e7"], 3),
    "backprop": (["backprop", "chain.csv", "-o", "a.json"], 3),
    "example": (["example"], 0.4),
    "info": (["info"], 0.8),
    "export": (["export", "study.db"], 0.5),
    "plot": (["plot", "study.db", "--plot", "a.png"], 2),
    "help": (["--help"], 0.2),
    "dry run": (["sweep", "--grid", "weight.std=1:10:100000", "--depth", "9", "--dry-run"], 5),
}


def presser(rng: random.Random, seconds: float) -> Callable[[subprocess.Popen[bytes]], Iterable[int]]:
    """Press Ctrl-C up to six times within so many seconds, in one process or its whole group."""
    presses = rng.choice([1, 1, 1, 2, 3, 6])
    first = rng.uniform(0.02, 0.4) if rng.random() < 0.4 else rng.uniform(0.02, seconds)
    gaps = [rng.choice([0.001, 0.02, 0.1, 0.5]) * rng.random() for _ in range(presses - 1)]
    group = rng.random() < 0.5

    def act(process: subprocess.Popen[bytes]) -> Iterable[int]:
        sent = []
        for gap in [first, *gaps]:
            time.sleep(gap)
            try:
                (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
            except ProcessLookupError:
                break
            sent.append(signal.SIGINT)
        return sent

    return act


def press(attempt: Attempt) -> None:
    """Interrupt any command."""
    rng, folder = attempt.rng, attempt.folder
    kind = rng.choice(list(LONG))
    words, seconds = LONG[kind]
    attempt.attack = f"press {kind}"
    env = {}
    if "compiling" in kind:
        env["NUMBA_CACHE_DIR"] = str(attempt.folder.parent / "numba")
    elif "numba" in kind or kind == "compare":
        warm_numba(attempt)
    if kind == "backprop":
        (folder / "chain.csv").write_text("weight,bias\n" + "1.5,-0.25\n" * 200_000)
    if kind in ("export", "plot"):
        shutil.copy(store(attempt, "simulate") / "study.db", folder / "study.db")
    files = ["s.db", "s.db-wal", "s.db-shm", "a.json", "a.png"]
    done = attempt.run(*words, env=env, act=presser(rng, seconds), timeout=90, writes=files)
    attempt.check(done.status in (INTERRUPTED, 0, -signal.SIGINT, 1), f"{done.status} after Ctrl-C", "message")
    if done.status == 1 and not any(kind == "message" for kind, _ in attempt.findings):
        attempt.check(not OURS.search(done.stderr), "1 after Ctrl-C", "message")


def press_and_go_on(attempt: Attempt) -> None:
    """A sweep with a store is interrupted, and goes on to the same points."""
    rng = attempt.rng
    job = rng.choice(list(SWEEPS))
    whole = store(attempt, job)
    command = ["sweep", *SWEEPS[job], "--backend", "cpp", "--store", "study.db", *rng.choice([[], ["--workers", "2"]])]
    files = ["study.db", "study.db-wal", "study.db-shm"]
    attempt.run(*command, act=presser(rng, 3), writes=files)
    done = attempt.run(*command, "-o", "b.csv", writes=[*files, "b.csv"])
    attempt.check(done.ok, f"{done.status} when it goes on", "message")
    again = attempt.run("export", "study.db", "-o", "c.csv", writes=[*files, "c.csv"])
    attempt.check(
        again.ok and (attempt.folder / "c.csv").read_bytes() == (whole / "study.csv").read_bytes(), "other points"
    )


ATTACKS = (press, press, press, press, press_and_go_on)
