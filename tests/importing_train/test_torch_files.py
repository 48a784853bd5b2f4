"""TorchScript, exported programs, and weights in safetensors; what could run code is refused."""

import json
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from answers import assert_same  # noqa: E402

from lowbit import load  # noqa: E402
from lowbit.errors import ModelError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")


def network():
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    module.append(nn.Linear(6, 3))
    module(torch.randn(8, 3, 12, 12))
    return module.eval()


@pytest.fixture
def module():
    return network()


DATA = np.random.default_rng(2).standard_normal((5, 3, 12, 12)).astype(np.float32)


def wanted(module):
    with torch.no_grad():
        return [module(torch.from_numpy(DATA)).numpy()]


def exported(module, dynamic=True):
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    return torch.export.export(module, (torch.zeros(2 if dynamic else 5, 3, 12, 12),), dynamic_shapes=shapes)


@pytest.mark.parametrize("kind", ["traced", "scripted"])
@pytest.mark.parametrize("ending", [".pt", ".ts", ".pth"])
def test_torchscript_files_are_the_module(kind, ending, module, tmp_path):
    script = torch.jit.trace(module, torch.zeros(1, 3, 12, 12)) if kind == "traced" else torch.jit.script(module)
    path = tmp_path / f"model{ending}"
    script.save(path)
    loaded = load(path, input_sizes={"": (None, 3, 12, 12)})
    assert loaded.input.shape == ("batch", 3, 12, 12)
    assert loaded.trained_parameters == sum(parameter.numel() for parameter in module.parameters())
    assert_same(loaded, [DATA], wanted(module))


def test_a_script_needs_a_size_or_an_example(module):
    script = torch.jit.script(module)
    with pytest.raises(ModelError, match=r"does not say the size of its input.*--input-size=-x3x224x224"):
        load(script)
    assert_same(load(script, example=torch.zeros(1, 3, 12, 12)), [DATA], wanted(module))


@pytest.mark.parametrize("dynamic", [True, False])
def test_exported_programs_come_in_as_objects_and_files(dynamic, module, tmp_path):
    program = exported(module, dynamic)
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    for source in (program, path):
        loaded = load(source)
        assert isinstance(loaded.input.shape[0], str) == dynamic
        assert_same(loaded, [DATA], wanted(module))


def test_weights_come_from_safetensors(module, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    path = tmp_path / "model.safetensors"
    safetensors.save_file(module.state_dict(), path)
    other = network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert_same(load(other, weights=path, example=torch.zeros(1, 3, 12, 12)), [DATA], wanted(module))
    assert all(not parameter.any() for parameter in other.parameters())
    with pytest.raises(ModelError, match=r"do not fit the module: .*Give the module"):
        load(torch.nn.Linear(3, 2), weights=path, example=torch.zeros(1, 3))
    with pytest.raises(ModelError, match=r"holds weights only.*weights='model.safetensors'"):
        load(path)
    with pytest.raises(ModelError, match=r"weights come from a \.safetensors file"):
        load(module, weights=tmp_path / "model.pth", example=torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".pkl"])
@pytest.mark.parametrize("what", ["module", "weights"])
def test_pickles_are_refused_and_say_why(what, ending, module, tmp_path):
    path = tmp_path / f"model{ending}"
    torch.save(module if what == "module" else module.state_dict(), path)
    with pytest.raises(ModelError, match=r"is a Python pickle, and reading one can run any code.*lowbit\.load\(module"):
        load(path)


def edited(path, change):
    """The archive with every JSON part changed."""
    target = path.with_name("edited.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(
                entry.filename, change(content.decode()).encode() if entry.filename.endswith(".json") else content
            )
    return target


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("Symbol('", "__import__('os').system('", "has the formula"),
        ("Symbol('s", "open('s", "has the formula"),
        ("torch.ops.aten.linear.default", "torch.os.system", "calls 'torch.os.system'"),
        ('"path_name": "weight_0"', '"path_name": "opaque_obj_0"', "stores 'opaque_obj_0'"),
        ('"use_pickle": false', '"use_pickle": true', "stores a tensor as a pickle"),
    ],
)
def test_what_torch_would_run_is_refused(old, new, sentence, module, tmp_path):
    path = tmp_path / "model.pt2"
    torch.export.save(exported(module), path)
    seen = []

    def change(text):
        pretty = json.dumps(json.loads(text))
        seen.append(old in pretty)
        return pretty.replace(old, new)

    target = edited(path, change)
    assert any(seen)
    with pytest.raises(ModelError, match=rf"{sentence}.*, which lowbit does not hand to Python"):
        load(target)


def test_damaged_files_are_refused(module, tmp_path):
    path = tmp_path / "model.pt2"
    torch.export.save(exported(module), path)
    content = path.read_bytes()
    for piece in (content[:100], content[: len(content) // 2], b""):
        path.write_bytes(piece)
        with pytest.raises(ModelError, match="cannot be read"):
            load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.json", "{}")
    with pytest.raises(ModelError, match="holds no exported program"):
        load(path)
