"""What `measure` takes: files, or values that become files first, since what is measured is always a file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from lowbit.engines import ENGINES, chosen_engines
from lowbit.errors import DataError
from lowbit.files import write_atomically
from lowbit.formats.opening import file_recipe, file_rules, is_archive, opened
from lowbit.formats.running import bytes_for
from lowbit.graph.model import Model
from lowbit.measurement.rows import Candidate
from lowbit.quantization.quantized import Quantized

Measurable: TypeAlias = Path | str | Model | Quantized | Candidate
FLOAT, UNKNOWN_RECIPE = "float", "unknown"
ONNX_ENGINE = "onnxruntime"


def on_disk(
    given: Measurable | Sequence[Measurable], folder: Path, engine: str
) -> tuple[Model | None, list[Candidate], list[Path]]:
    """What was given as files: the first of them if it is a model, what is known of each, and the path of each.

    Archives are measured as the ONNX files that they hold; their size is their own. Another framework's file is
    measured as the ONNX file that it becomes.

    Args:
        given: one or several.
        folder: for what is no file yet.
        engine: that is asked for, which may want LiteRT files.

    Raises:
        DataError: nothing was given, or a quantized model first.
    """
    found = [given] if isinstance(given, str | Path | Model | Quantized | Candidate) else list(given)
    if not found:
        raise DataError("there are no files to measure.", remedy="Name at least one ONNX file.")
    if isinstance(found[0], Quantized) and found[0].plan.quantized:
        # Its own float model is no reference: steps may have changed it, where it makes no difference to images.
        raise DataError(
            "the first of the files is the float one, with which the others are compared.",
            remedy="Give the float model first: measure([model, quantized], data).",
        )
    candidates = [_candidate(each, folder / str(place), engine) for place, each in enumerate(found)]
    first = found[0] if isinstance(found[0], Model) else None
    paths = [opened(candidate.path, folder) for candidate in candidates]
    candidates = [
        candidate if isinstance(each, Candidate) else _as_it_says(candidate, path, first=path == paths[0])
        for each, candidate, path in zip(found, candidates, paths, strict=True)
    ]
    return first, candidates, paths


def _candidate(given: Measurable, folder: Path, engine: str) -> Candidate:
    if isinstance(given, Candidate):
        return given
    if isinstance(given, Model | Quantized):
        (first, *others) = chosen_engines(engine)
        only = ONNX_ENGINE if others else first  # what a file is for; ONNX files suit most engines
        name = Path(given.source).stem if isinstance(given, Model) else given.plan.recipe.name
        ending = ".tflite" if ENGINES[only].reads == ".tflite" else ".onnx"
        given = write_atomically(folder / f"{name}{ending}", bytes_for(given, only))
    path = Path(given)
    return Candidate(path.stem, path)


def _as_it_says(candidate: Candidate, path: Path, *, first: bool) -> Candidate:
    """A file under its own name, with what it says of itself; the first one is the float file, whatever it says."""
    rules = file_rules(path)
    notes = (f"quantized by rules: {', '.join(rules)}.",) if rules else ()
    recipe = FLOAT if first else file_recipe(path) or UNKNOWN_RECIPE
    if path != candidate.path and not is_archive(candidate.path):
        notes = (*notes, f"{candidate.path.name} was measured as the ONNX file that it becomes.")
        candidate = dataclasses.replace(candidate, path=path)
    return dataclasses.replace(candidate, notes=notes, file_recipe=recipe)
