"""What every file format writes: a float graph, and the integers that stand in for some of its tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lowbit.graph.model import Model
from lowbit.graph.preprocessing import Preprocessing
from lowbit.printable import brief, several
from lowbit.schemes.codes import Codes as Codes
from lowbit.schemes.codes import IntegerCodes

Int32s = np.ndarray[Any, np.dtype[np.int32]]
Int64s = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class ActivationKind:
    """How the activations of a whole file are held.

    Attributes:
        bits: 8 or 16.
        signed: stored as int8 or int16, not as uint8 or uint16. Everywhere but in the file codes count from the lowest.
        symmetric: 0.0 is the middle code, so that no zero point is needed and both sides reach equally far.
        powers: scales are powers of two.
    """

    bits: int = 8
    signed: bool = False
    symmetric: bool = False
    powers: bool = False

    @property
    def levels(self) -> int:
        """How many codes there are."""
        return 1 << self.bits

    @property
    def dtype(self) -> np.dtype[Any]:
        """What a file stores."""
        return np.dtype(f"{'' if self.signed else 'u'}int{self.bits}")

    @property
    def lowest(self) -> int:
        """The lowest code as it is stored."""
        return int(np.iinfo(self.dtype).min)

    @property
    def saturates(self) -> bool:
        """Whether the lowest and highest code are the ends of the range, so that saturation stands for a Relu or Clip.

        Not with 16 bits: OpenVINO leaves out their rounding, and with it what saturates (2026.4).
        """
        return not self.symmetric and self.bits == 8

    def codes(self, low: float, high: float) -> "ActivationCodes":
        """Scale and zero point that cover [low, high], low <= 0 <= high, with 0.0 exact.

        Powers of two are the least that cover it. The zero point is rounded, so that either end may lie half a step
        outside.
        """
        half = self.levels // 2
        step = max(-low / half, high / (half - 1)) if self.symmetric else (high - low) / (self.levels - 1)
        if self.powers and step > 0:
            step = 2.0 ** math.ceil(math.log2(step))
        scale = float(np.float32(step))
        if not scale >= float(np.finfo(np.float32).tiny):
            # A tensor that was always zero: any scale represents it.
            return ActivationCodes(1.0, half if self.symmetric else 0, self)
        return ActivationCodes(scale, half if self.symmetric else round(-low / scale), self)


UINT8 = ActivationKind()  # what the integer kernels of CPUs take
INT16 = ActivationKind(bits=16, signed=True, symmetric=True)


@dataclass(frozen=True)
class ActivationCodes:
    """How an activation becomes integers: `q = clip(round(x / scale) + zero_point, 0, levels - 1)`.

    Attributes:
        scale: float32 step, in the tensor's own units.
        zero_point: the code of 0.0, counted from the lowest code.
        kind: how codes are held.
    """

    scale: float
    zero_point: int
    kind: ActivationKind = UINT8

    @property
    def stored_zero_point(self) -> np.generic:
        """The code of 0.0 as a file stores it."""
        stored: np.generic = self.kind.dtype.type(self.zero_point + self.kind.lowest)
        return stored


@dataclass(frozen=True)
class BiasCodes:
    """A bias as integers in units of input scale times weight scale, so that it adds to the integer products.

    Attributes:
        codes: int32, or int64 where sums have so many, one per channel.
        scale: float32, one per channel, or a single one for per-tensor weights.
        multiple: what all codes are multiples of, so that a file may store how often.
    """

    codes: Int32s | Int64s
    scale: Floats
    multiple: int = 1

    def decode(self) -> Floats:
        """The float32 values that the integer kernel adds."""
        return self.codes.astype(np.float32) * self.scale


@dataclass(frozen=True)
class ByteLayer:
    """A convolution that reads image bytes: see `lowbit.formats.input_bytes`.

    Attributes:
        weight: codes [outputs, channels and more, kernel...], in units of pixel values.
        bias: what is added.
        factors: by which the float weights of each color were multiplied.
    """

    weight: IntegerCodes
    bias: BiasCodes
    factors: tuple[float, ...]


Sides = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Border:
    """Pixels that a file paints before and behind each axis of the image.

    Attributes:
        reach: as far as windows reach.
        painted: what is painted: of rows in whole groups of pixels.
    """

    reach: Sides = ((0, 0), (0, 0))
    painted: Sides = ((0, 0), (0, 0))


@dataclass(frozen=True)
class ByteInput:
    """A file that computes on image bytes: it takes them, or finds them again in the normalized floats that it takes.

    Attributes:
        preprocessing: what the float model wants done to an image.
        takes_floats: whether the file takes the model's own floats.
        layout: of the bytes: "NHWC", as image libraries give them, or "NCHW".
        zero_point: pixel value from which the convolutions count; pads are this value.
        zero_points: one per color instead, where the runtime can; then no channel is added.
        fill: value of the channels added behind the colors.
        layers: the convolutions that read the image, by node; empty if nodes in front of the model normalize in float.
        border: what is painted around the image, where the convolutions cannot pad it themselves (LiteRT).
    """

    preprocessing: Preprocessing
    layout: str = "NHWC"
    zero_point: int = 0
    zero_points: tuple[int, ...] = ()
    fill: int = 0
    layers: Mapping[str, ByteLayer] = field(default_factory=dict)
    takes_floats: bool = False
    border: Border = Border()


# Operators that only move codes: the output keeps the scale of the input.
DATA_MOVEMENT = frozenset(
    ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split")
) | frozenset(("DepthToSpace", "SpaceToDepth", "Expand", "Pad", "Resize"))
# Operators with kernels that take integers in and give float out.
FLOAT_OUTPUT = frozenset(("Gemm", "MatMul"))


@dataclass(frozen=True)
class QuantizedGraph:
    """A model with the codes of its quantized tensors; everything not named here stays float.

    Attributes:
        model: the prepared float model.
        weights: codes by initializer name.
        activations: codes by tensor name; empty for weight-only recipes.
        biases: int32 biases by the name of the layer's node; only layers that run in integers.
        integer: names of the nodes that run in integers.
        absorbed: names of the ReLU and Clip nodes that the saturation of a neighbor replaces.
        float_values: corrected values of tensors that stay float (biases, mostly), by initializer name.
        metadata: entries for the file's metadata.
        byte_input: how the file takes image bytes; None for the model's own float input.
        as_planned: written for the compiler of a device, or in codes for which CPUs have no kernels: as a pair of
            conversions behind each tensor, without the rewrites that kernels of CPUs are fastest with.
        dynamic: names of the layers that quantize their inputs as they run, where the format has a fast kernel for it.
        block_kernels: names of the products whose weights a kernel reads block by block, where the format has one.
        packed: names of weights of integer layers that a file keeps in as few bytes as it can, and with them the scales
            and biases of their layers: behind nodes that unpack them, where these take less than they save. Others
            stand there as integer kernels read them.
        arithmetic: the float type that nodes compute in, such as "float16"; empty for the model's own.
        in_float32: names of nodes that compute in float32 all the same.
    """

    model: Model
    weights: Mapping[str, Codes] = field(default_factory=dict)
    activations: Mapping[str, ActivationCodes] = field(default_factory=dict)
    biases: Mapping[str, BiasCodes] = field(default_factory=dict)
    integer: frozenset[str] = frozenset()
    absorbed: frozenset[str] = frozenset()
    float_values: Mapping[str, Floats] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    byte_input: ByteInput | None = None
    packed: frozenset[str] = frozenset()
    arithmetic: str = ""
    in_float32: frozenset[str] = frozenset()
    as_planned: bool = False
    dynamic: frozenset[str] = frozenset()
    block_kernels: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<QuantizedGraph of {brief(self.model.source)}: {several(len(self.weights), 'weight')} as codes>"

    @property
    def kind(self) -> ActivationKind:
        """How activations are held; all in one way."""
        return next((codes.kind for codes in self.activations.values()), UINT8)


def float_outputs(quantized: QuantizedGraph) -> frozenset[str]:
    """Outputs of the model that an integer product gives as float, where the file's outputs are float.

    Its kernel does both in one, and rounding the answers to 8 bits would gain nothing. Devices have no such kernels.
    """
    if quantized.as_planned:
        return frozenset()
    return frozenset(
        str(value.name)
        for value in quantized.model.graph.outputs
        if (producer := value.producer()) is not None
        and producer.op_type in FLOAT_OUTPUT
        and producer.name in quantized.integer
        and not any(user.name in quantized.integer for user, _ in value.uses())
    )
