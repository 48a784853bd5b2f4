"""How much memory a framework may take for a file: a small one can ask for layers of any size."""

from contextlib import AbstractContextManager
from pathlib import Path

from lowbit.engines.bounds import bounded_memory

LEAST_BYTES, PER_BYTE = 1 << 30, 32  # beyond those in use; bytes of memory for each byte of the file


def bounded_by_file(path: Path) -> AbstractContextManager[int | None]:
    """Inside, the process may grow by so much only, where the system has such limits.

    Raises:
        ModelError: it was not enough.
    """
    return bounded_memory(max(LEAST_BYTES, PER_BYTE * path.stat().st_size), str(path))
