"""Gradients against autograd's bits, against mpmath, against chains, and in ranges where autograd reads 0."""

import math

import mpmath
import numpy as np
import pytest

import fastgrad as fg

torch = pytest.importorskip("torch")
nn = torch.nn

import fastgrad.torch as ft  # noqa: E402
from fastgrad.torch import _internals  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20260101)


def mlp(depth, width=16, nonlinearity=nn.Sigmoid, dtype=torch.float32):
    modules = (module for _ in range(depth) for module in (nn.Linear(width, width), nonlinearity()))
    return nn.Sequential(*modules).to(dtype)


def equal_bits(model, loss):
    """Compare every parameter's gradient with autograd's."""
    found = ft.backward(loss)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    for parameter, gradient in zip(parameters, expected, strict=True):
        if gradient is None:
            assert parameter not in found
        else:
            assert torch.equal(found[parameter].to_tensor(gradient.dtype), gradient)
    assert all(parameter.grad is None for parameter in parameters)
    assert len(found) > 0


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 3)),
            nn.Hardtanh(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        return self.layers(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru = nn.LSTM(5, 6, 2, batch_first=True), nn.GRU(6, 4, bidirectional=True)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        x, (h, _) = self.lstm(x)
        y, _ = self.gru(x)
        first, second = y.split(4, dim=-1)
        return torch.cat([first * self.scale, second.cumsum(1)], -1).logsumexp(-1) + h.sum()


MODELS = {
    "mlp": lambda: (mlp(6), torch.randn(3, 16)),
    "transformer": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2, enable_nested_tensor=False),
        torch.randn(2, 5, 16),
    ),
    "convolutions": lambda: (Convolutions(), torch.randn(4, 3, 8, 8)),
    "recurrent": lambda: (Recurrent(), torch.randn(3, 7, 5)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_bits_are_those_of_autograd(name, dtype, device):
    model, x = MODELS[name]()
    model, x = model.to(device, dtype), x.to(device, dtype)
    equal_bits(model, model(x).float().square().mean())


def test_bits_under_autocast():
    model = mlp(4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(3, 16)).float().square().mean()
    equal_bits(model, loss)


def language_model(name):
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = torch.randint(99, (2, 12))
    text = {"input_ids": ids, "labels": ids}
    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    if name == "GPT-2":
        config = transformers.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2, n_positions=16, **special)
        return transformers.GPT2LMHeadModel(config), text
    if name == "Llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, intermediate_size=64, **special)), text
    if name == "BERT":
        return transformers.BertForMaskedLM(transformers.BertConfig(**sizes, intermediate_size=64)), text
    if name == "T5":
        config = transformers.T5Config(
            vocab_size=99, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
        )
        return transformers.T5ForConditionalGeneration(config), text
    if name == "Mamba":
        config = transformers.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, state_size=8, **special)
        return transformers.MambaForCausalLM(config), text
    config = transformers.ViTConfig(**{**sizes, "intermediate_size": 64, "image_size": 16, "patch_size": 8})
    del sizes["vocab_size"]
    return transformers.ViTForImageClassification(config), {
        "pixel_values": torch.randn(2, 3, 16, 16),
        "labels": torch.tensor([0, 1]),
    }


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "BERT", "T5", "ViT", "Mamba"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bits_of_models_of_transformers(name, dtype):
    model, inputs = language_model(name)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    model = model.to(dtype)
    equal_bits(model, model(**inputs).loss)
    measured = ft.measure(model, **inputs)
    assert len(measured.layers) >= 2
    assert measured.zeros.keys() <= {label for label in measured.zeros if "position" in label or "pooler" in label}


def test_float32_follows_float64_to_depth_2000():
    model = mlp(2000)
    x = torch.randn(8, 16)
    found = {}
    for dtype in (torch.float32, torch.float64):
        model = model.to(dtype)
        first = model[0].weight
        found[dtype] = ft.backward(model(x.to(dtype)).sum(), [first])[first].log10()
    assert found[torch.float64] < -1700
    assert found[torch.float32] == pytest.approx(found[torch.float64], abs=1e-4)


def test_chains_are_those_of_backprop():
    depth = 10_000
    w, b = fg.draw(depth, 1, weight="normal:std=4", bias="normal:std=1", seed=3)
    model = mlp(depth, 1, dtype=torch.float64)
    with torch.no_grad():
        for module, weight, bias in zip(model[::2], w[:, 0], b[:, 0], strict=True):
            module.weight.fill_(weight)
            module.bias.fill_(bias)
    found = ft.backward(model(torch.full((1, 1), 0.5, dtype=torch.float64)).sum())
    expected = fg.backprop(w[:, 0], b[:, 0], 0.5)
    for grad, parameter in ((expected.grad_weight, "weight"), (expected.grad_bias, "bias")):
        ours = np.array([found[getattr(module, parameter)].log10() for module in model[::2]])
        assert np.abs(ours - grad.log10()).max() < 1e-9


def test_a_network_of_width_3_against_mpmath():
    depth, width = 200, 3
    model = mlp(depth, width, nn.Tanh, torch.float64)
    x = torch.randn(1, width, dtype=torch.float64)
    found = ft.backward(model(x).sum())
    with mpmath.workdps(60):
        weights = [mpmath.matrix(module.weight.tolist()) for module in model[::2]]
        activations, o = [], mpmath.matrix(x[0].tolist())
        for module, w in zip(model[::2], weights, strict=True):
            activations.append(o)
            o = (w * o + mpmath.matrix(module.bias.tolist())).apply(mpmath.tanh)
        outputs = [*activations[1:], o]
        adjoint = mpmath.matrix([1] * width)
        for link in reversed(range(depth)):
            delta = mpmath.matrix([a * (1 - o * o) for a, o in zip(adjoint, outputs[link], strict=True)])
            gradient = delta * activations[link].T
            expected = mpmath.sqrt(sum(each**2 for each in gradient))
            norm = found[model[2 * link].weight].norm()
            ours = mpmath.mpf(float(norm.mantissa)) * mpmath.mpf(2) ** int(norm.exponent)
            assert abs(ours / expected - 1) < 1e-12, link
            adjoint = weights[link].T * delta


# bfloat16 rounds each cotangent to 8 bits, some 220 times to the first layer: 0.3 % times the square root of that.
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_follows_float64_a_hundred_layers_deep(dtype, rtol, device):
    model, x = mlp(110, 64), torch.randn(16, 64)
    model, x = model.to(device, dtype), x.to(device, dtype)
    loss = model(x).float().sum()
    found = ft.backward(loss)
    assert torch.count_nonzero(torch.autograd.grad(loss, model[0].weight, retain_graph=True)[0]) == 0
    half = [found[module.weight].log10() for module in model[::2]]
    model, x = model.double(), x.double()
    found = ft.backward(model(x).sum())
    whole = [found[module.weight].log10() for module in model[::2]]
    assert whole[0] < -50
    assert np.abs(10 ** np.subtract(half, whole) - 1).max() < rtol


def test_a_dead_branch_beside_a_residual_stream():
    branch, stream = mlp(300, 8), nn.Linear(8, 8)
    x = torch.randn(4, 8)
    loss = (stream(x) + branch(x)).sum()
    found = ft.backward(loss)
    expected = torch.autograd.grad(loss, stream.weight, retain_graph=True)[0]
    assert torch.equal(found[stream.weight].to_tensor(torch.float32), expected)
    alone = ft.backward(branch(x).sum())
    assert found[branch[0].weight].log10() == pytest.approx(alone[branch[0].weight].log10(), rel=1e-12)
    assert found[branch[0].weight].log10() < -200


def test_contributions_that_lie_far_apart_are_all_kept():
    shared = nn.Parameter(torch.ones(4))
    far = shared
    for _ in range(300):
        far = far * 2.0**-20
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0])
    loss = (shared * mask).sum() + (far * (2 - mask)).sum()
    gradient = ft.backward(loss)[shared]
    assert len(gradient.terms) == 2
    sizes, power = zip(*((t.abs().max().item(), e) for t, e in gradient.terms), strict=True)
    assert sorted(math.log2(size) + e for size, e in zip(sizes, power, strict=True)) == [-5999, 0]
    assert gradient.norm() == fg.Scaled(math.sqrt(2))
    assert gradient.to_tensor(torch.float32).tolist() == [1, 1, 0, 0]
    assert gradient.share_lost(torch.float64) == 0.5
    assert gradient.log2_sizes().sort()[0].tolist() == [-5999, -5999, 0, 0]


def test_scaled_tensors():
    gradient = ft.ScaledTensor([(torch.tensor([3.0, 0.0, 4.0]), -1000)])
    assert gradient.norm() == fg.Scaled(5.0, -1000)
    assert gradient.log10() == pytest.approx(math.log10(5) - 1000 * math.log10(2), rel=1e-14)
    assert gradient.to_tensor().tolist() == [3 * 2.0**-1000, 0, 4 * 2.0**-1000]
    assert gradient.to_tensor(torch.float32).tolist() == [0, 0, 0]
    assert (gradient.share_lost(torch.float32), gradient.share_lost(torch.float64)) == (1, 0)
    assert ft.ScaledTensor([(torch.zeros(3), 5)]).log10() == -math.inf
    assert repr(gradient) == "ScaledTensor(shape=(3,), norm=4.666e-301)"


def test_norms_alone():
    model = mlp(30)
    loss = model(torch.randn(2, 16)).sum()
    gradients, norms = ft.backward(loss), ft.backward(loss, keep="norms")
    assert gradients.keys() == norms.keys()
    assert all(gradients[parameter].norm() == norms[parameter] for parameter in norms)


def test_inputs_that_are_no_leaves_and_a_cotangent():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = x.exp()
    z = y.square()
    cotangent = torch.randn(3, 4, dtype=torch.float64)
    found = ft.backward(z, [x, y, z], cotangent=cotangent)
    expected = torch.autograd.grad(z, [x, y, z], cotangent)
    for tensor, gradient in zip((x, y, z), expected, strict=True):
        assert torch.equal(found[tensor].to_tensor(), gradient)


def test_sums_and_casts_that_the_engine_makes():
    class Broadcasting(torch.autograd.Function):
        @staticmethod
        def forward(_, a, factor, b):
            return a * factor + b

        @staticmethod
        def backward(_, gradient):  # of the wrong shape, and type
            return gradient * 2, None, gradient.double()

    a, b = torch.randn(3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    loss = Broadcasting.apply(a, 2.0, b).sum()
    found, expected = ft.backward(loss), torch.autograd.grad(loss, [a, b])
    assert torch.equal(found[a].to_tensor(torch.float32), expected[0])
    assert torch.equal(found[b].to_tensor(torch.float32), expected[1])


class SomeUsed(torch.autograd.Function):
    """Three outputs, one of them an index; its backward pass counts on zeros for what nobody used."""

    @staticmethod
    def forward(ctx, a):
        index = a.argmax()
        ctx.mark_non_differentiable(index)
        return a * 2, a * 3, index

    @staticmethod
    def backward(_, first, second, index):
        return first * 2 + second * 3 + index.to(first.dtype)


@pytest.mark.parametrize("used", [0, 1])
def test_functions_with_outputs_that_nobody_used(used, device):
    a = torch.randn(3, requires_grad=True, device=device)
    loss = SomeUsed.apply(a)[used].sum()
    assert torch.equal(ft.backward(loss)[a].to_tensor(torch.float32), torch.autograd.grad(loss, a)[0])


def test_a_function_of_the_user_with_any_attribute():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            ctx.terms = [1, 2]
            return a * 2

        @staticmethod
        def backward(_, gradient):
            return gradient * 2

    a = torch.ones(3, requires_grad=True)
    assert ft.backward(Own.apply(a).sum())[a].to_tensor().tolist() == [2, 2, 2]


def test_a_checkpoint_is_computed_again_once(device):
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(self)
            return super().forward(x)

    layers = [module for _ in range(12) for module in (Counted(8, 8), nn.Sigmoid(), nn.Dropout(0.1))]
    model = nn.Sequential(*layers).to(device)
    x = torch.randn(3, 8, device=device, requires_grad=True)
    loss = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).sum()
    calls.clear()
    found = ft.backward(loss)
    assert len(calls) == 12
    expected = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.equal(found[parameter].to_tensor(torch.float32), gradient)


def test_nodes_of_a_checkpoint_that_are_called_more_than_once():
    inner, far = mlp(2), mlp(300)
    x = torch.randn(3, 16)

    def loss_of(h):
        return (h.sum() + far(h).sum()) * 2.0**-5

    through = torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False)
    found, expected = ft.backward(loss_of(through)), ft.backward(loss_of(inner(x)))
    assert len(found[inner[0].weight].terms) == 2
    assert all(found[parameter].norm() == expected[parameter].norm() for parameter in expected)
    loss = loss_of(inner(x))
    with torch.inference_mode():
        assert ft.backward(loss).keys() == expected.keys()


HALF = {
    # (loss of a float16 tensor, its exact gradient): a node makes its result 2^-22 times as large, or 2^16 times
    "mean": (lambda x: x.mean(), lambda x: torch.full_like(x, 1 / x.numel())),
    "factor": (lambda x: (x * 1e-8).sum(), lambda x: torch.full_like(x, 1e-8)),
    "large factor": (lambda x: (x * 1e-4 * 6e4 * 1.9).float().sum(), lambda x: torch.full_like(x, 11.4)),
    "cast": (lambda x: (x.float() * 2.0**-23).sum(), lambda x: torch.full_like(x, 2.0**-23)),
    "cast of nothing left": (lambda x: (x.float() * 2.0**-24 * 2.0**-10).sum(), lambda x: torch.full_like(x, 2.0**-34)),
}


@pytest.mark.parametrize("name", HALF)
def test_float16_results_that_leave_its_range(name, device):
    loss, expected = HALF[name]
    x = torch.rand(2**22, device=device).half().requires_grad_()
    gradient = ft.backward(loss(x * 1.0))[x]
    assert torch.allclose(gradient.to_tensor(), expected(x.detach().double()), rtol=4e-3, atol=0)


def test_a_float32_cotangent_that_is_cast_to_float16(device):
    x, factors = torch.rand(1000, device=device, requires_grad=True), torch.rand(1000, device=device) + 0.1
    gradient = ft.backward((x.half().float() * (factors * 2.0**-22)).sum())[x]
    assert torch.allclose(gradient.to_tensor(), factors.double() * 2.0**-22, rtol=2.0**-10, atol=0)


@pytest.mark.parametrize(("value", "exponent"), [(2.0**20, -1090), (2.0**-100, 1100), (1.0, -1074), (3.0, 1022)])
def test_rounding_to_a_float_at_the_ends_of_its_range(value, exponent):
    gradient = ft.ScaledTensor([(torch.tensor([value]), exponent)])
    assert gradient.to_tensor().item() == math.ldexp(value, exponent)


def test_float_types_of_a_share():
    gradient = ft.ScaledTensor([(torch.ones(3), 0)])
    with pytest.raises(ValueError, match=r"dtype: expected torch\.float16, .*, got torch\.float8_e5m2"):
        gradient.share_lost(torch.float8_e5m2)


def test_what_is_refused_because_its_numbers_are_elsewhere():
    def within(x):
        loss = (x**2).sum()
        ft.backward(loss)
        return loss

    with pytest.raises(TypeError, match=r"loss: expected a plain Tensor with numbers, got one .* torch\.func"):
        torch.func.grad(within)(torch.ones(3))
    with pytest.raises(TypeError, match=r"loss: .*, got one that is a meta tensor"):
        ft.backward(torch.ones(3, requires_grad=True, device="meta").sum())
    compiled = torch.compile(mlp(1), backend="aot_eager")
    with pytest.raises(TypeError, match=r"loss: was computed by torch\.compile, .*force_eager"):
        ft.backward(compiled(torch.ones(16)).sum())


def test_bad_input():
    model = mlp(2)
    vector = model(torch.randn(3, 16))
    freed = model(torch.randn(3, 16)).sum()
    freed.backward()
    sparse = nn.Embedding(5, 3, sparse=True)
    for error, message, arguments, how in (
        (TypeError, "loss: expected a scalar Tensor, got float", (3.5,), {}),
        (ValueError, r"loss: expected a real scalar, got a Tensor of shape \(3, 16\)", (vector,), {}),
        (ValueError, r"loss: expected a real scalar, got a complex Tensor", (vector.sum() * 1j,), {}),
        (ValueError, r"loss: expected a finite number, got nan; measure\(\) names", (vector.sum() * math.nan,), {}),
        (TypeError, "cotangent: expected a Tensor, got float", (vector,), {"cotangent": 1.0}),
        (ValueError, "cotangent: expected finite numbers", (vector,), {"cotangent": torch.full((3, 16), math.inf)}),
        (TypeError, "inputs: expected Tensors, got str at place 0", (vector.sum(), "weight"), {}),
        (ValueError, "inputs: expected Tensors that require a gradient", (vector.sum(), [torch.ones(2)]), {}),
        (ValueError, "loss: has no graph", (torch.ones(()),), {}),
        (ValueError, "loss: its graph was freed", (freed,), {}),
        (ValueError, "keep: expected 'gradients' or 'norms', got 'all'", (vector.sum(),), {"keep": "all"}),
        (ValueError, r"cotangent: expected shape \(3, 16\), got \(3,\)", (vector,), {"cotangent": torch.ones(3)}),
        (TypeError, "makes a sparse gradient", (sparse(torch.tensor([1, 2])).sum(),), {}),
    ):
        with pytest.raises(error, match=message):
            ft.backward(*arguments, **how)


def test_gradients_that_are_not_finite():
    x = torch.zeros(2, requires_grad=True)
    assert ft.backward(x.sqrt().sum())[x].to_tensor().tolist() == [math.inf, math.inf]
    with pytest.raises(ValueError, match=r"gradient that arrives at a tensor of shape \(2,\) is inf"):
        ft.backward(x.sqrt().sum(), keep="norms")
    with pytest.raises(ValueError, match="gradient that arrives at MulBackward0 is inf"):
        ft.backward((2 * x).sqrt().sum())


def test_norms_whose_squares_leave_float64():
    x = torch.ones(4, dtype=torch.float64, requires_grad=True)
    for factor in (2.0**-600, 2.0**600):
        assert ft.backward((x * factor).sum())[x].norm() == fg.Scaled(2.0) * fg.Scaled(factor)


def test_internals_that_have_changed_are_told(monkeypatch):
    monkeypatch.setattr(_internals, "sequence_number", lambda _: 0)
    _internals.require_working.cache_clear()
    with pytest.raises(RuntimeError, match=r"fastgrad\.torch can't work with torch .*answers differently"):
        ft.backward(mlp(1)(torch.ones(16)).sum())
    monkeypatch.undo()
    _internals.require_working()


def test_torch_is_not_imported_by_fastgrad(python):
    assert python("import sys, fastgrad, fastgrad.cli; fastgrad.backprop; print('torch' in sys.modules)") == "False\n"


def test_a_subclass_of_tensor():
    class Tagged(torch.Tensor):
        """Tensors whose results are tagged too."""

    leaf = torch.randn(4, dtype=torch.float64).as_subclass(Tagged).requires_grad_()
    loss = (leaf * leaf.exp()).sum()
    for found in (ft.backward(loss), ft.backward(loss, [leaf])):
        assert torch.equal(found[leaf].to_tensor(), torch.autograd.grad(loss, leaf, retain_graph=True)[0])


def test_a_nested_gradient_is_refused():
    rows = [torch.ones(size, 3, requires_grad=True) for size in (2, 4)]
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    with pytest.raises(TypeError, match="makes a nested gradient"):
        ft.backward(nested.values().sum())
