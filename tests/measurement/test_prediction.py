"""Predictions come out in order whatever the batch, and shapes that are no classifier's are refused."""

import numpy as np
import onnx
import pytest
from onnx import helper

from lowbit.data.dataset import Batch
from lowbit.errors import DataError, EngineError
from lowbit.graph.preprocessing import Preprocessing
from lowbit.measurement.examples import changed_images, examples, thumbnail
from lowbit.measurement.prediction import Prediction, Runs, predict
from lowbit.reports.figures import _is_png

PLAIN = Preprocessing(4, 4, channels=1, mean=(0.0,), std=(1.0,))


def test_batches_do_not_change_the_answer(small, pictures):
    whole = predict(small, pictures, runs=Runs(10))
    parts = predict(small.read_bytes(), pictures, runs=Runs(3))
    assert whole.logits.shape == (10, 3)
    assert whole.logits.dtype == np.float32
    np.testing.assert_allclose(whole.logits, parts.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(whole.labels, pictures.labels)


def test_without_labels_and_without_images(small, pictures):
    bare = type(pictures)(pictures.x)
    assert predict(small, bare).labels is None
    with pytest.raises(DataError, match="no images"):
        predict(small, type(pictures)(pictures.x[:0]))


def reshaped(small, name, shape):
    """The same model with its outputs reshaped."""
    model = onnx.load(small)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), "shape"))
    model.graph.node.append(helper.make_node("Reshape", ["logits", "shape"], [name]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return model.SerializeToString()


def test_trailing_axes_of_one_are_dropped(small, pictures):
    out = predict(reshaped(small, "out", [0, 3, 1, 1]), pictures)
    np.testing.assert_array_equal(out.logits, predict(small, pictures).logits)


def test_rows_of_all_samples_are_dealt_out_to_them(small, pictures):
    out = predict(reshaped(small, "out", [-1]), pictures, runs=Runs(4))
    np.testing.assert_allclose(out.logits, predict(small, pictures).logits, rtol=1e-5, atol=1e-6)


def test_what_is_no_row_of_classes_is_kept_and_not_taken_for_one(small, pictures):
    answers = predict(reshaped(small, "out", [0, 1, 3]), pictures)
    assert answers.outputs["out"].shape == (10, 1, 3)
    with pytest.raises(DataError, match="no output is \\[samples, classes\\]: 'out' has \\[1, 3\\] for each sample"):
        _ = answers.logits


def test_outputs_that_mix_samples_are_refused(small, pictures):
    with pytest.raises(DataError, match="'out' was left out: it has not as much for each sample"):
        predict(reshaped(small, "out", [3, -1]), pictures)


def test_wrong_images_are_an_error_of_the_engine(small, pictures):
    with pytest.raises(EngineError):
        predict(small, type(pictures)(np.zeros((2, 1, 5, 5), np.float32)))


def test_examples_show_first_what_float_alone_got_right(pictures):
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    before = Prediction(np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 1, 1, 0, 0, 2, 2]], labels)
    after = Prediction(np.eye(3, dtype=np.float32)[[0, 1, 0, 2, 0, 1, 0, 1, 2, 0]], labels)
    # changed: 1 4 9 (float alone right), 3 (both wrong), 2 7 (the other alone right)
    assert changed_images(before, after) == (1, 4, 9, 3, 2, 7)
    assert changed_images(before, after, limit=2) == (1, 4)
    (shown,) = examples(before, [after], pictures, PLAIN, class_names=("a", "b"))
    assert [e.image for e in shown] == [1, 4, 9, 3, 2, 7]
    assert (shown[0].label, shown[0].float_class, shown[0].quantized_class) == ("a", "a", "b")
    assert shown[2].float_class == "2"  # no name: its number
    assert all(_is_png(e.thumbnail) for e in shown)
    assert examples(before, [before], pictures, PLAIN) == ((),)


def test_thumbnails_take_the_normalization_back():
    import base64
    import io

    from PIL import Image

    image = np.full((8, 8, 3), (10, 120, 250), np.float64)
    with Image.open(io.BytesIO(base64.b64decode(thumbnail(image)))) as picture:
        assert picture.convert("RGB").getpixel((3, 3)) == (10, 120, 250)
    x = (image / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]

    class One:
        count = 1

        def batches(self, size, limit):
            yield Batch({"x": np.moveaxis(x, -1, 0)[None].astype(np.float32)}, None, np.arange(1))

    a, b = (Prediction(np.eye(2, dtype=np.float32)[[i]]) for i in (0, 1))
    for colors, wanted in (("RGB", image), ("BGR", image[..., ::-1])):
        how = Preprocessing(8, 8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), colors=colors)
        ((shown,),) = examples(a, [b], One(), how)
        assert shown.thumbnail == thumbnail(wanted)
