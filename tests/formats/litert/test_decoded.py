"""Codes of LiteRT files as the numbers they stand for, by hand; zero points of each channel, as other tools write."""

import numpy as np
import pytest

from lowbit.engines.litert_reader import read_litert
from lowbit.errors import ModelError
from lowbit.formats.litert.file import FileOperator, FileTensor, serialize
from lowbit.formats.litert.ledger import decoded, litert_layer_weights, read_litert_ledger

pytest.importorskip("ai_edge_litert")

CODES = np.arange(-12, 12, dtype=np.int8).reshape(4, 1, 2, 3)


def written(scale, zeros, axis=0, codes=CODES):
    """A file with a convolution on these codes, each channel with the zero point given."""
    marker = 123456789
    how = {"scale": np.float32(scale), "zero_point": marker, "axis": axis}
    weight = FileTensor(codes.shape, str(codes.dtype), "w", codes, **how)
    x = FileTensor((1, 2, 2, 3), "int8", "x", scale=np.float32([0.5]))
    bias = FileTensor((4,), "int32", "b", np.arange(4, dtype=np.int32), scale=np.float32([0.25]))
    y = FileTensor((1, 2, 1, 4), "int8", "y", scale=np.float32([0.5]))
    operator = FileOperator("CONV_2D", (0, 1, 2), (3,), {"strideH": 1, "strideW": 1}, "Conv2DOptions")
    content = serialize([x, weight, bias, y], [operator], inputs=[0], outputs=[3], metadata={}, source="test")
    marked = np.full(len(scale), marker, np.int64).tobytes()
    assert content.count(marked) == 1
    return content.replace(marked, np.array(zeros, np.int64).tobytes())


def numbers(content):
    file = read_litert(content, "test")
    (tensor,) = (tensor for tensor in file.graphs[0].tensors if tensor.name == "w")
    return decoded(file, tensor, "test")


@pytest.mark.parametrize(
    ("scale", "zeros", "axis"),
    [
        ([0.5], [0], 0),
        ([0.5], [3], 0),
        ([0.5], [3], 3),
        ([0.5, 1, 2, 3], [0, 0, 0, 0], 0),
        ([0.5, 1, 2, 3], [1, -2, 0, 5], 0),
        ([1, 2, 3], [1, -2, 5], 3),
        ([1, 2], [1, 0], 2),
        ([2], [-1], 1),
    ],
)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_each_channel_has_its_scale_and_its_zero_point(scale, zeros, axis, dtype):
    codes = CODES.astype(dtype)
    shape = [-1 if i == axis else 1 for i in range(4)]
    wanted = (codes.astype(float) - np.reshape(zeros, shape)) * np.reshape(scale, shape)
    np.testing.assert_array_equal(numbers(written(scale, zeros, axis, codes)), wanted.astype(np.float32))


def test_zero_points_that_fit_no_scale_are_refused():
    content = written([1, 2, 3], [1, -2, 5], 3)
    # The length of the vector is in front of it.
    zeros = np.array([1, -2, 5], np.int64).tobytes()
    three, two = (np.array(count, np.int32).tobytes() + zeros for count in (3, 2))
    assert content.count(three) == 1
    with pytest.raises(ModelError, match="has 2 zero points for 3 scales"):
        numbers(content.replace(three, two))
    three, one = (np.array(count, np.int32).tobytes() + zeros for count in (3, 1))
    shape = (1, 1, 1, 3)
    wanted = (CODES.astype(np.float32) - 1) * np.float32([1, 2, 3]).reshape(shape)
    np.testing.assert_array_equal(numbers(content.replace(three, one)), wanted)


def test_bytes_counted_by_hand(tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(written([0.5, 1, 2, 3], [1, -2, 0, 5]))
    ledger = read_litert_ledger(path)
    (layer,) = ledger.layers
    assert (layer.node, layer.op, layer.weights) == ("y", "Conv", 24)
    assert (layer.code_bytes, layer.side_bytes) == (24, 4 * 4 + 4 * 8)
    assert layer.bits_per_weight == 8 * (24 + 48) / 24
    # Equal scales and zero points are stored once: those of x and y, the bias's, the weight's.
    assert (ledger.bytes["scales"], ledger.counts["scales"]) == (4 * 6, 6)
    assert (ledger.bytes["zero_points"], ledger.counts["zero_points"]) == (8 * 5, 5)
    assert (ledger.bytes["codes"], ledger.counts["codes"]) == (24, 24)
    assert (ledger.bytes["biases"], ledger.counts["biases"]) == (16, 4)
    assert ledger.bits_per_weight == 8 * (24 + 24 + 40) / 24
    weight = litert_layer_weights(path)["y"]
    assert weight.shape == (4, 3, 1, 2)
    np.testing.assert_array_equal(weight.transpose(0, 2, 3, 1), numbers(path.read_bytes()))
