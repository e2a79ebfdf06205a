"""The reason for a gradient that is exactly zero: which operation let none through."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any

from fastgrad.torch.backward import root_of, walk

if TYPE_CHECKING:
    import torch

    from fastgrad.torch._internals import Edge
    from fastgrad.torch.backward import ScaledTensor


NOT_USED = "not used: the loss does not depend on it"
# Operations whose derivative rounds to zero far from the origin; exactly zero on one side; exactly zero everywhere.
SATURATING = {
    "Sigmoid",
    "Tanh",
    "Softmax",
    "LogSoftmax",
    "Softplus",
    "LogSigmoid",
    "Silu",
    "Gelu",
    "Erf",
    "Elu",
    "Mish",
}
KEPT_BY_EXACT = {"Sigmoid", "Tanh", "Softplus", "LogSigmoid", "Silu"}
CUTTING = {"Relu", "Threshold", "Hardtanh", "Hardsigmoid", "Hardswish", "Clamp", "ClampMin", "ClampMax", "Softshrink"}
WHOLE = {"Round", "Floor", "Ceil", "Trunc", "Sign", "Heaviside"}


class Zeros:
    """Explains zeros of the gradients of a loss.

    The graph is walked once more when the first zero is to be explained.
    """

    def __init__(self, loss: torch.Tensor) -> None:
        self._loss = loss
        self._users: dict[Edge, list[Any]] | None = None  # nodes of the forward pass that took the edge's tensor
        self._outputs: dict[Any, list[Edge]] = {}  # edges of a node that some other node took
        self._is_zero: dict[Edge, bool] = {}  # of the cotangents that arrive

    def why(self, edge: Edge) -> str:
        """Explain why the gradient of a tensor is zero, or why there is none."""
        users = self._all_users()
        if edge not in users:
            return NOT_USED
        if edge not in self._is_zero:
            names = ", ".join(dict.fromkeys(node.name() for node in users[edge]))
            return f"not reached: {names} passes no gradient on"
        nearest, seen = deque([edge]), {edge}
        while nearest:
            for node in users[nearest.popleft()]:
                arriving = [each for each in self._outputs[node] if each in self._is_zero]
                if not all(self._is_zero[each] for each in arriving):
                    return _kind(node.name())
                nearest.extend(each for each in arriving if each not in seen)
                seen.update(arriving)
        return "the gradient of the loss by itself is zero"

    def _all_users(self) -> dict[Edge, list[Any]]:
        if self._users is None:
            root = (root_of(self._loss), self._loss.output_nr)
            self._users, self._outputs = {root: []}, {root[0]: [root]}
            left = [root[0]]
            while left:
                user = left.pop()
                for node, output in user.next_functions:
                    if node is None:
                        continue
                    edge = node, output
                    self._users.setdefault(edge, []).append(user)
                    if node not in self._outputs:
                        left.append(node)
                    if edge not in self._outputs.setdefault(node, []):
                        self._outputs[node].append(edge)

            def noting(edge: Edge) -> Any:
                def note(gradient: ScaledTensor) -> None:
                    self._is_zero[edge] = not gradient.norm()

                return note

            walk(self._loss, watch={edge: noting(edge) for edge in self._users})
        return self._users


def _kind(name: str) -> str:
    """Name the kind of zero that a node of the graph makes of a gradient that is not zero."""
    operation = re.sub(r"Backward\d*$", "", name)
    if operation in SATURATING:
        mended = "; under exact() it does not" if operation in KEPT_BY_EXACT else ""
        return f"saturated: the derivative in {name} rounds to 0{mended}"
    if operation in CUTTING:
        return f"dead: the derivative in {name} is 0 for every element"
    if operation in WHOLE:
        return f"constant: the derivative of {name} is 0 everywhere"
    return f"lost in {name}, which multiplies by zeros or underflows inside"
