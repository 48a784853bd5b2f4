"""`prepare`: a model says how images become its input, once and for all."""

import dataclasses
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lowbit.commands.opening import load_model, load_sized, unprepared
from lowbit.commands.options import ImageOptions, JsonOption, ModelArgument, PreprocessingOptions
from lowbit.console import print_json, progress_bar, say
from lowbit.errors import DataError

if TYPE_CHECKING:
    from lowbit.diagnosis.preprocessing_guess import Guess
    from lowbit.graph.model import Model


@dataclass(frozen=True)
class GuessOptions:
    """Images by which it can be guessed."""

    data: Annotated[
        str | None,
        typer.Option(help="Images: try the usual ways to prepare them, and show how well each fits.", metavar="DIR"),
    ] = None
    labels: Annotated[
        Path | None, typer.Option(help="Their class numbers in a file of their own, a .npy.", metavar="PATH")
    ] = None
    accept_guess: Annotated[bool, typer.Option("--accept-guess", help="Write the way that fits best.")] = False


def prepare(
    model: ModelArgument,
    images: ImageOptions,
    guess: GuessOptions,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.", metavar="FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a copy of a float model that says how images become its input."""
    from lowbit.files import check_ending
    from lowbit.formats.preparing import prepare as with_checked
    from lowbit.formats.preparing import write_prepared

    _check_options(images, guess, output)
    if output is not None:
        check_ending(output, [".onnx"])
    report: dict[str, Any] = {}
    if guess.data is None:
        loaded = _stated(model, images)
    else:
        loaded, report["guesses"] = _guessed(model, images, guess, quiet=as_json)
    if output is not None:
        how = loaded.preprocessing
        assert how is not None
        write_prepared(with_checked(loaded, how), model, output)
        report |= {"file": str(output), "preprocessing": asdict(how)}
        if not as_json:
            say(f"Wrote {output}: images become the input as {how}.")
    if as_json:
        print_json(report)


def _check_options(images: ImageOptions, guess: GuessOptions, output: Path | None) -> None:
    normalized = images.mean is not None or images.std is not None
    stated = normalized or images.colors is not None
    if guess.data is None and (guess.accept_guess or guess.labels is not None):
        raise DataError("there is nothing to guess by.", remedy="Add --data with images.")
    if guess.data is None and output is None:
        raise DataError("there is no file to write.", remedy="Add -o FILE.onnx, or --data with images to guess by.")
    if guess.data is not None and stated:
        raise DataError(
            "--data is there to find --mean, --std and --colors.", remedy="Leave out the one or the others."
        )
    if guess.data is not None and guess.accept_guess != (output is not None):
        raise DataError(
            "a guess is written only where it is accepted.", remedy="Give --accept-guess and -o FILE.onnx, or neither."
        )
    if normalized and (images.mean is None or images.std is None):
        raise DataError(
            "--mean and --std belong together.", remedy="Give both, such as --mean imagenet --std imagenet."
        )


def _stated(path: Path, images: ImageOptions) -> "Model":
    """The model with what the options say, or else the file or its exporter.

    Raises:
        DataError: nobody says it.
    """
    if images.mean is None and (loaded := load_sized(path, None)).preprocessing is None:
        raise unprepared(loaded, str(path))
    return load_model(path, PreprocessingOptions(**asdict(images)))


def _guessed(
    path: Path, images: ImageOptions, guess: GuessOptions, *, quiet: bool
) -> tuple["Model", list[dict[str, Any]]]:
    """The model with the way that fits best, and all that were tried; these are shown unless `quiet`."""
    from lowbit.diagnosis.preprocessing_fit import as_options
    from lowbit.diagnosis.preprocessing_guess import guesses
    from lowbit.reports.guesses import print_guesses

    stated = dataclasses.replace(images, mean="0", std="1")
    with progress_bar(quiet) as progress:
        loaded = load_model(path, PreprocessingOptions(**asdict(stated)))
        ranking = guesses(loaded, guess.data, labels=guess.labels, progress=progress)
    if not quiet:
        print_guesses(ranking)
    best, said = ranking[0], loaded.preprocessing
    assert said is not None
    if not guess.accept_guess and not quiet:
        say(_offer(path, images, best, as_options(best.preprocessing, said=said.colors)))
    return dataclasses.replace(loaded, preprocessing=best.preprocessing), [_as_data(each) for each in ranking]


def _offer(model: Path, images: ImageOptions, best: "Guess", options: str) -> str:
    """The command that accepts a guess."""
    kept = [("--image-size", images.image_size), ("--layout", images.layout), ("--crop", images.crop)]
    words = [f"{name} {value}" for name, value in kept if value is not None]
    name, copy = (shlex.quote(str(path)) for path in (model, model.with_name(f"{model.stem}-prepared.onnx")))
    command = " ".join(("lowbit prepare", name, options, *words, "-o", copy))
    return f"Nothing was written. To accept {best.name} ({best.preprocessing.colors}): {command}"


def _as_data(guess: "Guess") -> dict[str, Any]:
    return {**asdict(guess), "preprocessing": asdict(guess.preprocessing)}
