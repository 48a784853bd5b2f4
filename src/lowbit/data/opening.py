"""Whatever a user names -> the data set of a model: images for one input, or arrays for all of them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from lowbit.data import items, npz
from lowbit.data.class_order import by_name
from lowbit.data.constants import Array, Constant, constant
from lowbit.data.dataset import Dataset
from lowbit.data.images import BUILTIN, Images, open_images
from lowbit.data.label_files import read_labels
from lowbit.data.samples import Samples
from lowbit.data.targets import understood
from lowbit.errors import DataError
from lowbit.formats.opening import load
from lowbit.graph.model import Model, ValueInfo
from lowbit.graph.preprocessing import Preprocessing

Feed = float | Array
GIVEN_ARRAYS = "the given arrays"


def open_data(
    source: object,
    model: Model | str | Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    feeds: Mapping[str, Feed] | None = None,
    labels: object = None,
) -> Dataset:
    """Open samples for a model's inputs, for calibration or measurement; nothing is decoded yet.

    Args:
        source: what `open_images` takes, for a model with one float or byte input for images; for any model a .npz file
            with an array for each input under its name, a folder of such files, a dict of arrays, an iterable of dicts,
            of tuples in the order of the inputs or of arrays (a data loader, too), with labels if there are any; or an
            open data set.
        model: what takes them: a model or its path.
        limit: maximum number of samples, each class in proportion.
        seed: of that choice.
        feeds: by input name, what is the same for every sample: an array, or a number that fills the input.
        labels: what stands in place of the source's own: one for each sample in any form (`lowbit.data.targets`), or
            the path of a COCO .json, of a folder of YOLO text files or masks, of a .npy or a .npz
            (`lowbit.data.label_files`).

    Labels that are names, such as those of class folders, are matched with the model's own names of its classes, if it
    has some.

    Raises:
        DataError: missing, empty, unreadable or ambiguous data, or arrays that do not fit the inputs.

    >>> lowbit.open_data("test", "model.onnx", limit=8)
    <Images test: 8, 5 classes>
    >>> lowbit.open_data({"x": np.zeros((4, 3, 16, 16), np.float32)}, "model.onnx").count
    4
    """
    model = load(model)
    feeds = feeds or {}
    unknown = [name for name in feeds if name not in {info.name for info in model.inputs}]
    if unknown:
        raise DataError(
            f"there is no input {unknown[0]!r}.",
            where=model.source,
            remedy=f"Its inputs are {', '.join(info.name for info in model.inputs)}.",
        )
    inputs = [info for info in model.inputs if info.name not in feeds]
    data = bound(source if isinstance(source, Images | Samples) else _opened(source, model, inputs), model, feeds)
    if labels is not None:
        data = _labeled(data, labels)
    if isinstance(data, Images):
        _check_places(data)
        data = dataclasses.replace(data, source=by_name(data.source, model.class_names))
    return data if limit is None else data.subset(limit, seed=seed)


def _check_places(images: Images) -> None:
    """Refuse a crop under labels that speak of whole images."""
    how = images.preprocessing
    target = None if images.targets is None else images.targets[0]
    if how is not None and how.crop is not None and _has_places(target):
        raise DataError(
            "only the middle of each image is taken, and its labels are of the whole image.",
            where=images.name,
            remedy="Give a model that takes whole images: prepare it again without a crop.",
        )


def _has_places(target: object) -> bool:
    """Whether a label speaks of places in its image: boxes, or a map."""
    return isinstance(target, Mapping) or (isinstance(target, np.ndarray) and target.ndim >= 2)


def _labeled(data: Dataset, labels: object) -> Dataset:
    if isinstance(labels, str | Path):
        classes, targets = read_labels(Path(labels), data.places, data.name)
    else:
        classes, targets = understood(labels, data.count, data.name)
    if isinstance(data, Images):
        source = dataclasses.replace(data.source, labels=classes, targets=targets, class_names=None)
        return dataclasses.replace(data, source=source)
    return dataclasses.replace(cast(Samples, data), labels=classes, targets=targets, class_names=None)


def bound(data: Dataset, model: Model, feeds: Mapping[str, Feed] | None = None) -> Dataset:
    """A data set whose batches are named and typed as a model's inputs; data of other kinds stay as they are.

    Raises:
        DataError: images for a model whose other inputs are not known, or arrays for the inputs of another one.
    """
    if isinstance(data, Images):
        return _bound_images(data, model, feeds or {})
    if isinstance(data, Samples):
        given = {info.name for info in model.inputs if info.name not in {**data.others, **(feeds or {})}}
        names = set(data.sample(0)) if data.count else given
        if names != given:
            raise DataError(
                f"there are arrays for {', '.join(sorted(names))}, the model takes {', '.join(sorted(given))}.",
                where=data.name,
            )
        if feeds:
            sample = data.sample(0)
            return dataclasses.replace(data, others=_constants(model, feeds, _sizes(model, sample)))
    return data


def _opened(source: object, model: Model, inputs: Sequence[ValueInfo]) -> Dataset:
    image = inputs[0] if len(inputs) == 1 and takes_images(inputs[0]) else None
    if isinstance(source, str | Path):
        return _opened_path(Path(source), str(source), model, inputs)
    if isinstance(source, Mapping):
        return items.from_named(source, inputs, name=GIVEN_ARRAYS, origin=("object", id(source)))
    if image is not None and not items.is_named(source) and not (isinstance(source, np.ndarray) and source.ndim != 4):
        return open_images(source, preprocessing_of(model, image))
    if isinstance(source, np.ndarray):
        source = (source,)
    if isinstance(source, tuple) and all(isinstance(x, np.ndarray) for x in source):
        names = [info.name for info in inputs]
        if len(source) in (len(names), len(names) + 1):
            named = dict(zip((*names, items.LABEL_KEYS[0]), source, strict=False))
            return items.from_named(named, inputs, name=GIVEN_ARRAYS, origin=("object", id(source)))
    if not (hasattr(source, "__iter__") or hasattr(source, "__getitem__")):
        raise DataError(
            f"samples cannot be read from a {type(source).__name__}.",
            remedy="Give a .npz file, a folder, a dict of arrays, or an iterable of dicts, tuples or arrays.",
        )
    return items.from_items(cast("Iterable[object]", source), inputs)


def _opened_path(path: Path, text: str, model: Model, inputs: Sequence[ValueInfo]) -> Dataset:
    image = inputs[0] if len(inputs) == 1 and takes_images(inputs[0]) else None
    if not text.startswith(BUILTIN):
        if path.is_dir() and (files := _npz_files(path)):
            return items.from_npz_folder(path, files, inputs)
        if path.suffix.lower() == ".npz" and path.is_file():
            if image is None:
                return items.from_npz(path, inputs)
            how = preprocessing_of(model, image)
            return Images(npz.from_npz(path, how, keys=(*npz.IMAGE_KEYS, image.name)), how)
    return open_images(text, preprocessing_of(model, image))


def _npz_files(folder: Path) -> list[Path]:
    """The .npz files of a folder that has no others, by name."""
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read the folder: {error.strerror}.", where=str(folder)) from error
    found = [path for path in files if path.suffix.lower() == ".npz" and path.is_file()]
    if found and len(found) != len(files):
        other = next(path for path in files if path not in found)
        raise DataError(f"there are .npz files beside {other.name!r}.", where=str(folder), remedy="Keep them apart.")
    return found


def takes_images(info: ValueInfo) -> bool:
    """Whether an input can hold images: floats, or bytes of which some axis is the color."""
    return len(info.shape) == 4 and (info.dtype.kind == "f" or _byte_images(info) is not None)


def preprocessing_of(model: Model, info: ValueInfo | None) -> Preprocessing | None:
    """How images become an input: as the model says; bytes go to an input of bytes as they are."""
    if model.preprocessing is not None or info is None or info.dtype != np.uint8:
        return model.preprocessing
    return _byte_images(info)


def _byte_images(info: ValueInfo) -> Preprocessing | None:
    if info.dtype != np.uint8 or len(info.shape) != 4:
        return None
    for layout, axes in (("NHWC", (1, 2, 3)), ("NCHW", (2, 3, 1))):
        height, width, channels = (info.shape[axis] for axis in axes)
        if isinstance(channels, int) and channels in (1, 3, 4) and isinstance(height, int) and isinstance(width, int):
            plain = ((0.0,) * channels, (1.0,) * channels)
            return Preprocessing(height, width, channels, layout, 1.0, *plain)
    return None


def _bound_images(images: Images, model: Model, feeds: Mapping[str, Feed]) -> Images:
    known = {**images.others, **feeds}
    inputs = [info for info in model.inputs if info.name not in known]
    if len(inputs) != 1:
        raise DataError(
            f"images go to one input, the model takes {', '.join(info.name for info in inputs)}.",
            where=images.name,
            remedy="Give a .npz file with an array for each input under its name, or --feed NAME=ones for the others.",
        )
    info = inputs[0]
    if (images.input, images.dtype) == (info.name, info.dtype) and not feeds:
        return images
    how = images.preprocessing if images.preprocessing is not None else model.preprocessing
    if info.dtype == np.uint8 and images.source.values != "model":
        plain = _byte_images(info)  # whatever normalizes bytes, it is behind that input
        how = how if plain is None else dataclasses.replace(plain, crop=None if how is None else how.crop)
    images = dataclasses.replace(images, input=info.name, dtype=info.dtype, preprocessing=how)
    if not feeds:
        return images
    sizes = {} if how is None else _sizes(model, {info.name: np.empty((1, *how.input_shape), bool)})
    return dataclasses.replace(images, others=_constants(model, feeds, sizes))


def _sizes(model: Model, sample: Mapping[str, Array]) -> dict[str, int]:
    """Sizes of the named dimensions behind the first, as a sample has them."""
    return {
        dim: extent
        for info in model.inputs
        if info.name in sample
        for dim, extent in zip(info.shape[1:], sample[info.name].shape[1:], strict=False)
        if isinstance(dim, str)
    }


def _constants(model: Model, feeds: Mapping[str, Feed], sizes: Mapping[str, int]) -> dict[str, Constant]:
    """The fed inputs; one is whole if its first dimension is fixed and other inputs' first dimensions are not that."""
    firsts = {info.shape[0] if info.shape else None for info in model.inputs if info.name not in feeds}
    return {
        info.name: constant(
            feeds[info.name],
            info,
            sizes,
            whole=not info.shape or (isinstance(info.shape[0], int) and info.shape[0] not in firsts),
        )
        for info in model.inputs
        if info.name in feeds
    }
