"""A loop of one's own in Numba: the weight at which the gradient of 1000 links falls off most slowly."""

import numba
import numpy as np

import fastgrad.njit as fj


@numba.njit(cache=True)
def log2_gradients(weights, depth):
    """log2 |do_L/dx| of chains of equal links with centered biases, from x = 0.4, for each weight."""
    found = np.empty(len(weights))
    for i, weight in enumerate(weights):
        w, b = np.full(depth, weight), np.full(depth, -weight / 2)
        _, mantissa, exponent = fj.chain_gradient(w, b, 0.4)
        found[i] = fj.log2_of(mantissa, exponent)
    return found


weights = np.linspace(3.0, 5.0, 81)
found = log2_gradients(weights, 1000)
best = np.argmax(found)
print(f"weight {weights[best]:.3f}: gradient 2^{found[best]:.2f}")
