"""How an image becomes the network's input: `x = (image * scale - mean) / std`.

Stored with the model, as JSON under the ONNX metadata key `lowbit.preprocessing`, so that nobody has to remember it.
Metadata is untrusted: everything in it is checked before use.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.errors import DataError, ModelError

METADATA_KEY = "lowbit.preprocessing"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAYOUTS = ("NCHW", "NHWC")
RGB, BGR = COLORS = ("RGB", "BGR")
LARGEST_SIDE = 16384
MOST_CHANNELS = 4
LONGEST_JSON = 4096
REMEDY = f"Correct the option, or the model's metadata entry {METADATA_KEY!r}, that says so."


@dataclass(frozen=True)
class Preprocessing:
    """Image size, layout and normalization of a network's input.

    Args:
        height: pixels.
        width: pixels.
        channels: 1 (gray), 3 (colors) or 4; `mean` and `std` have as many values.
        layout: "NCHW" or "NHWC".
        scale: factor on the uint8 values, before mean and std.
        mean: subtracted per channel, after scaling.
        std: divided by per channel, after scaling.
        crop: None resizes the whole image, whatever its proportions. A share of 1 or less takes the largest box of the
            input's proportions in the middle of the image, and of its sides this share: 0.875 for networks that were
            evaluated on 256 pixels cropped to 224.
        colors: order of the network's three channels, "RGB" or "BGR" (OpenCV, Caffe). Images are RGB; `mean` and `std`
            are in the order of the network.

    Raises:
        ModelError: an invalid size, layout or number.

    >>> lowbit.Preprocessing(224, 192, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).input_shape
    (3, 224, 192)
    """

    height: int
    width: int
    channels: int = 3
    layout: str = "NCHW"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    crop: float | None = None
    colors: str = RGB

    def __post_init__(self) -> None:
        for name, largest in (("height", LARGEST_SIDE), ("width", LARGEST_SIDE), ("channels", MOST_CHANNELS)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
                raise _wrong(name, value, f"an integer from 1 to {largest}")
        if self.layout not in LAYOUTS:
            raise _wrong("layout", self.layout, " or ".join(LAYOUTS))
        if self.colors not in COLORS or (self.colors == BGR and self.channels != 3):
            raise _wrong("colors", self.colors, f"{' or '.join(COLORS)} of 3 channels")
        if not _is_finite(self.scale) or self.scale == 0:
            raise _wrong("scale", self.scale, "a finite number other than 0")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if (
                not isinstance(values, tuple)
                or len(values) != self.channels
                or not all(_is_finite(value) for value in values)
                or (name == "std" and not all(value > 0 for value in values))
            ):
                kind = "positive" if name == "std" else "finite"
                raise _wrong(name, values, f"{self.channels} {kind} numbers, one per channel")
        if self.crop is not None and not (_is_finite(self.crop) and 0 < self.crop <= 1):
            raise _wrong("crop", self.crop, "a number above 0, and at most 1")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the uint8 image that `apply` takes: (height, width, channels)."""
        return self.height, self.width, self.channels

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of what `apply` returns: that of the network's input without the batch dimension."""
        height, width, channels = self.image_shape
        return (channels, height, width) if self.layout == "NCHW" else (height, width, channels)

    def cropped(self, image: np.ndarray) -> np.ndarray:
        """The part of an image [h, w, channels] of any size that is resized to the input's size; see `crop`."""
        if self.crop is None:
            return image
        most = min(image.shape[0] / self.height, image.shape[1] / self.width) * self.crop
        height, width = (max(1, round(most * side)) for side in (self.height, self.width))
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return image[top : top + height, left : left + width]

    def __str__(self) -> str:
        """In words: "224x224 pixels, the middle 87.5 % of the image, mean 0.5, std 0.5"."""
        unit = "" if math.isclose(self.scale, 1 / 255, rel_tol=1e-6) else f", times {self.scale:.6g}"
        share = "" if self.crop in (None, 1) else f" {100 * self.crop:.4g} %"
        part = "" if self.crop is None else f", the middle{share} of the image"
        order = "" if self.colors == RGB else f" in {self.colors} order"
        size = f"{self.height}x{self.width} pixels"
        return f"{size}{order}{part}{unit}, mean {_words(self.mean)}, std {_words(self.std)}"

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turn one uint8 image [H, W, C] into the network's float32 input [C, H, W], or [H, W, C] for NHWC.

        Args:
            image: of three channels in the order RGB, whatever the order of the network's.

        Raises:
            DataError: another shape or dtype.
        """
        if image.shape != self.image_shape or image.dtype != np.uint8:
            raise DataError(
                f"the image is {image.dtype} {list(image.shape)}, the model takes uint8 {list(self.image_shape)}.",
                remedy="Resize the image and convert its mode first.",
            )
        ordered = image if self.colors == RGB else image[..., ::-1]
        mean, std = (np.asarray(values, np.float32) for values in (self.mean, self.std))
        # Whole planes or rows at a time: arithmetic on the three values of each pixel takes four times as long.
        if self.layout == "NCHW":
            x = np.stack([ordered[..., channel] for channel in range(self.channels)]).astype(np.float32)
            mean, std = mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)
        else:
            x = ordered.astype(np.float32, order="C").reshape(self.height, -1)
            mean, std = np.tile(mean, self.width), np.tile(std, self.width)
        x *= np.float32(self.scale)
        x -= mean
        x /= std
        return x.reshape(self.input_shape)

    def to_json(self) -> str:
        """One line of JSON; `from_json` returns an equal value."""
        entries = dataclasses.asdict(self)
        usual = {"crop": None, "colors": RGB}  # files say only what differs: earlier versions know neither
        entries = {name: value for name, value in entries.items() if name not in usual or usual[name] != value}
        return json.dumps(entries, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Preprocessing":
        """Read what `to_json` wrote.

        Raises:
            ModelError: not JSON, a missing or unknown key, or an invalid value.
        """
        if len(text) > LONGEST_JSON:
            raise ModelError(
                f"{METADATA_KEY} has {len(text)} characters, the maximum is {LONGEST_JSON}.", remedy=REMEDY
            )
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{METADATA_KEY} is not JSON: {error}.", remedy=REMEDY) from error
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(entries, dict) or not {"height", "width"} <= entries.keys() <= names:
            raise ModelError(f"{METADATA_KEY} needs height and width, and knows {sorted(names)}.", remedy=REMEDY)
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entries.items()}
        return cls(**values)


def _words(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.4g}" for value in (values[:1] if len(set(values)) == 1 else values))


def _is_finite(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    # The arithmetic is in float32; larger integers would also overflow math.isfinite.
    return abs(value) <= 3e38 and math.isfinite(value)


def _wrong(name: str, value: object, expected: str) -> ModelError:
    return ModelError(f"preprocessing {name} is {str(value)[:80]}, expected {expected}.", remedy=REMEDY)
