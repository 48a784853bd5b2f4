"""The smallest archive: one Lagrange multiplier for the whole network, found so that a goal is met.

At one multiplier every layer is quantized where one more bit anywhere would save the same at the network's output
(`passes.sensitivity`, `solving.rate_distortion`); that is what makes the total smallest (equal slope: Shoham and Gersho
1988, "Efficient bit allocation for an arbitrary set of quantizers"). A network at a multiplier is in `rate.allocation`,
what it will take in `rate.control`, the search for the multiplier that a goal asks for in `rate.search`.

Scales are one per tensor: at one multiplier all rows of a layer want the same scale, and what rows and columns differ
in is what the coder's contexts learn. Only rows too large for eight bits have larger ones. Beside the archive of a size
stands that of a recipe of fixed width (`rate.fixed`). docs/decisions has the measurements.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lowbit.calibration.batches import as_runs
from lowbit.data.dataset import Dataset, digest_of, overlap
from lowbit.data.opening import open_data
from lowbit.errors import DataError
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.minify import shortened
from lowbit.formats.opening import load, pack_file
from lowbit.formats.record import tools
from lowbit.graph.model import Model
from lowbit.processor import single_thread_blas
from lowbit.progress import IF_LONG, Progress, shows_progress
from lowbit.quantization.rate.goal import Goal
from lowbit.quantization.rate.kept import KeptPasses
from lowbit.quantization.rate.packed import Packed
from lowbit.quantization.rate.search import Search
from lowbit.quantization.solving.effort import effort_called


@shows_progress
@single_thread_blas()
def pack(
    model: Model | str | Path,
    goal: Goal | None = None,
    *,
    calibration: Dataset | str | Path | Iterable[Any] | None = None,
    short_names: bool = False,
    effort: str = "balanced",
    threads: int = 0,
    progress: Progress = IF_LONG,
    kept: Path | str | None = None,
) -> Packed:
    """Put a model into an archive; with a goal, quantize it to the best that meets the goal.

    Args:
        model: the path of an ONNX file; with a goal, a float model or its path.
        goal: a size, bits per weight or a drop; None packs the file as it stands.
        calibration: samples that codes are chosen on, anything `open_data` takes; labels are not used. Needed with a
            goal.
        short_names: see `formats.onnx.minify`: inner tensors are renamed, and what no runtime reads is dropped.
        effort: a row of `EFFORTS`: images and positions that codes are chosen on.
        threads: threads of the runtime; 0 leaves it to the runtime.
        progress: told as the work goes on.
        kept: folder where finished passes are kept, and taken from if an earlier call with the same arguments was
            stopped; its caller's to remove. None keeps none.

    Raises:
        SchemeError: no such effort, or a goal that cannot be reached.
        DataError: images are missing, or some are in both sets.
        ModelError: nothing to quantize, or quantized already.

    >>> packed = lowbit.pack("model.onnx")
    >>> packed.save("model.lowbit").name
    'model.lowbit'
    """
    if goal is None:
        return _as_it_stands(model, short_names)
    limits = effort_called(effort)
    model = load(model)
    if calibration is None:
        raise DataError(
            "codes are chosen by what they do to images, and there are none.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python. A few hundred are plenty.",
        )
    images = as_runs(model, open_data(calibration, model))
    data = None if goal.data is None else as_runs(model, open_data(goal.data, model))
    if data is not None and (shared := overlap(data, images)):
        raise DataError(
            f"{shared} of the {data.count} images of data are calibration images too.",
            where=data.name,
            remedy="Keep them apart: what was fitted to an image cannot be judged on it.",
        )
    target = goal.target if goal.in_integers else ""
    passes = KeptPasses()
    if kept is not None:
        settings = (goal.size, goal.bits_per_weight, goal.max_drop, goal.confidence, target, short_names, effort)
        passes = KeptPasses(Path(kept), (*settings, *_depends(model, images, data)))
    search = Search(model, images, data, limits, short_names, threads, progress, target, passes)
    if goal.max_drop is not None:
        return search.to_drop(goal.max_drop, confidence=goal.confidence)
    if goal.size is not None:
        return search.to_size(int(goal.size))
    return search.to_size(int((goal.bits_per_weight or 0) * search.trials.weights / 8))


def _depends(model: Model, *data: Dataset | None) -> list[object]:
    """What an archive depends on besides the settings of its search."""
    sets = [
        each and [each.fingerprint(), {name: digest_of(one.array) for name, one in each.others.items()}]
        for each in data
    ]
    return [model.sha256, model.preprocessing and model.preprocessing.to_json(), *sets, tools()]


def _as_it_stands(model: Model | str | Path, short_names: bool) -> Packed:
    if isinstance(model, Model):
        content = model.to_bytes()
        content = shortened(content) if short_names else content
        return Packed(archive.pack(content), content)
    if not short_names:
        packed = pack_file(model)
        return Packed(packed, archive.unpack(packed))
    content = shortened(archive.unpack(pack_file(model)))
    return Packed(archive.pack(content), content)
