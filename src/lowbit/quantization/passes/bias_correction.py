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
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.batches import Batches, outputs_of, samples_per_run
from lowbit.calibration.statistics import image_size
from lowbit.data.dataset import Batch, Dataset
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.graph.summaries import MEAN, with_channel_means
from lowbit.processor import cores, give_back_memory, in_order
from lowbit.quantization.passes.frontier import Frontier, Kept, Tensors, on_grids

MOST_IMAGES = 64
MEMORY = 32 << 20  # bytes of activations kept between layers
# What runs in each thread holds a wide tensor and four more that rounding makes of it. MobileNetV2, two threads: 165 MB
# with 4 images per run, 130 with 2, 110 with 1, in the same time.
BATCH = 1
# Bytes that a layer must have let go before the system is asked to take them back: always asking took a third longer.
FREED = 2 << 20

Array = np.ndarray[Any, np.dtype[Any]]


def corrected_biases(
    model: Model,
    data: Dataset,
    weights: Mapping[str, Array],
    *,
    grids: Mapping[str, ActivationGrid],
    passed: Collection[str] = (),
    threads: int = 0,
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """New values of the biases of all layers that have one of their own: initializer name and value, layer by layer.

    Args:
        model: the prepared float model.
        data: calibration samples; labels only decide which few of them are looked at.
        weights: what the quantized network computes with, decoded, and biases that it has already, by initializer name;
            each is asked for when the piece with its layer is made.
        grids: grids of the activations that it rounds.
        passed: names of nodes that are left alone.
        threads: that share the samples; 0 takes as many as there are cores.

    Raises:
        DataError: there are too few samples for one run.
    """
    todo = correctable(model, passed)
    if not todo:
        return
    pieces = Subgraphs(model)
    batches = list(_few_batches(model, data, pieces, todo))
    float_means = _float_means(model, batches, todo, threads=threads)
    give_back_memory()
    sizes = [len(batch) for batch in batches]
    inputs = [on_grids(batch.inputs, grids) for batch in batches]
    del batches
    frontier = Frontier(pieces, (), threads=threads or cores(), grids=grids)
    frontier.keep(0, inputs)
    del inputs
    for layer in todo:
        assert layer.bias is not None
        held = frontier.size
        shift = _advance_with_mean(frontier, layer, float_means[layer.output], sizes, weights)
        if held - frontier.size >= FREED:
            give_back_memory()
        bias = weights.get(layer.bias, model.weights[layer.bias])
        yield layer.bias, bias + shift.reshape(bias.shape)


def correctable(model: Model, passed: Collection[str] = ()) -> list[Layer]:
    """Layers with a bias that no other layer reads, without those that are `passed`."""
    every = layers(model)
    readers = Counter(layer.bias for layer in every)
    return [
        layer for layer in every if layer.bias is not None and readers[layer.bias] == 1 and layer.node not in passed
    ]


def _advance_with_mean(
    frontier: Frontier, layer: Layer, wanted: Array, sizes: Sequence[int], weights: Mapping[str, Array]
) -> npt.NDArray[np.float32]:
    """Run up to behind a layer and give each channel of its output the wanted mean; what was added to it [channels].

    Args:
        frontier: of the quantized network, whose layers so far have their means.
        layer: whose output.
        wanted: means [channels].
        sizes: samples in each batch.
        weights: see `corrected_biases`.
    """
    y, position = layer.output, frontier.pieces.produced_by(layer.output) + 1
    following = frontier.pieces.crossing(position)
    # The layer's own output is wanted before it is rounded.
    run = frontier.runner(tuple(dict.fromkeys((y, *following))), weights=weights, exact=(y,))

    def run_with_mean(tensors: Kept) -> tuple[Tensors, Array]:
        computed = run(tensors)
        return computed, _channel_mean(layer, computed[y])

    kept, means = [], []
    for computed, mean in in_order(run_with_mean, frontier.batches(last=True), threads=frontier.threads):
        kept.append(computed)
        means.append(mean)
    shift: npt.NDArray[np.float32] = (wanted - np.average(means, axis=0, weights=sizes)).astype(np.float32)
    for tensors in kept:
        moved = tensors.pop(y) + (shift if layer.geometry is None else shift.reshape(-1, *[1] * len(layer.kernel)))
        if y in following:
            tensors[y] = frontier.grids[y].rounded(moved) if y in frontier.grids else moved
    frontier.keep(position, kept)
    return shift


def _few_batches(model: Model, data: Dataset, pieces: Subgraphs, todo: Sequence[Layer]) -> Batches:
    """The samples that are looked at: as many as their activations fit into memory."""
    cuts = [pieces.crossing(pieces.produced_by(layer.output) + 1) for layer in todo]
    widest = max(sum(image_size(model, tensor) for tensor in cut) for cut in cuts)
    fitting = max(1, min(MOST_IMAGES, MEMORY // (4 * max(1, widest))))
    fixed = samples_per_run(model, data) or 1
    return Batches(model, data.subset(min(data.count, max(fixed, fitting // fixed * fixed))), BATCH)


def _float_means(model: Model, batches: list[Batch], todo: list[Layer], *, threads: int) -> dict[str, Array]:
    """Mean output of each channel in the float network, [channels]."""
    outputs = {layer.output: layer.out_channels if layer.geometry is None else None for layer in todo}
    totals = {layer.output: np.zeros(layer.out_channels) for layer in todo}
    for batch, means in outputs_of(with_channel_means(model, outputs), batches, threads=threads):
        for name in totals:
            mean = means[MEAN + name].astype(np.float64)
            totals[name] += mean.reshape(len(mean), -1).mean(axis=0) * len(batch)
    samples = sum(len(batch) for batch in batches)
    return {name: total / samples for name, total in totals.items()}


def _channel_mean(layer: Layer, y: Array) -> Array:
    axes = tuple(range(y.ndim - 1)) if layer.geometry is None else (0, *range(2, y.ndim))
    return np.asarray(y.mean(axis=axes, dtype=np.float64))
