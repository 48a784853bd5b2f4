"""What the compilers of devices ask of an integer file: one row of data each, and where the rule is written.

The devices themselves are not at hand: a file is written by its device's row and then checked against the same row by
`formats.onnx.device_rules` and `formats.litert.device_rules`, which read the finished file and know nothing of how it
was made. For `ethos-u` Arm's compiler Vela was run on files as well (decision 066).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lowbit.formats.device_operators import ETHOS_U55, QNN, STM32N6_CPU
from lowbit.formats.quantized_graph import ActivationKind

FLOAT_BIAS, INT32_BIAS = "float32", "int32"
ONNX_FILE, LITERT_FILE = "onnx", "litert"
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# Operators that only choose or move codes: compilers run them on the codes if both sides have one scale.
MOVING = frozenset(("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather"))
MOVING |= {"DepthToSpace", "SpaceToDepth", "Expand", "Pad"}
# LiteRT's operators, by the restrictions of its specification of 8-bit quantization.
MOVING |= {"AVERAGE_POOL_2D", "CONCATENATION", "GATHER", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "PAD", "PADV2", "RESHAPE"}
MOVING |= {"RESIZE_BILINEAR", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "STRIDED_SLICE", "TRANSPOSE"}


@dataclass(frozen=True)
class Device:
    """What a compiler takes.

    Attributes:
        what: one line for people.
        kinds: how activations are held, by their bits.
        per_channel: operators whose weights may have a scale per output channel; all others get one per tensor.
        bias: `FLOAT_BIAS`, or `INT32_BIAS` in units of input scale times weight scale (64 bits with 16-bit activations
            in a LiteRT file).
        files: formats that it reads.
        sharing: operators, as ONNX or LiteRT names them, whose inputs and outputs must have the same scale and zero
            point.
        floats: operators that stay float, each with the reason. (Conversions may stand before and behind them.)
        operators: operators that run on the device, as ONNX or LiteRT names them; empty where there is no whole list.
        on_cpu: operators that are known to run on the CPU beside it, each with the reason.
        fixed_sizes: whether the compiler takes no inputs of open sizes, such as any number of samples.
        largest_bias: magnitude of an integer bias.
        largest_sum: of the magnitudes of one output's weight codes; 0 where nothing is said.
        sources: documents that the rules are from.
    """

    what: str
    kinds: Mapping[int, ActivationKind]
    per_channel: frozenset[str] = WEIGHTED
    bias: str = INT32_BIAS
    files: tuple[str, ...] = (ONNX_FILE,)
    sharing: frozenset[str] = MOVING
    floats: Mapping[str, str] = field(default_factory=dict)
    operators: frozenset[str] = frozenset()
    on_cpu: Mapping[str, str] = field(default_factory=dict)
    fixed_sizes: bool = False
    largest_bias: int = 2**31 - 1
    largest_sum: int = 0
    sources: tuple[str, ...] = ()

    def cpu_reason(self, operator: str) -> str:
        """Why an operator runs on the CPU beside the device; empty if it does not, or if nothing is known of it."""
        if self.operators and operator not in self.operators:
            return "not on the compiler's list of operators"
        return self.on_cpu.get(operator, "")


_NO_INT8 = "TensorRT's list of ONNX operators has no INT8 for it"

DEVICES: dict[str, Device] = {
    "tensorrt": Device(
        "NVIDIA TensorRT: int8 without zero points, weights per channel, float biases",
        {8: ActivationKind(8, signed=True, symmetric=True)},
        bias=FLOAT_BIAS,
        floats=dict.fromkeys(("Mul", "DepthToSpace", "SpaceToDepth", "Expand", "Resize", "ReduceMean"), _NO_INT8),
        sources=(
            "NVIDIA, TensorRT documentation, 'Working with Quantized Types': a symmetric scheme for activations and "
            "weights; int8 is signed",
            "onnx-tensorrt, docs/operators.md, 'Supported ONNX Operators': zero points must be 0, DequantizeLinear "
            "takes INT8 only (so biases stay float), and which operators have INT8",
        ),
    ),
    "qnn": Device(
        "Qualcomm HTP through QNN: uint8 or uint16 activations, weights per channel in convolutions only",
        {8: ActivationKind(8), 16: ActivationKind(16)},
        per_channel=frozenset(("Conv", "ConvTranspose")),
        operators=QNN,
        fixed_sizes=True,
        sources=(
            "ONNX Runtime, documentation of the QNN execution provider 2.3.0: QDQ, uint8 or uint16 activations, fixed "
            "sizes, and 'Supported ONNX operators'",
            "ONNX Runtime, quantization/execution_providers/qnn/quant_config.py: scales per channel for Conv and "
            "ConvTranspose with their biases; no MatMul per channel; 16 bits by com.microsoft before operator set 21",
        ),
    ),
    "ethos-u": Device(
        "Arm Ethos-U through Vela: .tflite with int8 or int16 activations",
        {8: ActivationKind(8, signed=True), 16: ActivationKind(16, signed=True, symmetric=True)},
        files=(LITERT_FILE,),
        operators=ETHOS_U55,
        largest_bias=2**40 - 1,
        largest_sum=8323072,
        sources=(
            "Arm, Vela 5.2, SUPPORTED_OPS.md (vela --supported-ops-report): types, biases below 2^40, 8-bit weights, "
            "sums of absolute weights, scales per axis in CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV",
            "Google, LiteRT 8-bit quantization specification: operators whose inputs and outputs share a scale",
        ),
    ),
    "stm32n6": Device(
        "ST Neural-ART (STM32N6): signed int8 activations with zero points, weights per channel",
        {8: ActivationKind(8, signed=True)},
        files=(ONNX_FILE, LITERT_FILE),
        on_cpu=STM32N6_CPU,
        sources=(
            "ST, 'ST Neural-ART NPU - Supported operators and limitations', ST Edge AI Core 2.2.0: 8b/8b, ss/sa per "
            "channel, as ONNX QDQ or .tflite; any number of samples counts as one; operators in software (an extract)",
            "ST, 'Quantized model support': ss is signed symmetric (weights), sa signed asymmetric (activations)",
        ),
    ),
}


def on_cpu(operators: Iterable[str], device: Device) -> tuple[str, ...]:
    """A sentence for each reason why some operators of a file run on the CPU beside a device, with their counts."""
    reasons: dict[str, Counter[str]] = {}
    for operator in operators:
        if reason := device.cpu_reason(operator):
            reasons.setdefault(reason, Counter())[operator] += 1
    return tuple(
        f"the CPU runs {', '.join(f'{count} {name}' for name, count in found.items())}: {reason}"
        for reason, found in reasons.items()
    )


def unfixed(inputs: Sequence[str], device: Device) -> tuple[str, ...]:
    """A sentence on inputs of open sizes, if a device's compiler takes none."""
    if not inputs or not device.fixed_sizes:
        return ()
    return (
        f"the compiler takes fixed sizes only, and {', '.join(inputs)} has open ones: fix them with "
        "python -m onnxruntime.tools.make_dynamic_shape_fixed",
    )
