"""Attempts, the commands that they run, and the rules by which every outcome is judged."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

TESTS = Path(__file__).resolve().parent.parent
KINDS = ("traceback", "other number", "killed", "memory", "hang", "left behind", "message", "script")
ERROR, WARNING = "fastgrad: ", "fastgrad: warning: "
TRACES = ("Traceback (most recent call last)", "Exception ignored in", "Fatal Python error", "RecursionError")
OURS = re.compile(r"/fastgrad/(\w+/)*\w+\.py")  # in a traceback
GRACE = 5.0  # seconds in which what a command has started must end after it
WARNINGS_MAX = 4  # lines on stderr
DISAGREE, INTERRUPTED = 3, 130
MIB = 1 << 20
BUDGET = 1024 * MIB  # of memory, that a command is told is free
SLACK = 384 * MIB  # of an interpreter with its libraries; above both it is killed, before the machine suffers
RUNNING: set[int] = set()  # commands, each the leader of a session
UNSET = ("BACKEND", "THREADS", "FORMAT", "COLOR", "QUIET", "ISA")
# Runs the command as in a machine with so much free memory: what it has taken already is no longer free.
STARVED = """
import runpy, sys, psutil
total, real = int(sys.argv.pop(1)), psutil.virtual_memory
own = psutil.Process()
def starved():
    return (found := real())._replace(available=max(0, min(found.available, total - own.memory_info().rss)))
psutil.virtual_memory = starved
runpy.run_module("fastgrad", run_name="__main__", alter_sys=True)
"""


def listed(text: str, separator: str | None = None) -> list[str]:
    """Words of a table, as they stand."""
    return text.split(separator)


@dataclass
class Done:
    """A command that has ended."""

    command: list[str]
    status: int  # the exit code; of a signal, its number with a minus
    stdout: bytes = b""
    stderr: str = ""
    peak: int = 0  # bytes
    sent: tuple[int, ...] = ()  # signals
    hung: bool = False
    exhausted: bool = False  # ended by us, for the memory it took

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.status == 0

    def text(self) -> str:
        """The result as text."""
        return self.stdout.decode("utf-8", "replace")

    def json(self) -> Any:
        """The result, which must be JSON without NaN and Infinity."""

        def refuse(word: str) -> None:
            raise ValueError(f"{word} in JSON")

        return json.loads(self.stdout, parse_constant=refuse)


def judge(done: Done, named: Sequence[str] = (), limit: int = BUDGET + SLACK) -> list[tuple[str, str]]:
    """The rules for every command: kind of finding and why, for each that is broken.

    `named`: words one of which the message of an error must have.
    """
    found = []
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    warned = [line for line in lines if line.startswith(WARNING)]
    errors = [line for line in lines if line.startswith(ERROR) and not line.startswith(WARNING)]
    before_start = signal.SIGINT in done.sent and not OURS.search(done.stderr) and not errors
    before_start &= "Exception ignored" not in done.stderr  # that is at the end
    if done.exhausted or done.peak > limit:
        found.append(("memory", f"{done.peak / MIB:.0f} MiB, the limit is {limit / MIB:.0f}"))
    elif done.hung:
        found.append(("hang", "had to be killed"))
    elif before_start and done.status in (-signal.SIGINT, 1, INTERRUPTED):
        return found  # Python itself was interrupted, before the first line of fastgrad
    elif any(trace in done.stderr for trace in TRACES):
        found.append(
            ("traceback", next((line for line in reversed(lines) if "Error" in line or "Interrupt" in line), "?"))
        )
    elif done.status < 0:
        if -done.status not in done.sent:
            found.append(("killed", signal.Signals(-done.status).name))
    elif done.status == INTERRUPTED and signal.SIGINT not in done.sent:
        found.append(("message", "130 without an interrupt"))
    elif done.status in [128 + number for number in done.sent]:
        pass  # it has cleaned up, and says which signal it was
    elif done.status not in (0, 1, 2, DISAGREE, INTERRUPTED):
        found.append(("message", f"exit code {done.status}"))
    elif other := [line for line in lines if line not in warned + errors]:
        found.append(("message", f"on stderr: {other[0]!r}"))
    elif done.status == 0 and errors:
        found.append(("message", "0 with an error"))
    elif done.status != 0 and len(errors) != 1:
        found.append(("message", f"{done.status} with {len(errors)} error lines"))
    elif errors and (not errors[0][len(ERROR) :].strip() or errors[0].startswith((ERROR + ":", ERROR + "None"))):
        found.append(("message", f"names nothing: {errors[0]!r}"))
    elif done.status in (1, 2) and named and not any(name in errors[0] for name in named):
        found.append(("message", f"names none of {', '.join(named)}: {errors[0]!r}"))
    elif done.status in (1, 2) and done.stdout:
        found.append(("message", f"failed with {len(done.stdout)} bytes on stdout"))
    if len(warned) > WARNINGS_MAX:
        found.append(("message", f"{len(warned)} warnings"))
    return found


@dataclass
class Attempt:
    """One try: a folder of its own, random numbers of its own, and what it found."""

    topic: str
    seed: int
    number: int
    base: Path  # of the whole run: what is made once for all attempts lies here
    attack: str = ""
    job: str = ""  # of the store that is attacked
    commands: list[Done] = field(default_factory=list)
    findings: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @cached_property
    def rng(self) -> random.Random:
        """Random numbers that depend on the seed, the topic and the number alone."""
        return random.Random(f"{self.seed}/{self.topic}/{self.number}")

    @cached_property
    def folder(self) -> Path:
        """The working folder of the commands."""
        made = self.base / f"{self.topic}-{self.number}"
        for part in ("work", "work/tmp", "logs"):
            (made / part).mkdir(parents=True)
        return made / "work"

    def found(self, kind: str, why: str) -> None:
        """Note a finding."""
        self.findings.append((kind, why))

    def check(self, holds: object, why: str, kind: str = "other number") -> None:
        """Count a result that was checked, and note it if it is wrong."""
        self.counts["checked"] += 1
        if not holds:
            self.found(kind, why)

    def environment(self, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Our environment without fastgrad's variables, and with these."""
        own = {"TMPDIR": str(self.folder / "tmp"), "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        all_of = {**os.environ, **{f"FASTGRAD_{name}": None for name in UNSET}, "NO_COLOR": None, **own, **changes}
        return {name: value for name, value in all_of.items() if value is not None}

    def run(
        self,
        *arguments: object,
        budget: int | None = None,
        timeout: float = 120,
        env: Mapping[str, str | None] | None = None,
        act: Callable[[subprocess.Popen[bytes]], Iterable[int]] | None = None,
        program: Sequence[str] | None = None,
        writes: Iterable[str] = (),
        named: Sequence[str] = (),
        rules: bool = True,
        stop: int = signal.SIGKILL,
        **streams: Any,
    ) -> Done:
        """Run a command, wait for its end, and apply the rules.

        `act` is called with the running process and says which signals it has sent. `writes` are the files that may be
        new or changed afterwards. A command that takes longer than `timeout` is hung, unless `stop` is SIGINT and ends
        it: then it only had much to do.
        """
        if program is None:
            program = [sys.executable, *(["-c", STARVED, str(budget)] if budget else ["-m", "fastgrad"])]
        command = [*program, *map(str, arguments)]
        before = self._files()
        logs = self.folder.parent / "logs"
        stem = f"{len(self.commands)}"
        with (logs / f"{stem}.out").open("wb") as out, (logs / f"{stem}.err").open("wb") as err:
            usual = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, "cwd": self.folder}
            given = {**usual, **streams}
            process = subprocess.Popen(command, env=self.environment(env or {}), start_new_session=True, **given)
            RUNNING.add(process.pid)
            sent = tuple(act(process)) if act else ()
            limit = (budget or BUDGET) + SLACK
            status, peak, why = _wait(process.pid, timeout, limit)
            if why == "hung" and stop == signal.SIGINT:
                _kill(process.pid, stop)
                sent += (signal.SIGINT,)
                status, peak, why = _wait(process.pid, 20, limit)
            if why:
                _kill(process.pid, signal.SIGKILL)
                status, peak, _ = _wait(process.pid, 60, 1 << 60)
            process.returncode = status
            RUNNING.discard(process.pid)
        texts = (logs / f"{stem}.out").read_bytes(), (logs / f"{stem}.err").read_bytes().decode("utf-8", "replace")
        done = Done(command, status, *texts, peak, sent, why == "hung", why == "exhausted")
        self.commands.append(done)
        self.counts["clean"] += done.status in (1, 2)
        if rules:
            self.findings += judge(done, named, limit)
        self._look_behind(process.pid, before, {*writes, "."}, signal.SIGKILL in sent or bool(why))
        return done

    def _files(self) -> dict[str, str]:
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(self.folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def _look_behind(self, pid: int, before: Mapping[str, str], writes: set[str], shot: bool) -> None:
        """Look for processes and files that a command has left, and for inputs that it has changed."""
        deadline = time.monotonic() + GRACE
        while (left := _session(pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for other in left:
            self.found("left behind", f"process {other}")
            _kill(other, signal.SIGKILL)
        after = self._files()
        for name in before.keys() | after.keys():
            if before.get(name) == after.get(name) or name in writes:
                continue
            if shot and name not in before:
                (self.folder / name).unlink()  # kill -9 leaves no chance to tidy up
                continue
            verb = "new" if name not in before else "changed" if name in after else "gone"
            self.found("left behind", f"{name} is {verb}")

    def report(self) -> str:
        """All that is needed to see it again."""
        lines = [f"{kind}: {why}" for kind, why in self.findings]
        lines += ["", f"python tests/attack --seed {self.seed} --only {self.topic} --attempt {self.number}"]
        lines += [f"attack {self.attack}, folder {self.folder.parent}", ""]
        for done in self.commands:
            lines += [f"$ {shlex.join(done.command)}", f"status {done.status}, signals {list(done.sent)}"]
            lines += [f"stdout: {done.text()[:2000]}", f"stderr: {done.stderr[-6000:]}", ""]
        return "\n".join(lines)


def _wait(pid: int, timeout: float, limit: int) -> tuple[int, int, str]:
    """Wait for a child: its status, its peak memory, and why it was not waited for to the end."""
    deadline = time.monotonic() + timeout
    for turn in itertools.count():
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, ""
        if turn % 4 == 0 and (size := resident(pid)) > limit:
            return 0, size, "exhausted"
        if time.monotonic() > deadline:
            return 0, 0, "hung"
        time.sleep(0.004)
    raise AssertionError


def resident(pid: int) -> int:
    """Memory of a process, in bytes; 0 of one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _session(leader: int) -> list[int]:
    """Processes of the session that this command led, which has ended."""
    found = []
    for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(pid)
    return found


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
