"""Series in time and rows of a table: recurrent networks, convolutions over time, fully connected layers."""

import torch
from torch import nn

from zoo.convolutional import conv


class Recurrent(nn.Module):
    """Series [n, time, 6] -> classes, by the state after the last step."""

    def __init__(self, kind: type[nn.Module], **options):
        super().__init__()
        self.body = kind(6, 32, batch_first=True, **options)
        width = 64 if options.get("bidirectional") else 32
        self.last = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, x):
        return self.last(self.body(x)[0][:, -1])


class Captcha(nn.Module):
    """CRNN: convolutions, a GRU over the columns in both directions, scores of 12 letters a column."""

    def __init__(self):
        super().__init__()
        parts = [conv(1, 16), nn.MaxPool2d(2), conv(16, 32), nn.MaxPool2d(2), conv(32, 32), nn.MaxPool2d((2, 1))]
        self.body, self.narrow = nn.Sequential(*parts), nn.Linear(32 * 4, 48)
        self.time = nn.GRU(48, 32, batch_first=True, bidirectional=True)
        self.last = nn.Linear(64, 12)

    def forward(self, x):
        x = self.body(x)
        x = x.permute(0, 3, 1, 2).flatten(2)
        return self.last(self.time(self.narrow(x).relu())[0]).log_softmax(dim=2)


def audio() -> nn.Module:
    """Raw sound [n, 1, 1024] -> classes: convolutions over time, dilated ones among them."""
    parts = []
    for inputs, outputs, kernel, stride, dilation in ((1, 16, 15, 4, 1), (16, 24, 9, 4, 1), (24, 24, 3, 1, 4)):
        pad = dilation * (kernel - 1) // 2
        parts += [
            nn.Conv1d(inputs, outputs, kernel, stride, pad, dilation, bias=False),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 8))


class WaveUNet(nn.Module):
    """Sound -> sound: strided and transposed convolutions over time."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv1d(1, 16, 8, 4, 2), nn.LeakyReLU(0.1), nn.Conv1d(16, 24, 8, 4, 2), nn.LeakyReLU(0.1)
        )
        self.up = nn.Sequential(
            nn.ConvTranspose1d(24, 16, 8, 4, 2), nn.LeakyReLU(0.1), nn.ConvTranspose1d(16, 1, 8, 4, 2)
        )

    def forward(self, x):
        return self.up(self.down(x)).tanh()


def tabular() -> nn.Module:
    """Rows of a table whose columns have units of their own; the first layer is normalized, as it is trained."""
    parts = [nn.BatchNorm1d(12), nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*parts, nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))


def forecast() -> nn.Module:
    """A temporal convolution block with causal padding, its output a number."""
    return nn.Sequential(
        nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(6, 24, 3, dilation=2), nn.ReLU(),
        nn.ConstantPad1d((8, 0), 0.0), nn.Conv1d(24, 24, 3, dilation=4), nn.ReLU(), Last(), nn.Linear(24, 1),
    )  # fmt: skip


class Last(nn.Module):
    """The last step of [n, channels, time]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, -1]
