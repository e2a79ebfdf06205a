"""``fastgrad measure``: somebody's own code, its errors, and all outputs."""

import csv
import io
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

import fastgrad.torch as ft  # noqa: E402
from fastgrad.cli import main  # noqa: E402

MODEL = """
import sys
import torch
from torch import nn

print("on stdout")


def model():
    torch.manual_seed(5)
    return nn.Sequential(*(module for _ in range(30) for module in (nn.Linear(6, 6), nn.Sigmoid())))


def build():
    whole = model()
    return whole, whole(torch.ones(2, 6)).sum()


def loss_alone():
    return build()[1]


def several():
    torch.manual_seed(5)
    first, second, third = nn.Linear(6, 4), nn.Linear(4, 4), nn.LSTM(4, 2)
    return third(second(first(torch.ones(2, 6))))[0].sum()


def raises():
    raise RuntimeError("no data\\nno more lines")


def exits():
    sys.exit("enough")


def three():
    return 1, 2, 3


def number():
    return 3.5


def vector():
    return model()(torch.ones(2, 6))


def without_graph():
    with torch.no_grad():
        return build()


def undefined():
    whole = model()
    return whole, whole(torch.ones(2, 6)).sum().log().log() * float("nan")


def without_module():
    return torch.ones(3, requires_grad=True).sum()


not_callable = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "broken.py").write_text("def build():\n    return 1 +\n")
    (tmp_path / "needs.py").write_text("import helper_beside_it\nfrom not_installed import x\n")
    (tmp_path / "helper_beside_it.py").write_text("VALUE = 3\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("")
    (tmp_path / "package/inner.py").write_text("from mine import build\n")
    for name, text in (("raising", "raise RuntimeError('not today')"), ("lacking", "import not_installed")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    (tmp_path / "binary.py").write_bytes(bytes(range(256)))
    yield tmp_path
    for name in ("mine", "helper_beside_it", "package", "package.inner", "raising", "lacking"):
        sys.modules.pop(name, None)


def run(*arguments):
    result = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["measure", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def by_hand():
    names = {}
    exec(MODEL, names)
    return ft.measure(names["model"](), torch.ones(2, 6), loss=torch.sum)


def test_the_table_is_that_of_python():
    result = run("mine.py:build")
    assert (result.exit_code, result.stderr) == (0, "on stdout\n")
    assert "\n".join(line.rstrip() for line in result.stdout.split("\n")).startswith(by_hand().table())
    assert "(log10 of the gradient's norm)" in result.stdout
    assert "on stdout" not in result.stdout


@pytest.mark.parametrize(
    "target", ["mine.py", "mine.py:loss_alone", "mine:build", "package.inner:build", "./mine.py:build"]
)
def test_ways_to_name_the_function(target):
    result = run(target, "--format", "csv")
    assert (result.exit_code, result.stderr) == (0, "on stdout\n")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["log10_output"] for row in rows] == [str(call.output.norm.log10()) for call in by_hand().calls]


def test_json_file_and_figure(folder):
    result = run("mine.py:build", "-o", folder / "m.json", "--plot", folder / "m.svg", "--layers", "Sigmoid", "--check")
    assert (result.exit_code, result.stdout) == (0, "")
    document = json.loads((folder / "m.json").read_text())
    assert document["command"] == "measure"
    assert document["parameters"] == {"target": "mine.py:build", "check": True, "layers": "Sigmoid"}
    assert document["result"]["layer_type"] == "Sigmoid"
    expected = [call.parameters and call.parameters.norm.log10() for call in by_hand().calls]
    assert [row["log10_parameters"] for row in document["result"]["calls"]] == expected
    assert "Sigmoid" in (folder / "m.svg").read_text(encoding="utf-8")


def test_several_models():
    result = run("mine.py:several", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["name"] for row in rows] == ["Linear", "Linear_2", "LSTM"]


def test_nothing_of_the_code_stays(folder):
    path, arguments = sys.path[:], sys.argv
    assert run("mine.py:build").exit_code == 0
    assert run("mine.py:raises").exit_code == 1
    assert (sys.path, sys.argv) == (path, arguments)
    assert not [name for name in sys.modules if "fastgrad_measured" in name]


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("missing.py:build", 2, "target: no file 'missing.py'"),
        ("missing:build", 2, "target: no module named 'missing'; a file's name ends in .py"),
        ("missing.inner:build", 2, "target: no module named 'missing.inner'; a file's name ends in .py"),
        ("raising.inner:build", 1, "raising.inner raised RuntimeError: not today"),
        ("lacking.inner:build", 1, "lacking.inner raised ModuleNotFoundError: No module named 'not_installed'"),
        ("mine.inner:build", 2, "target: no module named 'mine.inner'; a file's name ends in .py"),
        ("..:build", 2, "target: no "),
        ("package:build", 2, "target: package has no function 'build'"),
        ("binary.py:build", 1, "binary.py raised "),
        ("folder/model.txt:build", 2, "target: no file 'folder/model.txt'"),
        (":build", 2, "target: expected FILE.py:build or module:build, got ':build'"),
        ("mine.py:zzz", 2, "target: mine.py has no function 'zzz'"),
        ("mine.py:not_callable", 2, "target: mine.py has no function 'not_callable'"),
        ("mine.py:raises", 1, "mine.py:raises raised RuntimeError at line 30: no data no more lines"),
        ("mine.py:exits", 1, "mine.py:exits raised SystemExit at line 34: enough"),
        ("mine.py:three", 1, "mine.py:three: expected a loss, or a model and a loss, got a tuple of int, int, int"),
        ("mine.py:number", 1, "mine.py:number: expected a loss, or a model and a loss, got a float"),
        ("mine.py:vector", 1, "mine.py:vector: loss: expected a scalar, got a Tensor of shape (2, 6)"),
        ("mine.py:without_graph", 1, "mine.py:without_graph: loss: "),
        ("mine.py:undefined", 1, "mine.py:undefined: loss: is nan; the output of every module is finite"),
        ("mine.py:without_module", 1, "mine.py:without_module: no module ran"),
        ("broken.py:build", 1, "broken.py raised SyntaxError at line 2: invalid syntax"),
        ("needs.py:build", 1, "needs.py raised ModuleNotFoundError at line 2: No module named 'not_installed'"),
    ],
)
def test_errors_are_one_line(target, code, message):
    result = run(target)
    line = result.stderr.removeprefix("on stdout\n")
    assert line.startswith(f"fastgrad: {message}")
    assert line.count("\n") == 1
    assert (result.exit_code, result.stdout) == (code, "")


def test_the_file_is_not_overwritten(folder):
    result = run("mine.py:build", "--format", "json", "-o", "mine.py")
    assert result.exit_code == 2
    assert (folder / "mine.py").read_text() == MODEL


def test_without_torch(folder):
    code = """
import sys
sys.modules["torch"] = None
from fastgrad.cli import main
main(["measure", "mine.py:build"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fastgrad: measure: needs PyTorch: pip install 'fastgrad[torch]'\n"
