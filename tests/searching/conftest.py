"""The network of `search_cases`, and samples that choose and that calibrate."""

import pytest

from search_cases import network, samples


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def data(model):
    return samples(model, 48, seed=2, labels=True)


@pytest.fixture(scope="module")
def images(model):
    return samples(model, 24, seed=3)
