"""The examples of examples/ run, and answer what they ask."""

import doctest
import importlib
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parent.parent.parent
ANSWERS = {
    "bfloat16_transformer": "bfloat16 loses the gradient first at ",
    "mlp_initialization": "It changes least from layer to layer under kaiming_",
    "training_log": "step 300: loss ",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_example(name, capsys):
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert ANSWERS[name] in printed
    assert "None" not in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("module", ["", ".exact", ".measure", ".operator", ".recording", ".schemes"])
def test_docstring_examples(module):
    results = doctest.testmod(importlib.import_module(f"fastgrad.torch{module}"), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


def test_every_example_is_tested():
    elsewhere = {"sigmoid_mlp", "cffi_chain", "njit_loop"}  # shown in the guide; in tests/test_headers.py
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*ANSWERS, *elsewhere}
