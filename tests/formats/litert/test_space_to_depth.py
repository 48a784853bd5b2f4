import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import litert_cases as cases
from lowbit.engines import open_session
from lowbit.engines.litert_reader import read_litert
from lowbit.errors import ModelError
from lowbit.formats.litert.ledger import litert_layer_weights, read_litert_ledger
from lowbit.formats.litert.space_to_depth import grouped
from lowbit.formats.litert.window import Window
from lowbit.formats.litert.write import to_litert
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.quantization.quantize import quantize

pytest.importorskip("ai_edge_litert")

NEVER = 1  # kernels that take one channel at a time gain nothing


def strided(rng, *, channels, kernel, stride, pads, size):
    attributes = {"strides": [stride, stride], "pads": pads}
    return cases.make(
        [("Conv", ["x", "w", "b"], ["y"], attributes)],
        ["n", channels, *size],
        cases.conv(rng, channels, 16, kernel),
    )


def shapes(content):
    graph = read_litert(content, "test").graphs[0]
    operator = next(operator for operator in graph.operators if operator.code == 3)
    return [graph.tensors[index].shape for index in operator.inputs[:2]]


def answer(content, x):
    return open_session(content, engine="litert", threads=1).run({"x": x})["y"]


@settings(max_examples=40)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_pixels_taken_together_give_the_same_bits(tmp_path_factory, data, seed):
    rng = np.random.default_rng(seed)
    kernel = [data.draw(st.integers(1, 7)) for _ in range(2)]
    stride = data.draw(st.integers(2, 4))
    pads = [data.draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    size = (data.draw(st.integers(7, 12)), stride * data.draw(st.integers(-(-7 // stride), 6)))
    model = strided(rng, channels=data.draw(st.integers(1, 4)), kernel=kernel, stride=stride, pads=pads, size=size)
    encoded = cases.integer(model, rng)
    x = cases.inputs(model, rng, 3)
    together, apart = to_litert(encoded), to_litert(encoded, lanes=NEVER)
    np.testing.assert_array_equal(answer(together, x), answer(apart, x))
    folder = tmp_path_factory.mktemp("pixels")
    (folder / "a.tflite").write_bytes(together)
    (folder / "b.tflite").write_bytes(apart)
    found, wanted = litert_layer_weights(folder / "a.tflite"), litert_layer_weights(folder / "b.tflite")
    np.testing.assert_array_equal(found["Conv0"], wanted["Conv0"])
    layers = [read_litert_ledger(folder / name).layers[0] for name in ("a.tflite", "b.tflite")]
    assert layers[0].weights == layers[1].weights == wanted["Conv0"].size


@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "taps"),
    [(3, 2, 3, 2), (7, 2, 3, 4), (4, 4, 3, 1), (16, 16, 3, 1), (3, 2, 1, 2), (3, 2, 8, None), (3, 1, 3, None)],
)
def test_what_is_taken_together(kernel, stride, channels, taps, tmp_path):
    rng = np.random.default_rng(0)
    before = max(0, kernel - stride + 1) // 2
    model = strided(
        rng, channels=channels, kernel=[kernel] * 2, stride=stride, pads=[before] * 4, size=(4 * stride + 8, 8 * stride)
    )
    content = to_litert(cases.integer(model, rng))
    image, weight = shapes(content)
    assert weight[1:] == ((kernel, taps, stride * channels) if taps else (kernel, kernel, channels))
    assert image[3] == weight[3]
    listed = tmp_path / "operators"
    open_session(content, engine="litert", threads=1, optimized_to=listed)
    assert set(listed.read_text().split()) <= {"DELEGATE"}
    # Float kernels need no 8 channels.
    assert shapes(to_litert(QuantizedGraph(model)))[1][3] == channels


def test_only_where_it_saves_products():
    window = Window(extent=3, stride=2, before=1, size=128, outputs=64)
    assert grouped(window, 3, 8) is not None
    # Kernels of 4 channels: 2 taps of 6 channels are 4 steps, 3 taps of 3 are 3.
    assert grouped(window, 3, 4) is None
    assert grouped(dataclasses.replace(window, size=129), 3, 8) is None
    assert grouped(dataclasses.replace(window, stride=1), 3, 8) is None


@pytest.mark.parametrize(("target", "width"), [("x86-vnni", 2), ("arm", 3)])
def test_the_kernels_of_the_target_decide(target, width, tmp_path):
    rng = np.random.default_rng(0)
    model = strided(rng, channels=3, kernel=[3, 3], stride=2, pads=[1] * 4, size=(8, 8))
    images = list(cases.inputs(model, rng, 8))
    path = quantize(model, parse_recipe("int8", target=target), calibration=images, effort="fast").save(
        tmp_path / "a.tflite"
    )
    assert shapes(path.read_bytes())[1][2] == width


@pytest.mark.parametrize("note", ["[4, 1, 3]", "[2, 9, 3]", "[0, 1, 3]", "[2, 1]   ", '"2, 1, 3"'])
def test_a_note_that_does_not_fit_is_refused(note, tmp_path):
    rng = np.random.default_rng(0)
    model = strided(rng, channels=3, kernel=[3, 3], stride=2, pads=[1] * 4, size=(8, 8))
    content = to_litert(cases.integer(model, rng))
    assert b"[2, 1, 3]" in content
    path = tmp_path / "a.tflite"
    path.write_bytes(content.replace(b"[2, 1, 3]", note.encode()))
    with pytest.raises(ModelError, match="does not match"):
        litert_layer_weights(path)
