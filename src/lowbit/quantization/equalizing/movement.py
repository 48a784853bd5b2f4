"""Operators that only move elements, element by element: where each one of a tensor goes.

A channel shuffle (Zhang et al. 2018, "ShuffleNet", section 3.1) is a Reshape, a Transpose, a Reshape and sometimes a
Gather. Half way there is no axis of channels; behind it there is one again, and which channel is where follows from
moving a small array of numbers as the network moves activations.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.graph.model import Node

Elements = npt.NDArray[np.int64]


def moved(node: Node, elements: Elements) -> list[Elements] | None:
    """What a node makes of an array, for each output; None if it does more than move, or by what is computed.

    Args:
        node: of any kind.
        elements: in place of its first input, with as many axes.
    """
    move = MOVES.get(node.op_type)
    if move is None or node.domain not in ("", "ai.onnx"):
        return None
    try:
        return move(node, elements)
    except (ValueError, IndexError):  # sizes that only other samples have
        return None


def constant_ints(node: Node, index: int, attribute: str) -> list[int] | None:
    """Integers from a constant input or, in older operator sets, from an attribute; None if there are none."""
    if len(node.inputs) > index and node.inputs[index] is not None:
        array = _constant(node, index)
        return None if array is None else [int(i) for i in array.reshape(-1)]
    values = node.attributes.get_ints(attribute, [])
    return [int(i) for i in values] or None


def _constant(node: Node, index: int) -> np.ndarray[Any, np.dtype[Any]] | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _reshape(node: Node, x: Elements) -> list[Elements] | None:
    shape = constant_ints(node, 1, "shape")
    if shape is None:
        return None
    if not node.attributes.get_int("allowzero", 0):
        shape = [x.shape[axis] if extent == 0 else extent for axis, extent in enumerate(shape)]
    return [x.reshape(shape)]


def _flatten(node: Node, x: Elements) -> list[Elements]:
    axis = node.attributes.get_int("axis", 1)
    return [x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)]


def _transpose(node: Node, x: Elements) -> list[Elements]:
    return [x.transpose(list(node.attributes.get_ints("perm", [])) or None)]


def _gather(node: Node, x: Elements) -> list[Elements] | None:
    indices = _constant(node, 1)
    return None if indices is None else [np.take(x, indices, axis=node.attributes.get_int("axis", 0))]


def _slice(node: Node, x: Elements) -> list[Elements] | None:
    starts, ends = constant_ints(node, 1, "starts"), constant_ints(node, 2, "ends")
    if starts is None or ends is None:
        return None
    axes = constant_ints(node, 3, "axes") or list(range(len(starts)))
    steps = constant_ints(node, 4, "steps") or [1] * len(starts)
    taken = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Backwards, an end before the first element is written as a number that Python counts from the last one.
        taken[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return [x[tuple(taken)]]


def _split(node: Node, x: Elements) -> list[Elements] | None:
    axis, count = node.attributes.get_int("axis", 0), len(node.outputs)
    if len(node.inputs) > 1 and node.inputs[1] is not None and _constant(node, 1) is None:
        return None
    part = -(-x.shape[axis] // count)
    sizes = constant_ints(node, 1, "split") or [part] * (count - 1) + [x.shape[axis] - part * (count - 1)]
    return list(np.split(x, np.cumsum(sizes[:-1]), axis=axis)) if sum(sizes) == x.shape[axis] else None


def _squeeze(node: Node, x: Elements) -> list[Elements] | None:
    axes = constant_ints(node, 1, "axes")
    return None if axes is None else [np.squeeze(x, tuple(axes))]


def _unsqueeze(node: Node, x: Elements) -> list[Elements] | None:
    axes = constant_ints(node, 1, "axes")
    return None if axes is None else [np.expand_dims(x, tuple(axes))]


MOVES: dict[str, Callable[[Node, Elements], list[Elements] | None]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
