"""The textbook's worked example, run through the real kernels.

Three sigmoid units, o11 -> o21 -> o31, and the loss (o31 - y)² / 2. Inputs and biases are chosen so that every
preactivation is exactly 0, where the sigmoid's derivative is 1/4, the most it can be: the chain rule's factors are then
exactly those of the lecture note, and each backend returns their product to the last digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastgrad.chain import Chain
from fastgrad.jobs.backprop import backprop
from fastgrad.jobs.framework import framework_depths
from fastgrad.jobs.simulate import simulate
from fastgrad.scaled import Scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.kernels import BackendName

    Floats = NDArray[np.float64]

X = 200.0
LAST_WEIGHT = 400.0
TARGET = -149.5
LESSON_DEPTH = 200
LESSON = (
    ("normal:std=500", "zero"),
    ("glorot_normal", "zero"),
    ("he_normal", "zero"),
    ("normal:std=3", "zero"),
    ("constant:4", "centered"),
)


@dataclass(frozen=True, eq=False)
class Example:
    """Result of `worked_example`; gradients are dloss/dw11.

    Attributes
    ----------
    weight, bias : tuple of float
        Of the three links, before the step.
    learning_rate : float
    factors : dict of str to Scaled
        The chain rule's factors, the first the loss's, in the order in which they are multiplied.
    gradient : Scaled
        Their product, from the kernel run over the whole chain.
    grad_bias : tuple of Scaled
        dloss/db11, dloss/db21 and dloss/db31, from the same run of the kernel.
    bound : Scaled
        The same as `gradient` with 1/4 for every sigmoid'.
    step : float
        What one step of gradient descent takes off w11: learning rate times gradient.
    weight_after : float
        w11 after one step of gradient descent; infinite if it leaves float64.
    preactivation_after : float
        z11 after the step.
    slope_after : Scaled
        sigmoid'(z11) after the step.
    gradient_after : Scaled
    loss, loss_after : float
        Before and after the step.
    zero_bias_gradient, zero_bias_bound : Scaled
        Gradient and bound of the same weights with every bias 0.
    float32_links : dict of (str, str) to int or None
        For laws of weight and bias, the links after which the exact median gradient is below the range of float32;
        None if it is not within `lesson_depth` links.
    framework_float32_links : dict of (str, str) to int or None
        The links after which a framework that computes in float32 reads 0.
    backend : str
    """

    weight: tuple[float, float, float]
    bias: tuple[float, float, float]
    learning_rate: float
    factors: dict[str, Scaled]
    gradient: Scaled
    grad_bias: tuple[Scaled, Scaled, Scaled]
    bound: Scaled
    step: float
    weight_after: float
    preactivation_after: float
    slope_after: Scaled
    gradient_after: Scaled
    loss: float
    loss_after: float
    zero_bias_gradient: Scaled
    zero_bias_bound: Scaled
    float32_links: dict[tuple[str, str], int | None]
    framework_float32_links: dict[tuple[str, str], int | None]
    lesson_depth: int
    backend: BackendName

    @property
    def loss_change(self) -> float:
        """Relative change of the loss by the step: below 0 where it falls."""
        return self.loss_after / self.loss - 1

    @property
    def relative_step(self) -> float:
        """Size of the step in units of the weight's; 0 where that is 0."""
        return abs(self.step / self.weight[0]) if self.weight[0] else 0.0

    @property
    def bound_factor(self) -> float:
        """Factor |w21|/4 by which the second link multiplies the bound."""
        return abs(self.weight[1]) / 4

    @property
    def bias_gradients_explode(self) -> bool:
        """Tell if each bias has a larger gradient than the one after it."""
        first, second, third = (abs(float(of)) for of in self.grad_bias)
        return first > second > third

    @property
    def is_stuck(self) -> bool:
        """Tell if no further step of gradient descent moves the weight."""
        after = self.weight_after
        return math.isfinite(after) and after - self.learning_rate * float(self.gradient_after) == after


def worked_chain(weight: float = 500.0) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Weights, and the biases that keep every preactivation at 0 from the input `X`."""
    return (weight, weight, LAST_WEIGHT), (-weight * X, -weight / 2, -LAST_WEIGHT / 2)


def worked_task(x: float = X, target: float = TARGET) -> tuple[Chain, Floats]:
    """Return the chain and its target, to be trained."""
    return Chain.of(*worked_chain(), x), np.array([target])


def worked_example(
    weight: float = 500.0, learning_rate: float = 0.01, backend: BackendName | Literal["auto"] = "auto"
) -> Example:
    """Run the worked example.

    Parameters
    ----------
    weight : float
        w11 and w21; w31 is 400. The biases follow it, so that every preactivation stays 0.
    learning_rate : float

    Raises
    ------
    ValueError
        If a number is not finite, the weight so large that a bias is not, or the learning rate not positive.
    BackendUnavailableError
        If the backend that was named can't run here.
    """
    if not math.isfinite(weight * X):
        raise ValueError(f"weight: expected a finite number whose product with x = {X:g} is finite too, got {weight!r}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate: expected a positive number, got {learning_rate!r}")
    w, b = worked_chain(weight)

    # Link by link through the kernel: each factor by itself.
    activations = [X]
    links = []
    for w_l, b_l in zip(w, b, strict=True):
        link = backprop([w_l], [b_l], activations[-1], backend=backend)
        links.append(link)
        activations.append(float(link.output))
    factors = {
        "dloss/do31": Scaled.from_float(activations[-1] - TARGET),
        "do31/do21": links[2].grad_x,
        "do21/do11": links[1].grad_x,
        "do11/dw11": links[0].grad_weight[0],
    }

    (gradient, *grad_bias), loss, name = _run(w, b, backend)
    step = learning_rate * float(gradient)
    weight_after = weight - step
    preactivation_after = weight_after * X + b[0]
    if math.isfinite(preactivation_after):
        (gradient_after, *_), loss_after, _ = _run((weight_after, *w[1:]), b, backend)
        slope_after = backprop([1.0], [0.0], preactivation_after, backend=backend).grad_bias[0]
    else:  # the weight has left float64: there is no next step
        gradient_after = slope_after = Scaled(0.0)
        loss_after = math.nan
    (zero_bias_gradient, *_), _, _ = _run(w, (0.0, 0.0, 0.0), backend)
    zero_bias_output = backprop(w, (0.0, 0.0, 0.0), X, backend=backend).output
    lesson = {laws: _float32_links(*laws, backend) for laws in LESSON}
    return Example(
        weight=w,
        bias=b,
        learning_rate=learning_rate,
        factors=factors,
        gradient=gradient,
        grad_bias=(grad_bias[0], grad_bias[1], grad_bias[2]),
        bound=_bound(w, float(activations[-1] - TARGET)),
        step=step,
        weight_after=weight_after,
        preactivation_after=preactivation_after,
        slope_after=slope_after,
        gradient_after=gradient_after,
        loss=loss,
        loss_after=loss_after,
        zero_bias_gradient=zero_bias_gradient,
        zero_bias_bound=_bound(w, float(zero_bias_output - TARGET)),
        float32_links={laws: links for laws, (links, _) in lesson.items()},
        framework_float32_links={laws: links for laws, (_, links) in lesson.items()},
        lesson_depth=LESSON_DEPTH,
        backend=name,
    )


@cache
def _float32_links(weight: str, bias: str, backend: BackendName | Literal["auto"]) -> tuple[int | None, int | None]:
    """Links until the median gradient of drawn chains is lost in float32: the exact one, and a framework's."""
    growth = simulate(LESSON_DEPTH, 1000, weight, bias, record=LESSON_DEPTH, backend=backend)
    exact: int | None = growth.summary()["first_depth"]["float32"]["underflow"]
    of_framework = framework_depths(growth.depth, growth.weight, growth.bias, growth.x, growth.seed, ("float32",))
    return exact, of_framework["float32"]["underflow"]


def _run(
    w: tuple[float, float, float], b: tuple[float, float, float], backend: BackendName | Literal["auto"]
) -> tuple[tuple[Scaled, ...], float, BackendName]:
    """Gradients by w11, b11, b21 and b31, and the loss: once forward for the output, and again with its cotangent."""
    error = float(backprop(w, b, X, backend=backend).output) - TARGET
    result = backprop(w, b, X, error, backend=backend)
    return (result.grad_weight[0], *(result.grad_bias[i] for i in range(3))), error**2 / 2, result.backend


def _bound(w: tuple[float, float, float], error: float) -> Scaled:
    quarter = Scaled(1.0, -2)
    bound = abs(Scaled.from_float(error))
    for factor in (w[2], w[1], X):
        bound = bound * abs(Scaled.from_float(factor)) * quarter
    return bound
