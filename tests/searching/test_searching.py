"""A search always has an answer, keeps what it finished, and what it says of a file is true of that file."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import lowbit
import networks
from lowbit.calibration.answers import distances, fair_temperature
from lowbit.errors import DataError, SchemeError
from lowbit.formats.onnx.read import layer_weights
from lowbit.graph.ops import layers
from lowbit.searching import making, rounds
from lowbit.searching.candidates import made
from lowbit.searching.limits import SearchLimits, SearchSettings
from lowbit.searching.search import search
from search_cases import LIMIT, QUICK, Told, inputs, samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def result(model, data, images, folder):
    return search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=QUICK, folder=folder)


def test_the_first_answers_are_float_and_a_uniform_recipe(result):
    assert [each.name for each in result.candidates[:2]] == ["float", "linear8-plain"]
    assert result.candidates[0].marks.drop == result.candidates[0].marks.distance == 0.0


def test_uniform_recipes_wait_for_no_forecast(model, data, images, monkeypatch):
    """Who stops a search while it forecasts has a file that keeps the limits."""

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "layer_damages", stopped)
    found = search(model, data, SearchLimits(max_size=12_000), calibration=images, settings=QUICK)
    assert found.interrupted
    assert found.met
    settings = dataclasses.replace(QUICK, recipes=("linear8", "int8"))
    timed = search(model, data, SearchLimits(max_latency_ms=1e4), calibration=images, settings=settings)
    assert "int8" in [each.name for each in timed.candidates]


def test_the_best_is_the_smallest_that_keeps_the_drop(result):
    keeping = [each for each in result.candidates if each.marks.drop <= LIMIT]
    assert result.met
    assert result.best.bytes == min(each.bytes for each in keeping) < result.candidates[0].bytes / 3
    assert any(each.marks.drop > LIMIT for each in result.candidates)


def test_uniform_recipes_are_tried_by_halves_where_they_would_be_the_smallest(result):
    uniform = [
        place
        for place, each in enumerate(result.candidates)
        if each.name in ("linear8", "linear5", "linear3", "linear2")
    ]
    assert result.candidates[uniform[0]].name == "linear3"
    for place in uniform:
        before = [each.bytes for each in result.candidates[:place] if each.marks.drop <= LIMIT]
        assert result.candidates[place].bytes < min(before)


def test_cluster_recipes_are_tried_by_halves_too(model, data, images):
    settings = dataclasses.replace(QUICK, recipes=("linear8", "cluster"), rounds=1)
    result = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=settings)
    assert {"cluster3", "cluster4"} & {each.name for each in result.candidates}  # halfway, of those small enough


def test_what_is_said_of_a_file_is_true_of_the_file_that_was_kept(result, model, data):
    best = result.best
    path = result.paths[best.name]
    assert path.read_bytes() == best.content
    reference, answers = (lowbit.open_session(content, threads=1) for content in (model.to_bytes(), path))
    batch = next(data.batches(data.count)).inputs
    wanted, given = reference.run(batch), answers.run(batch)
    measured = distances(wanted, given, temperature=fair_temperature(wanted)).mean()
    assert measured == pytest.approx(best.marks.distance, rel=1e-3)
    changed = sum(a.argmax(axis=1) != b.argmax(axis=1) for a, b in zip(wanted.values(), given.values(), strict=True))
    assert 100 * np.count_nonzero(changed) / data.count == pytest.approx(best.marks.drop)


def test_each_layer_has_what_the_plan_says(result, model):
    stored = layer_weights(result.paths[result.best.name])
    given = {tensor.tensor: tensor.given for tensor in result.plan.tensors}
    for layer in layers(model):
        values = len(np.unique(stored[layer.node]))
        scheme = given[layer.weight]
        if scheme is not None and scheme.per == "tensor" and not getattr(scheme, "scaled", False):
            assert values <= 1 << scheme.bits


def test_the_plan_beside_a_file_makes_it_again(result, model, images):
    path = result.paths[result.best.name]
    plan = lowbit.read_plan(path.parent / f"{path.stem}.plan.json", model)
    assert lowbit.quantize(model, plan, calibration=images).to_bytes() == result.best.content


def test_sizes_are_forecast_to_a_few_bytes(result):
    for each in result.candidates:
        if each.choice:
            assert abs(each.bytes - each.forecast_bytes) <= 0.05 * each.bytes


def test_the_same_search_finds_the_same(result, model, data, images):
    again = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=QUICK)
    assert [each.content for each in again.candidates] == [each.content for each in result.candidates]
    assert again.best.name == result.best.name


def test_resume_makes_nothing_twice(result, model, data, images, folder, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr("lowbit.searching.workers.made", unexpected)
    settings = dataclasses.replace(QUICK, resume=True)
    again = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=settings, folder=folder)
    assert [each.content for each in again.candidates] == [each.content for each in result.candidates]
    assert [each.marks for each in again.candidates] == [each.marks for each in result.candidates]


@pytest.mark.parametrize("harm", ["file", "record", "nothing whole"])
def test_resume_makes_again_what_is_amiss(harm, model, data, images, tmp_path):
    settings = dataclasses.replace(QUICK, recipes=("linear8",), rounds=0, resume=True)
    first = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=settings, folder=tmp_path)
    path = first.paths["linear8-plain"]
    record = path.with_suffix(".json")
    if harm == "file":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "record":
        record.write_text(json.dumps({"marks": 3}))
    else:
        record.unlink()
    again = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=settings, folder=tmp_path)
    assert path.read_bytes() == first.candidates[1].content
    assert [each.content for each in again.candidates] == [each.content for each in first.candidates]


def test_a_limit_that_nothing_keeps_gives_the_nearest_and_says_what_is_needed(model, data, images):
    result = search(model, data, SearchLimits(max_drop=0.1, max_size=1500), calibration=images, settings=QUICK)
    assert not result.met
    (note,) = [note for note in result.notes if note.startswith("No file keeps all limits.")]
    least = min(each.bytes for each in result.candidates if each.marks.drop <= 0.1)
    assert f"{least:,} bytes" in note


def test_only_a_size_gives_the_closest_file_that_fits(model, data, images):
    result = search(model, data, SearchLimits(max_size=10_000), calibration=images, settings=QUICK)
    fitting = [each for each in result.candidates if each.bytes <= 10_000]
    assert result.met
    assert result.certificate is None
    assert result.best.marks.distance == min(each.marks.distance for each in fitting)


def test_stopped_it_gives_the_best_so_far(model, data, images, tmp_path):
    def stop(count):
        if count == 3:
            raise KeyboardInterrupt

    result = search(
        model,
        data,
        SearchLimits(max_drop=LIMIT),
        calibration=images,
        settings=QUICK,
        folder=tmp_path,
        progress=Told(stop),
    )
    assert result.interrupted
    assert len(result.candidates) == 3
    assert result.met
    assert all(result.paths[each.name].read_bytes() == each.content for each in result.candidates)


def test_no_round_begins_that_would_not_end_in_time(model, data, images, monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            self.now += 10.0
            return self.now

    clock = Clock()
    monkeypatch.setattr("lowbit.searching.making.time", clock)
    monkeypatch.setattr("lowbit.searching.search.time", clock)
    settings = dataclasses.replace(QUICK, rounds=8)
    result = search(model, data, SearchLimits(max_drop=LIMIT, seconds=30), calibration=images, settings=settings)
    assert any(note.startswith("Time was over") for note in result.notes)
    assert result.met


def test_no_second_file_of_a_round_begins_when_the_time_is_over(model, data, images, monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    def slow(bench, decision, progress):
        clock.now += 100.0 if decision.steps else 0.0
        return made(bench, decision, progress)

    clock = Clock()
    monkeypatch.setattr("lowbit.searching.making.time", clock)
    monkeypatch.setattr("lowbit.searching.search.time", clock)
    monkeypatch.setattr("lowbit.searching.workers.made", slow)
    settings = dataclasses.replace(QUICK, recipes=("linear", "cluster"))

    def names(seconds):
        limits = SearchLimits(max_drop=LIMIT, seconds=seconds)
        result = search(model, data, limits, calibration=images, settings=settings)
        return [each.name for each in result.candidates if each.plan.steps and not each.choice]

    long = names(1000)
    assert len(long) > 2
    assert names(50) == long[:1]


def test_enough_samples_are_divided_and_the_certificate_rests_on_those_that_did_not_choose(model, images):
    data = samples(model, 240, seed=4, labels=True)
    result = search(model, data, SearchLimits(max_drop=10.0), calibration=images, settings=QUICK)
    assert result.split == "120 samples chose; 120 others certify."
    assert result.certificate.images == 120
    assert result.certificate.looks == 1
    assert result.certificate.holds


def test_few_samples_certify_with_a_correction_for_all_candidates(result):
    assert result.certificate.images == 48
    assert result.certificate.looks == sum(each.marks.distance > 0 for each in result.candidates)
    assert "48 samples both chose and certify" in result.split


def test_a_drop_of_another_task_is_certified_by_its_spread(model, images, tmp_path):
    x = inputs(80, seed=4)
    (scores,) = lowbit.open_session(model.to_bytes(), threads=1).run({model.input.name: x}).values()
    noise = np.random.default_rng(0).normal(size=scores.shape)
    data = lowbit.open_data({model.input.name: x, "labels": (scores + noise).astype(np.float32)}, model)

    def found(**changes):
        settings = dataclasses.replace(QUICK, rounds=1, **changes)
        return search(model, data, SearchLimits(max_drop=5.0), calibration=images, settings=settings, folder=tmp_path)

    result = found()
    assert result.certificate.holds
    assert "hundredths of R² are lost, with 95 % confidence" in result.certificate.sentence()
    spread = result.best.certified.evidence
    assert 100 * spread.drop == pytest.approx(result.best.marks.drop)
    assert 0 < spread.error < 0.02
    assert result.certificate.high == pytest.approx(spread.bounds(0.05 / result.certificate.looks)[1])
    assert found(resume=True).certificate == result.certificate  # as it was kept


def test_without_calibration_samples_some_are_set_apart(model, data):
    settings = dataclasses.replace(QUICK, rounds=0)
    result = search(model, data, SearchLimits(max_drop=LIMIT), settings=settings)
    assert result.certificate.images == 36
    assert result.notes[0].startswith("12 of the samples are set apart to calibrate on")


def test_processes_find_the_same(result, model, data, images):
    settings = dataclasses.replace(QUICK, workers="2")
    beside = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=settings)
    assert [each.content for each in beside.candidates] == [each.content for each in result.candidates]


def test_archives_are_weighed_as_archives(model, data, images):
    settings = dataclasses.replace(QUICK, archive=True, rounds=1)
    result = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=settings)
    from lowbit.formats.onnx.archive import unpack

    assert unpack(result.best.content)
    assert result.best.bytes < result.candidates[0].bytes / 2


def test_latency_is_measured_where_it_matters(model, data, images, quick_measuring, monkeypatch):
    from lowbit.measurement import peaks

    monkeypatch.setattr("lowbit.searching.search.measure_peaks", peaks.measure_peaks)
    monkeypatch.setattr(making, "TIMED_RUNS", 3)
    settings = dataclasses.replace(QUICK, recipes=("float", "linear8", "int8"), rounds=1)
    result = search(model, data, SearchLimits(max_drop=20, minimize="latency"), calibration=images, settings=settings)
    assert all(each.latency_ms > 0 for each in result.candidates)
    assert any(node.arithmetic == "integer" for each in result.candidates for node in each.plan.nodes)
    assert result.best.latency_ms == min(each.latency_ms for each in result.candidates if each.marks.drop <= 20)


@pytest.mark.parametrize(
    ("limits", "word"),
    [({}, "nothing limits"), ({"max_drop": -1.0}, "max_drop"), ({"max_drop": 1.0, "minimize": "x"}, "'x'")],
)
def test_limits_that_are_none(limits, word):
    with pytest.raises(SchemeError, match=word):
        SearchLimits(**limits)


@pytest.mark.parametrize(("changes", "word"), [({"recipes": ("liner4",)}, "liner4"), ({"workers": "many"}, "many")])
def test_settings_that_are_none(changes, word, model, data, images):
    with pytest.raises(SchemeError, match=word):
        search(model, data, SearchLimits(max_drop=1.0), calibration=images, settings=SearchSettings(**changes))


def test_samples_in_both_sets_are_refused(model, data):
    with pytest.raises(DataError, match="calibration samples too"):
        search(model, data, SearchLimits(max_drop=1.0), calibration=data, settings=QUICK)


def test_ctrl_c_writes_the_best_so_far_and_says_so(model, tmp_path):
    (tmp_path / "net.onnx").write_bytes(networks.residual_network().SerializeToString())
    x = networks.inputs(64, seed=2)
    np.savez(tmp_path / "data.npz", x=x)
    out = tmp_path / "best.onnx"
    words = ["search", tmp_path / "net.onnx", "--data", tmp_path / "data.npz", "--max-drop", "1", "--out", out]
    command = [sys.executable, "-m", "lowbit", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("best.search/*.json"))) < 3 and time.monotonic() < deadline:  # float is whole
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    shown, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert f"already written: {tmp_path}" in error
    assert "Stopped before the end" in shown
    assert lowbit.load(out).classes == networks.CLASSES
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part"]


def test_a_plan_is_made_the_same_on_a_worker(model, data, images):
    from lowbit.measurement.exam import Exam
    from lowbit.searching.candidates import Bench, made_from
    from lowbit.searching.held import held

    bench = Bench(model, held(lowbit.open_data(images, model)), (Exam.of(model, held(data)),), threads=1)
    decision = lowbit.plan(model, "linear4", effort="fast")
    assert made_from(bench.packed(), decision) == made(bench, decision)
