import dataclasses
import json

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import make, make_node
from lowbit.calibration.ranges import RANGE_RULES
from lowbit.engines import open_session
from lowbit.errors import DataError, DowngradeError, ModelError, SchemeError
from lowbit.graph.preprocessing import Preprocessing
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.recipes import STUDY, parse_recipe, recipe_names


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


ALL = recipe_names()


@pytest.mark.parametrize("name", ALL)
def test_every_row_of_the_table_parses_to_its_own_name_and_plans(model, name):
    recipe = parse_recipe(name)
    assert recipe.name == name
    plan = lowbit.plan(model, recipe)
    for tensor in plan.tensors:
        assert tensor.given is None or recipe.bits <= tensor.given.bits <= max(8, recipe.bits)
    assert all((tensor.asked is None) == (name == "float") for tensor in plan.tensors if tensor.layers)


def test_the_study_is_in_the_table():
    assert [parse_recipe(name).name for name in STUDY] == list(STUDY)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("int9", {}, "'int9' needs a bit width from 2 to 8"),
        ("cluster", {}, "'cluster' needs a bit width from 1 to 8"),
        ("linear1", {}, "'linear1' needs a bit width from 2 to 16"),
        ("float8", {}, "unknown recipe 'float8'"),
        ("gptq4", {}, "unknown recipe 'gptq4'"),
        ("linear4", {"ranges": "mse"}, "has no ranges"),
        ("int8", {"ranges": "magic"}, "unknown range rule 'magic'"),
        ("int8", {"symmetric": False}, "symmetric weights"),
        ("int8", {"per": "group", "group_size": 4}, "per tensor or per channel"),
        ("cluster4", {"symmetric": False}, "no zero point"),
        ("linear4", {"per": "group"}, "Give one, such as --group-size 32"),
        ("linear4", {"group_size": 32}, "Ask for --per group"),
        ("linear4", {"per": "group", "group_size": 0}, "Give 1 or more"),
        ("block4", {"per": "channel"}, "a scale for each block"),
        ("linear4", {"per": "row"}, "granularity"),
        ("float", {"per": "tensor"}, "quantizes nothing"),
    ],
)
def test_impossible_recipes_are_refused(name, options, message):
    with pytest.raises(SchemeError, match=message):
        parse_recipe(name, **options)


def test_integer_plan_says_how_each_node_computes(model):
    plan = lowbit.plan(model, "int8")
    arithmetic = {node.node: node.arithmetic for node in plan.nodes}
    assert {name: kind for name, kind in arithmetic.items() if kind == "absorbed"} == {
        f"{name}.clip": "absorbed" for name in ("stem", "wide", "deep", "last")
    }
    assert all(kind != "float" for kind in arithmetic.values())
    assert not plan.downgrades
    quantized = {tensor for group in plan.scale_groups for tensor in group}
    assert "x" in quantized
    assert "sum" in quantized
    assert "stem" not in quantized  # only what is stored: behind the activation
    assert "logits" in quantized  # for files whose outputs are integers; ONNX files give them as float


def with_two_readers(change=lambda proto: None):
    """The network with an activation whose input is read by the sum too."""
    proto = networks.residual_network()
    for node in proto.graph.node:
        if node.name == "sum":
            node.input[0] = "wide.clip"
            node.input[1] = "wide"
    proto.graph.node.remove(next(node for node in proto.graph.node if node.name == "back"))
    for tensor in proto.graph.initializer:
        if tensor.name == "last.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones((32, 24, 1, 1), np.float32), tensor.name))
    change(proto)
    return lowbit.load(proto)


def test_an_activation_with_two_readers_bounds_the_codes():
    plan = lowbit.plan(with_two_readers(), "int8")
    nodes = {node.node: node for node in plan.nodes}
    assert nodes["wide.clip"].arithmetic == "integer"
    assert any({"wide", "wide.clip"} <= set(group) for group in plan.scale_groups), "on one grid"


def test_an_activation_stays_float_where_that_is_cheaper_or_the_only_way():
    def softsign(proto):
        at = [node.name for node in proto.graph.node].index("wide.clip") + 1
        proto.graph.node.insert(at, onnx.helper.make_node("Softsign", ["wide.clip"], ["soft"], name="soft"))
        for node in proto.graph.node:
            if node.name in ("sum", "deep"):
                node.input[0] = "soft"

    nodes = {node.node: node for node in lowbit.plan(with_two_readers(softsign), "int8").nodes}
    assert (nodes["wide.clip"].arithmetic, nodes["wide.clip"].reason) == ("float", "only float nodes read it")

    def computed(proto):
        (node,) = [node for node in proto.graph.node if node.name == "wide.clip"]
        at = list(proto.graph.node).index(node)
        top = onnx.helper.make_node("ReduceMax", ["wide"], ["top"], name="top", keepdims=0)
        proto.graph.node.insert(at, top)
        node.input[2] = "top"

    nodes = {node.node: node for node in lowbit.plan(with_two_readers(computed), "int8").nodes}
    assert (nodes["wide.clip"].arithmetic, nodes["wide.clip"].reason) == ("float", "its bounds are not constant")


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (-0.5, 0.25), (None, 1.0), (-0.3, None), None])
def test_bounded_codes_are_what_bounded_values_round_to(bounds, tmp_path):
    """The written Clip of codes against float between two conversions on the same grid: not one code differs."""

    def change(proto):
        (node,) = [node for node in proto.graph.node if node.name == "wide.clip"]
        if bounds is None:
            node.op_type = "Relu"
            del node.input[1:]
            return
        for place, bound in enumerate(bounds, start=1):
            name = f"bound{place}"
            node.input[place] = "" if bound is None else name
            if bound is not None:
                proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(bound), name))

    model = with_two_readers(change)
    images = lowbit.open_images(list(networks.inputs(16)), None)
    quantized = lowbit.quantize(model, "int8", calibration=images, steps=())
    proto = onnx.load_from_string(quantized.to_bytes())
    (clip,) = [node for node in proto.graph.node if node.op_type == "Clip"]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(clip.input[0], onnx.TensorProto.UINT8, None))
    proto.graph.output.append(onnx.helper.make_tensor_value_info(clip.output[0], onnx.TensorProto.UINT8, None))
    path = tmp_path / "optimized.onnx"
    session = open_session(proto.SerializeToString(), threads=1, optimized_to=path)
    outputs = session.run({"x": networks.inputs(16, seed=9)})
    before, after = outputs[clip.input[0]], outputs[clip.output[0]]
    codes = quantized.graph.activations["wide"]
    assert codes == quantized.graph.activations["wide.clip"]
    values = (before.astype(np.float32) - codes.zero_point) * np.float32(codes.scale)
    low, high = (0.0, None) if bounds is None else bounds
    bounded = np.clip(values, -np.inf if low is None else low, np.inf if high is None else high)
    expected = np.clip(np.rint(bounded / np.float32(codes.scale)) + codes.zero_point, 0, 255)
    np.testing.assert_array_equal(after, expected)
    assert len(np.unique(after)) > 3
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert not kinds & {"Relu", "Conv", "Add", "Gemm"}, "nothing computes in float"


def concatenated(*activations):
    """A convolution for each activation ("", "Relu" or "Clip"), side by side, and one that reads them all."""
    generator = np.random.default_rng(0)
    weights = {"low": np.float32(0), "high": np.float32(0.5)}
    nodes, parts = [], []
    for index, activation in enumerate(activations):
        weights[f"w{index}"] = generator.normal(scale=0.3, size=(8, 3, 3, 3))
        nodes.append(make_node("Conv", f"x w{index}", f"c{index}", pads=[1] * 4))
        parts.append(f"c{index}")
        if activation:
            bounds = " low high" if activation == "Clip" else ""
            nodes.append(make_node(activation, f"c{index}{bounds}", f"a{index}"))
            parts[-1] = f"a{index}"
    nodes.append(make_node("Concat", " ".join(parts), "whole", axis=1))
    weights["last"] = generator.normal(scale=0.2, size=(5, 8 * len(parts), 1, 1))
    nodes.append(make_node("Conv", "whole last", "y"))
    return lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights))


@pytest.mark.parametrize(
    ("activations", "shared"),
    [
        (("", ""), {"c0", "c1"}),
        (("Relu", "Relu"), {"a0", "a1"}),
        (("Relu", ""), {"c1"}),
        (("Clip", "Clip"), set()),
        (("Clip", "", "Relu"), {"c1"}),
    ],
)
def test_what_only_a_concat_reads_is_rounded_once_unless_saturation_stands_for_its_bounds(activations, shared):
    model = concatenated(*activations)
    plan = lowbit.plan(model, "int8")
    (group,) = [group for group in plan.scale_groups if "whole" in group]
    assert set(group) == {"whole", *shared}
    x = networks.inputs(16)
    images = lowbit.open_images(list(x), None)
    content = lowbit.quantize(model, "int8", calibration=images, steps=()).to_bytes()
    exact = open_session(model.to_bytes(), threads=1).run({"x": x})["y"]
    quantized = open_session(content, threads=1).run({"x": x})["y"]
    assert np.sqrt(np.mean((quantized - exact) ** 2)) < 0.03 * np.sqrt(np.mean(exact**2))


def test_tiny_tensors_stay_float_with_the_reason_and_strict_refuses(model):
    plan = lowbit.plan(model, "cluster8")
    tiny = [tensor for tensor in plan.tensors if tensor.downgraded]
    assert tiny
    assert all("too small" in tensor.reason for tensor in tiny)
    with pytest.raises(DowngradeError, match="too small"):
        lowbit.quantize(model, "cluster8", strict=True)
    assert DowngradeError.exit_code == 3


def test_batch_norm_statistics_are_never_quantized():
    weights = {name: np.abs(np.random.default_rng(0).normal(size=3)) + 0.1 for name in "abcd"}
    weights["w"] = np.random.default_rng(1).normal(size=(64, 3, 3, 3))
    nodes = [make_node("BatchNormalization", "x a b c d", "n", name="norm"), make_node("Conv", "n w", "y", name="conv")]
    model = lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights))
    plan = lowbit.plan(model, "linear8")
    reasons = {tensor.tensor: tensor.reason for tensor in plan.tensors if tensor.given is None}
    assert reasons == dict.fromkeys("abcd", "batch-norm statistics are never quantized")
    quantized = lowbit.quantize(model, "linear8")
    assert list(quantized.graph.weights) == ["w"]


def test_plan_is_plain_data(model):
    data = lowbit.plan(model, "int8").to_json()
    assert data["tensors"][0]["given"] == "int8"
    assert data["nodes"][0] == {"node": "stem", "op": "Conv"}, "its weight says how it computes"
    assert {"node", "op", "arithmetic", "reason"} == set(data["nodes"][1])


def test_integer_recipes_need_images(model):
    with pytest.raises(DataError, match="--calibration DIR"):
        lowbit.quantize(model, "int8")


def test_a_quantized_model_is_refused(model, tmp_path):
    images = lowbit.open_images(list(networks.inputs(8)), None)
    path = lowbit.quantize(model, "int8", calibration=images, steps=()).save(tmp_path / "int8.onnx")
    with pytest.raises(ModelError, match="already quantized"):
        lowbit.quantize(path, "linear8")


@pytest.mark.parametrize("ranges", RANGE_RULES)
def test_range_rules_reach_the_file(model, ranges):
    images = lowbit.open_images(list(networks.inputs(16)), None)
    quantized = lowbit.quantize(model, parse_recipe("int8", ranges=ranges), calibration=images, steps=())
    alone = [group[0] for group in quantized.plan.scale_groups if len(group) == 1]
    assert "x" in alone
    for tensor in alone:
        low, high = RANGE_RULES[ranges](quantized.calibration.tensors[tensor], 256)
        codes = quantized.graph.activations[tensor]
        assert codes.scale == pytest.approx((high - low) / 255, rel=1e-6)
        assert codes.zero_point == round(-low / codes.scale)


def test_statistics_do_not_depend_on_the_batch(model):
    images = lowbit.open_images(list(networks.inputs(16)), None)
    tensors = ["x", "sum", "mean"]
    first = lowbit.calibrate(model, images, tensors=tensors, batch=16)
    second = lowbit.calibrate(model, images, tensors=tensors, batch=5)
    for name in tensors:
        assert first.tensors[name].low == pytest.approx(second.tensors[name].low, rel=1e-6)
        assert first.tensors[name].high == pytest.approx(second.tensors[name].high, rel=1e-6)
        assert first.tensors[name].histogram.counts.sum() == second.tensors[name].histogram.counts.sum()


def test_one_image_is_enough(model):
    images = lowbit.open_images(list(networks.inputs(1)), None)
    assert lowbit.quantize(model, "int8", calibration=images).calibration.images == 1


@pytest.mark.parametrize("recipe", ["float", "int8", "int4", "linear4", "cluster3"])
def test_the_plan_reads_back_from_json(recipe):
    decision = lowbit.plan(lowbit.load(networks.residual_network()), recipe)
    data = json.loads(json.dumps(decision.to_json()))
    assert Plan.from_json(data) == decision


@pytest.mark.parametrize("part", ["recipe", "tensors", "nodes", "scale_groups", "steps", "effort", "target", "rules"])
def test_a_plan_that_lacks_something_is_refused(part):
    data = lowbit.plan(lowbit.load(networks.residual_network()), "int8").to_json()
    del data[part]
    with pytest.raises(SchemeError, match="not a valid plan"):
        Plan.from_json(data)


RANGES, EQUALIZED, BIASES = "narrower ranges", "equalization", "bias correction"
ROUNDED = "rounding and bias correction"


@pytest.mark.parametrize(
    ("recipe", "per", "fast", "balanced", "best"),
    [
        ("float", None, (), (), ()),
        ("int8", None, (RANGES, BIASES), *[(EQUALIZED, RANGES, BIASES, ROUNDED)] * 2),
        ("int7", None, (RANGES, BIASES), *[(EQUALIZED, RANGES, BIASES, ROUNDED)] * 2),
        ("int4", None, (RANGES, BIASES), *[(EQUALIZED, RANGES, BIASES, ROUNDED)] * 2),
        ("int8", "tensor", (EQUALIZED, RANGES, BIASES), *[(EQUALIZED, RANGES, BIASES, ROUNDED)] * 2),
        ("linear9", None, (), (), ()),
        ("linear8", None, (ROUNDED,), (ROUNDED,), (ROUNDED,)),
        ("linear7", None, (ROUNDED,), (ROUNDED,), (ROUNDED,)),
        ("linear5", None, (ROUNDED,), (ROUNDED,), (ROUNDED,)),
        ("linear4", None, (EQUALIZED, ROUNDED), (EQUALIZED, ROUNDED), (EQUALIZED, ROUNDED)),
        ("cluster8", None, (ROUNDED,), (ROUNDED,), (ROUNDED,)),
        ("cluster2", None, (EQUALIZED, ROUNDED), (EQUALIZED, ROUNDED), (EQUALIZED, ROUNDED)),
    ],
)
def test_the_steps_of_a_recipe(model, recipe, per, fast, balanced, best):
    wanted = parse_recipe(recipe, per=per)
    for effort, steps in (("fast", fast), ("balanced", balanced), ("best", best)):
        assert lowbit.plan(model, wanted, effort=effort).steps == steps, effort
        assert lowbit.plan(model, wanted, effort=effort, with_images=False).steps == ()


@pytest.mark.parametrize(("recipe", "exact"), [("int8", True), ("int7", True), ("int6", False)])
def test_a_normalized_input_is_taken_as_bytes_where_its_last_bit_counts(model, recipe, exact):
    how = Preprocessing(networks.SIDE, networks.SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    steps = lowbit.plan(dataclasses.replace(model, preprocessing=how), recipe).steps
    assert steps[:2] == (("input as image bytes", EQUALIZED) if exact else (EQUALIZED, RANGES))


def test_a_range_rule_that_is_named_is_not_put_to_the_test(model):
    assert RANGES not in lowbit.plan(model, parse_recipe("int8", ranges="output")).steps
    assert lowbit.plan(model, "int8").range_rule == "extremes"
    assert lowbit.plan(model, parse_recipe("int8", ranges="mse")).range_rule == "mse"


SIZE = "bits cost least in small layers, and win as much there"


@pytest.mark.parametrize("recipe", ["linear4", "linear2", "linear6", "cluster4", "cluster1"])
def test_small_layers_get_more_bits_in_narrow_recipes(model, recipe):
    decision = lowbit.plan(model, recipe)
    asked = parse_recipe(recipe).weights
    weights = [tensor for tensor in decision.quantized if tensor.layers]
    sizes = [np.prod(tensor.shape) for tensor in weights]
    wider = [tensor for tensor in weights if tensor.given != asked]
    assert wider
    for tensor in wider:
        assert tensor.given == asked.with_bits(tensor.given.bits)
        assert (tensor.asked, tensor.reason, tensor.adapted) == (asked, SIZE, True)
        assert not tensor.downgraded
    given = np.average([tensor.given.bits for tensor in weights], weights=sizes)
    assert asked.bits < given <= asked.bits + 0.4
    assert max(zip(sizes, weights, strict=True), key=lambda each: each[0])[1].given == asked
    (sentence,) = decision.adaptations
    assert sentence.startswith(f"{len(wider)} of {len(weights)} weights get {asked.bits + 1}")
    taken = sum(
        tensor.given.stored_bytes(tensor.shape, tensor.axis) - asked.stored_bytes(tensor.shape, tensor.axis)
        for tensor in weights
    )
    spent = 8 * taken / sum(sizes)
    assert spent <= 0.4
    assert sentence.endswith(f" bits, {given:.2f} per weight in all, {spent:.2f} of 0.40 extra spent: {SIZE}")
    for downgrade in decision.downgrades:
        assert "too small" in downgrade, "of its own, as in any recipe"
    assert Plan.from_json(json.loads(json.dumps(decision.to_json()))) == decision


def test_strict_accepts_wider_small_layers(model):
    quantized = lowbit.quantize(model, "linear4", strict=True)
    assert {codes.bits for codes in quantized.graph.weights.values()} == {4, 5, 6}


@pytest.mark.parametrize("recipe", ["int7", "int8", "linear8", "linear12", "cluster8"])
def test_from_eight_bits_on_all_layers_get_the_same(model, recipe):
    decision = lowbit.plan(model, recipe)
    assert not any(SIZE in sentence for sentence in decision.adaptations)
    assert {tensor.given for tensor in decision.quantized} == {parse_recipe(recipe).weights}
    with pytest.raises(SchemeError, match=f"'{recipe}' gives every layer the same bits"):
        parse_recipe(recipe, extra_bits=0.4)


@pytest.mark.parametrize("recipe", ["linear4", "linear2", "cluster3"])
def test_extra_bits_can_be_chosen(model, recipe):
    same, more = (lowbit.plan(model, parse_recipe(recipe, extra_bits=extra)) for extra in (0, 1.5))
    assert same.adaptations == ()
    assert {tensor.given for tensor in same.quantized} == {parse_recipe(recipe).weights}
    usual = lowbit.plan(model, recipe)
    bits = [sum(tensor.given.bits for tensor in decision.quantized) for decision in (same, usual, more)]
    assert bits == sorted(set(bits))
    for decision in (same, more):
        assert Plan.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    for wrong in (-0.1, 9.0, float("nan")):
        with pytest.raises(SchemeError, match="extra bits per weight"):
            parse_recipe(recipe, extra_bits=wrong)


def test_wider_layers_share_scales_as_the_others_do(model):
    for recipe, how in (("int4", {"per": "tensor"}), ("linear4", {"per": "group", "group_size": 8})):
        decision = lowbit.plan(model, parse_recipe(recipe, **how))
        assert {tensor.given.per for tensor in decision.quantized} == {how["per"]}
        assert any(tensor.given.bits > tensor.asked.bits for tensor in decision.quantized)


def test_a_layer_that_would_not_become_smaller_stays_float():
    """One value and one scale per channel: the scale alone takes as much as the float did."""
    weights = {"w": np.full((16, 16, 3, 3), 0.1), "d": np.full((16, 1, 1, 1), 0.5)}
    nodes = [make_node("Conv", "x w", "c", name="first"), make_node("Conv", "c d", "y", name="scaling", group=16)]
    model = lowbit.load(make(nodes, {"x": ["n", 16, 8, 8]}, ["y"], weights))
    for tensor in lowbit.plan(model, "linear4").tensors:
        assert tensor.given is None or tensor.given.stored_bytes(tensor.shape, tensor.axis) < 4 * np.prod(tensor.shape)


def detector():
    """Two heads on a trunk: boxes as they are, a score behind a sigmoid, classes behind a softmax, side by side."""
    generator = np.random.default_rng(0)
    weights = {"trunk": generator.normal(scale=0.4, size=(8, 3, 3, 3))}
    nodes = [make_node("Conv", "x trunk", "t", pads=[1] * 4), make_node("Relu", "t", "r")]
    for name, channels in (("boxes", 4), ("score", 1), ("classes", 6)):
        weights[f"{name}.weight"] = generator.normal(scale=20 if name == "boxes" else 0.5, size=(channels, 8, 1, 1))
        nodes.append(make_node("Conv", f"r {name}.weight", name))
    nodes.append(make_node("Sigmoid", "score", "probability"))
    nodes.append(make_node("Softmax", "classes", "shares", axis=1))
    nodes.append(make_node("Concat", "probability boxes shares", "y", axis=1))
    return lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights))


def test_what_a_detector_gives_is_not_rounded_to_the_steps_of_its_boxes():
    model = detector()
    nodes = {node.node: node for node in lowbit.plan(model, "int8").nodes}
    assert (nodes["y"].arithmetic, nodes["y"].reason) == ("float", "nothing computes on its codes")
    assert (nodes["probability"].arithmetic, nodes["probability"].reason) == (
        "float",
        "nothing computes on its codes",
    )
    assert {nodes[name].arithmetic for name in ("t", "boxes", "score", "classes")} == {"integer"}
    quantized = lowbit.quantize(model, "int8", calibration=networks.inputs(64), steps=())
    assert "y" not in quantized.graph.activations
    x = networks.inputs(16, seed=5)
    exact, given = (open_session(each.to_bytes(), threads=1).run({"x": x})["y"] for each in (model, quantized))
    assert np.abs(exact[:, 1:5]).max() > 50
    for part in (slice(0, 1), slice(5, None)):
        assert np.abs(exact - given)[:, part].max() < 0.05, "a step of the boxes' grid is larger"


def test_a_concat_whose_codes_are_read_computes_in_integers():
    nodes = {node.node: node.arithmetic for node in lowbit.plan(concatenated("Relu", "Relu"), "int8").nodes}
    assert nodes["whole"] == "integer"


@pytest.mark.parametrize("clamp", ["Relu", "Clip"])
@pytest.mark.parametrize("join", ["Add", "Mul"])
def test_layers_are_linked_through_the_activations_between(clamp, join):
    """Nothing but activations reads or feeds what joins two layers, as in a residual block with one on every side."""
    rng = np.random.default_rng(0)
    weights = {"wa": rng.normal(size=(8, 3, 3, 3)), "wb": rng.normal(size=(8, 3, 3, 3)), "low": 0.0, "high": 6.0}
    weights |= {"wc": rng.normal(size=(4, 8, 1, 1))}
    bounds = " low high" if clamp == "Clip" else ""
    proto = make(
        [
            make_node("Conv", "x wa", "a"),
            make_node("Conv", "x wb", "b"),
            make_node(clamp, f"a{bounds}", "ra"),
            make_node(clamp, f"b{bounds}", "rb"),
            make_node(join, "ra rb", "j"),
            make_node(clamp, f"j{bounds}", "rj"),
            make_node("Conv", "rj wc", "y"),
        ],
        {"x": ["n", 3, 8, 8]},
        ["y"],
        {name: np.asarray(value, np.float32) for name, value in weights.items()},
    )
    plan = lowbit.plan(lowbit.load(proto), "int8")
    assert {node.op: node.arithmetic for node in plan.nodes}[join] == "integer"
    assert not plan.downgrades


def bounded(low, high, *, before=(), after="Conv"):
    """A convolution, other operators, a Clip (with bounds that are None left out) and what reads it."""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(scale=0.4, size=(8, 3, 3, 3)) for name in ("w", "other")}
    weights["last"] = generator.normal(scale=0.3, size=(5, 8, 1, 1))
    weights |= {name: np.float32(bound) for name, bound in (("low", low), ("high", high)) if bound is not None}
    nodes, source = [make_node("Conv", "x w", "c", pads=[1] * 4)], "c"
    for op in before:
        pool = {"kernel_shape": [3, 3], "pads": [1] * 4} if op == "MaxPool" else {}
        nodes.append(make_node(op, source, f"{op}.out", **pool))
        source = f"{op}.out"
    ends = [name if name in weights else "" for name in ("low", "high")]
    nodes.append(make_node("Clip", " ".join([source, *ends]), "clip"))
    if "Div" in after:
        nodes.append(make_node("Conv", "x other", "top", pads=[1] * 4))
        nodes.append(make_node("Div", "top clip", "y" if after == "Div" else "ratio"))
    if "Conv" in after:
        nodes.append(make_node("Conv", "clip last", "y" if after == "Conv" else "mixed"))
    outputs = ["y"] if after in ("Div", "Conv") else ["ratio", "mixed"]
    return lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, outputs, weights))


def decibels(model, content):
    """Signal to noise of each output of a file on new images."""
    x = networks.inputs(16, seed=9)
    exact, given = (open_session(each, threads=1).run({"x": x}) for each in (model.to_bytes(), content))
    return {
        name: 10 * np.log10(np.mean(exact[name] ** 2) / np.mean((exact[name] - given[name]) ** 2)) for name in exact
    }


BESIDE_ZERO = [(0.5, 2.0), (-3.0, -0.5), (0.3, None), (None, -0.3)]


@pytest.mark.parametrize("bounds", BESIDE_ZERO)
@pytest.mark.parametrize("before", [(), ("Relu",), ("MaxPool",), ("Sigmoid",)])
def test_a_clip_whose_bounds_leave_out_zero_stays_float(bounds, before):
    model = bounded(*bounds, before=before)
    (node,) = [node for node in lowbit.plan(model, "int8").nodes if node.op == "Clip"]
    assert (node.arithmetic, node.reason) == ("float", "its bounds leave out 0, which codes cannot")
    content = lowbit.quantize(model, "int8", calibration=networks.inputs(64), effort="fast").to_bytes()
    assert decibels(model, content)["y"] > 30


@pytest.mark.parametrize("bounds", [(0.0, 2.0), (-3.0, 0.0), (-0.4, None), (None, 0.4)])
def test_saturation_does_the_work_of_a_clip_whose_bounds_include_zero(bounds):
    model = bounded(*bounds)
    (node,) = [node for node in lowbit.plan(model, "int8").nodes if node.op == "Clip"]
    assert node.arithmetic == "absorbed"
    content = lowbit.quantize(model, "int8", calibration=networks.inputs(64), steps=()).to_bytes()
    assert decibels(model, content)["y"] > 30


def test_nothing_divides_by_the_code_of_zero():
    """The bound is less than half a step of the codes."""
    for after in ("Div", "Div and Conv"):
        model = bounded(0.002, None, after=after)
        content = lowbit.quantize(model, "int8", calibration=networks.inputs(64), steps=()).to_bytes()
        given = open_session(content, threads=1).run({"x": networks.inputs(16, seed=9)})
        assert all(np.isfinite(array).all() for array in given.values()), after


def body(nodes, inputs, outputs, weights=None):
    """The graph of a body; inputs and outputs by name with their types."""
    return make(nodes, inputs, outputs, weights or {}, types={"turn": onnx.TensorProto.INT64, **FLAGS}).graph


FLAGS = dict.fromkeys(("go", "on"), onnx.TensorProto.BOOL)


def with_body(kind):
    """A network whose If, Loop or Scan reads, inside of its bodies, what a convolution outside gives."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.normal(scale=0.4, size=(8, 3, 3, 3)),
        "inner": generator.normal(scale=0.2, size=(8, 8, 1, 1)),
    }
    weights |= {"last": generator.normal(scale=0.2, size=(5, 8, 1, 1)), "zero": np.float32(0), "three": np.int64(3)}
    weights |= {"rows": generator.normal(size=(2, 1))}
    nodes = [make_node("Conv", "x w", "c", pads=[1] * 4), make_node("Relu", "c", "r")]
    nodes += [make_node("Conv", "r inner", "h", name="reader"), make_node("ReduceMean", "h", "mean", keepdims=0)]
    nodes.append(make_node("Greater", "mean zero", "flag"))
    # Named as a node outside that computes in integers.
    one, other = (body([make_node(op, "h", f"{op}.out", name="reader")], {}, [f"{op}.out"]) for op in ("Abs", "Neg"))
    if kind == "If":
        nodes.append(make_node("If", "flag", "chosen", then_branch=one, else_branch=other))
    elif kind == "nested If":
        inner = make_node("If", "flag", "deep", then_branch=one, else_branch=other)
        branches = body([inner], {}, ["deep"]), body([make_node("Relu", "h", "positive")], {}, ["positive"])
        nodes.append(make_node("If", "flag", "chosen", then_branch=branches[0], else_branch=branches[1]))
    elif kind == "Loop":
        steps = [make_node("Add", "sum h", "more"), make_node("Identity", "go", "on")]
        loop = body(steps, {"turn": [], "go": [], "sum": None}, ["on", "more"])
        nodes.append(make_node("Loop", "three  r", "chosen", body=loop))
    else:
        steps = [make_node("Mul", "h row", "part"), make_node("Add", "sum part", "more")]
        scan = body(steps, {"sum": None, "row": [1]}, ["more"])
        nodes.append(make_node("Scan", "r rows", "chosen", body=scan, num_scan_inputs=1))
    nodes.append(make_node("Conv", "chosen last", "y"))
    return lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], weights))


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("kind", ["If", "nested If", "Loop", "Scan"])
def test_nodes_of_bodies_read_what_is_outside_in_float(kind, effort):
    model = with_body(kind)
    content = lowbit.quantize(model, "int8", calibration=networks.inputs(64), effort=effort).to_bytes()
    assert decibels(model, content)["y"] > 25


def test_what_only_a_body_reads_is_not_read_by_integers():
    """Even if a node of the body is named as one that computes in integers."""
    plan = lowbit.plan(with_body("If"), "int8")
    nodes = {node.node: node.arithmetic for node in plan.nodes}
    assert nodes["reader"] == "integer"
    assert nodes["chosen"] == "float"


@pytest.mark.parametrize("made", ["p", "p at"])
def test_only_the_values_of_a_max_pool_have_a_scale(made):
    nodes = [
        make_node("Conv", "x w", "c"),
        make_node("MaxPool", "c", made, name="pool", kernel_shape=[2, 2]),
        make_node("Conv", "p v", "y"),
    ]
    outputs = ["y"] if made == "p" else ["y", "at"]
    weights = {"w": np.ones((4, 3, 3, 3)), "v": np.ones((4, 4, 1, 1))}
    proto = make(nodes, {"x": ["n", 3, 8, 8]}, outputs, weights, types={"at": onnx.TensorProto.INT64})
    decided = lowbit.plan(lowbit.load(proto), "int8")
    assert {node.node: node.arithmetic for node in decided.nodes}["pool"] == "integer"
    assert ("c", "p") in decided.scale_groups
    assert not any("at" in group for group in decided.scale_groups)
