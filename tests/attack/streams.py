"""Streams and places: what is closed, full, gone, read-only, or the input itself."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import sys
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attack.core import listed
from attack.shared import store

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

    from attack.core import Attempt

PLACES = listed(". .. / absent/a.csv chain.csv/a.csv /proc/a.csv /dev/null/a.csv")
CHAIN = "weight,bias\n3,-1\n-2,0.5\n"


def commands(attempt: Attempt, long: bool = False) -> list[str]:
    """Some command that works, on input that lies in the folder."""
    rng = attempt.rng
    (attempt.folder / "chain.csv").write_text(CHAIN * 1 if not long else CHAIN + "1,2\n" * 20_000)
    kind = rng.choice(
        ["simulate", "train", "backprop", "info", "example", "sweep", "export", "plot", "schemes", "compare", "--help"]
    )
    if kind in ("export", "plot"):
        shutil.copy(store(attempt, "simulate") / "study.db", attempt.folder / "study.db")
    words = {
        "simulate": ["simulate", "--depth", "50", "--ensemble", "9"],
        "train": ["train", "--ensemble", "9", "--steps", "20"],
        "backprop": ["backprop", "chain.csv"],
        "sweep": ["sweep", "--grid", "weight.std=1,4", "--depth", "20", "--ensemble", "9"],
        "export": ["export", "study.db"],
        "plot": ["plot", "study.db"],
        "schemes": ["schemes", "--depth", "3", "--ensemble", "9", "--steps", "9"],
        "compare": ["compare", "--depth", "9", "--ensemble", "9", "--repeats", "2"],
    }.get(kind, [kind])
    return words if kind == "--help" else [*words, "--format", rng.choice(["table", "json", "csv"])]


def shell(attempt: Attempt, words: list[str], rest: str, **how: object) -> object:
    """Run a command by a shell, which gives it its streams."""
    text = f"exec {shlex.join([sys.executable, '-m', 'fastgrad', *words])} {rest}"
    return attempt.run(program=["sh", "-c", text], **how)


def closed(attempt: Attempt) -> None:
    """Streams that are closed from the beginning."""
    rng = attempt.rng
    chosen = rng.sample(["<&-", ">&-", "2>&-"], rng.choice([1, 1, 2, 3]))
    done = shell(attempt, commands(attempt), " ".join(chosen), rules="2>&-" not in chosen)
    attempt.check(done.status == (1 if ">&-" in chosen else 0), f"{done.status} with {chosen}", "message")


def early_readers(attempt: Attempt) -> None:
    """Who reads stdout reads a little and goes: no failure."""
    wanted = attempt.rng.choice([0, 0, 1, 10, 500, 5000])
    reading, writing = os.pipe()

    def act(_: subprocess.Popen[bytes]) -> Iterable[int]:
        os.close(writing)
        if wanted:
            os.read(reading, wanted)
        os.close(reading)
        return ()

    done = attempt.run(*commands(attempt, long=True), stdout=writing, act=act)
    attempt.check(done.status == 0, f"{done.status} for a reader that took {wanted} bytes", "message")


def full(attempt: Attempt) -> None:
    """A disk that is full, under stdout, stderr, -o or --plot."""
    rng, words = attempt.rng, commands(attempt)
    where = rng.choice(["stdout", "stdout", "both", "stderr", "-o"])
    if where == "-o" and words[0] != "--help":
        done = attempt.run(*words, "-o", "/dev/full", named=["/dev/full", "space"])
    else:
        to = {"stdout": ">/dev/full", "both": ">/dev/full 2>/dev/full", "stderr": "2>/dev/full", "-o": ">/dev/full"}[
            where
        ]
        done = shell(attempt, words, to)
    if where in ("both", "stderr"):
        attempt.findings = [finding for finding in attempt.findings if finding[0] != "message"]  # nobody could read one
    attempt.check(done.status == (0 if where == "stderr" else 1), f"{done.status} with full {where}", "message")


def places(attempt: Attempt) -> None:
    """Places for a result that are none."""
    rng, words = attempt.rng, commands(attempt)
    option = rng.choice(["-o", "-o", "--plot", "--store"])
    name = rng.choice(["", " ", "x" * 300 + ".csv", *PLACES])
    if option == "--store":
        words = ["sweep", "--grid", "weight.std=1,4", "--depth", "20", "--ensemble", "9"]
    elif words[0] == "--help" or (
        option == "--plot" and words[0] not in ("simulate", "train", "schemes", "backprop", "plot")
    ):
        words = ["simulate", "--depth", "20", "--ensemble", "9"]
    if option == "--plot":
        name = name.replace(".csv", ".png")
    named = (
        [repr(name), name, option.strip("-"), "output"]
        if name.strip()
        else [option.strip("-"), "output", "plot", "store"]
    )
    done = attempt.run(*words, option, name, named=named, writes=[" ", ""])
    attempt.check(not done.ok or name == " ", f"{option} {name!r} gave a result", "message")


def onto_input(attempt: Attempt) -> None:
    """A result that would replace what it is made from: refused, or whole."""
    rng, folder = attempt.rng, attempt.folder
    kind = rng.choice(["csv", "npz", "merge", "export", "store", "link"])
    shutil.copy(store(attempt, "simulate") / "study.db", folder / "study.db")
    (folder / "chain.csv").write_text(CHAIN)
    np.savez(folder / "chain.npz", weight=np.ones(3))
    (folder / "link.csv").symlink_to("chain.csv")
    (folder / "study.csv").hardlink_to(folder / "study.db")
    words = {
        "csv": ["backprop", "chain.csv", "-o", "chain.csv"],
        "link": ["backprop", "chain.csv", "-o", "link.csv"],
        "npz": ["backprop", "chain.npz", "-o", "chain.npz"],
        "merge": ["merge", "study.db", "-o", "study.db"],
        "export": ["export", "study.db", "-o", "study.db", "--format", "csv"],
        "store": listed("""sweep --grid weight.std=1 --depth 5 --ensemble 5 --store new.db -o new.db --format csv"""),
    }[kind]
    target = words[words.index("-o") + 1]
    before = (folder / target).read_bytes() if (folder / target).exists() else None
    done = attempt.run(*words, writes=[target, "chain.csv", "new.db-wal", "new.db-shm"])
    if not done.ok:
        after = (folder / target).read_bytes() if (folder / target).exists() else None
        attempt.check(before == after or kind == "store", f"{target} is lost", "left behind")
    elif kind == "merge":
        attempt.check(attempt.run("export", target, "--format", "csv").ok, "the store is lost", "left behind")
    elif kind in ("export", "store"):
        # The points that took so long are replaced by their table, without a question.
        attempt.check(
            (folder / target).read_bytes().startswith(b"SQLite"), f"{' '.join(words)} replaced the store", "left behind"
        )
    elif kind != "npz":
        attempt.check((folder / target).read_text().startswith("link,"), f"{target} is no table", "left behind")


def gone(attempt: Attempt) -> None:
    """A working folder that has been deleted."""
    words = [
        "simulate",
        "--depth",
        "20",
        "--ensemble",
        "9",
        *attempt.rng.choice([[], ["-o", "a.json"], ["--plot", "a.png"]]),
    ]
    if attempt.rng.random() < 0.5:
        words = [
            "sweep",
            "--grid",
            "weight.std=1,2",
            "--depth",
            "5",
            "--ensemble",
            "5",
            *attempt.rng.choice([[], ["--store", "a.db"]]),
        ]
    text = (
        f"mkdir gone && cd gone && rmdir ../gone && exec {shlex.join([sys.executable, '-P', '-m', 'fastgrad', *words])}"
    )
    attempt.run(program=["sh", "-c", text], named=["a.json", "a.png", "a.db", "folder", "directory"])


def terminals(attempt: Attempt) -> None:
    """A terminal, narrow or wide, that is read to the end or hung up."""
    rng = attempt.rng
    words = commands(attempt)
    keeper, terminal = pty.openpty()
    size = rng.choice([(24, 80), (1, 1), (5, 20), (50, 500), (0, 0)])
    termios.tcsetwinsize(terminal, size)
    hang_up = rng.random() < 0.2
    reader = threading.Thread(target=_read_all, args=(keeper,), daemon=True)

    def act(_: subprocess.Popen[bytes]) -> Iterable[int]:
        os.close(terminal)
        if hang_up:
            os.close(keeper)
        else:
            reader.start()
        return ()

    env = {"TERM": rng.choice(["xterm-256color", "dumb", "", "linux"]), "COLUMNS": None, "LINES": None}
    done = attempt.run(*words, stdout=terminal, env=env, act=act)
    attempt.check(done.ok or hang_up, f"{done.status} on a terminal of {size}", "message")
    if not hang_up:
        reader.join()
        os.close(keeper)


def _read_all(keeper: int) -> None:
    try:
        while os.read(keeper, 1 << 16):
            pass
    except OSError:
        pass


def outputs(attempt: Attempt) -> None:
    """Good places: the file is whole, of its format, and nothing lies beside it."""
    rng = attempt.rng
    words = commands(attempt)
    if words[0] in ("--help", "plot"):
        words = ["info", "--format", "json"]
    name = rng.choice(["a.json", "é →.json", "-a.json", "a.JSON", "./tmp/a.json"])
    if rng.random() < 0.3:
        (attempt.folder / name).write_text("old")
    done = attempt.run(*words[:-2], "-o", name, writes=[str(Path(name))])
    if done.ok:
        document = json.loads((attempt.folder / name).read_text("utf-8"))
        attempt.check(document["schema"] == "fastgrad/1", f"{name} is no result")
    attempt.check(done.ok, f"{done.status} for {name}", "message")


ATTACKS = (closed, early_readers, early_readers, full, places, places, onto_input, gone, terminals, outputs)
