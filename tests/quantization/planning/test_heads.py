"""Heads of detectors: scores beside boxes that are hundreds of times larger keep their quality."""

import numpy as np
import pytest

from graphs import make, make_node
from lowbit.engines import installed_engines, open_session
from lowbit.formats.file_form import FileForm
from lowbit.graph.load import load
from lowbit.quantization.quantize import quantize

CLOSE = 3.0  # decibels that scores may be behind the boxes
x = np.random.default_rng(1).normal(size=(40, 3, 16, 16)).astype(np.float32)


def detector(tail, *, outputs=("y",), **more):
    """Two convolutions, boxes [n, 4, 64] in pixels and scores [n, 6, 64], and what joins them."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return generator.normal(scale=np.sqrt(2 / np.prod(shape[1:])), size=shape).astype(np.float32)

    weights = {"w": normal(16, 3, 3, 3), "wb": normal(4, 16, 1, 1), "ws": normal(6, 16, 1, 1), "low": np.float32(2)}
    weights |= {"flat": np.array([0, 0, -1]), "stride": np.float32(320)} | more
    nodes = [
        make_node("Conv", "x w", "c", strides=[2, 2], pads=[1] * 4),
        make_node("Relu", "c", "f"),
        make_node("Conv", "f wb", "b"),
        make_node("Conv", "f ws", "s"),
    ]
    return make([*nodes, *tail], {"x": ["n", 3, 16, 16]}, outputs, weights)


BOXES = [
    make_node("Reshape", "b flat", "bf"),
    make_node("Sigmoid", "bf", "bs"),
    make_node("Mul", "bs stride", "boxes"),
]
JOINED = make_node("Concat", "boxes scores", "y", axis=1)
HEADS = {
    "sigmoid before": [*BOXES, make_node("Sigmoid", "s", "p"), make_node("Reshape", "p flat", "scores"), JOINED],
    "sigmoid behind": [*BOXES, make_node("Reshape", "s flat", "r"), make_node("Sigmoid", "r", "scores"), JOINED],
    "transposed": [
        *BOXES,
        make_node("Sigmoid", "s", "p"),
        make_node("Reshape", "p flat", "scores"),
        make_node("Concat", "boxes scores", "j", axis=1),
        make_node("Transpose", "j", "t", perm=[0, 2, 1]),
        make_node("Transpose", "t", "y", perm=[0, 2, 1]),
    ],
    "sigmoid of all": [
        make_node("Concat", "b s", "j", axis=1),
        make_node("Reshape", "j flat", "r"),
        make_node("Sigmoid", "r", "p"),
        make_node("Mul", "p factor", "y"),
    ],
    "boxes as they are": [
        make_node("Mul", "b stride", "far"),
        make_node("Concat", "far s", "j", axis=1),
        make_node("Reshape", "j flat", "y"),
    ],
}  # fmt: skip


def decibels(wanted, given):
    return 10 * np.log10(np.square(wanted - wanted.mean()).sum() / np.square(wanted - given).sum())


@pytest.mark.parametrize("head", HEADS)
def test_scores_are_as_close_as_boxes(head):
    factor = np.repeat(np.float32([320, 1]), [4, 6]).reshape(1, 10, 1)
    proto = detector(HEADS[head], factor=factor)
    made = quantize(load(proto), "int8", calibration=list(x), effort="fast")
    wanted = open_session(proto.SerializeToString(), threads=1).run({"x": x})["y"]
    for engine, to in (("onnxruntime", "onnx"), ("openvino", "openvino"), ("litert", "litert")):
        if engine not in installed_engines():
            continue
        given = open_session(made.to_bytes(FileForm(to=to)), engine=engine, threads=1).run({"x": x})["y"]
        boxes, scores = decibels(wanted[:, :4], given[:, :4]), decibels(wanted[:, 4:], given[:, 4:])
        assert scores > boxes - CLOSE, (engine, boxes, scores)
        assert scores > 20, (engine, boxes, scores)


def test_what_only_moves_scores_leaves_them_float():
    made = quantize(load(detector(HEADS["sigmoid before"])), "int8", calibration=list(x), effort="fast")
    arithmetic = {node.node: node.arithmetic for node in made.plan.nodes}
    assert arithmetic["p"] == arithmetic["scores"] == arithmetic["y"] == "float"
