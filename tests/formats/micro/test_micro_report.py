import random

import numpy as np
import pytest
from kernel_cases import CASES, written_files

import lowbit
import networks
from fuzz.mutants import tflite_mutant
from lowbit.errors import LowbitError, ModelError, OutputError
from lowbit.formats.micro.boards import BOARDS, PROGRAM_FLASH, PROGRAM_RAM, board_fit
from lowbit.formats.micro.source import resolver_source

pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return written_files(tmp_path_factory.mktemp("micro"))


def test_a_file_of_lowbits_needs_nothing_that_is_not_there(written):
    report = lowbit.micro_report(written[0])
    assert report.problems == ()
    assert all(operator.in_float == 0 for operator in report.operators)
    assert [border.dtype for border in (*report.inputs, *report.outputs)] == ["int8", "int8"]
    assert report.inputs[0].scale > 0
    assert sum(report.flash.values()) == len(report.content) == written[0].stat().st_size


def test_a_last_layer_in_float_is_wrong_there_and_said(written):
    report = lowbit.micro_report(written[1])
    assert [problem for problem in report.problems if "wrong answers" in problem]
    assert sum(operator.in_float for operator in report.operators) > 0


def test_plain_data_holds_it_all_but_the_bytes(written):
    data = lowbit.micro_report(written[0], kernels="reference").to_json()
    assert data["kernels"] == "reference"
    assert data["arena"]["total"] == sum(data["arena"][part] for part in lowbit.micro_report(written[0]).arena.parts)
    assert data["flash"]["total"] == written[0].stat().st_size
    assert {row["name"] for row in data["boards"]} == set(BOARDS)
    assert len(repr(lowbit.micro_report(written[0]))) < 1200


@pytest.mark.parametrize("name", BOARDS)
def test_each_board_is_plausible(name):
    board = BOARDS[name]
    assert PROGRAM_FLASH < board.flash <= 128 << 20
    assert PROGRAM_RAM < board.block <= board.ram
    assert board.source


def test_a_board_is_full_to_the_byte():
    board = BOARDS["nano33ble"]
    flash, arena = board.flash - PROGRAM_FLASH, board.ram - PROGRAM_RAM
    assert board_fit("nano33ble", flash=flash, arena=arena).fits
    assert board_fit("nano33ble", flash=flash + 1, arena=arena).flash_left == -1
    assert board_fit("nano33ble", flash=flash, arena=arena + 1).ram_left == -1


def test_an_arena_has_to_lie_in_one_block():
    board = BOARDS["portenta-h7"]
    assert not board_fit("portenta-h7", flash=0, arena=board.block + 1).fits
    assert board.block + 1 < board.ram - PROGRAM_RAM


def test_an_unknown_board_or_kernel_is_refused_with_a_guess(written):
    with pytest.raises(OutputError, match="Did you mean pico"):
        lowbit.micro_report(written[0]).on("picoo")
    with pytest.raises(OutputError, match="Did you mean cmsis-nn"):
        lowbit.micro_report(written[0], kernels="cmsisnn")


def test_what_is_no_tflite_file_is_told_how_to_become_one(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(networks.residual_network().SerializeToString())
    with pytest.raises(ModelError, match=r"is not a \.tflite file\. Write one first: `lowbit quantize"):
        lowbit.micro_report(path)
    with pytest.raises(ModelError, match="cannot be read"):
        lowbit.micro_report(tmp_path / "nothing.tflite")


def test_damaged_files_are_refused_or_read(written, tmp_path):
    good, path = written[0].read_bytes(), tmp_path / "mutant.tflite"
    drawn = random.Random(5)
    mutants = [good[:length] for length in (0, 7, 8, 60, len(good) // 2, len(good) - 1)]
    mutants += [tflite_mutant(good, drawn) for _ in range(30)]
    mutants += [CASES["CONV_2D"]("int8")[:-40]]
    refused = 0
    for mutant in mutants:
        path.write_bytes(mutant)
        try:
            report = lowbit.micro_report(path)
        except LowbitError:
            refused += 1
        else:
            assert report.arena.bytes >= 0
            assert report.to_json()
            assert resolver_source(report, tmp_path / "ops.h")
    assert 0 < refused < len(mutants)


def test_sizes_that_no_machine_has_are_numbers(tmp_path):
    # 2^31 - 1 in every dimension is refused by the reader; what it lets pass may still be far beyond any board.
    content = CASES["RELU"]("int8").replace(np.int32([4, 4, 8]).tobytes(), np.int32([4096, 4096, 8]).tobytes())
    path = tmp_path / "wide.tflite"
    path.write_bytes(content)
    report = lowbit.micro_report(path)
    assert report.arena.activations >= 4096 * 4096 * 8
    assert not any(fit.fits for fit in report.boards)
