"""The chain as an operator of torch."""

import math

import pytest

import fastgrad as fg

torch = pytest.importorskip("torch")

import fastgrad.torch as ft  # noqa: E402


def given(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    sizes = (shape, shape, shape[1:])
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


@pytest.mark.parametrize("shape", [(5,), (6, 3)])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of opcheck itself, in torch 2.14
def test_gradcheck_and_opcheck(shape):
    torch.autograd.gradcheck(ft.chain, given(*shape))
    torch.library.opcheck(torch.ops.fastgrad.chain, given(*shape))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients_are_those_of_autograd(dtype):
    weight, bias, x = given(7, 4, dtype=dtype)
    o = x
    for w, b in zip(weight, bias, strict=True):
        o = torch.sigmoid(w * o + b)
    cotangent = torch.linspace(-1, 2, 4, dtype=dtype)
    expected = torch.autograd.grad(o, [weight, bias, x], cotangent)
    output = ft.chain(weight, bias, x)
    assert torch.allclose(output, o, rtol=4 * torch.finfo(dtype).eps)
    for ours, theirs in zip(torch.autograd.grad(output, [weight, bias, x], cotangent), expected, strict=True):
        assert ours.dtype == dtype
        assert torch.allclose(ours, theirs, rtol=64 * torch.finfo(dtype).eps, atol=0)


def test_it_runs_compiled_and_in_a_walk():
    arguments = given(5, 3)
    compiled = torch.compile(lambda *these: 2 * ft.chain(*these), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(*arguments), 2 * ft.chain(*arguments))
    found = ft.backward(ft.chain(*arguments).sum())
    expected = torch.autograd.grad(ft.chain(*arguments).sum(), arguments)
    for tensor, gradient in zip(arguments, expected, strict=True):
        assert torch.equal(found[tensor].to_tensor(), gradient)


def test_only_the_end_is_rounded():
    weight, bias = (torch.as_tensor(each[:, 0]) for each in fg.draw(200, 1, weight="normal:std=4"))
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    exact = fg.backprop(weight.numpy(), bias.numpy(), 0.5, cotangent=1e150).grad_x
    (gradient,) = torch.autograd.grad(1e150 * ft.chain(weight, bias, x), x)
    assert gradient.item() == pytest.approx(float(exact), rel=1e-12)
    assert math.log10(abs(gradient.item())) < 50


def test_bad_arguments():
    weight, bias, x = (each.detach() for each in given(5, 3))
    for error, message, arguments in (
        (TypeError, "weight: expected a Tensor, got list", ([1.0], bias, x)),
        (
            TypeError,
            "bias: expected the floating-point type of weight, torch.float64, got torch.float32",
            (weight, bias.float(), x),
        ),
        (TypeError, "weight: expected the floating-point type", (weight.long(), bias.long(), x.long())),
        (ValueError, r"weight, bias: expected one shape .*, got \(5, 3\) and \(4, 3\)", (weight, bias[1:], x)),
        (ValueError, r"x: expected shape \(3,\), got \(2,\)", (weight, bias, x[:2])),
        (ValueError, "weight.*finite", (weight / 0, bias, x)),
    ):
        with pytest.raises(error, match=message):
            ft.chain(*arguments)
