"""What makes every output of a network worthless: operators in training mode, weights that are not finite."""

import numpy as np
import onnx_ir as ir

from lowbit.errors import ModelError
from lowbit.graph.edit import constant, flag

# Inputs that are certainly weights: a value that is not finite there makes every output worthless.
FINITE_INPUTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2, 3, 4),
    "PRelu": (1,),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
}


def check_inference(model: ir.Model) -> None:
    """Refuse operators in training mode: their outputs depend on the batch, or on chance.

    Raises:
        ModelError: the node.
    """
    for node in model.graph.all_nodes():
        training = node.op_type == "BatchNormalization" and flag(node, "training_mode")
        if node.op_type == "Dropout" and len(node.inputs) > 2:
            mode = constant(node.inputs[2])
            training = mode is not None and bool(mode.any())
        if training:
            raise ModelError(
                f"{node.op_type} {node.name!r} is in training mode.",
                remedy="Export the network in inference mode: model.eval() in PyTorch.",
            )


def check_finite(model: ir.Model) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        ModelError: the tensor, and how many of its values.
    """
    for node in model.graph.all_nodes():
        for index in FINITE_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            array = constant(value)
            if value is None or array is None or array.dtype.kind != "f":
                continue
            bad = array.size - int(np.count_nonzero(np.isfinite(array)))
            if bad:
                raise ModelError(
                    f"weight {value.name!r} of {node.op_type} {node.name!r} has {bad} values that are NaN or infinite.",
                    remedy="Train or export the model again: its outputs are meaningless.",
                )
