"""Fixed points of a constant chain: the zeros of w sigmoid(z) + b - z, by bisection.

The excess w sigmoid(z) + b - z turns where w sigmoid'(z) = 1, which for w > 4 has two solutions in closed form; between
its turning points it has one zero at most. Where two or three zeros touch, as at w = 4, b = -2, an excess in float64
leaves half or a third of their digits: the last steps of a bisection are decimal.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

# Forty decimal digits: where zeros nearly touch, a third of them are left. Without traps exp(1e300) is infinite.
EXACT = Context(prec=40, Emax=10**17, Emin=-(10**17), traps=[])


class FixedPoint(NamedTuple):
    """Fixed point of a constant chain.

    Attributes
    ----------
    activation : float
        o with o = sigmoid(w o + b).
    multiplier : float
        w o (1 - o): by how much one link multiplies a gradient there. It attracts where the magnitude is below 1.
    """

    activation: float
    multiplier: float


def fixed_points(weight: float, bias: float) -> list[FixedPoint]:
    """All points o with o = sigmoid(weight o + bias), ascending: one, or up to three where `weight` > 4.

    To the last digits of float64, also where several points touch: ``fixed_points(4, -2)`` is 1/2 with multiplier 1.

    Raises
    ------
    ValueError
        If an argument is not finite.
    """
    if not (math.isfinite(weight) and math.isfinite(bias)):
        raise ValueError(f"weight, bias: expected finite numbers, got {weight!r} and {bias!r}")

    points = [FixedPoint(sigmoid(z), weight * sigmoid(z) * sigmoid(-z)) for z in fixed_preactivations(weight, bias)]
    return [p for i, p in enumerate(points) if i == 0 or p.activation != points[i - 1].activation]


def fixed_preactivations(weight: float, bias: float) -> list[float]:
    """Preactivations z = weight sigmoid(z) + bias, ascending."""
    w, b = Decimal(weight), Decimal(bias)

    def sign(z: Decimal) -> int:
        """Sign of the excess."""
        excess = w / (1 + (-z).exp()) + b - z
        return (excess > 0) - (excess < 0)

    def is_positive(z: float) -> bool:
        """Tell the same in float64: nearly right, and fast."""
        return weight * sigmoid(z) + bias > z

    with localcontext(EXACT):
        beyond = (1 + abs(w) + abs(b)) * Decimal("1e-30")  # rounding at the ends would hide a zero close by
        ends = [b + min(w, Decimal(0)) - beyond, b + max(w, Decimal(0)) + beyond]
        cuts = [Decimal(0)]  # the only zero that decimals can hit, where b = -w/2
        if weight > 4:
            turn = (w / 4 * (1 + (1 - 4 / w).sqrt()) ** 2).ln()
            cuts += [-turn, turn]
        ends = sorted([*ends, *(cut for cut in cuts if ends[0] < cut < ends[1])])
        zeros = [float(end) for end in ends if sign(end) == 0]
        for low, high in pairwise(ends):
            if sign(low) * sign(high) < 0:
                rising = sign(high) > 0
                near = bisect(lambda z, rising=rising: is_positive(z) != rising, float(low), float(high))  # type: ignore[misc]
                zeros.append(_zero_near(Decimal(near), low, high, sign))
    return sorted(set(zeros))


def _zero_near(near: Decimal, low: Decimal, high: Decimal, sign: Callable[[Decimal], int]) -> float:
    """Bisect for the change of sign between `low` and `high`, first close to `near`, in the current decimal context."""
    reach = Decimal("1e-13") * (1 + abs(near))
    while True:
        a, b = max(low, near - reach), min(high, near + reach)
        if sign(a) * sign(b) <= 0:
            break
        reach *= 100
    below, accuracy = sign(a), Decimal("1e-20") * (1 + abs(near))
    while b - a > accuracy:
        middle = (a + b) / 2
        if sign(middle) == below:
            a = middle
        else:
            b = middle
    return float(a)


def bisect(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """Return where `is_below` turns from true to false, to the last bit."""
    for _ in range(1200):  # until the two are neighbors
        middle = low / 2 + high / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low


def sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)), with relative precision."""
    e = math.exp(-abs(z))
    return (e if z < 0 else 1.0) / (1 + e)
