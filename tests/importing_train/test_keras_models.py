"""Keras models and files: what Keras predicts is the truth."""

import os
import sys

import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras", reason="keras is not installed")

from answers import assert_same  # noqa: E402

from lowbit import load, quantize  # noqa: E402
from lowbit.errors import ModelError  # noqa: E402
from lowbit.formats.opening import opened  # noqa: E402
from lowbit.quantization.planning.deciding import plan  # noqa: E402
from lowbit.quantization.planning.recipes import parse_recipe  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")
L = keras.layers


def classifier(activation="softmax"):
    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3), name="image")
    y = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    y = L.BatchNormalization(name="stem_norm")(y)
    y = L.ReLU(6.0)(y)
    z = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(y)
    z = L.BatchNormalization()(z)
    z = L.Add()([L.ReLU(6.0)(z), y])
    z = L.GlobalAveragePooling2D()(z)
    z = L.Dropout(0.2)(z)
    model = keras.Model(x, L.Dense(3, activation=activation, name="head")(z))
    for norm in (layer for layer in model.layers if isinstance(layer, L.BatchNormalization)):
        norm.set_weights([np.linspace(0.5, 1.5, 8), np.linspace(-1, 1, 8), np.linspace(-1, 1, 8), np.full(8, 0.5)])
    return model


def detector():
    x = keras.Input((12, 15, 3))
    y = L.Rescaling(1 / 127.5, offset=-1)(x)
    y = L.SeparableConv2D(6, 3, padding="same", activation="swish")(y)
    y = L.MaxPooling2D(3, 2, padding="same")(y)
    y = L.Conv2DTranspose(4, 3, strides=2, padding="same")(y)
    y = L.Concatenate()([y, L.UpSampling2D(2, interpolation="bilinear")(L.AveragePooling2D(2, padding="same")(y))])
    y = L.Conv2D(5, 3, dilation_rate=2, padding="same", activation="gelu")(L.ZeroPadding2D(1)(y))
    return keras.Model(x, y)


def attention():
    x = keras.Input((8, 8, 4))
    y = L.Reshape((64, 4))(L.Conv2D(4, 1)(x))
    y = L.MultiHeadAttention(2, 4)(y, y)
    return keras.Model(x, L.Dense(2)(L.GlobalMaxPooling1D()(y)))


def recurrent():
    x = keras.Input((6, 4))
    return keras.Model(x, L.GRU(3)(L.LSTM(5, return_sequences=True)(x)))


def two_inputs():
    image, more = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="more")
    y = L.Concatenate()([L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(image)), more])
    return keras.Model({"image": image, "more": more}, [L.Dense(2, name="one")(y), L.Dense(3, name="two")(y)])


MODELS = {"classifier": classifier, "detector": detector, "attention": attention, "recurrent": recurrent}
MODELS |= {
    "sequential": lambda: keras.Sequential([L.Input((9, 3)), L.Conv1D(4, 3, padding="causal"), L.Flatten(), L.Dense(2)])
}


def predicted(model, x):
    outputs = keras.tree.flatten(model(x, training=False))
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_predicts_what_keras_predicts(name, capfd):
    model = MODELS[name]()
    x = normal(5, *model.inputs[0].shape[1:])
    loaded = load(model)
    assert loaded.input.shape == ("batch", *model.inputs[0].shape[1:])
    assert_same(loaded, [x], predicted(model, x))
    assert capfd.readouterr().out == ""


def test_several_inputs_and_outputs_keep_their_names():
    model = two_inputs()
    loaded = load(model)
    assert [info.name for info in loaded.inputs] == ["image", "more"]
    assert [info.name for info in loaded.outputs] == ["one", "two"]
    image, more = normal(3, 8, 8, 3), normal(3, 4)
    assert_same(loaded, [image, more], predicted(model, {"image": image, "more": more}))


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_file_is_the_model(ending, tmp_path):
    model = classifier()
    path = tmp_path / f"model{ending}"
    model.save(path)
    loaded = load(path)
    assert loaded.source == str(path)
    x = normal(4, 16, 16, 3)
    assert_same(loaded, [x], predicted(model, x))
    # Opened again, in the form that `measure` times, it is the same one.
    assert load(opened(path, tmp_path)).to_bytes() == loaded.to_bytes()


def test_layers_have_their_names_and_quantize_as_those_of_other_exporters():
    model = classifier()
    loaded = load(model)
    assert [node.op_type for node in loaded.graph] == [
        *("Transpose", "Conv", "Clip", "Conv", "Clip", "Add", "ReduceMean", "Gemm", "Softmax")
    ]
    assert [node.name for node in loaded.graph if node.op_type in ("Conv", "Gemm")] == ["stem", "depthwise", "head"]
    assert loaded.trained_parameters == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    decided = plan(loaded, parse_recipe("int8"), with_images=True)
    integer = {node.node for node in decided.nodes if node.arithmetic == "integer"}
    assert {"stem", "depthwise", "head"} <= integer
    quantized = quantize(loaded, "int8", rules=["head=linear8"], calibration={"image": normal(32, 16, 16, 3)})
    assert_close_enough(quantized, model)


def assert_close_enough(quantized, model):
    from lowbit.engines import open_session

    x = normal(8, 16, 16, 3)
    (wanted,) = predicted(model, x)
    (found,) = open_session(quantized.to_bytes()).run({"image": x}).values()
    assert np.abs(found - wanted).max() < 0.05


def test_a_layer_that_keras_own_export_does_not_know_comes_in(capfd):
    x = keras.Input((6, 5, 3))
    y = L.LayerNormalization()(
        L.Cropping2D(1)(L.ZeroPadding2D(1)(L.Conv2DTranspose(4, 3, strides=2, padding="same")(x)))
    )
    model = keras.Model(x, y)
    data = normal(3, 6, 5, 3)
    assert_same(load(model), [data], predicted(model, data))
    assert capfd.readouterr().out == ""


def test_open_sizes_must_be_said():
    x = keras.Input((None, None, 3), name="image")
    model = keras.Model(x, L.GlobalAveragePooling2D()(L.Conv2D(4, 3, strides=2, padding="same")(x)))
    with pytest.raises(ModelError, match=r"input 'image' is \?x\?x\?x3.*--input-size=-x224x224x3"):
        load(model)
    loaded = load(model, input_sizes={"": (None, 9, 7, 3)})
    assert loaded.input.shape == ("batch", 9, 7, 3)
    data = normal(2, 9, 7, 3)
    assert_same(loaded, [data], predicted(model, data))


def test_a_class_of_ones_own_needs_an_example():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = L.Conv2D(4, 3)

        def call(self, x):
            return keras.ops.mean(self.layer(x), axis=(1, 2))

    model, data = Own(), normal(3, 8, 8, 3)
    with pytest.raises(ModelError, match=r"needs an example input.*example=numpy\.zeros"):
        load(model)
    assert_same(load(model, example=normal(1, 8, 8, 3)), [data], predicted(model, data))


def test_code_in_a_file_is_not_run(tmp_path):
    ran = []
    model = keras.Sequential([L.Input((4,)), L.Lambda(lambda x: (ran.append(1), x)[1]), L.Dense(2)])
    model(normal(1, 4))
    for ending in (".keras", ".h5"):
        path = tmp_path / f"lambda{ending}"
        model.save(path)
        ran.clear()
        with pytest.raises(ModelError, match=r"holds code of its own \(a Lambda layer\), which lowbit does not run"):
            load(path)
        assert not ran


def test_what_is_no_model_is_said(tmp_path):
    weights = tmp_path / "net.weights.h5"
    classifier().save_weights(weights)
    with pytest.raises(ModelError, match=r"holds weights only.*model\.load_weights"):
        load(weights)
    renamed = tmp_path / "net.h5"
    renamed.write_bytes(weights.read_bytes())
    with pytest.raises(ModelError, match="holds weights only"):
        load(renamed)
    for content in (b"", b"PK\x03\x04 cut", bytes(range(256))):
        broken = tmp_path / "broken.keras"
        broken.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.keras: Keras could not load it"):
            load(broken)

    @keras.saving.register_keras_serializable("tests")
    class Unknown(L.Layer):
        def call(self, x):
            return x

    path = tmp_path / "own.keras"
    keras.Sequential([L.Input((4,)), Unknown(), L.Dense(2)]).save(path)
    keras.saving.get_custom_objects().clear()
    with pytest.raises(ModelError, match=r"has a layer that Keras does not know.*give lowbit.load the keras.Model"):
        load(path)


def test_on_another_backend_another_process_exports(monkeypatch):
    model = classifier()
    wanted = load(model)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    found = load(model)
    assert found.to_bytes() == wanted.to_bytes()

    class Own(L.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, x):
            return self.factor * x

    own = keras.Sequential([L.Input((4,)), Own(2), L.Dense(2)])
    with pytest.raises(ModelError, match=r"Keras runs on jax.*KERAS_BACKEND=torch before keras"):
        load(own)


def test_without_keras(monkeypatch, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"PK\x03\x04")
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs the package 'keras'.*pip install 'lowbit\[keras\]'"):
        load(path)
