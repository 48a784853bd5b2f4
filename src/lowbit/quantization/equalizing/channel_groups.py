"""Which channels must be scaled alike: union-find over all (tensor, channel) pairs.

A network computes the same when each channel c of an activation is divided by s_c, if the rows of the layers that write
it are divided by s_c too and the columns of the layers that read it multiplied: ReLU, sums, pooling and padding pass a
positive factor through. Channels that must have the same factor because such an operator lies between them form one
channel group. Groups follow residual streams, and channels that Pad, Concat or a channel shuffle move. Gives up: an
operator that is not in `RULES` connects nothing, and the channels that it reads or writes keep the factor 1.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.graph.model import Model, Node
from lowbit.graph.ops import Layer, layers
from lowbit.quantization.equalizing.movement import MOVES, Elements, constant_ints, moved

Array = np.ndarray[Any, np.dtype[Any]]

OPEN_BATCH = 2  # samples in place of as many as a caller gives: they must not be taken for channels
MOST_ELEMENTS = 1 << 22  # of a tensor that is followed element by element


@dataclass(frozen=True)
class ChannelGroups:
    """All channels of a network's activations, divided into groups that share one factor.

    Attributes:
        group_of: by tensor, the number of the group that each channel belongs to, int [channels].
        count: number of groups.
        fixed: whether a group must keep the factor 1, bool [count].
        clips: each Clip from 0 that factors pass through: its input, its output, its upper bound.
        layers: by node, the layers whose rows and columns may be rescaled (by 1 where the group is fixed).
    """

    group_of: Mapping[str, Array]
    count: int
    fixed: Array
    clips: tuple[tuple[str, str, float], ...]
    layers: Mapping[str, Layer]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors with at least one channel that may be rescaled."""
        return tuple(name for name, groups in self.group_of.items() if not self.fixed[groups].all())


def find_channel_groups(model: Model) -> ChannelGroups:
    """The channel groups of a prepared float model; each node is visited once, in execution order."""
    visitor = _Visitor(model)
    visitor.visit_all()
    roots, groups = np.unique([visitor.root(i) for i in range(len(visitor.parent))], return_inverse=True)
    fixed = np.zeros(len(roots), bool)
    fixed[groups[sorted(visitor.fixed)]] = True
    group_of = {name: groups[ids] for name, ids in visitor.ids.items()}
    return ChannelGroups(group_of, len(roots), fixed, tuple(visitor.clips), visitor.scalable)


class _Visitor:
    """Builds the union-find forest.

    Every channel gets an id when its tensor is first met; `parent[id]` leads towards the root of its group. Tensors
    without an axis of channels, half way through a shuffle, have the id of each element in `scattered`. A method that
    handles an operator returns False where the operator does not pass factors through.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.layers: dict[str, Layer] = {layer.node: layer for layer in layers(model)}
        self.scalable: dict[str, Layer] = {}
        self.ids: dict[str, Array] = {}
        self.scattered: dict[str, Elements] = {}
        self.elsewhere: set[str] = set()  # tensors that not only nodes of the main graph read
        self.parent: list[int] = []
        self.fixed: set[int] = set()
        self.clips: list[tuple[str, str, float]] = []

    def visit_all(self) -> None:
        """Visit every node, in order."""
        self.elsewhere = {str(value.name) for value in (*self.model.graph.inputs, *self.model.graph.outputs)}
        # Bodies of If, Loop and Scan read tensors that their node does not name as inputs.
        for name, value in self.model.values.items():
            if value.const_value is None and any(user.graph is not self.model.graph for user in value.consumers()):
                self.elsewhere.add(name)
        for name in self.elsewhere:
            self._fix(name)
        shared = _shared_weights(self.model, self.layers.values())
        for node in self.model.graph:
            name = str(node.name)
            rule = RULES.get(node.op_type)
            layer = self.layers.get(name)
            if layer is not None and layer.weight not in shared and self._is_scalable(layer):
                self.scalable[name] = layer
                continue
            known = rule is not None and node.domain in ("", "ai.onnx") and rule(self, node)
            if not known and not self.move(node):
                for touched in (*node.inputs, *node.outputs):
                    if touched is not None and touched.name and touched.const_value is None:
                        self._fix(str(touched.name))

    def root(self, channel: int) -> int:
        """The id that stands for the group of this channel."""
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def _is_scalable(self, layer: Layer) -> bool:
        if layer.bias_node is not None or layer.op == "MatMul":
            return False
        return self._channels(layer.input) is not None and self._channels(layer.output) is not None

    def _channels(self, tensor: str) -> Array | None:
        """Ids of a tensor's channels (dimension 1); None if it has no fixed number of them."""
        if tensor in self.scattered:
            return None
        if tensor not in self.ids:
            shape = self.model.values[tensor].shape
            extent = shape[1] if shape is not None and len(shape) >= 2 else None
            if not isinstance(extent, int):
                return None
            start = len(self.parent)
            self.parent.extend(range(start, start + extent))
            self.ids[tensor] = np.arange(start, start + extent)
        return self.ids[tensor]

    def _fix(self, tensor: str) -> None:
        ids = self.scattered.get(tensor, self._channels(tensor))
        if ids is not None:
            self.fixed.update(int(i) for i in np.unique(ids))

    def _union(self, first: Array, second: Array) -> None:
        for a, b in zip(first, second, strict=True):
            root, other = self.root(int(a)), self.root(int(b))
            if root != other:
                self.parent[other] = root

    def _elements(self, tensor: str) -> Elements | None:
        """The id of each element, in the shape of the tensor; None if its sizes are not known, or it is too large."""
        if tensor in self.scattered:
            return self.scattered[tensor]
        ids, shape = self._channels(tensor), self.model.values[tensor].shape
        if ids is None or shape is None:
            return None
        open_batch = [] if isinstance(shape[0], int) else [OPEN_BATCH]
        sizes = open_batch + [extent for extent in shape if isinstance(extent, int)]
        if len(sizes) != len(shape) or math.prod(sizes) > MOST_ELEMENTS:
            return None
        return np.broadcast_to(ids.reshape(-1, *[1] * (len(sizes) - 2)), sizes)

    def move(self, node: Node) -> bool:
        """What only moves elements; channels behind it have the factors of those that they come from."""
        source = node.inputs[0] if node.inputs else None
        if source is None or source.const_value is not None or node.op_type not in MOVES:
            return False
        elements = self._elements(str(source.name))
        parts = None if elements is None else moved(node, elements)
        if parts is None:
            return False
        for output, part in zip(node.outputs, parts, strict=True):
            self._place(str(output.name), part)
        return True

    def _place(self, tensor: str, elements: Elements) -> None:
        """Tell what a tensor consists of: of channels if each has elements of one only."""
        ids = elements[0].reshape(elements.shape[1], -1)[:, 0] if elements.ndim > 1 and elements.size else None
        if ids is not None and np.all(elements == ids.reshape(-1, *[1] * (elements.ndim - 2))):
            channels = self._channels(tensor)
            if channels is not None and channels.size == ids.size:
                self._union(ids, channels)
                return
        self.ids.pop(tensor, None)
        self.scattered[tensor] = elements
        if tensor in self.elsewhere:
            self._fix(tensor)

    def same_channels(self, node: Node, *, inputs: int = 1) -> bool:
        """Channel c of the output has the factor of channel c of each of the first `inputs` inputs."""
        output = self._channels(str(node.outputs[0].name))
        for value in node.inputs[:inputs]:
            if value is None or value.const_value is not None:
                return False
            source = self._channels(str(value.name))
            if source is None or output is None or source.size != output.size:
                return False
            self._union(source, output)
        return True

    def clip(self, node: Node) -> bool:
        """A Clip from 0 to a constant: like ReLU, for channels that stay below the upper bound."""
        low, high = (
            (
                (value.const_value.numpy() if value is not None and value.const_value is not None else None)
                for value in (node.inputs[1], node.inputs[2])
            )
            if len(node.inputs) == 3
            else (None, None)
        )
        if low is None or high is None or float(low) != 0.0 or not self.same_channels(node):
            return False
        assert node.inputs[0] is not None
        self.clips.append((str(node.inputs[0].name), str(node.outputs[0].name), float(high)))
        return True

    def add(self, node: Node) -> bool:
        """A sum of activations with equally many channels: all have the same factors."""
        shapes = [value.shape for value in node.inputs if value is not None]
        channels = [shape[1] if shape is not None and len(shape) >= 2 else None for shape in shapes]
        return len(set(map(str, channels))) == 1 and self.same_channels(node, inputs=len(node.inputs))

    def flatten(self, node: Node) -> bool:
        """[n, c, 1, 1] -> [n, c] keeps the channels."""
        source = node.inputs[0]
        if source is None or source.shape is None or any(extent != 1 for extent in tuple(source.shape)[2:]):
            return False
        return self.same_channels(node)

    def mean(self, node: Node) -> bool:
        """A mean over positions, not over channels."""
        axes = constant_ints(node, 1, "axes")
        source = node.inputs[0]
        rank = len(source.shape) if source is not None and source.shape is not None else 0
        return axes is not None and rank > 2 and all(axis % rank >= 2 for axis in axes) and self.same_channels(node)

    def pad(self, node: Node) -> bool:
        """Padding with zeros; added channels start groups of their own."""
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            return False
        pads = constant_ints(node, 1, "pads")
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if node.attributes.get_string("mode", "constant") != "constant" or pads is None:
            return False
        if value is not None and (value.const_value is None or bool(value.const_value.numpy().any())):
            return False
        source, output = (
            self._channels(str(node.inputs[0].name)) if node.inputs[0] else None,
            self._channels(str(node.outputs[0].name)),
        )
        if source is None or output is None or min(pads) < 0 or pads[0]:
            return False
        before = pads[1]
        self._union(source, output[before : before + source.size])
        return True

    def slice(self, node: Node) -> bool:
        """A slice of positions, with all channels."""
        axes = constant_ints(node, 3, "axes")
        return axes is not None and all(axis >= 2 for axis in axes) and self.same_channels(node)

    def resize(self, node: Node) -> bool:
        """A map of another size, each value a weighted sum of others of its channel."""
        return node.attributes.get_string("coordinate_transformation_mode", "") != "tf_crop_and_resize" and (
            self.same_channels(node)
        )

    def concat(self, node: Node) -> bool:
        """A concatenation along the channels."""
        if node.attributes.get_int("axis", 0) != 1:
            return False
        output = self._channels(str(node.outputs[0].name))
        parts = [self._channels(str(value.name)) if value is not None else None for value in node.inputs]
        if output is None or any(part is None for part in parts):
            return False
        self._union(np.concatenate([part for part in parts if part is not None]), output)
        return True


RULES: dict[str, Callable[[_Visitor, Node], bool]] = {
    "Relu": _Visitor.same_channels,
    "LeakyRelu": _Visitor.same_channels,
    "MaxPool": _Visitor.same_channels,
    "AveragePool": _Visitor.same_channels,
    "PRelu": _Visitor.same_channels,
    "GlobalAveragePool": _Visitor.same_channels,
    "GlobalMaxPool": _Visitor.same_channels,
    "Clip": _Visitor.clip,
    "Add": _Visitor.add,
    "Flatten": _Visitor.flatten,
    "Reshape": _Visitor.flatten,
    "Squeeze": _Visitor.flatten,
    "ReduceMean": _Visitor.mean,
    "Pad": _Visitor.pad,
    "Slice": _Visitor.slice,
    "Concat": _Visitor.concat,
    "Resize": _Visitor.resize,
}


def _shared_weights(model: Model, candidates: Iterable[Layer]) -> set[str]:
    """Weights with another reader, or whose biases have one: their rows cannot be scaled for one reader only."""

    def shared(name: str | None) -> bool:
        return name is not None and (len(list(model.values[name].uses())) > 1 or model.values[name].is_graph_output())

    return {layer.weight for layer in candidates if shared(layer.weight) or shared(layer.bias)}
