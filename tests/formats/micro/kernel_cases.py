"""One .tflite file for each operator and type, so that an interpreter can be asked whether it has the kernel."""

from collections.abc import Callable

import numpy as np

import lowbit
import networks
from lowbit.formats.litert.builder import FileBuilder
from lowbit.formats.litert.file import FileTensor, serialize

SHAPE = (1, 4, 4, 8)
SCALE = np.array([0.05], np.float32)
CODED = ("int8", "uint8", "int16")
TYPES = ("float32", "int8", "int16", "uint8", "int32", "bool")


class Case:
    """A file with one operator under construction; its tensors are of one type."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.builder = FileBuilder()
        self.inputs: list[int] = []

    def tensor(self, shape=SHAPE, dtype: str | None = None, scale=SCALE, zero_point: int = 0) -> int:
        dtype = dtype or self.dtype
        coded = dtype in CODED
        self.builder.tensors.append(
            FileTensor(tuple(shape), dtype, f"t{len(self.builder.tensors)}", scale=scale if coded else None,
                       zero_point=zero_point)
        )  # fmt: skip
        return len(self.builder.tensors) - 1

    def input(self, shape=SHAPE, dtype: str | None = None) -> int:
        self.inputs.append(self.tensor(shape, dtype))
        return self.inputs[-1]

    def weight(self, shape, channels: int, axis: int) -> int:
        """A weight: int8 with a scale per channel beside codes, else of the case's own type."""
        values = np.arange(np.prod(shape)).reshape(shape) % 5 - 2
        if self.dtype == "float32":
            return self.builder.constant(values.astype(np.float32))
        scale = np.linspace(0.01, 0.02, channels, dtype=np.float32)
        return self.builder.constant(values.astype(np.int8), scale=scale, axis=axis)

    def bias(self, channels: int) -> int:
        if self.dtype == "float32":
            return self.builder.constant(np.zeros(channels, np.float32))
        scale = np.linspace(0.01, 0.02, channels, dtype=np.float32) * SCALE
        return self.builder.constant(np.zeros(channels, np.int64 if self.dtype == "int16" else np.int32), scale=scale)

    def integers(self, *values: int) -> int:
        return self.builder.integers(values)

    def file(self, code: str, inputs, outputs, table: str | None = "", version: int = 1, **options) -> bytes:
        self.builder.operator(code, inputs, outputs, table=table, options=options, version=version)
        return serialize(
            self.builder.tensors, self.builder.operators, inputs=self.inputs, outputs=outputs, metadata={}, source=code
        )


def unary(code: str, table: str | None = None, output: tuple | None = None, **options) -> Callable[[str], bytes]:
    def make(dtype: str) -> bytes:
        case = Case(dtype)
        x = case.input()
        fixed = {"LOGISTIC": (1 / 256, 1 / 32768), "TANH": (1 / 128, 1 / 32768), "SOFTMAX": (1 / 256, 1 / 32768),
                 "LOG_SOFTMAX": (16 / 256, 16 / 256)}.get(code)  # fmt: skip
        scale, zero_point = SCALE, 0
        if fixed:
            scale = np.array([fixed[dtype == "int16"]], np.float32)
            zero_point = {"LOGISTIC": -128, "SOFTMAX": -128, "LOG_SOFTMAX": 127}.get(code, 0) if dtype == "int8" else 0
        y = case.tensor(output or SHAPE, scale=scale, zero_point=zero_point)
        return case.file(code, [x], [y], table, **options)

    return make


def binary(code: str, table: str | None = "", result: str | None = None, **options) -> Callable[[str], bytes]:
    def make(dtype: str) -> bytes:
        case = Case(dtype)
        read = [case.input(), case.input()]
        return case.file(code, read, [case.tensor(dtype=result)], table, **options)

    return make


def with_integers(code: str, values, output, table: str | None = "", result: str | None = None, **options):
    """An operator that reads its activation and constant int32 vectors."""

    def make(dtype: str) -> bytes:
        case = Case(dtype)
        read = [case.input(), *(case.integers(*each) for each in values)]
        return case.file(code, read, [case.tensor(output, result)], table, **options)

    return make


def convolution(dtype: str) -> bytes:
    case = Case(dtype)
    read = [case.input(), case.weight((16, 3, 3, 8), 16, 0), case.bias(16)]
    return case.file("CONV_2D", read, [case.tensor((1, 4, 4, 16))], table="Conv2DOptions", strideW=1, strideH=1,
                     dilationWFactor=1, dilationHFactor=1)  # fmt: skip


def depthwise(dtype: str) -> bytes:
    case = Case(dtype)
    read = [case.input(), case.weight((1, 3, 3, 8), 8, 3), case.bias(8)]
    return case.file("DEPTHWISE_CONV_2D", read, [case.tensor()], table="DepthwiseConv2DOptions", strideW=1, strideH=1,
                     depthMultiplier=1, dilationWFactor=1, dilationHFactor=1)  # fmt: skip


def product(dtype: str) -> bytes:
    case = Case(dtype)
    read = [case.input((1, 32)), case.weight((10, 32), 10, 0), case.bias(10)]
    return case.file("FULLY_CONNECTED", read, [case.tensor((1, 10))])


def transposed(dtype: str) -> bytes:
    case = Case(dtype)
    read = [case.integers(1, 8, 8, 4), case.weight((4, 2, 2, 8), 4, 0), case.input(), case.bias(4)]
    return case.file("TRANSPOSE_CONV", read, [case.tensor((1, 8, 8, 4))], strideW=2, strideH=2, padding=1)


def pool(code: str):
    options = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2, "padding": 1}
    return unary(code, "Pool2DOptions", (1, 2, 2, 8), **options)


def matrices(dtype: str) -> bytes:
    case = Case(dtype)
    read = [case.input((1, 4, 8)), case.input((1, 8, 6))]
    return case.file("BATCH_MATMUL", read, [case.tensor((1, 4, 6))], table="BatchMatMulOptions")


def conversion(code: str, result: str):
    def make(dtype: str) -> bytes:
        case = Case(dtype)
        return case.file(code, [case.input()], [case.tensor(dtype=result)])

    return make


def split(dtype: str) -> bytes:
    case = Case(dtype)
    read = [case.builder.constant(np.array(3, np.int32)), case.input()]
    return case.file("SPLIT", read, [case.tensor((1, 4, 4, 4)), case.tensor((1, 4, 4, 4))], numSplits=2)


def split_sizes(dtype: str) -> bytes:
    case = Case(dtype)
    read = [case.input(), case.integers(2, 6), case.builder.constant(np.array(3, np.int32))]
    return case.file("SPLIT_V", read, [case.tensor((1, 4, 4, 2)), case.tensor((1, 4, 4, 6))], numSplits=2)


def unpack(dtype: str) -> bytes:
    case = Case(dtype)
    return case.file("UNPACK", [case.input((2, 8))], [case.tensor((8,)), case.tensor((8,))], num=2, axis=0)


def padding_with(dtype: str) -> bytes:
    case = Case(dtype)
    scale = SCALE if dtype in CODED else None
    zero = case.builder.constant(np.zeros(1, dtype), scale=scale)
    read = [case.input(), case.builder.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)), zero]
    return case.file("PADV2", read, [case.tensor((1, 6, 6, 8))], table="PadV2Options")


def padding(code: str, **options):
    def make(dtype: str) -> bytes:
        case = Case(dtype)
        pads = case.builder.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
        return case.file(code, [case.input(), pads], [case.tensor((1, 6, 6, 8))], **options)

    return make


def choice(dtype: str) -> bytes:
    case = Case(dtype)
    read = [case.input(dtype="bool"), case.input(), case.input()]
    return case.file("SELECT_V2", read, [case.tensor()], table="SelectV2Options")


def gather(dtype: str) -> bytes:
    case = Case(dtype)
    return case.file("GATHER", [case.input(), case.integers(0, 2)], [case.tensor((1, 4, 4, 2))], axis=3)


def gather_places(dtype: str) -> bytes:
    case = Case(dtype)
    places = case.builder.constant(np.array([[0, 1], [0, 2]], np.int32))
    return case.file("GATHER_ND", [case.input(), places], [case.tensor((2, 4, 8))], table="GatherNdOptions")


def reshape(dtype: str) -> bytes:
    case = Case(dtype)
    return case.file("RESHAPE", [case.input(), case.integers(1, 128)], [case.tensor((1, 128))], newShape=[1, 128])


def lookup(dtype: str) -> bytes:
    case = Case(dtype)
    table = case.builder.constant(np.ones((4, 8), dtype), scale=SCALE if dtype in CODED else None)
    rows = case.input((2,), "int32")
    return case.file("EMBEDDING_LOOKUP", [rows, table], [case.tensor((2, 8))], table=None)


POOL = {f"{kind}_POOL_2D": pool(f"{kind}_POOL_2D") for kind in ("AVERAGE", "MAX", "L2")}
CASES: dict[str, Callable[[str], bytes]] = {
    **{code: unary(code) for code in ("CEIL", "ELU", "FLOOR", "LOG", "LOGISTIC", "RELU", "RELU6", "ROUND", "RSQRT",
                                      "SIN", "SQRT", "TANH")},
    **{code: unary(code, "") for code in ("ABS", "COS", "EXP", "HARD_SWISH", "NEG", "SQUARE", "ZEROS_LIKE",
                                          "LOG_SOFTMAX", "LOGICAL_NOT")},
    "L2_NORMALIZATION": unary("L2_NORMALIZATION", "L2NormOptions"),
    "LEAKY_RELU": unary("LEAKY_RELU", "", alpha=0.25),
    "SOFTMAX": unary("SOFTMAX", "", beta=1.0),
    **{code: binary(code) for code in ("ADD", "SUB", "MUL", "DIV", "FLOOR_DIV", "FLOOR_MOD", "SQUARED_DIFFERENCE",
                                       "ADD_N")},
    **{code: binary(code, "MaximumMinimumOptions") for code in ("MAXIMUM", "MINIMUM")},
    **{code: binary(code, result="bool") for code in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS",
                                                      "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR")},
    "PRELU": binary("PRELU", None),
    "CONCATENATION": lambda dtype: concatenation(dtype),
    "PACK": lambda dtype: stack(dtype),
    **POOL,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": product,
    "TRANSPOSE_CONV": transposed,
    "BATCH_MATMUL": matrices,
    "QUANTIZE": conversion("QUANTIZE", "int8"),
    "DEQUANTIZE": conversion("DEQUANTIZE", "float32"),
    "CAST": conversion("CAST", "float32"),
    "SPLIT": split,
    "SPLIT_V": split_sizes,
    "UNPACK": unpack,
    "PAD": padding("PAD"),
    "PADV2": padding_with,
    "MIRROR_PAD": padding("MIRROR_PAD", mode=0),
    "SELECT_V2": choice,
    "GATHER": gather,
    "GATHER_ND": gather_places,
    "EMBEDDING_LOOKUP": lookup,
    "RESHAPE": reshape,
    "SQUEEZE": unary("SQUEEZE", "", (4, 4, 8), squeezeDims=[0]),
    "SHAPE": lambda dtype: shape_of(dtype),
    "ARG_MAX": with_integers("ARG_MAX", [[3]], (1, 4, 4), result="int32"),
    "ARG_MIN": with_integers("ARG_MIN", [[3]], (1, 4, 4), result="int32"),
    **{code: with_integers(code, [[1, 2]], (1, 8), "ReducerOptions") for code in ("MEAN", "SUM", "REDUCE_MAX",
                                                                                   "REDUCE_MIN", "REDUCE_ALL")},
    "RESIZE_BILINEAR": with_integers("RESIZE_BILINEAR", [[8, 8]], (1, 8, 8, 8)),
    "RESIZE_NEAREST_NEIGHBOR": with_integers("RESIZE_NEAREST_NEIGHBOR", [[8, 8]], (1, 8, 8, 8)),
    "REVERSE_V2": with_integers("REVERSE_V2", [[1]], SHAPE, "ReverseV2Options"),
    "EXPAND_DIMS": with_integers("EXPAND_DIMS", [[0]], (1, *SHAPE)),
    "BROADCAST_TO": with_integers("BROADCAST_TO", [[2, 4, 4, 8]], (2, 4, 4, 8)),
    "CUMSUM": with_integers("CUMSUM", [[1]], SHAPE, "CumsumOptions"),
    "SLICE": with_integers("SLICE", [[0, 1, 1, 0], [1, 2, 2, 8]], (1, 2, 2, 8)),
    "STRIDED_SLICE": with_integers("STRIDED_SLICE", [[0, 1, 1, 0], [1, 3, 3, 8], [1, 1, 1, 1]], (1, 2, 2, 8)),
    "TRANSPOSE": with_integers("TRANSPOSE", [[0, 3, 1, 2]], (1, 8, 4, 4)),
    "DEPTH_TO_SPACE": unary("DEPTH_TO_SPACE", "", (1, 8, 8, 2), blockSize=2),
    "SPACE_TO_DEPTH": unary("SPACE_TO_DEPTH", "", (1, 2, 2, 32), blockSize=2),
    "SPACE_TO_BATCH_ND": lambda dtype: batches("SPACE_TO_BATCH_ND", SHAPE, (4, 2, 2, 8), dtype),
    "BATCH_TO_SPACE_ND": lambda dtype: batches("BATCH_TO_SPACE_ND", (4, 2, 2, 8), SHAPE, dtype),
    "GELU": unary("GELU", ""),
    "POW": binary("POW"),
}  # fmt: skip


def concatenation(dtype: str) -> bytes:
    case = Case(dtype)
    return case.file("CONCATENATION", [case.input(), case.input()], [case.tensor((1, 4, 4, 16))], axis=3)


def stack(dtype: str) -> bytes:
    case = Case(dtype)
    return case.file("PACK", [case.input(), case.input()], [case.tensor((2, *SHAPE))], valuesCount=2, axis=0)


def shape_of(dtype: str) -> bytes:
    case = Case(dtype)
    return case.file("SHAPE", [case.input()], [case.tensor((4,), "int32")], outType=2)


def batches(code: str, shape, result, dtype: str) -> bytes:
    case = Case(dtype)
    borders = case.builder.constant(np.zeros((2, 2), np.int32))
    read = [case.input(shape), case.integers(2, 2), borders]
    table = "SpaceToBatchNDOptions" if code.startswith("SPACE") else "BatchToSpaceNDOptions"
    return case.file(code, read, [case.tensor(result)], table)


def written_files(folder):
    """A network of lowbit's in int8 throughout, and the same with a float border."""
    model = lowbit.load(networks.residual_network())
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(3), effort="fast")
    whole, border = folder / "int8.tflite", folder / "border.tflite"
    quantized.save(whole, form=lowbit.FileForm(input="int8", output_type="int8"))
    quantized.save(border)
    return whole, border
