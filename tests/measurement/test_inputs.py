"""Files that take bytes are fed bytes, beside files that take floats."""

import dataclasses

import numpy as np
import pytest

import lowbit
import networks
from lowbit.errors import DataError
from lowbit.formats.input_bytes import with_byte_input
from lowbit.formats.onnx.write import to_onnx
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.inputs import as_taken, first_batch
from lowbit.measurement.measure import measure
from lowbit.measurement.prediction import Runs, predict

HOW = Preprocessing(networks.SIDE, networks.SIDE, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, size=(10, networks.SIDE, networks.SIDE, 3), dtype=np.uint8)
    return lowbit.open_images((pixels, np.arange(10) % networks.CLASSES), HOW)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model = dataclasses.replace(lowbit.load(networks.residual_network()), preprocessing=HOW)
    encoded = lowbit.quantize(model, "float").graph
    (folder / "float.onnx").write_bytes(to_onnx(encoded))
    for layout in ("NHWC", "NCHW"):
        (folder / f"{layout}.onnx").write_bytes(to_onnx(with_byte_input(encoded, layout=layout)))
    return [folder / f"{name}.onnx" for name in ("float", "NHWC", "NCHW")]


def test_each_file_gets_what_it_takes(files, images):
    assert as_taken(images, files[0]) is images
    shapes = [(x.dtype.name, x.shape) for file in files for x in first_batch(as_taken(images, file), 4).values()]
    assert shapes == [("float32", (4, 3, 16, 16)), ("uint8", (4, 16, 16, 3)), ("uint8", (4, 3, 16, 16))]
    (first,) = first_batch(as_taken(images, files[1]), 12).values()
    assert first.shape[0] == 12
    np.testing.assert_array_equal(first[10], first[0])
    np.testing.assert_array_equal(first[3], images.image(3))


def test_predictions_are_the_same(files, images):
    expected, *others = (predict(file, images, runs=Runs(3)).logits for file in files)
    for found in others:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("quick_measuring")
def test_floats_and_bytes_stand_in_one_table(files, images):
    rows = measure(files, images, conditions=Conditions(runs=2, with_memory=False)).rows
    assert [row.kl for row in rows[1:]] == [0.0, 0.0]
    assert all(row.latency_ms > 0 for row in rows)


def test_memory_is_that_of_a_file_that_takes_bytes(files, images):
    (row,) = measure(files[1:2], images, conditions=Conditions(runs=0)).rows
    assert row.peak_memory_bytes > 0


def test_normalized_arrays_are_no_images(files):
    floats = lowbit.open_images(list(networks.inputs(4)), None)
    with pytest.raises(DataError, match="takes image bytes"):
        predict(files[1], floats)
