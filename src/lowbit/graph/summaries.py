"""A model that gives extremes and a sample of its inner tensors, so that nobody has to carry them out of the runtime.

The runtime finds least and greatest value while it has the tensor in hand; fetching it and looking again in numpy took
1.6 times as long as the network itself (MobileNetV2, one thread).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lowbit.errors import ModelError
from lowbit.graph.model import Model, serialize

LOW, HIGH, SAMPLE = "lowest of ", "highest of ", "sample of "
MOST, POWER = "reach of ", "power of "


def with_summaries(model: Model, whole: Collection[str], sampled: Mapping[str, int], *, samples: bool = True) -> bytes:
    """An ONNX file of the same graph whose outputs are some tensors, and of others only what they look like.

    Args:
        model: the prepared model.
        whole: tensors to give as they are.
        sampled: tensors [N, ...] to give as `LOW + name` and `HIGH + name`, scalars over the whole batch, and as
            `SAMPLE + name` [N, values], every so-manieth value of each image: the number is that stride.
        samples: whether samples are wanted at all.

    Raises:
        ModelError: no tensor of that name in the main graph.
    """
    proto = model.to_proto()
    del proto.graph.output[:]

    def give(name: str) -> None:
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def constant(name: str, *values: int) -> str:
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    for name in (*whole, *sampled):
        if name not in model.values:
            raise ModelError(f"there is no tensor named {name!r}.", where=model.source)
    for name in whole:
        give(name)
    flat, start, end, axis = (
        constant(f"summary {what}", *values)
        for what, values in (("flat", (0, -1)), ("start", (0,)), ("end", (np.iinfo(np.int64).max,)), ("axis", (1,)))
    )
    for name, stride in sampled.items():
        for op, what in (("ReduceMin", LOW), ("ReduceMax", HIGH)):
            proto.graph.node.append(helper.make_node(op, [name], [what + name], name=what + name, keepdims=0))
            give(what + name)
        if samples:
            rows, step = f"rows of {name}", constant(f"stride of {name}", stride)
            proto.graph.node.append(helper.make_node("Reshape", [name, flat], [rows], name=rows))
            proto.graph.node.append(
                helper.make_node("Slice", [rows, start, end, axis, step], [SAMPLE + name], name=SAMPLE + name)
            )
            give(SAMPLE + name)
    return serialize(proto, model.source)


def with_channel_summaries(model: Model, tensors: Sequence[str]) -> bytes:
    """An ONNX file of the same graph that gives `MOST + name` and `POWER + name` of tensors [N, channels, ...].

    Both are [N, channels, 1, ...]: the largest magnitude and the mean square over positions.
    """
    proto = model.to_proto()
    del proto.graph.output[:]
    for name in tensors:
        shape = model.values[name].shape
        for op, inputs, pool, what in (
            ("Abs", [name], "GlobalMaxPool", MOST),
            ("Mul", [name, name], "GlobalAveragePool", POWER),
        ):
            # A tensor [N, channels] has no positions to reduce.
            flat = shape is None or len(shape) < 3
            inner = what + name if flat else f"{op} for {what}{name}"
            proto.graph.node.append(helper.make_node(op, inputs, [inner], name=inner))
            if not flat:
                proto.graph.node.append(helper.make_node(pool, [inner], [what + name], name=what + name))
            proto.graph.output.append(helper.make_tensor_value_info(what + name, TensorProto.FLOAT, None))
    return serialize(proto, model.source)
