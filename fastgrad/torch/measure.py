"""The gradient through a model, module by module: how large it is, how fast it vanishes, what float formats lose."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastgrad.jobs.growth import lyapunov_of
from fastgrad.report.console import drawn, plain_text
from fastgrad.report.measure import measurement_figure, measurement_report
from fastgrad.report.notebook import measurement_html
from fastgrad.scaled import FLOAT_LIMITS, LOG10_2, FloatLimits, Scaled
from fastgrad.summary import json_ready
from fastgrad.torch import _internals
from fastgrad.torch.backward import walk
from fastgrad.torch.linearity import Linearity
from fastgrad.torch.recording import recording
from fastgrad.torch.zeros import Zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fastgrad.torch._internals import Edge
    from fastgrad.torch.backward import ScaledTensor
    from fastgrad.torch.recording import RecordedCall, Recording


FORMATS = ("float16", "bfloat16", "float32")
LOST_SHARE = 0.5  # of a gradient's elements: a format that loses more has lost the gradient
NO_LAYERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Embedding, torch.nn.EmbeddingBag)

DISTRIBUTED = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
NEEDS_NONE = (
    "not reached: its output requires no gradient (no parameter before it, no_grad, detach, reentrant checkpoint)"
)


class Decades(NamedTuple):
    """How the gradient grows from a layer to the one before it, and the standard error, in decades (log base 10)."""

    mean: float
    stderr: float


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """What is kept of a gradient.

    Attributes
    ----------
    norm : Scaled, shape ()
        Euclidean.
    count : int
        Elements that are not zero.
    lost : dict of str to int
        How many of them each float format would read as 0 or inf.
    log2_largest, log2_median : float
        Of the magnitudes of these elements; -inf if there are none.
    """

    norm: Scaled
    count: int
    lost: dict[str, int]
    log2_largest: float
    log2_median: float

    @classmethod
    def of(cls, gradient: ScaledTensor) -> Magnitudes:
        """Measure a gradient."""
        norm, parts = gradient.norm(), gradient.sizes()
        count = sum(sizes.numel() for sizes, _ in parts)
        if not count:
            return cls(norm, 0, dict.fromkeys(FORMATS, 0), -math.inf, -math.inf)
        largest = max(math.log2(sizes.max()) + exponent for sizes, exponent in parts if sizes.numel())
        median = math.log2(parts[0][0].median()) + parts[0][1] if len(parts) == 1 else gradient.log2_sizes().median()
        lost = {name: sum(_count_lost(*part, FLOAT_LIMITS[name]) for part in parts) for name in FORMATS}
        return cls(norm, count, lost, largest, float(median))

    @classmethod
    def together(cls, several: Iterable[Magnitudes]) -> Magnitudes | None:
        """Join those of several tensors; the median is the smallest of theirs. None if there are none."""
        all_of = list(several)
        if not all_of:
            return None
        return cls(
            root_of_squares([each.norm for each in all_of]),
            sum(each.count for each in all_of),
            {name: sum(each.lost[name] for each in all_of) for name in FORMATS},
            max(each.log2_largest for each in all_of),
            min((each.log2_median for each in all_of if each.count), default=-math.inf),
        )

    def share_lost(self, name: str) -> float:
        """Share of the elements, of those that are not zero, that a format would read as 0 or inf."""
        return self.lost[name] / self.count if self.count else 0.0


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes
    ----------
    name : str
        As in ``model.named_modules()``; empty for the model itself.
    call : int
        Which call of this module it is, from 1.
    type : str
        Class of the module.
    shape : tuple of int or None
        Of the output's first tensor.
    layer : bool
        It is one of those over which `Measurement.decades_per_layer` is taken.
    output : Magnitudes or None
        Of dloss/doutput; None where it was not measured, and `why` says the reason.
    parameters : Magnitudes or None
        Of dloss/dparameters, of all parameters within the module, summed over the module's calls. None where there are
        none, or none that the loss depends on.
    own_parameters : Magnitudes or None
        The same of the parameters that no module within this one holds.
    innermost : bool
        The module holds no others.
    recorded : bool
        False if this is no call, but a module whose calls were not recorded.
    log10_factor : float or None
        Factor from the gradient's norm at this output to that at the output of the call before, which is what the
        gradient is multiplied by on its way back where one call feeds the next. In decades (log base 10).
    log10_layer_factor : float or None
        The same to the layer before, if this is a layer.
    why : str or None
        Why a gradient is zero, or was not measured.
    """

    name: str
    call: int
    type: str
    shape: tuple[int, ...] | None
    layer: bool
    output: Magnitudes | None
    parameters: Magnitudes | None
    own_parameters: Magnitudes | None
    innermost: bool
    recorded: bool
    log10_factor: float | None
    log10_layer_factor: float | None
    why: str | None

    @property
    def label(self) -> str:
        """Name, and which call where it is not the first."""
        name = self.name or self.type
        return name if self.call == 1 else f"{name}, call {self.call}"

    def share_lost(self, name: str) -> float | None:
        """The larger share that a format loses, of the output's gradient or of the parameters'; None without either."""
        return _worst(name, self.output, self.parameters)

    @property
    def norm(self) -> Scaled | None:
        """What calls are compared by: the norm at the output; of the parameters' gradient where no calls were recorded.

        None where it was not measured.
        """
        compared = self.output if self.recorded else self.parameters
        return None if compared is None else compared.norm

    @property
    def log10_norm(self) -> float | None:
        """Decimal logarithm of `norm`; -inf for zero."""
        return None if self.norm is None else self.norm.log10().item()

    @property
    def gradients(self) -> list[Magnitudes]:
        """What this module adds to those within it: the output's gradient if it holds none, its own parameters'."""
        added = self.output if self.innermost else None, self.own_parameters
        return [each for each in added if each is not None]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Result of `measure`.

    Attributes
    ----------
    calls : tuple of Call
        Every call of a module, in the order in which they returned: a module stands behind those within it. Without a
        recording of the forward pass, the modules that have parameters, in the order in which the model holds them.
    layer_type : str or None
        Class of the modules that are called layers; None if no class is called twice.
    decades_per_layer : Decades
        Finite-depth: log10 of the factor by which the norm of dloss/doutput grows from the last layer back to the
        first, divided by the number of steps; its standard error comes from batch means, as that of a single chain
        (see `fastgrad.Growth`). Of dloss/dparameters where no outputs were recorded. NaN with less than two layers,
        and -inf where the first layer's gradient is exactly zero.
    first_lost : dict of str to str or None
        By float format, the label of the first call on the way back from the loss at which the format loses more than
        half of the elements of a gradient: rounding gives 0 or inf. None if it loses none.
    loss : float
    model : str
        Class of the model.
    count : int
        Elements of all parameters that require a gradient.
    dtype, device : str
        Of these parameters.
    not_linear : dict of str to str, or None
        With ``check=True``, nodes of the graph whose answer to 64 times their cotangent is not 64 times as large, bit
        for bit, by the label of the call that they belong to: clipping in the graph, or numbers that leave the float
        type inside the node. None without a check.
    zeros : dict of str to str
        Why a gradient is zero or was not measured, by the label of the call or the name of the parameter.
    notes : tuple of str
        What has to be known about the measurement.
    """

    calls: tuple[Call, ...]
    layer_type: str | None
    decades_per_layer: Decades
    first_lost: dict[str, str | None]
    loss: float
    model: str
    count: int
    dtype: str
    device: str
    not_linear: dict[str, str] | None
    zeros: dict[str, str]
    notes: tuple[str, ...]

    @cached_property
    def layers(self) -> list[Call]:
        """The layers among the calls."""
        return [call for call in self.calls if call.layer]

    @property
    def compared(self) -> list[Call]:
        """The layers, or with less than two of them the calls of the innermost modules: for tables and figures."""
        return self.layers if len(self.layers) > 1 else [call for call in self.calls if call.innermost]

    def heights(self) -> dict[str, NDArray[np.float64]]:
        """Return log10 of the norms of what is compared: ``output`` and ``parameters``, where any was measured.

        NaN where it was not, -inf for zero.
        """
        found = {
            name: np.array([_log10(getattr(call, name)) for call in self.compared], dtype=np.float64)
            for name in ("output", "parameters")
        }
        return {name: values for name, values in found.items() if not np.isnan(values).all()}

    def formats_left(self) -> dict[str, NDArray[np.float64]]:
        """Return by float format, for those that some norm is below, log10 of what it reads as 0, a number a call."""
        values = np.concatenate([np.zeros(1), *self.heights().values()])
        least = values[np.isfinite(values)].min()
        ends = {name: FLOAT_LIMITS[name].underflow * LOG10_2 for name in FORMATS}
        return {name: np.full(len(self.compared), end) for name, end in ends.items() if least < end}

    def loss_scale(self, name: str) -> float | None:
        """Power of two by which the loss can be multiplied so that a float format holds the gradient of every layer.

        Then no element of any gradient overflows, and at least half of those of each gradient stay above 0. It lies as
        far from the one end as from the other.

        Parameters
        ----------
        name : {"float16", "bfloat16", "float32"}

        Returns
        -------
        float or None
            1 if nothing is lost as it is; None if there is no such power of two.
        """
        if name not in FORMATS:
            raise ValueError(f"name: expected one of {', '.join(FORMATS)}, got {name!r}")
        gradients = [each for call in self.calls for each in call.gradients if each.count]
        if not any(each.lost[name] for each in gradients):
            return 1.0
        limits = FLOAT_LIMITS[name]
        low = math.floor(limits.underflow - min(each.log2_median for each in gradients)) + 1
        high = math.ceil(limits.overflow - max(each.log2_largest for each in gradients)) - 1
        return math.ldexp(1.0, (low + high) // 2) if low <= high else None

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict for each call: the CSV of ``fastgrad measure``.

        ``name``, ``call``, ``type``, ``layer``; log10 of the norms (decades) ``log10_output`` and ``log10_parameters``,
        -inf for zero; ``log10_factor`` and ``log10_layer_factor``; the shares ``lost_float16``, ``lost_bfloat16`` and
        ``lost_float32``; ``why`` a gradient is zero. None where there is no number.
        """
        return [
            {
                "name": call.name,
                "call": call.call,
                "type": call.type,
                "layer": call.layer,
                "log10_output": _log10(call.output),
                "log10_parameters": _log10(call.parameters),
                "log10_factor": call.log10_factor,
                "log10_layer_factor": call.log10_layer_factor,
                **{f"lost_{name}": call.share_lost(name) for name in FORMATS},
                "why": call.why,
            }
            for call in self.calls
        ]

    def summary(self) -> dict[str, Any]:
        """Return the whole measurement as a plain dict, ready for JSON."""
        return json_ready(  # type: ignore[no-any-return]
            {
                "torch": torch.__version__,
                "model": self.model,
                "parameters": self.count,
                "dtype": self.dtype,
                "device": self.device,
                "loss": self.loss,
                "layer_type": self.layer_type,
                "layers": len(self.layers),
                "decades_per_layer": self.decades_per_layer._asdict(),
                "first_lost": self.first_lost,
                "loss_scale": {name: self.loss_scale(name) for name in FORMATS},
                "not_linear": self.not_linear,
                "zeros": self.zeros,
                "notes": self.notes,
                "calls": self.rows(),
            }
        )

    def table(self) -> str:
        """Return the table and the sentences that ``fastgrad measure`` prints."""
        return plain_text(measurement_report(self, {}).content)

    def plot(self, path: str | Path | None = None) -> str | None:
        """Draw the figure into a .png, .svg or .pdf file; without a path, return it in Braille dots.

        Raises
        ------
        ValueError, ModuleNotFoundError, OSError
            If the file can't be written, or without matplotlib.
        """
        return drawn(measurement_figure(self), path)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return measurement_html(self)


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
    return next((row.label for row in reversed(rows) if (_worst(name, *row.gradients) or 0.0) > LOST_SHARE), None)


def _worst(name: str, *gradients: Magnitudes | None) -> float | None:
    """Largest share that a format loses of a gradient; None without any."""
    return max((each.share_lost(name) for each in gradients if each is not None), default=None)


def _log10(gradient: Magnitudes | None) -> float | None:
    return None if gradient is None else gradient.norm.log10().item()


def _count_lost(sizes: torch.Tensor, exponent: int, limits: FloatLimits) -> int:
    """Count the magnitudes, times a power of two, that a float format would read as 0 or inf."""
    low, high = _power_of_two(limits.underflow - exponent), _power_of_two(limits.overflow - exponent)
    return int(torch.count_nonzero((sizes <= low) | (sizes >= high)))


def _power_of_two(exponent: float) -> float:
    """2**exponent, inf where a float can't hold it."""
    return math.inf if exponent >= 1024 else math.exp2(exponent)


def root_of_squares(norms: list[Scaled]) -> Scaled:
    """Euclidean norm of what has these norms."""
    top = max((norm.exponent.item() for norm in norms if norm), default=0)
    squares = [math.ldexp(norm.mantissa.item(), max(norm.exponent.item() - top, -1000)) ** 2 for norm in norms]
    return Scaled(math.sqrt(math.fsum(squares)), top)


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
