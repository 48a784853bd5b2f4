"""Part of a model as a model of its own: from some tensors to others, with some weights replaced.

Running a network piece by piece, keeping the activations of all calibration images in between, lets layers be quantized
in order at the cost of one pass. No piece copies large weights.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from lowbit.errors import ModelError
from lowbit.graph.light_model import LightModel
from lowbit.graph.model import Model, is_large, named_only, serialize

CONTRIBUTED = "com.microsoft"  # ONNX Runtime's own operators, whose conversions take 16 bits in every operator set


@dataclass(frozen=True)
class ActivationGrid:
    """The grid that an activation is rounded to: `scale * (code - zero_point)` for codes of 0 to 2^bits - 1.

    Args:
        scale: distance between neighboring levels.
        zero_point: code of 0.0.
        bits: 8 or 16.
    """

    scale: float
    zero_point: int
    bits: int = 8

    def rounded(self, x: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
        """`x` rounded to the nearest levels, as float32; values beyond the grid become its ends."""
        levels = np.clip(np.rint(x / np.float32(self.scale)), -self.zero_point, (1 << self.bits) - 1 - self.zero_point)
        return np.asarray(levels.astype(np.float32) * np.float32(self.scale))


class Subgraphs:
    """Cuts pieces out of one model.

    Args:
        model: the prepared graph; not changed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._proto = model.light_proto()
        self._nodes = list(self._proto.graph.node)
        self._weights = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        self._reads = [tuple(_reads(node)) for node in self._nodes]
        self._producer = {name: at for at, node in enumerate(self._nodes) for name in node.output if name}
        # All that depends on the inputs: what does not is the same for each sample, and may be too large to be folded.
        self._varying = {value.name for value in self._proto.graph.input} - set(self._weights)
        for node, reads in zip(self._nodes, self._reads, strict=True):
            if not self._varying.isdisjoint(reads):
                self._varying.update(node.output)

    @property
    def count(self) -> int:
        """Number of nodes, which are numbered in execution order."""
        return len(self._nodes)

    def position(self, node: str) -> int:
        """Number of the node with this name."""
        return next(at for at, candidate in enumerate(self._nodes) if candidate.name == node)

    def produced_by(self, tensor: str) -> int:
        """Number of the node that computes a tensor; -1 for inputs and weights."""
        return self._producer.get(tensor, -1)

    def computed(self) -> tuple[str, ...]:
        """Every tensor that a node of the main graph computes."""
        return tuple(self._producer)

    def crossing(self, position: int) -> tuple[str, ...]:
        """Inputs, and tensors computed from them before node `position`, that it or a later node reads."""
        return tuple(
            name for name in self.read_from(position) if name in self._varying and self.produced_by(name) < position
        )

    def read_from(self, position: int) -> tuple[str, ...]:
        """Tensors and weights that node `position` or a later one reads, including those they compute themselves."""
        return tuple(dict.fromkeys(name for reads in self._reads[position:] for name in reads))

    def extract(
        self,
        inputs: Collection[str],
        outputs: Sequence[str],
        *,
        weights: Mapping[str, np.ndarray],
        rounded: Mapping[str, ActivationGrid] | None = None,
    ) -> tuple[LightModel, tuple[str, ...]]:
        """The piece that computes `outputs` from as few of `inputs` as it needs.

        Args:
            inputs: tensors whose values the caller has.
            outputs: tensors wanted, none of them among `inputs`.
            weights: values in place of those of the model, by initializer name.
            rounded: tensors that are rounded to a grid as soon as they are computed.

        Returns:
            The piece, and the names of the inputs that it takes.

        Raises:
            ModelError: an output is not computed in the main graph, or needs a tensor that is not available.
        """
        chosen, needed, constants = self._dependencies(inputs, outputs)
        nodes: list[onnx.NodeProto] = []
        tensors: list[onnx.TensorProto] = []
        beside: dict[str, np.ndarray] = {}
        for name in constants:
            if name not in weights:
                tensors.append(self._weights[name])
                beside |= {name: self._model.large_weights[name]} if name in self._model.large_weights else {}
                continue
            array = np.ascontiguousarray(weights[name], np.float32)
            tensors.append(named_only(name, array) if is_large(array) else numpy_helper.from_array(array, name))
            beside |= {name: array} if is_large(array) else {}
        for at in chosen:
            added, grids = _with_rounding(self._nodes[at], rounded or {})
            nodes += added
            tensors += grids
        graph = onnx.helper.make_graph(
            nodes,
            "piece",
            [self._value_info(name) for name in needed],
            [self._value_info(name) for name in outputs],
            tensors,
        )
        proto = onnx.helper.make_model(graph, opset_imports=self._proto.opset_import, ir_version=self._proto.ir_version)
        proto.functions.extend(self._proto.functions)
        return LightModel(serialize(proto, self._model.source), beside), tuple(needed)

    def _dependencies(self, inputs: Collection[str], outputs: Sequence[str]) -> tuple[list[int], list[str], list[str]]:
        """What computes `outputs`: the numbers of the nodes, and the names of the inputs and of the weights they read.

        Raises:
            ModelError: a tensor that is neither available nor computed in the main graph.
        """
        nodes: set[int] = set()
        needed: set[str] = set()
        constants: set[str] = set()
        pending = list(outputs)
        while pending:
            name = pending.pop()
            if name in inputs:
                needed.add(name)
            elif name in self._weights:
                constants.add(name)
            elif name in self._producer:
                at = self._producer[name]
                if at not in nodes:
                    nodes.add(at)
                    pending.extend(self._reads[at])
            else:
                raise ModelError(f"no node computes the tensor {name!r}.", where=self._model.source)
        return sorted(nodes), sorted(needed), sorted(constants)

    def _value_info(self, name: str) -> onnx.ValueInfoProto:
        value = self._model.values[name]
        kind = int(value.dtype) if value.dtype is not None else onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_value_info(name, kind, None)


def _with_rounding(
    node: onnx.NodeProto, rounded: Mapping[str, ActivationGrid]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The node, followed by nodes that round its outputs: QuantizeLinear and DequantizeLinear."""
    names = [name for name in node.output if name in rounded]
    if not names:
        return [node], []
    own = onnx.NodeProto()
    own.CopyFrom(node)
    nodes, tensors = [own], []
    for name in names:
        exact, codes, scale, zero_point = (f"{name}/{part}" for part in ("exact", "codes", "scale", "zero_point"))
        own.output[list(own.output).index(name)] = exact
        grid = rounded[name]
        tensors.append(numpy_helper.from_array(np.array(grid.scale, np.float32), scale))
        tensors.append(numpy_helper.from_array(np.array(grid.zero_point, f"uint{grid.bits}"), zero_point))
        domain = CONTRIBUTED if grid.bits == 16 else ""
        nodes.append(onnx.helper.make_node("QuantizeLinear", [exact, scale, zero_point], [codes], domain=domain))
        nodes.append(onnx.helper.make_node("DequantizeLinear", [codes, scale, zero_point], [name], domain=domain))
    return nodes, tensors


def _reads(node: onnx.NodeProto) -> list[str]:
    """Every tensor that a node reads, including those that its subgraphs read from outside."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            names += [name for inner in graph.node for name in _reads(inner) if name not in own]
            names += [value.name for value in graph.output if value.name not in own]
    return names
