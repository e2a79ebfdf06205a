"""Report of `fastgrad theory`: what is known of chains, or of layers, with given laws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report.document import Part, Report, Table, Text, words
from fastgrad.report.text import factor_text, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastgrad.theory import MeanField, Survey

SPECTRUM_SHOWN = 4  # exponents
DEAD_SHOWN = 1e-6  # share of layers
ROUNDING = 1e-12  # of a rate, in nats
HOLDS_FOR = {
    "chains": "an endless chain",
    "every width": "exact at every width",
    "n -> infinity": "n -> infinity; a network of n units differs by some 1/n",
    "while alive": "exact at every width, while a unit is alive in each layer",
    "too narrow": "n -> infinity; of this width the mean field says little",
}


def theory_report(known: Survey, parameters: dict[str, Any]) -> Report:
    """Report what theory knows, a line an item."""
    is_chain = known.sigma_w is None
    table = Table(words("what", "value"))
    rows = []
    for what, value, unit in _items(known):
        table.add(what, f"{_number(value)}{unit and ' '}{unit}")
        rows.append({"what": what, "value": None if isinstance(value, str) else value})
    kind = "chains" if is_chain else f"layers of {plural(known.width, f'{known.nonlinearity} unit')}"
    prediction = known.prediction
    holds_for: str = "too narrow" if prediction.is_too_narrow else prediction.holds_for
    if holds_for == "every width" and known.dead_probability:
        holds_for = "while alive"
    content: list[Part] = [
        Text(f"{kind[0].upper()}{kind[1:]}, weight {known.weight}, bias {known.bias}"),
        table,
        *_verdict(known),
        *([] if prediction.lyapunov is None else [Text(f"exponent: {HOLDS_FOR[holds_for]}", "note")]),
    ]
    result = {
        "width": known.width,
        "nonlinearity": known.nonlinearity,
        "lyapunov": prediction.lyapunov,
        **({} if prediction.why_not is None else {"lyapunov_why": prediction.why_not}),
        "holds_for": prediction.holds_for,
        "at_width": prediction.at_width,
        "is_too_narrow": prediction.is_too_narrow,
        "bound": prediction.bound._asdict(),
        "lost_after": known.lost_after,
        "ln_weight": known.ln_weight and known.ln_weight._asdict(),
        "fixed_points": None if known.fixed_points is None else [{**point._asdict()} for point in known.fixed_points],
        "sigma_w": known.sigma_w,
        "sigma_b": known.sigma_b,
        "mean_field": known.mean_field and {**known.mean_field._asdict(), "xi_1": known.mean_field.xi_1},
        "critical_sigma_w": known.critical_sigma_w,
        "layer_growth": known.layer_growth and known.layer_growth._asdict(),
        "spectrum": known.spectrum,
        "dead_probability": known.dead_probability,
    }
    return Report("theory", parameters, result, rows, content)


def _items(known: Survey) -> Iterator[tuple[str, float | str, str]]:
    """Rows of the table: a quantity, its value, and its unit."""
    each = "link" if known.sigma_w is None else "layer"
    rate, bound = known.prediction.lyapunov, known.prediction.bound
    if rate is None:
        yield "Lyapunov exponent", f"not known: {known.prediction.why_not}", ""
    else:
        yield "Lyapunov exponent", rate, f"nats per {each}, × {factor_text(rate)}"
    if known.prediction.at_width is not None:
        yield f"of {known.width} units, to order 1/n", known.prediction.at_width, "nats per layer"
    yield "bound", bound.mean, f"nats per {each}, × {factor_text(bound.mean)}"
    if bound.variance:
        yield "bound, standard deviation", bound.variance**0.5, f"times √{each}s"
    if known.ln_weight is not None:
        yield "mean of ln|w|", known.ln_weight.mean, f"nats, variance {known.ln_weight.variance:.6g}"
    for point in known.fixed_points or ():
        yield f"fixed point o = {point.activation:.6g}", point.multiplier, "times the gradient, each link"
    if known.sigma_w is not None and known.sigma_b is not None:
        yield "σ_w, √n times that of the weights", known.sigma_w, ""
        yield "σ_b, of the biases", known.sigma_b, ""
    if known.critical_sigma_w is not None:
        yield "critical σ_w", known.critical_sigma_w, ""
    if known.mean_field is not None:
        yield from _field_items(known.mean_field)
    if known.layer_growth is not None:
        mean, variance = known.layer_growth
        yield "exact: ln |gradient|, mean", mean, "nats per layer"
        yield "exact: its standard deviation", variance**0.5, "times √layers"
    if known.spectrum is not None:
        shown = ", ".join(f"{value:.4g}" for value in known.spectrum[:SPECTRUM_SHOWN])
        more = ", …" if len(known.spectrum) > SPECTRUM_SHOWN else ""
        yield "exact: Lyapunov spectrum", f"{shown}{more}", ""
    if known.dead_probability is not None:
        yield "share of layers with every unit dead", known.dead_probability, ""
    for name, links in known.lost_after.items():
        if links is not None:
            yield f"{name} loses the gradient after", links, f"{each}{'s' if links != 1 else ''}"


def _field_items(field: MeanField) -> Iterator[tuple[str, float | str, str]]:
    yield "χ₁, of |gradient|², a layer", field.chi_1, ""
    yield "ξ₁, its depth scale", field.xi_1, "layers"
    yield "length q* = |z|² / n", "each stays as it is" if np.isnan(field.q) else field.q, ""
    yield "ξ_q, its depth scale", field.xi_q, "layers"
    yield "correlation c* of two inputs", "depends on the start" if np.isnan(field.c) else field.c, ""
    yield "ξ_c, its depth scale", field.xi_c, "layers"


def _verdict(known: Survey) -> list[Text]:
    """Meaning of the exponent, in words."""
    limit, rate, bound = known.prediction.lyapunov, known.prediction.best, known.prediction.bound.mean
    if limit is None:
        return []
    word = "vanish" if limit < 0 else "explode" if limit > 0 else "stay"
    if rate is None:
        ending = f" as n -> infinity, for which {known.width} units are too few: simulate shows theirs."
        return [Text.emphasizing("Gradients ", word, ending)]
    if (rate < 0, rate > 0) != (limit < 0, limit > 0):
        at_width = "vanish" if rate < 0 else "explode"
        return [Text.emphasizing("Gradients ", at_width, f" at {known.width} units, and {word} as n -> infinity.")]
    if known.mean_field is None or known.nonlinearity in ("relu", "linear"):
        ending = ", while the bound explodes" if rate < 0 and bound > ROUNDING else ""
        return [Text.emphasizing("Gradients ", word, f"{ending}."), *_dead(known)]
    if rate < 0:
        alike = "" if np.isnan(known.mean_field.c) else ", and different inputs become alike"
        return [Text.emphasizing("Ordered: gradients ", "vanish", f"{alike}.")]
    if rate > 0:
        return [Text.emphasizing("Chaotic: gradients ", "explode", ", and inputs that are close part.")]
    return [Text.emphasizing("Critical: gradients ", "stay", " of their size.")]


def _dead(known: Survey) -> list[Text]:
    """Say how soon a relu network has a dead layer, where that is soon."""
    share = known.dead_probability
    if share is None or not DEAD_SHOWN < share < 1:
        return []
    return [Text(f"One layer in {1 / share:.4g} is dead: every gradient before it is exactly zero.")]


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else f"{value:.9g}"
