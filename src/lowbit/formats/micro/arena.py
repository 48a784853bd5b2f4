"""The arena of TensorFlow Lite Micro: how many bytes of RAM an interpreter takes for a file, and what they are for.

    arena = activations + kernel scratch + bookkeeping

Activations are planned as the interpreter plans them (`planner`): a graph's inputs live from the start, its outputs to
the end, everything else from the operator that gives it to the last that reads it; each takes a multiple of 16 bytes.
Scratch of operators lives as long as they run. Bookkeeping is what stays for as long as the interpreter lives: a record
of each tensor and operator, what each kernel keeps (`kernels`), 32-bit multipliers and shifts of output channels. While
it plans, the interpreter needs room for the plan itself, which small networks do not have otherwise.

Two kinds of kernels: "reference" ones, which any processor runs, and those of CMSIS-NN for Arm Cortex-M, which copy
patches of the image as int16 first. Not counted: other graphs of the file than the first, scratch of operators that
lowbit does not write (LSTM, SVDF), and libraries for other processors (ESP-NN, vendors' NPUs).

Sources: micro_allocator.cc and micro_allocation_info.cc of tflite-micro; arm_convolve_get_buffer_sizes_s8.c and
arm_depthwise_conv_get_buffer_sizes_s8.c of CMSIS-NN (their sizes for processors with DSP instructions; with Helium
they are about the same).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lowbit.engines.litert_reader import LiteRtFile, StoredGraph, StoredOperator, StoredTensor
from lowbit.errors import ModelError
from lowbit.formats.micro.kernels import LAYERS
from lowbit.formats.micro.operators import kernel_of, operator_name, tensor_at
from lowbit.formats.micro.planner import Buffer, extent, fullest_step

ALIGNMENT = 16
REFERENCE, CMSIS_NN = "reference", "cmsis-nn"
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8, "bool": 1}
ITEM_BYTES |= {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
# More buffers than any microcontroller's network has, and than can be planned quickly.
MOST_BUFFERS = 2000


@dataclass(frozen=True)
class Records:
    """Bytes of the interpreter's own records, by the size of a pointer.

    Attributes:
        tensor: of each tensor.
        operator: of each operator.
        border: of each input and output of the graph.
        scale: more, if it has a scale.
        fixed: of the allocator, the planner and the like.
        planned: while it plans, of each tensor and scratch buffer.
        placed: while it plans, of each buffer in the plan.
        requested: while it plans, of each scratch buffer.
        preparing: least room to prepare operators and to plan in.
    """

    tensor: int
    operator: int
    border: int
    scale: int
    fixed: int
    planned: int
    placed: int
    requested: int
    preparing: int


# Those of 8-byte pointers were measured; those of 4 bytes follow from the structures, of which pointers are a part.
RECORDS = {4: Records(12, 32, 44, 24, 280, 24, 40, 12, 420), 8: Records(24, 64, 72, 32, 496, 32, 40, 16, 750)}


@dataclass(frozen=True)
class Peak:
    """The operator that runs when most bytes of activations are in use.

    Attributes:
        operator: its name.
        place: how many operators come before it.
        bytes: in use then: no plan can be smaller.
        tensors: name, shape and bytes of what is in use, the largest first.
    """

    operator: str
    place: int
    bytes: int
    tensors: tuple[tuple[str, tuple[int, ...], int], ...] = field(repr=False)


@dataclass(frozen=True)
class Arena:
    """RAM of an interpreter, by part, in bytes.

    Attributes:
        activations: the plan of all activations.
        scratch: what the kernels' scratch adds to it.
        variables: tensors that keep their values from one run to the next.
        tensors: records of tensors.
        operators: records of operators.
        kernel_records: what kernels keep.
        interpreter: the rest of its records.
        planning: room for the plan, where that is more than activations and scratch take.
        peak: which operator sets the size of the activations.
    """

    activations: int
    scratch: int
    variables: int
    tensors: int
    operators: int
    kernel_records: int
    interpreter: int
    planning: int
    peak: Peak

    @property
    def parts(self) -> dict[str, int]:
        """All parts by name; they sum to `bytes`."""
        return {name: value for name, value in vars(self).items() if name != "peak"}

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.parts.values())


def arena_of(file: LiteRtFile, source: str, *, kernels: str = CMSIS_NN, pointer: int = 4) -> Arena:
    """The arena that the first graph of a file needs.

    Args:
        file: what was read.
        source: its name, for errors.
        kernels: "cmsis-nn" or "reference".
        pointer: bytes of a pointer: 4 on microcontrollers, 8 on a desktop machine.

    Raises:
        ModelError: too many activations for a microcontroller.
    """
    graph, records = file.graphs[0], RECORDS[pointer]
    activations = _activations(file, graph)
    scratch = [
        Buffer(_aligned(size), step, step)
        for step, operator in enumerate(graph.operators, start=1)
        for size in _scratch(graph, operator, kernels)
    ]
    if len(activations) + len(scratch) > MOST_BUFFERS:
        raise ModelError(f"has {len(activations)} activations, too many for a microcontroller.", where=source)
    plain = extent(list(activations.values()))
    planned = extent([*activations.values(), *scratch])
    border = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    return Arena(
        activations=plain,
        scratch=planned - plain,
        variables=sum(_aligned(tensor_bytes(tensor)) for tensor in graph.tensors if tensor.variable),
        tensors=sum(records.tensor * len(each.tensors) for each in file.graphs),
        operators=sum(records.operator * len(each.operators) for each in file.graphs),
        kernel_records=sum(_kept(graph, operator) for operator in graph.operators),
        interpreter=records.fixed
        + sum(records.border + (records.scale if tensor.scale.size else 0) for tensor in border),
        planning=max(0, _planning(records, len(graph.tensors), len(activations), len(scratch)) - planned),
        peak=_peak(graph, activations),
    )


def tensor_bytes(tensor: StoredTensor) -> int:
    """Bytes of a tensor in RAM, with the batch that the file states."""
    return math.prod(tensor.shape) * ITEM_BYTES.get(tensor.dtype, 1)


def _activations(file: LiteRtFile, graph: StoredGraph) -> dict[int, Buffer]:
    """By tensor, all that operators or the caller fill; step 0 is the caller's, step i + 1 that of operator i."""
    first = dict.fromkeys((*graph.inputs, *graph.outputs), 0)
    last = dict(first)
    for step, operator in enumerate(graph.operators, start=1):
        given = [index for index in operator.outputs if index >= 0]
        first |= dict.fromkeys(given, step)
        last |= dict.fromkeys([index for index in operator.inputs if index >= 0] + given, step)
    last |= dict.fromkeys(graph.outputs, len(graph.operators))
    found = {}
    for index, tensor in enumerate(graph.tensors):
        size = tensor_bytes(tensor)
        if index in last and size and not tensor.variable and not file.buffers[tensor.buffer].size:
            found[index] = Buffer(_aligned(size), first.get(index, 0), last[index])
    return found


def _planning(records: Records, tensors: int, activations: int, scratch: int) -> int:
    """Bytes that the interpreter needs to make the plan in."""
    listed = records.planned * (tensors + scratch) + records.placed * (activations + scratch)
    return max(records.preparing, listed + records.requested * scratch + 56)


def _scratch(graph: StoredGraph, operator: StoredOperator, kernels: str) -> Sequence[int]:
    """Bytes of each scratch buffer of an operator."""
    name, kernel = operator_name(operator), kernel_of(operator)
    data = tensor_at(graph, operator.inputs, kernel.data) if kernel else None
    result = tensor_at(graph, operator.outputs, 0)
    if data is None or result is None:
        return ()
    coded = data.dtype in ("int8", "int16")
    if name in ("MEAN", "SUM"):
        sums = [4 * math.prod(result.shape)] if coded else []
        return 4 * len(data.shape), 4 * len(data.shape), *sums
    if name.startswith("REDUCE") or name == "MIRROR_PAD":
        return 4 * len(data.shape), 4 * len(data.shape)
    if name == "ADD_N":
        return [8 * len(operator.inputs)]
    if name == "TRANSPOSE_CONV" and coded:
        return [math.prod(result.shape) * (4 if data.dtype == "int8" else 8)]
    if name in LAYERS and coded:
        weight = graph.tensors[operator.inputs[LAYERS[name][0]]]
        unpacked = [math.prod(weight.shape)] if weight.dtype == "int4" else []
        return (*unpacked, *(_patches(name, data, weight) if kernels == CMSIS_NN else ()))
    if name == "AVERAGE_POOL_2D" and coded and kernels == CMSIS_NN:
        return [4 * result.shape[-1]] if result.shape else ()
    return ()


def _patches(name: str, data: StoredTensor, weight: StoredTensor) -> Sequence[int]:
    """Two patches of the image as int16; none for pointwise products, one of all channels for a depthwise layer."""
    if len(weight.shape) != 4 or weight.shape[1:3] == (1, 1):
        return ()
    size = math.prod(weight.shape[1:])
    if name == "CONV_2D":
        return [2 * 2 * (-(-size // 4) * 4)]
    same = bool(data.shape) and data.shape[-1] == weight.shape[3]
    return [2 * size] if name == "DEPTHWISE_CONV_2D" and same and weight.shape[1:3] != (3, 3) else ()


def _kept(graph: StoredGraph, operator: StoredOperator) -> int:
    """Bytes that a kernel keeps."""
    name, kernel = operator_name(operator), kernel_of(operator)
    if kernel is None:
        return 0
    first, second = (tensor_at(graph, operator.inputs, place) for place in (0, 1))
    size = kernel.bytes
    if name in LAYERS and second is not None:
        axis = LAYERS[name][1]
        several = second.scale.size > 4 or name != "FULLY_CONNECTED"
        channels = second.shape[axis] if len(second.shape) > axis and several else 0
        size += 2 * _aligned(4 * channels)
    elif name == "SOFTMAX" and first is not None and first.dtype == "int16":
        size += 2 * _aligned(2 * 513)  # tables of exp(x) and 1 / (1 + x)
    elif name == "BATCH_MATMUL" and second is not None:
        size += tensor_bytes(second)  # turned
    return _aligned(size)


def _peak(graph: StoredGraph, activations: dict[int, Buffer]) -> Peak:
    step, size = fullest_step(list(activations.values()))
    alive = [index for index, buffer in activations.items() if buffer.first <= step <= buffer.last]
    place = max(0, min(step, len(graph.operators)) - 1)
    name = operator_name(graph.operators[place]) if graph.operators else ""
    tensors = [(graph.tensors[index].name, graph.tensors[index].shape, activations[index].size) for index in alive]
    return Peak(name, place, size, tuple(sorted(tensors, key=lambda entry: -entry[2])))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
