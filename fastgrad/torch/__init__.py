"""Exact gradients of anybody's PyTorch model, at any depth, in any float type."""

from fastgrad.torch.backward import ScaledTensor, backward

__all__ = ["ScaledTensor", "backward"]
