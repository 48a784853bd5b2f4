"""What exporters say of preprocessing, in the model's own metadata or in a JSON file beside it.

lowbit's own metadata and the user's options come first. All of this is untrusted: files have a largest size, JSON and
literals are read as data, and every number is checked by `Preprocessing`. What cannot be followed is said, never
guessed. Sources: Ultralytics `engine/exporter.py`, timm `models/_hub.py`, transformers `image_processing_utils.py`,
Teachable Machine's `metadata.json`.
"""

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowbit.errors import ModelError
from lowbit.graph.preprocessing import BGR, MOST_CHANNELS, RGB, Preprocessing

LARGEST_JSON = 4_000_000  # bytes; names of 21,000 classes take one million
LONGEST_LITERAL = 200
MOST_SIDE = 1 << 20  # pixels
NEWER_RESIZE = 384  # ConvNeXt's: from this size on images are resized as a whole
Entries = Mapping[str, Any]


@dataclass(frozen=True)
class Stated:
    """What an exporter says; values are as they stand there.

    Attributes:
        size: height and width; None leaves them to the model's input.
        scale: on bytes.
        mean: one for each channel, or for all.
        std: likewise.
        colors: see `Preprocessing`.
        crop: see `Preprocessing`.
        but: what lowbit does otherwise, as a sentence; empty if nothing.
    """

    size: Any = None
    scale: Any = 1 / 255
    mean: Any = (0.0,)
    std: Any = (1.0,)
    colors: str = RGB
    crop: Any = None
    but: str = ""


@dataclass(frozen=True)
class Exporter:
    """One that says it.

    Attributes:
        name: as people call it.
        file: name of the JSON file beside the model; empty for the metadata of the model itself.
        read: entries -> what they say; None if they are not this exporter's.
    """

    name: str
    file: str
    read: Callable[[Entries], Stated | None]


def ultralytics(said: Entries) -> Stated | None:
    """`imgsz` is "[640, 640]"; pixels go to 0..1. Detectors pad images to the input's proportions."""
    if said.get("author") != "Ultralytics" and not {"stride", "task", "imgsz", "names"} <= said.keys():
        return None
    size = _literal(said.get("imgsz"))
    if said.get("task") == "classify":
        return Stated(size, crop=1.0)
    return Stated(size, but="Ultralytics pads images to the input's proportions; lowbit stretches them.")


def timm(said: Entries) -> Stated | None:
    """`pretrained_cfg` of timm's `config.json`, or, of older ones, the same entries without it."""
    nested = said.get("pretrained_cfg")
    cfg = nested if isinstance(nested, dict) else said
    if not {"input_size", "mean", "std"} <= cfg.keys():
        return None
    sizes = cfg["input_size"]
    size = sizes[1:] if isinstance(sizes, list) and len(sizes) == 3 else sizes
    crop = cfg.get("crop_pct")
    if cfg.get("crop_mode", "center") != "center":
        return Stated(size, mean=cfg["mean"], std=cfg["std"], but="timm resizes these images in another way.")
    return Stated(size, mean=cfg["mean"], std=cfg["std"], crop=crop)


def hugging_face(said: Entries) -> Stated | None:
    """`preprocessor_config.json` of an image processor; those of audio and text have none of these entries."""
    if not {"image_mean", "do_rescale", "rescale_factor"} & said.keys():
        return None
    scale = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
    plain = not said.get("do_normalize", True) or "image_mean" not in said
    mean, std = ((0.0,), (1.0,)) if plain else (said["image_mean"], said.get("image_std"))
    size, crop, but = _hugging_face_size(said)
    colors = RGB
    if said.get("do_flip_channel_order") is True:  # the processor does it last, so its numbers are in the order RGB
        colors = BGR
        mean, std = (list(v)[::-1] if isinstance(v, list | tuple) else v for v in (mean, std))
    return Stated(size, scale, mean, std, colors, crop, but)


def teachable_machine(said: Entries) -> Stated | None:
    """`metadata.json` of Teachable Machine: the middle of an image, as -1..1."""
    if "imageSize" not in said or "labels" not in said:
        return None
    return Stated([said["imageSize"]] * 2, mean=(0.5,), std=(0.5,), crop=1.0)


# The first that says something is followed.
EXPORTERS = (
    Exporter("Ultralytics", "", ultralytics),
    Exporter("Hugging Face", "preprocessor_config.json", hugging_face),
    Exporter("timm", "config.json", timm),
    Exporter("Teachable Machine", "metadata.json", teachable_machine),
)


def stated_preprocessing(
    metadata: Entries, folder: Path | None, shape: tuple[int | str | None, ...]
) -> tuple[Preprocessing | None, str]:
    """What an exporter says of a model that takes one batch of images, and who says it, as a sentence.

    Args:
        metadata: of the model.
        folder: that the model is in; None if there is none.
        shape: of its input.

    Returns:
        None where nobody says anything, and an empty sentence; or a sentence on why what is said cannot be followed.
    """
    for exporter in EXPORTERS:
        where, entries = ("the model's metadata", metadata) if not exporter.file else beside(folder, exporter.file)
        try:
            said = exporter.read(entries)
            if said is not None:
                how = _fitted(said, shape)
                return how, f"Images become the input as {exporter.name} says in {where}: {how}. {said.but}".strip()
        except ModelError as error:
            return None, f"What {exporter.name} says in {where} is not followed: {error.what}"
    return None, ""


def _fitted(said: Stated, shape: tuple[int | str | None, ...]) -> Preprocessing:
    """With the layout, the channels and the size that the input has.

    Raises:
        ModelError: it does not fit, or is not what it should be.
    """
    layout = layout_of(shape)
    height, width, channels = (shape[axis] for axis in ((2, 3, 1) if layout == "NCHW" else (1, 2, 3)))
    size = said.size if isinstance(said.size, list | tuple) else [said.size] * 2
    if len(size) != 2:
        raise ModelError(f"the image size is {str(said.size)[:80]}, expected height and width.")
    mean, std = (list(v) if isinstance(v, list | tuple) else v for v in (said.mean, said.std))
    count = channels if isinstance(channels, int) else (len(mean) if isinstance(mean, list) and len(mean) > 1 else 3)
    sides: list[Any] = [
        own if isinstance(own, int) else given for own, given in zip((height, width), size, strict=True)
    ]
    if None in sides:
        raise ModelError("it names no image size, and neither does the model.")
    return Preprocessing(
        height=sides[0],
        width=sides[1],
        channels=count,
        layout=layout,
        scale=said.scale,
        mean=_for_all(mean, count),
        std=_for_all(std, count),
        colors=said.colors,
        crop=said.crop,
    )


def layout_of(shape: tuple[int | str | None, ...]) -> str:
    """ "NHWC" if only the last of four dimensions can be the color, else "NCHW"."""
    return "NHWC" if len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4) else "NCHW"


def _for_all(values: Any, channels: int) -> Any:  # noqa: ANN401 - `Preprocessing` checks it
    if isinstance(values, int | float):
        values = [values]
    if not isinstance(values, list):
        return values
    return tuple(values) * (min(channels, MOST_CHANNELS) if len(values) == 1 else 1)


def _hugging_face_size(said: Entries) -> tuple[Any, Any, str]:
    """Size, crop, and what is done otherwise. Before a crop, `size` is that of the shorter side."""
    size = _sides(said.get("size"))
    if said.get("do_center_crop") and "crop_size" in said:
        wanted = _sides(said["crop_size"])
        known = _are_sides(wanted) and _are_sides(size)
        return wanted, min(1.0, min(wanted) / min(size)) if known else 1.0, ""
    raw = said.get("size")
    if isinstance(raw, dict) and isinstance(raw.get("shortest_edge"), int):
        if "crop_pct" not in said:
            return size, None, "The exporter keeps an image's proportions; lowbit stretches it to the input's size."
        return size, said["crop_pct"] if raw["shortest_edge"] < NEWER_RESIZE else None, ""
    return size, None, ""


def _are_sides(values: object) -> bool:
    return isinstance(values, list) and bool(values) and all(type(x) is int and 0 < x <= MOST_SIDE for x in values)


def _sides(size: Any) -> Any:  # noqa: ANN401 - `_fitted` checks it
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        return [size.get("height", edge), size.get("width", edge)]
    return [size] * 2 if isinstance(size, int) else size


def _literal(text: object) -> Any:  # noqa: ANN401 - `_fitted` checks it
    """A number or a list of some, as Python writes it."""
    if not isinstance(text, str) or len(text) > LONGEST_LITERAL:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def beside(folder: Path | None, name: str) -> tuple[str, Entries]:
    """Path of a JSON file beside a model, and its entries; repositories keep models in a folder `onnx` below it."""
    if folder is None:
        return name, {}
    for place in (folder, folder.parent) if folder.name == "onnx" else (folder,):
        if entries := _read_json(place / name):
            return str(place / name), entries
    return name, {}


def _read_json(path: Path) -> Entries:
    """The entries of a JSON object in a file; none if there is no such file, or it holds anything else."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_JSON:
            return {}
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError, MemoryError):
        return {}
    return entries if isinstance(entries, dict) else {}
