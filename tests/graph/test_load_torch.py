"""torch modules, where torch is installed; and what is said where it is not."""

import sys

import numpy as np
import pytest
from graph_models import assert_close, run

from lowbit.errors import ModelError
from lowbit.graph.load import load
from lowbit.graph.ops import layers

# Warnings of the exporter's own dependencies are not ours to fix.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def network(torch):
    torch.manual_seed(1)
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, 3),
    )
    module(torch.randn(16, 3, 16, 16))
    module[3].eval()
    return module


def test_a_module_is_exported_and_left_as_it_was(torch, network, capfd):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training = [part.training for part in network.modules()]
    model = load(network, example=torch.zeros(1, 3, 16, 16))
    assert [part.training for part in network.modules()] == training
    assert len(set(training)) == 2
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.trained_parameters == sum(parameter.numel() for parameter in network.parameters())
    assert load(model.to_bytes()).trained_parameters == model.trained_parameters
    assert [layer.op for layer in layers(model)] == ["Conv", "Conv", "Gemm"]
    assert not isinstance(model.input.shape[0], int)
    assert model.classes == 3
    x = torch.randn(5, 3, 16, 16)
    network.eval()
    with torch.no_grad():
        wanted = network(x).numpy()
    assert_close(run(model.to_bytes(), {model.input.name: x.numpy()})[0], wanted, 1e-5)
    printed = capfd.readouterr()
    assert printed.out == ""


def two_inputs(torch):
    class Scored(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(20, 8)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, ids, mask):
            return self.head((self.table(ids) * mask[..., None]).sum(dim=1))

    torch.manual_seed(0)
    return Scored().eval()


@pytest.mark.parametrize("form", ["tuple", "dict", "dict in another order"])
def test_several_inputs_keep_their_names_types_and_batch(torch, form):
    module = two_inputs(torch)
    ids, mask = torch.zeros(1, 6, dtype=torch.int64), torch.ones(1, 6)
    examples = {"tuple": (ids, mask), "dict": {"ids": ids, "mask": mask}}
    model = load(module, example=examples.get(form, {"mask": mask, "ids": ids}))
    found = {info.name: (info.dtype.name, info.shape[1:]) for info in model.inputs}
    assert found == {"ids": ("int64", (6,)), "mask": ("float32", (6,))}
    assert not any(isinstance(info.shape[0], int) for info in model.inputs)
    ids, mask = torch.randint(0, 20, (4, 6)), torch.rand(4, 6)
    with torch.no_grad():
        wanted = module(ids, mask).numpy()
    assert_close(run(model.to_bytes(), {"ids": ids.numpy(), "mask": mask.numpy()})[0], wanted, 1e-5)


def test_the_same_module_gives_the_same_bytes(torch, network):
    example = torch.zeros(1, 3, 16, 16)
    assert load(network, example=example).to_bytes() == load(network, example=example).to_bytes()


def test_the_example_is_needed_and_must_fit(torch, network):
    with pytest.raises(ModelError, match=r"needs an example input.*example=torch.zeros"):
        load(network)
    with pytest.raises(ModelError, match="could not export"):
        load(network, example=torch.zeros(1, 4, 16, 16))
    assert network.training


def test_without_onnxscript(torch, network, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError, match=r"'onnxscript', which is not installed.*'lowbit\[torch\]'"):
        load(network, example=torch.zeros(1, 3, 16, 16))


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"cannot load a ndarray.*a torch.nn.Module"):
        load(np.zeros(3))
