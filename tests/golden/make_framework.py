"""Make framework.json: after how many links a gradient of PyTorch is lost, in each float format.

``pip install torch==2.13.0`` and run it from anywhere: ``python tests/golden/make_framework.py``. Chains are those of
`fastgrad.draw`, one scalar sigmoid unit a link, autograd on a CPU.
"""

import json
import sys
from pathlib import Path

import torch

import fastgrad as fg

CASES = [
    ("normal:std=10", "zero", 0.5, 70),
    ("normal:std=4", "normal:std=1", 0.5, 90),
    ("normal:std=1", "zero", 0.25, 60),
    ("normal:std=500", "zero", 0.5, 10),
    ("uniform:low=-6,high=2", "uniform:low=-1,high=3", 0.5, 100),
    ("constant:500", "centered", 0.5, 160),
    ("constant:3", "centered", 0.5, 400),
    ("constant:1e5", "constant:-3", 200.0, 10),
]
MEMBERS = 51


def lost(weight, bias, x, dtype):
    """Links back from the output at which the median magnitude of do_L/do_(l-1) is 0, or is not finite."""
    w, b = (torch.tensor(values).to(dtype) for values in (weight, bias))
    activations = [torch.full((weight.shape[1],), x, dtype=torch.float64).to(dtype).requires_grad_()]
    for w_l, b_l in zip(w, b, strict=True):
        activations.append(torch.sigmoid(w_l * activations[-1] + b_l))
        activations[-1].retain_grad()
    activations[-1].sum().backward()
    for back, activation in enumerate(activations[-2::-1], start=1):
        magnitude = activation.grad.double().abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
        median = magnitude.sort().values[(len(magnitude) + 1) // 2 - 1].item()
        if median == 0:
            return {"underflow": back, "overflow": None}
        if median == torch.inf:
            return {"underflow": None, "overflow": back}
    return {"underflow": None, "overflow": None}


def found(weight, bias, x, depth):
    """What PyTorch says of a case, by format."""
    drawn = fg.draw(depth, MEMBERS, weight, bias, seed=5)
    names = ("float16", "bfloat16", "float32", "float64")
    return {name: lost(*drawn, x, getattr(torch, name)) for name in names}


if __name__ == "__main__":
    print(f"PyTorch {torch.__version__}", file=sys.stderr)
    cases = [{"case": case, "found": found(*case)} for case in CASES]
    target = Path(__file__).parent / "framework.json"
    target.write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n", encoding="utf-8")
