"""Which nodes can run in integers, and which activations that asks for.

Pure decision: it reads the graph and touches no number. What has no integer kernel (`planning.kernels`) stays float,
and the plan gives the reason.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from lowbit.formats.quantized_graph import DATA_MOVEMENT, FLOAT_OUTPUT
from lowbit.graph.model import Model, Node, Value
from lowbit.graph.ops import Layer, layers
from lowbit.quantization.planning.kernels import (
    BETTER_LAST_IN_FLOAT,
    CLAMPS,
    NOT_IN_ONNXRUNTIME,
    ORDER_ONLY,
    OWN_SCALE,
    WEIGHTED,
    activation_inputs,
    attribute_reason,
    bounds_reason,
    coded_outputs,
    limits_codes,
)
from lowbit.quantization.planning.node_plan import NodePlan, arithmetic_of, read_by_integers
from lowbit.quantization.planning.scale_groups import scale_groups

SUMS = frozenset(("Add", "Concat"))


@dataclass(frozen=True)
class IntegerPlan:
    """The decision for a whole graph.

    Attributes:
        nodes: one per node, in execution order.
        scale_groups: tensors that become uint8; those in one group share scale and zero point. They include the output
            of a last Gemm or MatMul, for files whose outputs are integers; other files give it as float.
    """

    nodes: tuple[NodePlan, ...]
    scale_groups: tuple[tuple[str, ...], ...]

    def nodes_in(self, arithmetic: str) -> frozenset[str]:
        """Names of the nodes whose arithmetic is "integer", "float" or "absorbed"."""
        return frozenset(node.node for node in self.nodes if node.arithmetic == arithmetic)


def plan_integer(
    model: Model, *, reasons: Mapping[str, str] | None = None, optional: Collection[str] = ()
) -> IntegerPlan:
    """Decide for every node of the main graph.

    Args:
        model: the prepared float model.
        reasons: by node name, why a node must stay float; nodes that are not in it are free to compute in integers.
        optional: nodes without weights that nobody asked to compute in integers: they do where all is integers before
            them and something behind them.
    """
    weighted = {layer.node: layer for layer in layers(model)}
    reasons = reasons or {}
    # Relu and Clip that codes can do, by saturation or by a Clip of their own.
    limiting = frozenset(str(node.name) for node in model.graph if limits_codes(node)) - reasons.keys()
    plans: dict[str, NodePlan] = {}
    for node in model.graph:
        name = str(node.name)
        reason = reasons.get(name) or kernel_reason(node, weighted.get(name)) or _float_reason(node, plans, limiting)
        arithmetic = "float" if reason else "integer"
        plans[name] = NodePlan(name, node.op_type, arithmetic, reason or NOT_IN_ONNXRUNTIME.get(node.op_type, ""))
    _drop_idle(model, plans)
    _drop_edges(model, plans, limiting, optional)
    _drop_lonely(model, plans, limiting)
    _absorb(model, plans, limiting)
    _clamp_codes(model, plans, limiting)
    return IntegerPlan(tuple(plans.values()), scale_groups(model, plans))


def kernel_reason(node: Node, layer: Layer | None) -> str:
    """Why no runtime has an integer kernel for this node, whatever is around it; empty if one has."""
    op = node.op_type
    if node.domain not in ("", "ai.onnx"):
        return f"operators of domain '{node.domain}' are not supported"
    if any(value is not None and value.dtype is not None and value.dtype.name != "FLOAT" for value in node.inputs[:1]):
        return "its input is not float32"
    if op in WEIGHTED:
        if layer is None:
            return "its weight is not constant"
        grouped = op == "ConvTranspose" and layer.groups > 1
        return "LiteRT has no integer kernel for a ConvTranspose with groups" if grouped else ""
    if op in DATA_MOVEMENT:
        return attribute_reason(node)
    if op in OWN_SCALE:
        if any(value is None or _is_constant(value) for value in activation_inputs(node)):
            return "one operand is constant"
        return attribute_reason(node)
    return bounds_reason(node) if op in CLAMPS else f"there is no integer kernel for {op}"


def _float_reason(node: Node, plans: Mapping[str, NodePlan], limiting: frozenset[str]) -> str:
    """Why this node computes in float, because of what is before it; empty if it can compute in integers.

    `plans` holds the nodes before it. Relu and Clip count as float here; `_absorb` and `_clamp_codes` look at them.
    """
    if node.op_type in DATA_MOVEMENT:
        return "" if _comes_from_integers(node.inputs[0], plans, limiting) else "only moves data that is float"
    return "its input is float" if node.op_type in CLAMPS else ""


def _comes_from_integers(value: Value | None, plans: Mapping[str, NodePlan], limiting: frozenset[str]) -> bool:
    """Whether a value comes from a node that computes in integers, or from a Relu or Clip of codes behind one."""
    producer = value.producer() if value is not None else None
    if producer is not None and producer.name in limiting:
        before = producer.inputs[0].producer() if producer.inputs[0] is not None else None
        return before is not None and plans[str(before.name)].arithmetic == "integer"
    return producer is not None and plans[str(producer.name)].arithmetic == "integer"


def _is_constant(value: Value) -> bool:
    return value.const_value is not None


def _drop_idle(model: Model, plans: dict[str, NodePlan]) -> None:
    """A node that only moves data to a float output gains nothing from rounding it first, nor does a last Concat.

    What a Concat joins would have to share one scale: in a detector's head probabilities would be rounded to the steps
    of its boxes.
    """
    for node in reversed(list(model.graph)):
        name = str(node.name)
        plan = plans[name]
        if plan.arithmetic != "integer" or plan.op not in DATA_MOVEMENT | BETTER_LAST_IN_FLOAT:
            continue
        if any(read_by_integers(output, plans) for output in coded_outputs(node)):
            continue
        if plan.op in BETTER_LAST_IN_FLOAT or _moves_last_codes(node):
            plans[name] = replace(plan, arithmetic="float", reason="nothing computes on its codes")
        elif any(output.is_graph_output() for output in node.outputs):
            plans[name] = replace(plan, arithmetic="float", reason="only moves data to a float output")


def _drop_edges(model: Model, plans: dict[str, NodePlan], limiting: frozenset[str], optional: Collection[str]) -> None:
    """At the edge of an island of integers, what nobody asked for: it would round tensors for the sake of nothing."""

    def is_inside(node: Node) -> bool:
        users = [user for output in coded_outputs(node) for user, _ in output.uses()]
        behind = [user for user in users if user.name in limiting]
        users += [user for limit in behind for user, _ in limit.outputs[0].uses()]
        before = all(_comes_from_integers(value, plans, limiting) for value in activation_inputs(node))
        return before and any(arithmetic_of(user, plans) == "integer" for user in users)

    edges: list[str] | None = None
    while edges is None or edges:
        inside = (node for node in model.graph if node.name in optional and not is_inside(node))
        edges = [str(node.name) for node in inside if plans[str(node.name)].arithmetic == "integer"]
        for name in edges:
            plans[name] = replace(plans[name], arithmetic="float", reason="not all is integers around it")


def _drop_lonely(model: Model, plans: dict[str, NodePlan], limiting: frozenset[str]) -> None:
    """Integer nodes that save nothing: to round what is float before and behind costs time and exactness.

    A node between layers pays where a convolution gives its input as codes anyway, or where an integer layer reads its
    codes. Products of matrices give float as cheaply as codes. So a sum of such that a float node reads is float: those
    between the blocks of a transformer, with whose steps nothing would be left of a small class token, and that of an
    attention's scores and its mask, whose -1e9 would take the whole range. A Relu or Clip links too: whether saturation
    does its work is decided later.
    """
    coded = {name for name, plan in plans.items() if plan.arithmetic == "integer"} | limiting
    given = _given_by_convolutions(model, plans, coded)
    wanted: set[str] = set()
    in_float: set[str] = set()  # what a float node reads, moved or not
    for node in reversed(list(model.graph)):
        name = str(node.name)
        if name not in coded or node.op_type in WEIGHTED:
            continue
        users = [user for output in node.outputs for user, _ in output.uses()]
        if any(user.name in coded and (user.op_type in WEIGHTED or user.name in wanted) for user in users):
            wanted.add(name)
        if any(user.name not in coded or (user.op_type not in WEIGHTED and user.name in in_float) for user in users):
            in_float.add(name)
        lonely = name not in wanted or (node.op_type in SUMS and name in in_float)
        if lonely and name not in given and name not in limiting:
            plans[name] = replace(plans[name], arithmetic="float", reason="no integer layer needs its codes")
            coded.discard(name)
            wanted.discard(name)
    for node in model.graph:
        if plans[str(node.name)].arithmetic == "integer" and node.op_type in DATA_MOVEMENT:
            reason = _float_reason(node, plans, limiting)
            arithmetic = "float" if reason else "integer"
            plans[str(node.name)] = replace(plans[str(node.name)], arithmetic=arithmetic, reason=reason)


def _given_by_convolutions(model: Model, plans: Mapping[str, NodePlan], coded: Collection[str]) -> set[str]:
    """Nodes that read what a convolution stores as codes: moved, or summed once on the way."""
    given: set[str] = set()
    unsummed: set[str] = set()
    for node in model.graph:
        name = str(node.name)
        if name in coded and node.op_type in WEIGHTED - FLOAT_OUTPUT:
            unsummed.add(name)
        if name not in coded or node.op_type in WEIGHTED:
            continue
        makers = (value.producer() for value in activation_inputs(node) if value is not None)
        before = {str(maker.name) for maker in makers if maker is not None}
        if before & (unsummed if node.op_type in SUMS else unsummed | given):
            given.add(name)
        if before & unsummed and node.op_type not in SUMS:
            unsummed.add(name)
    return given


def _moves_last_codes(node: Node) -> bool:
    """Whether a node only orders anew what one gives that would rather be last in float, such as scores."""
    value: Value | None = node.inputs[0]
    while value is not None and (producer := value.producer()) is not None and node.op_type in ORDER_ONLY:
        if producer.op_type in BETTER_LAST_IN_FLOAT:
            return True
        node, value = producer, producer.inputs[0] if producer.inputs else None
    return False


def _absorb(model: Model, plans: dict[str, NodePlan], limiting: frozenset[str]) -> None:
    """Relu and Clip that alone read what an integer node computes: its saturation at 0 and 255 does their work."""
    for node in model.graph:
        if node.name not in limiting or node.inputs[0] is None:
            continue
        value = node.inputs[0]
        producer = value.producer()
        if producer is None or len(list(value.uses())) != 1 or value.is_graph_output():
            continue
        before = plans[str(producer.name)]
        if before.arithmetic != "integer" or before.op in DATA_MOVEMENT:
            continue
        name = str(node.name)
        plans[name] = NodePlan(name, node.op_type, "absorbed", f"by the saturation of {before.node}")


def _clamp_codes(model: Model, plans: dict[str, NodePlan], limiting: frozenset[str]) -> None:
    """Relu and Clip between integer nodes that nothing absorbs: they clamp the codes."""
    for node in model.graph:
        name, value = str(node.name), node.inputs[0] if node.inputs else None
        if name not in limiting or plans[name].arithmetic != "float" or value is None:
            continue
        if not _is_stored(value, plans):
            continue
        reason = "" if read_by_integers(node.outputs[0], plans) else "only float nodes read it"
        plans[name] = replace(plans[name], arithmetic="float" if reason else "integer", reason=reason)


def _is_stored(value: Value, plans: Mapping[str, NodePlan]) -> bool:
    """Whether a tensor is stored as codes anyway.

    An integer node computes it and, where that node could give float (`FLOAT_OUTPUT`), another integer node reads it.
    """
    producer = value.producer()
    if producer is None or plans[str(producer.name)].arithmetic not in ("integer", "absorbed"):
        return False
    return producer.op_type not in FLOAT_OUTPUT or read_by_integers(value, plans)
