"""Kills at any moment: what was finished is kept, what is written is whole, and nothing goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

from attack.core import Attempt, _session
from attack.shared import SWEEPS, fastgrad, store

if TYPE_CHECKING:
    import random
    import subprocess
    from collections.abc import Callable, Iterable

SIGNALS = (signal.SIGKILL, signal.SIGTERM)


def killer(
    rng: random.Random, seconds: float, number: int, child: bool = False
) -> Callable[[subprocess.Popen[bytes]], Iterable[int]]:
    """Kill at a random moment of so many seconds, perhaps a worker instead."""
    delay = rng.uniform(0, seconds)

    def act(process: subprocess.Popen[bytes]) -> Iterable[int]:
        time.sleep(delay)
        others = [pid for pid in _session(process.pid) if pid != process.pid] if child else []
        try:
            os.kill(rng.choice(others) if others else process.pid, number)
        except ProcessLookupError:
            return ()
        return (number,)

    return act


def sweeps(attempt: Attempt) -> None:
    """A sweep is killed up to three times, and goes on to the same points."""
    rng = attempt.rng
    job = rng.choice(list(SWEEPS))
    whole = store(attempt, job)
    workers = rng.choice([[], [], ["--workers", "2"]])
    command = ["sweep", *SWEEPS[job], "--backend", "cpp", "--store", "study.db", *workers]
    files = ["study.db", "study.db-wal", "study.db-shm", "study.db-journal"]
    for _ in range(rng.choice([1, 2, 3])):
        number, child = rng.choice(SIGNALS), bool(workers) and rng.random() < 0.3
        attempt.run(
            *command, "-q", "-o", "a.csv", act=killer(rng, 3, number, child), writes=[*files, "a.csv"], rules=True
        )
        _stays_whole(attempt)
    done = attempt.run(*command, "-o", "b.csv", writes=[*files, "b.csv"])
    attempt.check(done.ok, f"{done.status} when it goes on", "message")
    again = attempt.run("export", "study.db", "-o", "c.csv", writes=[*files, "c.csv"])
    attempt.check(
        again.ok and (attempt.folder / "c.csv").read_bytes() == (whole / "study.csv").read_bytes(), "other points"
    )


def _stays_whole(attempt: Attempt) -> None:
    path = attempt.folder / "study.db"
    if path.exists() and path.stat().st_size:
        db = sqlite3.connect(path)
        try:
            attempt.check(db.execute("PRAGMA quick_check").fetchone() == ("ok",), "the store is damaged", "left behind")
        finally:
            db.close()


def outputs(attempt: Attempt) -> None:
    """A command is killed, at best while it writes: the file is the old one or the new one."""
    rng, folder = attempt.rng, attempt.folder
    form = rng.choice(["json", "csv", "npz"])
    name = f"a.{form}"
    (folder / "chain.csv").write_text("weight,bias\n" + "1.5,-0.25\n-3,2\n" * 30_000)
    words = ["backprop", "chain.csv", "--backend", "cpp"]
    if rng.random() < 0.3:
        words, form = ["simulate", "--depth", "2000", "--ensemble", "300", "--plot", "p.png"], "json"
        name = "a.json"
    if rng.random() < 0.5:
        (folder / name).write_bytes(b"old")
    before = (folder / name).read_bytes() if (folder / name).exists() else None
    started = time.monotonic()
    fastgrad(folder, *words, "-o", f"whole.{form}")
    seconds = time.monotonic() - started
    for plot in folder.glob("p.png"):
        plot.unlink()
    number = rng.choice(SIGNALS)
    done = attempt.run(*words, "-o", name, act=killer(rng, seconds * 1.05, number), writes=[name, "p.png"])
    after = (folder / name).read_bytes() if (folder / name).exists() else None
    new = (folder / f"whole.{form}").read_bytes()
    # An .npz has the time of its making in it.
    same = after == new or (form == "npz" and after is not None and len(after) == len(new))
    attempt.check(after == before or same, f"half of {name}", "left behind")
    attempt.check(not done.ok or same, f"done, but {name} is not whole", "left behind")


ATTACKS = (sweeps, outputs, outputs)
