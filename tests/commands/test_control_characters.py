"""A model's names never move the cursor, set the title, or make a line that looks like lowbit's."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from lowbit.console import say
from lowbit.errors import ModelError
from lowbit.printable import printable
from lowbit.progress import SILENT
from lowbit.reports.markup import element
from lowbit.reports.progress import bar
from test_cli import run

# A title, a C1 code, a forged line, a return that writes over it, a cleared screen, a turned direction; rich's markup.
EVIL = "\x1b]0;evil\x07\x9b31m\nError: forged\r\x1b[2J\u202e[/bold]"
# What rich writes itself: colors, and for a bar the cursor.
STYLES = re.compile(r"\x1b\[[0-9;]*m")

pytestmark = pytest.mark.usefixtures("quick_measuring")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp(f"evil{EVIL[:4]}")
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(8, 3, 3, 3)), "b": rng.normal(size=(10, 8))}
    nodes = [("Conv", "x w", "c"), ("Relu", "c", "r"), ("GlobalAveragePool", "r", "g"), ("Flatten", "g", "f")]
    made = [
        helper.make_node(op, [name + EVIL for name in read.split()], [out + EVIL], name=op + EVIL)
        for op, read, out in (*nodes, ("MatMul", "f t", "y"))
    ]
    made.insert(0, helper.make_node("Transpose", ["b" + EVIL], ["t" + EVIL], name="turn" + EVIL))
    graph = helper.make_graph(
        made,
        "graph" + EVIL,
        [helper.make_tensor_value_info("x" + EVIL, onnx.TensorProto.FLOAT, ["N" + EVIL, 3, 8, 8])],
        [helper.make_tensor_value_info("y" + EVIL, onnx.TensorProto.FLOAT, ["N" + EVIL, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name + EVIL) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, root / "net.onnx")
    model.graph.node[1].op_type = "Odd" + EVIL
    model.graph.node[1].domain = "domain" + EVIL
    onnx.save(model, root / "odd.onnx")
    del model.graph.node[2]
    model.graph.node[1].op_type, model.graph.node[1].domain = "Conv", ""
    onnx.save(model, root / "broken.onnx")
    np.savez(root / "data.npz", x=rng.normal(size=(8, 3, 8, 8)).astype(np.float32))
    np.savez(root / "labels.npz", **{"x" + EVIL: rng.normal(size=(8, 3, 8, 8)).astype(np.float32)})
    return root


COMMANDS = (
    "inspect {net}",
    "inspect {net} --speed",
    "inspect {net} --json",
    "inspect {odd}",
    "inspect {broken}",
    "plan {net} -r int8",
    "plan {net} -r linear4 --rule Conv*=nothing",
    "quantize {net} -r linear4 -o {out}.onnx",
    "quantize {net} -r int8 --calibration {data} -o {out}.onnx",
    "quantize {net} -r int8 --calibration {labels} -o {out}.tflite",
    "quantize {odd} -r cluster3 -o {out}.onnx",
    "measure {net} {net} --data {data} --runs 2",
    "measure {broken} --data {data}",
    "compare {net} --data {data} --recipes linear4 --runs 2 --out {out}",
    "pack {net} -o {out}.lowbit",
    "pack {odd} -o {out}.lowbit",
    "unpack {net} -o {out}.onnx",
    "prepare {net} --mean 0.5 --std 0.5 -o {out}.onnx",
    "diagnose {net} --data {data} -r linear4",
    "search {net} --data {data} --max-drop 9 --time 1s --recipes linear8 -o {out}.onnx",
    "export {net}",
    "explain unpack{evil}",
    "inspect {missing}",
    "inspect {net} --nothing{evil}",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_control_characters(folder, command, tmp_path, capfd):
    given = {name: folder / f"{name}.onnx" for name in ("net", "odd", "broken")}
    given |= {"data": folder / "data.npz", "labels": folder / "labels.npz", "missing": f"no{EVIL}", "evil": EVIL}
    words = [word.format(out=tmp_path / f"out{EVIL.replace('/', '')}", **given) for word in command.split()]
    code, out, error = run(*words, capsys=capfd)  # runtimes write below Python
    assert code == (
        0 if re.search("{net}|pack {odd}", command) and not re.search("nothing|unpack|export", command) else 2
    )
    said = STYLES.sub("", out + error)
    assert printable(said, keep="\n") == said
    assert not any(line.startswith("Error: forged") for line in said.splitlines())
    assert out or error


def test_reports_hold_no_control_characters(folder, tmp_path, capsys):
    code, _, error = run(
        "measure", folder / "net.onnx", "--data", folder / "data.npz", "--out", tmp_path, capsys=capsys
    )
    assert code == 0, error
    for name in ("report.html", "results.json"):
        text = (tmp_path / name).read_text()
        assert printable(text, keep="\n") == text
    assert element("p", {"title": "a\x1b"}, "b\x9b\nc") == '<p title="a\\x1b">b\\x9b\nc</p>'


def test_errors_and_lines_show_what_they_name(capsys):
    assert str(ModelError("odd\x1b[2J", where="a\nb", remedy="\x9b.")) == r"a\nb: odd\x1b[2J \x9b."
    say("one\ntwo\x07")
    say("ü – ✓", error=True)
    assert capsys.readouterr() == ("one\\ntwo\\x07\n", "ü – ✓\n")


def test_a_bar_shows_names_and_keeps_its_own_codes():
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, bar(terminal) as progress:
        assert progress is not SILENT
        progress.note("note\x1b]0;evil\x07")
        assert list(progress.track([1, 2], "track\x1b[5m[/x]")) == [1, 2]
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "\x1b[?25l" in shown  # the bar hides the cursor
    assert "note\\x1b]0;evil\\x07" in shown
    assert "\x1b]0" not in shown
    assert "\x1b[5m" not in shown


def test_names_are_safe_on_a_terminal_with_colors(folder):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "lowbit", "inspect", str(folder / "net.onnx")]
    process = subprocess.Popen(
        command, stdout=follower, stderr=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm-256color"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            shown += os.read(leader, 1 << 16)
        except OSError:  # Linux says so when nobody is left to write
            break
    os.close(leader)
    assert process.wait() == 0
    text = shown.decode().replace("\r\n", "\n")
    assert "\x1b[1m" in text  # headings are bold
    text = STYLES.sub("", text)
    assert printable(text, keep="\n") == text
