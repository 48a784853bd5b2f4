"""Candidates made side by side: in this process, in processes of this machine, or on a Dask cluster.

What is made does not depend on where: a candidate follows from its plan (or the size that its bits are allocated for),
and candidates are asked for in rounds, whose answers come in the order in which they were asked for. A worker that
dies leaves its candidate to the others.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lowbit.errors import SchemeError
from lowbit.extras import imported
from lowbit.progress import SILENT, Progress
from lowbit.quantization.planning.plan import Plan
from lowbit.searching.candidates import Bench, Made, made, made_from
from lowbit.searching.rates import Rate

CLUSTER = ("tcp://", "tls://", "ucx://", "ws://", "wss://", "inproc://")
ON_SOCKETS = ("tcp", "tls", "ws", "wss")
ANSWER = 5  # seconds that a scheduler has to answer in
RETRIES = 3  # of a candidate whose worker died


@dataclass(frozen=True)
class Alone:
    """In this process, one after the other."""

    bench: Bench
    progress: Progress = SILENT

    def make(self, plans: Sequence[Plan | Rate]) -> Iterator[Made]:
        """What plans come to, in their order."""
        for plan in plans:
            yield made(self.bench, plan, self.progress)


@dataclass(frozen=True)
class Processes:
    """In several processes of this machine."""

    bench: Bench
    count: int

    def make(self, plans: Sequence[Plan | Rate]) -> Iterator[Made]:
        """What plans come to, in their order."""
        from joblib import Parallel, delayed

        parcel = self.bench.packed()
        parallel = Parallel(n_jobs=self.count, return_as="generator", batch_size=1)
        yield from parallel(delayed(made_from)(parcel, plan) for plan in plans)


@dataclass(frozen=True)
class Cluster:
    """On the workers of a Dask cluster."""

    client: Any
    parcel: Any  # where it is kept on the cluster

    def make(self, plans: Sequence[Plan | Rate]) -> Iterator[Made]:
        """What plans come to, in their order."""
        futures = [self.client.submit(made_from, self.parcel, plan, pure=False, retries=RETRIES) for plan in plans]
        for future in futures:
            yield future.result()


@contextmanager
def workers(bench: Bench, asked: str, progress: Progress = SILENT) -> Iterator[Alone | Processes | Cluster]:
    """The workers that were asked for.

    Args:
        bench: what all candidates have in common.
        asked: a number of processes, or the address of a Dask scheduler, such as tcp://10.0.0.1:8786.
        progress: told of the work in this process.

    Raises:
        SchemeError: neither of the two, or Dask is asked for and not installed.
    """
    if asked.startswith(CLUSTER):
        distributed = imported("distributed", "a Dask cluster", kind=SchemeError)
        remedy = "Start one with `dask scheduler`, then `dask worker ADDRESS`; it says its address, with a port."
        silence = SchemeError(f"no Dask scheduler answers at {asked}.", remedy=remedy)
        if not _listens(asked):
            raise silence
        try:
            client: Any = distributed.Client(asked, timeout=ANSWER, set_as_default=False)
        except (OSError, ValueError, MemoryError) as error:  # what another program answers is taken for sizes
            raise silence from error
        with client:
            yield Cluster(client, client.scatter(bench.packed(), broadcast=True))
        return
    if not asked.isdigit() or int(asked) < 1:
        raise SchemeError(
            f"'{asked}' is no number of workers and no address.", remedy="Give for example 2, or tcp://10.0.0.1:8786."
        )
    yield Alone(bench, progress) if asked == "1" else Processes(bench, int(asked))


def _listens(address: str) -> bool:
    """Whether anything answers at an address; Dask's client tries for long, and complains when it is thrown away."""
    parts = urlsplit(address)
    if parts.scheme not in ON_SOCKETS:
        return True
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=ANSWER):
            return True
    except (OSError, ValueError):
        return False
