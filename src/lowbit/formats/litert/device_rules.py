"""What is wrong with a .tflite file by the rules of a device: the finished file is read, whoever made it."""

from collections.abc import Iterator

import numpy as np

from lowbit.engines.litert_operators import NAMES
from lowbit.engines.litert_reader import LiteRtFile, StoredGraph, StoredOperator, StoredTensor, read_litert
from lowbit.formats.devices import LITERT_FILE, Device, on_cpu
from lowbit.formats.litert.ledger import BYTES, LAYERS

INTEGERS = ("int8", "int16")


def violations(content: bytes, device: Device) -> tuple[str, ...]:
    """One sentence for each place where a file breaks a rule of a device; none for a file that keeps them all.

    Args:
        content: a .tflite file.
        device: a row of `DEVICES`.

    Raises:
        ModelError: not a .tflite file, or damaged.
    """
    file = read_litert(content, "memory")
    rules = _Rules(file, device)
    return tuple(
        found for graph in file.graphs for operator in graph.operators for found in rules.broken(graph, operator)
    )


def beside(content: bytes, device: Device) -> tuple[str, ...]:
    """What a device needs of a file that it takes: operators that the CPU runs beside it.

    Args:
        content: a .tflite file.
        device: a row of `DEVICES`.

    Raises:
        ModelError: not a .tflite file, or damaged.
    """
    # A list of ONNX operators says nothing of these.
    if device.files != (LITERT_FILE,):
        return ()
    operators = (operator for graph in read_litert(content, "memory").graphs for operator in graph.operators)
    return on_cpu((operator.custom or NAMES[operator.code] for operator in operators), device)


class _Rules:
    def __init__(self, file: LiteRtFile, device: Device) -> None:
        self.file = file
        self.device = device
        self.types = {f"int{bits}" for bits in device.kinds}

    def broken(self, graph: StoredGraph, operator: StoredOperator) -> Iterator[str]:
        read = [graph.tensors[index] for index in operator.inputs if index >= 0]
        given = [graph.tensors[index] for index in operator.outputs]
        if not given or not any(tensor.dtype in INTEGERS for tensor in read):
            return
        name = given[0].name or f"operator {operator.code}"
        for tensor in (*read, *given):
            yield from self._activation(tensor, name)
        if operator.code in LAYERS:
            yield from self._layer(graph, operator, name)
        if (called := NAMES[operator.code]) in self.device.sharing and given[0].dtype in INTEGERS:
            yield from self._sharing([*read, *given], f"{name}: {called}")

    def _activation(self, tensor: StoredTensor, name: str) -> Iterator[str]:
        if tensor.dtype not in INTEGERS or self.file.buffers[tensor.buffer].size:
            return
        if tensor.dtype not in self.types:
            yield f"{name}: activations of {tensor.dtype}"
        scale, zero_point = self._scale(tensor), self.file.array(tensor.zero_point, "<i8")
        if scale.size != 1 or not scale.min() > 0:
            yield f"{name}: {scale.size} scales for an activation"
        if tensor.dtype == "int16" and zero_point.any():
            yield f"{name}: int16 with a zero point"

    def _layer(self, graph: StoredGraph, operator: StoredOperator, name: str) -> Iterator[str]:
        op, weight_at, bias_at = LAYERS[operator.code]
        # TRANSPOSE_CONV reads its activation last.
        x = graph.tensors[operator.inputs[2 if op == "ConvTranspose" else 0]]
        weight = graph.tensors[operator.inputs[weight_at]]
        if x.dtype not in INTEGERS:
            return
        if weight.dtype != "int8" or self.file.array(weight.zero_point, "<i8").any():
            yield f"{name}: weights of {weight.dtype}, or with zero points"
            return
        codes = self.file.array(self.file.buffers[weight.buffer], "i1").reshape(weight.shape)
        scale = self._scale(weight)
        if scale.size > 1 and op not in self.device.per_channel:
            yield f"{name}: {scale.size} scales for the weights of a {op}"
        outputs = weight.axis if scale.size > 1 else 0
        axes = tuple(axis for axis in range(codes.ndim) if axis != outputs)
        largest = int(np.abs(codes.astype(np.int64)).sum(axis=axes).max(initial=0))
        if self.device.largest_sum and largest > self.device.largest_sum:
            yield f"{name}: weight codes whose magnitudes sum to {largest}"
        if len(operator.inputs) <= bias_at or operator.inputs[bias_at] < 0:
            return
        bias = graph.tensors[operator.inputs[bias_at]]
        wanted = "int64" if x.dtype == "int16" else "int32"
        if bias.dtype != wanted:
            yield f"{name}: a bias of {bias.dtype}, not {wanted}"
            return
        values = self.file.array(self.file.buffers[bias.buffer], {**BYTES, "int64": "<i8"}[bias.dtype])
        if np.abs(values.astype(np.int64)).max(initial=0) > self.device.largest_bias:
            yield f"{name}: a bias beyond {self.device.largest_bias}"
        if not np.allclose(self._scale(bias), self._scale(x) * scale, rtol=1e-5, atol=0):
            yield f"{name}: the scale of its bias is not that of input times weight"

    def _sharing(self, tensors: list[StoredTensor], what: str) -> Iterator[str]:
        coded = [tensor for tensor in tensors if tensor.dtype in INTEGERS]
        grids = {
            (self._scale(tensor).tobytes(), self.file.array(tensor.zero_point, "<i8").tobytes()) for tensor in coded
        }
        if len(grids) > 1:
            yield f"{what} has inputs and outputs of different scales"

    def _scale(self, tensor: StoredTensor) -> np.ndarray:
        return self.file.array(tensor.scale, "<f4")
