"""Bounds of every activation that hold for all images, not only for those seen: interval arithmetic.

    y = W x + b,  x in [l, h]   =>   W+ l + W- h + b  <=  y  <=  W+ h + W- l + b,  channel by channel

with W+ and W- the positive and negative parts of W. Images are bounded by their 8 bits, a ReLU6 bounds whatever comes
in; where neither is known a bound is infinite. Gives up: inputs of a layer are taken as independent, so that a bound is
far from what is ever reached where many inputs are summed, and close to it in depthwise kernels.
Source: Moore 1966, "Interval Analysis"; as in Gowal et al. 2018 (arXiv 1810.12715), equation 6.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.graph.model import Model, Node
from lowbit.graph.ops import Layer, layers

Array = np.ndarray[Any, np.dtype[Any]]
# Float32 sums may exceed what exact arithmetic allows.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Bounds:
    """Least and greatest value of each channel (dimension 1), float64 [channels]; infinite where nothing is known."""

    low: Array
    high: Array

    def with_zero(self) -> "Bounds":
        """Also zero, which padding brings in."""
        return Bounds(np.minimum(self.low, 0.0), np.maximum(self.high, 0.0))


def activation_bounds(model: Model) -> dict[str, Bounds]:
    """Bounds of the activations that have a known number of channels."""
    found: dict[str, Bounds] = {}
    known = {layer.node: layer for layer in layers(model)}
    for value in model.graph.inputs:
        if (count := _channels(model, str(value.name))) is not None:
            found[str(value.name)] = _image(model, count)
    for node in model.graph:
        for output in node.outputs:
            count = _channels(model, str(output.name))
            if count is None:
                continue
            bounds = None
            if str(node.name) in known:
                layer = known[str(node.name)]
                if layer.bias_node is None and layer.input in found:
                    bounds = _product(model, layer, found[layer.input])
            elif node.op_type in RULES and node.domain in ("", "ai.onnx"):
                given = [found.get(str(value.name)) if value is not None else None for value in node.inputs]
                bounds = RULES[node.op_type](node, given)
            if bounds is None or bounds.low.size != count:
                bounds = Bounds(np.full(count, -np.inf), np.full(count, np.inf))
            found[str(output.name)] = bounds
    return found


def _channels(model: Model, name: str) -> int | None:
    shape = model.values[name].shape if name in model.values else None
    extent = shape[1] if shape is not None and len(shape) >= 2 else None
    return extent if isinstance(extent, int) else None


def _image(model: Model, channels: int) -> Bounds:
    """Pixels 0..255, normalized."""
    rule = model.preprocessing
    if rule is None or rule.layout != "NCHW" or rule.channels != channels or len(model.inputs) != 1:
        return Bounds(np.full(channels, -np.inf), np.full(channels, np.inf))
    ends = (np.array([[0.0], [255.0]]) * rule.scale - np.array(rule.mean)) / np.array(rule.std)
    return Bounds(ends.min(axis=0), ends.max(axis=0))


def _product(model: Model, layer: Layer, given: Bounds) -> Bounds | None:
    if layer.geometry is not None:
        given = given.with_zero()
    matrix = layer.to_matrix(model.weights[layer.weight].astype(np.float64))
    groups, _, columns = matrix.shape
    if given.low.size % groups or columns % (given.low.size // groups):
        return None
    each = columns // (given.low.size // groups)
    low, high = (np.repeat(end.reshape(groups, -1), each, axis=1) for end in (given.low, given.high))
    positive, negative = np.maximum(matrix, 0.0), np.minimum(matrix, 0.0)
    bias = 0.0 if layer.bias is None else model.weights[layer.bias].astype(np.float64).reshape(-1)

    def total(first: Array, second: Array) -> Array:
        # A weight of zero takes nothing from an input without bounds.
        with np.errstate(invalid="ignore"):
            terms = np.where(positive > 0, positive * first[:, None], 0.0)
            terms += np.where(negative < 0, negative * second[:, None], 0.0)
        return np.asarray(terms.sum(axis=2).reshape(-1) + bias)

    bottom, top = total(low, high), total(high, low)
    slack = np.nan_to_num(ROUNDING * np.maximum(np.abs(bottom), np.abs(top)), posinf=0.0)
    return Bounds(bottom - slack, top + slack)


def _same(node: Node, given: list[Bounds | None]) -> Bounds | None:
    return given[0]


def _relu(node: Node, given: list[Bounds | None]) -> Bounds | None:
    return None if given[0] is None else Bounds(np.maximum(given[0].low, 0.0), np.maximum(given[0].high, 0.0))


def _clip(node: Node, given: list[Bounds | None]) -> Bounds | None:
    bounds = given[0]
    if bounds is None:
        return None
    low, high = bounds.low, bounds.high
    for index, value in enumerate(node.inputs[1:], 1):
        if value is not None and value.const_value is not None:
            end = float(value.const_value.numpy())
            low, high = (
                (np.maximum(low, end), np.maximum(high, end))
                if index == 1
                else (np.minimum(low, end), np.minimum(high, end))
            )
    return Bounds(low, high)


def _with_zero(node: Node, given: list[Bounds | None]) -> Bounds | None:
    return None if given[0] is None else given[0].with_zero()


def _sum(node: Node, given: list[Bounds | None]) -> Bounds | None:
    parts = [part for part in given if part is not None]
    if len(parts) != len(node.inputs) or len({part.low.size for part in parts}) > 1:
        return None
    return Bounds(np.sum([part.low for part in parts], axis=0), np.sum([part.high for part in parts], axis=0))


def _joined(node: Node, given: list[Bounds | None]) -> Bounds | None:
    parts = [part for part in given if part is not None]
    if len(parts) != len(node.inputs) or node.attributes.get_int("axis", 0) != 1:
        return None
    return Bounds(np.concatenate([part.low for part in parts]), np.concatenate([part.high for part in parts]))


RULES: dict[str, Callable[[Node, list[Bounds | None]], Bounds | None]] = {
    "Relu": _relu,
    "Clip": _clip,
    "MaxPool": _same,
    "AveragePool": _with_zero,
    "GlobalAveragePool": _same,
    "GlobalMaxPool": _same,
    "Add": _sum,
    "Concat": _joined,
}
