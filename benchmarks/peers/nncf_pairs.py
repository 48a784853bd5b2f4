"""NNCF's int8 of many ONNX files, with its default and its mixed preset, run inside NNCF's own environment.

    nncf_pairs.py JOBS      JOBS: JSON, a list of [MODEL, FEEDS, OUT]; FEEDS: inputs by name as .npz

Writes `default.xml` and `mixed.xml` to each OUT, or `default.txt` and `mixed.txt` with the reason why there is none.
It quantizes for OpenVINO, whose kernels the files are timed in; one process for all, since importing takes seconds.
"""

import json
import sys
from pathlib import Path

import nncf
import numpy as np
import openvino

PRESETS = {"default": {}, "mixed": {"preset": nncf.QuantizationPreset.MIXED}}


def write(model: str, feeds: Path, out: Path, name: str) -> None:
    values = dict(np.load(feeds))
    count = len(next(iter(values.values())))
    rows = [{key: x[i : i + 1] for key, x in values.items()} for i in range(count)]
    quantized = nncf.quantize(openvino.convert_model(model), nncf.Dataset(rows), subset_size=count, **PRESETS[name])
    openvino.save_model(quantized, out / f"{name}.xml", compress_to_fp16=False)


def main(jobs: str) -> None:
    for model, feeds, out in json.loads(Path(jobs).read_text()):
        for name in PRESETS:
            try:
                write(model, Path(feeds), Path(out), name)
            # Whatever it raises belongs in the row of this network: the others are still to be made.
            except Exception as error:
                (Path(out) / f"{name}.txt").write_text(str(error).strip() or type(error).__name__)
            print(model, name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
