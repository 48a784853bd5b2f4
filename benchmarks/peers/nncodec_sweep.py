"""NNCodec in its own environment: weights in, bitstream sizes and decoded weights out, for one or more values of qp.

    python nncodec_sweep.py WEIGHTS.npz FOLDER QP...

Defaults of `nncodec.nn.encode` (dependent quantization, parameter optimization), weights only. It imports torchvision
for data sets that are not used here; a stand-in makes do without it.
"""

import json
import sys
import time
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np


def stand_in(name: str) -> None:
    """A module that has whatever is asked of it."""
    module = types.ModuleType(name)
    module.__getattr__ = lambda _: MagicMock()  # type: ignore[method-assign]
    module.__path__ = []
    sys.modules[name] = module


def main() -> None:
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.models"):
        stand_in(name)
    from nncodec import nn

    weights = dict(np.load(sys.argv[1]))
    folder = Path(sys.argv[2])
    rows = []
    for qp in map(int, sys.argv[3:]):
        started = time.perf_counter()
        stream = nn.encode(dict(weights), {"qp": qp, "results": str(folder), "verbose": False})
        encoded = time.perf_counter()
        decoded = nn.decode(stream, {"verbose": False})
        seconds = encoded - started, time.perf_counter() - encoded
        np.savez(folder / f"qp{qp}.npz", **{name: np.asarray(decoded[name], np.float32) for name in weights})
        rows.append({"qp": qp, "bytes": len(stream), "encode_seconds": seconds[0], "decode_seconds": seconds[1]})
    (folder / "result.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
