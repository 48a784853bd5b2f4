"""What commands open: models and images as the user named them."""

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.commands.options import (
    DataOptions,
    PreprocessingOptions,
    RecipeOptions,
    SearchOptions,
)
from lowbit.console import say
from lowbit.errors import DataError, SchemeError

if TYPE_CHECKING:
    from lowbit.data.dataset import Dataset
    from lowbit.formats.ledger import Ledger
    from lowbit.graph.model import Model
    from lowbit.quantization.planning.plan import Plan

AS_STORED = PreprocessingOptions()


def load_model(path: Path, preprocessing: PreprocessingOptions = AS_STORED) -> "Model":
    """A model, with the preprocessing that the options state in place of what its metadata says."""
    from lowbit.data.options import with_preprocessing

    loaded = with_preprocessing(
        load_sized(path, preprocessing.input_size),
        size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        layout=preprocessing.layout,
        crop=preprocessing.crop,
    )
    if loaded.preprocessing_note:
        say(f"Note: {loaded.preprocessing_note}", error=True)
    return loaded


def load_sized(path: Path, input_size: Sequence[str] | None) -> "Model":
    """A model as it stands, with sizes for open dimensions of its inputs."""
    from lowbit.formats.opening import load
    from lowbit.graph.sizes import parse_sizes

    return load(path, input_sizes=parse_sizes(input_size or ()))


def decided(model: "Model", recipe: RecipeOptions, search: SearchOptions, *, with_images: bool) -> "Plan":
    """The plan that the options ask for: a file, or what recipe and rules say.

    Raises:
        SchemeError: both are given, or neither, or one that does not fit the model.
        ModelError: the plan was made for another model.
    """
    from lowbit.quantization.planning.deciding import plan
    from lowbit.quantization.planning.plan_file import followable, read_plan

    steps = search.chosen_steps()
    if recipe.plan is None:
        wanted = recipe.parsed()
        effort = search.effort or "balanced"
        return plan(model, wanted, rules=recipe.rules, effort=effort, steps=steps, with_images=with_images)
    if recipe != RecipeOptions(plan=recipe.plan):
        raise SchemeError(
            "the plan says already what recipe, rules and their options say.",
            where=str(recipe.plan),
            remedy="Leave them out, or make the plan again with them.",
        )
    return followable(model, read_plan(recipe.plan, model), effort=search.effort, steps=steps, with_images=with_images)


def load_measured(files: Sequence[Path], preprocessing: PreprocessingOptions) -> "Model":
    """The model that says how images are prepared: the first file, or the first that takes floats if that takes bytes.

    A file that takes image bytes does not say how they were normalized for the float model.
    """
    from lowbit.formats.opening import is_litert

    loaded = load_model(files[0], preprocessing)
    for path in files[1:]:
        if not _takes_bytes(loaded):
            break
        if not is_litert(path):
            other = load_model(path, preprocessing)
            loaded = loaded if _takes_bytes(other) else other
    return loaded


def _takes_bytes(model: "Model") -> bool:
    return any(info.dtype.name == "uint8" for info in model.inputs)


def open_data(
    source: str,
    model: "Model",
    preprocessing: PreprocessingOptions = AS_STORED,
    *,
    limit: int | None = None,
    labels: Path | None = None,
) -> "Dataset":
    """Samples for a model, from whatever the user named.

    Raises:
        DataError: they cannot be opened, or are images of which nobody says how they become the input.
    """
    from lowbit.data.constants import parse_feed
    from lowbit.data.images import Images
    from lowbit.data.opening import open_data as run

    feeds = dict(map(parse_feed, preprocessing.feed or ()))
    data = run(source, model, limit=limit, feeds=feeds, labels=labels)
    if isinstance(data, Images) and data.preprocessing is None and data.needs_preprocessing and len(model.inputs) == 1:
        raise unprepared(model, data.name)
    if isinstance(data, Images) and data.source.note:
        say(f"Note: {data.source.note}", error=True)
    return data


def unprepared(model: "Model", where: str) -> DataError:
    """It is not known how images become a model's input: the error, with the command that says it for good.

    Args:
        model: that does not say it.
        where: what was to become its input.
    """
    path = Path(model.source)
    name, copy = "MODEL.onnx", "PREPARED.onnx"
    if path.is_file():
        name, copy = (shlex.quote(str(each)) for each in (path, path.with_name(f"{path.stem}-prepared.onnx")))
    sides = [dim for dim in model.input.shape[1:] if not isinstance(dim, int)]
    size = " --image-size 224" if sides else ""
    return DataError(
        "the model does not say how images become its input.",
        where=where,
        remedy=f"Say it once: `lowbit prepare {name} --mean imagenet --std imagenet{size} -o {copy}`, with what the "
        "model was trained with: imagenet is usual in PyTorch, mean 0 and std 1 in detectors, 0.5 and 0.5 in Keras' "
        f"MobileNets; `lowbit prepare {name} --data IMAGES{size}` tries the usual values.",
    )


def check_data(options: DataOptions) -> str:
    """The evaluation samples that the user named.

    Raises:
        DataError: none were named.
    """
    if options.data is None:
        raise DataError("--data is missing.", remedy="Add --data with a folder, a .npz file, or builtin:test.")
    return options.data


@contextmanager
def onnx_form(path: Path, model: "Model | None" = None) -> Iterator[Path]:
    """A model file as ONNX, within: itself, or what another framework's file becomes.

    Args:
        path: as the user named it.
        model: what was loaded from it, if it was.
    """
    from lowbit.formats.opening import is_foreign, load

    if not is_foreign(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        file = Path(folder) / f"{path.stem}.onnx"
        file.write_bytes((load(path) if model is None else model).to_bytes())
        yield file


def read_file_ledger(path: Path) -> "Ledger":
    """The ledger of an ONNX file, an archive or a LiteRT file."""
    from lowbit.formats.opening import file_ledger, opened

    with tempfile.TemporaryDirectory(prefix="lowbit-") as folder:
        return file_ledger(path, opened(path, Path(folder)))
