"""Equalization: scale channels so that all of them fill the range that they have to share.

A tensor of uint8 has one scale for all its channels, and the channel with the widest range sets it for the others. But
the network computes the same when each channel c of an activation is divided by s_c, if the rows of the layers that
write it are divided by s_c too and the columns of the layers that read it multiplied: ReLU, sums, pooling and padding
pass a positive factor through. So s_c is chosen as the share of the tensor's range that the channel needs.

Channels that must share one factor (because a sum, a pooling or a ReLU lies between them) are found by union-find over
all (tensor, channel) pairs, which also follows residual streams and channels that Pad, Slice or Concat move. ReLU6 does
not pass a factor through unless it is inactive: a channel that reaches its bound keeps s_c = 1, any other is stretched
at most until it reaches it.

Sources: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction" (arXiv 1906.04721),
section 4.1, which equalizes weights per tensor across pairs of layers; here the same freedom serves activations, whole
residual streams at a time. Gives up: nothing is done across an operator that is not in the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.channels import ChannelRange
from lowbit.graph.model import Model, Node
from lowbit.graph.ops import Layer, layers

Array = np.ndarray[Any, np.dtype[Any]]

# Factors beyond this hardly help any more, and float32 should not be asked for more.
LARGEST_STRETCH = 64.0
# How far below a clip's bound a channel must stay for the clip to count as inactive there.
MARGIN = 0.98


@dataclass(frozen=True)
class Equalized:
    """The rescaled network, which computes the same in float.

    Attributes:
        model: with new weights and biases.
        factors: by tensor, what each channel was divided by; tensors whose factors are all 1 are left out.
        changed: how many channels of how many were rescaled.
    """

    model: Model
    factors: Mapping[str, Array]
    changed: tuple[int, int]


def equalizable(model: Model) -> tuple[str, ...]:
    """Tensors of which at least one channel may be rescaled: those whose ranges `equalize` wants to know."""
    channels = _Channels(model)
    channels.walk()
    return channels.tensors()


def equalize(model: Model, ranges: Mapping[str, ChannelRange], *, strength: float = 1.0) -> Equalized:
    """Rescale channels so that those which share a range fill it evenly.

    Args:
        model: the prepared float model.
        ranges: how far each channel of the `equalizable` tensors reaches.
        strength: 1 equalizes fully, 0 not at all; factors are taken to this power.
    """
    channels = _Channels(model)
    channels.walk()
    factors = channels.factors(ranges, strength)
    values = _rescaled(model, factors)
    moved = {name: factor for name, factor in factors.items() if not np.all(factor == 1.0)}
    stretched = sum(int(np.count_nonzero(factor != 1.0)) for factor in moved.values())
    return Equalized(model.with_weights(values), moved, (stretched, sum(factor.size for factor in factors.values())))


class _Channels:
    """Which (tensor, channel) pairs must share a factor, and which may not have one."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.layers: dict[str, Layer] = {layer.node: layer for layer in layers(model)}
        self.ids: dict[str, Array] = {}
        self.parent: list[int] = []
        self.locked: set[int] = set()
        self.bounds: list[tuple[str, float]] = []  # tensors behind a clip, with its upper bound

    def walk(self) -> None:
        """Visit every node; whatever no rule knows locks the channels it touches."""
        for value in (*self.model.graph.inputs, *self.model.graph.outputs):
            self._lock(str(value.name))
        shared = _shared_weights(self.layers.values())
        for node in self.model.graph:
            name = str(node.name)
            rule = RULES.get(node.op_type)
            if name in self.layers and self.layers[name].weight not in shared and self._layer(self.layers[name]):
                continue
            if rule is None or node.domain not in ("", "ai.onnx") or not rule(self, node):
                for touched in (*node.inputs, *node.outputs):
                    if touched is not None and touched.name and touched.const_value is None:
                        self._lock(str(touched.name))

    def tensors(self) -> tuple[str, ...]:
        """Tensors of which at least one channel may be rescaled."""
        return tuple(name for name, ids in self.ids.items() if any(self.find(i) not in self.frozen for i in ids))

    @property
    def frozen(self) -> set[int]:
        """Roots that keep the factor 1."""
        return {self.find(i) for i in self.locked}

    def factors(self, ranges: Mapping[str, ChannelRange], strength: float) -> dict[str, Array]:
        """The factor of every channel of every tensor that has one."""
        frozen = self.frozen
        logs: dict[int, list[float]] = {}
        floors: dict[int, float] = {}
        clipped = dict(self.bounds)
        for name, found in ranges.items():
            usual = np.maximum(found.usual, 1e-12)
            for root, need in zip(map(self.find, self.ids[name]), np.log(usual / usual.max()), strict=True):
                logs.setdefault(root, []).append(float(max(need, -np.log(LARGEST_STRETCH))))
            if name in clipped:
                for root, highest in zip(map(self.find, self.ids[name]), found.highest, strict=True):
                    share = highest / (MARGIN * clipped[name])
                    floors[root] = max(floors.get(root, 0.0), float(share))
        chosen: dict[int, float] = {}
        for root, needs in logs.items():
            factor = float(np.exp(strength * np.mean(needs)))
            if root in frozen or floors.get(root, 0.0) >= 1.0:
                factor = 1.0
            elif root in floors:
                factor = max(factor, floors[root])
            chosen[root] = factor
        return {name: np.array([chosen.get(self.find(i), 1.0) for i in ids]) for name, ids in self.ids.items()}

    def find(self, item: int) -> int:
        """The root that stands for all channels that share a factor with this one."""
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def _layer(self, layer: Layer) -> bool:
        if layer.bias_node is not None or layer.op == "MatMul":
            return False
        return self._of(layer.input) is not None and self._of(layer.output) is not None

    def _of(self, name: str) -> Array | None:
        """Ids of the channels of a tensor; None if it has no fixed number of them in dimension 1."""
        if name not in self.ids:
            shape = self.model.values[name].shape
            extent = shape[1] if shape is not None and len(shape) >= 2 else None
            if not isinstance(extent, int):
                return None
            start = len(self.parent)
            self.parent.extend(range(start, start + extent))
            self.ids[name] = np.arange(start, start + extent)
        return self.ids[name]

    def _lock(self, name: str) -> None:
        ids = self._of(name)
        if ids is not None:
            self.locked.update(int(i) for i in ids)

    def _tie(self, first: Array, second: Array) -> None:
        for a, b in zip(first, second, strict=True):
            root, other = self.find(int(a)), self.find(int(b))
            if root != other:
                self.parent[other] = root

    def same(self, node: Node, *, inputs: int = 1) -> bool:
        """The node's output has the channels of its inputs, one by one."""
        output = self._of(str(node.outputs[0].name))
        for value in node.inputs[:inputs]:
            if value is None or value.const_value is not None:
                return False
            source = self._of(str(value.name))
            if source is None or output is None or source.size != output.size:
                return False
            self._tie(source, output)
        return True

    def clip(self, node: Node) -> bool:
        """A Clip from 0 to a constant: as ReLU, for channels that stay below the bound."""
        low, high = (
            (
                (value.const_value.numpy() if value is not None and value.const_value is not None else None)
                for value in (node.inputs[1], node.inputs[2])
            )
            if len(node.inputs) == 3
            else (None, None)
        )
        if low is None or high is None or float(low) != 0.0 or not self.same(node):
            return False
        self.bounds.append((str(node.outputs[0].name), float(high)))
        return True

    def total(self, node: Node) -> bool:
        """A sum of activations of one shape: all have the same factors."""
        shapes = [value.shape for value in node.inputs if value is not None]
        channels = [shape[1] if shape is not None and len(shape) >= 2 else None for shape in shapes]
        return len(set(map(str, channels))) == 1 and self.same(node, inputs=len(node.inputs))

    def flatten(self, node: Node) -> bool:
        """[n, c, 1, 1] -> [n, c] keeps the channels."""
        source = node.inputs[0]
        if source is None or source.shape is None or any(extent != 1 for extent in tuple(source.shape)[2:]):
            return False
        return self.same(node)

    def mean(self, node: Node) -> bool:
        """A mean over positions, not over channels."""
        axes = _constant_ints(node, 1, "axes")
        source = node.inputs[0]
        rank = len(source.shape) if source is not None and source.shape is not None else 0
        return axes is not None and rank > 2 and all(axis % rank >= 2 for axis in axes) and self.same(node)

    def pad(self, node: Node) -> bool:
        """Padding with zeros; padded channels are new ones."""
        pads = _constant_ints(node, 1, "pads")
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if node.attributes.get_string("mode", "constant") != "constant" or pads is None:
            return False
        if value is not None and (value.const_value is None or bool(value.const_value.numpy().any())):
            return False
        source, output = (
            self._of(str(node.inputs[0].name)) if node.inputs[0] else None,
            self._of(str(node.outputs[0].name)),
        )
        if source is None or output is None or min(pads) < 0 or pads[0]:
            return False
        before = pads[1]
        self._tie(source, output[before : before + source.size])
        return True

    def cut(self, node: Node) -> bool:
        """A slice over positions only."""
        axes = _constant_ints(node, 3, "axes")
        return axes is not None and all(axis >= 2 for axis in axes) and self.same(node)

    def joined(self, node: Node) -> bool:
        """A concatenation of channels."""
        if node.attributes.get_int("axis", 0) != 1:
            return False
        output = self._of(str(node.outputs[0].name))
        parts = [self._of(str(value.name)) if value is not None else None for value in node.inputs]
        if output is None or any(part is None for part in parts):
            return False
        self._tie(np.concatenate([part for part in parts if part is not None]), output)
        return True


RULES: dict[str, Callable[[_Channels, Node], bool]] = {
    "Relu": _Channels.same,
    "LeakyRelu": _Channels.same,
    "MaxPool": _Channels.same,
    "AveragePool": _Channels.same,
    "GlobalAveragePool": _Channels.same,
    "GlobalMaxPool": _Channels.same,
    "Clip": _Channels.clip,
    "Add": _Channels.total,
    "Flatten": _Channels.flatten,
    "Reshape": _Channels.flatten,
    "Squeeze": _Channels.flatten,
    "ReduceMean": _Channels.mean,
    "Pad": _Channels.pad,
    "Slice": _Channels.cut,
    "Concat": _Channels.joined,
}


def _shared_weights(found: Any) -> set[str]:  # noqa: ANN401 - any iterable of layers
    """Weights and biases that several layers read: their rows cannot be scaled for one of them."""
    seen: dict[str, int] = {}
    for layer in found:
        for name in (layer.weight, layer.bias):
            if name is not None:
                seen[name] = seen.get(name, 0) + 1
    twice = {name for name, count in seen.items() if count > 1}
    return {layer.weight for layer in found if layer.weight in twice or layer.bias in twice}


def _rescaled(model: Model, factors: Mapping[str, Array]) -> dict[str, Array]:
    """New weights and biases: rows divided by the factors of the output, columns multiplied by those of the input."""
    values: dict[str, Array] = {}
    for layer in layers(model):
        given, made = factors.get(layer.input), factors.get(layer.output)
        if (given is None or np.all(given == 1.0)) and (made is None or np.all(made == 1.0)):
            continue
        matrix = layer.to_matrix(model.weights[layer.weight].astype(np.float64))
        groups, rows, columns = matrix.shape
        if given is not None:
            # Columns run over the group's input channels, each with the positions of its kernel.
            channels = given.size // groups
            spread = np.repeat(given.reshape(groups, channels), columns // channels, axis=1)
            matrix = matrix * spread[:, None, :]
        if made is not None:
            matrix = matrix / made.reshape(groups, rows, 1)
            if layer.bias is not None:
                values[layer.bias] = (model.weights[layer.bias] / made).astype(np.float32)
        values[layer.weight] = layer.from_matrix(matrix).astype(np.float32)
    return values


def _constant_ints(node: Node, index: int, attribute: str) -> list[int] | None:
    """A list of integers given as an input, or, in older operator sets, as an attribute."""
    if len(node.inputs) > index and node.inputs[index] is not None:
        value = node.inputs[index]
        assert value is not None
        return None if value.const_value is None else [int(i) for i in value.const_value.numpy().reshape(-1)]
    given = node.attributes.get_ints(attribute, [])
    return [int(i) for i in given] or None
