"""Numbers, and words about them, as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.files import Derived

if TYPE_CHECKING:
    from fastgrad.report.document import Curve
    from fastgrad.scaled import Scaled


TABLE_ROWS = 10  # rows, evenly spaced, of a table that cannot show all


def power_of_ten(log10: float) -> str:
    """Write a magnitude given by its decimal logarithm."""
    if np.isnan(log10):
        return "undefined"
    return "0" if log10 == -np.inf else f"10^{round(log10, 1) + 0.0:.1f}"


def plural(number: int, what: str) -> str:
    """Write a number of things: 1 link, 2 links."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def with_thin_spaces(value: float) -> str:
    """Write a number with its digits in groups of three: 93 750 000."""
    if not np.isfinite(value):
        return "beyond float64"
    if abs(value) < 1e15 and value == round(value):
        return f"{round(value):,}".replace(",", " ")
    return f"{value:,.9g}".replace(",", " ") if 1e-3 <= abs(value) < 1e15 else f"{value:.4g}"


def scaled_text(value: Scaled) -> str:
    """Write a number of any magnitude."""
    as_float = float(value)
    return with_thin_spaces(as_float) if value.mantissa == 0 or 1e-3 <= abs(as_float) < 1e15 else format(value, ".3e")


def scaled_json(value: Scaled) -> dict[str, Any]:
    """Full precision, and for readers its decimal logarithm and a rounded text."""
    return {
        "mantissa": value.mantissa,
        "exponent": value.exponent,
        "log10": value.log10() if value.ndim == 0 else Derived(value.shape, lambda part: value[part].log10()),
        **({"text": format(value, ".6e")} if value.ndim == 0 else {}),
    }


def away_text(sigmas: float | None) -> str:
    """Write how far a measurement is from theory; nothing where it has no error of its own."""
    return "" if sigmas is None else f", {abs(sigmas):.1f} standard errors away"


def with_error(mean: float, stderr: float) -> str:
    """Write a mean with as many decimals as its standard error has in two digits."""
    if not np.isfinite(stderr) or stderr < 1e-12 * abs(mean) or stderr == 0:
        return f"{mean:.6g}"
    decimals = max(0, 1 - int(np.floor(np.log10(stderr))))
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"


def factor_text(nats: float) -> str:
    """Write exp(nats)."""
    return f"{np.exp(nats):.3g}" if abs(nats) < 50 else power_of_ten(nats / np.log(10))


def decades_factor_text(decades: float) -> str:
    """Write 10**decades."""
    return factor_text(decades * np.log(10))


def power_of_two(value: float) -> str:
    """Write a power of two: 2^12."""
    return f"2^{round(np.log2(value))}"


def percent(share: float) -> str:
    """Write a share with one decimal."""
    return f"{100 * share:.1f} %"


def three_digits(value: float) -> str:
    """Write three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def seconds_text(seconds: float) -> str:
    """Write a duration in the unit that suits it."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def value_text(value: Any) -> str:
    """Write any value in few characters; None as a dash."""
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def reason_empty(curves: list[Curve]) -> str:
    """Say why logarithms can't be drawn: their values are beyond float64, or zero."""
    return "beyond float64" if any(np.isposinf(curve.y).any() for curve in curves) else "exactly zero"
