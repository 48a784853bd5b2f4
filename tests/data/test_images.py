"""Passes over images: order, memory, choice of a subset, identity."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lowbit.data import images as module
from lowbit.data.dataset import check_labels, overlap
from lowbit.data.images import Images, open_images
from lowbit.data.sampling import stratified
from lowbit.data.sources import Source
from lowbit.errors import DataError
from lowbit.graph.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

P = Preprocessing(6, 8, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for name, count in (("a", 12), ("b", 6), ("c", 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            picture = generator.integers(0, 256, (generator.integers(4, 20), 9, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{i:02}.png")
    return tmp_path


def test_batches_are_the_resized_normalized_files_in_order(folder):
    images = open_images(folder, P)
    batches = list(images.batches(8))
    assert [len(b.x) for b in batches] == [8, 8, 5]
    assert np.concatenate([b.indices for b in batches]).tolist() == list(range(21))
    assert (
        np.concatenate([b.labels for b in batches]).tolist() == images.labels.tolist() == [0] * 12 + [1] * 6 + [2] * 3
    )
    assert all(b.x.dtype == np.float32 and b.x.shape[1:] == (3, 6, 8) for b in batches)
    for i in (0, 13, 20):
        with Image.open(images.source.places[i]) as stored:
            resized = np.asarray(stored.resize((8, 6), Image.Resampling.BILINEAR))
        assert np.array_equal(batches[i // 8].x[i % 8], P.apply(resized))
        assert np.array_equal(images.image(i, (6, 8)), resized)


def test_every_pass_is_the_same_and_limit_is_a_prefix(folder):
    images = open_images(folder, P)
    whole = np.concatenate([b.x for b in images.batches(4)])
    assert np.array_equal(whole, np.concatenate([b.x for b in images.batches(21)]))
    assert np.array_equal(whole[:5], np.concatenate([b.x for b in images.batches(2, limit=5)]))
    assert sum(len(b.x) for b in images.batches(limit=1000)) == 21
    for wrong in ({"size": 0}, {"limit": 0}):
        with pytest.raises(DataError):
            images.batches(**wrong)


def test_pixels_for_training(folder):
    images = open_images(folder, None)
    assert all(p.dtype == np.uint8 and p.shape == (10, 10, 3) for p, _ in images.pixels(10))
    assert [label for _, label in images.pixels((3, 4))] == images.labels.tolist()
    with pytest.raises(DataError, match=r"lowbit\.prepare"):
        images.batches()


def test_an_unreadable_image_stops_the_pass_by_name(folder):
    (folder / "b" / "03.png").write_bytes(b"broken")
    images = open_images(folder, P)
    with pytest.raises(DataError, match=r"03\.png: cannot read the image"):
        list(images.batches(4))


def slow_source(count, running):
    def read(place, channels):
        with running.lock:
            running.now += 1
            running.ahead = max(running.ahead, place - running.consumed)
        image = np.full((6, 8, 3), place % 256, np.uint8)
        with running.lock:
            running.now -= 1
        return image

    return Images(Source("slow", "slow", tuple(range(count)), read), P)


class Running:
    def __init__(self):
        self.lock, self.now, self.ahead, self.consumed = threading.Lock(), 0, 0, 0


def test_reading_ahead_is_bounded_whatever_the_count(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 2)
    running = Running()
    for n, (image, _) in enumerate(slow_source(2000, running).pixels()):
        running.consumed = n
        assert image[0, 0, 0] == n % 256
    assert 0 < running.ahead <= 4 * module.MOST_THREADS + 1


def test_a_pass_that_is_given_up_leaves_no_threads(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 2)
    before = threading.active_count()
    batches = slow_source(1000, Running()).batches(4)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_subset_is_stratified_ordered_and_repeatable(folder):
    images = open_images(folder, P)
    chosen = images.subset(7)
    assert np.bincount(chosen.labels).tolist() == [4, 2, 1]
    assert list(chosen.source.places) == sorted(chosen.source.places)
    assert chosen.source.places == open_images(folder, P, limit=7, seed=0).source.places
    assert chosen.source.places != images.subset(7, seed=1).source.places
    assert np.bincount(images.subset(7, seed=1).labels).tolist() == [4, 2, 1]
    assert images.subset(99).count == 21
    for wrong in (0, -3):
        with pytest.raises(DataError, match="must be at least 1"):
            images.subset(wrong)


def test_the_choice_never_changes():
    # Reports name a seed; another choice under the same seed would make their numbers irreproducible.
    assert stratified(None, 20, 6, seed=0) == [2, 4, 6, 10, 14, 17]


@pytest.mark.parametrize("limit", [50, 500])
def test_of_a_thousand_classes_with_one_image_each_it_is_not_the_first_that_are_taken(limit):
    labels = np.arange(1000)
    chosen = np.array(stratified(labels, 1000, limit, seed=0))
    assert len(set(chosen)) == limit
    for part in np.split(np.arange(1000), 4):
        assert np.isin(part, chosen).sum() == pytest.approx(limit / 4, rel=0.5)
    assert chosen.tolist() == stratified(labels, 1000, limit, seed=0)
    assert chosen.tolist() != stratified(labels, 1000, limit, seed=1)


def test_images_set_apart_and_the_others_are_all_of_them(folder):
    images = open_images(folder, P)
    others, apart = images.apart(7)
    assert np.bincount(apart.labels).tolist() == [4, 2, 1]
    assert apart.source.places == images.subset(7).source.places
    assert sorted((*others.source.places, *apart.source.places)) == sorted(images.source.places)
    assert others.count == 14
    with pytest.raises(DataError, match="must be at least 1"):
        images.apart(0)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 3))
def test_shares_are_within_one_image_of_proportional(labels, limit, seed):
    tags = np.array(labels)
    chosen = stratified(tags, len(tags), limit, seed=seed)
    assert len(chosen) == len(set(chosen)) == min(limit, len(tags))
    for kind in set(labels):
        share = min(limit, len(tags)) * labels.count(kind) / len(tags)
        assert abs(sum(tags[i] == kind for i in chosen) - share) < 1


def test_reopening_keeps_the_images_and_takes_the_new_preprocessing(folder):
    images = open_images(folder, None)
    assert open_images(images, None).source is images.source
    again = open_images(images, P, limit=3)
    assert again.count == 3
    assert next(again.batches()).x.shape == (3, 3, 6, 8)
    with pytest.raises(DataError, match="the classes are a, b, c"):
        open_images(images, P, classes=["x", "y", "z"])


def test_digests_are_of_the_pixels_whatever_they_are_stored_in(folder, tmp_path_factory):
    images = open_images(folder, P)
    other = tmp_path_factory.mktemp("other")
    pictures = [p for p, _ in images.pixels()]
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(other / f"{99 - i}.bmp")
    copies = open_images(other, P)
    assert sorted(copies.digests) == sorted(images.digests)
    assert len(set(images.digests)) == 21
    assert overlap(images, copies) == overlap(copies, images) == 21
    one = open_images([pictures[4].transpose(2, 0, 1)], None)
    assert one.digests[0] == images.digests[4]
    # The same bytes in another shape are another picture.
    flat = open_images([pictures[4].reshape(-1, 1, 3)], None)
    assert flat.digests[0] != images.digests[4]


def test_fingerprint_depends_on_pixels_and_labels_not_on_names(folder):
    images = open_images(folder, P)
    before = images.fingerprint()
    assert len(before) == 64
    (folder / "a" / "00.png").rename(folder / "a" / "zz.png")
    assert open_images(folder, P).fingerprint() == before
    (folder / "a" / "zz.png").rename(folder / "b" / "zz.png")
    moved = open_images(folder, P)
    assert moved.fingerprint() != before
    assert sorted(moved.digests) == sorted(images.digests)
    Image.new("RGB", (4, 4)).save(folder / "b" / "zz.png")
    assert sorted(open_images(folder, P).digests) != sorted(images.digests)


def test_overlap_counts_and_is_free_for_the_same_files(folder):
    images = open_images(folder, P)
    part = images.subset(5)
    assert overlap(images, open_images(folder, None)) == 21
    assert overlap(part, images) == 5
    assert "digests" not in images.__dict__
    assert "digests" not in part.__dict__
    assert overlap(images, part) == 5
    rest = Images(
        images.source.select([i for i, p in enumerate(images.source.places) if p not in part.source.places]), P
    )
    assert overlap(part, rest) == overlap(rest, part) == 0
    assert overlap(open_images(folder / "a", P), images) == 12


def test_different_objects_are_not_taken_for_each_other():
    zeros, ones = (np.full((2, 6, 8, 3), value, np.uint8) for value in (0, 1))
    assert overlap(open_images(zeros, P), open_images(ones, P)) == 0
    assert overlap(open_images(zeros, P), open_images(zeros.copy(), P)) == 2
    # A generator's own identity dies with it and may be given to the next one.
    one, other = (open_images((image for image in images), P) for images in (zeros, ones))
    assert overlap(one, other) == 0


def test_labels_must_fit_the_outputs(folder):
    images = open_images(folder, P)
    check_labels(images, 3)
    for outputs in (2, 4):
        with pytest.raises(DataError, match=rf"3 classes \(a, b, c\), the model has {outputs} outputs"):
            check_labels(images, outputs)
    arrays = open_images((np.zeros((3, 6, 8, 3), np.uint8), [0, 5, 1]), P)
    check_labels(arrays, 6)
    with pytest.raises(DataError, match=r"image 1: the label is 5, but the model has 5 outputs \(0 to 4\)"):
        check_labels(arrays, 5)
    check_labels(open_images(folder / "a", P), 2)


def test_digests_of_images_that_a_pass_has_decoded_are_those_of_a_fresh_look(folder):
    """A pass notes them on the way; half a pass notes half of them."""
    fresh = open_images(folder, P)
    passed = open_images(folder, P)
    next(iter(passed.batches(1)))
    half = passed.digests
    assert half == fresh.digests
    again = open_images(folder, P)
    assert sum(len(batch.x) for batch in again.batches(2)) == again.count
    assert again.fingerprint() == fresh.fingerprint()


def test_links_lead_to_the_file_that_they_stand_for(folder):
    """Through a linked folder and a linked file alike, so that no image counts twice."""
    first = next(path for path in sorted(folder.rglob("*.png")))
    linked = folder.parent / "linked"
    linked.symlink_to(folder, target_is_directory=True)
    alone = folder.parent / "alone"
    alone.mkdir()
    (alone / "name.png").symlink_to(first)
    assert open_images(linked, P).source.places == open_images(folder, P).source.places
    assert open_images(alone, P).source.places == (first.resolve(),)


def test_a_link_to_itself_is_passed_over(folder):
    before = open_images(folder, P).source.places
    (folder / "a" / "endless.png").symlink_to(folder / "a" / "endless.png")
    (folder / "endless").symlink_to(folder / "endless", target_is_directory=True)
    assert open_images(folder, P).source.places == before
