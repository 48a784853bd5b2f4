"""Dense layers as one node: a MatMul of a matrix and the bias that is added to it become a Gemm.

Integer kernels take the bias with them then; an Add of its own computes in float.
"""

import onnx


def write_dense_layers(proto: onnx.ModelProto) -> None:
    """Merge MatMul and Add of one row of constants into a Gemm, in place, where both operands have two dimensions."""
    graph = proto.graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    ranks = _ranks(proto)
    copies = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    merged = []
    for node in graph.node:
        if node.op_type != "MatMul" or node.output[0] in outputs or ranks.get(node.input[0]) != 2:
            continue
        weight = constants.get(copies.get(node.input[1], node.input[1]), ())
        reading = readers.get(node.output[0], [])
        if len(weight) != 2 or len(reading) != 1 or reading[0].op_type != "Add":
            continue
        add = reading[0]
        bias = next(name for name in add.input if name != node.output[0])
        if constants.get(copies.get(bias, bias)) in ((weight[1],), (1, weight[1])):
            node.op_type = "Gemm"
            node.input.append(bias)
            node.output[0] = add.output[0]
            merged.append(add)
    for add in merged:
        graph.node.remove(add)


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(proto)
    values = (*inferred.graph.value_info, *inferred.graph.input)
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
