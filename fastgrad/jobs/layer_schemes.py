"""Initialization schemes of networks with width, side by side: how fast their gradients vanish or explode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fastgrad import theory
from fastgrad.jobs.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from fastgrad.jobs.growth import Growth
    from fastgrad.kernels import BackendName

NAMED = (
    ("glorot_normal", "zero"),
    ("glorot_uniform", "zero"),
    ("he_normal", "zero"),
    ("he_uniform", "zero"),
    ("lecun_normal", "zero"),
    ("torch_default", "torch_default"),
    ("orthogonal", "zero"),
)
SMALL_GAIN, LARGE_GAIN = 0.1, 20.0  # laws that are too small and too large for every nonlinearity


@dataclass(frozen=True, eq=False)
class LayerScheme:
    """Result of one scheme.

    Attributes
    ----------
    weight, bias : str
        The laws.
    growth : Growth
    theory : Prediction
    """

    weight: str
    bias: str
    growth: Growth
    theory: theory.Prediction


@dataclass(frozen=True, eq=False)
class LayerSchemes:
    """Result of `schemes` for layers.

    Attributes
    ----------
    width : int
    nonlinearity : str
    depth, ensemble : int
    schemes : list of LayerScheme
    """

    width: int
    nonlinearity: str
    depth: int
    ensemble: int
    schemes: list[LayerScheme]

    @property
    def link(self) -> NDArray[np.int64]:
        """The recorded layers."""
        return self.schemes[0].growth.link

    @property
    def backend(self) -> BackendName:
        """The backend that ran."""
        return self.schemes[0].growth.backend


def layer_laws(width: int, nonlinearity: str) -> list[tuple[str, str]]:
    """Laws of weights and biases: the named schemes, and normal ones that are too small, critical, and too large.

    The critical one has chi_1 = 1: see `fastgrad.theory.critical_sigma_w`.
    """
    critical = f"normal:gain={theory.critical_sigma_w(0, nonlinearity):.6g}"
    small, large = f"normal:gain={SMALL_GAIN:g}", f"normal:gain={LARGE_GAIN:g}"
    named = [laws for laws in NAMED if width > 1 or laws[0] != "orthogonal"]
    return [(small, "zero"), *named, (critical, "zero"), (large, "zero")]


def layer_schemes(
    depth: int,
    ensemble: int,
    seed: int,
    width: int,
    nonlinearity: str,
    backend: BackendName | Literal["auto"],
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> LayerSchemes:
    """Run `schemes` for layers."""
    laws = layer_laws(width, nonlinearity)
    found = []
    for i, (weight, bias) in enumerate(laws):

        def report_progress(done: int, layers: int, before: int = i) -> None:
            if progress is not None:
                progress(before * layers + done, len(laws) * layers)

        of_layers = {"width": width, "nonlinearity": nonlinearity}
        growth = simulate(
            depth,
            ensemble,
            weight,
            bias,
            seed=seed,
            **of_layers,  # type: ignore[arg-type]
            backend=backend,
            threads=threads,
            progress=report_progress,
        )
        found.append(LayerScheme(weight, bias, growth, theory.predict(weight, bias, **of_layers)))  # type: ignore[arg-type]
    return LayerSchemes(width, nonlinearity, depth, ensemble, found)
