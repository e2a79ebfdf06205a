"""How gradients grow or vanish through very deep sigmoid networks: exactly, at any depth, fast.

>>> import fastgrad as fg
>>> w, b = fg.draw(1000, 1, weight="normal:std=500")
>>> gradient = fg.backprop(w, b, x=0.5)
>>> gradient.grad_x[0]
-7.283e-83049

The jobs are `backprop` for given chains, `simulate` for drawn ones, `train` for gradient descent, and `sweep` for
either of the last two over a grid; `Scaled` holds what no float can. The kernels exist three times:
`available_backends` tells which can run here.
"""

import fastgrad.interrupts  # noqa: F401 (before the others, which take 0.1 s)

# isort: split
from fastgrad import laws, theory
from fastgrad._version import __version__
from fastgrad.chain import Chain, agreement_rtol
from fastgrad.checks import TooLargeError
from fastgrad.info import build_info
from fastgrad.jobs.backprop import Gradients, backprop
from fastgrad.jobs.draw import draw
from fastgrad.jobs.growth import Growth, Lyapunov
from fastgrad.jobs.simulate import simulate
from fastgrad.jobs.train import Training, train, train_drawn
from fastgrad.kernels import BackendUnavailableError, available_backends
from fastgrad.laws import Law
from fastgrad.scaled import Scaled, log2_distance
from fastgrad.sweeps.run import sweep

__all__ = [
    "BackendUnavailableError",
    "Chain",
    "Gradients",
    "Growth",
    "Law",
    "Lyapunov",
    "Scaled",
    "TooLargeError",
    "Training",
    "__version__",
    "agreement_rtol",
    "available_backends",
    "backprop",
    "build_info",
    "draw",
    "laws",
    "log2_distance",
    "simulate",
    "sweep",
    "theory",
    "train",
    "train_drawn",
]
