"""`lowbit pack` with a goal, as a user types it."""

import json

import pytest

from lowbit.errors import ModelError
from lowbit.formats.opening import pack_file
from test_cli import SIZE, folder, run

__all__ = ["folder"]

HOW = ("--image-size", "16", *SIZE, "--effort", "fast")


def test_a_goal_is_kept_and_the_ledger_adds_up(folder, tmp_path, capsys):
    packed, back = tmp_path / "m.lowbit", tmp_path / "m.onnx"
    goal = ("--size", "2.6KB", "--calibration", folder / "calibration", "--data", folder / "test", "--control")
    code, out, _ = run("pack", folder / "net.onnx", "-o", packed, *goal, *HOW, "--json", capsys=capsys)
    assert code == 0
    said = json.loads(out)
    assert said["file_bytes"] == packed.stat().st_size <= 2600
    assert run("unpack", packed, "-o", back, capsys=capsys)[0] == 0
    for column, path in (("given", folder / "net.onnx"), ("packed", back), ("archive", packed)):
        assert sum(said["ledger"][column].values()) == path.stat().st_size
    assert said["ledger"]["xz_bytes"] > said["file_bytes"]
    assert said["trials"][-1]["archive_bytes"] == said["file_bytes"]
    assert said["trials"][-1]["drop"] is not None
    code, out, _ = run("pack", folder / "net.onnx", "-o", packed, *goal, *HOW, capsys=capsys)
    assert code == 0
    assert f"{packed.stat().st_size:,} bytes" in out
    assert "control: xz makes" in out
    assert "points lost" in out


def test_short_names_need_no_goal(folder, tmp_path, capsys):
    sizes = []
    for options in ((), ("--short-names",)):
        code, out, _ = run("pack", folder / "net.onnx", "-o", tmp_path / "m", *options, "--json", capsys=capsys)
        assert code == 0
        sizes.append(json.loads(out)["file_bytes"])
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--size", "many"), "is no size"),
        (("--size", "3KB", "--bits-per-weight", "3"), "2 goals at once"),
        (("--size", "3KB"), "--calibration DIR"),
        (("--max-drop", "1", "--calibration", "calibration"), "--data DIR"),
        (("--max-drop", "1", "--calibration", "calibration", "--data", "calibration"), "calibration images too"),
        (("--calibration", "calibration"), "--calibration does nothing without a goal"),
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
