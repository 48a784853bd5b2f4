"""Networks of the usual shapes with random weights, as ONNX: nothing to download, no framework needed.

MobileNetV2 (Sandler et al. 2018, table 2), ResNet50 (He et al. 2016, table 1) and ViT-B/16 (Dosovitskiy et al. 2021,
table 1), with batch norms folded as an export in inference mode has them, and attention, LayerNormalization and GELU
spelled as torch.onnx spells them. Weights are scaled so that activations keep their size from layer to layer.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IMAGE, CLASSES = 224, 1000


class Builder:
    """Nodes and weights in the order in which they are asked for."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, values: np.ndarray) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, *shape: int, inputs: int, gain: float = 1.0) -> str:
        values = self.random.standard_normal(shape, np.float32) * np.float32(gain / np.sqrt(inputs))
        return self.constant(values)

    def convolution(self, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, groups: int = 1,
                    gain: float = np.sqrt(2)) -> str:  # fmt: skip
        inside, outside = channels
        weight = self.weight(
            outside, inside // groups, kernel, kernel, inputs=inside // groups * kernel * kernel, gain=gain
        )
        bias = self.constant(self.random.standard_normal(outside, np.float32) * np.float32(0.1))
        return self.add("Conv", x, weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2,
                        pads=[kernel // 2] * 4, group=groups)  # fmt: skip

    def linear(self, x: str, inside: int, outside: int, gain: float = 1.0) -> str:
        """As torch exports a Linear of more than two dimensions: MatMul and Add."""
        product = self.add("MatMul", x, self.weight(inside, outside, inputs=inside, gain=gain))
        return self.add(
            "Add", self.constant(self.random.standard_normal(outside, np.float32) * np.float32(0.02)), product
        )

    def model(self, name: str, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, IMAGE, IMAGE])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", CLASSES])], self.weights,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def mobilenet_v2() -> onnx.ModelProto:
    b = Builder()
    six = (b.constant(np.float32(0.0)), b.constant(np.float32(6.0)))
    x = b.add("Clip", b.convolution("image", (3, 32), 3, 2), *six)
    inside = 32
    for widening, outside, count, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for stride in (first, *[1] * (count - 1)):
            hidden = inside * widening
            y = x if widening == 1 else b.add("Clip", b.convolution(x, (inside, hidden), 1), *six)
            y = b.add("Clip", b.convolution(y, (hidden, hidden), 3, stride, hidden), *six)
            y = b.convolution(y, (hidden, outside), 1, gain=1.0)
            x = b.add("Add", x, y) if stride == 1 and inside == outside else y
            inside = outside
    x = b.add("Clip", b.convolution(x, (inside, 1280), 1), *six)
    x = b.add("Flatten", b.add("GlobalAveragePool", x))
    last = b.add("Gemm", x, b.weight(CLASSES, 1280, inputs=1280), b.constant(np.zeros(CLASSES, np.float32)), transB=1)
    return b.model("mobilenet_v2", last)


def resnet50() -> onnx.ModelProto:
    b = Builder()
    x = b.add("Relu", b.convolution("image", (3, 64), 7, 2))
    x = b.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inside = 64
    for width, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(count):
            stride = first if block == 0 else 1
            y = b.add("Relu", b.convolution(x, (inside, width), 1))
            y = b.add("Relu", b.convolution(y, (width, width), 3, stride))
            y = b.convolution(y, (width, 4 * width), 1, gain=0.3)
            shortcut = b.convolution(x, (inside, 4 * width), 1, stride, gain=1.0) if block == 0 else x
            x, inside = b.add("Relu", b.add("Add", y, shortcut)), 4 * width
    x = b.add("Flatten", b.add("GlobalAveragePool", x))
    last = b.add("Gemm", x, b.weight(CLASSES, 2048, inputs=2048), b.constant(np.zeros(CLASSES, np.float32)), transB=1)
    return b.model("resnet50", last)


def vit_base() -> onnx.ModelProto:
    width, heads, depth, patch = 768, 12, 12, 16
    tokens = (IMAGE // patch) ** 2
    b = Builder()

    def norm(x: str) -> str:
        scale, bias = b.constant(np.ones(width, np.float32)), b.constant(np.zeros(width, np.float32))
        return b.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-6)

    def gelu(x: str) -> str:
        """x / 2 (1 + erf(x / sqrt 2)), operator by operator."""
        half, one, root = (b.constant(np.float32(value)) for value in (0.5, 1.0, np.sqrt(2)))
        erf = b.add("Erf", b.add("Div", x, root))
        return b.add("Mul", b.add("Mul", x, b.add("Add", erf, one)), half)

    weight = b.weight(width, 3, patch, patch, inputs=3 * patch * patch)
    x = b.add("Conv", "image", weight, b.constant(np.zeros(width, np.float32)), kernel_shape=[patch] * 2,
              strides=[patch] * 2)  # fmt: skip
    x = b.add("Reshape", x, b.constant(np.array([0, width, tokens])))
    x = b.add("Transpose", x, perm=[0, 2, 1])
    # The class token, once for each image of the batch.
    rows = b.add("Shape", "image", start=0, end=1)
    shape = b.add("Concat", rows, b.constant(np.array([1, width])), axis=0)
    token = b.add("Expand", b.weight(1, 1, width, inputs=1, gain=0.02), shape)
    x = b.add("Concat", token, x, axis=1)
    x = b.add("Add", x, b.weight(1, tokens + 1, width, inputs=1, gain=0.02))
    split = b.constant(np.array([0, tokens + 1, 3, heads, width // heads]))
    joined = b.constant(np.array([0, tokens + 1, width]))
    scale = b.constant(np.float32((width // heads) ** -0.5))
    for _ in range(depth):
        qkv = b.add("Reshape", b.linear(norm(x), width, 3 * width), split)
        qkv = b.add("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        q, k, v = (b.add("Gather", qkv, b.constant(np.int64(i)), axis=0) for i in range(3))
        scores = b.add("MatMul", b.add("Mul", q, scale), b.add("Transpose", k, perm=[0, 1, 3, 2]))
        mixed = b.add("MatMul", b.add("Softmax", scores, axis=-1), v)
        mixed = b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        x = b.add("Add", x, b.linear(mixed, width, width))
        y = gelu(b.linear(norm(x), width, 4 * width))
        x = b.add("Add", x, b.linear(y, 4 * width, width))
    x = b.add("Gather", norm(x), b.constant(np.int64(0)), axis=1)
    last = b.add("Gemm", x, b.weight(CLASSES, width, inputs=width), b.constant(np.zeros(CLASSES, np.float32)), transB=1)
    return b.model("vit_base", last)


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mobilenet_v2": mobilenet_v2,
    "resnet50": resnet50,
    "vit_base": vit_base,
}
