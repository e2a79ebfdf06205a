"""The comparison of initialization schemes."""

import json

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs.schemes import MEASURED_DEPTH, SCHEMES, schemes
from fastgrad.laws import LAWS


@pytest.fixture(scope="module")
def found():
    return schemes(6, 400, seed=2, learning_rate=1.0, steps=300)


def test_every_named_scheme_is_there():
    named = {name for name in LAWS if name.split("_")[-1] in ("normal", "uniform", "default") and "_" in name}
    assert named <= {weight for weight, _ in SCHEMES}


def test_numbers_are_those_of_simulate_and_train(found):
    for scheme, (weight, bias) in zip(found.schemes, SCHEMES, strict=True):
        growth = fg.simulate(MEASURED_DEPTH, 400, weight, bias, seed=2)
        assert (scheme.weight, scheme.bias, scheme.lyapunov) == (weight, bias, growth.lyapunov)
        assert scheme.stationary == growth.stationary
        assert scheme.first_depth["float32"] == growth.summary()["first_depth"]["float32"]["underflow"]
        t = fg.train_drawn(6, 400, weight, bias, seed=2, learning_rate=1.0, steps=300)
        w, _ = fg.draw(6, 400, weight, bias, seed=2)
        assert scheme.share[-1] == np.mean(t.status == "converged")
        assert scheme.first_change[-1] == np.median(np.abs(t.weight[0] - w[0]))


def test_exponents_are_those_of_theory(found):
    for scheme in found.schemes:
        assert abs(scheme.stationary.deviation(scheme.theory)) < 4


def test_large_weights_do_not_train_and_small_ones_stop_at_the_first_link(found):
    of = {scheme.weight: scheme for scheme in found.schemes}
    assert of["normal:std=500"].share[-1] < 0.6 < of["glorot_normal"].share[-1]
    assert of["normal:std=0.1"].first_change[-1] < 1e-5 * of["normal:std=4"].first_change[-1]
    assert found.depths.tolist() == [1, 2, 3, 4, 5, 6]


def test_command(tmp_path, cli):
    arguments = ["schemes", "--depth", "3", "--ensemble", "50", "--steps", "40", "--plot", str(tmp_path / "s.svg")]
    text = cli(*arguments).stdout
    assert all(weight in text for weight, _ in SCHEMES)
    assert max(map(len, text.splitlines())) <= 80
    result = json.loads(cli(*arguments, "--format", "json").stdout)["result"]
    wanted = schemes(3, 50, learning_rate=1.0, steps=40)
    assert [row["converged"] for row in result["schemes"]] == [scheme.share[-1] for scheme in wanted.schemes]
    assert [row["weight"] for row in result["schemes"]] == [weight for weight, _ in SCHEMES]
    assert "lecun_normal" in (tmp_path / "s.svg").read_text(encoding="utf-8")


def test_bad_input():
    with pytest.raises(ValueError, match="depth: expected 1 to"):
        schemes(0)
    with pytest.raises(ValueError, match="learning_rate: expected a number above 0"):
        schemes(1, 10, learning_rate=-1.0)


def test_progress():
    seen = []
    schemes(2, 10, steps=2, progress=lambda *done: seen.append(done))
    assert seen[-1] == (2 * len(SCHEMES), 2 * len(SCHEMES))
