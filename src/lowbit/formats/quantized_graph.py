"""What every file format writes: a float graph, and the integers that stand in for some of its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lowbit.graph.model import Model
from lowbit.graph.preprocessing import Preprocessing
from lowbit.schemes.codes import Codes as Codes
from lowbit.schemes.codes import IntegerCodes

Int32s = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class ActivationCodes:
    """How an activation becomes uint8: `q = clip(round(x / scale) + zero_point, 0, 255)`.

    Attributes:
        scale: float32 step, in the tensor's own units.
        zero_point: the code of 0.0, from 0 to 255.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True)
class BiasCodes:
    """A bias as int32 in units of input scale times weight scale, so that it adds to the integer products.

    Attributes:
        codes: int32, one per channel.
        scale: float32, one per channel, or a single one for per-tensor weights.
    """

    codes: Int32s
    scale: Floats

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


def float_outputs(quantized: QuantizedGraph) -> frozenset[str]:
    """Outputs of the model that an integer product gives as float, where the file's outputs are float.

    Its kernel does both in one, and rounding the answers to 8 bits would gain nothing.
    """
    return frozenset(
        str(value.name)
        for value in quantized.model.graph.outputs
        if (producer := value.producer()) is not None
        and producer.op_type in FLOAT_OUTPUT
        and producer.name in quantized.integer
        and not any(user.name in quantized.integer for user, _ in value.uses())
    )
