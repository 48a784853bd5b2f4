"""Time of each layer in floats and in integers, and of the conversions between them.

Times are those of the roofline, whose rates are measured on small kernels of the chosen engine (`measurement.peaks`).
Between a layer that computes in integers and one that does not stand nodes that quantize or dequantize: they read the
tensor in one type, write it in the other, and are started like any operator.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lowbit.graph.cost import cost
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.measurement.peaks import FLOAT, INTEGER, Peaks
from lowbit.measurement.roofline import ITEM_BYTES, expected


@dataclass(frozen=True)
class LayerTimes:
    """Forecast times in microseconds.

    Attributes:
        floats: of all layers that read a weight, by its name, in floats.
        integers: the same in integers.
        neighbors: pairs of weights whose layers pass a tensor on, and what converting it takes.
        rest: of all else.
    """

    floats: Mapping[str, float]
    integers: Mapping[str, float]
    neighbors: tuple[tuple[str, str, float], ...]
    rest: float = 0.0

    def of(self, weight: str, *, integer: bool) -> float:
        """Time of the layers of a weight."""
        return (self.integers if integer else self.floats).get(weight, 0.0)


def layer_times(model: Model, peaks: Peaks, *, batch: int = 1) -> LayerTimes:
    """What each layer takes.

    Args:
        model: the prepared float model.
        peaks: measured on the engine that files will run on.
        batch: samples per run.

    Raises:
        ModelError: sizes are not known before the model runs.
    """
    by_node = {layer.node: layer for layer in layers(model)}
    floats: dict[str, float] = {}
    integers: dict[str, float] = {}
    values: dict[str, int] = {}
    for each in cost(model, batch=batch).layers:
        layer = by_node.get(each.node)
        if layer is None:
            continue
        for times, kind in ((floats, FLOAT), (integers, INTEGER)):
            times[layer.weight] = times.get(layer.weight, 0.0) + 1e6 * expected(each, peaks, kind)[0]
        values[layer.output] = math.prod(each.output_shape)
    neighbors = []
    for first, second, tensor in _passing(model, list(by_node.values())):
        moved = values[tensor] * (ITEM_BYTES[FLOAT] + ITEM_BYTES[INTEGER]) / peaks.bandwidth
        neighbors.append((first, second, 1e6 * (peaks.rates[FLOAT].start + moved)))
    return LayerTimes(floats, integers, tuple(neighbors))


def _passing(model: Model, all_layers: list[Layer]) -> list[tuple[str, str, str]]:
    """Pairs of weights with a tensor that a layer of the first gives to one of the second, by way of other nodes."""
    by_node = {layer.node: layer for layer in all_layers}
    pairs: dict[tuple[str, str], str] = {}
    for layer in all_layers:
        left, seen = [model.values[layer.output]], set()
        while left:
            value = left.pop()
            for node, _ in value.uses():
                if node.name in seen:
                    continue
                seen.add(node.name)
                reader = by_node.get(str(node.name))
                if reader is None:
                    left += node.outputs
                elif reader.weight != layer.weight:
                    pairs.setdefault((layer.weight, reader.weight), layer.output)
    return [(first, second, tensor) for (first, second), tensor in pairs.items()]
