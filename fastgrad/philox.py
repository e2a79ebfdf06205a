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
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.laws import Family, Law

    Floats = NDArray[np.float64]
    Words = NDArray[np.uint64]

LOW_32 = np.uint64(0xFFFFFFFF)
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85  # the golden ratio and sqrt(3) - 1, in units of 2^-32

STREAM_LINKS, STREAM_INPUTS = 0, 1  # 2 and 3 are kept for dense layers and their cotangents
STREAM_MIXED = 4  # the second of two laws of different families
MEMBERS_MAX = 2**32  # the member is one counter word
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
    member = members.astype(np.uint64)[None, :]
    words = philox4x32(
        (link & LOW_32, link >> np.uint64(32), member, np.uint64(stream)),  # type: ignore[arg-type]  # a scalar broadcasts
        (seed % 2**32, seed >> 32),
    )

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
    b = -0.5 * a if second.family == "centered" else second.location + second.scale * v
    return np.broadcast_to(a, shape), np.broadcast_to(b, shape)


def _variates(family: Family, seed: int, members: NDArray[np.int64], block: Block) -> tuple[Floats, Floats]:
    """Two independent uniforms, or two standard normals."""
    links, stream = block
    u, v = uniforms(seed, links, members, stream)
    if family == "uniform":
        return u, v
    # Box and Muller, Annals of Mathematical Statistics 29 (1958) 610.
    radius = np.sqrt(-2.0 * np.log(u))
    cosine, sine = cos_sin_turns(v)
    return radius * cosine, radius * sine
