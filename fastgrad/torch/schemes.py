"""One model under each of torch.nn.init's schemes, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastgrad.checks import integer
from fastgrad.report.console import drawn, plain_text
from fastgrad.report.model_schemes import model_schemes_figure, model_schemes_report
from fastgrad.summary import json_ready
from fastgrad.torch.measure import LossNotFiniteError, measure, require_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fastgrad.torch.measurement import Measurement


AS_BUILT = "as_built"
SCHEMES = (
    AS_BUILT,
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "orthogonal",
    "uniform",
    "normal",
    "trunc_normal",
)
Initialize = Callable[[torch.Tensor], Any]


@dataclass(frozen=True, eq=False)
class ModelSchemes:
    """Result of `schemes`.

    Attributes
    ----------
    measurements : dict of str to Measurement
        By the name of the scheme.
    failed : dict of str to str
        Schemes whose loss is not finite, and the module that made it so.
    """

    measurements: dict[str, Measurement]
    failed: dict[str, str]

    @property
    def steadiest(self) -> str | None:
        """Scheme under which the gradient changes least from layer to layer; None if none has two layers."""
        changes = {name: abs(m.decades_per_layer.mean) for name, m in self.measurements.items()}
        known = {name: change for name, change in changes.items() if change == change}  # NaN alone differs from itself
        return min(known, key=lambda name: known[name], default=None)

    def heights(self) -> dict[str, NDArray[np.float64]]:
        """Return log10 of the norms by which layers are compared, by scheme; NaN where nothing was measured."""
        heights = {name: [call.log10_norm for call in of.compared] for name, of in self.measurements.items()}
        longest = max(map(len, heights.values()), default=0)
        return {name: np.array(of + [None] * (longest - len(of)), dtype=np.float64) for name, of in heights.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict for each scheme that could be measured.

        ``scheme``; ``loss``; ``decades_per_layer`` and ``decades_stderr``; log10 of the norm of dloss/doutput (decades)
        at the first and the last layer; by float format, the label of the first call that loses the gradient, and the
        loss scale that keeps it.
        """
        rows = []
        for name, measured in self.measurements.items():
            ends = [call.log10_norm for call in measured.compared] or [None]
            rows.append(
                {
                    "scheme": name,
                    "loss": measured.loss,
                    "decades_per_layer": measured.decades_per_layer.mean,
                    "decades_stderr": measured.decades_per_layer.stderr,
                    "log10_first": ends[0],
                    "log10_last": ends[-1],
                    **{f"first_lost_{of}": label for of, label in measured.first_lost.items()},
                    **{f"loss_scale_{of}": measured.loss_scale(of) for of in measured.first_lost},
                }
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """Return the comparison as a plain dict, ready for JSON."""
        return json_ready({"steadiest": self.steadiest, "schemes": self.rows(), "failed": self.failed})  # type: ignore[no-any-return]

    def table(self) -> str:
        """Return the schemes as a table."""
        return plain_text(model_schemes_report(self).content)

    def plot(self, path: str | Path | None = None) -> str | None:
        """Draw a curve for each scheme into a .png, .svg or .pdf file; without a path, return it in Braille dots."""
        return drawn(model_schemes_figure(self), path)

    def __str__(self) -> str:
        return self.table()


def schemes(
    build: Callable[[], torch.nn.Module],
    *inputs: Any,
    schemes: Iterable[str] | Mapping[str, Initialize] = SCHEMES,
    seed: int = 0,
    **how: Any,
) -> ModelSchemes:
    """Measure the same model under several initialization schemes.

    A scheme fills every parameter that has two or more axes, and sets biases to 0; others, such as the weights of a
    LayerNorm, stay as they were built. Torch's random numbers start from the seed for each scheme, and are left as
    they were.

    Parameters
    ----------
    build : callable
        Makes the model.
    *inputs
        What the model is called with.
    schemes : iterable of str, or dict of str to callable
        Names of functions of ``torch.nn.init`` without the last underscore, called with the parameter alone, and
        "as_built" for the model as it is; or functions of a parameter by names of your own, which fill it in place.
    seed : int
        0 to 2^64 - 1.
    **how
        What else `measure` takes: ``loss``, ``layers``, ``dtype``, ``check``, and keywords for the model.

    Returns
    -------
    ModelSchemes

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or as `measure` does; a loss that is not finite is told in the result instead.

    Examples
    --------
    >>> import torch, fastgrad.torch
    >>> def build():
    ...     layers = [(torch.nn.Linear(32, 32), torch.nn.Tanh()) for _ in range(20)]
    ...     return torch.nn.Sequential(*(module for layer in layers for module in layer))
    >>> found = fastgrad.torch.schemes(build, torch.ones(4, 32), loss=torch.sum)
    >>> found.steadiest
    'kaiming_normal'
    """
    if isinstance(build, torch.nn.Module) or not callable(build):
        raise TypeError(f"build: expected a function that makes the model, got {type(build).__name__}")
    seed = integer("seed", seed, 0, 2**64 - 1)
    measurements, failed = {}, {}
    for name, fill in _functions(schemes).items():
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = build()
            require_model(model)
            if fill is not None:
                _initialize(model, fill)
            try:
                measurements[name] = measure(model, *inputs, **how)
            except LossNotFiniteError as error:
                failed[name] = str(error)
    return ModelSchemes(measurements, failed)


def _functions(schemes: Iterable[str] | Mapping[str, Initialize]) -> dict[str, Initialize | None]:
    """Look the schemes up."""
    if isinstance(schemes, Mapping):
        return dict(schemes)
    found: dict[str, Initialize | None] = {}
    for name in [schemes] if isinstance(schemes, str) else schemes:
        fill = None if name == AS_BUILT else getattr(torch.nn.init, f"{name}_", None)
        if fill is None and name != AS_BUILT:
            raise ValueError(f"schemes: expected names of torch.nn.init, such as {', '.join(SCHEMES)}; got {name!r}")
        found[name] = fill
    if not found:
        raise ValueError("schemes: expected at least one")
    return found


def _initialize(model: torch.nn.Module, fill: Initialize) -> None:
    """Fill parameters of two and more axes, drawn in float32 whatever type they have, and set biases to 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                drawn = torch.empty(parameter.shape, dtype=torch.promote_types(parameter.dtype, torch.float32))
                fill(drawn)
                parameter.copy_(drawn)
            elif name.rpartition(".")[2] == "bias":
                parameter.zero_()
