"""The geometry of the charts."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lowbit.measurement.details import Histogram
from lowbit.reports.charts import weight_histogram
from lowbit.reports.markup import Markup, element, join
from lowbit.reports.svg import breadth, linear_ticks, log_ticks
from lowbit.reports.trade_off import LATENCY, Point, overlap, pareto, place_label, trade_off


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=12))
def test_pareto_front_is_what_nothing_beats(pairs):
    points = [Point("p", size, quality / 20, None, None) for size, quality in pairs]
    front = pareto(points)
    for i, p in enumerate(points):
        beaten = any(
            q.size <= p.size and q.quality >= p.quality and (q.size, q.quality) != (p.size, p.quality) for q in points
        )
        twin = any((q.size, q.quality) == (p.size, p.quality) for j, q in enumerate(points) if j != i)
        assert (i in front) == (not beaten) or twin
    assert all(
        any(q == points[i] for i in front) for q in points if q == max(points, key=lambda p: (p.quality, -p.size))
    )


def test_ticks_are_round_and_inside():
    assert linear_ticks(91.2, 96.9, 6) == [92, 93, 94, 95, 96]
    assert linear_ticks(0, 6_500_000, 4) == [0, 2e6, 4e6, 6e6]
    assert linear_ticks(0, 1, 4) == [0, 0.5, 1.0]
    assert log_ticks(0.6e6, 1.2e7) == [1e6, 2e6, 5e6, 1e7]


@example(low=1.0, span=41.0, most=2)
@given(st.floats(0, 100), st.floats(0.01, 100), st.integers(2, 9))
def test_ticks_never_leave_the_axis(low, span, most):
    ticks = linear_ticks(low, low + span, most)
    assert len(ticks) <= 2 * most + 1
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)


def test_labels_of_equal_points_do_not_overlap():
    taken = [(193.0, 93.0, 207.0, 107.0)]
    for _ in range(6):
        box = place_label(200, 100, 50, taken, within=(0, 0, 400, 300))
        assert all(min(box[2], b[2]) <= max(box[0], b[0]) or min(box[3], b[3]) <= max(box[1], b[1]) for b in taken)
        taken.append(box)


def test_a_label_without_room_is_left_out():
    taken = [(0.0, 0.0, 400.0, 300.0)]
    assert place_label(200, 100, 50, taken, within=(0, 0, 400, 300)) is None
    assert place_label(200, 100, 500, [], within=(0, 0, 400, 300)) is None


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12), st.text("mWil8", min_size=1, max_size=9)), min_size=1)
)
def test_no_label_stands_on_a_point_or_on_another(triples):
    points = [Point(name, size * 1e5, quality / 200 + 0.9, None, None) for size, quality, name in triples]
    drawing = trade_off(points, 343, title="accuracy, %")
    circles = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawing)]
    assert len(circles) == len(points)
    boxes = [(x - 5.2, y - 5.2, x + 5.2, y + 5.2) for x, y in circles]
    labels = []
    for x, y, anchor, name in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="label( \w+)?">(\w+)<', drawing):
        left = float(x) - {"": 0.0, " mid": 0.5, " end": 1.0}[anchor] * breadth(name)
        labels.append((left, float(y) - 11, left + breadth(name), float(y) + 3))
    assert labels
    for place, label in enumerate(labels):
        assert -0.01 <= label[0] < label[2] <= 343.01
        assert not any(overlap(label, other) for other in (*boxes, *labels[:place]))


def test_a_collapsed_file_stands_at_the_edge_with_its_value():
    points = [Point("float", 9e6, 0.95, 0.92, 0.97, True), Point("tiny", 5e5, 0.33, 0.29, 0.38)]
    svg = trade_off(points, 960, title="accuracy, %")
    assert "tiny 33.0 %" in svg
    assert svg.count("<circle") == 1


def test_latency_is_drawn_in_milliseconds():
    points = [Point("float", 3.0, 0.95, None, None, True), Point("int8", 1.6, 0.94, None, None)]
    drawing = trade_off(points, 960, title="accuracy, %", cost=LATENCY)
    assert "<title>int8: 94.0 %, 1.60 ms</title>" in drawing
    assert ">2 ms</text>" in drawing
    assert "latency, logarithmic" in drawing
    assert "file size" not in drawing


@pytest.mark.parametrize("size", [0, 1, 16, 256])
def test_a_histogram_draws_every_entry_of_the_code_book(size):
    book = tuple(i / 256 for i in range(size)) or None
    svg = weight_histogram(Histogram("w", (-1.0, 0.0, 1.0), (3, 5), book))
    assert svg.count("M") == 1 + 2 * size


def test_markup_escapes_what_is_not_markup():
    inner = element("b", {"title": '"><x>'}, "<i>", Markup("<u>"))
    assert inner == '<b title="&quot;&gt;&lt;x&gt;">&lt;i&gt;<u></b>'
    assert join(["<", inner]) == f"&lt;{inner}"
    assert element("img", {"width": 1.5, "x": 2.0, "y": 3}) == '<img width="1.5" x="2" y="3">'
