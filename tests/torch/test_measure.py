"""Measurements of models against autograd, closed forms, and what each row says."""

import copy
import csv
import io
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

import fastgrad as fg

torch = pytest.importorskip("torch")
nn = torch.nn

import fastgrad.torch as ft  # noqa: E402
from fastgrad.report.measure import measurement_report  # noqa: E402
from fastgrad.report.tabular import write_csv  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260101)


def mlp(depth, width=8, nonlinearity=nn.Sigmoid):
    return nn.Sequential(*(module for _ in range(depth) for module in (nn.Linear(width, width), nonlinearity())))


def line(factors):
    """Layers of one unit whose gradients are products of the given numbers; every activation is 1."""
    model = nn.Sequential(*(nn.Linear(1, 1, dtype=torch.float64) for _ in factors))
    with torch.no_grad():
        for module, factor in zip(model, factors, strict=True):
            module.weight.fill_(factor)
            module.bias.fill_(1 - factor)
    return model


ONE = torch.ones(1, 1, dtype=torch.float64)


class Residual(nn.Module):
    """A residual stream with a tied embedding, an LSTM of several outputs, and a module that is called twice."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.recurrent = nn.LSTM(8, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.blocks = nn.ModuleList(mlp(1, nonlinearity=nn.GELU) for _ in range(3))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        x = self.norm(self.recurrent(self.embedding(ids))[0])
        for block in self.blocks:
            x = x + block(self.norm(x))
        return nn.functional.cross_entropy(self.head(x).flatten(0, 1), ids.flatten())


def autograd(model, *inputs):
    """Norms at the outputs of all calls, by torch, and those of the parameters."""
    outputs = []

    def flat(output):
        return [each for part in output for each in flat(part)] if isinstance(output, tuple) else [output]

    handles = [m.register_forward_hook(lambda *call: outputs.append(flat(call[2]))) for m in model.modules()]
    loss = model(*inputs)
    for handle in handles:
        handle.remove()
    tensors = [tensor for output in outputs for tensor in output]
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, [*tensors, *parameters.values()], allow_unused=True)
    found = iter(gradients)
    of_outputs = [[gradient for _ in output if (gradient := next(found)) is not None] for output in outputs]
    return of_outputs, dict(zip(parameters, found, strict=True))


def norm(gradients):
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))


def test_every_norm_is_that_of_autograd():
    model, ids = Residual().double(), torch.randint(11, (2, 5))
    measured = ft.measure(model, ids)
    outputs, parameters = autograd(model, ids)
    assert len(measured.calls) == len(outputs) == 17
    modules = dict(model.named_modules())
    for call, gradients in zip(measured.calls, outputs, strict=True):
        assert float(call.output.norm) == pytest.approx(norm(gradients), rel=1e-12), call.label
        assert call.type == type(modules[call.name]).__name__
        own = [
            parameters[f"{call.name}.{name}".removeprefix(".").replace("head", "embedding")]
            for name, _ in modules[call.name].named_parameters()
        ]
        if own:
            assert float(call.parameters.norm) == pytest.approx(norm(own), rel=1e-12), call.label
        else:
            assert call.parameters is None
    assert measured.zeros == {}


def test_calls_are_counted_and_stand_in_the_order_of_the_forward_pass():
    measured = ft.measure(Residual(), torch.randint(11, (2, 5)))
    assert [call.label for call in measured.calls] == [
        "embedding",
        "recurrent",
        "norm",
        *(
            label
            for i in range(3)
            for label in (f"norm, call {i + 2}", f"blocks.{i}.0", f"blocks.{i}.1", f"blocks.{i}")
        ),
        "head",
        "Residual",
    ]
    assert measured.calls[1].shape == (2, 5, 8)


def test_the_whole_model_has_the_norm_that_clipping_uses():
    model, x = mlp(5), torch.randn(3, 8)
    measured = ft.measure(model, x, loss=torch.sum)
    model(x).sum().backward()
    expected = nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    assert float(measured.calls[-1].parameters.norm) == pytest.approx(expected, rel=1e-6)


def test_products_and_their_decades():
    factors = [2.0**-k for k in (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)]
    measured = ft.measure(line(factors), ONE)
    for i, call in enumerate(measured.layers):
        assert call.output.norm == fg.Scaled(1.0, int(np.log2(np.prod(factors[i + 1 :]))))
        if i:
            assert call.log10_layer_factor == pytest.approx(math.log10(factors[i]), rel=1e-13)
    assert measured.decades_per_layer.mean == pytest.approx(np.log10(factors[1:]).mean(), rel=1e-13)


def test_factors_are_those_to_the_row_before():
    calls = ft.measure(mlp(4), torch.randn(3, 8), loss=torch.sum).calls
    assert calls[0].log10_factor is None
    for before, call in pairwise(calls):
        ratio = float(before.output.norm) / float(call.output.norm)
        assert 10**call.log10_factor == pytest.approx(ratio, rel=1e-12)


def test_standard_error_of_the_decades(rng):
    factors = 10.0 ** rng.normal(-0.1, 0.3, 901)
    found = ft.measure(line(factors), ONE).decades_per_layer
    assert found.mean == pytest.approx(np.log10(factors[1:]).mean(), rel=1e-12)
    assert found.stderr == pytest.approx(0.3 / 30, rel=0.3)  # of 30 batches, which know it to one part in eight
    assert math.isnan(ft.measure(line([0.5, 0.5]), ONE).decades_per_layer.stderr)
    assert math.isnan(ft.measure(line([0.5]), ONE).decades_per_layer.mean)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_far_below_every_format(dtype):
    measured = ft.measure(line([2.0**-7] * 1000).to(dtype), ONE.to(dtype))
    assert [call.output.norm.log2() for call in measured.layers] == [-7 * (999 - i) for i in range(1000)]
    assert measured.decades_per_layer.mean == pytest.approx(-7 * math.log10(2), rel=1e-13)
    assert measured.decades_per_layer.stderr == pytest.approx(0, abs=1e-12)


def test_where_formats_lose_the_gradient():
    measured = ft.measure(line([1.0] + [2.0**-4] * 60), ONE)
    # 2^-24 is the smallest float16, bfloat16 ends at 2^-133 and float32 at 2^-149; half of them is rounded to 0
    for name, least in (("float16", -24), ("bfloat16", -133), ("float32", -149)):
        lost = [call.label for call in measured.layers if call.output.norm.log2() < least]
        assert measured.first_lost[name] == lost[-1]
        assert all(call.share_lost(name) == (call.label in lost) for call in measured.layers[1:])
    assert ft.measure(line([2.0**-4] * 5), ONE).first_lost == dict.fromkeys(("float16", "bfloat16", "float32"))


@pytest.mark.parametrize(("small", "lost"), [(1, None), (2, None), (3, "0"), (4, "0")])
def test_a_format_that_loses_more_than_half_has_lost_the_gradient(small, lost):
    model = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight.fill_(0)
        model[0].bias.fill_(1)
        model[1].weight.fill_(1)
        model[1].weight[0, :small] = 2.0**-30
    measured = ft.measure(model, torch.ones(1, 1), loss=torch.sum)
    assert measured.calls[0].share_lost("float16") == small / 4
    assert measured.first_lost["float16"] == lost


def test_shares_that_formats_lose():
    model, x = mlp(4).double(), torch.randn(3, 8).double()
    with torch.no_grad():
        for module in model[::2]:
            module.weight.mul_(10.0 ** torch.linspace(-6, 0, 8, dtype=torch.float64))
    measured = ft.measure(model, x, loss=lambda output: 1e-2 * output.sum())
    outputs, _ = autograd(nn.Sequential(model, Sum(1e-2)), x)
    shares = set()
    for call, (gradient,) in zip(measured.calls, outputs, strict=False):
        for name in ("float16", "bfloat16", "float32"):
            rounded = gradient.to(getattr(torch, name))
            share = ((rounded == 0) & (gradient != 0)).double().mean().item()
            assert call.output.share_lost(name) == pytest.approx(share, abs=1e-12), (call.label, name)
            shares.add(share)
    assert len(shares) > 4


class Sum(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x.sum()


@pytest.mark.parametrize("power", [2, -3, -5])
def test_loss_scale_keeps_every_gradient(power):
    model = line([1.0] + [2.0**power] * 7)
    measured = ft.measure(model, ONE)
    scale = measured.loss_scale("float16")
    norms = [call.output.norm.log2() for call in measured.layers]
    held = min(norms) >= -24 and max(norms) <= 15
    assert (scale == 1) == held
    if scale not in (None, 1):
        assert math.log2(scale).is_integer()
        again = ft.measure(model, ONE, loss=lambda output: scale * output.sum())
        assert again.first_lost["float16"] is None
    assert measured.loss_scale("float32") == 1


def test_no_loss_scale_where_gradients_are_too_far_apart():
    assert ft.measure(line([1.0] + [2.0**-6] * 10), ONE).loss_scale("float16") is None
    with pytest.raises(ValueError, match=r"name: expected one of float16, bfloat16, float32, got 'float8'"):
        ft.measure(line([0.5]), ONE).loss_scale("float8")


# What stays as it was


def test_the_model_and_random_numbers_stay_as_they_were():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    model[0].weight.grad = torch.full((4, 4), 7.0)
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    buffer = model[1].running_mean
    ft.measure(model, torch.randn(6, 4), loss=torch.sum)
    torch.set_rng_state(state)
    again = torch.get_rng_state()
    torch.randn(6, 4)
    drawn = torch.get_rng_state()
    torch.set_rng_state(again)
    ft.measure(model, torch.randn(6, 4), loss=torch.sum)
    assert torch.equal(torch.get_rng_state(), drawn)  # only the test has drawn
    assert model[1].running_mean is buffer
    for name, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(model[0].weight.grad, torch.full((4, 4), 7.0))
    assert model[3].weight.grad is None
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_hooks_are_removed_after_an_error():
    model = mlp(2)
    with pytest.raises(RuntimeError, match="shapes"):
        ft.measure(model, torch.randn(3, 7))
    assert not any(module._forward_hooks for module in model.modules())


def test_another_type_measures_a_copy():
    model, x = mlp(3), torch.randn(3, 8)
    measured = ft.measure(model, x, loss=torch.sum, dtype=torch.float64)
    assert measured.dtype == "float64"
    assert model[0].weight.dtype == torch.float32
    outputs, _ = autograd(nn.Sequential(model.double(), Sum(1.0)), x.double())
    for call, gradients in zip(measured.calls, outputs, strict=False):
        assert float(call.output.norm) == pytest.approx(norm(gradients), rel=1e-12)


# Zeros


class Parts(nn.Module):
    """A module for each reason of a zero."""

    def __init__(self):
        super().__init__()
        self.dead, self.relu, self.behind_dead = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4, bias=False)
        self.saturated, self.sigmoid = nn.Linear(4, 4), nn.Sigmoid()
        self.unused, self.never, self.cut, self.detached = (nn.Linear(4, 4) for _ in range(4))
        with torch.no_grad():
            self.dead.bias.fill_(-100.0)
            self.saturated.bias.fill_(1000.0)

    def forward(self, x):
        total = self.behind_dead(self.relu(self.dead(x))) + self.sigmoid(self.saturated(x))
        self.unused(x)
        with torch.no_grad():
            cut = self.cut(x)
        return (total + cut + self.detached(x).detach()).sum()


def test_a_zero_says_why():
    zeros = ft.measure(Parts(), torch.randn(3, 4)).zeros
    assert zeros.keys() == {
        "dead",
        "behind_dead.weight",
        "saturated",
        "unused",
        "cut",
        "detached",
        "never.weight",
        "never.bias",
    }
    assert zeros["dead"] == "dead: the derivative in ReluBackward0 is 0 for every element"
    assert zeros["behind_dead.weight"].startswith("lost in MmBackward0, which multiplies by zeros")
    assert zeros["saturated"] == "saturated: the derivative in SigmoidBackward0 rounds to 0; under exact() it does not"
    assert zeros["cut"].startswith("not reached: its output requires no gradient")
    not_used = ("unused", "detached", "never.weight", "never.bias")
    assert {zeros[name] for name in not_used} == {"not used: the loss does not depend on it"}


def test_zeros_are_no_missing_rows():
    measured = ft.measure(Parts(), torch.randn(3, 4))
    rows = {row["name"]: row for row in measured.rows()}
    assert rows["dead"]["log10_output"] == -math.inf
    assert rows["cut"]["log10_output"] is None
    assert rows["cut"]["log10_parameters"] is None
    assert rows["unused"]["log10_output"] is None
    assert "never" not in rows
    assert all((row["why"] is not None) for name, row in rows.items() if name in measured.zeros)


def test_reentrant_checkpoints_are_not_reached():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self, reentrant):
            super().__init__()
            self.reentrant, self.first, self.inner = reentrant, nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return checkpoint(self.inner, self.first(x), use_reentrant=self.reentrant).sum()

    model = Checkpointed(True)
    model.inner.bias.grad = torch.full((4,), 7.0)
    measured = ft.measure(model, torch.randn(3, 4))
    assert measured.zeros.keys() == {"inner"}
    assert measured.zeros["inner"].startswith("not reached: its output requires no gradient")
    assert measured.calls[1].parameters is None
    assert float(measured.calls[0].output.norm) > 0
    assert model.inner.bias.grad.tolist() == [7.0] * 4
    assert all(parameter.grad is None for parameter in model.parameters() if parameter is not model.inner.bias)
    assert ft.measure(Checkpointed(False), torch.randn(3, 4)).zeros == {}


# Layers


def test_layers_are_those_of_the_outermost_list():
    def layer_type(model, *inputs, **how):
        return ft.measure(model, *inputs, **how).layer_type

    class Attributes(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.positions = nn.Embedding(3, 4), nn.Embedding(3, 4)
            self.fc1, self.fc2, self.fc3 = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, ids):
            return self.fc3(self.fc2(self.fc1(self.embedding(ids) + self.positions(ids)).tanh()).tanh()).sum()

    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.RNNCell(4, 4)

        def forward(self, x):
            h = x
            for _ in range(7):
                h = self.cell(x, h)
            return h.sum()

    x = torch.randn(2, 4)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 3, enable_nested_tensor=False)
    assert layer_type(encoder, x[None], loss=torch.sum) == "TransformerEncoderLayer"
    assert layer_type(encoder, x[None], loss=torch.sum, layers="LayerNorm") == "LayerNorm"
    assert layer_type(mlp(3, 4), x, loss=torch.sum) == "Linear"
    assert layer_type(nn.Sequential(*(mlp(1, 4) for _ in range(3))), x, loss=torch.sum) == "Linear"
    assert layer_type(Attributes(), torch.tensor([0, 2])) == "Linear"
    assert layer_type(nn.Linear(4, 1), x, loss=torch.sum) is None
    unrolled = ft.measure(Unrolled(), x)
    assert (unrolled.layer_type, len(unrolled.layers)) == ("RNNCell", 7)
    assert unrolled.layers[-1].label == "cell, call 7"
    with pytest.raises(
        ValueError, match=r"layers: expected a class of modules that are called \(Linear, Sigmoid, Seq.*'Lin'"
    ):
        ft.measure(mlp(2), torch.randn(1, 8), loss=torch.sum, layers="Lin")


# A loss that is there already


def test_a_loss_that_is_there_already():
    model, x = mlp(4).double(), torch.randn(3, 8).double()
    whole = ft.measure(model, x, loss=torch.sum)
    with ft.recording(model) as calls:
        loss = model(x).sum()
    again = ft.measure_loss(loss, model, calls)
    assert again.rows() == whole.rows()
    without = ft.measure_loss(loss, model)
    assert [call.name for call in without.calls] == ["0", "2", "4", "6", ""]
    by_name = {call.name: call for call in whole.calls}
    assert all(call.parameters.norm == by_name[call.name].parameters.norm for call in without.calls)
    assert all(call.output is None for call in without.calls)
    assert "no forward pass was recorded" in without.table()
    logs = [call.parameters.norm.log10() for call in without.layers]
    assert without.decades_per_layer.mean == pytest.approx((logs[0] - logs[-1]) / 3, rel=1e-12)
    loss.backward()  # the graph is still there


def test_all_modules_can_be_recorded():
    first, second = nn.Linear(3, 3), nn.Linear(3, 1)
    with ft.recording() as calls:
        second(first(torch.ones(3)))
    assert [call.module for call in calls.calls] == [first, second]
    first(torch.ones(3))
    assert len(calls.calls) == 2
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got int"), ft.recording(3):
        pass


# What has to be said


def test_compiled_modules_run_uncompiled():
    model, x = mlp(3), torch.randn(3, 8)
    expected = ft.measure(model, x, loss=torch.sum)
    for compiled in (
        torch.compile(model, backend="eager"),
        nn.Sequential(*(torch.compile(m, backend="eager") for m in model)),
    ):
        measured = ft.measure(compiled, x, loss=torch.sum)
        assert measured.notes == ("compiled modules ran uncompiled",)
        assert measured.rows() == expected.rows()


def test_hooks_of_tensors_are_told():
    model = mlp(2)
    model[2].weight.register_hook(lambda gradient: 0 * gradient)
    measured = ft.measure(model, torch.randn(3, 8), loss=torch.sum)
    assert measured.notes == ("hooks of tensors were not run: 2.weight",)
    assert measured.calls[2].parameters.norm


# Bad input


class Logarithm(nn.Module):
    def forward(self, x):
        return (x - 100).log()


def test_the_first_module_that_makes_a_nan_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), Logarithm()), nn.Linear(4, 1))
    with pytest.raises(ValueError, match=r"loss: is nan; the first module .* not finite is '1.1', a Logarithm$"):
        ft.measure(model, torch.randn(3, 4), loss=torch.sum)
    shared = nn.Sequential(nn.Linear(4, 4), logarithm := Logarithm(), nn.Linear(4, 4), logarithm)
    shared[1].forward = lambda x: (
        x if x is not None and logarithm_calls.append(1) is None and len(logarithm_calls) < 2 else x / 0
    )
    logarithm_calls = []
    with pytest.raises(ValueError, match=r"is '1', a Logarithm, in its call 2$"):
        ft.measure(shared, torch.randn(3, 4), loss=torch.sum)
    with pytest.raises(ValueError, match=r"loss: is inf; the output of every module is finite$"):
        ft.measure(mlp(1), torch.randn(3, 8), loss=lambda output: output.sum() / 0)
    model = mlp(1)
    with pytest.raises(ValueError, match=r"loss: is inf; `measure` names the module that made it$"):
        ft.measure_loss(model(torch.ones(8)).sum() / 0, model)


def test_bad_arguments():
    model, x = mlp(2), torch.randn(3, 8)
    for error, message, arguments, how in (
        (TypeError, "model: expected a torch.nn.Module, got int", (3,), {}),
        (ValueError, "model: Sigmoid has no parameter that requires a gradient", (nn.Sigmoid(), x), {}),
        (
            ValueError,
            r"loss: the model returns a Tensor of shape \(3, 8\), expected a scalar or something",
            (model, x),
            {},
        ),
        (ValueError, r"loss: expected a scalar, got a Tensor of shape \(3, 8\)", (model, x), {"loss": lambda y: y}),
        (TypeError, "loss: expected a scalar Tensor, got float", (model, x), {"loss": lambda y: y.sum().item()}),
        (TypeError, "loss: expected a function of the model's output, got Tensor", (model, x), {"loss": x}),
        (
            TypeError,
            "dtype: expected a floating-point torch.dtype, got torch.int64",
            (model, x),
            {"dtype": torch.int64},
        ),
        (TypeError, "dtype: expected a floating-point torch.dtype, got 'float16'", (model, x), {"dtype": "float16"}),
        (TypeError, "model: a DataParallel can't be measured", (nn.DataParallel(mlp(2)), x), {}),
    ):
        with pytest.raises(error, match=message):
            ft.measure(*arguments, **how)


# How it reads


def test_table_figure_and_rows_say_the_same(tmp_path):
    measured = ft.measure(mlp(30), torch.randn(3, 8), loss=torch.sum)
    text = measured.table()
    assert str(measured) == text
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("Sequential: 2 160 parameters in float32 on cpu, loss ")
    assert "30 calls of Linear, 20 of them shown, of 61 calls in all:" in text
    assert f"{measured.layers[0].output.norm.log10():.1f}" in text
    assert " decades per Linear: on its way back, a factor " in text
    assert f"float16 loses more than half of a gradient, first at {measured.first_lost['float16']};" in text
    assert "(layer, a Linear)" in measured.plot()
    assert measured.plot(tmp_path / "gradient.svg") is None
    assert "gradient" in (tmp_path / "gradient.svg").read_text(encoding="utf-8")
    report = measurement_report(measured, {})
    assert report.figure.x.tolist() == list(range(1, 31))
    assert [curve.label for curve in report.figure.curves] == ["output", "parameters", "float16 ends"]
    assert report.figure.curves[0].y.tolist() == [call.output.norm.log10() for call in measured.layers]
    file = io.StringIO()
    write_csv(report.rows, file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [float(row["log10_output"]) for row in rows] == [call.output.norm.log10() for call in measured.calls]
    summary = json.loads(json.dumps(measured.summary(), allow_nan=False))
    assert [row["name"] for row in summary["calls"]] == [call.name for call in measured.calls]
    assert summary["decades_per_layer"]["mean"] == measured.decades_per_layer.mean


def test_few_calls_are_all_shown():
    text = ft.measure(mlp(3), torch.randn(3, 8), loss=torch.sum).table()
    assert text.count("Sigmoid") == 3
    assert "calls in all" not in text


def test_what_is_zero_is_told_in_the_table():
    text = " ".join(ft.measure(Parts(), torch.randn(3, 4)).table().split())
    assert "No gradient at saturated: saturated: the derivative in SigmoidBackward0 rounds to 0" in text
    assert "No gradient at detached, unused, never.weight and 1 more: not used: the loss does not depend on it." in text


# Linearity


class Clipped(torch.autograd.Function):
    """The identity, whose backward clips."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient.clamp(-1.0, 1.0)


class Clipping(nn.Module):
    def forward(self, x):
        return Clipped.apply(x)


def test_clipping_in_the_graph_is_named():
    model = nn.Sequential(nn.Linear(4, 4), Clipping(), nn.Linear(4, 1))
    measured = ft.measure(model, torch.randn(3, 4), loss=torch.sum, check=True)
    assert measured.not_linear == {"1": "ClippedBackward"}
    assert "Not linear in the gradient" in measured.table()
    assert ft.measure(model, torch.randn(3, 4), loss=torch.sum).not_linear is None


def test_ordinary_models_are_linear():
    for model, inputs in (
        (Residual(), torch.randint(11, (2, 5))),
        (nn.Sequential(mlp(40), Sum(1.0)), torch.randn(3, 8)),
    ):
        measured = ft.measure(model, inputs, check=True)
        assert measured.not_linear == {}
        assert "Checked: every operation answers" in measured.table()


def test_numbers_that_underflow_inside_a_node_are_named():
    class Tiny(nn.Module):
        def forward(self, x):
            return x * 2.0**-20

    model = nn.Sequential(nn.Linear(4, 4), Tiny(), nn.Linear(4, 1)).half()
    measured = ft.measure(model, torch.ones(3, 4).half(), loss=lambda output: output.float().sum(), check=True)
    assert measured.not_linear == {"1": "MulBackward0"}


def test_threads_measure_the_same_model():
    model, x = nn.Sequential(*(m for _ in range(8) for m in (nn.Linear(4, 4), nn.Sigmoid()))), torch.ones(2, 4)
    barrier = threading.Barrier(4)

    def run(_):
        barrier.wait()
        return [ft.measure(model, x, loss=torch.sum).rows() for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        found = [rows for several in pool.map(run, range(4)) for rows in several]
    assert all(rows == found[0] for rows in found)
    assert len(found[0]) == 17


def test_inference_mode_around_it():
    model, x = nn.Linear(3, 1), torch.ones(2, 3)
    with torch.inference_mode():
        measured = ft.measure(model, x, loss=torch.sum)
    assert measured.rows() == ft.measure(model, x, loss=torch.sum).rows()


@pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated, by a category that changed
def test_a_script_module_is_refused():
    with pytest.raises(TypeError, match="model: a ScriptModule tells nothing of its modules"):
        ft.measure(torch.jit.script(nn.Sequential(nn.Linear(3, 1))), torch.ones(2, 3), loss=torch.sum)


def test_a_measurement_in_a_notebook():
    measured = ft.measure(mlp(30), torch.ones(4, 8), loss=torch.sum)
    shown = measured._repr_html_()
    assert "Measurement" in shown
    assert "<polyline" in shown
    assert "float16 at" in shown
