"""What an ONNX file stores, and which weights are computed from that alone; bodies of If, Loop and Scan included."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from lowbit.errors import ModelError
from lowbit.graph.weights import BIAS_INPUTS, MOVING, NEAR, WEIGHT_INPUTS, weight_name

NARROW = frozenset((TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE))
# Operators whose result has the type of an input other than the first.
TYPE_FROM = {"DequantizeLinear": 1, "Where": 1}
CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class WeightRead:
    """A node that reads a weight.

    Attributes:
        name: of the weight, as `graph.weights.weight_name` calls it; by number for nodes without a name.
        node: that reads it.
        value: the tensor that it reads.
    """

    name: str
    node: NodeProto
    value: str


def fields_of_table(
    name: str, producers: Mapping[str, NodeProto], tensors: Mapping[str, TensorProto]
) -> tuple[int, int] | None:
    """Bits and shift of the codes in a table of bytes (`formats/onnx/byte_tables.py`); None of any other tensor."""
    shift = 0
    while (node := producers.get(name)) is not None and node.op_type in ("Cast", "Sub", "Mul", "Mod"):
        factor = small_constant(node.input[1], tensors) if len(node.input) > 1 else None
        if node.op_type in ("Mul", "Mod") and (factor is None or len(factor) != 1 or factor[0] < 2):
            return None
        if factor is not None and node.op_type == "Mod":
            return factor[0].bit_length() - 1, shift
        if factor is not None and node.op_type == "Mul":
            shift += factor[0].bit_length() - 1
        name = node.input[0]
    return None


def small_constant(name: str, tensors: Mapping[str, TensorProto]) -> tuple[int, ...] | None:
    """The value of a short integer constant."""
    tensor = tensors.get(name)
    if tensor is None or tensor.data_type not in (TensorProto.INT32, TensorProto.INT64) or prod(tensor.dims) > 8:
        return None
    return tuple(int(value) for value in numpy_helper.to_array(tensor).reshape(-1))


class StoredGraph:
    """The constants of a graph and the nodes that compute from them alone.

    Names that belong to a body have the way to it in front, so that each name means one thing.

    Attributes:
        nodes: of the main graph, then of bodies.
        tensors: stored in initializers and Constant nodes, by name.
        producers: nodes that compute from stored tensors alone, by output. Found in one pass forward, so that a walk
            back from a product of two activations ends where it begins: through the sums of a transformer it would take
            twice as long with each block.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, TensorProto] = {}
        self._taken: set[str] = set()
        self._count: Counter[str] = Counter()
        self._add(graph, "", {})
        self.producers: dict[str, NodeProto] = {}
        known = set(self.tensors)
        for node in self.nodes:
            # Ones of an average (`formats/onnx/averages.py`) are not weights.
            if node.op_type == "ConstantOfShape" or _bodies(node):
                continue
            if node.input and all(name in known for name in node.input if name):
                known.update(node.output)
                self.producers |= dict.fromkeys(node.output, node)

    def _add(self, graph: GraphProto, way: str, outer: Mapping[str, str]) -> None:
        names = dict(outer)
        for node in graph.node:
            _check_ends(node)
        if way:
            own = [value.name for value in (*graph.input, *graph.initializer)]
            own += [name for node in graph.node for name in node.output if name]
            names |= {name: f"{way}/{name}" for name in own}
        self.tensors |= {names.get(name, name): tensor for name, tensor in _stored_tensors(graph)}
        if not way:
            self.nodes += graph.node
        for node in graph.node if way else ():
            self.nodes.append(_renamed(node, names))
            self.nodes[-1].name = self._unique(node.name)
        self._taken |= {node.name for node in self.nodes}
        for index, node in enumerate(graph.node):
            for part, body in _bodies(node):
                self._add(body, f"{way}/{node.name or index}.{part}", names)

    def _unique(self, name: str) -> str:
        """The name of a body's node, numbered if another has it, as `graph.prepare` does."""
        unique = name
        while name and unique in self._taken:
            self._count[name] += 1
            unique = f"{name}_{self._count[name]}"
        self._taken.add(unique)
        return unique

    def weights(self) -> Iterator[WeightRead]:
        """Every weight that is stored or computed from stored tensors, node by node."""
        for index, node in enumerate(self.nodes):
            if any(output in self.producers for output in node.output) or node.domain not in ("", "ai.onnx"):
                continue
            for place in WEIGHT_INPUTS.get(node.op_type, ()):
                value = node.input[place] if place < len(node.input) else ""
                if self._is_weight(value) and not (node.op_type == "Gather" and self._is_factor(node.output[0])):
                    name = weight_name(node.name or f"{node.op_type}_{index}", node.op_type, place)
                    yield WeightRead(name, node, value)

    def biases(self) -> Iterator[str]:
        """The tensors that layers add."""
        yield from filter(None, map(self.bias, self.nodes))

    def bias(self, node: NodeProto) -> str:
        """What a layer adds, itself or by the one node that reads it (`formats/onnx/separate_biases.py`), or ""."""
        place = BIAS_INPUTS.get(node.op_type)
        if place is None or (place < len(node.input) and node.input[place]):
            return "" if place is None else node.input[place]
        readers = self.readers.get(node.output[0], ()) if node.op_type in CONVOLUTIONS else ()
        added = readers[0].input if len(readers) == 1 and readers[0].op_type == "Add" else ()
        return next((name for name in added if name in self.tensors or name in self.producers), "")

    def _is_weight(self, name: str) -> bool:
        if name in self.tensors:
            return self.tensors[name].data_type in NARROW and len(self.tensors[name].dims) > 1
        return name in self.producers and self._is_float(name)

    def _is_float(self, name: str) -> bool:
        """Whether a constant is of a float type: a table of indices is no weight."""
        while name not in self.tensors:
            node = self.producers[name]
            to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
            if node.op_type == "Cast":
                return to in NARROW
            name = node.input[TYPE_FROM.get(node.op_type, 0)]
        return self.tensors[name].data_type in NARROW

    def _is_factor(self, name: str) -> bool:
        """Whether other activations are multiplied with a tensor, see `graph.weights.is_factor`."""
        source, pending, seen = name, [name], {name}
        while pending:
            name = pending.pop()
            for node in self.readers.get(name, ()):
                others = [read for read in node.input if read not in self.tensors and read not in self.producers]
                if node.op_type == "Mul" and not all(read == name or self._comes_from(read, source) for read in others):
                    return True
                if node.op_type == "Concat" or (node.op_type in MOVING and node.input[0] == name):
                    pending += [output for output in node.output if output not in seen]
                    seen |= set(node.output)
        return False

    def _comes_from(self, name: str, source: str) -> bool:
        """Whether a tensor is computed from `source` within a few nodes, see `graph.weights`."""
        pending, seen = [name], {name}
        while pending and len(seen) < NEAR:
            node = self.makers.get(pending.pop(0))
            new = [read for read in node.input if read not in seen] if node is not None else []
            if source in new:
                return True
            seen.update(new)
            pending += new
        return name == source

    @cached_property
    def makers(self) -> dict[str, NodeProto]:
        """The node that gives each tensor."""
        return {name: node for node in self.nodes for name in node.output}

    @cached_property
    def readers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each tensor."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        return readers


def _check_ends(node: NodeProto) -> None:
    """Refuse a node without inputs or outputs whose operator has some in all versions: files come from strangers.

    Raises:
        ModelError: it names the node.
    """
    if node.domain in ("", "ai.onnx") and node.op_type in _reading() and not node.input:
        missing = "inputs"
    elif not node.output:
        missing = "outputs"
    else:
        return
    raise ModelError(f"node {node.name!r} ({node.op_type}) has no {missing}.", remedy="Copy or export the model again.")


@cache
def _reading() -> frozenset[str]:
    """Operators that have inputs in all versions."""
    schemas = [schema for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""]
    return frozenset(one.name for one in schemas) - {one.name for one in schemas if one.min_input == 0}


def _bodies(node: NodeProto) -> list[tuple[str, GraphProto]]:
    return [(item.name, item.g) for item in node.attribute if item.type == AttributeProto.GRAPH]


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A node of a body under the names of the whole graph; without bodies of its own."""
    copy = NodeProto(op_type=node.op_type, domain=node.domain, name=node.name)
    copy.input.extend(names.get(name, name) for name in node.input)
    copy.output.extend(names.get(name, name) for name in node.output)
    copy.attribute.extend(item for item in node.attribute if item.type != AttributeProto.GRAPH)
    if _bodies(node):
        # It computes from more than its inputs.
        copy.attribute.extend(AttributeProto(name=name, type=AttributeProto.GRAPH) for name, _ in _bodies(node))
    return copy


def _stored_tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            name = node.output[0]
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield name, attribute.t
                elif attribute.name.startswith("value_"):
                    yield name, numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(attribute)))
