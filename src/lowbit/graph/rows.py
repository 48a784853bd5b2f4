"""Where the batch goes: whether every tensor certainly begins with the samples, one independent of another.

Shape inference carries the name of the inputs' first dimension through the graph. A tensor that no longer begins with
it, or an operator that looks along it, may mix samples: then running them is the only way to know
(`lowbit.calibration.batches`).
"""

import onnx_ir as ir

from lowbit.graph.edit import constant
from lowbit.graph.model import Model

# What they give depends on the shape of what they read, not on its values.
SHAPES = frozenset({"Shape", "Size"})
# Attribute, and its default, of operators that work along one axis and keep its size.
ALONG_AXIS = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "TopK": -1, "LpNormalization": -1}
# They work along the first axis, or their input says along which.
ALONG_FIRST = frozenset({"LSTM", "GRU", "RNN", "CumSum", "ReverseSequence", "ScatterElements", "ScatterND", "Scatter"})


def keeps_samples_apart(model: Model) -> bool:
    """Whether it is certain, from shapes alone, that a run of several samples gives what runs of each would."""
    firsts = {value.shape[0] if value.shape else None for value in model.graph.inputs}
    batch = next(iter(firsts)) if len(firsts) == 1 else None
    if not isinstance(batch, ir.SymbolicDim) or batch.value is None:
        return False
    moving = set(model.graph.inputs)
    for node in model.graph:
        if node.op_type in SHAPES or not any(value in moving for value in node.inputs):
            continue
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            return False
        outputs = [value for value in node.outputs if value.name]
        if _looks_along_first(node) or not all(value.shape and value.shape[0] == batch for value in outputs):
            return False
        moving.update(outputs)
    return True


def _looks_along_first(node: ir.Node) -> bool:
    if node.op_type in ALONG_FIRST:
        axis = constant(node.inputs[1]) if node.op_type == "CumSum" and len(node.inputs) > 1 else None
        return axis is None or int(axis.reshape(-1)[0]) % _rank(node) == 0
    if node.op_type in ALONG_AXIS:
        return node.attributes.get_int("axis", ALONG_AXIS[node.op_type]) % _rank(node) == 0
    return False


def _rank(node: ir.Node) -> int:
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    return max(1, len(shape)) if shape is not None else 1
