"""Operators that move values about and leave them as they are."""

import numpy as np

from lowbit.formats.litert.builder import Option
from lowbit.formats.litert.graph import CHANNELS_LAST, FileGraph, StoredValue
from lowbit.formats.litert.shapes import reshaped_order
from lowbit.formats.litert.window import cut, ones_convolution, pad
from lowbit.formats.quantized_graph import UINT8
from lowbit.graph.model import Node
from lowbit.schemes.codes import integer_codes
from lowbit.schemes.half import Half
from lowbit.schemes.integer_clusters import IntegerClusters
from lowbit.schemes.linear import Linear


def concatenation(graph: FileGraph, node: Node) -> None:
    """Concat; codes of another scale are requantized first."""
    integer = graph.integer(node)
    name, activation = graph.target(node, fuses=False)
    rank = len(graph.shape(name))
    values = [value for value in node.inputs if value is not None]
    first = next((graph.read(value, integer=integer) for value in values if graph.has(str(value.name))), None)
    order = tuple(range(rank)) if first is None or first.flat else first.order
    codes = graph.quantized.activations[name] if integer else None
    parts = [graph.read(value, order=order, integer=integer) for value in values]
    if codes is not None:
        parts = [graph.requantized(part, codes) for part in parts]
    axis = order.index(node.attributes.get_int("axis", 0) % rank)
    output = graph.write(name, order, codes=codes)
    options: dict[str, Option] = {"axis": axis, "fusedActivationFunction": activation}
    graph.operator("CONCATENATION", [part.tensor for part in parts], [output], options=options)


def split(graph: FileGraph, node: Node) -> None:
    """Split: one slice for each output that is read."""
    x = graph.read_axes(node)
    rank = len(x.order)
    axis = node.attributes.get_int("axis", 0) % rank
    start = 0
    for output in node.outputs:
        size = graph.shape(str(output.name))[axis]
        if output.uses() or output.is_graph_output():
            graph.adopt(str(output.name), cut(graph, x, {x.order.index(axis): (start, size)}))
        start += size


def slices(graph: FileGraph, node: Node) -> None:
    """Slice with constant bounds, and the slices that alone read what it gives: one operator for all of them."""
    x = graph.read_axes(node)
    ranges, steps = _bounds(graph, node, x)
    reader = graph.only_reader(node)
    while reader is not None and reader.op_type == "Slice" and graph.integer(reader) == graph.integer(node):
        more, strides = _bounds(graph, reader, x)
        if ranges.keys() & more.keys():
            break
        ranges, steps = ranges | more, steps | strides
        graph.done.add(str(reader.name))
        node, reader = reader, graph.only_reader(reader)
    graph.adopt(str(node.outputs[0].name), _sliced(graph, x, ranges, steps))


def _bounds(graph: FileGraph, node: Node, x: StoredValue) -> tuple[dict[int, tuple[int, int]], dict[int, int]]:
    """By stored axis: (first, how many are kept), and the step."""
    rank = len(x.order)
    parts = [graph.array(value) for value in node.inputs[1:]]
    if any(part is None for part in parts):
        raise graph.refuse(node, "has bounds that are computed")
    lists = [part.reshape(-1).tolist() for part in parts if part is not None]
    starts, ends = lists[:2]
    axes = lists[2] if len(lists) > 2 else list(range(len(starts)))
    strides = lists[3] if len(lists) > 3 else [1] * len(starts)
    shape = graph.input_shape(node)
    ranges, steps = {}, {}
    for start, end, axis, step in zip(starts, ends, axes, strides, strict=True):
        at = x.order.index(axis % rank)
        size = shape[axis % rank]
        # Python reads an end before the first element as one counted from the end.
        kept = range(size)[slice(start, None if step < 0 and end < -size else end, step)]
        if graph.tensors[x.tensor].batch_axis == at:
            raise graph.refuse(node, "cuts along the batch")
        ranges[at], steps[at] = (kept.start, len(kept)), step
    return ranges, steps


def _sliced(graph: FileGraph, x: StoredValue, ranges: dict[int, tuple[int, int]], steps: dict[int, int]) -> StoredValue:
    """Every n-th row and column is a 1x1 depthwise convolution with weights of 1: XNNPACK slices without steps only."""
    old = graph.tensors[x.tensor]
    strided = {at for at, step in steps.items() if step != 1}
    if x.order != CHANNELS_LAST or not strided <= {1, 2} or not strided or min(steps.values()) < 1:
        return cut(graph, x, ranges, steps)
    # With step n, `count` results need the first (count - 1) * n + 1 positions; more do no harm.
    reach = {
        at: (first, min(old.shape[at] - first, count * steps[at]) if at in strided else count)
        for at, (first, count) in ranges.items()
    }
    reach = {at: span for at, span in reach.items() if span != (0, old.shape[at])}
    if reach:
        x = cut(graph, x, reach)
    shape = list(graph.tensors[x.tensor].shape)
    for at in strided:
        shape[at] = ranges[at][1]
    result = graph.derived(x.tensor, shape)
    ones_convolution(graph, x, result, (1, 1), (steps.get(1, 1), steps.get(2, 1)), 1.0)
    return StoredValue(result, x.order, x.codes)


def gather(graph: FileGraph, node: Node) -> None:
    """Gather with constant indices, one or a list, and rows of a constant table (an embedding) with computed ones."""
    indices = graph.array(node.inputs[1])
    if indices is None:
        _embedding(graph, node)
        return
    x = graph.read_axes(node)
    rank = len(x.order)
    axis = node.attributes.get_int("axis", 0) % rank
    if indices.ndim > 1:
        raise graph.refuse(node, "has indices in more than one dimension")
    at = x.order.index(axis)
    size = graph.tensors[x.tensor].shape[at]
    order = x.order if indices.ndim else tuple(a - (a > axis) for a in x.order if a != axis)
    output = graph.write(str(node.outputs[0].name), order, codes=x.codes)
    wrapped = np.where(indices < 0, indices + size, indices).astype(np.int32)
    graph.operator("GATHER", [x.tensor, graph.constant(wrapped)], [output], options={"axis": at})


def _embedding(graph: FileGraph, node: Node) -> None:
    """Rows of a table; stored as codes they are decoded once, while the file is loaded."""
    table, value = graph.array(node.inputs[0]), node.inputs[0]
    if table is None or value is None or table.ndim != 2 or node.attributes.get_int("axis", 0) != 0:
        raise graph.refuse(node, "has indices that are computed into something other than a table's rows")
    codes = graph.quantized.weights.get(str(value.name))
    scheme, axis = (codes.scheme, codes.axis) if codes is not None else graph.schemes.get(str(value.name), (None, 0))
    if scheme is None or scheme == Half("float16"):
        values = table if codes is None else codes.decode()
        rows = graph.float_constant(str(value.name), values, label=str(value.name))
    else:
        even = isinstance(scheme, Linear) and scheme.bits <= 8 and scheme.symmetric and scheme.per != "group"
        if not (even or isinstance(scheme, IntegerClusters)):
            raise graph.refuse(node, f"has a table '{value.name}' as {scheme.name}", instead="choose int8 or linear8")
        rows = graph.tensor(table.shape)
        if codes is not None:
            whole = integer_codes(codes)
            scale, levels = whole.scale.reshape(-1), whole.levels().astype(np.int8)
            stored = graph.constant(levels, name=str(node.name), scale=scale, axis=axis)
            graph.operator("DEQUANTIZE", [stored], [rows], version=2 if scale.size == 1 else 5)
    indices = graph.plain(node.inputs[1])
    name = str(node.outputs[0].name)
    output = graph.write(name, tuple(range(len(graph.shape(name)))))
    graph.operator("GATHER", [rows, indices.tensor], [output], options={"axis": 0})


def padding(graph: FileGraph, node: Node) -> None:
    """Pad with zeros or by reflection; negative pads cut."""
    x = graph.read_axes(node)
    rank = len(x.order)
    mode = node.attributes.get_string("mode", "constant")
    amounts = graph.array(node.inputs[1]) if len(node.inputs) > 1 else None
    value = graph.array(node.inputs[2]) if len(node.inputs) > 2 else None
    axes = graph.array(node.inputs[3]) if len(node.inputs) > 3 else None
    if amounts is None:
        raise graph.refuse(node, "has pads that are computed")
    if mode not in ("constant", "reflect") or (mode == "constant" and value is not None and bool(value.any())):
        raise graph.refuse(node, f"pads by {mode}" if mode != "constant" else "pads with something other than zero")
    listed = range(rank) if axes is None else [int(axis) % rank for axis in axes.reshape(-1)]
    halves = amounts.reshape(2, -1)
    by_axis = {axis: (int(halves[0, i]), int(halves[1, i])) for i, axis in enumerate(listed)}
    stored = [by_axis.get(axis, (0, 0)) for axis in x.order]
    shape = graph.tensors[x.tensor].shape
    cuts = {
        i: (max(0, -before), shape[i] - max(0, -before) - max(0, -after))
        for i, (before, after) in enumerate(stored)
        if before < 0 or after < 0
    }
    if cuts:
        x = cut(graph, x, cuts)
    grown = [(max(0, before), max(0, after)) for before, after in stored]
    if mode == "reflect":
        old = graph.tensors[x.tensor]
        sizes = [size + sum(amount) for size, amount in zip(old.shape, grown, strict=True)]
        result = graph.derived(x.tensor, sizes, batch_axis=old.batch_axis)
        table = graph.constant(np.array(grown, np.int32))
        graph.operator("MIRROR_PAD", [x.tensor, table], [result], options={"mode": 0})
        x = StoredValue(result, x.order, x.codes)
    elif any(sum(amount) for amount in grown):
        x = pad(graph, x, grown)
    graph.adopt(str(node.outputs[0].name), x)


def reshape(graph: FileGraph, node: Node) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: nothing is moved unless the stored order of axes forces it."""
    value = node.inputs[0]
    assert value is not None
    before, after = str(value.name), str(node.outputs[0].name)
    integer = graph.integer(node)
    x = graph.read(value, integer=integer)
    flat = None
    order = None if x.flat else reshaped_order(graph.probe_shape(before), graph.probe_shape(after), x.order)
    if order is None and not x.flat and x.order == CHANNELS_LAST and len(graph.shape(after)) == 2:
        batch, channels, height, width = graph.shape(before)
        if graph.shape(after) == (batch, channels * height * width):
            order, flat = (0, 1), (channels, height, width)
    if order is None:
        x = graph.plain(value, integer=integer)
        order = tuple(range(len(graph.shape(after))))
    shape = graph.shape(after)
    stored = tuple(shape[axis] for axis in order)
    batch_axis = graph.shapes.batch_axis(after)
    place = None if batch_axis is None else order.index(batch_axis)
    tensor = x.tensor
    if stored != graph.tensors[tensor].shape:
        tensor = graph.reshape(tensor, stored, batch_axis=place)
    graph.adopt(after, StoredValue(tensor, order, x.codes, flat))


def transpose(graph: FileGraph, node: Node) -> None:
    """Transpose: the axes of what is stored get other names."""
    x = graph.read_axes(node)
    rank = len(x.order)
    steps = list(node.attributes.get_ints("perm", list(range(rank))[::-1]))
    if sorted(steps) != list(range(rank)):
        raise graph.refuse(node, "does not name each axis once")
    graph.adopt(str(node.outputs[0].name), StoredValue(x.tensor, tuple(steps.index(axis) for axis in x.order), x.codes))


def identity(graph: FileGraph, node: Node) -> None:
    """Operators that change nothing at inference."""
    graph.adopt(str(node.outputs[0].name), graph.read(node.inputs[0], integer=graph.integer(node)))


def depth_space(graph: FileGraph, node: Node) -> None:
    """DepthToSpace and SpaceToDepth; torch's order of channels (mode CRD) is turned into that of LiteRT first.

    LiteRT's kernels move bytes and floats, no codes of 16 bits.
    """
    codes = graph.quantized.activations.get(str(node.outputs[0].name))
    moves_codes = graph.integer(node) and codes is not None and codes.kind.bits <= UINT8.bits
    x = graph.read(node.inputs[0], order=CHANNELS_LAST, integer=moves_codes)
    code = "DEPTH_TO_SPACE" if node.op_type == "DepthToSpace" else "SPACE_TO_DEPTH"
    size = node.attributes.get_int("blocksize", 0)
    if node.attributes.get_string("mode", "DCR") == "CRD":
        shape = graph.tensors[x.tensor].shape
        channels = np.arange(shape[3], dtype=np.int32).reshape(-1, size * size).T.reshape(-1)
        turned = graph.derived(x.tensor, shape)
        graph.operator("GATHER", [x.tensor, graph.constant(channels)], [turned], options={"axis": 3})
        x = StoredValue(turned, x.order, x.codes)
    output = graph.write(str(node.outputs[0].name), CHANNELS_LAST, codes=x.codes)
    graph.operator(code, [x.tensor], [output], options={"blockSize": size})


def tile(graph: FileGraph, node: Node) -> None:
    """Expand and Tile: values repeated along axes; along the batch, that cannot be changed any more then."""
    value = node.inputs[0]
    assert value is not None
    name = str(node.outputs[0].name)
    x = graph.plain(value, integer=graph.integer(node))
    old, after = graph.tensors[x.tensor], graph.shape(name)
    before = (1,) * (len(after) - len(old.shape)) + old.shape
    batch = graph.shapes.batch_axis(name)
    if batch is not None and (old.batch_axis is None or batch != old.batch_axis + len(after) - len(old.shape)):
        batch, graph.resizable = None, False  # the shape is a constant of the file
    tensor = x.tensor if before == old.shape else graph.reshape(x.tensor, before, batch_axis=batch)
    times = [1 if place == batch else size // own for place, (size, own) in enumerate(zip(after, before, strict=True))]
    if max(times, default=1) > 1:
        result = graph.derived(tensor, after, batch_axis=batch)
        graph.operator("TILE", [tensor, graph.integers(times)], [result], table="TileOptions")
        tensor = result
    graph.adopt(name, StoredValue(tensor, tuple(range(len(after))), x.codes))
