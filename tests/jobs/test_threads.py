"""Threads: what Ctrl-C does to the calls that run."""

import subprocess
import sys

import pytest

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
