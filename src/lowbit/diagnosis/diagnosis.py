"""Diagnose: look at the data, at how they are prepared, at every layer; name causes, and measure what cures bring."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lowbit.calibration.batches import as_runs
from lowbit.calibration.statistics import Statistics, TensorStatistics, calibrate
from lowbit.data.dataset import Dataset
from lowbit.data.opening import open_data
from lowbit.diagnosis.against import compared
from lowbit.diagnosis.calibration_set import class_findings, coverage_findings, set_findings, sound_samples
from lowbit.diagnosis.class_answers import class_answers
from lowbit.diagnosis.findings import CORRUPT, Diagnosis, Finding
from lowbit.diagnosis.labels import label_findings
from lowbit.diagnosis.layers import Examined, examined, worst_first
from lowbit.diagnosis.preprocessing_fit import JUDGED, laid_out, preprocessing_findings
from lowbit.diagnosis.treatment import Treatment, Ward, culprits, is_noticeable, treated
from lowbit.diagnosis.trials import Trials, can_be_alone, confirmed, plain_file
from lowbit.engines import open_session
from lowbit.errors import DataError, LowbitError
from lowbit.formats.opening import load
from lowbit.graph.model import Model
from lowbit.processor import single_thread_blas
from lowbit.progress import IF_LONG, Progress, shows_progress
from lowbit.quantization.planning.recipes import Recipe, parse_recipe
from lowbit.quantization.planning.rules import Rules

MOST_CALIBRATION = 128  # samples that layers are looked at on
MOST_EVALUATION = 4096  # samples that are looked at one by one
MOST_JUDGING = 256  # that files are judged by
HELD_OUT = 64  # that ranges are compared on
CONFIRMED = 4  # layers that are measured alone
LEAST_CALIBRATION = 2
MOST = (MOST_CALIBRATION, MOST_JUDGING)

Source = Dataset | str | Path | Iterable[Any]


@shows_progress
@single_thread_blas()
def diagnose(
    model: Model | str | Path,
    data: Source,
    recipe: str | Recipe = "int8",
    *,
    rules: Rules = (),
    calibration: Source | None = None,
    against: str | Path | None = None,
    effort: str = "fast",
    progress: Progress = IF_LONG,
) -> Diagnosis:
    """What is wrong with a model, with its data, and with the file that a recipe makes of it; what helps, and how much.

    Args:
        model: the float model or its path.
        data: evaluation samples, anything `open_data` takes; labels make most of it sharper.
        recipe: whose file is looked at.
        rules: other recipes for some layers; see `plan`.
        calibration: calibration samples; without them half of the evaluation samples take their place.
        against: a file that any tool made of the model: then the two are compared layer by layer instead.
        effort: of the steps that files are made with.
        progress: told as the work goes on.

    Raises:
        LowbitError: the model or the evaluation samples cannot be used at all; the message says why.

    >>> found = lowbit.diagnose("model.onnx", "test", "linear8", calibration="photos")
    >>> [layer.node for layer in found.layers][:2]
    ['stem', 'narrow']
    """
    model = load(model)
    model, findings = laid_out(model)
    evaluation = as_runs(model, open_data(data, model))
    if against is not None:
        return compared(model, Path(against), evaluation, progress=progress)
    chosen = parse_recipe(recipe) if isinstance(recipe, str) else recipe
    treatment = Treatment(chosen, rules, effort)
    treatment.planned(model)  # which says what is wrong with recipe and rules before anything takes time
    evaluation = evaluation.subset(min(evaluation.count, MOST_EVALUATION))
    evaluation, broken = sound_samples(model, evaluation, progress=progress)
    seen, evaluation, more, notes = _calibration(model, calibration, evaluation, progress)
    findings = (*findings, *broken, *more)
    findings += _data_findings(model, seen, evaluation, progress)
    result = Diagnosis(model.source, chosen.name, findings, samples=evaluation.count, notes=notes)
    if seen is None or seen.count < LEAST_CALIBRATION or chosen.weights is None:
        return dataclasses.replace(result, plan=treatment.planned(model))
    return _with_layers(result, model, treatment, (seen, evaluation), progress)


def _calibration(
    model: Model, source: Source | None, evaluation: Dataset, progress: Progress
) -> tuple[Dataset | None, Dataset, tuple[Finding, ...], tuple[str, ...]]:
    """Calibration samples that can be used, what is left to evaluate on, and what is wrong with the others."""
    if source is None:
        if evaluation.count < 2 * LEAST_CALIBRATION:
            return None, evaluation, (), ("There are no calibration samples, so no layer was looked at.",)
        rest, apart = evaluation.apart(min(MOST_CALIBRATION, evaluation.count // 2))
        note = f"There is no --calibration: {apart.count} of the evaluation samples were set apart for it."
        return apart, rest, (), (note,)
    try:
        opened = open_data(source, model)
        sound, findings = sound_samples(model, opened, progress=progress)
        return as_runs(model, sound), evaluation, findings, ()
    except DataError as error:
        where = error.where or "the calibration samples"
        finding = Finding(CORRUPT, where, error.what.rstrip("."), error.remedy or "Leave it out, or repair it.")
        note = "No layer was looked at, for the calibration samples cannot be used."
        return None, evaluation, (finding,), (note,)


def _data_findings(model: Model, seen: Dataset | None, evaluation: Dataset, progress: Progress) -> tuple[Finding, ...]:
    """What is wrong with preprocessing, labels, and the choice of calibration samples."""
    session = open_session(model.light())
    fit = preprocessing_findings(model, session, evaluation, progress=progress)
    judged = class_answers(model, session, evaluation.subset(min(evaluation.count, JUDGED)))
    labels = label_findings(evaluation, judged) if judged is not None and not fit else ()
    if seen is None:
        return (*fit, *labels)
    answers = None if judged is None else class_answers(model, session, seen.subset(min(seen.count, JUDGED)))
    return (*fit, *labels, *class_findings(seen, evaluation, answers, judged), *set_findings(seen, evaluation))


def _with_layers(
    result: Diagnosis, model: Model, treatment: Treatment, data: tuple[Dataset, Dataset], progress: Progress
) -> Diagnosis:
    """With what the codes of each layer do, and with cures."""
    seen, evaluation = (part.subset(min(part.count, most)) for part, most in zip(data, MOST, strict=True))
    decision = treatment.planned(model)
    case = examined(model, decision, seen, progress=progress)
    trials = Trials(model, evaluation)
    ward = Ward(model, seen, trials, progress)
    plain, written = trials.figures_of(plain_file(case)), ward.outcome(treatment)
    if can_be_alone(decision):
        worst = [one for one in worst_first(case.figures) if one.damage > 0][:CONFIRMED]
        case = dataclasses.replace(case, figures=confirmed(case, trials, worst, treatment.rules, progress=progress))
    findings: tuple[Finding, ...] = ()
    cured = None
    if is_noticeable(written, trials.reference):
        sick = culprits(worst_first(case.figures), plain)
        findings, treatment, cured = treated(case, treatment, sick, ward, written)
    return dataclasses.replace(
        result,
        findings=(*result.findings, *_coverage(case, seen, evaluation, progress), *findings),
        layers=case.figures,
        reference=trials.reference,
        plain=plain,
        written=written,
        cured=cured,
        metric=trials.metric,
        percent=trials.percent,
        measure=trials.measure,
        samples=evaluation.count,
        calibration_samples=seen.count,
        plan=treatment.planned(model),
    )


def _coverage(case: Examined, seen: Dataset, evaluation: Dataset, progress: Progress) -> tuple[Finding, ...]:
    """Whether held-out samples stay within the ranges that calibration saw."""
    held_out = evaluation.subset(min(evaluation.count, HELD_OUT))
    tensors = list(dict.fromkeys(case.outputs.values()))
    try:
        there = calibrate(case.model, held_out, tensors=tensors, histograms=False, progress=progress)
    except LowbitError:  # too few for a run
        return ()
    here = dataclasses.replace(case.statistics, tensors={name: case.statistics.tensors[name] for name in tensors})
    return coverage_findings(seen.name, _by_sample(here), _by_sample(there))


def _by_sample(statistics: Statistics) -> dict[str, TensorStatistics]:
    """Of tensors with a row for each sample: tables of positions have one for a batch, windows many for a sample."""
    return {name: one for name, one in statistics.tensors.items() if len(one.highs) == statistics.images}
