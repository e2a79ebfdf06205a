"""Where does my transformer lose its gradient in bfloat16?

``python examples/bfloat16_transformer.py``, or ``fastgrad measure examples/bfloat16_transformer.py:build`` for float32.
"""

import torch
from torch import nn

import fastgrad.torch


class Block(nn.Module):
    """A transformer's block whose author forgot the residual connections."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.feedforward = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x):
        return self.feedforward(self.attention(x, x, x)[0])


def build(dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(*(Block() for _ in range(36)), nn.LayerNorm(32)).to(dtype)
    return model, model(torch.randn(2, 8, 32).to(dtype))[:, :, 0].float().sum()


if __name__ == "__main__":
    with fastgrad.torch.recording() as calls:
        model, loss = build(torch.bfloat16)
    measured = fastgrad.torch.measure_loss(loss, model, calls)
    print(measured.table())
    print("bfloat16 loses the gradient first at", measured.first_lost["bfloat16"])
