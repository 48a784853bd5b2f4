"""Each engine gets the file that is made for it, and what cannot be written or run is named."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper

import lowbit
import networks
from lowbit.engines import installed_engines, session
from lowbit.errors import DataError, DowngradeError, EngineError, ModelError, SchemeError
from lowbit.formats.file_form import FileForm
from lowbit.formats.input_bytes import byte_layout
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing
from lowbit.measurement import compare as comparing
from lowbit.measurement import entries
from lowbit.measurement.conditions import CompareOptions, Conditions
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.reports.footnotes import complaints, footnotes
from lowbit.reports.page import page

# By recipe, the files of all engines, and who runs each.
FLOAT = [("net-float.onnx", "onnxruntime"), ("net-float.onnx", "openvino"), ("net-float.tflite", "litert")]
INT8 = [("net-int8.onnx", "onnxruntime"), ("net-int8-openvino.onnx", "openvino"), ("net-int8.tflite", "litert")]
LINEAR8 = [("net-linear8.onnx", "onnxruntime"), ("net-linear8.onnx", "openvino"), ("net-linear8.tflite", "litert")]
LINEAR4 = [("net-linear4.onnx", "onnxruntime"), ("net-linear4.onnx", "openvino")]


pytestmark = pytest.mark.usefixtures("quick_measuring")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return saved(networks.residual_network(), tmp_path_factory.mktemp("model"))


@pytest.fixture
def unusual(tmp_path):
    """The same network with an operator that LiteRT files do not have."""
    proto = networks.residual_network()
    last = proto.graph.node[-1]
    proto.graph.node.insert(len(proto.graph.node) - 1, helper.make_node("Atan", ["mean"], ["odd"], name="odd"))
    last.input[0] = "odd"
    return saved(proto, tmp_path)


def saved(proto, folder):
    how = Preprocessing(networks.SIDE, networks.SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    proto.metadata_props.add(key=METADATA_KEY, value=how.to_json())
    onnx.save(proto, folder / "net.onnx")
    return folder / "net.onnx"


def images(count, seed):
    shape = (count, networks.SIDE, networks.SIDE, 3)
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def compared(source, folder, *recipes, form=FileForm(), strict=False, **conditions):
    calibration = images(4, 1) if any(parse_recipe(recipe).integer for recipe in recipes) else None
    return lowbit.compare(
        source,
        images(6, 0),
        calibration=calibration,
        recipes=recipes,
        folder=folder,
        options=CompareOptions(effort="fast", form=form, strict=strict),
        conditions=Conditions(runs=2, **conditions),
    )


def needs(*engines):
    for name in engines:
        if name not in installed_engines():
            pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("engine", ["onnxruntime", "litert", "litert,onnxruntime", "auto"])
def test_each_engine_runs_the_file_that_is_made_for_it(source, tmp_path, engine):
    names = installed_engines() if engine == "auto" else tuple(engine.split(","))
    needs(*names)
    found = compared(source, tmp_path, "int8", "linear8", "linear4", engine=engine)
    expected = [
        (file, name)
        for recipe in (FLOAT, INT8, LINEAR8, LINEAR4)
        # Engines in the order in which they were named.
        for file, name in sorted((row for row in recipe if row[1] in names), key=lambda row: names.index(row[1]))
    ]
    assert [(row.file, row.engine) for row in found.rows] == expected
    assert {path.name for path in tmp_path.iterdir()} == {file for file, _ in expected}
    for row in found.rows:
        assert row.file_bytes == (tmp_path / row.file).stat().st_size == sum(row.details.ledger.values())
        assert (row.expected_ratio is not None) == (row.recipe == "int8")
        assert row.macs == found.rows[0].macs > 0
        assert row.weight_mse is not None
        assert (row.arena_bytes is not None) == row.file.endswith(".tflite")
    # The reference, and the other engines' float files beside it.
    assert found.rows[0].recipe == "float"
    assert found.rows[0].flips is None
    assert all(row.flips == 0 for row in found.rows[1:] if row.recipe == "float")
    assert len(found.verdicts) == len(names)
    assert (found.model.parameters, found.model.input_shape) == (lowbit.load(source).trained_parameters, (1, 3, 16, 16))
    left = [note for note in found.notes if "net-linear4.tflite was not written: node 'stem': operator Conv" in note]
    assert len(left) == len(found.notes) == ("litert" in names)
    said = " ".join(footnotes(found))
    if len(names) > 1:
        assert {row.fastest_engine for row in found.rows if row.recipe == "int8"} <= set(names)
        fastest = min(found.rows, key=lambda row: row.latency_ms)
        assert f"Fastest of all: {fastest.file} with {fastest.engine}" in said
    else:
        assert "Fastest" not in said
        assert {row.fastest_engine for row in found.rows} == {""}


def test_what_the_files_of_a_recipe_share_is_told_once(source, tmp_path):
    needs("openvino", "litert")
    found = compared(source, tmp_path, parse_recipe("int8", target="x86"), engine="auto")
    rows = [row for row in found.rows if row.recipe == "int8"]
    assert [bool(row.details.steps) for row in rows] == [True, False, False]
    assert all(any("target x86" in note for note in row.details.notes) for row in rows)
    assert (
        sum("target x86" in line for line in complaints(found))
        == sum(line.startswith("int8: ") and "target x86" in line for line in complaints(found))
        == len([note for note in rows[0].details.notes if "target x86" in note])
    )
    text = page(found)
    assert all(f">{row.label}<" in text for row in found.rows)


def test_an_operator_that_litert_does_not_have_leaves_the_other_engines(unusual, tmp_path):
    needs("litert")
    found = compared(unusual, tmp_path, "int8", "linear8", engine="onnxruntime,litert")
    assert [row.engine for row in found.rows] == ["onnxruntime"] * 3
    (note,) = found.notes
    assert note.startswith("net-float.tflite was not written: node 'odd': operator Atan")
    assert len(found.verdicts) == 1
    assert "litert" not in found.verdicts[0]
    assert not list(tmp_path.glob("*.tflite"))
    with pytest.raises(ModelError, match="operator Atan"):
        compared(unusual, tmp_path / "alone", "int8", engine="litert")
    with pytest.raises(DowngradeError, match=r"net-float\.tflite was not written"):
        compared(unusual, tmp_path / "strict", "linear8", engine="onnxruntime,litert", strict=True)


def test_recipes_that_litert_cannot_store_are_not_searched_for(source, tmp_path, monkeypatch):
    needs("litert")
    made = []

    def quantize(model, recipe, **how):
        made.append(recipe.recipe.name)
        return lowbit.quantize(model, recipe, **how)

    monkeypatch.setattr(comparing, "quantize", quantize)
    found = compared(source, tmp_path, "cluster4", "linear8", "linear3", "int4", "int7", engine="litert")
    assert made == ["float", "linear8", "int4", "int7"]
    assert [row.file for row in found.rows] == [f"net-{name}.tflite" for name in made]
    assert "cluster4" in found.notes[0]
    assert found.notes[1].startswith("net-linear3.tflite was not written")
    assert "zero points" in found.notes[1]
    with pytest.raises(ModelError, match="would decode at every inference"):
        compared(source, tmp_path / "nothing", "linear3", "cluster4", engine="litert")
    assert compared(source, tmp_path / "float", "float", engine="litert").rows[0].file == "net-float.tflite"


def test_files_take_bytes_and_only_litert_insists_on_their_layout(source, tmp_path):
    needs("litert")
    found = compared(source, tmp_path / "a", "int8", engine="onnxruntime,litert", form=FileForm(input="uint8"))
    assert [byte_layout(tmp_path / "a" / row.file) for row in found.rows] == ["NHWC"] * 4
    assert max(row.kl for row in found.rows[1:]) < 1e-3
    how = {"form": FileForm(input="uint8", layout="NCHW")}
    found = compared(source, tmp_path / "b", "int8", engine="onnxruntime,litert", **how)
    assert [byte_layout(tmp_path / "b" / row.file) for row in found.rows] == ["NCHW"] * 2
    assert "channels-last" in found.notes[0]
    with pytest.raises(ModelError, match="channels-last"):
        compared(source, tmp_path / "c", "int8", engine="litert", **how)


def test_emulation_and_control_with_several_engines(source, tmp_path):
    needs("litert", "openvino")
    recipe = parse_recipe("int8", target="x86-vnni")
    found = compared(source, tmp_path / "a", recipe, engine="auto", emulate="x86", control=True)
    emulated = [row for row in found.rows if row.emulated]
    assert [row.file for row in emulated] == ["net-int8.onnx"]
    assert found.rows[found.rows.index(emulated[0]) - 1].label == "int8, onnxruntime"
    assert any(line.startswith("int8, emulated x86: ") for line in complaints(found))
    assert "onnxruntime" in found.environment.engine
    found = compared(source, tmp_path / "b", recipe, engine="openvino", emulate="x86", control=True)
    assert [(row.file, row.emulated) for row in found.rows[1:]] == [
        ("net-int8-openvino.onnx", kind) for kind in ("", "x86")
    ]
    assert "onnxruntime" not in found.environment.engine
    found = compared(source, tmp_path / "c", "linear8", engine="litert", control=True)
    first, second = found.rows
    assert 0 < first.zstd_bytes < first.file_bytes
    assert second.zstd_bytes is second.archive_bytes is None


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ({"engine": "litert", "emulate": "x86"}, DataError, "nothing to emulate"),
        ({"engine": "auto", "emulate": "arm"}, SchemeError, "'arm' cannot be emulated"),
        ({"engine": "onnxruntime,tvm"}, EngineError, "no engine is called 'tvm'"),
        ({"engine": "missing"}, EngineError, "is not installed"),
        ({"form": FileForm(to="openvino")}, SchemeError, "a file for each engine"),
        ({"form": FileForm(output_type="int8")}, SchemeError, "the output of an ONNX file"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_quantized(
    source, tmp_path, monkeypatch, how, kind, message
):
    needs("litert")
    missing = session.Engine("Missing", "lowbit.engines.missing", "no_such_package")
    monkeypatch.setitem(session.ENGINES, "missing", missing)
    with pytest.raises(kind, match=message):
        compared(source, tmp_path / "out", "int8", **how)
    assert not (tmp_path / "out").exists()


def test_auto_passes_over_files_that_their_engine_does_not_run(source, tmp_path, monkeypatch):
    needs("litert")
    refused = set()

    def open_session(path, *, engine, threads, **how):
        if path.name in refused:
            raise EngineError("the runtime refuses the model.")
        return session.open_session(path, engine=engine, threads=threads, **how)

    monkeypatch.setattr(session, "installed_engines", lambda: ("onnxruntime", "litert"))
    monkeypatch.setattr(entries, "open_session", open_session)
    refused.add("net-int8.tflite")
    found = compared(source, tmp_path / "a", "int8", "linear8", engine="auto")
    engines = ["onnxruntime", "litert", "onnxruntime", "onnxruntime", "litert"]
    assert [row.engine for row in found.rows] == engines
    assert found.notes == ("net-int8.tflite was not measured with litert: the runtime refuses the model.",)
    assert [row.file_bytes for row in found.rows] == [(tmp_path / "a" / row.file).stat().st_size for row in found.rows]
    refused.add("net-float.onnx")
    found = compared(source, tmp_path / "b", "int8", engine="auto")
    assert [row.file for row in found.rows] == ["net-float.tflite", "net-int8.onnx"]
    assert found.rows[1].file_ratio == found.rows[0].file_bytes / found.rows[1].file_bytes
    refused.add("net-float.tflite")
    with pytest.raises(EngineError, match="no installed engine runs the first file"):
        compared(source, tmp_path / "c", "int8", engine="auto")


def test_the_fastest_is_chosen_among_the_files_of_a_recipe(source, tmp_path):
    needs("litert")
    found = compared(source, tmp_path, "int8", engine="onnxruntime,litert")
    for recipe in ("float", "int8"):
        rows = [row for row in found.rows if row.recipe == recipe]
        assert {row.fastest_engine for row in rows} == {min(rows, key=lambda row: row.latency_ms).engine}
    float_rows = {row.engine: row for row in found.rows if row.recipe == "float"}
    for row in found.rows[2:]:
        # Twice as fast as float on the same engine, said in times of the first row as all that is measured.
        assert row.expected_ratio / float_rows[row.engine].latency_ratio == pytest.approx(2, rel=0.02)
    slow = [
        dataclasses.replace(row, latency_ratio=0.5 * float_rows[row.engine].latency_ratio) for row in found.rows[2:]
    ]
    notes = footnotes(dataclasses.replace(found, rows=(*found.rows[:2], *slow)))
    assert notes[:2] == tuple(f"{row.name} is slower than float with {row.engine} here (0.50×)." for row in slow)
