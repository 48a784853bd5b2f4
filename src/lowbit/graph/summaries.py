"""A model whose outputs are extremes and samples of its inner tensors, so that the tensors never leave the runtime.

The runtime computes minimum and maximum while it holds the tensor; fetching tensors and reducing them in numpy
took 1.6 times as long as the network itself (MobileNetV2, one thread). What is known is not computed: nothing after a
ReLU is below zero. Extremes are taken by a pooling over all positions, for which ONNX Runtime need not convert its
blocks of channels back into images.

Summaries of early tensors stand after those of late ones, because ONNX Runtime starts from the last node and runs first
what that needs: so every tensor is summarized as soon as it is computed. In the opposite order all tensors were kept
until the network had run (MobileNetV2, 4 images per run: 0.97 s and 200 MB instead of 0.81 s and 75 MB).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lowbit.errors import ModelError
from lowbit.graph.light_model import LightModel
from lowbit.graph.model import Model

LOW, HIGH, SAMPLE = "lowest of ", "highest of ", "sample of "
# Operators whose outputs are never below zero.
NEVER_NEGATIVE = frozenset(("Relu", "Sigmoid", "Softmax"))
MOST, POWER, MEAN, REACH = "reach of ", "power of ", "mean of ", "finite reach of "


def with_summaries(
    model: Model, whole: Collection[str], sampled: Mapping[str, int], *, samples: bool = True
) -> LightModel:
    """A file of the same graph that outputs some tensors whole, and of others extremes and samples.

    Args:
        model: the prepared model.
        whole: tensors to output as they are.
        sampled: tensors [N, ...] with their strides: output as `LOW + name` (unless `never_negative`) and
            `HIGH + name` [N, channels or 1, 1, 1], the largest of each channel and of its negative, and as
            `SAMPLE + name` [N, values], every stride-th value of each image.
        samples: whether samples are wanted at all.

    Raises:
        ModelError: no tensor of that name in the main graph.
    """
    proto = model.light_proto()
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
    flat, planes, start, end, axis = (
        constant(f"summary {what}", *values)
        for what, values in (
            ("flat", (0, -1)),
            ("planes", (0, 1, -1, 1)),
            ("start", (0,)),
            ("end", (np.iinfo(np.int64).max,)),
            ("axis", (1,)),
        )
    )

    def node(op: str, inputs: list[str], output: str) -> str:
        proto.graph.node.append(helper.make_node(op, inputs, [output], name=output))
        return output

    for name in _last_first(model, sampled):
        shape = model.values[name].shape
        source = name if shape is not None and len(shape) == 4 else node("Reshape", [name, planes], f"planes of {name}")
        if not never_negative(model, name):
            give(node("GlobalMaxPool", [node("Neg", [source], f"negative {name}")], LOW + name))
        give(node("GlobalMaxPool", [source], HIGH + name))
        if samples:
            rows, step = node("Reshape", [name, flat], f"rows of {name}"), constant(f"stride of {name}", sampled[name])
            give(node("Slice", [rows, start, end, axis, step], SAMPLE + name))
    return model.light(proto)


def never_negative(model: Model, tensor: str) -> bool:
    """Whether a tensor is known to have no values below zero."""
    producer = model.values[tensor].producer()
    if producer is None or producer.op_type != "Clip":
        return producer is not None and producer.op_type in NEVER_NEGATIVE
    low = producer.inputs[1] if len(producer.inputs) > 1 else None
    return low is not None and low.const_value is not None and float(low.const_value.numpy().min()) >= 0.0


def with_channel_summaries(model: Model, tensors: Sequence[str]) -> LightModel:
    """A file of the same graph that outputs `MOST + name` and `POWER + name` of tensors [N, channels, ...].

    Both are [N, channels, 1, ...]: the largest magnitude and the mean square over positions.
    """
    proto = model.light_proto()
    del proto.graph.output[:]
    for name in _last_first(model, tensors):
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
    return model.light(proto)


def with_reach_summaries(model: Model, tensors: Sequence[str]) -> LightModel:
    """A file of the same graph that outputs `REACH + name` of tensors: the largest magnitude that is finite [].

    Raises:
        ModelError: no tensor of that name in the main graph.
    """
    proto = model.light_proto()
    del proto.graph.output[:]
    zero = "zero of reaches"
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), zero))
    for name in tensors:
        if name not in model.values:
            raise ModelError(f"there is no tensor named {name!r}.", where=model.source)
    for name in _last_first(model, tensors):
        steps = {op: f"{op} for {REACH}{name}" for op in ("Abs", "IsInf", "Where")}
        for op, inputs in (("Abs", [name]), ("IsInf", [name]), ("Where", [steps["IsInf"], zero, steps["Abs"]])):
            proto.graph.node.append(helper.make_node(op, inputs, [steps[op]], name=steps[op]))
        most = helper.make_node("ReduceMax", [steps["Where"]], [REACH + name], name=REACH + name, keepdims=0)
        proto.graph.node.append(most)
        proto.graph.output.append(helper.make_tensor_value_info(REACH + name, TensorProto.FLOAT, []))
    return model.light(proto)


def with_channel_means(model: Model, tensors: Mapping[str, int | None]) -> LightModel:
    """A file of the same graph that outputs `MEAN + name` of some tensors, over positions.

    Args:
        model: the prepared model.
        tensors: None for those of [N, channels, ...], whose means are [N, channels, 1, ...]; the number of channels for
            those of [..., channels], whose means are [1, channels, 1], over images as well.
    """
    proto = model.light_proto()
    del proto.graph.output[:]
    for name in _last_first(model, tensors):
        source, channels = name, tensors[name]
        if channels is not None:
            # The only pooling that has the same attributes in every version of ONNX.
            rows, source, shape = f"rows of {name}", f"columns of {name}", f"shape of rows of {name}"
            proto.graph.initializer.append(numpy_helper.from_array(np.array((1, -1, channels), np.int64), shape))
            proto.graph.node.append(helper.make_node("Reshape", [name, shape], [rows], name=rows))
            proto.graph.node.append(helper.make_node("Transpose", [rows], [source], name=source, perm=(0, 2, 1)))
        proto.graph.node.append(helper.make_node("GlobalAveragePool", [source], [MEAN + name], name=MEAN + name))
        proto.graph.output.append(helper.make_tensor_value_info(MEAN + name, TensorProto.FLOAT, None))
    return model.light(proto)


def _last_first(model: Model, tensors: Iterable[str]) -> list[str]:
    """Tensors of the main graph in the reverse order of their nodes."""
    order = {name: at for at, name in enumerate(model.values)}
    return sorted(tensors, key=order.__getitem__, reverse=True)
