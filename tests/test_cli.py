"""The command line as its users meet it: answers, exit codes, one clear sentence for everything that can go wrong."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import networks
from comparison_sample import comparison_text
from graphs import change_weights, make, make_node
from lowbit import cli
from lowbit.engines import installed_engines, session
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import EngineError
from lowbit.formats.input_bytes import byte_layout
from lowbit.measurement import entries, forecast
from lowbit.measurement import peaks as processor
from lowbit.measurement.results_file import read_results
from lowbit.quantization.planning.target import resolved

SIZE = ["--mean", "0.5", "--std", "0.25"]

pytestmark = pytest.mark.usefixtures("quick_measuring")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, evaluation and calibration images as a user would have them."""
    root = tmp_path_factory.mktemp("user")
    onnx.save(networks.residual_network(), root / "net.onnx")
    generator = np.random.default_rng(0)
    for part, count in (("test", 4), ("calibration", 3)):
        for label in range(networks.CLASSES):
            (root / part / f"class{label}").mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, size=(networks.SIDE, networks.SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / f"class{label}" / f"{index}.png")
    return root


def run(*arguments, capsys):
    """Exit code, standard output and standard error of `lowbit ARGUMENTS`, in this process."""
    before = sys.argv
    sys.argv = ["lowbit", *map(str, arguments)]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_inspect_counts_parameters_and_macs(folder, capsys):
    code, out, _ = run("inspect", folder / "net.onnx", "--json", capsys=capsys)
    data = json.loads(out)
    assert code == 0
    assert (
        data["parameters"] == data["trained_parameters"] == sum(data["counts"].values()) - data["counts"]["constants"]
    )
    assert data["flops"] == 2 * data["macs"]
    # stem: 12 outputs, 27 columns, 8x8 places
    assert data["layers"][0]["macs"] == 12 * 27 * 64
    assert sum(data["bytes"].values()) == data["file_bytes"] == (folder / "net.onnx").stat().st_size
    code, out, _ = run("inspect", folder / "net.onnx", capsys=capsys)
    assert code == 0
    assert "1 MAC = 2 FLOPs" in out


def test_plan_shows_what_was_asked_and_given(folder, capsys):
    code, out, _ = run("plan", folder / "net.onnx", "-r", "int8", capsys=capsys)
    assert code == 0
    assert "absorbed" in out
    code, _, err = run("plan", folder / "net.onnx", "-r", "cluster8", "--strict", capsys=capsys)
    assert code == 3
    assert "too small" in err


@pytest.mark.parametrize("recipe", ["int8", "linear4", "cluster3", "float"])
def test_quantize_writes_a_file_that_measure_reads(folder, tmp_path, recipe, capsys):
    output = tmp_path / "out.onnx"
    calibration = ["--calibration", folder / "calibration", "--effort", "fast"] if recipe == "int8" else []
    code, out, _ = run(
        "quantize", folder / "net.onnx", "-r", recipe, "-o", output, *calibration, *SIZE, "--json", capsys=capsys
    )
    assert code == 0
    written = json.loads(out)
    assert written["file_bytes"] == output.stat().st_size == sum(written["bytes"].values())
    code, out, _ = run(
        "measure", folder / "net.onnx", output, "--data", folder / "test", *SIZE, "--runs", "2", "--json", capsys=capsys
    )
    assert code == 0
    rows = json.loads(out)["rows"]
    assert [row["file"] for row in rows] == ["net.onnx", "out.onnx"]
    assert rows[1]["kl"] >= 0
    assert rows[0]["archive_bytes"] > 0
    assert rows[0]["zstd_bytes"] is rows[0]["xz_bytes"] is None
    assert rows[1]["latency_ms"] > 0


def test_a_control_that_cannot_be_made_is_named(folder, tmp_path, monkeypatch, capsys):
    quantized = tmp_path / "small.onnx"
    assert run("quantize", folder / "net.onnx", "-r", "linear4", "-o", quantized, *SIZE, capsys=capsys)[0] == 0
    how = ("--data", folder / "test", *SIZE, "--runs", "0", "--control", "--json")
    code, out, _ = run("measure", quantized, folder / "net.onnx", *how, capsys=capsys)
    assert code == 0
    assert "the first file is not a float file" in json.loads(out)["notes"][0]
    monkeypatch.setattr("lowbit.measurement.sizes.LARGEST", 0)
    code, out, _ = run("measure", folder / "net.onnx", quantized, *how, capsys=capsys)
    said = json.loads(out)
    assert not said["notes"]
    assert said["rows"][0]["zstd_bytes"] > 0
    assert said["rows"][0]["archive_bytes"] is None


def test_compare_writes_everything_and_prints_the_table(folder, tmp_path, capsys):
    out_folder = tmp_path / "out"
    code, out, _ = run(
        "compare", folder / "net.onnx", "--data", folder / "test", "--calibration", folder / "calibration", *SIZE,
        "--runs", "2", "--effort", "fast", "--control", "--out", out_folder, capsys=capsys,
    )  # fmt: skip
    assert code == 0
    assert "cluster2" in out
    assert "zstd -19" in out
    names = {path.name for path in out_folder.iterdir()}
    recipes = ("float", "int8", "linear16", "linear8", "cluster8", "cluster4", "cluster2")
    assert names == {"results.json", "results.csv", "report.html"} | {f"net-{recipe}.onnx" for recipe in recipes}
    results = json.loads((out_folder / "results.json").read_text())
    assert [row["recipe"] for row in results["rows"]] == list(recipes)
    for row in results["rows"]:
        assert row["file_bytes"] == (out_folder / row["file"]).stat().st_size == sum(row["details"]["ledger"].values())
        assert {
            "file_ratio", "weight_bytes", "weight_ratio", "theoretical_ratio", "parameters", "macs", "weight_mse",
            "weight_sqnr_db", "accuracy", "accuracy_low", "accuracy_high", "loss", "flips", "latency_ms",
            "latency_ratio", "load_memory_bytes", "peak_memory_bytes",
        } <= set(row)  # fmt: skip
    assert 0 < results["rows"][0]["xz_bytes"] < results["rows"][0]["file_bytes"]
    assert "and merely compressed" in (out_folder / "report.html").read_text()
    environment = results["environment"]
    assert environment["data_sha256"] != environment["calibration_sha256"]
    assert environment["model_sha256"]
    assert environment["packages"]["onnxruntime"]


def test_without_labels_agreement_takes_the_place_of_accuracy(folder, tmp_path, capsys):
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted((folder / "test").rglob("*.png"))):
        (flat / f"{index}.png").write_bytes(path.read_bytes())
    code, out, _ = run(
        "compare", folder / "net.onnx", "--data", flat, *SIZE, "--recipes", "linear8", "--runs", "2", "--json",
        "--out", tmp_path / "out", capsys=capsys,
    )  # fmt: skip
    rows = json.loads(out)["rows"]
    assert code == 0
    assert rows[1]["accuracy"] is None
    assert 0 <= rows[1]["agreement"] <= 1


def broken_models(folder, tmp_path):
    data = (folder / "net.onnx").read_bytes()
    (tmp_path / "truncated.onnx").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.onnx").write_text("this is no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        proto = change_weights(onnx.load_from_string(data), (0, 3), {"wide.weight": value})
        onnx.save(proto, tmp_path / f"{name}.onnx")
    proto = onnx.load_from_string(data)
    proto.opset_import[0].version = 999
    onnx.save(proto, tmp_path / "opset.onnx")
    shape = [1, 3, 16, 16]
    onnx.save(make([make_node("Relu", "x", "y")], {"x": shape}, {"y": shape}, {}), tmp_path / "weightless.onnx")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", "truncated.onnx"), ("text", "text.onnx"), ("empty", "empty"), ("nan", "wide.weight"),
        ("inf", "wide.weight"), ("opset", "999"), ("weightless", "weight"), ("missing", "missing.onnx"),
    ],
)  # fmt: skip
def test_bad_models_get_one_sentence_and_exit_code_2_and_nothing_is_written(folder, tmp_path, name, message, capsys):
    broken_models(folder, tmp_path)
    output = tmp_path / "out.onnx"
    code, out, err = run("quantize", tmp_path / f"{name}.onnx", "-r", "linear8", "-o", output, capsys=capsys)
    assert code == 2
    assert err.startswith("Error: ")
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not output.exists()


@pytest.mark.parametrize("name", ["truncated.onnx", "truncated.lowbit"])
@pytest.mark.parametrize(
    "line", ["inspect FILE", "measure GOOD FILE --data DATA --mean 0.5 --std 0.5", "measure FILE --data DATA"]
)
def test_a_truncated_file_is_named_wherever_it_stands(line, name, folder, tmp_path, capsys):
    whole = tmp_path / "whole.lowbit"
    assert run("pack", folder / "net.onnx", "-o", whole, capsys=capsys)[0] == 0
    for source in (folder / "net.onnx", whole):
        (tmp_path / f"truncated{source.suffix}").write_bytes(source.read_bytes()[:-200])
    places = {"FILE": tmp_path / name, "GOOD": folder / "net.onnx", "DATA": folder / "test"}
    code, _, err = run(*(places.get(word, word) for word in line.split()), capsys=capsys)
    assert code == 2
    assert err.startswith(f"Error: {tmp_path / name}: ")
    assert "truncated" in err
    assert any(word in err for word in ("again.", "Check"))


def image_folders(folder, tmp_path):
    """Evaluation folders that are wrong in one way each."""
    source = sorted((folder / "test").rglob("*.png"))[0].read_bytes()
    (tmp_path / "nothing").mkdir()
    for name in ("unreadable", "hollow", "strangers"):
        for label in range(networks.CLASSES + 2 * (name == "strangers")):
            (tmp_path / name / f"class{label}").mkdir(parents=True)
            (tmp_path / name / f"class{label}" / "a.png").write_bytes(source)
    (tmp_path / "unreadable" / "class1" / "a.png").write_bytes(source[:60])
    (tmp_path / "hollow" / "class1" / "a.png").unlink()
    np.savez(tmp_path / "size.npz", images=np.zeros((4, 20, 20, 3), np.uint8), labels=np.arange(4))
    np.savez(tmp_path / "channels.npz", images=np.zeros((4, 16, 16, 1), np.uint8), labels=np.arange(4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nothing", "nothing"), ("unreadable", "a.png"), ("hollow", "class1"), ("strangers", "7"),
        ("absent", "absent"), ("size.npz", "20"), ("channels.npz", "channel"),
    ],
)  # fmt: skip
def test_bad_images_get_one_sentence_and_exit_code_2_and_nothing_is_written(folder, tmp_path, data, message, capsys):
    image_folders(folder, tmp_path)
    out_folder = tmp_path / "out"
    code, _, err = run(
        "compare", folder / "net.onnx", "--data", tmp_path / data, *SIZE, "--recipes", "linear8", "--runs", "2",
        "--out", out_folder, capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert message in err
    assert not out_folder.exists() or not any(out_folder.iterdir())


def test_calibration_images_that_are_evaluated_on_are_refused_unless_insisted(folder, tmp_path, capsys):
    arguments = (
        "compare", folder / "net.onnx", "--data", folder / "test", "--calibration", folder / "test", *SIZE,
        "--recipes", "int8", "--runs", "2", "--effort", "fast", "--out", tmp_path / "out",
    )  # fmt: skip
    code, _, err = run(*arguments, capsys=capsys)
    assert code == 2
    assert "--same-data" in err
    assert run(*arguments, "--same-data", capsys=capsys)[0] == 0


def test_an_output_that_cannot_be_written_is_named(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run(
        "quantize", folder / "net.onnx", "-r", "linear8", "-o", tmp_path / "file" / "out.onnx", capsys=capsys
    )
    assert code == 2
    assert "cannot write" in err
    code, _, err = run(
        "compare", folder / "net.onnx", "--data", folder / "test", *SIZE, "--recipes", "linear8", "--out",
        tmp_path / "file", capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_failed_run_leaves_existing_results_alone(folder, tmp_path, capsys):
    out_folder = tmp_path / "out"
    out_folder.mkdir()
    (out_folder / "results.json").write_text("precious")
    code, _, _ = run(
        "compare", folder / "net.onnx", "--data", folder / "test", *SIZE, "--recipes", "int8", "--out", out_folder,
        capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert [path.name for path in out_folder.iterdir()] == ["results.json"]
    assert (out_folder / "results.json").read_text() == "precious"


def test_images_without_stated_preprocessing_are_refused(folder, tmp_path, capsys):
    code, _, err = run("measure", folder / "net.onnx", "--data", folder / "test", "--runs", "2", capsys=capsys)
    assert code == 2
    assert "--mean" in err


def test_written_files_state_their_preprocessing(folder, tmp_path, capsys):
    output = tmp_path / "out.onnx"
    run("quantize", folder / "net.onnx", "-r", "linear8", "-o", output, *SIZE, capsys=capsys)
    code, _, _ = run("measure", output, "--data", folder / "test", "--runs", "2", "--json", capsys=capsys)
    assert code == 0


def test_errors_are_json_too(folder, tmp_path, capsys):
    code, out, _ = run("inspect", tmp_path / "none.onnx", "--json", capsys=capsys)
    assert code == 2
    assert json.loads(out)["error"] == "ModelError"


@pytest.mark.parametrize("arguments", [["quantize"], ["compare", "--nonsense"], ["nothing"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert run(*arguments, capsys=capsys)[0] == 2


def test_ctrl_c_exits_with_130_and_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    import lowbit.quantization.quantize as module

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "follow", interrupted)
    output = tmp_path / "out.onnx"
    code, _, err = run("quantize", folder / "net.onnx", "-r", "linear8", "-o", output, capsys=capsys)
    assert code == 130
    assert "Interrupted" in err
    assert list(Path(tmp_path).iterdir()) == []


def test_pack_and_unpack_give_the_file_back_and_every_command_takes_the_archive(folder, tmp_path, capsys):
    plain, packed, back = tmp_path / "a.onnx", tmp_path / "a.lowbit", tmp_path / "b.onnx"
    run("quantize", folder / "net.onnx", "-r", "linear4", "-o", plain, *SIZE, capsys=capsys)
    code, out, _ = run("pack", plain, "-o", packed, "--json", capsys=capsys)
    assert code == 0
    assert sum(json.loads(out)["sections"].values()) == packed.stat().st_size
    assert run("unpack", packed, "-o", back, capsys=capsys)[0] == 0
    assert back.read_bytes() == plain.read_bytes()
    code, out, _ = run("inspect", packed, "--json", capsys=capsys)
    assert code == 0
    assert sum(json.loads(out)["bytes"].values()) == packed.stat().st_size
    arguments = (
        "measure",
        folder / "net.onnx",
        plain,
        packed,
        "--data",
        folder / "test",
        *SIZE,
        "--runs",
        "2",
        "--json",
    )
    code, out, _ = run(*arguments, capsys=capsys)
    rows = json.loads(out)["rows"]
    assert code == 0
    assert rows[2]["file_bytes"] == packed.stat().st_size == sum(rows[2]["details"]["ledger"].values())
    assert rows[2]["kl"] == rows[1]["kl"]
    damaged = bytearray(packed.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    packed.write_bytes(bytes(damaged))
    code, _, err = run("unpack", packed, "-o", tmp_path / "c.onnx", capsys=capsys)
    assert code == 2
    assert err.startswith("Error: ")
    assert not (tmp_path / "c.onnx").exists()


def test_litert_files_are_written_and_measured_beside_onnx(folder, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    plain, lite = tmp_path / "a.onnx", tmp_path / "a.tflite"
    how = ("-r", "int8", "--calibration", folder / "calibration", *SIZE, "--effort", "fast")
    assert run("quantize", folder / "net.onnx", *how, "-o", plain, capsys=capsys)[0] == 0
    assert run("quantize", folder / "net.onnx", *how, "-o", lite, "--to", "litert", capsys=capsys)[0] == 0
    arguments = ("measure", folder / "net.onnx", plain, lite, "--data", folder / "test", *SIZE, "--runs", "2", "--json")
    code, out, _ = run(*arguments, capsys=capsys)
    rows = json.loads(out)["rows"]
    assert code == 0
    assert [row["engine"] for row in rows] == ["onnxruntime", "onnxruntime", "litert"]
    assert rows[2]["file_bytes"] == lite.stat().st_size == sum(rows[2]["details"]["ledger"].values())
    assert rows[2]["weight_mse"] == pytest.approx(rows[1]["weight_mse"])
    code, _, err = run("measure", lite, plain, *arguments[4:], capsys=capsys)
    assert code == 2
    assert "a.tflite: is quantized already: operator" in err
    code, _, err = run(
        "quantize", folder / "net.onnx", *how, "-o", tmp_path / "b.onnx", "--to", "litert", capsys=capsys
    )
    assert code == 2
    assert ".tflite" in err


def test_a_file_for_openvino_differs_and_formats_that_are_none_are_refused(folder, tmp_path, capsys):
    how = ("-r", "int8", "--calibration", folder / "calibration", *SIZE, "--steps", "none")
    for name, to in (("a", "onnx"), ("b", "openvino")):
        path = tmp_path / f"{name}.onnx"
        assert run("quantize", folder / "net.onnx", *how, "-o", path, "--to", to, capsys=capsys)[0] == 0
    assert (tmp_path / "a.onnx").read_bytes() != (tmp_path / "b.onnx").read_bytes()
    code, _, err = run("quantize", folder / "net.onnx", *how, "-o", tmp_path / "c.onnx", "--to", "x", capsys=capsys)
    assert code == 2
    assert "onnx, openvino, litert" in err
    assert not (tmp_path / "c.onnx").exists()


def pixels_and_floats(folder, tmp_path, recipe, suffix, capsys):
    """Files of one recipe that take floats and bytes."""
    files = []
    for kind in ("float32", "uint8"):
        files.append(tmp_path / f"{recipe}-{kind}.{suffix}")
        how = ("-r", recipe, "--calibration", folder / "calibration", *SIZE, "--steps", "none", "--input", kind)
        assert run("quantize", folder / "net.onnx", *how, "-o", files[-1], capsys=capsys)[0] == 0
    return files


@pytest.mark.parametrize(
    ("recipe", "suffix"), [("int8", "onnx"), ("int8", "tflite"), ("linear8", "onnx"), ("float", "tflite")]
)
def test_files_that_take_image_bytes_stand_beside_those_that_take_floats(folder, tmp_path, recipe, suffix, capsys):
    if suffix == "tflite":
        pytest.importorskip("ai_edge_litert")
    files = pixels_and_floats(folder, tmp_path, recipe, suffix, capsys)
    assert (byte_layout(files[0]), byte_layout(files[1])) == (None, "NHWC")
    arguments = ("measure", folder / "net.onnx", *files, "--data", folder / "test", *SIZE, "--runs", "2", "--json")
    code, out, _ = run(*arguments, capsys=capsys)
    assert code == 0
    _, floats, given = json.loads(out)["rows"]
    assert given["weight_sqnr_db"] is None or abs(given["weight_sqnr_db"] - floats["weight_sqnr_db"]) < 1
    # Three times, for rounding another input another way moves a KL of 1e-4 by chance; a wrong border moves it tenfold.
    assert given["kl"] <= max(3 * floats["kl"], 1e-9)
    assert given["file_bytes"] == sum(given["details"]["ledger"].values())


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_litert_files_can_take_and_give_codes(folder, tmp_path, kind, capsys):
    pytest.importorskip("ai_edge_litert")
    how = ("-r", "int8", "--calibration", folder / "calibration", *SIZE, "--steps", "none")
    files = [tmp_path / "floats.tflite", tmp_path / "codes.tflite"]
    for path, types in ((files[0], ()), (files[1], ("--input", kind, "--output-type", kind))):
        assert run("quantize", folder / "net.onnx", *how, *types, "-o", path, capsys=capsys)[0] == 0
    graph = read_litert(files[1].read_bytes(), "test").graphs[0]
    assert {graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)} == {kind}
    arguments = ("measure", folder / "net.onnx", *files, "--data", folder / "test", *SIZE, "--runs", "0", "--json")
    code, out, _ = run(*arguments, capsys=capsys)
    assert code == 0
    _, floats, codes = json.loads(out)["rows"]
    assert codes["kl"] <= 2 * floats["kl"] + 1e-4
    assert codes["flips"] <= floats["flips"] + 1


def test_steps_are_chosen_by_name_and_shown_before_and_after(folder, tmp_path, capsys):
    # Before it is known how images are normalized there are no bytes to find in the input.
    for steps, names in (("none", []), ("exact-input,bias", ["input as image bytes", "bias correction"])):
        how = (folder / "net.onnx", "-r", "int8", "--steps", steps, "--json")
        code, out, _ = run("plan", *how, capsys=capsys)
        assert code == 0
        assert json.loads(out)["steps"] == [name for name in ("bias",) if name in steps]  # no normalization
        more = ("--calibration", folder / "calibration", *SIZE, "-o", tmp_path / "a.onnx")
        code, out, _ = run("quantize", *how, *more, capsys=capsys)
        assert code == 0
        assert [step["name"] for step in json.loads(out)["steps"]] == names
    code, _, err = run("plan", folder / "net.onnx", "-r", "int8", "--steps", "luck", capsys=capsys)
    assert code == 2
    assert "unknown step 'luck'" in err


def test_channels_first_bytes(folder, tmp_path, capsys):
    how = ("-r", "linear8", *SIZE, "--input", "uint8", "--input-layout", "nchw")
    assert run("quantize", folder / "net.onnx", *how, "-o", tmp_path / "a.onnx", capsys=capsys)[0] == 0
    assert byte_layout(tmp_path / "a.onnx") == "NCHW"


@pytest.mark.parametrize(
    ("options", "output", "message"),
    [
        (["--input", "uint16", *SIZE], "a.onnx", "float32 or uint8, not 'uint16'"),
        (["--input", "int8", *SIZE], "a.onnx", "write a .tflite file"),
        (["--input", "uint4", *SIZE], "a.tflite", "float32 or uint8 or int8"),
        (["--output-type", "int8", *SIZE], "a.onnx", "the output of an ONNX file"),
        (["--output-type", "int8", *SIZE], "a.tflite", "computes in float has no codes"),
        (["--input", "int8", *SIZE], "a.tflite", "no codes to take or give"),
        (["--input", "uint8"], "a.onnx", "--mean and --std"),
        (["--input", "uint8", "--input-layout", "HWCN", *SIZE], "a.onnx", "NCHW, NHWC"),
        (["--input", "uint8", "--input-layout", "NCHW", *SIZE], "a.tflite", "channels-last"),
        (["--input-layout", "NCHW", *SIZE], "a.onnx", "--input uint8"),
        (["--target", "vax", *SIZE], "a.onnx", "native (this machine), x86-vnni, x86, arm"),
        (["--target", "x86", *SIZE], "a.onnx", "recipe 'linear8' computes in float"),
    ],
)
def test_forms_that_a_file_cannot_have(folder, tmp_path, options, output, message, capsys):
    code, _, err = run(
        "quantize", folder / "net.onnx", "-r", "linear8", *options, "-o", tmp_path / output, capsys=capsys
    )
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "reason"), [("linear4", "zero points"), ("cluster4", "would decode at every inference")]
)
def test_what_litert_cannot_hold_is_refused_before_images_are_looked_at(folder, tmp_path, recipe, reason, capsys):
    pytest.importorskip("ai_edge_litert")
    output = tmp_path / "a.tflite"
    how = ("-r", recipe, "--calibration", tmp_path / "nothing", "-o", output)
    code, _, err = run("quantize", folder / "net.onnx", *how, capsys=capsys)
    assert code == 2
    assert reason in err
    assert "choose int8 or linear8" in err
    assert not output.exists()


def test_compare_can_feed_bytes_to_all_files(folder, tmp_path, capsys):
    out_folder = tmp_path / "out"
    arguments = (
        "compare", folder / "net.onnx", "--data", folder / "test", "--calibration", folder / "calibration", *SIZE,
        "--recipes", "int8", "--runs", "2", "--effort", "fast", "--input", "uint8", "--target", "x86", "--json",
        "--out", out_folder,
    )  # fmt: skip
    code, out, _ = run(*arguments, capsys=capsys)
    results = json.loads(out)
    assert code == 0
    assert results["environment"]["target"] == "x86"
    assert [byte_layout(out_folder / row["file"]) for row in results["rows"]] == ["NHWC", "NHWC"]
    assert any("target x86" in note for note in results["rows"][1]["details"]["notes"])
    assert results["rows"][1]["macs"] == results["rows"][0]["macs"] > 0
    code, _, err = run(*arguments[:-1], tmp_path / "other", "--recipes", "linear8", capsys=capsys)
    assert code == 2
    assert "target" in err


def test_plan_names_the_target_and_the_layers_it_changes(folder, capsys):
    code, out, _ = run("plan", folder / "net.onnx", "-r", "int8", "--target", "x86", "--strict", capsys=capsys)
    assert code == 0
    assert "linear7/channel" in out
    assert "Target: x86: any x86" in out
    code, out, _ = run("plan", folder / "net.onnx", "-r", "int8", "--json", capsys=capsys)
    assert json.loads(out)["target"] in ("x86-vnni", "x86", "arm")
    code, out, _ = run("plan", folder / "net.onnx", "-r", "int8", capsys=capsys)
    assert "(this machine)" in out


def test_inspect_speed_says_beforehand_what_integers_bring(folder, capsys):
    code, out, _ = run("inspect", folder / "net.onnx", "--speed", capsys=capsys)
    assert code == 0
    assert "int8 " in out
    assert "GB/s" in out
    code, out, _ = run("inspect", folder / "net.onnx", "--speed", "--batch", "2", "--json", capsys=capsys)
    data = json.loads(out)
    assert code == 0
    assert data["batch"] == 2
    assert data["verdict"].startswith("int8 ")
    assert {layer["node"] for layer in data["layers"]} == {"stem", "narrow", "wide", "deep", "back", "last", "fc"}
    assert all(
        {"macs", "bytes", "float_bytes", "limit", "arithmetic", "gain"} <= layer.keys() for layer in data["layers"]
    )
    assert set(data["peaks"]["rates"]) == {"float", "integer"}
    assert isinstance(data["flags"], list)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "net.onnx", "--threads", "2"], "--speed"),
        (["inspect", "net.onnx", "--speed", "--engine", "none"], "no engine is called 'none'"),
        (["measure", "net.onnx", "--data", "test", "--engine", "onnxruntime,tvm"], "no engine is called 'tvm'"),
        (["measure", "net.onnx", "--data", "test", "--engine", ","], "auto for all that are installed"),
        (["measure", "net.onnx", "--data", "test", "--engine", "litert"], "LiteRT opens .tflite files only"),
        (["measure", "net.onnx", "--data", "test", "--emulate", "x86"], "nothing to emulate"),
        (["measure", "net.onnx", "--data", "test", "--emulate", "arm"], "cannot be emulated"),
    ],
)
def test_speed_options_that_make_no_sense(folder, monkeypatch, arguments, message, capsys):
    monkeypatch.chdir(folder)
    options = SIZE if arguments[0] == "measure" else []
    code, _, err = run(*arguments, *options, capsys=capsys)
    assert code == 2
    assert message in err


def test_quantize_says_where_all_images_fit_and_judge(folder, tmp_path, capsys):
    np.savez(tmp_path / "few.npz", x=networks.inputs(20))
    words = (
        "quantize",
        folder / "net.onnx",
        "-r",
        "linear4",
        "--calibration",
        tmp_path / "few.npz",
        "--effort",
        "fast",
    )
    code, out, _ = run(*words, "-o", tmp_path / "small.onnx", capsys=capsys)
    assert code == 0
    assert "too few to set some apart, so all fit and all judge." in " ".join(out.split())


def test_quantize_says_what_judges_and_which_layers_are_wider(folder, tmp_path, capsys):
    np.savez(tmp_path / "seen.npz", x=networks.inputs(60))
    words = ("quantize", folder / "net.onnx", "-r", "linear4", "--calibration", tmp_path / "seen.npz")
    code, out, _ = run(*words, "-o", tmp_path / "small.onnx", capsys=capsys)
    said = " ".join(out.split())
    assert code == 0
    assert re.search(r"rounding and bias correction \S+ \S+ \S+ KL kept \d", said)
    assert "Distance from float on calibration images that judge; fitted: on those that the step was fitted to." in said
    assert re.search(
        r"\d of 7 weights get 5 to 6 bits, 4\.\d+ per weight in all, 0\.38 of 0\.40 extra spent: bits cost", said
    )
    code, out, _ = run(*words, "--extra-bits", 0, "--json", "-o", tmp_path / "small.onnx", capsys=capsys)
    said = json.loads(out)
    assert code == 0
    assert said["adaptations"] == []
    assert {"before", "after", "fitted", "measure"} <= set(said["steps"][0])
    code, _, err = run(*words, "--extra-bits", -1, "-o", tmp_path / "small.onnx", capsys=capsys)
    assert code == 2
    assert "-1.0 extra bits per weight" in err


def test_quantize_says_beforehand_that_integers_will_not_be_faster(folder, tmp_path, monkeypatch, capsys):
    how = ("quantize", folder / "net.onnx", "-r", "int8", "--calibration", folder / "calibration", *SIZE)
    how = (*how, "--steps", "none", "--json", "-o", tmp_path / "a.onnx")
    rates = processor.Rates(mac=1e-9, window_mac=1e-9, depthwise_mac=1e-9, output=1e-9, start=1e-6)
    for faster in (False, True):
        integers = processor.Rates(1e-10, 1e-10, 1e-10, 1e-10, 1e-7) if faster else rates
        peaks = processor.Peaks({"float": rates, "integer": integers}, 1e10, 1, "onnxruntime")
        monkeypatch.setattr(forecast, "measure_peaks", lambda found=peaks, **_: found)
        monkeypatch.setattr(forecast, "rehearse", lambda *_, **__: None)
        code, out, err = run(*how, capsys=capsys)
        assert code == 0
        assert ("Note: int8 will not be faster here" in err) != faster
        assert json.loads(out)["verdict"].startswith("int8 should" if faster else "int8 will not")
    other = next(target for target in ("arm", "x86") if target != resolved("native"))
    code, out, err = run(*how, "--target", other, capsys=capsys)
    assert code == 0
    assert json.loads(out)["verdict"] == ""


def test_several_engines_and_emulated_answers_each_have_a_row(folder, tmp_path, capsys):
    engines = list(installed_engines())
    out_folder = tmp_path / "out"
    arguments = (
        "compare", folder / "net.onnx", "--data", folder / "test", "--calibration", folder / "calibration", *SIZE,
        "--recipes", "int8,linear8", "--runs", "2", "--effort", "fast", "--engine", ",".join(engines),
        "--target", "x86-vnni", "--emulate", "x86", "--out", out_folder,
    )  # fmt: skip
    code, out, _ = run(*arguments, "--json", capsys=capsys)
    results = json.loads(out)
    rows = results["rows"]
    assert code == 0
    expected = [("float", name) for name in engines] + [("int8", name) for name in ("onnxruntime", *engines)]
    expected += [("linear8", name) for name in engines]
    assert [(row["recipe"], row["engine"]) for row in rows] == expected
    # Behind the file that it is of, which is made for the runtime whose kernels are emulated.
    assert [row["file"] for row in rows if row["emulated"]] == ["net-int8.onnx"]
    emulated = rows[len(engines) + 1]
    assert (emulated["emulated"], emulated["label"]) == ("x86", "int8, emulated x86")
    assert emulated["latency_ms"] is None
    assert emulated["kl"] > 0
    assert any("saturate" in note for note in emulated["details"]["notes"])
    assert len(results["verdicts"]) == len(engines)
    for row in rows:
        assert (row["expected_ratio"] is not None) == (row["recipe"] == "int8" and not row["emulated"])
        assert sum(row["details"]["ledger"].values()) == row["file_bytes"]
    files = [row["file"] for row in rows if row["recipe"] == "int8" and not row["emulated"]]
    own = {"onnxruntime": "net-int8.onnx", "openvino": "net-int8-openvino.onnx", "litert": "net-int8.tflite"}
    assert files == [own[name] for name in engines]
    if len(engines) > 1:
        assert rows[0]["label"] == "float, onnxruntime"
        assert rows[0]["fastest_engine"] == rows[1]["fastest_engine"] in engines
    page = (out_folder / "report.html").read_text()
    assert "int8, emulated x86" in page
    assert results["verdicts"][0].split(" (")[0] in page
    shown = comparison_text(read_results(out_folder / "results.json"))
    assert "int8 files target x86-vnni." in " ".join(shown.split())
    assert "expected" in shown


def test_auto_measures_what_is_installed_and_runs_the_file(folder, monkeypatch, capsys):
    def without_openvino(path, *, engine, threads):
        if engine == "openvino":
            raise EngineError("OpenVINO refuses the model.")
        return session.open_session(path, engine=engine, threads=threads)

    class Failing:
        input_names = ("x",)

        def run(self, inputs):
            raise EngineError("the model does not run: no kernel.", where="openvino")

    def opens_but_fails(path, *, engine, threads):
        return Failing() if engine == "openvino" else session.open_session(path, engine=engine, threads=threads)

    monkeypatch.setattr(session, "installed_engines", lambda: ("onnxruntime", "openvino"))
    monkeypatch.setattr(entries, "open_session", opens_but_fails)
    how = ("measure", folder / "net.onnx", "--data", folder / "test", *SIZE, "--runs", "2", "--json")
    code, out, _ = run(*how, "--engine", "auto", capsys=capsys)
    assert code == 0
    assert [row["engine"] for row in json.loads(out)["rows"]] == ["onnxruntime"]
    said = "net.onnx was not measured with openvino: the model does not run: no kernel."
    assert json.loads(out)["notes"] == [said]

    monkeypatch.setattr(entries, "open_session", without_openvino)
    monkeypatch.setattr(session, "installed_engines", lambda: ("onnxruntime", "openvino"))
    how = ("measure", folder / "net.onnx", "--data", folder / "test", *SIZE, "--runs", "2", "--json")
    code, out, _ = run(*how, "--engine", "auto", capsys=capsys)
    assert code == 0
    assert [row["engine"] for row in json.loads(out)["rows"]] == ["onnxruntime"]
    assert json.loads(out)["notes"] == ["net.onnx was not measured with openvino: OpenVINO refuses the model."]
    monkeypatch.setattr(session, "installed_engines", lambda: ("openvino",))
    code, _, err = run(*how, "--engine", "auto", capsys=capsys)
    assert code == 2
    assert "no installed engine runs the file" in err
    assert "OpenVINO refuses" in err


def test_a_failed_comparison_leaves_no_folder_that_was_not_there(folder, tmp_path, capsys):
    (tmp_path / "old").mkdir()
    for out, kept in (("new", False), ("old", True)):
        arguments = ("compare", folder / "net.onnx", "--data", folder / "test", *SIZE, "--recipes", "int8")
        # Recipes of integers without calibration images fail once the folder is staged.
        code, _, err = run(*arguments, "--out", tmp_path / out, capsys=capsys)
        assert code == 2
        assert "calibration" in err
        assert (tmp_path / out).exists() == kept
        assert not kept or not list((tmp_path / out).iterdir())
