"""Threads: what Ctrl-C does to the calls that run."""

import subprocess
import sys
import threading

import pytest

from fastgrad.jobs.threads import Threads

PRESSED = """
import signal, sys, threading, time
from fastgrad.jobs.threads import Threads

finished = []

def call():
    time.sleep(0.8)
    finished.append(time.monotonic())

def press(times):
    for _ in range(times):
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        pressed.append(time.monotonic())

pressed = []
with Threads(2) as threads:
    presses = threading.Thread(target=press, args=[int(sys.argv[1])])
    presses.start()
    try:
        threads.run_all([call] * 5)
        print("not interrupted")
    except KeyboardInterrupt:
        print(len(pressed), len(finished), max(pressed) < min(finished))
"""


@pytest.mark.parametrize("times", [1, 2, 3, 6])
def test_however_often_ctrl_c_is_pressed_no_call_runs_afterwards(times):
    """Of five calls on two threads, those that run are waited for, and those that wait never start."""
    code = [sys.executable, "-c", PRESSED, str(times)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{times} 2 True\n", "")


def test_small_work_runs_on_the_calling_thread():
    """And all else on others, in blocks of 64 members: of few links, too, where they are not all the work."""
    seen = []

    def kernel(start, stop):
        seen.append((threading.get_ident(), start, stop))

    for threads, links in ((1, 2**16), (2, 2**16), (2, 2**16 + 1), (2, None)):
        with Threads(threads, links) as pool:
            pool.run(kernel, 130)
        if links == 2**16:
            assert seen == [(threading.get_ident(), 0, 130)]
        else:
            assert sorted(of[1:] for of in seen) == [(0, 64), (64, 130)]
            assert threading.get_ident() not in {of[0] for of in seen}
        seen.clear()
    with pytest.raises(ValueError, match="threads: expected 1 to 4096, got 0"):
        Threads(0, 5)
