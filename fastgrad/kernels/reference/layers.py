"""Dense layers in NumPy: the definition of what the compiled backends compute, formula by formula. It is not tuned.

The contract is `fastgrad.kernels.contract`. Arrays have the axes (members, vectors, units), and exponents the axes
(members, vectors, 1): one for each vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastgrad import philox
from fastgrad.kernels.constants import (
    LARGEST_Z,
    LAW_EXPONENT_MAX,
    LINEAR,
    LINEAR_EXPONENT,
    RELU,
    SATURATED_Z,
    SIGMOID,
    TANH,
    ZERO_EXPONENT,
)
from fastgrad.kernels.reference.nonlinearity import NONLINEARITIES
from fastgrad.laws import FAMILY_CODES, Law

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fastgrad.kernels.contract import LawCode, LayersJob, ScaledArrays, ScaledVectors

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

WORK_ELEMENTS = 2**18  # weights that are drawn at a time
SMALLEST_NORMAL = 2.0**-1022  # smaller elements of a vector may have lost digits, and a vector of them alone is 0

FAMILIES = {code: family for family, code in FAMILY_CODES.items()}


class Drawn(NamedTuple):
    """A law of numbers that are value * 2^exponent: whatever its parameters, no sum of values leaves float64."""

    law: Law
    exponent: int  # ZERO_EXPONENT if every number is 0

    @classmethod
    def of(cls, code: LawCode) -> Drawn:
        """Scale a law by a power of two."""
        family, location, scale = code
        size = max(abs(location), scale)
        exponent = int(np.clip(np.frexp(size)[1], -LAW_EXPONENT_MAX, LAW_EXPONENT_MAX))
        law = Law(FAMILIES[family], float(np.ldexp(location, -exponent)), float(np.ldexp(scale, -exponent)), "")
        return cls(law, exponent if size else ZERO_EXPONENT)


def power_of_two(exponent: Ints) -> Floats:
    """2^exponent, and 0 where that is no normal number."""
    power: Floats = np.where(exponent < -1022, 0.0, np.ldexp(1.0, np.clip(exponent, -1022, 1023).astype(np.int32)))
    return power


def common_exponent(mantissa: Floats, exponent: Ints) -> tuple[Floats, Ints]:
    """Give the elements mantissa * 2^exponent of each vector one exponent, the largest of theirs.

    The largest magnitude is then in [1/2, 1); a vector of zeros has ZERO_EXPONENT.
    """
    fraction, shift = np.frexp(mantissa)
    lost = np.abs(mantissa) < SMALLEST_NORMAL
    exponents = np.where(lost, ZERO_EXPONENT, exponent + shift)
    top = exponents.max(axis=-1, keepdims=True)
    zero = top <= ZERO_EXPONENT
    values = np.where(zero, 0.0, fraction * power_of_two(exponents - top))
    return values, np.where(zero, ZERO_EXPONENT, top)


def scaled(values: Floats, exponent: Ints) -> tuple[Floats, Ints]:
    """Numbers as mantissa and exponent; exponent may be ZERO_EXPONENT where the value is 0."""
    mantissa, shift = np.frexp(values)
    return mantissa, np.where(mantissa == 0, 0, exponent + shift)


def norm(values: Floats, exponent: Ints) -> tuple[Floats, Ints]:
    """Euclidean norm of a vector of each member, as mantissa and exponent; the exponents have shape (members, 1)."""
    return scaled(np.sqrt(np.square(values).sum(axis=-1)), exponent[:, 0])


def row_blocks(width: int, members: int) -> Iterator[Ints]:
    """Rows of a layer's matrices, as many at a time as WORK_ELEMENTS allows."""
    count = max(1, WORK_ELEMENTS // (members * width))
    for first in range(0, width, count):
        yield np.arange(first, min(first + count, width))


def multiply(law: Law, seed: int, layer: int, members: Ints, vectors: Floats) -> Floats:
    """W o for each vector o, with the weights of one layer, drawn anew."""
    width = vectors.shape[-1]
    products = np.empty_like(vectors)
    if law.family == "orthogonal":
        products[:] = vectors
        for rows in reversed(list(row_blocks(width, len(members)))):
            normals = philox.draw_weights(law, seed, layer, members, width, rows)
            for i, row in zip(range(len(rows) - 1, -1, -1), rows[::-1], strict=True):
                products[..., row] *= -np.sign(normals[:, i, None, row])
                reflect(normals[:, i], row, products)
        return law.scale * products
    for rows in row_blocks(width, len(members)):
        weight = philox.draw_weights(law, seed, layer, members, width, rows)
        for v in range(vectors.shape[1]):  # no matrix product: its order of summation is not the same for every slice
            products[:, v, rows] = (weight * vectors[:, v, None]).sum(axis=-1)
    return products


def multiply_transposed(law: Law, seed: int, layer: int, members: Ints, vectors: Floats) -> Floats:
    """W^T delta for each vector delta."""
    width = vectors.shape[-1]
    if law.family == "orthogonal":
        products = vectors.copy()
        for rows in row_blocks(width, len(members)):
            normals = philox.draw_weights(law, seed, layer, members, width, rows)
            for i, row in enumerate(rows):
                reflect(normals[:, i], row, products)
                products[..., row] *= -np.sign(normals[:, i, None, row])
        return law.scale * products
    products = np.zeros_like(vectors)
    for rows in row_blocks(width, len(members)):
        weight = philox.draw_weights(law, seed, layer, members, width, rows)
        for v in range(vectors.shape[1]):  # row after row, whatever the blocks are
            terms = np.concatenate([products[:, v, None], weight * vectors[:, v, rows, None]], axis=1)
            products[:, v] = terms.sum(axis=1)
    return products


def reflect(normals: Floats, row: int, vectors: Floats) -> None:
    """Reflect vectors in place, so that the part of `normals` from index `row` on would fall on its first axis.

    H = 1 - 2 u u^T / (u^T u) with u = x + sign(x_0) |x| e_0, where x is that part: H x = -sign(x_0) |x| e_0.

    Parameters
    ----------
    normals : ndarray, shape (members, units)
    row : int
    vectors : ndarray, shape (members, vectors, units)
    """
    x = normals[:, None, row:]
    length = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    u = x.copy()
    u[..., :1] += np.copysign(length, x[..., :1])
    factor = 1.0 / (length * (length + np.abs(x[..., :1])))  # 2 / (u^T u)
    part = vectors[..., row:]
    part -= factor * (u * part).sum(axis=-1, keepdims=True) * u


def preactivations(job: LayersJob, layer: int, members: Ints, values: Floats, exponent: Ints) -> tuple[Floats, Ints]:
    """Return z = W o + b of each vector as doubles times a power of two."""
    weight, bias = Drawn.of(job.weight_law), Drawn.of(job.bias_law)
    products = multiply(weight.law, job.seed, layer, members, values)
    biases = philox.draw_biases(bias.law, job.seed, layer, members, values.shape[-1])[:, None]
    products_exponent = exponent + weight.exponent
    common = np.maximum(products_exponent, bias.exponent)
    z = products * power_of_two(products_exponent - common) + biases * power_of_two(bias.exponent - common)
    return z, common


def in_range(z: Floats, exponent: Ints) -> Floats:
    """Preactivations as doubles, held to LARGEST_Z."""
    with np.errstate(over="ignore"):
        return np.clip(z * power_of_two(exponent), -LARGEST_Z, LARGEST_Z)


def is_homogeneous(job: LayersJob) -> bool:
    """Tell if phi(2 z) is 2 phi(z) for every z: then any power of two can be taken out."""
    return job.nonlinearity in (RELU, LINEAR)


def recorded_row(job: LayersJob, layer: int) -> int | None:
    """Row of a layer among those to be recorded."""
    row = int(np.searchsorted(job.recorded_layers, layer))
    return row if row < len(job.recorded_layers) and job.recorded_layers[row] == layer else None


def record_forward(
    job: LayersJob, cell: tuple[int, slice], z: Floats, argument: Floats, values: Floats, exponents: tuple[Ints, Ints]
) -> None:
    """Record what the preactivations and activations of a layer say of it; `argument` is what phi was taken of."""
    width = z.shape[-1]
    z_values, z_exponent = common_exponent(z, exponents[0])  # whose squares are within float64
    squares = np.square(z_values).sum(axis=-1)
    store(job.length, cell, scaled(squares[:, 0] / width, 2 * z_exponent[:, 0, 0]))
    store(job.mean_activation, cell, scaled(values[:, 0].sum(axis=-1) / width, exponents[1][:, 0, 0]))
    job.saturated[cell] = (
        (np.abs(argument[:, 0]) > SATURATED_Z).mean(axis=-1) if job.nonlinearity in (SIGMOID, TANH) else 0.0
    )
    job.dead[cell] = (z[:, 0] <= 0).mean(axis=-1) if job.nonlinearity == RELU else 0.0
    if z.shape[1] > 1:
        with np.errstate(invalid="ignore"):  # 0 / 0 is no number
            product = (z_values[:, 0] * z_values[:, 1]).sum(axis=-1)
            job.correlation[cell] = product / np.sqrt(squares[:, 0] * squares[:, 1])


def store(to: ScaledArrays, cell: tuple[int, slice], numbers: tuple[Floats, Ints]) -> None:
    """Store numbers as mantissa and exponent."""
    to.mantissa[cell], to.exponent[cell] = numbers


def layers_forward(
    job: LayersJob, state: ScaledVectors, tape: Floats, first: int, last: int, start: int, stop: int
) -> None:
    """Drawn dense layers, forward."""
    members = slice(start, stop)
    values, exponent = state.value[members], state.exponent[members, :, None]
    for layer in range(first, last):
        input_norm = norm(values[:, 0], exponent[:, 0])
        z, z_exponent = preactivations(job, layer, np.arange(start, stop), values, exponent)
        argument = z if is_homogeneous(job) else in_range(z, z_exponent)
        phi = NONLINEARITIES[job.nonlinearity].extended(argument)
        mantissa, shift = phi.mantissa, phi.exponent
        if is_homogeneous(job):
            shift = shift + z_exponent
        elif job.nonlinearity == TANH:
            is_linear = z_exponent < LINEAR_EXPONENT
            mantissa, shift = np.where(is_linear, z, mantissa), np.where(is_linear, z_exponent, shift)
        values, exponent = common_exponent(mantissa, shift)
        if len(tape):
            tape[layer - first] = argument[:, 0]
        row = recorded_row(job, layer)
        if row is not None:
            store(job.input_norm, (row, members), input_norm)
            record_forward(job, (row, members), z, argument, values, (z_exponent, exponent))
    state.value[members], state.exponent[members] = values, exponent[..., 0]


def layers_backward(
    job: LayersJob, adjoint: ScaledVectors, tape: Floats, first: int, last: int, start: int, stop: int
) -> None:
    """Drawn dense layers, backward."""
    members = slice(start, stop)
    weight = Drawn.of(job.weight_law)
    values, exponent = adjoint.value[members], adjoint.exponent[members, :, None]
    for layer in range(last - 1, first - 1, -1):
        # delta_l = a_l phi'(z_l),  a_{l-1} = W_l^T delta_l
        phi = NONLINEARITIES[job.nonlinearity].extended(tape[layer - first][:, None])
        delta, delta_exponent = common_exponent(values * phi.derivative, exponent + phi.derivative_exponent)
        products = multiply_transposed(weight.law, job.seed, layer, np.arange(start, stop), delta)
        values, exponent = common_exponent(products, delta_exponent + weight.exponent)
        row = recorded_row(job, layer)
        if row is not None:
            store(job.delta_norm, (row, members), norm(delta[:, 0], delta_exponent[:, 0]))
            store(job.adjoint_norm, (row, members), norm(values[:, 0], exponent[:, 0]))
    adjoint.value[members], adjoint.exponent[members] = values, exponent[..., 0]
