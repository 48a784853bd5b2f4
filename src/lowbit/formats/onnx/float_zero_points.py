"""Zero points as float constants, since OpenVINO moves and merges conversions only with such.

OpenVINO 2026.4 reads DequantizeLinear as a conversion to float, a subtraction of the zero point, which is itself
converted from uint8, and a multiplication. It takes the first conversion into the kernel before or behind it (a sum, a
second rounding, an output of the network) only where the zero point is a float constant. Elsewhere the conversion and
the subtraction are kernels of their own. So a DequantizeLinear with a zero point is written out: Cast, Sub and Mul give
the same numbers bit for bit.
"""

import numpy as np
import onnx_ir as ir

from lowbit.formats.onnx.draft import Draft, put_in_place


def write_float_zero_points(draft: Draft) -> Draft:
    """Write out each DequantizeLinear of an activation whose one zero point is not 0."""
    for node in tuple(draft.graph):
        if node.op_type != "DequantizeLinear" or node.domain or len(node.inputs) < 3:
            continue
        codes, scale, zero_point = node.inputs
        if codes is None or codes.producer() is None or zero_point is None or zero_point.const_value is None:
            continue
        value = zero_point.const_value.numpy()
        if value.size != 1 or not value.any():
            continue
        cast = ir.node("Cast", [codes], {"to": ir.DataType.FLOAT})
        difference = ir.node("Sub", [cast.outputs[0], draft.names.constant(np.float32(value.item()))])
        for made in (cast, difference):
            result = made.outputs[0]
            result.name, result.dtype, result.shape = draft.names.fresh("z"), ir.DataType.FLOAT, node.outputs[0].shape
        put_in_place(draft.graph, node, [cast, difference, ir.node("Mul", [difference.outputs[0], scale])])
    return draft
