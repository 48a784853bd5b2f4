"""Small networks for every task, with labels that mostly follow their float answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from graphs import make, make_node
from lowbit.engines import open_session

COUNT = 24


@dataclass(frozen=True)
class TaskCase:
    """A network and labeled samples.

    Attributes:
        model: the file.
        inputs: arrays by input name [samples, ...].
        labels: one for each sample.
        metrics: that its task has.
    """

    model: onnx.ModelProto
    inputs: Mapping[str, np.ndarray]
    labels: Any
    metrics: tuple[str, ...]

    @property
    def data(self) -> dict[str, Any]:
        """As `open_data` takes it."""
        return {**self.inputs, "labels": self.labels}


def answers_of(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return open_session(model.SerializeToString(), threads=1).run(dict(inputs))


def _weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def _images(rng: np.random.Generator, side: int = 8) -> dict[str, np.ndarray]:
    return {"x": rng.standard_normal((COUNT, 3, side, side)).astype(np.float32)}


def segmentation() -> TaskCase:
    """Maps of 4 classes; a fifth of the pixels is labeled at random, and some are ignored."""
    rng = np.random.default_rng(0)
    nodes = [
        make_node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        make_node("Relu", "c", "r"),
        make_node("Conv", "r v", "maps"),
    ]
    weights = {"w": _weight(rng, 16, 3, 3, 3), "b": _weight(rng, 16, 1)[:, 0], "v": 4 * _weight(rng, 4, 16, 1, 1)}
    model = make(nodes, {"x": ["n", 3, 8, 8]}, {"maps": ["n", 4, 8, 8]}, weights)
    inputs = _images(rng)
    labels = answers_of(model, inputs)["maps"].argmax(axis=1)
    labels = np.where(rng.random(labels.shape) < 0.2, rng.integers(0, 4, labels.shape), labels)
    return TaskCase(model, inputs, np.where(rng.random(labels.shape) < 0.1, 255, labels), ("miou", "pixel_accuracy"))


def regression() -> TaskCase:
    """Three numbers, and a map that no label is for."""
    rng = np.random.default_rng(1)
    nodes = [
        make_node("Conv", "x w", "features", pads=[1, 1, 1, 1]),
        make_node("Relu", "features", "r"),
        make_node("GlobalAveragePool", "r", "mean"),
        make_node("Flatten", "mean", "flat"),
        make_node("MatMul", "flat v", "y"),
    ]
    weights = {"w": _weight(rng, 16, 3, 3, 3), "v": 8 * _weight(rng, 16, 3)}
    model = make(nodes, {"x": ["n", 3, 8, 8]}, {"features": ["n", 16, 8, 8], "y": ["n", 3]}, weights)
    inputs = _images(rng)
    y = answers_of(model, inputs)["y"]
    return TaskCase(model, inputs, (y + y.std() * rng.standard_normal(y.shape) / 5).astype(np.float32), ("r2", "mse"))


def sequences() -> TaskCase:
    """Characters at 12 moments with time first, [time, 1, classes]; labels of different lengths, padded with -1."""
    rng = np.random.default_rng(2)
    nodes = [make_node("MatMul", "x w", "h"), make_node("Relu", "h", "r"), make_node("MatMul", "r v", "s"),
             make_node("Transpose", "s", "y", perm=[1, 0, 2])]  # fmt: skip
    model = make(nodes, {"x": [1, 12, 6]}, {"y": [12, 1, 5]}, {"w": _weight(rng, 6, 24), "v": 6 * _weight(rng, 24, 5)})
    x = rng.standard_normal((COUNT, 12, 6)).astype(np.float32)
    session = open_session(model.SerializeToString(), threads=1)
    labels = np.full((COUNT, 12), -1)
    for index, sample in enumerate(x):
        best = session.run({"x": sample[None]})["y"][:, 0].argmax(axis=1)
        wanted = [int(c) for i, c in enumerate(best) if c and (i == 0 or best[i - 1] != c)][: rng.integers(1, 12)]
        labels[index, : len(wanted)] = wanted
    return TaskCase(model, {"x": x}, labels[:, :11], ("cer", "exact"))


def tokens() -> TaskCase:
    """Scores of 20 tokens at 9 positions."""
    rng = np.random.default_rng(3)
    nodes = [make_node("Gather", "table ids", "e"), make_node("MatMul", "e w", "h"), make_node("Relu", "h", "r"),
             make_node("MatMul", "r v", "y")]  # fmt: skip
    weights = {"table": rng.standard_normal((20, 8)), "w": _weight(rng, 8, 32), "v": 2 * _weight(rng, 32, 20)}
    types = {"ids": TensorProto.INT64}
    model = make(nodes, {"ids": ["n", "t"]}, {"y": ["n", "t", 20]}, weights, types=types)
    inputs = {"ids": rng.integers(0, 20, (COUNT, 9))}
    best = answers_of(model, inputs)["y"].argmax(axis=2)
    labels = np.where(rng.random(best.shape) < 0.5, rng.integers(0, 20, best.shape), best)
    labels[:, -2:] = -100
    return TaskCase(model, inputs, labels, ("perplexity", "token_accuracy"))


def embeddings() -> TaskCase:
    """Vectors of length 1; pairs of samples that are nearly the same have one identity."""
    rng = np.random.default_rng(4)
    nodes = [make_node("Flatten", "x", "f"), make_node("MatMul", "f w", "h"),
             make_node("LpNormalization", "h", "y", axis=1)]  # fmt: skip
    model = make(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 10]}, {"w": rng.standard_normal((192, 10)) / 14})
    x = _images(rng)["x"]
    x[1::2] = x[::2] + 0.8 * rng.standard_normal(x[::2].shape)
    return TaskCase(model, {"x": x}, 100 + np.arange(COUNT) // 2, ("recall1", "recall5", "cosine"))


def classification() -> TaskCase:
    """Eight classes, so that five places mean something."""
    rng = np.random.default_rng(5)
    nodes = [make_node("Flatten", "x", "f"), make_node("MatMul", "f w", "h"), make_node("Relu", "h", "r"),
             make_node("MatMul", "r v", "y")]  # fmt: skip
    weights = {"w": rng.standard_normal((192, 16)) / 14, "v": _weight(rng, 16, 8)}
    model = make(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 8]}, weights)
    inputs = _images(rng)
    order = np.argsort(-answers_of(model, inputs)["y"], axis=1)
    return TaskCase(model, inputs, order[np.arange(COUNT), rng.integers(0, 7, COUNT)], ("top5",))


def detection() -> TaskCase:
    """Boxes, scores and classes of 6 places, the boxes in pixels of the image; labels are boxes moved a little."""
    rng = np.random.default_rng(6)
    nodes = [
        make_node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        make_node("Relu", "c", "r"),
        make_node("GlobalAveragePool", "r", "mean"),
        make_node("Flatten", "mean", "flat"),
        make_node("MatMul", "flat vb", "moves"),
        make_node("Add", "moves base", "shifted"),
        make_node("Reshape", "shifted shape", "boxes"),
        make_node("MatMul", "flat vs", "logits"),
        make_node("Reshape", "logits shape3", "per_class"),
        make_node("Sigmoid", "per_class", "likely"),
        make_node("ReduceMax", "likely", "scores", axes=[2], keepdims=0),
        make_node("ArgMax", "per_class", "labels", axis=2, keepdims=0),
    ]
    corners = rng.integers(0, 16, (6, 2))
    base = np.concatenate([corners, corners + rng.integers(8, 16, (6, 2))], axis=1).reshape(-1)
    weights = {
        "w": _weight(rng, 16, 3, 3, 3), "b": _weight(rng, 16, 1)[:, 0], "vb": 2 * _weight(rng, 16, 24),
        "base": base.astype(np.float32), "shape": np.array([-1, 6, 4]), "vs": 6 * _weight(rng, 16, 18),
        "shape3": np.array([-1, 6, 3]),
    }  # fmt: skip
    outputs = {"boxes": ["n", 6, 4], "scores": ["n", 6], "labels": ["n", 6]}
    types = {"labels": TensorProto.INT64}
    model = make(nodes, {"x": ["n", 3, 32, 32]}, outputs, weights, types=types)
    inputs = _images(rng, 32)
    found = answers_of(model, inputs)
    labels = []
    for boxes, classes in zip(found["boxes"], found["labels"], strict=True):
        chosen = rng.permutation(6)[: rng.integers(1, 6)]
        moved = boxes[chosen] + rng.uniform(-1.5, 1.5, (len(chosen), 4))
        other = rng.random(len(chosen)) < 0.2
        labels.append({"boxes": moved, "labels": np.where(other, (classes[chosen] + 1) % 3, classes[chosen])})
    return TaskCase(model, inputs, labels, ("map", "map50"))


CASES: dict[str, Callable[[], TaskCase]] = {
    "segmentation": segmentation,
    "regression": regression,
    "sequences": sequences,
    "tokens": tokens,
    "embeddings": embeddings,
    "classification": classification,
    "detection": detection,
}
