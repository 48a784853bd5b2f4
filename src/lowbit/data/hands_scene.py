"""Light, surroundings and camera faults for the built-in hands: from a height map to a photograph-like image.

Resampling and blurs run in Pillow on 8-bit pixels (integer arithmetic), the rest is elementwise float32.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Pixels = npt.NDArray[np.uint8]
SKINS = ((255, 219, 190), (241, 194, 155), (224, 172, 128), (198, 134, 96), (150, 98, 66), (105, 68, 48), (72, 46, 34))
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """What is around the hand: the picture behind it, its skin and sleeve, and the light."""

    background: Image.Image
    skin: Color
    sleeve: Color
    light: tuple[float, float, float]
    ambient: float


def surroundings(generator: np.random.Generator, size: int) -> Scene:
    """Draw a background of `size` x `size` pixels, and choose skin, sleeve and light."""
    uniform = generator.uniform
    tone = uniform(0, len(SKINS) - 1.001)
    below, share = int(tone), tone - int(tone)
    tint = [uniform(-10, 10) for _ in range(3)]
    skin = _color(*(a + (b - a) * share + c for a, b, c in zip(SKINS[below], SKINS[below + 1], tint, strict=True)))
    sleeve = _random_color(generator)
    background = _background(generator, size, skin)
    angle, height = uniform(0, 2 * math.pi), uniform(0.35, 0.9)
    flat = math.sqrt(1 - height * height)
    light = (round(flat * math.cos(angle), 4), round(flat * math.sin(angle), 4), round(height, 4))
    return Scene(background, skin, sleeve, light, uniform(0.35, 0.7))


def finish(
    heights: npt.NDArray[np.float32],
    parts: npt.NDArray[np.uint8],
    scene: Scene,
    generator: np.random.Generator,
    size: int,
) -> Pixels:
    """Light the hand, place it in its scene and add camera faults: uint8 [size, size, 3]."""
    uniform = generator.uniform
    hand, mask = lit(heights, parts, scene, generator, size), outline(parts > 0, size)
    image = scene.background
    if uniform() < 0.6:  # the shadow of the hand on the background
        far = uniform(3, 14)
        shadow = ImageChops.offset(mask, int(-far * scene.light[0]), int(-far * scene.light[1]))
        strength = uniform(0.2, 0.6)
        shadow = shadow.filter(ImageFilter.BoxBlur(uniform(1, 5))).point([int(v * strength) for v in range(256)])
        image.paste((12, 12, 16), (0, 0), shadow)
    image.paste(hand, (0, 0), mask)
    if uniform() < 0.1:
        _obstruct(image, generator)
    return photograph(image, generator)


def outline(seen: npt.NDArray[np.bool_], size: int) -> Image.Image:
    """How much of each pixel is covered by what is seen in the drawing, 0 to 255: "L", `size` x `size`."""
    return Image.fromarray(np.where(seen, np.uint8(255), np.uint8(0))).resize((size, size), Image.Resampling.BOX)


def lit(
    heights: npt.NDArray[np.float32],
    parts: npt.NDArray[np.uint8],
    scene: Scene,
    generator: np.random.Generator,
    size: int,
) -> Image.Image:
    """Lambert's law on the slope of the height map, creases darker, nails brighter, skin mottled: `size` x `size`."""
    drawn = heights.shape[0]
    floor = float(heights[parts > 0].min()) if parts.any() else 0.0
    surface = np.maximum(heights, np.float32(floor))
    slope_x, slope_y = np.zeros_like(surface), np.zeros_like(surface)
    slope_x[:, 1:-1] = (surface[:, 2:] - surface[:, :-2]) * np.float32(0.5)
    slope_y[1:-1] = (surface[2:] - surface[:-2]) * np.float32(0.5)
    np.clip(slope_x, -2.5, 2.5, out=slope_x)
    np.clip(slope_y, -2.5, 2.5, out=slope_y)
    x, y, z = (np.float32(v) for v in scene.light)
    facing = (z - slope_x * x - slope_y * y) / np.sqrt(slope_x * slope_x + slope_y * slope_y + np.float32(1.0))
    shade = np.float32(scene.ambient) + np.float32(1.25 - scene.ambient) * np.maximum(facing, 0)
    # Where the surface is lower than around it, less light arrives.
    top = max(float(surface.max()), floor + 1.0)
    levels = ((surface - np.float32(floor)) * np.float32(255.0 / (top - floor))).astype(np.uint8)
    around = np.asarray(Image.fromarray(levels).filter(ImageFilter.BoxBlur(drawn / 40)), dtype=np.float32)
    crease = np.clip(around - levels.astype(np.float32), 0, 60) * np.float32(1 / 60)
    shade *= np.float32(1.0) - np.float32(generator.uniform(0.15, 0.5)) * crease
    mottle = _soft_noise(generator, 24, drawn)
    shade *= np.float32(0.92) + mottle * np.float32(0.16 / 255)
    skin = np.asarray(scene.skin, dtype=np.float32)
    nail = np.minimum(skin * np.float32(0.9) + np.asarray((38, 20, 24), dtype=np.float32), 255)
    palette = np.stack([skin, skin, nail, np.asarray(scene.sleeve, dtype=np.float32), skin])
    pixels = palette[parts] * shade[..., None]
    whole = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return whole.resize((size, size), Image.Resampling.BOX)


def _background(generator: np.random.Generator, size: int, skin: Color) -> Image.Image:
    uniform = generator.uniform
    first = _random_color(generator)
    if uniform() < 0.08:  # nearly the color of the hand
        first = _color(*(value + uniform(-30, 30) for value in skin))
    second = _random_color(generator)
    kind = uniform()
    if kind < 0.3:
        image = Image.new("RGB", (size, size), first)
    elif kind < 0.7:
        second = _color(*(a + (b - a) * 0.6 for a, b in zip(first, second, strict=True)))
        corners = np.asarray([first, second, second, first], dtype=np.uint8).reshape(2, 2, 3)
        image = Image.fromarray(corners).resize((size, size), Image.Resampling.BICUBIC)
    elif kind < 0.88:
        grain = int(generator.integers(3, 40))
        cells = generator.integers(0, 256, (grain, grain, 3), dtype=np.uint8)
        texture = Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)
        image = Image.blend(Image.new("RGB", (size, size), first), texture, uniform(0.05, 0.3))
    else:
        second = _color(*(a + (b - a) * 0.5 for a, b in zip(first, second, strict=True)))
        image = Image.new("RGB", (size, size), first)
        draw, step, lean = ImageDraw.Draw(image), int(generator.integers(5, 28)), int(generator.integers(-80, 80))
        for place in range(-size, 2 * size, 2 * step):
            draw.line((place, -4, place + lean, size + 4), fill=second, width=step)
            if kind > 0.95:
                draw.line((-4, place, size + 4, place + lean), fill=second, width=step // 2 + 1)
    if uniform() < 0.25:
        _clutter(image, generator, skin)
    if uniform() < 0.5:
        image = image.filter(ImageFilter.BoxBlur(uniform(0.5, 4)))
    return image


def _clutter(image: Image.Image, generator: np.random.Generator, skin: Color) -> None:
    """Objects behind the hand, some of them finger-like: rods of skin color, balls, boxes."""
    uniform, draw, size = generator.uniform, ImageDraw.Draw(image), image.width
    for _ in range(int(generator.integers(2, 10))):
        color = _random_color(generator)
        if uniform() < 0.3:
            color = _color(*(value * 0.8 + uniform(-25, 25) for value in skin))
        x, y, kind = uniform(0, size), uniform(0, size), uniform()
        if kind < 0.35:
            draw.line(
                (int(x), int(y), int(x + uniform(-60, 60)), int(y + uniform(-60, 60))),
                fill=color,
                width=int(generator.integers(2, 13)),
            )
        else:
            box = (int(x), int(y), int(x + uniform(6, 55)), int(y + uniform(6, 55)))
            (draw.ellipse if kind < 0.65 else draw.rectangle)(box, fill=color)


def _obstruct(image: Image.Image, generator: np.random.Generator) -> None:
    """An object in front of the hand."""
    uniform, draw, size = generator.uniform, ImageDraw.Draw(image), image.width
    color = _random_color(generator)
    if uniform() < 0.5:
        x, y = int(uniform(0.15, 0.6) * size), int(uniform(0.15, 0.6) * size)
        draw.rectangle((x, y, x + int(uniform(12, 42)), y + int(uniform(12, 42))), fill=color)
    else:
        ends = (int(uniform(0, size)), 0, int(uniform(0, size)), size)
        draw.line(
            ends if uniform() < 0.5 else (ends[1], ends[0], ends[3], ends[2]), fill=color, width=int(uniform(5, 17))
        )


def photograph(image: Image.Image, generator: np.random.Generator) -> Pixels:
    """Blur, low resolution, exposure, color cast and sensor noise: uint8, as large as the image, a square."""
    uniform, size = generator.uniform, image.width
    fault = uniform()
    if fault < 0.12:
        image = image.filter(ImageFilter.BoxBlur(uniform(2.0, 4.0)))
    elif fault < 0.5:
        image = image.filter(ImageFilter.BoxBlur(uniform(0.2, 1.2)))
    elif fault < 0.62:
        small = int(uniform(24, 64))
        image = image.resize((small, small), Image.Resampling.BOX).resize((size, size), Image.Resampling.BILINEAR)
    exposure, black = uniform(0.55, 1.25), uniform(-20, 25)
    cast = np.asarray([exposure * uniform(0.86, 1.12) for _ in range(3)], dtype=np.float32)
    pixels = np.asarray(image, dtype=np.float32) * cast + np.float32(black)
    grain = generator.integers(0, 256, (2, size, size, 3), dtype=np.uint8).astype(np.float32)
    strength = uniform(6, 22) if uniform() < 0.2 else uniform(0, 6)  # standard deviation in levels
    pixels += (grain[0] - grain[1]) * np.float32(strength / 104.5)
    return np.asarray(np.clip(pixels, 0, 255), np.uint8)


def _soft_noise(generator: np.random.Generator, cells: int, size: int) -> npt.NDArray[np.float32]:
    coarse = generator.integers(0, 256, (cells, cells), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)


def _random_color(generator: np.random.Generator) -> Color:
    """Any color, mostly muted, as rooms and clothes are."""
    red, green, blue = (int(value) for value in generator.integers(0, 256, 3))
    gray, keep = (red + green + blue) // 3, generator.uniform(0.1, 0.7)
    return _color(*(gray + (value - gray) * keep for value in (red, green, blue)))


def _color(*values: float) -> Color:
    red, green, blue = (max(0, min(255, int(value))) for value in values)
    return red, green, blue
