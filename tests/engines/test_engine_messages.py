"""What a runtime says of a model becomes one sentence that names the cause; all of it is shown on request."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lowbit.engines import installed_engines, open_session
from lowbit.engines.messages import LONGEST, cause
from lowbit.errors import EngineError
from test_cli import run

ONNX_ENGINES = [name for name in installed_engines() if name != "litert"]


def one_node(op, *weights):
    names = [f"w{place}" for place in range(len(weights))]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], ["y"], name="culprit")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, weights, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


NOISES = ("\n", "ONNXRuntimeError", "Exception from", ".cpp", ".hpp", ".cc:", ".h:", "onnxruntime::", "Check '")
CASES = {
    "shape": (one_node("Reshape", np.array([5, 5])), ("culprit", "requested shape")),
    "operator": (one_node("Foo"), ("Foo",)),
    "channels": (one_node("Conv", np.zeros((2, 5, 3, 3), np.float32)), ("5",)),
    "type": (one_node("Add", np.zeros((4, 4), np.int64)), ("culprit",)),
}


@pytest.mark.parametrize("engine", ONNX_ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_the_cause_in_one_line(case, engine, capfd):
    model, words = CASES[case]
    with pytest.raises(EngineError) as caught:
        open_session(model.SerializeToString(), engine=engine).run({"x": np.zeros((1, 3, 4, 4), np.float32)})
    said = caught.value.what
    assert not any(noise in said for noise in NOISES)
    assert said.endswith(".")
    if engine == "onnxruntime":
        assert all(word in said for word in words)
    assert caught.value.__cause__ is not None
    assert capfd.readouterr() == ("", "")  # nothing beside the exception, on no stream


def test_strange_messages_leave_something_to_say():
    assert cause(ValueError("")) == "ValueError"
    assert cause(RuntimeError("Exception from src/a.cpp:1:\n")) == "Exception from src/a.cpp:1:"
    assert cause(RuntimeError("one\n\n  two.\nStacktrace:\n0x1\n0x2")) == "one two"
    assert len(cause(RuntimeError("x" * 5000))) == LONGEST


def test_debug_shows_all_of_it(tmp_path, capsys, monkeypatch):
    path = tmp_path / "x.onnx"
    onnx.save(one_node("Relu"), path)
    monkeypatch.setenv("LOWBIT_DEBUG", "")  # so that what the command sets is taken back

    def refuses(*_, **__):
        try:
            raise RuntimeError("Exception from src/deep.cpp:1:\nno \x1b[2Jkernel")
        except RuntimeError as error:
            raise EngineError(f"OpenVINO refuses the model: {cause(error)}.") from error

    monkeypatch.setattr("lowbit.formats.opening.load", refuses)
    code, _, plain = run("inspect", path, capsys=capsys)
    assert (code, plain) == (2, "Error: OpenVINO refuses the model: no \\x1b[2Jkernel.\n")
    code, _, shown = run("--debug", "inspect", path, capsys=capsys)
    assert code == 2
    assert "src/deep.cpp:1:\nno \\x1b[2Jkernel" in shown
    assert "Traceback" in shown
    assert shown.endswith(plain)
