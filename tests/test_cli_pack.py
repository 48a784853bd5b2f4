"""`lowbit pack` with a goal, as a user types it."""

import json

import onnx
import pytest

from lowbit.errors import ModelError
from lowbit.formats.opening import pack_file, unpack_file
from test_cli import SIZE, folder, run

__all__ = ["folder"]

HOW = ("--image-size", "16", *SIZE, "--effort", "fast")


def test_a_goal_is_kept_and_the_ledger_adds_up(folder, tmp_path, capsys):
    packed, back = tmp_path / "m.lowbit", tmp_path / "m.onnx"
    goal = ("--size", "3.2KB", "--calibration", folder / "calibration", "--data", folder / "test", "--control")
    code, out, _ = run("pack", folder / "net.onnx", "-o", packed, *goal, *HOW, "--json", capsys=capsys)
    assert code == 0
    said = json.loads(out)
    assert said["file_bytes"] == packed.stat().st_size <= 3200
    assert run("unpack", packed, "-o", back, capsys=capsys)[0] == 0
    for column, path in (("raw", folder / "net.onnx"), ("packed", back), ("coded", packed)):
        assert sum(said["sizes"][column].values()) == path.stat().st_size
    assert min(said["sizes"]["controls"].values()) > said["file_bytes"]
    assert said["trials"][-1]["archive_bytes"] == said["file_bytes"]
    assert said["trials"][-1]["drop"] is not None
    code, out, _ = run("pack", folder / "net.onnx", "-o", packed, *goal, *HOW, capsys=capsys)
    assert code == 0
    assert f"{packed.stat().st_size:,} bytes" in out
    assert "zstd -19" in out
    assert "points lost" in out


def test_a_drop_that_cannot_be_certified_is_said_to_be_so(folder, tmp_path, capsys):
    packed = tmp_path / "m.lowbit"
    how = ("--calibration", folder / "calibration", "--data", folder / "test", *HOW)
    code, out, _ = run("pack", folder / "net.onnx", "-o", packed, "--max-drop", "1", *how, "--json", capsys=capsys)
    said = json.loads(out)["certificate"]
    assert (code, said["holds"], said["limit"], said["confidence"]) == (0, None, 0.01, 0.95)
    assert f"{said['needed']:,} samples would tell" in said["sentence"]
    code, out, _ = run("pack", folder / "net.onnx", "-o", packed, "--max-drop", "0.1", *how, capsys=capsys)
    assert code == 0
    assert "! Not certified. These" in out
    assert "most cautious archive. Give more images to --data" in out
    packed.unlink()
    strict = ("--max-drop", "0.1", "--strict", "--confidence", "0.9")
    code, _, err = run("pack", folder / "net.onnx", "-o", packed, *strict, *how, capsys=capsys)
    assert code == 3
    assert "with 90 % confidence" in err
    assert not packed.exists()


def test_a_file_that_computes_in_integers(folder, tmp_path, capsys):
    packed = tmp_path / "m.lowbit"
    goal = ("--size", "5KB", "--calibration", folder / "calibration", "--activations", "int8", "--target", "x86")
    code, out, _ = run("pack", folder / "net.onnx", "-o", packed, *goal, *HOW, capsys=capsys)
    assert code == 0
    assert packed.stat().st_size <= 5000
    assert "Tried rate" in out
    operators = [node.op_type for node in onnx.load_from_string(unpack_file(packed)).graph.node]
    assert "QuantizeLinear" in operators


def test_inspect_shows_what_coding_theory_and_compressors_say(folder, tmp_path, capsys):
    small, packed = tmp_path / "small.onnx", tmp_path / "small.lowbit"
    recipe = ("-r", "linear4", "--extra-bits", 0)
    assert run("quantize", folder / "net.onnx", *recipe, "-o", small, *SIZE, capsys=capsys)[0] == 0
    assert run("pack", small, "-o", packed, capsys=capsys)[0] == 0
    code, out, _ = run("inspect", small, "--json", capsys=capsys)
    said = json.loads(out)["sizes"]
    assert code == 0
    assert said["coded"] is said["controls"] is said["float_bytes"] is None
    assert "--coded" in said["notes"][0]
    assert "--control" in said["notes"][1]
    how = ("--coded", "--control", "--against", folder / "net.onnx")
    for path in (small, packed):
        code, out, _ = run("inspect", path, *how, "--json", capsys=capsys)
        said = json.loads(out)["sizes"]
        assert code == 0
        assert said["notes"] == []
        for column, file in (("raw", folder / "net.onnx"), ("packed", small), ("coded", packed)):
            assert sum(said[column].values()) == file.stat().st_size
        assert said["entropy_bits"] < 32 / said["theoretical_ratio"] == pytest.approx(4, rel=0.01)
        assert set(said["controls"]) == {"zstd -19", "xz -9"}
    code, out, _ = run("inspect", small, *how, capsys=capsys)
    assert code == 0
    assert "by their empirical entropy" in out
    assert f"the float file takes {(folder / 'net.onnx').stat().st_size:,} bytes" in out
    code, _, err = run("inspect", small, "--control", capsys=capsys)
    assert code == 2
    assert "--against" in err


def test_inspect_of_weights_in_another_file_counts_but_does_not_code(folder, tmp_path, capsys):
    model = onnx.load(folder / "net.onnx")
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=64)
    code, out, _ = run("inspect", tmp_path / "net.onnx", capsys=capsys)
    assert code == 0
    assert "in the file" in out
    code, _, err = run("inspect", tmp_path / "net.onnx", "--coded", capsys=capsys)
    assert code == 2
    assert "another file" in err


def test_short_names_need_no_goal(folder, tmp_path, capsys):
    sizes = []
    for options in ((), ("--short-names",)):
        code, out, _ = run("pack", folder / "net.onnx", "-o", tmp_path / "m.lowbit", *options, "--json", capsys=capsys)
        assert code == 0
        sizes.append(json.loads(out)["file_bytes"])
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--size", "many"), "is not a size"),
        (("--size", "3KB", "--bits-per-weight", "3"), "2 goals at once"),
        (("--size", "3KB"), "--calibration DIR"),
        (("--max-drop", "1", "--calibration", "calibration"), "--data DIR"),
        (("--max-drop", "1", "--calibration", "calibration", "--data", "calibration"), "calibration images too"),
        (("--calibration", "calibration"), "--calibration has no effect without a goal"),
        (("--strict",), "--strict has no effect without a goal"),
        (("--size", "3KB", "--confidence", "0.9", "--calibration", "calibration"), "no effect without a drop"),
        (("--activations", "int8"), "--activations has no effect without a goal"),
        (("--size", "5KB", "--activations", "int4", "--calibration", "calibration"), "unknown activations 'int4'"),
        (("--size", "5KB", "--target", "x86", "--calibration", "calibration"), "the same for every target"),
        (("--size", "1KB", "--calibration", "calibration"), "with every weight zero"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(folder, tmp_path, capsys, options, says):
    given = [folder / option if option == "calibration" else option for option in options]
    code, _, err = run("pack", folder / "net.onnx", "-o", tmp_path / "m.lowbit", *given, *HOW, capsys=capsys)
    assert code == 2
    assert says in err
    assert not list(tmp_path.iterdir())


def test_an_empty_file_is_refused_and_nothing_is_written(tmp_path):
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(ModelError, match="is empty"):
        pack_file(empty)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_what_is_wrong_with_a_file_is_said_as_everywhere(folder, tmp_path, kept, capsys):
    content = (folder / "net.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(kept * len(content))])
    _, _, loading = run("inspect", path, capsys=capsys)
    code, _, packing = run("pack", path, "-o", tmp_path / "m.lowbit", capsys=capsys)
    assert code == 2
    assert packing == loading
