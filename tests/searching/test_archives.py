"""Searches for archives allocate bits: closer than recipes of fixed width, kept and made again like any candidate."""

import dataclasses

import pytest

import lowbit
from lowbit.errors import SchemeError
from lowbit.formats.onnx import archive
from lowbit.measurement.exam import Exam
from lowbit.reports.search_page import command_of
from lowbit.searching.candidates import Bench, made, made_from
from lowbit.searching.held import held
from lowbit.searching.limits import SearchLimits, SearchSettings
from lowbit.searching.plans import Plans
from lowbit.searching.rates import FILLED, FIRST_BITS, Rate, can_be_allocated, largest_refused, next_sizes
from lowbit.searching.search import search
from lowbit.searching.uniform import halfway, small_enough
from search_cases import LIMIT

CENTER = 2 / (1 + FILLED)  # of what is asked for, over what comes out
QUICK = SearchSettings(effort="fast", rounds=3, threads=1, archive=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("archives")


@pytest.fixture(scope="module")
def result(model, data, images, folder):
    return search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=QUICK, folder=folder)


def test_the_best_is_the_smallest_archive_that_keeps_the_drop(result):
    keeping = [each for each in result.candidates if each.marks.drop <= LIMIT]
    assert result.met
    assert result.best.bytes == min(each.bytes for each in keeping)
    assert any(each.rate and each.marks.drop > LIMIT for each in result.candidates)


def test_no_uniform_recipe_that_keeps_the_drop_is_smaller_but_for_chance(result, model, data, images):
    bench = Bench(model, held(lowbit.open_data(images, model)), (Exam.of(model, held(data)),), archive=True, threads=1)
    plans = Plans(bench, "fast")
    names = [f"{family}{bits}" for family in ("linear", "cluster") for bits in range(2, 7)]
    files = [made(bench, plans.of_recipe(name)) for name in names]
    keeping = [len(each.content) for each in files if max(each.marks[0].drop, each.marks[0].expected) <= LIMIT]
    assert keeping
    assert result.best.bytes <= min(keeping)


def test_where_there_is_no_time_for_two_archives_one_is_made(model, data, images, monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    def slow(bench, decision, progress):
        clock.now += 100.0 if isinstance(decision, Rate) else 0.0
        return made(bench, decision, progress)

    clock = Clock()
    monkeypatch.setattr("lowbit.searching.making.time", clock)
    monkeypatch.setattr("lowbit.searching.search.time", clock)
    monkeypatch.setattr("lowbit.searching.workers.made", slow)

    def sizes(seconds):
        limits = SearchLimits(max_drop=LIMIT, seconds=seconds)
        found = search(model, data, limits, calibration=images, settings=QUICK)
        assert any(note.startswith("Time was over") for note in found.notes) == (seconds < 1000)
        return [each.rate.most for each in found.candidates if each.rate is not None]

    long = sizes(10_000)
    assert sizes(350) == [*long[:2], long[3]]
    assert sizes(250) == long[:2]


def test_archives_are_no_larger_than_was_asked_for(result):
    rates = [each for each in result.candidates if each.rate is not None]
    assert len(rates) >= QUICK.rounds
    assert all(each.bytes <= each.rate.most for each in rates)


def test_at_the_size_of_a_recipe_it_is_closer(model, data, images):
    settings = dataclasses.replace(QUICK, rounds=1)
    recipe = lowbit.quantize(model, "linear3", calibration=images, effort="fast").to_bytes()
    most = len(archive.pack(recipe))
    result = search(model, data, SearchLimits(max_size=most), calibration=images, settings=settings)
    others = [each for each in result.candidates if each.bytes <= most and each is not result.best]
    assert result.best.rate == Rate(most, "fast", 0.98)
    assert "linear3" in {each.name for each in others}
    assert all(result.best.marks.distance < 0.7 * each.marks.distance for each in others)


def test_resume_makes_nothing_twice(result, model, data, images, folder, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr("lowbit.searching.workers.made", unexpected)
    settings = dataclasses.replace(QUICK, resume=True)
    again = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=settings, folder=folder)
    assert [(each.content, each.marks, each.rate) for each in again.candidates] == [
        (each.content, each.marks, each.rate) for each in result.candidates
    ]
    assert again.plan == result.plan


def test_a_worker_makes_the_same(result, model, data, images):
    bench = Bench(model, held(lowbit.open_data(images, model)), (Exam.of(model, held(data)),), archive=True, threads=1)
    found = next(each for each in result.candidates if each.rate is not None)
    assert made_from(bench.packed(), found.rate) == made(bench, found.rate)
    assert made(bench, found.rate).content == found.content


def test_its_command_packs(result, model, images):
    found = next(each for each in result.candidates if each.rate is not None)
    command = command_of(found, "model.onnx", ("--calibration", "photos"), None)
    assert command == f"lowbit pack model.onnx --size {found.bytes} --effort fast --calibration photos -o FILE"
    packed = lowbit.pack(model, lowbit.Goal(size=found.bytes), calibration=images, effort="fast")
    assert 0.9 * found.bytes < len(packed.archive) <= found.bytes


def test_recipes_that_are_named_are_mixed(model, data, images):
    settings = dataclasses.replace(QUICK, recipes=("linear8", "linear3"), rounds=1)
    result = search(model, data, SearchLimits(max_drop=LIMIT), calibration=images, settings=settings)
    assert any(each.choice for each in result.candidates)
    assert not any(each.rate for each in result.candidates)


def test_a_size_below_what_zeros_take_is_not_tried(model, data, images):
    settings = dataclasses.replace(QUICK, rounds=1)
    result = search(model, data, SearchLimits(max_size=500), calibration=images, settings=settings)
    assert not result.met
    assert not any(each.rate for each in result.candidates)
    assert any("The smallest that was made" in note for note in result.notes)


def test_where_no_archive_fits_the_smallest_that_was_tried_is_a_candidate(model, data, images, monkeypatch):
    monkeypatch.setattr("lowbit.quantization.rate.search.MOST_TRIALS", 1)
    monkeypatch.setattr("lowbit.quantization.rate.search.bits_for", lambda known, aim: 16.0 * aim)
    settings = dataclasses.replace(QUICK, rounds=1)
    result = search(model, data, SearchLimits(max_size=6000), calibration=images, settings=settings)
    assert any(each.rate and each.bytes > 6000 for each in result.candidates)
    with pytest.raises(SchemeError, match="no archive of at most 6,000 bytes"):
        lowbit.pack(model, lowbit.Goal(size=6000), calibration=images, effort="fast")


def test_layers_that_are_too_wide_have_to_have_recipes(model, monkeypatch):
    assert can_be_allocated(model)
    monkeypatch.setattr("lowbit.searching.rates.WIDEST", 100)  # a layer of the network has 128 inputs
    assert not can_be_allocated(model)


def test_sizes_begin_at_bits_per_weight_and_close_in():
    room = {"least": 1000, "weights": 8000}
    assert next_sizes(None, {}, **room) == [1000 + 1000 * round(bits) for bits in FIRST_BITS]
    assert next_sizes(None, {3000: False, 4000: False}, **room) == [5400, 7200]
    smaller = next_sizes(3000, {3000: True, 4000: True}, **room)
    assert len(smaller) == 2
    assert all(1000 < size < 3000 for size in smaller)
    cut = next_sizes(4000, {2000: False, 4000: True}, **room)
    assert [size / CENTER for size in cut] == pytest.approx([2520, 3175], rel=1e-3)  # what they are expected to take
    (middle,) = next_sizes(2200, {2000: False, 2200: True}, **room)  # two archives might come out as one
    assert middle / CENTER == pytest.approx(2098, rel=1e-3)
    assert all(size < 2085 for size in next_sizes(2085, {2000: False, 2085: True}, **room))
    assert next_sizes(2050, {2000: False, 2050: True}, **room) == []
    assert next_sizes(1001, {1001: True}, **room) == []


def test_the_size_of_a_recipe_is_asked_for_rather_than_one_near_it():
    room = {"least": 1000, "weights": 8000}
    sizes = next_sizes(4000, {2000: False, 4000: True}, recipes=[2100, 2600, 2650, 3900], **room)
    assert sizes[0] == 2600
    assert sizes[1] / CENTER == pytest.approx(3175, rel=1e-3)


def test_an_archive_of_chance_is_no_bound():
    assert largest_refused(3000, {2000: False, 2500: True, 3500: False}) == 2000
    assert largest_refused(None, {2000: False, 2500: False}) == 2500
    assert largest_refused(1500, {2000: False}) is None


def test_nothing_larger_than_a_recipe_that_keeps_the_drop_is_tried():
    room = {"least": 1000, "weights": 8000}
    assert next_sizes(3500, {}, **room) == [3000]
    assert next_sizes(2500, {}, **room) == [1750]
    assert all(2000 < size < 2500 for size in next_sizes(2500, {2000: False, 3000: True}, **room))
    assert all(1000 < size < 2500 for size in next_sizes(2500, {3000: True, 2800: False}, **room))


def test_archives_are_timed_by_the_file_that_they_open_to(model, data, images):
    limits = SearchLimits(max_drop=LIMIT, max_latency_ms=1e3, seconds=0.1)
    result = search(model, data, limits, calibration=images, settings=QUICK)
    assert all(each.latency_ms for each in result.candidates)
    assert archive.unpack(result.best.content)


def test_recipes_are_weighed_only_as_long_as_they_are_small_enough():
    weighed = []

    def size_of(name):
        weighed.append(name)
        return 100 * int(name)

    names = ("2", "3", "4", "5", "6")
    assert small_enough(names, 350, size_of) == ["2", "3"]
    assert weighed == ["2", "3", "4"]
    assert halfway(names, 550, size_of, {}) == "3"
    assert halfway(names, 550, size_of, {}, least=300) == "4"  # between 300 and 550 bytes are two
    assert halfway(names, 550, size_of, {"4": True, "3": False}) is None
