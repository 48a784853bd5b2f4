"""Bounds of every activation that hold for all images, not only for those seen: interval arithmetic.

    y = W x + b,  x in [l, h]   =>   W+ l + W- h + b  <=  y  <=  W+ h + W- l + b,  channel by channel

with W+ and W- the positive and negative parts of W. Images are bounded by their 8 bits, and a ReLU6 bounds any input;
where neither applies a bound is infinite. Gives up: the inputs of a layer are taken as independent, so a bound is far
from any value that occurs where many inputs are summed, and close to it in depthwise kernels.
Source: Moore 1966, "Interval Analysis"; as in Gowal et al. 2018 (arXiv 1810.12715), equation 6.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.graph.model import Model, Node
from lowbit.graph.ops import Layer, layers

Array = np.ndarray[Any, np.dtype[Any]]
# Relative slack: float32 sums may exceed the bounds of exact arithmetic.
FLOAT32_SLACK = 1e-4


@dataclass(frozen=True)
class ChannelBounds:
    """Least and greatest possible value of each channel (dimension 1); infinite where nothing is known.

    Attributes:
        lower: float64 [channels], in the tensor's own units.
        upper: likewise.
    """

    lower: Array
    upper: Array

    def with_zero(self) -> "ChannelBounds":
        """Bounds that also include zero, which padding brings in."""
        return ChannelBounds(np.minimum(self.lower, 0.0), np.maximum(self.upper, 0.0))


def activation_bounds(model: Model) -> dict[str, ChannelBounds]:
    """Bounds of every activation that has a known number of channels, by tensor."""
    bounds: dict[str, ChannelBounds] = {}
    by_node = {layer.node: layer for layer in layers(model)}
    for value in model.graph.inputs:
        if (count := _channel_count(model, str(value.name))) is not None:
            bounds[str(value.name)] = _input_bounds(model, count)
    for node in model.graph:
        for output in node.outputs:
            count = _channel_count(model, str(output.name))
            if count is None:
                continue
            result = None
            if str(node.name) in by_node:
                layer = by_node[str(node.name)]
                if layer.bias_node is None and layer.input in bounds:
                    result = _layer_bounds(model, layer, bounds[layer.input])
            elif node.op_type in RULES and node.domain in ("", "ai.onnx") and output is node.outputs[0]:
                inputs = [bounds.get(str(value.name)) if value is not None else None for value in node.inputs]
                result = RULES[node.op_type](node, inputs)
            if result is None or result.lower.size != count:
                result = _unknown(count)
            bounds[str(output.name)] = result
    return bounds


def _channel_count(model: Model, name: str) -> int | None:
    shape = model.values[name].shape if name in model.values else None
    extent = shape[1] if shape is not None and len(shape) >= 2 else None
    return extent if isinstance(extent, int) else None


def _unknown(channels: int) -> ChannelBounds:
    return ChannelBounds(np.full(channels, -np.inf), np.full(channels, np.inf))


def _input_bounds(model: Model, channels: int) -> ChannelBounds:
    """Pixels 0 to 255, normalized as the model's preprocessing says; unknown if it says nothing that fits."""
    rule = model.preprocessing
    if rule is None or rule.layout != "NCHW" or rule.channels != channels or len(model.inputs) != 1:
        return _unknown(channels)
    ends = (np.array([[0.0], [255.0]]) * rule.scale - np.array(rule.mean)) / np.array(rule.std)
    return ChannelBounds(ends.min(axis=0), ends.max(axis=0))


def _layer_bounds(model: Model, layer: Layer, inputs: ChannelBounds) -> ChannelBounds | None:
    if layer.geometry is not None:
        inputs = inputs.with_zero()
    matrix = layer.to_matrix(model.weights[layer.weight].astype(np.float64))
    groups, _, columns = matrix.shape
    if inputs.lower.size % groups or columns % (inputs.lower.size // groups):
        return None
    kernel_size = columns // (inputs.lower.size // groups)
    low, high = (np.repeat(end.reshape(groups, -1), kernel_size, axis=1) for end in (inputs.lower, inputs.upper))
    positive, negative = np.maximum(matrix, 0.0), np.minimum(matrix, 0.0)
    bias = 0.0 if layer.bias is None else model.weights[layer.bias].astype(np.float64).reshape(-1)

    def weighted_sum(at_positive: Array, at_negative: Array) -> Array:
        # A weight of zero adds nothing, not even times an infinite input.
        with np.errstate(invalid="ignore"):
            terms = np.where(positive > 0, positive * at_positive[:, None], 0.0)
            terms += np.where(negative < 0, negative * at_negative[:, None], 0.0)
        return np.asarray(terms.sum(axis=2).reshape(-1) + bias)

    lower, upper = weighted_sum(low, high), weighted_sum(high, low)
    slack = np.nan_to_num(FLOAT32_SLACK * np.maximum(np.abs(lower), np.abs(upper)), posinf=0.0)
    return ChannelBounds(lower - slack, upper + slack)


InputBounds = list[ChannelBounds | None]


def _same(node: Node, inputs: InputBounds) -> ChannelBounds | None:
    return inputs[0]


def _relu(node: Node, inputs: InputBounds) -> ChannelBounds | None:
    bounds = inputs[0]
    return None if bounds is None else ChannelBounds(np.maximum(bounds.lower, 0.0), np.maximum(bounds.upper, 0.0))


def _clip(node: Node, inputs: InputBounds) -> ChannelBounds | None:
    bounds = inputs[0]
    if bounds is None:
        return None
    lower, upper = bounds.lower, bounds.upper
    for index, value in enumerate(node.inputs[1:], 1):
        if value is not None and value.const_value is not None:
            limit = float(value.const_value.numpy())
            clamp = np.maximum if index == 1 else np.minimum
            lower, upper = clamp(lower, limit), clamp(upper, limit)
    return ChannelBounds(lower, upper)


def _with_zero(node: Node, inputs: InputBounds) -> ChannelBounds | None:
    return None if inputs[0] is None else inputs[0].with_zero()


def _add(node: Node, inputs: InputBounds) -> ChannelBounds | None:
    parts = [part for part in inputs if part is not None]
    if len(parts) != len(node.inputs) or len({part.lower.size for part in parts}) > 1:
        return None
    return ChannelBounds(np.sum([part.lower for part in parts], axis=0), np.sum([part.upper for part in parts], axis=0))


def _concat(node: Node, inputs: InputBounds) -> ChannelBounds | None:
    parts = [part for part in inputs if part is not None]
    if len(parts) != len(node.inputs) or node.attributes.get_int("axis", 0) != 1:
        return None
    return ChannelBounds(np.concatenate([part.lower for part in parts]), np.concatenate([part.upper for part in parts]))


RULES: dict[str, Callable[[Node, InputBounds], ChannelBounds | None]] = {
    "Relu": _relu,
    "Clip": _clip,
    "MaxPool": _same,
    "AveragePool": _with_zero,
    "GlobalAveragePool": _same,
    "GlobalMaxPool": _same,
    "Add": _add,
    "Concat": _concat,
}
