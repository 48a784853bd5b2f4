"""Every network of the zoo goes through every family of recipes, and its files run where they are made for."""

import logging
import os

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch builds the zoo: make test-train")

import lowbit
from lowbit.engines import installed_engines
from lowbit.errors import ModelError
from zoo.table import ZOO, export
from zoo.trial import CALIBRATION, EVALUATION, answers, quantized, sqnrs, written

# Warnings of the exporter's own dependencies are not ours to fix.
pytestmark = pytest.mark.filterwarnings("default")
# Recipe -> the least SQNR of any output, in decibels; networks with random weights amplify what rounding does.
LEAST = {"float": 90.0, "int8": 10.0, "linear8": 22.0, "cluster4": 2.0}
SAMPLES = 32, 16
# Half precision is not what the file computes: its float32 form is compared with it.
HALF = 40.0


@pytest.fixture(scope="module", params=ZOO)
def network(request, tmp_path_factory):
    """Name, file, and the float file's outputs for samples that nothing is fitted to."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    path = export(request.param, tmp_path_factory.mktemp("zoo"))
    few = ZOO[request.param].feeds(SAMPLES[1], seed=EVALUATION)
    return request.param, path, few, answers(path, few)


@pytest.mark.parametrize("recipe", LEAST)
def test_a_recipe_runs_in_every_engine(network, recipe):
    name, path, few, wanted = network
    made = quantized(lowbit.load(path), recipe, ZOO[name].feeds(SAMPLES[0], seed=CALIBRATION))
    few = {key: x.astype(np.float32) if x.dtype == np.float16 else x for key, x in few.items()}
    least = min(LEAST[recipe], HALF) if ZOO[name].half else LEAST[recipe]
    for engine in installed_engines():
        if engine == "litert" and recipe == "cluster4":
            continue  # its files hold weights of 8 bits
        if engine == "litert" and (refusal := _refused(made)):
            assert refusal.remedy
            continue
        content = written(made, engine)
        found = sqnrs(wanted, answers(content, few, engine))
        assert min(found.values()) > least, (engine, found)


def _refused(made):
    """Why LiteRT has no form for a network; None if it has one."""
    try:
        written(made, "litert")
    except ModelError as error:
        return error
    return None


def test_weights_beside_a_file_stay_there(tmp_path):
    path = export("external_data", tmp_path)
    assert path.stat().st_size < os.path.getsize(tmp_path / "external_data.data")
    assert lowbit.load(path).trained_parameters > 0
