"""Which nodes can run in integers, which activations that asks for, and which of them must share one scale.

Pure decision: reads the graph, touches no number. The table says what a node needs for ONNX Runtime to have an integer
kernel for it between DequantizeLinear and QuantizeLinear (checked one by one on version 1.32, by looking at the graph
that it really runs), or for the other runtimes to have one (`NOT_IN_ONNXRUNTIME`); whatever is not in it stays float,
with the reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lowbit.engines import ENGINES
from lowbit.formats.quantized_graph import FLOAT_OUTPUT
from lowbit.graph.model import Model, Node, Value
from lowbit.graph.ops import Layer, layers


@dataclass(frozen=True)
class NodePlan:
    """How one node computes.

    Attributes:
        node: its unique name.
        op: operator type.
        arithmetic: "integer", "float", or "absorbed" (a neighbor's saturation does its work).
        reason: why it is not in integers, into which node it is absorbed, or where its integers are only codes; empty
            for integers everywhere.
    """

    node: str
    op: str
    arithmetic: str
    reason: str = ""


@dataclass(frozen=True)
class IntegerPlan:
    """The decision for a whole graph.

    Attributes:
        nodes: one for each node, in execution order.
        scale_groups: tensors that become uint8; those in one group share scale and zero point. The answers of a last
            product are among them for files whose outputs are integers; others give them as float.
    """

    nodes: tuple[NodePlan, ...]
    scale_groups: tuple[tuple[str, ...], ...]

    def named(self, arithmetic: str) -> frozenset[str]:
        """Names of the nodes that compute this way."""
        return frozenset(node.node for node in self.nodes if node.arithmetic == arithmetic)


# Operators that only move codes about: the output keeps the scale of the input.
MOVES = frozenset(
    ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split")
) | frozenset(("DepthToSpace", "SpaceToDepth", "Expand", "Pad", "Resize"))
# Bounds, where no neighbor's saturation does their work: written on the codes themselves, in the scale of the input, on
# whose grid their result lies exactly. In float between two conversions they took 3 to 6 times as long.
BOUNDS = frozenset(("Relu", "Clip"))
# Operators with integer kernels of their own, whose output has its own scale.
COMPUTES = frozenset(("Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "ReduceMean", "Sigmoid", "LeakyRelu"))
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# LiteRT and OpenVINO have integer kernels, ONNX Runtime has none: there a float kernel computes on the same codes.
NOT_IN_ONNXRUNTIME = ENGINES["onnxruntime"].float_kernels


def plan_integer(model: Model, *, layer_reasons: Mapping[str, str] | None = None) -> IntegerPlan:
    """Decide for every node of the main graph.

    Args:
        model: the prepared float model.
        layer_reasons: layers that shall stay float, by node name, with the reason.
    """
    weighted = {layer.node: layer for layer in layers(model)}
    kept = layer_reasons or {}
    decided: dict[str, NodePlan] = {}
    for node in model.graph:
        name = str(node.name)
        reason = kept.get(name) or _obstacle(node, weighted.get(name), decided)
        arithmetic = "float" if reason else "integer"
        decided[name] = NodePlan(name, node.op_type, arithmetic, reason or NOT_IN_ONNXRUNTIME.get(node.op_type, ""))
    _drop_idle_moves(model, decided)
    _absorb(model, decided)
    _bound_codes(model, decided)
    return IntegerPlan(tuple(decided.values()), _scale_groups(model, decided))


def _obstacle(node: Node, layer: Layer | None, decided: Mapping[str, NodePlan]) -> str:
    """Why this node cannot run in integers; empty if it can."""
    op = node.op_type
    if node.domain not in ("", "ai.onnx"):
        return f"operator of another domain ({node.domain})"
    if any(value is not None and value.dtype is not None and value.dtype.name != "FLOAT" for value in node.inputs[:1]):
        return "does not compute on float values"
    if op in WEIGHTED:
        if layer is None:
            return "its weight is not a constant"
        return (
            "is in groups, which no integer kernel of LiteRT has" if op == "ConvTranspose" and layer.groups > 1 else ""
        )
    if op in MOVES:
        source = _fed_by(node.inputs[0], decided)
        special = _special(node)
        return special or ("" if source else "only moves values that are float anyway")
    if op in COMPUTES:
        if any(value is None or _is_constant(value) for value in _activation_inputs(node)):
            return "one operand is a constant"
        return _special(node)
    if op in BOUNDS:
        return "its input is float"
    return "no integer kernel"


def _fed_by(value: Value | None, decided: Mapping[str, NodePlan]) -> bool:
    """Whether a value comes from a node that runs in integers, an activation that it will absorb included."""
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type in BOUNDS:
        before = producer.inputs[0].producer() if producer.inputs[0] is not None else None
        return before is not None and decided[str(before.name)].arithmetic == "integer"
    return producer is not None and decided[str(producer.name)].arithmetic == "integer"


def _pad_obstacle(node: Node) -> str:
    mode = node.attributes.get_string("mode", "constant")
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if mode != "constant":
        return f"pads by {mode}"
    if value is not None and (value.const_value is None or bool(value.const_value.numpy().any())):
        return "pads with something other than zero"
    return ""


def _resize_obstacle(node: Node) -> str:
    mode = node.attributes.get_string("mode", "nearest")
    return "" if mode == "nearest" else f"interpolates ({mode})"


def _mean_obstacle(node: Node) -> str:
    return "" if spatial_mean_axes(node) else "not a mean over all spatial axes"


def _special(node: Node) -> str:
    check = OBSTACLES.get(node.op_type)
    return check(node) if check else ""


OBSTACLES: dict[str, Callable[[Node], str]] = {
    "Pad": _pad_obstacle,
    "Resize": _resize_obstacle,
    "ReduceMean": _mean_obstacle,
}


def spatial_mean_axes(node: Node) -> bool:
    """Whether a ReduceMean is a global average pool: over the last two of four axes."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        axes = [] if given.const_value is None else given.const_value.numpy().tolist()
    else:
        axes = list(node.attributes.get_ints("axes", []))
    rank = len(node.inputs[0].shape) if node.inputs[0] is not None and node.inputs[0].shape is not None else 0
    return rank == 4 and sorted(axis % 4 for axis in axes) == [2, 3]


def _activation_inputs(node: Node) -> tuple[Value | None, ...]:
    return tuple(node.inputs) if node.op_type in ("Add", "Mul", "Concat") else tuple(node.inputs[:1])


def _is_constant(value: Value) -> bool:
    return value.const_value is not None


def _drop_idle_moves(model: Model, decided: dict[str, NodePlan]) -> None:
    """A node that only moves values towards float consumers gains nothing from rounding them first."""
    for node in reversed(list(model.graph)):
        name = str(node.name)
        plan = decided[name]
        if plan.arithmetic != "integer" or plan.op not in MOVES:
            continue
        users = [user for output in node.outputs for user, _ in output.uses()]
        integer_users = any(decided[str(user.name)].arithmetic == "integer" for user in users)
        if not integer_users and any(output.is_graph_output() for output in node.outputs):
            decided[name] = replace(plan, arithmetic="float", reason="only moves values that leave as float")


def _absorb(model: Model, decided: dict[str, NodePlan]) -> None:
    """Relu and Clip behind an integer node with no other reader: saturation at 0 and 255 does their work."""
    for node in model.graph:
        if node.op_type not in BOUNDS or node.inputs[0] is None:
            continue
        value = node.inputs[0]
        producer = value.producer()
        if producer is None or len(list(value.uses())) != 1 or value.is_graph_output():
            continue
        before = decided[str(producer.name)]
        if before.arithmetic != "integer" or before.op in MOVES or not _has_constant_bounds(node):
            continue
        name = str(node.name)
        decided[name] = NodePlan(name, node.op_type, "absorbed", f"saturation of {before.node}")


def _bound_codes(model: Model, decided: dict[str, NodePlan]) -> None:
    """Relu and Clip that nothing absorbs, between integers: bounds on the codes."""
    for node in model.graph:
        name, value = str(node.name), node.inputs[0] if node.inputs else None
        if node.op_type not in BOUNDS or decided[name].arithmetic != "float" or value is None:
            continue
        if not _is_stored(value, decided):
            continue
        reason = "" if _has_constant_bounds(node) else "its bounds are computed"
        if not _read_by_integers(node.outputs[0], decided):
            reason = "what reads it is float"
        decided[name] = replace(decided[name], arithmetic="float" if reason else "integer", reason=reason)


def _has_constant_bounds(node: Node) -> bool:
    return all(bound is None or bound.const_value is not None for bound in node.inputs[1:])


def _is_stored(value: Value, decided: Mapping[str, NodePlan]) -> bool:
    """Whether a tensor is written as codes anyway: an integer node gives it, and one other than the last reads it."""
    producer = value.producer()
    if producer is None or decided[str(producer.name)].arithmetic not in ("integer", "absorbed"):
        return False
    return producer.op_type not in FLOAT_OUTPUT or _read_by_integers(value, decided)


def _scale_groups(model: Model, decided: Mapping[str, NodePlan]) -> tuple[tuple[str, ...], ...]:
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for node in model.graph:
        if decided[str(node.name)].arithmetic != "integer":
            continue
        inputs = [str(value.name) for value in _activation_inputs(node) if value is not None]
        for name in inputs:
            find(name)
        for output in node.outputs:
            target = _stored(output, decided)
            leaves = target.is_graph_output() or _read_by_integers(target, decided)
            # An activation that the node absorbs is done by saturation, and there is none without a scale.
            if node.op_type in FLOAT_OUTPUT and target is output and not leaves:
                continue
            root = find(str(target.name))
            if node.op_type in MOVES | BOUNDS and find(inputs[0]) != root:
                parent[root] = find(inputs[0])
            for value in _given_in_scale_of(node, decided):
                if find(str(value.name)) != find(root):
                    parent[find(str(value.name))] = find(root)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(find(name), []).append(name)
    return tuple(tuple(group) for group in groups.values())


def _given_in_scale_of(node: Node, decided: Mapping[str, NodePlan]) -> list[Value]:
    """Inputs of a Concat that can be given in the scale of its output: nothing else reads them, or ties their scale.

    They are then rounded once, where otherwise they would be rounded to their own grids and again to that of the whole.
    Where saturation stands for a Relu zero must stay the lowest code, so with those either all inputs are such or none
    of them shares.
    """
    if node.op_type != "Concat":
        return []
    positive = _is_positive(node.outputs[0], decided)
    found = []
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if value is None or producer is None or len(list(value.uses())) > 1 or value.is_graph_output():
            continue
        plan = decided[str(producer.name)]
        tied = plan.arithmetic == "integer" and plan.op in MOVES | BOUNDS
        saturates = plan.arithmetic == "absorbed" or plan.op == "Concat"
        if not tied and (positive or not saturates):
            found.append(value)
    return found


def _is_positive(value: Value, decided: Mapping[str, NodePlan]) -> bool:
    """Whether a tensor consists of absorbed Relus only."""
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type == "Concat":
        return all(part is not None and _is_positive(part, decided) for part in producer.inputs)
    return producer.op_type == "Relu" and decided[str(producer.name)].arithmetic == "absorbed"


def _stored(output: Value, decided: Mapping[str, NodePlan]) -> Value:
    """The tensor that is written to memory: past the activation that the node absorbs."""
    for user, _ in output.uses():
        if decided[str(user.name)].arithmetic == "absorbed":
            return user.outputs[0]
    return output


def _read_by_integers(value: Value, decided: Mapping[str, NodePlan]) -> bool:
    return any(decided[str(user.name)].arithmetic == "integer" for user, _ in value.uses())
