"""Candidates made side by side: in this process, in processes of this machine, or on a Dask cluster.

What is made does not depend on where: a candidate follows from its plan (or the size that its bits are allocated for),
and candidates are asked for in rounds, whose answers come in the order in which they were asked for. A worker that
dies leaves its candidate to the others.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lowbit.errors import SchemeError
from lowbit.extras import imported
from lowbit.progress import SILENT, Progress
from lowbit.quantization.planning.plan import Plan
from lowbit.searching.candidates import Bench, Made, made, made_from
from lowbit.searching.rates import Rate

CLUSTER = ("tcp://", "tls://", "ucx://", "ws://", "wss://", "inproc://")
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
        try:
            client: Any = distributed.Client(asked, timeout="5s", set_as_default=False)
        except OSError as error:
            raise SchemeError(
                f"no Dask scheduler answers at {asked}.", remedy="Start one: dask scheduler, then dask worker."
            ) from error
        with client:
            yield Cluster(client, client.scatter(bench.packed(), broadcast=True))
        return
    if not asked.isdigit() or int(asked) < 1:
        raise SchemeError(
            f"'{asked}' is no number of workers and no address.", remedy="Give for example 2, or tcp://10.0.0.1:8786."
        )
    yield Alone(bench, progress) if asked == "1" else Processes(bench, int(asked))
