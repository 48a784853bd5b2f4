"""The integer graph that OpenVINO runs fastest; how it differs from the one for ONNX Runtime.

- A sum takes one operand from its convolution directly, as float: OpenVINO adds inside the convolution, and the operand
  is not rounded on its way. (ONNX Runtime has no such kernel; its whole network would be 1.5 times as slow.)
- A function of what a layer gives and of nothing else, such as SiLU or GELU, reads it as float: OpenVINO computes it
  inside the layer's kernel, where pairs would make kernels of their own (a small YOLO: 0.83 of the time) and round
  twice more (21 dB of output SQNR become 28).
- What only moves codes has no pair of its own, so that OpenVINO can merge such nodes (ResNet20's shortcuts: 1 %).
- What only float nodes read comes from its layer as float.
- Parts of a Concat outside of images have no pair of their own if they share its scale.
- The image has its own colors only, each with its own zero point: no channel is added for the kernel's sake. For
  OpenVINO adding it is work (MobileNetV2, batch 32: 1.3 % of the time); for ONNX Runtime it saves more than that.

The file holds standard operators and runs anywhere; it is only slower elsewhere.
"""

from collections.abc import Iterator
from dataclasses import replace

from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Node, Value


def for_openvino(quantized: QuantizedGraph) -> QuantizedGraph:
    """The same integers, as OpenVINO runs them fastest."""
    given = quantized.byte_input
    if given is not None and given.layers:
        by_color = with_byte_input(quantized, preprocessing=given.preprocessing, layout=given.layout, by_color=True)
        assert by_color.byte_input is not None
        quantized = replace(by_color, byte_input=replace(by_color.byte_input, takes_floats=given.takes_floats))
    fused = {*_fused(quantized), *_moved(quantized), *_joined(quantized), *_for_floats(quantized)}
    fused |= _inside_functions(quantized)
    return replace(
        quantized, activations={name: codes for name, codes in quantized.activations.items() if name not in fused}
    )


# Operators that OpenVINO moves dequantization past.
MOVES = frozenset(("Slice", "Pad", "Reshape", "Flatten", "Squeeze", "Unsqueeze"))
IMAGE_RANK = 4
LAYERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# Operators that functions of one tensor are made of: the first make a function, the others go with them.
FUNCTIONS = frozenset(("Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Sigmoid", "Softplus", "Tanh"))
POINTWISE = FUNCTIONS | {"Add", "Div", "Mul", "Sub"}
# Operators that are written on codes, so that these must be there (`formats/onnx/write.py`).
ON_CODES = frozenset(("Pad", "Relu", "Clip"))


def _moved(quantized: QuantizedGraph) -> set[str]:
    """Tensors that only moved, unless something needs their codes as a tensor."""
    moved: set[str] = set()
    for node in reversed(quantized.model.graph):
        value = node.outputs[0]
        codes = quantized.activations.get(str(value.name))
        integer = node.op_type in MOVES and node.name in quantized.integer
        if not integer or codes is None or value.is_graph_output():
            continue
        if node.op_type == "Pad" and codes.zero_point:
            # OpenVINO 2026.4 would give the zero point one value per channel, and then refuse the network.
            continue
        users = [user for user, _ in value.uses() if user.op_type in ON_CODES and user.name in quantized.integer]
        if all(user.outputs[0].name in moved for user in users):
            moved.add(str(value.name))
    return moved


def _for_floats(quantized: QuantizedGraph) -> set[str]:
    """What convolutions give and only float nodes read, on the way moved or not: OpenVINO's give float as well.

    With a pair OpenVINO 2026.4 would round more than that: of a Concat in float all parts to the codes of one, such as
    the class token of a transformer to those of its patches.
    """
    floats: set[str] = set()
    for node in reversed(quantized.model.graph):
        value = node.outputs[0]
        if node.name not in quantized.integer or value.is_graph_output() or not _from_convolution(node):
            continue
        users = [user for user, _ in value.uses()]
        if node.op_type not in MOVES | {"Transpose"} and any(user.op_type == "Concat" for user in users):
            continue  # whose constant parts OpenVINO would round to the scales of the layer's channels
        if all(
            user.outputs[0].name in floats if user.name in quantized.integer else user.name not in quantized.absorbed
            for user in users
        ):
            floats.add(str(value.name))
    return floats


def _from_convolution(node: Node) -> bool:
    """Whether a node is a convolution or moves what one gives; not all moves take the scales of a MatMul's columns."""
    while node.op_type in MOVES | {"Transpose"}:
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if producer is None:
            return False
        node = producer
    return node.op_type in ("Conv", "ConvTranspose")


def _joined(quantized: QuantizedGraph) -> Iterator[str]:
    """Parts of a Concat in its own scale that nothing else computes on: they are rounded behind it, as well as before.

    OpenVINO 2026.4 would take that second rounding out and give the zero point one value for each part; a MatMul behind
    it then refuses the network. Convolutions of images can have such zero points.
    """
    for node in quantized.model.graph:
        shape = node.outputs[0].shape
        if node.op_type != "Concat" or node.name not in quantized.integer or shape is None or len(shape) == IMAGE_RANK:
            continue
        codes = quantized.activations.get(str(node.outputs[0].name))
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if value is None or producer is None or value.is_graph_output() or producer.name in quantized.absorbed:
                continue
            alone = all(user is node or user.name not in quantized.integer for user, _ in value.uses())
            if alone and producer.op_type not in ON_CODES and quantized.activations.get(str(value.name)) == codes:
                yield str(value.name)


def _fused(quantized: QuantizedGraph) -> Iterator[str]:
    """Of each sum the operand that a convolution can add to the other; where both can, the second."""
    for node in quantized.model.graph:
        if node.op_type != "Add" or node.name not in quantized.integer:
            continue
        for value in reversed(node.inputs):
            producer = value.producer() if value is not None else None
            if value is None or producer is None or value.is_graph_output() or len(list(value.uses())) != 1:
                continue
            # An activation that is done by saturation needs codes to saturate.
            if producer.op_type == "Conv" and producer.name in quantized.integer:
                yield str(value.name)
                break


def _inside_functions(quantized: QuantizedGraph) -> set[str]:
    """What layers give to a function of nothing else, and the tensors inside that function."""
    inside: set[str] = set()
    for layer in quantized.model.graph:
        if layer.op_type not in LAYERS or layer.name not in quantized.integer:
            continue
        nodes = _pointwise_after(layer)
        for count in range(len(nodes), 0, -1):  # the longest one that gives one tensor
            function = nodes[:count]
            values = [layer.outputs[0], *(node.outputs[0] for node in function)]
            given = [value for value in values if not _only_for(value, function)]
            if len(given) == 1 and any(node.op_type in FUNCTIONS for node in function):
                inside.update(str(value.name) for value in values if value is not given[0])
                break
    return inside


def _pointwise_after(layer: Node) -> list[Node]:
    """Nodes that read nothing but a layer's output, constants, and each other, in execution order."""
    found: list[Node] = []
    values = [layer.outputs[0]]
    for value in values:  # which grows
        for user, _ in value.uses():
            known = all(each is None or each.const_value is not None or each in values for each in user.inputs)
            if known and user not in found and user.op_type in POINTWISE:
                found.append(user)
                values.append(user.outputs[0])
    return found


def _only_for(value: Value, nodes: list[Node]) -> bool:
    """Whether nobody else reads a tensor."""
    return not value.is_graph_output() and all(user in nodes for user, _ in value.uses())
