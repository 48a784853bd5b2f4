"""Nothing is sent, and nothing is written where nobody asked for it: engines are kept from telling their makers."""

import os
import shutil
import subprocess
import sys

import pytest

import lowbit
import networks
from lowbit.engines import ENGINES, installed_engines

OPENING = "import sys; from lowbit.engines import open_session; open_session({path!r}, engine={engine!r}, threads=1)"


def _file(engine, folder):
    """A file that an engine opens."""
    path = folder / f"m{ENGINES[engine].reads}"
    lowbit.quantize(lowbit.load(networks.residual_network()), "float").save(path)
    return str(path)


@pytest.mark.parametrize("engine", installed_engines())
def test_opening_a_file_sends_nothing_and_leaves_nothing(engine, tmp_path):
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    command = [sys.executable, "-c", OPENING.format(path=_file(engine, tmp_path), engine=engine)]
    tracer = shutil.which("strace")
    if tracer is not None:
        command = [tracer, "-f", "-e", "trace=socket", "-o", str(trace), *command]
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run(command, check=True, env=kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")})
    assert not [path for path in home.rglob("*") if path.is_file()]
    assert tracer is None or "AF_INET" not in trace.read_text()
