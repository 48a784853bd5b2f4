"""Hashes of the files that lowbit writes, over recipes, formats and efforts: does a change of the code change a file?

    python benchmarks/same_bytes.py before.json                       # on the old code
    python benchmarks/same_bytes.py after.json --against before.json  # on the new code, same machine

Everything goes through the command line, which changes less than what is behind it. Codes chosen on images depend on
the kernels that numpy's products run in, so hashes are compared on one machine and not kept in the repository.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LOWBIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
sys.path.insert(0, str(ROOT / "tests"))

import networks  # noqa: E402 - from tests/
from lowbit.cli import app  # noqa: E402 - once threads are set
from lowbit.errors import LowbitError  # noqa: E402

IMAGENET = ("--mean", "imagenet", "--std", "imagenet")
BYTES_PREPARATION = ("--mean", "0.5", "--std", "0.25")

# Commands: {m} is the model, {d} images to calibrate on, {t} other images, {o} the file to write without its suffix.
PLAIN = [f"quantize {{m}} -r {recipe} -o {{o}}.onnx" for recipe in (
    "float", "linear16", "linear8", "linear5 --per group --group-size 8", "linear4", "linear4 --symmetric",
    "linear3 --per tensor", "linear2", "cluster8", "cluster4", "cluster3 --per channel",
    "cluster2 --per group --group-size 4", "cluster1", "linear4 --short-names", "cluster4 --short-names",
)]  # fmt: skip
CALIBRATED = [
    f"quantize {{m}} -r {recipe} --effort {effort} --calibration {{d}} -o {{o}}.onnx"
    for effort in ("fast", "balanced", "best")
    for recipe in (
        "int8", "int8 --per tensor", "int4", "linear8", "linear4", "linear3 --per group --group-size 16",
        "linear2", "linear4 --per tensor", "cluster4", "cluster3 --per channel", "cluster2",
    )
]  # fmt: skip
SHAPES = [f"quantize {{m}} -r {rest} --calibration {{d}} --effort fast -o {{o}}" + ending for rest, ending in (
    ("int8 --to openvino", ".onnx"), ("int8", ".tflite"), ("int8 --input int8 --output-type uint8", ".tflite"),
    ("int8 --input uint8", ".onnx"), ("int8 --input uint8 --input-layout NCHW", ".onnx"),
    ("int8 --input uint8 --to openvino", ".onnx"), ("int8 --input uint8", ".tflite"), ("int8 --target x86", ".onnx"),
    ("int8 --target arm", ".tflite"), ("int8 --ranges minmax", ".onnx"), ("int8 --ranges percentile", ".onnx"),
    ("int8 --ranges mse", ".onnx"), ("int8 --ranges entropy", ".onnx"), ("int8 --steps none", ".onnx"),
    ("int8 --steps exact-input,rounding", ".onnx"), ("int8 --steps bias", ".onnx"), ("linear4 --steps bias", ".onnx"),
    ("linear4 --input uint8", ".onnx"), ("linear8", ".tflite"), ("int8 --short-names", ".onnx"),
    ("linear4 --steps equalization,bias", ".onnx"),
)]  # fmt: skip
DIALS = [
    "pack {m} -o {o}.lowbit",
    "pack {m} -o {o}.lowbit --short-names",
    "pack {m} -o {o}.lowbit --calibration {d} --bits-per-weight 14 --effort fast",
    "pack {m} -o {o}.lowbit --calibration {d} --bits-per-weight 9 --effort balanced --short-names",
    "pack {m} -o {o}.lowbit --calibration {d} --data {t} --max-drop 3 --effort fast",
]
REAL = [
    "quantize {m} -r int8 --calibration {d} -o {o}.onnx",
    "quantize {m} -r int8 --calibration {d} --per tensor -o {o}.onnx",
    "quantize {m} -r int8 --calibration {d} -o {o}.tflite",
    "quantize {m} -r int4 --calibration {d} -o {o}.onnx",
    "quantize {m} -r linear4 --calibration {d} -o {o}.onnx",
    "quantize {m} -r linear8 --calibration {d} --effort best -o {o}.onnx",
    "quantize {m} -r cluster3 --calibration {d} -o {o}.onnx",
    "pack {m} -o {o}.lowbit --calibration {d} --bits-per-weight 2.5 --effort fast",
]


def cases(folder: Path) -> list[tuple[str, str, dict[str, str]]]:
    """Name of the network, command, and what its placeholders stand for."""
    np.savez(folder / "seen.npz", x=networks.inputs(48, seed=1))
    np.savez(folder / "other.npz", x=networks.inputs(64, seed=2))
    images = np.random.default_rng(3).integers(0, 256, size=(24, 16, 16, 3), dtype=np.uint8)
    np.savez(folder / "bytes.npz", x=images)
    small = {
        "residual": networks.residual_network(depthwise_scale=10.0),
        "depthwise": networks.depthwise_network(clip=6.0),
        "relu": networks.depthwise_network(seed=1),
    }
    listed = []
    for name, proto in small.items():
        onnx.save(proto, folder / f"{name}.onnx")
        places = {"m": str(folder / f"{name}.onnx"), "d": str(folder / "seen.npz"), "t": str(folder / "other.npz")}
        listed += [(name, command, places) for command in PLAIN + CALIBRATED + DIALS]
        bytewise = places | {"d": str(folder / "bytes.npz")}
        listed += [(name, f"{command} {' '.join(BYTES_PREPARATION)}", bytewise) for command in SHAPES]
    if SHARED.is_dir():
        real = {
            "resnet20": (SHARED / "cifar10" / "resnet20.onnx", SHARED / "cifar10" / "calibration", " ".join(IMAGENET)),
            "mobilenet": (SHARED / "rps128" / "mobilenet_v2.onnx", SHARED / "rps128" / "train", " ".join(IMAGENET)),
        }
        for name, (model, data, options) in real.items():
            places = {"m": str(model), "d": str(data)}
            listed += [(name, f"{command} {options} --limit 64", places) for command in REAL]
    return listed


def main() -> None:
    """Run every command; exit 1 if a file differs from what `--against` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="JSON file of an earlier run to compare with")
    parser.add_argument("--only", default="", help="only networks whose names begin with this")
    given = parser.parse_args()
    before = json.loads(given.against.read_text()) if given.against else {}
    hashes: dict[str, str] = {}
    differing = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network, command, places in cases(folder):
            if not network.startswith(given.only):
                continue
            label = f"{network}: {command}"
            words = [word.format(**places, o=str(folder / "written")) for word in command.split()]
            output = Path(words[words.index("-o") + 1])
            output.unlink(missing_ok=True)
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                try:
                    app(words, standalone_mode=False)
                    hashes[label] = hashlib.sha256(output.read_bytes()).hexdigest()
                except LowbitError as error:
                    hashes[label] = type(error).__name__
            if before and before.get(label) != hashes[label]:
                differing.append(label)
                print("differs:", label, "" if len(hashes[label]) == 64 else hashes[label], flush=True)
    given.out.write_text(json.dumps(hashes, indent=1) + "\n")
    failed = sum(len(value) != 64 for value in hashes.values())
    print(f"{len(hashes)} files, {failed} refused, {len(differing)} differ, {time.monotonic() - started:.0f} s")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
