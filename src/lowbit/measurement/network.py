"""The graph of a network, small enough to look at: layers, the nodes in which branches meet, and what feeds what.

All else (activation functions, pools, reshapes) lies on the lines between.
"""

from lowbit.graph.model import Model
from lowbit.graph.weights import all_weights, node_of
from lowbit.measurement.results import NetworkNode

MOST_NODES = 1000


def network(model: Model) -> tuple[NetworkNode, ...]:
    """Inputs, layers and joins in execution order, then outputs; empty if there are more than a page can show."""
    with_weights = {node_of(weight) for weight in all_weights(model)}
    found = [NetworkNode(info.name, "Input") for info in model.inputs]
    # By tensor, the nodes that it comes from, past the ones that are left out.
    sources = {info.name: {place} for place, info in enumerate(found)}
    for name, node in model.nodes.items():
        feeding: set[int] = set()
        for value in node.inputs:
            feeding |= sources.get(str(value.name), set()) if value is not None else set()
        if name in with_weights or len(feeding) > 1:
            found.append(NetworkNode(name, node.op_type, tuple(sorted(feeding))))
            feeding = {len(found) - 1}
        sources |= {str(value.name): feeding for value in node.outputs}
    found += [NetworkNode(info.name, "Output", tuple(sorted(sources.get(info.name, set())))) for info in model.outputs]
    return tuple(found) if len(found) <= MOST_NODES else ()
