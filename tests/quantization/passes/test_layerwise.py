"""The pass over the network: moments as defined, the same result with little memory."""

import sys
import threading
import time

import numpy as np
import onnx
import pytest

import networks
from graphs import make, make_node
from lowbit.calibration.moments import MomentSums, columns_at, targets
from lowbit.data.opening import open_data
from lowbit.engines import open_session
from lowbit.errors import EngineError
from lowbit.graph.load import load
from lowbit.graph.ops import layers
from lowbit.graph.subgraph import ActivationGrid, Subgraphs
from lowbit.quantization.passes import frontier, layerwise
from lowbit.quantization.passes.layerwise import WIDEST, LayerwisePass
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.layer import solve_layer
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.linear import Linear


def network(seed=0, *, channels=8):
    """Conv, depthwise with ill-scaled and dead channels, pointwise into a residual sum, pooling, Gemm."""
    generator = np.random.default_rng(seed)
    ranges = 10.0 ** generator.uniform(-1, 1, channels)  # 100x apart, undone by the next layer
    first = generator.standard_normal((channels, 3, 3, 3)) * 0.3
    first[1] = 0  # a dead channel
    depth = generator.standard_normal((channels, 1, 3, 3)) * ranges[:, None, None, None] * 0.5
    point = generator.standard_normal((channels, channels, 1, 1)) / ranges[None, :, None, None] * 0.4
    arrays = {
        "w0": first, "b0": np.where(np.arange(channels) == 1, -1.0, 0.1), "w1": depth, "b1": ranges * 0.2,
        "w2": point, "b2": generator.standard_normal(channels) * 0.1,
        "w3": generator.standard_normal((5, channels)), "b3": generator.standard_normal(5),
    }  # fmt: skip
    nodes = [
        make_node("Conv", "x w0 b0", "c0", name="first", pads=[1, 1, 1, 1]),
        make_node("Relu", "c0", "r0", name="relu0"),
        make_node("Conv", "r0 w1 b1", "c1", name="depthwise", pads=[1, 1, 1, 1], group=channels),
        make_node("Relu", "c1", "r1", name="relu1"),
        make_node("Conv", "r1 w2 b2", "c2", name="pointwise"),
        make_node("Add", "c2 r0", "s", name="sum"),
        make_node("GlobalAveragePool", "s", "p", name="pool"),
        make_node("Flatten", "p", "f", name="flat"),
        make_node("Gemm", "f w3 b3", "y", name="last", transB=1),
    ]
    proto = make(nodes, {"x": ["n", 3, 10, 10]}, {"y": ["n", 5]}, arrays, ir_version=9)
    onnx.checker.check_model(proto)
    return load(proto)


def pictures(count, seed=1):
    generator = np.random.default_rng(seed)
    coarse = generator.standard_normal((count, 3, 5, 5)).astype(np.float32)
    return coarse.repeat(2, axis=2).repeat(2, axis=3)


def outputs(model, replaced, x):
    piece, _ = Subgraphs(model).extract([model.input.name], [model.outputs[0].name], weights=replaced)
    return open_session(piece, threads=1).run({model.input.name: x})[model.outputs[0].name]


def run_over(model, x, nodes, *, grids=None):
    """The pass over some layers of a model, on one thread."""
    return LayerwisePass(model, open_data(x, model), nodes, EFFORTS["balanced"], grids=grids, threads=1)


def quantized(model, scheme, x):
    """New weights and biases of all layers."""
    weights = {}
    run = run_over(model, x, [layer.node for layer in layers(model)])
    for layer, moments in run:
        solution = solve_layer(layer, model.weights[layer.weight], moments, scheme, EFFORTS["balanced"])
        assert isinstance(scheme, Clusters) or solution.error <= solution.nearest
        weights[layer.weight] = solution.codes.decode()
        run.replace(layer, weights[layer.weight], solution.bias)
    return weights | run.biases


@pytest.mark.parametrize(
    "scheme",
    [
        Linear(4),
        Linear(3, symmetric=False),
        Clusters(4),
        Clusters(2, "channel"),
        Clusters(3, "group", 4, half=True),
        Clusters(3, half=True, scaled=True),
    ],
    ids=lambda scheme: scheme.name,
)
def test_outputs_are_far_nearer_than_plain_rounding(scheme):
    model, unseen = network(), pictures(200, seed=9)
    wanted = outputs(model, {}, unseen)
    found = outputs(model, quantized(model, scheme, pictures(150)), unseen)
    plain = {
        layer.weight: scheme.encode(model.weights[layer.weight], layer.channel_axis).decode() for layer in layers(model)
    }
    naive = outputs(model, plain, unseen)
    assert np.square(found - wanted).mean() < 0.2 * np.square(naive - wanted).mean()


def test_memory_changes_the_way_and_not_the_result(monkeypatch):
    model, x = network(), pictures(40)
    ample = quantized(model, Linear(4), x)
    monkeypatch.setattr(layerwise, "MEMORY", 0)
    none = quantized(model, Linear(4), x)
    assert ample.keys() == none.keys()
    for name, value in ample.items():
        np.testing.assert_allclose(value, none[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_float_network_runs_beside_the_solver_and_who_waits_changes_nothing(monkeypatch):
    model, x = network(), pictures(40)
    alone, beside = quantized(model, Linear(4), x), []
    run_float, solve = LayerwisePass._run_float, solve_layer

    def late(run, stretch):
        beside.append(threading.current_thread() is not threading.main_thread())
        time.sleep(0.05)
        return run_float(run, stretch)

    def slow(*given):
        time.sleep(0.05)
        return solve(*given)

    for module, name, change in ((LayerwisePass, "_run_float", late), (sys.modules[__name__], "solve_layer", slow)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, change)
            changed = quantized(model, Linear(4), x)
        assert all(np.array_equal(value, changed[name]) for name, value in alone.items())
    assert beside == [False, True, True, True]


@pytest.mark.parametrize("memory", [0, layerwise.MEMORY])
def test_samples_are_read_by_one_thread(memory, monkeypatch):
    read, readers = layerwise._Inputs.__iter__, set()

    def noted(inputs):
        for tensors in read(inputs):
            readers.add(threading.current_thread())
            yield tensors

    monkeypatch.setattr(layerwise, "MEMORY", memory)
    monkeypatch.setattr(layerwise._Inputs, "__iter__", noted)
    quantized(network(), Linear(4), pictures(40))
    assert readers == {threading.main_thread()}


def test_what_fails_beside_the_solver_is_raised(monkeypatch):
    model, run_float = network(), LayerwisePass._run_float

    def failing(run, stretch):
        if stretch.layers[0].node == "pointwise":
            raise EngineError("no memory")
        return run_float(run, stretch)

    monkeypatch.setattr(LayerwisePass, "_run_float", failing)
    run = run_over(model, pictures(40), [layer.node for layer in layers(model)])
    seen = []
    with pytest.raises(EngineError, match="no memory"):
        seen.extend(layer.node for layer, _ in run)
    assert seen == ["first", "depthwise"]


def test_what_is_kept_in_half_precision_changes_far_less_than_quantizing(monkeypatch):
    model, x = network(), pictures(40)
    exact = outputs(model, quantized(model, Linear(8), x), x)
    monkeypatch.setattr(LayerwisePass, "_compact", lambda run, cut: True)
    compact, wanted = outputs(model, quantized(model, Linear(8), x), x), outputs(model, {}, x)
    assert not np.array_equal(compact, exact)
    errors = [np.square(found - wanted).mean() for found in (compact, exact)]
    assert 0.9 < errors[0] / errors[1] < 1.1


def test_a_cut_that_fits_in_fewer_bytes_only_is_kept_in_them(monkeypatch):
    model, x = network(), pictures(40)
    kept = []
    monkeypatch.setattr(layerwise, "compacted", lambda *given: kept.append(None) or frontier.compacted(*given))
    quantized(model, Linear(4), x)
    assert not kept
    run = run_over(model, x, ["pointwise"])
    sizes = [run._bytes_at(cut, compact=False) for cut in range(1, 6)]
    monkeypatch.setattr(layerwise, "MEMORY", min(sizes) / 2)
    quantized(model, Linear(4), x)
    assert kept


@pytest.mark.parametrize("exponent", [-140, -30, 0, 100])
def test_a_tensor_of_any_size_is_kept_to_eleven_bits(exponent):
    x = np.ldexp(np.random.default_rng(0).uniform(0.5, 1, 1000), exponent).astype(np.float32)
    kept = frontier.Compact.of(x, None)
    assert kept.nbytes == 2 * x.size
    np.testing.assert_allclose(kept.restored(), x, rtol=2.0**-11, atol=2.0**-149)


@pytest.mark.parametrize("shape", [(), (0, 3), (4, 5, 7), (70000,)])
def test_half_precision_is_that_of_numpy(shape):
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    half = frontier._converted(x, to_half=True)
    assert half.dtype == np.float16
    assert np.array_equal(half, x.astype(np.float16))
    back = frontier._converted(half[::-1] if half.ndim else half, to_half=False)
    assert back.shape == shape
    assert np.array_equal(back[::-1] if back.ndim else back, half.astype(np.float32))


def test_every_half_is_restored_as_by_numpy():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    restored = frontier._converted(every, to_half=False)
    np.testing.assert_array_equal(restored, every.astype(np.float32))
    numbers = np.isfinite(every)
    between = (restored[numbers][:-1] + restored[numbers][1:]) / 2  # ties too
    assert np.array_equal(frontier._converted(between, to_half=True), between.astype(np.float16))


def test_channels_much_smaller_than_others_are_kept_as_closely():
    """Each depthwise channel is fitted by itself: noise of even steps, small beside the others, is not beside it."""
    x = np.random.default_rng(0).normal(0, 1, (2, 2, 500)).astype(np.float32)
    x[:, 1] *= 1e-3
    error = frontier.Compact.of(x, None).restored() - x
    assert (np.square(error).mean(axis=(0, 2)) < 10 ** (-7) * np.square(x).mean(axis=(0, 2))).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tensor_on_a_grid_is_kept_exactly(bits):
    grid = ActivationGrid(0.037, 113, bits)
    x = grid.rounded(np.random.default_rng(0).normal(0, 3, 1000).astype(np.float32))
    kept = frontier.Compact.of(x, grid)
    assert kept.nbytes == x.size * bits // 8
    assert np.array_equal(kept.restored(), x)


def test_what_is_no_number_or_no_float_is_kept():
    x = np.array([np.nan, np.inf, 1.0], np.float32)
    np.testing.assert_array_equal(frontier.Compact.of(x, None).restored(), x)
    indices = np.arange(3)
    assert frontier.Compact.of(indices, None) is indices
    assert np.array_equal(frontier.Compact.of(np.zeros(3, np.float32), None).restored(), np.zeros(3))


def test_a_weight_that_is_read_again_is_not_forgotten():
    generator = np.random.default_rng(6)
    nodes = [
        make_node("Conv", "x w", "c0", name="early"),
        make_node("Relu", "c0", "r0", name="relu0"),
        make_node("Conv", "r0 v", "c1", name="between"),
        make_node("Slice", "c1 starts ends axes", "s", name="slice"),
        make_node("Conv", "s w", "c2", name="again"),
        make_node("Conv", "c2 v", "y", name="last"),
    ]
    weights = {"w": generator.standard_normal((3, 3, 1, 1)), "v": generator.standard_normal((4, 3, 1, 1))}
    weights |= {"starts": [0], "ends": [3], "axes": [1]}
    model = load(make(nodes, {"x": ["n", 3, 10, 10]}, {"y": ["n", 4, 10, 10]}, weights, ir_version=9))
    seen = []
    run = run_over(model, pictures(12), ["early", "between", "last"])
    for layer, moments in run:
        seen.append((layer.node, moments.second))
        run.replace(layer, 0.5 * model.weights[layer.weight])
    halves = {"w": 0.5 * model.weights["w"], "v": 0.5 * model.weights["v"]}
    piece, _ = Subgraphs(model).extract(["x"], ["c2"], weights=halves)
    x = open_session(piece, threads=1).run({"x": pictures(12)})["c2"]
    columns = next(layer for layer in layers(model) if layer.node == "last").to_columns(x)
    assert [node for node, _ in seen] == ["early", "between", "last"]
    np.testing.assert_allclose(seen[2][1], columns @ columns.transpose(0, 2, 1) / columns.shape[2], rtol=1e-4)


def test_the_same_input_gives_the_same_bytes():
    model, x = network(), pictures(40)
    first, again = (quantized(model, Clusters(3), x) for _ in range(2))
    assert all(np.array_equal(value, again[name]) for name, value in first.items())


@pytest.mark.parametrize("name", ["first", "depthwise", "pointwise", "last"])
@pytest.mark.parametrize("centred", [True, False])
def test_moments_are_those_of_the_columns(name, centred):
    model = network()
    layer = next(layer for layer in layers(model) if layer.node == name)
    tensors = [layer.output] + ([layer.input] if layer.input != "x" else [])
    found = {"x": pictures(30)}
    found |= open_session(networks.with_outputs(model, tensors), threads=1).run(found)
    sums = MomentSums(centred)
    generator = np.random.default_rng(0)
    for part in (slice(0, 11), slice(11, 30)):
        aim = targets(layer, found[layer.output][part], share=1.0, generator=generator)
        sums.add(columns_at(layer, found[layer.input][part], aim), aim.rows)
    moments = sums.result()
    x = layer.to_columns(found[layer.input]).astype(np.float64)
    t = layer.to_rows(found[layer.output]).astype(np.float64)
    if centred:
        np.testing.assert_allclose(moments.input_mean, x.mean(2), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.output_mean, t.mean(2), rtol=1e-4, atol=1e-4)
        x, t = x - x.mean(2, keepdims=True), t - t.mean(2, keepdims=True)
    scale = np.abs(x).max() ** 2
    np.testing.assert_allclose(moments.second, x @ x.transpose(0, 2, 1) / x.shape[2], rtol=1e-3, atol=1e-5 * scale)
    wanted = t @ x.transpose(0, 2, 1) / x.shape[2]
    np.testing.assert_allclose(moments.cross, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_a_share_of_the_positions_is_drawn_from_the_columns():
    model = network()
    layer = next(layer for layer in layers(model) if layer.node == "depthwise")
    x, t = np.random.default_rng(0).standard_normal((2, 3, 8, 10, 10)).astype(np.float32)
    aim = targets(layer, t, share=0.25, generator=np.random.default_rng(1))
    columns, rows = columns_at(layer, x, aim), aim.rows
    everything = np.concatenate([layer.to_columns(x), layer.to_rows(t)], axis=1)
    drawn = np.concatenate([columns, rows], axis=1)
    assert drawn.shape[2] == 75
    matches = (drawn[:, :, :, None] == everything[:, :, None, :]).all(axis=(0, 1))
    assert matches.any(axis=1).all()


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("node", [layer.node for layer in layers(network()) if layer.geometry is not None])
def test_columns_at_some_positions_are_those_of_all(node, images):
    model = network()
    layer = next(layer for layer in layers(model) if layer.node == node)
    tensors = [layer.output] + ([layer.input] if layer.input != "x" else [])
    found = {"x": pictures(images)}
    found |= open_session(networks.with_outputs(model, tensors), threads=1).run(found)
    aim = targets(layer, found[layer.output], share=0.3, generator=np.random.default_rng(1))
    every = layer.to_columns(found[layer.input])
    chosen = every.reshape(*every.shape[:2], images, -1)[..., aim.keep].reshape(*every.shape[:2], -1)
    np.testing.assert_array_equal(columns_at(layer, found[layer.input], aim), chosen)


def test_rounded_activations_are_what_the_next_layer_sees():
    """A bias behind a coarse grid is corrected for what that grid does on the whole."""
    model, x = network(), pictures(60)
    grids = {"r0": ActivationGrid(0.7, 252), "x": ActivationGrid(0.5, 128)}
    ((_, moments),) = run_over(model, x, ["depthwise"], grids=grids)
    piece, _ = Subgraphs(model).extract(["x"], ["r0"], weights={})
    inputs = np.rint(x / np.float32(0.5)) * np.float32(0.5)
    inner = open_session(piece, threads=1).run({"x": inputs})["r0"]
    rounded = np.clip(np.rint(inner / np.float32(0.7)), 0, 3) * np.float32(0.7)
    middle = moments.input_mean[:, 4]  # the centre of the kernel sees every position
    np.testing.assert_allclose(middle, rounded.mean(axis=(0, 2, 3)), atol=0.05 * rounded.max())
    assert np.abs(middle - inner.mean(axis=(0, 2, 3))).max() > 0.05


def test_layers_of_very_many_inputs_get_a_bias_without_second_moments():
    generator = np.random.default_rng(4)
    weight = generator.standard_normal((6, WIDEST + 8)) / 64
    nodes = [make_node("Gemm", "x w b", "y", name="wide", transB=1)]
    weights = {"w": weight, "b": np.zeros(6)}
    model = load(make(nodes, {"x": ["n", WIDEST + 8]}, {"y": ["n", 6]}, weights, ir_version=9))
    x = (2 + generator.standard_normal((40, WIDEST + 8))).astype(np.float32)
    ((_, moments),) = run_over(model, x, ["wide"])
    assert moments.second.size == 0
    replaced = quantized(model, Linear(3), x)
    wanted, found = outputs(model, {}, x), outputs(model, replaced, x)
    plain = Linear(3).encode(model.weights["w"]).decode()
    np.testing.assert_array_equal(replaced["w"], plain)
    np.testing.assert_allclose(found.mean(axis=0), wanted.mean(axis=0), atol=1e-3)
    assert np.abs(outputs(model, {"w": plain}, x).mean(axis=0) - wanted.mean(axis=0)).max() > 0.1
