"""Figures of layers against what networks really do, causes, and cures that are measured."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import doctored
import lowbit
import networks
from graphs import make, make_node
from lowbit.calibration.answers import float_answers
from lowbit.calibration.batches import as_runs
from lowbit.calibration.divergence import mean_kl
from lowbit.data.opening import open_data
from lowbit.diagnosis import treatment
from lowbit.diagnosis.causes import CAUSES, Patient, cause_of
from lowbit.diagnosis.diagnosis import diagnose
from lowbit.diagnosis.findings import FileFigures, LayerFigures
from lowbit.diagnosis.layers import examined
from lowbit.diagnosis.trials import pattern_of, with_rule
from lowbit.engines import open_session
from lowbit.graph.ops import layers
from lowbit.graph.subgraph import Subgraphs
from lowbit.quantization.planning.recipes import parse_recipe
from lowbit.quantization.planning.rules import RuleLayer, parse_rule

QUICKLY = parse_recipe("int8", ranges="minmax")  # ranges are searched for in tests of their own


@pytest.fixture(scope="module")
def case():
    model = lowbit.load(networks.residual_network())
    data = as_runs(model, open_data({"x": networks.inputs(16)}, model))
    return examined(model, lowbit.plan(model, "int4", rules=["fc=float"], steps=()), data)


@pytest.fixture(scope="module")
def healthy():
    subject = doctored.subject()
    return diagnose(subject.model, subject.test, QUICKLY, calibration=subject.calibration)


def tensors(model, names, weights, x):
    piece, _ = Subgraphs(model).extract(["x"], names, weights=weights)
    return open_session(piece, threads=1).run({"x": x})


def test_errors_in_closed_form_are_those_of_the_network(case):
    """The codes of one layer's weights put into the float network; moments see only a sample of positions."""
    x = networks.inputs(16)
    for layer, figures in zip(layers(case.model), case.figures, strict=True):
        if layer.weight not in case.codes:
            assert figures.weight_error == figures.damage == 0
            assert figures.sqnr_db is None
            continue
        decoded = {layer.weight: case.codes[layer.weight].decode()}
        exact, coded = (tensors(case.model, [layer.output], each, x)[layer.output] for each in ({}, decoded))
        rows = np.moveaxis(exact, 1, 0).reshape(layer.out_channels, -1)
        power = rows.var(axis=1).sum()
        error = np.square(exact - coded).sum() / rows.shape[1]
        assert figures.weight_error == pytest.approx(error / power, rel=0.05)


def test_damage_is_the_distance_of_the_answers(case):
    x = networks.inputs(16)
    layer, figures = layers(case.model)[3], case.figures[3]
    (name,) = (output.name for output in case.model.outputs)
    exact, coded = (
        tensors(case.model, [name], each, x)[name] for each in ({}, {layer.weight: case.codes[layer.weight].decode()})
    )
    assert figures.weight_damage == pytest.approx(mean_kl(exact, coded), rel=1e-3)
    assert figures.input_damage > 0
    assert figures.by_input == (figures.input_damage > figures.weight_damage)


def test_dead_channels_are_counted():
    proto = networks.residual_network()
    model = lowbit.load(proto)
    bias = model.weights["stem.bias"].copy()
    bias[[2, 5]] = -1e3
    model = model.with_weights({"stem.bias": bias})
    data = as_runs(model, open_data({"x": networks.inputs(8)}, model))
    figures = examined(model, lowbit.plan(model, "linear4"), data).figures
    assert figures[0].dead == 2


def test_nothing_is_named_in_a_network_that_loses_nothing(healthy):
    assert not healthy.findings
    assert healthy.cured is None
    assert healthy.written.distance < treatment.NOTICEABLE
    measured = [layer for layer in healthy.layers if layer.alone is not None]
    assert measured
    assert all(layer.without is not None for layer in measured)
    json.dumps(healthy.to_data(), allow_nan=False)


@pytest.fixture(scope="module")
def planted():
    """A channel 200 times as large in the first layer of the color network, found with its cure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
        fault = importlib.import_module("planted").outlier_channel(doctored.subject(), np.random.default_rng(1))
    return fault, diagnose(fault.model, fault.test, QUICKLY, calibration=fault.calibration)


def test_a_channel_that_is_200_times_as_large_is_named_with_a_cure(planted):
    fault, result = planted
    (finding,) = result.of("outlier channel")
    assert finding.where == f"{fault.where} (Conv)"
    assert "x as far" in finding.what
    assert finding.gain is not None
    assert result.cured.distance < treatment.CURED * result.written.distance


def test_a_gain_is_that_of_the_file_that_the_plan_gives(planted, tmp_path):
    fault, result = planted
    path = tmp_path / "plan.json"
    lowbit.write_plan(result.plan, fault.model, path)
    decision = lowbit.read_plan(path, fault.model)
    content = lowbit.quantize(fault.model, decision, calibration=fault.calibration).to_bytes()
    assert len(content) == result.cured.file_bytes
    exact, coded = (
        np.asarray(*float_answers(each, fault.model, fault.test).values()) for each in (fault.model.to_bytes(), content)
    )
    assert mean_kl(exact, coded) == pytest.approx(result.cured.distance, rel=1e-6)


def patient(**figures):
    """A layer of some figures behind another one; the network itself does not matter."""
    layer = layers(lowbit.load(doctored.color_network()))[1]
    own = {"node": "second", "op": "Conv", "depthwise": False, "weight_error": 0.1}
    model = lowbit.load(doctored.color_network())
    decision = lowbit.plan(model, "int8")

    case = SimpleNamespace(decision=decision)
    given = {name: value for name, value in figures.items() if name not in ("source", "recipe")}
    source = LayerFigures(**{**own, "node": "first", **figures.get("source", {})})
    recipe = figures.get("recipe", parse_recipe("int8"))
    return Patient(case, LayerFigures(**{**own, **given}), layer, source, recipe, "fast")


@pytest.mark.parametrize(
    ("figures", "cause", "cure"),
    [
        ({"input_damage": 1.0, "source": {"channel_ratio": 90.0}}, "outlier channel", "--effort balanced"),
        (
            {"input_damage": 1.0, "source": {"outlier_ratio": 9.0, "outlier": "a.png"}},
            "outlier sample",
            "--ranges extremes",
        ),
        ({"input_damage": 1.0, "clipped": 0.02}, "clipping", "--ranges minmax"),
        (
            {"weight_damage": 1.0, "weight_ratio": 120.0, "recipe": parse_recipe("int8", per="tensor")},
            "channel ranges",
            "--per channel",
        ),
        ({"weight_damage": 1.0, "mean_error": 0.09}, "bias shift", "--effort balanced"),
        ({"input_damage": 1.0}, "coarse activations", "--effort balanced"),
        ({"weight_damage": 1.0, "recipe": parse_recipe("linear3")}, "coarse weights", "--rule second=linear8"),
        ({"weight_damage": 1.0, "recipe": parse_recipe("int4")}, "coarse weights", "--rule second=int8"),
    ],
)
def test_each_cause_has_its_words_and_its_cure(figures, cause, cure):
    found = patient(**figures)
    row = cause_of(found)
    assert row.name == cause
    assert row.words(found)
    assert row.where(found) in ("first (Conv)", "second (Conv)")
    assert row.cures(found)[0].option == cure


def test_an_input_in_float_needs_the_layer_before_it_too():
    found = patient(input_damage=1.0, clipped=0.02)
    assert cause_of(found).cures(found)[1].option == "--rule '[f]irst=linear8' --rule second=linear8"


def test_the_last_cause_always_applies():
    assert CAUSES[-1].applies(patient())


@pytest.mark.parametrize("name", ["first", "op:x", "a[0]", "a*b", "features.0"])
def test_a_rule_for_any_name_speaks_of_that_node(name):
    rule = parse_rule(f"{pattern_of(name)}=linear8")
    assert rule.chooses(RuleLayer((name,), ("Conv",), "w"))
    assert not rule.chooses(RuleLayer((name + "x",), ("Conv",), "w", first=True))


def test_rules_that_are_a_function_stay_in_force():
    model = lowbit.load(networks.residual_network())
    layer = layers(model)[0]
    rules = with_rule(lambda asked: "linear4" if asked.depthwise else None, layer, "float")
    given = {tensor.tensor: tensor.given for tensor in lowbit.plan(model, "linear8", rules=rules).tensors}
    assert given["stem.weight"] is None
    assert given["deep.weight"].bits == 4
    assert given["wide.weight"].bits == 8


def test_a_file_that_answers_with_no_numbers_is_infinitely_far():
    float_file = FileFigures(0.9, None, 100)
    assert treatment.is_noticeable(replace(float_file, metric=None), float_file)
    assert not treatment.is_noticeable(FileFigures(0.9, 0.001, 100), float_file)
    assert treatment.is_noticeable(FileFigures(0.85, 0.001, 100), float_file)


def test_tensors_that_are_not_counted_by_samples_do_not_stop_the_diagnosis():
    """A table of positions has one row, however many samples there are; windows have several of each."""
    generator = np.random.default_rng(0)
    drawn = {name: generator.normal(size=(16, 16)).astype(np.float32) / 4 for name in ("w", "p", "q")}
    weights = {**drawn, "table": generator.normal(size=(1, 8, 16)).astype(np.float32), "half": np.array([-1, 4, 16])}
    nodes = [make_node("Shape", "x", "size"), make_node("ConstantOfShape", "size", "zeros", name="zeros")]
    nodes += [make_node("ReduceMax", "zeros", "zero", axes=[0], keepdims=1), make_node("Add", "zero table", "places")]
    nodes += [make_node("MatMul", "places p", "at", name="positions"), make_node("MatMul", "x w", "h", name="first")]
    nodes += [make_node("Add", "h at", "s"), make_node("Reshape", "s half", "r"), make_node("Tanh", "r", "t")]
    nodes += [make_node("MatMul", "t q", "y", name="windows")]
    model = lowbit.load(make(nodes, {"x": ["n", 8, 16]}, ["y"], weights))
    x = generator.normal(size=(40, 8, 16)).astype(np.float32)
    found = diagnose(model, {"x": x[:20]}, "int8", calibration={"x": x[20:]})
    assert {layer.node for layer in found.layers} == {"positions", "first", "windows"}
