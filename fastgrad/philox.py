"""The counter-based draws, in NumPy: the definition that the compiled kernels follow.

Weights and biases are a pure function of (seed, member, link), so that any part of any chain can be made again at any
time, in any order. Generator: Philox4x32-10 of J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as
easy as 1, 2, 3", SC 2011.

The key is the seed, and the counter's words are (link mod 2^32, link >> 32, member, stream): one block of four random
words makes the two uniforms of a link, and of these the weight and the bias, which are then independent if both are
normal (Box and Muller) or both uniform. Where one is normal and the other uniform, each has a block of its own:

================  ===========================  =============================
drawn             first law                    second law, of another family
================  ===========================  =============================
weight, bias      stream 0, links from 1       stream 4, the same links
input x, target   stream 1, link word 1        stream 4, link word 0
================  ===========================  =============================

Links are counted from 1, so the block of link 0 in stream 4 is free for the targets.

Dense layers of n units: P = ceil(n / 2), and one block makes two numbers of one law, (R cos 2πV, R sin 2πV) of a normal
and (U, V) of a uniform one. Units count from 0, layers from 1; so weights and biases are independent whatever their
families, and any number can be drawn alone.

======================================================  =============================================================
counter words                                           two numbers
======================================================  =============================================================
layer mod 2^32, i P + p, member, 2 + 256 (layer >> 32)  W[i, 2p] and W[i, 2p + 1]
layer mod 2^32, n P + q, member, 2 + 256 (layer >> 32)  biases of the units 2q and 2q + 1
t, q, member, 1                                         units 2q and 2q + 1 of the t-th input, t from 1
t, q, member, 3                                         the same of the t-th cotangent, before it is made a unit vector
======================================================  =============================================================

Unit 0 of the first input is the input of a chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgrad.nonlinearities import NONLINEARITIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.laws import Family, Law

    Floats = NDArray[np.float64]
    Words = NDArray[np.uint64]

LOW_32 = np.uint64(0xFFFFFFFF)
CENTERING = NONLINEARITIES["sigmoid"].centering  # bias per weight
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85  # the golden ratio and sqrt(3) - 1, in units of 2^-32

STREAM_LINKS, STREAM_INPUTS, STREAM_LAYERS, STREAM_COTANGENTS = 0, 1, 2, 3
STREAM_MIXED = 4  # the second of two laws of different families
MEMBERS_MAX = 2**32  # the member is one counter word
WIDTH_MAX = 2**16  # units of a layer: a pair of weights is one counter word
LAYERS_MAX = 2**56 - 1  # layer >> 32 has 24 bits of the fourth counter word
SEED_MAX = 2**64 - 1


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Ten rounds of Philox4x32.

    Parameters
    ----------
    counter : four uint64 arrays of equal shape, or broadcastable
        32-bit words.
    key : two integers
        32-bit words.

    Returns
    -------
    four uint64 arrays
        32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0 = MULTIPLIERS[0] * c0
        product1 = MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product1 & LOW_32,
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product0 & LOW_32,
        )
        k0 = (k0 + KEY_STEPS[0]) % 2**32
        k1 = (k1 + KEY_STEPS[1]) % 2**32
    return c0, c1, c2, c3


def uniforms(
    seed: int, links: NDArray[np.int64], members: NDArray[np.int64], stream: int = STREAM_LINKS
) -> tuple[Floats, Floats]:
    """Two independent uniforms in (0, 1) for each link and member.

    ``U = ((A >> 11) + 0.5) 2^-53`` from the first two words, V likewise from the last two. The largest of the 2^53
    values would be rounded to 1: it is taken back to 1 - 2^-53.

    Parameters
    ----------
    seed : int
        0 to 2^64 - 1.
    links, members : int64 arrays
        Counted from 1 and from 0.
    stream : int
        The fourth counter word: what is drawn.

    Returns
    -------
    two arrays of shape (len(links), len(members))
    """
    link = links.astype(np.uint64)[:, None]
    return _uniforms(seed, link & LOW_32, link >> np.uint64(32), members.astype(np.uint64)[None, :], stream)


def _uniforms(seed: int, first: Words, second: Words, member: Words, fourth: int) -> tuple[Floats, Floats]:
    """Two uniforms for each counter; its words broadcast."""
    counter = first, second, member, np.full((), fourth, dtype=np.uint64)
    words = philox4x32(counter, (seed % 2**32, seed >> 32))

    def to_unit(high: Words, low: Words) -> Floats:
        integer = ((high << np.uint64(32)) | low) >> np.uint64(11)
        return np.minimum((integer.astype(np.float64) + 0.5) * 2.0**-53, 1.0 - 2.0**-53)

    return to_unit(words[0], words[1]), to_unit(words[2], words[3])


def cos_sin_turns(v: Floats) -> tuple[Floats, Floats]:
    """Return cos(2πv) and sin(2πv).

    Quarter turns are taken off v itself, where that is exact: cos(2 * pi * v) in one go would lose every digit of the
    small values near its zeros, and with them the agreement of the backends.
    """
    quarter = np.rint(4.0 * v)
    angle = 2.0 * np.pi * (v - 0.25 * quarter)
    c, s = np.cos(angle), np.sin(angle)
    turn = quarter.astype(np.int64) % 4
    return np.choose(turn, [c, -s, -c, s]), np.choose(turn, [s, c, -s, -c])


def draw(
    weight: Law, bias: Law, seed: int, links: NDArray[np.int64], members: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Weights and biases of any links of any members.

    Parameters
    ----------
    weight, bias : Law
    seed : int
        0 to 2^64 - 1.
    links, members : int64 arrays
        Counted from 1 and from 0.

    Returns
    -------
    weight, bias : ndarray of float64, shape (len(links), len(members))
    """
    return _draw_pair(weight, bias, seed, members, (links, STREAM_LINKS), (links, STREAM_MIXED))


def draw_inputs(x: Law, target: Law, seed: int, members: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Inputs and targets of any members: as weight and bias of link 1, but from blocks of their own.

    Returns
    -------
    x, target : ndarray of float64, shape (len(members),)
    """
    link_0, link_1 = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    drawn = _draw_pair(x, target, seed, members, (link_1, STREAM_INPUTS), (link_0, STREAM_MIXED))
    return drawn[0][0], drawn[1][0]


Block = tuple["NDArray[np.int64]", int]  # links, stream


def _draw_pair(
    first: Law, second: Law, seed: int, members: NDArray[np.int64], block: Block, apart: Block
) -> tuple[Floats, Floats]:
    """Values of two laws from one block of the generator; the second has the block `apart` if their families differ."""
    shape = len(block[0]), len(members)
    families = {law.family for law in (first, second) if law.scale}
    u = v = np.zeros(())
    if families:
        u, v = _variates(first.family if first.scale else second.family, seed, members, block)
    if len(families) == 2:
        v = _variates(second.family, seed, members, apart)[1]
    a = first.location + first.scale * u
    b = CENTERING * a if second.family == "centered" else second.location + second.scale * v
    return np.broadcast_to(a, shape), np.broadcast_to(b, shape)


def _variates(family: Family, seed: int, members: NDArray[np.int64], block: Block) -> tuple[Floats, Floats]:
    """Two independent uniforms, or two standard normals."""
    links, stream = block
    return _of_family(family, *uniforms(seed, links, members, stream))


def _of_family(family: Family, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Turn two independent uniforms into two independent variates of a family."""
    if family == "uniform":
        return u, v
    # Box and Muller, Annals of Mathematical Statistics 29 (1958) 610.
    radius = np.sqrt(-2.0 * np.log(u))
    cosine, sine = cos_sin_turns(v)
    return radius * cosine, radius * sine


def draw_weights(
    law: Law, seed: int, layer: int, members: NDArray[np.int64], width: int, rows: NDArray[np.int64]
) -> Floats:
    """Weights of any rows of one dense layer.

    Parameters
    ----------
    law : Law
        Of one weight; of an orthogonal layer, the standard normals that its reflections are made of.
    seed : int
        0 to 2^64 - 1.
    layer : int
        From 1.
    members, rows : int64 arrays
        Counted from 0.
    width : int
        Units of a layer, at most 2^16.

    Returns
    -------
    ndarray of float64, shape (len(members), len(rows), width)
    """
    pairs = -(-width // 2)
    return _draw_units(law, seed, (layer, STREAM_LAYERS), members, rows[:, None] * pairs + np.arange(pairs), width)


def draw_biases(law: Law, seed: int, layer: int, members: NDArray[np.int64], width: int) -> Floats:
    """Biases of one dense layer.

    Returns
    -------
    ndarray of float64, shape (len(members), width)
    """
    pairs = -(-width // 2)
    return _draw_units(law, seed, (layer, STREAM_LAYERS), members, width * pairs + np.arange(pairs), width)


def draw_input_units(law: Law, seed: int, number: int, members: NDArray[np.int64], width: int) -> Floats:
    """Units of the input of dense layers; `number` counts a member's inputs from 1.

    Returns
    -------
    ndarray of float64, shape (len(members), width)
    """
    return _draw_units(law, seed, (number, STREAM_INPUTS), members, np.arange(-(-width // 2)), width)


def draw_cotangents(seed: int, number: int, members: NDArray[np.int64], width: int) -> Floats:
    """Random unit vectors, uniform on the sphere; `number` counts a member's cotangents from 1.

    Returns
    -------
    ndarray of float64, shape (len(members), width)
    """
    block = number, STREAM_COTANGENTS
    normals = np.stack(_pair_variates("normal", seed, block, members, np.arange(-(-width // 2))), axis=-1)
    vectors = normals.reshape(len(members), -1)[:, :width]
    unit: Floats = vectors / np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return unit


def _draw_units(
    law: Law, seed: int, block: tuple[int, int], members: NDArray[np.int64], pairs: NDArray[np.int64], width: int
) -> Floats:
    """Values of a law for the two units of each pair, side by side on the last axis, and of these the first `width`."""
    shape = (len(members), *pairs.shape[:-1], width)
    if law.family == "constant" or not law.scale:
        return np.broadcast_to(np.float64(law.location), shape)
    family: Family = "uniform" if law.family == "uniform" else "normal"
    units = np.stack(_pair_variates(family, seed, block, members, pairs), axis=-1)
    units = units.reshape(*shape[:-1], -1)[..., :width]
    return units if law.family == "orthogonal" else law.location + law.scale * units


def _pair_variates(
    family: Family, seed: int, block: tuple[int, int], members: NDArray[np.int64], pairs: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Two independent variates for each member and pair; `block` is the layer, or another number, and the stream."""
    number, stream = block
    first = np.full((), number % 2**32, dtype=np.uint64)
    member = members.astype(np.uint64).reshape(-1, *[1] * pairs.ndim)
    u, v = _uniforms(seed, first, pairs.astype(np.uint64), member, stream + 256 * (number >> 32))
    return _of_family(family, u, v)
