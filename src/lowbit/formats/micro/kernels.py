"""The kernels that TensorFlow Lite Micro has: method of its resolver, types that they run with, bytes that they keep.

Sources: the methods are those of `MicroMutableOpResolver` (tensorflow/lite/micro/micro_mutable_op_resolver.h of
tflite-micro). Types and bytes were measured: one file for each operator and type, run with the interpreter of the wheel
tflite-micro 0.dev20261023182759 and its reference kernels; a type counts if the answers are LiteRT's
(`tests/formats/micro/test_interpreter.py` does it again wherever that wheel is installed).
"""

from dataclasses import dataclass

from lowbit.engines.litert_operators import NAMES

CUSTOM = NAMES.index("CUSTOM")


@dataclass(frozen=True)
class Kernel:
    """One row.

    Attributes:
        method: of the resolver, without its `Add`.
        types: of the activation, separated by spaces, that it gives LiteRT's answers for; empty where none was tried.
        bytes: that it keeps in the arena for as long as the interpreter lives, multipliers of channels not counted.
        data: which of its inputs is the activation.
    """

    method: str
    types: str = ""
    bytes: int = 64
    data: int = 0


FLOAT, CODES, WIDE = "float32", "float32 int8", "float32 int8 int16"
NUMBERS = "float32 int8 int16 int32"
ANY = "float32 int8 int16 uint8 int32 bool"
KERNELS = {
    "ABS": Kernel("Abs", WIDE, 48),
    "ADD": Kernel("Add", NUMBERS, 80),
    "ADD_N": Kernel("AddN", CODES, 64),
    "ARG_MAX": Kernel("ArgMax", CODES, 8),
    "ARG_MIN": Kernel("ArgMin", CODES, 8),
    "ASSIGN_VARIABLE": Kernel("AssignVariable"),
    "AVERAGE_POOL_2D": Kernel("AveragePool2D", WIDE, 80),
    "BATCH_MATMUL": Kernel("BatchMatMul", WIDE, 144),
    "BATCH_TO_SPACE_ND": Kernel("BatchToSpaceNd", CODES, 0),
    "BROADCAST_ARGS": Kernel("BroadcastArgs"),
    "BROADCAST_TO": Kernel("BroadcastTo", ANY, 8),
    "CALL_ONCE": Kernel("CallOnce"),
    "CAST": Kernel("Cast", "float32 int8 int16 int32 bool", 16),
    "CEIL": Kernel("Ceil", FLOAT, 0),
    "CONCATENATION": Kernel("Concatenation", "float32 int8 int16 int32 bool", 96),
    "CONV_2D": Kernel("Conv2D", WIDE, 128),
    "COS": Kernel("Cos", FLOAT, 0),
    "CUMSUM": Kernel("CumSum", CODES, 56),
    "DEPTH_TO_SPACE": Kernel("DepthToSpace", CODES, 32),
    "DEPTHWISE_CONV_2D": Kernel("DepthwiseConv2D", WIDE, 128),
    "DEQUANTIZE": Kernel("Dequantize", "int8 int16 uint8", 48),
    "DIV": Kernel("Div", "float32 int8 int32", 32),
    "DYNAMIC_UPDATE_SLICE": Kernel("DynamicUpdateSlice"),
    "ELU": Kernel("Elu", CODES, 272),
    "EMBEDDING_LOOKUP": Kernel("EmbeddingLookup", CODES, 40, data=1),
    "EQUAL": Kernel("Equal", "float32 int8 int32 bool", 32),
    "EXP": Kernel("Exp", FLOAT, 0),
    "EXPAND_DIMS": Kernel("ExpandDims", WIDE, 8),
    "FILL": Kernel("Fill"),
    "FLOOR": Kernel("Floor", FLOAT, 0),
    "FLOOR_DIV": Kernel("FloorDiv", FLOAT, 0),
    "FLOOR_MOD": Kernel("FloorMod", FLOAT, 0),
    "FULLY_CONNECTED": Kernel("FullyConnected", WIDE, 112),
    "GATHER": Kernel("Gather", CODES, 40),
    "GATHER_ND": Kernel("GatherNd", CODES, 24),
    "GREATER": Kernel("Greater", "float32 int8 int32", 32),
    "GREATER_EQUAL": Kernel("GreaterEqual", "float32 int8 int32", 32),
    "HARD_SWISH": Kernel("HardSwish", CODES, 32),
    "IF": Kernel("If"),
    "L2_NORMALIZATION": Kernel("L2Normalization", CODES, 16),
    "L2_POOL_2D": Kernel("L2Pool2D", FLOAT, 80),
    "LEAKY_RELU": Kernel("LeakyRelu", WIDE, 48),
    "LESS": Kernel("Less", "float32 int8 int32", 32),
    "LESS_EQUAL": Kernel("LessEqual", "float32 int8 int32", 32),
    "LOG": Kernel("Log", FLOAT, 0),
    "LOG_SOFTMAX": Kernel("LogSoftmax", CODES, 48),
    "LOGICAL_AND": Kernel("LogicalAnd", "bool", 0),
    "LOGICAL_NOT": Kernel("LogicalNot", "bool", 0),
    "LOGICAL_OR": Kernel("LogicalOr", "bool", 0),
    "LOGISTIC": Kernel("Logistic", WIDE, 32),
    "MAX_POOL_2D": Kernel("MaxPool2D", WIDE, 80),
    "MAXIMUM": Kernel("Maximum", NUMBERS, 0),
    "MEAN": Kernel("Mean", WIDE, 72),
    "MINIMUM": Kernel("Minimum", NUMBERS, 0),
    "MIRROR_PAD": Kernel("MirrorPad", CODES, 56),
    "MUL": Kernel("Mul", NUMBERS, 48),
    "NEG": Kernel("Neg", FLOAT, 0),
    "NOT_EQUAL": Kernel("NotEqual", "float32 int8 int32 bool", 32),
    "PACK": Kernel("Pack", NUMBERS, 16),
    "PAD": Kernel("Pad", NUMBERS, 72),
    "PADV2": Kernel("PadV2", NUMBERS, 64),
    "PRELU": Kernel("Prelu", CODES, 32),
    "QUANTIZE": Kernel("Quantize", "float32 int8 int16 uint8 int32", 48),
    "READ_VARIABLE": Kernel("ReadVariable"),
    "REDUCE_ALL": Kernel("ReduceAll", "bool", 72),
    "REDUCE_MAX": Kernel("ReduceMax", CODES, 72),
    "REDUCE_MIN": Kernel("ReduceMin", CODES, 72),
    "RELU": Kernel("Relu", WIDE, 48),
    "RELU6": Kernel("Relu6", WIDE, 16),
    "RESHAPE": Kernel("Reshape", ANY, 40),
    "RESIZE_BILINEAR": Kernel("ResizeBilinear", CODES, 8),
    "RESIZE_NEAREST_NEIGHBOR": Kernel("ResizeNearestNeighbor", WIDE, 8),
    "REVERSE_V2": Kernel("ReverseV2", ANY, 8),
    "ROUND": Kernel("Round", FLOAT, 0),
    "RSQRT": Kernel("Rsqrt", CODES, 48),
    "SELECT_V2": Kernel("SelectV2", WIDE, 16, data=1),
    "SHAPE": Kernel("Shape", ANY, 16),
    "SIN": Kernel("Sin", FLOAT, 0),
    "SLICE": Kernel("Slice", "float32 int8 int16 int32 bool", 0),
    "SOFTMAX": Kernel("Softmax", WIDE, 96),
    "SPACE_TO_BATCH_ND": Kernel("SpaceToBatchNd", CODES, 16),
    "SPACE_TO_DEPTH": Kernel("SpaceToDepth", CODES, 32),
    "SPLIT": Kernel("Split", NUMBERS, 8, data=1),
    "SPLIT_V": Kernel("SplitV", NUMBERS, 0),
    "SQRT": Kernel("Sqrt", FLOAT, 0),
    "SQUARE": Kernel("Square", FLOAT, 0),
    "SQUARED_DIFFERENCE": Kernel("SquaredDifference", NUMBERS, 112),
    "SQUEEZE": Kernel("Squeeze", ANY, 48),
    "STRIDED_SLICE": Kernel("StridedSlice", "float32 int8 int16 int32 bool", 120),
    "SUB": Kernel("Sub", NUMBERS, 64),
    "SUM": Kernel("Sum", CODES, 72),
    "SVDF": Kernel("Svdf"),
    "TANH": Kernel("Tanh", WIDE, 32),
    "TRANSPOSE": Kernel("Transpose", WIDE, 8),
    "TRANSPOSE_CONV": Kernel("TransposeConv", WIDE, 120, data=2),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Kernel("UnidirectionalSequenceLSTM"),
    "UNPACK": Kernel("Unpack", NUMBERS, 0),
    "VAR_HANDLE": Kernel("VarHandle"),
    "WHILE": Kernel("While"),
    "ZEROS_LIKE": Kernel("ZerosLike", "float32 int8 int32", 0),
}
# Operators that the schema does not have, by their own names.
CUSTOM_KERNELS = {
    "CIRCULAR_BUFFER": Kernel("CircularBuffer"),
    "TFLite_Detection_PostProcess": Kernel("DetectionPostprocess"),
    "ethos-u": Kernel("EthosU"),
}
# What a QUANTIZE can give, by what it reads.
QUANTIZES = {
    "float32": ("int8", "int16"),
    "int8": ("int8", "uint8", "int16"),
    "uint8": ("int8",),
    "int16": ("int8", "int16", "int32"),
    "int32": ("int8", "int16"),
}
# What a CAST can give.
CASTS = ("float32", "int8", "int16", "int32", "bool")
# Layers -> (which input is the weight, and along which of its axes lie output channels).
LAYERS = {"CONV_2D": (1, 0), "DEPTHWISE_CONV_2D": (1, 3), "FULLY_CONNECTED": (1, 0), "TRANSPOSE_CONV": (1, 0)}
# Types of their weights, by that of the activation; int4 only where `NARROW` has the layer.
WEIGHTS = {"float32": "float32", "int8": "int8", "int16": "int8"}
NARROW = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
