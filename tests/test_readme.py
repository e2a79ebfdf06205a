"""What the README and the pages of docs/ show is what the commands print, and their links lead somewhere."""

import doctest
import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastgrad as fg

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
PAGES = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in (README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCKS = {name: list(re.finditer(r"```(console|python)\n(.*?)```", text, re.DOTALL)) for name, text in PAGES.items()}
SHOWN = [name for name, blocks in BLOCKS.items() if blocks]


def run_python(name, block, names):
    """Run a block of examples; what it defines is there for the next."""
    line = PAGES[name].count("\n", 0, block.start())
    example = doctest.DocTestParser().get_doctest(block[2], names, name, name, line)
    assert example.examples, f"{name}, line {line}: no examples in a block of Python"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, clear_globs=False)
    names.update(example.globs)
    assert runner.failures == 0, f"{name}, line {line}: not what is shown"


def run_console(block, folder):
    """Run the commands of a block, each followed by what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FASTGRAD_")}
    commands = re.findall(r"^\$ fastgrad (.*)\n((?:(?!\$ ).*\n)*)", block[2], re.MULTILINE)
    assert len(commands) == block[2].count("$ ")
    for arguments, shown in commands:
        run = subprocess.run(
            [sys.executable, "-m", "fastgrad", *shlex.split(arguments)],
            cwd=folder,
            env={**environment, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert [line.rstrip() for line in run.stdout.splitlines()] == shown.splitlines(), arguments


@pytest.mark.parametrize("name", SHOWN)
def test_examples_show_what_is_printed(name, tmp_path, monkeypatch):
    if "cpp" not in fg.available_backends():
        if os.environ.get("CI"):
            pytest.fail("cpp is not available")
        pytest.skip("the pages show results of cpp")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    names = {}
    for block in BLOCKS[name]:
        if re.search("fastgrad.torch|fastgrad measure|import torch", block[2]) and not find_spec("torch"):
            continue
        if "import jax" in block[2] and not find_spec("jax"):
            continue
        if block[1] == "python":
            run_python(name, block, names)
        else:
            run_console(block, tmp_path)


def test_there_are_examples():
    kinds = [block[1] for blocks in BLOCKS.values() for block in blocks]
    assert kinds.count("console") >= 8
    assert kinds.count("python") >= 20
    assert "README.md" in SHOWN


WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "fastgrad").rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
    and path.parent.name != "torch"  # which has tests of its own
    and (path.name != "jax.py" or find_spec("jax"))
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_docstring_examples(module):
    results = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


def anchors(text):
    """The headings of a page as links name them: in lower case, with hyphens, without punctuation."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    text = re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]*)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])  # which tells of the past
def test_files_that_are_named_are_there(name):
    folders = r"(?:fastgrad(?!/\d)|csrc|tests|bench|docs|\.ci|\.github)/"
    named = re.findall(rf"`(?:python |pytest |)({folders}[\w./-]*)[^`\n]*`", PAGES[name])
    assert [file for file in named if "NAME" not in file and not (ROOT / file).exists()] == []


def test_names_of_the_code_that_contributors_read_are_there():
    named = re.findall(
        r"`([A-Za-z_]+)` (?:and `([A-Za-z_]+)` )?in\s+`((?:fastgrad|csrc|tests)/[\w./]+)`", PAGES["CONTRIBUTING.md"]
    )
    assert len(named) >= 4
    for *names, file in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert [name for name in names if name not in text] == [], file


def test_every_page_is_in_the_table_of_contents():
    listed = "".join(re.findall(r"```{toctree}\n(.*?)```", PAGES["docs/index.md"], re.DOTALL)).split("\n")
    pages = {name.removeprefix("docs/").removesuffix(".md") for name in PAGES if name.startswith("docs/")}
    assert pages - {"index"} <= set(listed)


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
    assert len(figures) >= 1
    assert [f"*(Figure: {figure}.)*" in page for figure in figures] == [True] * len(figures)
