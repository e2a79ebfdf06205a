"""The table of losses of an output o and a target y."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LossName = Literal["squared", "cross_entropy"]


@dataclass(frozen=True)
class Loss:
    """A loss of one output.

    Attributes
    ----------
    name : str
    code : int
        What kernels know it by.
    formula : str
        For people.
    least : callable
        The least value for each target, over outputs between 0 and 1 or any.
    targets : tuple of two floats
        The smallest and the largest target.
    """

    name: LossName
    code: int
    formula: str
    least: Callable[[Floats], Floats]
    targets: tuple[float, float]

    def check_targets(self, target: Floats) -> None:
        """Raise ValueError if a target is beyond those of the loss."""
        low, high = self.targets
        beyond = (target < low) | (target > high)
        if beyond.any():
            worst = int(np.argmax(beyond))
            what = self.name.replace("_", " ")
            raise ValueError(
                f"target: expected {low:g} to {high:g} for the {what}, got {target[worst]} at index [{worst}]"
            )


def _entropy(y: Floats) -> Floats:
    """Return -y ln y - (1 - y) ln(1 - y)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(y > 0, -y * np.log(y), 0.0) + np.where(y < 1, -(1 - y) * np.log1p(-y), 0.0)


LOSSES: dict[str, Loss] = {
    of.name: of
    for of in (
        Loss("squared", 0, "(o - y)² / 2", np.zeros_like, (-np.inf, np.inf)),
        Loss("cross_entropy", 1, "-y ln o - (1 - y) ln(1 - o)", _entropy, (0.0, 1.0)),
    )
}


def parse(name: Any) -> Loss:
    """Return the loss of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise ValueError(f"loss: expected {' or '.join(LOSSES)}, got {name!r}")
    return LOSSES[name]
