"""Networks over lines [n, C, L]: OpenVINO computes what ONNX Runtime does, and what the float network is about."""

import numpy as np
import pytest

import lowbit
from graphs import make, make_node, relative_error, run
from lowbit.engines import installed_engines
from lowbit.formats.file_form import FileForm
from lowbit.formats.opening import file_weights

LENGTH = 64
x = np.random.default_rng(1).normal(size=(24, 3, LENGTH)).astype(np.float32)


def network(middle, *, channels=16, mean=True, **weights):
    """A convolution whose output can be negative, what is in question, and a mean or another convolution."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return generator.normal(scale=np.sqrt(2 / np.prod(shape[1:])), size=shape).astype(np.float32)

    constants = {"first": normal(channels, 3, 3), **{name: normal(*shape) for name, shape in weights.items()}}
    nodes = [make_node("Conv", "x first", "c", pads=[1, 1]), *middle]
    last = middle[-1].output[0] if middle else "c"
    outputs = weights.get("w", (channels,))[0] if middle and middle[-1].op_type == "Conv" else channels
    outputs = weights["t"][1] if "t" in weights else outputs
    if mean:
        nodes += [make_node("GlobalAveragePool", last, "g"), make_node("Flatten", "g", "f")]
        nodes.append(make_node("Gemm", "f dense", "y", transB=1))
        constants["dense"] = normal(4, outputs)
    else:
        nodes.append(make_node("Conv", f"{last} next", "y"))
        constants["next"] = normal(4, outputs, 1)
    return make(nodes, {"x": ["n", 3, LENGTH]}, ["y"], constants)


def conv(kernel=8, pad=2, **how):
    return [make_node("Conv", "c w", "d", pads=[pad, pad], **how)], {"w": (24, 16, kernel)}


CASES = {
    "mean": lambda: network([]),
    "mean of a transposed convolution": lambda: network(
        [make_node("ConvTranspose", "c t", "d", strides=[2])], t=(16, 8, 2)
    ),
    "mean over an axis": lambda: network(
        [make_node("ReduceMean", "c", "d", axes=[2], keepdims=1)], mean=False
    ),
    "eight weights": lambda: network(conv()[0], mean=False, **conv()[1]),
    "eight weights, strides": lambda: network(conv(strides=[4])[0], mean=False, **conv()[1]),
    "eight weights, attributes": lambda: network(
        conv(strides=[4], kernel_shape=[8], dilations=[1])[0], mean=False, **conv()[1]
    ),
    "dilated": lambda: network(conv(3, dilations=[2])[0], mean=False, **conv(3)[1]),
    "depthwise": lambda: network([make_node("Conv", "c w", "d", pads=[2, 2], group=16)], mean=False, w=(16, 1, 8)),
    "both": lambda: network(conv()[0], **conv()[1]),
    "a function between": lambda: network(
        [make_node("LeakyRelu", "c", "l", alpha=0.2), make_node("Conv", "l w", "d")], mean=False, w=(24, 16, 3)
    ),
    "functions between, of which one is read twice": lambda: network(
        [
            *(make_node("LeakyRelu", "c", "l", alpha=0.2), make_node("Tanh", "l", "t")),
            *(make_node("Conv", "t w", "e", pads=[1, 1]), make_node("Add", "e t", "d")),
        ],
        mean=False,
        w=(16, 16, 3),
    ),
    "transposed": lambda: network(
        [make_node("ConvTranspose", "c t", "d", strides=[3], pads=[1, 2], output_padding=[1])], t=(16, 8, 5), mean=False
    ),
    "transposed to a length": lambda: network(
        [make_node("ConvTranspose", "c t", "d", strides=[2], output_shape=[130])], t=(16, 8, 4), mean=False
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_openvino_computes_the_same(name):
    if "openvino" not in installed_engines():
        pytest.skip("openvino is not installed")
    proto = CASES[name]()
    model = lowbit.load(proto)
    made = lowbit.quantize(model, "int8", calibration=list(x), effort="fast", steps=())
    wanted = run(proto.SerializeToString(), x)
    for content, engine in (
        (made.to_bytes(), "onnxruntime"),
        (made.to_bytes(FileForm(to="openvino")), "onnxruntime"),
        (made.to_bytes(FileForm(to="openvino")), "openvino"),
    ):
        assert relative_error(run(content, x, engine), wanted) < 0.06, engine


def test_weights_are_read_back_in_their_own_shape(tmp_path):
    model = lowbit.load(CASES["both"]())
    made = lowbit.quantize(model, "int8", calibration=list(x), effort="fast", steps=())
    there, here = (made.save(tmp_path / f"{to}.onnx", to=to) for to in ("openvino", "onnx"))
    ours, others = file_weights(there), file_weights(here)
    assert {name: w.shape for name, w in ours.items()} == {name: w.shape for name, w in others.items()}
    for name, w in ours.items():
        np.testing.assert_array_equal(w, others[name])
