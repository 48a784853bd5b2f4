"""The integer graph that OpenVINO runs fastest; how it differs from the one for ONNX Runtime.

- A sum takes one operand from its convolution directly, as float: OpenVINO adds inside the convolution, and the operand
  is not rounded on its way. (ONNX Runtime has no such kernel; its whole network would be 1.5 times as slow.)
- A function of what a layer gives and of nothing else, such as SiLU or GELU, reads it as float: OpenVINO computes it
  inside the layer's kernel, where pairs would make kernels of their own (a small YOLO: 0.83 of the time) and round
  twice more (21 dB of output SQNR become 28).
- What only moves codes has no pair of its own, so that OpenVINO can merge such nodes (ResNet20's shortcuts: 1 %).
- What a Pad or a Resize copies is rounded before it is copied: the rounding is done in the kernel in front, and the
  copies are bytes (style transfer with reflected borders: 0.93 of the time).
- What no layer reads in the end is float, outputs of the network included: rounding it would only add kernels.
- Parts of a Concat get one scale where theirs are near, and what is joined has no pair then
  (`formats/onnx/joined_scales.py`).
- The image has its own colors only, each with its own zero point: no channel is added for the kernel's sake. For
  OpenVINO adding it is work (MobileNetV2, batch 32: 1.3 % of the time); for ONNX Runtime it saves more than that.

The file holds standard operators and runs anywhere; it is only slower elsewhere.
"""

from collections.abc import Iterator
from dataclasses import replace

from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.onnx.joined_scales import with_joined_scales
from lowbit.formats.quantized_graph import DATA_MOVEMENT, ActivationCodes, QuantizedGraph
from lowbit.graph.model import Node, Value


def for_openvino(quantized: QuantizedGraph) -> QuantizedGraph:
    """The same integers, as OpenVINO runs them fastest."""
    quantized = _rounded_before_copies(with_joined_scales(quantized))
    given = quantized.byte_input
    if given is not None and given.layers:
        by_color = with_byte_input(quantized, preprocessing=given.preprocessing, layout=given.layout, by_color=True)
        assert by_color.byte_input is not None
        quantized = replace(by_color, byte_input=replace(by_color.byte_input, takes_floats=given.takes_floats))
    unread = _unread(quantized)
    plain = {*_fused(quantized), *_moved(quantized), *_joined(quantized), *_inside_functions(quantized), *unread}
    # Where there are no codes any more, saturation stands for nothing.
    written = {str(node.name) for node in quantized.model.graph if node.outputs[0].name in unread}
    return replace(
        quantized,
        activations={name: codes for name, codes in quantized.activations.items() if name not in plain},
        absorbed=quantized.absorbed - written,
    )


PRODUCTS = frozenset(("Gemm", "MatMul"))
LAYERS = PRODUCTS | {"Conv", "ConvTranspose"}
# Operators that functions of one tensor are made of: the first make a function, the others go with them.
FUNCTIONS = frozenset(
    ("Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Sigmoid", "Softplus", "Tanh")
)
POINTWISE = FUNCTIONS | {"Add", "Div", "Mul", "Sub"}
# Operators whose output holds values of their input, some of them often.
COPIES = frozenset(("Pad", "Resize"))
# Operators that are written on codes, so that these must be there (`formats/onnx/write.py`).
ON_CODES = frozenset(("Pad", "Relu", "Clip"))


def _rounded_before_copies(quantized: QuantizedGraph) -> QuantizedGraph:
    """Codes of what only a Pad or a Resize of floats reads, which then copies codes: fewer values are rounded."""
    activations, integer = dict(quantized.activations), set(quantized.integer)
    for node in reversed(quantized.model.graph):
        x, codes = node.inputs[0] if node.inputs else None, activations.get(str(node.outputs[0].name))
        if node.op_type not in COPIES or node.name in integer or x is None or codes is None:
            continue
        # An input of the network may be image bytes, which are codes already.
        if x.producer() is None or x.is_graph_output() or len(x.uses()) > 1 or not _copies_exactly(node, codes):
            continue
        activations[str(x.name)] = codes
        integer.add(str(node.name))
    return replace(quantized, activations=activations, integer=frozenset(integer))


def _moved(quantized: QuantizedGraph) -> set[str]:
    """Tensors that only moved, unless something needs their codes as a tensor."""
    moved: set[str] = set()
    for node in reversed(quantized.model.graph):
        if node.op_type not in DATA_MOVEMENT or node.name not in quantized.integer:
            continue
        for value in node.outputs:
            codes = quantized.activations.get(str(value.name))
            if codes is None or value.is_graph_output():
                continue
            if node.op_type == "Pad" and codes.zero_point:
                # OpenVINO 2026.4 would give the zero point one value per channel, and then refuse the network.
                continue
            users = [user for user, _ in value.uses() if user.op_type in ON_CODES and user.name in quantized.integer]
            if all(user.outputs[0].name in moved for user in users):
                moved.add(str(value.name))
    return moved


def _copies_exactly(node: Node, codes: ActivationCodes) -> bool:
    """Whether all that a node gives is what it reads, or a zero that has a code."""
    if node.op_type == "Resize":
        frame = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
        return node.attributes.get_string("mode", "nearest") == "nearest" and frame != "tf_crop_and_resize"
    mode = node.attributes.get_string("mode", "constant")
    filler = node.inputs[2] if len(node.inputs) > 2 else None
    zero = filler is None or (filler.const_value is not None and not filler.const_value.numpy().any())
    return codes.zero_point == 0 and (mode != "constant" or zero)


def _unread(quantized: QuantizedGraph) -> set[str]:
    """Tensors whose codes no layer reads, be it through sums, pools, joins and moves: they stay float.

    Some stay rounded nevertheless: what only moves the columns of a MatMul, whose scales not all moves take, and parts
    of a Concat, of which OpenVINO 2026.4 would round more than that: all parts to the codes of one, such as the class
    token of a transformer to those of its patches.
    """
    integer = quantized.integer | quantized.absorbed
    read: set[str] = set()
    unread: set[str] = set()
    for node in reversed(quantized.model.graph):
        for value in node.outputs:
            users = [user for user, _ in value.uses()]
            moves = any(user.op_type in DATA_MOVEMENT for user in users)
            if node.op_type in DATA_MOVEMENT:
                kept = not _from_convolution(node)
            else:
                kept = any(user.op_type == "Concat" for user in users) or (node.op_type in PRODUCTS and moves)
            by_layer = any(
                user.op_type in LAYERS or any(output.name in read for output in user.outputs)
                for user in users
                if user.name in integer
            )
            if kept or by_layer:
                read.add(str(value.name))
            elif value.name in quantized.activations:
                unread.add(str(value.name))
    return unread


def _from_convolution(node: Node) -> bool:
    """Whether a node is a convolution or moves what one gives."""
    while node.op_type in DATA_MOVEMENT:
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if producer is None:
            return False
        node = producer
    return node.op_type in ("Conv", "ConvTranspose")


def _joined(quantized: QuantizedGraph) -> Iterator[str]:
    """What a Concat joins whose parts all have its codes already: it is on their grid."""
    for node in quantized.model.graph:
        value = node.outputs[0]
        if node.op_type != "Concat" or node.name not in quantized.integer or value.is_graph_output():
            continue
        codes = quantized.activations.get(str(value.name))
        parts = [None if part is None else quantized.activations.get(str(part.name)) for part in node.inputs]
        on_codes = any(user.op_type in ON_CODES and user.name in quantized.integer for user, _ in value.uses())
        if codes is not None and all(part == codes for part in parts) and not on_codes:
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
