"""The file that each engine is given: a recipe in the form that is made for it, written once for all that share it.

ONNX Runtime and OpenVINO open the same ONNX file, but make integer kernels of differently shaped graphs, so an integer
recipe has one file for each; LiteRT opens .tflite files only. LiteRT has no form for every operator and every recipe:
what it refuses is returned beside what was written, never dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lowbit.engines import ENGINES
from lowbit.engines.session import WrittenFile
from lowbit.errors import ModelError
from lowbit.formats.file_form import LITERT, FileForm
from lowbit.graph.model import Model
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.quantized import Quantized, check_for_litert


@dataclass(frozen=True)
class Form:
    """A file that a recipe is written as.

    Attributes:
        to: whom `Quantized.save` writes it for.
        ending: of its name.
        engines: that run it.
    """

    to: str
    ending: str
    engines: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where the files of a comparison go, and what they take.

    Attributes:
        folder: that exists by the time of writing.
        stem: how their names begin.
        form: what they take; whom each is for follows from the engine.
    """

    folder: Path
    stem: str
    form: FileForm

    def path(self, recipe: Recipe, form: Form) -> Path:
        """Of the file of a recipe in some form."""
        return self.folder / f"{self.stem}-{recipe.name}{form.ending}"


def forms(recipe: Recipe, engines: Sequence[str]) -> tuple[Form, ...]:
    """The files that some engines need of a recipe, in the order of the engines."""
    sharing: dict[WrittenFile, tuple[str, ...]] = {}
    for name in engines:
        file = ENGINES[name].integer_file if recipe.integer else ENGINES[name].float_file
        sharing[file] = (*sharing.get(file, ()), name)
    return tuple(Form(file.to, file.ending, names) for file, names in sharing.items())


def check_forms(model: Model, recipe: Recipe, engines: Sequence[str], place: Place) -> None:
    """Refuse what no file could take, before anything takes time.

    Raises:
        SchemeError, ModelError: see `FileForm.check`.
    """
    for form in forms(recipe, engines):
        replace(place.form, to=form.to).check(model, integer=recipe.integer)


def write_forms(
    quantized: Quantized, engines: Sequence[str], place: Place
) -> tuple[tuple[tuple[Path, Form], ...], Mapping[str, ModelError]]:
    """Write the file of each engine.

    Returns:
        The files in the order of the engines, and, by the name of a file, why LiteRT's format has no form for it.

    Raises:
        ModelError: an ONNX file cannot be written.
        OutputError: the folder is not writable, or the disk is full.
    """
    recipe = quantized.plan.recipe
    written, refused = [], {}
    for form in forms(recipe, engines):
        path = place.path(recipe, form)
        try:
            quantized.save(path, replace(place.form, to=form.to))
        except ModelError as error:
            if form.to != LITERT:
                raise
            refused[path.name] = error
        else:
            written.append((path, form))
    return tuple(written), refused


def refused_by_all(model: Model, recipe: Recipe, engines: Sequence[str], place: Place) -> Mapping[str, ModelError]:
    """What LiteRT's format has no form for, told from the graph alone; empty if anybody takes the file.

    Only where LiteRT is alone, since others take every recipe.
    """
    wanted = forms(recipe, engines)
    if any(form.to != LITERT for form in wanted) or recipe.weights is None:
        return {}
    try:
        check_for_litert(model, recipe, place.form)
    except ModelError as error:
        return {place.path(recipe, form).name: error for form in wanted}
    return {}
