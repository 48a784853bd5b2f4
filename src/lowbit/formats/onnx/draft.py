"""The ONNX graph under construction, which rewrites change one after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from lowbit.formats.names import Names
from lowbit.formats.onnx.byte_tables import ByteTables
from lowbit.formats.quantized_graph import ActivationCodes, QuantizedGraph


@dataclass(frozen=True)
class Draft:
    """A file as far as it is written.

    Attributes:
        quantized: what is written.
        model: a copy of its model that becomes the file; rewrites change its graph in place.
        names: free names of that graph, and its constants.
        activations: codes of the graph's tensors that run in integers.
        tables: that unpack codes; `write_tables` puts what computes them into the graph.
    """

    quantized: QuantizedGraph
    model: ir.Model
    names: Names
    activations: Mapping[str, ActivationCodes]
    tables: ByteTables

    @property
    def graph(self) -> ir.Graph:
        """The graph of `model`."""
        return self.model.graph


Rewrite = Callable[[Draft], Draft]


def begin(quantized: QuantizedGraph) -> Draft:
    """A draft that nothing is written of yet."""
    model = quantized.model.copy()
    activations = quantized.activations if quantized.integer else {}
    names = Names(model.graph)
    return Draft(quantized, model, names, activations, ByteTables(names))


def write_tables(draft: Draft) -> Draft:
    """What computes the tables that codes were unpacked with, at the head of the graph."""
    if draft.tables.nodes:
        draft.graph.insert_before(draft.graph[0], draft.tables.nodes)
    return draft


def replace_initializer(graph: ir.Graph, value: ir.Value, replacement: ir.Value) -> None:
    """Let `replacement` take over all uses and the name of an initializer, which leaves the graph."""
    for user, index in tuple(value.uses()):
        user.replace_input_with(index, replacement)
    name = str(value.name)
    del graph.initializers[name]
    value.name = None
    replacement.name = name


def put_in_place(graph: ir.Graph, node: ir.Node, new: Sequence[ir.Node]) -> None:
    """Let new nodes, the last of which gives what `node` gave, take its place."""
    graph.insert_before(node, new)
    take_over(graph, node, new[-1].outputs[0])


def give_instead(graph: ir.Graph, output: ir.Value, value: ir.Value) -> None:
    """Let `value` be what the graph gives in place of an output, which may be there more than once."""
    for index, other in enumerate(tuple(graph.outputs)):
        if other is output:
            graph.outputs[index] = value


def take_over(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let `value`, which is in the graph, have name, uses and shape of what `node` gave, which leaves the graph."""
    (output,) = node.outputs
    value.shape, value.dtype = output.shape, ir.DataType.FLOAT
    if output.is_graph_output():
        give_instead(graph, output, value)
    for user, index in tuple(output.uses()):
        user.replace_input_with(index, value)
    name = output.name
    graph.remove(node, safe=True)
    output.name, value.name = None, name
