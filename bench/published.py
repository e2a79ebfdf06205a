"""Draw published figures of signal propagation again, from drawn layers beside the mean field.

python bench/published.py FOLDER writes length.png, gradients.png, schemes_layers.png, nielsen.png and
critical.png: less than a minute on two processors. Each function names its source.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

import fastgrad as fg
from fastgrad.report.document import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = [color for color, _ in PALETTE]
# In square layers lecun_normal is glorot_normal.
SCHEMES = {"glorot_normal": "-", "he_normal": "-", "torch_default": "-", "orthogonal:gain=1": "--"}


def length(axes: Axes) -> None:
    """Length of the preactivations against the layer (Poole et al., NIPS 2016, figure 1): tanh, sigma_b 0.3."""
    width, depth, starts = 1000, 15, (0.2, 5.0)
    for color, sigma_w in zip(COLORS, (1.3, 2.5, 4.0), strict=False):
        for x in starts:
            growth = fg.simulate(
                depth, 1, f"normal:gain={sigma_w}", "normal:std=0.3", x, width=width, nonlinearity="tanh"
            )
            label = f"σ_w = {sigma_w}" if x == starts[0] else None
            axes.plot(growth.link, growth.length.to_float()[:, 0], "o-", color=color, markersize=3, label=label)
        field = fg.theory.mean_field(sigma_w, 0.3, "tanh")
        axes.axhline(field.q, color=color, linestyle=":")
    axes.set(xlabel="layer", ylabel="length |z|² / n", yscale="log")
    axes.set_title(f"Lengths come to q* (dotted): tanh, σ_b = 0.3, {width} units, two inputs", loc="left")


def gradients(axes: Axes) -> None:
    """Squared norm of the gradient against the layer (Schoenholz et al., ICLR 2017): tanh, sigma_b² 0.05."""
    width, depth, ensemble = 300, 200, 20
    for color, square in zip(COLORS, (1.0, 1.5, 1.760954639595, 2.0, 2.5), strict=False):
        law = f"normal:gain={math.sqrt(square)}"
        bias = f"normal:std={math.sqrt(0.05)}"
        x = "normal:std=1"
        growth = fg.simulate(depth, ensemble, law, bias, x, width=width, nonlinearity="tanh")
        decades = 2 * growth.grad_weight.log10().mean(axis=1)
        axes.plot(growth.link, decades, color=color, label=f"σ_w² = {square:.3g}")
        slope = math.log10(fg.theory.mean_field(math.sqrt(square), math.sqrt(0.05), "tanh").chi_1)
        axes.plot(growth.link, decades[-1] + slope * (depth - growth.link), ":", color=color)
    axes.set(xlabel="layer", ylabel="log10 |gradient of the weights|²")
    axes.set_title(f"Slopes are log10 χ₁ (dotted): tanh, σ_b² = 0.05, {width} units, {ensemble} networks", loc="left")


def schemes(axes: Axes, nonlinearity: str) -> None:
    """Norm of the gradient under the named initializations, as in Glorot and Bengio, AISTATS 2010."""
    width, depth, ensemble = 256, 50, 10
    for color, (scheme, style) in zip(COLORS, SCHEMES.items(), strict=False):
        growth = fg.simulate(depth, ensemble, scheme, x="normal:std=1", width=width, nonlinearity=nonlinearity)
        axes.plot(growth.link, growth.adjoint.log10().mean(axis=1), style, color=color, label=scheme)
    axes.set(xlabel="layer")
    axes.set_title(nonlinearity, loc="left")


# Norms of the gradient by the biases of each hidden layer, mean over 1000 images of MNIST, before training, with W ~
# N(0, 1/n), b ~ N(0, 1): computed from the data and the networks of Nielsen, Neural Networks and Deep Learning (2015),
# chapter 5.
NIELSEN = {
    "784, 30, 30, 10": (0.0657413, 0.3092185),
    "784, 30, 30, 30, 10": (0.0118382, 0.0599652, 0.2831424),
    "784, 30, 30, 30, 30, 10": (0.0029753, 0.0170767, 0.0695392, 0.2851389),
}


def nielsen(axes: Axes) -> None:
    """Nielsen's speed of learning of each hidden layer, beside √chi_1 a layer and drawn networks of 30 units."""
    for color, (layers, norms) in zip(COLORS, NIELSEN.items(), strict=False):
        back = np.arange(len(norms), 0, -1)
        axes.plot(-back, np.log10(norms), "o-", color=color, label=layers)
    growth = fg.simulate(4, 1000, "normal:gain=1", "normal:std=1", "normal:std=1", width=30)
    back = np.arange(1.0, 5.0)
    last = np.log10(np.mean([norms[-1] for norms in NIELSEN.values()]))
    drawn = growth.grad_bias.log10().mean(axis=1)
    axes.plot(-back, last + drawn[::-1] - drawn[-1], "s--", color="0.4", label="1000 networks of 30 units, shifted")
    slope = math.log10(fg.theory.mean_field(1, 1).chi_1) / 2
    axes.plot(-back, last + slope * (back - 1), ":", color="black", label=f"√χ₁ = {10**slope:.4f} a layer")
    axes.set(xlabel="hidden layer, counted from the last", ylabel="log10 |gradient of the biases|")
    axes.set_xticks(-back, [f"{int(layer)}" for layer in back])
    axes.set_title("Nielsen's networks, sigmoid, W ~ N(0, 1/n), b ~ N(0, 1)", loc="left")


def critical(axes: Axes) -> None:
    """Exponent of drawn sigmoid networks over sigma_w and sigma_b, and the line where chi_1 is 1."""
    width, depth = 200, 100
    sigma_w, sigma_b = np.linspace(2, 30, 29), np.linspace(0, 20, 21)
    exponent = np.array(
        [
            [
                fg.simulate(
                    depth, 1, f"normal:gain={w}", f"normal:std={b}" if b else "zero", width=width, record=2
                ).lyapunov.mean
                for w in sigma_w
            ]
            for b in sigma_b
        ]
    )
    mesh = axes.pcolormesh(sigma_w, sigma_b, exponent, cmap="RdBu_r", vmin=-0.5, vmax=0.5, rasterized=True)
    axes.figure.colorbar(mesh, ax=axes, label="exponent, nats per layer", extend="both")
    line = [fg.theory.critical_sigma_w(b) for b in sigma_b]
    axes.plot(line, sigma_b, color="black", label="χ₁ = 1 (n → ∞)")
    axes.set(xlabel="σ_w", ylabel="σ_b", xlim=(sigma_w[0], sigma_w[-1]))
    axes.set_title(f"Sigmoid networks of {width} units: gradients vanish (blue) or explode (red)", loc="left")


def main(folder: Path) -> None:
    """Draw all of them."""
    for name, draw in (("length", length), ("gradients", gradients), ("nielsen", nielsen), ("critical", critical)):
        canvas = Figure(figsize=(7.2, 4.5), layout="constrained")
        axes = canvas.subplots()
        draw(axes)
        _finish(canvas, folder / f"{name}.png", [axes])
    canvas = Figure(figsize=(9.6, 4.0), layout="constrained")
    panels = canvas.subplots(1, 3)
    for axes, nonlinearity in zip(panels, ("sigmoid", "tanh", "relu"), strict=True):
        schemes(axes, nonlinearity)
    panels[0].set_ylabel("log10 |gradient|")
    canvas.suptitle("Named initializations, 256 units, mean of 10 networks", x=0.01, ha="left", fontsize="medium")
    _finish(canvas, folder / "schemes_layers.png", [*panels])


def _finish(canvas: Figure, path: Path, panels: list[Axes]) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize("medium")
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    canvas.savefig(path, dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
