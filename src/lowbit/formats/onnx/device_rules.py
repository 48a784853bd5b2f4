"""What is wrong with a QDQ file by the rules of a device: the finished file is read, whoever made it."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from lowbit.errors import ModelError
from lowbit.formats.devices import FLOAT_BIAS, WEIGHTED, Device, on_cpu, unfixed
from lowbit.graph.load import parse
from lowbit.graph.model import MEMORY
from lowbit.graph.ops import OPS

CONTRIBUTED = "com.microsoft"  # whose conversions take 16 bits before operator set 21
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
BIAS_TOLERANCE = 1e-5  # of a bias scale, relative


def violations(content: bytes, device: Device) -> tuple[str, ...]:
    """One sentence for each place where a file breaks a rule of a device; none for a file that keeps them all.

    Args:
        content: an ONNX file.
        device: a row of `DEVICES`.

    Raises:
        ModelError: not an ONNX file.
    """
    return tuple(_Rules(parse(content, MEMORY).graph, device).broken())


def beside(content: bytes, device: Device) -> tuple[str, ...]:
    """What a device needs of a file that it takes: operators that the CPU runs beside it, and inputs of open sizes.

    Args:
        content: an ONNX file.
        device: a row of `DEVICES`.

    Raises:
        ModelError: not an ONNX file.
    """
    graph = parse(content, MEMORY).graph
    constants = {tensor.name for tensor in graph.initializer}
    running = []
    for node in graph.node:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)  # folded before anything runs
        else:
            running.append(node.op_type)
    given = [value for value in graph.input if value.name not in constants]
    open_inputs = [
        value.name for value in given if not all(size.dim_value for size in value.type.tensor_type.shape.dim)
    ]
    return (*on_cpu(running, device), *unfixed(open_inputs, device))


class _Rules:
    def __init__(self, graph: onnx.GraphProto, device: Device) -> None:
        self.device = device
        self.nodes = graph.node
        self.values = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def broken(self) -> Iterator[str]:
        for node in self.nodes:
            name = node.name or node.output[0]
            if node.op_type in CONVERSIONS:
                if node.domain not in ("", CONTRIBUTED):
                    yield f"{name}: {node.op_type} of domain {node.domain}"
                if not self._is_constant(node.input[0]):
                    yield from self._activation(node, name)
            elif node.op_type in WEIGHTED and self._decodes(node.input[0]):
                yield from self._layer(node, name)
            if node.domain == "" and node.op_type in self.device.sharing:
                yield from self._sharing(node, name)

    def _activation(self, node: NodeProto, name: str) -> Iterator[str]:
        zero_point = self._array(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
        scale = self._array(node.input[1])
        kinds = [kind for kind in self.device.kinds.values() if kind.dtype == zero_point.dtype]
        if not kinds:
            yield f"{name}: activations of {zero_point.dtype}"
        elif kinds[0].symmetric and zero_point.any():
            yield f"{name}: a zero point of {zero_point.item()}"
        if scale.size != 1 or not scale.min() > 0:
            yield f"{name}: {scale.size} scales for an activation, the least {scale.min()}"

    def _layer(self, node: NodeProto, name: str) -> Iterator[str]:
        decode = self._weight(node)
        if decode is None:
            yield f"{name}: its weight is not stored as codes"
            return
        scale = self._array(decode.input[1]).reshape(-1)
        zero_point = self._array(decode.input[2]) if len(decode.input) > 2 else np.zeros(1, np.int8)
        if zero_point.dtype != np.int8 or zero_point.any():
            yield f"{name}: weights of {zero_point.dtype} with zero points up to {np.abs(zero_point).max()}"
        if scale.size > 1 and node.op_type not in self.device.per_channel:
            yield f"{name}: {scale.size} scales for the weights of a {node.op_type}"
        place = OPS[node.op_type].bias
        if place is None or len(node.input) <= place or not node.input[place]:
            return
        bias = self.producers.get(node.input[place])
        if bias is None:
            if self.device.bias != FLOAT_BIAS:
                yield f"{name}: a float bias"
            return
        codes = self.values.get(bias.input[0])
        if self.device.bias == FLOAT_BIAS:
            yield f"{name}: a bias of integers"
        elif bias.op_type != "DequantizeLinear" or codes is None or codes.data_type != TensorProto.INT32:
            yield f"{name}: its bias is not int32"
        else:
            wanted = self._array(self.producers[node.input[0]].input[1]) * scale
            if not np.allclose(self._array(bias.input[1]).reshape(-1), wanted, rtol=BIAS_TOLERANCE, atol=0):
                yield f"{name}: the scale of its bias is not that of input times weight"

    def _sharing(self, node: NodeProto, name: str) -> Iterator[str]:
        """Codes in and codes out have to be the same codes."""
        before = self.producers.get(node.input[0])
        if before is None or before.op_type != "DequantizeLinear" or self._is_constant(before.input[0]):
            return
        for output in node.output:
            after = self._codes(output)
            if after is not None and self._grid(after) != self._grid(before):
                yield f"{name}: {node.op_type} gives codes of another scale than it reads"

    def _weight(self, node: NodeProto) -> NodeProto | None:
        """The DequantizeLinear of a layer's stored weight, which may be reordered behind it."""
        maker = self.producers.get(node.input[OPS[node.op_type].weight])
        while maker is not None and maker.op_type in ("Transpose", "Squeeze"):
            maker = self.producers.get(maker.input[0])
        found = maker is not None and maker.op_type == "DequantizeLinear" and self._is_constant(maker.input[0])
        return maker if found else None

    def _decodes(self, name: str) -> bool:
        maker = self.producers.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear"

    def _codes(self, name: str) -> NodeProto | None:
        """The QuantizeLinear that reads a tensor."""
        return next((node for node in self.readers.get(name, ()) if node.op_type == "QuantizeLinear"), None)

    def _is_constant(self, name: str) -> bool:
        maker = self.producers.get(name)
        return name in self.values or (
            maker is not None and all(self._is_constant(part) for part in maker.input if part)
        )

    def _grid(self, node: NodeProto) -> tuple[bytes, ...]:
        return tuple(self._array(name).tobytes() for name in node.input[1:])

    def _array(self, name: str) -> np.ndarray:
        if name in self.values:
            return numpy_helper.to_array(self.values[name])
        raise ModelError(
            "scales and zero points are computed.", where=name, remedy="A device's file holds them as initializers."
        )
