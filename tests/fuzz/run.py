"""Give commands files that are nearly right: `python tests/fuzz/run.py --minutes 30`, or `make fuzz MINUTES=30`.

Whatever the file, a command succeeds or says what is wrong in a sentence of its own. Anything else is a find: an
exception, the death of the process, more than 10 seconds or 1 GB. Finds are kept in a folder, the smallest of each
kind; one that has been mended belongs into the tests as a case of its own.
"""

import argparse
import hashlib
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests")]

from fuzz.kinds import KINDS, Seeds, attempt, prepare, seeds  # noqa: E402 - once they can be found

SECONDS, BYTES = 10.0, 1 << 30
ROOM = 3 << 30  # of addresses beyond those of the process that begins: more is refused by the system, and a find
BATCH = 40  # mutants a process: what one leaves behind in memory does not follow the others for long


class Slow(BaseException):
    """No library catches it."""


def mutants(kind: str, made: Seeds, seed: int) -> Iterator[tuple[bytes, str]]:
    """Files and the command lines that read them, without end."""
    index = 0
    while True:
        rng = random.Random(f"{kind} {seed} {index}")
        yield KINDS[kind].mutate(rng.choice(made.files[kind]), rng), rng.choice(KINDS[kind].commands)
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

    warnings.simplefilter("ignore")  # pillow's, of what it makes the best of
    warnings.simplefilter("error", RuntimeWarning)  # numpy's, of numbers that nobody thought of
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, too_slow)
    words = prepare(folder, made) | {"FILE": str(folder / KINDS[kind].file)}
    limit = _kilobytes("VmSize") * 1024 + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for index in range(start, len(files)):
        data, line = files[index]
        Path(words["FILE"]).write_bytes(data)
        say.write(f"{index} \n")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
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
        if (peak := _kilobytes("VmHWM") << 10) > BYTES:
            say.write(f"{index} MemoryError: {peak >> 20} MB\n")


def _kilobytes(what: str) -> int:
    """A line of what the system says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


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
                    keep(data, f"{kind}: {line}: {what}", finds / f"{name}-{Path(KINDS[kind].file).name}")
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
