"""Statistics over an ensemble, evenly spaced picks, scales of axes, and values ready for JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastgrad.scaled import Scaled

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def json_ready(value: Any) -> Any:
    """Make plain Python values that JSON can hold.

    A number that is not finite becomes None; the dict that holds it, or holds the list it is in, gets a second key
    ``<key>_why`` that says what it was. NumPy numbers and arrays become numbers and lists.
    """
    if isinstance(value, dict):
        plain: dict[str, Any] = {}
        for key, item in value.items():
            plain[key] = json_ready(item)
            lost = sorted(set(_not_finite(item)))
            if lost:
                plain[f"{key}_why"] = "; ".join(lost)
        return plain
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _not_finite(value: Any) -> list[str]:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [why for item in value for why in _not_finite(item)]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return ["undefined for these data"]
        return ["minus infinity" if value < 0 else "infinity"]
    return []


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def log10_statistics(values: Scaled) -> dict[str, Floats]:
    """Mean and quantiles over members of log10 of the magnitude (decades), by name: ``mean``, ``q05`` … ``q95``."""
    log10 = values.log10()
    quantiles = np.quantile(log10, QUANTILES, axis=1, method="inverted_cdf")
    return {
        "mean": log10.mean(axis=1),
        **{f"q{100 * q:02.0f}": row for q, row in zip(QUANTILES, quantiles, strict=True)},
    }


def evenly_spaced(count: int, at_most: int) -> Ints:
    """Pick at most so many of the indices 0 … `count` - 1, evenly spaced, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(np.int64))


def thinned(indices: NDArray[np.intp], at_most: int) -> NDArray[np.intp]:
    """Pick at most so many of many indices, evenly spaced, the first and the last among them."""
    if len(indices) <= at_most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, at_most).astype(np.intp)]


def spaced(depth: int, count: int) -> Ints:
    """`count` different links from 1 to `depth`, evenly spaced, both ends among them."""
    return np.floor(np.linspace(1, depth, count) + 0.5).astype(np.int64)


def is_geometric(values: Floats) -> bool:
    """Tell if ascending values belong on a logarithmic axis: positive, and denser where they are small."""
    return bool(len(values) > 2 and values[0] > 0 and np.median(values) < (values[0] + values[-1]) / 4)


def log10_of(values: ArrayLike) -> Floats:
    """Decimal logarithm (decades) of values from 0 on; -inf of 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log10(values))
