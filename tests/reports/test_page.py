"""The page holds everything, escapes everything and fetches nothing."""

import dataclasses
import html
import re
from html.parser import HTMLParser

import pytest

from comparison_sample import HOSTILE, hostile, sample_comparison, without_labels
from lowbit.measurement.details import Details
from lowbit.measurement.results import LayerCostRow
from lowbit.reports.page import findings, page
from lowbit.reports.sections import SECTIONS

VOID = {"meta", "img", "input", "br"}
ALL_SECTIONS = [
    "table", "trade-off", "latency", "layer-time", "size", "classes", "confidence", "examples", "network",
    "weight-errors", "layers", "weights", "making", "method",
]  # fmt: skip


class Tags(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


def sections_of(tags: Tags) -> list[str | None]:
    return [attributes["id"] for tag, attributes in tags.tags if tag == "section"]


def test_all_sections_are_there_and_nothing_comes_from_elsewhere():
    text = page(sample_comparison())
    tags = parsed(text)
    # The distance of outputs is told where there is more to say of them than that classes change.
    assert sections_of(tags) == ALL_SECTIONS == [name for name, _, _ in SECTIONS if name != "outputs"]
    for _, attributes in tags.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert len(text) < 500_000
    for row in sample_comparison().rows:
        assert text.count(f">{row.recipe}<") >= 4
    assert "Entropy-coded, and merely compressed" in text
    assert "zstd -19 of float" in text


def test_hostile_names_stay_text_in_every_section():
    text = page(hostile())
    tags = parsed(text)
    assert sections_of(tags) == ALL_SECTIONS
    assert sum(tag == "script" for tag, _ in tags.tags) == 1
    for tag, attributes in tags.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        assert tag != "img"  # a thumbnail that is no PNG is left out
    assert HOSTILE not in text
    header, *sections = text.split("<section ")
    assert header.count(html.escape(HOSTILE.split("/")[-1])) >= 2  # title and heading name the file, not its folder
    for name, section in zip(ALL_SECTIONS, sections, strict=True):
        assert html.escape(HOSTILE) in section, name


def test_the_script_is_the_one_that_the_policy_allows():
    text = page(sample_comparison())
    assert re.search(r"script-src &#x27;sha256-[A-Za-z0-9+/]{43}=&#x27;", text)
    assert "default-src &#x27;none&#x27;" in text


@pytest.mark.parametrize("kind", ["no labels", "bare", "alone", "deep", "collapsed", "empty values"])
def test_other_comparisons_make_a_page_too(kind):
    comparison = sample_comparison()
    rows = comparison.rows
    if kind == "no labels":
        comparison = without_labels(comparison)
    elif kind == "bare":
        comparison = dataclasses.replace(
            comparison, layers=(), rows=tuple(dataclasses.replace(row, details=Details()) for row in rows)
        )
    elif kind == "alone":
        comparison = dataclasses.replace(comparison, rows=rows[:1])
    elif kind == "deep":
        layers = tuple(LayerCostRow(f"layer {i}" * 20, "Conv", i, i, 4 * i) for i in range(400))
        comparison = dataclasses.replace(comparison, layers=layers)
    elif kind == "collapsed":
        bad = tuple(dataclasses.replace(r, accuracy=0.33, accuracy_low=0.29, accuracy_high=0.38) for r in rows[1:])
        comparison = dataclasses.replace(comparison, rows=(rows[0], *bad))
    else:
        bad = {field: None for field in rows[0].scalars() if field not in ("recipe", "file", "engine", "file_bytes")}
        comparison = dataclasses.replace(comparison, rows=tuple(dataclasses.replace(row, **bad) for row in rows))
    text = page(comparison)
    parsed(text)
    assert not re.search(r"(?:[\dMHVLz \"]|:)-?(?:nan|inf)\b", text)
    assert ("agreement with float, %" in text) == (kind == "no labels")


@pytest.mark.parametrize("name", ["/home/someone/net.onnx", "C:\\Users\\someone\\net.onnx", "net.onnx"])
def test_the_title_names_the_file_and_not_the_folder(name):
    comparison = sample_comparison()
    text = page(dataclasses.replace(comparison, model=dataclasses.replace(comparison.model, name=name)))
    assert "<h1>net.onnx</h1>" in text
    assert "someone" not in text


def test_every_layer_stands_in_the_graph_once_with_its_bits():
    """An output may bear the name of the layer that gives it."""
    comparison = sample_comparison()
    layers = tuple(
        dataclasses.replace(layer, code_bits=float(2 + place % 5))
        for place, layer in enumerate(comparison.rows[-1].details.layers)
    )
    last = dataclasses.replace(
        comparison.rows[-1], details=dataclasses.replace(comparison.rows[-1].details, layers=layers)
    )
    text = page(dataclasses.replace(comparison, rows=(*comparison.rows[:-1], last)))
    graph = text[text.index('id="network"') : text.index('id="weight-errors"')]
    assert graph.count("data-layer") == 2 * len(layers), "for a screen and for a phone"
    assert re.findall(r'class="bits mid">([^<]+)<', graph)[: len(layers)] == [
        f"{layer.code_bits:.0f}" for layer in layers
    ]
    assert re.search(r'checked="" *> cluster2|checked=""> cluster2', graph), "the file with the most kinds"


def test_findings():
    comparison = sample_comparison()
    smallest, fastest, closest = findings(comparison)
    # In order of size: cluster8 is certified, linear4 with 8 of 372 answers changed is not.
    assert smallest[1] == "cluster8, 3.74× smaller"
    assert "at most 0.46 points lost on other samples, with 95 % confidence" in smallest[2]
    assert "smaller ones cannot be told from 372 samples: linear4 may lose" in smallest[2]
    assert fastest[1] == "int8, 1.65× faster"
    assert closest[1:] == ("linear16", "KL 1.1e-9 nats, 0 predictions changed")
    float_ms = comparison.rows[0].latency_ms
    times = {f"{ratio:.2f}": dataclasses.replace(row, latency_ms=float_ms / row.latency_ratio * ratio)
             for row in comparison.rows[1:2] for ratio in (1.0, 1.2)}  # fmt: skip
    said = {
        ratio: findings(dataclasses.replace(comparison, rows=(comparison.rows[0], row)))[1][2]
        for ratio, row in times.items()
    }
    assert " ms against " in said["1.00"], "times that agree with the ratio"
    assert " ms against " not in said["1.20"], "2.0 times by the medians, 1.65 by runs in turn"
    assert "busy machine" in said["1.20"]
    undecided = tuple(row for row in comparison.rows if "8" not in row.recipe and "16" not in row.recipe)
    smallest = findings(dataclasses.replace(comparison, rows=undecided))[0]
    assert smallest[1] == "cannot tell"
    assert smallest[2].startswith(
        "372 samples, each of them 0.27 points, cannot tell, from the largest file on: linear4 may lose"
    )
    worse = tuple(
        dataclasses.replace(row, accuracy=0.5, drop_low=0.4, drop_high=0.5, latency_ratio=0.9)
        for row in comparison.rows[1:]
    )
    smallest, fastest, _ = findings(dataclasses.replace(comparison, rows=(comparison.rows[0], *worse)))
    assert (smallest[1], fastest[1]) == ("none", "float")
    unknown = tuple(dataclasses.replace(row, drop_low=None, drop_high=None) for row in comparison.rows)
    smallest = findings(dataclasses.replace(comparison, rows=unknown))[0]
    assert smallest[1:] == ("cannot tell", "372 samples are too few for any file")
