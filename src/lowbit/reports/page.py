"""The comparison as one HTML page: what readers want to know first, and then section by section."""

import re
from collections.abc import Collection, Sequence
from functools import partial
from itertools import takewhile

from lowbit.certainty.verdicts import MARGIN
from lowbit.measurement.results import Comparison, Row
from lowbit.reports import units
from lowbit.reports.document import document
from lowbit.reports.footnotes import complaints
from lowbit.reports.main_table import all_files
from lowbit.reports.markup import Markup, element, join
from lowbit.reports.quality import quality_of
from lowbit.reports.sections import SECTIONS, title_of

FASTER = 1.05
AGREEING = 0.05  # how far the ratio of two medians may be from the median of the ratios
INTEGERS = ("int", "icluster")


def page(comparison: Comparison, *, linked: Collection[str] = ()) -> str:
    """The text of report.html.

    Args:
        comparison: what was measured.
        linked: names of files that will lie beside the page, to which it leads.
    """
    with_links = {"table": partial(all_files, linked=frozenset(linked))}
    drawn = [
        (name, title_of(name, title, comparison), body)
        for name, title, draw in SECTIONS
        if (body := with_links.get(name, draw)(comparison))
    ]
    links = [element("a", {"href": f"#{name}"}, title) for name, title, _ in drawn]
    sections = [element("section", {"id": name}, element("h2", {}, title), body) for name, title, body in drawn]
    version = comparison.environment.packages.get("lowbit", "")
    others = [
        element("a", {"href": name}, name) if name in linked else name for name in ("results.json", "results.csv")
    ]
    return document(
        f"{_name(comparison)}: quantized and measured",
        element("header", {}, _heading(comparison), element("nav", {"aria-label": "Sections"}, *links)),
        element("main", {}, *sections),
        element("footer", {}, f"Made by lowbit {version}. The same numbers are in ", others[0], " and ", others[1],
                " next to this page."),
    )  # fmt: skip


def findings(comparison: Comparison) -> tuple[tuple[str, str, str], ...]:
    """What readers want to know first: (question, short answer, the numbers behind it)."""
    first, others = comparison.rows[0], comparison.rows[1:]
    quantized = [row for row in comparison.files[1:] if not comparison.is_reference(row)]
    cards = []
    timed = [row for row in others if row.latency_ratio is not None]
    near = [row for row in quantized if row.kl is not None]
    quality = quality_of(comparison)
    if quality.scale.is_fraction and any(quality.value(row) is not None for row in others):
        cards.append(("Smallest within one point of float", *_smallest(comparison, quantized)))
    if timed:
        row = max(timed, key=lambda row: row.latency_ratio or 0.0)
        answer, why = first.label or "float", "no file is faster than float here"
        if (row.latency_ratio or 0.0) >= FASTER:
            answer = f"{row.name}, {units.ratio(row.latency_ratio)} faster"
            why = _times(first, row)
        cards.append(("Fastest", answer, why))
    if near:
        row = min(near, key=lambda row: row.kl or 0.0)
        flips = "" if row.flips is None else f", {row.flips:,} prediction{'s' * (row.flips != 1)} changed"
        cards.append(("Closest to float", row.name, f"KL {units.divergence(row.kl)} nats{flips}"))
    elif compared := [row for row in quantized if row.output_error is not None]:
        row = min(compared, key=lambda row: row.output_error or 0.0)
        why = f"relative error of output {row.worst_output}: {units.small(row.output_error)}"
        cards.append(("Closest to float", row.name, why))
    return tuple(cards)


def _times(first: Row, row: Row) -> str:
    """The times of two files, if they tell what the ratios of runs in turn tell."""
    if first.latency_ms is not None and row.latency_ms and row.latency_ratio:
        of_medians = first.latency_ms / row.latency_ms
        if abs(of_medians / row.latency_ratio - 1) <= AGREEING:
            return f"{units.milliseconds(row.latency_ms)} ms against {units.milliseconds(first.latency_ms)} ms"
    return "the median of the ratios of runs in turn; times wandered on a busy machine, see the table for their spread"


def _smallest(comparison: Comparison, quantized: Sequence[Row]) -> tuple[str, str]:
    """The smallest file that surely lost at most a point: answer and numbers; or what it would take to tell.

    Files are certified from the largest to the smallest, until one does not hold; those that compute in integers come
    last, as they round more. The samples had no part in this order, so that none of the error has to be shared among
    the files (`lowbit.certainty.certificate`).
    """
    quality, samples = quality_of(comparison), comparison.environment.data_images
    known = [row for row in quantized if row.drop_high is not None]
    ordered = sorted(known, key=lambda row: (row.recipe.startswith(INTEGERS), -row.file_bytes))
    held = list(takewhile(lambda row: (row.drop_high or 0.0) <= MARGIN, ordered))
    undecided = [row for row in ordered[len(held) :] if (row.drop_low or 0.0) <= MARGIN]
    if not known:
        return "cannot tell", f"{samples:,} samples are too few for any file"
    if not held and not undecided:
        return "none", f"every file lost more than one point of {quality.word}"
    if not held:
        point = f", each of them {100 / samples:.2g} points," if samples else ""
        return "cannot tell", f"{samples:,} samples{point} cannot tell, from the largest file on: {_open(undecided[0])}"
    row, start = min(held, key=lambda row: row.file_bytes), quality.float_value or 0.0
    against = f" against {quality.scale.text(start)}" if quality.value(comparison.rows[0]) is not None else ""
    why = (
        f"{units.size(row.file_bytes)}, {quality.word} {quality.scale.text(quality.value(row))}{against}; at most "
        f"{units.percent(row.drop_high, 2)} points lost on other samples, with 95 % confidence"
    )
    smaller = [other for other in undecided if other.file_bytes < row.file_bytes]
    more = f"; smaller ones cannot be told from {samples:,} samples: {_open(smaller[0])}" if smaller else ""
    return f"{row.name}, {units.ratio(row.file_ratio)} smaller", why + more


def _open(row: Row) -> str:
    """How much a file that is not certified may lose, and how many samples would tell."""
    needed = f", which about {row.samples_needed:,} would tell" if row.samples_needed else ""
    return f"{row.name} may lose {units.percent(row.drop_high, 2)} points{needed}"


def _name(comparison: Comparison) -> str:
    """The model's file name, without the folders of whoever ran this."""
    return re.split(r"[/\\]", comparison.model.name)[-1] or "model"


def _heading(comparison: Comparison) -> Markup:
    model, images = comparison.model, comparison.environment.data_images
    extent = "×".join(str(n) for n in model.input_shape[1:])
    facts = [
        f"{model.trained_parameters:,} trained parameters" if model.trained_parameters else "",
        f"{units.amount(model.macs)} MACs ({units.amount(2 * model.macs)} FLOPs)" if model.macs else "",
        f"input {extent}" if extent else "",
        f"{len(model.classes)} classes" if model.classes else "",
        f"{images:,} evaluation {'images' if comparison.classifies else 'samples'}" if images else "",
    ]
    parts = [
        element("p", {"class": "eyebrow"}, "Quantized after training, measured on the written files"),
        element("h1", {}, _name(comparison)),
        element("p", {"class": "lead"}, " · ".join(fact for fact in facts if fact)),
    ]
    cards = []
    for question, answer, why in findings(comparison):
        big, more = element("dd", {"class": "big"}, answer), element("dd", {"class": "more"}, why)
        cards.append(element("div", {}, element("dt", {}, question), big, more))
    if cards:
        parts.append(element("dl", {"class": "facts"}, *cards))
    unmet = complaints(comparison)
    if unmet:
        lines = element("ul", {}, *(element("li", {}, note) for note in unmet))
        parts.append(
            element("div", {"class": "warn"}, element("b", {}, "Requested but not possible, and other notes"), lines)
        )
    return join(parts)
