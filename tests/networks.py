"""Small networks with random weights, for tests of whole models: every structure that the study's network has."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from graphs import make, make_node
from lowbit.calibration.answers import float_answers
from lowbit.data.dataset import Dataset
from lowbit.engines import open_session
from lowbit.graph.model import Model, serialize

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
        how = {"group": group, "kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        nodes.append(make_node("Conv", f"{source} {name}.weight {name}.bias", name, **how))
        return name

    def clipped(source: str) -> str:
        nodes.append(make_node("Clip", f"{source} low high", f"{source}.clip"))
        return f"{source}.clip"

    stem = clipped(convolution("stem", "x", 3, first, kernel=3, stride=2))
    narrow = convolution("narrow", stem, first, 8, kernel=1)
    wide = clipped(convolution("wide", narrow, 8, 24, kernel=1))
    deep = clipped(convolution("deep", wide, 24, 24, kernel=3, group=24))
    back = convolution("back", deep, 24, 8, kernel=1)
    nodes.append(make_node("Add", f"{narrow} {back}", "sum"))
    last = clipped(convolution("last", "sum", 8, 32, kernel=1))
    nodes.append(make_node("ReduceMean", last, "mean", axes=[2, 3], keepdims=0))
    weights["fc.weight"] = generator.normal(scale=0.5, size=(CLASSES, 32)).astype(np.float32)
    weights["fc.bias"] = generator.normal(scale=0.1, size=CLASSES).astype(np.float32)
    nodes.append(make_node("Gemm", "mean fc.weight fc.bias", "logits", name="fc", transB=1))
    return make(nodes, {"x": ["n", 3, SIDE, SIDE]}, {"logits": ["n", CLASSES]}, weights, opset=opset)


def depthwise_network(*, seed: int = 0, clip: float | None = None, spread: float = 100.0) -> onnx.ModelProto:
    """Depthwise and pointwise convolutions whose channels are `spread` apart, as training with batch norms leaves them.

    Each batch norm takes what comes in to mean 0 and variance 1 and gives it scale and shift of its own, from
    1 / sqrt(spread) to sqrt(spread) of the usual; the next layer makes up for that. Every sixth channel is dead: it
    never passes the ReLU, and the batch norm behind it, which has seen nothing but zeros, divides by the root of its
    epsilon.

    Args:
        seed: of the weights.
        clip: bound of the activations: 6 for ReLU6; None for ReLU.
        spread: of the scales of channels.
    """
    generator = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {"low": np.float32(0), "high": np.float32(clip or 0)}
    nodes: list[onnx.NodeProto] = []
    x = inputs(64, seed=99)
    scales, name = np.ones(3), "x"
    for block, (outputs, group, stride) in enumerate(
        [(18, 1, 2), (18, 18, 1), (24, 1, 1), (24, 24, 2), (30, 1, 1), (30, 30, 1), (36, 1, 1)]
    ):
        channels, kernel = len(scales), 3 if group > 1 or not block else 1
        w = generator.normal(size=(outputs, channels // group, kernel, kernel))
        w /= np.sqrt(w[0].size) * (scales.reshape(-1, 1, 1, 1) if group > 1 else scales.reshape(1, -1, 1, 1))
        convolution, norm, active = f"conv{block}", f"norm{block}", f"active{block}"
        weights[f"{convolution}.weight"] = w.astype(np.float32)
        how = {"group": group, "kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        first = make_node("Conv", f"{name} {convolution}.weight", convolution, **how)
        x = _run([first], weights, name, x, convolution)
        mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
        scales = spread ** generator.uniform(-0.5, 0.5, size=outputs)
        shift = scales * generator.normal(scale=0.5, size=outputs)
        shift[::6] = -20 * scales[::6]
        for part, value in (("scale", scales), ("shift", shift), ("mean", mean), ("variance", variance)):
            weights[f"{norm}.{part}"] = value.astype(np.float32)
        parts = f"{norm}.scale {norm}.shift {norm}.mean {norm}.variance"
        after = [
            make_node("BatchNormalization", f"{convolution} {parts}", norm, epsilon=1e-5),
            make_node("Clip", f"{norm} low high", active) if clip else make_node("Relu", norm, active),
        ]
        x, name = _run(after, weights, convolution, x, active), active
        nodes += [first, *after]
    nodes.append(make_node("GlobalAveragePool", name, "mean"))
    nodes.append(make_node("Flatten", "mean", "flat"))
    weights["fc.weight"] = (generator.normal(size=(CLASSES, len(scales))) / np.minimum(scales, clip or np.inf)).astype(
        np.float32
    )
    # Every class is the answer to some image.
    weights["fc.bias"] = -weights["fc.weight"] @ x.mean(axis=(0, 2, 3)).astype(np.float32)
    nodes.append(make_node("Gemm", "flat fc.weight fc.bias", "logits", name="fc", transB=1))
    return make(nodes, {"x": ["n", 3, SIDE, SIDE]}, {"logits": ["n", CLASSES]}, weights)


def _run(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], source: str, x: np.ndarray, output: str):
    used = {name for item in nodes for name in item.input}
    parts = {name: array for name, array in weights.items() if name in used}
    model = make(nodes, {source: ["n", *x.shape[1:]]}, [output], parts)
    return open_session(model.SerializeToString(), threads=1).run({source: x})[output]


def inputs(count: int, *, seed: int = 1) -> np.ndarray:
    """Smooth random images [count, 3, 16, 16], float32, as the network takes them."""
    coarse = np.random.default_rng(seed).normal(size=(count, 3, SIDE // 4, SIDE // 4))
    return np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3).astype(np.float32)


def labelled_inputs(count: int, *, seed: int = 1) -> list[tuple[np.ndarray, int]]:
    """`inputs` with labels that mean nothing but fit."""
    return [(x, index % CLASSES) for index, x in enumerate(inputs(count, seed=seed))]


def class_scores(content: bytes, model: Model, data: Dataset) -> np.ndarray:
    """What a file of a classifier answers, [samples, classes]."""
    (answer,) = float_answers(content, model, data).values()
    return np.asarray(answer)


def with_outputs(model: Model, names: Sequence[str]) -> bytes:
    """An ONNX file of the same graph whose outputs are these tensors, in this order."""
    proto = model.to_proto()
    del proto.graph.output[:]
    proto.graph.output.extend(ir.to_proto(model.values[name]) for name in names)
    return serialize(proto, model.source)
