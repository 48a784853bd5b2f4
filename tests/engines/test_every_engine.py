"""What every engine of the table must do, whatever its row."""

import sys

import numpy as np
import pytest

import lowbit
import networks
from graphs import relative_error
from lowbit.engines import ENGINES, chosen_engines, engine_version, installed_engines, open_session
from lowbit.errors import EngineError, LowbitError

pytestmark = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def quantized():
    images = lowbit.open_images(list(networks.inputs(16)), None)
    return lowbit.quantize(lowbit.load(networks.residual_network()), "int8", calibration=images, effort="fast")


@pytest.fixture
def content(quantized, engine):
    """The file that is made for the engine."""
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed")
    return quantized.to_bytes(lowbit.FileForm(ENGINES[engine].integer_file.to))


def test_it_runs_the_file_that_is_made_for_it(quantized, engine, content):
    x = networks.inputs(5, seed=9)
    session = open_session(content, engine=engine, threads=1)
    assert (session.engine, session.input_names, session.output_names) == (engine, ("x",), ("logits",))
    exact = open_session(quantized.model.to_bytes(), threads=1).run({"x": x})["logits"]
    found = session.run({"x": x})
    assert set(found) == {"logits"}
    assert found["logits"].dtype == np.float32
    assert relative_error(found["logits"], exact) < 0.1
    np.testing.assert_array_equal(session.run({"x": x})["logits"], found["logits"])
    for image in range(len(x)):  # any batch
        one = session.run({"x": x[image : image + 1]})["logits"]
        np.testing.assert_allclose(one[0], found["logits"][image], atol=1e-5)


def test_it_says_its_version_and_answers_to_its_name(engine, content):
    assert engine_version(engine)[0].isdigit()
    assert chosen_engines(f" {engine}, {engine}") == (engine,)
    assert engine in chosen_engines("auto")


def test_what_it_cannot_open_or_run_is_an_error_of_ours(engine, content):
    with pytest.raises(LowbitError):
        open_session(b"no model at all", engine=engine)
    with pytest.raises(LowbitError):
        open_session(content[: len(content) // 2], engine=engine)
    session = open_session(content, engine=engine, threads=1)
    with pytest.raises(EngineError):
        session.run({"x": np.zeros((1, 3, 5, 7), np.float32)})


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, engine):
    monkeypatch.setitem(sys.modules, ENGINES[engine].package, None)
    with pytest.raises(EngineError, match="is not installed") as caught:
        engine_version(engine)
    assert "pip install" in caught.value.remedy


def test_a_package_that_is_there_and_broken_is_not_called_missing(monkeypatch, engine):
    def broken(name, *_):
        raise ImportError("libfoo.so: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(EngineError, match=r"cannot be imported: libfoo\.so"):
        engine_version(engine)
