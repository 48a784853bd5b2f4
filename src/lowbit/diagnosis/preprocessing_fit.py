"""Does the preprocessing fit? The float model is tried on likely alternatives.

Images are brought back to pixels and prepared in every common way: other means and spreads, 0..1 against 0..255, blue
first, and for arrays rows and channels in the other order. One of them is named if the model is far better at home
there: the probability of the right class rises on the same samples by several standard errors (the loss itself has
too heavy tails to say so of a few hundred), and accuracy with it, or answers tell samples apart no less: fainter images
would only make a network less sure that was too sure of itself. Without labels, if its answers tell samples apart
far better.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lowbit.data.dataset import Array, Dataset
from lowbit.data.images import Images
from lowbit.diagnosis.class_answers import Change, ClassAnswers, class_answers
from lowbit.diagnosis.findings import LAYOUT, NORMALIZATION, ORDER, Finding
from lowbit.diagnosis.labels import numbering_share
from lowbit.engines import Session
from lowbit.graph.model import Model
from lowbit.graph.preprocessing import BGR, IMAGENET_MEAN, IMAGENET_STD, LAYOUTS, RGB, Preprocessing
from lowbit.progress import SILENT, Progress

SCREENED = 32  # samples that all alternatives are tried on
JUDGED = 384  # that the best of them are
FINALISTS = 3
MARGIN = 0.1  # by which few samples may speak against one of these: probability, or nats
LOWER = 0.95  # loss of an alternative over the given one's, at most
BEYOND = 3.0  # standard errors
RIGHTER = 0.05  # accuracy of an alternative less the given one's, from which information does not matter
TELLS_LESS = 0.97  # information of an alternative over the given one's, at least, where there are labels
TELLS_MORE = 1.03  # information of an alternative likewise, where there are none
NEARLY = 0.01  # by which a simpler alternative may be worse than the best
RESAMPLED = 200
FEWEST = 16  # samples that say anything

SWAP = "images = images[..., ::-1]  # channels last: the other way round, as OpenCV reads them"

Numbers = tuple[float, ...]
# name -> mean and spread on the scale of 0..1
NORMALIZATIONS: dict[str, tuple[float | Numbers, float | Numbers]] = {
    "0..1": (0.0, 1.0),
    "0..255": (0.0, 1 / 255),
    "-1..1": (0.5, 0.5),
    "ImageNet's mean and spread": (IMAGENET_MEAN, IMAGENET_STD),
    "0..255 less ImageNet's mean": (IMAGENET_MEAN, 1 / 255),
}


@dataclass(frozen=True)
class Alternative:
    """Another way to prepare the same samples.

    Attributes:
        causes: what would be wrong if this is right; one of them for a simple alternative.
        name: in words.
        change: from the input as it is given to the input as it would be.
        cure: what to paste.
    """

    causes: tuple[str, ...]
    name: str
    change: Change
    cure: str


def laid_out(model: Model) -> tuple[Model, tuple[Finding, ...]]:
    """The model with a layout that its input has, and a finding if that is not what was said."""
    how = model.preprocessing
    shape = model.inputs[0].shape if len(model.inputs) == 1 else ()
    if how is None or len(shape) != 4 or _fits(how, shape):
        return model, ()
    for layout in LAYOUTS:
        other = dataclasses.replace(how, layout=layout)
        if _fits(other, shape):
            sizes = "x".join(map(str, shape[1:]))
            what = f"images are laid out as {how.layout}, and the input is {sizes}"
            return dataclasses.replace(model, preprocessing=other), (
                Finding(LAYOUT, model.source, what, f"--layout {layout}"),
            )
    return model, ()


def _fits(how: Preprocessing, shape: Sequence[object]) -> bool:
    return all(
        not isinstance(dim, int) or dim == wanted for dim, wanted in zip(shape[1:], how.input_shape, strict=True)
    )


def preprocessing_findings(
    model: Model, session: Session, data: Dataset, *, progress: Progress = SILENT
) -> tuple[Finding, ...]:
    """At most one finding: the alternative that the float model is far better at home with.

    Args:
        model: the float model.
        session: that runs it.
        data: samples as the model gets them.
        progress: told after every alternative.
    """
    alternatives = tuple(_alternatives(model, data))
    few = data.subset(min(data.count, SCREENED))
    given = class_answers(model, session, few) if alternatives and data.count >= FEWEST else None
    if given is None:
        return ()
    tried = []
    for each in progress.track(alternatives, "trying other preprocessing", total=len(alternatives)):
        answers = class_answers(model, session, few, each.change)
        if answers is not None and cost(answers) < cost(given) + MARGIN:
            tried.append((cost(answers), len(each.causes), each))
    finalists = [each for *_, each in sorted(tried, key=lambda one: one[:2])[:FINALISTS]]
    if not finalists:
        return ()
    more = data.subset(min(data.count, JUDGED))
    given = class_answers(model, session, more)
    assert given is not None
    better = []
    for each in progress.track(finalists, "trying other preprocessing", total=len(finalists)):
        answers = class_answers(model, session, more, each.change)
        if answers is not None and _far_better(answers, given):
            better.append((cost(answers), each, answers))
    if not better:
        return ()
    least = min(figure for figure, *_ in better)
    near = [one for one in better if one[0] <= least + NEARLY]
    _, best, answers = min(near, key=lambda one: (len(one[1].causes), one[0]))
    if answers.labels is not None and numbering_share(given) > float(answers.right.mean()) + RIGHTER:
        return ()  # the samples are answered well, and the classes have other numbers
    return tuple(Finding(cause, data.name, _words(best, given, answers), best.cure) for cause in best.causes)


def cost(answers: ClassAnswers) -> float:
    """Minus the probability of the right class, or the information where that is not known."""
    return -answers.information if answers.labels is None else -float(np.exp(-answers.losses).mean())


def _far_better(answers: ClassAnswers, given: ClassAnswers) -> bool:
    if answers.labels is not None:
        lower = answers.losses.mean() <= LOWER * given.losses.mean()
        right = answers.right.mean() - given.right.mean() >= RIGHTER
        no_less = right or answers.information >= TELLS_LESS * given.information
        return bool(lower and no_less and is_better(answers, given))
    return answers.information >= TELLS_MORE * given.information and is_better(answers, given)


def is_better(one: ClassAnswers, other: ClassAnswers) -> bool:
    """Whether the same samples cost less, beyond chance: by `BEYOND` standard errors."""
    if one.labels is not None:
        differences = np.exp(-one.losses) - np.exp(-other.losses)
        return bool(differences.mean() > BEYOND * differences.std(ddof=1) / np.sqrt(len(differences)))
    generator = np.random.default_rng(0)
    chosen = generator.integers(0, len(one.logs), (RESAMPLED, len(one.logs)))
    gains = np.array([one.information_of(each) - other.information_of(each) for each in chosen])
    return bool(gains.mean() > BEYOND * gains.std())


def _words(best: Alternative, given: ClassAnswers, answers: ClassAnswers) -> str:
    if answers.labels is not None:
        figures = f"accuracy {_percent(given)} as given, {_percent(answers)} with {best.name}"
    else:
        figures = (
            f"answers tell samples apart by {given.information:.2f} nats as given, "
            f"{answers.information:.2f} with {best.name}"
        )
    return f"the float model is more at home with {best.name}: {figures}"


def _percent(answers: ClassAnswers) -> str:
    return f"{100 * float(answers.right.mean()):.1f} %"


def _alternatives(model: Model, data: Dataset) -> Iterator[Alternative]:
    """For one float input of images; empty for any other."""
    if len(model.inputs) != 1 or model.input.dtype.kind != "f" or len(model.input.shape) != 4:
        return
    x = next(iter(data.batches(1))).x
    known = data.preprocessing if isinstance(data, Images) else model.preprocessing
    axis = 3 if (known.layout if known is not None else _layout(x.shape)) == "NHWC" else 1
    channels = x.shape[axis]
    if channels not in (1, 3):
        return
    as_arrays = not isinstance(data, Images) or data.source.values == "model"
    guess = known or _as_given(x, channels)
    how = guess or Preprocessing(1, 1, channels, scale=1.0, mean=(0.0,) * channels, std=(1.0,) * channels)
    wanted = {"": how}
    if guess is not None:
        wanted |= {name: normalized(how, *each) for name, each in NORMALIZATIONS.items() if has(channels, *each)}
    for name, other in wanted.items():
        given = not name or _same(other, how)
        if not given:
            yield Alternative((NORMALIZATION,), name, prepared(how, other, axis), as_options(other, said=how.colors))
        if channels == 3:
            # Numbers of each color go with it; only those that are given are tried as they are, too.
            turned = in_other_order(other) if name else dataclasses.replace(how, colors=_other(how.colors))
            said = f"the channels in the other order ({turned.colors} for {how.colors})"
            yield Alternative(
                (ORDER,) if given else (NORMALIZATION, ORDER),
                said if given else f"{name} and {said}",
                prepared(how, turned, axis),
                _cure(how, turned, as_arrays=as_arrays),
            )
    if as_arrays and channels == 3:
        name = "rows and channels in the other order (NHWC for NCHW)" if axis == 1 else "channels first (NCHW for NHWC)"
        cure = f"images = images.transpose({'0, 3, 1, 2' if axis == 1 else '0, 2, 3, 1'})  # not reshape"
        yield Alternative((LAYOUT,), name, _reread(axis), cure)


def _cure(how: Preprocessing, turned: Preprocessing, *, as_arrays: bool) -> str:
    """What to paste for channels in another order: options, or Python where arrays are used as they are."""
    same = _same(turned, how)
    if as_arrays:
        return SWAP if same else f"{as_options(turned, said=turned.colors)}, and {SWAP}"
    # Numbers that differ by color are said again: the word `imagenet` is turned with the order.
    alike = same and _same(in_other_order(how), turned)
    return f"--colors {turned.colors}" if alike else as_options(turned, said=how.colors)


def _layout(shape: Sequence[int]) -> str:
    return "NHWC" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW"


def _as_given(x: Array, channels: int) -> Preprocessing | None:
    """What arrays of unknown preparation look like by their range; None if they could be anything."""
    low, high = float(x.min()), float(x.max())
    nothing, ones = (0.0,) * channels, (1.0,) * channels
    if low >= 0:
        return Preprocessing(1, 1, channels, "NCHW", 1 / 255 if high <= 1 else 1.0, nothing, ones)
    if low >= -1 and high <= 1:
        return Preprocessing(1, 1, channels, "NCHW", 1 / 255, (0.5,) * channels, (0.5,) * channels)
    if channels == 3 and low > -2.2 and high < 2.7:
        return Preprocessing(1, 1, channels, "NCHW", 1 / 255, IMAGENET_MEAN, IMAGENET_STD)
    return None


def has(channels: int, *numbers: float | Numbers) -> bool:
    """Whether an input of so many channels can be normalized by these numbers."""
    return all(isinstance(each, float) or len(each) == channels for each in numbers)


def normalized(how: Preprocessing, mean: float | Numbers, spread: float | Numbers) -> Preprocessing:
    """The same pixels with mean and spread given on the scale of 0..1, on the scale that is used."""
    unit = 255 * how.scale
    means, spreads = (
        tuple(unit * value for value in ((each,) * how.channels if isinstance(each, float) else each))
        for each in (mean, spread)
    )
    other = dataclasses.replace(how, mean=means, std=spreads, colors=RGB)
    return other if how.colors == RGB else in_other_order(other)


def in_other_order(how: Preprocessing) -> Preprocessing:
    """The same normalization of each color, with the channels in the other order."""
    return dataclasses.replace(how, mean=how.mean[::-1], std=how.std[::-1], colors=_other(how.colors))


def _other(colors: str) -> str:
    return BGR if colors == RGB else RGB


def _same(one: Preprocessing, other: Preprocessing) -> bool:
    return bool(np.allclose((*one.mean, *one.std), (*other.mean, *other.std), rtol=0.02, atol=1e-3 * min(one.std)))


def as_options(how: Preprocessing, *, said: str = RGB) -> str:
    """As the command line takes it.

    Args:
        how: with means and spreads in the units of its scale.
        said: order of the colors that the model says already.
    """
    order = "" if how.colors == said else f" --colors {how.colors}"
    by_color = how if how.colors == RGB else in_other_order(how)
    if how.channels == 3 and np.allclose((*by_color.mean, *by_color.std), (*IMAGENET_MEAN, *IMAGENET_STD)):
        return f"--mean imagenet --std imagenet{order}"
    means, spreads = (
        ",".join(f"{value:.6g}" for value in (values[:1] if len(set(values)) == 1 else values))
        for values in (how.mean, how.std)
    )
    return f"--mean {means} --std {spreads}{order}"


def prepared(before: Preprocessing, after: Preprocessing, axis: int) -> Change:
    """From one preparation of pixels to another: back to pixels, into the other order where that differs, and on."""
    shape = [1, 1, 1, 1]
    shape[axis] = before.channels
    old_mean, old_std, new_mean, new_std = (
        np.reshape(np.asarray(values), shape) for values in (before.mean, before.std, after.mean, after.std)
    )

    def change(x: Array) -> Array:
        pixels = x * old_std + old_mean
        return np.asarray(((pixels if after.colors == before.colors else np.flip(pixels, axis)) - new_mean) / new_std)

    return change


def _reread(axis: int) -> Change:
    """The same numbers in the same order, read as images of the other layout."""

    def change(x: Array) -> Array:
        samples, *sizes = x.shape
        if axis == 1:
            channels, height, width = sizes
            return x.reshape(samples, height, width, channels).transpose(0, 3, 1, 2)
        height, width, channels = sizes
        return x.reshape(samples, channels, height, width).transpose(0, 2, 3, 1)

    return change
