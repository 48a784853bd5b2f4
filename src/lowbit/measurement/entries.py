"""What is measured: each file on each engine that is asked for and reads it, and answers that are only emulated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lowbit.data.images import Images
from lowbit.engines import AUTO, ENGINES, chosen_engines, open_session, remarks
from lowbit.errors import DataError, EngineError, SchemeError
from lowbit.formats.onnx.saturation import saturating
from lowbit.formats.opening import is_litert
from lowbit.measurement.inputs import as_taken, first_batch

# Targets whose answers can be emulated elsewhere, and which processors those are.
EMULATED = {"x86": "x86 without VNNI"}
# The runtime whose kernels are emulated.
EMULATED_ENGINE = "onnxruntime"


@dataclass(frozen=True)
class Entry:
    """One row to be measured.

    Attributes:
        file: index of the file.
        engine: that runs it.
        model: what runs: the file, or one that gives the emulated answers.
        emulated: target whose answers these are; empty for real ones. Emulated ones have no time and no memory.
        notes: what a reader must know.
    """

    file: int
    engine: str
    model: Path | bytes
    emulated: str = ""
    notes: tuple[str, ...] = ()


def check_emulation(emulate: str, names: Sequence[str]) -> None:
    """Refuse an emulation that there is not, or that no file of these engines has anything for.

    Raises:
        SchemeError: no such emulation.
        DataError: no engine opens ONNX files, whose integer kernels are emulated.
    """
    if emulate and emulate not in EMULATED:
        raise SchemeError(
            f"'{emulate}' cannot be emulated.", remedy=f"Choose {', '.join(EMULATED)}: other targets add exactly."
        )
    if emulate and not any(ENGINES[name].reads == ".onnx" for name in names):
        raise _nothing_to_emulate()


def entries(
    paths: Sequence[Path],
    images: Images,
    *,
    engine: str,
    made_for: Sequence[tuple[str, ...]] = (),
    emulate: str = "",
    batch: int = 1,
) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The rows for some files, file by file, and what could not be measured.

    Args:
        paths: of ONNX and .tflite files.
        images: what they will run on.
        engine: name of an engine, several with commas, or `auto`: those installed, passing over files that one does not
            open or, having opened it, fails to run.
        made_for: for each file the engines that shall run it; where that is empty, all that are asked for and open it.
        emulate: a row of `EMULATED`, or empty.
        batch: images a run, for trying it.

    Raises:
        EngineError: no such engine, or one that refuses a file (with `auto`: all of them do).
        SchemeError: no such emulation.
        DataError: no file has anything that emulation would change.
    """
    names = chosen_engines(engine)
    check_emulation(emulate, names)
    found: list[Entry] = []
    passed: list[str] = []
    for index, path in enumerate(paths):
        own = made_for[index] if made_for else ()
        reading = own or _reading(path, names)
        if engine == AUTO:
            refusals = {name: refusal for name in reading if (refusal := _refusal(path, name, images, batch))}
            reading = tuple(name for name in reading if name not in refusals)
            said = [f"{path.name} was not measured with {name}: {refusal}" for name, refusal in refusals.items()]
            if not reading and not own:
                raise EngineError("no engine that is installed runs the file.", where=str(path), remedy=" ".join(said))
            passed += said
            if not reading:
                continue
        found += [Entry(index, name, path, notes=remarks(path, name)) for name in reading]
        # Of the files that a recipe has, the one for the runtime whose kernels these are.
        other = own and EMULATED_ENGINE not in own and EMULATED_ENGINE in names
        if emulate and not is_litert(path) and not other:
            found += _emulated(index, path, emulate)
    if emulate and not any(entry.emulated for entry in found):
        raise _nothing_to_emulate()
    return tuple(found), tuple(passed)


def _nothing_to_emulate() -> DataError:
    return DataError(
        "no file multiplies integers as ONNX Runtime does, so there is nothing to emulate.",
        remedy="Leave --emulate out, or give an int8 ONNX file.",
    )


def label(recipe: str, entry: Entry, *, several: bool) -> str:
    """What a row is called: the recipe, the engine where there are several, and whether it is emulated."""
    if entry.emulated:
        return f"{recipe}, emulated {entry.emulated}"
    return f"{recipe}, {entry.engine}" if several else recipe


def _reading(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The engines for a file: of those asked for the ones that open it; for a LiteRT file LiteRT in any case."""
    kind = ".tflite" if is_litert(path) else ".onnx"
    reading = tuple(name for name in names if ENGINES[name].reads == kind)
    if not reading and is_litert(path):
        reading = tuple(name for name, engine in ENGINES.items() if engine.reads == kind)
    if not reading:
        others = " or ".join(name for name, engine in ENGINES.items() if engine.reads == kind)
        raise EngineError(
            f"{ENGINES[names[0]].label} opens {ENGINES[names[0]].reads} files only.",
            where=str(path),
            remedy=f"Add {others}: --engine auto.",
        )
    return reading


def _refusal(path: Path, engine: str, images: Images, batch: int) -> str:
    """What an engine says against a file; empty if it opens and runs it."""
    x = first_batch(as_taken(images, path), batch)
    try:
        session = open_session(path, engine=engine, threads=1)
        session.run({session.input_names[0]: x})
    except EngineError as error:
        return error.what
    return ""


def _emulated(index: int, path: Path, target: str) -> list[Entry]:
    found = saturating(path)
    if not found.pairs:
        return []
    risky, pairs = sum(found.risky.values()), sum(found.pairs.values())
    notes = (
        f"what the file answers on {EMULATED[target]}, where sums of two products saturate at 16 bits: "
        f"{risky:,} of {pairs:,} pairs of weights can.",
    )
    return [Entry(index, EMULATED_ENGINE, found.content, target, notes)]
