"""The private parts of torch that are used, and a test at first use that they still do what is expected."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import get_gradient_edge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch.autograd.graph import Node

    Edge = tuple[Node, int]  # a node of the graph and which of its outputs


def sequence_number(node: Node) -> int:
    """Place of a node in the order of the forward pass; the engine calls the largest first."""
    return node._sequence_nr()


def output_metadata(node: Node) -> Sequence[Any]:
    """Shape, dtype and device of each tensor that the node made, which its cotangents have to have."""
    return node._input_metadata


def gradient_edge(tensor: torch.Tensor) -> Edge:
    """Find the node that made a tensor, or that stands for it if it is a leaf.

    Torch looks for a leaf's node behind a view of the leaf; views of a subclass of Tensor have one node more.
    """
    with torch.inference_mode(False), torch._C.DisableTorchFunctionSubclass():
        edge = get_gradient_edge(tensor)
    return edge[0], edge[1]


def is_leaf(node: Node) -> bool:
    """Tell if the node stands for a leaf of the graph, such as a parameter."""
    return hasattr(node, "variable")


def call(node: Node, cotangents: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
    """Call a node's own backward, without the hooks that the engine would run."""
    if hasattr(node, "apply"):  # a torch.autograd.Function
        # The engine hands such a function zeros for the outputs that nobody used.
        cotangents = [
            torch.zeros(tuple(each.shape), dtype=each.dtype, device=each.device) if cotangent is None else cotangent
            for each, cotangent in zip(output_metadata(node), cotangents, strict=True)
        ]
        with _gradients_kept() if "CheckpointFunction" in node.name() else contextlib.nullcontext():
            found = node.apply(*cotangents)
        results = found if isinstance(found, tuple) else (found,)
        # One for each argument, while the graph knows of tensors only: an edge leads on where a gradient is needed.
        pairs = zip(results, node.needs_input_grad, strict=False)  # type: ignore[attr-defined]
        needed = iter([each for each, is_needed in pairs if is_needed])
        return tuple(None if inner is None else next(needed, None) for inner, _ in node.next_functions)
    found = node(*cotangents)  # type: ignore[operator]
    return found if isinstance(found, tuple) else (found,)


def call_again(node: Node, cotangents: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
    """Call a node that was called before: a checkpoint has given away what it computed for it, and has to run again."""
    found: list[tuple[torch.Tensor | None, ...]] = []
    within_engine(lambda: found.append(call(node, cotangents)))
    return found[0]


def within_engine(work: Callable[[], None]) -> None:
    """Run something as a node of torch's engine.

    What a checkpoint without reentry computes again it keeps for all nodes that one run of the engine calls; outside it
    would compute everything again for each saved tensor.
    """
    with torch.inference_mode(False), torch.enable_grad():
        node = _Work.apply(torch.zeros((), requires_grad=True), work)  # type: ignore[no-untyped-call]
    torch.autograd.backward(node)


class _Work(torch.autograd.Function):
    """The identity, whose backward pass does some work."""

    @staticmethod
    def forward(ctx: Any, number: torch.Tensor, work: Callable[[], None]) -> torch.Tensor:
        ctx.work = work
        return number.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None]:
        ctx.work()
        return cotangent, None


@contextlib.contextmanager
def _gradients_kept() -> Iterator[None]:
    """Let a reentrant checkpoint, which calls torch.autograd.backward by itself, leave ``.grad`` alone."""
    engine = torch.autograd.backward

    def backward(tensors: Sequence[torch.Tensor], *arguments: Any, **keywords: Any) -> None:
        left = [tensor.grad_fn for tensor in tensors]
        seen = set(left)
        kept = []
        while left:
            node = left.pop()
            if node is None:
                continue
            variable = getattr(node, "variable", None)
            if isinstance(variable, torch.nn.Parameter) or (variable is not None and variable.grad is not None):
                kept.append((variable, variable.grad))
                variable.grad = None
            for inner, _ in node.next_functions:
                if inner not in seen:
                    seen.add(inner)
                    left.append(inner)
        try:
            engine(tensors, *arguments, **keywords)
        finally:
            for variable, gradient in kept:
                variable.grad = gradient

    torch.autograd.backward = backward  # type: ignore[assignment]
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.autograd.backward = engine


def has_hooks(tensor: torch.Tensor) -> bool:
    """Tell if hooks would change the gradient of a tensor."""
    return bool(tensor._backward_hooks)


def unusual(tensor: torch.Tensor) -> str | None:
    """Say what a tensor is whose numbers can't be read, or not here alone; None for a usual one."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "inside torch.func (grad, vmap or jvp)"
    kind = type(tensor).__name__
    if kind == "FakeTensor" or tensor.is_meta:
        return "a meta tensor, which has no numbers"
    if kind == "DTensor":
        return "a distributed tensor"
    return None


def is_compiled(node: Node) -> bool:
    """Tell if a node is the backward pass of code that torch.compile made, all of it."""
    return node.name() == "CompiledFunctionBackward"


@functools.cache
def require_working() -> None:
    """Compare a graph of three nodes with autograd, once.

    Raises
    ------
    RuntimeError
        If torch's internals are not what they were.
    """
    x = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    y = (torch.tanh(x) * x).sum()
    try:
        total, product = y.grad_fn, y.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
        (cotangent,) = call(total, [torch.ones(())])  # type: ignore[arg-type]
        of_tanh, of_x = call(product, [cotangent])  # type: ignore[arg-type]
        (through_tanh,) = call(product.next_functions[0][0], [of_tanh])  # type: ignore[union-attr, arg-type]
        in_order = sequence_number(total) > sequence_number(product)  # type: ignore[arg-type]
        shapes = tuple(output_metadata(product)[0].shape) == (3,)  # type: ignore[arg-type]
        found = through_tanh + of_x  # type: ignore[operator]
    except (AttributeError, TypeError, IndexError, ValueError, RuntimeError) as error:
        raise RuntimeError(f"fastgrad.torch can't work with torch {torch.__version__}: {error}") from error
    if not (in_order and shapes and torch.equal(found, torch.autograd.grad(y, x)[0])):
        raise RuntimeError(f"fastgrad.torch can't work with torch {torch.__version__}: its graph answers differently")
