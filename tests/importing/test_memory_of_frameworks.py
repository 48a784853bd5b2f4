"""A framework that reads a small file may take a gigabyte for it, and no more."""

import sys

import numpy as np
import pytest

from lowbit.errors import ModelError
from lowbit.importing.memory_limit import LEAST_BYTES, bounded_by_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limits")


def test_allocations_beyond_the_limit_are_a_sentence(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "small.keras"
    path.write_bytes(b"x")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded_by_file(path):
        np.zeros(LEAST_BYTES // 16, np.uint8)
    with pytest.raises(ModelError, match="far more memory than a file of its size"), bounded_by_file(path):
        np.zeros(2 * LEAST_BYTES, np.uint8)
    with pytest.raises(ModelError, match="far more"), bounded_by_file(path):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes.")
    with pytest.raises(ValueError, match="other"), bounded_by_file(path):
        raise ValueError("other")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
