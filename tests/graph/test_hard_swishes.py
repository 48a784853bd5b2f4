"""A hard swish in pieces, as exporters have written it, is the one operator once a network is loaded."""

import numpy as np
import pytest
from graph_models import assert_close, normal, run

from graphs import make
from lowbit import load

NUMBERS = {"zero": 0.0, "three": 3.0, "six": 6.0, "sixth": 1 / 6, "five": 5.0}
SHIFT, CLIP = ("Add", ["c", "three"], ["a"], {}), ("Clip", ["a", "zero", "six"], ["g"], {})
# The nodes behind a convolution that gives c.
FORMS = {
    "divided at the end": [SHIFT, CLIP, ("Mul", ["c", "g"], ["m"], {}), ("Div", ["m", "six"], ["s"], {})],
    "a factor at the end": [SHIFT, CLIP, ("Mul", ["g", "c"], ["m"], {}), ("Mul", ["sixth", "m"], ["s"], {})],
    "a gate that is divided": [SHIFT, CLIP, ("Div", ["g", "six"], ["d"], {}), ("Mul", ["c", "d"], ["s"], {})],
    "a gate with a factor": [SHIFT, CLIP, ("Mul", ["g", "sixth"], ["d"], {}), ("Mul", ["d", "c"], ["s"], {})],
    "an input with a factor": [SHIFT, CLIP, ("Mul", ["c", "sixth"], ["d"], {}), ("Mul", ["d", "g"], ["s"], {})],
    "the sum turned": [("Add", ["three", "c"], ["a"], {}), CLIP, ("Mul", ["c", "g"], ["m"], {}),
                       ("Div", ["m", "six"], ["s"], {})],
    "a hard sigmoid": [("HardSigmoid", ["c"], ["g"], {"alpha": 1 / 6}), ("Mul", ["c", "g"], ["s"], {})],
}  # fmt: skip
OTHERS = {
    "another factor": [SHIFT, CLIP, ("Mul", ["c", "g"], ["m"], {}), ("Div", ["m", "five"], ["s"], {})],
    "another shift": [("Add", ["c", "five"], ["a"], {}), CLIP, ("Mul", ["c", "g"], ["m"], {}),
                      ("Div", ["m", "six"], ["s"], {})],
    "another bound": [SHIFT, ("Clip", ["a", "zero", "five"], ["g"], {}), ("Mul", ["c", "g"], ["m"], {}),
                      ("Div", ["m", "six"], ["s"], {})],
    "a gate of something else": [("Neg", ["c"], ["n"], {}), SHIFT, CLIP, ("Mul", ["n", "g"], ["m"], {}),
                                 ("Div", ["m", "six"], ["s"], {})],
    "six divided by it": [SHIFT, CLIP, ("Mul", ["c", "g"], ["m"], {}), ("Add", ["m", "three"], ["k"], {}),
                          ("Div", ["six", "k"], ["s"], {})],
    "a steeper hard sigmoid": [("HardSigmoid", ["c"], ["g"], {}), ("Mul", ["c", "g"], ["s"], {})],
}  # fmt: skip


def network(nodes, opset):
    numbers = {name: np.float32(number) for name, number in NUMBERS.items()}
    weights = {"w": 3 * normal(1, 4, 3, 3, 3), "v": normal(2, 2, 4, 1, 1), **numbers}
    ends = [("Conv", ["x", "w"], ["c"], {}), *nodes, ("Conv", ["s", "v"], ["y"], {})]
    return make(ends, {"x": ["n", 3, 8, 8]}, ["y"], weights, opset=opset)


def loaded(nodes, opset):
    proto = network(nodes, opset)
    model = load(proto)
    x = normal(3, 2, 3, 8, 8)
    assert_close(run(model.to_bytes(), {"x": x})[0], run(proto, {"x": x})[0])
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("form", FORMS)
def test_its_pieces_are_one_operator(form, opset):
    assert loaded(FORMS[form], opset) == ["Conv", "HardSwish", "Conv"]


@pytest.mark.parametrize("other", OTHERS)
def test_what_only_looks_like_it_stays(other):
    assert "HardSwish" not in loaded(OTHERS[other], 17)
