"""The page in a real browser: it fits a phone, sorts, shows columns and values that are chosen, and axe-core agrees."""

import dataclasses
import random

import pytest

import browser
from comparison_sample import hostile, sample_comparison
from lowbit.measurement.results import Comparison
from lowbit.reports.document import document
from lowbit.reports.markup import element
from lowbit.reports.page import page
from lowbit.reports.svg import both
from lowbit.reports.trade_off import Point, trade_off

WIDTHS = (320, 390, 768, 1280)
LOOK = """
const root = d.documentElement, table = d.querySelector(".main-table table");
const cut = [...d.querySelectorAll(".main-table .scroll")].some(box => box.scrollWidth > box.clientWidth);
const head = title => [...table.tHead.rows[1].cells].find(cell => cell.textContent.startsWith(title));
const first = () => table.tBodies[0].rows[0].cells[0].textContent;
const click = title => { head(title).querySelector("button").click(); return [first(), head(title).ariaSort]; };
const visible = title => head(title).getBoundingClientRect().width > 0;
const name = head("recipe") ? "recipe" : "file";
const sorted = [click("smaller"), click("smaller"), click("smaller"), click(name)];
const before = visible("SQNR");
d.getElementById("g-weights").click();
const after = visible("SQNR");
const charts = [...d.querySelectorAll("svg[role]")].filter(s => s.getBoundingClientRect().width > 0);
const mark = [...d.querySelectorAll("circle[data-tip]")].find(c => c.getBoundingClientRect().width > 0);
mark.dispatchEvent(new view.PointerEvent("pointerdown", {bubbles: true}));
const touched = d.querySelector(".tip").textContent;
const files = d.querySelectorAll(".graph input");
files[1].click();
const bits = d.querySelector(".node[data-layer] text").textContent;
return {
  wide: root.scrollWidth, high: root.scrollHeight, charts: charts.length, cut, sorted, before, after, touched, bits,
  fetched: view.performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length,
  plain: [...d.querySelectorAll("table")].filter(t => !t.querySelector("thead button")).length,
  images: [...d.images].every(i => i.naturalWidth > 0)};
"""
AXE = """
const found = await view.axe.run(d, {resultTypes: ["violations"]});
return found.violations.map(v => [v.id, v.impact, v.nodes.slice(0, 3).map(n => n.html.slice(0, 200))]);
"""
OVERLAPS = """
const shown = [...d.querySelectorAll("svg")].find(s => s.getBoundingClientRect().width > 0);
const boxes = kind => [...shown.querySelectorAll(kind)].map(each => each.getBoundingClientRect());
const labels = boxes("text.label"), marks = boxes("circle, path.dot");
const meet = (a, b) => Math.min(a.right, b.right) > Math.max(a.left, b.left) + 0.5 &&
  Math.min(a.bottom, b.bottom) > Math.max(a.top, b.top) + 0.5;
const among = labels.flatMap((a, i) => labels.slice(i + 1).filter(b => meet(a, b)));
return {labels: labels.length, marks: marks.length, among: among.length,
  upon: labels.flatMap(a => marks.filter(b => meet(a, b))).length};
"""


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """What a browser makes of the page, by width; the page of 320 pixels is the hostile one."""
    plain, poisoned = page(sample_comparison()), page(hostile())
    pages = {str(width): (poisoned if width == WIDTHS[0] else plain, width) for width in WIDTHS}
    return browser.seen(pages, LOOK, tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(laid_out, width):
    result = laid_out[str(width)]
    assert "error" not in result, result
    assert result["wide"] <= width
    assert result["charts"] >= 10
    assert result["high"] > 2000
    assert result["images"]
    assert result["fetched"] == 0
    assert result["plain"] == 0, "every table can be sorted"
    assert (result["before"], result["after"]) == (False, width > 700), "a group of columns that was not shown"
    if width == WIDTHS[0]:
        return
    largest, smallest, first, words = result["sorted"]
    assert largest == ["cluster2", "descending"]
    assert smallest == ["float", "ascending"]
    assert first == ["float", None], "the order of the page"
    assert words == ["cluster2", "ascending"]
    assert result["touched"].endswith("MB")
    assert result["bits"] == "8", "int8, in the graph"
    assert not result["cut"] or width < 1000


def few_layers(comparison: Comparison) -> Comparison:
    """Two files and a few layers, for axe-core takes its time over each mark."""
    rows = tuple(
        dataclasses.replace(row, details=dataclasses.replace(
            row.details, layers=row.details.layers[:3], examples=row.details.examples[:1],
            histograms=row.details.histograms[:1],
        ))
        for row in (comparison.rows[0], comparison.rows[-1])
    )  # fmt: skip
    return dataclasses.replace(comparison, rows=rows, layers=comparison.layers[:3], network=comparison.network[:5])


@pytest.fixture(scope="module")
def accessible(tmp_path_factory):
    text = page(few_layers(sample_comparison()))
    pages = {
        f"{width} {name}": (mode(text), width)
        for width in (390, 1280)
        for name, mode in (("light", str), ("dark", browser.dark))
    }
    linked = [Point(f"point {i}", 1e6 + 2e5 * i, 0.9 + i / 200, None, None, i == 3, f"#c-{i}") for i in range(4)]
    chart = both(lambda width: trade_off(linked, width, title="accuracy, %"))
    pages["links"] = document("links", element("main", {}, element("h1", {}, "Points with links"), chart)), 390
    return browser.seen(pages, AXE, tmp_path_factory.mktemp("axe"), tool=browser.axe())


@pytest.mark.parametrize("which", ["390 light", "390 dark", "1280 light", "1280 dark", "links"])
def test_axe_finds_nothing_serious(accessible, which):
    assert [found for found in accessible[which] if found[1] in ("serious", "critical")] == []


def test_labels_of_dense_points_never_overlap(tmp_path):
    """By the boxes that the browser gives them, in its own letters."""
    numbers = random.Random(0)
    points = [
        Point(
            f"mixed{i}-wwMW"[: numbers.randint(4, 12)],
            numbers.uniform(1e6, 2e6),
            numbers.uniform(0.9, 0.93),
            None,
            None,
        )
        for i in range(60)
    ]
    points[0] = dataclasses.replace(points[0], reference=True)
    chart = both(lambda width: trade_off(points, width, title="accuracy, %"))
    text = document("dense", element("main", {}, chart))
    for result in browser.seen({"390": (text, 390), "1280": (text, 1280)}, OVERLAPS, tmp_path).values():
        assert result["marks"] == 60
        assert result["labels"] >= 8
        assert (result["among"], result["upon"]) == (0, 0)
