"""Gauss-Legendre quadrature on panels, and polynomials through the points.

A panel is an interval with `POINTS` Gauss-Legendre points, and a function on it is its values there. Integrals are
exact up to degree 2 POINTS - 1, the polynomial through the values has degree POINTS - 1, and its last Legendre
coefficients tell how well it follows the function (Trefethen, Approximation Theory and Approximation Practice (2013),
chapters 17 and 19).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

POINTS = 16  # of a panel
TAIL = 3  # Legendre coefficients at the end, which tell what the polynomial misses


@cache
def gauss() -> tuple[Floats, Floats]:
    """Points and weights of Gauss and Legendre on [-1, 1], each of shape (POINTS,)."""
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    return points, weights


@cache
def _to_legendre() -> Floats:
    """The matrix (POINTS, POINTS) from values at the points (columns) to Legendre coefficients (rows)."""
    points, weights = gauss()
    degrees = np.arange(POINTS)
    matrix: Floats = (degrees[:, None] + 0.5) * np.polynomial.legendre.legvander(points, POINTS - 1).T * weights
    return matrix


def on_panels(lows: Floats, highs: Floats) -> tuple[Floats, Floats]:
    """Points and weights over panels with these ends, each of the ends' shape and one more axis of POINTS."""
    points, weights = gauss()
    half = ((highs - lows) / 2)[..., None]
    return lows[..., None] + half * (points + 1.0), half * weights


def between(edges: Floats) -> tuple[Floats, Floats]:
    """Points and weights over the panels between neighboring edges, each of shape ((len(edges) - 1) * POINTS,)."""
    points, weights = on_panels(edges[:-1], edges[1:])
    return points.ravel(), weights.ravel()


def interpolation_weights(at: Floats, shares: Floats) -> Floats:
    """Weights of the values at a panel's points in the sum of shares times the polynomial.

    Parameters
    ----------
    at, shares : (pieces, n)
        Places on the panel, in [-1, 1], and what the polynomial there is multiplied by.

    Returns
    -------
    ndarray, shape (pieces, POINTS)
    """
    legendre = np.empty((POINTS, *at.shape))
    legendre[0], legendre[1] = 1.0, at
    for k in range(2, POINTS):
        legendre[k] = ((2 * k - 1) / k) * at * legendre[k - 1] - ((k - 1) / k) * legendre[k - 2]
    moments = np.einsum("kpn,pn->pk", legendre, shares)
    weights: Floats = moments @ _to_legendre()
    return weights


def values_at(places: Floats, values: Floats) -> Floats:
    """The polynomials through `values`, shape (panels, POINTS), at places in [-1, 1]: shape (panels, len(places))."""
    legendre = np.polynomial.legendre.legvander(places, POINTS - 1)
    interpolated: Floats = values @ (legendre @ _to_legendre()).T
    return interpolated


def tails(values: Floats) -> Floats:
    """Sizes of the last Legendre coefficients of the polynomials through `values`, shape (panels, POINTS)."""
    size: Floats = np.abs(values @ _to_legendre()[-TAIL:].T).sum(axis=1)
    return size
