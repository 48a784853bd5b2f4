"""Images and labels, opened once and read as often as needed: the data set of a network that sees.

`Images` holds where each image is, never the images. A pass decodes, resizes and normalizes in threads that run at most
a few images ahead, so that memory does not depend on the number of images; the order is the same every time.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lowbit.data import decode, image_list, iterables, npz, sources
from lowbit.data.constants import Constant, of_type
from lowbit.data.dataset import ONLY, Batch, check_labels, digest_of, fingerprint_of, whole_inputs
from lowbit.data.kept_pixels import KeptPixels
from lowbit.data.sampling import check_limit, stratified
from lowbit.data.sources import Labels, Source, Targets
from lowbit.errors import DataError
from lowbit.graph.preprocessing import Preprocessing
from lowbit.printable import brief
from lowbit.processor import cores, in_order

Result = TypeVar("Result")

BUILTIN = "builtin:"
FLOATS = np.dtype(np.float32)
MOST_THREADS = 8


@dataclass(frozen=True, eq=False)
class Images:
    """Images with or without labels, and how they become one of the model's inputs. Made by `open_images`.

    Args:
        source: where they come from.
        preprocessing: None where it is not known.
        input: name of the input that they go to; `ONLY` until `bound` knows the model.
        dtype: of that input.
        others: the other inputs, which are the same for every image.
        kept: pixels of files that were read before, which parts of a set share; None decodes them in every pass.
    """

    source: Source
    preprocessing: Preprocessing | None
    input: str = ONLY
    dtype: np.dtype[Any] = FLOATS
    others: Mapping[str, Constant] = field(default_factory=dict)
    kept: KeptPixels | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        classes = "" if self.class_names is None else f", {len(self.class_names):,} classes"
        return f"<Images {brief(self.name)}: {self.count:,}{classes}>"

    @property
    def name(self) -> str:
        """What the user calls them: a folder or file name, builtin:test, ..."""
        return self.source.name

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.source.places)

    def __len__(self) -> int:
        return self.count

    @property
    def labels(self) -> Labels | None:
        """int64 [count], or None."""
        return self.source.labels

    @property
    def targets(self) -> Targets | None:
        """What each image should give, where that is no class number, or None."""
        return self.source.targets

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """In the order of the labels, or None."""
        return self.source.class_names

    @property
    def origin(self) -> Hashable:
        """Equal origins and equal places mean the same image."""
        return self.source.origin

    @property
    def places(self) -> tuple[Hashable, ...]:
        """A file path or an index for each image."""
        return self.source.places

    def where(self, index: int) -> str:
        """How an error message names one image."""
        return self.source.where(self.source.places[index])

    def batches(self, size: int = 32, *, limit: int | None = None) -> Iterator[Batch]:
        """The images in order, `size` at a time (the last batch may be smaller); every call starts from the first.

        Args:
            size: images per batch.
            limit: maximum number of images, from the first on; `subset` chooses from all classes.

        Raises:
            DataError: right away, pixels without a known preprocessing; later, an image that cannot be read.
        """
        if size < 1:
            raise DataError(f"batch size must be at least 1, not {size}.")
        if self.preprocessing is None and self.needs_preprocessing:
            raise DataError(
                "the model has no preprocessing metadata, so it is unknown how images become its input.",
                where=self.name,
                remedy="Say it: model = lowbit.prepare(model, lowbit.Preprocessing(height, width, mean=..., std=...)), "
                "and preprocessing=model.preprocessing here.",
            )
        if limit is not None:
            check_limit(limit)
        return self._batches(size, range(self.count if limit is None else min(limit, self.count)))

    def _batches(self, size: int, chosen: Sequence[int]) -> Iterator[Batch]:
        inputs = _read_ahead(self._input, chosen, parallel=self.source.parallel)
        for start in range(0, len(chosen), size):
            indices = np.asarray(chosen[start : start + size], dtype=np.int64)
            x = np.stack(list(islice(inputs, len(indices))))
            others = {name: constant.repeated(len(indices)) for name, constant in self.others.items()}
            labels = None if self.labels is None else self.labels[indices]
            yield Batch({self.input: x, **others}, labels, indices, whole_inputs(self.others))

    def _input(self, index: int) -> npt.NDArray[Any]:
        return of_type(self._array(index), self.dtype, lambda: self.where(index))

    def _array(self, index: int) -> npt.NDArray[Any]:
        p, source = self.preprocessing, self.source
        place = source.places[index]
        if source.values == "model" or p is None:
            x = source.read(place, 3)
            if p is not None and x.shape != p.input_shape:
                raise DataError(
                    f"the array has shape {x.shape}, the model's inputs {p.input_shape}.",
                    where=source.where(place),
                    remedy="Give normalized arrays of the model's own shape, or images.",
                )
            return x
        if self.kept is not None and (known := self.kept.get(place, p)) is not None:
            return p.apply(known)
        pixels = source.pixels(place, p.channels)
        if index not in self._noted:
            # While it is decoded anyway: otherwise the fingerprint would decode everything once more.
            self._noted[index] = digest_of(pixels)
        resized = decode.resize(p.cropped(pixels), p.height, p.width) if source.resizable else pixels
        if self.kept is not None:
            self.kept.keep(place, p, resized, self._noted[index])
        return p.apply(resized)

    def keeping(self) -> "Images":
        """The same images, whose files are decoded once for several passes, as far as a bounded memory holds them."""
        return dataclasses.replace(self, kept=KeptPixels())

    @cached_property
    def needs_preprocessing(self) -> bool:
        """Whether these are pixels, and the input takes floats."""
        source = self.source
        stored = not isinstance(source.places[0], Path) and source.read(source.places[0], 3).dtype.kind == "f"
        return self.dtype.kind == "f" and not stored

    def pixels(self, size: int | tuple[int, int] | None = None) -> Iterator[tuple[decode.Pixels, int | None]]:
        """Every image as (uint8 [height, width, channels], label), in order, before normalization.

        Args:
            size: side, or (height, width), to resize to; None keeps each image's own.

        Raises:
            DataError: an image cannot be read, or is already a model's input.
        """
        read = _read_ahead(lambda i: self.image(i, size), range(self.count), parallel=self.source.parallel)
        labels = [None] * self.count if self.labels is None else self.labels.tolist()
        return zip(read, labels, strict=True)

    def image(self, index: int, size: int | tuple[int, int] | None = None) -> decode.Pixels:
        """Image `index` as uint8 [height, width, channels], resized to `size` as in `pixels`."""
        pixels = self.source.pixels(self.source.places[index], self._channels)
        if size is None:
            return pixels
        height, width = (size, size) if isinstance(size, int) else size
        return decode.resize(pixels, height, width)

    @property
    def _channels(self) -> int:
        return 3 if self.preprocessing is None else self.preprocessing.channels

    def subset(self, limit: int, *, seed: int = 0) -> "Images":
        """`limit` of the images, each class in proportion (largest remainders first), in the same order.

        The choice depends on labels, count and seed only, on any machine.

        Raises:
            DataError: `limit` is not positive.
        """
        return self.select(stratified(self.labels, self.count, limit, seed=seed))

    def apart(self, count: int, *, seed: int = 0) -> tuple["Images", "Images"]:
        """The others and `count` of the images, chosen as by `subset`.

        Raises:
            DataError: `count` is not positive.
        """
        chosen = stratified(self.labels, self.count, count, seed=seed)
        others = sorted(set(range(self.count)) - set(chosen))
        return self.select(others), self.select(chosen)

    def select(self, chosen: Sequence[int]) -> "Images":
        """The images of these numbers only, in this order."""
        return dataclasses.replace(self, source=self.source.select(chosen))

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's decoded pixels and shape, before resizing; for a model's inputs, of the floats.

        The same picture in another lossless format, in another file or as an array has the same digest. Decodes all
        images that no pass has decoded yet.
        """
        return tuple(_read_ahead(self._digest, range(self.count), parallel=self.source.parallel))

    @cached_property
    def _noted(self) -> dict[int, str]:
        """Digests of images that a pass has decoded, by index."""
        return {}

    def _digest(self, index: int) -> str:
        if index in self._noted:
            return self._noted[index]
        source = self.source
        place = source.places[index]
        if self.kept is not None and isinstance(place, Path) and place in self.kept.digests:
            return self.kept.digests[place]
        is_image = source.values != "model" and source.layout is not None
        return digest_of(source.pixels(place, self._channels) if is_image else source.read(place, self._channels))

    def fingerprint(self) -> str:
        """Hex SHA-256 of all digests with their labels; does not depend on file names or order."""
        return fingerprint_of(self.digests, self.labels, self.targets)


def open_images(
    source: object,
    preprocessing: Preprocessing | None,
    *,
    limit: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    values: str = "detect",
) -> Images:
    """Open images for calibration, measurement or training; nothing is decoded yet.

    Args:
        source: a folder of class folders, a flat folder, a list of files (CSV or text), or one image file; a .npz file;
            "builtin:train", "builtin:test" or "builtin:calibration"; an array, a pair (images, labels), or any iterable
            of arrays or (array, label); or `Images`. Files are resized to the model's size, arrays must have it (see
            `lowbit.data.arrays`).
        preprocessing: how images become the model's input; None if unknown: then batches can only be made of floats
            that are the model's own inputs.
        limit: maximum number of images, chosen by `Images.subset`.
        seed: of that choice.
        classes: class names in the order of the model's outputs; the alphabetical order of the folders by default.
        values: what numbers in arrays mean: "detect", "bytes", "unit" or "model".

    Raises:
        DataError: missing, empty, unreadable or ambiguous images, or images or labels that do not fit.

    >>> images = lowbit.open_images("photos", lowbit.Preprocessing(16, 16))
    >>> images.count, images.class_names[0]
    (10, 'class0')
    """
    images = source if isinstance(source, Images) else Images(_opened(source, preprocessing, classes, values), None)
    if preprocessing is not None:
        images = dataclasses.replace(images, preprocessing=preprocessing)
    if classes is not None and images.class_names != tuple(classes):
        if images.class_names is not None:
            raise DataError(
                f"the classes are {', '.join(images.class_names)}, not {', '.join(classes)}.", where=images.name
            )
        check_labels(images, len(classes))
        images = dataclasses.replace(images, source=dataclasses.replace(images.source, class_names=tuple(classes)))
    return images if limit is None else images.subset(limit, seed=seed)


def _opened(source: object, preprocessing: Preprocessing | None, classes: Sequence[str] | None, values: str) -> Source:
    if not isinstance(source, str | Path):
        return iterables.from_iterable(source, preprocessing, values=values)
    if str(source).startswith(BUILTIN):
        return sources.from_builtin(str(source).removeprefix(BUILTIN))
    path = Path(source)
    if path.is_dir():
        return sources.from_folder(path, classes)
    if not path.exists():
        raise DataError(
            "there is no such file or folder.",
            where=str(path),
            remedy="Give a folder of images, a .npz file, or builtin:train, builtin:test or builtin:calibration.",
        )
    if path.suffix.lower() == ".npz":
        return npz.from_npz(path, preprocessing, values=values)
    if path.suffix.lower() in decode.SUFFIXES:
        return sources.from_file(path)
    if path.suffix.lower() in image_list.SUFFIXES:
        return image_list.from_list(path, classes)
    raise DataError(
        "this file type is not supported.",
        where=str(path),
        remedy="Give a PNG, JPEG, WebP or BMP file, a folder or a list (.csv, .txt) of these, or a .npz file.",
    )


def _read_ahead(read: Callable[[int], Result], indices: Iterable[int], *, parallel: bool) -> Iterator[Result]:
    """`map(read, indices)` in order, by threads that stay at most a few results ahead of the caller."""
    threads = min(MOST_THREADS, cores()) if parallel else 1
    return in_order(read, indices, threads=threads, ahead=3 * threads)
