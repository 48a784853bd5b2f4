"""Operators that move values about and leave them as they are."""

import numpy as np
from onnx import helper

from lowbit.importing.tflite.translation import TYPES, Translation

END = np.iinfo(np.int64).max
BEFORE_START = -END
CONSTANT, REFLECT = "constant", "reflect"


def dequantize(model: Translation) -> None:
    """DEQUANTIZE of float16 weights, which are read as float32."""
    index = model.operator.inputs[0]
    if model.tensor(index).dtype != "float16":
        raise model.refused("decodes integers: the file is quantized already")
    array = model.content(index)
    if array is None:
        model.give(model.read(0))
    else:
        model.arrays[model.operator.outputs[0]] = array.astype(np.float32)


def densify(model: Translation) -> None:
    """DENSIFY of weights that leave out zeros."""
    array = model.content(model.operator.inputs[0])
    if array is None:
        raise model.refused("reads a sparse tensor that is computed, not constant")
    model.arrays[model.operator.outputs[0]] = array


def reshape(model: Translation) -> None:
    """RESHAPE: to the shape of its output in the file, with the batch left open; computed where that is open."""
    shape = model.fixed_shape(model.operator.outputs[0])
    target = model.read(1) if shape is None and model.given(1) else model.constant(shape or [-1])
    model.give(model.node("Reshape", [model.read(0), target]))


def expand_dims(model: Translation) -> None:
    """EXPAND_DIMS."""
    model.give(model.node("Unsqueeze", [model.read(0), model.constant(model.integers(1))]))


def squeeze(model: Translation) -> None:
    """SQUEEZE of some axes, or of all of size 1."""
    rank = len(model.shape(model.operator.inputs[0]))
    axes = [axis % rank for axis in model.operator.options.numbers(0)] if rank else []
    if axes:
        model.give(model.node("Squeeze", [model.read(0), model.constant(axes)]))
    else:
        reshape(model)


def transpose(model: Translation) -> None:
    """TRANSPOSE."""
    model.give(model.node("Transpose", [model.read(0)], perm=model.integers(1)))


def concatenation(model: Translation) -> None:
    """CONCATENATION."""
    inputs = [model.read(at) for at in range(len(model.operator.inputs))]
    model.give(model.node("Concat", inputs, axis=model.option(0, "i")), activation=model.option(1))


def pack(model: Translation) -> None:
    """PACK: tensors side by side along a new axis."""
    axis = model.option(1, "i")
    wide = [
        model.node("Unsqueeze", [model.read(at), model.constant([axis])]) for at in range(len(model.operator.inputs))
    ]
    model.give(model.node("Concat", wide, axis=axis))


def unpack(model: Translation) -> None:
    """UNPACK: one tensor for each place along an axis."""
    axis = model.option(1, "i")
    for at in range(len(model.operator.outputs)):
        model.give(model.node("Gather", [model.read(0), model.constant(np.int64(at))], axis=axis), at=at)


def split(model: Translation) -> None:
    """SPLIT into equal parts: the axis is its first input."""
    _split(model, 1, model.integers(0)[0], None)


def split_by_sizes(model: Translation) -> None:
    """SPLIT_V."""
    _split(model, 0, model.integers(2)[0], model.integers(1))


def _split(model: Translation, x: int, axis: int, sizes: list[int] | None) -> None:
    count = len(model.operator.outputs)
    if sizes is None:
        outputs = model.several("Split", [model.read(x)], count, axis=axis, num_outputs=count)
    else:
        whole = model.shape(model.operator.inputs[x])[axis]
        known = [whole - sum(size for size in sizes if size > 0) if size < 0 else size for size in sizes]
        outputs = model.several("Split", [model.read(x), model.constant(known)], count, axis=axis)
    for at, output in enumerate(outputs):
        model.give(output, at=at)


def pad(model: Translation) -> None:
    """PAD, and PADV2 with a value."""
    inputs = [model.read(0), model.constant(_pads(model))]
    if model.given(2):
        inputs.append(model.read(2))
    model.give(model.node("Pad", inputs, mode=CONSTANT))


def mirror_pad(model: Translation) -> None:
    """MIRROR_PAD that does not repeat the border."""
    if model.option(0) != 0:
        raise model.refused("repeats the border (SYMMETRIC), which ONNX does not have")
    model.give(model.node("Pad", [model.read(0), model.constant(_pads(model))], mode=REFLECT))


def _pads(model: Translation) -> list[int]:
    amounts = model.integers(1)
    return [*amounts[::2], *amounts[1::2]]


def slices(model: Translation) -> None:
    """SLICE: where each axis begins, and how many places are kept (-1: all that follow)."""
    begins, sizes = model.integers(1), model.integers(2)
    cuts = {
        axis: (begin, END if size < 0 else begin + size, 1)
        for axis, (begin, size) in enumerate(zip(begins, sizes, strict=True))
        if not model.whole_batch(axis, begin, size, model.operator.inputs[0])
    }
    model.give(_sliced(model, cuts))


def strided_slice(model: Translation) -> None:
    """STRIDED_SLICE, as Python slices: bits say which bounds are left out and which axes go."""
    begins, ends, steps = model.integers(1), model.integers(2), model.integers(3)
    begin_mask, end_mask, ellipsis, new, shrink = (model.option(at, "i") for at in range(5))
    if ellipsis or new:
        raise model.refused("has an ellipsis or a new axis, which are not read")
    cuts: dict[int, tuple[int, int, int]] = {}
    gone = []
    for axis, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        bit = 1 << axis
        if shrink & bit:
            gone.append(axis)
            cuts[axis] = (begin, END if begin == -1 else begin + 1, 1)
            continue
        start = (0 if step > 0 else END) if begin_mask & bit else begin
        stop = (END if step > 0 else BEFORE_START) if end_mask & bit else end
        if not (step == 1 and model.whole_batch(axis, start, stop, model.operator.inputs[0])):
            cuts[axis] = (start, stop, step)
    value = _sliced(model, cuts)
    model.give(model.node("Squeeze", [value, model.constant(gone)]) if gone else value)


def _sliced(model: Translation, cuts: dict[int, tuple[int, int, int]]) -> str:
    cuts = {axis: cut for axis, cut in cuts.items() if cut != (0, END, 1)}
    if not cuts:
        return model.node("Identity", [model.read(0)])
    starts, ends, steps = ([cut[at] for cut in cuts.values()] for at in range(3))
    return model.node("Slice", [model.read(0), *map(model.constant, (starts, ends, list(cuts), steps))])


def gather(model: Translation) -> None:
    """GATHER along one axis."""
    if model.option(1, "i"):
        raise model.refused("gathers batch by batch, which is not read")
    model.give(model.node("Gather", [model.read(0), model.read(1)], axis=model.option(0, "i")))


def broadcast(model: Translation) -> None:
    """BROADCAST_TO."""
    model.give(model.node("Expand", [model.read(0), model.read(1)]))


def select(model: Translation) -> None:
    """SELECT and SELECT_V2."""
    model.give(model.node("Where", [model.read(0), model.read(1), model.read(2)]))


def cast(model: Translation) -> None:
    """CAST."""
    wanted = model.tensor(model.operator.outputs[0]).dtype
    if wanted not in TYPES:
        raise model.refused(f"casts to {wanted}, which is not read")
    model.give(model.node("Cast", [model.read(0)], to=TYPES[wanted]))


def shape(model: Translation) -> None:
    """SHAPE."""
    model.give(model.node("Shape", [model.read(0)]))


def identity_of_type(model: Translation, value: str, dtype: str) -> str:
    """A value as the caller gives or takes it: int32 where the file says so."""
    exact = {"int32": helper.np_dtype_to_tensor_dtype(np.dtype(np.int32))}
    return model.node("Cast", [value], to=exact[dtype]) if dtype in exact else value
