"""A small detector for hands in pictures, after FastestDet: one scale, no anchors, three heads.

Three depths of a backbone of depthwise-separable convolutions are brought to strides of 8 pixels and joined, and 5x5
convolutions, one after another, widen what a cell sees. Each cell then says

    objectness   sigmoid(o)                                  how well the box will fit, if a hand is there
    box          center (cell + tanh(x, y)) * 8, size sigmoid(w, h) * 96      in pixels
    classes      softmax(c)

and one Concat joins them, [cells, 5 + classes], as YOLOv5's files do. FastestDet scores a box by objectness^0.6 *
class^0.4; the powers are in the graph, so that the product of the columns is the score.

The four cells around a hand's center learn its box (1 - GIoU) and class (cross-entropy); the target of objectness is
the overlap that the box has reached, and 0 elsewhere. Sources: FastestDet (github.com/dog-qiuqiu/FastestDet) for
network, cells and score; Rezatofighi et al. 2019 for GIoU; Li et al. 2020, "Generalized focal loss", for objectness as
quality.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from lowbit.data.hands import CLASS_NAMES
from lowbit.data.hands_in_pictures import SIZE, HandPictures
from lowbit.graph.load import load
from lowbit.graph.model import Model
from lowbit.graph.prepare import TRAINED_KEY
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing
from lowbit.progress import SILENT, Progress
from lowbit.training.mobilenet import parameter_count

STRIDE = 8
CELLS = SIZE // STRIDE
PREPROCESSING = Preprocessing(SIZE, SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
SCORE_POWERS = (0.6, 0.4)  # of objectness and class
BOX_WEIGHT, CLASS_WEIGHT = 2.0, 1.0  # in the loss, beside objectness
BATCH = 32
LEARNING_RATE = 4e-3


class Detector(nn.Module):  # type: ignore[misc]
    """Images [n, 3, 96, 96] -> [n, 144, 5 + classes]: center, size, objectness^0.6, class probabilities^0.4."""

    def __init__(self, classes: int = len(CLASS_NAMES)) -> None:
        super().__init__()
        self.shallow = nn.Sequential(_convolution(3, 16, 3, stride=2), _separable(16, 32, stride=2), _separable(32, 32))
        self.middle = nn.Sequential(_separable(32, 64, stride=2), _separable(64, 64), _separable(64, 64))
        self.deep = nn.Sequential(_separable(64, 96, stride=2), _separable(96, 96), _separable(96, 96))
        self.joined = _convolution(32 + 64 + 96, 64, 1)
        self.wider = nn.ModuleList([_convolution(64, 64, 5, groups=64) for _ in range(3)])
        self.pooled = _convolution(3 * 64, 64, 1)
        self.objectness, self.box, self.classes = (_head(64, count) for count in (1, 4, classes))
        rows, columns = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
        self.register_buffer("cells", torch.stack([columns, rows]).float()[None])

    def forward(self, x: Tensor) -> Tensor:
        """The output of the file."""
        boxes, objectness, classes = self.said(x)
        powers = [torch.sigmoid(objectness) ** SCORE_POWERS[0], torch.softmax(classes, 1) ** SCORE_POWERS[1]]
        return torch.cat([boxes, *powers], 1).flatten(2).transpose(1, 2)

    def said(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes as center and size in pixels [n, 4, 12, 12], and logits of objectness [n, 1, ...] and of classes."""
        shallow = self.shallow(x)
        middle = self.middle(shallow)
        deep = functional.interpolate(self.deep(middle), scale_factor=2.0, mode="nearest")
        x = self.joined(torch.cat([functional.avg_pool2d(shallow, 2), middle, deep], 1))
        seen = [x]
        for convolution in self.wider:
            seen.append(convolution(seen[-1]))
        x = functional.relu(x + self.pooled(torch.cat(seen[1:], 1)))
        box = self.box(x)
        center = (torch.tanh(box[:, :2]) + self.cells) * STRIDE
        return torch.cat([center, torch.sigmoid(box[:, 2:]) * SIZE], 1), self.objectness(x), self.classes(x)


def _convolution(inputs: int, outputs: int, side: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, inputs, 3, stride=stride, groups=inputs), _convolution(inputs, outputs, 1)
    )


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_convolution(inputs, inputs, 5, groups=inputs), nn.Conv2d(inputs, outputs, 1))


def train_detector(pictures: HandPictures, *, epochs: int, seed: int = 0, progress: Progress = SILENT) -> Detector:
    """Train a detector from random weights; AdamW, one cycle of the learning rate, pictures mirrored by chance.

    Same pictures, seed, machine and versions give the same weights; another processor rounds differently.

    Args:
        pictures: to learn from.
        epochs: how often each is seen.
        seed: of weights, order and mirroring.
        progress: told the mean loss of each epoch.
    """
    torch.manual_seed(seed)
    model, generator = Detector(), np.random.default_rng(seed)
    model.to(memory_format=torch.channels_last)  # convolutions of so few channels take half the time then
    steps = -(-len(pictures.images) // BATCH) * epochs
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    for epoch in range(epochs):
        losses = []
        for x, boxes, classes in _batches(pictures, generator):
            value = loss(model, x.contiguous(memory_format=torch.channels_last), boxes, classes)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(value.detach()))
        progress.note(f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.3f}")
    model.to(memory_format=torch.contiguous_format)
    model.eval()
    return model


def _batches(
    pictures: HandPictures, generator: np.random.Generator
) -> Iterator[tuple[Tensor, list[npt.NDArray[np.float32]], list[npt.NDArray[np.int64]]]]:
    """Inputs, boxes in pixels and classes of each picture, all pictures once in random order."""
    order = generator.permutation(len(pictures.images))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        images, boxes = pictures.images[chosen], [pictures.labels[i]["boxes"] for i in chosen]
        for index in np.flatnonzero(generator.random(len(chosen)) < 0.5):
            images[index] = images[index][:, ::-1]
            boxes[index] = np.stack([SIZE - boxes[index][:, 2], boxes[index][:, 1],
                                     SIZE - boxes[index][:, 0], boxes[index][:, 3]], axis=1)  # fmt: skip
        yield torch.from_numpy(as_input(images)), boxes, [pictures.labels[i]["labels"] for i in chosen]


def as_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pixels [n, height, width, 3] as the network's input, by its preprocessing."""
    mean, std = np.array(PREPROCESSING.mean, np.float32), np.array(PREPROCESSING.std, np.float32)
    x = (images.astype(np.float32) * np.float32(PREPROCESSING.scale) - mean) / std
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def loss(
    model: Detector, x: Tensor, boxes: list[npt.NDArray[np.float32]], classes: list[npt.NDArray[np.int64]]
) -> Tensor:
    """Objectness of all cells, box and class of those that are to find a hand; per such cell."""
    found, objectness, logits = model.said(x)
    places, wanted, kinds = _assigned(boxes, classes)
    image, row, column = places.T
    target = torch.zeros_like(objectness)
    if not len(places):
        return functional.binary_cross_entropy_with_logits(objectness, target, reduction="sum") / len(x)
    overlap, generalized = _overlaps(found[image, :, row, column], wanted)
    target[image, 0, row, column] = overlap.detach().clamp(0, 1)
    # Cells whose guess is far from its target count more: most of the others are easily seen to be empty.
    weight = (torch.sigmoid(objectness.detach()) - target).abs()
    quality = functional.binary_cross_entropy_with_logits(objectness, target, weight, reduction="sum")
    kind = functional.cross_entropy(logits[image, :, row, column], kinds, reduction="sum")
    return (quality + BOX_WEIGHT * (1 - generalized).sum() + CLASS_WEIGHT * kind) / len(places)


def _assigned(
    boxes: list[npt.NDArray[np.float32]], classes: list[npt.NDArray[np.int64]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Cells that are to find a hand as (image, row, column) [k, 3], its box as center and size, and its class.

    These are the four around its center; the one of two hands that comes later takes a cell that both want.
    """
    owners: dict[tuple[int, int, int], tuple[npt.NDArray[np.float32], int]] = {}
    for image, (corners, kinds) in enumerate(zip(boxes, classes, strict=True)):
        for (x0, y0, x1, y1), kind in zip(corners, kinds, strict=True):
            box = np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], np.float32)
            column, row = (int(value // STRIDE) for value in box[:2])
            for place in ((row + down, column + right) for down in (0, 1) for right in (0, 1)):
                if max(place) < CELLS:
                    owners[image, *place] = box, int(kind)
    places = torch.tensor(list(owners), dtype=torch.int64).reshape(-1, 3)
    wanted = torch.from_numpy(np.array([box for box, _ in owners.values()], np.float32).reshape(-1, 4))
    return places, wanted, torch.tensor([kind for _, kind in owners.values()], dtype=torch.int64)


def _overlaps(some: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of boxes as center and size, pair by pair [k]."""
    low, high = ([each[:, :2] + sign * each[:, 2:] / 2 for each in (some, others)] for sign in (-1, 1))
    shared = (torch.minimum(*high) - torch.maximum(*low)).clamp(min=0).prod(1)
    union = some[:, 2:].prod(1) + others[:, 2:].prod(1) - shared
    around = (torch.maximum(*high) - torch.minimum(*low)).prod(1)
    overlap = shared / union
    return overlap, overlap - (around - union) / around


def as_model(detector: Detector) -> Model:
    """The detector as a float model with its preprocessing: input `x`, output `detections`, any number of images."""
    program = torch.onnx.export(
        detector, (torch.zeros(2, 3, SIZE, SIZE),), input_names=["x"], output_names=["detections"], verbose=False,
        dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    model = load(program.model_proto)
    graph = model.copy()
    count = parameter_count(detector)
    graph.metadata_props.update({METADATA_KEY: PREPROCESSING.to_json(), TRAINED_KEY: str(count)})
    return dataclasses.replace(model, ir=graph, preprocessing=PREPROCESSING, trained_parameters=count)
