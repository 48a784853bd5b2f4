"""QuantizedGraph -> ONNX: standard operators only, so that any runtime loads the file.

Weight-only tensors become a few constant nodes that runtimes fold once at load (`formats/onnx/decode_nodes.py`).
Integer models become QuantizeLinear/DequantizeLinear pairs around float operators, the form from which ONNX Runtime and
OpenVINO make integer kernels: uint8 activations, int8 weights, int32 biases. Where the two like different graphs, the
file is made for one of them (`formats/onnx/openvino.py`).

Everything is a rewrite: first of the integers, then of the graph that becomes the file. Those that have nothing to do
for a model leave it as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.appended_axes import write_appended_axes
from lowbit.formats.onnx.averages import write_averages
from lowbit.formats.onnx.block_kernels import write_block_kernels
from lowbit.formats.onnx.byte_input import write_byte_input
from lowbit.formats.onnx.channel_padding import pad_first_layers
from lowbit.formats.onnx.decode_nodes import write_codes, write_halves
from lowbit.formats.onnx.draft import Draft, Rewrite, begin, write_tables
from lowbit.formats.onnx.dynamic import write_compressed, write_dynamic
from lowbit.formats.onnx.float_islands import write_float_islands
from lowbit.formats.onnx.float_types import write_float_types, write_float_types_for_openvino
from lowbit.formats.onnx.float_volumes import with_float_volumes
from lowbit.formats.onnx.float_zero_points import write_float_zero_points
from lowbit.formats.onnx.integer_tables import write_integer_tables
from lowbit.formats.onnx.integer_weights import write_integer_weights
from lowbit.formats.onnx.integers import absorb_activations, write_conversions
from lowbit.formats.onnx.lines import write_lines_as_images
from lowbit.formats.onnx.openvino import for_openvino
from lowbit.formats.onnx.rounded_extremes import write_rounded_extremes
from lowbit.formats.onnx.rows_of_biases import write_rows_of_biases
from lowbit.formats.onnx.separate_biases import write_separate_biases
from lowbit.formats.onnx.softmaxes import write_softmaxes
from lowbit.formats.onnx.wider_groups import write_wider_groups
from lowbit.formats.onnx.zero_points import without_zero_points
from lowbit.formats.quantized_graph import UINT8, QuantizedGraph
from lowbit.graph.model import serialize
from lowbit.graph.preprocessing import METADATA_KEY
from lowbit.graph.rewrites.bodies import sink_into_scans


def write_float_values(draft: Draft) -> Draft:
    """Corrected values of tensors that stay float."""
    for name, array in draft.quantized.float_values.items():
        draft.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return draft


def write_metadata(draft: Draft) -> Draft:
    """What the file says of itself."""
    draft.model.metadata_props.update(draft.quantized.metadata)
    preprocessing = draft.quantized.model.preprocessing
    if preprocessing is not None:
        # Stated by the user or by the model: the file says so too, and nobody has to state it again.
        draft.model.metadata_props[METADATA_KEY] = preprocessing.to_json()
    return draft


def fill_scans(draft: Draft) -> Draft:
    """What bodies of Scan read stands in them."""
    sink_into_scans(draft.model)
    return draft


def drop_unused(draft: Draft) -> Draft:
    """Nodes and initializers that nothing reads any more leave the graph."""
    graph = draft.graph
    for node in reversed(tuple(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in tuple(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    return draft


def without_wide_codes(quantized: QuantizedGraph) -> QuantizedGraph:
    """For OpenVINO 16-bit activations are float: it takes their rounding out, and saturation with it (2026.4).

    As codes behind DequantizeLinear it would also round the inputs of matrix products, to 8 bits.
    """
    if quantized.kind.bits == UINT8.bits:
        return quantized
    return replace(quantized, activations={}, biases={}, integer=frozenset(), absorbed=frozenset(), as_planned=False)


def drop_names(draft: Draft) -> Draft:
    """Nodes that were added need no names: the library's own, such as node_DequantizeLinear_7, take 30 bytes each."""
    known = {node.name for node in draft.quantized.model.graph}
    for node in draft.graph:
        if node.name not in known and str(node.name).startswith(f"node_{node.op_type}_"):
            node.name = ""
    return draft


def drop_shapes(draft: Draft) -> Draft:
    """Shapes of inner tensors, which runtimes infer: of files with codes of fewer than 8 bits 2 to 3 % of the bytes."""
    if any(codes.bits < WHOLE_BYTE for codes in draft.quantized.weights.values()):
        for node in draft.graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = value.type = None
    return draft


def drop_assumed(draft: Draft) -> Draft:
    """Attributes of layers that say what the standard assumes."""
    for node in draft.graph:
        if node.op_type in ASSUMED_OF and node.domain == "":
            for name, value in ASSUMED.items():
                given = node.attributes.get(name)
                if given is not None and set(np.ravel(given.value)) == {value}:
                    del node.attributes[name]
    return draft


AS_PLANNED = "as planned"
WHOLE_BYTE = 8
ASSUMED_OF = ("Conv", "ConvTranspose")
ASSUMED = {"strides": 1, "dilations": 1, "pads": 0, "group": 1}
# By `FileForm.to`, first to last: what is done to the integers before anything is written,
INTEGER_REWRITES: Mapping[str, tuple[Callable[[QuantizedGraph], QuantizedGraph], ...]] = {
    AS_PLANNED: (),
    "onnx": (with_float_volumes, without_zero_points),
    "openvino": (without_zero_points, for_openvino),
}
# and to the graph that becomes the file.
INTEGERS: tuple[Rewrite, ...] = (absorb_activations, write_averages, write_integer_weights)
CONVERSIONS: tuple[Rewrite, ...] = (write_conversions, write_float_islands)
CODES: tuple[Rewrite, ...] = (write_codes, write_tables, write_halves, write_metadata, write_byte_input)
ENDING: tuple[Rewrite, ...] = (write_integer_tables, fill_scans, drop_unused, drop_names, drop_assumed, drop_shapes)
GRAPH_REWRITES: Mapping[str, tuple[Rewrite, ...]] = {
    AS_PLANNED: (
        *(write_float_values, absorb_activations, write_integer_weights, *CONVERSIONS, *CODES),
        *(write_float_types, fill_scans, drop_unused, drop_names),
    ),
    "onnx": (
        *(write_float_values, *INTEGERS, write_softmaxes, *CONVERSIONS, pad_first_layers),
        *(write_wider_groups, write_dynamic, write_block_kernels, *CODES, write_rows_of_biases),
        *(write_float_types, *ENDING),
    ),
    "openvino": (
        *(
            write_float_values,
            *INTEGERS,
            write_lines_as_images,
            *CONVERSIONS,
            write_rounded_extremes,
            write_appended_axes,
            write_float_zero_points,
            write_compressed,
            *CODES,
        ),
        *(write_separate_biases, write_float_types_for_openvino, *ENDING),
    ),
}


def to_onnx(quantized: QuantizedGraph, *, to: str = "onnx") -> bytes:
    """The content of the ONNX file; the same input always gives the same bytes.

    Args:
        quantized: what to write.
        to: whose kernels the graph of integers is made for: "onnx", those of ONNX Runtime, or "openvino".

    Raises:
        ModelError: the file would pass the 2 GB that protobuf allows.
    """
    quantized = without_wide_codes(quantized) if to == "openvino" else quantized
    to = AS_PLANNED if quantized.as_planned else to
    for change in INTEGER_REWRITES[to]:
        quantized = change(quantized)
    draft = begin(quantized)
    for rewrite in GRAPH_REWRITES[to]:
        draft = rewrite(draft)
    return serialize(ir.to_proto(draft.model), quantized.model.source)
