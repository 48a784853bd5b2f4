"""One quantization job in a fresh process: seconds, processor seconds and peak memory, as one JSON line.

    job_worker.py JOB MODEL CALIBRATION COUNT OUT     CALIBRATION: a folder of images, or model inputs as .npy

Imports and the loading of the images of peers are no part of the job; loading and preparing the model are. Memory is
counted above what the process held with the model open in the runtime once, so that it is what the job itself adds.
"""

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

BATCH = 8


def status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key}: this needs Linux")


def opened_once(model: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    sizes = [size if isinstance(size, int) else 1 for size in value.shape]
    session.run(None, {value.name: np.zeros(sizes, np.float32)})


class Stored:
    """Model inputs in a .npy file, read one by one: mapped into memory they would count as the job's own."""

    def __init__(self, path: str, count: int) -> None:
        with Path(path).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, self._type = np.lib.format.read_array_header_1_0(file)
            self._start = file.tell()
        self._path, self._shape, self._count = path, shape[1:], min(count, shape[0])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        values = int(np.prod(self._shape))
        with Path(self._path).open("rb") as file:
            file.seek(self._start)
            for _ in range(self._count):
                yield np.fromfile(file, self._type, values).reshape(1, *self._shape)


def forward(model: str, calibration: str, count: int, out: Path) -> Callable[[], object]:
    import onnxruntime

    x = Stored(calibration, count)

    def job() -> None:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        images = iter(x)
        while batch := list(islice(images, BATCH)):
            session.run(None, {name: np.concatenate(batch)})

    return job


def by_lowbit(effort: str, ranges: str, steps: tuple[str, ...] | None = None) -> Callable[..., Callable[[], object]]:
    def made(model: str, calibration: str, count: int, out: Path) -> Callable[[], object]:
        # By name, since lowbit imports what a name needs only when it is asked for.
        from lowbit import load, open_images, parse_recipe, quantize
        from lowbit.data.options import ImageWords, with_preprocessing

        def job() -> None:
            loaded = load(model)
            loaded = with_preprocessing(
                loaded, ImageWords(size=str(loaded.input.shape[2]), mean="imagenet", std="imagenet")
            )
            images = open_images(calibration, loaded.preprocessing, limit=count)
            recipe = parse_recipe("int8", ranges=ranges)
            quantize(loaded, recipe, calibration=images, effort=effort, steps=steps).save(out / "model.onnx")

        return job

    return made


def by_onnxruntime(method: str) -> Callable[..., Callable[[], object]]:
    def made(model: str, calibration: str, count: int, out: Path) -> Callable[[], object]:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        x = Stored(calibration, count)
        name = onnx.load(model).graph.input[0].name

        class Reader(quantization.CalibrationDataReader):
            def __init__(self) -> None:
                self.images = ({name: image} for image in x)

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.images, None)

        def job() -> None:
            quant_pre_process(model, str(out / "prepared.onnx"), skip_symbolic_shape=True)
            with contextlib.redirect_stdout(io.StringIO()):
                quantization.quantize_static(
                    str(out / "prepared.onnx"), str(out / "model.onnx"), Reader(), per_channel=True,
                    quant_format=quantization.QuantFormat.QDQ, activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    calibrate_method=quantization.CalibrationMethod[method],
                )  # fmt: skip

        return job

    return made


def by_nncf(fast: bool) -> Callable[..., Callable[[], object]]:
    def made(model: str, calibration: str, count: int, out: Path) -> Callable[[], object]:
        import nncf
        import openvino

        x = Stored(calibration, count)

        def job() -> None:
            data = nncf.Dataset(x)
            quantized = nncf.quantize(
                openvino.convert_model(model), data, fast_bias_correction=fast, subset_size=len(x)
            )
            openvino.save_model(quantized, out / "model.xml", compress_to_fp16=False)

        return job

    return made


# name -> (tool's environment or None for lowbit's own, takes image files, what makes the job)
JOBS: dict[str, tuple[str | None, bool, Callable[..., Callable[[], object]]]] = {
    "bare forward passes": (None, False, forward),
    "lowbit, minmax": (None, True, by_lowbit("fast", "minmax", ("exact-input",))),
    "lowbit, mse": (None, True, by_lowbit("fast", "mse", ("exact-input",))),
    "lowbit, careful ranges + bias correction": (
        None,
        True,
        by_lowbit("fast", "output", ("exact-input", "bias")),
    ),
    "lowbit, mse, effort balanced": (None, True, by_lowbit("balanced", "mse")),
    "ONNX Runtime, minmax": (None, False, by_onnxruntime("MinMax")),
    "ONNX Runtime, percentile": (None, False, by_onnxruntime("Percentile")),
    "ONNX Runtime, entropy": (None, False, by_onnxruntime("Entropy")),
    "NNCF, fast bias correction": ("nncf", False, by_nncf(True)),
    "NNCF, accurate bias correction": ("nncf", False, by_nncf(False)),
}


def main(name: str, model: str, calibration: str, count: str, out: str) -> None:
    job = JOBS[name][2](model, calibration, int(count), Path(out))
    opened_once(model)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    cpu, start = time.process_time(), time.perf_counter()
    job()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = status("VmHWM")
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "added_bytes": peak - before, "peak_bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
