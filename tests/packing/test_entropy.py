"""The coder: exact inverse for anything, close to the entropy, and its bits read by a decoder that shares no code."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from lowbit.errors import ArchiveError
from lowbit.packing.contexts import FLAT, METHODS, NEIGHBORS, ROWS, SPREADS, Coding, Layout, _first_frequencies
from lowbit.packing.entropy import Decoder, Encoder, Meter, choose_coding, context_costs, decode, encode, entropy_bits


class PlainDecoder:
    """Range decoder in Python's own integers, from docs/format.md alone."""

    def __init__(self, data: bytes) -> None:
        self.words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
        self.lower, self.range, self.point, self.at = 0, (1 << 64) - 1, 0, 0
        for _ in range(2):
            self._shift_in()

    def _shift_in(self) -> None:
        word = self.words[self.at] if self.at < len(self.words) else 0
        self.at += 1
        self.point = (self.point << 32 | word) & ((1 << 64) - 1)

    def code(self, frequencies: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        total, n = float(frequencies.sum()), frequencies.size
        factor = ((1 << 24) - n) / total
        borders = [int(float(frequencies[:index].sum()) * factor) + index for index in range(n)] + [1 << 24]
        return np.array([self._symbol(borders) for _ in range(symbols.size)], np.int32)

    def _symbol(self, borders: list[int]) -> int:
        scale = self.range >> 24
        quantile = ((self.point - self.lower) & ((1 << 64) - 1)) // scale
        symbol = next(index for index in range(len(borders) - 1) if quantile < borders[index + 1])
        self.lower = (self.lower + scale * borders[symbol]) & ((1 << 64) - 1)
        self.range = scale * (borders[symbol + 1] - borders[symbol])
        if self.range < 1 << 32:
            self.lower, self.range = (self.lower << 32) & ((1 << 64) - 1), self.range << 32
            self._shift_in()
        return symbol


def normal(layout: Layout, alphabet: int, seed: int = 0, *, smooth: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (layout.rows, layout.columns, layout.kernel)
    values = rng.normal(size=shape) + smooth * rng.normal(size=(*shape[:2], 1))
    values *= np.exp(rng.normal(0, 0.4, (layout.rows, 1, 1)))
    symbols = np.round(values * alphabet / 8 / np.hypot(1, smooth)) + alphabet // 2
    return np.clip(symbols, 0, alphabet - 1).astype(np.int16).reshape(-1)


def coded(symbols: np.ndarray, layout: Layout, coding: Coding) -> bytes:
    encoder = Encoder()
    encode(symbols, layout, coding, encoder)
    return encoder.data


sizes = st.integers(1, 9)


@settings(max_examples=50)
@given(
    st.builds(Layout, st.integers(1, 40), sizes, st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([2, 3, 4, 16, 15, 255, 1024]),
    st.sampled_from(METHODS),
    st.integers(0, 5),
    st.data(),
)
def test_decode_inverts_encode(layout: Layout, alphabet: int, method: int, seed: int, data: st.DataObject) -> None:
    symbols = normal(layout, alphabet, seed)
    if seed == 0:
        symbols[:] = data.draw(st.integers(0, alphabet - 1))
    if seed == 1:
        symbols = np.random.default_rng(1).integers(0, alphabet, layout.count).astype(np.int16)
    coding = Coding(
        method, alphabet, data.draw(st.integers(0, alphabet - 1)), data.draw(st.integers(0, len(SPREADS) - 1))
    )
    decoder = Decoder(coded(symbols, layout, coding), "here")
    np.testing.assert_array_equal(decode(layout, coding, decoder), symbols)
    assert decoder.exhausted


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("alphabet", [2, 15, 200])
def test_another_decoder_reads_the_same_bits(method: int, alphabet: int) -> None:
    layout = Layout(12, 7, 3, 3)
    symbols = normal(layout, alphabet, method)
    coding = Coding(method, alphabet, alphabet // 2, 14)
    data = coded(symbols, layout, coding)
    np.testing.assert_array_equal(decode(layout, coding, PlainDecoder(data)), symbols)


@pytest.mark.parametrize(("alphabet", "most"), [(4, 1.002), (16, 1.002), (256, 1.01)])
def test_within_a_percent_of_the_entropy_where_nothing_else_is_to_be_gained(alphabet: int, most: float) -> None:
    layout = Layout(400, 500)
    symbols = np.random.default_rng(2).normal(alphabet / 2, alphabet / 6, layout.count)
    symbols = np.clip(np.round(symbols), 0, alphabet - 1).astype(np.int16)
    coding, bits = choose_coding(symbols, layout)
    size = 8 * len(coded(symbols, layout, coding))
    assert size == pytest.approx(bits, rel=1e-3)
    assert size <= most * entropy_bits(symbols)


def test_the_entropy_of_any_whole_numbers() -> None:
    assert entropy_bits(np.array([3, -(1 << 60), 3, 1 << 60])) == pytest.approx(6.0)
    assert entropy_bits(np.array([[1e30, 0.0], [1e30, 0.0]])) == pytest.approx(4.0)


def test_contexts_go_below_the_entropy_of_order_zero() -> None:
    layout = Layout(32, 32, 3, 3)
    symbols = normal(layout, 16, smooth=1.0)
    coding, bits = choose_coding(symbols, layout)
    assert coding.method == NEIGHBORS
    assert bits < 0.93 * entropy_bits(symbols)
    wide = normal(Layout(64, 512), 16, 3)
    coding, bits = choose_coding(wide, Layout(64, 512))
    assert coding.method == ROWS
    assert bits < 0.98 * entropy_bits(wide)


def test_first_frequencies_by_hand() -> None:
    # Width 1.25: t^2 is 2.56, 0.64, 0, ...; (1 + t^2 / 15)^-8 is 0.28437, 0.71625, 1; a sixteenth of 1024 each ...
    curve = np.array([(1 + (d / 1.25) ** 2 / 15) ** -8 for d in (-2, -1, 0, 1, 2)])
    wanted = np.floor(1024 * curve / curve.sum()) + 4
    np.testing.assert_allclose(_first_frequencies(5, 2, 1.0, 0.0), wanted, atol=1)
    assert _first_frequencies(5, 2, 1.0, 0.0).tolist() == PINNED, "archives would no longer open"


PINNED = [100.0, 248.0, 345.0, 248.0, 100.0]


def test_a_search_sees_what_symbols_cost() -> None:
    layout = Layout(30, 20, 3, 3)
    symbols = normal(layout, 15, 4, smooth=0.5)
    coding, bits = choose_coding(symbols, layout)
    costs = context_costs(symbols, layout, coding)
    assert costs.total == bits
    assert np.isfinite(costs.bits).all(), "also of what does not occur"
    np.testing.assert_allclose((2.0**-costs.bits).sum(1)[np.unique(costs.context)], 1)
    known = float(costs.bits[costs.context, symbols].sum())
    assert 0.8 * bits < known < bits, "all that was learned, without the price of learning"
    meter = Meter()
    encode(symbols, layout, coding, meter)
    assert meter.bits == bits


def test_entropy_by_hand() -> None:
    assert entropy_bits(np.array([0, 1, 2, 3])) == pytest.approx(8)
    assert entropy_bits(np.array([[5, 5], [5, 5]])) == 0
    assert entropy_bits(np.array([0, 0, 0, 1])) == pytest.approx(4 * 0.8112781)


@pytest.mark.parametrize("fields", [(4, 16, 8, 3), (0, 1, 0, 3), (0, 1025, 0, 3), (1, 16, 16, 3), (1, 16, 8, 39)])
def test_impossible_parameters_are_refused(fields: tuple[int, int, int, int]) -> None:
    with pytest.raises(ArchiveError, match="impossible coding parameters"):
        decode(Layout(4), Coding(*fields), Decoder(b"", "here"))


def test_bits_that_no_encoder_writes_are_refused() -> None:
    with pytest.raises(ArchiveError, match="section X: the coded bits are damaged"):
        Decoder(b"abc", "section X")
    # The highest quantile of all lies beyond the last border.
    with pytest.raises(ArchiveError, match="section X: the coded bits are damaged"):
        decode(Layout(5000), Coding(FLAT, 3, 1, 9), Decoder(b"\xff" * 400, "section X"))
