"""Why do the first layers of my deep sigmoid network not learn?

``fastgrad measure examples/sigmoid_mlp.py:build``
"""

import torch
from torch import nn


def build():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.Sigmoid()) for _ in range(100)), nn.Linear(16, 1))
    x = torch.randn(32, 16)
    return model, nn.functional.mse_loss(model(x), x[:, :1])
