"""A plan as a file: written for a model, edited by hand, and followed if it fits the model that it is given.

What the file says of tensors is taken as it is, if it can be given. What follows from that is decided anew: which nodes
can compute in integers then, which activations share a scale, what the target asks for.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowbit.errors import ModelError, SchemeError, did_you_mean
from lowbit.files import check_ending, write_atomically
from lowbit.formats.opening import load
from lowbit.formats.record import tools
from lowbit.graph.model import Model
from lowbit.graph.ops import Layer, layers
from lowbit.quantization.planning.arithmetic import WeightUsers, check_quantizable, integer_plan, weight_users
from lowbit.quantization.planning.deciding import device_floats, with_target, without_integers
from lowbit.quantization.planning.halves import kept_in_float32, plan_halves
from lowbit.quantization.planning.integer import kernel_reason
from lowbit.quantization.planning.kernels import NOT_IN_ONNXRUNTIME
from lowbit.quantization.planning.node_plan import EDITED, NodePlan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.plan_json import readable, text
from lowbit.quantization.planning.steps import EXACT_INPUT, RANGES, named_steps
from lowbit.quantization.planning.target import NATIVE, resolved
from lowbit.quantization.planning.tensors import DECODED_REASON, TensorPlan, unsuited, weights_alone
from lowbit.quantization.solving.effort import effort_called
from lowbit.schemes.linear import Linear

MOST_BYTES = 64 << 20  # of a plan: a thousand times that of the study's network
PLANS = (".json",)  # how their files end
DECISIONS = ("recipe", "rules", "effort", "steps", "target", "tensors", "nodes")


def plan_with_model(decision: Plan, model: Model) -> dict[str, Any]:
    """A plan as plain data, with the model that it was made for."""
    data = decision.to_json()
    made_for = {"name": model.source, "sha256": model.sha256}
    return {"model": made_for, "made": tools(), "written": _digest(data), **data}


def write_plan(plan: Plan, model: Model | str | Path, path: Path | str) -> Path:
    """Write a plan as JSON, a line for each tensor and each node.

    Raises:
        OutputError: its name does not end in .json, the folder is not writable, or the disk is full.

    >>> lowbit.write_plan(lowbit.plan("model.onnx", "int8"), "model.onnx", "plan.json").name
    'plan.json'
    """
    check_ending(path, PLANS)
    parts = []
    for key, value in plan_with_model(plan, load(model)).items():
        whole = json.dumps(value)
        if isinstance(value, list) and value and not isinstance(value[0], str):
            whole = "[\n" + ",\n".join(f"  {json.dumps(each)}" for each in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {whole}")
    return write_atomically(path, "{\n" + ",\n".join(parts) + "\n}\n")


def read_plan(path: Path | str, model: Model | str | Path) -> Plan:
    """Read a plan that was written for a model, and perhaps edited.

    Raises:
        SchemeError: it cannot be read, or does not fit the model, or asks for what cannot be given.
        ModelError: it was made for another model.

    >>> path = lowbit.write_plan(lowbit.plan("model.onnx", "int8"), "model.onnx", "plan.json")
    >>> lowbit.read_plan(path, "model.onnx").recipe.name
    'int8'
    """
    model = load(model)
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise SchemeError(f"a plan is smaller than {MOST_BYTES >> 20} MB.", where=str(path))
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemeError(
            f"the plan cannot be read: {error}.", where=str(path), remedy="Write one with `lowbit plan --out FILE`."
        ) from error
    try:
        with readable():
            data = json.loads(content)
            decision = Plan.from_json(data)
            if data.get("written") != _digest(data):
                decision = replace(decision, rules=(*(rule for rule in decision.rules if rule != EDITED), EDITED))
            made_for = text(data["model"]["sha256"])
        checked = followable(model, decision)
    except SchemeError as error:
        where = f"{path}: {error.where}" if error.where else str(path)
        raise SchemeError(error.what, where=where, remedy=error.remedy) from error
    if made_for != model.sha256:
        raise ModelError(
            "it was made for other weights, or for another graph, under the same names.",
            where=str(path),
            remedy="Make the plan again with `lowbit plan --out`, with the same --input-size if one is given.",
        )
    return checked


def followable(
    model: Model,
    decision: Plan,
    *,
    effort: str | None = None,
    steps: Sequence[str] | None = None,
    with_images: bool = True,
) -> Plan:
    """A plan as it can be followed: checked against the model, with all that follows from what it says.

    Args:
        model: the prepared float model.
        decision: made for it, and perhaps changed.
        effort: a row of `EFFORTS` in place of that of the plan.
        steps: keys of `STEP_NAMES` in place of those of the plan.
        with_images: whether there will be calibration images; without them no steps are taken.

    Raises:
        SchemeError: the plan speaks of other tensors or nodes than the model has, or asks for what cannot be given.
        ModelError: the model is quantized already, or there is nothing to quantize.
    """
    users = weight_users(model)
    effort_called(effort or decision.effort)
    if decision.quantized:
        check_quantizable(model, users)
    _check_names("tensor", (tensor.tensor for tensor in decision.tensors), model.weights.keys(), users.keys())
    _check_names("node", (node.node for node in decision.nodes), model.nodes.keys(), ())
    for tensor in decision.tensors:
        _check_tensor(model, tensor, users)
    tensors = tuple(
        replace(tensor, reason="") if tensor.reason == DECODED_REASON else tensor for tensor in decision.tensors
    )
    decision = replace(decision, tensors=tensors, effort=effort or decision.effort)
    decision = _with_nodes(model, decision, users)
    if steps is not None:
        asking = dict.fromkeys(decision.recipe_of(tensor) for tensor in tensors if tensor.asked is not None)
        decision = replace(decision, steps=named_steps(tuple(asking) or (decision.recipe,), steps))
    if not with_images or not decision.quantized:
        decision = replace(decision, steps=())
    return decision


def _with_nodes(model: Model, decision: Plan, users: WeightUsers) -> Plan:
    """With the arithmetic of each node, as tensors and nodes of the plan say it."""
    if not any(tensor.integer for tensor in decision.tensors):
        steps = tuple(step for step in decision.steps if step not in (EXACT_INPUT, RANGES))
        nodes = kept_in_float32(plan_halves(model, decision.recipe), decision.nodes)
        return replace(without_integers(replace(decision, steps=steps), users), nodes=nodes)
    resolved(decision.target or NATIVE)
    weighted = {layer.node: layer for layer in layers(model)}
    weights = {tensor.tensor: tensor for tensor in decision.tensors}
    kept, asked = device_floats(model, decision.target), set()
    for node in decision.nodes:
        layer = weighted.get(node.node)
        _check_node(model, node, layer, None if layer is None else weights[layer.weight])
        usual = node.reason == NOT_IN_ONNXRUNTIME.get(node.op, "")
        if node.arithmetic == "float" and (usual or not node.reason):
            kept[node.node] = EDITED
        elif node.arithmetic == "float" and (node.reason == EDITED or (layer is None and _by_rule(node, decision))):
            kept[node.node] = node.reason
        elif node.asked == "integer" or (node.arithmetic == "integer" and not usual):
            asked.add(node.node)
    optional = set() if decision.recipe.integer else model.nodes.keys() - asked
    integer = integer_plan(model, decision.tensors, users, reasons=kept, optional=optional)
    in_integers = integer.nodes_in("integer")
    tensors = tuple(weights_alone(tensor, in_integers) for tensor in decision.tensors)
    made = with_target(model, replace(decision, tensors=tensors), integer, users)
    if decision.nodes == made.nodes and decision.scale_groups != made.scale_groups:
        raise SchemeError("scale groups follow from the nodes.", remedy="Leave scale_groups as they were written.")
    return made


def _by_rule(node: NodePlan, decision: Plan) -> bool:
    return node.reason.removeprefix("rule ") in decision.rules


def _check_node(model: Model, node: NodePlan, layer: Layer | None, tensor: TensorPlan | None) -> None:
    """Refuse integers that no kernel computes in, or that the weight does not ask for."""
    if node.arithmetic != "integer":
        return
    reason = kernel_reason(model.nodes[node.node], layer)
    if tensor is not None and not reason and not tensor.integer:
        given = tensor.given.name if tensor.given is not None else "float"
        reason = f"the recipe of its weight {tensor.tensor} ({given}) computes in float"
    if reason:
        raise SchemeError(
            f"node {node.node} cannot compute in integers: {reason}.",
            remedy="Write float for it, or give its weight an int recipe." if layer else "Write float for it.",
        )


def _check_names(what: str, named: Iterable[str], known: Collection[str], needed: Collection[str]) -> None:
    """Refuse names that the model does not have, that stand twice, or that are missing."""
    seen: set[str] = set()
    for name in named:
        if name not in known:
            raise SchemeError(
                f"the model has no {what} '{name}'.",
                remedy=f"{did_you_mean(name, known)}Use the plan with the model that it was made for.",
            )
        if name in seen:
            raise SchemeError(f"{what} '{name}' stands twice in the plan.", remedy="Leave one of the lines out.")
        seen.add(name)
    if missing := [name for name in needed if name not in seen]:
        raise SchemeError(
            f"the plan has no line for {what} '{missing[0]}'.", remedy="Put it back, with null for float."
        )


def _check_tensor(model: Model, tensor: TensorPlan, users: WeightUsers) -> None:
    """Refuse a line that does not fit its tensor, or asks for what the tensor cannot be."""

    def refuse(what: str, remedy: str) -> SchemeError:
        return SchemeError(what, where=f"tensor {tensor.tensor}", remedy=remedy)

    reading = users.get(tensor.tensor, ())
    shape = model.weights[tensor.tensor].shape
    if tensor.shape != shape:
        raise refuse(
            f"its shape is {list(shape)}, in the plan {list(tensor.shape)}.",
            "Use the plan with the model that it was made for.",
        )
    if tensor.layers != tuple(dict.fromkeys(user.node for user in reading)):
        raise refuse("other nodes read it than the plan says.", "Use the plan with the model that it was made for.")
    if tensor.given is None:
        return
    if not reading:
        raise refuse("it is no weight, so it stays float.", "Write null for it.")
    if reason := unsuited(model, tensor.tensor):
        raise refuse(f"it cannot become codes: {reason}.", "Write null for it.")
    axes = {user.channel_axis for user in reading}
    if len(axes) > 1 and tensor.given.per != "tensor":
        raise refuse("its layers share it along different axes.", 'Add "per": "tensor".')
    if tensor.axis not in (axes if len(axes) == 1 else axes | {0}):
        raise refuse(f"its output channels are not on axis {tensor.axis}.", "Leave the axis as it was written.")
    tensor.given.stored_bytes(tensor.shape, tensor.axis)
    given = tensor.given
    if tensor.integer and isinstance(given, Linear) and (not given.symmetric or given.per == "group" or given.bits > 8):
        raise refuse(
            f"integer kernels take no {given.name}.", "Give it an int recipe without options, or a linear one."
        )


def _digest(data: Mapping[str, Any]) -> str:
    """Whether what a plan decides is as it was written."""
    return hashlib.sha256(json.dumps([data[key] for key in DECISIONS]).encode()).hexdigest()[:16]
