"""Backpropagation as a framework computes it: in one float format, with o (1 - o) for the sigmoid's derivative.

Operation by operation what PyTorch does on a CPU, autograd's sigmoid in the format's own arithmetic: weights and biases
are rounded to the format; z = w o + b is two operations; the sigmoid of a 16-bit format is computed in float32 and
rounded; the gradient is multiplied by 1 - o, by o and by w, each product rounded, except that bfloat16 rounds the first
two together. Unlike the exact gradient it can read 0 because 1 - o is 0, or because o is, and stay above 0 for ever at
the least subnormal, which a factor between 1/2 and 1 rounds back to itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad.philox import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from numpy.typing import NDArray

    from fastgrad.laws import Law

    Floats = NDArray[Any]

MEMBERS_MAX = 500  # chains of an ensemble that are run
LINKS_MAX = 1024  # back from the output; float64 loses what shrinks by half in 1075
FIRST_LINKS = 64  # of a deep chain that are tried, and then twice as many each time
LEAD_LINKS = 128  # that are run before those, from the input, so that chains stand where deep ones do


class _Format(NamedTuple):
    """A float format: the type that computes, what a result is rounded by, and whether o (1 - o) is rounded at once."""

    dtype: type[np.floating[Any]]
    rounded: Callable[[Floats], Floats]
    fused: bool = False


def _to_float16(values: Floats) -> Floats:
    # float32 has more than twice the digits: rounding twice is rounding once.
    return values.astype(np.float16).astype(np.float32)


def _to_bfloat16(values: Floats) -> Floats:
    """Round float32 to its upper 16 bits, to nearest, ties to even."""
    bits = values.view(np.uint32)
    upper = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, upper.view(np.float32))


def _as_it_is(values: Floats) -> Floats:
    return values


FORMATS = {
    "float16": _Format(np.float32, _to_float16),
    "bfloat16": _Format(np.float32, _to_bfloat16, fused=True),
    "float32": _Format(np.float32, _as_it_is),
    "float64": _Format(np.float64, _as_it_is),
}


def framework_depths(
    depth: int, weight: Law, bias: Law, x: Floats, seed: int, formats: Iterable[str] = tuple(FORMATS)
) -> dict[str, dict[str, int | None]]:
    """Count the links back from the output after which the median gradient do_L/do_(l-1) of a framework is lost.

    The links are drawn again, for the first 500 members at most. Chains of more than 1152 links are entered at their
    input 128 links before those that are looked at: enough for a chain to forget it, unless it is one of those that do
    not, as with centered biases the side of 1/2.

    Parameters
    ----------
    depth : int
    weight, bias : Law
    x : ndarray, shape (ensemble,)
        The inputs.
    seed : int
        0 to 2^64 - 1.
    formats : iterable of str
        Of float16, bfloat16, float32 and float64.

    Returns
    -------
    dict of str to dict
        By format, ``underflow``: the links after which the median magnitude reads 0, and ``overflow``: those after
        which it reads inf or nan. None for what does not happen within the depth, within 1024 links, or before the
        other.
    """
    alike = not (weight.scale or bias.scale) and bool((x == x[0]).all())
    members = np.arange(1 if alike else searched_by_framework(depth, len(x))[1])
    results: dict[str, dict[str, int | None]] = {name: {"underflow": None, "overflow": None} for name in formats}
    waiting = list(results)
    is_whole = depth <= LINKS_MAX + LEAD_LINKS
    first, links = depth + 1, LINKS_MAX if is_whole else FIRST_LINKS
    w, b = (np.empty((0, len(members))) for _ in range(2))
    while waiting and links <= LINKS_MAX:
        links = min(links, depth)
        start = 1 if is_whole else depth + 1 - links - LEAD_LINKS
        more = draw(weight, bias, seed, np.arange(start, first), members)
        w, b, first = np.concatenate([more[0], w]), np.concatenate([more[1], b]), start
        for name in list(waiting):
            lost = _first_lost(FORMATS[name], w, b, x[: len(members)], links)
            if lost is not None:
                results[name][lost[0]] = lost[1]
                waiting.remove(name)
        if links == depth:
            break
        links *= 2
    return results


def searched_by_framework(depth: int, ensemble: int) -> tuple[int, int]:
    """Count the links, back from the output, and the chains that `framework_depths` runs at most."""
    return min(depth, LINKS_MAX), min(ensemble, MEMBERS_MAX)


def _first_lost(of: _Format, weight: Floats, bias: Floats, x: Floats, links: int) -> tuple[str, int] | None:
    """Run chains forward, and the last `links` of them backward until the median is lost."""
    half = math.ceil(len(x) / 2)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        w, b, o = (of.rounded(values.astype(of.dtype)) for values in (weight, bias, x))
        outputs = []
        for w_l, b_l in zip(w, b, strict=True):
            o = _sigmoid(of, of.rounded(of.rounded(w_l * o) + b_l))
            outputs.append(o)
        gradient = np.ones(len(x), of.dtype)
        for back in range(1, links + 1):
            gradient = of.rounded(_times_slope(of, gradient, outputs[-back]) * w[-back])
            if np.count_nonzero(gradient == 0) >= half:
                return "underflow", back
            if np.count_nonzero(~np.isfinite(gradient)) > len(x) - half:
                return "overflow", back
    return None


def _sigmoid(of: _Format, z: Floats) -> Floats:
    one = of.dtype(1)
    return of.rounded(one / (one + np.exp(-z)))


def _times_slope(of: _Format, gradient: Floats, o: Floats) -> Floats:
    one = of.dtype(1)
    if of.fused:
        return of.rounded(gradient * (one - o) * o)
    return of.rounded(of.rounded(gradient * of.rounded(one - o)) * o)
