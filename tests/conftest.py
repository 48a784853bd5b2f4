"""Fixtures that several rooms share."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and models that are no part of the project; tests that use them skip without them."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LOWBIT_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the shared data is not on this machine")
    return folder


@pytest.fixture
def import_benchmark(monkeypatch) -> Callable[[str], ModuleType]:
    """What imports modules of benchmarks/, which import one another by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    return importlib.import_module
