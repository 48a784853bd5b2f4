"""What only a run knows has bounds: small files that grow or go on for ever end in a sentence, honest ones do not."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

import lowbit
import runaways
from lowbit.data.opening import open_data
from lowbit.engines import bounds, open_session
from lowbit.errors import ModelError
from lowbit.measurement.conditions import Conditions
from lowbit.measurement.entries import entries
from lowbit.switches import LARGE
from runaways import DOUBLE, ENDLESS, GROWING, RELU, body, loop, network
from tflite_files import File

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limits")
resource = pytest.importorskip("resource")
X = {"x": np.ones((1, 3, 16, 16), np.float32)}
MEMORY, TIME = (f"asks for far more {what} than a file of its size should" for what in ("memory", "time"))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(bounds, "LEAST_SECONDS", 1.0)


# In a process of its own each: what earlier tests gave back to the heap does not count as new memory.
ALONE = """
import json, os, resource, time
import numpy as np
from lowbit.engines import bounds, open_session
from lowbit.errors import ModelError
from runaways import GROWING

bounds.LEAST_SECONDS = 1.0

def outcome(proto):
    session = open_session(proto.SerializeToString(), threads=1)
    limit, began = resource.getrlimit(resource.RLIMIT_DATA), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = remedy = ""
    try:
        session.run({"x": np.ones((1, 3, 16, 16), np.float32)})
    except ModelError as error:
        said, remedy = str(error), error.remedy
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    same = resource.getrlimit(resource.RLIMIT_DATA) == limit
    return {"said": said, "remedy": remedy, "MB": grown >> 10, "s": time.process_time() - began, "same limit": same}

for name, proto in GROWING.items():
    child = os.fork()
    if not child:
        print(json.dumps([name, outcome(proto)]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def outcomes():
    paths = os.pathsep.join([str(Path(lowbit.__file__).parent.parent), str(Path(runaways.__file__).parent)])
    words = [sys.executable, "-c", ALONE]
    run = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": paths})
    return dict(map(json.loads, run.stdout.splitlines()))


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_while_it_runs_is_refused(outcomes, name):
    found = outcomes[name]
    # Where many small pieces add up, time may be over first.
    assert re.search(f"{MEMORY}|{TIME}" if name in ("a sequence", "texts") else MEMORY, found["said"])
    assert LARGE in found["remedy"]
    assert found["MB"] < 600
    assert found["s"] < 5
    assert found["same limit"]


@pytest.mark.parametrize("name", ENDLESS)
def test_what_goes_on_for_ever_is_ended(name):
    session = open_session(ENDLESS[name].SerializeToString(), threads=1)
    began = time.process_time()
    with pytest.raises(ModelError, match=TIME):
        session.run(X)
    assert time.process_time() - began < 4


def test_commands_say_it_once(tmp_path):
    for name, proto in {"grows": GROWING["a Loop that doubles"], "ever": ENDLESS["a Loop"]}.items():
        onnx.save(proto, tmp_path / f"{name}.onnx")
        model = lowbit.load(tmp_path / f"{name}.onnx")
        began = time.process_time()
        with pytest.raises(ModelError, match="asks for far more"):
            lowbit.quantize(model, "int8", calibration=X["x"], effort="fast")
        with pytest.raises(ModelError, match="asks for far more"):
            lowbit.measure([model], X["x"], runs=0)
        assert time.process_time() - began < 8


@pytest.mark.parametrize(("proto", "said"), [(ENDLESS["a Loop"], TIME), (GROWING["a Loop that doubles"], MEMORY)])
def test_another_runtime_is_tried_in_a_process_of_its_own(proto, said, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "file.onnx"
    onnx.save(proto, path)
    data = open_data(X["x"], lowbit.load(network(make_relu())))
    with pytest.raises(ModelError, match=said):
        entries([path], data, Conditions(engine="openvino"))


def test_sizes_that_a_tflite_file_computes_are_found_in_a_process_of_its_own(tmp_path):
    """Fill of [n, n], where n is forty thousand times the largest input: six gigabytes."""
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "file.tflite"
    file = File((1, 2), batch=False)
    sizes = file.add("MUL", [0, file.constant([[4e4, 4e4]])], (1, 2), table="MulOptions")
    sizes = file.add("CAST", [sizes], (1, 2), "int32", table="CastOptions")
    two = file.constant([2], "int32")
    sizes = file.add("RESHAPE", [sizes, two], (2,), "int32", table="ReshapeOptions", newShape=[2])
    many = file.add("FILL", [sizes, file.constant(1.0)], (1, 1), table="FillOptions")
    file.add("REDUCE_MAX", [many, file.constant([1], "int32")], (1,), table="ReducerOptions")
    path.write_bytes(file.content())
    x = np.ones((3, 2), np.float32)
    model = lowbit.load(flat_network())
    with pytest.raises(ModelError, match=MEMORY):
        entries([path], open_data(x, model), Conditions(engine="litert"))
    found, _ = entries([path], open_data(x / 1e3, model), Conditions(engine="litert"))
    assert found[0].engine == "litert"


def flat_network():
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    weight = onnx.numpy_helper.from_array(np.ones((2, 1), np.float32), "w")
    x, y = (runaways.value(name, runaways.FLOAT, ["n", size]) for name, size in (("x", 2), ("y", 1)))
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y], [weight]), ir_version=9)


def make_relu():
    return onnx.helper.make_node("Relu", ["c"], ["z"])


def test_honest_loops_run_as_ever(tmp_path):
    """Two rounds of doubling, 2,000 turns; the same answers as without bounds."""
    for proto in (network(loop(body(DOUBLE)), trips=2), network(loop(body(RELU)), trips=2000)):
        session = open_session(proto.SerializeToString(), threads=1)
        bounded = session.run(X)
        with bounds.repeated():
            free = session.run(X)
        assert {name: each.tobytes() for name, each in bounded.items()} == {
            name: each.tobytes() for name, each in free.items()
        }


def test_who_says_so_has_no_bounds(monkeypatch):
    proto = network(loop(body(DOUBLE)), trips=16)
    monkeypatch.setattr(bounds, "LEAST_BYTES", 1 << 20)
    session = open_session(proto.SerializeToString(), threads=1)
    with pytest.raises(ModelError, match=MEMORY):
        session.run(X)
    monkeypatch.setenv(LARGE, "1")
    assert session.run(X)["y"].size == 1


def test_what_explains_a_run(tmp_path):
    """Inputs, the file, and files with weights beside it."""
    proto = network(loop(body(RELU)), trips=1, big=np.zeros(1 << 14, np.float32))
    whole = bounds.bounds_of(proto.SerializeToString())
    onnx.save(proto, tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=1024)
    external = bounds.bounds_of(tmp_path / "a.onnx")
    assert external.loops
    assert external.stored == pytest.approx(whole.stored, abs=1000)
    assert not bounds.bounds_of(network(make_relu()).SerializeToString()).loops
    large = {"x": np.zeros((1, 3, 1000, 1000), np.float32)}
    assert whole.bytes(large) > 256 * large["x"].nbytes > whole.bytes(X) == bounds.LEAST_BYTES
    assert whole.seconds(large) == pytest.approx(whole.seconds(X) + 12, abs=0.1)


def test_limits_of_several_threads_do_not_outlive_them():
    limit = resource.getrlimit(resource.RLIMIT_DATA)
    started, go = threading.Barrier(3), threading.Event()

    def work(seconds):
        with bounds.bounded_memory(1 << 30, "here"):
            started.wait()
            go.wait()
            time.sleep(seconds)

    threads = [threading.Thread(target=work, args=(seconds,)) for seconds in (0.0, 0.2)]
    for thread in threads:
        thread.start()
    started.wait()
    assert resource.getrlimit(resource.RLIMIT_DATA) != limit
    go.set()
    for thread in threads:
        thread.join()
    assert resource.getrlimit(resource.RLIMIT_DATA) == limit
