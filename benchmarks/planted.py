"""Faults planted into a network, its images, or a file that another tool made of it; each is one function and one row.

Every function takes a subject and a random generator, and says what the doctor has to name.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from lowbit.calibration.channels import channel_statistics
from lowbit.data.images import Images
from lowbit.diagnosis.findings import BROKEN, CORRUPT, LABELS, NORMALIZATION, ONE_CLASS, ORDER
from lowbit.diagnosis.layers import activated
from lowbit.diagnosis.preprocessing_fit import NORMALIZATIONS
from lowbit.errors import DataError
from lowbit.formats.onnx.stored import StoredGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.graph.preprocessing import Preprocessing

FACTOR = 200.0
# Behind which a channel that is 200 times as large is still that.
EVEN = (None, "Relu", "LeakyRelu")
CORRUPTIONS = ("black", "noise", "truncated", "cut off")


@dataclass(frozen=True)
class Planted:
    """A fault, and what a finding must say to have found it.

    Attributes:
        cause: of the finding.
        where: that it must name; empty if the cause says it all.
        model: the network with the fault, or without one.
        calibration: images to calibrate on.
        test: images to evaluate on.
    """

    cause: str
    where: str
    model: Model
    calibration: Images
    test: Images


def outlier_channel(subject: Any, generator: np.random.Generator) -> Planted | None:
    """One output channel of one layer is 200 times as large, and what reads it makes up for that."""
    model = subject.model
    pairs = list(_pairs(model))
    if not pairs:
        return None
    layer, readers = pairs[generator.integers(len(pairs))]
    tensor = activated(model, layer)
    reach = channel_statistics(model, subject.calibration.subset(8), [tensor])[tensor].max_abs
    channel = int(generator.choice(np.flatnonzero(reach >= np.median(reach))))
    values = {layer.weight: _scaled(model.weights[layer.weight], 0, channel, FACTOR)}
    if layer.bias is not None:
        values[layer.bias] = _scaled(model.weights[layer.bias], 0, channel, FACTOR)
    for reader in readers:
        axis = 0 if reader.depthwise else 1 - reader.channel_axis if reader.geometry is None else 1
        values[reader.weight] = _scaled(model.weights[reader.weight], axis, channel, 1 / FACTOR)
    return Planted("outlier channel", layer.node, model.with_weights(values), subject.calibration, subject.test)


def _pairs(model: Model) -> list[tuple[Layer, list[Layer]]]:
    """Layers whose output goes into other layers and nowhere else, with these."""
    by_node = {layer.node: layer for layer in layers(model)}
    found = []
    for layer in by_node.values():
        tensor = activated(model, layer)
        function = None if tensor == layer.output else model.values[tensor].producer()
        nodes = model.values[tensor].consumers()
        plain = layer.op == "Conv" and (function is None or function.op_type in EVEN)
        if (
            plain
            and nodes
            and not model.values[tensor].is_graph_output()
            and all(node.name in by_node for node in nodes)
        ):
            readers = [by_node[str(node.name)] for node in nodes]
            if all(reader.groups == 1 or reader.depthwise for reader in readers):
                found.append((layer, readers))
    return found


def _scaled(array: np.ndarray, axis: int, index: int, factor: float) -> np.ndarray:
    copy = array.copy()
    np.moveaxis(copy, axis, 0)[index] *= np.float32(factor)
    return copy


def wrong_normalization(subject: Any, generator: np.random.Generator) -> Planted:
    """Mean and spread of another pipeline."""
    how = subject.model.preprocessing
    unit = 255 * how.scale
    others = []
    for mean, std in NORMALIZATIONS.values():
        means, stds = (tuple(np.broadcast_to(unit * np.asarray(each), 3).tolist()) for each in (mean, std))
        if not np.allclose((*means, *stds), (*how.mean, *how.std), rtol=0.02, atol=1e-3 * min(how.std)):
            others.append(dataclasses.replace(how, mean=means, std=stds))
    wrong = others[generator.integers(len(others))]
    model = dataclasses.replace(subject.model, preprocessing=wrong)
    calibration, test = (_prepared(images, wrong) for images in (subject.calibration, subject.test))
    return Planted(NORMALIZATION, "", model, calibration, test)


def _prepared(images: Images, how: Preprocessing) -> Images:
    return dataclasses.replace(images, preprocessing=how)


def other_order(subject: Any, _: np.random.Generator) -> Planted:
    """Blue first."""
    calibration, test = (_reading(images, lambda x, _: x[..., ::-1]) for images in (subject.calibration, subject.test))
    return Planted(ORDER, "", subject.model, calibration, test)


def _reading(images: Images, change: Callable[[np.ndarray, object], np.ndarray]) -> Images:
    """Images that are changed as they are read; what changes gets the pixels and the place."""
    read = images.source.read
    source = dataclasses.replace(
        images.source,
        read=lambda place, channels: np.ascontiguousarray(change(read(place, channels), place)),
        origin=("changed", id(change)),
    )
    return dataclasses.replace(images, source=source)


def shuffled_labels(subject: Any, generator: np.random.Generator) -> Planted:
    """Evaluation labels in another order than the images."""
    source = subject.test.source
    shuffled = dataclasses.replace(source, labels=generator.permutation(source.labels))
    return Planted(LABELS, "", subject.model, subject.calibration, dataclasses.replace(subject.test, source=shuffled))


def one_class(subject: Any, generator: np.random.Generator) -> Planted:
    """Calibration images of one class, every other time without labels."""
    source = subject.calibration.source
    kind = int(generator.choice(np.unique(source.labels)))
    few = subject.calibration.select(np.flatnonzero(source.labels == kind).tolist())
    if generator.integers(2):
        few = dataclasses.replace(few, source=dataclasses.replace(few.source, labels=None))
    return Planted(ONE_CLASS, "", subject.model, few, subject.test)


def corrupt_image(subject: Any, generator: np.random.Generator) -> Planted:
    """One calibration image is black, noise, a file that ends too early, or one whose lower part is missing."""
    source = subject.calibration.source
    victim = source.places[generator.integers(len(source.places))]
    how = CORRUPTIONS[generator.integers(len(CORRUPTIONS))]

    def change(pixels: np.ndarray, place: object) -> np.ndarray:
        if place != victim:
            return pixels
        if how == "truncated":
            raise DataError("cannot be decoded: the file is truncated.", where=str(place))
        if how == "noise":
            return generator.integers(0, 256, pixels.shape, dtype=np.uint8)
        kept = len(pixels) // 3 if how == "cut off" else 0
        return np.concatenate([pixels[:kept], np.full_like(pixels[kept:], 128 if kept else 0)])

    changed = _reading(subject.calibration, change)
    return Planted(CORRUPT, source.where(victim), subject.model, changed, subject.test)


# What the table calls it -> what plants it.
FAULTS: dict[str, Callable[[Any, np.random.Generator], Planted | None]] = {
    "outlier channel": outlier_channel,
    "wrong normalization": wrong_normalization,
    "BGR for RGB": other_order,
    "shuffled labels": shuffled_labels,
    "one class": one_class,
    "corrupt image": corrupt_image,
}
BROKEN_WEIGHTS = "broken weights"
BREAKS = ("negated", "zeroed", "shifted", "scaled", "permuted")


def broken_weights(path: Path, to: Path, generator: np.random.Generator) -> tuple[str, str]:
    """A copy of a QDQ file with the stored weights of one layer broken: the cause, and the node.

    Half of its channels are negated, zeroed, scaled by 3 or in another order, or all codes are moved by one column.
    """
    proto = onnx.load(path)
    stored = StoredGraph(proto.graph)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    reads = [read for read in stored.weights() if (codes := _codes_of(stored, read.value)) in tensors and codes]
    read = reads[generator.integers(len(reads))]
    codes = tensors[_codes_of(stored, read.value)]
    array = numpy_helper.to_array(codes).copy()
    channels = generator.permutation(len(array))[: max(1, len(array) // 2)]
    how = BREAKS[generator.integers(len(BREAKS))]
    broken = {
        "negated": lambda x: np.maximum(-x[channels].astype(np.int16), -127).astype(x.dtype),
        "zeroed": lambda x: np.zeros_like(x[channels]),
        "shifted": lambda x: np.roll(x.reshape(len(x), -1), 1, axis=1).reshape(x.shape)[channels],
        "scaled": lambda x: np.clip(x[channels].astype(np.int16) * 3, -128, 127).astype(x.dtype),
        "permuted": lambda x: x[np.roll(channels, 1)],
    }
    array[channels] = broken[how](array)
    codes.CopyFrom(numpy_helper.from_array(array, codes.name))
    onnx.save(proto, to)
    return BROKEN, read.node.name


def _codes_of(stored: StoredGraph, value: str) -> str:
    """The stored integers that a weight is decoded from; empty if it is stored as it is."""
    node = stored.producers.get(value)
    return node.input[0] if node is not None and node.op_type == "DequantizeLinear" else ""


def is_found(findings: Sequence[Any], planted: Planted) -> bool:
    """Whether a finding names the fault."""
    return any(one.cause == planted.cause and planted.where in one.where for one in findings)
