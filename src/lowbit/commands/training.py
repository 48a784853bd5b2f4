"""`fetch` and `train`: the images and the network of the study."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lowbit.commands.options import JsonOption, OutputOption
from lowbit.console import print_json, progress_bar, say


def fetch(
    what: Annotated[str, typer.Argument(help="rps: the original Rock-Paper-Scissors images.", metavar="WHAT")],
    folder: Annotated[Path, typer.Argument(help="Where they are unpacked.", metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Download a data set, check it and unpack it; a failed run leaves nothing behind."""
    from lowbit.data.fetch import fetch_rps
    from lowbit.errors import DataError

    if what != "rps":
        raise DataError(f"there is no data set '{what}'.", remedy="Use rps.")
    with progress_bar(as_json) as progress:
        path = fetch_rps(folder, progress=progress)
    print_json({"folder": str(path)}) if as_json else say(f"The images are in {path}: train/ and test/.")


@dataclass(frozen=True)
class TrainingOptions:
    """How the network is trained."""

    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train from random weights instead of fine-tuning the last layers.")
    ] = False
    weights: Annotated[
        str, typer.Option(help="'imagenet' to download the official weights, or a .pth file with the same names.")
    ] = "imagenet"
    epochs: Annotated[int | None, typer.Option(help="Maximum number of epochs.", min=1)] = None
    image_size: Annotated[int, typer.Option(help="Image size in pixels.", min=32)] = 128
    seed: Annotated[int, typer.Option(help="Random seed: split, order, augmentation and initial weights.")] = 0


def train(
    data: Annotated[str, typer.Argument(help="A folder of class folders, or builtin:train.", metavar="DATA")],
    output: OutputOption,
    training: TrainingOptions,
    test: Annotated[str | None, typer.Option(help="Test images, used once when training has finished.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the study's MobileNetV2 on a folder of class folders; needs the extra `train`."""
    import dataclasses

    from lowbit.extras import missing
    from lowbit.files import check_ending

    check_ending(output, (".onnx",))
    try:
        from lowbit.training.recipes import FINE_TUNING, FROM_SCRATCH
        from lowbit.training.train import TrainingData
        from lowbit.training.train import train as run
    except ModuleNotFoundError as error:
        raise missing(error.name or "torch", "lowbit train", extra="train") from error
    recipe = FROM_SCRATCH if training.from_scratch else dataclasses.replace(FINE_TUNING, weights=training.weights)
    if training.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=training.epochs)
    with progress_bar(as_json) as progress:
        trained = run(
            TrainingData(data, test=test, size=training.image_size),
            recipe,
            output=output,
            seed=training.seed,
            command=shlex.join(["lowbit", *sys.argv[1:]]),
            progress=progress,
        )
    if as_json:
        sys.stdout.write(trained.metrics.read_text())
    else:
        say(f"Wrote {trained.model}, {trained.metrics} and {trained.curve}: {trained.parameters:,} parameters.")
        scores = [("validation", trained.validation), ("test", trained.test)]
        for name, score in scores:
            if score is not None:
                say(f"{name}: accuracy {100 * score.accuracy:.2f} %, loss {score.loss:.3f}, {score.images} images.")
