"""The rows of a measurement: each file on each requested engine that opens it, and answers that are only emulated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lowbit.data.dataset import Dataset
from lowbit.engines import AUTO, ENGINES, chosen_engines, fed, open_session, remarks
from lowbit.engines.bounds import too_much
from lowbit.errors import DataError, EngineError, LowbitError, SchemeError
from lowbit.formats.onnx.saturation import saturating
from lowbit.formats.opening import check_calls, is_litert
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.inputs import as_taken, first_batch
from lowbit.measurement.memory import Memory, memory
from lowbit.progress import SILENT, Progress

# Targets whose answers can be emulated elsewhere, and which processors those are.
EMULATED = {"x86": "x86 without VNNI"}
DEADLY = "it ends the process of the runtime that opens it"
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
        notes: what readers need to know.
        memory: that it needs, if that is known already.
    """

    file: int
    engine: str
    model: Path | bytes
    emulated: str = ""
    notes: tuple[str, ...] = ()
    memory: Memory | None = None


def check_emulation(emulate: str, names: Sequence[str]) -> None:
    """Refuse an unknown emulation, and one that would change nothing on these engines.

    Raises:
        SchemeError: no such emulation.
        DataError: no engine opens ONNX files, whose integer kernels are emulated.
    """
    if emulate and emulate not in EMULATED:
        raise SchemeError(
            f"'{emulate}' cannot be emulated.", remedy=f"Choose {', '.join(EMULATED)}; other targets add exactly."
        )
    if emulate and not any(ENGINES[name].reads == ".onnx" for name in names):
        raise _nothing_to_emulate()


def entries(
    paths: Sequence[Path],
    data: Dataset,
    conditions: Conditions,
    *,
    made_for: Sequence[tuple[str, ...]] = (),
    progress: Progress = SILENT,
) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The rows for some files, file by file, and what could not be measured.

    Args:
        paths: of ONNX and .tflite files.
        data: that they will run on.
        conditions: engines, emulation and batch. Files that an engine does not open or run are skipped with "auto".
        made_for: for each file that was just written the engines that run it; where that is empty, the file comes from
            elsewhere: all engines that are asked for and open it, each tried in a process of its own first, since
            damaged files can end a runtime's process.
        progress: told as files are tried.

    Raises:
        ModelError: a file is no ONNX file, or its functions call each other too often.
        EngineError: no such engine, or one that refuses a file (with `auto`: all of them do).
        SchemeError: no such emulation.
        DataError: no file has anything that emulation would change.
    """
    names = chosen_engines(conditions.engine)
    check_emulation(conditions.emulate, names)
    rows: list[Entry] = []
    skipped: list[str] = []
    for index, path in enumerate(progress.track(paths, "trying files", total=len(paths))):
        own = made_for[index] if made_for else ()
        reading = own or _reading(path, names)
        if not own:
            check_calls(path)
        memories = {} if own else {name: _tried(path, name, data, conditions) for name in reading}
        refused = {name: refusal for name, one in memories.items() if (refusal := _ended(one, path))}
        if refused and conditions.engine != AUTO:
            raise next(iter(refused.values()))
        refusals = {name: error.what for name, error in refused.items()}
        if conditions.engine == AUTO:
            sound = [name for name in reading if name not in refusals]
            refusals |= {name: text for name in sound if (text := _refusal(path, name, data, conditions.batch))}
            reading = tuple(name for name in reading if name not in refusals)
            notes = [f"{path.name} was not measured with {name}: {text}" for name, text in refusals.items()]
            if not reading and not own:
                raise EngineError("no installed engine runs the file.", where=str(path), remedy=" ".join(notes))
            skipped += notes
            if not reading:
                continue
        rows += [Entry(index, name, path, notes=remarks(path, name), memory=memories.get(name)) for name in reading]
        # Of the files that a recipe has, the one for the runtime whose kernels are emulated.
        other = own and EMULATED_ENGINE not in own and EMULATED_ENGINE in names
        if conditions.emulate and not is_litert(path) and not other:
            rows += _emulated(index, path, conditions.emulate)
    if conditions.emulate and not any(entry.emulated for entry in rows):
        raise _nothing_to_emulate()
    return tuple(rows), tuple(skipped)


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
            remedy=f"Add {others}, or use --engine auto.",
        )
    return reading


def _ended(trial: Memory, path: Path) -> LowbitError | None:
    """Why a file's trial came to no end; None if it did."""
    if trial.excess:
        return too_much(trial.excess, str(path))
    if trial.killed:
        return EngineError(f"{DEADLY} ({trial.killed}).", where=str(path), remedy="Copy or make the file again.")
    return None


def _tried(path: Path, engine: str, data: Dataset, conditions: Conditions) -> Memory:
    """What a file of unknown origin takes of a process of its own."""
    inputs = first_batch(as_taken(data, path), conditions.batch)
    return memory(path, inputs, engine=engine, threads=conditions.threads)


def _refusal(path: Path, engine: str, data: Dataset, batch: int) -> str:
    """Why an engine does not open or run a file; empty if it does."""
    inputs = first_batch(as_taken(data, path), batch)
    try:
        session = open_session(path, engine=engine, threads=1)
        session.run(fed(session, inputs))
    except EngineError as error:
        return error.what
    return ""


def _emulated(index: int, path: Path, target: str) -> list[Entry]:
    emulation = saturating(path)
    if not emulation.pairs:
        return []
    risky, pairs = sum(emulation.risky.values()), sum(emulation.pairs.values())
    notes = (
        f"these are the answers on {EMULATED[target]}, where sums of two products saturate at 16 bits: "
        f"{risky:,} of {pairs:,} pairs of weights can.",
    )
    return [Entry(index, EMULATED_ENGINE, emulation.content, target, notes)]
