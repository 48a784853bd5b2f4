"""Which nodes of a recipe in half precision compute in it, and which in float32 because something would overflow.

float16 reaches to 65504 and has all its digits from 2^-14 on. Calibration images show what each tensor reaches; a node
stays in float32 if what it reads or gives comes within `MARGIN` of the end, if the squares or sums that it forms
inside would, or if all values of a tensor are too small. Without images operators that sum many values or raise them
to powers stay in float32, and what reads constants that float16 does not hold (such as the -1e9 of a mask), as far as
their values go on.

bfloat16 has the range of float32. ONNX Runtime has next to no kernels for it on processors, and OpenVINO computes in
the type that it likes whatever the file says: so only weights are stored in it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from lowbit.formats.onnx.float_types import held, missing_kernel, typed_places
from lowbit.graph.edit import constant
from lowbit.graph.model import Model, Node, Value
from lowbit.graph.weights import MOVING
from lowbit.quantization.planning.node_plan import EDITED, NodePlan
from lowbit.quantization.planning.recipes import Recipe

MOST, LEAST = float(np.finfo(np.float16).max), float(np.finfo(np.float16).smallest_normal)
# Calibration images do not show the largest values that there are.
MARGIN = 4.0
SQUARES = frozenset(("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"))
SQUARES |= frozenset(("LpNormalization", "MeanVarianceNormalization", "LRN", "ReduceL2", "ReduceSumSquare", "LpPool"))
SUMS = frozenset(("ReduceSum", "ReduceMean", "CumSum", "ReduceL1", "GlobalAveragePool", "AveragePool"))
EXPONENTS = frozenset(
    ("Softmax", "LogSoftmax", "Exp", "Pow", "ReduceLogSumExp", "ReduceLogSum", "ReduceProd", "Softplus")
)
# Of these without images; pools sum few values.
KEPT = SQUARES | EXPONENTS | SUMS - {"GlobalAveragePool", "AveragePool"}
# Operators behind which large values are as large.
PASSES_ON = MOVING | {"Add", "Sub", "Mul", "Where", "Min", "Max", "Neg", "Abs", "Clip"}


def plan_halves(model: Model, recipe: Recipe) -> tuple[NodePlan, ...]:
    """How each node that computes with floats does so, by its operator and its constants; empty for other recipes."""
    kind = recipe.arithmetic
    if kind != "float16":
        return ()
    opset = model.graph.opset_imports[""]
    plans = []
    large: set[Value] = set()
    for node in model.graph:
        if not any(_is_float(value) for value in (*node.inputs, *node.outputs)):
            continue
        places = typed_places(node, opset, kind)
        reason = ""
        if places is None:
            reason = f"ONNX has no {kind} for it"
        elif any(not _holds(node, node.inputs[index], kind) for index in places[0]):
            reason = f"it reads a constant that {kind} does not hold"
        elif any(value in large for value in node.inputs):
            reason = f"it reads what may be out of reach of {kind}"
        if reason and places is not None and node.op_type in PASSES_ON:
            large.update(node.outputs)
        if not reason and node.op_type in KEPT:
            reason = "its sums or powers may overflow; calibration images would tell"
        plans.append(NodePlan(str(node.name), node.op_type, "float32" if reason else kind, reason))
    return tuple(plans)


def kept_in_float32(plans: tuple[NodePlan, ...], edited: Iterable[NodePlan]) -> tuple[NodePlan, ...]:
    """With what someone asked to keep in float32: nodes of that arithmetic in `edited`, which need no reason."""
    kept = {node.node for node in edited if node.arithmetic == "float32" and node.reason in ("", EDITED)}
    return tuple(
        replace(node, arithmetic="float32", reason=EDITED) if node.node in kept and not node.reason else node
        for node in plans
    )


def type_note(model: Model, recipe: Recipe, *, litert: bool) -> str:
    """What a file does not have of the float types that were asked for, or that the network had; empty if nothing."""
    own = model.precision.type
    if litert and (own != "float32" or recipe.arithmetic == "float16"):
        return "LiteRT files take, give and compute float32; what is float16 in them is stored so."
    if own == "float32":
        return ""
    ends = f"inputs and outputs keep {own}" if model.precision.ends else f"the network was in {own}"
    if recipe.integer:
        return f"What is not integer in the file computes in float32; {ends}."
    if own == "bfloat16":
        return f"ONNX Runtime has no bfloat16 kernels on processors, so the file computes in float32; {ends}."
    if own == "float64" and (missing := missing_kernel(model)):
        return f"ONNX Runtime has no float64 kernel for {missing}, so the file computes in float32; {ends}."
    return ""


def measured_tensors(model: Model, plans: tuple[NodePlan, ...]) -> tuple[str, ...]:
    """The activations whose reach decides."""
    found = {
        str(value.name): None
        for plan in plans
        for value in _floats(model.nodes[plan.node])
        if constant(value) is None and not value.is_graph_input()
    }
    return tuple(found)


def with_reach(model: Model, plans: tuple[NodePlan, ...], reach: Mapping[str, float]) -> tuple[NodePlan, ...]:
    """The same, decided by what calibration images showed.

    Args:
        model: the prepared float model.
        plans: by operator and constants.
        reach: the largest magnitude of each activation, by tensor.
    """
    opset = model.graph.opset_imports[""]
    decided = []
    for plan in plans:
        node = model.nodes[plan.node]
        kind = "float16"
        places = typed_places(node, opset, kind)
        fits = places is not None and all(_holds(node, node.inputs[index], kind) for index in places[0])
        if not fits or plan.reason == EDITED:
            decided.append(plan)
            continue
        reason = _overflow(node, reach)
        decided.append(replace(plan, arithmetic="float32" if reason else kind, reason=reason))
    return tuple(decided)


def _overflow(node: Node, reach: Mapping[str, float]) -> str:
    """What float16 would lose in a node; empty if nothing."""
    for value in _floats(node):
        most = reach.get(str(value.name))
        if most is None:
            continue
        if most * MARGIN > MOST:
            return f"{value.name} reaches {most:.3g}, float16 to {MOST:.0f}"
        if 0 < most < LEAST:
            return f"{value.name} reaches {most:.3g}, where float16 has fewer digits"
    first = node.inputs[0]
    most = reach.get(str(first.name), 0.0) if first is not None else 0.0
    if node.op_type in SQUARES and most**2 * MARGIN > MOST:
        return f"the squares of {first.name} reach {most**2:.3g}" if first is not None else ""
    summed = most * _summed(node)
    if node.op_type in SUMS and summed * MARGIN > MOST:
        return f"its sums may reach {summed:.3g}"
    return ""


def _summed(node: Node) -> float:
    """How many values each output of a sum is made of; 1 where sizes are not known."""
    sizes = [
        value.shape for value in (node.inputs[0], node.outputs[0]) if value is not None and value.shape is not None
    ]
    if len(sizes) < 2 or node.op_type == "CumSum":
        return float(max((dim for shape in sizes[:1] for dim in shape if isinstance(dim, int)), default=1))
    read, given = (math.prod(dim for dim in shape if isinstance(dim, int)) for shape in sizes)
    return max(1.0, read / max(1, given))


def _floats(node: Node) -> list[Value]:
    return [value for value in (*node.inputs, *node.outputs) if value is not None and _is_float(value)]


def _is_float(value: Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.name == "FLOAT"


def _holds(node: Node, value: Value | None, kind: str) -> bool:
    array = constant(value)
    return array is None or held(array, kind, bounds=node.op_type == "Clip")
