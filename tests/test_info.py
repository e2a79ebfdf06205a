"""What runs here: versions, backends, compiler, processor."""

import csv
import io
import json
import os
import platform
import sys
from functools import partial
from importlib import metadata

import pytest

import fastgrad as fg
from fastgrad import info
from fastgrad.kernels import BACKENDS


@pytest.fixture
def run(output):
    """Function that returns what ``fastgrad info`` prints."""
    return partial(output, "info")


def test_versions():
    found = fg.build_info()
    assert found["fastgrad"] == fg.__version__
    assert found["python"] == f"{platform.python_implementation()} {platform.python_version()}"
    assert found["platform"] == platform.platform()
    assert {"numpy", "numba", "click", "rich", "matplotlib"} <= set(found["packages"])
    for name, version in found["packages"].items():
        if version is None:  # of an extra
            with pytest.raises(metadata.PackageNotFoundError):
                metadata.version(name)
        else:
            assert version == metadata.version(name)


def test_version_is_that_of_the_distribution():
    assert fg.__version__ == metadata.version("fastgrad")


def test_absent_package_is_none(monkeypatch):
    monkeypatch.setattr(info, "PACKAGES", ("numpy", "no-such-package"))
    assert fg.build_info()["packages"] == {"numpy": metadata.version("numpy"), "no-such-package": None}


def test_backends_are_those_that_are_available():
    found = fg.build_info()["backends"]
    assert list(found) == list(BACKENDS)
    assert [name for name, state in found.items() if state == "available"] == fg.available_backends()


def test_compiled_extension(compiled):
    found = fg.build_info()
    assert found["compiler"]
    assert "-ffp-contract=off" in found["compile_flags"]  # strict arithmetic
    assert "fast-math" not in found["compile_flags"]
    assert "-march=native" not in found["compile_flags"]
    assert found["instruction_set"]


def test_missing_backend_says_why(monkeypatch, run):
    monkeypatch.setitem(
        BACKENDS, "cpp", BACKENDS["cpp"]._replace(module="fastgrad.kernels.absent", remedy="compile it")
    )
    found = fg.build_info()
    assert found["backends"]["cpp"].startswith("backend: cpp is not available (")
    assert found["backends"]["cpp"].endswith("to mend it: compile it")
    assert (found["compiler"], found["compile_flags"], found["instruction_set"]) == (None, None, None)
    shown = json.loads(run("--format", "json"))["result"]
    assert shown["backends"] == found["backends"]
    assert shown["compiler"] is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor affinity")
def test_threads_are_those_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert fg.build_info()["threads"] == 1
    finally:
        os.sched_setaffinity(0, before)
    assert fg.build_info()["threads"] == len(before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_processor_is_named():
    named = fg.build_info()["cpu"]
    assert named
    assert named == " ".join(named.split())


def test_instruction_set_is_of_compiled_backends_only():
    assert info.instruction_set("numpy") is None
    assert info.instruction_set(None) == fg.build_info()["instruction_set"]


def test_json_is_what_the_function_returns(run):
    found = json.loads(run("--format", "json"))
    assert (found["schema"], found["command"], found["parameters"]) == ("fastgrad/1", "info", {})
    assert found["result"] == fg.build_info()


def test_table_has_everything(run):
    text = run(COLUMNS="400")
    rows = dict(line.split(None, 1) for line in text.splitlines() if line.strip() and "─" not in line)
    rows = {key: value.strip() for key, value in rows.items()}
    assert rows.pop("what") == "value"
    found = fg.build_info()
    expected = {
        f"{key}.{name}" if name else key: "-" if value is None else str(value)
        for key, item in found.items()
        for name, value in (item.items() if isinstance(item, dict) else [("", item)])
    }
    assert rows == expected


def test_csv_has_everything(run):
    rows = list(csv.reader(io.StringIO(run("--format", "csv"))))
    assert rows[0] == ["what", "value"]
    assert ["fastgrad", fg.__version__] in rows
    assert ["backends.numpy", "available"] in rows


def test_table_wraps_what_is_long(monkeypatch, run):
    monkeypatch.setitem(
        BACKENDS, "cpp", BACKENDS["cpp"]._replace(module="fastgrad.kernels.absent", remedy="compile it " * 20)
    )
    words = run().split()
    assert words.count("compile") == 20
    assert not any("…" in word for word in words)
