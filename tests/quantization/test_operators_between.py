"""Every ONNX operator that can stand between two MatMuls: a network with it becomes integers, and runs."""

import functools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphs import make, make_node, relative_error
from lowbit.engines import open_session
from lowbit.errors import LowbitError, ModelError
from lowbit.formats.file_form import FileForm
from lowbit.graph.load import load
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.quantization.quantize import quantize

ROWS, WIDTH, OPSET = 8, 16, 21
FAR = 0.2  # relative error that says that something else was computed


class Between:
    """What is written between the two MatMuls; `x` is [n, 8, 16]."""

    def __init__(self):
        self.nodes, self.weights = [], {}
        self.rng = np.random.default_rng(5)

    def op(self, kind, *reads, count=1, **attributes):
        """Add a node; arrays among its inputs become constants. Gives the name of its first output."""
        names = [read if isinstance(read, str) else self.constant(read) for read in reads]
        name = f"t{len(self.nodes)}"
        makes = " ".join([name, *(f"{name}.{i}" for i in range(1, count))])
        self.nodes.append(make_node(kind, " ".join(names), makes, **attributes))
        return name

    def constant(self, value):
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(value)
        return name

    def normal(self, *shape):
        return self.rng.normal(size=shape).astype(np.float32)

    def image(self, x, height=4):
        return self.op("Reshape", x, np.array([0, ROWS, height, WIDTH // height]))

    def positive(self, x):
        return self.op("Add", self.op("Abs", x), np.float32(0.5))

    def small(self, x):
        return self.op("Mul", self.op("Tanh", x), np.float32(0.9))

    def bools(self, x):
        return self.op("Greater", x, np.float32(0))

    def integers(self, x, to=TensorProto.INT32):
        return self.op("Cast", self.op("Mul", self.op("Abs", x), np.float32(20)), to=to)


def plain(kind, **attributes):
    return lambda b, x: b.op(kind, x, **attributes)


def on(kind, before, *others, **attributes):
    """An operator on what `before`, a method of `Between`, makes of x."""
    return lambda b, x: b.op(kind, getattr(b, before)(x), *others, **attributes)


def reduction(kind):
    return lambda b, x: b.op(kind, x, np.array([2]), keepdims=0)


def both(kind):
    """An operator on x and on x in reverse, so that neither operand is constant."""
    return lambda b, x: b.op(kind, x, backwards(b, x))


def with_constant(kind):
    return lambda b, x: b.op(kind, x, b.normal(WIDTH))


def logic(kind):
    return lambda b, x: b.op(kind, b.bools(x), b.bools(backwards(b, x)))


def padded(mode):
    return lambda b, x: b.op("Pad", x, np.array([0, 0, 2, 0, 0, 1]), mode=mode)


def resized(mode):
    scales = np.array([1, 1, 2, 2], np.float32)
    return lambda b, x: b.op("Resize", b.image(x), np.zeros(0, np.float32), scales, mode=mode)


def backwards(b, x):
    return b.op("Slice", x, np.array([-1]), np.array([-(2**40)]), np.array([2]), np.array([-1]))


def recurrent(kind, gates):
    def build(b, x):
        turned = b.op("Transpose", x, perm=[1, 0, 2])
        y = b.op(kind, turned, b.normal(1, gates * 6, WIDTH) / 4, b.normal(1, gates * 6, 6) / 4, hidden_size=6)
        return b.op("Transpose", b.op("Squeeze", y, np.array([1])), perm=[1, 0, 2])

    return build


def branches(b, x):
    """If: negative or not, both bodies read x."""
    bodies = {}
    for name, kind in (("then_branch", "Neg"), ("else_branch", "Identity")):
        output = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        bodies[name] = helper.make_graph([helper.make_node(kind, [x], [f"{name}.y"])], name, [], [output])
    return b.op("If", b.op("Less", b.op("Size", x), np.int64(1)), **bodies)


def loop(b, x):
    """Loop: x is halved three times."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["before", "half"], ["after"]),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    body = helper.make_graph(
        nodes, "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("before", TensorProto.FLOAT, None)],
        [info("on", TensorProto.BOOL, []), info("after", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.float32(0.5), "half")],
    )  # fmt: skip
    return b.op("Loop", np.int64(3), np.array(True), x, body=body)


def scan(b, x):
    """Scan: the running sum over the rows."""
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Add", ["sum", "row"], ["next"]), helper.make_node("Identity", ["next"], ["out"])]
    body = helper.make_graph(
        nodes, "body",
        [info("sum", TensorProto.FLOAT, None), info("row", TensorProto.FLOAT, None)],
        [info("next", TensorProto.FLOAT, None), info("out", TensorProto.FLOAT, None)],
    )  # fmt: skip
    first = b.op("ReduceSum", b.op("Mul", x, np.float32(0)), np.array([1]), keepdims=0)
    b.nodes.append(
        make_node("Scan", f"{first} {x}", "scan.last scan.all", body=body, num_scan_inputs=1,
                  scan_input_axes=[1], scan_output_axes=[1])
    )  # fmt: skip
    return "scan.all"


# Continuous: the output follows the input, so that rounding shows as noise only.
OPERATORS = {
    **{
        kind: plain(kind)
        for kind in (
            "Abs", "Atan", "Asinh", "Celu", "Cos", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity",
            "LeakyRelu", "LogSoftmax", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Sin", "Softmax", "Softplus",
            "Softsign", "Tanh", "ThresholdedRelu", "Clip", "Dropout", "Shrink", "Flatten", "LpNormalization",
        )
    },
    **{kind: on(kind, "small") for kind in ("Acos", "Asin", "Atanh", "Sinh", "Cosh", "Exp", "Tan")},
    **{kind: on(kind, "positive") for kind in ("Log", "Sqrt", "Reciprocal")},
    "Acosh": lambda b, x: b.op("Acosh", b.op("Add", b.positive(x), np.float32(1))),
    **{kind: both(kind) for kind in ("Add", "Sub", "Mul", "Max", "Min", "Mean", "Sum")},
    **{f"{kind}/constant": with_constant(kind) for kind in ("Add", "Sub", "Mul", "Max", "Min")},
    "Div": lambda b, x: b.op("Div", x, b.positive(backwards(b, x))),
    "Pow": lambda b, x: b.op("Pow", x, np.float32(2)),
    "PRelu": lambda b, x: b.op("PRelu", x, b.normal(WIDTH)),
    "Swish": lambda b, x: b.op("Mul", x, b.op("Sigmoid", x)),
    **{
        kind: reduction(kind)
        for kind in (
            "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
            "ReduceSumSquare",
        )
    },
    "ReduceLogSum": lambda b, x: b.op("ReduceLogSum", b.positive(x), np.array([2]), keepdims=0),
    "ReduceProd": lambda b, x: b.op("ReduceProd", b.op("Tanh", b.positive(x)), np.array([1]), keepdims=0),
    **{kind: on(kind, "image", kernel_shape=[2, 2]) for kind in ("AveragePool", "MaxPool", "LpPool")},
    **{kind: on(kind, "image") for kind in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")},
    "BatchNormalization": lambda b, x: b.op(
        "BatchNormalization", x, b.normal(ROWS), b.normal(ROWS), b.normal(ROWS), np.abs(b.normal(ROWS)) + 0.5
    ),
    "InstanceNormalization": lambda b, x: b.op("InstanceNormalization", x, b.normal(ROWS), b.normal(ROWS)),
    "GroupNormalization": lambda b, x: b.op("GroupNormalization", x, b.normal(ROWS), b.normal(ROWS), num_groups=2),
    "LayerNormalization": lambda b, x: b.op("LayerNormalization", x, b.normal(WIDTH), b.normal(WIDTH)),
    "MeanVarianceNormalization": on("MeanVarianceNormalization", "image"),
    "LRN": on("LRN", "image", size=3),
    "Cast": lambda b, x: b.op("Cast", b.op("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT),
    "CastLike": lambda b, x: b.op("CastLike", x, np.float32(0)),
    "Concat": lambda b, x: b.op("Concat", x, backwards(b, x), axis=2),
    "Concat/constant": lambda b, x: b.op("Concat", x, b.op("Mul", x, np.float32(0)), axis=1),
    "Conv": lambda b, x: b.op("Conv", x, b.normal(6, ROWS, 3) / 5),
    "Conv/image": lambda b, x: b.op("Conv", b.image(x), b.normal(6, ROWS, 3, 3) / 8, pads=[1, 1, 1, 1]),
    "ConvTranspose": lambda b, x: b.op("ConvTranspose", x, b.normal(ROWS, 6, 3) / 5),
    "ConvTranspose/image": lambda b, x: b.op("ConvTranspose", b.image(x), b.normal(ROWS, 6, 2, 2) / 5, strides=[2, 2]),
    "CumSum": lambda b, x: b.op("CumSum", x, np.int64(2)),
    "DepthToSpace": on("DepthToSpace", "image", blocksize=2),
    "DepthToSpace/CRD": on("DepthToSpace", "image", blocksize=2, mode="CRD"),
    "SpaceToDepth": on("SpaceToDepth", "image", blocksize=2),
    "Det": lambda b, x: b.op("Concat", x, b.op("Unsqueeze", b.op("Det", b.image(x)), np.array([2])), axis=2),
    "Einsum": lambda b, x: b.op("Einsum", x, b.normal(WIDTH, 6) / 4, equation="nij,jk->nik"),
    "Einsum/activations": lambda b, x: b.op("Einsum", x, backwards(b, x), equation="nij,nkj->nik"),
    "Expand": lambda b, x: b.op("Expand", b.op("Unsqueeze", x, np.array([1])), np.array([1, 3, 1, 1])),
    "Gather": lambda b, x: b.op("Gather", x, np.array([3, 1, 4, 1]), axis=1),
    "GatherElements": lambda b, x: b.op(
        "GatherElements", x, b.op("Expand", np.zeros((1, 1, 1), np.int64), b.op("Shape", x)), axis=1
    ),
    "GatherND": lambda b, x: b.op(
        "Transpose", b.op("GatherND", b.op("Transpose", x, perm=[1, 0, 2]), np.array([[1], [5]])), perm=[1, 0, 2]
    ),
    "Gemm": lambda b, x: b.op("Gemm", b.op("Flatten", x), b.normal(ROWS * WIDTH, 6) / 11, b.normal(6)),
    "GridSample": lambda b, x: b.op(
        "GridSample", b.image(x),
        b.op("Expand", b.rng.uniform(-0.9, 0.9, size=(1, 3, 3, 2)).astype(np.float32),
             b.op("Concat", b.op("Shape", x, start=0, end=1), np.array([3, 3, 2]), axis=0)),
    ),
    "GRU": recurrent("GRU", 3),
    "LSTM": recurrent("LSTM", 4),
    "RNN": recurrent("RNN", 1),
    "MatMul/activations": lambda b, x: b.op("MatMul", x, b.op("Transpose", x, perm=[0, 2, 1])),
    "NegativeLogLikelihoodLoss": lambda b, x: b.op(
        "Unsqueeze",
        b.op("NegativeLogLikelihoodLoss", b.op("LogSoftmax", x, axis=1),
             b.op("ArgMax", x, axis=1, keepdims=0), reduction="none"), np.array([1]),
    ),
    **{f"Pad/{mode}": padded(mode) for mode in ("constant", "reflect", "edge", "wrap")},
    "Reshape": lambda b, x: b.op("Reshape", x, np.array([0, 4, 32])),
    **{f"Resize/{mode}": resized(mode) for mode in ("nearest", "linear", "cubic")},
    "ReverseSequence": lambda b, x: b.op(
        "Transpose",
        b.op("ReverseSequence", b.op("Transpose", x, perm=[2, 1, 0]), np.array([5, 1, 16, 2, 7, 8, 9, 3]),
             batch_axis=1, time_axis=0), perm=[2, 1, 0],
    ),
    "RoiAlign": lambda b, x: b.op(
        "RoiAlign", b.op("Reshape", b.image(x), np.array([1, -1, 4, 4])),
        np.array([[0, 0, 3, 3], [1, 1, 3, 2]], np.float32), np.array([0, 0]), output_height=2, output_width=2,
    ),
    "ScatterElements": lambda b, x: b.op(
        "ScatterElements", x, b.op("Expand", np.zeros((1, 1, 1), np.int64), b.op("Shape", x)),
        b.op("Mul", x, np.float32(0.5)), axis=1, reduction="add",
    ),
    "ScatterND": lambda b, x: b.op(
        "Transpose",
        b.op("ScatterND", b.op("Transpose", x, perm=[1, 0, 2]), np.array([[2]]),
             b.op("Slice", b.op("Transpose", x, perm=[1, 0, 2]), np.array([0]), np.array([1]), np.array([0]))),
        perm=[1, 0, 2],
    ),
    "Slice": lambda b, x: b.op("Slice", x, np.array([1]), np.array([12]), np.array([2]), np.array([2])),
    "Split": lambda b, x: b.op(
        "Concat", *(lambda first: (f"{first}.1", first))(b.op("Split", x, axis=2, num_outputs=2, count=2)), axis=2
    ),
    "Squeeze": lambda b, x: b.op(
        "Squeeze", b.op("Slice", x, np.array([3]), np.array([4]), np.array([1])), np.array([1])
    ),
    "Unsqueeze": lambda b, x: b.op("Unsqueeze", x, np.array([1])),
    "STFT": lambda b, x: b.op(
        "Reshape", b.op("STFT", b.op("Reshape", x, np.array([0, ROWS * WIDTH, 1])), np.int64(16), b.normal(32),
                        np.int64(32)), np.array([0, 7, 34]),
    ),
    "DFT": lambda b, x: b.op("DFT", b.op("Unsqueeze", x, np.array([3])), "", np.int64(1)),
    "Tile": lambda b, x: b.op("Tile", x, np.array([1, 1, 2])),
    "TopK": lambda b, x: b.op("TopK", x, np.array([5]), count=2),
    "Transpose": lambda b, x: b.op("Transpose", x, perm=[0, 2, 1]),
    "Trilu": plain("Trilu"),
    "Where": lambda b, x: b.op("Where", np.arange(WIDTH) % 3 == 0, x, b.op("Neg", x)),
    "Where/masked": lambda b, x: b.op("Where", np.arange(WIDTH) % 3 == 0, x, np.float32(-1)),
    "SequenceAt": lambda b, x: b.op("SequenceAt", b.op("SplitToSequence", x, np.int64(4), axis=1), np.int64(1)),
    "ConcatFromSequence": lambda b, x: b.op(
        "ConcatFromSequence", b.op("SequenceConstruct", x, b.op("Neg", x)), axis=1
    ),
    "If": branches,
    "Loop": loop,
    "Scan": scan,
}  # fmt: skip
# Where a value rounded to the other side gives another answer, noise says nothing: it has to run.
STEPS = {
    **{kind: plain(kind) for kind in ("Ceil", "Floor", "Round", "Sign", "IsNaN", "IsInf", "Hardmax")},
    **{kind: plain(kind, axis=1, keepdims=0) for kind in ("ArgMax", "ArgMin")},
    **{kind: both(kind) for kind in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
    "Not": on("Not", "bools"),
    **{kind: logic(kind) for kind in ("And", "Or", "Xor")},
    "Mod": lambda b, x: b.op("Mod", x, np.float32(1), fmod=1),
    **{kind: on(kind, "integers", np.int32(6)) for kind in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")},
    "BitwiseNot": on("BitwiseNot", "integers"),
    "BitShift": lambda b, x: b.op("BitShift", b.integers(x, TensorProto.UINT32), np.uint32(1), direction="RIGHT"),
    "OneHot": lambda b, x: b.op(
        "OneHot", b.op("ArgMax", x, axis=2, keepdims=0), np.int64(WIDTH), np.array([0, 1], np.float32)
    ),
    "Where/computed": lambda b, x: b.op("Where", b.bools(x), x, b.op("Mul", x, np.float32(0.1))),
    "NonZero": lambda b, x: b.op("Mul", x, b.op("Cast", b.op("Size", b.op("NonZero", x)), to=TensorProto.FLOAT)),
    "Shape": lambda b, x: b.op(
        "Mul", x, b.op("Cast", b.op("Gather", b.op("Shape", x), np.int64(1)), to=TensorProto.FLOAT)
    ),
    "EyeLike": lambda b, x: b.op("MatMul", x, b.op("EyeLike", b.constant(np.zeros((WIDTH, WIDTH), np.float32)))),
    "MaxUnpool": lambda b, x: (lambda y: b.op("MaxUnpool", y, f"{y}.1", kernel_shape=[2, 2], strides=[2, 2]))(
        b.op("MaxPool", b.image(x), kernel_shape=[2, 2], strides=[2, 2], count=2)
    ),
}
NOT_YET = dict.fromkeys(
    ("SequenceAt", "ConcatFromSequence"), "shape inference takes a sequence of tensors for a tensor"
)
# No float tensor goes through them, or not from a sample to the same sample; or they are integers' own.
NOT_BETWEEN = {
    "AffineGrid", "Attention", "Bernoulli", "BitCast", "BlackmanWindow", "CausalConvWithState", "CenterCropPad",
    "Col2Im", "Compress", "Constant", "ConstantOfShape", "ConvInteger", "CumProd", "DeformConv",
    "DequantizeLinear", "DynamicQuantizeLinear", "HammingWindow", "HannWindow", "ImageDecoder", "LinearAttention",
    "MatMulInteger", "MaxRoiPool", "MelWeightMatrix", "Multinomial", "NonMaxSuppression", "Optional",
    "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    "RMSNormalization", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range",
    "RegexFullMatch", "RotaryEmbedding", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceLength", "SequenceMap", "Size", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat",
    "StringNormalizer", "StringSplit", "SwiGLU", "TensorScatter", "TfIdfVectorizer", "Unique",
}  # fmt: skip


@functools.cache
def network(name):
    """MatMul, the operator, MatMul."""
    b = Between()
    b.nodes.append(make_node("MatMul", "x first", "h"))
    b.weights["first"] = b.normal(WIDTH, WIDTH) / 4
    y = (OPERATORS | STEPS)[name](b, "h")
    inputs, found = {"x": ["n", ROWS, WIDTH]}, samples(3)
    part = make(b.nodes, inputs, [y], b.weights, opset=OPSET, ir_version=10)
    part.graph.output[0].ClearField("type")
    result = open_session(part.SerializeToString()).run({"x": found})[y]
    if result.dtype != np.float32:
        y = b.op("Cast", y, to=TensorProto.FLOAT)
    b.weights["last"] = b.normal(result.shape[-1], 5) / np.float32(np.sqrt(result.shape[-1]))
    b.nodes.append(make_node("MatMul", f"{y} last", "y"))
    return make(b.nodes, inputs, ["y"], b.weights, opset=OPSET, ir_version=10)


@functools.cache
def quantized(name, recipe):
    """By the plainest ranges and no steps: it is the operator that counts."""
    plain = parse_recipe(recipe, ranges="minmax" if recipe == "int8" else None)
    return quantize(load(network(name)), plain, calibration=list(samples(24, seed=1)), steps=())


def samples(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, ROWS, WIDTH)).astype(np.float32)


def answers(content, x, engine="onnxruntime"):
    return open_session(content, engine=engine, threads=1).run({"x": x})["y"]


def test_the_table_has_every_operator():
    kinds = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain and not schema.deprecated}
    tried = {node.op_type for name in OPERATORS | STEPS for node in network(name).graph.node} | {"Swish"}
    assert kinds - tried - NOT_BETWEEN == set()
    assert NOT_BETWEEN & {name.split("/")[0] for name in OPERATORS | STEPS} == set()


@pytest.fixture(scope="module", params=[*OPERATORS, *STEPS])
def name(request):
    """An operator; all tests of it come one after another, so that its network is quantized once."""
    return request.param


def test_integers_run_with_any_operator_between(name, request):
    if name in NOT_YET:
        request.applymarker(pytest.mark.xfail(reason=NOT_YET[name], raises=LowbitError, strict=True))
    proto, x = network(name), samples(16, seed=2)
    wanted = answers(proto.SerializeToString(), x)
    made = quantized(name, "int8")
    assert {node.arithmetic for node in made.plan.nodes if node.op == "MatMul"} <= {"integer", "float"}
    assert any(node.arithmetic == "integer" for node in made.plan.nodes if node.op == "MatMul")
    given = answers(made.to_bytes(), x)
    assert given.shape == wanted.shape
    assert np.isfinite(given).all()
    if name in OPERATORS:
        assert relative_error(given, wanted) < FAR


def test_openvino_runs_what_it_runs_in_float(name, request):
    pytest.importorskip("openvino")
    if name in NOT_YET:
        request.applymarker(pytest.mark.xfail(reason=NOT_YET[name], strict=True))
    proto, x = network(name), samples(16, seed=2)
    wanted = answers(proto.SerializeToString(), x)
    try:
        answers(proto.SerializeToString(), x, "openvino")
    except LowbitError:
        pytest.skip("OpenVINO does not run the float network either")
    given = answers(quantized(name, "int8").to_bytes(FileForm(to="openvino")), x, "openvino")
    assert given.shape == wanted.shape
    if name in OPERATORS:
        assert relative_error(given, wanted) < FAR


def test_litert_runs_it_or_says_why_not(name):
    pytest.importorskip("ai_edge_litert")
    if name in NOT_YET:
        pytest.skip(NOT_YET[name])
    proto, x = network(name), samples(16, seed=2)
    wanted = answers(proto.SerializeToString(), x)
    for recipe in ("float", "int8", "a16w8"):
        made = quantized(name, recipe)
        content = litert_file(made)
        if isinstance(content, ModelError):
            assert content.remedy
            return
        given = answers(content, x, "litert")
        assert given.shape == wanted.shape
        if name in OPERATORS:
            assert relative_error(given, wanted) < (1e-3 if recipe == "float" else FAR)


def litert_file(made):
    """The file, or why there is none."""
    try:
        return made.to_bytes(FileForm(to="litert"))
    except ModelError as error:
        return error


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_norms_of_flattened_tokens_become_part_of_the_product(engine, tmp_path):
    """As in LeViT; behind such a norm OpenVINO 2026.4 refused integers that were laid out by heads."""
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(size=(32, 64)).astype(np.float32) / 6}
    weights |= {"v": generator.normal(size=(16, 32)).astype(np.float32) / 4, "rows": np.array([-1, 64])}
    weights |= {"heads": np.array([-1, 10, 4, 16])}
    weights |= {name: generator.uniform(0.5, 1.5, 64).astype(np.float32) for name in ("g", "b", "m", "s")}
    nodes = [make_node("MatMul", "x w", "p"), make_node("Reshape", "p rows", "r"), make_node("Tanh", "h", "t")]
    nodes.insert(2, make_node("BatchNormalization", "r g b m s", "n", name="norm"))
    nodes.insert(3, make_node("Reshape", "n heads", "h"))
    proto = make([*nodes, make_node("MatMul", "t v", "y")], {"x": ["n", 10, 32]}, ["y"], weights)
    model = load(proto)
    assert "BatchNormalization" not in {node.op_type for node in model.graph}
    x = {"x": generator.normal(size=(24, 10, 32)).astype(np.float32)}
    exact = open_session(proto.SerializeToString(), threads=1).run(x)["y"]
    assert relative_error(open_session(model.to_bytes(), engine=engine, threads=1).run(x)["y"], exact) < 1e-5
    form = FileForm(to="openvino" if engine == "openvino" else "onnx")
    path = quantize(model, parse_recipe("int8"), calibration=x).save(tmp_path / "q.onnx", form)
    assert relative_error(open_session(path, engine=engine, threads=1).run(x)["y"], exact) < 0.03
