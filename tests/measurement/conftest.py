"""A classifier small enough to run a thousand times."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import make, make_node
from lowbit.data.dataset import Batch


def classifier(width: int = 4, repeat: int = 1) -> bytes:
    """[n, 1, 4, 4] -> [n, 3]: a mean over the image times `width` hidden units, and `repeat` wide layers of ballast."""
    random = np.random.default_rng(0)
    names = ["flat", *(f"hidden{i}" for i in range(repeat)), "logits"]
    sizes = [16, *([width] * repeat), 3]
    nodes, weights = [make_node("Flatten", "image", "flat")], {}
    for i, (before, after) in enumerate(itertools.pairwise(names)):
        weights[f"w{i}"] = random.normal(size=(sizes[i], sizes[i + 1])) / 4
        nodes.append(make_node("MatMul", f"{before} w{i}", after))
    model = make(nodes, {"image": ["n", 1, 4, 4]}, {"logits": ["n", 3]}, weights)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Stands in for `lowbit.data.Images`: only what measuring needs."""

    x: np.ndarray
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None

    @property
    def count(self) -> int:
        return len(self.x)

    def batches(self, size: int = 32, *, limit: int | None = None):
        stop = self.count if limit is None else min(limit, self.count)
        for start in range(0, stop, size):
            part = slice(start, min(start + size, stop))
            labels = None if self.labels is None else self.labels[part]
            yield Batch({"image": self.x[part]}, labels, np.arange(part.start, part.stop))


@pytest.fixture
def pictures() -> Pictures:
    random = np.random.default_rng(1)
    return Pictures(random.normal(size=(10, 1, 4, 4)).astype(np.float32), np.arange(10) % 3)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(classifier())
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """16 MB of weights."""
    path = tmp_path / "large.onnx"
    path.write_bytes(classifier(width=1000, repeat=5))
    return path
