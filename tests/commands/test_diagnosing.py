"""`lowbit diagnose`: what is printed, what is written, and what is refused."""

import json

import numpy as np
import onnx
import pytest
from PIL import Image

import doctored
import networks
from lowbit.diagnosis.findings import Diagnosis, FileFigures, Finding, Gain, LayerFigures, TensorRow
from lowbit.reports.console import Console
from lowbit.reports.diagnosis import print_diagnosis
from test_cli import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("doctor")
    onnx.save(doctored.color_network(), root / "net.onnx")
    for part, seed in (("test", 1), ("calibration", 2)):
        images, labels = doctored.pixels(24, seed=seed)
        for index, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            (root / part / doctored.NAMES[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / part / doctored.NAMES[label] / f"{index}.png")
    return root


def test_findings_are_said_and_a_plan_is_written_that_quantize_follows(folder, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    how = ("--data", folder / "test", "--calibration", folder / "calibration")
    code, out, err = run(
        "diagnose",
        folder / "net.onnx",
        "-r",
        "linear8",
        *how,
        "--mean",
        "0",
        "--std",
        "1",
        "--apply",
        plan,
        capsys=capsys,
    )
    assert code == 0, err
    assert "--mean imagenet --std imagenet" in out
    assert "as quantized" in out
    code, _, err = run("quantize", folder / "net.onnx", "--plan", plan, "-o", tmp_path / "out.onnx", capsys=capsys)
    assert code == 0, err


def test_json_is_one_object(folder, capsys):
    broken = folder / "calibration" / doctored.NAMES[0] / "0.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    code, out, _ = run(
        "diagnose", folder / "net.onnx", "-r", "float", "--data", folder / "test", "--calibration",
        folder / "calibration", "--json", capsys=capsys,
    )  # fmt: skip
    broken.write_bytes(whole)
    assert code == 0
    (finding,) = json.loads(out)["findings"]
    assert finding["cause"] == "corrupt sample"
    assert finding["where"].endswith("0.png")


def test_two_files_are_compared(folder, tmp_path, capsys):
    assert run("quantize", folder / "net.onnx", "-r", "linear8", "-o", tmp_path / "w.onnx", capsys=capsys)[0] == 0
    how = ("--data", folder / "test", "--limit", "6", "--against", tmp_path / "w.onnx")
    code, out, err = run("diagnose", folder / "net.onnx", *how, capsys=capsys)
    assert code == 0, err
    assert "Nothing was found" in out
    assert "second" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--data is missing"),
        (("--data", "{test}", "--plan", "{net}"), "a plan cannot be diagnosed"),
        (("--data", "{test}", "--against", "{net}", "-r", "int8"), "compares two files"),
        (("--data", "{test}", "--apply", "{net}"), "is what the command reads"),
        (("--data", "{test}", "-r", "int9"), "needs a bit width"),
        (("--data", "{test}", "--rule", "nobody=float"), "speaks of nothing"),
    ],
)
def test_what_is_wrong_is_said_with_exit_code_2(folder, arguments, said, capsys):
    given = [text.format(test=folder / "test", net=folder / "net.onnx") for text in arguments]
    code, _, err = run("diagnose", folder / "net.onnx", *given, capsys=capsys)
    assert code == 2
    assert said in err


def test_samples_that_are_no_images_can_be_diagnosed(tmp_path, capsys):
    onnx.save(networks.residual_network(), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=networks.inputs(8))
    code, out, err = run(
        "diagnose", tmp_path / "net.onnx", "-r", "linear4", "--data", tmp_path / "x.npz", capsys=capsys
    )
    assert code == 0, err
    assert "set apart" in out


def test_everything_fits_into_80_columns(capsys):
    layer = LayerFigures(
        "a.very.long.name.of.a.layer.in.a.block", "Conv", depthwise=True, weight_error=1.2e-3, input_error=3.4e-12,
        sqnr_db=-12.3, channel_ratio=213.4, clipped=0.9991, dead=1024, weight_damage=12.0,
        alone=FileFigures(0.5, 1.2e-10, 100), without=FileFigures(0.5, 1.2e10, 100),
    )  # fmt: skip
    gain = Gain(FileFigures(0.612, 0.5, 1000), FileFigures(0.799, 0.05, 4000))
    cure = "--rule features.1.conv.0=linear8"
    finding = Finding("channel ranges", "features.1.conv.0 (depthwise)", "channel ranges 120x apart", cure, gain)
    found = Diagnosis(
        "net.onnx", "int8", (finding,), (layer,), *([FileFigures(0.8, None, 4000)] * 4),
        metric="accuracy", percent=True, measure="KL",
        tensors=(TensorRow("a.very.long.name.of.a.layer", "t", "another/very/long/name/of/a/tensor"),),
    )  # fmt: skip
    print_diagnosis(found, console=Console(width=80))
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    text = " ".join(out.split())
    assert "features.1.conv.0 (depthwise): channel ranges 120x apart." in text
    assert "--rule features.1.conv.0=linear8 brings accuracy 61.2 % -> 79.9 %, KL 0.50 -> 0.050, for 3.00 kB." in text
    for cell in ("1e-3", "a.block", "213×", "99.91", "1024", "1.2e10"):
        assert cell in out
