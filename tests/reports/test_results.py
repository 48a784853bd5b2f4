"""The contract between measuring and showing: through JSON and back, and nothing else gets in."""

import dataclasses
import json
import math

import pytest

from comparison_sample import sample_comparison
from lowbit.errors import DataError
from lowbit.measurement.results import finite
from lowbit.measurement.results_file import parse_results, read_results
from lowbit.reports.page import page


def test_json_round_trip():
    comparison = sample_comparison()
    text = comparison.to_json()
    assert parse_results(text) == comparison
    assert json.loads(text)["rows"][1]["recipe"] == "int8"


def test_results_from_before_there_were_answers_by_class_are_read():
    """What a version adds has a default, so that files of earlier ones stay readable."""
    data = json.loads(sample_comparison().to_json())
    del data["network"]
    for row in data["rows"]:
        del row["calibration_error"], row["details"]["by_class"]
    old = parse_results(json.dumps(data))
    assert (old.network, old.rows[0].details.by_class, old.rows[0].calibration_error) == ((), None, None)
    text = page(old)
    assert 'id="classes"' not in text
    assert 'id="network"' not in text


def test_rows_carry_what_the_study_asks_for():
    names = (
        "recipe file file_bytes file_ratio weight_bytes weight_ratio theoretical_ratio parameters macs weight_mse "
        "weight_sqnr_db accuracy accuracy_low accuracy_high loss flips latency_ms latency_ratio load_memory_bytes "
        "peak_memory_bytes kl mcnemar_p agreement"
    )
    row = json.loads(sample_comparison().to_json())["rows"][0]
    assert set(names.split()) <= row.keys()
    assert "details" not in sample_comparison().rows[0].scalars()


def test_infinity_never_reaches_json():
    assert [finite(v) for v in (1.5, None, math.inf, -math.inf, math.nan)] == [1.5, None, None, None, None]
    comparison = sample_comparison()
    broken = dataclasses.replace(comparison, rows=(dataclasses.replace(comparison.rows[0], loss=math.nan),))
    with pytest.raises(ValueError):
        broken.to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"lowbit_results": 2}',
        '{"lowbit_results": 1}',
        '{"lowbit_results": 1, "rows": "x"}',
        "[" * 10000,
    ],
)
def test_other_files_are_refused(text):
    with pytest.raises(DataError, match="not a results file"):
        parse_results(text)


def test_wrong_types_are_named():
    data = json.loads(sample_comparison().to_json())
    data["rows"][0]["file_bytes"] = "many"
    with pytest.raises(DataError, match=r"Row\.file_bytes"):
        parse_results(json.dumps(data))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 400])
def test_numbers_that_json_does_not_have_are_refused(number):
    """Python reads them, and could not write them again."""
    text = sample_comparison().to_json()
    loss = json.dumps(json.loads(text)["rows"][1]["loss"])
    assert f'"loss": {loss}' in text
    with pytest.raises(DataError, match="not a results file"):
        parse_results(text.replace(f'"loss": {loss}', f'"loss": {number}', 1))


def test_reading_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_results(tmp_path / "none.json")
    (tmp_path / "results.json").write_text(sample_comparison().to_json())
    assert read_results(tmp_path / "results.json") == sample_comparison()
