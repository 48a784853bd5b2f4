"""Files that mix families: integers, code books and float; every runtime gives what they decode to."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import lowbit
import networks
from graphs import make, make_node, relative_error
from lowbit import FileForm
from lowbit.engines import open_session
from lowbit.errors import DataError, ModelError
from lowbit.formats.onnx import archive
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.opening import file_rules

ENGINES = (("onnx", "onnxruntime"), ("openvino", "openvino"), ("litert", "litert"))
# Base recipe, rules, and what computes in integers.
MIXES = {
    "floats in integers": ("int8", ["first=float", "deep=float"], "narrow wide back sum last mean fc"),
    "weights in integers": ("int8", ["depthwise=linear8", "first=linear8"], "narrow wide back sum last mean fc"),
    "a float sum": ("int8", ["op:Add=float"], "stem narrow wide deep back last mean fc"),
    "float bounds": ("int8", ["op:Clip=float"], "stem narrow wide deep back sum last mean fc"),
    "half of a sum": ("int8", ["back=linear8", "narrow=float"], "stem wide deep sum last mean fc"),
    "an island": ("linear8", ["wide=int8", "deep=int8"], "wide deep"),
    "a last island": ("float", ["op:Gemm=int8"], "fc"),
    "convolutions": ("float", ["op:Conv=int8"], "stem narrow wide deep back sum last"),
    "narrow integers": ("int8", ["wide=int4", "deep=int2", "fc=float"], "stem narrow wide deep back sum last mean"),
    "all families": ("cluster4", ["wide=int8", "deep=int4", "first=linear6", "fc=float", "back=cluster2"], "wide deep"),
    "a sum of families": ("linear4", ["back=int8", "narrow=cluster3", "sum=int8", "last.weight=int8"], "back sum last"),
}


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


@pytest.fixture(scope="module")
def images():
    return lowbit.open_images(list(networks.inputs(8)), None)


def answers(content, engine, x):
    return next(iter(open_session(content, engine=engine, threads=1).run({"x": x}).values()))


def decoded(content, x):
    """What the nodes of a file compute one by one, in float: nothing is folded into integer kernels."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(content, options, ["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize("mix", MIXES)
def test_every_runtime_gives_what_the_file_decodes_to(model, images, mix):
    pytest.importorskip("openvino")
    base, rules, integers = MIXES[mix]
    quantized = lowbit.quantize(model, base, rules=rules, calibration=images, steps=[])
    assert " ".join(node.node for node in quantized.plan.nodes if node.arithmetic == "integer") == integers
    x = networks.inputs(4, seed=7)
    exact = answers(model.to_bytes(), "onnxruntime", x)
    for to, engine in ENGINES[1::-1]:  # OpenVINO's file rounds less, so that each is held against its own
        content = quantized.to_bytes(FileForm(to))
        wanted = decoded(content, x)
        assert relative_error(wanted, exact) < 0.5
        # A code may fall to the other side where sums are added in another order.
        assert relative_error(answers(content, engine, x), wanted) < 0.01, engine
    litert = all(tensor.given is None or tensor.given.bits == 8 for tensor in quantized.plan.tensors)
    if litert and all(rule.partition("=")[2] in ("float", "int8", "linear8") for rule in rules):
        pytest.importorskip("ai_edge_litert")
        assert relative_error(answers(quantized.to_bytes(FileForm("litert")), "litert", x), wanted) < 0.02


@pytest.mark.parametrize("mix", ["weights in integers", "all families", "narrow integers"])
def test_weights_are_stored_as_the_plan_says(model, images, mix, tmp_path):
    base, rules, _ = MIXES[mix]
    quantized = lowbit.quantize(model, base, rules=rules, calibration=images, steps=[])
    path = quantized.save(tmp_path / "mixed.onnx")
    stored = layer_weights(path)
    for tensor in quantized.plan.tensors:
        codes = quantized.graph.weights.get(tensor.tensor)
        assert (codes is None) == (tensor.given is None)
        if codes is not None:
            assert codes.scheme == tensor.given
            np.testing.assert_array_equal(stored[tensor.layers[0]], codes.decode())
    ledger = read_ledger(path)
    assert ledger.total == sum(ledger.bytes.values()) == path.stat().st_size
    assert file_rules(path) == tuple(rules)
    assert archive.unpack(archive.pack(path.read_bytes())) == path.read_bytes()


def test_what_litert_has_no_form_for_is_refused_by_name(model, images):
    pytest.importorskip("ai_edge_litert")
    mixed = lowbit.quantize(model, "int8", rules=["deep=cluster4"], calibration=images, steps=[])
    with pytest.raises(ModelError, match=r"node 'deep'.*would decode at every inference"):
        mixed.to_bytes(FileForm("litert"))


def test_rounding_makes_up_for_the_other_families(model, images):
    rules = ["wide=int4", "deep=linear3", "back=cluster3"]
    plain, rounded = (
        lowbit.quantize(model, "int8", rules=rules, calibration=images, effort="fast", steps=steps)
        for steps in ([], ["rounding"])
    )
    x = networks.inputs(16, seed=3)
    exact = answers(model.to_bytes(), "onnxruntime", x)
    assert all(rounded.graph.weights[tensor.tensor].scheme == tensor.given for tensor in rounded.plan.quantized)
    errors = [relative_error(answers(made.to_bytes(), "onnxruntime", x), exact) for made in (plain, rounded)]
    assert errors[1] < 0.7 * errors[0]


def test_biases_beside_decoded_weights_take_two_bytes(images):
    model = lowbit.load(networks.residual_network(first=36))
    how = {"calibration": images, "effort": "fast", "steps": ["bias"]}
    mixed = lowbit.quantize(model, "linear4", rules=["fc=int8"], **how)
    assert set(mixed.graph.float_values) >= {"stem.bias"}
    assert "fc.bias" not in mixed.graph.float_values
    stored = {tensor.data_type for tensor in onnx.load_from_string(mixed.to_bytes()).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in stored
    inside = lowbit.quantize(model, "int8", rules=["fc=float"], **how)
    assert not inside.graph.float_values


def test_integers_by_a_rule_need_images(model):
    with pytest.raises(DataError, match="'linear4 with fc=int8' turns activations into integers"):
        lowbit.quantize(model, "linear4", rules=["fc=int8"])
    lowbit.quantize(model, "int8", rules=["*=linear8"])


def test_the_file_says_by_which_rules_it_was_made(model, images, tmp_path):
    pytest.importorskip("ai_edge_litert")
    rules = ["depthwise=float"]
    made = lowbit.quantize(model, "int8", rules=rules, calibration=images, steps=[])
    for name in ("mixed.onnx", "mixed.tflite"):
        assert file_rules(made.save(tmp_path / name)) == tuple(rules)
    entries = {entry.key: entry.value for entry in onnx.load(tmp_path / "mixed.onnx").metadata_props}
    assert entries["lowbit.recipe"] == "int8"
    assert json.loads(entries["lowbit.rules"]) == rules
    plain = lowbit.quantize(model, "linear8").save(tmp_path / "plain.onnx")
    assert file_rules(plain) == file_rules(tmp_path / "missing.onnx") == ()


def recurrent():
    rng = np.random.default_rng(0)
    weights = {"w": (1, 96, 40), "r": (1, 96, 24), "table": (50, 40), "m": (24, 30)}
    arrays = {name: (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32) for name, shape in weights.items()}
    nodes = [make_node("Gather", "table x", "e", name="embed"), make_node("LSTM", "e w r", "s", name="lstm")]
    nodes[1].attribute.append(onnx.helper.make_attribute("hidden_size", 24))
    nodes += [make_node("Squeeze", "s axes", "q", name="squeeze"), make_node("MatMul", "q m", "y", name="head")]
    types = {"x": onnx.TensorProto.INT64}
    return lowbit.load(make(nodes, {"x": [5, 2]}, ["y"], arrays | {"axes": np.array([1])}, types=types))


def test_rules_speak_of_weights_of_all_operators():
    model = recurrent()
    rules = ["lstm.W=cluster4", "lstm.R=int4", "op:Gather=linear4", "head=int8"]
    x = np.random.default_rng(1).integers(0, 50, size=(5, 2))
    samples = [{"x": np.random.default_rng(seed).integers(0, 50, size=(5, 2))} for seed in range(4)]
    made = lowbit.quantize(model, "linear8", rules=rules, calibration=samples, effort="fast", steps=[])
    names = {tensor.tensor: tensor.given.name for tensor in made.plan.quantized}
    assert names["w"].startswith("cluster4")
    assert names["r"] == "linear4/channel"
    assert names["table"] == "linear4/channel/affine"
    reasons = {tensor.tensor: tensor.reason for tensor in made.plan.tensors}
    assert "closest codes" in reasons["r"]
    assert any("lstm (LSTM) computes in float" in sentence for sentence in made.plan.downgrades)
    assert [node.node for node in made.plan.nodes if node.arithmetic == "integer"] == ["head"]
    exact = answers(model.to_bytes(), "onnxruntime", x)
    for to, engine in ENGINES[:2]:
        pytest.importorskip(engine)
        assert relative_error(answers(made.to_bytes(FileForm(to)), engine, x), exact) < 0.3
    both = lowbit.plan(model, "linear8", rules=["lstm=float"])
    assert {tensor.tensor for tensor in both.tensors if tensor.rule} == {"w", "r"}
