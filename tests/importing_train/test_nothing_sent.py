"""Commands on files of torch and Keras: no connection, and nothing written but what was asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "torch"
torch = pytest.importorskip("torch", reason="torch is not installed")
keras = pytest.importorskip("keras", reason="keras is not installed")

from every_command import traced  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
# Each command that takes a model.
COMMANDS = (
    "inspect MODEL",
    "plan MODEL -r int8 -o OUT/a.json",
    "prepare MODEL --mean 0.5 --std 0.5 -o OUT/a.onnx",
    "quantize MODEL -r linear8 -o OUT/b.onnx",
    "quantize MODEL -r int8 --effort fast --calibration DATA -o OUT/c.onnx",
    "measure MODEL OUT/b.onnx --engine auto --data DATA --runs 1 --out OUT/d",
    "compare MODEL --data DATA --recipes linear8 --runs 1 --out OUT/e",
    "diagnose MODEL --data DATA -r linear4 --apply OUT/f.json",
    "search MODEL --data DATA --max-drop 9 --time 1s --recipes linear8 -o OUT/g.onnx",
    "pack MODEL -o OUT/h.lowbit",
)


def torch_network():
    torch.manual_seed(0)
    nn = torch.nn
    layers = (nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    return nn.Sequential(*layers).eval()


def script(path):
    torch.jit.trace(torch_network(), torch.zeros(1, 3, 12, 12)).save(path)


def program(path):
    batch = torch.export.Dim("n", min=1, max=64)
    torch.export.save(
        torch.export.export(torch_network(), (torch.zeros(2, 3, 12, 12),), dynamic_shapes=({0: batch},)), path
    )


def keras_file(path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    pooled = [keras.Input((12, 12, 3)), layers.Conv2D(6, 3, activation="relu"), layers.GlobalAveragePooling2D()]
    keras.Sequential([*pooled, layers.Dense(3)]).save(path)


@pytest.mark.parametrize(
    ("name", "write", "shape", "sized"),
    [
        ("net.pt", script, (24, 3, 12, 12), True),
        ("net.pt2", program, (24, 3, 12, 12), False),
        ("net.keras", keras_file, (24, 12, 12, 3), False),
    ],
)
def test_no_connection_and_no_file_elsewhere(name, write, shape, sized, tmp_path):
    model, data, place = tmp_path / name, tmp_path / "data.npz", tmp_path / "run"
    write(model)
    np.savez(data, x=np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    place.mkdir()
    names = {"MODEL": str(model), "DATA": str(data)}
    lines = [[names.get(word, word.replace("OUT", str(place / "out"))) for word in line.split()] for line in COMMANDS]
    if sized:  # a script does not say the sizes of its inputs; these take none, or of all files
        size = ["--input-size", "-x3x12x12"]
        lines = [[*line, *size] for line in lines if line[0] not in ("prepare", "pack", "measure")]
    ended, _ = traced(lines, place)
    wrong = [line for line, (_, code) in zip(lines, ended, strict=True) if code != "0"]
    assert not wrong


GOES_ON = """
import sys, lowbit
lowbit.load(sys.argv[1])
import keras
print(keras.utils.get_file("weights", origin="file://" + sys.argv[2]))
"""


def test_who_goes_on_with_keras_downloads_as_ever_and_nothing_is_left(tmp_path):
    """Keras remembers the folder for its settings: it must be there while the process is, and no longer."""
    keras_file(tmp_path / "net.keras")
    (tmp_path / "origin").write_text("weights")
    (tmp_path / "tmp").mkdir()
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "KERAS_BACKEND": "torch"}
    known = {name: value for name, value in os.environ.items() if name not in ("KERAS_HOME", "MPLCONFIGDIR")}
    words = [sys.executable, "-c", GOES_ON, str(tmp_path / "net.keras"), str(tmp_path / "origin")]
    run = subprocess.run(words, capture_output=True, text=True, check=True, env=known | places)
    assert Path(run.stdout.split()[-1]).is_relative_to(tmp_path / "tmp")
    assert list((tmp_path / "tmp").iterdir()) == []
