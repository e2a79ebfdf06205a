"""Which initialization for my MLP?

``python examples/mlp_initialization.py``
"""

import torch
from torch import nn

import fastgrad.torch


def build():
    layers = [module for _ in range(30) for module in (nn.Linear(32, 32), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(32, 1))


torch.manual_seed(0)
found = fastgrad.torch.schemes(build, torch.randn(64, 32), loss=lambda output: output.square().mean())
print(found.table())
print(found.plot())
