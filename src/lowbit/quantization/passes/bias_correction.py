"""Biases that make up for rounding: each channel's mean output becomes what it is in the float network.

Rounded weights and activations move the mean of a layer's outputs, and a moved mean travels on where random errors
average out. The float network says what the means should be, `E[t]`; then the quantized network is run layer by layer,
each layer on what the corrected layers before it give:

    b' = b + E[t] - E[q]

(Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2, with means
that are measured instead of derived.) The codes stay as they are, so this needs no second moments: it costs one run of
each network over a few images. Few are enough, because the two means are taken over the same ones: what varies from
image to image cancels in the difference, and only the rounding error's own scatter is left.

Activations of these images are kept between layers, which limits their number; where a layer's output is rounded in
place (no activation function behind it), it is rounded anew after the correction.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.statistics import image_size
from lowbit.data.images import Images
from lowbit.engines import Session, open_session
from lowbit.errors import DataError
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.graph.summaries import MEAN, with_channel_means
from lowbit.processor import cores, give_back_memory, in_order
from lowbit.progress import SILENT, Progress

MOST_IMAGES = 64
MEMORY = 32 << 20  # bytes of activations kept between layers
# What runs in each thread holds a wide tensor and four more that rounding makes of it. MobileNetV2, two threads: 165 MB
# with 4 images a run, 130 with 2, 110 with 1, in the same time.
BATCH = 1
# Bytes that a layer must have let go before the system is asked to take them back: always asking took a third longer.
FREED = 2 << 20

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]


def corrected_biases(
    model: Model,
    images: Images,
    weights: Mapping[str, Array],
    *,
    rounded: Mapping[str, ActivationGrid],
    passed: frozenset[str] = frozenset(),
    threads: int = 0,
    progress: Progress = SILENT,
) -> dict[str, npt.NDArray[np.float32]]:
    """New values of the biases of all layers that have one of their own, by initializer name.

    Args:
        model: the prepared float model.
        images: calibration images; labels only decide which few of them are looked at.
        weights: what the quantized network computes with, decoded, and biases that it has already, by initializer name;
            each is asked for when the piece with its layer is made.
        rounded: activations that it rounds, with their grids.
        passed: nodes that are left alone.
        threads: that share the images; 0 takes as many as there are cores.
        progress: told after every layer.

    Raises:
        DataError: there are too few images for the model's fixed batch.
    """
    todo = _movable(model, passed)
    if not todo:
        return {}
    pieces = Subgraphs(model)
    batches = _batches(model, images, pieces, todo)
    wanted = _float_means(model, batches, todo, threads=threads)
    give_back_memory()
    name = model.input.name
    kept: list[Tensors] = [{name: rounded[name].rounded(x) if name in rounded else x} for x in batches]
    found: dict[str, npt.NDArray[np.float32]] = {}
    at, held = 0, _bytes(kept)
    for layer in progress.track(todo, "correcting biases", total=len(todo)):
        assert layer.bias is not None
        y, after = layer.output, pieces.produced_by(layer.output) + 1
        following = pieces.crossing(after)
        # The layer's own output is wanted before it is rounded.
        grids = {tensor: grid for tensor, grid in rounded.items() if tensor != y}
        available = pieces.crossing(at)
        outputs = [tensor for tensor in dict.fromkeys((y, *following)) if tensor not in available]
        piece, inputs = pieces.extract(available, outputs, weights=weights, rounded=grids)
        run = _layer_run(layer, open_session(piece, threads=1), inputs)
        means = []
        for index, (computed, mean) in enumerate(in_order(run, kept, threads=threads or cores())):
            means.append(mean)
            kept[index] = {tensor: kept[index][tensor] for tensor in following if tensor in kept[index]} | computed
        shift = (wanted[y] - np.average(means, axis=0, weights=[len(x) for x in batches])).astype(np.float32)
        before = weights.get(layer.bias, model.weights[layer.bias])
        found[layer.bias] = before + shift.reshape(before.shape)
        for tensors in kept:
            moved = tensors.pop(y) + (shift if layer.geometry is None else shift.reshape(-1, *[1] * len(layer.kernel)))
            if y in following:
                tensors[y] = rounded[y].rounded(moved) if y in rounded else moved
        at, before_it, held = after, held, _bytes(kept)
        if before_it - held >= FREED:
            give_back_memory()
    return found


def _bytes(kept: list[Tensors]) -> int:
    return sum(tensor.nbytes for tensors in kept for tensor in tensors.values())


def _layer_run(layer: Layer, session: Session, inputs: tuple[str, ...]) -> Callable[[Tensors], tuple[Tensors, Array]]:
    """What computes one batch up to a layer, and the mean of each channel of its output."""

    def run(tensors: Tensors) -> tuple[Tensors, Array]:
        computed = session.run({tensor: tensors[tensor] for tensor in inputs})
        return computed, _channel_mean(layer, computed[layer.output])

    return run


def _movable(model: Model, passed: frozenset[str]) -> list[Layer]:
    """Layers with a bias that no other layer reads."""
    found = layers(model)
    readers = Counter(layer.bias for layer in found)
    return [
        layer for layer in found if layer.bias is not None and readers[layer.bias] == 1 and layer.node not in passed
    ]


def _batches(model: Model, images: Images, pieces: Subgraphs, todo: list[Layer]) -> list[Array]:
    """The images that are looked at: as many as their activations fit into memory."""
    cuts = [pieces.crossing(pieces.produced_by(layer.output) + 1) for layer in todo]
    widest = max(sum(image_size(model, tensor) for tensor in cut) for cut in cuts)
    fitting = max(1, min(MOST_IMAGES, MEMORY // (4 * max(1, widest))))
    first = model.input.shape[0] if model.input.shape else None
    fixed = isinstance(first, int)
    size = first if isinstance(first, int) else BATCH
    count = min(images.count, max(size, fitting // size * size) if fixed else fitting)
    chosen = images.subset(count)
    batches = [part.x for part in chosen.batches(size) if not fixed or len(part.x) == size]
    if not batches:
        raise DataError("there are too few images to calibrate on.", where=images.name, remedy=f"Give at least {size}.")
    return batches


def _float_means(model: Model, batches: list[Array], todo: list[Layer], *, threads: int) -> dict[str, Array]:
    """Mean output of each channel in the float network, [channels]."""
    outputs = {layer.output: layer.out_channels if layer.geometry is None else None for layer in todo}
    session = open_session(with_channel_means(model, outputs), threads=threads)
    totals = {layer.output: np.zeros(layer.out_channels) for layer in todo}
    for x in batches:
        means = session.run({model.input.name: x})
        for name in totals:
            mean = means[MEAN + name].astype(np.float64)
            totals[name] += mean.reshape(len(mean), -1).mean(axis=0) * len(x)
    images = sum(len(x) for x in batches)
    return {name: total / images for name, total in totals.items()}


def _channel_mean(layer: Layer, y: Array) -> Array:
    axes = tuple(range(y.ndim - 1)) if layer.geometry is None else (0, *range(2, y.ndim))
    return np.asarray(y.mean(axis=axes, dtype=np.float64))
