"""Give every command every file of a folder: `python tests/fuzz/hostile.py FOLDER`, or `make hostile FOLDER=...`.

Each command is a process of its own, as users start it. It succeeds or says what is wrong in one sentence, in 10
seconds of processor time and 1 GB of memory, its children counted too. What comes out is a table, and exit code 1 if
anything else happened.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS, BYTES = 10.0, 1 << 30
WAIT = 600.0  # at most, of a machine that others use too
# FILE is the file; OUT a name in an empty folder; DATA an .npz beside the files, or made.
MODELS = (
    "inspect FILE",
    "inspect FILE --coded",
    "inspect FILE --speed",
    "prepare FILE --mean 0.5 --std 0.25 -o OUT.onnx",
    "plan FILE -r int8",
    "plan FILE -r cluster3",
    "quantize FILE -r linear4 -o OUT.onnx",
    "quantize FILE -r cluster3 -o OUT.onnx",
    "quantize FILE -r float16 -o OUT.onnx",
    "quantize FILE -r dynamic8 -o OUT.onnx",
    "quantize FILE -r linear8 -o OUT.tflite",
    "quantize FILE -r int8 --calibration DATA -o OUT.onnx",
    "quantize FILE -r int8 --calibration DATA -o OUT.tflite",
    "pack FILE -o OUT.lowbit",
    "pack FILE --bits-per-weight 3 --calibration DATA -o OUT.lowbit",
    "unpack FILE -o OUT.onnx",
    "measure FILE --data DATA --runs 0",
    "measure FILE --data DATA --runs 0 --engine auto",
    "measure FILE --data DATA --runs 0 --engine openvino",
    "compare FILE --data DATA --runs 0 --recipes linear4 --out OUT",
    "compare FILE --data DATA --calibration DATA --same-data --runs 0 --recipes int8 --engine auto --out OUT",
)


@dataclass(frozen=True)
class Ending:
    """How a command ended: its exit code (negative: a signal), its last words, processor seconds, and bytes at most."""

    code: int
    words: str
    seconds: float
    memory: int

    @property
    def fault(self) -> str:
        """What should not have happened; empty if nothing."""
        if self.code < 0:
            return f"died of signal {-self.code}"
        if "Traceback" in self.words:
            return "traceback"
        if self.code not in (0, 2, 3, 4) or (self.code and not self.words.strip()):
            return f"exit code {self.code}"
        if self.code and sum(line.startswith("Error: ") for line in self.words.splitlines()) != 1:
            return "not one sentence"
        if self.seconds > SECONDS:
            return f"{self.seconds:.0f} s"
        return f"{self.memory >> 20} MB" if self.memory > BYTES else ""


def ended(line: str, file: Path, data: Path, folder: Path) -> Ending:
    """Run one command in a process of its own."""
    names = {"FILE": str(file), "DATA": str(data)}
    words = [names.get(word, word.replace("OUT", str(folder / "out"))) for word in line.split()]
    said = folder / "said"
    with said.open("wb") as sink, open(os.devnull, "wb") as nowhere:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "lowbit", *words],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1), (os.POSIX_SPAWN_DUP2, sink.fileno(), 2)],
        )
    until = time.monotonic() + WAIT
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.kill(pid, 9)
        time.sleep(0.02)
    code = os.waitstatus_to_exitcode(status)
    return Ending(code, said.read_text(errors="replace"), usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, help="calibration and evaluation data; default: data.npz in the folder")
    options = parser.parse_args()
    files = sorted(path for path in options.folder.iterdir() if path.suffix in (".onnx", ".tflite", ".lowbit"))
    faults, slowest, largest = 0, 0.0, 0
    for file in files:
        worked = refused = 0
        for line in MODELS:
            with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
                end = ended(line, file, options.data or options.folder / "data.npz", Path(folder))
            slowest, largest = max(slowest, end.seconds), max(largest, end.memory)
            worked, refused = worked + (end.code == 0), refused + (end.code > 0)
            if end.fault:
                faults += 1
                print(f"  {end.fault}: {line.replace('FILE', file.name)}: {end.words.strip()[-600:]!r}", flush=True)
        print(f"{file.name:<32} {worked:3} worked, {refused:3} refused", flush=True)
    print(f"{len(files)} files, {len(MODELS)} commands: {faults} faults; most {slowest:.1f} s, {largest >> 20} MB")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
