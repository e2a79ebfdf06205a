from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

compiler: str
compile_flags: str

def instruction_sets() -> list[str]: ...
def choose(instruction_set: str) -> None: ...
def chosen() -> str: ...
def backprop(
    weight: Floats,
    bias: Floats,
    x: Floats,
    cotangent: Floats,
    output: Floats,
    grad_weight_mantissa: Floats,
    grad_weight_exponent: Ints,
    grad_bias_mantissa: Floats,
    grad_bias_exponent: Ints,
    grad_x_mantissa: Floats,
    grad_x_exponent: Ints,
    start: int,
    stop: int,
) -> bool: ...
def grow(
    weight_law: tuple[int, float, float],
    bias_law: tuple[int, float, float],
    seed: int,
    first: int,
    last: int,
    marks: Ints,
    row: int,
    activation: Floats,
    scaled_mantissa: Floats,
    scaled_exponent: Ints,
    weight: Floats,
    input_mantissa: Floats,
    input_exponent: Ints,
    derivative_mantissa: Floats,
    derivative_exponent: Ints,
    gap_mantissa: Floats,
    gap_exponent: Ints,
    bound_mantissa: Floats,
    bound_exponent: Ints,
    carry_gap_mantissa: Floats,
    carry_gap_exponent: Ints,
    carry_bound_mantissa: Floats,
    carry_bound_exponent: Ints,
    start: int,
    stop: int,
) -> None: ...
def train(
    weight: Floats,
    bias: Floats,
    x: Floats,
    target: Floats,
    least_loss: Floats,
    loss: int,
    learning_rate: float,
    clip_value: float,
    clip_norm: float,
    tolerance: float,
    first: int,
    last: int,
    steps: int,
    marks: Ints,
    row: int,
    loss_at: Floats,
    moved: Ints,
    under: Ints,
    left: Ints,
    start: int,
    stop: int,
) -> None: ...
