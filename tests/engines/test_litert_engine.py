import sys

import numpy as np
import pytest

from lowbit.engines import ENGINES, engine_version, open_session
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import EngineError, LowbitError, ModelError
from lowbit.formats.litert.file import FileOperator, FileTensor, serialize

pytest.importorskip("ai_edge_litert")

CHANNELS = 4


def identity_file(*, kind="float32", batch=True, metadata=None, scale=0.5, zero_point=10):
    """A file that gives its input [1, 5, 6, 4] back without the first row, so that all can be checked by hand."""
    quantization = {} if kind == "float32" else {"scale": np.array([scale], np.float32), "zero_point": zero_point}
    shape = (1, 5, 6, CHANNELS)
    tensors = [
        FileTensor(shape, kind, "x", batch_axis=0 if batch else None, **quantization),
        FileTensor((1, 4, 6, CHANNELS), kind, "y", batch_axis=0 if batch else None, **quantization),
        *(FileTensor((4,), "int32", "", np.array(row)) for row in ((0, 1, 0, 0), (1, 5, 6, 4), (1, 1, 1, 1))),
    ]
    masks = {"beginMask": 13, "endMask": 13}
    operator = FileOperator("STRIDED_SLICE", (0, 2, 3, 4), (1,), masks, "StridedSliceOptions", 1 + (kind != "float32"))
    return serialize(tensors, [operator], inputs=[0], outputs=[1], metadata=metadata or {}, source="test")


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((3, CHANNELS, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("batch", [True, False])
def test_batches_go_through_whole_or_image_by_image(x, batch):
    session = open_session(identity_file(batch=batch), engine="litert", threads=1)
    assert (session.input_names, session.output_names, session.engine) == (("x",), ("y",), "litert")
    for count in (3, 1, 2):
        found = session.run({"x": x[:count]})["y"]
        np.testing.assert_array_equal(found, x[:count].transpose(0, 2, 3, 1)[:, 1:])


def test_channels_last_batches_are_taken_as_they_are(x):
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    found = open_session(identity_file(), engine="litert").run({"x": turned})["y"]
    np.testing.assert_array_equal(found, turned[:, 1:])


def test_the_noted_layout_brings_outputs_back(x):
    layout = '{"inputs": {"x": [0, 2, 3, 1]}, "outputs": {"y": [0, 2, 3, 1]}}'
    found = open_session(identity_file(metadata={"lowbit.layout": layout}), engine="litert").run({"x": x})["y"]
    np.testing.assert_array_equal(found, x[:, :, 1:])


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_codes_are_rounded_and_saturated_by_the_session(x, kind):
    content = identity_file(kind=kind, scale=0.25, zero_point=10)
    x[0, 0, 1, 0] = 1000.0
    found = open_session(content, engine="litert").run({"x": x})["y"]
    limits = np.iinfo(kind)
    codes = np.clip(np.rint(x / np.float32(0.25)) + 10, limits.min, limits.max)
    np.testing.assert_array_equal(found, ((codes - 10) * 0.25).transpose(0, 2, 3, 1)[:, 1:])
    ready = codes.astype(kind)
    np.testing.assert_array_equal(open_session(content, engine="litert").run({"x": ready})["y"], found)


def test_shapes_and_names_that_do_not_fit_are_errors(x):
    session = open_session(identity_file(), engine="litert")
    for feed in ({"x": x[:, :3]}, {"z": x}, {"x": x[0]}):
        with pytest.raises(EngineError, match="does not run"):
            session.run(feed)
    assert session.run({"x": x})["y"].shape == (3, 4, 6, CHANNELS)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x08\x03onnx")
    with pytest.raises(LowbitError, match=r"not a \.tflite file") as caught:
        open_session(path, engine="litert")
    assert str(path) in caught.value.where
    with pytest.raises(LowbitError, match="cannot be read: No such file"):
        open_session(tmp_path / "absent.tflite", engine="litert")
    with pytest.raises(EngineError, match="damaged"):
        open_session(identity_file(metadata={"lowbit.layout": "[1"}), engine="litert")


def test_damaged_files_never_reach_the_runtime_without_operands_or_scales():
    one = FileTensor((1, 4), "int8", "x", scale=np.array([1], np.float32))
    none = FileTensor((1, 4), "int8", "y")
    add = FileOperator("ADD", (0, 0), (1,), {}, "AddOptions", 2)
    with pytest.raises(ModelError, match="without a scale"):
        read_litert(serialize([one, none], [add], inputs=[0], outputs=[1], metadata={}, source=""), "test")
    lone = FileOperator("ADD", (0, -1), (1,), {}, "AddOptions", 2)
    with pytest.raises(ModelError, match="lacks an operand"):
        read_litert(serialize([one, one], [lone], inputs=[0], outputs=[1], metadata={}, source=""), "test")


def test_the_engine_is_in_the_table_and_says_what_to_install(monkeypatch):
    assert engine_version("litert")[0].isdigit()
    monkeypatch.setitem(sys.modules, ENGINES["litert"].package, None)
    with pytest.raises(EngineError) as caught:
        open_session(b"", engine="litert")
    assert "lowbit[litert]" in caught.value.remedy


def test_nothing_is_printed(capfd):
    open_session(identity_file(), engine="litert")
    assert capfd.readouterr() == ("", "")
