"""How a file is written is one value; what it cannot be is refused before anything takes time."""

import pytest

import lowbit
import networks
from lowbit import FileForm
from lowbit.errors import ModelError, OutputError, SchemeError
from lowbit.quantization.quantized import check_form
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.linear import Linear


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


def test_the_name_of_the_file_decides_where_the_form_does_not():
    assert FileForm().named("a.onnx").to == "onnx"
    assert FileForm(input="int8").named("a.tflite") == FileForm("litert", input="int8")
    assert FileForm("openvino").named("a.onnx").to == "openvino"
    with pytest.raises(OutputError, match="does not match"):
        FileForm("onnx").named("a.tflite")


def test_bytes_are_what_save_writes(model, tmp_path):
    pytest.importorskip("ai_edge_litert")
    quantized = lowbit.quantize(model, "linear8")
    for name, form in (("a.onnx", FileForm()), ("a.tflite", FileForm("litert")), ("b.onnx", FileForm("openvino"))):
        assert quantized.save(tmp_path / name).read_bytes() == quantized.to_bytes(form)
    short = FileForm(short_names=True)
    assert len(quantized.to_bytes(short)) < len(quantized.to_bytes())


@pytest.mark.parametrize(
    ("recipe", "form", "name", "error", "message"),
    [
        ("linear8", FileForm("tensorrt"), "a.onnx", OutputError, "no format is called 'tensorrt'"),
        ("int8", FileForm(input="int8"), "a.onnx", SchemeError, "the input of an ONNX file can be float32 or uint8"),
        ("int8", FileForm(output_type="uint8"), "a.onnx", SchemeError, "the output of an ONNX file"),
        ("linear8", FileForm(output_type="uint8"), "a.tflite", SchemeError, "no codes to take or give"),
        ("int8", FileForm(input="uint8"), "a.onnx", ModelError, "--mean and --std"),
        ("int8", FileForm(layout="NCHW"), "a.onnx", SchemeError, "a layout of image bytes was given"),
        ("int8", FileForm(short_names=True), "a.tflite", SchemeError, "short already"),
        ("linear4", FileForm(), "a.tflite", ModelError, "4-bit weights"),
        ("cluster8", FileForm(), "a.tflite", ModelError, "would decode at every inference"),
    ],
)
def test_what_cannot_be_written_is_refused_without_encoding_a_weight(
    model, recipe, form, name, error, message, monkeypatch
):
    pytest.importorskip("ai_edge_litert")
    for scheme in (Linear, Clusters):
        monkeypatch.setattr(scheme, "encode", None)
    with pytest.raises(error, match=message):
        check_form(model, lowbit.plan(model, recipe), name, form)


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite"])
@pytest.mark.parametrize("recipe", ["float", "linear8", "int8", "int7"])
def test_what_can_be_written_passes(model, recipe, name):
    pytest.importorskip("ai_edge_litert")
    check_form(model, lowbit.plan(model, recipe), name, FileForm())
