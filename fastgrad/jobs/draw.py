"""Weights and biases that `simulate` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgrad.checks import integer, require_memory
from fastgrad.laws import LawLike, parse
from fastgrad.philox import MEMBERS_MAX, SEED_MAX
from fastgrad.philox import draw as draw_links
from fastgrad.scaled import aligned_empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def draw(
    depth: int, ensemble: int, weight: LawLike = "normal:std=4", bias: LawLike = "zero", seed: int = 0
) -> tuple[Floats, Floats]:
    """Draw the weights and biases that `simulate` runs.

    Each is a pure function of (seed, member, link): a longer or wider draw begins with the shorter one.

    Parameters
    ----------
    depth, ensemble : int
        Links and chains.
    weight, bias : str or Law
        See `fastgrad.laws`.
    seed : int
        0 to 2^64 - 1.

    Returns
    -------
    weight, bias : ndarray of float64, shape (depth, ensemble)
        The compiled backends draw the same values to within a few units in the last place.

    Raises
    ------
    TypeError, ValueError
        For bad input, naming the argument.
    TooLargeError
        If the arrays would not fit in memory.
    """
    depth, ensemble, seed = checked_sizes(depth, ensemble, seed)
    weight_law, bias_law = parse(weight, "weight"), parse(bias, "bias")
    require_memory(f"draws of {depth} links x {ensemble} chains", 16 * depth * ensemble)
    w, b = aligned_empty((depth, ensemble), np.float64), aligned_empty((depth, ensemble), np.float64)
    members = np.arange(ensemble)
    rows = max(1, 2**18 // ensemble)  # the generator's words take some 200 bytes a link: a few rows at a time
    for first in range(0, depth, rows):
        part = slice(first, min(first + rows, depth))
        w[part], b[part] = draw_links(weight_law, bias_law, seed, np.arange(part.start, part.stop) + 1, members)
    return w, b


def checked_sizes(depth: int, ensemble: int, seed: int) -> tuple[int, int, int]:
    """Check the numbers of links and chains and the seed."""
    return (
        integer("depth", depth, 1, 2**63 - 2),
        integer("ensemble", ensemble, 1, MEMBERS_MAX),
        integer("seed", seed, 0, SEED_MAX),
    )
