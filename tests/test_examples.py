"""Every public name has an example in its docstring, and every example runs, in a folder as a user would have it."""

import doctest
import inspect
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import lowbit
import networks

pytestmark = pytest.mark.usefixtures("quick_measuring")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """model.onnx, which says how images become its input; photos/ to calibrate on, test/ to measure on."""
    root = tmp_path_factory.mktemp("user")
    proto = networks.residual_network()
    how = lowbit.Preprocessing(networks.SIDE, networks.SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "lowbit.preprocessing", how.to_json()
    onnx.save(proto, root / "model.onnx")
    generator = np.random.default_rng(0)
    for part in ("photos", "test"):
        for label in range(networks.CLASSES):
            (root / part / f"class{label}").mkdir(parents=True)
            for index in range(2):
                pixels = generator.integers(0, 256, size=(networks.SIDE, networks.SIDE, 3), dtype=np.uint8)
                pixels[0, 0], pixels[0, 1] = 0, 255
                Image.fromarray(pixels).save(root / part / f"class{label}" / f"{index}.png")
    return root


@pytest.mark.parametrize("name", sorted(lowbit.PUBLIC))
def test_the_examples_of_a_public_name_run(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    value = getattr(lowbit, name)
    value = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    known = {"lowbit": lowbit, "np": np, "Path": Path}
    (test,) = doctest.DocTestFinder(recurse=False).find(value, name, module=False, globs=known)
    assert test.examples, f"lowbit.{name} has no example"
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not said, "".join(said)
