"""How many samples go into a run: fixed by the model, any number, or one by one where it mixes them."""

import dataclasses

import numpy as np
import pytest

import lowbit
import many_inputs
import networks
from lowbit.calibration.batches import Batches, as_runs, samples_per_run
from lowbit.data.opening import open_data
from lowbit.engines import open_session
from lowbit.errors import DataError
from lowbit.graph.rows import keeps_samples_apart

EXPECTED = {
    "two images": None,
    "tokens": None,
    "no batch": 1,
    "batch in a Reshape": 1,
    "rows of all images": None,
    "less the mean of the batch": 1,
}


@pytest.mark.parametrize("name", many_inputs.CASES)
def test_samples_run_together_only_where_that_changes_nothing(name):
    case = many_inputs.CASES[name]()
    model = lowbit.load(case.model)
    data = as_runs(model, open_data(case.samples(6), model))
    assert samples_per_run(model, data) == EXPECTED[name]
    session = open_session(model.to_bytes(), threads=1)
    alone = [session.run(data.subset(6)._batch(i, [data.sample(i)]).inputs)["y"] for i in range(data.count)]
    together = [session.run(batch.inputs)["y"] for batch in Batches(model, data, 3)]
    np.testing.assert_allclose(np.concatenate(together), np.concatenate(alone), atol=1e-5)
    assert data.count == 6


def test_shapes_alone_tell_where_a_graph_is_plain():
    assert keeps_samples_apart(lowbit.load(networks.residual_network()))
    assert keeps_samples_apart(lowbit.load(many_inputs.two_images().model))
    for name in ("batch in a Reshape", "less the mean of the batch", "no batch"):
        assert not keeps_samples_apart(lowbit.load(many_inputs.CASES[name]().model))


def test_a_softmax_over_the_batch_is_seen():
    from graphs import make, make_node

    weights = {"w": np.eye(4)}
    for axis, apart in ((0, False), (-2, False), (1, True), (-1, True)):
        nodes = [make_node("MatMul", "x w", "h"), make_node("Softmax", "h", "y", axis=axis)]
        assert keeps_samples_apart(lowbit.load(make(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, weights))) == apart


@pytest.mark.parametrize("first", [1, 4])
def test_a_fixed_batch_is_filled(first):
    case = many_inputs.two_images(first)
    model = lowbit.load(case.model)
    data = as_runs(model, open_data(case.samples(10), model))
    assert samples_per_run(model, data) == first
    assert [len(batch) for batch in Batches(model, data, 8)] == [first] * (10 // first)


@pytest.mark.parametrize("recipe", ["int8", "linear4", "cluster4"])
def test_too_few_samples_for_one_run_are_refused_by_every_recipe(recipe):
    case = many_inputs.two_images(4)
    with pytest.raises(DataError, match="fixed batch size of 4, but there are only 3"):
        lowbit.quantize(lowbit.load(case.model), recipe, calibration=case.samples(3))


def test_items_of_several_rows_stay_whole_where_rows_depend_on_each_other():
    case = many_inputs.no_batch()
    model = lowbit.load(case.model)
    data = as_runs(model, open_data([(x, 1) for x in case.samples(5)], model))
    assert [batch.inputs["signal"].shape for batch in data.batches(4)] == [(20, 6)] * 5


def test_data_of_another_model_are_refused():
    model = lowbit.load(many_inputs.tokens().model)
    other = lowbit.load(many_inputs.two_images().model)
    data = open_data(many_inputs.tokens().samples(4), model)
    with pytest.raises(DataError, match="arrays for ids, mask, the model takes left, right"):
        Batches(other, data, 2)
    assert dataclasses.replace(data).count == 4


def scaled_positions():
    """An image and a vector without a batch dimension, which every run takes whole."""
    from graphs import make, make_node

    nodes = [make_node("Mul", "x scale", "s"), make_node("MatMul", "s w", "y")]
    weights = {"w": np.random.default_rng(0).standard_normal((4, 3))}
    return lowbit.load(make(nodes, {"x": ["n", 4], "scale": [4]}, {"y": ["n", 3]}, weights))


def test_an_input_without_a_batch_is_neither_cut_nor_joined():
    model = scaled_positions()
    x = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    data = open_data({"x": x}, model, feeds={"scale": np.arange(4.0)})
    assert samples_per_run(model, data) is None
    batches = list(Batches(model, data, 4))
    assert [batch.inputs["x"].shape for batch in batches] == [(4, 4), (2, 4)]
    for batch in (*batches, batches[0].part(1, 3), batches[1].filled(4)):
        np.testing.assert_array_equal(batch.inputs["scale"], np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(batches[1].filled(4).inputs["x"], x[[4, 5, 4, 5]])
    quantized = lowbit.quantize(model, "int8", calibration=data)
    assert open_session(quantized.to_bytes()).run(batches[0].inputs)["y"].shape == (4, 3)


def test_one_sample_says_nothing_of_others():
    case = many_inputs.rows_of_all_images()
    model = lowbit.load(case.model)
    assert samples_per_run(model, open_data(case.samples(1), model)) == 1
    assert samples_per_run(model, open_data(case.samples(4), model)) is None


def test_an_item_is_converted_once():
    model = lowbit.load(many_inputs.rows_of_all_images().model)
    data = open_data({"image": np.zeros((50, 3, 8, 8), np.float64)}, model)
    assert data.sample(7)["image"].base is data.sample(8)["image"].base
