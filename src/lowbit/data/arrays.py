"""Arrays -> `Source`. What their numbers mean is decided once, over the whole set:

- integers are pixels 0..255; anything outside is refused;
- floats with a negative value are the model's own input already, are not changed, and must have its exact shape;
- floats all within 0..1 are pixels as fractions ("unit");
- floats all within 0..255, some above 8, are pixels ("bytes");
- other floats are refused as ambiguous; `values="unit"`, `"bytes"` or `"model"` decides.

Where no preprocessing is known, floats of any range are the model's own input. [H, W, C] and [C, H, W] are told apart
by the model's shape, or by which end has size 1 or 3.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lowbit.data import decode
from lowbit.data.sources import Array, Source
from lowbit.data.targets import understood
from lowbit.errors import DataError
from lowbit.graph.preprocessing import RGB, Preprocessing

VALUES = ("detect", "bytes", "unit", "model")
# Interpolated fractions overshoot 1 a little, normalized values rarely pass 3, and photographs are brighter than 8.
BYTES_REACH = 8.0
SAY = "Store uint8, or give values='unit' (0..1), 'bytes' (0..255) or 'model' (already normalized)."
GIVEN = "the given images"


@dataclass(frozen=True)
class Survey:
    """What one pass over all images found: their number, common shape, extremes, and whether they are floats."""

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
        labels: one for each image, in any form that `targets.understood` takes, or None.
        preprocessing: what the model takes; None if not known.
        name: used in messages.
        origin: identity of the images for `overlap`; the array itself by default.
        values: "detect", or what the numbers mean.

    Raises:
        DataError: no images; a size, channel count, dtype or range that does not fit; not one label per image.
    """
    if images.ndim < 2:
        raise DataError(f"an array of shape {images.shape} is not a set of images.", where=name)
    if images.dtype == np.uint8 and len(images):
        survey = Survey(len(images), images.shape[1:], 0, 255, floats=False)
    else:
        survey = inspect((numeric(image, f"{name}, image {i}") for i, image in enumerate(images)), name)
    classes, targets = (None, None) if labels is None else understood(labels, survey.count, name)
    identity = ("object", id(images)) if origin is None else origin
    source = Source(name, identity, tuple(range(survey.count)), lambda i, _: images[i], classes, targets=targets)
    return interpreted(source, survey, preprocessing, values)


def interpreted(source: Source, survey: Survey, preprocessing: Preprocessing | None, values: str) -> Source:
    """The source with what its numbers mean and how its arrays are laid out.

    Raises:
        DataError: an unknown `values`, or a dtype, range or shape that does not fit it or the model.
    """
    name = source.name
    if values not in VALUES:
        raise DataError(f"values={values!r} is not known.", remedy=f"Use one of {', '.join(VALUES)}.")
    meaning = _meaning(survey, preprocessing, name) if values == "detect" else values
    if meaning == "model" and not survey.floats:
        raise DataError("a model's inputs must be floats, these are integers.", where=name, remedy=SAY)
    if meaning == "unit" and survey.floats and preprocessing is not None and _is_identity(preprocessing, survey.shape):
        meaning = "model"
    layout = _layout(survey.shape, preprocessing, meaning, name)
    return dataclasses.replace(source, values=meaning, layout=layout, resizable=False)


def inspect(images: Iterable[Array], name: str) -> Survey:
    """Look at every image once.

    Raises:
        DataError: no images, an empty one, NaN or infinity, or shapes or kinds of numbers that differ.
    """
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
                f"the shape is {image.shape}, earlier images have {shape}.",
                where=where,
                remedy="Resize the images first.",
            )
        elif is_float != floats:
            raise DataError(
                f"the dtype is {image.dtype}, earlier images are {'floats' if floats else 'integers'}.", where=where
            )
        smallest, largest = float(image.min()), float(image.max())
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            raise DataError("some values are NaN or infinite.", where=where, remedy="Remove or repair the image.")
        low, high, count = min(low, smallest), max(high, largest), count + 1
    if count == 0:
        raise DataError("there are no images.", where=name, remedy="Give at least one.")
    return Survey(count, shape, low, high, floats)


def _meaning(survey: Survey, preprocessing: Preprocessing | None, name: str) -> str:
    low, high = survey.low, survey.high
    if not survey.floats:
        if low < 0 or high > 255:
            raise DataError(f"integers range from {low:g} to {high:g}, pixels from 0 to 255.", where=name, remedy=SAY)
        return "bytes"
    if low >= 0 and high <= 1:
        return "unit"
    if low >= 0 and BYTES_REACH < high <= 255:
        return "bytes"
    if low < 0 or preprocessing is None:
        return "model"
    raise DataError(f"floats from {low:g} to {high:g} could be pixels or a model's inputs.", where=name, remedy=SAY)


def _is_identity(preprocessing: Preprocessing, shape: tuple[int, ...]) -> bool:
    """Whether fractions are the model's inputs already, which rounding to 256 levels would only make less precise."""
    p = preprocessing
    plain = abs(p.scale * 255 - 1) < 1e-6 and not any(p.mean) and set(p.std) == {1.0} and p.colors == RGB
    return plain and p.input_shape == shape


def _layout(shape: tuple[int, ...], preprocessing: Preprocessing | None, meaning: str, name: str) -> str | None:
    """Which axis is which, or None for arrays that are not images."""
    if preprocessing is None:
        if meaning == "model" or len(shape) not in (2, 3):
            return None
        if len(shape) == 2:
            return "HW"
        ends = (shape[0] in (1, 3), shape[2] in (1, 3))
        return {(True, False): "CHW", (False, True): "HWC"}.get(ends)
    height, width, channels = preprocessing.image_shape
    if meaning == "model":
        if shape != preprocessing.input_shape:
            raise DataError(
                f"the arrays have shape {shape}, the model's inputs {preprocessing.input_shape}; floats below 0 or"
                " values='model' are used as they are.",
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


def numeric(value: object, where: str, channels: int = 3) -> Array:
    """A value as an array of numbers; a pillow image as uint8 [height, width, channels].

    Raises:
        DataError: not an array, or not of integers or floats.
    """
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
