"""The machine and the versions."""

from lowbit.measurement.environment import environment, versions


def test_this_machine():
    here = environment()
    assert here.cpu
    assert here.cores >= 1
    assert here.packages["numpy"] == versions()["numpy"]
    assert "onnxruntime" in here.packages
