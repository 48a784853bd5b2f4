"""The zoo: every kind of network in small, by name, with what it takes and how it is exported.

Weights are random but seeded; batch norms have seen data, so that activations are as large as in trained networks.
A network that is new is one row in `ZOO`.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from zoo import attention, convolutional, dense, samples, sequences
from zoo.samples import Sampler

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)
IMAGE = {"image": samples.images(3, 32, 32)}
SERIES = {"series": samples.series(24, 6)}


@dataclass(frozen=True)
class Network:
    """One row of the zoo.

    Attributes:
        build: gives the module, with fresh weights.
        inputs: what makes samples, by name of the input and in the order of `forward`.
        outputs: their names.
        dynamo: whether torch's newer exporter writes the file.
        open: further dimensions that the file leaves open, besides the batch: axis -> name.
        half: whether weights and inputs are float16.
        external: whether the weights are in a file of their own.
    """

    build: Callable[[], nn.Module]
    inputs: Mapping[str, Sampler] = field(default_factory=lambda: IMAGE)
    outputs: tuple[str, ...] = ("output",)
    dynamo: bool = True
    open: Mapping[int, str] = field(default_factory=dict)
    half: bool = False
    external: bool = False

    def feeds(self, count: int, *, seed: int) -> dict[str, np.ndarray]:
        """So many samples of every input, the samples as first dimension."""
        rng = np.random.default_rng(seed)
        made = {name: sampler(rng, count) for name, sampler in self.inputs.items()}
        return {name: x.astype(np.float16) if self.half and x.dtype == np.float32 else x for name, x in made.items()}


ZOO: dict[str, Network] = {
    "resnet": Network(convolutional.resnet),
    "mobilenet_v1": Network(convolutional.mobilenet_v1, dynamo=False),
    "mobilenet_v2": Network(convolutional.mobilenet_v2),
    "mobilenet_v3": Network(convolutional.mobilenet_v3),
    "efficientnet": Network(convolutional.efficientnet),
    "shufflenet": Network(convolutional.shufflenet, dynamo=False),
    "densenet": Network(convolutional.densenet),
    "inception": Network(convolutional.inception),
    "regnet": Network(convolutional.regnet, dynamo=False),
    "convnext": Network(convolutional.convnext),
    "prelu": Network(convolutional.prelu),
    "group_norm": Network(convolutional.group_norm),
    "three_dimensional": Network(convolutional.three_dimensional, {"scan": samples.images(1, 8, 16, 16)}),
    "unet_transposed": Network(partial(dense.UNet, transposed=True)),
    "unet_resize": Network(partial(dense.UNet, transposed=False), dynamo=False),
    "yolo": Network(dense.Yolo),
    "ssd": Network(dense.SingleShot, outputs=("boxes", "scores")),
    "pixel_shuffle": Network(dense.SuperResolution),
    "autoencoder": Network(dense.autoencoder),
    "instance_norm": Network(dense.style_transfer),
    "many_outputs": Network(dense.ManyOutputs, outputs=("classes", "embedding", "heat")),
    "siamese": Network(
        dense.Siamese,
        {"left": samples.images(3, 32, 32), "right": samples.images(3, 32, 32)},
        outputs=("difference", "similarity"),
    ),
    "bytes_input": Network(dense.BytesInput, {"image": samples.image_bytes(32, 32)}),
    "vit": Network(attention.VisionTransformer),
    "swin": Network(attention.Swin),
    "mixer": Network(attention.Mixer, dynamo=False),
    "bert": Network(
        attention.Bert, {"ids": samples.tokens(16), "mask": samples.masks(16)}, outputs=("classes", "states")
    ),
    "gpt": Network(attention.Gpt, {"ids": samples.tokens(16)}),
    "rotary": Network(partial(attention.Gpt, rotary=True), {"ids": samples.tokens(16)}),
    "lstm": Network(partial(sequences.Recurrent, nn.LSTM, num_layers=2), SERIES),
    "gru": Network(partial(sequences.Recurrent, nn.GRU, bidirectional=True), SERIES, dynamo=False),
    "captcha": Network(sequences.Captcha, {"image": samples.images(1, 32, 96)}),
    "audio": Network(sequences.audio, {"sound": samples.sound(1024)}),
    "wave_unet": Network(sequences.WaveUNet, {"sound": samples.sound(1024)}),
    "forecast": Network(sequences.forecast, {"series": samples.series(6, 24)}),
    "tabular": Network(sequences.tabular, {"row": samples.rows(12)}),
    "open_size": Network(partial(dense.UNet, transposed=True), open={2: "height", 3: "width"}),
    "half": Network(convolutional.mobilenet_v2, half=True),
    "external_data": Network(convolutional.resnet, external=True),
}


def module_of(network: Network) -> nn.Module:
    """The module with its seeded weights, in inference mode; batch norms know the data."""
    torch.manual_seed(7)
    module = network.build()
    for part in module.modules():
        if isinstance(part, LAYERS):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, NORMS) and part.weight is not None:
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0.0, 0.2)
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None  # the mean over all that it sees
    module.train()
    with torch.no_grad():
        for seed in range(4):
            module(*(torch.from_numpy(x.astype(np.float32) if x.dtype == np.float16 else x)
                     for x in network.feeds(16, seed=1000 + seed).values()))  # fmt: skip
    module.eval()
    return module.half() if network.half else module


def export(name: str, folder: Path) -> Path:
    """Write a network of the zoo as `folder/NAME.onnx`, as torch's users do."""
    network, path = ZOO[name], folder / f"{name}.onnx"
    module = module_of(network)
    example = tuple(torch.from_numpy(x) for x in network.feeds(2, seed=0).values())
    names = {"input_names": list(network.inputs), "output_names": list(network.outputs)}
    axes = {0: "batch", **network.open}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters' own
        if network.dynamo:
            shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for _ in example)
            program = torch.onnx.export(module, example, dynamo=True, verbose=False, dynamic_shapes=shapes, **names)
            proto = onnx.ModelProto()
            proto.CopyFrom(program.model_proto)
        else:
            content, every = io.BytesIO(), (*network.inputs, *network.outputs)
            torch.onnx.export(module, example, content, dynamo=False, dynamic_axes=dict.fromkeys(every, axes), **names)
            proto = onnx.load_from_string(content.getvalue())
    onnx.save(proto, path, save_as_external_data=network.external, location=f"{name}.data", size_threshold=1024)
    return path
