"""What the networks of the zoo take: random, but with the structure that such data has."""

from collections.abc import Callable

import numpy as np

Sampler = Callable[[np.random.Generator, int], np.ndarray]
WORDS = 64


def images(channels: int, *sides: int) -> Sampler:
    """Smooth images (or scans) with some noise, about normal, float32 [n, channels, *sides]."""

    def sample(rng, count):
        x = rng.normal(size=(count, channels, *(side // 8 for side in sides)))
        for axis in range(2, 2 + len(sides)):
            x = np.repeat(x, 8, axis=axis)
            x = (x + np.roll(x, 3, axis=axis) + np.roll(x, -3, axis=axis)) / 2
        contrast = rng.uniform(0.5, 1.5, size=(count, 1, *(1 for _ in sides)))
        return (contrast * x + rng.normal(scale=0.2, size=x.shape)).astype(np.float32)

    return sample


def image_bytes(height: int, width: int) -> Sampler:
    """uint8 [n, height, width, 3]."""
    floats = images(3, height, width)
    return lambda rng, count: (
        np.clip(floats(rng, count) * 45 + 115, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()
    )


def tokens(length: int) -> Sampler:
    """Ids of words, frequent ones first, int64 [n, length]."""
    shares = 1 / np.arange(1, WORDS + 1)
    return lambda rng, count: rng.choice(WORDS, size=(count, length), p=shares / shares.sum()).astype(np.int64)


def masks(length: int) -> Sampler:
    """1 for the words of a sentence, 0 behind its end, int64 [n, length]."""
    return lambda rng, count: (np.arange(length)[None] < rng.integers(4, length + 1, size=(count, 1))).astype(np.int64)


def series(*shape: int) -> Sampler:
    """Random walks around zero, float32 [n, *shape]; the longer axis is time."""
    time = 1 + int(np.argmax(shape))
    return lambda rng, count: (np.cumsum(rng.normal(size=(count, *shape)), axis=time) / np.sqrt(max(shape) / 2)).astype(
        np.float32
    )


def sound(length: int) -> Sampler:
    """Tones that swell and fade, at very different volumes, float32 [n, 1, length]."""

    def sample(rng, count):
        time = np.arange(length) / length
        x = sum(
            rng.uniform(size=(count, 1))
            * np.sin(2 * np.pi * (rng.uniform(4, 200, size=(count, 1)) * time + rng.uniform(size=(count, 1))))
            for _ in range(4)
        )
        envelope = np.sin(np.pi * time) ** 2 * rng.uniform(0.05, 1, size=(count, 1))
        return (x * envelope + rng.normal(scale=0.01, size=(count, length)))[:, None].astype(np.float32)

    return sample


def rows(columns: int) -> Sampler:
    """Standardized columns of a table: a third normal, a third skewed with long tails, a third 0 or 1."""

    def sample(rng, count):
        third = columns // 3
        skewed = np.exp(rng.normal(size=(count, third)))
        parts = [rng.normal(size=(count, columns - 2 * third)), (skewed - 1.65) / 2.16]
        return np.concatenate([*parts, rng.integers(0, 2, size=(count, third)) * 2.0 - 1], axis=1).astype(np.float32)

    return sample
