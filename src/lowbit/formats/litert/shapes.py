"""Static shapes of every tensor, which dimension is the batch, and how a reshape maps axes onto axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from lowbit.errors import ModelError
from lowbit.graph.model import Model
from lowbit.graph.rewrites.shape_inference import values_are_few

# A batch that hardly any other dimension is a multiple of, to tell what depends on it.
PROBE = 97


@dataclass(frozen=True)
class Shapes:
    """Shapes by tensor name.

    Attributes:
        single: with a batch of one.
        probe: with a batch of `PROBE`; equal to `single` where nothing depends on the batch.
        resizable: whether the batch may change at run time.
    """

    single: Mapping[str, tuple[int, ...]]
    probe: Mapping[str, tuple[int, ...]]
    resizable: bool

    def batch_axis(self, name: str) -> int | None:
        """The dimension that grows with the batch."""
        pairs = zip(self.single[name], self.probe[name], strict=True)
        return next((axis for axis, (one, many) in enumerate(pairs) if one != many), None)


def static_shapes(model: Model) -> Shapes:
    """Shapes of all tensors of the main graph that shape inference can tell.

    An input's first dimension is the batch if it is not a number; other unknown dimensions of an image come from the
    model's preprocessing.

    Raises:
        ModelError: a dimension of an input is unknown.
    """
    single = _infer(model, 1)
    if all(isinstance(info.shape[0], int) for info in model.inputs if info.shape):
        return Shapes(single, single, resizable=False)
    probe = _infer(model, PROBE)
    grown = {
        name: sum(one != many for one, many in zip(shape, probe.get(name, ()), strict=False))
        for name, shape in single.items()
    }
    ranks_agree = all(len(shape) == len(probe.get(name, ())) for name, shape in single.items())
    if not ranks_agree or max(grown.values(), default=0) > 1:
        return Shapes(single, single, resizable=False)
    return Shapes(single, probe, resizable=True)


def _infer(model: Model, batch: int) -> dict[str, tuple[int, ...]]:
    proto = model.to_proto()
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if not dim.HasField("dim_value"):
                dim.dim_value = batch if axis == 0 else _side(model, value.name, axis, len(dims))
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=values_are_few(model.ir.graph))
    except Exception as error:
        raise ModelError(f"its shapes cannot be inferred: {error}.", where=model.source) from error
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _side(model: Model, name: str, axis: int, rank: int) -> int:
    known = model.preprocessing
    if known is None or rank != 4:
        raise ModelError(
            f"dimension {axis} of input '{name}' is not a number, and LiteRT files have images of one size.",
            where=model.source,
            remedy="Export the model with a fixed image size, or give its preprocessing.",
        )
    image = (known.channels, known.height, known.width)
    return (image if known.layout == "NCHW" else (*image[1:], image[0]))[axis - 1]


def same_memory(order: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether values stored in this order of axes lie as they would in the plain order: only axes of one moved."""
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved)


def reshaped_order(before: Sequence[int], after: Sequence[int], order: Sequence[int]) -> tuple[int, ...] | None:
    """The order of axes that a reshape leaves behind if the stored values stay where they are; None if they cannot.

    A reshape splits into groups of neighboring axes with equal products. As long as the axes of each group are stored
    side by side and in their order, the group's new axes can take their place.

    Args:
        before: shape before, in the model's order of axes.
        after: shape after.
        order: stored axis i holds axis `order[i]` of `before`.
    """
    groups = _axis_groups(before, after)
    if groups is None:
        return None
    group_of = {axis: index for index, (axes, _) in enumerate(groups) for axis in axes}
    result: list[int] = []
    placed: list[int] = []
    stored = [axis for axis in order if before[axis] != 1]
    at = 0
    while at < len(stored):
        index = group_of[stored[at]]
        axes = [axis for axis in groups[index][0] if before[axis] != 1]
        if stored[at : at + len(axes)] != axes:
            return None
        result += groups[index][1]
        placed.append(index)
        at += len(axes)
    # Axes of one can be anywhere: best where they do not change the order of the others.
    rest = [axis for index, (_, axes) in enumerate(groups) if index not in placed for axis in axes]
    if result == sorted(result):
        return tuple(range(len(after)))
    return tuple(result[:1] + rest + result[1:])


def _axis_groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Neighboring axes on both sides whose products agree, as small as they can be."""
    if math.prod(before) != math.prod(after) or 0 in before:
        return None
    groups = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [], []
        a = b = 1
        if i < len(before):
            left.append(i)
            a, i = before[i], i + 1
        if not left or (j < len(after) and (a != 1 or after[j] == 1)):
            right.append(j)
            b, j = after[j], j + 1
        while a != b:
            if a < b:
                left.append(i)
                a, i = a * before[i], i + 1
            else:
                right.append(j)
                b, j = b * after[j], j + 1
        groups.append((left, right))
    return groups
