"""Which channels must be scaled alike: union-find over all (tensor, channel) pairs.

A network computes the same when each channel c of an activation is divided by s_c, if the rows of the layers that write
it are divided by s_c too and the columns of the layers that read it multiplied: ReLU, sums, pooling and padding pass a
positive factor through. Channels that must share one factor because such an operator lies between them get one root;
this follows residual streams, and channels that Pad, Slice or Concat move. Gives up: nothing is tied across an operator
that is not in the table; channels that one touches keep the factor 1.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.graph.model import Model, Node
from lowbit.graph.ops import Layer, layers

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Ties:
    """Channels that may be rescaled, and together with which.

    Attributes:
        roots: by tensor, for each channel the number of the set of channels that shares its factor.
        count: how many sets there are.
        fixed: bool [count], sets that keep the factor 1.
        clips: each Clip from 0 that the ties pass through: its input, its output, its upper bound.
        layers: layers that can be rescaled on both sides, by node; a fixed side keeps its scale.
    """

    roots: Mapping[str, Array]
    count: int
    fixed: Array
    clips: tuple[tuple[str, str, float], ...]
    layers: Mapping[str, Layer]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors of which at least one channel may be rescaled."""
        return tuple(name for name, roots in self.roots.items() if not self.fixed[roots].all())


def find_ties(model: Model) -> Ties:
    """Visit every node once; whatever no rule knows fixes the channels it touches."""
    walk = _Walk(model)
    walk.visit()
    roots, numbers = np.unique([walk.find(i) for i in range(len(walk.parent))], return_inverse=True)
    fixed = np.zeros(len(roots), bool)
    fixed[numbers[sorted(walk.locked)]] = True
    found = {name: numbers[ids] for name, ids in walk.ids.items()}
    return Ties(found, len(roots), fixed, tuple(walk.clips), walk.scaled)


class _Walk:
    """The union-find under way."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.layers: dict[str, Layer] = {layer.node: layer for layer in layers(model)}
        self.scaled: dict[str, Layer] = {}
        self.ids: dict[str, Array] = {}
        self.parent: list[int] = []
        self.locked: set[int] = set()
        self.clips: list[tuple[str, str, float]] = []

    def visit(self) -> None:
        """Every node, in order."""
        for value in (*self.model.graph.inputs, *self.model.graph.outputs):
            self._lock(str(value.name))
        shared = _shared_weights(self.model, self.layers.values())
        for node in self.model.graph:
            name = str(node.name)
            rule = RULES.get(node.op_type)
            layer = self.layers.get(name)
            if layer is not None and layer.weight not in shared and self._layer(layer):
                self.scaled[name] = layer
                continue
            if rule is None or node.domain not in ("", "ai.onnx") or not rule(self, node):
                for touched in (*node.inputs, *node.outputs):
                    if touched is not None and touched.name and touched.const_value is None:
                        self._lock(str(touched.name))

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
        assert node.inputs[0] is not None
        self.clips.append((str(node.inputs[0].name), str(node.outputs[0].name), float(high)))
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


RULES: dict[str, Callable[[_Walk, Node], bool]] = {
    "Relu": _Walk.same,
    "LeakyRelu": _Walk.same,
    "MaxPool": _Walk.same,
    "AveragePool": _Walk.same,
    "GlobalAveragePool": _Walk.same,
    "GlobalMaxPool": _Walk.same,
    "Clip": _Walk.clip,
    "Add": _Walk.total,
    "Flatten": _Walk.flatten,
    "Reshape": _Walk.flatten,
    "Squeeze": _Walk.flatten,
    "ReduceMean": _Walk.mean,
    "Pad": _Walk.pad,
    "Slice": _Walk.cut,
    "Concat": _Walk.joined,
}


def _shared_weights(model: Model, found: Iterable[Layer]) -> set[str]:
    """Weights that are read elsewhere too, or whose biases are: their rows cannot be scaled for one reader."""

    def shared(name: str | None) -> bool:
        return name is not None and (len(list(model.values[name].uses())) > 1 or model.values[name].is_graph_output())

    return {layer.weight for layer in found if shared(layer.weight) or shared(layer.bias)}


def _constant_ints(node: Node, index: int, attribute: str) -> list[int] | None:
    """A list of integers given as an input, or, in older operator sets, as an attribute."""
    if len(node.inputs) > index and node.inputs[index] is not None:
        value = node.inputs[index]
        assert value is not None
        return None if value.const_value is None else [int(i) for i in value.const_value.numpy().reshape(-1)]
    given = node.attributes.get_ints(attribute, [])
    return [int(i) for i in given] or None
