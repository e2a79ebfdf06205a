"""The driver: attempts in random order until the time is over, and a table of what they found."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attack import chains, files, interrupts, kills, options, stores, streams
from attack.core import KINDS, RUNNING, Attempt

Attack = Callable[[Attempt], None]
# Topic: its attacks, and how often it has its turn. What is cheap comes more often.
TOPICS: dict[str, tuple[Sequence[Attack], int]] = {
    "files": (files.ATTACKS, 5),
    "options": (options.ATTACKS, 6),
    "streams": (streams.ATTACKS, 4),
    "stores": (stores.ATTACKS, 5),
    "kills": (kills.ATTACKS, 2),
    "interrupts": (interrupts.ATTACKS, 3),
    "numbers": (chains.ATTACKS, 1),
}
COLUMNS = ("attempts", "clean", "checked", *KINDS)
TITLES = {"clean": "clean errors", "checked": "results checked", "left behind": "left", "other number": "number"}
PROGRESS_SECONDS = 60


def attempts(seed: int, topics: Sequence[str], first: int, base: Path) -> Iterator[Attempt]:
    """Attempts without end; each topic counts its own, so that one can be tried again alone."""
    rng = random.Random(seed)
    bag = [topic for topic in topics for _ in range(TOPICS[topic][1])]
    number = Counter(dict.fromkeys(topics, first))
    while True:
        topic = rng.choice(bag)
        yield Attempt(topic, seed, number[topic], base)
        number[topic] += 1


def attack(attempt: Attempt) -> None:
    """Make one attempt. A defect of the script is a finding too: what it was to check went unchecked."""
    chosen = attempt.rng.choice(TOPICS[attempt.topic][0])
    attempt.attack = chosen.__name__
    try:
        chosen(attempt)
    except Exception:
        attempt.found("script", traceback.format_exc())


class Tally:
    """Counts by topic, and the reports of the findings in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.Lock()
        self.counts: dict[str, Counter[str]] = {topic: Counter() for topic in TOPICS}

    def add(self, attempt: Attempt) -> None:
        """Count an attempt, and write down what it found."""
        with self.lock:
            count = self.counts[attempt.topic]
            count += attempt.counts
            count["attempts"] += 1
            for kind in {kind for kind, _ in attempt.findings}:
                count[kind] += 1
        if attempt.findings:
            (self.folder / f"{attempt.topic}-{attempt.number}.txt").write_text(attempt.report(), "utf-8", "replace")
            kind, why = attempt.findings[0]
            line = why.strip().splitlines()[-1][:150]
            print(f"{attempt.topic}-{attempt.number} {attempt.attack}: {kind}: {line}", file=sys.stderr, flush=True)

    def total(self) -> Counter[str]:
        """Counts of all topics."""
        return sum(self.counts.values(), Counter())

    def found(self) -> int:
        """Findings of every kind, in all topics."""
        return sum(self.total()[kind] for kind in KINDS)

    def table(self) -> str:
        """The counts, a line a topic."""
        rows = [(topic, count) for topic, count in self.counts.items() if count["attempts"]]
        heads = [TITLES.get(name, name) for name in COLUMNS]
        lines = ["topic      | " + " | ".join(heads)]
        lines.append("-" * len(lines[0]))
        for topic, count in [*rows, ("all", self.total())]:
            cells = [f"{count[name]:>{len(head)}}" for name, head in zip(COLUMNS, heads, strict=True)]
            lines.append(f"{topic:<10} | " + " | ".join(cells))
        return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack until the time is over; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python tests/attack", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--jobs", type=int, default=1, help="attempts side by side; 2 at most")
    parser.add_argument("--findings", type=Path, help="folder for the reports of what is found")
    parser.add_argument("--only", action="append", choices=TOPICS, help="a topic; can be given several times")
    parser.add_argument("--attempt", type=int, help="make this attempt alone; its folder is kept")
    parser.add_argument("--attempts", type=int, help="stop after so many")
    given = parser.parse_args(arguments)
    if given.attempt is not None and len(given.only or ()) != 1:
        parser.error("--attempt needs one --only TOPIC")

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and its children
    base = Path(tempfile.mkdtemp(prefix="attack-"))
    findings = given.findings or Path(tempfile.mkdtemp(prefix="attack-findings-"))
    findings.mkdir(parents=True, exist_ok=True)
    print(f"findings go to {findings}", file=sys.stderr)
    tally = Tally(findings)
    one = given.attempt is not None
    source = attempts(given.seed, given.only or tuple(TOPICS), given.attempt or 0, base)
    left = threading.Semaphore(1 if one else given.attempts or 1 << 40)
    start = time.monotonic()
    stop = start + given.minutes * 60
    lock, halted = threading.Lock(), threading.Event()

    def work() -> None:
        while not halted.is_set() and time.monotonic() < stop and left.acquire(blocking=False):
            with lock:
                attempt = next(source)
            attack(attempt)
            if halted.is_set():
                return
            tally.add(attempt)
            if not one:
                shutil.rmtree(attempt.folder.parent, ignore_errors=True)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(max(1, min(given.jobs, 2)))]
    for worker in workers:
        worker.start()
    shown = start
    try:
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.2)
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                done = tally.total()["attempts"]
                print(f"{(shown - start) / 60:.0f} min: {done} attempts, {tally.found()} found", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        halted.set()
        for pid in list(RUNNING):
            os.killpg(pid, signal.SIGKILL)
        for worker in workers:
            worker.join(timeout=20)
    print(f"seed {given.seed}, {(time.monotonic() - start) / 60:.1f} minutes, {os.cpu_count()} processors")
    print(tally.table())
    print(f"reports in {findings}" if tally.found() else "nothing was found")
    if not one:
        shutil.rmtree(base, ignore_errors=True)
    return min(tally.found(), 1)
