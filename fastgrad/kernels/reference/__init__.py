"""The NumPy backend: the definition of what the others compute, formula by formula. It is not tuned.

The contract is `fastgrad.kernels.contract`.
"""

import numpy as np

from fastgrad.kernels.contract import Limits
from fastgrad.kernels.reference import chain, layers

__all__ = ["LIMITS", "backprop", "build", "layers_backward", "layers_forward", "propagate", "suffix_products", "train"]

# Whole arrays: no lanes. In `train` those of 4096 members stay in the cache; `backprop` has about twenty alive at once.
LIMITS = Limits(links=2**13, elements=2**22, members=2**12, lanes=0, work_bytes=160, weights=2**23, segment=0)

# With NumPy's own error state on every thread: the caller's may raise.
_by_default = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
backprop = _by_default(chain.backprop)
propagate = _by_default(chain.propagate)
suffix_products = _by_default(chain.suffix_products)
train = _by_default(chain.train)
layers_forward = _by_default(layers.layers_forward)
layers_backward = _by_default(layers.layers_backward)


def build() -> dict[str, str]:
    """Nothing is compiled beforehand."""
    return {}
