"""Matrix products that read their weights as codes, found in a file and decoded: MatMulNBits and MatMulInteger.

The scales of MatMulInteger are those that its sums are multiplied with (`formats/onnx/dynamic.py`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper, numpy_helper

from lowbit.formats.onnx.stored import StoredGraph

BLOCKS, INTEGER = "MatMulNBits", "MatMulInteger"
BITS = 4  # of a code of MatMulNBits that is read here


@dataclass(frozen=True)
class StoredProduct:
    """A product and what is stored of its weight.

    Attributes:
        node: that multiplies.
        kinds: "codes", "scales" or "zero_points" by stored tensor.
        weight: decoded, float32: [inputs, outputs], or [outputs, inputs] where the file stores it so and turns it.
    """

    node: NodeProto
    kinds: Mapping[str, str]
    weight: npt.NDArray[np.float32]


def stored_products(graph: StoredGraph) -> Iterator[StoredProduct]:
    """Every such product of a file whose codes are stored."""
    for node in graph.nodes:
        if node.op_type == BLOCKS and len(node.input) > 3 and all(name in graph.tensors for name in node.input[1:4]):
            kinds = dict(zip(node.input[1:4], ("codes", "scales", "zero_points"), strict=True))
            yield StoredProduct(node, kinds, _unpacked(node, graph))
        elif node.op_type == INTEGER and (scales := _scales_behind(node, graph)):
            turned = graph.producers.get(node.input[1])
            name = node.input[1] if turned is None else turned.input[0]
            codes, factors = (numpy_helper.to_array(graph.tensors[part]) for part in (name, scales))
            steps = factors if turned is None else factors.reshape(-1, 1)
            yield StoredProduct(node, {name: "codes", scales: "scales"}, codes.astype(np.float32) * steps)


def _unpacked(node: NodeProto, graph: StoredGraph) -> npt.NDArray[np.float32]:
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    columns, rows = attributes["K"], attributes["N"]
    pairs, scales, zeros = (numpy_helper.to_array(graph.tensors[name]) for name in node.input[1:4])
    blocks = pairs.shape[1]
    codes = np.stack([pairs & 15, pairs >> BITS], axis=-1).reshape(rows, blocks, -1).astype(np.float32)
    in_pairs = zeros.reshape(rows, -1)
    zero = np.stack([in_pairs & 15, in_pairs >> BITS], axis=-1).reshape(rows, -1)[:, :blocks, None]
    floats = (codes - zero.astype(np.float32)) * scales.reshape(rows, blocks, 1)
    return np.ascontiguousarray(floats.reshape(rows, -1)[:, :columns].T, np.float32)


def _scales_behind(node: NodeProto, graph: StoredGraph) -> str:
    """The stored scales that the sums of an integer product are multiplied with; empty if it goes on otherwise."""
    for cast in graph.readers.get(node.output[0], ()):
        for product in graph.readers.get(cast.output[0], ()):
            makers = [graph.makers[name] for name in product.input if name in graph.makers]
            for maker in makers if product.op_type == "Mul" else ():
                stored = [name for name in maker.input if name in graph.tensors]
                if maker.op_type == "Mul" and stored:
                    return str(stored[0])
    return ""
