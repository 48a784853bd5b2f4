"""An If whose condition is known is replaced by the branch that it takes.

PyTorch's exporter writes such an If wherever what an operator does depends on a size, as in `x.squeeze(0)`: the size is
known once shapes are inferred, and what stands in the branch is computed in integers like all else.
"""

import onnx_ir as ir

from lowbit.graph.edit import constant, is_standard


def take_known_branches(model: ir.Model) -> bool:
    """Replace each If of the main graph whose condition is a constant by the nodes of its branch, in place."""
    main = model.graph
    changed = False
    for node in tuple(main):
        condition = constant(node.inputs[0]) if node.op_type == "If" and is_standard(node) and node.inputs else None
        if condition is not None and condition.size == 1:
            _take(main, node, "then_branch" if condition.item() else "else_branch")
            changed = True
    return changed


def _take(main: ir.Graph, node: ir.Node, branch: str) -> None:
    """Move what a branch holds before the If, and let it give what the If gives."""
    body = node.attributes[branch].as_graph()
    given = tuple(body.outputs)
    body.outputs.clear()
    taken = _names(main, node)
    for value in tuple(body.initializers.values()):
        del body.initializers[str(value.name)]
        value.name = _free(str(value.name), taken)
        main.register_initializer(value)
    for moved in tuple(body):
        body.remove(moved)
        for output in moved.outputs:
            output.name = _free(output.name, taken) if output.name else output.name
        main.insert_before(node, moved)
    for output, value in zip(node.outputs, given, strict=True):
        # Identities keep the names of graph outputs; those that are not needed go like all others.
        last = ir.node("Identity", [value])
        last.outputs[0].type, last.outputs[0].shape = output.type, output.shape
        last.outputs[0].name, output.name = output.name, None
        output.replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
        main.insert_before(node, last)
    main.remove(node, safe=True)


def _names(main: ir.Graph, choice: ir.Node) -> set[str]:
    """Names of all tensors but those in the branches of one If, of which one is moved and the other goes."""
    branches = [attribute.as_graph() for attribute in choice.attributes.values()]
    graphs = {main, *main.subgraphs()}.difference(branches)
    names = {value.name for graph in graphs for value in (*graph.inputs, *graph.initializers.values())}
    names |= {output.name for graph in graphs for node in graph for output in node.outputs}
    return {name for name in names if name}


def _free(wanted: str, taken: set[str]) -> str:
    """`wanted`, or the first of `wanted_2`, `wanted_3`, ... that is not taken; it is then."""
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name
