"""A model under several initialization schemes."""

import math

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

import fastgrad.torch as ft  # noqa: E402

X = torch.linspace(-1, 1, 64).reshape(4, 16)


def build():
    layers = [module for _ in range(12) for module in (nn.Linear(16, 16), nn.Tanh())]
    return nn.Sequential(*layers, nn.LayerNorm(16))


def initialized(fill, seed):
    """The model as a user would make it by hand."""
    torch.manual_seed(seed)
    model = build()
    for module in model:
        if isinstance(module, nn.Linear):
            fill(module.weight)
            nn.init.zeros_(module.bias)
    return model


def first(output):
    return output[:, 0].sum()


def test_each_scheme_is_measured_as_if_it_were_set_by_hand():
    found = ft.schemes(build, X, schemes=["xavier_normal", "orthogonal", "as_built"], seed=3, loss=first)
    assert list(found.measurements) == ["xavier_normal", "orthogonal", "as_built"]
    torch.manual_seed(3)
    by_hand = {
        "as_built": build(),
        "xavier_normal": initialized(nn.init.xavier_normal_, 3),
        "orthogonal": initialized(nn.init.orthogonal_, 3),
    }
    for name, model in by_hand.items():
        assert found.measurements[name].rows() == ft.measure(model, X, loss=first).rows(), name


def test_functions_of_ones_own():
    fills = {"small": lambda w: nn.init.normal_(w, std=0.01), "zero": nn.init.zeros_}
    found = ft.schemes(build, X, schemes=fills, loss=first)
    assert list(found.measurements) == ["small", "zero"]
    assert found.measurements["small"].decades_per_layer.mean < -1
    assert found.measurements["zero"].decades_per_layer.mean == -math.inf
    assert found.steadiest == "small"


def test_the_steadiest_scheme_is_told():
    found = ft.schemes(build, X, loss=first)
    means = {name: abs(m.decades_per_layer.mean) for name, m in found.measurements.items()}
    assert means[found.steadiest] == min(mean for mean in means.values() if not math.isnan(mean))
    text = found.table()
    assert all(name in text for name in found.measurements)
    assert max(map(len, text.splitlines())) <= 80
    assert f"It changes least from layer to layer under {found.steadiest}." in text
    assert str(found) == text
    assert "kaiming_normal" in found.plot()
    rows = {row["scheme"]: row for row in found.summary()["schemes"]}
    assert rows["orthogonal"]["decades_per_layer"] == found.measurements["orthogonal"].decades_per_layer.mean


def test_figure_has_a_curve_for_each_scheme(tmp_path):
    ft.schemes(build, X, schemes=["normal", "orthogonal"], loss=first).plot(tmp_path / "s.svg")
    assert all(name in (tmp_path / "s.svg").read_text(encoding="utf-8") for name in ("normal", "orthogonal"))


def test_a_loss_that_is_not_finite_is_told():
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(60)))
    found = ft.schemes(
        lambda: model, torch.ones(1, 64), schemes=["normal", "orthogonal"], loss=lambda y: y.square().sum()
    )
    assert list(found.measurements) == ["orthogonal"]
    assert found.failed["normal"].startswith("loss: is nan; the first module whose output is not finite is '4")
    assert "normal: loss: is nan;" in found.table()


def test_random_numbers_are_left_as_they_were():
    state = torch.get_rng_state()
    ft.schemes(build, X, schemes=["normal"], loss=first)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_draws_the_same_numbers():
    whole = ft.schemes(build, X, schemes=["orthogonal"], loss=first)
    half = ft.schemes(lambda: build().bfloat16(), X.bfloat16(), schemes=["orthogonal"], loss=first)
    expected = whole.measurements["orthogonal"].decades_per_layer.mean
    assert half.measurements["orthogonal"].decades_per_layer.mean == pytest.approx(expected, abs=0.01)


def test_bad_arguments():
    for error, message, arguments in (
        (TypeError, "build: expected a function that makes the model, got Sequential", {"build": build()}),
        (TypeError, "build: expected a function that makes the model, got int", {"build": 3}),
        (TypeError, "model: expected a torch.nn.Module, got int", {"build": lambda: 3}),
        (ValueError, r"schemes: expected names of torch.nn.init, such as as_built, .*; got 'he'", {"schemes": ["he"]}),
        (ValueError, "schemes: expected at least one", {"schemes": []}),
        (ValueError, "seed: expected", {"seed": -1}),
    ):
        with pytest.raises(error, match=message):
            ft.schemes(**{"build": build, "schemes": ["normal"], **arguments})
