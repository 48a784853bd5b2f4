"""A copy that says how images become its input: the same network to the bit, and nobody has to say it again."""

import numpy as np
import onnx
import pytest
from PIL import Image

import lowbit
import networks
from lowbit.errors import DataError, ModelError
from lowbit.formats.opening import pack_file
from lowbit.formats.preparing import write_prepared
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing
from lowbit.measurement.inputs import as_taken

HOW = Preprocessing(networks.SIDE, networks.SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, crop=0.9)


def answers(path):
    session = lowbit.open_session(path)
    return next(iter(session.run({"x": networks.inputs(3)}).values()))


@pytest.mark.parametrize("external", [False, True])
def test_a_copy_answers_the_same_to_the_bit(tmp_path, external):
    source, copy = tmp_path / "net.onnx", tmp_path / "elsewhere" / "copy.onnx"
    proto = networks.residual_network()
    proto.metadata_props.add(key="author", value="me")
    proto.metadata_props.add(key=METADATA_KEY, value="no JSON")
    del proto.metadata_props[1]
    onnx.save(
        proto, source, save_as_external_data=external, size_threshold=0, location="net.data" if external else None
    )
    before = source.read_bytes()
    write_prepared(lowbit.prepare(source, HOW), source, copy)
    np.testing.assert_array_equal(answers(source), answers(copy))
    assert source.read_bytes() == before
    written = onnx.load(copy)  # which needs no other file
    assert written.graph == onnx.load(source).graph if not external else len(list(copy.parent.iterdir())) == 1
    assert {entry.key for entry in written.metadata_props} == {"author", METADATA_KEY}
    assert lowbit.load(copy).preprocessing == HOW


def test_what_was_said_before_is_replaced(tmp_path):
    proto = networks.residual_network()
    proto.metadata_props.add(key=METADATA_KEY, value=Preprocessing(networks.SIDE, networks.SIDE).to_json())
    onnx.save(proto, tmp_path / "net.onnx")
    write_prepared(lowbit.prepare(tmp_path / "net.onnx", HOW), tmp_path / "net.onnx", tmp_path / "copy.onnx")
    assert [entry.key for entry in onnx.load(tmp_path / "copy.onnx").metadata_props] == [METADATA_KEY]
    assert lowbit.load(tmp_path / "copy.onnx").preprocessing == HOW


def test_an_archive_becomes_a_file(tmp_path):
    lowbit.quantize(networks.residual_network(), "float").save(tmp_path / "float.onnx")
    (tmp_path / "net.lowbit").write_bytes(pack_file(tmp_path / "float.onnx"))
    write_prepared(lowbit.prepare(tmp_path / "net.lowbit", HOW), tmp_path / "net.lowbit", tmp_path / "copy.onnx")
    assert lowbit.load(tmp_path / "copy.onnx").preprocessing == HOW
    np.testing.assert_array_equal(answers(tmp_path / "float.onnx"), answers(tmp_path / "copy.onnx"))


def test_in_python_it_is_followed_and_saved(tmp_path):
    model = lowbit.prepare(networks.residual_network(), HOW)
    pixels = np.random.default_rng(0).integers(0, 256, (20, networks.SIDE, networks.SIDE, 3), dtype=np.uint8)
    assert lowbit.open_data(pixels, model).preprocessing == HOW
    lowbit.save(model, tmp_path / "net.onnx")
    assert lowbit.load(tmp_path / "net.onnx").preprocessing == HOW
    lowbit.quantize(model, "int8", calibration=pixels, steps=[]).save(tmp_path / "int8.onnx")
    assert METADATA_KEY in {entry.key for entry in onnx.load(tmp_path / "int8.onnx").metadata_props}


@pytest.mark.parametrize("size", [(8, 8), (networks.SIDE, 8)])
def test_images_that_do_not_fit_are_refused(size):
    with pytest.raises(ModelError, match=r"the model's input is \[n, 3, 16, 16\], images become"):
        lowbit.prepare(networks.residual_network(), Preprocessing(*size))
    with pytest.raises(ModelError, match="images become"):
        lowbit.prepare(networks.residual_network(), Preprocessing(16, 16, layout="NHWC"))


def test_pixels_for_a_model_that_says_nothing_are_refused_with_what_says_it():
    model = lowbit.load(networks.residual_network())
    pixels = np.zeros((4, networks.SIDE, networks.SIDE, 3), np.uint8)
    with pytest.raises(DataError, match=r"lowbit\.prepare\(model"):
        lowbit.quantize(model, "int8", calibration=pixels)
    assert lowbit.open_data(networks.inputs(4), model).count == 4


def test_a_crop_does_not_go_with_labels_of_whole_images():
    model = lowbit.prepare(networks.residual_network(), HOW)
    pixels = np.zeros((2, networks.SIDE, networks.SIDE, 3), np.uint8)
    boxes = [{"boxes": np.zeros((1, 4)), "labels": np.zeros(1, np.int64)}] * 2
    for labels in (boxes, np.zeros((2, 4, 4), np.int64)):
        with pytest.raises(DataError, match="only the middle of each image"):
            lowbit.open_data(pixels, model, labels=labels)
    assert lowbit.open_data(pixels, model, labels=[0, 1]).count == 2


def test_the_middle_is_taken_of_files_also_for_a_file_that_takes_bytes(tmp_path):
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    middle = np.asarray(Image.fromarray(pixels[2:38, 14:50]).resize((16, 16), Image.Resampling.BILINEAR))
    model = lowbit.prepare(networks.residual_network(), HOW)
    (batch,) = lowbit.open_data(tmp_path / "images", model).batches(2)
    np.testing.assert_array_equal(batch.x[0], HOW.apply(middle))
    form = lowbit.FileForm(input="uint8")
    lowbit.quantize(model, "int8", calibration=networks.inputs(8), steps=[]).save(tmp_path / "bytes.onnx", form)
    images = lowbit.open_images(tmp_path / "images", HOW)
    (batch,) = as_taken(images, tmp_path / "bytes.onnx").batches(2)
    np.testing.assert_array_equal(batch.x[0], middle)
