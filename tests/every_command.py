"""A command line that works for each command, on small files; tests that all commands must pass go through these."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
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


TRACED = (
    "connect,socket,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod,mknodat"
)
CALL = re.compile(r'(?:\d+ +)?(\w+)\((?:AT_FDCWD, )?"?([^",]*)')
WRITES = re.compile("O_WRONLY|O_RDWR|O_CREAT|^(?:creat|mkdir|mkdirat|rename\\w*|link\\w*|symlink\\w*|mknod\\w*)$")
ELSEWHERE = (
    "/tmp/torchinductor_",
    "/dev/null",
    "/proc/self/clear_refs",
    "/dev/shm/",
)  # locks of pools
ALL_LINES = """
import json, os, sys
from lowbit import cli
for number, words in enumerate(json.loads(sys.argv[1])):
    sys.argv = ["lowbit", *words]
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    print(words[0], code)
"""


def traced(lines: Sequence[Sequence[str]], folder: Path) -> tuple[list[list[str]], set[str]]:
    """Run commands under strace, in one process, with a home and a temporary folder of their own.

    Args:
        lines: words of each, which may write into `folder / "out"`.
        folder: that is empty.

    Returns:
        Command and exit code of each line, and what was written.

    Raises:
        AssertionError: a connection, a file elsewhere, or one that is left over.
    """
    home, temporary, out, trace = (folder / name for name in ("home", "temporary", "out", "trace"))
    for each in (home, temporary, out):
        each.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    own = {"HOME": home, "XDG_CACHE_HOME": home / "cache", "TMPDIR": temporary, "PYTHONDONTWRITEBYTECODE": 1}
    tracer = ["strace", "-f", "-qq", "-e", f"trace={TRACED}", "-o", trace]
    done = subprocess.run(
        [*tracer, sys.executable, "-c", ALL_LINES, json.dumps(lines)],
        env=kept | {name: str(value) for name, value in own.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    ended = [line.split() for line in done.stdout.splitlines() if re.fullmatch(rf"({'|'.join(LINES)}) \d+", line)]
    assert len(ended) == len(lines), done.stderr
    calls = trace.read_text(errors="replace").splitlines()
    assert any("openat(" in line for line in calls)
    sent = [line for line in calls if "AF_INET" in line or "sin_port" in line]
    assert not sent, sent
    written = set()
    for line in calls:
        call = CALL.match(line)
        if call and (WRITES.search(call[1]) or (call[1] == "openat" and re.search(r"O_(WRONLY|RDWR|CREAT)\b", line))):
            written.add(call[2])
    elsewhere = {path for path in written if not path.startswith((str(out), str(temporary), *ELSEWHERE))}
    assert not elsewhere, elsewhere
    left = [path for each in (home, temporary) for path in each.rglob("*") if path.is_file()]
    assert not left, left
    assert [path.name for path in out.rglob(".lowbit-*")] == []
    return ended, written
