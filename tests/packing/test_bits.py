"""Packed bits: exact inverse, the documented layout by hand, and ONNX's own Div and Mod as an oracle."""

import hypothesis.strategies as st
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from onnx import TensorProto

from graphs import make, make_node
from lowbit.errors import SchemeError
from lowbit.packing.bits import pack, packed_bytes, plane_bytes, planes, unpack


def draw(bits: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.uint16 if bits > 8 else np.uint8)


@settings(max_examples=50)
@given(st.integers(1, 16), st.data())
def test_unpack_inverts_pack(bits: int, data: st.DataObject) -> None:
    codes = np.array(data.draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=70)), np.uint16)
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (packed_bytes(bits, codes.size),)
    assert codes.size * bits / 8 <= packed.size < codes.size * bits / 8 + len(planes(bits))
    back = unpack(packed, bits, codes.size)
    assert back.dtype == (np.uint16 if bits > 8 else np.uint8)
    np.testing.assert_array_equal(back, codes)


def test_the_layout_by_hand() -> None:
    assert pack(np.uint8([1, 2, 3, 0, 2]), 2).tolist() == [0b00_11_10_01, 0b10]
    assert pack(np.uint8([1, 15, 7]), 4).tolist() == [0xF1, 0x07]
    assert pack(np.uint8([1, 0, 0, 0, 0, 0, 0, 1, 1]), 1).tolist() == [0x81, 0x01]
    assert pack(np.uint8([0b110, 0b001]), 3).tolist() == [0b0110, 0b01], "low two bits, then the high one"
    assert pack(np.uint16([0xABC, 0x123]), 12).tolist() == [0xBC, 0x23, 0x1A]
    assert pack(np.uint16([0x1234]), 16).tolist() == [0x34, 0x12]


def test_planes() -> None:
    assert [planes(bits) for bits in (1, 2, 3, 4, 5, 6, 7, 8)] == [
        (1,),
        (2,),
        (2, 1),
        (4,),
        (4, 1),
        (4, 2),
        (4, 2, 1),
        (8,),
    ]
    assert planes(9) == (8, 1)
    assert planes(15) == (8, 4, 2, 1)
    assert planes(16) == (16,)


@pytest.mark.parametrize("bits", range(1, 16))
@pytest.mark.parametrize("count", [1, 16, 37])
def test_div_and_mod_of_onnx_unpack_it(bits: int, count: int) -> None:
    codes = draw(bits, count, bits)
    packed = pack(codes, bits)
    nodes, parts = [], []
    weights: dict = {"start": [0], "count": [count], "column": [-1, 1], "flat": [-1]}
    start = shift = 0
    for at, width in enumerate(planes(bits)):
        size = plane_bytes(width, count)
        weights[f"bytes{at}"] = packed[start : start + size]
        weights[f"divisors{at}"] = np.array([1 << i for i in range(0, 8, width)], np.int32)
        weights[f"modulus{at}"] = np.int32(1 << width)
        weights[f"place{at}"] = np.int32(1 << shift)
        nodes += [
            make_node("Cast", f"bytes{at}", f"int{at}", to=TensorProto.INT32),
            make_node("Reshape", f"int{at} column", f"column{at}"),
            make_node("Div", f"column{at} divisors{at}", f"fields{at}"),
            make_node("Mod", f"fields{at} modulus{at}", f"parts{at}"),
            make_node("Reshape", f"parts{at} flat", f"flat{at}"),
            make_node("Slice", f"flat{at} start count", f"slice{at}"),
            make_node("Mul", f"slice{at} place{at}", f"placed{at}"),
        ]
        parts.append(f"placed{at}")
        start, shift = start + size, shift + width
    assert start == packed.size
    nodes.append(make_node("Identity", parts[0], "sum0"))
    for at, part in enumerate(parts[1:], start=1):
        nodes.append(make_node("Add", f"sum{at - 1} {part}", f"sum{at}"))
    last = f"sum{len(parts) - 1}"
    model = make(nodes, {}, {last: [count]}, weights, opset=13, types={last: TensorProto.INT32})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {})[0], codes)


def test_refusals() -> None:
    for bits in (0, 17):
        with pytest.raises(SchemeError, match="1 to 16 bits"):
            planes(bits)
    with pytest.raises(SchemeError, match="below 4"):
        pack(np.uint8([4]), 2)
    with pytest.raises(SchemeError, match="unsigned"):
        pack(np.array([1]), 2)
    for packed, count in ((np.zeros(2, np.uint8), 4), (np.zeros(1, np.uint8), 5), (np.zeros(1, np.int8), 4)):
        with pytest.raises(SchemeError, match="bytes"):
            unpack(packed, 2, count)
    with pytest.raises(SchemeError, match="bytes"):
        unpack(np.zeros(0, np.uint8), 2, -1)
