"""Small networks with random weights, for tests of whole models: every structure that the study's network has."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 16
CLASSES = 5


def residual_network(
    *, seed: int = 0, depthwise_scale: float = 1.0, opset: int = 17, first: int = 12
) -> onnx.ModelProto:
    """Convolution, depthwise and pointwise convolutions with ReLU6, a residual sum, a spatial mean, a classifier."""
    generator = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {"low": np.float32(0), "high": np.float32(6)}
    nodes: list[onnx.NodeProto] = []

    def convolution(
        name: str, source: str, channels: int, outputs: int, *, kernel: int, group: int = 1, stride: int = 1
    ):
        columns = channels // group * kernel * kernel
        w = generator.normal(scale=1.2 / np.sqrt(columns), size=(outputs, channels // group, kernel, kernel))
        if group > 1:
            w *= depthwise_scale ** generator.uniform(-1, 1, size=(outputs, 1, 1, 1))
        weights[f"{name}.weight"] = w.astype(np.float32)
        weights[f"{name}.bias"] = generator.normal(scale=0.2, size=outputs).astype(np.float32)
        pad = kernel // 2
        nodes.append(
            helper.make_node(
                "Conv", [source, f"{name}.weight", f"{name}.bias"], [name], name=name, group=group,
                kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4,
            )
        )  # fmt: skip
        return name

    def clipped(source: str) -> str:
        nodes.append(helper.make_node("Clip", [source, "low", "high"], [f"{source}.clip"], name=f"{source}.clip"))
        return f"{source}.clip"

    stem = clipped(convolution("stem", "x", 3, first, kernel=3, stride=2))
    narrow = convolution("narrow", stem, first, 8, kernel=1)
    wide = clipped(convolution("wide", narrow, 8, 24, kernel=1))
    deep = clipped(convolution("deep", wide, 24, 24, kernel=3, group=24))
    back = convolution("back", deep, 24, 8, kernel=1)
    nodes.append(helper.make_node("Add", [narrow, back], ["sum"], name="sum"))
    last = clipped(convolution("last", "sum", 8, 32, kernel=1))
    nodes.append(helper.make_node("ReduceMean", [last], ["mean"], name="mean", axes=[2, 3], keepdims=0))
    weights["fc.weight"] = generator.normal(scale=0.5, size=(CLASSES, 32)).astype(np.float32)
    weights["fc.bias"] = generator.normal(scale=0.1, size=CLASSES).astype(np.float32)
    nodes.append(helper.make_node("Gemm", ["mean", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def inputs(count: int, *, seed: int = 1) -> np.ndarray:
    """Smooth random images [count, 3, 16, 16], float32, as the network takes them."""
    coarse = np.random.default_rng(seed).normal(size=(count, 3, SIDE // 4, SIDE // 4))
    return np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3).astype(np.float32)


def labelled_inputs(count: int, *, seed: int = 1) -> list[tuple[np.ndarray, int]]:
    """`inputs` with labels that mean nothing but fit."""
    return [(x, index % CLASSES) for index, x in enumerate(inputs(count, seed=seed))]
