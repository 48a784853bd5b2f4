"""Linear grids: round trips, edges of float32, and the arithmetic of ONNX as an oracle."""

from itertools import product

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from onnx import TensorProto

from graphs import make, make_node
from lowbit.errors import SchemeError
from lowbit.schemes.linear import Linear, LinearCodes

SCHEMES = [
    Linear(bits, per, symmetric=symmetric, group_size=5 if per == "group" else None)
    for bits, per, symmetric in product((2, 3, 4, 7, 8, 9, 16), ("tensor", "channel", "group"), (True, False))
] + [Linear(4, narrow=False), Linear(2, "group", group_size=3, narrow=False)]
LARGEST = float(np.finfo(np.float32).max)

tensors = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=7),
    elements=st.floats(-LARGEST, LARGEST, width=32)
    | st.floats(-4, 4, width=32)
    | st.floats(-(2.0**-120), 2.0**-120, width=32),
)


def broadcast(codes: LinearCodes, values: np.ndarray) -> np.ndarray:
    """One value a group, for each value of the tensor."""
    blocks = codes.blocks
    return blocks.from_rows(np.broadcast_to(blocks.spread(values), (blocks.rows, blocks.columns)))


@settings(max_examples=50)
@given(tensors, st.sampled_from(SCHEMES), st.data())
def test_any_tensor(x: np.ndarray, scheme: Linear, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    codes = scheme.encode(x, axis)
    low, high = scheme.code_range
    assert codes.codes.shape == x.shape
    assert codes.codes.dtype == scheme.code_dtype
    assert codes.codes.min() >= low
    assert codes.codes.max() <= high
    assert codes.scale.dtype == np.float32
    assert codes.scale.shape == (codes.blocks.count,)
    assert (codes.scale >= np.finfo(np.float32).tiny).all()
    decoded = codes.decode()
    assert decoded.dtype == np.float32
    assert decoded.shape == x.shape
    assert np.isfinite(decoded).all()
    scale = broadcast(codes, codes.scale).astype(np.float64)
    # An affine range moves by up to half a step to have its zero point on the grid, and float32 divides to 24 bits.
    slack = 0.5 + (0.5 if not scheme.symmetric else 0) + 2.0 ** (scheme.bits - 22)
    middle = 0 if codes.zero_point is None else broadcast(codes, codes.zero_point).astype(np.float64)
    # At the end of float32 scales are as large as leaves every code finite, and the extremes clip by up to a step.
    capped = scale * np.maximum(middle - low, high - middle) > LARGEST * (1 - 1e-6)
    assert (np.abs(decoded.astype(np.float64) - x) <= scale * (slack + capped)).all()
    assert (decoded[x == 0] == 0).all()
    again = scheme.encode_with(decoded, codes.scale, zero_point=codes.zero_point, axis=axis)
    np.testing.assert_array_equal(again.codes, codes.codes)
    packed, offset = codes.unsigned()
    assert packed.max() < 1 << scheme.bits
    signed = packed.astype(np.int32) - offset
    back = scheme.from_codes(signed, codes.scale, zero_point=codes.zero_point, axis=axis)
    np.testing.assert_array_equal(back.decode().view(np.uint32), decoded.view(np.uint32))
    assert back.codes.dtype == codes.codes.dtype


def test_symmetric_by_hand() -> None:
    codes = Linear(4).encode(np.array([[7, -3.5, 0.5, 1.5], [0, 0, 0, 0], [-14, 2, 3, 5]], np.float32))
    np.testing.assert_array_equal(codes.scale, np.float32([1, 1, 2]))
    np.testing.assert_array_equal(codes.codes, [[7, -4, 0, 2], [0, 0, 0, 0], [-7, 1, 2, 2]])
    np.testing.assert_array_equal(codes.unsigned()[0][0], [15, 4, 8, 10])
    assert codes.unsigned()[1] == 8


def test_affine_by_hand() -> None:
    codes = Linear(2, "tensor", symmetric=False).encode(np.array([-1, 0, 1, 2], np.float32))
    assert codes.zero_point is not None
    np.testing.assert_array_equal(codes.scale, np.float32([1]))
    np.testing.assert_array_equal(codes.zero_point, [1])
    np.testing.assert_array_equal(codes.codes, [0, 1, 2, 3])
    positive = Linear(8, "tensor", symmetric=False).encode(np.array([5, 10], np.float32))
    assert positive.zero_point is not None
    assert positive.zero_point[0] == 0


def test_the_full_range_uses_its_extra_code() -> None:
    x = np.array([[-8, 7, 3]], np.float32)
    np.testing.assert_array_equal(Linear(4, narrow=False).encode(x).decode(), x)
    assert Linear(4, narrow=False).encode(x).codes.min() == -8
    assert Linear(4).encode(x).codes.min() == -7


def test_a_last_group_may_be_short_and_never_crosses_channels() -> None:
    x = np.array([[1, 2, 4, 8, 16], [7, 7, 7, 7, 7]], np.float32)
    codes = Linear(4, "group", group_size=2).encode(x)
    np.testing.assert_allclose(codes.scale, np.float32([2, 8, 16, 7, 7, 7]) / 7)
    assert codes.blocks.block_counts == (2, 3)
    by_columns = Linear(4, "group", group_size=2).encode(np.ascontiguousarray(x.T), axis=1)
    np.testing.assert_array_equal(by_columns.scale, codes.scale)
    np.testing.assert_array_equal(by_columns.decode(), codes.decode().T)


@pytest.mark.parametrize("value", [1e38, LARGEST, -LARGEST, 1e-38, 1e-42, 1e-45, 0.0, 3.0])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_constant_channels_at_the_edges(value: float, symmetric: bool, bits: int) -> None:
    decoded = Linear(bits, symmetric=symmetric).encode(np.full((3, 4), value, np.float32)).decode()
    np.testing.assert_allclose(decoded, np.float32(value), rtol=1e-6, atol=np.finfo(np.float32).tiny)


def test_the_end_of_float32_clips_rather_than_overflows() -> None:
    for scheme in (Linear(4, narrow=False), Linear(2, narrow=False), Linear(4, symmetric=False)):
        codes = scheme.encode(np.array([3.2e38, -1e38], np.float32))
        every = np.arange(scheme.code_range[0], scheme.code_range[1] + 1)[None].repeat(2, axis=0)
        assert np.isfinite(scheme.from_codes(every, codes.scale, zero_point=codes.zero_point).decode()).all()
    # 7 steps of the largest scale that keeps -8 steps finite
    np.testing.assert_allclose(Linear(4, narrow=False).encode(np.array([3.2e38], np.float32)).decode(), LARGEST * 7 / 8)


def test_sixteen_bits_span_both_ends_of_float32() -> None:
    x = np.array([[-LARGEST, 0, LARGEST]], np.float32)
    for symmetric in (True, False):
        np.testing.assert_allclose(Linear(16, symmetric=symmetric).encode(x).decode(), x, rtol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_onnx_runtime_decodes_the_same_bits(scheme: Linear) -> None:
    rng = np.random.default_rng(7)
    x = (rng.normal(size=(6, 3, 3, 2)) * 10.0 ** rng.integers(-3, 3, (6, 1, 1, 1))).astype(np.float32)
    codes = scheme.encode(x, 0)
    unsigned, offset = codes.unsigned()
    rows = codes.blocks.to_rows(unsigned).astype(np.int32)
    spread = np.broadcast_to(codes.blocks.spread(codes.scale), rows.shape).copy()
    zero = offset if codes.zero_point is None else codes.blocks.spread(codes.zero_point.astype(np.int32))
    constants = {"codes": rows, "zero": np.broadcast_to(np.int32(zero), rows.shape).copy(), "scale": spread}
    nodes = [
        make_node("Sub", "codes zero", "steps"),
        make_node("Cast", "steps", "float", to=TensorProto.FLOAT),
        make_node("Mul", "float scale", "y"),
    ]
    model = make(nodes, {}, {"y": rows.shape}, constants, opset=13)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {})
    np.testing.assert_array_equal(y.view(np.uint32), codes.blocks.to_rows(codes.decode()).view(np.uint32))


def test_encoding_is_quantize_linear() -> None:
    x = np.random.default_rng(1).normal(size=(5, 400)).astype(np.float32)
    codes = Linear(8).encode(x)
    weights = {"scale": codes.scale, "zero": np.zeros(5, np.int8)}
    nodes = [make_node("QuantizeLinear", "x scale zero", "y", axis=0)]
    model = make(nodes, {"x": x.shape}, {"y": x.shape}, weights, opset=13, types={"y": TensorProto.INT8})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], codes.codes)


def test_codes_and_grids_from_elsewhere() -> None:
    scheme = Linear(4)
    codes = scheme.from_codes(np.array([[1, -7], [0, 7]]), np.array([0.5, 2.0]))
    np.testing.assert_array_equal(codes.decode(), np.float32([[0.5, -3.5], [0, 14]]))
    assert codes.codes.dtype == np.int8
    tiny = scheme.encode_with(np.ones((2, 2), np.float32), np.array([1e-45, 1.0]))
    assert tiny.scale[0] == np.finfo(np.float32).tiny
    np.testing.assert_array_equal(tiny.codes, [[7, 7], [1, 1]])


def test_refusals() -> None:
    for bits in (1, 17):
        with pytest.raises(SchemeError, match="2 to 16 bits"):
            Linear(bits)
    for per, size in (("group", None), ("channel", 4), ("group", 0)):
        with pytest.raises(SchemeError, match="group"):
            Linear(4, per, group_size=size)  # type: ignore[arg-type]
    with pytest.raises(SchemeError, match="granularity"):
        Linear(4, "row")  # type: ignore[arg-type]
    with pytest.raises(SchemeError, match="leave out"):
        Linear(4, symmetric=False, narrow=False)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(SchemeError, match="1 of 2 values"):
            Linear(4).encode(np.array([1, bad], np.float32))
    with pytest.raises(SchemeError, match="1 of 2 values"):
        Linear(4).encode(np.array([1, 1e300]))
    with pytest.raises(SchemeError, match="floating-point"):
        Linear(4).encode(np.array([1, 2]))
    with pytest.raises(SchemeError, match="no values"):
        Linear(4).encode(np.zeros((0, 3), np.float32))
    with pytest.raises(SchemeError, match="no axis 2"):
        Linear(4).encode(np.zeros((1, 3), np.float32), 2)
    codes, scale = np.array([[1, 2]]), np.array([1.0])
    with pytest.raises(SchemeError, match=r"in -7\.\.7"):
        Linear(4).from_codes(codes - 9, scale)
    with pytest.raises(SchemeError, match="needs 1 scales"):
        Linear(4).from_codes(codes, np.array([1.0, 2.0]))
    with pytest.raises(SchemeError, match="takes no zero point"):
        Linear(4).from_codes(codes, scale, zero_point=np.array([1]))
    with pytest.raises(SchemeError, match="takes a zero point"):
        Linear(4, symmetric=False).from_codes(codes, scale)
    with pytest.raises(SchemeError, match="zero points of"):
        Linear(4, symmetric=False).from_codes(codes, scale, zero_point=np.array([16]))
    for bad in (0.0, -1.0, np.nan, np.inf, 1e38):
        with pytest.raises(SchemeError, match="scales must be positive"):
            Linear(4).from_codes(codes, np.array([bad]))


@pytest.mark.parametrize("scheme", [Linear(4), Linear(3, symmetric=False), Linear(4, per="group", group_size=5)])
def test_of_several_scales_each_block_takes_the_best(scheme: Linear) -> None:
    x = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    codes = scheme.encode(x)
    choices = [(codes.scale * factor).astype(np.float32) for factor in (1.0, 0.8, 0.9)]
    alone = [codes.rounded_on(x, choice) for choice in choices]
    found = codes.rounded_on(x, *choices)

    def errors(tried: LinearCodes) -> np.ndarray:
        return codes.blocks.reduce(np.add, np.square(codes.blocks.to_rows(tried.decode()) - codes.blocks.to_rows(x)))

    np.testing.assert_array_equal(errors(found), np.min([errors(tried) for tried in alone], axis=0))
