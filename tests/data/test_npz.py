"""A .npz file is untrusted: nothing is allocated on its word, nothing executed."""

import io
import pickle
import resource
import zipfile

import numpy as np
import pytest

from lowbit.data import npz
from lowbit.data.dataset import overlap
from lowbit.data.images import open_images
from lowbit.errors import DataError
from lowbit.graph.preprocessing import Preprocessing

P = Preprocessing(4, 5)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)


def header(shape, dtype="|u1", fortran=False):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": fortran, "shape": shape})
    return file.getvalue()


def archive(path, data, name="images.npy", method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as opened:
        opened.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y")])
@pytest.mark.parametrize("order", ["C", "F"])
def test_images_and_labels_come_back(tmp_path, pixels, save, keys, order):
    save(tmp_path / "a.npz", **{keys[0]: np.asarray(pixels, order=order), keys[1]: np.arange(6)[:, None]})
    images = open_images(tmp_path / "a.npz", P)
    assert images.name == "a.npz"
    assert images.labels.tolist() == list(range(6))
    assert np.array_equal(np.stack([p for p, _ in images.pixels()]), pixels)
    assert next(images.batches()).x.shape == (6, 3, 4, 5)


def test_uncompressed_arrays_are_mapped_not_loaded(tmp_path, pixels):
    np.savez(tmp_path / "a.npz", y=np.zeros(6, int), x=pixels)
    with zipfile.ZipFile(tmp_path / "a.npz") as opened:
        array = npz._array(opened, opened.getinfo("x.npy"), tmp_path / "a.npz")
    assert isinstance(array, np.memmap)
    assert np.array_equal(array, pixels)


def test_floats_and_channels_first(tmp_path, pixels):
    np.savez(tmp_path / "a.npz", x=pixels.transpose(0, 3, 1, 2) / np.float32(255))
    images = open_images(tmp_path / "a.npz", P)
    assert images.labels is None
    assert np.allclose(next(images.batches()).x, pixels.transpose(0, 3, 1, 2) / 255.0, atol=1e-7)


def test_class_names_can_be_given(tmp_path, pixels):
    np.savez(tmp_path / "a.npz", x=pixels, y=np.arange(6) % 3)
    assert open_images(tmp_path / "a.npz", P, classes=["a", "b", "c"]).class_names == ("a", "b", "c")
    with pytest.raises(DataError, match="the label is 2"):
        open_images(tmp_path / "a.npz", P, classes=["a", "b"])


@pytest.mark.parametrize(
    "labels", [np.arange(5), np.float64(3), np.eye(5, dtype=np.int64), np.arange(6) - 1, np.zeros(6, bool)]
)
def test_labels_that_do_not_fit_the_images(tmp_path, pixels, labels):
    np.savez(tmp_path / "a.npz", x=pixels, y=labels)
    with pytest.raises(DataError, match="labels"):
        open_images(tmp_path / "a.npz", P)


def test_missing_images_lists_what_there_is(tmp_path, pixels):
    np.savez(tmp_path / "a.npz", data=pixels)
    with pytest.raises(DataError, match=r"no array 'images' or 'x', only data.*np\.savez"):
        open_images(tmp_path / "a.npz", P)


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


def test_pickles_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive(tmp_path / "a.npz", header((1,), "|O") + pickle.dumps(Trap()))
    with pytest.raises(DataError):
        open_images(tmp_path / "a.npz", P)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "shape", [(1 << 40, 4, 5, 3), (-1, 4, 5, 3), (6, 4, 5, 3), (1 << 62, 1 << 62, 4, 4), (0, 4, 5, 3)]
)
def test_headers_that_lie_about_the_size(tmp_path, method, shape):
    archive(tmp_path / "a.npz", header(shape) + bytes(100), method=method)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"a\.npz"):
        open_images(tmp_path / "a.npz", P)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_headers_that_are_no_headers(tmp_path):
    for data in (
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x03\x00" + bytes(200),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"x" * 99,
    ):
        with pytest.raises(DataError, match=r"a\.npz"):
            open_images(archive(tmp_path / "a.npz", data), P)


def test_decompression_bombs_are_refused_before_they_unpack(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "RATIO_MATTERS_BYTES", 10_000)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((5000, 4, 5, 3), np.uint8))
    with pytest.raises(DataError, match="bomb"):
        open_images(tmp_path / "a.npz", P)
    np.savez(tmp_path / "b.npz", x=np.zeros((5000, 4, 5, 3), np.uint8))
    assert open_images(tmp_path / "b.npz", P).count == 5000
    monkeypatch.setattr(npz, "UNPACKED_BYTES", 1000)
    with pytest.raises(DataError, match="would have to be unpacked"):
        open_images(tmp_path / "a.npz", P)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_noticed(tmp_path, pixels, save):
    save(tmp_path / "a.npz", x=pixels)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.npz: cannot read the \.npz"):
        open_images(tmp_path / "cut.npz", P)
    data[300] ^= 255  # within the pixels
    (tmp_path / "flipped.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"flipped\.npz"):
        open_images(tmp_path / "flipped.npz", P)


def test_overlap_of_a_file_with_itself_and_with_a_copy(tmp_path, pixels):
    np.savez(tmp_path / "a.npz", x=pixels)
    np.savez_compressed(tmp_path / "b.npz", images=pixels[2:].transpose(0, 3, 1, 2))
    a, b = (open_images(tmp_path / name, P) for name in ("a.npz", "b.npz"))
    assert overlap(a, open_images(tmp_path / "a.npz", P)) == 6
    assert "digests" not in a.__dict__
    assert (overlap(a, b), overlap(b, a)) == (4, 4)


@pytest.mark.parametrize(
    "text", ["{'descr': '<f4', 'shape': (1,", "{'descr': None, 'fortran_order': 0, 'shape': ()}", "(", "0x"]
)
def test_headers_that_are_no_header(tmp_path, text):
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    with pytest.raises(DataError, match="header of an array is damaged"):
        open_images(archive(tmp_path / "a.npz", content), P)
