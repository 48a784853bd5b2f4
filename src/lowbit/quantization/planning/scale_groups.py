"""Which of the tensors that become codes must share one scale."""

from collections.abc import Mapping

from lowbit.formats.quantized_graph import DATA_MOVEMENT, FLOAT_OUTPUT
from lowbit.graph.model import Model, Node, Value
from lowbit.quantization.planning.kernels import CLAMPS, activation_inputs, coded_outputs
from lowbit.quantization.planning.node_plan import NodePlan, arithmetic_of, read_by_integers


def scale_groups(model: Model, plans: Mapping[str, NodePlan]) -> tuple[tuple[str, ...], ...]:
    """Union-find over the tensors that become codes, by name."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for node in model.graph:
        if plans[str(node.name)].arithmetic != "integer":
            continue
        inputs = [str(value.name) for value in activation_inputs(node) if value is not None]
        for name in inputs:
            find(name)
        for output in coded_outputs(node):
            stored = _stored(output, plans)
            needs_scale = stored.is_graph_output() or read_by_integers(stored, plans)
            # Only an output with a scale saturates, so a node that absorbs an activation needs one.
            if node.op_type in FLOAT_OUTPUT and stored is output and not needs_scale:
                continue
            root = find(str(stored.name))
            if node.op_type in DATA_MOVEMENT | CLAMPS and find(inputs[0]) != root:
                parent[root] = find(inputs[0])
            for value in _sharing_scale_of(node, plans):
                if find(str(value.name)) != find(root):
                    parent[find(str(value.name))] = find(root)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(find(name), []).append(name)
    return tuple(tuple(group) for group in groups.values())


def _sharing_scale_of(node: Node, plans: Mapping[str, NodePlan]) -> list[Value]:
    """Inputs of a Concat that can use the scale of its output: nothing else reads them or needs them in another scale.

    They are then rounded once; otherwise they would be rounded to their own grids and again to that of the output.
    Where saturation stands for a Relu zero must be the lowest code, so inputs behind an absorbed Relu share the scale
    only if all inputs are.
    """
    if node.op_type != "Concat":
        return []
    positive = _is_positive(node.outputs[0], plans)
    sharing = []
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if value is None or producer is None or len(list(value.uses())) > 1 or value.is_graph_output():
            continue
        plan = plans[str(producer.name)]
        keeps_scale = plan.arithmetic == "integer" and plan.op in DATA_MOVEMENT | CLAMPS
        saturates = plan.arithmetic == "absorbed" or plan.op == "Concat"
        if not keeps_scale and (positive or not saturates):
            sharing.append(value)
    return sharing


def _is_positive(value: Value, plans: Mapping[str, NodePlan]) -> bool:
    """Whether all parts of a tensor come from absorbed Relus."""
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type == "Concat":
        return all(part is not None and _is_positive(part, plans) for part in producer.inputs)
    return producer.op_type == "Relu" and plans[str(producer.name)].arithmetic == "absorbed"


def _stored(output: Value, plans: Mapping[str, NodePlan]) -> Value:
    """The tensor that is written to memory: behind the activation that the node absorbs, if there is one."""
    for user, _ in output.uses():
        if arithmetic_of(user, plans) == "absorbed":
            return user.outputs[0]
    return output
