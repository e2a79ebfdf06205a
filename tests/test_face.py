"""The package's face: public names, imported when they are first used."""

import ast
import pickle
from pathlib import Path

import pytest

import fastgrad as fg

FACE = ast.parse(Path(fg.__file__).read_text(encoding="utf-8"))


def imported_for_checkers():
    """Names that type checkers see, with the module that each comes from."""
    (block,) = [node for node in FACE.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_names_are_those_that_checkers_see():
    seen = imported_for_checkers()
    assert sorted([*seen, "__version__"], key=fg.__all__.index) == fg.__all__
    for name, module in seen.items():
        found = getattr(fg, name)
        assert found is getattr(__import__(module, fromlist=[name]), name)
        assert fg.__dict__[name] is found  # the next use finds it at once


def test_all_names_are_listed(python):
    assert python("import fastgrad; print(set(fastgrad.__all__) - set(dir(fastgrad)))") == "set()\n"
    assert python("from fastgrad import *; print(theory.lyapunov('constant:1') < 0, laws.zero())") == "True zero\n"


def test_other_names_are_none():
    with pytest.raises(AttributeError, match="module 'fastgrad' has no attribute 'simulat'"):
        fg.simulat  # noqa: B018


def test_functions_and_results_can_be_pickled():
    growth = fg.simulate(3, 2)
    assert pickle.loads(pickle.dumps(fg.simulate)) is fg.simulate
    assert pickle.loads(pickle.dumps(growth)).adjoint[0, 1] == growth.adjoint[0, 1]
    assert pickle.loads(pickle.dumps(fg.laws.zero())) == fg.laws.zero()
