"""Given chains: arrays, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastgrad.checks import per_member, real_array

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


DEFAULT_X, DEFAULT_COTANGENT = 0.5, 1.0


@dataclass(frozen=True, eq=False)
class Chain:
    """One chain, or an ensemble of independent chains, checked and laid out for the kernels.

    Attributes
    ----------
    weight, bias : ndarray of float64, shape (depth, ensemble)
        C-contiguous, links first. Never written to.
    x, cotangent : ndarray of float64, shape (ensemble,)
        The inputs o_0 and the loss's derivatives by the outputs.
    single : bool
        Whether the weights came as one chain of shape (depth,): results then have no ensemble axis.
    """

    weight: Floats
    bias: Floats
    x: Floats
    cotangent: Floats
    single: bool

    @property
    def depth(self) -> int:
        """Number of links."""
        return int(self.weight.shape[0])

    @property
    def ensemble(self) -> int:
        """Number of chains."""
        return int(self.weight.shape[1])

    @classmethod
    def of(
        cls,
        weight: ArrayLike,
        bias: ArrayLike,
        x: ArrayLike = DEFAULT_X,
        cotangent: ArrayLike = DEFAULT_COTANGENT,
        *,
        finite: bool = True,
    ) -> Self:
        """Check the arrays of a chain.

        Parameters
        ----------
        weight : array_like of real numbers, shape (depth,) or (depth, ensemble)
        bias : array_like, the shape of `weight` or broadcastable to it
        x, cotangent : array_like, a number or shape (ensemble,)
        finite : bool
            Whether to look for NaN and infinity among the weights and biases, which takes a pass over them; without,
            `require_finite` is left to the caller.

        Raises
        ------
        TypeError
            If an argument does not hold real numbers.
        ValueError
            If a shape does not fit, or a value is NaN or infinite; the message says where.
        """
        w = real_array("weight", weight, finite)
        if w.ndim not in (1, 2):
            raise ValueError(f"weight: expected shape (depth,) or (depth, ensemble), got {w.shape}")
        if 0 in w.shape:
            raise ValueError(f"weight: expected at least one link and one chain, got shape {w.shape}")
        b = real_array("bias", bias, finite)
        if b.shape != w.shape:
            try:
                b = np.broadcast_to(b, w.shape)
            except ValueError:
                hint = "; for one bias a link use bias[:, None]" if b.shape == w.shape[:1] else ""
                raise ValueError(
                    f"bias: expected the shape of weight {w.shape} or one that broadcasts to it, got {b.shape}{hint}"
                ) from None
        single = w.ndim == 1
        if single:
            w, b = w[:, None], b[:, None]
        ensemble = w.shape[1]
        return cls(
            weight=np.ascontiguousarray(w),
            bias=np.ascontiguousarray(b),
            x=per_member("x", x, ensemble),
            cotangent=per_member("cotangent", cotangent, ensemble),
            single=single,
        )

    @classmethod
    def load(cls, path: str | Path, **override: float) -> Chain:
        """Read a chain from an ``.npz``, ``.npy`` or ``.csv`` file: ``fastgrad.files.load_chain``, with its errors."""
        from fastgrad.files import load_chain  # here: files are a floor above

        return load_chain(path, **override)

    def save(self, path: str | Path) -> None:
        """Write the chain to a ``.npz`` file that `load` reads, whole or not at all."""
        from fastgrad.files import save_chain

        save_chain(self, path)


def agreement_rtol(weight: ArrayLike, bias: ArrayLike, x: ArrayLike = DEFAULT_X) -> Any:
    """Relative error within which the backends agree with the reference, for chains that contract.

    ``2^-52 (16 depth + 4 sum(|w_l| + |b_l|))``, with ``|w_1| max(1, |x|)`` in place of ``|w_1|``: a few units in the
    last place for the operations of each link, and for the rounding of each preactivation, which the exponential turns
    into a relative error of its size. Activations are at most 1, the input need not be.

    Parameters
    ----------
    weight : array_like, shape (depth,) or (depth, ensemble)
    bias : array_like, broadcastable to `weight`
    x : array_like, a number or shape (ensemble,)
        The input o_0; any within [-1, 1] gives the same.

    Returns
    -------
    float, or ndarray of shape (ensemble,)
        To be compared with ``|ln |a/b||``.
    """
    chain = Chain.of(weight, bias, x)
    size = np.abs(chain.weight).sum(axis=0) + np.abs(chain.bias).sum(axis=0)
    with np.errstate(over="ignore"):  # an input this large tells nothing: every error is within infinity
        size += np.abs(chain.weight[0]) * (np.maximum(1.0, np.abs(chain.x)) - 1.0)
    rtol = 2.0**-52 * (16 * chain.depth + 4 * size)
    return float(rtol[0]) if chain.single else rtol
