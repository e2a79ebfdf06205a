"""The gradient through a model, module by module: how large it is, how fast it vanishes, what float formats lose."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastgrad.jobs.growth import lyapunov_of
from fastgrad.scaled import Scaled
from fastgrad.torch import _internals
from fastgrad.torch.backward import walk
from fastgrad.torch.linearity import Linearity
from fastgrad.torch.measurement import FORMATS, Call, Decades, Magnitudes, Measurement, worst_share
from fastgrad.torch.recording import recording
from fastgrad.torch.zeros import Zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastgrad.torch._internals import Edge
    from fastgrad.torch.backward import ScaledTensor
    from fastgrad.torch.recording import RecordedCall, Recording


LOST_SHARE = 0.5  # of a gradient's elements: a format that loses more has lost the gradient
NO_LAYERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Embedding, torch.nn.EmbeddingBag)

DISTRIBUTED = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
NEEDS_NONE = (
    "not reached: its output requires no gradient (no parameter before it, no_grad, detach, reentrant checkpoint)"
)


def measure(
    model: torch.nn.Module,
    *inputs: Any,
    loss: Callable[[Any], torch.Tensor] | None = None,
    dtype: torch.dtype | None = None,
    check: bool = False,
    layers: str | None = None,
    **keywords: Any,
) -> Measurement:
    """Run a model once, and measure the gradient of its loss at the output and the parameters of every module.

    The model is left as it was: parameters, their ``.grad``, buffers such as running means, and torch's random numbers.

    Parameters
    ----------
    model : torch.nn.Module
        In the mode it is in: `eval` or `train`.
    *inputs, **keywords
        What the model is called with.
    loss : callable, optional
        Makes a scalar of the model's output. Without it the output itself, or its ``.loss``, has to be one.
    dtype : torch.dtype, optional
        Measure a copy of the model, and of floating-point inputs, in this type.
    check : bool
        Call every node of the graph a second time with its cotangent times 64, and name those whose answer is not 64
        times as large, bit for bit: clipping in the graph, or numbers that underflow inside a node.
    layers : str, optional
        Class of the modules over which the gradient's growth is taken, as "GPT2Block". Without it, that of the
        outermost list of modules; else the first that is called several times.

    Returns
    -------
    Measurement

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, the loss is no scalar, has no graph or is not finite (the first module that made it so
        is named), or the model is one that can't be measured: without parameters, or distributed.

    Examples
    --------
    >>> import torch, fastgrad.torch
    >>> _ = torch.manual_seed(0)
    >>> layers = [torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Sigmoid()) for _ in range(200)]
    >>> m = fastgrad.torch.measure(torch.nn.Sequential(*layers), torch.randn(8, 16), loss=torch.sum)
    >>> f"{m.calls[0].output.norm:.1e}"          # of dloss/doutput at the first layer: float32 ends at 1e-45
    '3.2e-171'
    >>> m.first_lost["float32"]                  # on the way back from the loss
    '146.1'
    """
    require_model(model)
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: expected a function of the model's output, got {type(loss).__name__}")
    if dtype is not None:
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"dtype: expected a floating-point torch.dtype, got {dtype!r}")
        model = copy.deepcopy(model).to(dtype)
        inputs, keywords = _cast(inputs, dtype), _cast(keywords, dtype)
    with left_as_it_was(model), torch.inference_mode(False), torch.enable_grad():
        with recording(model) as calls:
            output = model(*inputs, **keywords)
        return measure_loss(_loss_of(output, loss), model, calls, check=check, layers=layers)


def measure_loss(
    loss: torch.Tensor,
    model: torch.nn.Module,
    calls: Recording | None = None,
    *,
    check: bool = False,
    layers: str | None = None,
) -> Measurement:
    """Measure the gradient of a loss that is there already; its graph is kept, and ``.grad`` untouched.

    Parameters
    ----------
    loss : Tensor, shape ()
    model : torch.nn.Module
        Whose parameters and modules are measured.
    calls : Recording, optional
        Of the forward pass that made the loss: see `recording`. Without it no outputs are measured, and a row stands
        for a module with parameters in it.
    check, layers
        As for `measure`.

    Returns
    -------
    Measurement

    Raises
    ------
    TypeError, ValueError
        As `measure` does.
    """
    require_model(model)
    names = {module: _without_wrappers(name) for name, module in model.named_modules()}
    recorded = [call for call in calls.calls if call.module in names] if calls is not None else None
    _require_finite(loss, recorded or [], names)
    linearity = Linearity() if check else None
    walked = _Walked(loss, model, recorded or [], linearity)
    if recorded is None:
        made = [(module, walked.row(module, names[module], 1, None)) for module in _inner_first(model)]
        made = [(module, row) for module, row in made if row.parameters is not None]
    else:
        counted: Counter[torch.nn.Module] = Counter()
        made = []
        for call in recorded:
            counted[call.module] += 1
            made.append((call.module, walked.row(call.module, names[call.module], counted[call.module], call)))
    layer_type = _layer_type(made, layers)
    rows = _with_factors([replace(row, layer=row.type == layer_type) for _, row in made])
    trained = walked.parameters
    return Measurement(
        calls=tuple(rows),
        layer_type=layer_type,
        decades_per_layer=_decades([row for row in rows if row.layer]),
        first_lost={name: _first_lost(rows, name) for name in FORMATS},
        loss=loss.item(),
        model=type(getattr(model, "_orig_mod", model)).__name__,
        count=sum(parameter.numel() for parameter in trained),
        dtype=_listed(str(parameter.dtype).removeprefix("torch.") for parameter in trained),
        device=_listed(str(parameter.device) for parameter in trained),
        not_linear=None if linearity is None else linearity.by_call(recorded or [], rows),
        zeros=walked.zeros_of(made, names),
        notes=tuple(_notes(model, recorded is None)),
    )


class _Walked:
    """Gradients of a loss at the edges of recorded calls and at a model's parameters."""

    def __init__(
        self, loss: torch.Tensor, model: torch.nn.Module, recorded: list[RecordedCall], inspect: Linearity | None
    ) -> None:
        self.parameters: dict[torch.nn.Parameter, Edge] = {
            parameter: _internals.gradient_edge(parameter)
            for parameter in model.parameters()
            if parameter.requires_grad
        }
        self._zeros = Zeros(loss)
        self._found: dict[Edge, Magnitudes] = {}
        edges = [*self.parameters.values(), *(edge for call in recorded for edge in call.edges)]
        walk(loss, {edge: self._noting(edge) for edge in edges}, inspect=inspect)

    def _noting(self, edge: Edge) -> Callable[[ScaledTensor], None]:
        def note(gradient: ScaledTensor) -> None:
            self._found[edge] = Magnitudes.of(gradient)

        return note

    def row(self, module: torch.nn.Module, name: str, call: int, recorded: RecordedCall | None) -> Call:
        """Make the row of a call, or of a module whose calls were not recorded."""
        output, why = None, None
        if recorded is not None:
            output = self._together(recorded.edges)
            why = self._why(recorded.edges, output) if recorded.edges else NEEDS_NONE
        edges = [self.parameters[parameter] for parameter in module.parameters() if parameter in self.parameters]
        parameters = self._together(edges)
        own = self._together(self.parameters[each] for each in _own(module) if each in self.parameters)
        if why is None and edges:
            why = self._why(edges, parameters)
        shape = None if recorded is None else recorded.shape
        innermost = not any(True for _ in module.children())
        kind = type(module).__name__
        return Call(
            name, call, kind, shape, False, output, parameters, own, innermost, recorded is not None, None, None, why
        )

    def _together(self, edges: Iterable[Edge]) -> Magnitudes | None:
        return Magnitudes.together(self._found[edge] for edge in edges if edge in self._found)

    def _why(self, edges: Sequence[Edge], measured: Magnitudes | None) -> str | None:
        """Explain why a gradient is zero or missing; None if it is neither."""
        return None if measured is not None and measured.norm else self._zeros.why(edges[0])

    def zeros_of(self, calls: list[tuple[torch.nn.Module, Call]], names: dict[torch.nn.Module, str]) -> dict[str, str]:
        """Explain zeros: of calls of modules that hold no others, on the way back from the loss, then of parameters."""
        explained: dict[str, str] = {}
        done: dict[torch.nn.Module, str] = {}
        for module, row in reversed(calls):
            without_graph = row.why is NEEDS_NONE and not any(p in self.parameters for p in _own(module))
            if row.why is None or row.norm or without_graph or not row.innermost:
                continue
            explained[row.label] = done[module] = row.why
        for module, name in names.items():
            for own, parameter in module.named_parameters(recurse=False):
                if module in done or parameter not in self.parameters:
                    continue
                edge = self.parameters[parameter]
                if edge not in self._found or not self._found[edge].norm:
                    explained[f"{name}.{own}".removeprefix(".")] = self._zeros.why(edge)
        return explained


def _without_wrappers(name: str) -> str:
    """Name of a module without the levels that `torch.compile` adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _inner_first(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Modules in their order, each behind those within it, and once."""
    seen: set[torch.nn.Module] = set()

    def below(outer: torch.nn.Module) -> Iterator[torch.nn.Module]:
        for inner in outer.children():
            if inner not in seen:
                yield from below(inner)
        if outer not in seen:
            seen.add(outer)
            yield outer

    return below(module)


def _own(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return list(module.parameters(recurse=False))


def _layer_type(calls: list[tuple[torch.nn.Module, Call]], wanted: str | None) -> str | None:
    """Class of the modules that are layers: of the outermost list of modules, else the first that is called twice."""
    if wanted is not None:
        if all(row.type != wanted for _, row in calls):
            types = _listed(row.type for _, row in calls)
            raise ValueError(f"layers: expected a class of modules that are called ({types}), got {wanted!r}")
        return wanted
    candidates = [row for module, row in calls if row.parameters is not None and row.name and not _is_no_layer(module)]
    in_lists = [row for row in candidates if row.name.rpartition(".")[2].isdecimal()]
    for rows in (in_lists, candidates):
        for level in sorted({row.name.count(".") for row in rows}):
            ((kind, count),) = Counter(row.type for row in rows if row.name.count(".") == level).most_common(1)
            if count > 1:
                return kind
    return None


def _is_no_layer(module: torch.nn.Module) -> bool:
    return isinstance(module, NO_LAYERS)


def _with_factors(rows: list[Call]) -> list[Call]:
    """Add to each row the factor to the row before, and to each layer that to the layer before."""
    done: list[Call] = []
    before: Call | None = None
    layer_before: Call | None = None
    for row in rows:
        layer_factor = _log10_factor(layer_before, row) if row.layer else None
        done.append(replace(row, log10_factor=_log10_factor(before, row), log10_layer_factor=layer_factor))
        before = row
        layer_before = row if row.layer else layer_before
    return done


def _log10_factor(before: Call | None, row: Call) -> float | None:
    """Factor from a row's norm to that of the row before; None where either is zero or was not measured."""
    if before is None or not before.norm or not row.norm:
        return None
    return float(before.norm.log10() - row.norm.log10())


def _decades(layers: list[Call]) -> Decades:
    """Growth of the norm from the last layer back to the first, in decades per layer."""
    norms = [row.norm for row in layers if row.norm is not None]
    if len(norms) < 2 or not norms[-1]:
        return Decades(math.nan, math.nan)
    last = norms[-1]
    ratio = Scaled(
        np.array([[norm.mantissa / last.mantissa] for norm in norms[:-1]]),
        np.array([[norm.exponent - last.exponent] for norm in norms[:-1]]),
    )
    growth = lyapunov_of(np.arange(1, len(norms)), ratio, len(norms) - 1)
    return Decades(growth.mean / math.log(10), growth.stderr / math.log(10))


def _first_lost(rows: list[Call], name: str) -> str | None:
    """Find the first call on the way back at which a format loses more than half of a gradient."""
    return next((row.label for row in reversed(rows) if (worst_share(name, *row.gradients) or 0.0) > LOST_SHARE), None)


def _loss_of(output: Any, loss: Callable[[Any], torch.Tensor] | None) -> torch.Tensor:
    if loss is not None:
        return loss(output)
    if isinstance(output, torch.Tensor) and output.numel() == 1:
        return output
    inner = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(inner, torch.Tensor):
        return inner
    shape = f" of shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else ""
    raise ValueError(
        f"loss: the model returns a {type(output).__name__}{shape}, expected a scalar or something with .loss; "
        "give a function of the output, such as loss=lambda output: output.square().mean()"
    )


class LossNotFiniteError(ValueError):
    """The loss is nan or inf."""


def _require_finite(loss: Any, recorded: list[RecordedCall], names: dict[torch.nn.Module, str]) -> None:
    """Refuse a loss that is nan or inf, with the name of the module that made it so."""
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"loss: expected a scalar Tensor, got {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(f"loss: expected a scalar, got a Tensor of shape {tuple(loss.shape)}")
    if math.isfinite(loss.item()):
        return
    counts: Counter[torch.nn.Module] = Counter()
    for call in recorded:
        counts[call.module] += 1
        if not all(finite.item() for finite in call.finite):
            name, number = names[call.module], counts[call.module]
            which = f", in its call {number}" if number > 1 else ""
            kind = type(call.module).__name__
            at = f"{name!r}, a {kind}{which}" if name else f"the model itself, a {kind}"
            raise LossNotFiniteError(f"loss: is {loss.item()}; the first module whose output is not finite is {at}")
    where = "; the output of every module is finite" if recorded else "; `measure` names the module that made it"
    raise LossNotFiniteError(f"loss: is {loss.item()}{where}")


def require_model(model: Any) -> None:
    """Refuse what is no model, has no parameters to measure, or is spread over processes."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError("model: a ScriptModule tells nothing of its modules; measure the model that it was made of")
        kinds = {kind.__name__ for kind in type(module).__mro__} & set(DISTRIBUTED)
        if kinds:
            raise TypeError(
                f"model: a {kinds.pop()} can't be measured; measure the module that it wraps, on one device"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model: {type(model).__name__} has no parameter that requires a gradient")


@contextlib.contextmanager
def left_as_it_was(model: torch.nn.Module) -> Iterator[None]:
    """Restore buffers and torch's random numbers at the end."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type == "cuda"}
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    with torch.random.fork_rng([device.index for device in devices]):
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, before in kept:
                    buffer.copy_(before)
                    setattr(module, name, buffer)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast the floating-point tensors of a call's arguments."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_cast(item, dtype) for item in value)
    return value


def _notes(model: torch.nn.Module, without_calls: bool) -> Iterator[str]:
    if without_calls:
        yield "no forward pass was recorded: outputs are not measured"
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        yield "compiled modules ran uncompiled"
    hooked = [name for name, parameter in model.named_parameters() if _internals.has_hooks(parameter)]
    if hooked:
        yield f"hooks of tensors were not run: {_listed(hooked)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
