"""The smallest archive: one price of a bit for the whole network, and the dials that find it.

At one price every layer is quantized where one more bit anywhere would save the same at the network's output
(`sensitivity`, `rate`); that is what makes the total smallest (equal slope: Shoham and Gersho 1988, "Efficient bit
allocation for an arbitrary set of quantizers"). A network at a price is in `quantization.rate.allocation`, what it will
take in `quantization.rate.control`, the search for the price that a goal asks for in `quantization.rate.search`.

Scales are one a tensor: at one price all rows of a layer want the same step, and what rows and columns differ in is
what the coder's contexts learn. docs/design.md has the measurements.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lowbit.data.images import Images, open_images, overlap
from lowbit.errors import DataError, SchemeError
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.minify import shortened
from lowbit.formats.opening import load, pack_file
from lowbit.graph.model import Model
from lowbit.processor import single_thread_blas
from lowbit.progress import SILENT, Progress
from lowbit.quantization.rate.search import Packed, Search
from lowbit.quantization.solving.effort import EFFORTS


@single_thread_blas()
def pack(
    model: Model | str | Path,
    *,
    calibration: Images | str | Path | Iterable[Any] | None = None,
    size: int | None = None,
    bits_per_weight: float | None = None,
    max_drop: float | None = None,
    data: Images | str | Path | Iterable[Any] | None = None,
    short_names: bool = False,
    effort: str = "balanced",
    threads: int = 0,
    progress: Progress = SILENT,
) -> Packed:
    """Put a model into an archive; with a dial, quantize it to the best that the dial allows.

    Args:
        model: the path of an ONNX file; with a dial, a float model or its path.
        calibration: images that codes are chosen on; labels are not used.
        size: most bytes of the archive.
        bits_per_weight: most bits of the archive, all of it counted, for each weight of the model's layers.
        max_drop: most points of accuracy lost on `data`; percent of changed predictions if it has no labels.
        data: images to evaluate on, none of them among `calibration`; needed for `max_drop`.
        short_names: see `formats.onnx.minify`: inner tensors are renamed, and what no runtime reads is dropped.
        effort: a row of `EFFORTS`: images and positions that codes are chosen on.
        threads: threads of the runtime; 0 leaves it to the runtime.
        progress: told as the work goes on.

    Raises:
        SchemeError: more than one dial, a number that cannot be, or a goal that cannot be reached.
        DataError: images are missing, or some are in both sets.
        ModelError: nothing to quantize, or quantized already.
    """
    dials = {"size": size, "bits_per_weight": bits_per_weight, "max_drop": max_drop}
    turned = {name: value for name, value in dials.items() if value is not None}
    if len(turned) > 1:
        raise SchemeError(
            f"{' and '.join(turned)} are {len(turned)} goals at once.", remedy="Give one of size, bits and drop."
        )
    if not turned:
        return _as_it_stands(model, short_names)
    if not all(math.isfinite(value) and value > 0 for value in turned.values()):
        raise SchemeError(
            f"{next(iter(turned))} of {next(iter(turned.values()))} is no goal.", remedy="Give more than 0."
        )
    if effort not in EFFORTS:
        raise SchemeError(f"no effort is called '{effort}'.", remedy=f"Choose one of: {', '.join(EFFORTS)}.")
    if not isinstance(model, Model):
        model = load(model)
    if calibration is None:
        raise DataError(
            "codes are chosen by what they do to images, and there are none.",
            remedy="Give calibration images: --calibration DIR, or calibration= in Python. A few hundred are plenty.",
        )
    if max_drop is not None and data is None:
        raise DataError(
            "a drop can only be measured on images that are not used to calibrate.",
            remedy="Give them with --data DIR, or data= in Python; with labels if accuracy is meant.",
        )
    seen = calibration if isinstance(calibration, Images) else open_images(calibration, model.preprocessing)
    judges = data if data is None or isinstance(data, Images) else open_images(data, model.preprocessing)
    if judges is not None and (shared := overlap(judges, seen)):
        raise DataError(
            f"{shared} of the {judges.count} images of data are calibration images too.",
            where=judges.name,
            remedy="Keep them apart: what was fitted to an image cannot be judged on it.",
        )
    search = Search.begin(model, seen, judges, EFFORTS[effort], short_names, threads, progress)
    if max_drop is not None:
        return search.to_drop(max_drop)
    return search.to_size(int(size if size is not None else (bits_per_weight or 0) * search.weights / 8))


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
