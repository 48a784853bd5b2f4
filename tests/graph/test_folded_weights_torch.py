"""Weights that torch modules compute from others in `forward`, through both exporters."""

import io
import logging

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch exports the networks: make test-train")

import torch
from torch import nn
from torch.nn import functional

import lowbit

# Warnings of the exporter's own dependencies are not ours to fix.
pytestmark = pytest.mark.filterwarnings("default")


def by_batch_norm(weight):
    """As timm's StdConv2d: a batch norm in training mode over the weights of each output channel."""
    flat = weight.reshape(1, len(weight), -1)
    return functional.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(weight)


def by_moments(weight):
    mean = weight.mean(dim=(1, 2, 3), keepdim=True)
    return (weight - mean) / torch.sqrt(weight.var(dim=(1, 2, 3), keepdim=True, unbiased=False) + 1e-5)


def by_deviation(weight):
    centered = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
    return centered / (centered.view(len(weight), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5)


class Network(nn.Module):
    """A standardized convolution, and a linear layer with a low-rank sum."""

    def __init__(self, standardized):
        super().__init__()
        self.standardized = standardized
        self.kernel = nn.Parameter(torch.randn(16, 3, 3, 3))
        self.linear = nn.Linear(16, 24)
        self.down, self.up = nn.Parameter(torch.randn(4, 16) / 9), nn.Parameter(torch.randn(24, 4) / 9)

    def forward(self, x):
        x = functional.relu(functional.conv2d(x, self.standardized(self.kernel))).mean((2, 3))
        return functional.linear(x, self.linear.weight + 0.5 * (self.up @ self.down), self.linear.bias)


@pytest.mark.parametrize("standardized", [by_batch_norm, by_moments, by_deviation])
@pytest.mark.parametrize("dynamo", [True, False])
def test_they_become_constants(standardized, dynamo):
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    network, x = Network(standardized).eval(), torch.randn(2, 3, 10, 10)
    with torch.no_grad():
        wanted = network(x).numpy()
    if dynamo:
        model = lowbit.load(network, example=x)
    else:
        file = io.BytesIO()
        torch.onnx.export(network, (x,), file, dynamo=False)
        model = lowbit.load(file.getvalue())
    assert [node.op_type for node in model.ir.graph] == ["Conv", "Relu", "ReduceMean", "Gemm"]
    made = lowbit.quantize(model, "linear8", strict=True)
    (given,) = lowbit.open_session(made.to_bytes(), threads=1).run({model.input.name: x.numpy()}).values()
    assert np.abs(given - wanted).max() < 0.02 * np.abs(wanted).max()
