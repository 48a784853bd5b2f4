"""Which operators the compilers of devices place on the device, as their documents list them; others run on the CPU.

The lists are as old as the versions that are named: a newer compiler may place more.
"""

from collections.abc import Mapping

_QNN = """
    Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose Cos
    CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Exp Expand Flatten Floor Gather GatherElements GatherND
    Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Identity InstanceNormalization Inverse IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization MatMul Max MaxPool Mean Min Mod Mul Neg NonZero Not Or PRelu Pad Pow QuantizeLinear
    RandomNormalLike RandomUniformLike Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu
    RMSNormalization Reshape Resize RoiAlign Round RotaryEmbedding STFT ScatterElements ScatterND Sigmoid Sign Sin
    Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose
    Unsqueeze Upsample Where
"""
# ONNX Runtime, QNN execution provider 2.3.0 (QAIRT SDK 2.47), 'Supported ONNX operators', 2026. Those that it takes
# only as parts of a fusion with integer operators are left out: lowbit writes none of these.
QNN = frozenset(_QNN.split())

_ETHOS_U55 = """
    ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D DEPTHWISE_CONV_2D ELU EXP EXPAND_DIMS
    FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK PAD
    PADV2 PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SLICE SOFTMAX SPLIT SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB
    SUM TANH TILE TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
"""
# Arm, Vela 5.2, SUPPORTED_OPS.md, 'Ethos-U55 and Ethos-U65 TFLite Summary Table', 2026. Conversions between float and
# integers are not on it: they run on the CPU.
ETHOS_U55 = frozenset(_ETHOS_U55.split())

# ST Edge AI Core 2.2.0, 'ST Neural-ART NPU - Supported operators and limitations', r1.1, 2025. Only an extract of its
# table was at hand, made by users of the compiler: what it does not name is not known here, and nothing is said of it.
_SOFTWARE = "ST's table maps it to software in float, on the Cortex-M55"
STM32N6_CPU: Mapping[str, str] = {
    **dict.fromkeys(("Exp", "Gather", "Log", "Pow", "ReduceMin", "ReduceProd", "ReduceSum", "Sqrt"), _SOFTWARE),
    "Softmax": "ST's table maps it to software in integers, unless the compiler is told to expand it",
}
