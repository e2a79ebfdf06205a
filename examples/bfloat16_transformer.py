"""Where does my transformer lose its gradient in bfloat16?

``python examples/bfloat16_transformer.py``
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


torch.manual_seed(0)
model = nn.Sequential(*(Block() for _ in range(36)), nn.LayerNorm(32)).to(torch.bfloat16)
tokens = torch.randn(2, 8, 32, dtype=torch.bfloat16)
measured = fastgrad.torch.measure(model, tokens, loss=lambda output: output[:, :, 0].float().sum())
print(measured.table())
print("bfloat16 loses the gradient first at", measured.first_lost["bfloat16"])
