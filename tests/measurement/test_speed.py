"""Medians, quartiles and ratios by hand; and that a bigger model takes longer."""

import numpy as np
import pytest

from lowbit.errors import DataError
from lowbit.measurement import speed
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.speed import latency, load_average, summarize


def test_ratios_are_taken_within_rounds():
    # The machine gets three times slower half-way; the second candidate is always twice as fast as the first.
    wall = np.array([[4, 2], [4, 2], [4, 2], [12, 6], [12, 6]], np.int64) * 1_000_000
    result = summarize(["float", "int8"], wall, wall // 2)
    assert (result["float"].median_ms, result["float"].low_ms, result["float"].high_ms) == (4, 4, 12)
    assert (result["int8"].median_ms, result["int8"].ratio, result["float"].ratio) == (2, 2.0, 1.0)
    assert result["int8"].cpu_share == 0.5
    assert result["int8"].runs == 5


def test_the_larger_model_is_slower(small, large, pictures):
    result = latency({"large": large, "small": small.read_bytes()}, pictures.x, Conditions(runs=15), warmup=2)
    assert list(result) == ["large", "small"]
    assert result["small"].ratio > 2
    for item in result.values():
        assert 0 < item.low_ms <= item.median_ms <= item.high_ms
        assert item.runs == 15


def test_candidates_take_turns_and_the_order_rotates(monkeypatch, pictures):
    order = []

    class Fake:
        input_names = ("x",)

        def __init__(self, name):
            self.name = name

        def run(self, inputs):
            order.append((self.name, inputs["x"].shape))

    monkeypatch.setattr(speed, "open_session", lambda model, **_: Fake(model))
    latency({"a": b"a", "b": b"b", "c": b"c"}, pictures.x, Conditions(batch=2, runs=3), warmup=0)
    assert [name for name, _ in order] == [b"a", b"b", b"c", b"b", b"c", b"a", b"c", b"a", b"b"]
    assert {shape for _, shape in order} == {(2, 1, 4, 4)}


def test_too_few_images_for_a_batch(small, pictures):
    with pytest.raises(DataError, match="batches of 11"):
        latency({"a": small}, pictures.x, Conditions(batch=11))


def test_load_average_is_known_or_none():
    value = load_average()
    assert value is None or value >= 0
