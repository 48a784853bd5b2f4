"""How much memory a framework may take for a file: a small one can ask for layers of any size."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

from lowbit.errors import ModelError

LEAST_BYTES, PER_BYTE = 1 << 30, 32  # addresses beyond those in use; bytes of them for each byte of the file
# What frameworks say of an allocation that the system refuses.
REFUSED = ("memory", "alloc")


@contextlib.contextmanager
def bounded_memory(path: Path) -> Iterator[None]:
    """Inside, the process may grow by so much only, where the system has such limits.

    Raises:
        ModelError: it was not enough.
    """
    try:
        resource = importlib.import_module("resource")
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError, ValueError, IndexError):  # no Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + max(LEAST_BYTES, PER_BYTE * path.stat().st_size)
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (most if soft == unlimited else min(soft, most), hard))
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or any(word in str(error).lower() for word in REFUSED):
            raise ModelError(
                "asks for far more memory than a file of its size should.", where=str(path), remedy="Is it damaged?"
            ) from error
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
