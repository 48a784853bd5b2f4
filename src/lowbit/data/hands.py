"""Rock, paper and scissors without a download: hands drawn from a jointed model, the same on every machine.

A hand is a skeleton in three dimensions (palm, four fingers of three bones, thumb, forearm) whose joints bend as the
gesture asks. Each bone is a sphere swept along a segment and tapering on its way; `_sweep` writes its front surface
into a height map, the nearest wins, and light falls on the slope of that map. `hands_scene` then supplies what makes
photographs hard: background, shadow, things in the way, blur, noise and bad exposure.

Image `index` of a split depends on (`SEED`, split, index) only, so any of them can be drawn alone. Pixels come from
additions, multiplications, square roots and integer resampling, which are exact or correctly rounded everywhere; libm
enters only through the angles of joints and of the light, and positions are rounded before they are used.

Limits: no image shows a real hand. The set is hard enough to tell good quantization from bad.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from lowbit.data.hands_scene import Pixels, finish, lit, outline, surroundings
from lowbit.errors import DataError

CLASS_NAMES = ("paper", "rock", "scissors")
SIZE = 128
COUNTS = {"train": 2520, "test": 372, "calibration": 300}
SEED = 0  # another one is another data set
RENDER_SIZE = 160  # drawn at 1.25x and reduced, so that outlines are smooth

FINGER_BASES = ((-0.36, 0.50), (-0.12, 0.56), (0.12, 0.53), (0.34, 0.43))  # in palm widths, from the middle of the palm
FINGER_LENGTHS = (0.92, 1.02, 0.95, 0.74)
FINGER_RADII = (0.118, 0.122, 0.115, 0.098)
BONES = (0.45, 0.30, 0.25)  # how a finger's length is shared by its three bones
FIST = (84.0, 98.0, 58.0)  # degrees at the three joints of a closed finger
THUMB_OPEN = ((-0.30, -0.28, 0.06), (-0.52, 0.02, 0.10), (-0.72, 0.30, 0.14), (-0.88, 0.54, 0.16))
THUMB_BESIDE = ((-0.30, -0.28, 0.06), (-0.48, 0.04, 0.14), (-0.52, 0.34, 0.18), (-0.50, 0.62, 0.18))
THUMB_FOLDED = ((-0.30, -0.28, 0.08), (-0.48, 0.08, 0.36), (-0.26, 0.40, 0.62), (0.06, 0.40, 0.66))
SKIN, NAIL, SLEEVE, ARM = 1, 2, 3, 4

Point = tuple[float, float, float]
Heights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hands(Sequence[Pixels]):
    """One split as a sequence that draws an image each time it is read; nothing is kept."""

    split: str

    def __len__(self) -> int:
        return COUNTS[self.split]

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pixels]: ...
    def __getitem__(self, index: int | slice) -> Pixels | list[Pixels]:
        """Image `index` as uint8 [128, 128, 3]."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        key = np.random.SeedSequence([SEED, list(COUNTS).index(self.split), index])
        return render(CLASS_NAMES[index % 3], np.random.Generator(np.random.PCG64(key)))

    def __iter__(self) -> Iterator[Pixels]:
        return (self[i] for i in range(len(self)))


def builtin(split: str) -> tuple[Hands, npt.NDArray[np.int64]]:
    """The built-in images of a split and their labels, classes taking turns so that any prefix is balanced.

    Args:
        split: "train" (2520 images), "test" (372) or "calibration" (300).

    Returns:
        A sequence of uint8 [128, 128, 3] images, and int64 labels into `CLASS_NAMES`.

    Raises:
        DataError: there is no such split.
    """
    if split not in COUNTS:
        raise DataError(
            f"there is no built-in split {split!r}.",
            where=f"builtin:{split}",
            remedy=f"Use one of {', '.join(COUNTS)}.",
        )
    return Hands(split), np.arange(COUNTS[split], dtype=np.int64) % len(CLASS_NAMES)


def render(kind: str, generator: np.random.Generator) -> Pixels:
    """Draw one hand.

    Args:
        kind: "paper", "rock" or "scissors".
        generator: source of everything that varies.

    Returns:
        uint8 [128, 128, 3].
    """
    heights, parts = _surface(_strokes(kind, generator))
    scene = surroundings(generator, SIZE)
    return finish(heights, parts, scene, generator, SIZE)


def cut_out(kind: str, generator: np.random.Generator) -> Image.Image:
    """Draw one hand without arm and surroundings, cut at its outline: RGBA, at most 128 x 128.

    Args:
        kind: "paper", "rock" or "scissors".
        generator: source of everything that varies.
    """
    heights, parts = _surface(_strokes(kind, generator))
    image = lit(heights, parts, surroundings(generator, SIZE), generator, SIZE)
    image.putalpha(outline((parts == SKIN) | (parts == NAIL), SIZE))
    return image.crop(image.getbbox())


@dataclass(frozen=True)
class _Stroke:
    """A sphere swept from `start` to `end`, its radius going from `start_radius` to `end_radius`."""

    start: Point
    end: Point
    start_radius: float
    end_radius: float
    part: int = SKIN


def _strokes(kind: str, generator: np.random.Generator) -> list[_Stroke]:
    """The posed hand in pixels of the drawing, z towards the viewer."""
    uniform = generator.uniform
    bones = _palm(generator) + _fingers(*_pose(kind, generator), generator)
    mirror = -1.0 if uniform() < 0.5 else 1.0
    back = 180.0 if uniform() < 0.45 else 0.0
    tilt = 45.0 if uniform() < 0.15 else 20.0
    roll = uniform(-180, 180) if uniform() < 0.06 else uniform(-35, 35)
    turn = _rotation(uniform(-0.8 * tilt, 0.8 * tilt), back + uniform(-tilt, tilt), roll)
    scale = RENDER_SIZE * uniform(0.33, 0.46)
    tips = [bone.end for bone in bones if bone.part == SKIN and bone.end[1] > -0.6]
    middle = [sum(axis) / len(tips) for axis in zip(*(_turned(tip, turn, mirror) for tip in tips), strict=True)]
    shift = (RENDER_SIZE * uniform(0.44, 0.56), RENDER_SIZE * uniform(0.44, 0.56))

    def place(point: Point) -> Point:
        x, y, z = _turned(point, turn, mirror)
        near = 1.0 + 0.10 * z  # a little perspective
        return (
            round(shift[0] + scale * near * (x - middle[0]), 3),
            round(shift[1] - scale * near * (y - middle[1]), 3),
            round(scale * z, 3),
        )

    return [
        _Stroke(place(b.start), place(b.end), round(scale * b.start_radius, 3), round(scale * b.end_radius, 3), b.part)
        for b in bones
    ]


def _pose(kind: str, generator: np.random.Generator) -> tuple[list[float], float, list[float], str]:
    """How far each finger is closed (0 open, 1 a fist), the spread in degrees, how far the thumb is, and where it lies.

    Some hands are between one gesture and another, which makes them ambiguous.
    """
    uniform = generator.uniform
    loose = uniform(0.0, 0.16) if uniform() < 0.75 else uniform(0.1, 0.42)
    closed = [uniform(0, 1) * loose for _ in range(4)]
    if kind == "rock":
        closed = [1.0 - value for value in closed]
    elif kind == "scissors":
        closed = [closed[0], closed[1], 1.0 - closed[2], 1.0 - closed[3]]
    spread = uniform(-1, 9) if kind == "paper" else uniform(5, 17)
    if kind == "scissors" and uniform() < 0.15:
        spread = uniform(0, 5)
    rest = "beside" if uniform() < 0.4 else "open"
    thumb = uniform(0, 0.35) if kind == "paper" else uniform(0.65, 1.0)
    if (kind != "paper" and uniform() < 0.15) or (kind == "paper" and uniform() < 0.10):
        thumb = uniform(0, 1)
    return closed, spread, [thumb, uniform(-0.06, 0.06), uniform(-0.06, 0.06)], rest


def _palm(generator: np.random.Generator) -> list[_Stroke]:
    width = generator.uniform(0.92, 1.08)
    wrist = generator.uniform(0.21, 0.27)
    bones = [_Stroke((0.55 * x * width, -0.46, 0.0), (x * width, y - 0.02, 0.0), 0.23, 0.155) for x, y in FINGER_BASES]
    bones.append(_Stroke((-0.12, -0.40, 0.06), (-0.36, -0.12, 0.10), 0.20, 0.19))  # ball of the thumb
    bones.append(_Stroke((0.20, -0.36, 0.05), (0.28, 0.0, 0.05), 0.18, 0.17))  # heel of the hand
    for side in (-0.11, 0.11):
        bones.append(_Stroke((side, -0.48, -0.02), (side * 1.2, -3.2, -0.02), wrist, wrist + 0.12, ARM))
    if generator.uniform() < 0.5:
        cuff = generator.uniform(-1.7, -0.75)
        for side in (-0.14, 0.14):
            bones.append(_Stroke((side, cuff, 0.0), (side * 1.3, -3.4, 0.0), wrist + 0.10, wrist + 0.24, SLEEVE))
    return bones


def _fingers(
    closed: list[float], spread: float, thumb: list[float], rest: str, generator: np.random.Generator
) -> list[_Stroke]:
    uniform = generator.uniform
    length, thickness = uniform(0.88, 1.10), uniform(0.88, 1.14)
    bones = []
    for finger, (x, y) in enumerate(FINGER_BASES):
        # Fingers fan out from the middle one, and close up as they bend.
        sideways = (finger - 1.4) * spread * (1.0 - 0.8 * closed[finger]) + uniform(-3, 3)
        joint: Point = (x, y, 0.0)
        radius, pitch = FINGER_RADII[finger] * thickness, uniform(-6, 4)
        for bone in range(3):
            pitch += FIST[bone] * closed[finger] + uniform(0, 5)
            s, p = math.radians(sideways), math.radians(pitch)
            along = (math.sin(s) * math.cos(p), math.cos(s) * math.cos(p), math.sin(p))
            reach = FINGER_LENGTHS[finger] * length * BONES[bone]
            tip: Point = _step(joint, along, reach)
            bones.append(_Stroke(joint, tip, radius, radius * 0.92))
            joint, radius = tip, radius * 0.92
        outside = (math.sin(s) * math.sin(p), math.cos(s) * math.sin(p), -math.cos(p))
        nail = _step(joint, outside, 0.42 * radius)
        bones.append(_Stroke(_step(nail, along, -0.10), _step(nail, along, 0.02), radius * 0.66, radius * 0.66, NAIL))
    away = THUMB_BESIDE if rest == "beside" else THUMB_OPEN
    joints = [
        (
            a[0] + (b[0] - a[0]) * thumb[0] + thumb[1] * step,
            a[1] + (b[1] - a[1]) * thumb[0] + thumb[2] * step,
            a[2] + (b[2] - a[2]) * thumb[0],
        )
        for step, (a, b) in enumerate(zip(away, THUMB_FOLDED, strict=True))
    ]
    radii = [value * thickness for value in (0.175, 0.145, 0.132, 0.112)]
    bones.extend(_Stroke(joints[i], joints[i + 1], radii[i], radii[i + 1]) for i in range(3))
    return bones


def _step(point: Point, along: Point, reach: float) -> Point:
    return point[0] + along[0] * reach, point[1] + along[1] * reach, point[2] + along[2] * reach


def _rotation(pitch: float, yaw: float, roll: float) -> tuple[Point, Point, Point]:
    """Rows of Rz(roll) Rx(pitch) Ry(yaw), angles in degrees."""
    (cx, sx), (cy, sy), (cz, sz) = (
        (math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in (pitch, yaw, roll)
    )
    return (
        (cz * cy - sz * sx * sy, -sz * cx, cz * sy + sz * sx * cy),
        (sz * cy + cz * sx * sy, cz * cx, sz * sy - cz * sx * cy),
        (-cx * sy, sx, cx * cy),
    )


def _turned(point: Point, turn: tuple[Point, Point, Point], mirror: float) -> Point:
    x, y, z = point[0] * mirror, point[1], point[2]
    a, b, c = (row[0] * x + row[1] * y + row[2] * z for row in turn)
    return a, b, c


def _surface(strokes: list[_Stroke]) -> tuple[Heights, npt.NDArray[np.uint8]]:
    """Height map float32 [160, 160] in pixels of the drawing, -10000 where there is no hand, and the visible part."""
    heights = np.full((RENDER_SIZE, RENDER_SIZE), -1e4, dtype=np.float32)
    parts = np.zeros((RENDER_SIZE, RENDER_SIZE), dtype=np.uint8)
    for stroke in strokes:
        _sweep(heights, parts, stroke)
        flat = abs(stroke.end[0] - stroke.start[0]) + abs(stroke.end[1] - stroke.start[1])
        if abs(stroke.end[2] - stroke.start[2]) > flat:  # seen end on: the nearer ball is what shows
            near, radius = max(
                (stroke.start, stroke.start_radius), (stroke.end, stroke.end_radius), key=lambda e: e[0][2]
            )
            _sweep(heights, parts, _Stroke(near, near, radius, radius, stroke.part))
    return heights, parts


def _sweep(heights: Heights, parts: npt.NDArray[np.uint8], stroke: _Stroke) -> None:
    """Raise the height map to the front of a stroke: z along the segment + sqrt(r^2 - d^2), d the distance to it."""
    (ax, ay, az), (bx, by, bz) = stroke.start, stroke.end
    radius = max(stroke.start_radius, stroke.end_radius)
    left, right = max(0, int(min(ax, bx) - radius)), min(RENDER_SIZE, int(max(ax, bx) + radius) + 2)
    top, bottom = max(0, int(min(ay, by) - radius)), min(RENDER_SIZE, int(max(ay, by) + radius) + 2)
    if left >= right or top >= bottom:
        return
    dx, dy = bx - ax, by - ay
    inverse = 1.0 / (dx * dx + dy * dy + 1e-6)
    x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(ax)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(ay)
    t = x * np.float32(dx * inverse) + y * np.float32(dy * inverse)
    np.clip(t, 0.0, 1.0, out=t)
    across_x = x - t * np.float32(dx)
    across_y = y - t * np.float32(dy)
    r = t * np.float32(stroke.end_radius - stroke.start_radius) + np.float32(stroke.start_radius)
    room = r * r - across_x * across_x - across_y * across_y
    front = np.sqrt(np.maximum(room, 0)) + (t * np.float32(bz - az) + np.float32(az))
    here = heights[top:bottom, left:right]
    wins = (room > 0) & (front > here)
    np.copyto(here, front, where=wins)
    np.copyto(parts[top:bottom, left:right], np.uint8(stroke.part), where=wins)
