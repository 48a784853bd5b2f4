"""One image file -> uint8 [height, width, channels], and resizing.

Every file gives the same kind of array: EXIF orientation is applied, transparency is blended with white, 16-bit grays
are scaled to 8 bits, CMYK and palettes become RGB, and an animation gives its first frame. Color profiles are ignored,
as training pipelines do. Image files are untrusted: only four decoders are tried, and pillow's pixel limit is checked
on the header, before anything is allocated.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from lowbit.errors import DataError, LowbitError

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib"})
UNSUPPORTED_SUFFIXES = frozenset({".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".tga"})
# Photographs of any size have a few pixels for each byte of their files; those of a clear sky may have 20. A page of A4
# at 600 dpi has 35 million pixels in any number of bytes, and takes 0.8 GB until it is scaled.
ANY_PIXELS, PIXELS_PER_BYTE = 40_000_000, 32
ORIENTATION_TAG = 0x0112
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_file(path: Path, channels: int = 3) -> Pixels:
    """Read one image file.

    Args:
        path: a PNG, JPEG, WebP or BMP file of any mode.
        channels: 1 for gray, 3 for RGB.

    Returns:
        uint8 [height, width, channels], at the file's own size.

    Raises:
        DataError: missing, unreadable, damaged, or more pixels than `PIL.Image.MAX_IMAGE_PIXELS`; names the file.
    """
    _check_channels(channels, str(path))
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise _too_large(path, f"{image.width}x{image.height} pixels")
            stored = path.stat().st_size
            if image.width * image.height > max(ANY_PIXELS, PIXELS_PER_BYTE * stored):
                raise DataError(
                    f"{stored} bytes unpack to {image.width}x{image.height} pixels (a decompression bomb?).",
                    where=str(path),
                    remedy="Scale it down, or remove it from the folder.",
                )
            return to_pixels(image, channels)
    except LowbitError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "too many pixels") from error
    except Exception as error:
        # On damaged files, pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others.
        reason = getattr(error, "strerror", None) or (
            "not an image in a format that lowbit reads" if isinstance(error, UnidentifiedImageError) else error
        )
        raise DataError(
            f"cannot read the image: {reason}.", where=str(path), remedy="Replace it, or remove it from the folder."
        ) from error


def to_pixels(image: Image.Image, channels: int = 3) -> Pixels:
    """Turn a pillow image of any mode into uint8 [height, width, channels]."""
    image = _upright(image)
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        colors = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors)
    if channels == 1:
        gray = image if image.mode == "L" else image.convert("RGB").convert("L")
        return np.asarray(gray)[:, :, None]
    return np.asarray(image.convert("RGB"))


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """RGB uint8 [height, width, 3] as it is, or converted to gray [height, width, 1]."""
    _check_channels(channels, "image")
    return pixels if channels == 3 else to_pixels(Image.fromarray(pixels), channels)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale uint8 [h, w, channels] to [height, width, channels]: bilinear, antialiased, aspect ratio not kept."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    planes = [Image.fromarray(np.ascontiguousarray(pixels[:, :, c])) for c in range(pixels.shape[2])]
    return np.stack([np.asarray(p.resize((width, height), Image.Resampling.BILINEAR)) for p in planes], axis=2)


def _check_channels(channels: int, where: str) -> None:
    if channels not in (1, 3):
        raise DataError(
            f"image files give 1 or 3 channels, the model takes {channels}.",
            where=where,
            remedy="Give the images as arrays or .npz instead.",
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:
        # Damaged EXIF beside sound pixels: shown as stored, as viewers do.
        return image
    turn = ORIENTATIONS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = dict(image.info)
    return turned


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray to 8 bits by rounding value * 255 / 65535; pillow's own conversions clip or truncate."""
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    gray = ((values * 255 + 32767) // 65535).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray[values == key] = 255
    return Image.fromarray(gray)


def _too_large(path: Path, size: str) -> DataError:
    return DataError(
        f"the image has {size}, the limit is {Image.MAX_IMAGE_PIXELS} (a decompression bomb?).",
        where=str(path),
        remedy="Scale it down, or remove it from the folder.",
    )
