"""Exact gradients of anybody's PyTorch model, at any depth, in any float type.

>>> import torch
>>> import fastgrad.torch
>>> _ = torch.manual_seed(0)
>>> layers = [module for _ in range(300) for module in (torch.nn.Linear(16, 16), torch.nn.Sigmoid())]
>>> model = torch.nn.Sequential(*layers)
>>> loss = model(torch.ones(1, 16)).sum()
>>> first = next(model.parameters())
>>> fastgrad.torch.backward(loss)[first].log10() < -250      # autograd says 0
True

`backward` computes gradients; `measure` says where they vanish, module by module, and which float formats lose them;
`schemes` compares initializations; under `exact` a saturated unit passes on its derivative; `chain` is a chain of
sigmoids as an operator.
"""

from fastgrad.torch.backward import ScaledTensor, backward
from fastgrad.torch.exact import exact
from fastgrad.torch.measure import LossNotFiniteError, measure, measure_loss
from fastgrad.torch.measurement import Call, Decades, Magnitudes, Measurement
from fastgrad.torch.operator import chain
from fastgrad.torch.recording import RecordedCall, Recording, recording
from fastgrad.torch.schemes import ModelSchemes, schemes

__all__ = [
    "Call",
    "Decades",
    "LossNotFiniteError",
    "Magnitudes",
    "Measurement",
    "ModelSchemes",
    "RecordedCall",
    "Recording",
    "ScaledTensor",
    "backward",
    "chain",
    "exact",
    "measure",
    "measure_loss",
    "recording",
    "schemes",
]
