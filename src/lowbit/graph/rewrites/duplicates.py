"""Nodes that compute what another has computed already: their readers read that.

Exporters write the same shape arithmetic, casts and transpositions once for each reader. onnx_ir's own pass does not
know equal constants, and adds an Identity for every output of the graph that is computed twice, each time anew.
"""

import onnx_ir as ir

from lowbit.graph.edit import constant, is_standard

SMALL = 64
# Different each time, or better left where they stand: integer kernels are recognized by them.
KEPT = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
    | {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
)
BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def merge_duplicates(model: ir.Model) -> bool:
    """Remove nodes of the main graph that do the same to the same tensors as an earlier one, in place."""
    graph = model.graph
    first: dict[object, ir.Node] = {}
    changed = False
    for node in tuple(graph):
        if not is_standard(node) or node.op_type in KEPT or not node.inputs:
            continue
        if any(attribute.type in BODIES for attribute in node.attributes.values()):
            continue
        attributes = tuple(sorted((name, _content(attribute)) for name, attribute in node.attributes.items()))
        key = (node.op_type, attributes, tuple(_key(value) for value in node.inputs), len(node.outputs))
        twin = first.setdefault(key, node)
        if twin is node or any(output.is_graph_output() for output in node.outputs):
            continue
        for output, other in zip(node.outputs, twin.outputs, strict=True):
            output.replace_all_uses_with(other)
        graph.remove(node, safe=True)
        changed = True
    return changed


def _content(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype} {tensor.shape} {tensor.tobytes().hex()}"
    return f"{attribute.type} {attribute.value!r}"


def _key(value: ir.Value | None) -> object:
    """What two equal inputs have in common: the tensor itself, or the values of small constants."""
    array = constant(value)
    if array is None or array.size > SMALL or array.dtype.kind not in "biuf":
        return value
    return (str(array.dtype), array.shape, array.tobytes())
