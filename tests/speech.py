"""A network like those that detect speech: bodies of an If for two sampling rates, a Fourier transform, an LSTM."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphs import make, make_node

SAMPLES = 256
HIDDEN = 64


def speech_network(*, seed: int = 0) -> onnx.ModelProto:
    """Inputs: wave [1, 256], state [2, 1, 64] of the LSTM, rate; outputs: probability [1, 1], the state after it."""
    generator = np.random.default_rng(seed)
    nodes = [
        make_node("Equal", "rate fast", "is_fast"),
        make_node(
            "If",
            "is_fast",
            "probability after",
            then_branch=_branch(generator, "fast", window=64),
            else_branch=_branch(generator, "slow", window=32),
        ),
    ]
    return make(
        nodes,
        {"wave": [1, SAMPLES], "state": [2, 1, HIDDEN], "rate": []},
        {"probability": [1, 1], "after": [2, 1, HIDDEN]},
        {"fast": np.int64(16000)},
        types={"rate": TensorProto.INT64},
    )


def _branch(generator: np.random.Generator, name: str, *, window: int) -> onnx.GraphProto:
    """Both branches call their tensors the same; one holds its weights as constants in nodes, one as initializers."""
    bins = window // 2 + 1
    angles = 2 * np.pi * np.outer(np.arange(bins), np.arange(window)) / window
    basis = np.concatenate([np.cos(angles), -np.sin(angles)]) * np.hanning(window)
    weights: dict[str, np.ndarray] = {"basis": basis[:, None].astype(np.float32)}

    def drawn(name: str, *shape: int) -> None:
        columns = int(np.prod(shape[1:]))
        weights[name] = generator.normal(scale=1.5 / np.sqrt(columns), size=shape).astype(np.float32)

    for index, (inputs, outputs) in enumerate([(bins, 64), (64, 48), (48, HIDDEN)]):
        drawn(f"conv{index}.weight", outputs, inputs, 3)
        weights[f"conv{index}.bias"] = generator.normal(scale=0.1, size=outputs).astype(np.float32)
    for gate, columns in (("W", HIDDEN), ("R", HIDDEN)):
        weights[gate] = generator.normal(scale=1 / np.sqrt(columns), size=(1, 4 * HIDDEN, columns)).astype(np.float32)
    weights["B"] = generator.normal(scale=0.1, size=(1, 8 * HIDDEN)).astype(np.float32)
    drawn("last.weight", 1, HIDDEN, 1)
    numbers = {"one": [1], "zero": [0], "two": [2], "half": [bins], "full": [2 * bins]}
    weights |= {key: np.array(value, np.int64) for key, value in numbers.items()}
    nodes = [
        make_node("Unsqueeze", "wave one", "u"),
        make_node("Conv", "u basis", "spectrum", name="stft", strides=[window // 2]),
        make_node("Slice", "spectrum zero half one", "real"),
        make_node("Slice", "spectrum half full one", "imaginary"),
        make_node("Mul", "real real", "real2"),
        make_node("Mul", "imaginary imaginary", "imaginary2"),
        make_node("Add", "real2 imaginary2", "power"),
        make_node("Sqrt", "power", "features"),
    ]
    source = "features"
    for index in range(3):
        reads = f"{source} conv{index}.weight conv{index}.bias"
        nodes.append(make_node("Conv", reads, f"conv{index}", strides=[1 + index % 2], pads=[1, 1]))
        nodes.append(make_node("Relu", f"conv{index}", f"relu{index}"))
        source = f"relu{index}"
    nodes += [
        make_node("Transpose", source, "steps", perm=[2, 0, 1]),
        make_node("Split", "state", "h0 c0", axis=0),
        make_node("LSTM", "steps W R B  h0 c0", " h c", name="lstm", hidden_size=HIDDEN),
        make_node("Concat", "h c", "out_state", axis=0),
        make_node("Transpose", "h", "columns", perm=[1, 2, 0]),
        make_node("Relu", "columns", "active"),
        make_node("Conv", "active last.weight", "logit", name="last"),
        make_node("Sigmoid", "logit", "score"),
        make_node("Squeeze", "score two", "out"),
    ]
    tensors = {key: numpy_helper.from_array(array, key) for key, array in weights.items()}
    if name == "slow":
        nodes = [helper.make_node("Constant", [], [key], value=tensor) for key, tensor in tensors.items()] + nodes
        tensors = {}
    results = [("out", [1, 1]), ("out_state", [2, 1, HIDDEN])]
    infos = [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in results]
    return helper.make_graph(nodes, name, [], infos, list(tensors.values()))
