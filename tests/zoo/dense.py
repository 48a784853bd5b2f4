"""Networks that give something for each place of an image: segmentation, detection, images from images."""

import torch
from torch import nn
from torch.nn import functional

from zoo.convolutional import Sum, conv, inverted


class UNet(nn.Module):
    """Two levels down and up again, by transposed convolutions or by Resize and convolution."""

    def __init__(self, *, transposed: bool):
        super().__init__()
        self.down = nn.ModuleList([self._double(3, 12), self._double(12, 24), self._double(24, 48)])
        self.up = nn.ModuleList([self._up(48, 24, transposed), self._up(24, 12, transposed)])
        self.merge = nn.ModuleList([self._double(48, 24), self._double(24, 12)])
        self.last = nn.Conv2d(12, 4, 1)

    @staticmethod
    def _double(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))

    @staticmethod
    def _up(inputs: int, outputs: int, transposed: bool) -> nn.Module:
        if transposed:
            return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        return nn.Sequential(resize, nn.Conv2d(inputs, outputs, 1))

    def forward(self, x):
        first = self.down[0](x)
        second = self.down[1](functional.max_pool2d(first, 2))
        x = self.down[2](functional.max_pool2d(second, 2))
        x = self.merge[0](torch.cat([second, self.up[0](x)], dim=1))
        return self.last(self.merge[1](torch.cat([first, self.up[1](x)], dim=1)))


class Yolo(nn.Module):
    """SiLU, C2f-like splits, spatial pyramid pooling, two scales; boxes in pixels and scores in one output."""

    def __init__(self, classes: int = 6):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 12, stride=2, act=nn.SiLU), conv(12, 24, stride=2, act=nn.SiLU))
        self.split = nn.Sequential(conv(12, 12, act=nn.SiLU), conv(12, 12, act=nn.SiLU))
        self.join = conv(36, 24, 1, act=nn.SiLU)
        self.down = conv(24, 48, stride=2, act=nn.SiLU)
        self.narrow, self.pooled = conv(48, 24, 1, act=nn.SiLU), conv(96, 48, 1, act=nn.SiLU)
        self.merge = conv(72, 24, act=nn.SiLU)
        self.boxes = nn.ModuleList([nn.Conv2d(24, 4, 1), nn.Conv2d(48, 4, 1)])
        self.scores = nn.ModuleList([nn.Conv2d(24, classes, 1), nn.Conv2d(48, classes, 1)])

    def forward(self, x):
        x = self.stem(x)
        kept, computed = x.chunk(2, dim=1)
        fine = self.join(torch.cat([kept, computed, self.split(computed)], dim=1))
        y = self.narrow(self.down(fine))
        pools = [y]
        for _ in range(3):
            pools.append(functional.max_pool2d(pools[-1], 5, 1, 2))
        coarse = self.pooled(torch.cat(pools, dim=1))
        fine = self.merge(torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0)], dim=1))
        found = []
        for features, boxes, scores, stride in zip((fine, coarse), self.boxes, self.scores, (4, 8), strict=True):
            box, score = functional.softplus(boxes(features)) * stride * 4, scores(features).sigmoid()
            found.append(torch.cat([box.flatten(2), score.flatten(2)], dim=1))
        return torch.cat(found, dim=2).transpose(1, 2)


class SingleShot(nn.Module):
    """SSD with a feature pyramid: boxes and scores of two levels, each kind an output of its own."""

    def __init__(self, classes: int = 6, anchors: int = 3):
        super().__init__()
        self.classes = classes
        self.fine = nn.Sequential(conv(3, 16, stride=2), inverted(16, 24, act=nn.ReLU6, stride=2))
        self.coarse = inverted(24, 32, act=nn.ReLU6, stride=2)
        self.lateral = nn.ModuleList([nn.Conv2d(24, 24, 1), nn.Conv2d(32, 24, 1)])
        self.boxes = nn.Sequential(conv(24, 24, groups=24), nn.Conv2d(24, anchors * 4, 1))
        self.scores = nn.Sequential(conv(24, 24, groups=24), nn.Conv2d(24, anchors * classes, 1))

    def forward(self, x):
        fine = self.fine(x)
        coarse = self.lateral[1](self.coarse(fine))
        fine = self.lateral[0](fine) + functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        boxes = [self.boxes(level).permute(0, 2, 3, 1).flatten(1) for level in (fine, coarse)]
        scores = [self.scores(level).permute(0, 2, 3, 1).flatten(1) for level in (fine, coarse)]
        n = x.shape[0]
        boxes = torch.cat(boxes, dim=1).reshape(n, -1, 4)
        return boxes, torch.cat(scores, dim=1).reshape(n, -1, self.classes).softmax(dim=2)


class SuperResolution(nn.Module):
    """Features, PixelShuffle, and the image itself resized beside it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 24, 5, padding=2), nn.PReLU(), Sum(nn.Conv2d(24, 24, 3, padding=1)))
        self.up = nn.Sequential(nn.Conv2d(24, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        return self.up(self.body(x)) + functional.interpolate(x, scale_factor=2.0, mode="bilinear")


def autoencoder() -> nn.Module:
    encoder = [conv(3, 16, stride=2), conv(16, 24, stride=2), nn.Flatten(), nn.Linear(24 * 64, 32)]
    up = [nn.ConvTranspose2d(24, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1)]
    return nn.Sequential(*encoder, nn.Linear(32, 24 * 64), nn.ReLU(), nn.Unflatten(1, (24, 8, 8)), *up, nn.Sigmoid())


def style_transfer() -> nn.Module:
    """InstanceNorm, reflected borders, nearest Upsample."""

    def part(inputs, outputs, stride=1):
        border = nn.ReflectionPad2d(1)
        return nn.Sequential(
            border, nn.Conv2d(inputs, outputs, 3, stride), nn.InstanceNorm2d(outputs, affine=True), nn.ReLU()
        )

    up = [nn.Upsample(scale_factor=2, mode="nearest"), part(24, 12)]
    return nn.Sequential(
        part(3, 12), part(12, 24, 2), Sum(part(24, 24)), *up, nn.Conv2d(12, 3, 3, padding=1), nn.Tanh()
    )


class ManyOutputs(nn.Module):
    """One body, three tasks: classes, an embedding of length 1, a heat map."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, stride=2), conv(16, 32, stride=2), conv(32, 32))
        self.classes, self.embedding, self.heat = nn.Linear(32, 5), nn.Linear(32, 16), nn.Conv2d(32, 2, 1)

    def forward(self, x):
        x = self.body(x)
        mean = x.mean(dim=(2, 3))
        return self.classes(mean), functional.normalize(self.embedding(mean)), self.heat(x).sigmoid()


class Siamese(nn.Module):
    """Two images through the same weights; how far apart they are."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, stride=2), conv(16, 32, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(32, 16)

    def forward(self, left, right):
        a, b = self.last(self.body(left)), self.last(self.body(right))
        return a - b, functional.cosine_similarity(a, b, dim=1)


class BytesInput(nn.Module):
    """Takes image bytes [n, height, width, 3] and normalizes them itself."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([123.7, 116.3, 103.5]))
        self.register_buffer("std", torch.tensor([58.4, 57.1, 57.4]))
        self.body = nn.Sequential(conv(3, 16, stride=2), conv(16, 32, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(32, 8)

    def forward(self, x):
        return self.last(self.body(((x.float() - self.mean) / self.std).permute(0, 3, 1, 2)))
