"""Large matrix products whose 4-bit weights stay packed in memory: MatMulNBits, an operator of ONNX Runtime's own.

    B           uint8 [outputs, blocks, block / 2], of two codes the first in the low half
    scales      float32 [outputs * blocks]
    zero_points uint8 [outputs * ceil(blocks / 2)], packed in the same way, each output beginning with a byte of its own

so that w[k, n] = (code - zero_point) * scale, as `LinearCodes.decode` has it; a shorter last block is filled up.
`accuracy_level` 1 asks for float32 arithmetic: without it the runtime may round the activations to 8 bits, which a
weights-only recipe does not ask for. Other runtimes do not know the operator (`FileForm.to` says for which one is
written).

Source: ONNX Runtime's documentation of contributed operators, com.microsoft.MatMulNBits.
"""

import json

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft, put_in_place
from lowbit.graph.ops import Layer, layers
from lowbit.schemes.linear import Linear, LinearCodes

OPERATOR, DOMAIN = "MatMulNBits", "com.microsoft"
BITS = 4
SMALLEST_BLOCK = 16
FLOAT32 = 1  # accuracy level
LEAST_WEIGHTS = 1 << 16  # of a matrix that is worth it; smaller ones are decoded once, at load

Bytes = npt.NDArray[np.uint8]


# Metadata: products whose weight is [outputs, inputs] in the float model, as a JSON list of nodes.
TURNED_KEY = "lowbit.turned"


def has_kernel(layer: Layer, scheme: object) -> bool:
    """Whether MatMulNBits takes a layer's weight: a large matrix in blocks whose size is a power of two."""
    if not isinstance(scheme, Linear) or scheme.per != "group" or scheme.bits != BITS or not scheme.group_size:
        return False
    power = scheme.group_size & (scheme.group_size - 1) == 0 and scheme.group_size >= SMALLEST_BLOCK
    large = layer.weight_shape[0] * layer.weight_shape[-1] >= LEAST_WEIGHTS
    return layer.geometry is None and power and large


def write_block_kernels(draft: Draft) -> Draft:
    """Products in `QuantizedGraph.block_kernels`; for ONNX Runtime."""
    graph, names = draft.graph, draft.names
    nodes = {str(node.name): node for node in graph}
    turned = []
    for layer in layers(draft.quantized.model):
        codes = draft.quantized.weights.get(layer.weight)
        if layer.node not in draft.quantized.block_kernels or not isinstance(codes, LinearCodes):
            continue
        node = nodes[layer.node]
        x, bias = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
        stored = [names.constant(array, "w") for array in packed(codes)]
        size = codes.scheme.group_size or 0
        made = ir.node(
            OPERATOR,
            [x, *stored, *([None, bias] if bias is not None else [])],
            attributes={
                "K": layer.columns, "N": layer.out_channels, "bits": BITS, "block_size": size,
                "accuracy_level": FLOAT32,
            },
            domain=DOMAIN,
            name=layer.node,
        )  # fmt: skip
        draft.model.graph.opset_imports[DOMAIN] = 1
        put_in_place(graph, node, [made])
        turned += [layer.node] if layer.channel_axis == 0 else []
    if turned:
        draft.model.metadata_props[TURNED_KEY] = json.dumps(turned)
    return draft


def packed(codes: LinearCodes) -> tuple[Bytes, npt.NDArray[np.float32], Bytes]:
    """B, scales and zero points of a matrix in blocks."""
    unsigned, offset = codes.unsigned()
    blocks = codes.blocks
    zero = np.full(blocks.count, offset, np.uint8) if codes.zero_point is None else codes.zero_point.astype(np.uint8)
    whole = blocks.to_whole_blocks(unsigned).astype(np.uint8)
    size = codes.scheme.group_size or 0
    whole = np.pad(whole, ((0, 0), (0, 0), (0, size - whole.shape[2])))
    zero = zero.reshape(blocks.block_counts)
    zero = np.pad(zero, ((0, 0), (0, zero.shape[1] % 2)))
    return _in_pairs(whole), codes.scale.reshape(-1).astype(np.float32), _in_pairs(zero).reshape(-1)


def _in_pairs(codes: Bytes) -> Bytes:
    low, high = codes[..., 0::2], codes[..., 1::2]
    return np.ascontiguousarray(low | (high << BITS), np.uint8)
