"""The files of a comparison: each engine gets a recipe in the form that it runs best; engines share where they can.

ONNX Runtime and OpenVINO open the same ONNX file, but find integer kernels for differently shaped graphs, so an integer
recipe has one file for each; LiteRT opens .tflite files only. LiteRT's format cannot hold every operator and every
recipe: what it refuses is returned along with what was written, never dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lowbit.engines import ENGINES
from lowbit.engines.session import WrittenFile
from lowbit.errors import ModelError, SchemeError
from lowbit.formats.file_form import LITERT, FileForm
from lowbit.graph.model import Model
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.quantized import Quantized, check_for_litert, check_kind


@dataclass(frozen=True)
class EngineFile:
    """A file that a recipe is written as.

    Attributes:
        to: what `Quantized.save` writes it for.
        ending: of its name.
        engines: that run it.
    """

    to: str
    ending: str
    engines: tuple[str, ...]


@dataclass(frozen=True)
class Destination:
    """Where the files of a comparison go, and what they take.

    Attributes:
        model: that they are made from.
        folder: that exists by the time of writing.
        form: of all files; `to` is chosen by the engine.
    """

    model: Model
    folder: Path
    form: FileForm

    def path(self, decision: Plan, file: EngineFile) -> Path:
        """The path of a file that follows a plan."""
        return self.folder / f"{Path(self.model.source).stem}-{decision.recipe.name}{file.ending}"


def engine_files(decision: Plan, engines: Sequence[str]) -> tuple[EngineFile, ...]:
    """The files that some engines need of a plan, in the order of the engines."""
    sharing: dict[WrittenFile, tuple[str, ...]] = {}
    for name in engines:
        file = ENGINES[name].integer_file if decision.own_files else ENGINES[name].float_file
        sharing[file] = (*sharing.get(file, ()), name)
    return tuple(EngineFile(file.to, file.ending, names) for file, names in sharing.items())


def check_files(decision: Plan, engines: Sequence[str], destination: Destination) -> None:
    """Refuse a form that no file can have, before anything takes time.

    Raises:
        SchemeError: the form says which engine the files are for.
        SchemeError, ModelError: see `FileForm.check`.
    """
    form = destination.form
    if form.to is not None:
        raise SchemeError(
            f"a comparison writes a file for each engine, not all of them for '{form.to}'.",
            remedy="Leave `to` out of the form and name the engines in the conditions.",
        )
    for file in engine_files(decision, engines):
        form = _form_of(file, destination)
        form.check(destination.model, integer=decision.integer)
        check_kind(decision, form)


def write_files(
    quantized: Quantized, engines: Sequence[str], destination: Destination
) -> tuple[tuple[tuple[Path, EngineFile], ...], Mapping[str, ModelError]]:
    """Write the file of each engine.

    Returns:
        The files in the order of the engines and, by file name, why LiteRT's format cannot hold a recipe.

    Raises:
        ModelError: an ONNX file cannot be written.
        OutputError: the folder is not writable, or the disk is full.
    """
    decision = quantized.plan
    written, refused = [], {}
    for file in engine_files(decision, engines):
        path = destination.path(decision, file)
        try:
            quantized.save(path, _form_of(file, destination))
        except ModelError as error:
            if file.to != LITERT:
                raise
            refused[path.name] = error
        else:
            written.append((path, file))
    return tuple(written), refused


def refused_by_all(decision: Plan, engines: Sequence[str], destination: Destination) -> Mapping[str, ModelError]:
    """Why LiteRT's format cannot hold what a plan gives, told from the graph alone; empty if any engine takes the file.

    Only where LiteRT is alone, since the other engines take every recipe.
    """
    files = engine_files(decision, engines)
    if any(file.to != LITERT for file in files) or not decision.quantized:
        return {}
    try:
        check_for_litert(destination.model, decision, destination.form)
    except ModelError as error:
        return {destination.path(decision, file).name: error for file in files}
    return {}


def _form_of(file: EngineFile, destination: Destination) -> FileForm:
    """The form of one file; names in LiteRT files are short already."""
    form = destination.form
    return replace(form, to=file.to, short_names=form.short_names and file.to != LITERT)
