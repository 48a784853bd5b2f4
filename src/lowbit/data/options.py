"""Options about images on the command line -> `Preprocessing`."""

import dataclasses
import re
from dataclasses import dataclass

from lowbit.errors import DataError
from lowbit.graph.exporters import layout_of
from lowbit.graph.model import Model
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, RGB, Preprocessing


@dataclass(frozen=True)
class ImageWords:
    """What is said of images on the command line; None leaves it to the model's metadata and its input's shape.

    Attributes:
        size: "128" or "128x96" (height x width), in pixels.
        mean: "imagenet", or one number per channel on the scale of 0..1, in the order of the network, or one for all.
        std: likewise.
        layout: "NCHW" or "NHWC".
        colors: "RGB" or "BGR", the order of the network's channels.
        crop: the share of an image's middle that is taken; see `Preprocessing`.
    """

    size: str | None = None
    mean: str | None = None
    std: str | None = None
    layout: str | None = None
    colors: str | None = None
    crop: float | None = None


def with_preprocessing(model: Model, said: ImageWords) -> Model:
    """The model with the given preprocessing.

    Args:
        model: a loaded model.
        said: how images become its input.

    Returns:
        The same model if nothing is said; without metadata it then only takes arrays of its own input shape.

    Raises:
        DataError: an invalid value, or one that does not fit the model's input.
    """
    known = model.preprocessing
    if said == ImageWords():
        return model
    layout = said.layout.upper() if said.layout else (known.layout if known else layout_of(model.input.shape))
    height, width, channels = _input_of(model, layout)
    if said.size is not None:
        height, width = _sides(said.size, height, width)
    if known is not None:
        height, width = height or known.height, width or known.width
    if not height or not width:
        raise DataError("the model's input has no fixed size.", where=model.source, remedy="Add --image-size HxW.")
    order = said.colors.upper() if said.colors else (known.colors if known else RGB)
    step = 1 if order == RGB else -1
    preprocessing = Preprocessing(
        height=height,
        width=width,
        channels=channels,
        layout=layout,
        scale=known.scale if known else 1 / 255,
        mean=_numbers(said.mean, "--mean", channels, IMAGENET_MEAN[::step])
        or (known.mean if known else (0.0,) * channels),
        std=_numbers(said.std, "--std", channels, IMAGENET_STD[::step]) or (known.std if known else (1.0,) * channels),
        colors=order,
        crop=said.crop if said.crop is not None else (known.crop if known else None),
    )
    return dataclasses.replace(model, preprocessing=preprocessing, preprocessing_note=_note(model, said.mean, said.std))


def _sides(size: str, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width as they are given, which have to be those of the input where these are fixed."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", size.strip().lower())
    if match is None:
        raise DataError(
            f"--image-size '{size}' is not an image size.", remedy="Write it as 128 or 128x96 (height x width)."
        )
    given = int(match[1]), int(match[2] or match[1])
    if (height or given[0], width or given[1]) != given:
        raise DataError(
            f"--image-size {given[0]}x{given[1]} does not fit the model's input of {height}x{width}.",
            remedy="Leave --image-size out.",
        )
    return given


def _note(model: Model, mean: str | None, std: str | None) -> str:
    """What is assumed, or who says it, where the options do not."""
    if model.preprocessing is not None:
        return model.preprocessing_note if mean is None and std is None else ""
    assumed = [f"{name} {value}" for name, value, given in (("mean", 0, mean), ("std", 1, std)) if given is None]
    if not assumed:
        return ""
    return f"Pixels are taken with {' and '.join(assumed)}, on the scale of 0..1, since nothing else is said."


def _input_of(model: Model, layout: str) -> tuple[int | None, int | None, int]:
    shape = model.input.shape
    if layout not in ("NCHW", "NHWC"):
        raise DataError(f"--layout '{layout}' is unknown.", remedy="Write NCHW or NHWC.")
    if len(shape) != 4:
        raise DataError(
            f"the model's input has {len(shape)} dimensions, an image batch has 4.",
            where=model.source,
            remedy="Give arrays of the model's own input shape, in a .npz file.",
        )
    order = (2, 3, 1) if layout == "NCHW" else (1, 2, 3)
    height, width, channels = (extent if isinstance(extent, int) else None for extent in (shape[i] for i in order))
    return height, width, channels or 3


def _numbers(text: str | None, option: str, channels: int, imagenet: tuple[float, ...]) -> tuple[float, ...] | None:
    if text is None:
        return None
    if text.strip().lower() == "imagenet" and channels == 3:
        return imagenet
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels:
        raise DataError(
            f"{option} '{text}' is not {channels} numbers.", remedy="Write for example 0.485,0.456,0.406, or imagenet."
        )
    return numbers
