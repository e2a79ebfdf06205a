"""How gradients grow or vanish through very deep sigmoid networks: exactly, at any depth, fast.

>>> import fastgrad as fg
>>> w, b = fg.draw(1000, 1, weight="normal:std=500")
>>> gradient = fg.backprop(w, b, x=0.5)
>>> gradient.grad_x[0]
-7.283e-83049

The jobs are `backprop` for given chains, `simulate` for drawn ones, `train` for gradient descent, and `sweep` for
either of the last two over a grid; `Scaled` holds what no float can. The kernels exist three times:
`available_backends` tells which can run here.

Each name is imported when it is first used (PEP 562).
"""

import fastgrad.interrupts  # noqa: F401 (before any other, which may take 0.1 s)

# isort: split
from fastgrad._version import __version__

TYPE_CHECKING = False  # as checkers take it too, without the import of typing
if TYPE_CHECKING:
    from fastgrad import laws, theory
    from fastgrad.chain import Chain, agreement_rtol
    from fastgrad.checks import TooLargeError
    from fastgrad.headers import get_include
    from fastgrad.info import build_info
    from fastgrad.jobs.backprop import Gradients, backprop
    from fastgrad.jobs.draw import draw
    from fastgrad.jobs.growth import Growth, Lyapunov
    from fastgrad.jobs.simulate import simulate
    from fastgrad.jobs.spectrum import LyapunovSpectrum, lyapunov_spectrum
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
    "LyapunovSpectrum",
    "Scaled",
    "TooLargeError",
    "Training",
    "__version__",
    "agreement_rtol",
    "available_backends",
    "backprop",
    "build_info",
    "draw",
    "get_include",
    "laws",
    "log2_distance",
    "lyapunov_spectrum",
    "simulate",
    "sweep",
    "theory",
    "train",
    "train_drawn",
]

# Where the names are that are no modules themselves: what the imports above say to checkers.
_HOMES = {
    "BackendUnavailableError": "kernels",
    "Chain": "chain",
    "Gradients": "jobs.backprop",
    "Growth": "jobs.growth",
    "Law": "laws",
    "Lyapunov": "jobs.growth",
    "LyapunovSpectrum": "jobs.spectrum",
    "Scaled": "scaled",
    "TooLargeError": "checks",
    "Training": "jobs.train",
    "agreement_rtol": "chain",
    "available_backends": "kernels",
    "backprop": "jobs.backprop",
    "build_info": "info",
    "draw": "jobs.draw",
    "get_include": "headers",
    "log2_distance": "scaled",
    "lyapunov_spectrum": "jobs.spectrum",
    "simulate": "jobs.simulate",
    "sweep": "sweeps.run",
    "train": "jobs.train",
    "train_drawn": "jobs.train",
}

if not TYPE_CHECKING:  # checkers would take any name for one of the package

    def __getattr__(name):
        """Import a public name, or a module of the package."""
        from importlib import import_module

        if name in _HOMES:
            found = getattr(import_module(f"fastgrad.{_HOMES[name]}"), name)
        elif name in __all__:
            found = import_module(f"fastgrad.{name}")
        else:
            raise AttributeError(f"module 'fastgrad' has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
