"""The Python interface as a user guesses it: names, representations, what functions take, types, progress."""

import ast
import dataclasses
import inspect
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import onnx
import pytest

import lowbit
import networks
from comparison_sample import on_three_engines, sample_comparison, without_labels
from graphs import make, make_node
from lowbit.diagnosis.findings import Diagnosis, Finding, LayerFigures
from lowbit.engines import installed_engines
from lowbit.measurement.results import Comparison, Environment, ModelSummary
from lowbit.progress import IF_LONG, SILENT
from lowbit.reports import progress as shown
from lowbit.reports.markup import escape

pytestmark = pytest.mark.usefixtures("quick_measuring")

HOSTILE = "<script>alert(1)</script>\x1b[2J&\"'" + "長い名前" * 60
SHORT = 300  # characters of a representation


@pytest.fixture(scope="module")
def model():
    loaded = lowbit.load(networks.residual_network())
    how = lowbit.Preprocessing(networks.SIDE, networks.SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return dataclasses.replace(loaded, preprocessing=how)


@pytest.fixture(scope="module")
def quantized(model):
    return lowbit.quantize(model, "int8", calibration=networks.inputs(8), effort="fast")


@pytest.fixture(scope="module")
def deep():
    """A model of many layers whose names are long, strange and hostile."""
    nodes, weights, last = [], {}, "x"
    for i in range(300):
        name = f"{HOSTILE}{i}"
        weights[f"w{name}"] = np.eye(2, dtype=np.float32)
        node = make_node("MatMul", "a b", "c", name=name)
        node.input[:], node.output[:] = [last, f"w{name}"], [f"y{name}"]
        nodes.append(node)
        last = f"y{name}"
    end = make_node("Identity", "a", "y")
    end.input[:] = [last]
    loaded = lowbit.load(make([*nodes, end], {"x": [1, 2]}, {"y": [1, 2]}, weights))
    return dataclasses.replace(loaded, source=HOSTILE)


@pytest.fixture(scope="module")
def long_plan(deep):
    """A plan for thousands of tensors."""
    plan = lowbit.plan(deep, "linear8", steps=())
    return dataclasses.replace(plan, tensors=plan.tensors * 17)


# --- names


def test_dir_lists_the_interface_alone():
    assert dir(lowbit) == sorted(["__version__", *lowbit.PUBLIC], key=dir(lowbit).index)
    assert set(dir(lowbit)) == {"__version__", *lowbit.PUBLIC}
    for name in lowbit.__all__:
        assert getattr(lowbit, name) is not None
    assert not any(isinstance(getattr(lowbit, name), types.ModuleType) for name in dir(lowbit))
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = lowbit.nothing


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(lowbit.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names if alias.asname == alias.name}
    assert seen == lowbit.PUBLIC


def test_every_error_is_public():
    from lowbit import errors

    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert kinds <= set(lowbit.__all__)


def test_the_same_thing_has_the_same_name_everywhere():
    """What a parameter is called says what it takes, and whether it may be given without its name."""
    kinds: dict[str, set[str]] = {}
    for name in lowbit.__all__:
        function = getattr(lowbit, name)
        if not inspect.isfunction(function):
            continue
        for place, (word, parameter) in enumerate(inspect.signature(function).parameters.items()):
            kinds.setdefault(word, set()).add(str(parameter.annotation))
            if word in ("model", "data", "recipe"):
                assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD or word == "model" or place > 2, name
            if word in ("calibration", "rules", "effort", "progress", "threads", "seed", "engine", "batch"):
                assert parameter.kind is parameter.KEYWORD_ONLY, f"{name}({word})"
            if word == "progress":
                assert parameter.default is IF_LONG, name
    for word in ("data", "calibration", "rules", "engine", "threads", "progress", "seed", "conditions"):
        assert len({kind.replace(" | None", "") for kind in kinds[word]}) == 1, (word, kinds[word])


# --- representations


def test_representations_are_short(model, quantized, deep, long_plan):
    data = lowbit.open_data(networks.inputs(8), model)
    big = on_three_engines(sample_comparison())
    layers = tuple(LayerFigures(f"{HOSTILE}{i}", "Conv", False, 0.1) for i in range(5000))
    all_details = [row.details for row in sample_comparison().rows]
    diagnosis = Diagnosis(HOSTILE, HOSTILE, (Finding("x", "y", "z"),) * 99, layers)
    values = [
        model, deep, quantized, quantized.graph, quantized.plan, long_plan, data, lowbit.calibrate(model, data), big,
        big.rows[0], big.rows[0].details, big.environment, all_details[-1].histograms[0], all_details[-1].examples[0],
        lowbit.cost(model), lowbit.pack(model), lowbit.forecast(model),
        lowbit.open_session(model), diagnosis, dataclasses.replace(big.rows[0], recipe=HOSTILE, label=""),
        model.light(), SILENT,
    ]  # fmt: skip
    for value in values:
        text = repr(value)
        assert len(text) <= SHORT, text
        assert text.isprintable()
        assert type(value).__name__ in text or value is SILENT
    assert repr(Comparison((), sample_comparison().environment, sample_comparison().model)).startswith(
        "<Comparison of 0"
    )


def test_one_is_no_plural(model):
    assert "1 row on 372 samples" in repr(dataclasses.replace(sample_comparison(), rows=sample_comparison().rows[:1]))
    assert "1 tensor over 8 images" in repr(lowbit.calibrate(model, networks.inputs(8), tensors=["x"]))


def test_notebooks_show_tables(model, quantized):
    assert "stem" in model._repr_html_()
    assert "absorbed" in quantized.plan._repr_html_()
    assert "bias correction" in quantized._repr_html_()
    page = sample_comparison()._repr_html_()
    assert "<svg" in page
    assert page.count("<tr>") == 1 + len(sample_comparison().rows)


def test_notebooks_show_nothing_that_a_name_wants(deep, long_plan):
    comparison = sample_comparison()
    rows = tuple(
        dataclasses.replace(row, recipe=f"{HOSTILE}{i}", file=HOSTILE) for i, row in enumerate(comparison.rows)
    )
    hostile = dataclasses.replace(comparison, rows=rows, notes=(HOSTILE,))
    for value in (deep, long_plan, hostile):
        page = value._repr_html_()
        assert "<script" not in page
        assert "\x1b" not in page
        assert escape("<script>") in page
        assert len(page) < 100_000  # the first of thousands of tensors, and how many more there are
    assert "260 more" in deep._repr_html_()
    assert "<script" not in hostile.plot().svg


def test_sizes_that_are_unknown_are_said(model):
    ends = {"x": ["n", "m", 4]}, {"y": ["n", "m", 4]}
    open_sized = lowbit.load(make([make_node("MatMul", "x w", "y")], *ends, {"w": np.eye(4)}))
    assert "x n x m x 4" in open_sized._repr_html_()


def test_a_plot_is_saved_and_a_report_too(tmp_path):
    comparison = sample_comparison()
    drawn = comparison.plot()
    assert drawn._repr_svg_() in drawn._repr_html_()
    text = drawn.save(tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "cluster2" in text
    assert "var(" not in text  # which few programs but browsers read
    assert "</html>" in comparison.save_report(tmp_path / "report.html").read_text(encoding="utf-8")
    for save, name in ((drawn.save, "plot.png"), (comparison.save_report, "report.pdf")):
        with pytest.raises(lowbit.OutputError):
            save(tmp_path / name)
    assert without_labels(comparison).plot().title == "agreement with float against file size"


@pytest.mark.parametrize("rows", [0, 1])
def test_where_there_is_nothing_to_draw_it_is_said(rows):
    comparison = dataclasses.replace(sample_comparison(), rows=sample_comparison().rows[:rows])
    with pytest.raises(lowbit.DataError, match="nothing to draw"):
        comparison.plot()
    assert "<svg" not in comparison._repr_html_()


def test_without_pandas_a_sentence_says_so(monkeypatch, quantized):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for value in (sample_comparison(), quantized.plan):
        with pytest.raises(lowbit.EngineError, match="pip install pandas"):
            value.to_pandas()


def test_data_frames(quantized):
    pytest.importorskip("pandas")
    frame = sample_comparison().to_pandas()
    assert list(frame.index) == [row.name for row in sample_comparison().rows]
    assert frame.loc["int8", "accuracy"] == 352 / 372
    assert quantized.plan.to_pandas().loc["fc.weight", "given"] == "linear8/channel"
    empty = Comparison((), Environment("", (), 1, "", "", {}), ModelSummary("", 0, 0, 0, ()))
    assert len(empty.to_pandas()) == 0


# --- what functions take


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    root = tmp_path_factory.mktemp("user")
    onnx.save(networks.residual_network(), root / "net.onnx")
    np.savez(root / "data.npz", x=networks.inputs(8))
    lowbit.pack(root / "net.onnx").save(root / "net.lowbit")
    return root


@pytest.mark.parametrize("engine", installed_engines())
def test_a_session_takes_what_there_is(engine, model, quantized, folder):
    x = networks.inputs(2)
    wanted = lowbit.open_session(folder / "net.onnx").run(x)["logits"]
    for source in (model, quantized):
        session = lowbit.open_session(source, engine=engine)
        assert session.engine == engine
        for given in (x, x.astype(np.float64), x.tolist(), {session.input_names[0]: x}):
            assert np.abs(session.run(given)["logits"] - wanted).max() < 0.2
    for path in (str(folder / "net.onnx"), folder / "net.lowbit", (folder / "net.onnx").read_bytes()):
        assert np.array_equal(lowbit.open_session(path).run(x)["logits"], wanted)


def test_a_session_says_what_it_wants(model, folder):
    session = lowbit.open_session(model)
    for given in ({}, {"y": 1}, {"x": networks.inputs(1), "y": 1}):
        with pytest.raises(lowbit.EngineError, match="The inputs are x"):
            session.run(given)
    nodes, ends = (
        [make_node("MatMul", "a w", "b"), make_node("Add", "b c", "y")],
        ({"a": [1, 2], "c": [1, 2]}, {"y": [1, 2]}),
    )
    two = make(nodes, *ends, {"w": np.eye(2)})
    with pytest.raises(lowbit.EngineError, match=r"2 inputs.*a, c"):
        lowbit.open_session(two.SerializeToString()).run(np.ones((1, 2)))
    with pytest.raises(lowbit.ModelError, match="no such file"):
        lowbit.open_session(folder / "none.onnx")


def test_samples_are_given_as_they_are(model, folder):
    x = networks.inputs(8)
    sources = (x, list(x), {"x": x}, folder / "data.npz", str(folder / "data.npz"))
    found = [lowbit.calibrate(model, data) for data in sources]
    assert {each.tensors["x"].high for each in found} == {x.max()}
    assert set(found[0].tensors) == set(model.activations)
    assert lowbit.calibrate(folder / "net.onnx", x).images == 8


def test_measure_takes_files_and_values_one_or_many(model, quantized, folder):
    x, how = networks.inputs(8), lowbit.Conditions(runs=0, with_memory=False)
    one = lowbit.measure(folder / "net.onnx", x, conditions=how)
    assert [row.file_recipe for row in one.rows] == ["float"]
    assert one.named_by == "file"
    many = lowbit.measure([model, quantized, quantized, folder / "net.lowbit"], folder / "data.npz", conditions=how)
    assert [row.file_recipe for row in many.rows] == ["float", "int8", "int8", "unknown"]
    assert many.rows[1].kl == many.rows[2].kl > 0
    with pytest.raises(lowbit.DataError, match="float model first"):
        lowbit.measure(quantized, x)
    with pytest.raises(lowbit.DataError, match="no files"):
        lowbit.measure([], x)


def test_compare_keeps_no_files_unless_it_is_told_where(model):
    how = lowbit.Conditions(runs=0, with_memory=False)
    found = lowbit.compare(model, networks.inputs(8), recipes=["linear8"], conditions=how)
    assert [row.name for row in found.rows] == ["float", "linear8"]
    assert found.named_by == "recipe"


# --- progress


@lowbit.progress.shows_progress
def _work(items: int, *, progress: lowbit.Progress = IF_LONG) -> lowbit.Progress:
    for _ in progress.track(range(items), "working"):
        time.sleep(0.01)
    return progress


def test_nobody_looking_on_sees_nothing(capfd):
    assert _work(3) is SILENT
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_a_bar_of_what_takes_long(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(shown, "PATIENCE_SECONDS", 0.0)
    started = threading.Event()
    monkeypatch.setattr(shown.RichProgress, "start", lambda self: started.set())
    assert isinstance(_work(3), shown.Bar)
    assert started.wait(5)
    started.clear()
    monkeypatch.setattr(shown, "PATIENCE_SECONDS", 60.0)
    assert isinstance(_work(1), shown.Bar)
    assert not started.is_set()
    assert _work(1, progress=SILENT) is SILENT
    monkeypatch.setenv("LOWBIT_QUIET", "1")
    assert _work(1) is SILENT


def test_a_function_within_another_shows_no_second_bar(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown.automatic() as first:
        assert isinstance(first, shown.Bar)
        assert _work(1) is SILENT
    assert isinstance(_work(1), shown.Bar)


def test_a_notebook_sees_a_bar_that_goes_away(monkeypatch):
    pictures: list[str] = []

    class Place:
        def update(self, content, raw):
            pictures.append(content["text/html"])

    def display(content, raw, display_id):
        pictures.append(content["text/html"])
        return Place()

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    assert isinstance(_work(3), shown.NotebookBars)
    assert pictures == []  # it took no time
    monkeypatch.setattr(shown, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(shown, "DRAWN_SECONDS", 0.0)
    _work(3)
    assert '<progress value="2" max="3">' in "".join(pictures)
    assert pictures[-1] == ""
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace()))
    assert not shown.in_notebook()
