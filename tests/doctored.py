"""A small network that knows colors and brightness, its images, and faults of benchmarks/planted.py put into them."""

from dataclasses import dataclass

import numpy as np
import onnx

import lowbit
from graphs import make, make_node
from lowbit.data.images import Images
from lowbit.graph.model import Model
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, METADATA_KEY, Preprocessing

SIDE = 12
NAMES = ("dark blue", "dark green", "dark red", "light blue", "light green", "light red")
HOW = Preprocessing(SIDE, SIDE, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@dataclass(frozen=True)
class Subject:
    """As benchmarks have them."""

    model: Model
    calibration: Images
    test: Images


def color_network() -> onnx.ModelProto:
    """Two convolutions with ReLU between, a mean, and a Gemm that compares colors and brightness with six classes.

    The convolutions give the positive and the negative part of each channel, and mix them again; the classes are
    normalized as images are.
    """
    rng = np.random.default_rng(0)
    split = np.concatenate([np.eye(3), -np.eye(3)])[:, :, None, None].astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    kernel = np.full((3, 3), 1 / 9)[None, None]
    centers = (np.array([_color(kind) for kind in range(6)]) / 255 - HOW.mean) / HOW.std
    parts = np.concatenate([np.maximum(centers, 0), np.maximum(-centers, 0)], axis=1)
    weights = {
        "split": split,
        "mix": (turn[:, :, None, None] * kernel).astype(np.float32),
        "fc.weight": (8 * parts @ turn.T).astype(np.float32),
        "fc.bias": (-4 * np.square(parts).sum(axis=1)).astype(np.float32),
    }
    nodes = [
        make_node("Conv", "x split", "apart", name="first", kernel_shape=[1, 1]),
        make_node("Relu", "apart", "active"),
        make_node("Conv", "active mix", "mixed", name="second", kernel_shape=[3, 3], pads=[1] * 4),
        make_node("GlobalAveragePool", "mixed", "mean"),
        make_node("Flatten", "mean", "flat"),
        make_node("Gemm", "flat fc.weight fc.bias", "logits", name="fc", transB=1),
    ]
    proto = make(nodes, {"x": ["n", 3, SIDE, SIDE]}, {"logits": ["n", 6]}, weights)
    proto.metadata_props.add(key=METADATA_KEY, value=HOW.to_json())
    return proto


def _color(kind: int) -> np.ndarray:
    """Red, green and blue of a class: one of them far above the mean, or farther."""
    return np.where(np.arange(3) == 2 - kind % 3, 240.0 if kind >= 3 else 165.0, 105.0)


def pixels(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [count, SIDE, SIDE, 3] of classes that take turns, with smooth shading and a little noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 6
    ramp = np.linspace(-1, 1, SIDE)
    shade = rng.normal(scale=12, size=(count, 1, 1)) * ramp[:, None] + rng.normal(scale=12, size=(count, 1, 1)) * ramp
    images = np.array([_color(kind) for kind in labels])[:, None, None] + shade[..., None]
    images = images + rng.normal(scale=10, size=(count, 1, 1, 3)) + rng.normal(scale=2, size=images.shape)
    return np.clip(images, 0, 255).astype(np.uint8), labels


def images(count: int, *, seed: int, how: Preprocessing = HOW) -> Images:
    """The same as a data set."""
    return lowbit.open_images(pixels(count, seed=seed), how, classes=NAMES)


def subject() -> Subject:
    """The network with images to calibrate on and others to test on."""
    return Subject(lowbit.load(color_network()), images(36, seed=1), images(72, seed=2))
