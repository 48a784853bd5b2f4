"""Names that an exporter gave dimensions of inner tensors are forgotten: shape inference finds its own.

Exporters call all heights `height`, whatever the stride. ONNX Runtime takes equal names for equal sizes, lets tensors
share a buffer, and an integer file of such a network fails as soon as it runs. Outputs have buffers of their own.
"""

import onnx_ir as ir


def forget_named_sizes(model: ir.Model) -> bool:
    """Open every dimension of an inner tensor that has a name and no number, in place."""
    changed = False
    for node in model.graph:
        for value in node.outputs:
            if value.is_graph_output() or value.shape is None:
                continue
            if any(_is_named(dim) for dim in value.shape):
                value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape])
                changed = True
    return changed


def _is_named(dim: object) -> bool:
    return isinstance(dim, ir.SymbolicDim) and dim.value is not None
