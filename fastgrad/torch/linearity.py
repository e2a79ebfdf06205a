"""A check of every node of a graph: its backward has to be linear in the cotangent, bit for bit for powers of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastgrad.torch import _internals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.autograd.graph import Node

    from fastgrad.torch.measurement import Call
    from fastgrad.torch.recording import RecordedCall


FACTOR = 64


class Linearity:
    """Nodes whose answer to `FACTOR` times their cotangent is not `FACTOR` times as large."""

    def __init__(self) -> None:
        self.found: list[Node] = []

    def __call__(
        self, node: Node, cotangents: Sequence[torch.Tensor | None], results: Sequence[torch.Tensor | None]
    ) -> None:
        """Call a node again, and keep it where the answer differs; not one that never answers the same twice."""
        larger = [None if each is None else each * FACTOR for each in cotangents]
        expected = [None if each is None else each * FACTOR for each in results]
        if not _equal(_internals.call_again(node, larger), expected) and _equal(
            _internals.call_again(node, cotangents), results
        ):
            self.found.append(node)

    def by_call(self, recorded: list[RecordedCall], rows: list[Call]) -> dict[str, str]:
        """Names of the nodes by the label of the call that ran when they were made."""
        made = (
            [
                (max(_internals.sequence_number(node) for node, _ in call.edges), row.label)
                for call, row in zip(recorded, rows, strict=True)
                if call.edges
            ]
            if recorded
            else []
        )
        names: dict[str, dict[str, None]] = {}
        for node in self.found:
            number = _internals.sequence_number(node)
            label = next((label for last, label in made if number <= last), "the loss")
            names.setdefault(label, {})[node.name()] = None
        return {label: ", ".join(nodes) for label, nodes in names.items()}


def _equal(one: Sequence[torch.Tensor | None], other: Sequence[torch.Tensor | None]) -> bool:
    """Tell if tensors have equal bits."""
    return len(one) == len(other) and all(
        a is b if a is None or b is None else torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )
