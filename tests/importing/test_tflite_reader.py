"""Float .tflite files -> ONNX: what LiteRT answers is the truth."""

import contextlib
import tracemalloc

import numpy as np
import pytest

import litert_cases as cases
from lowbit import load
from lowbit.engines import open_session
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import LowbitError, ModelError
from lowbit.formats.litert.file import FileOperator
from lowbit.formats.litert.write import to_litert
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.importing.imported import Given
from lowbit.importing.tflite.operators import OPERATORS, REFUSED
from lowbit.importing.tflite.read import read_tflite
from tflite_files import Edited, File, answers, leave_out_zeros

pytest.importorskip("ai_edge_litert")
RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def written(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", cases.CASES)
def test_what_lowbit_writes_comes_back(name, tmp_path):
    rng = np.random.default_rng([7, len(name)])
    model = cases.CASES[name](rng)
    x = cases.inputs(model, rng)
    back = load(written(tmp_path, to_litert(QuantizedGraph(model))))
    assert back.inputs[0].shape[1:] == model.inputs[0].shape[1:]
    assert isinstance(back.inputs[0].shape[0], str)
    wanted = open_session(model.to_bytes()).run({model.inputs[0].name: x})
    found = open_session(back.to_bytes()).run({back.inputs[0].name: x})
    assert found.keys() == wanted.keys()
    for output in wanted:
        np.testing.assert_allclose(found[output], wanted[output], rtol=1e-5, atol=1e-5 * np.abs(wanted[output]).max())


def conv(file, size, *, stride=1, dilation=1, padding=0, fused=0, kernel=3, depthwise=False):
    channels = file.tensors[file.last].shape[-1]
    reach = (kernel - 1) * dilation + 1
    sides = [-(-(n if padding == 0 else n - reach + 1) // stride) for n in size]
    options = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation, "dilationWFactor": dilation}
    options |= {"padding": padding, "fusedActivationFunction": fused}
    if depthwise:
        weight, bias = normal(1, kernel, kernel, 2 * channels), normal(2 * channels)
        options["depthMultiplier"] = 2
        code, table = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
    else:
        weight, bias = normal(5, kernel, kernel, channels), normal(5)
        code, table = "CONV_2D", "Conv2DOptions"
    inputs = [file.last, file.constant(weight), file.constant(bias)]
    file.add(code, inputs, (1, *sides, bias.size), table=table, **options)
    return file


def unary(code, table="", **options):
    def build():
        file = File((1, 4, 5, 3))
        file.add(code, [0], (1, 4, 5, 3), table=table, **options)
        return file

    return build


def moved(code, shape, *constants, dtype="int32", table="", of=(1, 4, 6, 4), type="float32", **options):
    """An operator on x and constants."""

    def build():
        file = File(of)
        inputs = [0, *(file.constant(values, dtype) for values in constants)]
        file.add(code, inputs, shape, type, table=table, **options)
        return file

    return build


def pool(code, size, **options):
    def build():
        file = File((1, 7, 6, 3))
        how = {
            "padding": 0,
            "strideH": 2,
            "strideW": 2,
            "filterHeight": 3,
            "filterWidth": 2,
            "fusedActivationFunction": 1,
        }
        file.add(code, [0], (1, *size, 3), table="Pool2DOptions", **(how | options))
        return file

    return build


def resized(code, table, **options):
    def build():
        file = File((1, 3, 4, 2))
        file.add(code, [0, file.constant([7, 8], "int32")], (1, 7, 8, 2), table=table, **options)
        return file

    return build


def doubled(code, table):
    def build():
        file = File((1, 3, 4, 2))
        size = file.constant([6, 8], "int32")
        file.add(code, [0, size], (1, 6, 8, 2), table=table, halfPixelCenters=True)
        return file

    return build


def transposed(padding, sides, stride):
    def build():
        file = File((1, 4, 5, 3))
        inputs = [file.constant([1, *sides, 2], "int32"), file.constant(normal(2, 3, 3, 3)), 0]
        options = {"padding": padding, "strideH": stride, "strideW": stride}
        file.add("TRANSPOSE_CONV", inputs, (1, *sides, 2), table="TransposeConvOptions", **options)
        return file

    return build


def half_weights():
    file = File((1, 6, 6, 3))
    stored = file.constant(normal(4, 1, 1, 3).astype(np.float16), "float16")
    weight = file.add("DEQUANTIZE", [stored], (4, 1, 1, 3), table="DequantizeOptions")
    file.add(
        "CONV_2D", [0, weight, file.constant(normal(4))], (1, 6, 6, 4), table="Conv2DOptions", strideH=1, strideW=1
    )
    return file


def without_zeros(order, listed, block=(), vector="Int32"):
    """Weights [8, 1, 1, 4] of which a third is stored, as float16."""

    def build():
        values = normal(8, 1, 1, 4).astype(np.float16)
        if block:
            values *= np.kron(np.array([[1, 0], [0, 0], [0, 1], [1, 1]]), np.ones((2, 2)))[:, None, None]
        else:
            values[RANDOM.random(values.shape) < 0.6] = 0
        file = Edited((1, 5, 6, 4), leave_out_zeros(values, order, listed, block, vector))
        stored = file.constant(values, "float16")
        dense = file.add("DENSIFY", [stored], values.shape, "float16", table="DensifyOptions")
        weight = file.add("DEQUANTIZE", [dense], values.shape, table="DequantizeOptions")
        inputs = [0, weight, file.constant(normal(8))]
        file.add("CONV_2D", inputs, (1, 5, 6, 8), table="Conv2DOptions", strideH=1, strideW=1)
        return file

    return build


def transposed_of_mediapipe(padding, sides, kernel):
    """TRANSPOSE_CONV under the name that MediaPipe gave it when it had no biases, with stride 2."""

    def edit(schema, model):
        (code,) = model.operatorCodes
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = "Convolution2DTransposeBias"
        (operator,) = model.subgraphs[0].operators
        operator.builtinOptionsType, operator.builtinOptions = 0, None
        operator.customOptions = np.frombuffer(np.array([padding, 2, 2], "<i4").tobytes(), np.uint8)

    def build():
        file = Edited((1, 4, 5, 3), edit)
        file.add(
            "TRANSPOSE_CONV", [0, file.constant(normal(2, kernel, kernel, 3)), file.constant(normal(2))], (1, *sides, 2)
        )
        return file

    return build


def flattened_by_its_shape():
    """As Keras models with an open batch are converted: the batch is read from the shape."""
    file = File((1, 2, 3, 4))
    shape = file.add("SHAPE", [0], (4,), "int32", table="ShapeOptions", outType=2)
    ends = [file.constant([at], "int32") for at in (0, 1, 1)]
    batch = file.add("STRIDED_SLICE", [shape, *ends], (), "int32", table="StridedSliceOptions", shrinkAxisMask=1)
    rest = file.constant(24, "int32")
    target = file.add("PACK", [batch, rest], (2,), "int32", table="PackOptions", valuesCount=2, axis=0)
    file.add("RESHAPE", [0, target], (1, 24), table="ReshapeOptions", newShape=[])
    return file


def dense(keep, fused=1):
    def build():
        file = File((1, 3, 4))
        shape = (1, 3, 6) if keep else (3, 6)
        inputs = [0, file.constant(normal(6, 4)), file.constant(normal(6))]
        file.add(
            "FULLY_CONNECTED",
            inputs,
            shape,
            table="FullyConnectedOptions",
            keepNumDims=keep,
            fusedActivationFunction=fused,
        )
        return file

    return build


def split(code, table, **more):
    def build():
        file = File((1, 2, 3, 6))
        first = file.constant([2, 4], "int32") if code == "SPLIT_V" else None
        axis = file.constant(3, "int32")
        inputs = (0, first, axis) if code == "SPLIT_V" else (axis, 0)
        widths = (2, 4) if code == "SPLIT_V" else (3, 3)
        outputs = tuple(file.tensor((1, 2, 3, width)) for width in widths)
        file.operators.append(FileOperator(code, inputs, outputs, {"numSplits": 2}, table, 1))
        file.add("CONCATENATION", outputs[::-1], (1, 2, 3, 6), table="ConcatenationOptions", axis=3)
        return file

    return build


def products(turn_x, turn_y):
    def build():
        file = File((2, 3, 4) if not turn_x else (2, 4, 3), batch=False)
        y = file.constant(normal(2, 5, 4) if turn_y else normal(2, 4, 5))
        file.add("BATCH_MATMUL", [0, y], (2, 3, 5), table="BatchMatMulOptions", adjX=turn_x, adjY=turn_y)
        return file

    return build


def pair(code, table, dtype="float32"):
    def build():
        file = File((1, 3, 4))
        inputs = [0, file.constant(normal(1, 3, 4))]
        file.add(code, inputs, (1, 3, 4), dtype, table=table)
        return file

    return build


def logical(code, table):
    def build():
        file = File((1, 3, 4))
        zero, one = file.constant(np.float32(0.0)), file.constant(np.float32(1.0))
        more = file.add("GREATER", [0, zero], (1, 3, 4), "bool", table="GreaterOptions")
        less = file.add("NOT_EQUAL", [0, one], (1, 3, 4), "bool", table="NotEqualOptions")
        both = file.add(code, [more] if code == "LOGICAL_NOT" else [more, less], (1, 3, 4), "bool", table=table)
        file.add("CAST", [both], (1, 3, 4), table="CastOptions", inDataType=6, outDataType=0)
        return file

    return build


def regrouped(code, table, shape):
    def build():
        file = File((1, 4, 6, 8))
        file.add(code, [0], shape, table=table, blockSize=2)
        return file

    return build


def chosen(code, table):
    def build():
        file = File((1, 3, 4))
        zero = file.constant(np.float32(0.0))
        positive = file.add("GREATER", [0, zero], (1, 3, 4), "bool", table="GreaterOptions")
        file.add(code, [positive, 0, file.constant(normal(1, 3, 4))], (1, 3, 4), table=table)
        return file

    return build


def pad_by_value():
    file = File((1, 3, 4))
    amounts = file.constant([[0, 0], [1, 0], [2, 1]], "int32")
    file.add("PADV2", [0, amounts, file.constant(np.float32(0.5))], (1, 4, 7), table="PadV2Options")
    return file


def greatest():
    file = File((1, 3, 4))
    file.add("ARG_MAX", [0, file.constant(2, "int32")], (1, 3), "int64", table="ArgMaxOptions", outputType=4)
    return file


def unpacked():
    file = File((1, 2, 4))
    outputs = tuple(file.tensor((1, 4)) for _ in range(2))
    file.operators.append(FileOperator("UNPACK", (0,), outputs, {"num": 2, "axis": 1}, "UnpackOptions", 1))
    file.add("SUB", outputs, (1, 4), table="SubOptions", fusedActivationFunction=2)
    return file


UNARY = {"ABS": "AbsOptions", "CEIL": "", "COS": "CosOptions", "FLOOR": "", "LOG": "", "NEG": "NegOptions", "RELU": ""}
UNARY |= {"RELU_0_TO_1": "", "SIGN": "SignOptions", "SQRT": ""}
BINARY = {"ADD": "AddOptions", "MUL": "MulOptions", "MAXIMUM": "MaximumMinimumOptions", "POW": "PowOptions"}
BINARY |= {"MINIMUM": "MaximumMinimumOptions"}
COMPARISONS = {"LESS": "LessOptions", "LESS_EQUAL": "LessEqualOptions", "EQUAL": "EqualOptions"}
COMPARISONS |= {"GREATER_EQUAL": "GreaterEqualOptions"}
FILES = {
    "conv": lambda: conv(File((1, 7, 8, 3)), (7, 8), fused=3),
    "conv/stride": lambda: conv(File((1, 7, 8, 3)), (7, 8), stride=2, fused=1),
    "conv/dilated": lambda: conv(File((1, 9, 8, 3)), (9, 8), dilation=2, fused=2),
    "conv/valid": lambda: conv(File((1, 9, 8, 3)), (9, 8), padding=1, stride=2, fused=1),
    "conv/even": lambda: conv(File((1, 6, 6, 3)), (6, 6), kernel=2, stride=2),
    "depthwise": lambda: conv(File((1, 7, 8, 3)), (7, 8), stride=2, depthwise=True, fused=3),
    "transposed": transposed(0, (8, 10), 2),
    "transposed/odd": transposed(0, (7, 9), 2),
    "transposed/valid": transposed(1, (9, 11), 2),
    "transposed/far": transposed(0, (16, 20), 4),
    "half weights": half_weights,
    "transposed/mediapipe": transposed_of_mediapipe(1, (8, 10), 2),
    "transposed/mediapipe/odd": transposed_of_mediapipe(1, (8, 10), 3),
    "transposed/mediapipe/valid": transposed_of_mediapipe(2, (9, 11), 3),
    "without zeros": without_zeros((0, 1, 2, 3), (3,)),
    "without zeros/short": without_zeros((0, 1, 2, 3), (0, 3), vector="Uint8"),
    "without zeros/turned": without_zeros((3, 1, 2, 0), (3,), vector="Uint16"),
    "without zeros/blocks": without_zeros((0, 1, 2, 3, 4, 5, 6, 7), (3,), (2, 1, 1, 2)),
    "average": pool("AVERAGE_POOL_2D", (4, 3)),
    "max": pool("MAX_POOL_2D", (3, 3), padding=1),
    "flattened": flattened_by_its_shape,
    "dense": dense(False),
    "dense/kept": dense(True),
    "split": split("SPLIT", "SplitOptions"),
    "split/sizes": split("SPLIT_V", "SplitVOptions"),
    "matrix": products(False, False),
    "matrix/turned": products(True, True),
    "select": chosen("SELECT_V2", "SelectV2Options"),
    "arg max": greatest,
    "unpack": unpacked,
    "mean": moved("MEAN", (1, 4), [1, 2], table="ReducerOptions"),
    "mean/kept": moved("MEAN", (1, 1, 1, 4), [1, 2], table="ReducerOptions", keepDims=True),
    "maximum over": moved("REDUCE_MAX", (1, 4, 6), [-1], table="ReducerOptions"),
    "minimum over": moved("REDUCE_MIN", (1, 4, 6), [-1], table="ReducerOptions"),
    "sum over": moved("SUM", (1, 4, 6), [-1], table="ReducerOptions"),
    "product over": moved("REDUCE_PROD", (1, 4, 6), [-1], table="ReducerOptions"),
    "least": moved("ARG_MIN", (1, 4, 6), 3, dtype="int32", table="ArgMinOptions", type="int64", outputType=4),
    "pad by a value": pad_by_value,
    "select/plain": chosen("SELECT", "SelectOptions"),
    "pad": moved("PAD", (1, 6, 9, 4), [[0, 0], [1, 1], [1, 2], [0, 0]], table="PadOptions"),
    "mirror": moved("MIRROR_PAD", (1, 6, 9, 4), [[0, 0], [1, 1], [1, 2], [0, 0]], table="MirrorPadOptions", mode=0),
    "transpose": moved("TRANSPOSE", (1, 4, 4, 6), [0, 3, 1, 2], table="TransposeOptions"),
    "slice": moved("SLICE", (1, 2, 3, 4), [0, 1, 3, 0], [1, 2, 3, -1], table="SliceOptions"),
    "strided": moved(
        "STRIDED_SLICE", (1, 2, 2, 4), [0, 1, 0, 0], [1, 4, 6, 4], [1, 2, 3, 1], table="StridedSliceOptions", endMask=4
    ),
    "expand": moved("EXPAND_DIMS", (1, 4, 6, 1, 4), 3, table="ExpandDimsOptions"),
    "squeeze": moved("SQUEEZE", (1, 6, 4), table="SqueezeOptions", of=(1, 1, 6, 4), squeezeDims=[1]),
    "gather": moved("GATHER", (1, 4, 2, 4), [5, 0], table="GatherOptions", axis=2),
    "tile": moved("TILE", (1, 4, 12, 4), [1, 1, 2, 1], table="TileOptions"),
    "broadcast": moved(
        "BROADCAST_TO", (1, 4, 6, 4), [1, 4, 6, 4], of=(1, 4, 1, 4), table="BroadcastToOptions", version=2
    ),
    "prelu": moved("PRELU", (1, 4, 6, 4), normal(1, 1, 4), dtype="float32"),
    "squares": moved("SQUARED_DIFFERENCE", (1, 4, 6, 4), normal(4), dtype="float32", table="SquaredDifferenceOptions"),
    "divided": moved(
        "DIV", (1, 4, 6, 4), normal(6, 1) + 3, dtype="float32", table="DivOptions", fusedActivationFunction=1
    ),
    "resize/bilinear": resized("RESIZE_BILINEAR", "ResizeBilinearOptions"),
    "resize/half": resized("RESIZE_BILINEAR", "ResizeBilinearOptions", halfPixelCenters=True),
    "resize/corners": resized("RESIZE_BILINEAR", "ResizeBilinearOptions", alignCorners=True),
    "resize/double": doubled("RESIZE_BILINEAR", "ResizeBilinearOptions"),
    "nearest": resized("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
    "nearest/half": resized("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", halfPixelCenters=True),
    "nearest/corners": resized("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", alignCorners=True),
    "relu6": unary("RELU6"),
    "relu -1..1": unary("RELU_N1_TO_1"),
    "logistic": unary("LOGISTIC"),
    "hard swish": unary("HARD_SWISH", "HardSwishOptions"),
    "tanh": unary("TANH"),
    "elu": unary("ELU"),
    "gelu": unary("GELU", "GeluOptions"),
    "gelu/tanh": unary("GELU", "GeluOptions", approximate=True),
    "leaky": unary("LEAKY_RELU", "LeakyReluOptions", alpha=0.3),
    "softmax": unary("SOFTMAX", "SoftmaxOptions", beta=0.5),
    "log softmax": unary("LOG_SOFTMAX", "LogSoftmaxOptions"),
    "unit length": unary("L2_NORMALIZATION", "L2NormOptions"),
    "round": unary("ROUND"),
    "logical/or": logical("LOGICAL_OR", "LogicalOrOptions"),
    "logical/and": logical("LOGICAL_AND", "LogicalAndOptions"),
    "logical/not": logical("LOGICAL_NOT", "LogicalNotOptions"),
    "floor div": pair("FLOOR_DIV", "FloorDivOptions"),
    "add n": pair("ADD_N", "AddNOptions"),
    "depth to space": regrouped("DEPTH_TO_SPACE", "DepthToSpaceOptions", (1, 8, 12, 2)),
    "space to depth": regrouped("SPACE_TO_DEPTH", "SpaceToDepthOptions", (1, 2, 3, 32)),
    "rsqrt": unary("RSQRT"),
    "exp": unary("EXP", "ExpOptions"),
    "sin": unary("SIN"),
    "square": unary("SQUARE", "SquareOptions"),
}

FILES |= {code.lower(): unary(code, table) for code, table in UNARY.items()}
FILES |= {code.lower(): pair(code, table) for code, table in BINARY.items()}
FILES |= {code.lower(): pair(code, table, "bool") for code, table in COMPARISONS.items()}


@pytest.mark.parametrize("name", FILES)
def test_an_operator_gives_what_litert_gives(name, tmp_path):
    file = FILES[name]()
    content = file.content()
    x = normal(*file.tensors[0].shape)
    proto = read_tflite(written(tmp_path, content), Given()).proto
    wanted, found = answers(content, x, "litert"), answers(proto.SerializeToString(), x, "onnxruntime")
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(theirs)))
    opened = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert opened == ("" if name.startswith("matrix") else "batch")


def test_a_network_keeps_no_transposes_but_that_of_its_input(tmp_path):
    file = conv(File((1, 8, 8, 3)), (8, 8), stride=2, fused=3)
    conv(file, (4, 4), depthwise=True, fused=3)
    shortcut = file.last
    conv(file, (4, 4), kernel=1, depthwise=True)
    wide = file.last
    file.add("CONCATENATION", [shortcut, wide], (1, 4, 4, 30), table="ConcatenationOptions", axis=3)
    file.add("MEAN", [file.last, file.constant([1, 2], "int32")], (1, 30), table="ReducerOptions")
    inputs = [file.last, file.constant(normal(3, 30)), file.constant(normal(3))]
    file.add("FULLY_CONNECTED", inputs, (1, 3), table="FullyConnectedOptions")
    file.add("SOFTMAX", [file.last], (1, 3), table="SoftmaxOptions", beta=1.0)
    content = file.content()
    model = load(written(tmp_path, content))
    ops = [node.op_type for node in model.graph]
    assert ops == ["Transpose", "Conv", "Clip", "Conv", "Clip", "Conv", "Concat", "ReduceMean", "Gemm", "Softmax"]
    assert [node.name for node in model.graph if node.op_type == "Gemm"] == [file.tensors[-2].name]
    x = normal(6, 8, 8, 3)
    found, wanted = answers(model.to_bytes(), x, "onnxruntime"), answers(content, x, "litert")
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-6)


def test_a_batch_that_is_mixed_stays_fixed(tmp_path):
    file = conv(File((1, 4, 4, 3), batch=False), (4, 4))
    file.add("TRANSPOSE", [file.last, file.constant([1, 0, 2, 3], "int32")], (4, 1, 4, 5), table="TransposeOptions")
    assert load(written(tmp_path, file.content())).input.shape == (1, 4, 4, 3)


def test_preprocessing_in_the_file_is_kept(tmp_path):
    how = '{"height": 8, "width": 8, "layout": "NHWC"}'
    file = conv(File((1, 8, 8, 3)), (8, 8))
    model = load(written(tmp_path, file.content(metadata={"lowbit.preprocessing": how})))
    assert model.preprocessing is not None
    assert model.preprocessing.layout == "NHWC"


def quantized():
    file = File((1, 4, 4, 3))
    scale = np.ones(1, np.float32)
    codes = file.tensor((1, 4, 4, 3), "int8", scale=scale)
    file.operators = []
    file.operators.append(FileOperator("QUANTIZE", (0,), (codes,)))
    file.add("DEQUANTIZE", [codes], (1, 4, 4, 3))
    return file.content()


def unread():
    file = File((1, 4))
    outputs = (file.tensor((1, 2)), file.tensor((1, 2), "int32"))
    file.operators.append(FileOperator("TOPK_V2", (0, file.constant(2, "int32")), outputs, {}, "TopKV2Options"))
    return file.content(outputs[0])


def custom():
    file = File((1, 4))
    file.add("CUSTOM", [0], (1, 4))
    return file.content()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (quantized, r"is quantized already: operator .* has the int8 tensor 't1'\. Give the float model"),
        (
            unread,
            r"has the operator TOPK_V2 \('t1'\), which is not read\. Give the network that the",
        ),
        (custom, r"has the operator CUSTOM \('t1'\), which is not read\. Give the network"),
        (lambda: b"\x00" * 64, r"is not a \.tflite file"),
        (lambda: FILES["relu6"]().content(), "no constant weights"),
    ],
)
def test_what_cannot_come_in_is_named(content, sentence, tmp_path):
    with pytest.raises(ModelError, match=sentence):
        load(written(tmp_path, content()))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_refused_in_a_sentence(seed, tmp_path):
    rng = np.random.default_rng(seed)
    names = list(FILES)
    content = bytearray(FILES[names[seed % len(names)]]().content())
    for place in rng.integers(8, len(content), 1 + seed % 4):
        content[place] = int(rng.integers(0, 256))
    with contextlib.suppress(LowbitError):  # anything else is a crash; some damage changes numbers only
        load(written(tmp_path, bytes(content)))


def test_a_content_that_thousands_of_tensors_share_is_refused(tmp_path):
    file = conv(File((1, 4, 4, 3)), (4, 4))
    shared = np.zeros(1 << 20, np.float32)
    for _ in range(16):
        file.add("ADD", [file.constant(shared), file.constant(shared)], shared.shape, table="AddOptions")
    with pytest.raises(ModelError, match="share their content"):
        load(written(tmp_path, file.content()))


def test_zeros_that_would_fill_the_memory_are_refused(tmp_path):
    def edit(schema, model):
        leave_out_zeros(small, (0, 1, 2, 3), (0, 1, 2, 3))(schema, model)
        model.subgraphs[0].tensors[1].shape = [1 << 20, 1, 1, 8]

    small = np.float32([1, 0, 0, 0]).reshape(1, 1, 1, 4)
    file = Edited((1, 5, 6, 4), edit)
    whole = file.add("DENSIFY", [file.constant(small)], small.shape, table="DensifyOptions")
    file.add("CONV_2D", [0, whole, -1], (1, 5, 6, 1), table="Conv2DOptions", strideH=1, strideW=1)
    with pytest.raises(ModelError, match="far larger than it, since they share their content or leave out zeros"):
        load(written(tmp_path, file.content()))


def test_a_tree_that_does_not_fit_its_shape_is_refused(tmp_path):
    file = FILES["without zeros"]()
    fitting = file.edit

    def edit(schema, model):
        fitting(schema, model)
        indices = model.subgraphs[0].tensors[1].sparsity.dimMetadata[3].arrayIndices.values
        indices[0] = -1

    file.edit = edit
    with pytest.raises(ModelError, match=r"a sparse tensor of shape \[8, 1, 1, 4\] has values outside of it"):
        load(written(tmp_path, file.content()))


def test_what_would_take_long_is_not_tried(tmp_path):
    file = File((1, 1, 1, 4), batch=False)
    file.add(
        "RESIZE_NEAREST_NEIGHBOR",
        [0, file.constant([60000, 60000], "int32")],
        (1, 1, 1, 4),
        table="ResizeNearestNeighborOptions",
    )
    conv(file, (1, 1), kernel=1)
    large = written(tmp_path, file.content())
    assert load(large, input_sizes={"": (None, 1, 1, 4)}).input.shape[0] == 1


def test_every_operator_that_is_read_is_tried():
    contents = [build().content() for build in FILES.values()]
    tried = {operator.code for content in contents for operator in read_litert(content, "").graphs[0].operators}
    assert {name for code, (name, _) in OPERATORS.items() if code not in tried} == set()
    assert not REFUSED.keys() & OPERATORS.keys()


def test_an_input_that_would_fill_the_memory_is_not_made(tmp_path):
    file = File((1, 3, 4, 1 << 24))
    file.add("MEAN", [0, file.constant([2, 3], "int32")], (1, 3), table="ReducerOptions")
    file.add("FULLY_CONNECTED", [file.last, file.constant(normal(2, 3)), -1], (1, 2), table="FullyConnectedOptions")
    path = written(tmp_path, file.content())
    tracemalloc.start()
    with pytest.raises(ModelError, match="768 MB for one sample"):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()
