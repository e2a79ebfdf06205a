"""The NumPy backend: the definition of what the others compute, formula by formula. It is not tuned.

The contract is `fastgrad.kernels.contract`.
"""

from fastgrad.kernels.contract import Limits
from fastgrad.kernels.reference.chain import backprop, propagate, suffix_products, train
from fastgrad.kernels.reference.layers import layers_backward, layers_forward

__all__ = ["LIMITS", "backprop", "build", "layers_backward", "layers_forward", "propagate", "suffix_products", "train"]

# Whole arrays: no lanes. In `train` those of 4096 members stay in the cache; `backprop` has about twenty alive at once.
LIMITS = Limits(links=2**13, elements=2**22, members=2**12, lanes=0, work_bytes=160, weights=2**23, segment=0)


def build() -> dict[str, str]:
    """Nothing is compiled beforehand."""
    return {}
