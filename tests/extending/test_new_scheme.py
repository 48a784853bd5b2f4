"""A new scheme is one file and one row: here powers of two, written and read back with nothing else touched."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

import lowbit
import networks
from lowbit.engines import installed_engines, open_session
from lowbit.errors import ModelError
from lowbit.formats.litert.write import to_litert
from lowbit.formats.onnx.archive import pack, stored_symbols, unpack
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.onnx.write import to_onnx
from lowbit.formats.quantized_graph import QuantizedGraph
from lowbit.graph.ops import layers
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import Recipe
from lowbit.quantization.solving.gptq import gptq
from lowbit.quantization.solving.grids import BookGrid
from lowbit.quantization.solving.schemes import SCHEMES, SchemeRow, scheme_from_json, scheme_to_json
from lowbit.schemes.blocks import Blocks, Granularity, make_blocks


# The file.
@dataclass(frozen=True)
class Powers:
    """0, 1, 1/2, 1/4, ... and their negatives, times a scale per channel."""

    bits: int
    per: Granularity = "channel"

    @property
    def name(self):
        return f"powers{self.bits}/{self.per}"

    @property
    def half_levels(self):
        return float(1 << (self.bits - 1)) - 1

    @property
    def levels(self):
        """float32 [2^bits]: first those that are not negative."""
        positive = np.float32([0, *(2.0**-i for i in range((1 << (self.bits - 1)) - 1))])
        return np.concatenate([positive, -positive])

    def blocks(self, shape, axis=0):
        return make_blocks(shape, axis, rows_each=None if self.per == "tensor" else 1, columns_each=None)

    def per_tensor(self):
        return replace(self, per="tensor")

    def with_bits(self, bits):
        return replace(self, bits=bits)

    def stored_bytes(self, shape, axis):
        return math.prod(shape) * self.bits // 8 + 4 * self.blocks(shape, axis).count + 200

    def encode(self, x, axis=0):
        blocks = self.blocks(x.shape, axis)
        rows = blocks.to_rows(x)
        scale = np.maximum(blocks.reduce(np.maximum, np.abs(rows)), np.float32(1e-30))
        nearest = np.abs((rows / blocks.spread(scale))[..., None] - self.levels).argmin(axis=-1)
        return PowerCodes(blocks.from_rows(nearest.astype(np.uint8)), scale, self, blocks)


@dataclass(frozen=True)
class PowerCodes:
    codes: np.ndarray
    scale: np.ndarray
    scheme: Powers
    blocks: Blocks

    @property
    def bits(self):
        return self.scheme.bits

    @property
    def shape(self):
        return self.blocks.shape

    @property
    def axis(self):
        return self.blocks.axis

    def decode(self):
        rows = self.scheme.levels[self.blocks.to_rows(self.codes)] * self.blocks.spread(self.scale)
        return self.blocks.from_rows(rows)

    def decode_with(self, decoder):
        chain = decoder.integers(self.codes, self.bits).looked_up(self.scheme.levels, half=True)
        return chain.scaled(self.scale.reshape(self.blocks.scale_shape))

    def rounded_on(self, x, *scales):
        return self


@dataclass(frozen=True)
class PowerSolution:
    levels: np.ndarray
    scale: np.ndarray

    def to_codes(self, layer, scheme):
        """Levels are looked up: they are exact products."""
        return scheme.encode(layer.from_matrix(self.levels), layer.channel_axis)


def solve_powers(problem, scheme, effort):
    """GPTQ on the levels of each row, whose scale covers its largest weight."""
    scale = np.maximum(np.abs(problem.weights).max(axis=2), np.float32(1e-30))
    grid = BookGrid(np.unique(scheme.levels) * scale[..., None])
    rounded = gptq(problem.weights, problem.factor, grid)
    # The largest weight keeps its level, so that the scale can be found again.
    largest = np.abs(problem.weights).argmax(axis=2)[..., None]
    np.put_along_axis(rounded, largest, np.take_along_axis(problem.weights, largest, axis=2), axis=2)
    return PowerSolution(problem.stored(rounded), scale)


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network(first=48))


def encoded(model, scheme):
    weights = {layer.weight: scheme.encode(model.weights[layer.weight], layer.channel_axis) for layer in layers(model)}
    return QuantizedGraph(model, weights=weights)


@pytest.mark.parametrize("scheme", [Powers(4), Powers(3, "tensor"), Powers(5)], ids=lambda scheme: scheme.name)
def test_files_decode_it_bit_for_bit(model, scheme, tmp_path):
    quantized = encoded(model, scheme)
    path = tmp_path / "powers.onnx"
    path.write_bytes(to_onnx(quantized))
    found = layer_weights(path)
    for layer in layers(model):
        decoded = quantized.weights[layer.weight].decode()
        np.testing.assert_array_equal(found[layer.node].view(np.uint32), decoded.view(np.uint32))
    x = networks.inputs(4)
    decoded = {name: codes.decode() for name, codes in quantized.weights.items()}
    wanted = to_onnx(QuantizedGraph(model, float_values=decoded))
    for engine in set(installed_engines()) & {"onnxruntime", "openvino"}:
        answers = [open_session(file, engine=engine, threads=1).run({"x": x})["logits"] for file in (path, wanted)]
        np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)


def test_every_byte_of_the_file_is_accounted_for(model, tmp_path):
    quantized = encoded(model, Powers(4))
    path = tmp_path / "powers.onnx"
    path.write_bytes(to_onnx(quantized))
    ledger = read_ledger(path)
    size = sum(math.prod(codes.shape) for codes in quantized.weights.values())
    assert sum(ledger.bytes.values()) == ledger.total == path.stat().st_size
    assert ledger.counts["codes"] == size
    assert ledger.bytes["codes"] == -(-size // 2)
    assert ledger.counts["scales"] == sum(codes.scale.size for codes in quantized.weights.values())
    assert ledger.counts["code_books"] == 16
    assert unpack(pack(path.read_bytes())) == path.read_bytes()
    symbols = stored_symbols(path.read_bytes())
    for name, codes in quantized.weights.items():
        np.testing.assert_array_equal(symbols[name].reshape(codes.shape), codes.codes)


def test_it_has_a_row(monkeypatch):
    monkeypatch.setitem(SCHEMES, "powers", SchemeRow(Powers))
    data = json.loads(json.dumps(scheme_to_json(Powers(4, "tensor"))))
    assert data == {"kind": "powers", "bits": 4, "per": "tensor"}
    assert scheme_from_json(data) == Powers(4, "tensor")


@pytest.mark.parametrize("solve", [None, solve_powers], ids=["without a solver", "with one"])
def test_with_images_its_codes_are_chosen_for_what_layers_compute(model, monkeypatch, solve):
    monkeypatch.setitem(SCHEMES, "powers", SchemeRow(Powers, solve))
    recipe, images = Recipe("powers4", Powers(4), extra_bits=0), networks.inputs(48)
    plain = lowbit.quantize(model, recipe)
    quantized = lowbit.quantize(model, recipe, calibration=images)
    assert Plan.from_json(json.loads(json.dumps(quantized.plan.to_json()))) == quantized.plan
    assert {type(codes) for codes in quantized.graph.weights.values()} == {PowerCodes}
    x = networks.inputs(32, seed=5)
    exact, before, after = (
        open_session(content, threads=1).run({"x": x})["logits"]
        for content in (model.to_bytes(), plain.to_bytes(), quantized.to_bytes())
    )
    assert np.square(after - exact).mean() < 0.7 * np.square(before - exact).mean()


def test_formats_that_cannot_decode_it_say_so(model):
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(ModelError, match="as powers4/channel, which LiteRT would decode at every inference"):
        to_litert(encoded(model, Powers(4)))
