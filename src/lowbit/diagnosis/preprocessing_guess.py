"""Which preprocessing was a classifier trained with? Every usual one is tried, and ranked by what the model answers.

The judge is that of the doctor (`preprocessing_fit`): the probability of the right class where there are labels, else
how far the answers tell samples apart. A ranking is evidence, not knowledge: it is shown, and never taken unasked.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lowbit.data.dataset import Dataset
from lowbit.data.images import Images
from lowbit.data.opening import open_data
from lowbit.diagnosis.class_answers import ClassAnswers, class_answers
from lowbit.diagnosis.labels import MAPPED, numbering_share
from lowbit.diagnosis.preprocessing_fit import (
    FEWEST,
    JUDGED,
    NORMALIZATIONS,
    RIGHTER,
    cost,
    has,
    in_other_order,
    is_better,
    normalized,
    prepared,
)
from lowbit.engines import open_session
from lowbit.errors import DataError
from lowbit.graph.model import Model
from lowbit.graph.preprocessing import RGB, Preprocessing
from lowbit.progress import SILENT, Progress


@dataclass(frozen=True)
class Guess:
    """One way to prepare images, and what the float model makes of them.

    Attributes:
        name: of the normalization.
        preprocessing: the same as a value, with the order of the colors.
        information: how far the answers tell samples apart, in nats.
        accuracy: a fraction; None without labels.
        probability: mean of the right class; None without labels.
        sure: whether it is better than the next one in the ranking beyond chance (three standard errors).
    """

    name: str
    preprocessing: Preprocessing
    information: float
    accuracy: float | None = None
    probability: float | None = None
    sure: bool = False


def guesses(model: Model, source: object, *, labels: object = None, progress: Progress = SILENT) -> tuple[Guess, ...]:
    """The usual ways to prepare images, the likeliest first.

    Args:
        model: a float classifier whose `preprocessing` says size, layout and crop.
        source: images, anything that `open_data` takes.
        labels: likewise.
        progress: told after every try.

    Raises:
        DataError: the model is no classifier, its classes have other numbers than the labels, or there are fewer than
            16 images, or arrays in their place that are prepared already.
    """
    how = model.preprocessing
    assert how is not None
    nothing, ones = (0.0,) * how.channels, (1.0,) * how.channels
    plain = dataclasses.replace(how, scale=1 / 255, mean=nothing, std=ones, colors=RGB)
    data = open_data(source, dataclasses.replace(model, preprocessing=plain), limit=JUDGED, labels=labels)
    _check(data)
    session = open_session(model.light())
    axis = 3 if how.layout == "NHWC" else 1
    ways = {name: normalized(plain, *each) for name, each in NORMALIZATIONS.items() if has(how.channels, *each)}
    tries = list(ways.items())
    if how.channels == 3:
        tries += [(name, in_other_order(way)) for name, way in tries]
    tried: list[tuple[Guess, ClassAnswers]] = []
    for name, way in progress.track(tries, "trying preprocessing", total=len(tries)):
        answers = class_answers(model, session, data, prepared(plain, way, axis))
        if answers is None:
            raise DataError(
                "the model gives no scores of classes, by which a preprocessing could be guessed.",
                where=model.source,
                remedy="Look up what it was trained with, and give --mean and --std.",
            )
        guess = Guess(name, way, answers.information)
        if answers.labels is not None:
            guess = dataclasses.replace(guess, accuracy=float(answers.right.mean()), probability=-cost(answers))
        tried.append((guess, answers))
    _check_numbers(data, [answers for _, answers in tried])
    tried.sort(key=lambda one: cost(one[1]))
    following = [answers for _, answers in tried[1:]]
    return tuple(
        dataclasses.replace(guess, sure=is_better(answers, worse))
        for (guess, answers), worse in zip(tried, [*following, tried[-1][1]], strict=True)
    )


def _check(data: Dataset) -> None:
    if not isinstance(data, Images) or (data.source.values == "model" and next(data.batches(data.count)).x.min() < 0):
        raise DataError(
            "these arrays are the model's inputs already, and say nothing of how images become them.",
            where=data.name,
            remedy="Give images.",
        )
    if data.count < FEWEST:
        raise DataError(
            f"{data.count} images say nothing of the preprocessing.",
            where=data.name,
            remedy=f"Give {FEWEST} or more, of all classes.",
        )


def _check_numbers(data: Dataset, tried: Sequence[ClassAnswers]) -> None:
    """Refuse labels that fit no way of preparing, but with other numbers the one that tells samples apart best."""
    best = max(tried, key=lambda answers: answers.information)
    if best.labels is None:
        return
    share, accuracy = numbering_share(best), max(float(answers.right.mean()) for answers in tried)
    if share >= MAPPED and share > accuracy + RIGHTER:
        raise DataError(
            "the labels number the classes in another way than the model.",
            where=data.name,
            remedy="Give the images in one folder, without labels.",
        )
