"""Rules and plan files on the command line."""

import json

import numpy as np
import onnx
import pytest

import networks
from test_cli import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("rules")
    onnx.save(networks.residual_network(), root / "net.onnx")
    np.savez(root / "samples.npz", x=networks.inputs(8))
    np.savez(root / "others.npz", x=networks.inputs(8, seed=5))
    return root


def test_the_table_says_which_rule_gave_what(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rules = ("--rule", "depthwise=linear8", "--rule", "fc=int8")
    code, out, _ = run("plan", folder / "net.onnx", "-r", "linear4", *rules, capsys=capsys)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "depthwise=linear8" in rows["deep.weight"]
    assert "fc=int8" in rows["fc.weight"]
    assert "1 node in integers" in out
    code, out, _ = run("plan", folder / "net.onnx", "-r", "linear4", *rules, "--json", capsys=capsys)
    data = json.loads(out)
    assert data["rules"] == ["depthwise=linear8", "fc=int8"]
    assert {line["tensor"]: line.get("rule") for line in data["tensors"]}["deep.weight"] == "depthwise=linear8"
    code, out, _ = run("plan", folder / "net.onnx", "-r", "linear4", capsys=capsys)
    assert "rule" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-r", "int8", "--rule", "stam=float"), "Did you mean stem"),
        (("-r", "int8", "--rule", "stem=lineer8"), "Did you mean linear8"),
        (("-r", "int8", "--rule", "stem"), "PATTERN=RECIPE"),
        (("--rule", "stem=float"), "no recipe is given"),
        (("-r", "linear4", "--target", "x86"), "computes in float"),
        (("-r", "linear4", "--target", "x87", "--rule", "fc=int8"), "unknown target 'x87'"),
        (("--plan", "none.json"), "the plan cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_exit_code_2(folder, arguments, said, capsys):
    code, _, err = run("plan", folder / "net.onnx", *arguments, capsys=capsys)
    assert code == 2
    assert said in err


def test_a_plan_is_written_edited_shown_and_followed(folder, tmp_path, capsys):
    path = tmp_path / "plan.json"
    how = ("-r", "int8", "--ranges", "minmax", "--target", "x86-vnni", "--rule", "stem=float")
    assert run("plan", folder / "net.onnx", *how, "-o", path, capsys=capsys)[0] == 0
    text = path.read_text().replace(
        '"tensor": "deep.weight", "given": "int8"', '"tensor": "deep.weight", "given": "linear8"'
    )
    assert text != path.read_text()
    path.write_text(text)
    code, out, _ = run("plan", folder / "net.onnx", "--plan", path, "--json", capsys=capsys)
    shown = json.loads(out)
    assert code == 0
    assert shown["recipe"] == {"recipe": "int8", "ranges": "minmax", "target": "x86-vnni"}
    assert shown["rules"] == ["stem=float", "edited by hand"]
    output = tmp_path / "out.onnx"
    quantize = ("quantize", folder / "net.onnx", "--plan", path, "-o", output)
    code, out, _ = run(*quantize, "--calibration", folder / "samples.npz", "--steps", "bias", "--json", capsys=capsys)
    assert code == 0
    made = json.loads(out)
    assert made["rules"] == shown["rules"]
    assert made["plan"]["steps"] == ["bias"]
    assert [step["name"] for step in made["steps"]] == ["bias correction"]
    assert made["file_bytes"] == output.stat().st_size
    code, _, err = run(*quantize, "-r", "int8", capsys=capsys)
    assert code == 2
    assert "the plan says already" in err
    code, _, err = run(*quantize, capsys=capsys)
    assert code == 2
    assert "--calibration DIR" in err


@pytest.mark.usefixtures("quick_measuring")
def test_comparisons_name_their_rules(folder, tmp_path, capsys):
    how = ("--data", folder / "others.npz", "--calibration", folder / "samples.npz", "--runs", "0", "--effort", "fast")
    more = ("--recipes", "linear8", "--rule", "depthwise=linear6", "--rule", "fc=int8", "--target", "x86")
    code, out, err = run("compare", folder / "net.onnx", *how, *more, "--out", tmp_path / "a", "--json", capsys=capsys)
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["recipe"] for row in rows] == ["float", "linear8"]
    said = "quantized by rules: depthwise=linear6, fc=int8."
    assert said in rows[1]["details"]["notes"]
    assert said not in rows[0]["details"]["notes"]
    schemes = {layer["name"]: layer["scheme"] for layer in rows[1]["details"]["layers"]}
    assert schemes["deep"] == "linear6/channel"
    file = tmp_path / "a" / "net-linear8.onnx"
    how = ("--data", folder / "others.npz", "--runs", "0", "--json")
    code, out, _ = run("measure", folder / "net.onnx", file, *how, capsys=capsys)
    assert said in json.loads(out)["rows"][1]["details"]["notes"]
    code, _, err = run(
        "compare", folder / "net.onnx", *how, "--recipes", "int8,int8", "--out", tmp_path / "b", capsys=capsys
    )
    assert code == 2
    assert "two files would be called 'int8'" in err
