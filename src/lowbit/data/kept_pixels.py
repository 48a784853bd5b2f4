"""Pixels of image files that several passes read: decoded and resized once, as many as a bounded memory holds."""

from pathlib import Path

import numpy as np

from lowbit.data.decode import Pixels
from lowbit.graph.preprocessing import Preprocessing

MEMORY = 48 << 20  # bytes: 334 images of 224x224; the others are decoded in every pass


class KeptPixels:
    """The pixels of some images as a network takes them, and their digests; threads may share it.

    Args:
        memory: bytes of pixels at most.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self.digests: dict[Path, str] = {}
        self._pixels: dict[tuple[Path, Preprocessing], Pixels] = {}
        self._left = memory

    def get(self, place: object, how: Preprocessing) -> Pixels | None:
        """The pixels of a file for this preprocessing; None if they were not kept."""
        return self._pixels.get((place, how)) if isinstance(place, Path) else None

    def keep(self, place: object, how: Preprocessing, pixels: Pixels, digest: str) -> None:
        """Keep the pixels of a file, if it is one and they fit, and the digest of what was decoded."""
        if not isinstance(place, Path):
            return
        self.digests[place] = digest
        if pixels.nbytes <= self._left and (place, how) not in self._pixels:
            self._left -= pixels.nbytes
            self._pixels[place, how] = np.array(pixels)  # they may be the middle of a larger image
