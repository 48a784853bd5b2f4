"""Fixtures that several rooms share."""

import gc
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

# No test is timed: another process may have the processor.
hypothesis.settings.register_profile("lowbit", deadline=None)
hypothesis.settings.load_profile("lowbit")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several workers a core of its own: their runtimes' threads would wait for each other, spinning."""
    os.environ.pop("COLUMNS", None)  # which workers have, and what prints into a pipe has not
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


# A minute or half a one each, which leave the other worker idle if they begin last.
LONGEST = ("test_readme.py", "test_examples.py", "test_document.py", "test_dask.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Keep what is collected, 300,000 objects, out of garbage collections, which `quantize` asks for after each step.

    One took 0.2 seconds of processor time, hardly less than a step on the networks here.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and models that are no part of the project; tests that use them skip without them."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LOWBIT_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the shared data is not on this machine")
    return folder


@pytest.fixture
def quick_measuring(monkeypatch) -> None:
    """Memory takes a process per file, and the processor's speed a second per engine: tests of their own look at both.

    Memory is unknown then, and integers are twice as fast as float.
    """
    measure_quickly(monkeypatch)


@pytest.fixture(scope="module")
def quick_measuring_of_module() -> Iterator[None]:
    """The same for fixtures of modules, from the first of them to the end of the module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        measure_quickly(monkeypatch)
        yield


def measure_quickly(monkeypatch) -> None:
    from lowbit.measurement import entries, forecast, measure, peaks
    from lowbit.measurement.memory import Memory

    floats, integers = (peaks.Rates(rate, rate, rate, rate, 1e-9) for rate in (2e-9, 1e-9))

    def quickly(*, engine: str = "onnxruntime", threads: int = 1, **_: object):
        return peaks.Peaks({"float": floats, "integer": integers}, 1e12, threads, engine)

    monkeypatch.setattr(forecast, "measure_peaks", quickly)
    monkeypatch.setattr(forecast, "rehearse", lambda *_, **__: None)
    for module in (entries, measure):
        monkeypatch.setattr(module, "memory", lambda *_, **__: Memory(None, None))


@pytest.fixture
def import_benchmark(monkeypatch) -> Callable[[str], ModuleType]:
    """What imports modules of benchmarks/, which import one another by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    return importlib.import_module
