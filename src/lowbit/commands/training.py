"""`fetch` and `train`: the images and the network of the study."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lowbit.commands.options import JsonOption
from lowbit.console import print_json, progress_bar


def fetch(
    what: Annotated[str, typer.Argument(help="rps: the original Rock-Paper-Scissors images.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Download a data set, check it, and unpack it whole or not at all."""
    from lowbit.data.fetch import fetch_rps
    from lowbit.errors import DataError

    if what != "rps":
        raise DataError(f"no data set is called '{what}'.", remedy="Known: rps.")
    with progress_bar(as_json) as progress:
        path = fetch_rps(folder, progress=progress)
    print_json({"folder": str(path)}) if as_json else typer.echo(f"Ready in {path}: train/ and test/.")


def train(
    data: Annotated[str, typer.Argument(help="Folder of class folders, or builtin:train.", metavar="DATA")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.", metavar="FILE")],
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train everything from random weights, not only the last layers.")
    ] = False,
    weights: Annotated[
        str, typer.Option(help="'imagenet' to download the official weights, or a local .pth file of the same names.")
    ] = "imagenet",
    test: Annotated[str | None, typer.Option(help="Images to test the finished network on, once.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many passes.", min=1)] = None,
    size: Annotated[int, typer.Option(help="Side of the images, in pixels.", min=32)] = 128,
    seed: Annotated[int, typer.Option(help="Decides split, order, augmentation and first weights.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train the study's MobileNetV2 on a folder of class folders (extra: lowbit[train])."""
    import dataclasses
    import shlex

    from lowbit.errors import EngineError

    try:
        from lowbit.training.recipes import FINE_TUNING, FROM_SCRATCH
        from lowbit.training.train import TrainingData
        from lowbit.training.train import train as run
    except ModuleNotFoundError as error:
        raise EngineError(
            f"the package '{error.name}' is not installed.", where="lowbit train", remedy="pip install 'lowbit[train]'"
        ) from error
    recipe = FROM_SCRATCH if from_scratch else dataclasses.replace(FINE_TUNING, weights=weights)
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=epochs)
    with progress_bar(as_json) as progress:
        trained = run(
            TrainingData(data, test=test, size=size),
            recipe,
            output=output,
            seed=seed,
            command=shlex.join(["lowbit", *sys.argv[1:]]),
            progress=progress,
        )
    if as_json:
        sys.stdout.write(trained.metrics.read_text())
    else:
        typer.echo(f"Wrote {trained.model}, {trained.metrics} and {trained.curve}: {trained.parameters:,} parameters.")
        scores = [("validation", trained.validation), ("test", trained.test)]
        for name, score in scores:
            if score is not None:
                typer.echo(
                    f"{name}: accuracy {100 * score.accuracy:.2f} %, loss {score.loss:.3f}, {score.images} images."
                )
