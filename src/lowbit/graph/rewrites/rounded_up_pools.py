"""Average pools that round their size up, in the form that runtimes compute rightly.

The last windows of such a pool may hang over the border. What hangs over is never counted, padding only if asked for
(`count_include_pad`). Where it is, ONNX Runtime's integer kernel divides by the whole window: 7 dB for windows of 5x5
in steps of 5 on 16x16, where 34 are right. PyTorch asks for it in every AvgPool2d(ceil_mode=True), mostly without any
padding that could be counted; then the words are left out, which changes no number. With padding see
`formats/onnx/averages.py`.
"""

import onnx_ir as ir

from lowbit.graph.edit import flag


def count_no_padding(model: ir.Model) -> None:
    """Let average pools without padding count none, and leave out dilations of 1, in place."""
    for node in model.graph:
        if node.op_type != "AveragePool" or node.domain not in ("", "ai.onnx"):
            continue
        attributes = node.attributes
        if all(step == 1 for step in attributes.get_ints("dilations", [])):
            # ONNX Runtime's integer kernel does not know the word, and refuses the file.
            attributes.pop("dilations", None)
        placed = attributes.get_string("auto_pad", "NOTSET")
        padded = placed.startswith("SAME") or (placed == "NOTSET" and any(attributes.get_ints("pads", [])))
        if flag(node, "ceil_mode") and not padded:
            attributes.pop("count_include_pad", None)
