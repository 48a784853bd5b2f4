"""Image classifiers in small: the blocks that their papers name, a few layers of each."""

import torch
from torch import nn

CLASSES = 10


def conv(inputs: int, outputs: int, kernel: int = 3, *, act: type[nn.Module] | None = nn.ReLU, **options) -> nn.Module:
    """Convolution without bias, batch norm, activation."""
    parts = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*parts, *([] if act is None else [act()]))


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class Sum(nn.Module):
    """A branch beside a shortcut."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, after: nn.Module | None = None):
        super().__init__()
        self.branch, self.shortcut, self.after = branch, shortcut or nn.Identity(), after or nn.Identity()

    def forward(self, x):
        return self.after(self.shortcut(x) + self.branch(x))


class Joined(nn.Module):
    """Branches side by side, their channels joined."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, act: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Sigmoid):
        super().__init__()
        squeezed = max(4, channels // 4)
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), act(), nn.Conv2d(squeezed, channels, 1), gate()
        )

    def forward(self, x):
        return x * self.scale(x)


def basic_block(inputs: int, outputs: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    branch = nn.Sequential(conv(inputs, outputs, stride=stride, act=act), conv(outputs, outputs, act=None))
    same = stride == 1 and inputs == outputs
    return Sum(branch, None if same else conv(inputs, outputs, 1, stride=stride, act=None), act())


def resnet() -> nn.Module:
    stem = [conv(3, 16, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, basic_block(16, 16), basic_block(16, 32, 2), basic_block(32, 32), head(32))


def prelu() -> nn.Module:
    """A face embedding's body: PReLU with a slope a channel."""
    blocks = [conv(3, 16, act=None), nn.PReLU(16), conv(16, 32, stride=2, act=None), nn.PReLU(32)]
    return nn.Sequential(*blocks, conv(32, 32, stride=2, groups=32, act=None), nn.PReLU(32), head(32))


def mobilenet_v1() -> nn.Module:
    blocks = [conv(3, 16, stride=2)]
    for inputs, outputs, stride in ((16, 24, 1), (24, 32, 2), (32, 32, 1), (32, 48, 2)):
        blocks += [conv(inputs, inputs, stride=stride, groups=inputs), conv(inputs, outputs, 1)]
    return nn.Sequential(*blocks, head(48))


def inverted(
    inputs: int,
    outputs: int,
    *,
    act: type[nn.Module],
    kernel: int = 3,
    stride: int = 1,
    squeeze: nn.Module | None = None,
) -> nn.Module:
    wide = inputs * 4
    parts = [conv(inputs, wide, 1, act=act), conv(wide, wide, kernel, stride=stride, groups=wide, act=act)]
    parts += [squeeze] if squeeze is not None else []
    block = nn.Sequential(*parts, conv(wide, outputs, 1, act=None))
    return Sum(block) if stride == 1 and inputs == outputs else block


def mobilenet_v2() -> nn.Module:
    blocks = [
        inverted(a, b, stride=s, act=nn.ReLU6) for a, b, s in ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2))
    ]
    return nn.Sequential(conv(3, 16, stride=2, act=nn.ReLU6), *blocks, conv(32, 64, 1, act=nn.ReLU6), head(64))


def mobilenet_v3() -> nn.Module:
    def block(inputs, outputs, act, kernel, stride):
        squeeze = SqueezeExcite(inputs * 4, gate=nn.Hardsigmoid)
        return inverted(inputs, outputs, act=act, kernel=kernel, stride=stride, squeeze=squeeze)

    blocks = [block(16, 16, nn.ReLU, 3, 1), block(16, 24, nn.Hardswish, 5, 2), block(24, 24, nn.Hardswish, 5, 1)]
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 64), nn.Hardswish(), nn.Linear(64, CLASSES)]
    return nn.Sequential(conv(3, 16, stride=2, act=nn.Hardswish), *blocks, conv(24, 48, 1, act=nn.Hardswish), *last)


def efficientnet() -> nn.Module:
    def block(inputs, outputs, kernel, stride):
        squeeze = SqueezeExcite(inputs * 4, nn.SiLU)
        return inverted(inputs, outputs, act=nn.SiLU, kernel=kernel, stride=stride, squeeze=squeeze)

    blocks = [block(16, 16, 3, 1), block(16, 24, 5, 2), block(24, 24, 5, 1)]
    return nn.Sequential(conv(3, 16, stride=2, act=nn.SiLU), *blocks, conv(24, 64, 1, act=nn.SiLU), head(64))


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, the other half are computed, then both are shuffled."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(conv(half, half, 1), conv(half, half, groups=half, act=None), conv(half, half, 1))

    def forward(self, x):
        kept, computed = x.chunk(2, dim=1)
        x = torch.cat([kept, self.branch(computed)], dim=1)
        n, channels, height, width = x.shape
        return x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)


def shufflenet() -> nn.Module:
    stages = [Shuffle(24), Shuffle(24), conv(24, 48, stride=2), Shuffle(48)]
    return nn.Sequential(conv(3, 24, stride=2), nn.MaxPool2d(3, 2, 1), *stages, conv(48, 64, 1), head(64))


def densenet() -> nn.Module:
    def dense(inputs):
        parts = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
        return Joined(nn.Identity(), nn.Sequential(*parts, nn.Conv2d(24, 12, 3, padding=1, bias=False)))

    transition = [nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 20, 1, bias=False), nn.AvgPool2d(2)]
    last = [nn.BatchNorm2d(44), nn.ReLU(), head(44)]
    return nn.Sequential(conv(3, 16, stride=2), dense(16), dense(28), *transition, dense(20), dense(32), *last)


def inception() -> nn.Module:
    def mixed(inputs):
        third = nn.Sequential(conv(inputs, 12, 1), conv(12, 16), conv(16, 16))
        factored = nn.Sequential(
            conv(inputs, 12, 1),
            nn.Conv2d(12, 12, (1, 7), padding=(0, 3), bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 16, (7, 1), padding=(3, 0), bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        )  # fmt: skip
        pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(inputs, 8, 1))
        return Joined(conv(inputs, 16, 1), third, factored, pooled)

    reduced = Joined(conv(56, 24, 3, stride=2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(conv(3, 16, stride=2), mixed(16), reduced, mixed(80), head(56))


def regnet() -> nn.Module:
    def block(inputs, outputs, stride):
        branch = nn.Sequential(
            conv(inputs, outputs, 1), conv(outputs, outputs, stride=stride, groups=outputs // 8),
            SqueezeExcite(outputs), conv(outputs, outputs, 1, act=None),
        )  # fmt: skip
        shortcut = None if stride == 1 else conv(inputs, outputs, 1, stride=stride, act=None)
        return Sum(branch, shortcut, nn.ReLU())

    return nn.Sequential(conv(3, 16, stride=2), block(16, 24, 2), block(24, 24, 1), block(24, 48, 2), head(48))


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.rest = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x):
        return x + (self.scale * self.rest(self.depthwise(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of an image."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    stem = [nn.Conv2d(3, 24, 4, stride=4), ChannelNorm(24), ConvNeXtBlock(24), ConvNeXtBlock(24)]
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, CLASSES)]
    return nn.Sequential(*stem, ChannelNorm(24), nn.Conv2d(24, 32, 2, stride=2), ConvNeXtBlock(32), *last)


def group_norm() -> nn.Module:
    def part(inputs, outputs, stride):
        norm = nn.GroupNorm(4, outputs)
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm, nn.ReLU())

    return nn.Sequential(part(3, 16, 2), Sum(part(16, 16, 1)), part(16, 32, 2), part(32, 32, 1), head(32))


def three_dimensional() -> nn.Module:
    """A classifier of short clips or scans."""

    def part(inputs, outputs, stride):
        return nn.Sequential(nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU())

    last = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, CLASSES)]
    return nn.Sequential(part(1, 8, 1), nn.MaxPool3d(2), part(8, 16, 1), part(16, 32, 2), *last)
