"""Weights wherever they stand: constants that activations are multiplied with or looked up in, in bodies too.

Those of layers (`graph.ops`) can be rounded to data, since a layer is a matrix that columns go into. All others are
known here by where they stand in their node and by the axis of their output channels, which is all a scheme needs:

    LSTM, GRU, RNN      W and R [directions, gates * hidden, inputs]: each row of a gate is a channel
    Gather              an embedding: each entry is a channel
    MatMul              of more than two dimensions, or as the left factor
    Einsum              the first axis of the constant that only it brings into the result
    Conv, Gemm, ...     that are no layers, or stand inside If, Loop or Scan
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lowbit.graph.edit import constant, flag
from lowbit.graph.model import Model, Node, Value
from lowbit.graph.ops import OPS, Layer, layers, not_layers

RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}  # gates
# Operator -> inputs that are weights if they are constant. `OPS` says more of those that can be layers.
WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Einsum": (0, 1),
    "Gather": (0,),
    **dict.fromkeys(RECURRENT, (1, 2)),
}
BIAS_INPUTS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, **dict.fromkeys(RECURRENT, 3)}
# So many tensors behind a factor are looked at for the embedding that it was computed from: a norm's, a gate's.
NEAR = 64
# What an embedding may pass on its way to a product without being changed.
MOVING = frozenset(("Unsqueeze", "Squeeze", "Reshape", "Transpose", "Concat", "Slice", "Cast", "Expand", "Identity"))


@dataclass(frozen=True)
class OtherWeight:
    """A weight that belongs to no layer.

    Attributes:
        node: name of the weight: its node's, with ".W" or ".R" behind it for recurrent ones.
        op: operator of the node.
        weight: name of the initializer.
        weight_shape: as stored.
        channel_axis: dimension whose entries get scales of their own.
        reason: why its codes are not chosen on data.
    """

    node: str
    op: str
    weight: str
    weight_shape: tuple[int, ...]
    channel_axis: int
    reason: str


def weight_name(node: str, op: str, index: int) -> str:
    """What the weight at input `index` of a node is called."""
    return f"{node}.{'WR'[index - 1]}" if op in RECURRENT else node


def other_weights(model: Model) -> tuple[OtherWeight, ...]:
    """Constant float32 weights of all nodes that are no layers, those in bodies of If, Loop and Scan included."""
    in_layers = {(layer.node, layer.weight) for layer in layers(model)}
    reasons = {(item.node, item.weight): item.reason for item in not_layers(model)}
    found = []
    for node in model.graph.all_nodes():
        for index, value, array in _constants(node):
            key = (str(node.name), str(value.name))
            if key in in_layers or array.dtype != np.float32:
                continue
            reason = reasons.get(key, f"{node.op_type} is no layer")
            name = weight_name(key[0], node.op_type, index)
            axis = channel_axis(node, index, array.ndim)
            found.append(OtherWeight(name, node.op_type, key[1], tuple(array.shape), axis, reason))
    return tuple(found)


def all_weights(model: Model) -> tuple[Layer | OtherWeight, ...]:
    """Every weight of the main graph in execution order, then those of bodies."""
    place = {node: index for index, node in enumerate(model.nodes)}
    weights: list[Layer | OtherWeight] = [*layers(model), *other_weights(model)]
    return tuple(sorted(weights, key=lambda weight: place.get(node_of(weight), len(place))))


def node_of(weight: Layer | OtherWeight) -> str:
    """The node that reads a weight."""
    return weight.node[:-2] if weight.op in RECURRENT else weight.node


def weights_by_name(model: Model) -> dict[str, np.ndarray]:
    """Every weight as its node reads it."""
    arrays = {}
    for weight in all_weights(model):
        array = model.weights[weight.weight]
        arrays[weight.node] = array.T if isinstance(weight, Layer) and weight.turned else array
    return arrays


def _constants(node: Node) -> Iterator[tuple[int, Value, np.ndarray]]:
    """Weights of a node that are constants of the main graph: input, value, numbers."""
    if node.domain not in ("", "ai.onnx"):
        return
    for index in WEIGHT_INPUTS.get(node.op_type, ()):
        value = node.inputs[index] if index < len(node.inputs) else None
        array = constant(value)
        if value is None or array is None or array.ndim < 2 or array.size == 0 or array.dtype.kind != "f":
            continue
        if node.op_type == "Gather" and is_factor(node.outputs[0]):
            continue
        yield index, value, array


def is_factor(value: Value) -> bool:
    """Whether other activations are multiplied with what was looked up: sines of positions, which no training set.

    Not by what is computed from it itself: RMSNorm multiplies each entry of an embedding with its own size.
    """
    pending, seen = [value], {value}
    while pending:
        for user, index in pending.pop().uses():
            if user.op_type == "Mul" and not _comes_from(user.inputs[1 - index], value):
                return True
            if user.op_type == "Concat" or (user.op_type in MOVING and index == 0):
                pending += [output for output in user.outputs if output not in seen]
                seen |= set(user.outputs)
    return False


def _comes_from(value: Value | None, source: Value) -> bool:
    """Whether a tensor is constant, or computed from `source` within `NEAR` nodes."""
    if value is None or constant(value) is not None:
        return True
    pending, seen = [value], {value}
    while pending and len(seen) < NEAR:
        node = pending.pop(0).producer()
        for read in node.inputs if node is not None else ():
            if read is source:
                return True
            if read is not None and read not in seen:
                seen.add(read)
                pending.append(read)
    return value is source


def channel_axis(node: Node, index: int, rank: int) -> int:
    """The dimension of the weight at input `index`, of so many dimensions, that counts output channels."""
    if node.op_type in RECURRENT:
        return 1
    if node.op_type == "Gather":
        return node.attributes.get_int("axis", 0) % rank
    if node.op_type == "Einsum":
        return _einsum_axis(node.attributes.get_string("equation", ""), index, rank)
    if node.op_type == "Gemm":
        transposed = flag(node, "transB" if index else "transA")
        return int(transposed) ^ index
    if node.op_type == "MatMul":
        return rank - 1 if index else rank - 2
    return OPS[node.op_type].channel_axis


def _einsum_axis(equation: str, index: int, rank: int) -> int:
    """The first axis of an operand that is in the result and in no other operand; 0 if there is none."""
    inputs, _, result = equation.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if index >= len(operands) or len(operands[index]) != rank:
        return 0
    others = "".join(operand for at, operand in enumerate(operands) if at != index)
    own = (at for at, letter in enumerate(operands[index]) if letter in result and letter not in others)
    return next(own, 0)
