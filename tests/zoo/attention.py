"""Transformers in small: of images, of tokens."""

import math

import torch
from torch import nn
from torch.nn import functional

CLASSES, WORDS = 10, 64


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 4, *, causal: bool = False, rotary: bool = False):
        super().__init__()
        self.heads, self.causal, self.rotary = heads, causal, rotary
        self.qkv, self.last = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, mask=None):
        n, length, width = x.shape
        shape = (n, length, self.heads, width // self.heads)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        if self.rotary:
            q, k = turned(q), turned(k)
        scores = q @ k.transpose(2, 3) / math.sqrt(width // self.heads)
        if self.causal:
            scores = scores + torch.full((length, length), -1e9).triu(1)
        if mask is not None:
            scores = scores + (1.0 - mask[:, None, None, :].float()) * -1e9
        return self.last((scores.softmax(dim=3) @ v).transpose(1, 2).reshape(n, length, width))


def turned(x):
    """Rotary position embedding of [n, heads, length, width]."""
    length, width = x.shape[2:]
    speeds = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * speeds[None]
    cos, sin = (torch.cat([part, part], dim=1) for part in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, dim=3)
    return x * cos + torch.cat([-second, first], dim=3) * sin


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6)


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int):
        super().__init__()
        self.gate, self.up, self.down = (
            nn.Linear(a, b, bias=False) for a, b in ((width, 96), (width, 96), (96, width))
        )

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Norms before attention and before two linear layers."""

    def __init__(self, width: int, *, norm: type[nn.Module] = nn.LayerNorm, gated: bool = False, **attention):
        super().__init__()
        self.norms = nn.ModuleList([norm(width), norm(width)])
        self.attention = Attention(width, **attention)
        self.mlp = Gated(width) if gated else nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width))

    def forward(self, x, mask=None):
        x = x + self.attention(self.norms[0](x), mask)
        return x + self.mlp(self.norms[1](x))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 48):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width) / 2)
        self.blocks, self.norm = nn.Sequential(Block(width), Block(width)), nn.LayerNorm(width)
        self.last = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        return self.last(self.norm(self.blocks(x))[:, 0])


class WindowBlock(nn.Module):
    """Swin: attention in windows of 4 by 4, shifted by half a window or not."""

    def __init__(self, width: int, shift: int):
        super().__init__()
        self.shift, self.block = shift, Block(width)

    def forward(self, x):
        n, height, width, channels = x.shape
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
        x = x.reshape(n, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = self.block(x.reshape(-1, 16, channels))
        x = x.reshape(n, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, height, width, channels)
        return torch.roll(x, (self.shift, self.shift), dims=(1, 2)) if self.shift else x


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, stride=4)
        self.first = nn.Sequential(WindowBlock(32, 0), WindowBlock(32, 2))
        self.norm, self.reduce = nn.LayerNorm(128), nn.Linear(128, 48, bias=False)
        self.second = WindowBlock(48, 0)
        self.last = nn.Linear(48, CLASSES)

    def forward(self, x):
        x = self.first(self.patches(x).permute(0, 2, 3, 1))
        parts = [x[:, a::2, b::2] for a in (0, 1) for b in (0, 1)]
        x = self.second(self.reduce(self.norm(torch.cat(parts, dim=3))))
        return self.last(x.mean(dim=(1, 2)))


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))

    def forward(self, x):
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Mixer(nn.Module):
    def __init__(self, width: int = 48):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.blocks, self.norm = nn.Sequential(MixerBlock(16, width), MixerBlock(16, width)), nn.LayerNorm(width)
        self.last = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.blocks(self.patches(x).flatten(2).transpose(1, 2))
        return self.last(self.norm(x).mean(dim=1))


class Bert(nn.Module):
    """Token ids and a mask; scores of classes and the state of each token."""

    def __init__(self, width: int = 48, length: int = 16):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.pool, self.last = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, ids, mask):
        x = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]])
        for block in self.blocks:
            x = block(x, mask)
        return self.last(self.pool(x[:, 0]).tanh()), x


class Gpt(nn.Module):
    """Causal attention; the embedding's weights are also those of the last layer."""

    def __init__(self, width: int = 48, length: int = 16, *, rotary: bool = False):
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.places = None if rotary else nn.Embedding(length, width)
        norm = RMSNorm if rotary else nn.LayerNorm
        blocks = [Block(width, norm=norm, gated=rotary, causal=True, rotary=rotary) for _ in range(2)]
        self.blocks, self.norm = nn.Sequential(*blocks), norm(width)
        self.last = nn.Linear(width, WORDS, bias=False)
        self.last.weight = self.words.weight

    def forward(self, ids):
        x = self.words(ids)
        if self.places is not None:
            x = x + self.places.weight[: ids.shape[1]]
        return self.last(self.norm(self.blocks(x)))
