"""A training loop that logs every 100 steps how the gradient vanishes.

``python examples/training_log.py``
"""

import torch
from torch import nn

import fastgrad.torch

torch.manual_seed(0)
model = nn.Sequential(*(module for _ in range(30) for module in (nn.Linear(32, 32), nn.Tanh())), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
x = torch.randn(256, 32)
target = x[:, :1] * x[:, 1:2]

for step in range(301):
    loss = nn.functional.mse_loss(model(x), target)
    if step % 100 == 0:
        measured = fastgrad.torch.measure_loss(loss, model)  # before backward(), which frees the graph
        first = measured.calls[0].parameters.norm
        decades = measured.decades_per_layer.mean
        print(
            f"step {step}: loss {measured.loss:.3f}, gradient {first:.1e} at the start, {decades:+.2f} decades a layer"
        )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
