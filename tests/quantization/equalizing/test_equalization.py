import numpy as np
import pytest
from onnx import helper

import lowbit
import networks
from graphs import make, make_node
from lowbit.calibration.channels import channel_statistics
from lowbit.engines import open_session
from lowbit.graph.preprocessing import Preprocessing
from lowbit.quantization.equalizing import objective
from lowbit.quantization.equalizing.channel_groups import find_channel_groups
from lowbit.quantization.equalizing.equalization import (
    equalizable,
    equalize_network,
    factor_limits,
    rescaled,
)
from lowbit.quantization.equalizing.interval_bounds import activation_bounds
from lowbit.quantization.equalizing.objective import evaluate, minimize, noise_terms
from lowbit.quantization.planning.deciding import plan
from lowbit.schemes.linear import Linear


@pytest.fixture(scope="module")
def images():
    return lowbit.open_images(list(networks.inputs(24)), None)


def logits(model, x):
    return open_session(model.to_bytes(), threads=1).run({"x": x})["logits"]


NETWORKS = {
    "residual, ReLU6": lambda: networks.residual_network(depthwise_scale=10.0),
    "depthwise, ReLU": networks.depthwise_network,
    "depthwise, ReLU6": lambda: networks.depthwise_network(clip=6.0),
}


@pytest.fixture(scope="module", params=NETWORKS)
def model(request):
    return lowbit.load(NETWORKS[request.param]())


def free(limits):
    return limits[0] < limits[1]


def equalized(model, images, recipe):
    statistics = channel_statistics(model, images, equalizable(model))
    decision = plan(model, recipe)
    schemes = {tensor.tensor: tensor.given for tensor in decision.quantized}
    result = equalize_network(model, statistics, schemes, decision.scale_groups)
    assert result.rescaled_channels > 0
    return result.model


def test_float_outputs_do_not_change_on_images_that_nobody_looked_at(model, images):
    # Larger than any that was seen, so that every clip that can be active is.
    x = np.concatenate([networks.inputs(24, seed=5), 10 * networks.inputs(24, seed=6), -100 * networks.inputs(4)])
    before = logits(model, x)
    after = logits(equalized(model, images, "linear4"), x)
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())


def test_before_rounded_activations_only_what_goes_beyond_all_that_was_seen_may_change(model):
    seen, others = networks.inputs(96), networks.inputs(240, seed=5)
    before, usual = logits(model, seen), logits(model, others)
    changed = equalized(model, lowbit.open_images(list(seen), None), "int8")
    np.testing.assert_allclose(logits(changed, seen), before, atol=1e-5 * np.abs(before).max())
    moved = np.abs(logits(changed, others) - usual).max(axis=1)
    assert np.mean(moved > 1e-4 * np.abs(usual).max()) < 0.1
    assert moved.mean() < 0.002 * np.abs(usual).max()


def test_what_was_seen_frees_channels_that_no_proof_frees(images):
    model = lowbit.load(networks.depthwise_network(clip=6.0))
    channel_groups = find_channel_groups(model)
    statistics = channel_statistics(model, images, equalizable(model))
    proven, seen = (
        free(factor_limits(model, channel_groups)),
        free(factor_limits(model, channel_groups, seen=statistics)),
    )
    assert np.count_nonzero(seen) > 1.5 * np.count_nonzero(proven)
    assert seen[proven].all()
    for _, output, limit in channel_groups.clips:
        reaching = statistics[output].max_abs * 1.25 > limit  # another image may hold a quarter more
        assert reaching.any()
        assert not seen[channel_groups.group_of[output][reaching]].any()


def test_any_factors_within_the_limits_leave_the_output_alone(model):
    channel_groups = find_channel_groups(model)
    least, most = factor_limits(model, channel_groups)
    x = np.concatenate([networks.inputs(8, seed=5), 10 * networks.inputs(8, seed=6)])
    before = logits(model, x)
    for drawn in (least, np.random.default_rng(0).uniform(np.maximum(least, -3), np.minimum(most, 3))):
        after = logits(rescaled(model, channel_groups, drawn).model, x)
        np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())


def test_a_channel_that_may_reach_the_bound_of_relu6_is_left_alone(images):
    model = lowbit.load(networks.residual_network(depthwise_scale=10.0))
    bounds = activation_bounds(model)
    channel_groups = find_channel_groups(model)
    possible = free(factor_limits(model, channel_groups))
    reaching = 0
    for name, _, limit in channel_groups.clips:
        assert limit == 6.0
        reached = bounds[name].upper >= 6.0
        assert not possible[channel_groups.group_of[name][reached]].any()
        reaching += np.count_nonzero(reached)
    assert reaching > 10
    assert possible.any()


def test_bounds_hold_and_are_reached_where_one_input_decides():
    model = lowbit.load(networks.residual_network())
    bounds = activation_bounds(model)
    assert np.isinf(bounds["stem"].upper).all()  # without preprocessing an image may hold anything
    assert set(bounds["stem.clip"].upper) == {6.0}
    names = ["narrow", "wide.clip", "deep", "back", "sum", "last"]
    values = open_session(networks.with_outputs(model, names), threads=1).run({"x": 30 * networks.inputs(32)})
    for name in names:
        assert np.isfinite(bounds[name].upper).all()
        assert (values[name] <= bounds[name].upper.reshape(1, -1, 1, 1)).all(), name
        assert (values[name] >= bounds[name].lower.reshape(1, -1, 1, 1)).all(), name
    matrix = model.weights["narrow.weight"].reshape(8, 12).astype(np.float64)
    exact = 6 * np.maximum(matrix, 0).sum(axis=1) + model.weights["narrow.bias"]
    np.testing.assert_allclose(bounds["narrow"].upper, exact, rtol=2e-3)


def test_eight_bits_bound_an_image():
    rule = Preprocessing(height=16, width=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    proto = networks.residual_network()
    entry = proto.metadata_props.add()
    entry.key, entry.value = "lowbit.preprocessing", rule.to_json()
    bounds = activation_bounds(lowbit.load(proto))
    np.testing.assert_allclose(bounds["x"].lower, [-2, -1, -0.5])
    np.testing.assert_allclose(bounds["x"].upper, [2, 1, 0.5])
    assert np.isfinite(bounds["stem"].upper).all()


def noise(model, images, recipe, **changes):
    channel_groups = find_channel_groups(model)
    decision = plan(model, lowbit.parse_recipe(recipe, **changes))
    schemes = {tensor.tensor: tensor.given for tensor in decision.quantized}
    statistics = channel_statistics(model, images, equalizable(model))
    return channel_groups, noise_terms(model, channel_groups, statistics, schemes, decision.scale_groups)


@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_the_noise_of_two_layers_by_hand(images, per):
    """D as the module's docstring has it, written out for x -> 1 (3 x 3) -> Relu -> 2 (1 x 1) -> y."""
    generator = np.random.default_rng(2)
    weights = {"w1": generator.normal(size=(6, 3, 3, 3)), "w2": generator.normal(size=(4, 6, 1, 1))}
    nodes = [make_node("Conv", "x w1", "a", name="1"), make_node("Relu", "a", "b"), make_node("Conv", "b w2", "y")]
    model = lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights))
    ranges = channel_statistics(model, images, ["x", "a", "b", "y"])
    schemes = dict.fromkeys(weights, Linear(4, per))
    channel_groups = find_channel_groups(model)
    found, _ = evaluate(noise_terms(model, channel_groups, ranges, schemes, [["b"]]), np.zeros(channel_groups.count))
    cost_y = 1 / ranges["y"].power
    cost_b = cost_y @ np.square(weights["w2"][:, :, 0, 0])  # what an error in a channel of b costs in y

    def steps(weight):
        reach = (np.abs(weight.reshape(len(weight), -1)) ** 8).sum(axis=1)
        return (reach if per == "channel" else reach.sum()) ** (1 / 8) / 7.5

    wanted = (cost_b * steps(weights["w1"]) ** 2).sum() * 9 * ranges["x"].power.sum()
    wanted += (cost_y * steps(weights["w2"]) ** 2).sum() * ranges["b"].power.sum()
    wanted += cost_b.sum() * (ranges["b"].max_abs ** 8).sum() ** (2 / 8) / 255**2
    assert found == pytest.approx(wanted, rel=1e-5)


def test_equalization_forecasts_how_much_noise_is_left(images):
    def share(proto):
        model = lowbit.load(proto)
        decision = plan(model, "int8")
        schemes = {tensor.tensor: tensor.given for tensor in decision.quantized}
        ranges = channel_statistics(model, images, equalizable(model))
        return equalize_network(model, ranges, schemes, decision.scale_groups).noise_ratio

    assert 1e-4 < share(networks.depthwise_network()) < 0.1, "channels a hundredfold apart"
    assert 0.3 < share(networks.residual_network()) < 1, "even ones"


def test_where_little_noise_would_go_the_network_stays_as_it_is(images):
    (step,) = lowbit.quantize(
        lowbit.load(networks.residual_network()), "linear4", calibration=images, steps=["equalization"]
    ).steps
    assert not step.kept
    assert step.after == step.before, "no file was made of it"


@pytest.mark.parametrize(("recipe", "per"), [("int8", "channel"), ("int8", "tensor"), ("linear4", "channel")])
def test_the_gradient_of_the_noise_is_its_slope(model, images, recipe, per):
    channel_groups, terms = noise(model, images, recipe, per=per)
    generator = np.random.default_rng(3)
    u, along = generator.normal(scale=0.3, size=channel_groups.count), generator.normal(size=channel_groups.count)
    slope = (evaluate(terms, u + 1e-5 * along)[0] - evaluate(terms, u - 1e-5 * along)[0]) / 2e-5
    assert evaluate(terms, u)[1] @ along == pytest.approx(slope, rel=1e-5)


def test_the_noise_does_not_depend_on_how_the_network_is_scaled(images):
    model = lowbit.load(networks.depthwise_network())
    channel_groups, terms = noise(model, images, "int8", per="tensor")
    u = np.random.default_rng(1).uniform(*factor_limits(model, channel_groups)) / 3
    other = rescaled(model, channel_groups, u).model
    assert evaluate(noise(other, images, "int8", per="tensor")[1], np.zeros_like(u))[0] == pytest.approx(
        evaluate(terms, u)[0], rel=1e-3
    )


def test_the_minimum_is_found_from_anywhere(images):
    model = lowbit.load(networks.depthwise_network())
    least = []
    for seed in range(3):
        channel_groups = find_channel_groups(model)
        u = np.random.default_rng(seed).uniform(*factor_limits(model, channel_groups)) / 3 * (seed > 0)
        channel_groups, terms = noise(rescaled(model, channel_groups, u).model, images, "int8", per="tensor")
        least.append(evaluate(terms, minimize(terms, *factor_limits(model, channel_groups)))[0])
    assert max(least) < 1.05 * min(least)
    assert max(least) < 0.2 * evaluate(noise(model, images, "int8", per="tensor")[1], np.zeros(channel_groups.count))[0]


@pytest.mark.parametrize(
    ("network", "turns"),
    [(networks.depthwise_network, objective.ITERATIONS), (networks.residual_network, objective.LOOK_AT + 1)],
)
def test_where_little_is_to_be_won_the_minimum_is_not_pursued(images, monkeypatch, network, turns):
    channel_groups, terms = noise(lowbit.load(network()), images, "int8")
    limits = factor_limits(lowbit.load(network()), channel_groups)
    seen = []
    monkeypatch.setattr(objective, "evaluate", lambda *given: seen.append(evaluate(*given)) or seen[-1])
    minimize(terms, *limits)
    assert len(seen) == turns


def test_inputs_and_outputs_keep_their_scale(model, images):
    decision = plan(model, "int8")
    statistics = channel_statistics(model, images, equalizable(model))
    schemes = {tensor.tensor: tensor.given for tensor in decision.quantized}
    factors = equalize_network(model, statistics, schemes, decision.scale_groups).factors
    assert factors
    assert "x" not in factors
    assert "logits" not in factors


def test_a_sum_and_its_branches_are_one_channel_group():
    channel_groups = find_channel_groups(lowbit.load(networks.residual_network()))
    np.testing.assert_array_equal(channel_groups.group_of["sum"], channel_groups.group_of["narrow"])
    np.testing.assert_array_equal(channel_groups.group_of["sum"], channel_groups.group_of["back"])


def test_what_a_body_reads_keeps_its_scale():
    generator = np.random.default_rng(0)
    weights = {
        "a": generator.normal(size=(8, 3, 1, 1)),
        "b": generator.normal(size=(4, 8, 1, 1)),
        "zero": np.float32(0),
    }
    branches = [make([make_node(op, "r", op)], {}, [op], {}).graph for op in ("Abs", "Neg")]
    nodes = [make_node("Conv", "x a", "c"), make_node("Relu", "c", "r"), make_node("Conv", "r b", "y")]
    nodes += [make_node("ReduceMax", "x", "top", keepdims=0), make_node("Greater", "top zero", "flag")]
    alone = find_channel_groups(lowbit.load(make(nodes, {"x": ["n", 3, 4, 4]}, ["y"], weights)))
    assert set(alone.tensors) == {"c", "r"}
    nodes.append(make_node("If", "flag", "z", then_branch=branches[0], else_branch=branches[1]))
    read = find_channel_groups(lowbit.load(make(nodes, {"x": ["n", 3, 4, 4]}, ["y", "z"], weights)))
    assert not read.tensors


def test_a_weight_that_is_read_elsewhere_too_keeps_its_scale():
    proto = networks.residual_network()
    proto.graph.node.append(make_node("Neg", "narrow.weight", "other"))
    proto.graph.output.append(helper.make_tensor_value_info("other", 1, [8, 12, 1, 1]))
    channel_groups = find_channel_groups(lowbit.load(proto))
    assert "narrow" not in channel_groups.layers
