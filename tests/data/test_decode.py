"""Every kind of image file gives the same kind of pixels, and bad files are named."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lowbit.data.decode import ORIENTATIONS, decode_file, resize, to_pixels, with_channels
from lowbit.errors import DataError


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def save(image, path, **options):
    image.save(path, **options)
    return path


@pytest.fixture
def colors():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_lossless_formats_give_the_pixels_back(tmp_path, colors, suffix):
    path = save(Image.fromarray(colors), tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(decode_file(path), colors)


def test_jpeg_with_the_wrong_suffix_is_told_by_its_content(tmp_path):
    path = save(Image.new("RGB", (8, 6), (200, 30, 30)), tmp_path / "a.png", format="JPEG")
    pixels = decode_file(path)
    assert pixels.shape == (6, 8, 3)
    assert np.abs(pixels.astype(int) - [200, 30, 30]).max() <= 3


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    assert decode_file(save(Image.fromarray(rgba), tmp_path / "a.png")).tolist() == [
        [[10, 20, 30], [255, 255, 255], [204, 204, 204]]
    ]


def test_gray_with_alpha(tmp_path):
    image = Image.merge("LA", [Image.fromarray(np.array([row], np.uint8)) for row in ([100, 100], [255, 0])])
    path = save(image, tmp_path / "a.png")
    assert decode_file(path).tolist() == [[[100] * 3, [255] * 3]]
    assert decode_file(path, 1).tolist() == [[[100], [255]]]


def palette_image():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


def test_palette_and_palette_with_transparency(tmp_path):
    plain = save(palette_image(), tmp_path / "a.png")
    assert decode_file(plain).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    keyed = save(palette_image(), tmp_path / "b.png", transparency=1)
    assert decode_file(keyed).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    alphas = save(palette_image(), tmp_path / "c.png", transparency=bytes([255, 255, 0]))
    assert decode_file(alphas).tolist() == [[[255, 0, 0], [0, 255, 0], [255, 255, 255]]]


def test_color_key_of_rgb(tmp_path):
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    path = save(image, tmp_path / "a.png", transparency=(1, 2, 3))
    assert decode_file(path).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 128, 129, 256, 32768, 65535]], np.uint16)
    path = save(Image.fromarray(values), tmp_path / "a.png")
    # 128 / 257 rounds to 0, 129 / 257 to 1.
    assert decode_file(path, 1)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert decode_file(path).shape == (1, 6, 3)


def test_sixteen_bit_color_key(tmp_path):
    image = Image.fromarray(np.array([[500, 65535, 0]], np.uint16))
    path = tmp_path / "a.png"
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    at = data.index(b"IDAT") - 4
    path.write_bytes(data[:at] + png_chunk(b"tRNS", struct.pack(">H", 0)) + data[at:])
    assert decode_file(path, 1)[0, :, 0].tolist() == [2, 255, 255]


def test_bilevel_and_cmyk(tmp_path):
    assert decode_file(save(Image.new("1", (2, 2), 1), tmp_path / "a.png")).tolist() == [[[255] * 3] * 2] * 2
    cmyk = decode_file(save(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "b.jpg", quality=95))
    assert np.abs(cmyk.astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_exif_orientation_is_honored(tmp_path, orientation):
    # Stored so that after the turn that the tag asks for, the picture is upright again.
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    backwards = {6: 8, 8: 6}.get(orientation, orientation)
    stored = Image.fromarray(upright).transpose(ORIENTATIONS[backwards])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(stored, tmp_path / "a.png", exif=exif)
    assert decode_file(path, 1)[:, :, 0].tolist() == upright.tolist()


def test_nonsense_in_exif_does_not_cost_the_image(tmp_path, colors):
    path = save(Image.fromarray(colors), tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert np.array_equal(decode_file(path), colors)


def test_gray_from_color(tmp_path, colors):
    path = save(Image.fromarray(colors), tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(colors).convert("L"))
    assert np.array_equal(decode_file(path, 1)[:, :, 0], expected)
    assert np.array_equal(with_channels(colors, 1)[:, :, 0], expected)
    with pytest.raises(DataError, match="1 or 3 channels"):
        decode_file(path, 4)


BROKEN = [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a" + bytes(50)]


@pytest.mark.parametrize("content", BROKEN)
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot read the image") as caught:
        decode_file(path)
    assert "broken.png" in str(caught.value)


def test_every_truncation_is_an_error_with_the_name(tmp_path, colors):
    data = save(Image.fromarray(np.tile(colors, (9, 9, 1))), tmp_path / "a.jpg").read_bytes()
    for end in range(0, len(data) - 2, max(1, len(data) // 40)):
        (tmp_path / "cut.jpg").write_bytes(data[:end])
        with pytest.raises(DataError, match=r"cut\.jpg"):
            decode_file(tmp_path / "cut.jpg")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png.*No such file"):
        decode_file(tmp_path / "gone.png")


def test_a_file_of_few_bytes_and_many_pixels_is_a_bomb(tmp_path):
    """Below pillow's limit; two of them at a time took 2 GB. A page of A4 at 600 dpi, almost blank, is none."""
    path = save(Image.new("1", (6400, 6400)), tmp_path / "blank.png")
    with pytest.raises(DataError, match=r"blank\.png.*bytes unpack to 6400x6400"):
        decode_file(path)
    assert decode_file(save(Image.new("1", (4961, 7016)), path)).shape == (7016, 4961, 3)


@pytest.mark.parametrize("side", [150, 1000])  # a little over the limit (pillow warns), and far over (pillow raises)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_by_name(tmp_path, monkeypatch, side):
    path = save(Image.new("L", (side, side)), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 150)
    with pytest.raises(DataError, match=r"bomb\.png.*pixels"):
        decode_file(path)


def test_a_header_that_claims_a_huge_image_allocates_nothing(tmp_path):
    header = struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(9))))
    with pytest.raises(DataError, match="too many pixels"):
        decode_file(path)


def test_resizing_is_antialiased_and_bilinear(colors):
    checkers = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    small = resize(np.repeat(checkers[:, :, None].astype(np.uint8), 3, axis=2), 8, 8)
    assert small.shape == (8, 8, 3)
    assert np.abs(small.astype(int) - 127).max() <= 2
    assert resize(colors, 5, 7) is colors
    for channels in (1, 2, 4):
        planes = np.repeat(colors[:, :, :1], channels, axis=2)
        assert np.array_equal(resize(planes, 9, 4), np.repeat(resize(colors, 9, 4)[:, :, :1], channels, axis=2))


def test_pillow_images_of_other_libraries(colors):
    assert np.array_equal(to_pixels(Image.fromarray(colors)), colors)
