"""Tiny networks of one kind of layer each, in floats and in integers, to measure how fast a processor runs it."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lowbit.formats.file_form import LITERT
from lowbit.formats.litert.write import to_litert
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import ActivationCodes, BiasCodes, QuantizedGraph
from lowbit.graph.load import load
from lowbit.graph.ops import layers
from lowbit.schemes.linear import Linear


@dataclass(frozen=True)
class Kernel:
    """A chain of convolutions.

    Attributes:
        floats: an ONNX or LiteRT file that computes it in float32.
        integers: one that computes it in integers.
        x: shape of its input.
        macs: multiply-accumulates of all its convolutions.
        outputs: values that they write.
        nodes: how many they are.
    """

    floats: bytes
    integers: bytes
    x: tuple[int, ...]
    macs: int
    outputs: int
    nodes: int


# name -> (channels in turn, kernel size, depthwise, side of the image)
KERNELS: dict[str, tuple[tuple[int, ...], int, bool, int]] = {
    # Long sums: the speed of the arithmetic.
    "dense": ((128,) * 7, 1, False, 28),
    # Short sums, so many results: the cost of writing them.
    "shallow": ((16, 96) * 3, 1, False, 28),
    # The same arithmetic over windows of the image, whose rows must be gathered first.
    "window": ((32,) * 7, 3, False, 28),
    "depthwise": ((96,) * 7, 3, True, 28),
    # Next to nothing to do: the cost of starting an operator.
    "tiny": ((16,) * 17, 1, False, 1),
}


def kernel(name: str, *, to: str = "onnx") -> Kernel:
    """One row of `KERNELS`, with random weights, as files of this format (see `FileForm.to`).

    Raises:
        EngineError: LiteRT files are asked for, and the package is not installed.
    """
    channels, size, depthwise, side = KERNELS[name]
    generator = np.random.default_rng(0)
    nodes, weights = [], []
    macs = outputs = 0
    for index, (before, after) in enumerate(itertools.pairwise(channels)):
        shape = (after, 1 if depthwise else before, size, size)
        columns = math.prod(shape[1:])
        weight = generator.normal(scale=columns**-0.5, size=shape).astype(np.float32)
        weights += [
            numpy_helper.from_array(weight, f"w{index}"),
            numpy_helper.from_array(np.zeros(after, np.float32), f"b{index}"),
        ]
        nodes.append(
            helper.make_node(
                "Conv", [f"t{index}", f"w{index}", f"b{index}"], [f"t{index + 1}"], name=f"c{index}",
                group=before if depthwise else 1, kernel_shape=[size] * 2, pads=[size // 2] * 4,
            )
        )  # fmt: skip
        macs += after * columns * side * side
        outputs += after * side * side
    x = (1, channels[0], side, side)
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info("t0", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(f"t{len(nodes)}", TensorProto.FLOAT, (1, channels[-1], side, side))], weights,
    )  # fmt: skip
    model = load(onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    convolutions = layers(model)
    codes = {layer.weight: Linear(8, per="channel").encode(model.weights[layer.weight]) for layer in convolutions}
    step = ActivationCodes(scale=0.03, zero_point=128)
    integers = QuantizedGraph(
        model,
        weights=codes,
        activations={"t0": step} | {layer.output: step for layer in convolutions},
        biases={
            layer.node: BiasCodes(
                np.zeros(layer.out_channels, np.int32), np.float32(step.scale) * codes[layer.weight].scale
            )
            for layer in convolutions
        },
        integer=frozenset(layer.node for layer in convolutions),
    )
    floats, whole = (
        (to_litert(QuantizedGraph(model)), to_litert(integers))
        if to == LITERT
        else (model.to_bytes(), to_onnx(integers))
    )
    return Kernel(floats, whole, x, macs, outputs, len(nodes))
