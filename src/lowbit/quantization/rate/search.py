"""The search for the price that a goal asks for, each trial being a whole pass whose archive is written and weighed.

- `size`, `bits_per_weight`: the pass itself is steered to the size (`forecast`). What the archive takes more or less
  than the bits that the pass ended at is made good by the next one; the largest archive that fits wins. Mostly the
  first does.
- `max_drop`: bisection on the points of accuracy lost on labelled images (never those of calibration); without labels,
  on the percentage of predictions that change, which the points lost cannot exceed. All passes are at the effort asked
  for: a lower one loses far more at the same price (8 points against 0.8 on the study's model at 1.6 bits a weight).
  The winner was chosen on these images, so its drop on others is to be expected a little larger.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit.calibration.divergence import answers, mean_kl
from lowbit.data.images import Images
from lowbit.errors import SchemeError
from lowbit.files import write_atomically
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.minify import shortened
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.model import Model
from lowbit.graph.ops import layers
from lowbit.progress import Progress
from lowbit.quantization.passes.sensitivity import sensitivities
from lowbit.quantization.quantized import Quantized
from lowbit.quantization.rate.allocation import Priced
from lowbit.quantization.rate.control import CHEAPEST, Forecast, Steering
from lowbit.quantization.solving.effort import EFFORTS, Effort

FIT = 0.98  # an archive of this share of the size asked for is close enough
TRIALS = 8
PROBES = "fast"  # effort of what only looks for sensitivities
DROP_TRIALS = 7
FIRST_BITS = 3.0  # a weight, where the search for a drop begins
VALIDATION_IMAGES = 256

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Trial:
    """One pass.

    Attributes:
        price: nats of KL (estimated) for a bit; where the pass was steered, the mean over layers.
        archive_bytes: of the whole archive.
        bits_per_weight: all bytes of the archive, in bits for each weight.
        kl: mean KL from float in nats, on `data` if given, else on calibration images (which it was fitted to).
        drop: points of accuracy lost on `data`, or percent of predictions changed without labels; None without `data`.
    """

    price: float
    archive_bytes: int
    bits_per_weight: float
    kl: float
    drop: float | None


@dataclass(frozen=True)
class Packed:
    """An archive, and how it was found.

    Attributes:
        archive: the content of the `.lowbit` file.
        content: the ONNX file in it.
        quantized: plan and codes; None if a file was packed as it stood.
        trials: every pass that was tried; the last one is that of the archive. Empty without a dial.
    """

    archive: bytes
    content: bytes
    quantized: Quantized | None = None
    trials: tuple[Trial, ...] = ()

    def save(self, path: Path | str) -> Path:
        """Write the archive, whole or not at all.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
        """
        return write_atomically(path, self.archive)


@dataclass
class Search:
    """What stays the same from trial to trial, and the trials so far."""

    priced: Priced
    forecast: Forecast
    images: Images
    data: Images | None
    effort: Effort
    short_names: bool
    threads: int
    progress: Progress
    reference: Array
    weights: int
    trials: list[Trial]

    @staticmethod
    def begin(
        model: Model,
        images: Images,
        data: Images | None,
        effort: Effort,
        short_names: bool,
        threads: int,
        progress: Progress,
    ) -> "Search":
        """Plan, sensitivities and float answers, once for all prices."""
        decision = Priced.planned(model, effort)
        names = {tensor.tensor for tensor in decision.quantized}
        chosen = [layer.node for layer in layers(model) if layer.weight in names]
        found = sensitivities(model, images, chosen, EFFORTS[PROBES], threads=threads, progress=progress)
        judges = images if data is None else data
        limit = min(VALIDATION_IMAGES, judges.count) if data is None else judges.count
        reference = answers(model.to_bytes(), model, judges, limit=limit, threads=threads)
        weights = sum(model.weights[name].size for name in {layer.weight for layer in layers(model)})
        priced, forecast = Priced(model, decision, found), Forecast(model, found)
        return Search(priced, forecast, images, data, effort, short_names, threads, progress, reference, weights, [])

    def to_size(self, most: int) -> Packed:
        """The best archive of at most so many bytes."""
        least = len(archive.pack(self.content(self.priced.emptied())))
        if most < least:
            raise SchemeError(
                f"{most:,} bytes are impossible: with every weight zero the archive still takes {least:,}.",
                where=self.priced.model.source,
                remedy="Ask for more" + ("." if self.short_names else ", or for short names, which take less."),
            )
        wanted, best = most * (1 + FIT) / 2, None
        aim = wanted
        known: list[tuple[float, int]] = [(0.0, least)]  # bits that were aimed at, bytes of the archive
        bits = bits_for(known, wanted)
        steering = Steering.towards(self.forecast, bits)
        for number in range(TRIALS):
            found = self.trial(steering, self.effort)
            taken = len(found.archive)
            if taken <= most and (best is None or taken > len(best.archive)):
                best = found
            if FIT * most <= taken <= most or (taken <= most and self.forecast.is_finest(steering.price)):
                break
            known.append((bits, taken))
            if best is not None:
                aim = wanted
            elif number > 0:  # it misleads again: more has to be left over
                aim = max(least, aim - (taken - wanted))
            bits = bits_for(known, aim)
            steering = Steering.towards(self.forecast, bits, steering.ratio)
        if best is None:
            raise SchemeError(
                f"no archive of at most {most:,} bytes was found; the smallest tried takes "
                f"{min(trial.archive_bytes for trial in self.trials):,}.",
                where=self.priced.model.source,
                remedy="Ask for a little more.",
            )
        return self.done(best)

    def to_drop(self, most: float) -> Packed:
        """The smallest archive found that loses at most so many points."""
        price = self.forecast.price(FIRST_BITS * self.weights)
        best: Packed | None = None
        good, bad = 0.0, math.inf
        for _ in range(DROP_TRIALS):
            found = self.trial(Steering(self.forecast, price), self.effort)
            if self.passes(most):
                good = price
                best = found if best is None or len(found.archive) < len(best.archive) else best
            else:
                bad = price
            if good == 0:
                if price <= CHEAPEST or self.forecast.is_finest(price):
                    break
                price /= 8
            elif math.isinf(bad):
                price *= 4
            elif bad / good < 1.2:
                break
            else:
                price = math.sqrt(good * bad)
        if best is None:
            raise SchemeError(
                f"at most {most:g} points lost was not reached: {self.trials[-1].drop:.2f} are lost at "
                f"{self.trials[-1].bits_per_weight:.2f} bits a weight.",
                where=self.priced.model.source,
                remedy="Allow a larger drop, give more calibration images, or use a recipe of 8 or 16 bits.",
            )
        return self.done(best)

    def passes(self, most: float) -> bool:
        """Whether the last trial loses at most so many points."""
        lost = self.trials[-1].drop
        return lost is not None and lost <= most

    def done(self, best: Packed) -> Packed:
        """The winner with all trials, its own last."""
        own = best.trials[0]
        return replace(best, trials=(*(trial for trial in self.trials if trial is not own), own))

    def trial(self, steering: Steering, effort: Effort) -> Packed:
        """The network as it is steered, written, weighed and judged."""
        encoded = self.priced.solve(steering, self.images, effort, self.threads, self.progress)
        content = self.content(encoded)
        packed = archive.pack(content)
        judges = self.images if self.data is None else self.data
        found = answers(content, self.priced.model, judges, limit=len(self.reference), threads=self.threads)
        record = Trial(
            steering.mean_price,
            len(packed),
            8 * len(packed) / max(1, self.weights),
            mean_kl(self.reference, found),
            None if self.data is None else drop(self.reference, found, _labels(self.data)),
        )
        self.trials.append(record)
        return Packed(packed, content, Quantized(self.priced.given(encoded), encoded), (record,))

    def content(self, encoded: QuantizedGraph) -> bytes:
        """The ONNX file."""
        content = to_onnx(encoded)
        return shortened(content) if self.short_names else content


def bits_for(known: Sequence[tuple[float, int]], aim: float) -> float:
    """Bits of codes and biases to aim at, so that an archive of `aim` bytes is to be expected.

    Args:
        known: (bits aimed at, bytes) of archives that were made, the empty one among them.
        aim: at least the bytes of the empty one.
    """
    bits, taken = max((point for point in known if point[1] <= aim), key=lambda point: point[1])
    above = [point for point in known if point[1] > aim and point[0] > bits]
    if not above:
        return max(1.0, bits + 8 * (aim - taken))
    more, larger = min(above, key=lambda point: point[1])
    return max(1.0, bits + (more - bits) * (aim - taken) / (larger - taken))


def drop(reference: Array, found: Array, labels: npt.NDArray[np.int64] | None) -> float:
    """Points of accuracy lost, or percent of predictions changed where there are no labels."""
    before, after = reference.argmax(axis=1), found.argmax(axis=1)
    after = np.where(np.isfinite(found).all(axis=1), after, -1)
    if labels is None:
        return 100.0 * float((before != after).mean())
    labels = labels[: len(before)]
    return 100.0 * float((before == labels).mean() - (after == labels).mean())


def _labels(images: Images) -> npt.NDArray[np.int64] | None:
    found = images.labels
    return None if found is None else np.asarray(found, np.int64)
