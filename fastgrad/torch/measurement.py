"""Result of `measure`: a row for each call of a module, and what float formats lose of its gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fastgrad.report.console import drawn, plain_text
from fastgrad.report.measure import measurement_figure, measurement_report
from fastgrad.report.notebook import measurement_html
from fastgrad.scaled import FLOAT_LIMITS, LOG10_2, FloatLimits, Scaled
from fastgrad.summary import json_ready

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from fastgrad.torch.backward import ScaledTensor

FORMATS = ("float16", "bfloat16", "float32")


class Decades(NamedTuple):
    """Growth of the gradient from a layer to the one before it, and its standard error, in decades (log base 10)."""

    mean: float
    stderr: float


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """Norm of a gradient, and shares of its elements.

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
        return worst_share(name, self.output, self.parameters)

    @property
    def norm(self) -> Scaled | None:
        """Norm by which calls are compared: at the output, or of the parameters' gradient where no calls were recorded.

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
        """Gradients of this module alone: its own parameters', and its output's if there are no modules within it."""
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


def worst_share(name: str, *gradients: Magnitudes | None) -> float | None:
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
