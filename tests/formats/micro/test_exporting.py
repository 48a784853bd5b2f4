import json

import pytest
from kernel_cases import written_files

from test_cli import run

pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return written_files(tmp_path_factory.mktemp("export"))


def test_it_shows_flash_ram_operators_and_boards_and_writes_what_was_asked_for(files, tmp_path, capsys):
    names = tmp_path / "model_data.cc", tmp_path / "model_data.h", tmp_path / "resolver.h"
    code, out, _ = run("export", files[0], "--c-array", names[0], "--resolver", names[2], capsys=capsys)
    assert code == 0
    for expected in ("quantized weights", "RAM (arena, estimated)", "AddConv2D", "Arduino Nano 33 BLE Sense", "Peak: "):
        assert expected in out
    for name in names:
        assert name.is_file()
        assert f"Wrote {name}." in out.replace("\n", "")


def test_without_files_it_writes_nothing(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("export", files[0], capsys=capsys)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_json_names_one_board_and_the_files(files, tmp_path, capsys):
    array = tmp_path / "m.c"
    code, out, _ = run("export", files[0], "--json", "--board", "pico", "--c-array", array, capsys=capsys)
    data = json.loads(out)
    assert code == 0
    assert [(row["name"], row["fits"]) for row in data["boards"]] == [("pico", True)]
    assert data["written"] == [str(array), str(tmp_path / "m.h")]


def test_what_will_not_work_is_shown_and_strict_makes_it_an_error(files, tmp_path, capsys):
    array = tmp_path / "m.cc"
    code, out, _ = run("export", files[1], capsys=capsys)
    assert code == 0
    assert "! DEQUANTIZE: one scale is used for all channels: wrong answers" in out
    assert "--output-type int8" in out
    code, _, error = run("export", files[1], "--strict", "--c-array", array, capsys=capsys)
    assert code == 3
    assert "wrong answers" in error
    assert not array.exists()
    assert run("export", files[0], "--strict", "--board", "pico", capsys=capsys)[0] == 0


def test_a_board_that_is_too_small_is_an_error_with_strict(files, tmp_path, capsys, monkeypatch):
    from lowbit.formats.micro import boards

    monkeypatch.setattr(boards, "PROGRAM_RAM", 263 << 10)
    code, out, _ = run("export", files[0], "--board", "pico", capsys=capsys)
    assert code == 0
    assert "Raspberry Pi Pico lacks" in out
    code, _, error = run("export", files[0], "--board", "pico", "--strict", capsys=capsys)
    assert code == 3
    assert "KiB of RAM" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--board", "picoo"), "Did you mean pico"),
        (("--kernels", "esp-nn"), "no kernels are called 'esp-nn'"),
        (("--c-array", "model.txt"), "does not say what kind of file it is"),
        (("--c-array", "model.cc", "--resolver", "ops.cc"), "does not say what kind of file it is"),
        (("--c-array", "m.cc", "--resolver", "m.h"), "is the header of the array too"),
    ],
)
def test_wrong_words_are_said(files, tmp_path, monkeypatch, words, said, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("export", files[0], *words, capsys=capsys)
    assert code == 2
    assert said in error
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_not_written_over(files, tmp_path, capsys):
    path = tmp_path / "model.cc"
    path.write_bytes(files[0].read_bytes())
    for option in ("--c-array", "--resolver"):
        code, _, error = run("export", path, option, path, capsys=capsys)
        assert (code, "is what the command reads" in error) == (2, True)
    assert path.read_bytes() == files[0].read_bytes()
