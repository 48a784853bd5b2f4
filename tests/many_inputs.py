"""Networks whose inputs are not one batch of float images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from graphs import make, make_node


@dataclass(frozen=True)
class Case:
    """A network, and how its samples are drawn.

    Attributes:
        model: the file.
        samples: number of samples -> arrays by input name, as `open_data` takes them all at once.
    """

    model: onnx.ModelProto
    samples: "callable"


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)


def two_images(first: int | str | None = "n") -> Case:
    """Siamese: the same convolution on two images, compared by a linear layer on their difference."""
    rng = np.random.default_rng(0)
    nodes = []
    for name in ("left", "right"):
        nodes += [
            make_node("Conv", f"{name} w b", f"{name}_conv", pads=[1, 1, 1, 1]),
            make_node("Relu", f"{name}_conv", f"{name}_relu"),
            make_node("GlobalAveragePool", f"{name}_relu", f"{name}_mean"),
            make_node("Flatten", f"{name}_mean", f"{name}_flat"),
        ]
    nodes += [make_node("Sub", "left_flat right_flat", "difference"), make_node("MatMul", "difference v", "y")]
    weights = {"w": _normal(rng, 16, 3, 3, 3), "b": _normal(rng, 16), "v": 8 * _normal(rng, 16, 5)}
    shapes = {name: [first, 3, 8, 8] for name in ("left", "right")}

    def samples(count: int, seed: int = 1) -> Mapping[str, np.ndarray]:
        draw = np.random.default_rng(seed)
        return {name: draw.standard_normal((count, 3, 8, 8)).astype(np.float32) for name in shapes}

    return Case(make(nodes, shapes, {"y": [first, 5]}, weights), samples)


def tokens(length: int | str = 12) -> Case:
    """Ids and a mask of numbers: embeddings, one attention over the unmasked, a mean, a linear layer."""
    rng = np.random.default_rng(0)
    width = 16
    nodes = [
        make_node("Gather", "table ids", "embedded"),
        *(make_node("MatMul", f"embedded w{name}", name) for name in "qkv"),
        make_node("Transpose", "k", "kt", perm=[0, 2, 1]),
        make_node("MatMul", "q kt", "scores"),
        make_node("Unsqueeze", "mask axis", "row"),
        make_node("Sub", "row one", "shifted"),
        make_node("Mul", "shifted large", "bias"),
        make_node("Add", "scores bias", "masked"),
        make_node("Softmax", "masked", "attention", axis=-1),
        make_node("MatMul", "attention v", "mixed"),
        make_node("Add", "embedded mixed", "sum"),
        make_node("ReduceMean", "sum", "mean", axes=[1], keepdims=0),
        make_node("Gemm", "mean head headb", "y"),
    ]
    weights = {
        "table": rng.standard_normal((50, width)),
        **{f"w{name}": rng.standard_normal((width, width)) / 4 for name in "qkv"},
        "axis": np.array([1]),
        "one": np.float32(1),
        "large": np.float32(30),
        "head": rng.standard_normal((width, 4)) / 2,
        "headb": rng.standard_normal(4),
    }
    model = make(
        nodes,
        {"ids": ["n", length], "mask": ["n", length]},
        {"y": ["n", 4]},
        weights,
        types={"ids": TensorProto.INT64},
    )
    extent = length if isinstance(length, int) else 12

    def samples(count: int, seed: int = 1) -> Mapping[str, np.ndarray]:
        draw = np.random.default_rng(seed)
        ids = draw.integers(0, 50, (count, extent))
        lengths = draw.integers(4, extent + 1, (count, 1))
        return {"ids": ids, "mask": (np.arange(extent) < lengths).astype(np.float32)}

    return Case(model, samples)


def no_batch() -> Case:
    """A signal [time, channels] of one sample: each moment sees the one before, by a shift along the first axis."""
    rng = np.random.default_rng(0)
    nodes = [
        make_node("MatMul", "signal w", "hidden"),
        make_node("Relu", "hidden", "active"),
        make_node("Slice", "active zero last axis", "earlier"),
        make_node("Pad", "earlier pads", "shifted"),
        make_node("Add", "active shifted", "both"),
        make_node("MatMul", "both v", "y"),
    ]
    weights = {
        "w": rng.standard_normal((6, 32)) / 2,
        "v": rng.standard_normal((32, 3)) / 5,
        "zero": np.array([0]),
        "last": np.array([-1]),
        "axis": np.array([0]),
        "pads": np.array([1, 0, 0, 0]),
    }

    def samples(count: int, seed: int = 1) -> list[np.ndarray]:
        draw = np.random.default_rng(seed)
        return [draw.standard_normal((20, 6)).astype(np.float32) for _ in range(count)]

    return Case(make(nodes, {"signal": ["time", 6]}, {"y": ["time", 3]}, weights), samples)


def batch_in_reshape() -> Case:
    """The batch looks open, but a Reshape with 1 baked in takes all images for one."""
    rng = np.random.default_rng(0)
    nodes = [
        make_node("Conv", "image w", "c", strides=[2, 2], pads=[1, 1, 1, 1]),
        make_node("Relu", "c", "r"),
        make_node("Reshape", "r shape", "flat"),
        make_node("MatMul", "flat v", "y"),
    ]
    weights = {
        "w": _normal(rng, 8, 3, 3, 3),
        "shape": np.array([1, 128]),
        "v": rng.standard_normal((128, 4)) / 8,
    }

    def samples(count: int, seed: int = 1) -> Mapping[str, np.ndarray]:
        return {"image": np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)}

    return Case(make(nodes, {"image": ["n", 3, 8, 8]}, {"y": [1, 4]}, weights), samples)


def rows_of_all_images() -> Case:
    """The output is [images x positions, classes]: rows of one image stand together."""
    rng = np.random.default_rng(0)
    nodes = [
        make_node("Conv", "image w", "c", strides=[2, 2], pads=[1, 1, 1, 1]),
        make_node("Relu", "c", "r"),
        make_node("Transpose", "r", "t", perm=[0, 2, 3, 1]),
        make_node("Reshape", "t shape", "rows"),
        make_node("MatMul", "rows v", "y"),
    ]
    weights = {"w": _normal(rng, 8, 3, 3, 3), "shape": np.array([-1, 8]), "v": rng.standard_normal((8, 4)) / 2}

    def samples(count: int, seed: int = 1) -> Mapping[str, np.ndarray]:
        return {"image": np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)}

    return Case(make(nodes, {"image": ["n", 3, 8, 8]}, {"y": [None, 4]}, weights), samples)


def less_the_mean_of_the_batch() -> Case:
    """Each image loses the mean of all that run with it."""
    rng = np.random.default_rng(0)
    nodes = [
        make_node("MatMul", "features w", "h"),
        make_node("ReduceMean", "h", "mean", axes=[0], keepdims=1),
        make_node("Sub", "h mean", "centered"),
        make_node("Add", "centered h", "y"),
    ]

    def samples(count: int, seed: int = 1) -> Mapping[str, np.ndarray]:
        return {"features": np.random.default_rng(seed).standard_normal((count, 10)).astype(np.float32)}

    return Case(make(nodes, {"features": ["n", 10]}, {"y": ["n", 6]}, {"w": rng.standard_normal((10, 6))}), samples)


CASES = {
    "two images": two_images,
    "tokens": tokens,
    "no batch": no_batch,
    "batch in a Reshape": batch_in_reshape,
    "rows of all images": rows_of_all_images,
    "less the mean of the batch": less_the_mean_of_the_batch,
}
