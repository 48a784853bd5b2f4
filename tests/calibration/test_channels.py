"""What calibration shows of channels does not depend on how images are batched and shared by threads."""

import numpy as np
import pytest

import lowbit
import networks
from lowbit.calibration import statistics
from lowbit.calibration.channels import channel_statistics
from lowbit.data.opening import open_data


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("values", [1, 20_000_000])
def test_channels_of_any_batches(monkeypatch, threads, values):
    model = lowbit.load(networks.depthwise_network())
    x = networks.inputs(11)
    names = [name for name in model.activations if name not in {info.name for info in model.inputs}][:4]
    alone = channel_statistics(model, open_data(x, model), names, threads=1)
    monkeypatch.setattr(statistics, "MAX_VALUES", values)
    found = channel_statistics(model, open_data(x, model), names, threads=threads)
    for name in names:
        np.testing.assert_array_equal(found[name].max_abs, alone[name].max_abs)
        np.testing.assert_array_equal(found[name].power, alone[name].power)
