"""From a graph as some exporter left it to the graph that lowbit works on, by small rewrites in one visible order.

A rewrite takes an `ir.Model` and changes it in place, as the passes of onnx_ir do, and says whether it did; a check is
one that changes nothing. They are repeated until nothing changes: so a network becomes the same graph whichever
exporter wrote it. All are exact but four, which round to float32 once: other float types converted, Gemm factors and
batch norms folded into weights, a hard swish computed in one go. Bodies of If, Loop and Scan that stay keep their
nodes; weights move to the main graph.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from lowbit.errors import ModelError
from lowbit.graph.edit import remembered_names
from lowbit.graph.parameters import count_parameters, count_removed_by_exporter
from lowbit.graph.rewrites.all_axes import write_all_axes
from lowbit.graph.rewrites.batch_norm import fold_batch_norms
from lowbit.graph.rewrites.bodies import lift_weights
from lowbit.graph.rewrites.branches import take_known_branches
from lowbit.graph.rewrites.constants import fold_constants
from lowbit.graph.rewrites.duplicates import merge_duplicates
from lowbit.graph.rewrites.flattened_norms import move_flattened_norms
from lowbit.graph.rewrites.flattened_rows import fold_flattened_transposes
from lowbit.graph.rewrites.hard_swish import write_hard_swishes
from lowbit.graph.rewrites.known_sizes import write_known_sizes
from lowbit.graph.rewrites.no_ops import remove_no_ops
from lowbit.graph.rewrites.noted_sizes import forget_named_sizes
from lowbit.graph.rewrites.other_floats import to_float32
from lowbit.graph.rewrites.pads import fold_pads
from lowbit.graph.rewrites.products import fold_gemm_factors, write_biases, write_gemms
from lowbit.graph.rewrites.reduced_constants import fold_reduced_constants
from lowbit.graph.rewrites.refusals import check_finite, check_inference
from lowbit.graph.rewrites.reshapes import merge_reshapes, merge_slices
from lowbit.graph.rewrites.rounded_up_pools import count_no_padding
from lowbit.graph.rewrites.shape_inference import infer_shapes
from lowbit.graph.rewrites.shared_weights import merge_copies
from lowbit.graph.rewrites.transposes import merge_transposes, move_transposes
from lowbit.graph.rewrites.whole_pools import write_whole_pools

# Whether it changed anything that others could go on from; None if they cannot.
Rewrite = Callable[[ir.Model], bool | None]
TRAINED_KEY = "lowbit.trained_parameters"


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


def forget_undefined_types(model: ir.Model) -> None:
    """Let values whose type is noted as none have no note."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in (*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)):
            if value.dtype == ir.DataType.UNDEFINED:
                value.type = None


def open_negative_sizes(model: ir.Model) -> None:
    """Let negative dimensions be unknown ones: some exporters write -1 for the batch."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
            if value.shape is not None and any(isinstance(dim, int) and dim < 0 for dim in value.shape):
                value.shape = ir.Shape([None if isinstance(dim, int) and dim < 0 else dim for dim in value.shape])


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


def remove_unused_nodes(model: ir.Model) -> bool:
    """Remove nodes and initializers on which no output depends."""
    return common.RemoveUnusedNodesPass()(model).modified


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


# In the order in which they run; each line again until nothing changes. Trained parameters are counted between the
# groups: the first makes them initializers, the second drops what tells copies apart, the third merges them.
REWRITES: tuple[tuple[Rewrite, ...], ...] = (
    (
        *(forget_undefined_types, open_negative_sizes, forget_named_sizes, inline_functions),
        *(to_float32, fix_weights, lift_constants, lift_weights),
    ),
    (
        strip_descriptions,
        infer_shapes,
        fold_constants,  # weights may be standardized by a batch norm in training mode
        check_inference,
        remove_no_ops,
        write_known_sizes,
        fold_constants,
        take_known_branches,
        fold_reduced_constants,
        write_all_axes,
        count_no_padding,
        write_whole_pools,
        remove_unused_nodes,
    ),
    (
        check_finite,
        infer_shapes,
        fold_gemm_factors,
        write_biases,
        write_gemms,
        move_flattened_norms,
        fold_batch_norms,
        write_hard_swishes,
        merge_transposes,
        move_transposes,
        merge_reshapes,
        merge_slices,
        fold_flattened_transposes,
        fold_pads,
        merge_duplicates,
        remove_no_ops,
        write_known_sizes,
        fold_constants,
        take_known_branches,
        remove_unused_nodes,
    ),
    (merge_copies, remove_unused_nodes, remove_unused_opsets, fix_names),
)
MOST_ROUNDS = 16


def run_until_settled(model: ir.Model, rewrites: Sequence[Rewrite]) -> None:
    """Run rewrites in their order, in place, and again while one changes something, up to `MOST_ROUNDS` times."""
    for _ in range(MOST_ROUNDS):
        changes = [rewrite(model) for rewrite in rewrites]
        if not any(changes):
            return


def settle_sizes(model: ir.Model) -> None:
    """Infer shapes and fold what they make constant, in turn, in place: each may be what the other needs."""
    run_until_settled(model, (infer_shapes, write_known_sizes, fold_constants))


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
    readable, simple, folded, finished = REWRITES
    run_until_settled(model, readable)
    trained = trained_parameters or _noted_count(model)
    removed, copies = count_removed_by_exporter(model.graph), count_parameters(model.graph)
    with remembered_names(model.graph):
        run_until_settled(model, simple)
    if trained is None:
        trained = max(copies, count_parameters(model.graph)) + removed
    with remembered_names(model.graph):
        run_until_settled(model, folded)
    run_until_settled(model, finished)
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
