"""Give commands files that are nearly right: `python tests/fuzz/run.py --minutes 30`, or `make fuzz MINUTES=30`.

Whatever the file, a command succeeds or says what is wrong in a sentence of its own. Anything else is a find: an
exception, the death of the process, more than 10 seconds or 1 GB. Finds are kept in a folder, the smallest of each
kind; one that has been mended belongs into the tests as a case of its own.
"""

import argparse
import contextlib
import hashlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests")]

SECONDS, BYTES = 10.0, 1 << 30
BATCH = 40  # mutants a process: what one leaves behind in memory does not follow the others for long
KINDS = ("onnx", "npz", "tflite")
COMMANDS = {
    "onnx": (
        "inspect FILE --coded",
        "plan FILE -r int8",
        "plan FILE -r cluster3",
        "quantize FILE -r linear4 -o OUT.onnx",
        "quantize FILE -r cluster2 -o OUT.onnx",
        "quantize FILE -r float16 -o OUT.onnx",
        "quantize FILE -r dynamic8 -o OUT.onnx",
        "quantize FILE -r linear8 -o OUT.tflite",
        "quantize FILE -r int8 --calibration DATA --effort fast -o OUT.onnx",
        "pack FILE -o OUT.lowbit",
    ),
    "npz": ("quantize MODEL -r int8 --calibration FILE --effort fast -o OUT.onnx",),
    "tflite": ("LEDGER FILE",),
}


class Slow(BaseException):
    """No library catches it."""


@dataclass(frozen=True)
class Seeds:
    """Good files, by the kind of their mutants; and what goes with them."""

    files: dict[str, list[Any]]
    model: Path
    data: Path


def seeds(folder: Path) -> Seeds:
    """Small networks with layers of every sort, one quantized, one of LiteRT; inputs for the first."""
    import numpy as np
    import onnx

    import lowbit
    import networks
    from speech import speech_network
    from task_networks import sequences, tokens

    first = networks.residual_network()
    model, data = folder / "model.onnx", folder / "data.npz"
    onnx.save(first, model)
    np.savez(data, x=networks.inputs(3))
    quantized = lowbit.quantize(lowbit.load(first), "int8", calibration=networks.inputs(3), effort="fast")
    written = quantized.save(folder / "quantized.onnx").read_bytes()
    litert = quantized.save(folder / "quantized.tflite").read_bytes()
    nets = [first, networks.depthwise_network(), speech_network(), sequences().model, tokens().model]
    nets.append(onnx.load_model_from_string(written))
    return Seeds({"onnx": nets, "npz": [data.read_bytes()], "tflite": [litert]}, model, data)


def attempt(line: str) -> None:
    """Run a command in this process; silent if it ends as it should, else the exception."""
    from lowbit.cli import app
    from lowbit.errors import LowbitError

    words = line.split()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            if words[0] == "LEDGER":
                from lowbit.formats.litert.ledger import read_litert_ledger

                read_litert_ledger(words[1])
            else:
                app(words, standalone_mode=False)
        except MemoryError:
            pass  # the command line has a sentence for it
        except LowbitError as error:
            if not error.what.strip() or "\n" in str(error):
                raise ValueError(f"no sentence: {error}") from error


def mutants(kind: str, made: Seeds, seed: int) -> Iterator[tuple[bytes, str]]:
    """Files and the command lines that read them, without end."""
    from fuzz.mutants import MUTATORS

    index = 0
    while True:
        rng = random.Random(f"{kind} {seed} {index}")
        yield MUTATORS[kind](rng.choice(made.files[kind]), rng), rng.choice(COMMANDS[kind])
        index += 1


def batch(kind: str, files: list[tuple[bytes, str]], made: Seeds, folder: Path) -> Iterator[tuple[int, str]]:
    """Finds among some files: index, and what happened. A process of their own tries them."""
    start = 0
    while start < len(files):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            with os.fdopen(writer, "w", buffering=1) as say:
                _try_all(kind, files, start, made, folder, say)
            os._exit(0)
        os.close(writer)
        at = start
        with os.fdopen(reader) as told:
            for line in told:
                index, _, what = line.rstrip("\n").partition(" ")
                at = int(index)
                if what:
                    yield at, what
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            yield at, f"died of {signal.Signals(os.WTERMSIG(status)).name}"
            start = at + 1
        else:
            return


def _try_all(kind: str, files: list[tuple[bytes, str]], start: int, made: Seeds, folder: Path, say: Any) -> None:
    def too_slow(*_: object) -> None:
        raise Slow

    warnings.simplefilter("error", RuntimeWarning)  # numpy's, of numbers that nobody thought of
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, too_slow)
    path = folder / f"mutant.{kind}"
    for index in range(start, len(files)):
        data, line = files[index]
        path.write_bytes(data)
        words = {"FILE": str(path), "MODEL": str(made.model), "DATA": str(made.data)}
        words |= {f"OUT.{ending}": str(folder / f"out.{ending}") for ending in ("onnx", "tflite", "lowbit")}
        say.write(f"{index} \n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Of the processor, since others may use it too; and one that only waits has an end as well.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
        try:
            attempt(" ".join(words.get(word, word) for word in line.split()))
        except BaseException as error:
            _stop_timers()
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            say.write(f"{index} {type(error).__name__} at {where}: {' '.join(str(error).split())[:200]!r}\n")
        _stop_timers()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        if grown > BYTES:
            say.write(f"{index} MemoryError: {grown >> 20} MB\n")


def _stop_timers() -> None:
    for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        signal.setitimer(timer, 0)


def fuzz(
    kind: str, count: int | None, *, seed: int, made: Seeds, finds: Path | None = None, until: float = float("inf")
) -> tuple[int, Counter[str]]:
    """Try `count` mutants of a kind, or as many as there is time for.

    Returns:
        How many were tried, and the finds with how often they came.
    """
    tried, found = 0, Counter[str]()
    source = mutants(kind, made, seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while (count is None or tried < count) and time.monotonic() < until:
            size = BATCH if count is None else min(BATCH, count - tried)
            files = [next(source) for _ in range(size)]
            for index, what in batch(kind, files, made, Path(folder)):
                data, line = files[index]
                key = what.split(": ")[0] if what[0].isupper() else what
                found[f"{what} in `{line}`"] += 1
                if finds is not None:
                    name = hashlib.sha256(key.encode()).hexdigest()[:10]
                    keep(data, f"{kind}: {line}: {what}", finds / f"{name}.{kind}")
            tried += size
    return tried, found


def archives(count: int | None, *, seed: int, until: float) -> int:
    """The same for archives, which have mutators of their own.

    Raises:
        AssertionError: a find.
    """
    from fuzz.archives import attack

    tried = 0
    while (count is None or tried < count) and time.monotonic() < until:
        attack(500, seed=seed + tried)
        tried += 500
    return tried


def keep(data: bytes, what: str, path: Path) -> None:
    """Keep the smallest file of a find, with a line that says what it does."""
    if not path.exists() or path.stat().st_size > len(data):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.with_suffix(path.suffix + ".txt").write_text(what + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="in all, shared by the kinds")
    parser.add_argument("--count", type=int, help="mutants of each kind, instead")
    parser.add_argument("--kinds", default=",".join((*KINDS, "archive")))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--finds", type=Path, default=Path("out/fuzz"), help="where what was found is kept")
    options = parser.parse_args()
    chosen = options.kinds.split(",")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="seeds-") as folder:
        made = seeds(Path(folder))
        for kind in chosen:
            until = time.monotonic() + 60 * options.minutes / len(chosen) if options.count is None else float("inf")
            if kind == "archive":
                print(
                    f"archive: {archives(options.count, seed=options.seed, until=until)} mutants, no finds", flush=True
                )
                continue
            given = {"seed": options.seed, "made": made, "finds": options.finds, "until": until}
            tried, found = fuzz(kind, options.count, **given)
            print(f"{kind}: {tried} mutants, {found.total()} finds", flush=True)
            for what, often in found.most_common():
                print(f"  {often:4} {what}")
            failed += found.total()
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
