"""A record of a forward pass: which module ran when, and where its output stands in the graph."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_forward_hook

from fastgrad.torch import _internals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastgrad.torch._internals import Edge


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """One call of a module.

    Attributes
    ----------
    module : torch.nn.Module
    edges : tuple of (node, int)
        Where each tensor of the output that requires a gradient stands in the graph: the node that made it, and which
        of the node's outputs it is. A later operation in place on the tensor changes neither.
    shape : tuple of int or None
        Of the output's first tensor; None if there is none.
    finite : tuple of Tensor of bool, shape ()
        For each floating-point tensor of the output: every number is finite.
    """

    module: torch.nn.Module
    edges: tuple[Edge, ...]
    shape: tuple[int, ...] | None
    finite: tuple[torch.Tensor, ...]


@dataclass(eq=False)
class Recording:
    """Calls of modules on one thread, in the order in which they returned."""

    calls: list[RecordedCall] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)

    def hook(self, module: torch.nn.Module, _: Any, output: Any) -> None:
        """Add a call: a forward hook. It keeps no tensor, and waits for no device."""
        if hasattr(module, "_orig_mod"):  # the wrapper of a compiled module, whose own call has just been recorded
            return
        if threading.get_ident() != self.thread:  # another thread runs the same model
            return
        found = list(tensors(output))
        edges = [_internals.gradient_edge(tensor) for tensor in found if tensor.requires_grad]
        numbers = [tensor.detach() for tensor in found if tensor.is_floating_point() or tensor.is_complex()]
        self.calls.append(
            RecordedCall(
                module,
                tuple(dict.fromkeys(edges)),
                tuple(found[0].shape) if found else None,
                tuple(torch.isfinite(tensor).all() for tensor in numbers),
            )
        )


@contextlib.contextmanager
def recording(model: torch.nn.Module | None = None) -> Iterator[Recording]:
    """Record every call of a model's modules, or of all modules there are: a context.

    Forward hooks see the calls; they change nothing. Compiled modules run uncompiled within, because compiled
    code calls no hooks.

    Parameters
    ----------
    model : torch.nn.Module, optional
        Without it the modules of every model are recorded.

    Yields
    ------
    Recording
        For `measure_loss`.

    Examples
    --------
    >>> import torch
    >>> import fastgrad.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Sigmoid())
    >>> with fastgrad.torch.recording(model) as calls:
    ...     loss = model(torch.ones(2, 3)).sum()
    >>> len(calls.calls)      # the two layers and the whole
    3
    """
    if model is not None and not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    record = Recording()
    if model is None:
        handles = [register_module_forward_hook(record.hook)]
    else:
        handles = [module.register_forward_hook(record.hook) for module in model.modules()]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield record
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in a module's output: a tensor, or tuples, lists, dicts and dataclasses of them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from tensors(getattr(value, each.name))
