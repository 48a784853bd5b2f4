"""Layers, pools and resizing: what ONNX computes channels-first, and matrix products."""

import numpy as np

from lowbit.importing.tflite.translation import Translation

SAME, VALID = 0, 1


def convolution(model: Translation) -> None:
    """CONV_2D: weights [out, height, width, in of a group]."""
    weight = _weights(model, 1)
    groups = model.shape(model.operator.inputs[0])[3] // max(weight.shape[3], 1)
    dilations = [model.option(5, "i", 1), model.option(4, "i", 1)]
    _convolve(model, weight.transpose(0, 3, 1, 2), groups, dilations, activation=model.option(3))


def depthwise_convolution(model: Translation) -> None:
    """DEPTHWISE_CONV_2D: weights [1, height, width, out], the outputs of each channel side by side."""
    weight = _weights(model, 1)
    groups = model.shape(model.operator.inputs[0])[3]
    dilations = [model.option(6, "i", 1), model.option(5, "i", 1)]
    _convolve(model, weight.transpose(3, 0, 1, 2), groups, dilations, activation=model.option(4))


def _convolve(model: Translation, weight: np.ndarray, groups: int, dilations: list[int], *, activation: int) -> None:
    strides = [model.option(2, "i"), model.option(1, "i")]
    kernel = list(weight.shape[2:])
    x = model.channels_first(model.read(0))
    inputs = [x, model.constant(np.ascontiguousarray(weight), _name(model, 1))]
    if model.given(2):
        inputs.append(model.read(2))
    how = _padding(model, 0, kernel, strides, dilations)
    y = model.node("Conv", inputs, kernel_shape=kernel, strides=strides, dilations=dilations, group=groups, **how)
    model.give(model.channels_last(y), activation=activation)


def transposed_convolution(model: Translation) -> None:
    """TRANSPOSE_CONV: inputs are the output's shape, the weights [out, height, width, in], x, and perhaps biases."""
    _convolve_transposed(model, 2, 3, [model.option(2, "i"), model.option(1, "i")], activation=model.option(3))


def transposed_convolution_of_mediapipe(model: Translation) -> None:
    """Convolution2DTransposeBias: inputs are x, the weights [out, height, width, in] and biases.

    Its options are the bytes of `TfLiteTransposeConvParams`, which start with the padding and the strides along width
    and height. The padding follows from the output's size, as it does for TRANSPOSE_CONV.
    """
    options = model.file.array(model.operator.custom_options, "<i4")
    _convolve_transposed(model, 0, 2, [int(options[2]), int(options[1])], activation=0)


def _convolve_transposed(model: Translation, x: int, bias: int, strides: list[int], *, activation: int) -> None:
    """With x and biases at these of the operator's inputs, and the weights at 1."""
    weight = _weights(model, 1)
    sizes, wanted = model.shape(model.operator.inputs[x])[1:3], model.shape(model.operator.outputs[0])[1:3]
    kernel = list(weight.shape[1:3])
    if min(kernel + strides) < 1:
        raise ValueError(f"a kernel of {kernel} with strides {strides}")
    pads, beyond = [0, 0, 0, 0], [0, 0]
    for axis in range(2):
        extra = (sizes[axis] - 1) * strides[axis] + kernel[axis] - wanted[axis]
        before = max(extra, 0) // 2
        pads[axis], pads[axis + 2] = before, max(extra, 0) - before
        beyond[axis] = max(-extra, 0)
    inputs = [
        model.channels_first(model.read(x)),
        model.constant(np.ascontiguousarray(weight.transpose(3, 0, 1, 2)), _name(model, 1)),
    ]
    if model.given(bias):
        inputs.append(model.read(bias))
    how = {"strides": strides, "pads": pads, "output_padding": beyond, "kernel_shape": kernel}
    model.give(model.channels_last(model.node("ConvTranspose", inputs, **how)), activation=activation)


def fully_connected(model: Translation) -> None:
    """FULLY_CONNECTED: weights [out, in], on the last axis or on all behind the batch together."""
    if model.option(1):
        raise model.refused("has shuffled weights, which are not read")
    x = model.read(0)
    _, width = model.shape(model.operator.inputs[1])
    rank = len(model.shape(model.operator.inputs[0]))
    keeps = model.flag(2) and rank != 2
    weight = model.array(1)
    if keeps or weight is None:
        turned = (
            model.node("Transpose", [model.read(1)], perm=[1, 0])
            if weight is None
            else model.constant(np.ascontiguousarray(weight.T), _name(model, 1))
        )
        x = x if keeps or rank == 2 else model.node("Reshape", [x, model.constant([-1, width])])
        y = model.node("MatMul", [x, turned])
        y = model.node("Add", [y, model.read(2)]) if model.given(2) else y
    else:
        x = x if rank == 2 else model.node("Reshape", [x, model.constant([-1, width])])
        inputs = [x, model.read(1), *([model.read(2)] if model.given(2) else [])]
        y = model.node("Gemm", inputs, transB=1)
    wanted = model.shape(model.operator.outputs[0])
    if not keeps and len(wanted) != 2:
        y = model.node("Reshape", [y, model.constant([-1, *wanted[1:]])])
    model.give(y, activation=model.option(0))


def matrix_product(model: Translation) -> None:
    """BATCH_MATMUL, whose operands may each be turned."""
    operands = []
    for at in (0, 1):
        rank = len(model.shape(model.operator.inputs[at]))
        axes = [*range(rank - 2), rank - 1, rank - 2]
        name = model.read(at)
        operands.append(model.node("Transpose", [name], perm=axes) if model.flag(at) else name)
    model.give(model.node("MatMul", operands))


def average_pool(model: Translation) -> None:
    """AVERAGE_POOL_2D: the border does not count."""
    _pool(model, "AveragePool", count_include_pad=0)


def max_pool(model: Translation) -> None:
    """MAX_POOL_2D."""
    _pool(model, "MaxPool")


def _pool(model: Translation, op: str, **more: int) -> None:
    strides = [model.option(2, "i"), model.option(1, "i")]
    kernel = [model.option(4, "i"), model.option(3, "i")]
    how = _padding(model, 0, kernel, strides, [1, 1])
    y = model.node(op, [model.channels_first(model.read(0))], kernel_shape=kernel, strides=strides, **how, **more)
    model.give(model.channels_last(y), activation=model.option(5))


def resize_bilinear(model: Translation) -> None:
    """RESIZE_BILINEAR."""
    _resize(model, "linear", aligned=model.flag(2), half=model.flag(3))


def resize_nearest(model: Translation) -> None:
    """RESIZE_NEAREST_NEIGHBOR."""
    _resize(model, "nearest", aligned=model.flag(0), half=model.flag(1))


def _resize(model: Translation, mode: str, *, aligned: bool, half: bool) -> None:
    place = "align_corners" if aligned else "half_pixel" if half else "asymmetric"
    rounding = {"nearest_mode": "round_prefer_ceil" if aligned or half else "floor"} if mode == "nearest" else {}
    x = model.channels_first(model.read(0))
    sizes = zip(model.integers(1), model.shape(model.operator.inputs[0])[1:3], strict=True)
    scales = model.constant(np.array([1, 1, *(_factor(new, old) for new, old in sizes)], np.float32))
    how = {"mode": mode, "coordinate_transformation_mode": place, **rounding}
    model.give(model.channels_last(model.node("Resize", [x, "", scales], **how)))


def _factor(new: int, old: int) -> np.float32:
    """The factor by which ONNX comes to this size: it rounds down. Sizes themselves would fix the batch."""
    factor = np.float32(new / old)
    return factor if int(np.float32(old) * factor) == new else np.nextafter(factor, np.float32(np.inf))


def depth_to_space(model: Translation) -> None:
    """DEPTH_TO_SPACE."""
    x = model.channels_first(model.read(0))
    model.give(model.channels_last(model.node("DepthToSpace", [x], blocksize=model.option(0, "i"), mode="DCR")))


def space_to_depth(model: Translation) -> None:
    """SPACE_TO_DEPTH."""
    x = model.channels_first(model.read(0))
    model.give(model.channels_last(model.node("SpaceToDepth", [x], blocksize=model.option(0, "i"))))


def _padding(
    model: Translation, padding_at: int, kernel: list[int], strides: list[int], dilations: list[int]
) -> dict[str, list[int] | str]:
    """SAME as pads, which depend on the size of the image; where that is open, by the name ONNX has for it."""
    if min(kernel + strides + dilations) < 1:
        raise ValueError(f"a kernel of {kernel} with strides {strides} and dilations {dilations}")
    if model.option(padding_at) == VALID:
        return {}
    index = model.operator.inputs[0]
    if set(model.tensor(index).open_axes) & {1, 2}:
        return {"auto_pad": "SAME_UPPER"}
    pads = [0, 0, 0, 0]
    for axis, size in enumerate(model.shape(index)[1:3]):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach - size, 0)
        pads[axis], pads[axis + 2] = total // 2, total - total // 2
    return {"pads": pads}


def _weights(model: Translation, at: int) -> np.ndarray:
    weight = model.array(at)
    if weight is None or weight.ndim != 4:
        raise model.refused("computes its weights, which must be constants")
    return weight


def _name(model: Translation, at: int) -> str:
    return model.tensor(model.operator.inputs[at]).name
