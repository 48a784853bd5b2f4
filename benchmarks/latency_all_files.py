"""The files that `latency_all.py` times: the same few tools on every network, from the same 32 samples.

Ranges and rounding change values but not the graph, so few samples and effort fast do for times. What is there stays.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from latency_files import Candidate
from peer_tools import peer, run, why, with_opset
from rows import HERE, ROOT
from subjects import KERAS, missing, open_subject
from subjects import NETWORKS as SUBJECTS

import lowbit
from lowbit import FileForm

sys.path.insert(0, str(ROOT / "tests"))

from zoo.trial import CALIBRATION, quantize_static, samples

FLOAT, LOWBIT, STATIC = "float", "lowbit int8", "quantize_static"
NNCF = {"default": "NNCF", "mixed": "NNCF, mixed preset"}  # tools by the names of their files
PEERS = {"onnxruntime": (STATIC,), "openvino": tuple(NNCF.values())}
SAMPLES = 32
KEPT, FEEDS = "candidates.json", "feeds.npz"
# The networks of `tests/zoo`, by name: their table needs torch.
ZOO = (
    "resnet", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "efficientnet", "shufflenet", "densenet", "inception",
    "regnet", "convnext", "prelu", "group_norm", "three_dimensional", "unet_transposed", "unet_resize", "yolo", "ssd",
    "pixel_shuffle", "autoencoder", "instance_norm", "many_outputs", "siamese", "bytes_input", "vit", "swin", "mixer",
    "bert", "gpt", "rotary", "lstm", "gru", "captcha", "audio", "wave_unet", "forecast", "tabular", "open_size",
    "half", "external_data",
)  # fmt: skip
NETWORKS = (*SUBJECTS, KERAS, *ZOO)
Feeds = Mapping[str, np.ndarray]


def make_files(models: Sequence[str], data: Path, build: Path) -> None:
    """All files of some networks; a network that is not there says so."""
    jobs: dict[str, list[Candidate]] = {}
    for name in models:
        folder = build / name
        if (folder / KEPT).exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        try:
            path, feeds = network(name, data, folder)
        # Without torch or without the shared networks the others still have to be made.
        except Exception as error:
            print(f"{name} is skipped: {why(error)}", flush=True)
            continue
        np.savez(folder / FEEDS, **feeds)
        jobs[name] = [*of_onnxruntime(path, feeds, folder), *of_openvino(path, feeds, folder)]
        print(f"{name}: {len(jobs[name])} files", flush=True)
    if not jobs:
        return
    todo = build / "jobs.json"
    places = [(str(own[0].path), str(build / name / FEEDS), str(build / name)) for name, own in jobs.items()]
    todo.write_text(json.dumps(places))
    run([peer("nncf"), HERE / "peers" / "nncf_pairs.py", todo])
    for name, own in jobs.items():
        every = [*own, *(by_nncf(build / name, preset, tool) for preset, tool in NNCF.items())]
        # Whatever Python times them will run them.
        values = [{k: v for k, v in dataclasses.asdict(one).items() if k != "python"} for one in every]
        (build / name / KEPT).write_text(json.dumps(values, default=str, indent=1))


def kept(folder: Path) -> list[Candidate]:
    """The candidates of a network whose files were made."""
    path = folder / KEPT
    return [Candidate(**one) for one in json.loads(path.read_text())] if path.exists() else []


def network(name: str, data: Path, folder: Path) -> tuple[Path, Feeds]:
    """The float file of a network, and samples by the names of its inputs.

    Raises:
        ModuleNotFoundError: a network of the zoo, without torch.
        ValueError: a network that is not there.
    """
    if name in ZOO:
        from zoo.table import ZOO as TABLE
        from zoo.table import export

        return export(name, folder), TABLE[name].feeds(SAMPLES, seed=CALIBRATION)
    if sentence := missing(name, data):
        raise ValueError(sentence)
    subject = open_subject(name, data, calibration=SAMPLES, test=1)
    x = np.concatenate([batch.x for batch in subject.calibration.batches(SAMPLES)])
    return subject.path, {subject.model.input.name: x}


def of_onnxruntime(path: Path, feeds: Feeds, folder: Path) -> Iterator[Candidate]:
    given = {"runtime": "onnxruntime", "feeds": folder / FEEDS}
    yield Candidate("onnxruntime", FLOAT, path=path, **given)
    yield by_lowbit("onnxruntime", path, feeds, folder)
    try:
        static = quantize_static(with_opset(path, folder), feeds, folder / "static.onnx")
        yield Candidate("onnxruntime", STATIC, path=static, **given)
    # Whatever it raises belongs in the row.
    except Exception as error:
        yield Candidate("onnxruntime", STATIC, note=f"not made: {why(error)}")


def of_openvino(path: Path, feeds: Feeds, folder: Path) -> Iterator[Candidate]:
    yield Candidate("openvino", FLOAT, "openvino", path, feeds=folder / FEEDS)
    yield by_lowbit("openvino", path, feeds, folder)


def by_lowbit(engine: str, path: Path, feeds: Feeds, folder: Path) -> Candidate:
    try:
        quantized = lowbit.quantize(lowbit.load(path), "int8", calibration=samples(feeds), effort="fast")
        file = quantized.save(folder / f"lowbit-{engine}.onnx", FileForm("onnx" if engine == "onnxruntime" else engine))
    except Exception as error:
        return Candidate(engine, LOWBIT, note=f"not made: {why(error)}")
    return Candidate(engine, LOWBIT, engine, file, feeds=folder / FEEDS)


def by_nncf(folder: Path, preset: str, tool: str) -> Candidate:
    file = folder / f"{preset}.xml"
    if file.exists():
        return Candidate("openvino", tool, "openvino", file, feeds=folder / FEEDS)
    return Candidate("openvino", tool, note=f"not made: {why(RuntimeError(file.with_suffix('.txt').read_text()))}")
