"""The Numba backend: the stages of the reference as loops, with the IEEE operations of csrc/ in the same order.

The contract is `fastgrad.kernels.contract`. Each file is the twin of a header in ``csrc/``, and each scalar function
of one of the same name there, with the same bits.
"""

from fastgrad.kernels.constants import COPIED_SEGMENT
from fastgrad.kernels.contract import Limits
from fastgrad.kernels.jit.backprop import BLOCK, backprop, backprop_segments
from fastgrad.kernels.jit.layers import layers_backward, layers_forward
from fastgrad.kernels.jit.propagate import propagate, suffix_products
from fastgrad.kernels.jit.train import train

__all__ = [
    "LIMITS",
    "backprop",
    "backprop_segments",
    "build",
    "layers_backward",
    "layers_forward",
    "propagate",
    "suffix_products",
    "train",
]

# No memory for `backprop`: the result's own holds what reverse mode keeps.
LIMITS = Limits(
    links=2**18, elements=2**22, members=2**9, lanes=BLOCK, work_bytes=0, weights=2**26, segment=COPIED_SEGMENT
)


def build() -> dict[str, str]:
    """Nothing is compiled beforehand."""
    return {}
