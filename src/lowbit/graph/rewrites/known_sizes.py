"""Shape arithmetic, element by element: what is known of it becomes constant although the batch is open.

Exporters compute pads, sizes and the targets of reshapes from Shape. A runtime folds these where all dimensions are
numbers; here each element is followed by itself, as a number, a symbol (a named dimension) or unknown. What comes out
as numbers becomes a constant. The target of a Reshape may hold one open dimension, which is written as 0 where it is
the input's own and as -1 otherwise; sizes of a Resize with an open batch become scales.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lowbit.graph.edit import add_initializer, constant, extents, flag, is_standard, replace_by_constants, set_weight

# int, str (a symbol) or None (unknown), as numpy holds objects.
Elements = npt.NDArray[np.object_]
LARGEST = 64
INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


def write_known_sizes(model: ir.Model) -> bool:
    """Replace shape arithmetic that is known by constants, and open targets of Reshape by 0 and -1, in place."""
    graph = model.graph
    known: dict[ir.Value, Elements] = {}
    changed = False
    for node in tuple(graph):
        if not is_standard(node) or not node.inputs:
            continue
        if node.op_type == "Reshape" and len(node.inputs) == 2:
            changed |= _close_target(graph, node, known)
        if node.op_type == "Resize" and len(node.inputs) == 4 and "axes" not in node.attributes:
            changed |= _scales_for_sizes(graph, node, known)
        rule = RULES.get(node.op_type)
        if rule is None or len(node.outputs) != 1:
            continue
        output = node.outputs[0]
        try:
            elements = rule(node, known)
        except (ValueError, IndexError, TypeError):  # what is not valid is left for a runtime to refuse
            continue
        if elements is None or elements.size > LARGEST or output.dtype not in (None, *INTEGERS):
            continue
        known[output] = elements
        kind = np.int32 if output.dtype == ir.DataType.INT32 else np.int64
        limits = np.iinfo(kind)
        if output.is_graph_output() or not all(
            isinstance(element, int) and limits.min <= element <= limits.max for element in elements.ravel()
        ):
            continue
        replace_by_constants(graph, node, [elements.astype(kind)] if output.uses() else [])
        changed = True
    return changed


def _elements(value: ir.Value | None, known: dict[ir.Value, Elements]) -> Elements | None:
    """What is known of an integer tensor, if anything."""
    if value is None or value in known:
        return None if value is None else known[value]
    array = constant(value)
    if array is None or array.dtype.kind != "i" or array.size > LARGEST:
        return None
    return _objects(array.ravel().tolist()).reshape(array.shape)


def _objects(items: list[int | str | None]) -> Elements:
    elements = np.empty(len(items), object)
    elements[:] = items
    return elements


def _shape(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    dims = extents(node.inputs[0])
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return None if dims is None else _objects(list(dims[start:end]))


def _size(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    """Of a shape this is the rank, which is known though dimensions are not."""
    data = _same(node, known)
    return None if data is None else _objects([data.size]).reshape(())


def _gather(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    data, indices = _elements(node.inputs[0], known), constant(node.inputs[1])
    if data is None or indices is None:
        return None
    return np.asarray(np.take(data, indices, axis=node.attributes.get_int("axis", 0)), object)


def _slice(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    data = _elements(node.inputs[0], known)
    start, end, axis, step = (
        array.tolist() if (array := constant(value)) is not None else None
        for value in [*node.inputs[1:], None, None][:4]
    )
    if data is None or data.ndim != 1 or start is None or end is None or axis not in (None, [0], [-1]):
        return None
    if any(value is not None and constant(value) is None for value in node.inputs[1:]):
        return None
    return data[slice(start[0], end[0], 1 if step is None else step[0])]


def _concat(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    parts = [_elements(value, known) for value in node.inputs]
    given = [part for part in parts if part is not None]
    if len(given) != len(parts) or any(part.ndim != 1 for part in given):
        return None
    return np.concatenate(given)


def _same(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    return _elements(node.inputs[0], known)


def _cast(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    return _same(node, known) if node.attributes.get_int("to", 0) in [int(kind) for kind in INTEGERS] else None


def _squeeze(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    data = _same(node, known)
    return data.reshape(()) if data is not None and data.shape == (1,) else None


def _unsqueeze(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    data = _same(node, known)
    return data.reshape((1,)) if data is not None and data.ndim == 0 else None


def _reshape(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    data, target = _same(node, known), constant(node.inputs[1])
    return None if data is None or target is None or 0 in target else data.reshape(target.tolist())


def _arithmetic(node: ir.Node, known: dict[ir.Value, Elements]) -> Elements | None:
    first, second = (_elements(value, known) for value in node.inputs)
    if first is None or second is None:
        return None
    return np.asarray(np.frompyfunc(lambda a, b: _number(node.op_type, a, b), 2, 1)(first, second), object)


def _number(op: str, a: int | str | None, b: int | str | None) -> int | str | None:
    """One element of Add, Sub, Mul or Div; a symbol survives what does not change it."""
    neutral = 0 if op in ("Add", "Sub") else 1
    if not isinstance(a, int) or not isinstance(b, int):
        return a if b == neutral else b if a == neutral and op in ("Add", "Mul") else None
    if op == "Div":
        # Toward zero, as ONNX divides integers.
        return None if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return a + b if op == "Add" else a - b if op == "Sub" else a * b


RULES: dict[str, Callable[[ir.Node, dict[ir.Value, Elements]], Elements | None]] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Identity": _same,
    "Cast": _cast,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
}


def _close_target(graph: ir.Graph, node: ir.Node, known: dict[ir.Value, Elements]) -> bool:
    """Give a Reshape a constant target, if at most one dimension of it is open."""
    data, target = node.inputs
    if data is None or target is None or constant(target) is not None or flag(node, "allowzero"):
        return False
    elements = _elements(target, known)
    if elements is None or elements.ndim != 1:
        return False
    own = extents(data) or ()
    closed: list[int | None] = []
    for at, element in enumerate(elements.tolist()):
        if isinstance(element, int):
            closed.append(element)
        else:
            closed.append(0 if element is not None and element == (own[at] if at < len(own) else None) else None)
    if closed.count(None) + closed.count(-1) > 1:
        return False
    array = np.array([-1 if element is None else element for element in closed], np.int64)
    node.replace_input_with(1, None)
    set_weight(graph, node, 1, array, wanted=f"{target.name}.known")
    return True


def _scales_for_sizes(graph: ir.Graph, node: ir.Node, known: dict[ir.Value, Elements]) -> bool:
    """Give a Resize constant scales, if of its sizes only some of the input's own are open.

    A runtime divides the sizes by the input's, in float32, and goes on with the ratios; the size that it gets from
    these must be the one that was asked for.
    """
    data, sizes = node.inputs[0], node.inputs[3]
    wanted, own = _elements(sizes, known), extents(data)
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    cropped = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if sizes is None or constant(sizes) is not None or wanted is None or own is None or wanted.shape != (len(own),):
        return False
    scales = np.ones(len(own), np.float32)
    for at, (new, old) in enumerate(zip(wanted.tolist(), own, strict=True)):
        if isinstance(new, int) and isinstance(old, int) and min(new, old) > 0:
            scales[at] = np.float32(new) / np.float32(old)
            # Some multiply in single precision, some in double.
            if {int(np.float32(old) * scales[at]), int(old * float(scales[at]))} != {new}:
                return False
        elif new is None or new != old:
            return False
    if policy != "stretch" or cropped:
        return False
    node.replace_input_with(2, add_initializer(graph, f"{node.outputs[0].name}.scales", scales))
    node.resize_inputs(3)
    return True
