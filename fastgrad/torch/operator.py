"""A chain of sigmoids as an operator of torch, with fastgrad's kernel forward and backward."""

from __future__ import annotations

import torch

from fastgrad.jobs.backprop import backprop


def chain(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Output of chains ``o_l = sigmoid(w_l o_(l-1) + b_l)``, with gradients by the kernel.

    The kernel computes in float64 on the CPU, and its gradients are rounded to the float type of the arguments in the
    end: only there can they become 0 or inf. It takes part in autograd, ``torch.compile`` and ``torch.export``, without
    gradients of gradients.

    Parameters
    ----------
    weight, bias : Tensor, shape (depth,) or (depth, ensemble)
        Of one shape and one floating-point type, on the CPU.
    x : Tensor, shape () or (ensemble,)
        The inputs o_0.

    Returns
    -------
    Tensor, shape () or (ensemble,)

    Raises
    ------
    TypeError, ValueError
        If shapes, types or devices do not fit, or a number is not finite.

    Examples
    --------
    >>> import torch, fastgrad.torch
    >>> weight = torch.tensor([500.0, 500.0, 400.0], dtype=torch.float64, requires_grad=True)
    >>> bias = torch.tensor([-100000.0, -250.0, -200.0], dtype=torch.float64)
    >>> output = fastgrad.torch.chain(weight, bias, torch.tensor(200.0, dtype=torch.float64))
    >>> (0.5 * (output + 149.5) ** 2).backward()
    >>> weight.grad
    tensor([9.3750e+07, 1.8750e+03, 1.8750e+01], dtype=torch.float64)
    """
    for name, value in (("weight", weight), ("bias", bias), ("x", x)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name}: expected a Tensor, got {type(value).__name__}")
        if value.dtype != weight.dtype or not value.is_floating_point():
            raise TypeError(f"{name}: expected the floating-point type of weight, {weight.dtype}, got {value.dtype}")
        if value.device.type not in ("cpu", "meta"):
            raise ValueError(f"{name}: expected a Tensor on the CPU, got one on {value.device}")
    if weight.ndim not in (1, 2) or bias.shape != weight.shape:
        shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        raise ValueError(f"weight, bias: expected one shape (depth,) or (depth, ensemble), got {shapes}")
    if x.shape != weight.shape[1:]:
        raise ValueError(f"x: expected shape {tuple(weight.shape[1:])}, got {tuple(x.shape)}")
    return _chain(weight, bias, x)  # type: ignore[no-any-return]


@torch.library.custom_op("fastgrad::chain", mutates_args=())
def _chain(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    ones = torch.ones_like(x)
    return _gradients(weight, bias, x, ones)[0]


@torch.library.custom_op("fastgrad::chain_gradients", mutates_args=())
def _chain_gradients(
    weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, cotangent: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _gradients(weight, bias, x, cotangent)[1:]


def _gradients(
    weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, cotangent: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output and gradients, rounded to the type of the arguments."""
    given = [each.detach().double().numpy() for each in (weight, bias, x, cotangent)]
    found = backprop(*given)
    output = torch.as_tensor(found.output).reshape(x.shape).to(x.dtype)
    gradients = (found.grad_weight, found.grad_bias, found.grad_x)
    rounded = [
        torch.as_tensor(g.to_float()).reshape(to.shape) for g, to in zip(gradients, (weight, bias, x), strict=True)
    ]
    return output, rounded[0].to(x.dtype), rounded[1].to(x.dtype), rounded[2].to(x.dtype)


@_chain.register_fake
def _(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@_chain_gradients.register_fake
def _(
    weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, cotangent: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(weight), torch.empty_like(bias), torch.empty_like(x)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: torch.autograd.function.FunctionCtx, cotangent: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _chain_gradients(*ctx.saved_tensors, cotangent)  # type: ignore[attr-defined, no-any-return]


_chain.register_autograd(_backward, setup_context=_keep)
