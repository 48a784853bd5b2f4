"""docs/microcontrollers.md: its commands and its Python run, its program compiles."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import lowbit
import networks
from lowbit.formats.micro.report import micro_report
from lowbit.formats.micro.source import write_c_array, write_resolver
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing
from test_cli import run

pytest.importorskip("ai_edge_litert")

PAGE = (Path(__file__).parents[3] / "docs" / "microcontrollers.md").read_text(encoding="utf-8")
# As much of TensorFlow Lite Micro as the program uses.
MICRO = "tensorflow/lite/micro/"
STUBS = {
    f"{MICRO}micro_mutable_op_resolver.h": """
#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) do { const TfLiteStatus s = (a); if (s != kTfLiteOk) return s; } while (0)
namespace tflite { template <unsigned int N> struct MicroMutableOpResolver { METHODS }; }
""",
    f"{MICRO}micro_interpreter.h": """
#pragma once
#include <cstddef>
#include <cstdint>
struct TfLiteTensor { std::size_t bytes; struct { float scale; std::int32_t zero_point; } params;
  union { std::int8_t* int8; } data; };
namespace tflite {
struct Model;
struct MicroInterpreter {
  std::int8_t codes[4] = {-3, 7, 9, -1};
  TfLiteTensor tensor{4, {1, 0}, {codes}};
  template <class R> MicroInterpreter(const Model*, const R&, unsigned char*, std::size_t) {}
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { codes[2] = 5; return kTfLiteOk; }
  TfLiteTensor* input(std::size_t) { return &tensor; }
  TfLiteTensor* output(std::size_t) { return &tensor; }
};
}
""",
    "tensorflow/lite/schema/schema_generated.h": """
#pragma once
namespace tflite { struct Model; inline const Model* GetModel(const void*) { return nullptr; } }
""",
}


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """What the page says is there: a network that says how its images are prepared, and images."""
    proto = networks.residual_network()
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, Preprocessing(16, 16).to_json()
    onnx.save(proto, tmp_path / "mobilenet.onnx")
    (tmp_path / "calibration").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    for place, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "calibration" / f"{place}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_commands_and_its_python_run(workplace, capsys):
    for line in block("sh").splitlines():
        words = shlex.split(line, comments=True)
        assert words.pop(0) == "lowbit"
        effort = ("--effort", "fast") if words[0] == "quantize" else ()
        code, _, error = run(*words, *effort, capsys=capsys)
        assert code == 0, (line, error)
    for name in ("model_data.cc", "model_data.h", "resolver.h"):
        (workplace / name).rename(workplace / f"first-{name}")
    exec(compile(block("python"), "docs/microcontrollers.md", "exec"), {})
    for name in ("model_data.cc", "model_data.h", "resolver.h"):
        assert (workplace / name).read_bytes() == (workplace / f"first-{name}").read_bytes()


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_its_program_compiles_and_takes_the_largest_answer(tmp_path):
    model = lowbit.load(networks.residual_network())
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(3), effort="fast")
    path = quantized.save(tmp_path / "model.tflite", form=lowbit.FileForm(input="int8", output_type="int8"))
    report = micro_report(path)
    source, _ = write_c_array(report, tmp_path / "model_data.cc")
    write_resolver(report, tmp_path / "resolver.h")
    methods = " ".join(f"TfLiteStatus {each.method}() {{ return kTfLiteOk; }}" for each in report.operators)
    for name, text in STUBS.items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace("METHODS", methods))
    main = tmp_path / "main.cc"
    main.write_text(block("cpp"))
    line = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", str(main), str(source)]
    subprocess.run([*line, "-o", str(tmp_path / "program")], check=True, timeout=60)
    # The input is set to zeros, and the stub's network then gives 0, 0, 5, 0.
    assert subprocess.run([str(tmp_path / "program")], check=False, timeout=10).returncode == 2


def test_every_board_and_every_part_of_the_arena_is_explained():
    from lowbit.reports.micro import PARTS

    table = PAGE.partition("| part | what it is |")[2].partition("\n\n")[0]
    for title in PARTS.values():
        assert title.removeprefix("records of ") in table, title
