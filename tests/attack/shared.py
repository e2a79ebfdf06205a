"""What is made once for all attempts: stores that are whole, and what is read from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from attack.core import listed

if TYPE_CHECKING:
    from pathlib import Path

    from attack.core import Attempt

LOCK = threading.Lock()
SWEEPS = {
    "simulate": ["--grid", "weight.std=1,4,16", "--grid", "bias.std=0,1", "--depth", "50", "--ensemble", "20"],
    "train": listed("""--job train --grid weight.std=1,30 --grid learning_rate=0.1,1,10 --depth 3 --ensemble 20 --steps
                 50"""),
}


def fastgrad(folder: Path, *arguments: object) -> bytes:
    """Run a command that must work."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as in an attempt
    command = [sys.executable, "-m", "fastgrad", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, check=True, start_new_session=True).stdout


def store(attempt: Attempt, job: str) -> Path:
    """The folder with a whole store of this job, study.db, and its points as study.csv."""
    folder = attempt.base / f"store-{job}"
    with LOCK:
        if not (folder / "study.csv").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fastgrad(folder, "sweep", *SWEEPS[job], "--backend", "cpp", "--store", "study.db", "-o", "sweep.csv")
            for form in ("json", "csv"):
                fastgrad(folder, "export", "study.db", "-o", f"study.{form}")
    return folder


def warm_numba(attempt: Attempt) -> None:
    """Have Numba's kernels compiled: some ten seconds, once."""
    with LOCK:
        if not (attempt.base / "warm").exists():
            for command in ("simulate", "train"):
                fastgrad(attempt.base, command, "--backend", "numba", "--depth", 3, "--ensemble", 3)
            (attempt.base / "warm").touch()
