"""What an integer file answers on an x86 processor without VNNI, on any machine.

Without VNNI there is no instruction that adds four products of uint8 and int8 into int32. ONNX Runtime then takes
`vpmaddubsw`, which adds two neighboring products into *int16* and saturates:

    pair = clip(a0 w0 + a1 w1, -32768, 32767)        a in 0..255, w in -128..127

so the same file answers otherwise there (onnxruntime's documentation on quantization, "when to use reduce_range"). The
pairs are neighbors in the order in which the kernel reads: input channels within one place of the kernel, then the next
place. Depthwise convolutions multiply in 32 bits and never saturate (MLAS, ConvSymKernelAvx2 and QgemmU8X8KernelAvx2).

Most pairs cannot saturate whatever the activations are: only if 255 (w0 + w1) leaves int16, positive and negative
weights taken apart. With 7-bit weights none can: 255 * 2 * 63 = 32130. For the others this adds to each layer's exact
sum what clipping changes, in float32, which holds all these integers exactly. Read are QDQ files, of lowbit and others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lowbit.formats.onnx.read import computed_values
from lowbit.formats.onnx.stored import StoredGraph
from lowbit.graph.load import parse, read_proto
from lowbit.graph.model import MEMORY
from lowbit.graph.ops import OPS

LOWEST, HIGHEST = -32768, 32767
TOP = 255
# Pairs of each output that one step looks at: its memory is outputs x pairs x positions floats.
LANES = 16

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Saturating:
    """A file that answers as the given one would without VNNI.

    Attributes:
        content: an ONNX file.
        risky: by node, how many pairs of weights can saturate; only layers that have some.
        pairs: by node, the number of all pairs, for every layer of uint8 and int8.
    """

    content: bytes
    risky: Mapping[str, int]
    pairs: Mapping[str, int]


@dataclass(frozen=True)
class _IntegerLayer:
    """A layer between DequantizeLinear nodes: raw codes and the scale of their products."""

    node: NodeProto
    activation: str  # the uint8 tensor
    zero_point: int
    rows: Array  # int64 [outputs, inputs of one output], in the kernel's order
    columns: Array  # int64, the same shape: which column of the gathered input each weight multiplies
    scale: Array  # float32 [outputs]
    places: tuple[int, ...]  # kernel size; () for matrix products


def saturating(model: bytes | Path | str) -> Saturating:
    """Rewrite a QDQ file so that any runtime gives the answers of a processor without VNNI.

    Raises:
        ModelError: not an ONNX file.
    """
    proto = parse(model, MEMORY) if isinstance(model, bytes) else read_proto(Path(model))
    producers = {output: node for node in proto.graph.node for output in node.output}
    values = _constants(proto, producers)
    nodes: list[NodeProto] = []
    pairs: dict[str, int] = {}
    risky: dict[str, int] = {}
    for index, node in enumerate(proto.graph.node):
        layer = _layer(node, values, producers)
        if layer is None:
            nodes.append(node)
            continue
        name = node.name or f"{node.op_type}_{index}"
        first, second, at = _risky_pairs(layer.rows)
        pairs[name] = layer.rows.shape[0] * -(-layer.rows.shape[1] // 2)
        if not at.any():
            nodes.append(node)
            continue
        risky[name] = int(at.sum())
        nodes += _corrected(proto.graph, layer, first, second, at, f"saturation{index}")
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return Saturating(proto.SerializeToString(), risky, pairs)


def _constants(proto: onnx.ModelProto, producers: Mapping[str, NodeProto]) -> dict[str, Array]:
    """Stored tensors, and what DequantizeLinear nodes of weights read that is unpacked, padded or turned first."""
    graph = StoredGraph(proto.graph)
    read = [producers.get(node.input[1]) for node in proto.graph.node if node.op_type in OPS and len(node.input) > 1]
    names = [name for node in read if node is not None and node.op_type == "DequantizeLinear" for name in node.input]
    computed = [name for name in dict.fromkeys(names) if name in graph.producers]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return values | (computed_values(proto, graph, computed) if computed else {})


def _risky_pairs(rows: Array) -> tuple[Array, Array, Array]:
    """First and second weight of each pair [outputs, pairs], and which of them can leave int16."""
    padded = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    first, second = padded[:, 0::2], padded[:, 1::2]
    most = TOP * (np.maximum(first, 0) + np.maximum(second, 0))
    least = TOP * (np.minimum(first, 0) + np.minimum(second, 0))
    return first, second, (most > HIGHEST) | (least < LOWEST)


def _layer(node: NodeProto, values: Mapping[str, Array], producers: Mapping[str, NodeProto]) -> _IntegerLayer | None:
    """A Conv, Gemm or MatMul of uint8 codes and stored int8 codes that vpmaddubsw would compute; None for others."""
    if node.op_type not in OPS or node.op_type == "ConvTranspose" or len(node.input) < 2:
        return None
    image, weight = (producers.get(name) for name in node.input[:2])
    if image is None or weight is None or {image.op_type, weight.op_type} != {"DequantizeLinear"}:
        return None
    codes = values.get(weight.input[0])
    scale = values.get(image.input[1])
    zero_point = values.get(image.input[2]) if len(image.input) > 2 else None
    if codes is None or codes.dtype != np.int8 or scale is None or image.input[0] in values or zero_point is None:
        return None
    if zero_point.dtype != np.uint8 or zero_point.shape or weight.input[1] not in values:
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    places: tuple[int, ...] = ()
    if node.op_type == "Conv":
        groups = attributes.get("group", 1)
        outputs, channels, *kernel = codes.shape
        if groups > 1 and channels == 1:
            return None
        places = tuple(kernel)
        count = int(np.prod(places))
        # The kernel reads all channels of one place of the kernel, then those of the next.
        rows = codes.reshape(outputs, channels, count).swapaxes(1, 2).reshape(outputs, -1)
        start = np.arange(outputs) // (outputs // groups) * channels
        columns = ((start[:, None, None] + np.arange(channels)) * count + np.arange(count)[:, None]).reshape(
            outputs, -1
        )
    else:
        if codes.ndim != 2 or attributes.get("transA", 0):
            return None
        rows = codes if attributes.get("transB", 0) else codes.T
        columns = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    steps = scale.astype(np.float32) * values[weight.input[1]]
    return _IntegerLayer(
        node=node,
        activation=image.input[0],
        zero_point=int(zero_point),
        rows=rows.astype(np.int64),
        columns=columns.astype(np.int64),
        scale=np.broadcast_to(steps.reshape(-1), len(rows)).astype(np.float32),
        places=places,
    )


def _corrected(
    graph: onnx.GraphProto, layer: _IntegerLayer, first: Array, second: Array, at: Array, prefix: str
) -> Iterator[NodeProto]:
    """The layer, and behind it what clipping of its risky pairs adds to each output."""
    maker = _Maker(graph, prefix)
    codes = maker.node("Cast", layer.activation, to=TensorProto.FLOAT)
    moved = [attribute for attribute in layer.node.attribute if attribute.name != "group"]
    plain = all(place == 1 for place in layer.places) and not any(
        any(value != (a.name in ("strides", "dilations", "kernel_shape")) for value in a.ints) for a in moved
    )
    if layer.places and not plain:
        codes = maker.windows(codes, layer, moved)
    # Pairs of all outputs in a block, each output with as many as the one that has most; the others get zeros.
    most = int(at.sum(axis=1).max())
    order = np.argsort(~at, axis=1, kind="stable")[:, :most]
    padded = np.pad(layer.columns, ((0, 0), (0, layer.columns.shape[1] % 2)))
    kept = np.take_along_axis(at, order, axis=1)
    parts = []
    for start in range(0, most, LANES):
        block, here = order[:, start : start + LANES], kept[:, start : start + LANES]
        halves = [
            maker.products(
                codes,
                np.take_along_axis(padded[:, side::2], block, axis=1),
                np.where(here, np.take_along_axis(weights, block, axis=1), 0),
                axis=1 if layer.places else -1,
                rank=len(layer.places),
            )
            for side, weights in ((0, first), (1, second))
        ]
        pair = maker.node("Add", *halves)
        clipped = maker.node("Clip", pair, maker.constant(np.float32(LOWEST)), maker.constant(np.float32(HIGHEST)))
        parts.append(maker.summed(maker.node("Sub", clipped, pair), block.shape, rank=len(layer.places)))
    total = maker.node("Sum", *parts) if len(parts) > 1 else parts[0]
    spread = (-1, *[1] * len(layer.places))
    change = maker.node("Mul", total, maker.constant(layer.scale.reshape(spread)))
    output = layer.node.output[0]
    exact = NodeProto()
    exact.CopyFrom(layer.node)
    exact.output[0] = f"{prefix}_exact"
    if not layer.places:
        # Outputs of a matrix product can have any rank.
        change = maker.node("Reshape", change, maker.node("Shape", exact.output[0]))
        maker.nodes.insert(0, exact)
    else:
        maker.nodes.append(exact)
    maker.nodes.append(helper.make_node("Add", [exact.output[0], change], [output], name=f"{prefix}_sum"))
    return iter(maker.nodes)


class _Maker:
    """Nodes and constants under names of one prefix."""

    def __init__(self, graph: onnx.GraphProto, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._count = 0
        self.nodes: list[NodeProto] = []

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}_{self._count}"

    def constant(self, array: Array | np.generic) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - attributes of any kind
        name = self._name()
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def windows(self, codes: str, layer: _IntegerLayer, moved: list[onnx.AttributeProto]) -> str:
        """[N, channels * places, ...]: for each output position what lies under each place of the kernel.

        A convolution with one-hot kernels; it counts from the zero point, so that padding is the zero point.
        """
        count = int(np.prod(layer.places))
        channels = int(layer.columns.max()) // count + 1
        zero = self.constant(np.float32(layer.zero_point))
        hot = np.tile(np.eye(count, dtype=np.float32), (channels, 1)).reshape(-1, 1, *layer.places)
        node = helper.make_node(
            "Conv", [self.node("Sub", codes, zero), self.constant(hot)], [self._name()], group=channels
        )
        node.attribute.extend(moved)
        self.nodes.append(node)
        return self.node("Add", node.output[0], zero)

    def products(self, codes: str, columns: Array, weights: Array, *, axis: int, rank: int) -> str:
        """Weight times code for each pair, [N, outputs * pairs, ...]."""
        gathered = self.node("Gather", codes, self.constant(columns.reshape(-1)), axis=axis)
        factor = weights.reshape(-1, *[1] * rank).astype(np.float32)
        return self.node("Mul", gathered, self.constant(factor))

    def summed(self, value: str, shape: tuple[int, ...], *, rank: int) -> str:
        """Sum over the pairs of each output: [N, outputs, ...]."""
        outputs, pairs = shape
        if rank:
            ones = self.constant(np.ones((outputs, pairs, *[1] * rank), np.float32))
            return self.node("Conv", value, ones, group=outputs)
        stacked = self.node("Reshape", value, self.constant(np.array([-1, outputs, pairs])))
        return self.node("ReduceSum", stacked, self.constant(np.array([2])), keepdims=0)
