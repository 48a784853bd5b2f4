"""Random changes to a batch of training images: geometry in one resampling, colors in one matrix per image.

All images of a batch are changed at once, each in its own way. `STUDY` is what the study used (flip, color jitter,
rotation, inversion); `STRONG` adds what training from scratch needs: shift, zoom, hue, erased patches, noise, and other
backgrounds for hands photographed against a uniform one.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

# Columns: red, green, blue in luma and the two chroma axes (YIQ); hue is a rotation of the last two.
LUMA = (0.299, 0.587, 0.114)
TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
EVEN_SPREAD = 0.055  # chroma of the border varies less than this where the background is uniform
KEY_DISTANCE = (0.07, 0.15)  # chroma distance from the background: below is background, above is hand


@dataclass(frozen=True)
class Augmentation:
    """How much images are changed; 0 disables a change.

    Args:
        flip: probability of mirroring left and right.
        rotation: maximum angle, degrees.
        shift: maximum shift, as a share of the side.
        zoom: maximum change of size, as a factor (0.3: 1/1.3 to 1.3).
        brightness: maximum relative change; likewise `contrast` and `saturation`.
        contrast: see above.
        saturation: see above.
        hue: maximum rotation of the color circle, degrees.
        inversion: probability of the negative.
        erasing: probability of covering a patch of the image.
        noise: maximum standard deviation, as a share of the full range.
        background: probability of another background, where the border shows a uniform one.
    """

    flip: float = 0.5
    rotation: float = 20.0
    shift: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0
    inversion: float = 0.1
    erasing: float = 0.0
    noise: float = 0.0
    background: float = 0.0

    def scaled(self, strength: float) -> "Augmentation":
        """The same changes, `strength` times as strong and as frequent."""
        return Augmentation(**{key: value * strength for key, value in dataclasses.asdict(self).items()})


STUDY = Augmentation()
STRONG = Augmentation(
    rotation=45.0, shift=0.08, zoom=0.2, brightness=0.3, contrast=0.3, saturation=0.4, hue=20.0, inversion=0.1,
    erasing=0.1, noise=0.02, background=0.5,
)  # fmt: skip


def augment(images: torch.Tensor, augmentation: Augmentation, *, generator: torch.Generator) -> torch.Tensor:
    """Change a batch at random.

    Args:
        images: float32 [n, 3, h, w], 0 to 1.
        augmentation: which changes, and how strong.
        generator: source of all randomness.

    Returns:
        A new tensor of the same shape, 0 to 1.
    """
    n = len(images)

    def spread(extent: float, *shape: int) -> torch.Tensor:
        return (torch.rand((n, *shape), generator=generator) * 2 - 1) * extent

    def chance(probability: float) -> torch.Tensor:
        return torch.rand(n, generator=generator) < probability

    if augmentation.background:
        images = _replace_background(images, chance(augmentation.background), generator)
    angle = torch.deg2rad(spread(augmentation.rotation))
    size = torch.exp(spread(math.log1p(augmentation.zoom)))
    mirror = 1.0 - 2.0 * chance(augmentation.flip).float()
    move = spread(2 * augmentation.shift, 2)
    theta = torch.stack(
        [
            torch.stack([torch.cos(angle) * size * mirror, -torch.sin(angle) * size, move[:, 0]], 1),
            torch.stack([torch.sin(angle) * size * mirror, torch.cos(angle) * size, move[:, 1]], 1),
        ],
        1,
    )
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    images = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    images = _recolor(images, augmentation, spread, chance)
    if augmentation.erasing:
        _erase(images, chance(augmentation.erasing), generator)
    if augmentation.noise:
        strength = torch.rand((n, 1, 1, 1), generator=generator) * augmentation.noise
        images = images + torch.randn(images.shape, generator=generator) * strength
    return images.clamp_(0, 1)


def _recolor(images: torch.Tensor, augmentation: Augmentation, spread, chance) -> torch.Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Hue, saturation, contrast, brightness and inversion as `matrix @ rgb + offset`."""
    n = len(images)
    yiq = torch.tensor(TO_YIQ)
    turn = torch.deg2rad(spread(augmentation.hue))
    saturation = 1 + spread(augmentation.saturation)
    chroma = torch.zeros(n, 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * torch.cos(turn)
    chroma[:, 2, 1] = saturation * torch.sin(turn)
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    gain = (1 + spread(augmentation.contrast)) * (1 + spread(augmentation.brightness))
    matrix = torch.linalg.inv(yiq) @ chroma @ yiq * gain[:, None, None]
    # Contrast scales around the mean of the image, brightness moves that mean.
    center = images.mean((2, 3))
    offset = center * (1 + spread(augmentation.brightness, 1) * 0.5) - center * gain[:, None]
    sign = 1.0 - 2.0 * chance(augmentation.inversion).float()
    matrix = matrix * sign[:, None, None]
    offset = offset * sign[:, None] + (sign[:, None] < 0)
    flat = torch.bmm(matrix, images.flatten(2)) + offset[:, :, None]
    return flat.view_as(images).clamp_(0, 1)


def _erase(images: torch.Tensor, chosen: torch.Tensor, generator: torch.Generator) -> None:
    """Cover a patch of the chosen images with one color."""
    height, width = images.shape[2:]
    for index in chosen.nonzero().flatten().tolist():
        top, left, tall, wide = torch.rand(4, generator=generator).tolist()
        rows, columns = int(height * (0.08 + 0.25 * tall)), int(width * (0.08 + 0.25 * wide))
        y, x = int(top * (height - rows)), int(left * (width - columns))
        images[index, :, y : y + rows, x : x + columns] = torch.rand(3, 1, 1, generator=generator)


def _replace_background(images: torch.Tensor, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Replace what has the chroma of a uniform border, as film studios do with a green screen.

    The new background is a piece of another image of the batch, enlarged until no hand is recognizable, or a soft
    random pattern.
    """
    n, _, height, width = images.shape
    chroma = torch.einsum("kc,nchw->nkhw", torch.tensor(TO_YIQ[1:]), images)
    edge = torch.cat([chroma[:, :, :3].flatten(2), chroma[:, :, :, :3].flatten(2), chroma[:, :, -3:].flatten(2)], 2)
    key = edge.median(2).values
    spread = (edge - key[:, :, None]).square().sum(1).sqrt().quantile(0.7, dim=1)
    chosen = chosen & (spread < EVEN_SPREAD)
    if not bool(chosen.any()):
        return images
    low, high = KEY_DISTANCE
    distance = (chroma - key[:, :, None, None]).square().sum(1, keepdim=True).sqrt()
    hand = avg_pool2d(((distance - low) / (high - low)).clamp(0, 1), 3, 1, 1)
    share = hand.mean((1, 2, 3))
    chosen = chosen & (share > 0.05) & (share < 0.7)
    others = torch.randperm(n, generator=generator)
    side = height // 4
    y, x = (int(v) for v in torch.randint(0, min(height, width) - side, (2,), generator=generator))
    pieces = interpolate(images[others, :, y : y + side, x : x + side], (height, width), mode="bilinear")
    cells = int(torch.randint(2, 24, (1,), generator=generator))
    pattern = interpolate(torch.rand(n, 3, cells, cells, generator=generator), (height, width), mode="bilinear")
    depth = torch.rand(n, 1, 1, 1, generator=generator)
    pattern = torch.rand(n, 3, 1, 1, generator=generator) * (1 - depth) + pattern * depth
    piece = (torch.rand(n, generator=generator) < 0.5)[:, None, None, None]
    behind = torch.where(piece, pieces, pattern)
    return torch.where(chosen[:, None, None, None], images * hand + behind * (1 - hand), images)
