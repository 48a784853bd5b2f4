"""Faults in preprocessing, labels and calibration samples: planted, and found by name; where none is, none is found."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import doctored
import lowbit
from lowbit.data.opening import open_data
from lowbit.data.options import ImageWords, with_preprocessing
from lowbit.diagnosis.calibration_set import samples_needed
from lowbit.diagnosis.diagnosis import diagnose
from lowbit.diagnosis.findings import (
    CORRUPT,
    COVERAGE,
    DUPLICATES,
    LABELS,
    LAYOUT,
    MISSING_CLASS,
    NORMALIZATION,
    ONE_CLASS,
    ORDER,
    OVERLAP,
)


@pytest.fixture(scope="module")
def subject():
    return doctored.subject()


def found(model, test, calibration=None):
    return {one.cause: one for one in diagnose(model, test, "float", calibration=calibration).findings}


def without_labels(data):
    return dataclasses.replace(data, source=dataclasses.replace(data.source, labels=None))


def test_nothing_is_found_where_nothing_is_wrong(subject):
    assert not found(subject.model, subject.test, subject.calibration)
    assert not found(subject.model, without_labels(subject.test), without_labels(subject.calibration))


OF_DATA = ("wrong normalization", "BGR for RGB", "shuffled labels", "one class", "corrupt image")


@pytest.mark.parametrize("fault", OF_DATA)
def test_planted_faults_are_found_by_name(subject, import_benchmark, fault):
    planted_faults = import_benchmark("planted")
    planted = planted_faults.FAULTS[fault](subject, np.random.default_rng(3))
    result = diagnose(planted.model, planted.test, "float", calibration=planted.calibration)
    assert planted_faults.is_found(result.findings, planted), result.findings
    assert all(one.cure for one in result.findings)


def test_other_preprocessing_is_found_without_labels(subject):
    wrong = dataclasses.replace(doctored.HOW, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = dataclasses.replace(subject.model, preprocessing=wrong)
    test = without_labels(doctored.images(72, seed=2, how=wrong))
    assert found(model, test)[NORMALIZATION].cure == "--mean imagenet --std imagenet"


def test_the_order_of_colors_is_cured_by_an_option(subject):
    """The options that are printed make the model answer as it should, whichever order it was given."""
    images, labels = doctored.pixels(72, seed=2)
    by_color = dataclasses.replace(doctored.HOW, mean=doctored.HOW.mean[::-1], std=doctored.HOW.std[::-1], colors="BGR")
    wrong = dataclasses.replace(subject.model, preprocessing=by_color)
    cure = found(wrong, lowbit.open_images((images, labels), by_color))[ORDER].cure
    assert cure == "--mean imagenet --std imagenet --colors RGB"
    for said, given in (("RGB", images[..., ::-1]), ("BGR", images)):
        how = dataclasses.replace(doctored.HOW, colors=said)
        model = dataclasses.replace(subject.model, preprocessing=how)
        words = found(model, lowbit.open_images((given, labels), how))[ORDER].cure.split()
        options = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        cured = with_preprocessing(model, ImageWords(**options))
        assert cured.preprocessing == dataclasses.replace(how, colors=said[::-1])
        assert not found(cured, lowbit.open_images((given, labels), cured.preprocessing))


def test_a_cure_is_on_the_scale_that_the_model_uses(subject):
    """Means are given in units of what images are multiplied by, which is 1 in some models."""
    wrong = dataclasses.replace(doctored.HOW, scale=1.0, mean=(127.5,) * 3, std=(127.5,) * 3)
    model = dataclasses.replace(subject.model, preprocessing=wrong)
    cure = found(model, doctored.images(72, seed=2, how=wrong))[NORMALIZATION].cure
    mean, std = ([float(number) for number in part.split(",")] for part in cure.split()[1::2])
    np.testing.assert_allclose(mean, 255 * np.array(doctored.HOW.mean), rtol=1e-3)
    np.testing.assert_allclose(std, 255 * np.array(doctored.HOW.std), rtol=1e-3)


def test_arrays_that_were_reshaped_and_not_transposed_are_found(subject):
    batch = next(iter(subject.test.batches(72)))
    last = batch.x.transpose(0, 2, 3, 1)
    arrays = {"x": np.ascontiguousarray(last).reshape(batch.x.shape), "labels": batch.labels}
    assert "transpose" in found(subject.model, arrays)[LAYOUT].cure


def test_a_layout_that_the_input_does_not_have_is_found(subject):
    wrong = dataclasses.replace(doctored.HOW, layout="NHWC")
    model = dataclasses.replace(subject.model, preprocessing=wrong)
    assert found(model, doctored.pixels(24, seed=2))[LAYOUT].cure == "--layout NCHW"


def test_classes_in_another_order_are_named(subject):
    pixels, labels = doctored.pixels(72, seed=2)
    other = lowbit.open_images((pixels, (labels + 1) % 6), doctored.HOW, classes=doctored.NAMES)
    assert "dark green is answered dark blue" in found(subject.model, other)[LABELS].what


def test_a_class_that_is_missing_is_named(subject):
    many = doctored.images(120, seed=4)
    some = many.select([index for index in range(120) if index % 6 != 2])
    for calibration in (some, without_labels(some)):
        assert "dark red" in found(subject.model, subject.test, calibration)[MISSING_CLASS].what
    few = some.select(range(12))  # of which a class can be missing by chance
    assert MISSING_CLASS not in found(subject.model, subject.test, few)


def test_copies_and_evaluation_samples_among_the_calibration_samples(subject):
    pixels, _ = doctored.pixels(72, seed=2)
    mixed = np.concatenate([doctored.pixels(30, seed=1)[0], pixels[:4], pixels[:1]])
    findings = found(subject.model, subject.test, mixed)
    assert findings[DUPLICATES].what.startswith("1 of 35")
    assert findings[OVERLAP].what.startswith("5 of 35")
    assert ONE_CLASS not in findings


def test_a_file_that_cannot_be_read_is_named(subject, tmp_path):
    for index, pixels in enumerate(doctored.pixels(18, seed=1)[0]):
        Image.fromarray(pixels).save(tmp_path / f"{index:02}.png")
    whole = (tmp_path / "07.png").read_bytes()
    (tmp_path / "07.png").write_bytes(whole[: len(whole) // 2])
    finding = found(subject.model, subject.test, tmp_path)[CORRUPT]
    assert finding.where.endswith("07.png")
    assert "read" in finding.what


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_that_are_no_numbers_are_named(subject, value):
    x = next(iter(subject.calibration.batches(12))).x.copy()
    x[5, 1, 2, 3] = value
    result = diagnose(subject.model, subject.test, "int8", calibration=x)
    (finding,) = result.of(CORRUPT)
    assert "5" in finding.where
    assert result.notes


def test_one_sample_that_was_not_normalized_is_named(subject):
    x = next(iter(subject.calibration.batches(12))).x.copy()
    x[4] = 255 * np.abs(x[4])
    (finding,) = diagnose(subject.model, subject.test, "float", calibration={"x": x}).of(CORRUPT)
    assert finding.where.endswith("sample 4")


def test_images_that_are_all_noise_are_not_corrupt():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, doctored.SIDE, doctored.SIDE, 3), dtype=np.uint8)
    model = lowbit.load(doctored.color_network())
    assert CORRUPT not in found(model, (noise, np.arange(20) % 6), noise[::-1].copy())


def test_how_many_samples_are_needed_is_what_drawing_them_gives():
    rng = np.random.default_rng(0)
    reaches = [rng.exponential(size=60) for _ in range(2)]
    needed = samples_needed(reaches)

    def reached(count):
        draws = [rng.choice(each, count, replace=False).max() / each.max() for each in reaches for _ in range(2000)]
        return np.mean(draws)

    assert reached(needed) > 0.94
    assert reached(needed - 3) < 0.955
    assert 1 < needed < 60


def test_calibration_samples_fainter_than_all_others_are_not_representative(subject):
    faint = doctored.pixels(36, seed=1)[0] // 4 + 80
    result = diagnose(subject.model, subject.test, "linear8", calibration=faint)
    assert "go beyond its ranges" in result.of(COVERAGE)[0].what


def test_what_is_no_classifier_is_looked_at_too():
    from task_networks import regression

    case = regression()
    model = lowbit.load(case.model)
    result = diagnose(model, case.data, "linear8", calibration=open_data(case.inputs, model))
    assert result.measure == "relative error"
    assert not result.of(ORDER, NORMALIZATION, LABELS, ONE_CLASS)
