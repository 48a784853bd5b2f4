"""Recipes whose activations are held in other ways: each on small networks, against the real runtimes as oracles."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

import lowbit
import networks
from graphs import make, make_node
from lowbit.engines import open_session
from lowbit.engines.litert_operators import NAMES
from lowbit.errors import ModelError, SchemeError
from lowbit.formats.devices import DEVICES, LITERT_FILE
from lowbit.formats.file_form import LITERT, OPENVINO, FileForm
from lowbit.formats.litert.device_rules import violations as litert_violations
from lowbit.formats.onnx.device_rules import beside as onnx_beside
from lowbit.formats.onnx.device_rules import violations as onnx_violations
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.formats.onnx.read import layer_weights
from lowbit.formats.quantized_graph import INT16, UINT8, ActivationKind
from lowbit.graph.ops import layers
from lowbit.quantization.passes.activations import INT32_LIMIT, WIDE_LIMIT, large_biases
from lowbit.quantization.planning.plan import Plan
from lowbit.quantization.planning.plan_file import followable
from lowbit.quantization.planning.recipes import RECIPES
from lowbit.quantization.quantized import check_kind

FORMS = (("onnx", "onnxruntime"), (OPENVINO, "openvino"), (LITERT, "litert"))


@pytest.fixture(scope="module")
def model():
    return lowbit.load(networks.residual_network())


@pytest.fixture(scope="module")
def images():
    return lowbit.open_images(list(networks.inputs(16)), None)


@pytest.fixture(scope="module")
def products():
    """Two large products and a small one: MatMul with a bias, Gemm on a turned weight, MatMul."""
    generator = np.random.default_rng(0)
    shapes = {"a": (300, 256), "ab": (256,), "b": (260, 256), "bb": (260,), "c": (260, 8)}
    weights = {name: (generator.normal(size=shape) / 16).astype(np.float32) for name, shape in shapes.items()}
    nodes = [make_node("MatMul", "x a", "m"), make_node("Add", "m ab", "h"), make_node("Relu", "h", "r")]
    nodes += [make_node("Gemm", "r b bb", "z", transB=1), make_node("MatMul", "z c", "y")]
    return lowbit.load(make(nodes, {"x": ["n", 300]}, ["y"], weights))


def rows(count=32, seed=5):
    return np.random.default_rng(seed).normal(size=(count, 300)).astype(np.float32)


def answers(content, x, engine="onnxruntime"):
    (answer,) = open_session(content, threads=1, engine=engine).run({"x": x}).values()
    return answer


def decibels(wanted, found):
    return 10 * np.log10(np.square(wanted).sum() / max(np.square(wanted - found).sum(), 1e-30))


@pytest.mark.parametrize("kind", [UINT8, INT16, ActivationKind(8, signed=True), ActivationKind(8, True, True, True)])
@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-3.0, 1.0), (-0.1, 7.0), (0.0, 0.0)])
def test_codes_cover_an_interval_and_hold_zero(kind, low, high):
    codes = kind.codes(low, high)
    ends = codes.scale * (np.array([0, kind.levels - 1]) - codes.zero_point)
    assert ends[0] <= low + codes.scale / 2
    assert ends[1] >= high - codes.scale / 2
    assert np.iinfo(kind.dtype).min <= int(codes.stored_zero_point) <= np.iinfo(kind.dtype).max
    if kind.symmetric:
        assert int(codes.stored_zero_point) == 0
    if kind.powers:
        assert np.frexp(codes.scale)[0] == 0.5


@pytest.mark.parametrize(("recipe", "least"), [("a16w8", 38), ("a16w4", 15), ("dynamic8", 30), ("block4", 15)])
def test_every_runtime_answers_alike(model, images, recipe, least):
    quantized = lowbit.quantize(model, recipe, calibration=images, steps=[])
    x = networks.inputs(8, seed=3)
    wanted = answers(model.to_bytes(), x)
    for to, engine in FORMS if recipe != "block4" else FORMS[:2]:
        assert decibels(wanted, answers(quantized.to_bytes(FileForm(to=to)), x, engine)) > least
    assert quantized.plan.limits
    assert Plan.from_json(quantized.plan.to_json()) == quantized.plan


def test_16_bits_come_closer_than_8(model, images):
    x = networks.inputs(8, seed=3)
    wanted = answers(model.to_bytes(), x)
    wide, narrow = (
        answers(lowbit.quantize(model, recipe, calibration=images, steps=[]).to_bytes(), x)
        for recipe in ("a16w8", "int8")
    )
    assert decibels(wanted, wide) > decibels(wanted, narrow) + 2


def test_16_bit_codes_are_the_same_in_onnx_and_litert(model, images):
    """One computes in float on codes, the other in integers: they differ by roundings of 16 bits."""
    quantized = lowbit.quantize(model, "a16w8", calibration=images, steps=[])
    x = networks.inputs(8, seed=3)
    assert (
        decibels(answers(quantized.to_bytes(), x), answers(quantized.to_bytes(FileForm(to=LITERT)), x, "litert")) > 70
    )


def test_16_bit_files_for_openvino_leave_activations_float(model, images):
    quantized = lowbit.quantize(model, "a16w8", calibration=images, steps=[])
    proto = onnx.load_from_string(quantized.to_bytes(FileForm(to=OPENVINO)))
    assert not any(node.op_type == "QuantizeLinear" for node in proto.graph.node)


def test_products_of_16_bit_codes_are_not_rounded_to_8(products):
    """ONNX Runtime would make MatMulNBits of a DequantizeLinear that a product reads, and round its input."""
    x = rows()
    data = lowbit.open_images(list(rows(16, seed=1)), None, values="model")
    quantized = lowbit.quantize(products, "a16w8", calibration=data, steps=[])
    weights_alone = answers(quantized.to_bytes(FileForm(to=OPENVINO)), x)
    assert decibels(weights_alone, answers(quantized.to_bytes(), x)) > 65


def test_relu_stays_in_front_of_codes_that_reach_below_zero(model, images):
    quantized = lowbit.quantize(model, lowbit.parse_recipe("int8", target="tensorrt"), calibration=images, steps=[])
    operators = [node.op_type for node in onnx.load_from_string(quantized.to_bytes()).graph.node]
    assert operators.count("Clip") == 4
    assert "Clip" not in [node.op_type for node in onnx.load_from_string(
        lowbit.quantize(model, lowbit.parse_recipe("int8", target="qnn"), calibration=images, steps=[]).to_bytes()
    ).graph.node]  # fmt: skip


def test_a_clip_that_no_kernel_does_clamps_16_bit_codes(images):
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [make_node("Conv", "x w", "a"), make_node("Clip", "a low high", "b"), make_node("Conv", "b v", "y")]
    constants = {"w": weight, "v": weight[:, :1].repeat(4, 1), "low": np.float32(-0.5), "high": np.float32(1.5)}
    network = lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], constants))
    data = lowbit.open_images(list(networks.inputs(16)), None, values="model")
    quantized = lowbit.quantize(network, "a16w8", calibration=data, steps=[])
    x = networks.inputs(4, seed=3)
    content = quantized.to_bytes(FileForm(to=LITERT))
    assert decibels(answers(quantized.to_bytes(), x), answers(content, x, "litert")) > 60


def test_powers_of_two_are_scales_of_weights_activations_and_biases(model, images):
    recipe = lowbit.parse_recipe("int8", scales="pow2")
    graph = lowbit.quantize(model, recipe, calibration=images, effort="fast").graph
    scales = [codes.scale for codes in graph.weights.values()] + [bias.scale for bias in graph.biases.values()]
    scales += [np.array(codes.scale) for codes in graph.activations.values()]
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in scales)
    assert all(codes.scale.size == 1 for codes in graph.weights.values())
    assert all(int(codes.stored_zero_point) == 0 for codes in graph.activations.values())


def test_powers_of_two_per_channel():
    scheme = lowbit.parse_recipe("int8", scales="pow2", per="channel").weights
    weight = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32)
    codes = scheme.encode(weight)
    assert codes.scale.size == 8
    assert (np.abs(codes.decode() - weight) <= codes.scale[:, None] / 2 * 1.0001).all()  # nothing is clipped
    assert (np.abs(weight).max(axis=1) > 127 * codes.scale / 2).all()  # and half the scale would clip


@pytest.mark.parametrize(("device", "bits"), [(name, bits) for name, row in DEVICES.items() for bits in row.kinds])
def test_files_for_devices_keep_their_rules(model, images, device, bits):
    row = DEVICES[device]
    recipe = lowbit.parse_recipe("int8" if bits == 8 else "a16w8", target=device)
    quantized = lowbit.quantize(model, recipe, calibration=images, steps=[])
    x = networks.inputs(8, seed=3)
    wanted = answers(model.to_bytes(), x)
    for form in row.files:
        content = quantized.to_bytes(FileForm(to=form))
        rules, engine = (litert_violations, "litert") if form == LITERT_FILE else (onnx_violations, "onnxruntime")
        assert rules(content, row) == ()
        assert decibels(wanted, answers(content, x, engine)) > 15
    assert row.sources
    assert any("has not run on the device" in sentence for sentence in quantized.plan.limits)


def test_rules_find_what_breaks_them(model, images):
    quantized = lowbit.quantize(model, lowbit.parse_recipe("int8", target="x86-vnni"), calibration=images, steps=[])
    content = quantized.to_bytes()
    found = {name: " ".join(onnx_violations(content, row)) for name, row in DEVICES.items()}
    assert "activations of uint8" in found["tensorrt"]
    assert "a bias of integers" in found["tensorrt"]
    assert "5 scales for the weights of a Gemm" in found["qnn"]
    assert "activations of uint8" in found["stm32n6"]
    wide = lowbit.quantize(model, "a16w8", calibration=images, steps=[]).to_bytes(FileForm(to=LITERT))
    assert "activations of int16" in " ".join(litert_violations(wide, DEVICES["stm32n6"]))
    floats = onnx_violations(
        lowbit.quantize(model, lowbit.parse_recipe("int8", target="tensorrt"), calibration=images, steps=[]).to_bytes(),
        DEVICES["qnn"],
    )
    assert any("a float bias" in sentence for sentence in floats)
    with pytest.raises(ModelError, match="is not an ONNX file"):
        onnx_violations(b"no file", DEVICES["qnn"])


def test_what_runs_on_the_cpu_beside_a_device_is_named(images, tmp_path):
    """Operators that are on no list; on lists of LiteRT's operators ONNX nodes are not looked for."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [make_node("Conv", "x w", "a"), make_node("Erf", "a", "b"), make_node("Conv", "b v", "c")]
    nodes += [make_node("MaxPool", "c", "d", kernel_shape=[2, 2]), make_node("Softmax", "d", "y", axis=1)]
    constants = {"w": weight, "v": weight[:, :1].repeat(4, 1)}
    network = lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], constants))
    data = lowbit.open_images(list(networks.inputs(16)), None, values="model")

    def said(device, name):
        quantized = lowbit.quantize(network, lowbit.parse_recipe("int8", target=device), calibration=data, steps=[])
        return [note for note in quantized.notes_on(quantized.save(tmp_path / name)) if note.startswith("Target")]

    on_list, sizes = said("qnn", "qnn.onnx")
    assert on_list == "Target qnn: the CPU runs 1 Erf: not on the compiler's list of operators."
    assert sizes.startswith("Target qnn: the compiler takes fixed sizes only, and x has open ones")
    assert "the CPU runs 1 Softmax: ST's table" in said("stm32n6", "st.onnx")[0]
    assert said("tensorrt", "rt.onnx") == []
    assert "2 DEQUANTIZE" in said("ethos-u", "ethos.tflite")[0]
    fixed = onnx.load(tmp_path / "qnn.onnx")
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert onnx_beside(fixed.SerializeToString(), DEVICES["qnn"]) == (on_list.removeprefix("Target qnn: ")[:-1],)


def test_operators_that_are_not_on_a_devices_list_stay_float(model, monkeypatch):
    name = next(str(node.name) for node in model.graph if node.op_type == "ReduceMean")
    row = replace(DEVICES["qnn"], operators=DEVICES["qnn"].operators - {"ReduceMean"})
    monkeypatch.setitem(DEVICES, "qnn", row)
    decision = lowbit.plan(model, lowbit.parse_recipe("int8", target="qnn"))
    (node,) = (node for node in decision.nodes if node.node == name)
    assert (node.arithmetic, node.reason) == ("float", "not on the compiler's list of operators")


def test_lists_of_operators_are_spelled_as_their_formats_do():
    for row in DEVICES.values():
        known = frozenset(NAMES) if row.files == (LITERT_FILE,) else frozenset(onnx_operators())
        assert row.operators <= known
        assert row.on_cpu.keys() <= known


def onnx_operators():
    # Named by the execution provider's list, in ONNX only by their contributed or future forms.
    return {schema.name for schema in onnx.defs.get_all_schemas()} | {"Inverse", "RotaryEmbedding", "Upsample"}


def test_devices_refuse_what_they_do_not_take(model, images):
    with pytest.raises(SchemeError, match="takes no activations of 16 bits"):
        lowbit.parse_recipe("a16w8", target="tensorrt")
    quantized = lowbit.quantize(model, lowbit.parse_recipe("int8", target="ethos-u"), calibration=images, steps=[])
    with pytest.raises(SchemeError, match="takes litert files"):
        quantized.to_bytes()
    with pytest.raises(SchemeError, match="take no image bytes"):
        check_kind(quantized.plan, FileForm(to=LITERT, input="uint8"))
    with pytest.raises(SchemeError, match="has codes of 16 bits"):
        check_kind(lowbit.plan(model, "a16w8"), FileForm(to=LITERT, input="int8"))


def test_engines_get_files_of_their_own(model, products):
    """Only kernels of CPUs have an expected speed."""
    assert lowbit.plan(model, "dynamic8").own_files
    assert lowbit.plan(products, "block4").own_files
    assert not lowbit.plan(model, "linear4").own_files
    assert lowbit.plan(model, "int8").has_cpu_kernels
    assert not lowbit.plan(model, "a16w8").has_cpu_kernels
    assert not lowbit.plan(model, lowbit.parse_recipe("int8", target="qnn")).has_cpu_kernels


def test_rules_mix_kinds_where_a_file_can(products):
    data = lowbit.open_images(list(rows(16, seed=1)), None, values="model")
    mixed = lowbit.quantize(products, "linear8", rules=["m=dynamic8", "z=block4"], calibration=data, steps=[])
    operators = [node.op_type for node in onnx.load_from_string(mixed.to_bytes()).graph.node]
    assert [operators.count(name) for name in ("MatMulInteger", "MatMulNBits", "MatMul")] == [1, 1, 1]
    wide = lowbit.quantize(products, "linear8", rules=["m=a16w8", "r=a16w8"], calibration=data, steps=[])
    assert {codes.kind for codes in wide.graph.activations.values()} == {INT16}
    assert Plan.from_json(wide.plan.to_json()) == wide.plan
    x = rows()
    for each in (mixed, wide):
        assert decibels(answers(products.to_bytes(), x), answers(each.to_bytes(), x)) > 15
    with pytest.raises(SchemeError, match="hold activations in different ways"):
        lowbit.plan(products, "int8", rules=["m=a16w8"])


def test_inputs_of_products_are_quantized_as_they_run(products, tmp_path):
    quantized = lowbit.quantize(products, "dynamic8")
    path = quantized.save(tmp_path / "dynamic.onnx")
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("MatMulInteger") == 3
    assert operators.count("DynamicQuantizeLinear") == 3
    x = rows()
    wanted = answers(products.to_bytes(), x)
    for to, engine in FORMS:
        assert decibels(wanted, answers(quantized.to_bytes(FileForm(to=to)), x, engine)) > 30
    check_stored(path, quantized)


def test_only_what_is_fast_is_dynamic(model, tmp_path):
    """Convolutions stay float in ONNX; the numbers of a file are those of the weights."""
    path = lowbit.quantize(model, "dynamic8").save(tmp_path / "dynamic.onnx")
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert "ConvInteger" not in operators
    assert operators.count("MatMulInteger") == 1


@pytest.mark.parametrize("options", [{}, {"per": "group", "group_size": 128}, {"symmetric": True}])
def test_large_products_read_blocks(products, tmp_path, options):
    data = lowbit.open_images(list(rows(16, seed=1)), None, values="model")
    quantized = lowbit.quantize(products, lowbit.parse_recipe("block4", **options), calibration=data, effort="fast")
    path = quantized.save(tmp_path / "block.onnx")
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("MatMulNBits") == 2
    assert operators.count("MatMul") == 1  # the small one
    x = rows()
    standard = quantized.to_bytes(FileForm(to=OPENVINO))
    assert "MatMulNBits" not in [node.op_type for node in onnx.load_from_string(standard).graph.node]
    assert decibels(answers(standard, x), answers(path.read_bytes(), x)) > 110
    check_stored(path, quantized)


def check_stored(path, quantized):
    """What is read from a file is what the graph's codes decode to, and the ledger counts each weight once."""
    found, of_layers = layer_weights(path), layers(quantized.model)
    for layer in of_layers:
        assert np.array_equal(found[layer.node], quantized.graph.weights[layer.weight].decode())
    ledger = read_ledger(path)
    assert ledger.counts["codes"] == sum(int(np.prod(layer.weight_shape)) for layer in of_layers)
    assert ledger.total == path.stat().st_size


def test_blocks_of_another_size_are_decoded_at_load(products):
    recipe = lowbit.parse_recipe("block4", per="group", group_size=48)
    content = lowbit.quantize(products, recipe).to_bytes()
    assert "MatMulNBits" not in [node.op_type for node in onnx.load_from_string(content).graph.node]


def test_channels_whose_scales_grow_for_their_biases_are_named():
    weight = np.full((2, 3, 1, 1), 1e-9, np.float32)
    nodes = [make_node("Conv", "x w b", "y", name="tiny"), make_node("Conv", "y w2", "z")]
    constants = {"w": weight, "b": np.array([5.0, -3.0], np.float32), "w2": np.ones((1, 2, 1, 1), np.float32)}
    network = lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["z"], constants))
    data = lowbit.open_images(list(networks.inputs(16)), None, values="model")
    quantized = lowbit.quantize(network, "int8", calibration=data, steps=[])
    assert any("2 channels (of tiny)" in note and "32 bits" in note for note in quantized.notes)
    wide = lowbit.quantize(network, "a16w8", calibration=data, steps=[])
    assert np.abs(wide.graph.biases["tiny"].codes).max() <= WIDE_LIMIT
    assert np.abs(wide.graph.biases["tiny"].codes).max() > INT32_LIMIT
    x = networks.inputs(4, seed=3)
    for to, engine in FORMS:
        assert decibels(answers(network.to_bytes(), x), answers(wide.to_bytes(FileForm(to=to)), x, engine)) > 60
    assert large_biases({}, INT32_LIMIT) == ""


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linear8", {"scales": "pow2"}, "has no integers on even levels"),
        ("int8", {"scales": "pow3"}, "unknown scales"),
        ("a16w9", {}, "needs a bit width from 4 to 8"),
        ("a16", {}, "unknown recipe"),
        ("dynamic8", {"target": "qnn"}, "the same for every target"),
    ],
)
def test_options_that_do_not_fit(name, options, message):
    with pytest.raises(SchemeError, match=message):
        lowbit.parse_recipe(name, **options)


def test_every_family_has_a_name_that_reads_back():
    for widths, make_recipe, _ in RECIPES.values():
        for bits in (widths[0], widths[-1]):
            recipe = make_recipe(bits)
            assert lowbit.parse_recipe(recipe.name) == recipe


@pytest.mark.parametrize(
    ("recipe", "options", "kept"), [("int8", {}, 0), ("int8", {"scales": "pow2"}, 1), ("a16w8", {}, 1)]
)
def test_a_clip_around_zero_is_done_by_saturation_where_codes_end_with_it(recipe, options, kept):
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [make_node("Conv", "x w", "a"), make_node("Clip", "a low high", "b"), make_node("Conv", "b v", "y")]
    constants = {"w": weight, "v": weight[:, :1].repeat(4, 1), "low": np.float32(-1), "high": np.float32(1)}
    network = lowbit.load(make(nodes, {"x": ["n", 3, 16, 16]}, ["y"], constants))
    data = lowbit.open_images(list(networks.inputs(16)), None, values="model")
    content = lowbit.quantize(network, lowbit.parse_recipe(recipe, **options), calibration=data, steps=[]).to_bytes()
    assert [node.op_type for node in onnx.load_from_string(content).graph.node].count("Clip") == kept


@pytest.mark.parametrize("device", DEVICES)
def test_plans_for_devices_can_be_followed(model, device):
    decision = lowbit.plan(model, lowbit.parse_recipe("int4", target=device))
    assert followable(model, Plan.from_json(decision.to_json())) == decision
    assert not decision.packed
