"""Channels that a network moves about: factors follow each one, or stay 1 where no axis of channels is left."""

import numpy as np
import onnx_ir as ir
import pytest

import lowbit
from graphs import make, make_node, run
from lowbit.engines import open_session
from lowbit.quantization.equalizing.channel_groups import find_channel_groups
from lowbit.quantization.equalizing.equalization import factor_limits, rescaled
from lowbit.quantization.equalizing.movement import MOVES, moved

SIDE, CHANNELS = 6, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)


def between(nodes, constants, *, channels=CHANNELS, batch="n", ends=None):
    """A convolution, `nodes` from `a` to `b`, and a convolution of as many channels; `ends` are further outputs."""
    shapes = {"w": (CHANNELS, 3, 3, 3), "c": (CHANNELS,), "v": (4, channels, 1, 1)}
    weights = {name: RNG.normal(size=shape) for name, shape in shapes.items()}
    first = [make_node("Conv", "x w c", "f", name="first", pads=[1] * 4), make_node("Relu", "f", "a")]
    graph = [*first, *nodes, make_node("Conv", "b v", "y", name="last")]
    outputs = {"y": [batch, 4, None, None]} | (ends or {})
    return lowbit.load(make(graph, {"x": [batch, 3, SIDE, SIDE]}, outputs, weights | constants))


def ints(*values):
    return np.array(values, np.int64)


def shuffle(rows):
    nodes = [
        make_node("Reshape", "a apart", "p"),
        make_node("Transpose", "p", "q", perm=[0, 2, 1, 3, 4]),
        make_node("Reshape", "q together", "b"),
    ]
    return nodes, {"apart": ints(rows, 2, 4, SIDE, SIDE), "together": ints(rows, CHANNELS, SIDE, SIDE)}


def halves_of_the_batch():
    """As ShuffleNetV2 has it: two halves that take turns, laid out along the batch."""
    nodes = [
        make_node("Reshape", "a pairs", "p"),
        make_node("Transpose", "p", "q", perm=[1, 0, 2]),
        make_node("Reshape", "q halves", "r"),
        make_node("Gather", "r zero", "s", axis=0),
        make_node("Gather", "r one", "t", axis=0),
        make_node("Relu", "t", "u"),
        make_node("Concat", "u s", "b", axis=1),
    ]
    return nodes, {
        "pairs": ints(-1, 2, SIDE * SIDE),
        "halves": ints(2, -1, 4, SIDE, SIDE),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
    }


MOVING = {
    "a shuffle": shuffle(0),
    "halves of the batch": halves_of_the_batch(),
    "Split": (
        [make_node("Split", "a sizes", "s t", axis=1), make_node("Concat", "t s", "b", axis=1)],
        {"sizes": ints(3, 5)},
    ),
    "Gather": ([make_node("Gather", "a places", "b", axis=1)], {"places": ints(7, 0, 3, 3, 1, 6, 2, 5)}),
    "Slice": (
        [make_node("Slice", "a starts ends axes steps", "b")],
        {"starts": ints(-1), "ends": ints(-100), "axes": ints(1), "steps": ints(-1)},
    ),
    "Resize": (
        [make_node("Resize", "a  scales", "b", mode="linear")],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "PRelu": ([make_node("PRelu", "a slope", "b")], {"slope": RNG.normal(size=(CHANNELS, 1, 1)).astype(np.float32)}),
}


@pytest.mark.parametrize("name", MOVING)
def test_factors_follow_channels_wherever_they_go(name):
    model = between(*MOVING[name])
    groups = find_channel_groups(model)
    lower, upper = factor_limits(model, groups)
    read = {layer.node: layer.input for layer in groups.layers.values()}["last"]
    assert not groups.fixed[groups.group_of[read]].any()
    changed = rescaled(model, groups, RNG.uniform(-1, 1, len(lower)) * np.where(lower < upper, 1.0, 0.0))
    assert np.ptp(changed.factors[read]) > 0.1
    wanted = run(model.to_bytes(), X)
    np.testing.assert_allclose(run(changed.model.to_bytes(), X), wanted, atol=2e-5 * np.abs(wanted).max())


BLOCKED = {
    "a sum over what is half way": [
        make_node("Reshape", "a apart", "p"),
        make_node("Softmax", "p", "o", axis=1),
        make_node("Reshape", "o together", "b"),
    ],
    "an output of the network half way": [make_node("Reshape", "a apart", "p"), make_node("Relu", "a", "b")],
}


@pytest.mark.parametrize("name", BLOCKED)
def test_what_reads_channels_that_have_no_axis_keeps_their_scale(name):
    ends = {"p": [1, 2, 4, SIDE, SIDE]} if "output" in name else {}
    model = between(BLOCKED[name], shuffle(1)[1], batch=1, ends=ends)
    groups = find_channel_groups(model)
    assert groups.fixed[groups.group_of["a"]].all()
    assert "p" not in groups.group_of


def test_samples_are_not_taken_for_channels():
    """A batch turned into channels: element by element it depends on how many samples there are."""
    nodes = [make_node("Reshape", "a shape", "b")]
    model = between(nodes, {"shape": ints(-1, 2 * CHANNELS, SIDE, SIDE)}, channels=2 * CHANNELS)
    groups = find_channel_groups(model)
    lower, upper = factor_limits(model, groups)
    changed = rescaled(model, groups, RNG.uniform(-1, 1, len(lower)) * np.where(lower < upper, 1.0, 0.0))
    wanted = run(model.to_bytes(), X)
    np.testing.assert_allclose(run(changed.model.to_bytes(), X), wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("op", "shape", "constants", "attributes", "count"),
    [
        ("Reshape", (2, 3, 4), {"i": ints(0, -1)}, {}, 1),
        ("Flatten", (2, 3, 4), {}, {"axis": 2}, 1),
        ("Transpose", (2, 3, 4), {}, {}, 1),
        ("Gather", (2, 3, 4), {"i": ints(-1, 0)}, {"axis": 2}, 1),
        ("Slice", (5, 6), {"i": ints(-9, 4), "j": ints(9, -100), "k": ints(0, 1), "l": ints(2, -1)}, {}, 1),
        ("Split", (2, 7), {"i": ints(3, 4)}, {"axis": 1}, 2),
        ("Split", (2, 8), {}, {"axis": 1}, 2),
        ("Squeeze", (2, 1, 3), {"i": ints(1)}, {}, 1),
        ("Unsqueeze", (2, 3), {"i": ints(0, -1)}, {}, 1),
    ],
)
def test_elements_go_where_the_runtime_moves_them(op, shape, constants, attributes, count):
    x = np.arange(np.prod(shape)).reshape(shape)
    outputs = [f"y{index}" for index in range(count)]
    node = make_node(op, " ".join(["x", *constants]), " ".join(outputs), **attributes)
    proto = make([node], {"x": list(shape)}, dict.fromkeys(outputs), constants, opset=17)
    found = open_session(proto.SerializeToString(), threads=1).run({"x": x.astype(np.float32)})
    (kept,) = ir.from_proto(proto).graph
    given = moved(kept, x)
    assert given is not None
    for name, part in zip(outputs, given, strict=True):
        np.testing.assert_array_equal(part, found[name])


def test_every_move_is_tested_above():
    assert set(MOVES) == {"Reshape", "Flatten", "Transpose", "Gather", "Slice", "Split", "Squeeze", "Unsqueeze"}
