"""Plans as files: written, edited by hand, checked against the model, and followed."""

import dataclasses
import json

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import make, make_node
from lowbit.errors import LowbitError, ModelError, OutputError, SchemeError
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.plan_file import EDITED, followable
from lowbit.quantization.planning.recipes import parse_recipe

RULES = ["depthwise=linear8", "first=float"]


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


@pytest.fixture(scope="module")
def images():
    return lowbit.open_images(list(networks.inputs(8)), None)


def edited(path, change):
    """The file after someone changed it: a function of its data, tensors and nodes by name."""
    data = json.loads(path.read_text())
    change(
        data,
        {line["tensor"].removesuffix(".weight"): line for line in data["tensors"]},
        {line["node"]: line for line in data["nodes"]},
    )
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def written(model, tmp_path):
    def write(recipe="int8", rules=(), **how):
        return lowbit.write_plan(lowbit.plan(model, recipe, rules=rules, **how), model, tmp_path / "plan.json")

    return write


@pytest.mark.parametrize(
    ("recipe", "rules"),
    [("int8", RULES), ("linear4", ["op:Gemm=int8"]), ("float", []), ("cluster3", ["back=cluster6"]), ("int4", [])],
)
def test_what_is_written_is_read(model, written, recipe, rules):
    decision = lowbit.plan(model, recipe, rules=rules)
    assert lowbit.read_plan(written(recipe, rules), model) == decision


@pytest.mark.parametrize(
    "recipe",
    [
        parse_recipe("linear4", per="group", group_size=4, extra_bits=0),
        parse_recipe("int8", ranges="minmax", target="x86"),
        parse_recipe("cluster4", per="channel"),
        dataclasses.replace(parse_recipe("linear5"), name="mine"),
    ],
    ids=lambda recipe: recipe.name,
)
def test_options_are_written_where_they_differ(model, written, recipe):
    decision = lowbit.plan(model, recipe, rules=["fc=linear8"])
    path = written(recipe, ["fc=linear8"])
    assert lowbit.read_plan(path, model) == decision
    lines = {line["tensor"]: line for line in json.loads(path.read_text())["tensors"]}
    assert lines["fc.weight"]["given"] == "linear8"
    assert any(line["given"] == recipe.name for line in lines.values()), "what the header says goes without saying"


def test_a_line_is_a_tensor_or_a_node(written):
    lines = written("linear4", ["op:Gemm=int8"]).read_text().splitlines()
    (line,) = [line for line in lines if '"stem.weight"' in line]
    assert json.loads(line.rstrip(","))["given"] == "linear4"
    assert len(lines) < 40


def test_the_same_plan_gives_the_same_file(model, images, written):
    how = {"calibration": images, "effort": "fast", "steps": ["bias"]}
    direct = lowbit.quantize(model, "int8", rules=RULES, **how)
    path = written(rules=RULES, effort="fast", steps=["bias"])
    followed = lowbit.quantize(model, lowbit.read_plan(path, model), calibration=images)
    assert followed.to_bytes() == direct.to_bytes()


def given(decision, name):
    return next(tensor.given for tensor in decision.tensors if tensor.tensor == f"{name}.weight")


def arithmetic(decision, name):
    return next(node.arithmetic for node in decision.nodes if node.node == name)


def test_edits_of_tensors_are_honored(model, written, images):
    def change(_data, tensors, _nodes):
        tensors["wide"]["given"] = "linear8"
        tensors["narrow"]["given"] = None
        tensors["back"]["given"] = "cluster4"
        tensors["last"]["given"] = "int5"
        tensors["fc"]["given"] = {"recipe": "int8", "per": "tensor"}
        tensors["stem"]["given"] = {"recipe": "linear6", "symmetric": False}

    decision = lowbit.read_plan(edited(written(), change), model)
    assert given(decision, "narrow") is None
    assert given(decision, "last").bits == 5
    assert given(decision, "fc").per == "tensor"
    assert given(decision, "stem").name == "linear6/channel/affine"
    kinds = {name: arithmetic(decision, name) for name in ("stem", "narrow", "wide", "back", "last", "fc", "deep")}
    assert kinds == dict.fromkeys(("stem", "narrow", "wide", "back"), "float") | dict.fromkeys(
        ("last", "fc", "deep"), "integer"
    )
    assert arithmetic(decision, "wide.clip") == "float", "it follows"
    assert arithmetic(decision, "deep.clip") == "absorbed"
    assert decision.rules == (EDITED,)
    assert not decision.downgrades
    made = lowbit.quantize(model, decision, calibration=images, steps=[])
    assert {name: codes.scheme for name, codes in made.graph.weights.items()} == {
        tensor.tensor: tensor.given for tensor in decision.quantized
    }
    assert made.graph.metadata["lowbit.rules"] == json.dumps([EDITED])


def test_an_edit_can_bring_integers_and_take_them_all_away(model, written):
    def integers(_data, tensors, _nodes):
        tensors["wide"]["given"] = tensors["deep"]["given"] = "int8"
        for line in (tensors["wide"], tensors["deep"]):
            line.pop("asked", None)

    decision = lowbit.read_plan(edited(written("linear4"), integers), model)
    assert [node.node for node in decision.nodes if node.arithmetic == "integer"] == ["wide", "deep"]
    assert decision.target

    def floats(_data, tensors, _nodes):
        for line in tensors.values():
            line["given"] = "linear8"

    decision = lowbit.read_plan(edited(written("int8"), floats), model)
    assert not decision.integer
    assert (decision.nodes, decision.scale_groups, decision.target) == ((), (), "")
    assert "narrower ranges" not in decision.steps
    lowbit.quantize(model, decision)


def test_an_edited_line_asks_for_what_it_gives(model, written):
    def change(_data, tensors, _nodes):
        assert {tensors[name]["given"] for name in ("fc", "narrow")} == {None}, "too small for code books"
        tensors["fc"]["given"] = "linear8"
        tensors["narrow"]["given"] = "int8"

    decision = lowbit.read_plan(edited(written("cluster8"), change), model)
    for name in ("fc", "narrow"):
        (tensor,) = [tensor for tensor in decision.tensors if tensor.tensor == f"{name}.weight"]
        assert (tensor.asked, tensor.reason) == (parse_recipe("linear8").weights, "")
    assert arithmetic(decision, "narrow") == "integer"


def test_edits_of_nodes_are_honored(model, written):
    def change(_data, _tensors, nodes):
        nodes["sum"]["arithmetic"] = "float"
        nodes["last"]["arithmetic"] = "float"
        nodes["deep.clip"] |= {"arithmetic": "float", "reason": ""}

    decision = lowbit.read_plan(edited(written(), change), model)
    for name in ("sum", "last", "deep.clip"):
        assert arithmetic(decision, name) == "float"
    assert not decision.downgrades, "what was asked for is given"
    assert "only the weights are codes" in next(t.reason for t in decision.tensors if t.tensor == "last.weight")
    assert followable(model, decision) == decision
    back = lowbit.read_plan(lowbit.write_plan(decision, model, written()), model)
    assert back == decision


def test_an_edge_of_an_island_computes_in_integers_if_it_is_asked_to(model, written):
    def change(_data, _tensors, nodes):
        nodes["mean"]["arithmetic"] = "integer"

    decision = lowbit.read_plan(edited(written("linear8", ["op:Gemm=int8"]), change), model)
    assert [node.node for node in decision.nodes if node.arithmetic == "integer"] == ["mean", "fc"]


def test_steps_effort_target_and_ranges_can_be_edited(model, written):
    def change(data, _tensors, _nodes):
        data |= {"steps": ["bias"], "effort": "best", "target": "x86"}
        data["recipe"] = {"recipe": "int8", "ranges": "minmax"}

    decision = lowbit.read_plan(edited(written(parse_recipe("int8", target="x86-vnni")), change), model)
    assert (decision.steps, decision.effort, decision.range_rule) == (("bias correction",), "best", "minmax")
    assert given(decision, "wide").bits == 7
    assert given(decision, "deep").bits == 8
    other = followable(model, decision, effort="fast", steps=["rounding"])
    assert (other.steps, other.effort) == (("rounding and bias correction",), "fast")
    with pytest.raises(SchemeError, match="does not use step 'ranges'"):
        followable(model, lowbit.plan(model, "linear8"), steps=["ranges"])


BAD = {
    "no tensor of this name": (lambda d, t, n: t["stem"].update(tensor="stam.weight"), "Did you mean stem.weight"),
    "twice": (lambda d, t, n: d["tensors"].append(t["fc"]), "'fc.weight' stands twice"),
    "left out": (lambda d, t, n: (d["tensors"].remove(t["fc"]), d["nodes"].clear()), "no line for tensor 'fc.weight'"),
    "shape": (lambda d, t, n: t["fc"].update(shape=[5, 31]), r"its shape is \[5, 32\], in the plan \[5, 31\]"),
    "other nodes": (lambda d, t, n: (t["fc"].update(layers=["stem"]), d["nodes"].clear()), "other nodes read it"),
    "axis": (lambda d, t, n: t["fc"].update(axis=1), "output channels are not on axis 1"),
    "recipe": (lambda d, t, n: t["fc"].update(given="lineer8"), "tensor fc.weight: unknown recipe 'lineer8'. Did you"),
    "bits": (lambda d, t, n: t["fc"].update(given="int9"), "needs a bit width from 2 to 8"),
    "option": (lambda d, t, n: t["fc"].update(given={"recipe": "linear8", "pre": "tensor"}), "has no pre"),
    "no codes": (lambda d, t, n: t["fc"].update(given={"recipe": "float", "bits": 3}), "quantizes nothing"),
    "group": (
        lambda d, t, n: t["fc"].update(given={"recipe": "int8", "per": "group", "group_size": 4}),
        "integer kernels take no linear8/group4",
    ),
    "affine": (
        lambda d, t, n: t["fc"].update(given={"recipe": "int8", "symmetric": False}),
        "integer kernels take no linear8/channel/affine",
    ),
    "half a group": (
        lambda d, t, n: t["fc"].update(given={"recipe": "linear8", "per": "group"}),
        "groups have no size",
    ),
    "no node of this name": (lambda d, t, n: n["sum"].update(node="som"), "Did you mean sum"),
    "integers of floats": (
        lambda d, t, n: (t["fc"].update(given="linear8"), n["fc"].update(arithmetic="integer")),
        r"node fc cannot compute in integers: the recipe of its weight fc.weight \(linear8/channel\)",
    ),
    "no such arithmetic": (lambda d, t, n: n["sum"].update(arithmetic="double"), "no arithmetic is called 'double'"),
    "no weight": (lambda d, t, n: d["tensors"].remove(t["fc"]), "node fc has no arithmetic, and no weight says it"),
    "no arithmetic": (lambda d, t, n: n["sum"].pop("arithmetic"), "node sum has no arithmetic"),
    "groups": (lambda d, t, n: d["scale_groups"].pop(), "scale groups follow from the nodes"),
    "step": (lambda d, t, n: d.update(steps=["luck"]), "unknown step 'luck'"),
    "effort": (lambda d, t, n: d.update(effort="huge"), "unknown effort 'huge'"),
    "target": (lambda d, t, n: d.update(target="abacus"), "unknown target 'abacus'"),
    "ranges": (lambda d, t, n: d.update(recipe={"recipe": "int8", "ranges": "magic"}), "unknown range rule 'magic'"),
    "recipe option": (lambda d, t, n: d.update(recipe={"recipe": "int8", "bits": 3}), "has no bits = 3"),
    "share": (lambda d, t, n: t["fc"].update(share=10**400), "not a valid plan: OverflowError"),
    "no model": (lambda d, t, n: d.pop("model"), "not a valid plan"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_cannot_be_given_is_said_in_one_sentence(model, written, fault):
    change, message = BAD[fault]
    with pytest.raises(SchemeError, match=message) as refused:
        lowbit.read_plan(edited(written(), change), model)
    assert "plan.json" in str(refused.value)


def test_what_is_no_weight_gets_no_codes(tmp_path):
    weights = {"w": np.ones((8, 8), np.float32), "table": np.arange(64, dtype=np.float32).reshape(8, 8)}
    nodes = [make_node("MatMul", "x w", "m", name="m"), make_node("Add", "m table", "y", name="a")]
    model = lowbit.load(make(nodes, {"x": [8, 8]}, ["y"], weights))
    path = lowbit.write_plan(lowbit.plan(model, "linear8"), model, tmp_path / "p.json")
    edited(path, lambda d, t, n: t["table"].update(given="linear8"))
    with pytest.raises(SchemeError, match="tensor table: it is no weight, so it stays float"):
        lowbit.read_plan(path, model)


def test_an_operator_without_integers_stays_float(tmp_path):
    nodes = [make_node("Conv", "x w", "c", name="c"), make_node("Tanh", "c", "t", name="t")]
    nodes.append(make_node("Conv", "t w", "y", name="d"))
    model = lowbit.load(make(nodes, {"x": ["n", 4, 5, 5]}, ["y"], {"w": np.ones((4, 4, 1, 1), np.float32)}))
    path = lowbit.write_plan(lowbit.plan(model, "int8"), model, tmp_path / "p.json")
    edited(path, lambda d, t, n: n["t"].update(arithmetic="integer"))
    with pytest.raises(SchemeError, match="node t cannot compute in integers: there is no integer kernel for Tanh"):
        lowbit.read_plan(path, model)


def test_another_model_is_refused(written):
    path = written()
    other = lowbit.load(networks.residual_network(seed=1))
    with pytest.raises(ModelError, match="made for other weights") as refused:
        lowbit.read_plan(path, other)
    assert "lowbit plan --out" in refused.value.remedy
    with pytest.raises(SchemeError, match="its shape is"):
        lowbit.read_plan(path, lowbit.load(networks.residual_network(first=16)))
    with pytest.raises(SchemeError, match="the model has no tensor"):
        lowbit.read_plan(path, lowbit.load(networks.depthwise_network()))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", '{"tensors": 3}', "[" * 100_000, '{"recipe": "int8"}', "\x00", '{"a": NaN}'],
    ids=lambda text: repr(text[:8]),
)
def test_hostile_files_are_refused(model, tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(SchemeError, match="not a valid plan"):
        lowbit.read_plan(path, model)


def test_every_field_of_another_kind_is_refused(model, written):
    """No value anywhere gives anything but an error of ours, or a plan that the model can follow."""
    path = written("linear4", ["op:Gemm=int8"])
    data = json.loads(path.read_text())
    first = {"tensors": data["tensors"][0], "nodes": data["nodes"][1], "": data}
    for where, line in first.items():
        for key in line:
            for value in (None, 7, -1, 1e400, "x", [], {}, [[]], [{}], {"recipe": 5}, True):
                changed = json.loads(json.dumps(data))
                (changed if not where else changed[where][list(data[where]).index(line)])[key] = value
                path.write_text(json.dumps(changed))
                try:
                    decision = lowbit.read_plan(path, model)
                except LowbitError:
                    continue
                assert isinstance(decision, Plan)
                assert followable(model, decision) == decision


def test_files_that_cannot_be_read_or_written(model, tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SchemeError, match="cannot be read"):
            lowbit.read_plan(path, model)
    (tmp_path / "blocked").write_text("")
    with pytest.raises(OutputError):
        lowbit.write_plan(lowbit.plan(model, "int8"), model, tmp_path / "blocked" / "plan.json")


def test_a_plan_takes_no_rules_and_drops_its_steps_without_images(model):
    decision = lowbit.plan(model, "linear4")
    assert decision.steps
    assert lowbit.quantize(model, decision).plan.steps == ()
    with pytest.raises(SchemeError, match="has followed its rules already"):
        lowbit.quantize(model, decision, rules=["fc=float"])


def test_the_hash_is_that_of_graph_and_weights(model):
    changed = networks.residual_network()
    tensor = next(tensor for tensor in changed.graph.initializer if tensor.name == "fc.weight")
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[0, 0] += 1e-3
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, "fc.weight"))
    assert lowbit.load(changed).sha256 != model.sha256 == lowbit.load(networks.residual_network()).sha256
    large = make([make_node("MatMul", "x w", "y")], {"x": [1, 80]}, ["y"], {"w": np.ones((80, 80), np.float32)})
    one = lowbit.load(large)
    values = one.weights["w"].copy()
    values[-1, -1] = 2
    assert one.with_weights({"w": values}).sha256 != one.sha256


def test_what_an_edited_plan_keeps_in_float32_stays_so():
    model = lowbit.load(networks.residual_network())
    data = lowbit.plan(model, "float16").to_json()
    halved = next(entry for entry in data["nodes"] if entry["arithmetic"] == "float16")
    halved |= {"arithmetic": "float32", "reason": ""}
    edited = Plan.from_json(data)
    for images in (None, lowbit.open_images(networks.inputs(8), None)):
        found = lowbit.quantize(model, edited, calibration=images)
        assert next(node for node in found.plan.nodes if node.node == halved["node"]).reason == EDITED
        assert halved["node"] in found.graph.in_float32
