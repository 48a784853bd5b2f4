"""Small models with random geometry, one for each operator that is written as LiteRT."""

import numpy as np

from graphs import make as make_model
from lowbit.calibration.statistics import calibrate
from lowbit.data.opening import open_data
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.load import load
from lowbit.graph.ops import layers
from lowbit.quantization.passes.activations import activation_codes, fit_biases
from lowbit.quantization.passes.candidate import plain_codes
from lowbit.quantization.planning.deciding import plan


def pick(rng, *choices):
    return choices[int(rng.integers(len(choices)))]


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def make(nodes, shape, weights, outputs=("y",), opset=17):
    """A model of (operator, inputs, outputs, attributes) rows with the input x of this shape.

    Models without any layer are refused on loading, so those get one in front.
    """
    if not {"Conv", "ConvTranspose", "Gemm", "MatMul"} & {node[0] for node in nodes}:
        inside = shape[1] if len(shape) == 4 else shape[-1]
        kernel = np.eye(inside, dtype=np.float32) + np.float32(0.25)
        weights = weights | {"w0": kernel.reshape(inside, inside, 1, 1) if len(shape) == 4 else kernel}
        nodes = [("Conv" if len(shape) == 4 else "MatMul", ["x", "w0"], ["x0"], {}), *nodes]
        nodes[1:] = [(op, ["x0" if name == "x" else name for name in reads], *rest) for op, reads, *rest in nodes[1:]]
    named = [(op, reads, makes, how | {"name": f"{op}{i}"}) for i, (op, reads, makes, how) in enumerate(nodes)]
    return load(make_model(named, {"x": shape}, outputs, weights, opset=opset, ir_version=9))


def conv(rng, inside, outside, kernel, groups=1):
    return {
        "w": normal(rng, outside, inside // groups, *kernel) / np.float32(np.sqrt(inside // groups * np.prod(kernel))),
        "b": normal(rng, outside),
    }


def geometry(rng, kernel, size):
    """Strides, pads and dilations that leave at least one position."""
    while True:
        strides = [pick(rng, 1, 2, 3), pick(rng, 1, 2)]
        dilations = [pick(rng, 1, 1, 2), pick(rng, 1, 1, 2)]
        if max(strides) > 1:
            dilations = [1, 1]
        pads = [int(rng.integers(0, k)) for k in (*kernel, *kernel)]
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        if all(n + pads[i] + pads[i + 2] >= spans[i] for i, n in enumerate(size)):
            return {"strides": strides, "pads": pads, "dilations": dilations}


def plain_conv(rng):
    kernel = [pick(rng, 1, 2, 3, 5), pick(rng, 1, 2, 3)]
    channels = int(rng.integers(1, 7))
    size = [int(rng.integers(5, 12)), int(rng.integers(5, 12))]
    kw = geometry(rng, kernel, size)
    return make([("Conv", ["x", "w", "b"], ["y"], kw)], ["n", channels, *size], conv(rng, channels, 5, kernel))


def same_upper_conv(rng):
    kw = {"auto_pad": pick(rng, "SAME_UPPER", "SAME_LOWER", "VALID"), "strides": [pick(rng, 1, 2), 2]}
    return make([("Conv", ["x", "w", "b"], ["y"], kw)], ["n", 3, 9, 8], conv(rng, 3, 4, [3, 3]))


def depthwise_conv(rng):
    channels, times = int(rng.integers(2, 9)), pick(rng, 1, 1, 2)
    size = [int(rng.integers(5, 12)), 8]
    kw = geometry(rng, [3, 3], size) | {"group": channels}
    weights = conv(rng, channels, channels * times, [3, 3], channels)
    return make([("Conv", ["x", "w", "b"], ["y"], kw)], ["n", channels, *size], weights)


def grouped_conv(rng):
    groups = pick(rng, 2, 3)
    kw = geometry(rng, [3, 3], [9, 8]) | {"group": groups}
    weights = conv(rng, groups * 4, groups * 2, [3, 3], groups)
    return make([("Conv", ["x", "w", "b"], ["y"], kw)], ["n", groups * 4, 9, 8], weights)


def bounded_codes(rng):
    """A Relu or Clip of what is read elsewhere too: nothing absorbs it, so integers bound the codes."""
    bounds = {"l": np.float32(pick(rng, 0.0, -0.5)), "h": np.float32(pick(rng, 0.7, 6.0))}
    first = pick(rng, ("Relu", ["c"], ["r"], {}), ("Clip", ["c", "l", "h"], ["r"], {}))
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), first, ("Add", ["c", "r"], ["y"], {})]
    return make(nodes, ["n", 3, 6, 5], conv(rng, 3, 4, [1, 1]) | bounds)


def relu_conv(rng):
    low, high = pick(rng, (0, 6), (-1, 1), (0, 2.5), (-0.5, None))
    bounds = {"low": np.float32(low)} | ({} if high is None else {"high": np.float32(high)})
    clip = ("Clip", ["c", *bounds], ["y"], {})
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), pick(rng, ("Relu", ["c"], ["y"], {}), clip, clip)]
    return make(nodes, ["n", 3, 6, 6], conv(rng, 3, 8, [3, 3]) | bounds)


def transposed_conv(rng):
    groups = pick(rng, 1, 1, 2)
    kernel = [pick(rng, 2, 3, 4), pick(rng, 2, 3)]
    strides = [pick(rng, 1, 2), pick(rng, 1, 2)]
    extra = [int(rng.integers(0, stride)) for stride in strides]
    dilations = [pick(rng, 1, 1, 2), 1]
    pads = [int(rng.integers(0, 2)) for _ in range(4)]
    kw = {"strides": strides, "pads": pads, "output_padding": extra, "dilations": dilations, "group": groups}
    weights = {"w": normal(rng, 4, 3, *kernel), "b": normal(rng, 3 * groups)}
    return make([("ConvTranspose", ["x", "w", "b"], ["y"], kw)], ["n", 4, 5, 6], weights)


def gemm(rng):
    turned = pick(rng, 0, 1)
    weights = {"w": normal(rng, *((7, 5) if turned else (5, 7))), "b": normal(rng, 7)}
    return make([("Gemm", ["x", "w", "b"], ["y"], {"transB": turned})], ["n", 5], weights)


def flatten_gemm(rng):
    """The columns of the Gemm must follow the image into channels-last."""
    flat = pick(rng, ("Flatten", ["c"], ["f"], {"axis": 1}), ("Reshape", ["c", "shape"], ["f"], {}))
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), flat, ("Relu", ["f"], ["r"], {}), ("Gemm", ["r", "m"], ["y"], {})]
    weights = conv(rng, 3, 4, [1, 1]) | {"m": normal(rng, 4 * 5 * 3, 6), "shape": np.array([-1, 60])}
    return make(nodes, ["n", 3, 5, 3], weights)


def flatten_out(rng):
    """Flattened and not followed by a layer: the order of ONNX must come out."""
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("Flatten", ["c"], ["f"], {"axis": 1}), ("Tanh", ["f"], ["y"], {})]
    return make(nodes, ["n", 3, 5, 3], conv(rng, 3, 4, [1, 1]))


def matmul(rng):
    shape = pick(rng, ["n", 20], ["n", 4, 20])
    return make([("MatMul", ["x", "w"], ["y"], {})], shape, {"w": normal(rng, 20, 24)})


def attention(rng):
    nodes = [("MatMul", ["x", "w"], ["q"], {}), ("Transpose", ["x"], ["t"], {"perm": [0, 1, 3, 2]})]
    nodes += [("MatMul", ["q", "t"], ["m"], {}), ("Softmax", ["m"], ["s"], {"axis": -1})]
    nodes += [("MatMul", ["s", "x"], ["y"], {})]
    return make(nodes, ["n", 2, 4, 3], {"w": normal(rng, 3, 3)})


def binary(rng, op="Add"):
    shape = pick(rng, (), (1,), (3, 1, 1), (1, 3, 1, 1), (4, 5), (1, 3, 4, 5))
    constant = np.abs(normal(rng, *shape)) + np.float32(0.5)
    reads = ["x", "k"] if op == "Div" else pick(rng, ["x", "k"], ["k", "x"])
    return make([(op, reads, ["y"], {})], ["n", 3, 4, 5], {"k": constant})


def power(rng):
    nodes = [("Abs", ["x"], ["a"], {}), ("Pow", ["a", "k"], ["y"], {})]
    return make(nodes, ["n", 3, 4, 5], {"k": np.float32(pick(rng, 2, 0.5, 3))})


def residual(rng):
    """Two computed operands, one of them in another order of axes."""
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("Relu", ["c"], ["r"], {}), ("Add", ["r", "x"], ["s"], {})]
    nodes += [("Relu", ["s"], ["t"], {}), ("Mul", ["t", "x"], ["y"], {})]
    return make(nodes, ["n", 3, 4, 5], conv(rng, 3, 3, [1, 1]))


def squeeze_excite(rng):
    """A gate for each channel, by a mean, two layers and a sigmoid."""
    nodes = [("GlobalAveragePool", ["x"], ["p"], {}), ("Conv", ["p", "w", "b"], ["c"], {})]
    nodes += [("Sigmoid", ["c"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})]
    return make(nodes, ["n", 4, 6, 5], conv(rng, 4, 4, [1, 1]))


def silu(rng):
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("Sigmoid", ["c"], ["s"], {}), ("Mul", ["c", "s"], ["y"], {})]
    return make(nodes, ["n", 3, 6, 5], conv(rng, 3, 4, [3, 3]))


def unary(rng, op="Relu", **kw):
    return make([(op, ["x"], ["y"], kw)], ["n", 3, 4, 5], {}, opset=20 if op == "Gelu" else 17)


def root(rng):
    return make([("Abs", ["x"], ["a"], {}), ("Sqrt", ["a"], ["y"], {})], ["n", 3, 4, 5], {})


def clip(rng):
    low, high = pick(rng, (0, 6), (-0.5, 0.25), (0, 1))
    return make([("Clip", ["x", "l", "h"], ["y"], {})], ["n", 6], {"l": np.float32(low), "h": np.float32(high)})


def prelu(rng):
    shape = pick(rng, (1,), (3, 1, 1))
    return make([("PRelu", ["x", "k"], ["y"], {})], ["n", 3, 4, 5], {"k": normal(rng, *shape)})


def batch_norm(rng):
    weights = {name: np.abs(normal(rng, 3)) + np.float32(0.1) for name in "smv"} | {"b": normal(rng, 3)}
    nodes = [("Relu", ["x"], ["r"], {}), ("BatchNormalization", ["r", "s", "b", "m", "v"], ["y"], {"epsilon": 1e-3})]
    return make(nodes, ["n", 3, 4, 5], weights)


def concat(rng):
    axis = pick(rng, 1, 2, 3, -1)
    nodes = [("Relu", ["x"], ["a"], {}), ("Concat", ["x", "a", "x"], ["y"], {"axis": axis})]
    return make(nodes, ["n", 3, 4, 5], {})


def concat_convs(rng):
    nodes = [("Conv", ["x", "w", "b"], ["c"], {}), ("Relu", ["c"], ["r"], {}), ("Conv", ["r", "w", "b"], ["d"], {})]
    nodes += [("Concat", ["r", "d"], ["e"], {"axis": 1}), ("Conv", ["e", "w2", "b"], ["y"], {})]
    return make(nodes, ["n", 4, 5, 5], conv(rng, 4, 4, [1, 1]) | {"w2": normal(rng, 4, 8, 1, 1) / 3})


def split(rng):
    nodes = [("Split", ["x", "sizes"], ["a", "b", "c"], {"axis": 1}), ("Mul", ["a", "b"], ["y"], {})]
    return make(nodes, ["n", 5, 4, 3], {"sizes": np.array([2, 2, 1])})


def max_pool(rng):
    kernel = [pick(rng, 2, 3), pick(rng, 2, 3)]
    kw = {"kernel_shape": kernel, "strides": [pick(rng, 1, 2), 2], "ceil_mode": pick(rng, 0, 1)}
    kw["pads"] = [int(rng.integers(0, (k + 1) // 2)) for k in (*kernel, *kernel)]
    before = pick(rng, "Relu", "Neg")
    nodes = [(before, ["x"], ["r"], {}), ("MaxPool", ["r"], ["y"], kw)]
    return make(nodes, ["n", 3, int(rng.integers(6, 11)), 9], {})


def average_pool(rng):
    kernel = [pick(rng, 2, 3), pick(rng, 2, 3)]
    kw = {"kernel_shape": kernel, "strides": [pick(rng, 1, 2), 2], "count_include_pad": pick(rng, 0, 1)}
    kw["pads"] = [int(rng.integers(0, (k + 1) // 2)) for k in (*kernel, *kernel)]
    return make([("AveragePool", ["x"], ["y"], kw)], ["n", 3, int(rng.integers(6, 11)), 9], {})


def reduction(rng, op="ReduceMean"):
    axes = pick(rng, [2, 3], [1], [-1], [1, 2])
    return make([(op, ["x"], ["y"], {"axes": axes, "keepdims": pick(rng, 0, 1)})], ["n", 3, 4, 5], {}, opset=12)


def global_pool(rng):
    op = pick(rng, "GlobalAveragePool", "GlobalMaxPool")
    nodes = [(op, ["x"], ["p"], {}), ("Flatten", ["p"], ["y"], {})]
    return make(nodes, ["n", 3, 4, 5], {})


def softmax(rng):
    op = pick(rng, "Softmax", "LogSoftmax")
    return make([(op, ["x"], ["y"], {"axis": pick(rng, 1, 2, -1)})], ["n", 3, 4, 5], {})


def pad(rng):
    mode = pick(rng, "constant", "reflect", "constant")
    amounts = [0, pick(rng, 0, 1), 2, 0, 0, 1, pick(rng, 0, -1) if mode == "constant" else 0, 1]
    return make([("Pad", ["x", "p"], ["y"], {"mode": mode})], ["n", 3, 4, 5], {"p": np.array(amounts)})


def resize(rng):
    nearest = pick(rng, True, False)
    where = pick(rng, "half_pixel", "asymmetric", "align_corners")
    sizes = pick(rng, [8, 10], [16, 20], [12, 15], [7, 9], [2, 5])
    kw = {"mode": "nearest" if nearest else "linear", "coordinate_transformation_mode": where}
    if nearest:
        kw["nearest_mode"] = pick(rng, "floor", "round_prefer_floor", "round_prefer_ceil", "ceil")
    if pick(rng, True, False) and where != "align_corners":
        scales = np.array([1, 1, sizes[0] / 4, sizes[1] / 5], np.float32)
        return make([("Resize", ["x", "", "s"], ["y"], kw)], [1, 3, 4, 5], {"s": scales})
    return make([("Resize", ["x", "", "", "s"], ["y"], kw)], [1, 3, 4, 5], {"s": np.array([1, 3, *sizes])})


def slices(rng):
    """Two slices, one behind the other, with steps forwards and backwards."""
    step = pick(rng, 1, 2, 3)
    weights = {"a": np.array([pick(rng, 0, 1)]), "e": np.array([pick(rng, 100, -1, 5)]), "i": np.array([2])}
    weights |= {"s": np.array([step]), "a2": np.array([0, -1]), "e2": np.array([2, -100]), "i2": np.array([1, 3])}
    weights |= {"s2": np.array([1, pick(rng, -1, -2)]), "e3": np.array([2, 7])}
    second = pick(rng, ["f", "a2", "e2", "i2", "s2"], ["f", "a3", "e3", "i2", "s3"])
    weights |= {"a3": np.array([0, 1]), "s3": np.array([1, 2])}
    nodes = [("Slice", ["x", "a", "e", "i", "s"], ["f"], {}), ("Slice", second, ["y"], {})]
    return make(nodes, ["n", 3, 7, 8], weights)


def gather(rng):
    indices = pick(rng, np.array([2, 0, -1]), np.array(1))
    return make([("Gather", ["x", "i"], ["y"], {"axis": pick(rng, 1, 2, 3)})], ["n", 3, 4, 5], {"i": indices})


def reshape(rng):
    target = pick(rng, [0, 3, 20], [-1, 12, 5], [0, 3, 2, 2, 5], [0, -1], [0, 6, 2, 5], [0, 1, 3, 4, 5])
    return make([("Reshape", ["x", "s"], ["y"], {})], ["n", 3, 4, 5], {"s": np.array(target)})


def squeezes(rng):
    axis = pick(rng, 1, 2, 4)
    nodes = [("Unsqueeze", ["x", "i"], ["u"], {}), ("Relu", ["u"], ["r"], {}), ("Squeeze", ["r", "i"], ["y"], {})]
    return make(nodes, ["n", 3, 4, 5], {"i": np.array([axis])})


def channel_shuffle(rng):
    nodes = [("Reshape", ["x", "s"], ["a"], {}), ("Transpose", ["a"], ["b"], {"perm": [0, 2, 1, 3, 4]})]
    nodes += [("Reshape", ["b", "t"], ["c"], {}), ("Conv", ["c", "w", "b0"], ["y"], {})]
    weights = {"s": np.array([-1, 2, 3, 4, 5]), "t": np.array([-1, 6, 4, 5])}
    return make(nodes, ["n", 6, 4, 5], weights | {"w": normal(rng, 4, 6, 1, 1), "b0": normal(rng, 4)})


def transpose(rng):
    perm = pick(rng, [0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2], [0, 3, 2, 1])
    nodes = [("Transpose", ["x"], ["t"], {"perm": perm}), ("Softmax", ["t"], ["y"], {"axis": -1})]
    return make(nodes, ["n", 3, 4, 5], {})


def channels_last_model(rng):
    """As exported from Keras: NHWC outside, NCHW around each convolution."""
    nodes = [("Transpose", ["x"], ["t"], {"perm": [0, 3, 1, 2]}), ("Conv", ["t", "w", "b"], ["c"], {})]
    nodes += [("Transpose", ["c"], ["u"], {"perm": [0, 2, 3, 1]}), ("Add", ["u", "k"], ["y"], {})]
    return make(nodes, ["n", 5, 6, 3], conv(rng, 3, 4, [1, 1]) | {"k": normal(rng, 4)})


def pixel_shuffle(rng):
    op, shape = pick(rng, ("DepthToSpace", ["n", 8, 4, 6]), ("SpaceToDepth", ["n", 3, 4, 6]))
    return make([(op, ["x"], ["y"], {"blocksize": 2})], shape, {})


def patches(rng):
    """The head of a vision transformer: patches become tokens."""
    nodes = [("Conv", ["x", "w", "b"], ["c"], {"strides": [2, 2]}), ("Reshape", ["c", "s"], ["r"], {})]
    nodes += [("Transpose", ["r"], ["t"], {"perm": [0, 2, 1]}), ("MatMul", ["t", "m"], ["y"], {})]
    weights = conv(rng, 3, 6, [2, 2]) | {"s": np.array([-1, 6, 12]), "m": normal(rng, 6, 5)}
    return make(nodes, ["n", 3, 6, 8], weights)


CASES = {
    "Conv": plain_conv,
    "Conv/auto_pad": same_upper_conv,
    "Conv/depthwise": depthwise_conv,
    "Conv/grouped": grouped_conv,
    "Conv+Clip": relu_conv,
    "ConvTranspose": transposed_conv,
    "Gemm": gemm,
    "Flatten+Gemm": flatten_gemm,
    "Flatten": flatten_out,
    "MatMul": matmul,
    "attention": attention,
    **{op: lambda rng, op=op: binary(rng, op) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")},
    "Pow": power,
    "residual": residual,
    "squeeze-excite": squeeze_excite,
    "SiLU": silu,
    **{
        op: lambda rng, op=op: unary(rng, op)
        for op in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Exp", "Abs", "Neg", "Elu", "Gelu", "HardSigmoid")
    },
    "LeakyRelu": lambda rng: unary(rng, "LeakyRelu", alpha=0.2),
    "HardSigmoid/sixth": lambda rng: unary(rng, "HardSigmoid", alpha=1 / 6, beta=0.5),
    "Gelu/tanh": lambda rng: unary(rng, "Gelu", approximate="tanh"),
    "Sqrt": root,
    "Clip": clip,
    "Clip of codes": bounded_codes,
    "PRelu": prelu,
    "BatchNormalization": batch_norm,
    "Concat": concat,
    "Concat/convs": concat_convs,
    "Split": split,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    **{op: lambda rng, op=op: reduction(rng, op) for op in ("ReduceMean", "ReduceSum", "ReduceMax")},
    "GlobalPool": global_pool,
    "Softmax": softmax,
    "Pad": pad,
    "Resize": resize,
    "Slice": slices,
    "Gather": gather,
    "Reshape": reshape,
    "Squeeze": squeezes,
    "channel shuffle": channel_shuffle,
    "Transpose": transpose,
    "channels-last model": channels_last_model,
    "DepthToSpace": pixel_shuffle,
    "patches": patches,
}


def inputs(model, rng, count=3):
    first, *rest = model.input.shape
    return normal(rng, first if isinstance(first, int) else count, *rest)


def integer(model, rng, count=24, images=None):
    """The model as full integers, each tensor by its scheme alone, calibrated on these or on random images."""
    decision = plan(model, "int8")
    tensors = [tensor for group in decision.scale_groups for tensor in group] + [model.outputs[0].name]
    statistics = calibrate(model, images or open_data(inputs(model, rng, count), model), tensors=tensors)
    activations = activation_codes(decision, statistics)
    named = {
        kind: frozenset(node.node for node in decision.nodes if node.arithmetic == kind)
        for kind in ("integer", "absorbed")
    }
    running = [layer for layer in layers(model) if layer.node in named["integer"]]
    weights, biases = fit_biases(model, running, plain_codes(model, decision), activations)
    return QuantizedGraph(model, weights=weights, activations=activations, biases=biases, **named)
