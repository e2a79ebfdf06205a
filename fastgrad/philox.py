"""The counter-based draws, in NumPy: the definition that the compiled kernels follow.

Weights and biases are a pure function of (seed, member, link), so that any part of any chain can be made again at any
time, in any order. Generator: Philox4x32-10 of J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as
easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastgrad.laws import Law

    Floats = NDArray[np.float64]
    Words = NDArray[np.uint64]

LOW_32 = np.uint64(0xFFFFFFFF)
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85  # the golden ratio and sqrt(3) - 1, in units of 2^-32

STREAM_LINKS, STREAM_INPUTS = 0, 1  # 2 is kept for dense layers
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
    weight: Law,
    bias: Law,
    seed: int,
    links: NDArray[np.int64],
    members: NDArray[np.int64],
    stream: int = STREAM_LINKS,
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
    shape = len(links), len(members)
    families = {weight.family, bias.family}
    u = v = cosine = sine = np.zeros(())
    if families & {"normal", "uniform"}:
        u, v = uniforms(seed, links, members, stream)
    if "normal" in families:
        # Box and Muller, Annals of Mathematical Statistics 29 (1958) 610.
        radius = np.sqrt(-2.0 * np.log(u))
        cosine, sine = (radius * part for part in cos_sin_turns(v))
    w = _from_variates(weight, uniform=u, normal=cosine)
    b = -0.5 * w if bias.family == "centered" else _from_variates(bias, uniform=v, normal=sine)
    return np.broadcast_to(w, shape), np.broadcast_to(b, shape)


def draw_inputs(x: Law, target: Law, seed: int, members: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Inputs and targets of any members: as weight and bias of link 1, but from the stream of the inputs.

    Returns
    -------
    x, target : ndarray of float64, shape (len(members),)
    """
    drawn = draw(x, target, seed, np.ones(1, dtype=np.int64), members, STREAM_INPUTS)
    return drawn[0][0], drawn[1][0]


def _from_variates(law: Law, uniform: Floats, normal: Floats) -> Floats:
    if law.family == "constant":
        return np.asarray(law.location)
    return law.location + law.scale * (normal if law.family == "normal" else uniform)


def warn_if_dependent(first: Law, second: Law, names: tuple[str, str] = ("weight", "bias")) -> None:
    """Warn where two laws share their uniforms (see the end of the table in `fastgrad.laws`)."""
    if {first.family, second.family} == {"normal", "uniform"} and first.scale and second.scale:
        warnings.warn(
            f"{names[0]}={first} and {names[1]}={second} are made from the same pair of uniforms: they are not "
            "independent; take both normal or both uniform",
            stacklevel=3,
        )
