"""The ledger of three files, each to the last byte, and the bounds beside them."""

import lzma

import numpy as np
import pytest
import zstandard

import lowbit
import networks
from lowbit.errors import ModelError
from lowbit.formats.ledger import NUMBERS
from lowbit.formats.onnx.archive import stored_symbols
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.formats.size_report import sizes
from lowbit.packing.archive import section_bytes
from lowbit.quantization.pack import pack
from lowbit.quantization.rate.allocation import bias_codes


@pytest.fixture(scope="module")
def network():
    return lowbit.load(networks.residual_network(first=32))


@pytest.mark.parametrize("recipe", ["float", "linear4", "cluster3"])
def test_every_column_sums_to_its_file(network, recipe, tmp_path):
    given = network.to_bytes()
    quantized = lowbit.quantize(network, recipe)
    path = quantized.save(tmp_path / "m.onnx")
    content = path.read_bytes()
    packed = pack(path).archive
    found = sizes(content, against=given, coded=True, control=True)
    assert sum(found.raw.values()) == found.float_bytes == len(given)
    assert sum(found.packed.values()) == len(content)
    assert sum(found.coded.values()) == len(packed)
    assert found.controls == {
        "zstd -19": len(zstandard.ZstdCompressor(level=19).compress(given)),
        "xz -9": len(lzma.compress(given, preset=9)),
    }
    sections = section_bytes(packed)
    assert found.coded.get("codes", 0) <= sections["codes"]
    assert found.coded["graph"] == len(packed) - sections["codes"] - sections["numbers"]
    if recipe == "float":
        assert found.fixed_bytes == found.weights == found.entropy_bytes == 0
        assert found.entropy_bits is found.theoretical_ratio is None
        assert found.coded["float_weights"] < found.raw["float_weights"]
    else:
        assert found.raw["codes"] == 4 * found.weights == 4 * found.counts["codes"]
        bits = sum(np.prod(codes.shape) * codes.bits for codes in quantized.graph.weights.values()) / found.weights
        assert int(recipe[-1]) < bits < 8, "8 bits in its depthwise layer"
        assert found.theoretical_ratio == pytest.approx(32 / bits, rel=0.02)
        assert 0 < found.entropy_bits < bits
        assert found.coded["codes"] < found.fixed_bytes
        assert found.coded["scales"] <= found.packed["scales"]


def test_an_archive_is_known_by_its_sections_and_by_kind_if_coded_again(network):
    content = lowbit.quantize(network, "linear4").to_bytes()
    packed = lowbit.formats.onnx.archive.pack(content)
    found = sizes(packed)
    assert sum(found.coded.values()) == len(packed)
    assert set(found.coded) == {"codes", NUMBERS, "graph"}
    again = sizes(packed, coded=True)
    assert {"codes", "scales", "biases", "graph"} <= set(again.coded)
    assert sum(again.coded.values()) == len(packed)
    assert again.packed == found.packed == sizes(content).packed
    assert sizes(content).coded is None


def test_without_the_float_file_raw_is_what_the_numbers_take_and_there_is_no_control(network):
    content = lowbit.quantize(network, "cluster2").to_bytes()
    found = sizes(content)
    assert found.float_bytes is None
    assert found.controls == {}
    assert found.raw == {kind: 4 * count for kind, count in found.counts.items() if kind in found.raw}
    with pytest.raises(ModelError, match="--against FLOAT"):
        sizes(content, control=True)


def test_biases_that_are_codes_count_as_biases(network):
    layer = lowbit.graph.ops.layers(network)[0]
    bias = bias_codes(np.linspace(-1, 1, network.weights[layer.bias].size), 1e-3)
    content = to_onnx(QuantizedGraph(network, weights={layer.bias: bias}))
    found = sizes(content, coded=True)
    assert found.weights == found.entropy_bytes == 0
    assert stored_symbols(content) == {}
    assert found.coded["biases"] < found.raw["biases"]
    assert sum(found.coded.values()) == len(lowbit.formats.onnx.archive.pack(content))
