"""MobileNetV2 of width 1, in torch, with torchvision's state-dict names so that its published weights load.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), table 2. A block widens its input by a
1x1 convolution, filters each channel separately by a 3x3 one, and narrows again without an activation; where the shapes
agree, the input is added. With 3 classes the network has 2,227,715 parameters.
"""

import torch
from torch import nn

# Widening factor, output channels, number of blocks, stride of the first block.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST_CHANNELS, LAST_CHANNELS = 32, 1280


def _convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):  # type: ignore[misc]
    """Widen, filter per channel, narrow; plus the input where it has the same shape."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, widening: int) -> None:
        super().__init__()
        hidden = inputs * widening
        self.residual = stride == 1 and inputs == outputs
        widen = [_convolution(inputs, hidden, kernel=1)] if widening != 1 else []
        self.conv = nn.Sequential(
            *widen,
            _convolution(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):  # type: ignore[misc]
    """The network: float [n, 3, h, w], normalized, to logits [n, classes]."""

    def __init__(self, classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, FIRST_CHANNELS, stride=2)]
        channels = FIRST_CHANNELS
        for widening, outputs, count, stride in BLOCKS:
            for block in range(count):
                layers.append(
                    InvertedResidual(channels, outputs, stride=stride if block == 0 else 1, widening=widening)
                )
                channels = outputs
        layers.append(_convolution(channels, LAST_CHANNELS, kernel=1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(LAST_CHANNELS, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)
            elif isinstance(module, InvertedResidual) and module.residual:
                # Residual blocks start as the identity (Goyal et al. 2017, section 5.1): from random weights, a small
                # set of images is then learned in a third of the steps.
                nn.init.zeros_(module.conv[-1].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes]."""
        return self.classifier(self.features(x).mean((2, 3)))


def layers(model: MobileNetV2) -> tuple[tuple[str, nn.Module], ...]:
    """Convolutions, batch norms and activations of the feature extractor with their names, in the order they run.

    These are the layers that a training recipe counts, as in Keras, where the study was made.
    """
    return tuple(
        (f"features.{name}", module)
        for name, module in model.features.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.ReLU6)
    )


def freeze(model: MobileNetV2, *, trained_layers: int) -> tuple[str, ...]:
    """Fix everything but the last `trained_layers` of `layers(model)` and the classifier.

    Returns:
        Names of the frozen layers; `frozen_inference` keeps their batch norms in inference mode.
    """
    names = [name for name, _ in layers(model)]
    frozen = names[: max(0, len(names) - trained_layers)]
    for name in frozen:
        for parameter in model.get_submodule(name).parameters():
            parameter.requires_grad_(False)
    return tuple(frozen)


def frozen_inference(model: MobileNetV2, frozen: tuple[str, ...]) -> None:
    """Put the model in training mode and its frozen layers in inference mode, so that their statistics stay."""
    model.train()
    for name in frozen:
        model.get_submodule(name).eval()


def parameter_count(model: nn.Module) -> int:
    """Number of weights, biases, batch-norm scales and shifts; running statistics are not parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
