"""Convolutions with a stride over few channels read pixels side by side as one.

Integer kernels multiply 8 channels at a time and fill up what is missing: of three colors, 5 products in 8 are
wasted. Channels-last, neighbors in a row are neighbors in memory, so [N, H, W, C] is [N, H, W/s, s C] as it stands,
and a stride of s pixels is a stride of 1 over such groups. The kernel gets columns of zeros where it ends inside a
group: the same sums, from 2 taps of 6 channels per row instead of 3 taps of 3; a kernel of 7 columns has 4 taps instead
of 7. (MobileNetV2 in XNNPACK: the first layer takes 47 us instead of 60, 1.2 % of the network.)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.formats.litert.window import Window

# Key of the note for readers: [pixels in a group, columns of zeros in front, columns of the kernel].
NOTE = "pixels"

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Groups:
    """How pixels of a row are taken together.

    Attributes:
        pixels: how many become one.
        front: groups of padding in front of the image.
        zeros: columns of zeros in front of the kernel.
        columns: of the kernel itself.
    """

    pixels: int
    front: int
    zeros: int
    columns: int

    @property
    def taps(self) -> int:
        """Groups that the kernel spans."""
        return -(-(self.zeros + self.columns) // self.pixels)

    def window(self, window: Window) -> Window:
        """The same positions, counted in groups."""
        return Window(self.taps, 1, self.front, window.size // self.pixels, window.outputs)

    def weight(self, weight: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """[O, H, W, C] -> [O, H, taps, pixels C]."""
        behind = self.taps * self.pixels - self.zeros - self.columns
        wide = np.pad(weight, [(0, 0), (0, 0), (self.zeros, behind), (0, 0)])
        return wide.reshape(*weight.shape[:2], self.taps, self.pixels * weight.shape[3])

    def note(self) -> list[int]:
        """What `restored` needs."""
        return [self.pixels, self.zeros, self.columns]


def grouped(window: Window, channels: int, lanes: int) -> Groups | None:
    """The groups of a convolution's row that save products; None if there are none.

    Args:
        window: how its kernel, which has no dilation, moves along a row; `before` may be negative.
        channels: of a pixel.
        lanes: channels that kernels multiply at a time.
    """
    pixels = window.stride
    if pixels < 2 or window.size % pixels:
        return None
    front = -(-window.before // pixels)
    groups = Groups(pixels, front, front * pixels - window.before, window.extent)
    products = groups.taps * -(-pixels * channels // lanes)
    return groups if products < window.extent * -(-channels // lanes) else None


def restored(weight: Array, note: list[int]) -> Array:
    """[O, pixels C, H, taps] as `Groups.weight` left it (and then turned around) -> [O, C, H, W].

    Raises:
        ValueError: the note does not fit the weight.
    """
    pixels, zeros, columns = (int(size) for size in note)
    outputs, wide, rows, taps = weight.shape
    if min(pixels, columns) < 1 or zeros < 0 or wide % pixels or zeros + columns > taps * pixels:
        raise ValueError(f"{taps} taps of {wide} channels are no groups of {pixels} pixels")
    plain = weight.transpose(0, 2, 3, 1).reshape(outputs, rows, taps * pixels, wide // pixels)
    return plain[:, :, zeros : zeros + columns].transpose(0, 3, 1, 2)
