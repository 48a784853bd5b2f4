"""Arrays in memory, sequences and generators -> `Source`. What their numbers mean is decided once, over the whole set:

- integers are pixels 0..255; anything outside is refused;
- floats with a negative value are the model's own input already, pass untouched, and must have its exact shape;
- floats all within 0..1 are pixels as fractions ("unit");
- floats all within 0..255 that reach beyond 8 are pixels ("bytes");
- other floats are refused as ambiguous; `values="unit"`, `"bytes"` or `"model"` decides.

Where no preprocessing is known, floats of any range are the model's own input. [H, W, C] and [C, H, W] are told apart
by the model's shape, or by which end has 1 or 3 channels.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from PIL import Image

from lowbit.data import decode
from lowbit.data.sources import Array, Labels, Source
from lowbit.errors import DataError
from lowbit.graph.preprocessing import Preprocessing

VALUES = ("detect", "bytes", "unit", "model")
KEEP_BYTES = 1 << 30
# Interpolated fractions overshoot 1 a little, normalized values rarely pass 3, and photographs are brighter than 8.
BYTES_REACH = 8.0
SAY = "Store uint8, or say values='unit' (0..1), 'bytes' (0..255) or 'model' (already normalized)."
GIVEN = "the given images"


@dataclass(frozen=True)
class _Survey:
    """What one look at every image told."""

    count: int
    shape: tuple[int, ...]
    low: float
    high: float
    floats: bool


def from_array(
    images: Array,
    labels: object | None,
    preprocessing: Preprocessing | None,
    *,
    name: str = GIVEN,
    origin: object = None,
    values: str = "detect",
) -> Source:
    """One array [n, ...] of images; a memory map is not read into memory.

    Args:
        images: [n, H, W, C], [n, C, H, W] or [n, H, W], integers or floats.
        labels: integers [n] or [n, 1], or None.
        preprocessing: what the model takes; None if not known.
        name: used in messages.
        origin: identity of the images for `overlap`; the array itself by default.
        values: "detect", or what the numbers mean.

    Raises:
        DataError: no images; a size, channel count, dtype or range that does not fit; labels that are not one an image.
    """
    if images.ndim < 2:
        raise DataError(f"one image at least is needed, not an array of shape {images.shape}.", where=name)
    if images.dtype == np.uint8 and len(images):
        survey = _Survey(len(images), images.shape[1:], 0, 255, floats=False)
    else:
        survey = _surveyed((_numeric(image, f"{name}, image {i}") for i, image in enumerate(images)), name)
    tags = None if labels is None else _labels(labels, survey.count, name)
    identity = ("object", id(images)) if origin is None else origin
    return _source(lambda i, _: images[i], survey, tags, preprocessing, name=name, origin=identity, values=values)


def from_iterable(items: object, preprocessing: Preprocessing | None, *, values: str = "detect") -> Source:
    """Any iterable of arrays or (array, label); items of 4 dimensions are batches and taken apart.

    A sequence of single images is read again whenever they are needed, in the calling thread, and once at the start for
    labels and ranges. Anything else (generators, data loaders) is read once and kept, at most 1 GiB. An array, and a
    pair (images, labels) of arrays, are taken as a whole.

    Raises:
        DataError: as `from_array`; some items with labels and some without; more than can be kept.
    """
    if isinstance(items, np.ndarray):
        return from_array(items, None, preprocessing, values=values)
    if isinstance(items, tuple) and len(items) == 2 and getattr(items[0], "ndim", 0) >= 3:
        tags = items[1]
        if getattr(tags, "ndim", 0) == 1 or (isinstance(tags, list | tuple) and len(tags) == len(items[0])):
            return from_array(_numeric(items[0], GIVEN), tags, preprocessing, values=values)
    if isinstance(items, str | bytes | Mapping) or not (hasattr(items, "__iter__") or _is_indexed(items)):
        raise DataError(
            f"images cannot be read from a {type(items).__name__}.",
            remedy="Give a folder, a .npz file, builtin:train, builtin:test or builtin:calibration, or arrays.",
        )
    channels = 3 if preprocessing is None else preprocessing.channels
    again = cast(Any, items) if _is_indexed(items) else None
    if again is not None and len(again) and _split(again[0], channels, f"{GIVEN}, item 0")[0].ndim == 4:
        again = None
    kept: list[Array] = []
    labels: list[int] = []

    def looked_at() -> Iterator[Array]:
        """Each image once, noting its label and keeping it if it cannot be read again."""
        size = count = 0
        for number, item in enumerate(_in_order(items)):
            where = f"{GIVEN}, item {number}"
            array, tag = _split(item, channels, where)
            images = array if array.ndim == 4 and again is None else array[None]
            tags = [] if tag is None else [_label(one, where) for one in (cast(Any, tag) if array.ndim == 4 else [tag])]
            if (count and bool(tags) != bool(labels)) or (tags and len(tags) != len(images)):
                raise DataError("some images have a label and some have none.", where=where)
            labels.extend(tags)
            count += len(images)
            size += images.nbytes
            if again is None and size > KEEP_BYTES:
                raise DataError(
                    f"images that can be read only once are kept in memory, and these pass {KEEP_BYTES >> 20} MiB.",
                    where=GIVEN,
                    remedy="Give a sequence, a folder or an uncompressed .npz, or fewer images.",
                )
            for image in images:
                if again is None:
                    # A loader may use one buffer for every item.
                    kept.append(image.copy())
                yield image

    survey = _surveyed(looked_at(), GIVEN)
    tags_found = np.array(labels, dtype=np.int64) if labels else None

    def read(index: int, wanted: int) -> Array:
        if again is None:
            return kept[index]
        where = f"{GIVEN}, image {index}"
        image, _ = _split(again[index], wanted, where)
        if image.shape != survey.shape:
            raise DataError(f"the shape is {image.shape} now, and was {survey.shape}.", where=where)
        return image

    held = kept if again is None else again
    source = ("object", id(held))
    return _source(
        read, survey, tags_found, preprocessing, name=GIVEN, origin=source, values=values, parallel=again is None
    )


def _source(
    read: Callable[[Any, int], Array],
    survey: _Survey,
    labels: Labels | None,
    preprocessing: Preprocessing | None,
    *,
    name: str,
    origin: object,
    values: str,
    parallel: bool = True,
) -> Source:
    if values not in VALUES:
        raise DataError(f"values={values!r} is not known.", remedy=f"Use one of {', '.join(VALUES)}.")
    meaning = _meaning(survey, preprocessing, name) if values == "detect" else values
    if meaning == "model" and not survey.floats:
        raise DataError("a model's inputs must be floats, these are integers.", where=name, remedy=SAY)
    if meaning == "unit" and survey.floats and preprocessing is not None and _is_identity(preprocessing, survey.shape):
        meaning = "model"
    layout = _layout(survey.shape, preprocessing, meaning, name)
    places = tuple(range(survey.count))
    return Source(name, origin, places, read, labels, None, meaning, layout, resizable=False, parallel=parallel)


def _surveyed(images: Iterable[Array], name: str) -> _Survey:
    count, shape, floats = 0, (), False
    low, high = np.inf, -np.inf
    for image in images:
        where = f"{name}, image {count}"
        is_float = image.dtype.kind == "f"
        if count == 0:
            shape, floats = image.shape, is_float
            if image.size == 0 or image.ndim == 0:
                raise DataError(f"an image of shape {image.shape} has no pixels.", where=where)
        elif image.shape != shape:
            raise DataError(
                f"the shape is {image.shape}, those before have {shape}.",
                where=where,
                remedy="Resize the images first.",
            )
        elif is_float != floats:
            raise DataError(
                f"the dtype is {image.dtype}, those before are {'floats' if floats else 'integers'}.", where=where
            )
        smallest, largest = float(image.min()), float(image.max())
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            raise DataError("there are NaN or infinite values.", where=where, remedy="Remove or repair it.")
        low, high, count = min(low, smallest), max(high, largest), count + 1
    if count == 0:
        raise DataError("there are no images.", where=name, remedy="Give at least one.")
    return _Survey(count, shape, low, high, floats)


def _meaning(survey: _Survey, preprocessing: Preprocessing | None, name: str) -> str:
    low, high = survey.low, survey.high
    if not survey.floats:
        if low < 0 or high > 255:
            raise DataError(f"integers go from {low:g} to {high:g}, pixels from 0 to 255.", where=name, remedy=SAY)
        return "bytes"
    if low >= 0 and high <= 1:
        return "unit"
    if low >= 0 and BYTES_REACH < high <= 255:
        return "bytes"
    if low < 0 or preprocessing is None:
        return "model"
    raise DataError(f"floats from {low:g} to {high:g} could be pixels or a model's inputs.", where=name, remedy=SAY)


def input_shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Shape of one of the model's inputs, without the batch."""
    height, width, channels = preprocessing.image_shape
    return (channels, height, width) if preprocessing.layout == "NCHW" else (height, width, channels)


def _is_identity(preprocessing: Preprocessing, shape: tuple[int, ...]) -> bool:
    """Fractions of the model's shape are its inputs already, so that rounding them to 256 levels would be a loss."""
    p = preprocessing
    return abs(p.scale * 255 - 1) < 1e-6 and not any(p.mean) and set(p.std) == {1.0} and input_shape(p) == shape


def _layout(shape: tuple[int, ...], preprocessing: Preprocessing | None, meaning: str, name: str) -> str | None:
    """Which axis is which, or None for arrays that are no images."""
    if preprocessing is None:
        if meaning == "model" or len(shape) not in (2, 3):
            return None
        if len(shape) == 2:
            return "HW"
        ends = (shape[0] in (1, 3), shape[2] in (1, 3))
        return {(True, False): "CHW", (False, True): "HWC"}.get(ends)
    height, width, channels = preprocessing.image_shape
    if meaning == "model":
        if shape != input_shape(preprocessing):
            raise DataError(
                f"the arrays have shape {shape}, the model's inputs {input_shape(preprocessing)}; floats below 0 or"
                " values='model' are passed on as they are.",
                where=name,
                remedy="Give uint8 images, or normalized arrays of the model's own shape.",
            )
        return None
    shapes: dict[str, tuple[int, ...]] = {"HWC": (height, width, channels), "CHW": (channels, height, width)}
    if channels == 1:
        shapes["HW"] = (height, width)
    fitting = [layout for layout, wanted in shapes.items() if wanted == shape]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"shape {shape} could be height, width, channels or channels, height, width.",
            where=name,
            remedy="Give image files, or normalized arrays with values='model'.",
        )
    raise _misfit(shape, preprocessing, name)


def _misfit(shape: tuple[int, ...], preprocessing: Preprocessing, name: str) -> DataError:
    height, width, channels = preprocessing.image_shape
    wanted = f"the model takes {height}x{width} with {channels} channel{'s' if channels > 1 else ''}"
    if len(shape) == 3 and ((height, width) in (shape[:2], shape[1:])):
        given = shape[2] if shape[:2] == (height, width) else shape[0]
        what, remedy = f"the images have {given} channels, {wanted}.", "Convert them to the model's channels."
    elif len(shape) == 2 and shape == (height, width):
        what, remedy = f"the images have 1 channel, {wanted}.", "Convert them to the model's channels."
    else:
        what = f"the images have shape {shape}, {wanted}."
        remedy = f"Resize them to {height}x{width}, or give a folder of image files, which are resized."
    return DataError(what, where=name, remedy=remedy)


def _is_indexed(items: object) -> bool:
    return hasattr(items, "__len__") and hasattr(items, "__getitem__")


def _in_order(items: object) -> Iterator[Any]:
    # Data sets of other libraries have a length and items, and often no end of iteration.
    source = cast(Any, items)
    return (source[i] for i in range(len(source))) if _is_indexed(items) else iter(source)


def _split(item: object, channels: int, where: str) -> tuple[Array, object | None]:
    """An item's array, and its label if it is a pair (a batch of images has a row of labels)."""
    if isinstance(item, tuple | list) and len(item) == 2:
        first_dimensions, second_dimensions = _dimensions(item[0]), _dimensions(item[1])
        if second_dimensions == (1 if first_dimensions == 4 else 0):
            return _numeric(item[0], where, channels), item[1]
    return _numeric(item, where, channels), None


def _dimensions(value: object) -> int:
    if isinstance(value, Image.Image):
        return 3
    try:
        return np.ndim(cast(Any, value))
    except (ValueError, TypeError, RuntimeError):
        return -1


def _numeric(value: object, where: str, channels: int = 3) -> Array:
    if isinstance(value, Image.Image):
        return decode.to_pixels(value, channels)
    try:
        array = np.asarray(value)
    except Exception as error:
        raise DataError(f"not an array: {error}.", where=where, remedy="Give numeric arrays.") from error
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise DataError(
            f"a {type(value).__name__} of dtype {array.dtype} is not an image.",
            where=where,
            remedy="Give uint8 or float arrays, or pairs (array, label).",
        )
    return array


def _labels(labels: object, count: int, name: str) -> Labels:
    tags = np.asarray(labels)
    if tags.shape == (count, 1):
        tags = tags[:, 0]
    if tags.shape != (count,) or tags.dtype.kind not in "iu":
        raise DataError(
            f"labels are {tags.dtype} {tags.shape}, expected one integer for each of {count} images.",
            where=name,
            remedy="Give class numbers from 0; turn one-hot rows into numbers with argmax.",
        )
    if count and not 0 <= int(tags.min()) <= int(tags.max()) < 1 << 31:
        raise DataError(f"labels go from {tags.min()} to {tags.max()}.", where=name, remedy="Count classes from 0.")
    return tags.astype(np.int64)


def _label(tag: object, where: str) -> int:
    try:
        label = operator.index(cast(Any, tag))
    except TypeError as error:
        raise DataError(
            f"the label {tag!r} is not an integer.", where=where, remedy="Give class numbers from 0."
        ) from error
    if not 0 <= label < 1 << 31:
        raise DataError(f"the label is {label}.", where=where, remedy="Count classes from 0.")
    return label
