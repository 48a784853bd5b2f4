"""Which layers a rule speaks of, what they get by it, and what is said of rules that speak of nothing."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
import networks
from graphs import make, make_node
from lowbit.engines import open_session
from lowbit.errors import DowngradeError, SchemeError
from lowbit.quantization.planning.arithmetic import weight_users
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.plan_file import followable
from lowbit.quantization.planning.recipes import parse_recipe, recipe_names
from lowbit.quantization.planning.rules import parse_rule, rule_layers
from speech import speech_network

MODEL = lowbit.load(networks.residual_network())
LAYERS = ("stem", "narrow", "wide", "deep", "back", "last", "fc")


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


def two_ends():
    """Two inputs, a shared body, two outputs."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("a", "b", "c", "d", "e")}
    nodes = [make_node("MatMul", "x a", "p", name="left"), make_node("MatMul", "y b", "q", name="right")]
    nodes += [make_node("Add", "p q", "s", name="sum"), make_node("MatMul", "s c", "t", name="body")]
    nodes += [make_node("Relu", "t", "r", name="act"), make_node("MatMul", "r d", "u", name="head")]
    nodes += [make_node("MatMul", "r e", "v", name="tail")]
    return lowbit.load(make(nodes, {"x": ["n", 8], "y": ["n", 8]}, ["u", "v"], weights))


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("stem", {"stem"}),
        ("stem.weight", {"stem"}),
        ("*a*", {"narrow", "back", "last"}),
        ("wide*", {"wide"}),
        ("op:Conv", set(LAYERS) - {"fc"}),
        ("op:Gemm", {"fc"}),
        ("op:*", set(LAYERS)),
        ("depthwise", {"deep"}),
        ("first", {"stem"}),
        ("last", {"fc"}),  # the word, not the layer of that name
        ("last.weight", {"last"}),
        ("bytes<768", {"narrow", "fc"}),
        ("bytes<=768", {"narrow", "wide", "back", "fc"}),
        ("bytes > 1000", {"stem", "last"}),
        ("bytes>=1024", {"stem", "last"}),
        ("*", set(LAYERS)),
    ],
)
def test_what_a_pattern_speaks_of(model, pattern, chosen):
    decision = lowbit.plan(model, "linear4", rules=[f"{pattern}=linear8"])
    ruled = {tensor.layers[0] for tensor in decision.tensors if tensor.rule and tensor.layers}
    assert ruled == chosen
    for tensor in decision.tensors:
        if tensor.layers and tensor.layers[0] in chosen:
            assert (tensor.asked, tensor.recipe) == (parse_recipe("linear8").weights, "linear8")
            assert tensor.rule == f"{pattern}=linear8"


def test_first_and_last_are_all_that_no_layer_comes_before_or_behind():
    model = two_ends()
    seen = [layer for layer in rule_layers(model, weight_users(model)) if layer.weight]
    assert [layer.node for layer in seen if layer.first] == ["left", "right"]
    assert [layer.node for layer in seen if layer.last] == ["head", "tail"]


def test_layers_in_bodies_are_as_first_as_the_node_that_holds_them():
    model = lowbit.load(speech_network())
    seen = [layer for layer in rule_layers(model, weight_users(model)) if layer.weight and layer.nodes]
    assert seen
    assert all(layer.first and layer.last for layer in seen)


def test_later_rules_win(model):
    decision = lowbit.plan(model, "cluster4", rules=["*=float", "op:Conv=linear8", "deep=linear16", "stem=cluster2"])
    given = {tensor.layers[0]: tensor.given and tensor.given.bits for tensor in decision.tensors if tensor.layers}
    assert given == dict.fromkeys(LAYERS, 8) | {"fc": None, "deep": 16, "stem": 2}
    assert decision.rules == ("*=float", "op:Conv=linear8", "deep=linear16", "stem=cluster2")


def test_a_function_is_asked_about_every_weight(model):
    asked = []

    def choose(layer):
        asked.append(layer)
        return "linear8" if layer.depthwise else parse_recipe("linear6", per="tensor") if layer.op == "Gemm" else None

    decision = lowbit.plan(model, "linear4", rules=choose)
    assert [layer.node for layer in asked] == list(LAYERS)
    assert asked[0].shape == (12, 3, 3, 3)
    assert asked[0].bytes == 4 * 12 * 27
    names = {tensor.layers[0]: tensor.given.name for tensor in decision.tensors}
    assert names["deep"] == "linear8/channel"
    assert names["fc"] == "linear6/tensor"
    assert decision.rules == ("choose()",)
    same = lowbit.plan(model, "linear4", rules=lambda layer: "linear8" if layer.depthwise else None)
    texts = lowbit.plan(model, "linear4", rules=["depthwise=linear8"])
    assert [tensor.given for tensor in same.tensors] == [tensor.given for tensor in texts.tensors]
    assert Plan.from_json(json.loads(json.dumps(decision.to_json()))) == decision


@pytest.mark.parametrize(
    ("rule", "what", "remedy"),
    [
        ("depthwise", "does not say which layers get which recipe", "PATTERN=RECIPE"),
        ("=int8", "does not say which", "PATTERN=RECIPE"),
        ("op:=int8", "does not say which", "PATTERN=RECIPE"),
        ("stem=", "does not say which", "PATTERN=RECIPE"),
        ("bytes<4KB=float", "compares bytes with no whole number", "bytes<4096=float"),
        ("stem=lineer8", "unknown recipe 'lineer8'", "Did you mean linear8"),
        ("stem=int9", "needs a bit width from 2 to 8", "int8"),
        ("stam=int8", "speaks of nothing: no node and no weight", "Did you mean stem"),
        ("depthwize=int8", "speaks of nothing", "depthwise"),
        ("op:Conf=int8", "speaks of nothing", "Did you mean Conv"),
        ("bytes<4=float", "weights take 20 to 1296 bytes", "another size"),
        ("op:Add=linear8", "nodes without weights only, such as sum", "op:Add=float"),
    ],
)
def test_wrong_rules_are_refused_in_one_sentence(model, rule, what, remedy):
    with pytest.raises(SchemeError) as refused:
        lowbit.plan(model, "int8", rules=["stem=int8", rule])
    assert what in refused.value.what
    assert remedy in refused.value.remedy
    assert rule in str(refused.value)


def test_rules_of_other_kinds_are_refused(model):
    with pytest.raises(SchemeError, match="rules are a list"):
        lowbit.plan(model, "int8", rules="stem=float")
    with pytest.raises(SchemeError, match=r"rule lambda\(\) answered 8"):
        lowbit.plan(model, "int8", rules=lambda layer: 8)
    with pytest.raises(SchemeError, match="unknown recipe 'mine'"):
        lowbit.plan(model, "int8", rules=lambda layer: dataclasses.replace(parse_recipe("int8"), name="mine"))


def test_a_model_without_depthwise_layers_says_so():
    with pytest.raises(SchemeError, match="the model has no depthwise layer"):
        lowbit.plan(two_ends(), "int8", rules=["depthwise=linear8"])


@pytest.mark.parametrize("base", ["float", "int4", "linear4", "cluster2"])
@pytest.mark.parametrize("name", ["float", "int8", "linear8", "cluster8", "linear16"])
def test_a_rule_for_everything_is_the_recipe(model, base, name):
    decision, alone = lowbit.plan(model, base, rules=[f"*={name}"]), lowbit.plan(model, name)
    assert [dataclasses.replace(tensor, rule="") for tensor in decision.tensors] == list(alone.tensors)
    assert {node.node: node.arithmetic for node in decision.nodes} == {
        node.node: node.arithmetic for node in alone.nodes
    }
    assert (decision.scale_groups, decision.steps, decision.target) == (alone.scale_groups, alone.steps, alone.target)
    assert decision.downgrades == alone.downgrades


@pytest.mark.parametrize("recipe", ["int8", "linear4", "cluster3"])
def test_no_rules_are_no_rules(model, recipe):
    assert lowbit.plan(model, recipe, rules=[]) == lowbit.plan(model, recipe)
    if recipe != "int8":
        assert lowbit.quantize(model, recipe, rules=()).to_bytes() == lowbit.quantize(model, recipe).to_bytes()


def test_what_a_rule_speaks_of_takes_no_extra_bits_and_pays_none(model):
    rules = ["last.weight=linear4", "narrow=linear4", "wide=linear8"]
    decision = lowbit.plan(model, "linear4", rules=rules)
    free = [tensor for tensor in decision.tensors if tensor.layers and not tensor.rule]
    assert {tensor.given.bits for tensor in decision.tensors if tensor.rule} == {4, 8}
    assert any(tensor.given.bits > 4 for tensor in free)
    extra = sum(math.prod(tensor.shape) * (tensor.given.bits - 4) for tensor in free)
    assert 0 < extra <= 0.4 * sum(math.prod(tensor.shape) for tensor in free)


def test_what_a_rule_asks_for_and_does_not_get_is_a_downgrade(model):
    decision = lowbit.plan(model, "linear4", rules=["fc=cluster8"])
    (downgrade,) = decision.downgrades
    assert downgrade.startswith("fc.weight")
    assert "too small" in downgrade
    with pytest.raises(DowngradeError, match="'linear4 with fc=cluster8' cannot be applied everywhere"):
        lowbit.quantize(model, "linear4", rules=["fc=cluster8"], strict=True)
    for rules in (["*=float"], ["depthwise=linear8"], ["op:Add=float", "first=float"]):
        lowbit.plan(model, "int8", rules=rules).require_all()


def test_an_island_of_integers_has_scales_around_it_and_no_more(model):
    decision = lowbit.plan(model, "linear4", rules=["wide=int8", "deep=int8"])
    assert [node.node for node in decision.nodes if node.arithmetic == "integer"] == ["wide", "deep"]
    assert {tensor for group in decision.scale_groups for tensor in group} == {"narrow", "wide.clip", "deep.clip"}
    assert decision.integer
    assert decision.target
    assert "rounding and bias correction" in decision.steps
    alone = lowbit.plan(model, "linear4", rules=["op:Gemm=int8"])
    assert [node.node for node in alone.nodes if node.arithmetic == "integer"] == ["fc"], "the mean gains nothing"
    asked = lowbit.plan(model, "linear4", rules=["op:Gemm=int8", "mean=int8"])
    assert [node.node for node in asked.nodes if node.arithmetic == "integer"] == ["mean", "fc"]


def test_nodes_without_weights_stay_float_by_a_rule(model):
    decision = lowbit.plan(model, "int8", rules=["op:Add=float", "deep.clip=float"])
    nodes = {node.node: node for node in decision.nodes}
    assert (nodes["sum"].arithmetic, nodes["sum"].reason) == ("float", "rule op:Add=float")
    assert (nodes["deep.clip"].arithmetic, nodes["wide.clip"].arithmetic) == ("float", "absorbed")
    assert not decision.downgrades


def test_the_input_is_taken_as_bytes_if_its_layer_has_wide_weights():
    model = lowbit.load(networks.residual_network())
    how = lowbit.Preprocessing(networks.SIDE, networks.SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = dataclasses.replace(model, preprocessing=how)
    exact = "input as image bytes"
    assert exact in lowbit.plan(model, "int4", rules=["first=int8"]).steps
    assert exact not in lowbit.plan(model, "int4", rules=["last=int8"]).steps
    assert exact in lowbit.plan(model, "int4", rules=["last=int8"], steps=["exact-input"]).steps


# Those of 16-bit activations mix with no other integers; some are the arithmetic of a whole network.
ALONE = ("a16w", "float16", "bfloat16")
MIXING = [name for name in recipe_names() if not name.startswith(ALONE) or name.endswith("16w")]
recipes = st.sampled_from([name for name in MIXING if not name.endswith(("1", "13"))])
patterns = st.sampled_from(["*", "first", "last", "depthwise", "op:Conv", "op:Gemm", "bytes<800", "wide*", "stem"])


@settings(max_examples=30)
@given(base=recipes, rules=st.lists(st.tuples(patterns, recipes), max_size=4))
def test_any_mix_is_planned_reads_back_and_is_followed_as_it_is(base, rules):
    decision = lowbit.plan(MODEL, base, rules=[f"{pattern}={recipe}" for pattern, recipe in rules])
    assert Plan.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    assert followable(MODEL, decision) == decision
    for tensor in decision.tensors:
        last = next((name for pattern, name in reversed(rules) if tensor.rule == f"{pattern}={name}"), base)
        if tensor.layers:
            assert tensor.asked == parse_recipe(last).weights


@given(st.text("ab01=*?![]:<> opyts", max_size=12))
@settings(max_examples=40)
def test_no_text_breaks_the_parser(text):
    try:
        rule = parse_rule(text)
    except SchemeError:
        return
    for layer in rule_layers(MODEL, weight_users(MODEL)):
        rule.chooses(layer)


@pytest.mark.parametrize(
    ("base", "rule"), [("linear4", "*=float16"), ("int8", "first=bfloat16"), ("float16", "last=int8")]
)
def test_half_precision_is_the_arithmetic_of_a_whole_network(base, rule):
    model = lowbit.load(networks.residual_network())
    with pytest.raises(SchemeError, match="arithmetic of a whole network") as caught:
        lowbit.plan(model, base, rules=[rule])
    assert "16w" in caught.value.remedy


@pytest.mark.parametrize(("base", "rule"), [("int8", "last=float16w"), ("float16", "last=linear8")])
def test_half_precision_of_weights_mixes(base, rule, tmp_path):
    model = lowbit.load(networks.residual_network())
    images = lowbit.open_images(networks.inputs(8), None)
    found = lowbit.quantize(model, base, rules=[rule], calibration=images, effort="fast")
    (logits,) = open_session(found.save(tmp_path / "m.onnx"), threads=1).run({"x": networks.inputs(4)}).values()
    (wanted,) = open_session(model.to_bytes(), threads=1).run({"x": networks.inputs(4)}).values()
    np.testing.assert_allclose(logits, wanted, atol=0.2 * np.abs(wanted).max())
