"""Biases of integer matrix products as rows [1, N], so that ONNX Runtime keeps its integer kernels.

Where all sizes are known, ONNX Runtime (1.32) makes one Gemm of a MatMul and the Add of a vector [N] behind it
(`MatMulAddFusion`), before it looks for integers. It has no integer kernel for that Gemm, since its bias is float: the
product is computed in float, and its weights are decoded in every run. A row [1, N] adds the same and is left alone.
"""

import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft


def write_rows_of_biases(draft: Draft) -> Draft:
    """Let each vector that is added to an integer MatMul, and to nothing else, be a row."""
    adders = dict(found for node in draft.graph if (found := _adder(node, draft)))
    for adder, at in adders.items():
        bias = adder.inputs[at]
        stored = _stored(bias)
        if bias is None or stored is None or stored.const_value is None or len(stored.const_value.shape) != 1:
            continue
        row = stored.const_value.numpy()[None]
        if bias.is_graph_output() or any(adders.get(user) != index for user, index in bias.uses()):
            adder.replace_input_with(at, draft.names.constant(row, "b"))
            continue
        stored.const_value = ir.tensor(row, name=stored.name)
        for value in (stored, bias):
            value.shape = ir.Shape(row.shape)
    return draft


def _adder(node: ir.Node, draft: Draft) -> tuple[ir.Node, int] | None:
    """The Add that alone reads an integer MatMul, and which of its inputs is the other operand."""
    if node.op_type != "MatMul" or node.name not in draft.quantized.integer:
        return None
    uses = tuple(node.outputs[0].uses())
    if len(uses) != 1 or uses[0][0].op_type != "Add" or node.outputs[0].is_graph_output():
        return None
    return uses[0][0], 1 - uses[0][1]


def _stored(bias: ir.Value | None) -> ir.Value | None:
    """The constant that a bias is, or that a Cast makes it of."""
    maker = bias.producer() if bias is not None else None
    if maker is None:
        return bias
    alone = maker.op_type == "Cast" and maker.inputs[0] is not None and len(tuple(maker.inputs[0].uses())) == 1
    return maker.inputs[0] if alone else None
