"""Exact gradients: torch's recorded graph walked from the loss, each cotangent with powers of two of its own."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from fastgrad.scaled import FLOAT_LIMITS, Scaled
from fastgrad.torch import _internals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch.autograd.graph import Node

    from fastgrad.torch._internals import Edge

    Term = tuple[torch.Tensor, int]  # a tensor, and the power of two that it is to be multiplied by
    Inspect = Callable[[Node, list[torch.Tensor | None], tuple[torch.Tensor | None, ...]], None]


# log2 of the largest element, within which a cotangent is left as it is. float16 ends at 2^-14 and is kept at the top.
RANGE = 24
RANGE_OF_FLOAT16 = 1
# log2 of the largest element of a float16 result, within which it is taken; one that the node made smaller or larger
# has lost digits, and is made again from a cotangent multiplied by powers of two, of this size at a time.
RESULT_OF_FLOAT16 = (-6, 15)
SHIFT_OF_FLOAT16 = 13
# Powers of two between contributions that are still added: further apart, the smaller one would leave the float type.
APART = {torch.float64: 500, torch.float32: 60, torch.bfloat16: 60, torch.float16: 10}
APART |= {torch.complex128: 500, torch.complex64: 60}
# Nodes that only move numbers, or copy them: what goes in is in range, and so is what comes out.
MOVING = {
    f"{name}Backward{i}"
    for name in ("T", "View", "UnsafeView", "ReshapeAlias", "Transpose", "Permute", "Unsqueeze", "Squeeze", "Clone")
    for i in range(3)
}


class ScaledTensor:
    """A sum of tensors, each multiplied by a power of two.

    Attributes
    ----------
    terms : list of (Tensor, int)
        Tensors of one shape and their exponents: the value is the sum of ``tensor * 2**exponent``. Nearly always one.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: list[Term]) -> None:
        self.terms = terms

    def norm(self) -> Scaled:
        """Euclidean norm of all elements.

        Raises
        ------
        ValueError
            If an element is nan or inf.
        """
        norms = [_norm(tensor, exponent) for tensor, exponent in self._apart()]
        top = max(exponent for _, exponent in norms)
        total = math.hypot(*(math.ldexp(norm, max(exponent - top, -2000)) for norm, exponent in norms))
        mantissa, shift = math.frexp(total)
        return Scaled.of_parts(np.asarray(mantissa), np.asarray(top + shift if mantissa else 0, dtype=np.int64))

    def log10(self) -> float:
        """Decimal logarithm of the norm; -inf for zero."""
        return float(self.norm().log10())

    def sizes(self) -> list[Term]:
        """Magnitudes of the elements that are not zero: tensors of shape (count,), each times a power of two."""
        found = []
        for tensor, exponent in self._apart():
            sizes = tensor.abs().flatten()
            found.append((sizes if sizes.all() else sizes[sizes > 0], exponent))
        return found

    def log2_sizes(self) -> torch.Tensor:
        """Binary logarithms of the magnitudes of the elements that are not zero, float64, shape (count,)."""
        return torch.cat([sizes.double().log2() + exponent for sizes, exponent in self.sizes()])

    def _apart(self) -> list[Term]:
        """Terms without a common element: each element is where its largest term is, and holds the sum of all."""
        if len(self.terms) == 1:
            return [(self.terms[0][0].detach(), self.terms[0][1])]
        terms = sorted(((t.detach().to(_double(t)), e) for t, e in self.terms), key=lambda term: -term[1])
        found: list[Term] = []
        free = torch.ones_like(terms[0][0], dtype=torch.bool)
        for i, (tensor, exponent) in enumerate(terms):
            total = tensor
            for other, power in terms[i + 1 :]:
                if exponent - power < 900:  # else it is far below the last place
                    total = total + other * 2.0 ** (power - exponent)
            found.append((torch.where(free, total, 0), exponent))
            free = free & (total == 0)
        return found

    def to_tensor(self, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Round to a float type; inf and 0 where it can't hold the value."""
        parts = [
            _times(tensor.detach().to(_double(tensor)), max(-4000, min(4000, exponent)))
            for tensor, exponent in self.terms
        ]
        return torch.stack(parts).sum(0).to(dtype)

    def share_lost(self, dtype: torch.dtype) -> float:
        """Share of the elements, of those that are not zero, that rounding to a float type makes 0 or inf."""
        name = str(dtype).removeprefix("torch.")
        if name not in FLOAT_LIMITS:
            raise ValueError(f"dtype: expected torch.{', torch.'.join(FLOAT_LIMITS)}, got {dtype}")
        log2, limits = self.log2_sizes(), FLOAT_LIMITS[name]
        lost = (log2 <= limits.underflow) | (log2 >= limits.overflow)
        return lost.double().mean().item() if log2.numel() else 0.0

    def __repr__(self) -> str:
        return f"ScaledTensor(shape={tuple(self.terms[0][0].shape)}, norm={self.norm()})"


def backward(
    loss: torch.Tensor,
    inputs: torch.Tensor | Iterable[torch.Tensor] | None = None,
    *,
    cotangent: torch.Tensor | None = None,
    keep: Literal["gradients", "norms"] = "gradients",
) -> Mapping[torch.Tensor, ScaledTensor | Scaled]:
    """Compute the gradients of a loss, whatever their magnitude.

    ``.grad`` is untouched, and the graph kept. Where the floats of the model hold the gradients, the bits are those of
    ``loss.backward()``. Hooks of tensors are not run.

    Parameters
    ----------
    loss : Tensor
        A scalar, or a tensor together with `cotangent`.
    inputs : Tensor, or iterable of Tensor, optional
        Leaves or not; every leaf that the loss depends on, if they are left out.
    cotangent : Tensor, optional
        dloss/dloss, of the loss's shape.
    keep : {"gradients", "norms"}
        With norms, no gradient is held longer than needed.

    Returns
    -------
    dict of Tensor to ScaledTensor, or with norms to Scaled
        Of the tensors that the loss depends on.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, the loss has no graph, one that was freed, or is not finite, or a gradient is sparse or
        not finite; for compiled code, and tensors of torch.func, on the meta device, or distributed.

    Notes
    -----
    Inside one tensor the range is that of its float type: elements far below the largest are rounded, or 0, as torch's.
    So are a node's results: in a model in bfloat16, which keeps 8 bits, the norms are some 5 % from those in float64
    after a hundred layers of width 64, and further off in narrow layers; in float16, which keeps 11, 0.5 %.
    """
    if keep not in ("gradients", "norms"):
        raise ValueError(f"keep: expected 'gradients' or 'norms', got {keep!r}")
    root = root_of(loss, cotangent)
    if cotangent is None and not loss.isfinite():
        raise ValueError(f"loss: expected a finite number, got {loss.item()}; measure() names the module that made it")
    wanted = _leaves(root) if inputs is None else _checked_inputs(inputs)
    found: dict[torch.Tensor, ScaledTensor | Scaled] = {}

    def noting(tensor: torch.Tensor) -> Callable[[ScaledTensor], None]:
        def note(gradient: ScaledTensor) -> None:
            found[tensor] = gradient if keep == "gradients" else gradient.norm()

        return note

    watch = {_internals.gradient_edge(tensor): noting(tensor) for tensor in wanted}
    walk(loss, watch, cotangent=cotangent)
    return found


def _checked_inputs(inputs: torch.Tensor | Iterable[torch.Tensor]) -> list[torch.Tensor]:
    wanted = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    for i, tensor in enumerate(wanted):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"inputs: expected Tensors, got {type(tensor).__name__} at place {i}")
        if not tensor.requires_grad:
            raise ValueError(f"inputs: expected Tensors that require a gradient, the one at place {i} does not")
    return wanted


def walk(
    loss: torch.Tensor,
    watch: Mapping[Edge, Callable[[ScaledTensor], None]],
    *,
    cotangent: torch.Tensor | None = None,
    inspect: Inspect | None = None,
) -> None:
    """Walk the graph of a loss in the order of torch's engine.

    Parameters
    ----------
    loss : Tensor
    watch : mapping of (node, int) to callable
        Called with the cotangent of each of these tensors, once; not where none arrives.
    cotangent : Tensor, optional
        1 if left out.
    inspect : callable, optional
        Called with each node, the cotangents it is given, and what it returns.
    """
    _internals.require_working()
    root = root_of(loss, cotangent)
    start = torch.ones_like(loss) if cotangent is None else cotangent.to(loss.dtype)
    _internals.within_engine(lambda: _walk(root, loss.output_nr, start.detach(), watch, inspect))


def _walk(
    root: Node,
    output_nr: int,
    start: torch.Tensor,
    watch: Mapping[Edge, Callable[[ScaledTensor], None]],
    inspect: Inspect | None,
) -> None:
    arrived: dict[Node, dict[int, list[Term]]] = {root: {output_nr: [(start, 0)]}}
    users = _count_users(root)
    ready = [(-_internals.sequence_number(root), 0, root)]
    count = 0
    with torch.no_grad():
        while ready:
            node = heapq.heappop(ready)[2]
            cotangents = arrived.pop(node, {})
            in_range = _internals.is_leaf(node) or node.name() in MOVING
            for output, terms in cotangents.items():
                note = watch.get((node, output))
                if not in_range or len(terms) > 1:
                    cotangents[output] = _renormalized(terms, node)
                if note is not None:
                    note(ScaledTensor(cotangents[output]))
            if cotangents and not _internals.is_leaf(node):
                _call(node, cotangents, arrived, inspect)
            for inner, _ in node.next_functions:
                if inner is None:
                    continue
                users[inner] -= 1
                if not users[inner]:
                    count += 1
                    heapq.heappush(ready, (-_internals.sequence_number(inner), count, inner))


def root_of(loss: torch.Tensor, cotangent: torch.Tensor | None = None) -> Node:
    """Node that made the loss, which is checked."""
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"loss: expected a scalar Tensor, got {type(loss).__name__}")
    if what := _internals.unusual(loss):
        raise TypeError(f"loss: expected a plain Tensor with numbers, got one that is {what}")
    if cotangent is None and (loss.numel() != 1 or loss.is_complex()):
        kind = "complex Tensor" if loss.is_complex() else "Tensor"
        raise ValueError(f"loss: expected a real scalar, got a {kind} of shape {tuple(loss.shape)}")
    if cotangent is not None:
        if not isinstance(cotangent, torch.Tensor):
            raise TypeError(f"cotangent: expected a Tensor, got {type(cotangent).__name__}")
        if cotangent.shape != loss.shape:
            raise ValueError(f"cotangent: expected shape {tuple(loss.shape)}, got {tuple(cotangent.shape)}")
        if cotangent.device != loss.device:
            raise ValueError(f"cotangent: expected a Tensor on {loss.device}, as the loss is, got {cotangent.device}")
        if not cotangent.isfinite().all():
            raise ValueError("cotangent: expected finite numbers")
    if loss.grad_fn is None:
        raise ValueError("loss: has no graph: it was computed without gradients, or detached, or is a leaf itself")
    return loss.grad_fn


def _leaves(root: Node) -> list[torch.Tensor]:
    return [node.variable for node in _nodes(root) if _internals.is_leaf(node)]  # type: ignore[attr-defined]


def _nodes(root: Node) -> list[Node]:
    seen, left = {root: None}, [root]
    while left:
        for inner, _ in left.pop().next_functions:
            if inner is not None and inner not in seen:
                seen[inner] = None
                left.append(inner)
    return list(seen)


def _count_users(root: Node) -> dict[Node, int]:
    """Count for each node the tensors of it that other nodes took."""
    users = {root: 0}
    for node in _nodes(root):
        for inner, _ in node.next_functions:
            if inner is not None:
                users[inner] = users.get(inner, 0) + 1
    return users


def _call(
    node: Node, cotangents: dict[int, list[Term]], arrived: dict[Node, dict[int, list[Term]]], inspect: Inspect | None
) -> None:
    """Call a node once for each exponent of its cotangents, and hand the results on."""
    edges = node.next_functions
    if hasattr(node, "fastgrad_terms"):  # a nonlinearity of `exact`
        ((inner, output), *_) = edges
        terms = arrived.setdefault(inner, {}).setdefault(output, [])  # type: ignore[arg-type]
        for tensor, power in cotangents[0]:
            for product, exponent in node.fastgrad_terms(tensor):
                _add(terms, product, power + exponent, node)
        return
    if _internals.is_compiled(node):
        raise TypeError(
            "loss: was computed by torch.compile, whose backward pass is one piece, in which gradients can underflow; "
            'compute it with torch.compiler.set_stance("force_eager")'
        )
    expected = [None if inner is None else _internals.output_metadata(inner)[output] for inner, output in edges]
    to_float16 = any(each is not None and each.dtype == torch.float16 for each in expected)
    outputs = len(_internals.output_metadata(node))
    for count, exponent in enumerate(sorted({exponent for terms in cotangents.values() for _, exponent in terms})):
        given = [next((t for t, e in cotangents.get(output, ()) if e == exponent), None) for output in range(outputs)]
        answer = _called(node, given, again=count > 0)
        if inspect is not None:
            inspect(node, given, answer)
        results = _validated(node, answer, expected)
        powers = _powers_of_float16(node, given, expected, results) if to_float16 else {}
        for i, ((inner, output), result) in enumerate(zip(edges, results, strict=False)):
            if inner is not None and result is not None:
                terms = arrived.setdefault(inner, {}).setdefault(output, [])
                tensor, power = powers.get(i, (result, 0))
                _add(terms, tensor, exponent + power, node)


def _called(node: Node, given: list[torch.Tensor | None], *, again: bool) -> tuple[torch.Tensor | None, ...]:
    try:
        return _internals.call_again(node, given) if again else _internals.call(node, given)
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise ValueError("loss: its graph was freed; call this before backward(), which frees it") from None


def _validated(node: Node, results: tuple[torch.Tensor | None, ...], expected: list[Any]) -> list[torch.Tensor | None]:
    """Give each result the shape and type of the tensor whose gradient it is, as the engine does."""
    found: list[torch.Tensor | None] = []
    for result, tensor in zip(results, expected, strict=False):
        if result is None or tensor is None:
            found.append(None)
            continue
        if result.layout != torch.strided:
            kind = "nested" if result.is_nested else "sparse"
            raise TypeError(f"loss: {node.name()} makes a {kind} gradient, which can't be measured")
        shape = tuple(tensor.shape)
        if result.shape != shape:
            result = result.sum_to_size(shape)
        found.append(result if result.dtype == tensor.dtype else result.to(tensor.dtype))
    return found


def _powers_of_float16(
    node: Node, given: list[torch.Tensor | None], expected: list[Any], results: list[torch.Tensor | None]
) -> dict[int, Term]:
    """Results in float16 that left its range, made again from larger or smaller cotangents, by their place."""
    found: dict[int, Term] = {}
    calls: dict[int, list[torch.Tensor | None]] = {0: results}
    for i, (result, tensor) in enumerate(zip(results, expected, strict=False)):
        if result is None or tensor is None or tensor.dtype != torch.float16:
            continue
        shift, size = 0, _log2_largest(result)
        while not RESULT_OF_FLOAT16[0] <= size <= RESULT_OF_FLOAT16[1] and abs(shift) < 4 * SHIFT_OF_FLOAT16:
            other = shift + int(max(-SHIFT_OF_FLOAT16, min(SHIFT_OF_FLOAT16, -size)))
            if other not in calls:
                larger = [None if t is None else _times(t, other) for t in given]
                calls[other] = _validated(node, _called(node, larger, again=True), expected)
            again = calls[other][i]
            if again is None or (other > 0 and _log2_largest(again) == math.inf):
                break
            shift, size = other, _log2_largest(again)
            found[i] = again, -shift
    return found


def _log2_largest(tensor: torch.Tensor) -> float:
    """Exponent of the largest magnitude: -inf for zeros, inf where a number is not finite."""
    largest = torch.linalg.vector_norm(tensor, math.inf).item() if tensor.numel() else 0.0
    return math.frexp(largest)[1] if 0 < largest < math.inf else -math.inf if largest == 0 else math.inf


def _add(terms: list[Term], tensor: torch.Tensor, exponent: int, node: Node) -> None:
    """Add a contribution to a cotangent: to a term that is near, else as one of its own."""
    for i, (other, power) in enumerate(terms):
        if power == exponent:  # as the engine does
            terms[i] = other + tensor, power
            return
    if terms:
        contributions = [*terms, (tensor, exponent)]
        terms.clear()
        for each in sorted(_renormalized(contributions, node), key=lambda term: -term[1]):
            if terms and terms[-1][1] - each[1] <= APART.get(tensor.dtype, 0):
                larger, top = terms[-1]
                terms[-1] = larger + _times(each[0], each[1] - top), top
            else:
                terms.append(each)
    else:
        terms.append((tensor, exponent))


def _renormalized(terms: list[Term], node: Node) -> list[Term]:
    """Bring each term into range, and leave zeros out but for the only term."""
    found = [_in_range(tensor, exponent, node.name()) for tensor, exponent in terms]
    return [(tensor, exponent) for tensor, exponent, empty in found if not empty] or [found[0][:2]]


def _in_range(tensor: torch.Tensor, exponent: int, place: str) -> tuple[torch.Tensor, int, bool]:
    """Multiply by a power of two where the largest element is far from 1; tell if all are zero."""
    largest = torch.linalg.vector_norm(tensor, math.inf).item() if tensor.numel() else 0.0
    if largest == 0:
        return tensor, exponent, True
    if not math.isfinite(largest):
        raise ValueError(f"loss: the gradient that arrives at {place} is {largest}")
    power = math.frexp(largest)[1]
    if abs(power) <= (RANGE_OF_FLOAT16 if tensor.dtype == torch.float16 else RANGE):
        return tensor, exponent, False
    return _times(tensor, -power), exponent + power, False


def _norm(tensor: torch.Tensor, exponent: int) -> tuple[float, int]:
    """Euclidean norm of a tensor, and the power of two that it is to be multiplied by."""
    norm = torch.linalg.vector_norm(tensor, dtype=_double(tensor)).item()
    if not 1e-140 < norm < 1e140:  # squares may have left float64
        tensor, exponent, _ = _in_range(tensor, exponent, f"a tensor of shape {tuple(tensor.shape)}")
        norm = torch.linalg.vector_norm(tensor, dtype=_double(tensor)).item()
    return norm, exponent


def _times(tensor: torch.Tensor, power: int) -> torch.Tensor:
    """Multiply by a power of two, in steps that the type holds."""
    step = 14 if tensor.dtype == torch.float16 else 1000 if tensor.dtype == torch.float64 else 120
    while power:
        now = max(-step, min(step, power))
        tensor = tensor * 2.0**now
        power -= now
    return tensor


def _double(tensor: torch.Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64
