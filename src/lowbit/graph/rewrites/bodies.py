"""Weights inside bodies of If, Loop and Scan move to the main graph, whose tensors bodies may read.

There they can be quantized like any other, and two bodies that read the same weight share it. What turns or cuts a
weight is folded (`fold_constants`). Everything else stays: a node that runs in one branch may fail in another, and
runtimes infer shapes only from constants beside a node.

In a file, what a body of Scan reads stands in the body again: OpenVINO takes it for a tensor that is scanned.
"""

import onnx_ir as ir

from lowbit.graph.edit import add_initializer, constant, free_name

FEWEST = 64  # values from which a float constant is worth moving


def lift_weights(model: ir.Model) -> None:
    """Move float constants of bodies to the main graph, in place."""
    main = model.graph
    for body in tuple(main.subgraphs()):
        for value in tuple(body.initializers.values()):
            if _is_weight(value):
                _lift(main, body, value)


def _is_weight(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.dtype.kind == "f" and array.size >= FEWEST and not value.is_graph_output()


def _lift(main: ir.Graph, body: ir.Graph, value: ir.Value) -> None:
    del body.initializers[str(value.name)]
    value.name = free_name(main, str(value.name))
    main.register_initializer(value)


def sink_into_scans(model: ir.Model) -> None:
    """Copy constants that bodies of Scan read from outside into the bodies, with the nodes that compute them."""
    for node in tuple(model.graph.all_nodes()):
        if node.op_type == "Scan" and node.domain in ("", "ai.onnx"):
            body = node.attributes["body"].as_graph()
            inside = {body, *body.subgraphs()}
            copies: dict[ir.Value, ir.Value] = {}
            for reader in tuple(body.all_nodes()):
                for index, value in enumerate(reader.inputs):
                    if value is not None and value.graph not in inside and _is_constant(value):
                        reader.replace_input_with(index, _copied(value, model.graph, body, copies))
            for value in reversed(copies):  # what only the body needed leaves the main graph, readers first
                if not value.uses() and not value.is_graph_output():
                    _remove(model.graph, value)


def _remove(graph: ir.Graph, value: ir.Value) -> None:
    maker = value.producer()
    if maker is not None:
        graph.remove(maker, safe=True)
    else:
        del graph.initializers[str(value.name)]


def _is_constant(value: ir.Value) -> bool:
    maker = value.producer()
    if maker is None:
        return constant(value) is not None
    return bool(maker.inputs) and all(read is not None and _is_constant(read) for read in maker.inputs)


def _copied(value: ir.Value, main: ir.Graph, body: ir.Graph, copies: dict[ir.Value, ir.Value]) -> ir.Value:
    """A copy of a constant in the body, its makers before the body's own nodes."""
    if value in copies:
        return copies[value]
    maker, name = value.producer(), f"{body.name or 'scan'}/{value.name}"
    if maker is None:
        array = constant(value)
        assert array is not None
        copies[value] = add_initializer(body, free_name(main, name), array)
    else:
        inputs = [_copied(read, main, body, copies) for read in maker.inputs if read is not None]
        own = ir.Node("", maker.op_type, inputs, attributes=tuple(maker.attributes.values()), num_outputs=1)
        first = next(node for node in body if node.outputs[0] not in copies.values())
        own.outputs[0].name = free_name(main, name)
        own.outputs[0].type, own.outputs[0].shape = value.type, value.shape
        body.insert_before(first, own)
        copies[value] = own.outputs[0]
    return copies[value]
