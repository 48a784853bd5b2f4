"""Float types other than float32: nodes that compute in them, inputs and outputs that have them, constants stored so.

The graph that lowbit works on is float32. Here nodes take another type, with Casts where values pass from one type to
another; what a node reads that is constant is stored in its type, and what decodes codes is cast behind it, which
runtimes do once, at load. Nodes whose operator ONNX does not define for the type stay in float32, and so do those that
read constants which the type cannot hold.

ONNX Runtime 1.27 to 1.32 on processors: float16 runs everywhere, since the runtime puts Casts around what has only
float32 kernels; bfloat16 hardly anywhere (no MatMul, no Relu, no Add); float64 where `FLOAT64_KERNELS` says. OpenVINO
takes all three and computes in float32.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from lowbit.formats.onnx.decode_nodes import HALF_FROM
from lowbit.formats.onnx.draft import Draft, give_instead
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.edit import constant
from lowbit.graph.model import Model
from lowbit.graph.precision import FLOAT, FLOATS, IN_FLOAT32, NAMES

ONNX_NAMES = {"float16": "tensor(float16)", "float64": "tensor(double)"}
# Operators that ONNX Runtime computes in float64 on processors.
FLOAT64_KERNELS = frozenset(
    (
        *("MatMul", "Gemm", "Einsum", "Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Exp", "Log", "Sqrt"),
        *("Relu", "Sigmoid", "Tanh", "Clip", "Softmax", "LogSoftmax", "LayerNormalization", "MaxPool", "ArgMax"),
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Identity", "Shape", "Cast", "Pad"),
        *("Concat", "Split", "Slice", "Gather", "Where", "Min", "Max"),
        *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"),
    )
)
CONTROL_FLOW = frozenset(("If", "Loop", "Scan"))


def arithmetic(quantized: QuantizedGraph) -> str:
    """The type that nodes of a file compute in, a key of `FLOATS`, if it is not said node by node."""
    if quantized.arithmetic:
        return "float32" if quantized.arithmetic == "bfloat16" else quantized.arithmetic
    return "float32" if quantized.integer else own_arithmetic(quantized.model)


def own_arithmetic(model: Model) -> str:
    """The type that a float file of a model computes in: its own where ONNX Runtime has kernels for it."""
    own = model.precision.type
    if own == "bfloat16" or (own == "float64" and missing_kernel(model)):
        return "float32"
    return own


def missing_kernel(model: Model) -> str:
    """The first operator that ONNX Runtime cannot compute in float64; empty if it can all."""
    return next((node.op_type for node in model.graph if node.op_type not in FLOAT64_KERNELS), "")


def write_float_types(draft: Draft) -> Draft:
    """Nodes, inputs, outputs and constants in the types that the file is to have."""
    return _written(draft, draft.quantized.model.precision.ends)


def write_float_types_for_openvino(draft: Draft) -> Draft:
    """The same, but for float64 inputs and outputs of integer networks, on which OpenVINO 2026.4 refuses to compile."""
    ends = draft.quantized.model.precision.ends
    if draft.quantized.integer:
        ends = {name: kind for name, kind in ends.items() if kind != "float64"}
    return _written(draft, ends)


def _written(draft: Draft, ends: Mapping[str, str]) -> Draft:
    wanted = arithmetic(draft.quantized)
    if wanted != "float32" or ends or draft.quantized.model.precision.type != "float32":
        _TypedGraph(draft, wanted, ends).write()
    return draft


class _TypedGraph:
    """A graph in which nodes take another type.

    Attributes:
        kind: that type.
        ends: types of inputs and outputs that are not float32.
        types: of values that were float32 and are not any more.
        casts: values in other types, made so far.
    """

    def __init__(self, draft: Draft, kind: str, ends: Mapping[str, str]) -> None:
        self.draft, self.graph = draft, draft.graph
        self.kind, self.ends = kind, ends
        self.own = draft.quantized.model.precision
        self.types: dict[ir.Value, ir.DataType] = {}
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def write(self) -> None:
        """Ends, then nodes in order, then constants that stay float32."""
        for end in self.graph.inputs:
            if end.name in self.ends and end.dtype == FLOAT:
                self._become(end, FLOATS[self.ends[str(end.name)]])
        nodes = tuple(self.graph)
        places = {node: places for node in nodes if (places := self._places(node))}
        self._convert_constants({(node, index) for node, (inputs, _) in places.items() for index in inputs})
        for node in nodes:
            inputs, outputs = places.get(node, ((), ()))
            for index, value in enumerate(node.inputs):
                if value is not None:
                    node.replace_input_with(index, self._as(value, FLOATS[self.kind] if index in inputs else FLOAT))
            for inner in _inner(node):
                for index, value in enumerate(inner.inputs):
                    if value in self.types:
                        inner.replace_input_with(index, self._as(value, FLOAT))
            for index in outputs:
                self._become(node.outputs[index], FLOATS[self.kind])
            if outputs and node.op_type == "Cast":
                node.attributes["to"] = ir.AttrInt64("to", int(FLOATS[self.kind]))
        for end in dict.fromkeys(self.graph.outputs):  # each once
            self._end(end)
        self._store_constants()

    def _places(self, node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Which inputs and outputs of a node are in the type; None if it computes in float32."""
        if self.kind == "float32" or not self._chosen(node):
            return None
        if node.op_type == "Cast":  # of whole numbers, which float32 may not hold
            real = node.inputs[0] is not None and node.inputs[0].dtype in NAMES
            return ((), (0,)) if self.kind == "float64" and node.outputs[0].dtype == FLOAT and not real else None
        places = None if self._ends_onnxruntime(node) else typed_places(node, self.graph.opset_imports[""], self.kind)
        if places is None or any(not self._holds(node, node.inputs[index]) for index in places[0]):
            return None
        return places

    def _chosen(self, node: ir.Node) -> bool:
        """Whether a node is one of the model's, that was not in float32 before and need not be."""
        if node.name not in self.draft.quantized.model.nodes or node.name in self.draft.quantized.in_float32:
            return False
        return not (self.own.type == self.kind and IN_FLOAT32 in node.meta)

    def _ends_onnxruntime(self, node: ir.Node) -> bool:
        """Whether ONNX Runtime 1.32 may crash on a node while it loads the file.

        It fuses a Transpose whose first axis becomes one of the last two with the product of matrices that reads it,
        and has no such product in float16: what a recurrent layer gives, a step after the other, is turned so.
        """
        perm = node.attributes.get_ints("perm", ()) if node.op_type == "Transpose" else ()
        return self.kind == "float16" and len(perm) > 2 and 0 in perm[-2:]

    def _holds(self, node: ir.Node, value: ir.Value | None) -> bool:
        array = constant(value)
        return array is None or held(array, self.kind, bounds=node.op_type == "Clip")

    def _become(self, value: ir.Value, kind: ir.DataType) -> None:
        if kind != FLOAT:
            self.types[value] = kind
        value.dtype = kind

    def _convert_constants(self, typed: set[tuple[ir.Node, int]]) -> None:
        """Constants that only nodes in the type read are stored in it."""
        kind = FLOATS[self.kind]
        for name, value in self.graph.initializers.items():
            uses = list(value.uses())
            array = constant(value)
            if not uses or array is None or value.dtype != FLOAT or any(tuple(use) not in typed for use in uses):
                continue
            self._fill(value, self._exactly(name, array), kind)

    def _exactly(self, name: str, array: np.ndarray) -> np.ndarray:
        """A float64 constant as it was before the network became float32, if nothing changed it."""
        exact = self.own.exact.get(name)
        with np.errstate(over="ignore"):
            same = exact is not None and np.array_equal(exact.astype(np.float32), array, equal_nan=True)
        return exact if exact is not None and same else array

    def _fill(self, value: ir.Value, array: np.ndarray, kind: ir.DataType) -> None:
        with np.errstate(over="ignore"):
            value.const_value = ir.tensor(np.asarray(array.astype(kind.numpy()), order="C"), name=value.name)
        self._become(value, kind)

    def _as(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        """A float value in a type; other values as they are."""
        now = self.types.get(value, value.dtype)
        if now == kind or now not in NAMES or (kind == FLOAT and value not in self.types):
            return value
        maker = value.producer()
        source = maker.inputs[0] if maker is not None and maker.op_type == "Cast" else None
        if source is not None and source.is_initializer() and source.dtype == kind:
            return source  # stored in this type, and decoded for others
        if (value, kind) not in self.casts:
            cast = self._cast(value, kind)
            if maker is not None:
                self.graph.insert_after(maker, cast)
            else:
                self.graph.insert_before(self.graph[0], cast)
            self.casts[value, kind] = cast.outputs[0]
        return self.casts[value, kind]

    def _cast(self, value: ir.Value, kind: ir.DataType) -> ir.Node:
        node = ir.node("Cast", [value], attributes={"to": int(kind)})
        result = node.outputs[0]
        result.name, result.shape, result.dtype = self.draft.names.fresh("c"), value.shape, kind
        if kind != FLOAT:
            self.types[result] = kind
        return node

    def _end(self, value: ir.Value) -> None:
        """Give an output of the file its type, under its name."""
        now = self.types.get(value, value.dtype)
        kind = FLOATS[self.ends.get(str(value.name), "float32")]
        maker = value.producer()
        if now not in NAMES or now == kind or maker is None:
            return
        name = value.name
        value.name = self.draft.names.fresh("c")
        cast = self._cast(value, kind)
        cast.outputs[0].name = name
        self.graph.insert_after(maker, cast)
        give_instead(self.graph, value, cast.outputs[0])

    def _store_constants(self) -> None:
        """Constants of a network in half precision that are computed with in float32: stored in their own type."""
        if self.own.type not in ("float16", "bfloat16"):
            return
        kind = FLOATS[self.own.type]
        for name in tuple(self.draft.quantized.model.weights):
            value = self.graph.initializers.get(name)
            array = constant(value)
            if value is None or array is None or value.dtype != FLOAT or array.size < HALF_FROM or not value.uses():
                continue
            with np.errstate(over="ignore"):
                narrow = array.astype(kind.numpy())
            scales = any(
                "QuantizeLinear" in user.op_type or "DequantizeLinear" in user.op_type for user, _ in value.uses()
            )
            if scales or value.is_graph_output() or not np.array_equal(narrow.astype(np.float32), array):
                continue
            cast = self._cast(self.draft.names.constant(narrow, "h"), FLOAT)
            self.graph.insert_before(self.graph[0], cast)
            value.replace_all_uses_with(cast.outputs[0])


def typed_places(node: ir.Node, opset: int, kind: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Which inputs and outputs of a node take a type in the place of float32, by ONNX's definition of the operator.

    None if the operator has no form for the type, holds a graph of its own, or its types are not known.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type in CONTROL_FLOW:
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    allowed = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    inputs, chosen = [], set()
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        variable = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
        if value.dtype is None or not isinstance(value.type, ir.TensorType):
            return None
        if value.dtype not in NAMES or variable not in allowed:
            continue
        if ONNX_NAMES[kind] not in allowed[variable]:
            return None
        inputs.append(index)
        chosen.add(variable)
    if not inputs:
        return None
    outputs = [
        index
        for index, value in enumerate(node.outputs)
        if value.dtype == FLOAT and schema.outputs[min(index, len(schema.outputs) - 1)].type_str in chosen
    ]
    return tuple(inputs), tuple(outputs)


def held(array: np.ndarray, kind: str, *, bounds: bool = False) -> bool:
    """Whether a type can hold a constant: nothing becomes infinite that is not, and a single number does not become 0.

    Args:
        array: float32.
        kind: a key of `FLOATS`.
        bounds: whether the constant only limits others, so that infinity does as well.
    """
    with np.errstate(over="ignore"):
        there = array.astype(FLOATS[kind].numpy()).astype(np.float32)
    reached = bounds or bool((np.isfinite(there) | ~np.isfinite(array)).all())
    vanished = array.size == 1 and bool((there == 0).all()) and bool((array != 0).all())
    return reached and not vanished


def _inner(node: ir.Node) -> Iterator[ir.Node]:
    """Nodes in the bodies of a node."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from attribute.as_graph().all_nodes()
