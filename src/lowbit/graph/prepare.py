"""From a graph as some exporter left it to the graph that lowbit works on, in small steps, each its own function.

Exact steps (nothing rounds): functions inlined, weights no longer inputs, Constant nodes to initializers, no-ops
removed, constants folded. Rounding to float32 once: Gemm factors and batch norms folded into weights. Subgraphs of If
and Loop keep their nodes.
"""

import logging

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from lowbit.errors import ModelError
from lowbit.graph.batch_norm import fold_batch_norms, fold_gemm_factors
from lowbit.graph.constants import fold_constants
from lowbit.graph.edit import bypass, constant, flag
from lowbit.graph.parameters import count_parameters, count_removed_by_exporter

TRAINED_KEY = "lowbit.trained_parameters"
# Inputs that are weights for sure: a value that is not finite there makes every output worthless.
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


def prepare(model: ir.Model, source: str, *, trained_parameters: int | None = None) -> int:
    """Prepare `model` in place.

    Args:
        model: nobody else's.
        source: for messages.
        trained_parameters: if whoever made the model has counted them.

    Returns:
        The number of trained parameters, as they stood before anything was folded.

    Raises:
        ModelError: weights that are not finite, or none at all.
    """
    inline_functions(model, source)
    graph = model.graph
    common.RemoveInitializersFromInputsPass()(model)
    lift_constants(model, source)
    trained = trained_parameters or _noted_count(model, source)
    fused = count_removed_by_exporter(graph)
    strip_descriptions(model)
    infer_shapes(model)
    check_inference(graph, source)
    copies = count_parameters(graph)
    remove_no_ops(graph)
    fold_constants(model)
    common.RemoveUnusedNodesPass()(model)
    check_finite(graph, source)
    if trained is None:
        trained = max(copies, count_parameters(graph)) + fused
    infer_shapes(model)
    fold_gemm_factors(graph)
    fold_batch_norms(graph, source)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.NameFixPass()(model)
    if trained != count_parameters(graph):
        model.metadata_props[TRAINED_KEY] = str(trained)
    return trained


def inline_functions(model: ir.Model, source: str) -> None:
    """Replace calls of the model's own functions by their bodies."""
    if not model.functions:
        return
    try:
        common.InlinePass()(model)
    except Exception as error:  # a pass wraps whatever it met
        raise ModelError(
            f"its local functions cannot be inlined: {error}.", where=source, remedy="Export it without functions."
        ) from error
    model.functions.clear()


def lift_constants(model: ir.Model, source: str) -> None:
    """Turn Constant nodes into initializers."""
    try:
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    except Exception as error:  # sparse constants, attributes that do not belong there
        cause = error.__cause__ or error
        raise ModelError(f"a Constant cannot be read: {cause}.", where=source, remedy="Export it again.") from error


def strip_descriptions(model: ir.Model) -> None:
    """Drop doc strings and the exporter's notes on nodes and tensors.

    They name folders and source lines of whoever exported the model, and weigh more than small weights. The metadata of
    the model itself stays.
    """
    model.doc_string = None
    for graph in (model.graph, *model.graph.subgraphs()):
        graph.doc_string = None
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            _strip(value)
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                _strip(value)


def _strip(value: ir.Value) -> None:
    value.doc_string = None
    value.metadata_props.clear()
    tensor = value.const_value
    if tensor is not None and tensor.dtype != ir.DataType.STRING:
        value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)


def infer_shapes(model: ir.Model) -> None:
    """Note the shapes of all tensors that can be known; where onnx fails, those noted already stay."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    finally:
        logger.setLevel(level)


def remove_no_ops(graph: ir.Graph) -> None:
    """Remove Identity, Dropout as it is in inference, and Cast to the type that is there already."""
    for node in tuple(graph):
        source = node.inputs[0] if node.inputs else None
        if source is None or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Cast":
            removable = source.dtype is not None and node.attributes.get_int("to", 0) == int(source.dtype)
        elif node.op_type == "Dropout":
            removable = len(node.inputs) < 3 or node.inputs[2] is None or constant(node.inputs[2]) is not None
        else:
            removable = node.op_type == "Identity"
        if removable:
            bypass(graph, node, source)


def check_inference(graph: ir.Graph, source: str) -> None:
    """Refuse operators that compute as in training: their outputs depend on the batch, or on chance.

    Raises:
        ModelError: the node.
    """
    for node in graph.all_nodes():
        training = node.op_type == "BatchNormalization" and flag(node, "training_mode")
        if node.op_type == "Dropout" and len(node.inputs) > 2:
            mode = constant(node.inputs[2])
            training = mode is not None and bool(mode.any())
        if training:
            raise ModelError(
                f"{node.op_type} {node.name!r} is in training mode.",
                where=source,
                remedy="Export the network in inference mode: model.eval() in PyTorch.",
            )


def check_finite(graph: ir.Graph, source: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        ModelError: the tensor, and how many of its values.
    """
    for node in graph.all_nodes():
        for index in FINITE_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            array = constant(value)
            if value is None or array is None or array.dtype.kind != "f":
                continue
            bad = array.size - int(np.count_nonzero(np.isfinite(array)))
            if bad:
                raise ModelError(
                    f"weight {value.name!r} of {node.op_type} {node.name!r} has {bad} values that are NaN or infinite.",
                    where=source,
                    remedy="Train or export the model again: its outputs mean nothing.",
                )


def _noted_count(model: ir.Model, source: str) -> int | None:
    """What an earlier `lowbit` noted in the metadata."""
    text = model.metadata_props.get(TRAINED_KEY)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ModelError(
            f"its metadata {TRAINED_KEY!r} is {text[:40]!r}, expected a count.",
            where=source,
            remedy="Remove that entry from the file.",
        )
    return int(text)
