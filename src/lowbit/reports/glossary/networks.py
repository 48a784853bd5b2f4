"""Words for networks, codes, files and integer graphs."""

NETWORKS = {
    "activation": "a tensor that depends on the input; a Relu is an `activation function`",
    "bias": "the constant per output channel that a layer adds",
    "channel": "output channel of a weight; dimension 1 of an image-like activation",
    "column": (
        "of a layer: one input that an output value sees. The columns of a convolution are (input channel, kernel "
        "position) pairs"
    ),
    "crop": "the part of an image that is taken, from its middle, as a share of its sides",
    "depthwise": (
        "a convolution each of whose outputs sees one input channel. It has few weights and does little arithmetic for "
        "each value that it reads, so that integers hardly make it faster, and its channels often differ so much that "
        "they need scales of their own"
    ),
    "fold": "compute a constant part of a graph once: batch norms into weights, weights by the runtime at load",
    "group": "channels of a convolution that see the same inputs (ONNX attribute `group`); for scales see `per group`",
    "initializer": "a constant tensor of an ONNX graph",
    "layer": "a node with a constant weight: Conv, ConvTranspose, Gemm, MatMul",
    "light model": "an ONNX file that only names its weights, and the arrays beside it",
    "MAC": (
        "multiply-accumulate: one multiplication and one addition, the unit in which the arithmetic of a network is "
        "counted. One MAC is two FLOPs; what it takes in time depends on the processor and the operator"
    ),
    "model": "a network as lowbit works on it: prepared, never changed (`Model`)",
    "parameters": "values that training set: weights, biases, batch-norm scale and shift; not running statistics",
    "position": "one place of an output, such as a pixel; the number of a node in execution order where that is said",
    "preprocessing": (
        "what turns an image into the model's input: the part that is taken, size, layout, order of the colors, scale, "
        "mean, standard deviation"
    ),
    "row of a layer": (
        "the weights of one output channel. A layer is `matrix @ columns + bias`, rows by columns, for each group"
    ),
    "share": "of a tensor: its bytes over those of all float constants of a model",
    "turned": "of a weight: read by its layer through a Transpose",
    "weight": (
        "a constant that activations are multiplied with or looked up in: that of a layer, or another (of an LSTM, an "
        "embedding); `weights` also counts its values, as in bits per weight"
    ),
}

CODES = {
    "affine": "a linear grid with a zero point",
    "bits per weight": (
        "all bits of the weights' codes (or of a whole archive, where that is said), divided by the number of weights. "
        "Scales, zero points and code books are counted, so a small layer at 4 bits may take 5 or more"
    ),
    "cluster": "replace values by indices into a code book; `integer clusters` are those whose levels are int8",
    "code": "the integer that stands for a value",
    "code book": (
        "the values that the codes of a clustered tensor stand for: 16 of them for 4 bits. They lie where weights are, "
        "unlike the evenly spaced levels of a linear grid"
    ),
    "codes": "a tensor as codes, with all that decodes them (`LinearCodes`, `ClusterCodes`)",
    "decode": "from codes to the float32 values that a runtime sees, to the bit",
    "encode": "from values to codes, by the scheme alone",
    "grid": "the levels that values are rounded to; `linear` if they are evenly spaced",
    "half precision": "float16, and bfloat16 where that is said: floats of 16 bits",
    "level": "a value that a code stands for",
    "narrow range": "a symmetric grid without the code -2^(b-1), so that it reaches equally far on both sides of zero",
    "packed": "of codes: stored at their true width, and unpacked when the file is loaded",
    "per channel, per tensor, per group": (
        "what shares one scale (and zero point), or one code book; a group is a run of columns for linear grids, of "
        "channels for code books"
    ),
    "plain codes": "what `encode` gives, without calibration images",
    "scale": (
        "the distance between two neighboring levels of a linear grid; for code books the factor of a channel. A value "
        "is about its code, less the zero point, times the scale"
    ),
    "scheme": 'how one tensor becomes codes: `Linear(8, per="channel")`, `Clusters(4)`',
    "symmetric": "a linear grid without a zero point",
    "zero point": (
        "the code of 0.0. Without one a grid reaches equally far on both sides of zero; with one it can follow values "
        "that do not, such as those behind a ReLU"
    ),
}

FILES = {
    "file form": (
        "how a model is written: for which engine, which input and output types, which layout, which names (`FileForm`)"
    ),
    "arena": "the one block of RAM that TensorFlow Lite Micro works in: activations, scratch and its own records",
    "image bytes": "uint8 pixels, not normalized",
    "ledger": "the bytes of a file by kind; its lines sum to the file",
    "packed ONNX": "ONNX with packed codes and the nodes that decode them",
    "precision": "of a model: the float type that it had before it was prepared (`Model.precision`)",
    "QDQ": "QuantizeLinear and DequantizeLinear pairs, from which runtimes make integer kernels",
    "quantized graph": (
        "what a format writes: a float graph and the codes that stand for its tensors (`QuantizedGraph`)"
    ),
    "record": "what a file says of its making: model, data, seed, versions, processor (`lowbit.made` in its metadata)",
    "short names": "a file whose inner tensors are renamed as briefly as possible",
}

INTEGER_GRAPHS = {
    "absorbed": "of a Relu or Clip: the saturation of the layer before does its work",
    "channel padding": "input channels of zeros (or a constant), because kernels like multiples of four",
    "emulated": "answers that a file would give on another processor, computed on this one",
    "exact input": "a normalized float input taken as the image bytes that it was made from",
    "lanes": "channels that an integer kernel multiplies at a time",
    "requantize": "from codes in one scale to codes in another",
    "saturate": "stop at the least or greatest code; of 16-bit sums on x86 without VNNI: lose what goes beyond",
    "scale group": "activations that share one scale",
}
