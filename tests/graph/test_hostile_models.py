"""Every file that cannot be used gives one clear error: what, where, what next. Nothing else escapes."""

import contextlib
import os
import time

import numpy as np
import onnx
import pytest
from graph_models import conv_model, make, normal, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import lowbit
from lowbit.errors import ModelError
from lowbit.formats.file_form import FileForm
from lowbit.formats.litert.shapes import static_shapes
from lowbit.formats.onnx.ledger import read_ledger
from lowbit.graph.load import load
from lowbit.graph.save import save
from runaways import sequence


def refused(source, match, **options):
    with pytest.raises(ModelError, match=match) as caught:
        load(source, **options)
    assert caught.value.remedy
    return caught.value


def file(tmp_path, content, name="m.onnx"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


GOOD = conv_model().SerializeToString()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"just some text, not a model", "not an ONNX file"),
        (b"\xff" * 100, "not an ONNX file"),
        (b"PK\x03\x04" + bytes(50), "PyTorch or Keras archive"),
        (b"\x1c\0\0\0TFL3" + bytes(50), "LiteRT"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "Keras"),
        (b"\x80\x02}q\x00.", "pickle"),
        (GOOD[: len(GOOD) // 2], "truncated"),
        (GOOD[:-1], "truncated"),
        (GOOD[:4], "truncated"),
        (GOOD[:2], "truncated"),
    ],
)
def test_a_file_that_is_no_model(tmp_path, content, match):
    path = file(tmp_path, content)
    assert str(path) in str(refused(path, match))


def test_no_file_a_folder_and_a_pipe(tmp_path):
    refused(tmp_path / "nowhere.onnx", "no such file")
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    refused("bad\0name", "cannot be read|no such file")
    refused(str(tmp_path / ("x" * 5000)), "cannot be read|no such file")


def test_something_else_altogether():
    with pytest.raises(ModelError, match="cannot load a int"):
        lowbit.load(42)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
@settings(max_examples=50)
def test_one_wrong_byte_is_harmless(position, value):
    damaged = bytearray(GOOD)
    damaged[position] = value
    with contextlib.suppress(ModelError):
        load(bytes(damaged)).to_bytes()


@pytest.mark.parametrize("text", [b"lowbit-tests", b"conv"])
def test_a_text_that_is_none_is_refused(text):
    model = conv_model()
    model.producer_name = "lowbit-tests"
    model.graph.name = "conv"
    refused(model.SerializeToString().replace(text, b"\x80" * len(text), 1), "not UTF-8|not an ONNX")


@given(st.integers(0, len(GOOD) - 1))
@settings(max_examples=50)
def test_any_truncation_is_harmless(length):
    refused(GOOD[:length], "is truncated|is empty|is not an ONNX file|names no ONNX operator set")


@pytest.mark.parametrize(("opset", "match"), [(6, "operator set 6"), (999, "operator set 999"), (0, "operator set 0")])
def test_operator_sets(opset, match):
    model = conv_model()
    model.opset_import[0].version = opset
    refused(model, match)


def test_no_operator_set_and_ir_versions():
    model = conv_model()
    del model.opset_import[:]
    refused(model, "names no ONNX operator set")
    for version in (2, 99):
        model = conv_model()
        model.ir_version = version
        refused(model, f"IR version {version}")


def test_unknown_operators():
    model = conv_model()
    model.graph.node[1].op_type = "Telepathy"
    refused(model, "Telepathy")
    model = conv_model()
    model.graph.node[1].domain = "com.acme"
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    refused(model, "com.acme.Relu.*not part of ONNX")


def with_functions(*bodies):
    """A model that calls f0, which may call f1, and so on; each body lists what a function's nodes are."""
    model = conv_model()
    model.opset_import.append(helper.make_opsetid("own", 1))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for index, body in enumerate(bodies):
        names = ["i", *(f"t{at}" for at in range(len(body) - 1)), "o"]
        nodes = [
            helper.make_node(op, [names[at]], [names[at + 1]], domain="own" if op.startswith("f") else "")
            for at, op in enumerate(body)
        ]
        model.functions.append(helper.make_function("own", f"f{index}", ["i"], ["o"], nodes, opsets))
    model.graph.node[1].CopyFrom(helper.make_node("f0", ["c"], ["y"], domain="own"))
    return model


def test_functions_that_call_each_other_too_often_are_counted_first():
    load(with_functions(["f1", "Relu"], ["Relu"]))
    refused(with_functions(*(["f" + str(at + 1)] * 2 for at in range(30)), ["Relu"]), "nodes when its functions")
    refused(with_functions(["f1"] * 300, ["Relu"] * 300), "nodes when its functions")
    refused(with_functions(["f1"], ["f0"]), "calls itself")
    inner = with_functions(["f1"] * 300, ["Relu"] * 300)
    branch = helper.make_graph([inner.graph.node[1]], "b", [], [helper.make_empty_tensor_value_info("y")])
    body = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    inner.graph.node[1].CopyFrom(body)
    inner.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    refused(inner, "nodes when its functions")


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_vectors_that_double_are_not_followed(kind):
    """Thirty Concats make two billion numbers of two, and twenty two million."""

    def doubling(times):
        nodes = [("Concat", [f"v{at}", f"v{at}"], [f"v{at + 1}"], {"axis": 0}) for at in range(times)]
        return make(
            [("Conv", ["x", "w"], ["y"], {}), *nodes, ("Size", [f"v{times}"], ["z"], {})],
            {"x": ["n", 3, 8, 8]},
            ["y", "z"],
            {"w": normal(1, 4, 3, 3, 3), "v0": np.ones(2, kind)},
        )

    refused(doubling(30), "MB for one sample")
    loaded = load(doubling(20))
    assert len(loaded.graph) <= 32
    assert static_shapes(loaded).single["y"] == (1, 4, 6, 6)


@pytest.mark.parametrize("text", [b"\xff", b"linear\xc0"])
def test_texts_of_attributes_are_utf8(text):
    model = conv_model()
    model.graph.node[0].attribute.append(helper.make_attribute("auto_pad", text))
    model.graph.node[0].attribute[-1].s = text
    refused(model, "'auto_pad' that is not UTF-8")


def test_no_weights():
    refused(make([("Relu", ["x"], ["y"], {})], {"x": ["n", 3]}, ["y"], {}), "no constant weights")
    refused(make([("MatMul", ["x", "x"], ["y"], {})], {"x": [3, 3]}, ["y"], {}), "no constant weights")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w", "b"])
def test_weights_that_are_not_finite(name, value):
    weights = {"w": normal(1, 4, 3, 3, 3), "b": normal(2, 4)}
    weights[name].flat[3] = value
    model = make([("Conv", ["x", "w", "b"], ["y"], {})], {"x": ["n", 3, 8, 8]}, ["y"], weights)
    refused(model, rf"weight '{name}' of Conv .* 1 values? .*NaN or infinite")


def test_float64_weights_beyond_float32():
    model = make(
        [("MatMul", ["x", "w"], ["y"], {})], {"x": ["n", 2]}, ["y"], {"w": np.full((2, 2), 1e300)},
        dtype=onnx.TensorProto.DOUBLE,
    )  # fmt: skip
    refused(model, "weight 'w'.*infinite")


def test_no_inputs_no_outputs_no_nodes():
    model = conv_model()
    del model.graph.input[:]
    model.graph.node[0].input[0] = "w"
    refused(model, "no inputs")
    for field in ("output", "node"):
        model = conv_model()
        model.graph.ClearField(field)
        refused(model, "nothing to compute")


def test_inputs_that_are_no_tensors():
    model = conv_model()
    model.graph.input[0].type.Clear()
    refused(model, "input 'x' is not a tensor of known rank")
    model = conv_model()
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2])))
    refused(model, "input 'x' is not a tensor")
    model = conv_model()
    model.graph.input[0].type.tensor_type.elem_type = 0
    refused(model, "input 'x' has no type")


def test_outputs_of_undefined_type_have_the_one_that_is_inferred():
    model = conv_model()
    for value in (*model.graph.output, *model.graph.value_info):
        value.type.tensor_type.elem_type = 0
    assert load(model).outputs[0].dtype == np.float32


def test_wiring():
    def wired(change):
        model = conv_model()
        change(model.graph)
        return model

    refused(wired(lambda graph: graph.node[0].input.__setitem__(0, "nothing")), "'nothing' does not exist")
    refused(
        wired(lambda graph: graph.node[0].input.__setitem__(0, "y")), "'y' is only computed later: the graph is a cycle"
    )
    refused(wired(lambda graph: graph.node[0].input.__setitem__(0, "c")), "'c' is only computed later")
    refused(wired(lambda graph: graph.node[1].output.__setitem__(0, "c")), "'c' exists already")
    refused(wired(lambda graph: graph.node[1].output.__setitem__(0, "x")), "'x' exists already")
    refused(wired(lambda graph: setattr(graph.output[0], "name", "nothing")), "'nothing' is not computed")
    refused(wired(lambda graph: graph.node.reverse()), "not sorted")
    refused(wired(lambda graph: graph.initializer.append(graph.initializer[0])), "twice|valid ONNX model")


@pytest.mark.parametrize(
    ("dims", "match"),
    [
        ([4, 3, 3, 4], "432 bytes, its shape .* needs 576"),
        ([4, 3, 3, 2], "needs 288"),
        ([1 << 40, 1 << 40], "needs 4835703278458516698824704"),
        ([1 << 62, 0], "needs 0"),
        ([-4, 3, 3, -3], "invalid shape"),
    ],
)
def test_tensors_whose_size_is_a_lie(dims, match):
    model = conv_model()
    model.graph.initializer[0].dims[:] = dims
    start = time.monotonic()
    assert "'w'" in str(refused(model, match))
    assert time.monotonic() - start < 1


def test_typed_data_and_unknown_types():
    model = conv_model()
    tensor = model.graph.initializer[0]
    values = numpy_helper.to_array(tensor).ravel().tolist()
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values)
    np.testing.assert_array_equal(load(model).weights["w"], load(conv_model()).weights["w"])
    tensor.float_data.append(1.0)
    refused(model, "109 values, its shape .* needs 108")
    tensor.ClearField("float_data")
    refused(model, "0 values")
    for kind in (0, 999):
        model = conv_model()
        model.graph.initializer[0].data_type = kind
        refused(model, f"unknown data type {kind}")


def test_lies_inside_attributes_and_subgraphs():
    liar = numpy_helper.from_array(normal(1, 4), "liar")
    liar.dims[:] = [1 << 40]
    model = conv_model()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=liar))
    refused(model, "'liar'.*needs 4398046511104")
    inner = helper.make_graph([helper.make_node("Identity", ["liar"], ["o"])], "inner", [], [], [liar])
    model = conv_model()
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner))
    refused(model, "'liar'.*needs")


def test_sparse_weights():
    model = conv_model()
    values, indices = numpy_helper.from_array(normal(1, 2), "s"), numpy_helper.from_array(np.array([0, 3]))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [9]))
    refused(model, "sparse")


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [0, 1]}, {"strides": [1]}, {"pads": [1, 1]}, {"pads": [-1, 0, 0, 0]}, {"dilations": [0, 0]},
        {"group": 3}, {"group": 0}, {"group": -1}, {"kernel_shape": [5, 5]}, {"auto_pad": "SOMEHOW"},
        {"strides": [1 << 40, 1]}, {"pads": [1 << 60] * 4},
    ],
)  # fmt: skip
def test_attributes_that_do_not_fit(attributes):
    model = make([("Conv", ["x", "w"], ["y"], attributes)], {"x": ["n", 3, 8, 8]}, ["y"], {"w": normal(1, 4, 3, 3, 3)})
    refused(model, "do not fit its weight|not a valid ONNX model|MB for one sample")


def test_attributes_of_the_wrong_type():
    refused(
        make([("Conv", ["x", "w"], ["y"], {"group": 1.5})], {"x": ["n", 3, 8, 8]}, ["y"], {"w": normal(1, 4, 3, 3, 3)}),
        "valid ONNX model|type",
    )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"height": 8}', '{"height": 8, "width": 8, "extra": 1}', '{"height": "8", "width": 8}'],
)
def test_preprocessing_in_the_metadata(text):
    model = conv_model()
    helper.set_model_props(model, {"lowbit.preprocessing": text})
    refused(model, "lowbit.preprocessing|preprocessing height")


@pytest.mark.parametrize("text", ["", "-1", "1e9", "many", "9" * 50, "²"])
def test_parameter_count_in_the_metadata(text):
    model = conv_model()
    helper.set_model_props(model, {"lowbit.trained_parameters": text})
    refused(model, "expected a count")


def external(tmp_path, **entries):
    """A model whose convolution weight is said to be in another file."""
    model = conv_model()
    tensor = model.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(b"head" + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in ({"location": "w.bin", "offset": "4", "length": "432"} | entries).items():
        if value is not None:
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    return file(tmp_path, model.SerializeToString())


@pytest.mark.parametrize("entries", [{}, {"length": None}, {"checksum": "whatever"}])
def test_external_data_is_read(tmp_path, entries):
    path = external(tmp_path, **entries)
    loaded = load(path)
    assert loaded.to_bytes() == load(conv_model()).to_bytes()
    feeds = {"x": normal(3, 1, 3, 8, 8)}
    np.testing.assert_array_equal(run(loaded.to_bytes(), feeds)[0], run(conv_model(), feeds)[0])


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"location": "../w.bin"}, "not a path inside"),
        ({"location": "/etc/passwd"}, "not a path inside"),
        ({"location": "C:\\w.bin"}, "not a path inside"),
        ({"location": "..\\w.bin"}, "not a path inside"),
        ({"location": "a/../../w.bin"}, "not a path inside"),
        ({"location": ""}, "not a path inside"),
        ({"location": None}, "not a path inside"),
        ({"location": "w\0.bin"}, "not a path inside"),
        ({"location": "."}, "missing"),
        ({"location": "missing.bin"}, "missing"),
        ({"location": "x" * 5000}, "cannot be read|missing"),
        ({"offset": "5"}, "needs bytes 5 to 437 .* has 436"),
        ({"offset": "-4"}, "not a byte count"),
        ({"offset": "9" * 30}, "not a byte count"),
        ({"length": "431"}, "431 bytes .* needs 432"),
        ({"length": "99999999999999"}, "needs 432"),
        ({"length": "4e2"}, "not a byte count"),
    ],
)
def test_external_data_that_lies(tmp_path, entries, match):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(436))
    assert "'w'" in str(refused(external(folder, **entries), match))


def test_external_data_through_links(tmp_path):
    outside = tmp_path / "secret.bin"
    outside.write_bytes(bytes(436))
    folder = tmp_path / "inner"
    folder.mkdir()
    path = external(folder, location="link.bin")
    (folder / "link.bin").symlink_to(outside)
    refused(path, "leads out of the folder")
    (folder / "link.bin").unlink()
    (folder / "link.bin").symlink_to("link.bin")
    refused(path, "missing|cannot be read")
    (folder / "link.bin").unlink()
    (folder / "link.bin").symlink_to("w.bin")
    load(path)
    (folder / "link.bin").unlink()
    os.mkfifo(folder / "link.bin")
    refused(path, "missing")


def test_external_data_of_absurd_size_is_refused_before_it_is_read(tmp_path):
    path = external(tmp_path)
    model = onnx.ModelProto.FromString(path.read_bytes())
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20, 3, 3]
    refused(file(tmp_path, model.SerializeToString()), "claims .* bytes of weights")


def test_external_data_needs_a_folder(tmp_path):
    model = onnx.ModelProto.FromString(external(tmp_path).read_bytes())
    refused(model, "no folder to find it in")


def test_a_model_over_the_limit(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as sparse:
        sparse.truncate(3 << 30)
    refused(path, "has 3221225472 bytes")


def test_save_and_load_again(tmp_path):
    model = load(conv_model())
    path = save(model, tmp_path / "deep" / "m.onnx")
    assert load(path).to_bytes() == model.to_bytes() == path.read_bytes()
    assert load(path).source == str(path)
    assert load(model) is model


def test_a_node_without_inputs_is_quantized_around():
    """SequenceEmpty has none."""
    assert lowbit.quantize(load(sequence()), "linear4").to_bytes()


def test_an_output_noted_to_have_no_type_has_the_usual_one():
    """Nothing is inferred of a product that does not fit."""
    nodes = [("Gather", ["t", "ids"], ["g"], {}), ("MatMul", ["g", "w"], ["y"], {})]
    proto = make(nodes, {"ids": ["n"]}, ["y"], {"t": normal(0, 9, 4), "w": normal(1, 5, 4)})
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UNDEFINED
    assert [value.dtype for value in load(proto).outputs] == [np.float32]


def test_a_transpose_that_does_not_name_each_axis_once_is_refused_for_litert():
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Transpose", ["c"], ["y"], {"perm": [1, 0, 2]})]
    proto = make(nodes, {"x": ["n", 3, 8, 8]}, ["y"], {"w": normal(1, 4, 3, 3, 3)})
    with pytest.raises(ModelError, match="does not name each axis once"):
        lowbit.quantize(load(proto), "linear8").to_bytes(FileForm("litert"))


def test_a_weight_of_an_unknown_type_is_named_by_the_ledger(tmp_path):
    proto = onnx.load_from_string(lowbit.quantize(load(conv_model()), "linear8").to_bytes())
    codes = next(tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.INT8)
    codes.data_type = 1 << 15
    with pytest.raises(ModelError, match="has the unknown data type 32768"):
        read_ledger(file(tmp_path, proto.SerializeToString()))
