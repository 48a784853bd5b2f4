import re
import shutil
import subprocess

import pytest
from kernel_cases import CASES

from lowbit.errors import OutputError
from lowbit.formats.micro.report import micro_report
from lowbit.formats.micro.source import check_outputs, write_c_array, write_resolver

pytest.importorskip("ai_edge_litert")

COMPILERS = [(name, flag) for name, flag in (("cc", "-std=c11"), ("g++", "-std=c++11")) if shutil.which(name)]
PROGRAM = """
#include "model_data.h"
#include <stdint.h>
#include <stdio.h>
static unsigned char arena[G_MODEL_DATA_ARENA_BYTES];
int main(void) {
  unsigned long sum = 0;
  for (unsigned int i = 0; i < g_model_data_len; ++i) sum = sum * 31 % 1000003 + g_model_data[i];
  printf("%u %lu %lu %lu", g_model_data_len, sum, (unsigned long)((uintptr_t)g_model_data % 16),
         (unsigned long)sizeof(arena));
  return 0;
}
"""
# What a resolver's header needs of TensorFlow Lite Micro.
STUB = """
#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) do { const TfLiteStatus s = (a); if (s != kTfLiteOk) return s; } while (0)
namespace tflite {
template <unsigned int tOpCount> struct MicroMutableOpResolver {
  unsigned int used = 0;
  TfLiteStatus add() { return used++ < tOpCount ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus AddConv2D() { return add(); }
};
}
"""
MAIN = """
#include "resolver.h"
int main() { resolver_ops::OpResolver resolver; return resolver_ops::RegisterOps(resolver) + 2 * (resolver.used != 1); }
"""


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(CASES["CONV_2D"]("int8"))
    return micro_report(path)


def parsed(text):
    """The bytes of an array in C source."""
    body = re.search(r"\[\] = \{(.*)\};", text, re.DOTALL)[1]
    return bytes(int(number, 16) for number in re.findall(r"0x([0-9a-f]{2}),", body))


def compiled(folder, compiler, flag, *sources):
    line = [compiler, flag, "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{folder}", *map(str, sources)]
    subprocess.run([*line, "-o", str(folder / "program")], check=True, capture_output=True, timeout=60)
    return subprocess.run([str(folder / "program")], capture_output=True, text=True, check=False, timeout=10)


def test_the_array_holds_the_bytes_of_the_file(report, tmp_path):
    source, header = write_c_array(report, tmp_path / "model_data.cc")
    text = source.read_text()
    assert parsed(text) == report.content
    assert f"g_model_data_len = {len(report.content)};" in text
    assert '#include "model_data.h"' in text
    assert header == tmp_path / "model_data.h"
    assert "Input 0: t0, int8 [1 x 4 x 4 x 8], value = 0.0500000007 * (code - 0)" in header.read_text()


@pytest.mark.parametrize(("compiler", "flag"), COMPILERS)
def test_compilers_take_it_and_align_it(report, tmp_path, compiler, flag):
    ending = ".c" if compiler == "cc" else ".cc"
    source, _ = write_c_array(report, tmp_path / f"model_data{ending}")
    main = tmp_path / f"main{ending}"
    main.write_text(PROGRAM)
    done = compiled(tmp_path, compiler, flag, source, main)
    total = 0
    for byte in report.content:
        total = total * 31 % 1000003 + byte
    length, found, place, arena = map(int, done.stdout.split())
    assert (length, found, place) == (len(report.content), total, 0)
    assert report.arena.bytes < arena <= 1.1 * report.arena.bytes + 16


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_the_resolver_compiles_and_adds_each_operator(report, tmp_path):
    place = tmp_path / "tensorflow" / "lite" / "micro"
    place.mkdir(parents=True)
    (place / "micro_mutable_op_resolver.h").write_text(STUB)
    write_resolver(report, tmp_path / "resolver.h")
    (tmp_path / "main.cc").write_text(MAIN)
    assert compiled(tmp_path, "g++", "-std=c++11", tmp_path / "main.cc").returncode == 0


def test_an_operator_without_a_kernel_is_named_in_the_resolver(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(CASES["GELU"]("float32"))
    text = write_resolver(micro_report(path), tmp_path / "ops.h").read_text()
    assert "no kernel for GELU." in text
    assert "MicroMutableOpResolver<1>" in text


def test_names_end_no_comment_and_are_identifiers(tmp_path):
    path = tmp_path / "a*b.tflite"
    path.write_bytes(CASES["CONV_2D"]("int8").replace(b"t0", b"*\x2f"))
    report = micro_report(path)
    assert report.inputs[0].name == "*/"
    source, header = write_c_array(report, tmp_path / "7-zip é.c")
    for text in (source.read_text(), header.read_text()):
        assert text.count("/*") == text.count("*/")
        assert "g_n7_zip__" in text


@pytest.mark.parametrize(("write", "name"), [(write_c_array, "model.txt"), (write_resolver, "resolver.cc")])
def test_other_endings_are_refused(report, tmp_path, write, name):
    with pytest.raises(OutputError, match="does not say what kind of file"):
        write(report, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_resolver_that_is_the_arrays_header_is_refused(tmp_path):
    with pytest.raises(OutputError, match="is the header of the array too"):
        check_outputs(tmp_path / "model.cc", tmp_path / "sub" / ".." / "model.h")
