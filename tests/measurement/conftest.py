"""A classifier small enough to run a thousand times."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def classifier(width: int = 4, repeat: int = 1) -> bytes:
    """[n, 1, 4, 4] -> [n, 3]: a mean over the image times `width` hidden units, and `repeat` wide layers of ballast."""
    random = np.random.default_rng(0)
    names = ["flat", *(f"hidden{i}" for i in range(repeat)), "logits"]
    sizes = [16, *([width] * repeat), 3]
    nodes = [helper.make_node("Flatten", ["image"], ["flat"])]
    weights = []
    for i, (before, after) in enumerate(itertools.pairwise(names)):
        matrix = random.normal(size=(sizes[i], sizes[i + 1])).astype(np.float32) / 4
        weights.append(numpy_helper.from_array(matrix, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [before, f"w{i}"], [after]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 4, 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "classifier", [image], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@dataclasses.dataclass(frozen=True)
class Piece:
    x: np.ndarray
    labels: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Stands in for `lowbit.data.Images`: only what measuring needs."""

    x: np.ndarray
    labels: np.ndarray | None = None

    @property
    def count(self) -> int:
        return len(self.x)

    def batches(self, size: int = 32, *, limit: int | None = None):
        stop = self.count if limit is None else min(limit, self.count)
        for start in range(0, stop, size):
            part = slice(start, min(start + size, stop))
            yield Piece(self.x[part], None if self.labels is None else self.labels[part])


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
