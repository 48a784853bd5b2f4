"""Pad and Resize of some axes, in the form that speaks of all axes.

Both may name the axes that they change since operator set 18. ONNX Runtime moves transpositions past them as if they
spoke of all axes, so a file with one of them between two integer convolutions did not run; and code that reads pads and
scales need know one form only. What is known becomes constants; the size of an axis that is not, the batch mostly, is
taken from the input's shape. Pads, scales and sizes that a runtime computes are put into their places by a
ScatterElements.

Stay as they are: axes that are computed, tensors of unknown rank, and a Resize that keeps the aspect ratio, whose one
factor holds for the named axes only. So does what is not valid, for a runtime to refuse.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lowbit.graph.edit import add_initializer, constant, free_name, set_weight

Numbers = npt.NDArray[np.generic]


def write_all_axes(model: ir.Model) -> None:
    """Let every Pad and Resize of some axes speak of all axes, in place."""
    for node in tuple(model.graph):
        given = node.inputs[0] if node.inputs else None
        if given is None or not given.shape or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Pad":
            _pad(model.graph, node, len(given.shape))
        elif node.op_type == "Resize" and "axes" in node.attributes:
            _resize(model.graph, node, given)


def _pad(graph: ir.Graph, node: ir.Node, rank: int) -> None:
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    places = None if axes is None else _places(axes.reshape(-1).tolist(), rank)
    if places is None or not _fits(node, 1, 2 * len(places)):
        return
    _spread(graph, node, 1, np.zeros(2 * rank, np.int64), _twice(places, rank))
    node.resize_inputs(3)


def _resize(graph: ir.Graph, node: ir.Node, given: ir.Value) -> None:
    rank = len(given.shape or ())
    places = _places(node.attributes.get_ints("axes", []), rank)
    if places is None or node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return
    for index in range(1, len(node.inputs)):
        # Earlier operator sets gave empty lists where nothing was meant.
        if (array := constant(node.inputs[index])) is not None and not array.size:
            node.replace_input_with(index, None)
    if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        # No other mode reads the region.
        node.replace_input_with(1, None)
    if not all(_fits(node, index, count * len(places)) for index, count in ((1, 2), (2, 1), (3, 1))):
        return
    region, scales, sizes = ([*node.inputs, None, None, None][index] for index in (1, 2, 3))
    if region is not None:
        kind = np.dtype(np.float32) if region.dtype is None else region.dtype.numpy()
        _spread(graph, node, 1, np.repeat(np.array([0, 1], kind), rank), _twice(places, rank))
    if scales is not None:
        _spread(graph, node, 2, np.ones(rank, np.float32), places)
    if sizes is not None:
        _spread_sizes(graph, node, given, places)
    node.attributes.pop("axes")


def _places(axes: Sequence[int], rank: int) -> list[int] | None:
    """Axes counted from the front; None if they are not axes of such a tensor."""
    places = [int(axis) % rank for axis in axes if -rank <= axis < rank]
    return places if len(set(places)) == len(axes) else None


def _fits(node: ir.Node, index: int, count: int) -> bool:
    """Whether an input has so many values, as far as is known, or is left out."""
    array = constant(node.inputs[index]) if index < len(node.inputs) else None
    return array is None or array.size == count


def _twice(places: Sequence[int], rank: int) -> list[int]:
    """Places in a list that has two values for each axis: all first ones, then all second ones."""
    return [*places, *(rank + place for place in places)]


def _spread(graph: ir.Graph, node: ir.Node, index: int, whole: Numbers | ir.Value, places: Sequence[int]) -> None:
    """Let input `index` be `whole` with its own values in these places."""
    value = node.inputs[index]
    assert value is not None
    wanted = f"{value.name}.all"
    array = constant(value)
    if array is not None and not isinstance(whole, ir.Value):
        whole[list(places)] = array.reshape(-1)
        set_weight(graph, node, index, whole, wanted=wanted)
        return
    if not isinstance(whole, ir.Value):
        whole = add_initializer(graph, f"{value.name}.whole", whole)
    indices = add_initializer(graph, f"{value.name}.places", np.array(places, np.int64))
    node.replace_input_with(index, _computed(graph, node, "ScatterElements", [whole, indices, value], wanted))


def _spread_sizes(graph: ir.Graph, node: ir.Node, given: ir.Value, places: Sequence[int]) -> None:
    """Let sizes speak of all axes; those of the others are the input's own."""
    shape = tuple(given.shape or ())
    wanted = constant(node.inputs[3])
    sizes = [extent if isinstance(extent, int) else None for extent in shape]
    if wanted is None and None in sizes:
        _spread(graph, node, 3, _computed(graph, node, "Shape", [given], "shape"), places)
        return
    if wanted is None or None not in sizes:
        _spread(graph, node, 3, np.array(sizes, np.int64), places)
        return
    for place, size in zip(places, wanted.reshape(-1).tolist(), strict=True):
        sizes[place] = size
    # Not by ScatterElements: inference of shapes follows only this form.
    parts = []
    for axis, size in enumerate(sizes):
        if size is None:
            parts.append(_computed(graph, node, "Shape", [given], "size", start=axis, end=axis + 1))
        else:
            parts.append(add_initializer(graph, "size", np.array([size], np.int64)))
    node.replace_input_with(3, _computed(graph, node, "Concat", parts, "sizes", axis=0))


def _computed(
    graph: ir.Graph, before: ir.Node, op: str, inputs: Sequence[ir.Value], wanted: str, **attributes: int
) -> ir.Value:
    """What a new node gives, which runs before another."""
    name = free_name(graph, wanted)
    node = ir.node(op, inputs, attributes=attributes, name=name)
    node.outputs[0].name = name
    graph.insert_before(before, node)
    return node.outputs[0]
