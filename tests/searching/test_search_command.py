"""The command writes the best file, its folder and a page whose links lead to files that are there."""

import html
import json
import re

import numpy as np
import pytest

import lowbit
from command_line import run
from lowbit.graph.save import save
from search_cases import inputs, network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("command")
    save(network(), place / "net.onnx")
    np.savez(place / "test.npz", x=inputs(40, seed=2))
    np.savez(place / "calibration.npz", x=inputs(24, seed=3))
    return place


@pytest.fixture
def words(folder):
    data = ("--data", folder / "test.npz", "--calibration", folder / "calibration.npz")
    return (
        "search",
        folder / "net.onnx",
        *data,
        "--max-drop",
        "5",
        "--effort",
        "fast",
        "--recipes",
        "float,linear8,linear2",
    )


def test_file_page_and_json(folder, words, capsys):
    out, page = folder / "found" / "best.onnx", folder / "page.html"
    assert run(*words, "--out", out, "--report", page, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert out.stat().st_size == said["best"]["bytes"]
    assert said["met"]
    text = page.read_text()
    assert said["certificate"]["limit"] == 0.05
    assert said["certificate"]["low"] <= said["certificate"]["drop"] <= said["certificate"]["high"]
    assert said["certificate"]["sentence"] in html.unescape(text)
    links = [link for link in re.findall(r'href="([^"]+)"', text) if not link.startswith("#")]
    assert len(links) == 2 * len(said["candidates"])
    assert all((folder / link).exists() for link in links)
    assert {f"#c-{each['name']}" for each in said["candidates"]} <= set(re.findall(r'href="(#[^"]+)"', text))
    assert text.count("<script") == 1
    assert "script-src &#x27;sha256-" in text
    (command,) = {each for each in re.findall(r"<code>(lowbit quantize [^<]+)</code>", text) if said_plan(said) in each}
    made = folder / "again.onnx"
    assert run(*command.removeprefix("lowbit ").replace("FILE", str(made)).split()) == 0
    assert made.read_bytes() == out.read_bytes()


def said_plan(said):
    file = next(each["file"] for each in said["candidates"] if each["name"] == said["best"]["name"])
    return file.replace(".onnx", ".plan.json")


def test_the_table(folder, words, capsys):
    assert run(*words, "--out", folder / "table.onnx") == 0
    shown = capsys.readouterr().out
    assert "The best found is" in shown
    assert "percent of predictions" in shown
    assert lowbit.load(folder / "table.onnx").classes == 5


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--max-size", "big"), "--max-size 'big' is not a size"),
        (("--max-latency", "3 weeks"), "--max-latency '3 weeks' is no time"),
        (("--time", "soon"), "--time 'soon' is no time"),
        (("--minimize", "memory"), "'memory' cannot be minimized"),
        (("--out", "best.tflite"), "let it end in .onnx"),
        (("--report", "page.txt"), "end in .html"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(more, word, words, capsys):
    assert run(*words, *more) == 2
    assert word.lower() in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    ("limits", "words_said"),
    [(("--max-size", "10B"), "The nearest to what was asked for is"), ((), "samples cannot tell whether")],
    ids=["a limit that nothing keeps", "a drop that so few samples cannot certify"],
)
def test_strict_writes_no_file_and_loses_no_candidate(limits, words_said, folder, words, capsys):
    out = folder / f"strict{len(limits)}.onnx"
    assert run(*words, *limits, "--out", out, "--strict") == 3
    said = capsys.readouterr().err
    assert words_said in said
    assert not out.exists()
    assert f"{out.stem}.search" in said
    assert run(*words, *limits, "--out", out, "--resume") == 0
    assert out.exists()
