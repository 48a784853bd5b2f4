"""From a graph as some exporter left it to the graph that lowbit works on, by small rewrites in one visible order.

A rewrite takes an `ir.Model` and changes it in place, as the passes of onnx_ir do; a check is one that changes nothing.
All are exact but three, which round to float32 once: other float types converted, Gemm factors and batch norms folded
into weights. Bodies of If, Loop and Scan keep their nodes; their weights move to the main graph.
"""

import logging
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from lowbit.errors import ModelError
from lowbit.graph.all_axes import write_all_axes
from lowbit.graph.batch_norm import fold_batch_norms, fold_gemm_factors
from lowbit.graph.bodies import lift_weights
from lowbit.graph.constants import fold_constants
from lowbit.graph.edit import bypass, constant, flag
from lowbit.graph.parameters import count_parameters, count_removed_by_exporter
from lowbit.graph.rounded_up_pools import count_no_padding
from lowbit.graph.shared_weights import merge_copies
from lowbit.graph.versions import to_float32

Rewrite = Callable[[ir.Model], None]
TRAINED_KEY = "lowbit.trained_parameters"
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


def inline_functions(model: ir.Model) -> None:
    """Replace calls of the model's own functions by their bodies.

    Raises:
        ModelError: onnx_ir cannot inline them.
    """
    if not model.functions:
        return
    try:
        common.InlinePass()(model)
    except Exception as error:  # a pass wraps all kinds of errors
        raise ModelError(
            f"its local functions cannot be inlined: {error}.", remedy="Export it without functions."
        ) from error
    model.functions.clear()


def fix_weights(model: ir.Model) -> None:
    """Weights are no longer inputs that a caller could set, as they were before IR version 4."""
    common.RemoveInitializersFromInputsPass()(model)


def lift_constants(model: ir.Model) -> None:
    """Turn Constant nodes into initializers.

    Raises:
        ModelError: a sparse constant, or attributes that do not belong there.
    """
    try:
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    except Exception as error:
        cause = error.__cause__ or error
        raise ModelError(f"a Constant cannot be read: {cause}.", remedy="Export it again.") from error


def strip_descriptions(model: ir.Model) -> None:
    """Drop doc strings and the exporter's notes on nodes and tensors.

    They name folders and source lines of whoever exported the model, and take more bytes than small weights. The
    metadata of the model itself stays.
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
    """Note the shapes of all tensors that can be known; where onnx cannot infer them, shapes noted already stay."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    finally:
        logger.setLevel(level)


def remove_no_ops(model: ir.Model) -> None:
    """Remove Identity, Dropout in inference mode, and Cast to the type that a tensor already has."""
    graph = model.graph
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


def remove_unused_nodes(model: ir.Model) -> None:
    """Remove nodes and initializers on which no output depends."""
    common.RemoveUnusedNodesPass()(model)


def remove_unused_opsets(model: ir.Model) -> None:
    """Drop operator sets of which no node is left."""
    common.RemoveUnusedOpsetsPass()(model)


def fix_names(model: ir.Model) -> None:
    """Give every node and tensor a unique name; those that have one keep it.

    Nodes in bodies of If, Loop and Scan, too: they read tensors of the main graph, and readers are looked up by name.
    """
    common.NameFixPass()(model)
    taken = {node.name for node in model.graph}
    count: Counter[str] = Counter()
    for body in model.graph.subgraphs():
        for node in body:
            name = str(node.name)
            while node.name in taken:
                count[name] += 1
                node.name = f"{name}_{count[name]}"
            taken.add(node.name)


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


# In the order in which they run. Trained parameters are counted between the groups: the first makes them initializers,
# the second drops what tells copies apart, the third merges them.
REWRITES: tuple[tuple[Rewrite, ...], ...] = (
    (to_float32, inline_functions, fix_weights, lift_constants, lift_weights),
    (
        strip_descriptions,
        infer_shapes,
        check_inference,
        remove_no_ops,
        fold_constants,
        write_all_axes,
        count_no_padding,
        remove_unused_nodes,
        check_finite,
        infer_shapes,
    ),
    (fold_gemm_factors, fold_batch_norms, merge_copies, remove_unused_nodes, remove_unused_opsets, fix_names),
)


def prepare(model: ir.Model, source: str, *, trained_parameters: int | None = None) -> int:
    """Run all `REWRITES` on `model`, in place.

    Args:
        model: not used by anything else.
        source: file name, for messages.
        trained_parameters: their number, if it is known already.

    Returns:
        The number of trained parameters, as they stood before anything was folded.

    Raises:
        ModelError: a model that a rewrite refuses.
    """
    try:
        return _prepared(model, trained_parameters)
    except ModelError as error:
        raise ModelError(error.what, where=source, remedy=error.remedy) from error


def _prepared(model: ir.Model, trained_parameters: int | None) -> int:
    readable, simple, folded = REWRITES
    for rewrite in readable:
        rewrite(model)
    trained = trained_parameters or _noted_count(model)
    removed, copies = count_removed_by_exporter(model.graph), count_parameters(model.graph)
    for rewrite in simple:
        rewrite(model)
    if trained is None:
        trained = max(copies, count_parameters(model.graph)) + removed
    for rewrite in folded:
        rewrite(model)
    if trained != count_parameters(model.graph):
        model.metadata_props[TRAINED_KEY] = str(trained)
    return trained


def _noted_count(model: ir.Model) -> int | None:
    """The count that an earlier `lowbit` noted in the metadata."""
    text = model.metadata_props.get(TRAINED_KEY)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ModelError(
            f"its metadata {TRAINED_KEY!r} is {text[:40]!r}, expected a count.",
            remedy="Remove that entry from the file.",
        )
    return int(text)
