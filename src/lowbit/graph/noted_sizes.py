"""Names that an exporter gave dimensions of inner tensors and outputs are forgotten: shape inference finds its own.

Exporters call all heights `height`, whatever the stride. ONNX Runtime takes equal names for equal sizes, lets tensors
share a buffer, and an integer file of such a network fails as soon as it runs.
"""

import onnx_ir as ir


def forget_named_sizes(model: ir.Model) -> bool:
    """Leave numbers alone, and open every dimension of a node's output that has a name, in place."""
    changed = False
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None and any(_is_named(dim) for dim in value.shape):
                value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape])
                changed = True
    return changed


def _is_named(dim: object) -> bool:
    return isinstance(dim, ir.SymbolicDim) and dim.value is not None
