"""A Dask cluster finds what one process finds, also if a worker dies in the middle."""

import dataclasses
import os
import signal
import threading
import time

import pytest

from lowbit.errors import SchemeError
from lowbit.searching.limits import SearchLimits
from lowbit.searching.search import search
from search_cases import QUICK, network, samples

distributed = pytest.importorskip("distributed")


@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_dies_leaves_its_candidates_to_the_other():
    model = network()
    data, images = samples(model, 48, seed=2, labels=True), samples(model, 24, seed=3)
    limits = SearchLimits(max_drop=1.0)
    alone = search(model, data, limits, calibration=images, settings=QUICK)
    killed = []

    def kill(cluster):
        """Kill the first worker as soon as it works on something."""
        pid = next(iter(cluster.workers.values())).process.process.pid
        while not killed:
            first = next(iter(cluster.scheduler.workers.values()), None)
            if first is not None and first.processing:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.001)

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        thread = threading.Thread(target=kill, args=(cluster,), daemon=True)
        thread.start()
        settings = dataclasses.replace(QUICK, workers=cluster.scheduler_address)
        together = search(model, data, limits, calibration=images, settings=settings)
        thread.join(5)
    assert killed
    assert [each.content for each in together.candidates] == [each.content for each in alone.candidates]
    assert [each.marks for each in together.candidates] == [each.marks for each in alone.candidates]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://127.0.0.1", "tcp://127.0.0.1:no"])
def test_no_scheduler_there(address):
    model = network()
    data = samples(model, 48, seed=2, labels=True)
    settings = dataclasses.replace(QUICK, workers=address)
    with pytest.raises(SchemeError, match="no Dask scheduler answers"):
        search(model, data, SearchLimits(max_drop=1.0), settings=settings)
