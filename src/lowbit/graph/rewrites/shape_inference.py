"""Shapes of all tensors, inferred from those of the inputs.

onnx follows values as well where shapes are computed from them. Each takes a hundred bytes meanwhile, and a file of
kilobytes can make any number of them, so they are counted first.
"""

import logging

import onnx_ir as ir
from onnx_ir.passes import common

PROPAGATING = frozenset(
    ("Add", "Cast", "Concat", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze")
)
INFERRED = "lowbit.inferred"  # beside a model whose shapes were inferred here, not noted by a stranger
MOST_PROPAGATED = 1 << 20  # numbers


def infer_shapes(model: ir.Model) -> None:
    """Note the shapes of all tensors that can be known; where onnx cannot infer them, shapes noted already stay.

    They are inferred from the inputs anew: a symbol that an earlier run made up would stay for ever.
    """
    inferred = INFERRED in model.meta
    few = inferred and values_are_few(model.graph)
    noted = {
        output: output.shape
        for node in model.graph
        for output in node.outputs
        if output.shape is not None and not output.is_graph_output()
    }
    for output in noted:
        output.shape = None
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        if not inferred:  # without following values: which of them are vectors, and how long, is known only then
            common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
            model.meta[INFERRED] = True
            few = values_are_few(model.graph)
        if few or inferred:
            common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=few)(model)
    finally:
        logger.setLevel(level)
    for output, shape in noted.items():
        if output.shape is None or (len(output.shape) == len(shape) and _open(output.shape) > _open(shape)):
            output.shape = shape


def values_are_few(graph: ir.Graph) -> bool:
    """Whether onnx may follow values, to know shapes that are computed: Concat makes more of them than there are.

    It follows scalars and vectors alone, through the operators of `PROPAGATING`; those that it does not know too, as
    unknown numbers.
    """
    counts: dict[ir.Value, int] = {}
    for value in (*graph.initializers.values(), *graph.inputs):
        counts[value] = _length(value)
    total = 0
    for node in graph:
        sizes = [counts.get(value, 0) for value in node.inputs if value is not None]
        size = 0
        if node.op_type in PROPAGATING:
            size = sum(sizes) if node.op_type == "Concat" else max(sizes, default=0)
            total += size
        counts.update((value, max(size, _length(value))) for value in node.outputs)
    return total <= MOST_PROPAGATED


def _length(value: ir.Value) -> int:
    """How many numbers there are to follow in a scalar or vector; 0 where that is not known, or it has more axes."""
    if value.const_value is not None:
        return value.const_value.size if len(value.const_value.shape) <= 1 else 0
    if value.shape is None or len(value.shape) > 1:
        return 0
    return next((dim for dim in value.shape if isinstance(dim, int)), 1)


def _open(shape: ir.Shape) -> int:
    return sum(not isinstance(dim, int) for dim in shape)
