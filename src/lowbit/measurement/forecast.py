"""How fast a model will be in integers, said before it is quantized: the file that it will become is timed.

What a runtime makes of a network cannot be told from its layers: which nodes it merges, which kernels it has for a
shape, which instructions (AMX, VNNI) these use. It does not depend on the numbers in the file. So a file is made as the
plan says, with ranges that made-up samples gave, and runs in turn with the float file. The layers, and why, are the
roofline's (`roofline`), scaled so that they add up to what was measured.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from lowbit.data.opening import open_data
from lowbit.engines import ENGINES, Session, fed, open_session
from lowbit.engines.bounds import ExcessError, repeated
from lowbit.errors import LowbitError
from lowbit.formats.file_form import LITERT, FileForm
from lowbit.formats.litert.write import to_litert
from lowbit.formats.opening import load
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.measurement.peaks import measure_peaks
from lowbit.measurement.roofline import Outlook, Rehearsal, outlook
from lowbit.progress import IF_LONG, SILENT, Progress, shows_progress
from lowbit.quantization.passes.candidate import plain_candidate
from lowbit.quantization.planning.deciding import plan
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.quantized import Quantized
from lowbit.quantization.trial import made_up_inputs

MOST_RUNS, FEWEST_RUNS, WARMUP = 100, 3, 2
SECONDS = 1.5  # for runs beyond the fewest: a network that takes seconds should not run a dozen times


@shows_progress
def forecast(
    model: Model | str | Path,
    recipe: str | Recipe | Plan = "int8",
    *,
    engine: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    progress: Progress = IF_LONG,
) -> Outlook:
    """What to expect of integers on this processor.

    Args:
        model: the float model or its path.
        recipe: an integer recipe, or a plan.
        engine: the runtime.
        threads: of the runtime.
        batch: samples per run.
        progress: told what is measured.

    Raises:
        EngineError: no such runtime, or it is not installed.
        ModelError: sizes are not known before the model runs, or it is quantized already.

    >>> outlook = lowbit.forecast("model.onnx", "int8")
    >>> outlook.verdict.startswith("int8")
    True
    """
    model = load(model)
    decision = recipe if isinstance(recipe, Plan) else plan(model, recipe)
    peaks = measure_peaks(engine=engine, threads=threads, progress=progress)
    rehearsal = rehearse(model, decision, engine=engine, threads=threads, batch=batch)
    return outlook(model, peaks, batch=batch, recipe=decision, rehearsal=rehearsal)


def rehearse(model: Model, decision: Plan, *, engine: str, threads: int, batch: int) -> Rehearsal | None:
    """Time the float file and the integer file on made-up inputs; None where there are no integers or no such file."""
    if not decision.integer:
        return None
    try:
        inputs = made_up_inputs(model, batch)
        floats, integers = _files(model, decision, inputs, engine)
        sessions = [open_session(content, engine=engine, threads=threads) for content in (floats, integers)]
        with repeated():
            return _timed(sessions, [fed(session, inputs) for session in sessions])
    except ExcessError:
        raise
    except LowbitError:
        return None  # quantizing itself says what is wrong


def _files(model: Model, decision: Plan, inputs: Mapping[str, np.ndarray], engine: str) -> tuple[bytes, bytes]:
    """The float file and the integer one, of ranges that tell nothing of accuracy."""
    samples = open_data(dict(inputs), replace(model, preprocessing=None))
    bare = replace(decision, steps=(), recipe=replace(decision.recipe, ranges="minmax"))
    made = plain_candidate(model, bare, samples, 1, SILENT)
    form = FileForm(to=ENGINES[engine].integer_file.to)
    integers = Quantized(bare, made.graph, calibration=made.statistics).to_bytes(form)
    floats = to_litert(QuantizedGraph(model)) if ENGINES[engine].float_file.to == LITERT else model.to_bytes()
    return floats, integers


def _timed(sessions: list[Session], feeds: list[dict[str, np.ndarray]]) -> Rehearsal:
    """Both in turn: the median of the ratios, and lower quartiles, since other programs only ever add."""
    times: list[tuple[float, float]] = []
    begin = time.perf_counter()
    for turn in range(-WARMUP, MOST_RUNS):
        seconds = []
        for session, feed in zip(sessions, feeds, strict=True):
            start = time.perf_counter()
            session.run(feed)
            seconds.append(time.perf_counter() - start)
        if turn < 0:
            continue
        times.append((seconds[0], seconds[1]))
        if len(times) >= FEWEST_RUNS and time.perf_counter() - begin > SECONDS:
            break
    table = np.array(times)
    gain = float(np.median(table[:, 0] / table[:, 1]))
    return Rehearsal(gain, float(np.percentile(table[:, 0], 25)), len(times))
