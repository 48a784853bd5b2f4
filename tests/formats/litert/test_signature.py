"""Inputs and outputs of .tflite files are called by their names, through the signature `serving_default`."""

import numpy as np
import pytest

import lowbit
import many_inputs
import networks
from lowbit import FileForm

interpreter = pytest.importorskip("ai_edge_litert.interpreter")


def runner(content):
    runtime = interpreter.Interpreter(model_content=content)
    (key,) = runtime.get_signature_list()
    assert key == "serving_default"
    return runtime, runtime.get_signature_runner()


@pytest.mark.parametrize("kind", ["float32", "int8", "uint8"])
def test_one_input_by_name_a_batch_at_a_time(kind):
    model = lowbit.load(networks.residual_network(first=16))
    made = lowbit.quantize(model, "int8", calibration=list(networks.inputs(16)), steps=())
    content = made.to_bytes(FileForm("litert", output_type=kind))
    runtime, run = runner(content)
    assert runtime.get_signature_list() == {"serving_default": {"inputs": ["x"], "outputs": ["logits"]}}
    batch = networks.inputs(16)[:3]
    given = run(x=np.ascontiguousarray(batch.transpose(0, 2, 3, 1)))["logits"]
    assert given.dtype == np.dtype(kind)
    if kind == "float32":
        wanted = lowbit.open_session(content, engine="litert").run({"x": batch})["logits"]
        np.testing.assert_array_equal(given, wanted)


def test_several_inputs_in_any_order():
    case = many_inputs.two_images()
    model = lowbit.load(case.model)
    content = lowbit.quantize(model, "linear8", steps=()).to_bytes(FileForm("litert"))
    runtime, run = runner(content)
    assert sorted(runtime.get_signature_list()["serving_default"]["inputs"]) == ["left", "right"]
    samples = {name: x[:1] for name, x in case.samples(4).items()}
    turned = {name: np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for name, x in samples.items()}
    wanted = lowbit.open_session(content, engine="litert").run(samples)["y"]
    np.testing.assert_allclose(run(right=turned["right"], left=turned["left"])["y"], wanted, atol=1e-6)
    with pytest.raises(ValueError, match=r"(?i)argument|input"):
        run(left=turned["left"])


def test_the_names_are_stored_once():
    """A signature costs its tables: some 100 bytes, whatever the names are."""
    model = lowbit.load(networks.residual_network(first=16))
    name = "a_very_long_name_" * 8
    model.graph.inputs[0].name = name
    content = lowbit.quantize(lowbit.load(model.to_bytes()), "linear8", steps=()).to_bytes(FileForm("litert"))
    assert content.count(name.encode()) == 2  # of the tensor and the signature together, and in the metadata
