"""A command line that works for each command, on small files; tests that all commands must pass go through these."""

from pathlib import Path

import numpy as np

import lowbit
import networks
from lowbit.formats.opening import pack_file

# Words in capitals are files of `small_files`, or lie in an empty folder OUT.
LINES = {
    "inspect": ("inspect MODEL", "inspect FLOAT_LITERT", "inspect ARCHIVE --speed"),
    "prepare": ("prepare MODEL --mean 0.5 --std 0.5 -o OUT/a.onnx",),
    "plan": ("plan MODEL -r int8 -o OUT/a.json", "plan MODEL --plan PLAN"),
    "quantize": (
        "quantize MODEL -r int8 --effort fast --calibration OTHER -o OUT/a.onnx",
        "quantize FLOAT_LITERT -r linear8 -o OUT/b.tflite",
    ),
    "search": ("search MODEL --data DATA --max-drop 9 --time 1s --recipes linear8 -o OUT/a.onnx --report OUT/a.html",),
    "measure": ("measure MODEL QUANTIZED LITERT --engine auto --data DATA --runs 1 --out OUT/a",),
    "compare": ("compare MODEL --data DATA --recipes linear8 --runs 1 --resume --out OUT/a",),
    "demo": ("demo --recipes nothing --out OUT/a",),
    "diagnose": ("diagnose MODEL --data DATA -r linear4 --apply OUT/a.json",),
    "pack": (
        "pack MODEL -o OUT/a.lowbit",
        "pack MODEL --size 6KB --effort fast --calibration OTHER --resume -o OUT/b.lowbit",
    ),
    "unpack": ("unpack ARCHIVE -o OUT/a.onnx",),
    "export": ("export LITERT --c-array OUT/a.cc --resolver OUT/b.h",),
    "recipes": ("recipes",),
    "explain": ("explain KL",),
    "fetch": ("fetch nothing OUT/a",),
    "train": ("train nothing -o OUT/a.onnx",),
}  # fmt: skip
# What is refused here: a minute's work, a download, and a framework that is not installed everywhere.
REFUSED = ("demo", "fetch", "train")


def small_files(folder: Path) -> dict[str, str]:
    """The files that lines name, made in a folder."""
    names = {
        "MODEL": "net.onnx",
        "DATA": "data.npz",
        "OTHER": "other.npz",
        "ARCHIVE": "net.lowbit",
        "PLAN": "plan.json",
    }
    names |= {"LITERT": "q.tflite", "FLOAT_LITERT": "float.tflite", "QUANTIZED": "q.onnx"}
    paths = {word: folder / name for word, name in names.items()}
    paths["MODEL"].write_bytes(networks.residual_network().SerializeToString())
    np.savez(paths["DATA"], x=networks.inputs(24, seed=1))
    np.savez(paths["OTHER"], x=networks.inputs(8, seed=2))
    paths["ARCHIVE"].write_bytes(pack_file(paths["MODEL"]))
    model = lowbit.load(paths["MODEL"])
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(3), effort="fast")
    quantized.save(paths["QUANTIZED"])
    quantized.save(paths["LITERT"])
    lowbit.quantize(model, "float").save(paths["FLOAT_LITERT"])
    lowbit.write_plan(lowbit.plan(model, "int8"), model, paths["PLAN"])
    return {word: str(path) for word, path in paths.items()}


def words_of(line: str, files: dict[str, str], out: Path) -> list[str]:
    """The words of a line, with the files that they stand for."""
    return [
        files.get(word, word.replace("OUT", str(out), 1) if word.startswith("OUT/") else word) for word in line.split()
    ]
