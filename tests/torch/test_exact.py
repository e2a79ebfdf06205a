"""Derivatives of saturated units, against mpmath."""

import math

import mpmath
import pytest

import fastgrad as fg

torch = pytest.importorskip("torch")
nn = torch.nn
functional = nn.functional

import fastgrad.torch as ft  # noqa: E402


def exponential(z):
    return mpmath.exp(-mpmath.mpf(z))


# The function, its derivative at 60 digits
FUNCTIONS = {
    "sigmoid": (torch.sigmoid, lambda z: exponential(z) / (1 + exponential(z)) ** 2),
    "tanh": (torch.tanh, lambda z: mpmath.sech(z) ** 2),
    "softplus": (functional.softplus, lambda z: 1 / (1 + exponential(z))),
    "logsigmoid": (functional.logsigmoid, lambda z: 1 / (1 + exponential(-z))),
    "silu": (functional.silu, lambda z: (1 + exponential(z) * (1 + z)) / (1 + exponential(z)) ** 2),
}
POINTS = [-1e6, -400.0, -60.0, -40.0, -30.0, -5.5, -0.25, 0.0, 1.0, 12.0, 19.0, 30.0, 40.0, 400.0, 5000.0]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivatives_against_mpmath(name, dtype):
    function, derivative = FUNCTIONS[name]
    for point in POINTS:
        z = torch.tensor(point, dtype=dtype, requires_grad=True)
        with ft.exact():
            value = function(z)
        assert torch.equal(value, function(z))
        found = ft.backward(value)[z].norm()
        with mpmath.workdps(60):
            expected = abs(derivative(mpmath.mpf(z.item())))
            ours = mpmath.mpf(found.mantissa.item()) * mpmath.mpf(2) ** found.exponent.item()
            assert abs(ours / expected - 1) < 4 * torch.finfo(dtype).eps, point


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_range_the_gradients_are_within_two_units_of_those_of_torch(name, dtype):
    function, derivative = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(1)
    z = torch.rand(100_000, dtype=dtype, generator=generator) - 0.5  # further out torch's own are less exact
    z = z.requires_grad_()
    cotangent = torch.linspace(1, 2, len(z), dtype=dtype)
    (theirs,) = torch.autograd.grad(function(z), z, cotangent)
    with ft.exact():
        value = function(z)
    (ours,) = torch.autograd.grad(value, z, cotangent, retain_graph=True)
    apart = (ours - theirs).abs() > 2 * torch.finfo(dtype).eps * theirs.abs()
    assert name == "silu" or not apart.any()
    with mpmath.workdps(60):  # of silu torch's own are off by nearly two units
        for at in torch.nonzero(apart)[:20, 0].tolist():
            expected = derivative(mpmath.mpf(z[at].item())) * mpmath.mpf(cotangent[at].item())
            off, off_theirs = (abs(mpmath.mpf(g[at].item()) / expected - 1) for g in (ours, theirs))
            assert off < torch.finfo(dtype).eps < off_theirs
    assert torch.equal(ft.backward(value, [z], cotangent=cotangent)[z].to_tensor(dtype), ours)


def test_elements_that_lie_far_apart_are_all_kept():
    z = torch.tensor([0.0, 40.0, 400.0, 4000.0, -100.0], requires_grad=True)
    with ft.exact():
        gradient = ft.backward(torch.sigmoid(z).sum())[z]
    log10 = gradient.log2_sizes().sort(descending=True)[0] * math.log10(2)
    expected = [math.log10(0.25), *(-size / math.log(10) for size in (40, 100, 400, 4000))]
    assert log10.tolist() == pytest.approx(expected, rel=1e-7)


def test_a_saturated_network_in_float32_follows_a_chain():
    depth = 60
    weight, bias = fg.draw(depth, 1, weight="normal:std=500", seed=1)
    model = nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(1, 1), nn.Sigmoid()))).double()
    with torch.no_grad():
        for module, w, b in zip(model[::2], weight[:, 0], bias[:, 0], strict=True):
            module.weight.fill_(w)
            module.bias.fill_(b)
    x = torch.full((1, 1), 0.5, dtype=torch.float64)
    plain = ft.measure(model, x, loss=torch.sum)
    with ft.exact():
        measured = ft.measure(model, x, loss=torch.sum)
    assert plain.calls[0].output.norm == fg.Scaled(0.0)
    assert plain.zeros["0"].startswith("saturated")
    assert measured.zeros == {}
    expected = fg.backprop(weight[:, 0], bias[:, 0], 0.5).grad_bias[0].log10()
    assert measured.calls[0].output.norm.log10() == pytest.approx(expected, rel=1e-12)


def test_ways_to_call_them():
    z = torch.linspace(20, 30, 5, requires_grad=True)
    for call in (
        torch.sigmoid,
        torch.Tensor.sigmoid,
        torch.special.expit,
        functional.sigmoid,
        nn.Sigmoid(),
        lambda z: (z * 1).sigmoid_(),
        lambda z: torch.sigmoid_(z * 1),
    ):
        with ft.exact():
            value = call(z)
        assert torch.equal(value, torch.sigmoid(z))
        (gradient,) = torch.autograd.grad(value.sum(), z)
        assert gradient.tolist() == pytest.approx(torch.exp(-z).tolist(), rel=1e-6)
    with ft.exact():
        (gradient,) = torch.autograd.grad(nn.SiLU(inplace=True)(z * -1).sum(), z)
        assert (gradient > 0).all()
        assert functional.softplus(z, beta=2).grad_fn.name() == "SoftplusBackward0"
        assert not torch.sigmoid(z.detach()).requires_grad


def test_gradients_of_gradients():
    z = torch.tensor(0.5, requires_grad=True, dtype=torch.float64)
    with ft.exact():
        value = torch.sigmoid(z)
    (gradient,) = torch.autograd.grad(value, z, create_graph=True)
    (second,) = torch.autograd.grad(gradient, z)
    o = torch.sigmoid(z.detach())
    assert second.item() == pytest.approx((o * (1 - o) * (1 - 2 * o)).item(), rel=1e-12)
