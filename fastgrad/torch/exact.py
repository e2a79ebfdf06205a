"""Nonlinearities whose derivatives do not round to zero: a context in which torch's own keep what that takes."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastgrad.torch.backward import Term

    # A derivative: float64 of the order of 1 to the argument's, and the power of two that it is times.
    Derivative = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


# ln 2 in two parts (Cody and Waite, Software Manual for the Elementary Functions, 1980): products of the first with
# integers up to 2^20 are exact.
LN_2_HIGH = 0.693147180369123816490
LN_2_LOW = 1.90821492927058770002e-10
# Powers of two that the elements of one term may span: the rest is left to the sum of its cotangent and weights.
SPAN = {torch.float64: 400, torch.float32: 60, torch.bfloat16: 60, torch.float16: 8}


@contextlib.contextmanager
def exact() -> Iterator[None]:
    r"""Let sigmoid, tanh, softplus, logsigmoid and silu keep the derivative of a saturated unit: a context.

    Torch computes the derivative of a sigmoid as ``o (1 - o)``, which rounds to 0 from z = 17 on in float32 and from
    z = 37 on in float64. What runs forward in this context keeps its argument instead: `backward` and `measure` then
    see e^-z, however small; ``loss.backward()`` sees it as long as the float type holds it. Values are torch's. So are
    gradients for \|z\| up to 1/2, where torch's own have not lost digits: within two units in the last place, or, of
    silu, as far as torch's own are off.

    Fused operations, such as those of ``torch.nn.LSTM``, keep torch's derivatives.

    Examples
    --------
    >>> import torch, fastgrad.torch
    >>> z = torch.tensor(400.0, requires_grad=True)
    >>> with fastgrad.torch.exact():
    ...     o = torch.sigmoid(z)
    >>> fastgrad.torch.backward(o)[z].norm()
    1.915e-174
    """
    with _Exact():
        yield


def _exp_of_minus(size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """exp(-size) as a number from 0.7 to 1.5 and a power of two; float64, below one unit in the last place."""
    size = size.double()
    power = torch.round(-size / math.log(2)).nan_to_num(neginf=-(2.0**60))
    rest = (-size - power * LN_2_HIGH) - power * LN_2_LOW
    return torch.exp(torch.where(power > -(2.0**40), rest, 0.0)), power


def _sech_squared(half: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Square of the hyperbolic secant: 1 - tanh², or from 1/2 on, where that loses digits, by the exponential."""
    p, power = _exp_of_minus(2 * half.abs())
    near = half.abs() < 0.5
    far = 4 * p / (1 + torch.ldexp(p, power)).square()
    return torch.where(near, 1 - torch.tanh(half).square(), far), torch.where(near, 0.0, power)


def _sigmoid(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    slope, power = _sech_squared(z.double() / 2)
    return slope / 4, power


def _tanh(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _sech_squared(z.double())


def _softplus(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sigmoid itself."""
    p, power = _exp_of_minus(z.abs())
    near, below = z.abs() < 1, z < 0
    far = torch.where(below, p, 1.0) / (1 + torch.ldexp(p, power))
    return torch.where(near, 0.5 + torch.tanh(z.double() / 2) / 2, far), torch.where(below & ~near, power, 0.0)


def _logsigmoid(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _softplus(-z)


def _silu(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope s (1 + z (1 - s)) with the sigmoid s = (1 + t) / 2, t = tanh(z / 2), of z; by t where |z| is below 1."""
    value, power = _softplus(z)
    other, other_power = _softplus(-z)
    z = z.double()
    t = torch.tanh(z / 2)
    near = 0.5 + (t / 2 + z * (1 - t.square()) / 4)
    return torch.where(z.abs() < 1, near, value * (1 + z * torch.ldexp(other, other_power))), power


class _Kept(torch.autograd.Function):
    """A nonlinearity, with a derivative in mantissa and exponent."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, value: torch.Tensor, derivative: Derivative) -> torch.Tensor:
        ctx.save_for_backward(z)
        ctx.derivative = derivative
        ctx.fastgrad_terms = lambda cotangent: _terms(derivative, ctx.saved_tensors[0], cotangent)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        mantissa, power = ctx.derivative(ctx.saved_tensors[0])
        return (cotangent.double() * torch.ldexp(mantissa, power)).to(cotangent.dtype), None, None


def _terms(derivative: Derivative, z: torch.Tensor, cotangent: torch.Tensor) -> list[Term]:
    """Product of derivative and cotangent: elements of like magnitude in one term each."""
    mantissa, power = derivative(z)
    mantissa, shift = torch.frexp(mantissa * cotangent.double())
    power = power + shift
    span = SPAN.get(cotangent.dtype, 60)
    found: list[Term] = []
    left = mantissa != 0
    while left.any():
        top = int(power[left].max().item())
        here = left & (power > top - span)
        found.append((torch.where(here, torch.ldexp(mantissa, power - top), 0.0).to(cotangent.dtype), top))
        left = left & ~here
    return found or [(torch.zeros_like(cotangent), 0)]


EXACT: dict[Any, tuple[Callable[..., torch.Tensor], Derivative, bool]] = {}  # function: its value, derivative, in place
for _value, _derivative, _functions, _in_place in (
    (torch.sigmoid, _sigmoid, (torch.sigmoid, torch.Tensor.sigmoid, torch.special.expit), False),
    (torch.sigmoid, _sigmoid, (torch.sigmoid_, torch.Tensor.sigmoid_), True),
    (torch.tanh, _tanh, (torch.tanh, torch.Tensor.tanh), False),
    (torch.tanh, _tanh, (torch.tanh_, torch.Tensor.tanh_), True),
    (functional.softplus, _softplus, (functional.softplus,), False),
    (functional.logsigmoid, _logsigmoid, (functional.logsigmoid,), False),
    (functional.silu, _silu, (functional.silu,), False),
):
    for _function in _functions:
        EXACT[_function] = _value, _derivative, _in_place


class _Exact(TorchFunctionMode):
    """Replaces the nonlinearities where a gradient is wanted."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        if function not in EXACT or not args or not _is_wanted(args[0]) or not _is_plain(function, args, keywords):
            return function(*args, **keywords)
        value, derivative, in_place = EXACT[function]
        z = args[0]
        in_place = in_place or keywords.get("inplace", False)
        found = _Kept.apply(z.clone() if in_place else z, value(z.detach()), derivative)  # type: ignore[no-untyped-call]
        return z.copy_(found) if in_place else found


def _is_wanted(z: Any) -> bool:
    return isinstance(z, torch.Tensor) and z.requires_grad and torch.is_grad_enabled() and z.is_floating_point()


def _is_plain(function: Any, args: Any, keywords: dict[str, Any]) -> bool:
    """Tell if nothing but the argument was given: a softplus with another sharpness stays torch's."""
    allowed = {"inplace"} if function is functional.silu else set()
    if function is functional.softplus:
        return (*args[1:], *keywords.values()) in ((), (1, 20), (1.0, 20.0))
    return len(args) == 1 and set(keywords) <= allowed
