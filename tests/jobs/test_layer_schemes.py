"""The comparison of initialization schemes of layers."""

import json

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.layer_schemes import NAMED, LayerSchemes
from fastgrad.jobs.schemes import SCHEMES, schemes


@pytest.fixture(scope="module")
def found():
    return schemes(20, 10, seed=3, width=32, nonlinearity="relu")


def test_numbers_are_those_of_simulate(found):
    assert isinstance(found, LayerSchemes)
    assert {weight for weight, _ in SCHEMES if "_" in weight} <= {scheme.weight for scheme in found.schemes}
    for scheme in found.schemes:
        laws = {"weight": scheme.weight, "bias": scheme.bias}
        growth = fg.simulate(20, 10, **laws, seed=3, width=32, nonlinearity="relu")
        assert scheme.growth.lyapunov == growth.lyapunov
        assert scheme.growth.adjoint[0].log10().tolist() == growth.adjoint[0].log10().tolist()
        assert scheme.theory == fg.theory.predict(**laws, width=32, nonlinearity="relu")


def test_exact_theory_is_met(found):
    exact = [scheme for scheme in found.schemes if scheme.theory.holds_for == "every width"]
    assert len(exact) >= 5
    for scheme in exact:
        assert abs(scheme.growth.deviation(scheme.theory.lyapunov)) < 4


def test_the_critical_law_keeps_the_gradient():
    for nonlinearity in ("sigmoid", "tanh", "relu", "linear"):
        of = {scheme.weight: scheme for scheme in schemes(5, 4, width=64, nonlinearity=nonlinearity).schemes}
        critical = f"normal:gain={fg.theory.critical_sigma_w(0, nonlinearity):.6g}"
        assert of[critical].theory.lyapunov == pytest.approx(0, abs=0.03)  # of relu at 64 units -1/n or so
        assert of["normal:gain=0.1"].theory.lyapunov < -1 < 0.3 < of["normal:gain=20"].theory.lyapunov


def test_one_unit_has_no_orthogonal_layers():
    names = [scheme.weight for scheme in schemes(5, 4, width=1, nonlinearity="tanh").schemes]
    assert "orthogonal" not in names
    assert len(names) == len(NAMED) + 2


def test_command(tmp_path, cli):
    arguments = ["schemes", "--depth", "30", "--ensemble", "5", "--width", "16", "--nonlinearity", "tanh"]
    text = cli(*arguments, "--plot", tmp_path / "s.svg").stdout
    assert max(map(len, text.splitlines())) <= 80
    result = json.loads(cli(*arguments, "--format", "json").stdout)["result"]
    wanted = schemes(30, 5, width=16, nonlinearity="tanh")
    assert [row["lyapunov"] for row in result["schemes"]] == [s.growth.lyapunov.mean for s in wanted.schemes]
    assert all(scheme.weight in text for scheme in wanted.schemes)
    medians = [np.quantile(s.growth.adjoint.log10(), 0.5, axis=1, method="inverted_cdf") for s in wanted.schemes]
    assert [row["log10_adjoint"] for row in result["schemes"]] == [list(median) for median in medians]
    # In square layers two names may be of one law, and share a line.
    assert "glorot_normal, lecun_normal" in (tmp_path / "s.svg").read_text(encoding="utf-8")
    assert cli(*arguments, "--format", "csv").stdout.count("\n") == len(wanted.schemes) + 1


def test_bad_input(cli):
    with pytest.raises(ValueError, match="width: expected 1 to 65536"):
        schemes(5, 4, width=0)
    with pytest.raises(ValueError, match="nonlinearity: unknown nonlinearity"):
        schemes(5, 4, nonlinearity="gelu")
    with pytest.raises(ValueError, match="steps: only chains are trained"):
        schemes(5, 4, width=2, steps=5)
    result = cli("schemes", "--width", "4", "--learning-rate", "2")
    assert (result.exit_code, result.stderr) == (
        2,
        "fastgrad: learning_rate: only chains are trained, and these are layers of width 4\n",
    )


def test_progress():
    seen = []
    schemes(4, 2, width=4, progress=lambda *done: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == (40, 40)
