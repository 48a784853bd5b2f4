"""Are calibration samples fit to calibrate on? Each is looked at alone, then all of them beside the evaluation samples.

One corrupt image can stretch every range, and a set of one class shows a network only a part of what it will meet. How
many samples are needed follows from order statistics: of N samples whose largest values are known, n drawn at random
reach, in the mean, sum over k of P(the k-th smallest is the largest of n) times that value.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.calibration.statistics import TensorStatistics
from lowbit.data.dataset import Array, Batch, Dataset, overlap
from lowbit.diagnosis.class_answers import ClassAnswers
from lowbit.diagnosis.findings import CORRUPT, COVERAGE, DUPLICATES, MISSING_CLASS, ONE_CLASS, OVERLAP, Finding
from lowbit.errors import LowbitError
from lowbit.graph.model import Model
from lowbit.progress import SILENT, Progress

ALIKE = 0.5  # correlation of neighbors that usual images of a set have, for noise to stand out
NOISE = 0.2  # correlation of neighbors, below which an image is noise among those
CUT_OFF = 0.25  # share of rows at the bottom that are all the same
GROUND = 0.02  # of the range of an image, by which its ground may vary
GROUND_SHARE = 0.1
FAR = 8.0  # times as far as usual
UNLIKELY = 1e-3
DOMINANT = 8.0  # odds of a class over those in the evaluation samples
BEYOND = 5.0  # standard errors
REACHED = 0.95  # of the largest values
OUTSIDE = 0.1  # share of held-out samples beyond the calibrated range, in the mean over tensors
TIMES_CHANCE = 4.0
FARTHER = 1.1
TOO_FEW = 1.5  # times as many samples are needed as there are

Doubles = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Looks:
    """What one sample looks like.

    Attributes:
        reach: largest magnitude of its float inputs.
        constant: whether all values of each channel are the same.
        alike: correlation of neighboring pixels; NaN where it is no image.
        contrast: standard deviation of its pixels; 0 where it is no image.
        cut: share of rows at the bottom that are all the same.
    """

    reach: float
    constant: bool
    alike: float = math.nan
    contrast: float = 0.0
    cut: float = 0.0


def sound_samples(model: Model, data: Dataset, *, progress: Progress = SILENT) -> tuple[Dataset, tuple[Finding, ...]]:
    """The samples that nothing is wrong with, and a finding for each of the others.

    Args:
        model: that takes them.
        data: calibration samples.
        progress: told after every sample.
    """
    looks: dict[int, Looks] = {}
    findings: dict[int, Finding] = {}
    for index, batch in progress.track(_one_by_one(data), "looking at samples", total=data.count):
        if isinstance(batch, LowbitError):
            findings[index] = _corrupt(data, index, f"cannot be read: {batch.what.rstrip('.')}")
        elif any(x.dtype.kind == "f" and not np.isfinite(x).all() for x in batch.inputs.values()):
            findings[index] = _corrupt(data, index, "holds values that are NaN or infinite")
        else:
            looks[index] = looked_at(model, batch)
    for index, what in _odd_ones(looks).items():
        findings[index] = _corrupt(data, index, what)
    sound = [index for index in range(data.count) if index not in findings]
    return data.select(sound) if findings and sound else data, tuple(findings[index] for index in sorted(findings))


def _corrupt(data: Dataset, index: int, what: str) -> Finding:
    return Finding(CORRUPT, data.where(index), what, "Leave it out, or repair it.")


def _one_by_one(data: Dataset) -> Iterator[tuple[int, Batch | LowbitError]]:
    """Each sample by its number; in place of one that cannot be read the error."""
    start = 0
    while start < data.count:
        rest = data if start == 0 else data.select(range(start, data.count))
        index = start
        try:
            for batch in rest.batches(1):
                yield index, batch
                index += 1
        except LowbitError as error:
            yield index, error
            index += 1
        start = index


def looked_at(model: Model, batch: Batch) -> Looks:
    """One sample."""
    floats = [x for x in batch.inputs.values() if x.dtype.kind == "f" and x.size]
    reach = max((float(np.abs(x).max()) for x in floats), default=0.0)
    images = [x for x in batch.inputs.values() if x.ndim == 4 and min(x.shape[1:]) > 0 and x.size >= 16]
    if len(images) != 1:
        return Looks(reach, constant=False)
    planes = _planes(model, images[0])
    constant = bool((np.ptp(planes, axis=(1, 2)) == 0).all())
    alike = math.nan if constant else _alike(planes)
    return Looks(reach, constant, alike, float(planes.std(axis=(1, 2)).mean()), _cut_off(planes))


def _planes(model: Model, image: Array) -> Doubles:
    """One image as [channels, height, width]."""
    how = model.preprocessing
    last = how.layout == "NHWC" if how is not None else image.shape[3] in (1, 3, 4) and image.shape[1] > 4
    x = image[0].astype(np.float64)
    return np.moveaxis(x, -1, 0) if last else x


def _alike(planes: Doubles) -> float:
    """Correlation of neighbors along both axes, in the mean."""
    centered = planes - planes.mean(axis=(1, 2), keepdims=True)
    power = float(np.square(centered).mean())
    products = [centered[:, 1:] * centered[:, :-1], centered[:, :, 1:] * centered[:, :, :-1]]
    return float(np.mean([each.mean() for each in products if each.size])) / power if power else math.nan


def _cut_off(planes: Doubles) -> float:
    """Share of rows at the bottom that are of one color; 0 where it is the ground that the rest stands on, too."""
    away = np.abs(planes - planes[:, -1:, -1:]).max(axis=0)
    rows = int(np.argmax(away.max(axis=1)[::-1] > 0))
    ground = float((away[: len(away) - rows] <= GROUND * float(np.ptp(planes))).mean())
    return 0.0 if ground > GROUND_SHARE else rows / len(away)


def _odd_ones(looks: Mapping[int, Looks]) -> dict[int, str]:
    """What is wrong with each sample that looks unlike all others."""
    if len(looks) < 3:
        return {}
    reach = float(np.median([one.reach for one in looks.values()]))
    correlations = [one.alike for one in looks.values() if not math.isnan(one.alike)]
    usual = float(np.median(correlations)) if correlations else 0.0
    contrast = float(np.median([one.contrast for one in looks.values()]))
    cut = float(np.median([one.cut for one in looks.values()]))
    constant = float(np.mean([one.constant for one in looks.values()]))
    odd = {}
    for index, one in looks.items():
        if one.constant and constant < 0.5:
            odd[index] = "is of one color all over"
        elif usual >= ALIKE and one.alike < NOISE and one.contrast >= contrast:
            odd[index] = f"is noise: neighboring pixels correlate by {one.alike:.2f}, usually by {usual:.2f}"
        elif one.cut >= CUT_OFF and cut == 0:
            odd[index] = f"is cut off: the last {100 * one.cut:.0f} % of its rows are all the same"
        elif reach > 0 and one.reach > FAR * reach:
            odd[index] = f"reaches {one.reach / reach:.0f}x as far as usual: was it normalized as the others?"
    return odd


def set_findings(data: Dataset, evaluation: Dataset) -> tuple[Finding, ...]:
    """Samples that stand twice in a calibration set, and those that are evaluated on as well, by content."""
    findings = []
    places: dict[str, list[int]] = {}
    for index, digest in enumerate(data.digests):
        places.setdefault(digest, []).append(index)
    twice = [indices for indices in places.values() if len(indices) > 1]
    if twice:
        extra = sum(len(indices) - 1 for indices in twice)
        first = " and ".join(data.where(index) for index in twice[0][:2])
        what = f"{extra} of {data.count} samples are copies of others, such as {first}"
        findings.append(Finding(DUPLICATES, data.name, what, "Keep one of each."))
    if shared := overlap(data, evaluation):
        what = f"{shared} of {data.count} calibration samples are evaluation samples, too"
        findings.append(
            Finding(OVERLAP, data.name, what, "Calibrate on other samples: figures would flatter the file.")
        )
    return tuple(findings)


def class_findings(
    data: Dataset, evaluation: Dataset, seen: ClassAnswers | None, judged: ClassAnswers | None
) -> tuple[Finding, ...]:
    """Classes that the evaluation samples have and a calibration set lacks, by labels, or by the float model's answers.

    Args:
        data: calibration samples.
        evaluation: evaluation samples.
        seen: the float model's answers to the former; None if it is no classifier.
        judged: to the latter.
    """
    if seen is None or judged is None:
        return ()
    by_labels = seen.labels is not None and judged.labels is not None
    here, there = (
        Counter((one.labels if by_labels and one.labels is not None else one.classes).tolist())
        for one in (seen, judged)
    )
    names = evaluation.class_names or data.class_names
    count, total = here.total(), there.total()
    how = "" if by_labels else ", as the float model sees them"
    kind, most = here.most_common(1)[0]
    share, expected = most / count, (there[kind] + 1) / (total + 2)
    odds = share / max(1 - share, 1 / count) * (1 - expected) / expected
    if len(there) > 1 and odds > DOMINANT and share - expected > BEYOND * math.sqrt(expected * (1 - expected) / count):
        all_of_them = "all" if most == count else f"{most} of"
        what = f"{all_of_them} {count} calibration samples are of class {_called(names, kind)}{how}"
        return (Finding(ONE_CLASS, data.name, what, "Calibrate on samples of all classes, some of each."),)
    missing = [
        kind for kind, times in there.items() if not here[kind] and (1 - times / total) ** count < UNLIKELY / len(there)
    ]
    if not missing:
        return ()
    listed = ", ".join(_called(names, kind) for kind in sorted(missing)[:5]) + (", ..." if len(missing) > 5 else "")
    what = f"no calibration sample is of class {listed}{how}"
    return (Finding(MISSING_CLASS, data.name, what, "Calibrate on samples of all classes, some of each."),)


def _called(names: Sequence[str] | None, kind: int) -> str:
    return names[kind] if names is not None and kind < len(names) else str(kind)


def coverage_findings(
    name: str, seen: Mapping[str, TensorStatistics], held_out: Mapping[str, TensorStatistics]
) -> tuple[Finding, ...]:
    """How far held-out samples go beyond the ranges that calibration saw, and how many samples would do.

    Args:
        name: of the calibration set.
        seen: statistics of activations on the calibration samples, a row for each sample.
        held_out: on samples that were not calibrated on.
    """
    common = [tensor for tensor in seen if tensor in held_out and _reaches(seen[tensor]).max(initial=0.0) > 0]
    if not common:
        return ()
    beyond = {tensor: _reaches(held_out[tensor]) / _reaches(seen[tensor]).max() for tensor in common}
    outside = float(np.mean([np.mean(each > 1) for each in beyond.values()]))
    count = min(len(seen[tensor].highs) for tensor in common)
    worst = max(common, key=lambda tensor: float(np.median(np.sort(beyond[tensor])[-3:])))
    farther = float(np.median([each.max() for each in beyond.values()]))
    if outside > max(OUTSIDE, TIMES_CHANCE / (count + 1)) and farther > FARTHER:
        what = (
            f"calibration is not representative: {100 * outside:.0f} % of other samples go beyond its ranges, "
            f"at '{worst}' up to {beyond[worst].max():.1f}x"
        )
        return (Finding(COVERAGE, name, what, "Calibrate on samples such as the network will meet."),)
    needed = samples_needed([np.concatenate([_reaches(seen[one]), _reaches(held_out[one])]) for one in common])
    if needed > TOO_FEW * count:
        what = f"{count} samples are few: about {needed} reach {100 * REACHED:.0f} % of the largest activations"
        return (Finding(COVERAGE, name, what, f"Calibrate on {needed} samples or more."),)
    return ()


def _reaches(statistics: TensorStatistics) -> Doubles:
    """The largest magnitude in each sample [samples]."""
    return np.maximum(statistics.highs, -statistics.lows).astype(np.float64)


def samples_needed(reaches: Sequence[Doubles]) -> int:
    """How many samples reach `REACHED` of the largest value of all, in the mean over tensors.

    Args:
        reaches: for each tensor the largest magnitude in each sample [samples].
    """
    shares = np.stack([np.sort(each) / max(float(each.max()), 1e-30) for each in reaches])
    total = int(shares.shape[1])
    for count in range(1, total):
        # P(the k-th smallest of all is the largest of `count`) = C(k - 1, count - 1) / C(total, count)
        logs = np.array([_log_choose(k, count - 1) for k in range(total)]) - _log_choose(total, count)
        if float((shares @ np.exp(logs)).mean()) >= REACHED:
            return count
    return total


def _log_choose(n: int, k: int) -> float:
    return -math.inf if k > n else math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
