"""What the README shows is what the commands print."""

import doctest
import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fastgrad as fg

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n\$ fastgrad ([^\n]*)\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(autouse=True)
def _shown_with_cpp():
    if "cpp" not in fg.available_backends():
        if os.environ.get("CI"):
            pytest.fail("cpp is not available")
        pytest.skip("the README shows results of cpp")


def test_python_examples():
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    example = doctest.DocTestParser().get_doctest(code, {}, "README.md", str(README), 0)
    results = doctest.DocTestRunner().run(example)
    assert results.attempted >= 10
    assert results.failed == 0


@pytest.mark.parametrize("module", ["", ".scaled", ".jobs.simulate"])
def test_docstring_examples(module):
    results = doctest.testmod(importlib.import_module(f"fastgrad{module}"), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(("arguments", "shown"), CONSOLE, ids=[arguments for arguments, _ in CONSOLE])
def test_console_examples(arguments, shown, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FASTGRAD_")}
    run = subprocess.run(
        [sys.executable, "-m", "fastgrad", *arguments.split()],
        cwd=tmp_path,
        env={**environment, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert [line.rstrip() for line in run.stdout.splitlines()] == shown.splitlines()


def test_there_are_console_examples():
    assert len(CONSOLE) >= 2


def test_two_commands_make_virtual_environments():
    assert len(re.findall(r"^python3 -m venv .*$", TEXT, flags=re.MULTILINE)) == 2


def test_the_page_on_pypi_refers_to_no_file(monkeypatch):
    setuptools = pytest.importorskip("setuptools")
    pytest.importorskip("pybind11")
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(README.parent)
    runpy.run_path("setup.py")
    page = given["long_description"]
    assert given["long_description_content_type"] == "text/markdown"
    assert [to for to in re.findall(r"\]\(([^)]*)\)", page) if not to.startswith("https://")] == []
    figures = re.findall(r"!\[([^]]*)\]", TEXT)
    assert len(figures) >= 4
    assert [f"*(Figure: {figure}.)*" in page for figure in figures] == [True] * len(figures)
