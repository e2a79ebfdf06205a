"""Report of `fastgrad example`: the worked example, as an explanation that a student follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.report.document import Cell, Part, Report, Table, Text, numbers, words
from fastgrad.report.text import scaled_json, scaled_text, with_thin_spaces

if TYPE_CHECKING:
    from fastgrad.jobs.example import Example
    from fastgrad.scaled import Scaled


def example_report(example: Example, parameters: dict[str, Any]) -> Report:
    """Explain the worked example to a student."""
    w, b = example.weight, example.bias
    meaning = {
        "dloss/do31": "o31 - y",
        "do31/do21": f"1/4 x w31 = {with_thin_spaces(w[2])} / 4",
        "do21/do11": f"1/4 x w21 = {with_thin_spaces(w[1])} / 4",
        "do11/dw11": "1/4 x x = 200 / 4",
    }
    gradient_text, after_text = scaled_text(example.gradient), with_thin_spaces(example.weight_after)
    gradient, after = float(example.gradient), example.gradient_after
    factors = Table([*words("factor", "what it is"), *numbers("value")])
    for name, factor in example.factors.items():
        factors.add(name, meaning[name], _scaled_cell(factor))
    factors.add(
        "dloss/dw11",
        "their product, by the kernel",
        _scaled_cell(example.gradient),
        emphasized=True,
        begins_section=True,
    )
    for unit, of in enumerate(example.grad_bias, start=1):
        factors.add(f"dloss/db{unit}1", f"for the bias b{unit}1, likewise", _scaled_cell(of))

    slope_text = scaled_text(example.slope_after)
    next_step = [
        f"z11 is now {with_thin_spaces(example.preactivation_after)}, where sigmoid' is {slope_text}.",
        f"gradient   {gradient_text} -> {scaled_text(after)}",
        f"loss       {with_thin_spaces(example.loss)} -> {with_thin_spaces(example.loss_after)}",
        f"The loss {_loss_text(example.loss_change)}: no further step moves this weight."
        if example.is_stuck
        else "The weight still moves.",
    ]
    if not np.isfinite(example.preactivation_after):
        what = "The weight" if not np.isfinite(example.weight_after) else "Its preactivation z11"
        next_step = [f"{what} has left float64: there is no next step."]
    lesson = Table([*words("weights", "biases"), *numbers("exact, below its range", "a framework reads 0")])
    for laws, exact in example.float32_links.items():
        lost = (exact, example.framework_float32_links[laws])
        more = Cell(np.inf, f"more than {example.lesson_depth}")
        lesson.add(*laws, *(more if links is None else Cell.of(links) for links in lost))
    explode = [Text("The biases' gradients explode as well.")] if example.bias_gradients_explode else []
    ratio, growth = example.relative_step, with_thin_spaces(example.bound_factor)
    times = f", {with_thin_spaces(float(f'{ratio:.4g}'))} times the weight itself" if 1 < ratio < np.inf else ""
    content: list[Part] = [
        Text(
            "Three sigmoid units in a row, o11 -> o21 -> o31, and the loss (o31 - y)² / 2.\n"
            f"x = 200, y = -149.5, w = {', '.join(map(with_thin_spaces, w))}, b = {', '.join(map(with_thin_spaces, b))}"
        ),
        _section(
            "1. The textbook's gradient.",
            " The biases are centered: every preactivation\n"
            "z = w o + b is 0, where the sigmoid's derivative is 1/4, the most it can be.\n"
            "So each link multiplies by w/4:",
        ),
        factors,
        *explode,
        _section("2. One step of gradient descent", f", learning rate {example.learning_rate:g}:"),
        Text.emphasizing(
            f"   w11 = {with_thin_spaces(w[0])} - {example.learning_rate:g} x {gradient_text} = ", after_text
        ),
        Text(f"   a step of {with_thin_spaces(example.step)}{times}"),
        _section("3. What the true sigmoid does next", " (the bias is kept)."),
        *(Text(f"   {line}") for line in next_step),
        _section("4. The same weights with every bias 0 instead of centered."),
        Text(f"   the bound   {scaled_text(example.zero_bias_bound)}: still {growth} a link"),
        Text(f"   the truth   {scaled_text(example.zero_bias_gradient)}"),
        _section(
            "5. What an initialization does",
            ": links back from the output until float32\nloses the median gradient of drawn chains.",
        ),
        lesson,
        Text("A better one delays the end; weights of 4, centered, keep the gradient at 1."),
        Text("See for yourself: fastgrad simulate --weight he_normal"),
        Text(f"backend {example.backend}", "note"),
    ]
    result = {
        "weight": list(w),
        "bias": list(b),
        "x": 200.0,
        "target": -149.5,
        "factors": {name: float(factor) for name, factor in example.factors.items()},
        "gradient": gradient,
        "grad_bias": [float(each) for each in example.grad_bias],
        "bound": float(example.bound),
        "step": example.step,
        "weight_before": w[0],
        "weight_after": example.weight_after,
        "loss_before": example.loss,
        "after_step": {
            "preactivation": example.preactivation_after,
            "slope": scaled_json(example.slope_after),
            "gradient": scaled_json(after),
            "loss": example.loss_after,
        },
        "float32_links": [
            {
                "weight": laws[0],
                "bias": laws[1],
                "links": links,
                "framework_links": example.framework_float32_links[laws],
            }
            for laws, links in example.float32_links.items()
        ],
        "zero_bias": {
            "bound": scaled_json(example.zero_bias_bound),
            "gradient": scaled_json(example.zero_bias_gradient),
        },
    }
    rows: list[dict[str, Any]] = [{"quantity": name, "value": float(f)} for name, f in example.factors.items()]
    rows += [
        {"quantity": "dloss/dw11", "value": gradient},
        *({"quantity": f"dloss/db{unit}1", "value": float(of)} for unit, of in enumerate(example.grad_bias, start=1)),
        {"quantity": "step", "value": example.step},
        {"quantity": "w11 before", "value": w[0]},
        {"quantity": "w11 after", "value": example.weight_after},
        {"quantity": "dloss/dw11 after", "value": format(after, ".16e")},
        {"quantity": "loss before", "value": example.loss},
        {"quantity": "loss after", "value": example.loss_after},
        {"quantity": "bound with bias 0", "value": float(example.zero_bias_bound)},
        {"quantity": "dloss/dw11 with bias 0", "value": format(example.zero_bias_gradient, ".16e")},
    ]
    return Report("example", parameters, result, rows, content, example.backend)


def _section(title: str, rest: str = "") -> Text:
    """Begin a section of the explanation; its title runs into its text."""
    return Text.emphasizing("", title, rest, role="title")


def _scaled_cell(value: Scaled) -> Cell:
    return Cell(value.log10().item(), scaled_text(value))


def _loss_text(change: float) -> str:
    """Write by how much one step has moved the loss, which no other will."""
    if change == 0:
        return "stays high"
    return f"{'falls' if change < 0 else 'rises'} by {100 * abs(change):.2g} % and stays high"
