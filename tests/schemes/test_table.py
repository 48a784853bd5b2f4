"""What every scheme must do, whatever its row in the table."""

import json

import numpy as np
import pytest

from lowbit.errors import SchemeError
from lowbit.packing.bits import pack, unpack
from lowbit.quantization.solving.schemes import SCHEMES, scheme_from_json, scheme_to_json
from lowbit.schemes.blocks import make_blocks
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.codes import Scheme
from lowbit.schemes.integer_clusters import IntegerClusters
from lowbit.schemes.linear import Linear, LinearCodes

EXAMPLES: list[Scheme] = [
    Linear(8),
    Linear(3, "group", symmetric=False, group_size=16),
    Linear(2, "tensor", narrow=False),
    Linear(13, "tensor", symmetric=False),
    Clusters(4),
    Clusters(7, "channel", half=True),
    Clusters(2, "group", group_size=3),
    Clusters(3, half=True, scaled=True),
    Clusters(2, "group", group_size=2, scaled=True),
    IntegerClusters(3),
    IntegerClusters(2, 63),
]


def test_every_scheme_has_an_example() -> None:
    assert {type(scheme) for scheme in EXAMPLES} == {row.scheme for row in SCHEMES.values()}
    assert len({scheme.name for scheme in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.parametrize("scheme", EXAMPLES, ids=lambda scheme: scheme.name)
def test_json_round_trip(scheme: Scheme) -> None:
    assert scheme_from_json(json.loads(json.dumps(scheme_to_json(scheme)))) == scheme


@pytest.mark.parametrize("scheme", EXAMPLES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("shape", [(), (5,), (7, 4), (8, 3, 3, 3), (4, 1, 3, 3)])
def test_round_trip_through_bytes(scheme: Scheme, shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(2).normal(size=shape), np.float32)
    before = x.copy()
    for axis in range(max(1, len(shape))):
        codes = scheme.encode(x, axis)
        unsigned, offset = codes.unsigned() if isinstance(codes, LinearCodes) else (codes.indices, 0)
        back = unpack(pack(unsigned, scheme.bits), scheme.bits, x.size).reshape(shape)
        stored = codes.codes if hasattr(codes, "codes") else codes.indices
        np.testing.assert_array_equal(back.astype(int) - offset, stored)
        assert codes.shape == shape
        assert codes.decode().shape == shape
        assert codes.scheme == scheme
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("scheme", EXAMPLES, ids=lambda scheme: scheme.name)
def test_what_the_plan_asks(scheme: Scheme) -> None:
    assert 0 < scheme.half_levels < 1 << scheme.bits
    whole = scheme.per_tensor()
    assert (whole.per, whole.bits) == ("tensor", scheme.bits)
    assert (whole == scheme) == (scheme.per == "tensor")


@pytest.mark.parametrize(
    ("scheme", "size"),
    [
        (Linear(8), 270 + 10 * 4 + 130),
        (Linear(3, symmetric=False), 102 + 10 * 8 + 130),
        (Linear(4, "group", group_size=20), 135 + 20 * 4 + 130),
        (Linear(16, "tensor"), 540 + 4 + 130),
        (Clusters(2), 68 + 4 * 4 + 230),
        (Clusters(2, "group", group_size=4, half=True), 68 + 3 * 4 * 2 + 230),
        (Clusters(4, half=True, scaled=True), 135 + (16 + 10) * 2 + 230),
        (IntegerClusters(4), 135 + 16 + 10 * 2 + 230),
    ],
    ids=lambda item: getattr(item, "name", None),
)
def test_stored_bytes_by_hand(scheme: Scheme, size: int) -> None:
    assert scheme.stored_bytes((10, 3, 3, 3), 0) == scheme.stored_bytes((3, 10, 9), 1) == size


@pytest.mark.parametrize("scheme", EXAMPLES, ids=lambda scheme: scheme.name)
def test_encoding_is_deterministic(scheme: Scheme) -> None:
    x = np.random.default_rng(2).normal(size=(6, 50)).astype(np.float32)
    np.testing.assert_array_equal(scheme.encode(x).decode(), scheme.encode(x.copy()).decode())


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "cubic", "bits": 4},
        {"kind": ["linear"], "bits": 4},
        {"kind": "linear"},
        {"kind": "linear", "bits": "4"},
        {"kind": "linear", "bits": True},
        {"kind": "linear", "bits": 99},
        {"kind": "linear", "bits": 4, "symmetric": 1},
        {"kind": "linear", "bits": 4, "per": "galaxy"},
        {"kind": "cluster", "bits": 4, "symmetric": True},
        {"kind": "cluster", "bits": 4, "__class__": "x"},
    ],
)
def test_bad_json_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(SchemeError):
        scheme_from_json(data)


def test_blocks_spread_and_reduce_by_hand() -> None:
    x = np.arange(15.0).reshape(3, 5)
    blocks = make_blocks((3, 5), 0, rows_each=2, columns_each=3)
    assert blocks.block_counts == (2, 2)
    np.testing.assert_array_equal(blocks.reduce(np.add, x), [0 + 1 + 2 + 5 + 6 + 7, 3 + 4 + 8 + 9, 33, 27])
    np.testing.assert_array_equal(
        blocks.spread(np.arange(4))[[0, 1, 2]], [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [2, 2, 2, 3, 3]]
    )
    for axis in range(4):
        tensor = np.arange(120).reshape(2, 3, 4, 5)
        blocks = make_blocks(tensor.shape, axis, rows_each=1, columns_each=None)
        rows = blocks.to_rows(tensor)
        np.testing.assert_array_equal(rows[1], np.take(tensor, 1, axis).ravel())
        np.testing.assert_array_equal(blocks.from_rows(rows), tensor)
        scaled = tensor * np.arange(blocks.count).reshape(blocks.scale_shape)
        np.testing.assert_array_equal(scaled, blocks.from_rows(rows * blocks.spread(np.arange(blocks.count))))
