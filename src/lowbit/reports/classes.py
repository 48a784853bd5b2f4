"""The section about a classifier's answers: by class and by confidence."""

from collections.abc import Callable, Sequence

from lowbit.measurement.details import ByClass
from lowbit.measurement.results import Comparison, Row
from lowbit.reports import units
from lowbit.reports.class_charts import MOST_CLASSES, confusion_matrix, reliability
from lowbit.reports.distinct import distinct
from lowbit.reports.markup import Markup, element, join, table

Known = tuple[Row, ByClass]
MOST_ROWS = 20
SMALL = 4  # classes
NOTHING = Markup("")


def answers_by_class(comparison: Comparison) -> Markup:
    """Confusion matrices, or where classes are many the commonest confusions; accuracy of each class."""
    known = _known(comparison)
    if not known:
        return NOTHING
    count = len(known[0][1].images)
    names = class_names(comparison, count)
    if count <= MOST_CLASSES:
        words = (
            "Rows: how images are labeled. Columns, in the same order: what a file answers. Numbers: images; the "
            "darker, the larger the share of the row. Files that answer alike share a matrix."
        )
        matrices = _tiles(
            known,
            lambda counts: (counts.right, counts.confusions),
            lambda row, counts: confusion_matrix(counts, names, row.name),
        )
        shown = join([element("p", {"class": "note"}, words), matrices])
    else:
        shown = join([element("h3", {}, "Commonest confusions"), _confusions(known, names)])
    return join([shown, element("h3", {}, "Accuracy of each class"), _accuracies(known, names)])


def confidence(comparison: Comparison) -> Markup:
    """Reliability diagrams with the expected calibration error."""
    known = [(row, counts) for row, counts in _known(comparison) if counts.bins]
    if not known:
        return NOTHING
    words = (
        "Columns: how many answers are right, by how confident the file is of them; on the dashed line it is right as "
        "often as it says. Orange: more confident than right. Green: more often right than confident. Pale: fewer than "
        "10 images. Gray: how many images there are. ECE, the expected calibration error, is the mean gap over all "
        "images (Guo et al. 2017, 15 bins)."
    )
    tiles = _tiles(known, lambda counts: counts.bins, _reliability)
    return join([element("p", {"class": "note"}, words), tiles])


def class_names(comparison: Comparison, count: int) -> Sequence[str]:
    """Names of so many classes; their numbers where not all names are known."""
    names = comparison.model.classes
    return names if len(names) == count else [str(index) for index in range(count)]


def _known(comparison: Comparison) -> list[Known]:
    """Files with their counts, those of other engines only where they answer otherwise."""
    files = distinct(comparison.files, lambda one, other: one.details.by_class == other.details.by_class)
    known = [(row, row.details.by_class) for row in files]
    first = next((len(counts.images) for _, counts in known if counts), 0)
    return [(row, counts) for row, counts in known if counts and _is_whole(counts, first)]


def _is_whole(counts: ByClass, size: int) -> bool:
    """Whether a results.json from elsewhere can be drawn."""
    even = len(counts.images) == len(counts.answers) == len(counts.right) == size
    return even and size > 0 and all(each.images > 0 for each in counts.bins)


def _tiles(known: Sequence[Known], same: Callable[[ByClass], object], draw: Callable[[Row, ByClass], Markup]) -> Markup:
    """A drawing for each file; those for which `same` gives the same share one."""
    shared: dict[object, list[Known]] = {}
    for row, counts in known:
        shared.setdefault(same(counts), []).append((row, counts))
    tiles = []
    for files in shared.values():
        row, counts = files[0]
        error = f" · ECE {units.percent(row.calibration_error)} %" if row.calibration_error is not None else ""
        names = element("b", {}, ", ".join(row.name for row, _ in files))
        caption = element("figcaption", {}, names, error if draw is _reliability else "")
        tiles.append(element("figure", {}, caption, draw(row, counts)))
    # Two of the small ones stand side by side on a phone.
    small = draw is _reliability or len(known[0][1].images) <= SMALL
    return element("div", {"class": "tiles two" if small else "tiles"}, *tiles)


def _reliability(row: Row, counts: ByClass) -> Markup:
    return reliability(counts, row.name)


def _accuracies(known: Sequence[Known], names: Sequence[str]) -> Markup:
    first = known[0][1]
    present = [i for i, images in enumerate(first.images) if images]

    def share(counts: ByClass, index: int) -> float | None:
        return counts.right[index] / counts.images[index] if counts.images[index] else None

    def lost(index: int) -> float:
        return max((first.right[index] - counts.right[index]) / first.images[index] for _, counts in known)

    chosen = present if len(present) <= MOST_ROWS else sorted(present, key=lambda i: -lost(i))[:MOST_ROWS]
    lines = [
        (names[i], f"{first.images[i]:,}", *(units.percent(share(counts, i)) for _, counts in known)) for i in chosen
    ]
    heads = ("class", "images", *(f"{row.name}, %" for row, _ in known))
    if len(chosen) == len(present):
        return table(heads, lines)
    words = f"The {MOST_ROWS} of {len(present):,} classes that lost most in any file."
    return join([element("p", {"class": "note"}, words), table(heads, lines)])


def _confusions(known: Sequence[Known], names: Sequence[str]) -> Markup:
    """The pairs of classes that all files together confuse most."""
    found = [{(each.label, each.answer): each.images for each in counts.confusions} for _, counts in known]
    pairs = sorted({pair for each in found for pair in each}, key=lambda p: (-sum(e.get(p, 0) for e in found), p))

    def name(index: int) -> str:
        return names[index] if 0 <= index < len(names) else "not a number"

    lines = [
        (name(label), name(answer), *(f"{each.get((label, answer), 0):,}" for each in found))
        for label, answer in pairs[:MOST_ROWS]
    ]
    return table(("label", "answer", *(row.name for row, _ in known)), lines, text=(1,))
