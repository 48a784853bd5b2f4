"""A Keras archive can ask for layers of any size."""

import json
import zipfile

import pytest

import lowbit
from lowbit.errors import ModelError

pytest.importorskip("keras", reason="keras is not installed")


def test_a_keras_archive_of_a_kilobyte_that_asks_for_gigabytes(tmp_path):
    inputs = {"batch_shape": [None, 100_000], "dtype": "float32", "name": "x"}
    dense = {"name": "y", "units": 20_000}
    layers = [
        {"module": "keras.layers", "class_name": name, "config": settings, "registered_name": None}
        for name, settings in (("InputLayer", inputs), ("Dense", dense))
    ]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config | {"registered_name": None}))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.12.0"}))
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ModelError, match="far more memory"):
        lowbit.load(path)
