"""What counts as a trained parameter: every value that training sets, each once.

Weights and biases of layers, scale and shift of normalizations, slopes, embeddings and vectors that are added or
multiplied. Not: running statistics, bounds, axes, shapes, quantization scales.
"""

import onnx_ir as ir

from lowbit.graph.edit import constant

# Operator -> inputs that hold parameters.
PARAMETER_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Einsum": (0, 1),
    "Gather": (0,),
    "Add": (0, 1),
    "Mul": (0, 1),
}
# A single number there is a constant of the formula, not a parameter.
VECTORS_ONLY = frozenset(("Add", "Mul"))
EXPORTER_RULE = "pkg.onnxscript.rewriter.rule_name"


def count_parameters(graph: ir.Graph) -> int:
    """Number of parameters held in the graph and its subgraphs; those that several nodes share count once.

    An Identity of a constant counts as a parameter of its own: an older PyTorch exporter writes one where two
    parameters happen to hold equal values.
    """
    sizes: dict[int, int] = {}
    for node in graph.all_nodes():
        for index in PARAMETER_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            maker = value.producer() if value is not None else None
            copied = maker is not None and maker.op_type == "Identity" and len(maker.inputs) == 1
            array = constant(maker.inputs[0] if maker is not None and copied else value)
            if array is None or array.dtype.kind != "f":
                continue
            if (node.op_type in VECTORS_ONLY and array.size < 2) or (node.op_type == "Gather" and array.ndim < 2):
                continue
            sizes[id(value)] = array.size
    return sum(sizes.values())


def count_removed_by_exporter(graph: ir.Graph) -> int:
    """Parameters of batch norms that PyTorch's exporter folded before it wrote the file, by the note it leaves.

    A batch norm has scale and shift. Where the layer had no bias of its own, the shift becomes its bias (named after
    the weight) and only the scale is lost; otherwise both are lost. The older exporter leaves no note.
    """
    removed = 0
    counted: set[int] = set()
    for node in graph.all_nodes():
        if "FuseBatchNormInto" not in node.metadata_props.get(EXPORTER_RULE, "") or len(node.inputs) < 3:
            continue
        weight, bias = node.inputs[1], node.inputs[2]
        array = constant(bias)
        if weight is None or bias is None or array is None or id(bias) in counted:
            continue
        counted.add(id(bias))
        removed += array.size if bias.name == f"{weight.name}_bias" else 2 * array.size
    return removed
