"""Channels of nearly zero weights and a large bias, as folded batch norms leave them: nothing else pays for them."""

import numpy as np
import pytest
from onnx import numpy_helper

import lowbit
import networks
from graphs import change_weights
from lowbit.calibration.divergence import mean_kl
from lowbit.formats.quantized_graph import ActivationCodes
from lowbit.graph.ops import layers
from lowbit.quantization.passes.activations import INT32_LIMIT, fit_biases, least_scales
from lowbit.quantization.solving.effort import EFFORTS
from lowbit.quantization.solving.linear import solve_linear
from lowbit.quantization.solving.problem import Problem, damped
from lowbit.schemes.linear import Linear

DEAD = slice(2, 5)


def network(magnitude):
    """Three channels that never pass their ReLU6, whatever their weights, which are `magnitude` of the usual."""
    proto = networks.residual_network(depthwise_scale=3.0)
    for name in ("stem", "wide"):
        (weight,) = (
            numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if tensor.name == f"{name}.weight"
        )
        change_weights(proto, DEAD, {f"{name}.weight": magnitude * weight[DEAD], f"{name}.bias": np.full(3, -60.0)})
    return lowbit.load(proto)


def kl(model, content):
    unseen = lowbit.open_images(list(networks.inputs(64, seed=77)), None)
    return mean_kl(*(networks.class_scores(each, model, unseen) for each in (model.to_bytes(), content)))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_rest_of_the_network_does_not_pay_for_them(bits):
    """Channels that are as dead, but have weights of the usual size, are no trouble to anybody."""

    def lost(model):
        """In the mean over draws of calibration images: one may lose twice as much as another."""
        draws = [lowbit.open_images(list(networks.inputs(48, seed=seed)), None) for seed in range(1, 5)]
        how = {"effort": "fast", "steps": ["rounding"]}
        files = [lowbit.quantize(model, f"int{bits}", calibration=images, **how).to_bytes() for images in draws]
        return np.mean([kl(model, content) for content in files])

    assert lost(network(1e-9)) < 1.25 * lost(network(0.5)) + 1e-4


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_only_they_are_rounded_again(bits, per):
    model = network(1e-9)
    layer = next(layer for layer in layers(model) if layer.node == "wide")
    weight = model.weights["wide.weight"]
    mixing = np.random.default_rng(0).normal(size=(1, 8, 8))
    second = damped(mixing @ mixing.transpose(0, 2, 1), 1e-2)
    scheme = Linear(bits, per=per)
    codes = solve_linear(Problem.of(layer.to_matrix(weight), second), scheme, EFFORTS["fast"]).to_codes(layer, scheme)
    inputs = ActivationCodes(scale=0.02, zero_point=0)
    fitted, biases = fit_biases(model, [layer], {"wide.weight": codes}, {layer.input: inputs})
    others = np.delete(np.arange(24), DEAD)
    np.testing.assert_array_equal(fitted["wide.weight"].codes[others], codes.codes[others])
    np.testing.assert_allclose(fitted["wide.weight"].decode(), codes.decode(), atol=1e-6)
    assert np.abs(biases["wide"].codes.astype(np.float64)).max() <= INT32_LIMIT / 2 + 1
    off = np.abs(biases["wide"].decode() - model.weights["wide.bias"])
    assert (off <= 0.51 * biases["wide"].scale + 1e-5).all()


def test_the_solver_knows_their_scale_from_the_start():
    generator = np.random.default_rng(1)
    weights = generator.normal(size=(1, 6, 12))
    weights[0, 2] *= 1e-9
    mixing = generator.normal(size=(1, 12, 12))
    second = damped(mixing @ mixing.transpose(0, 2, 1), 1e-2)
    least = least_scales(np.full(6, -60.0), ActivationCodes(scale=0.02, zero_point=0)).astype(np.float32)
    free, bound = (
        solve_linear(Problem.of(weights, second, each), Linear(4), EFFORTS["best"]) for each in (None, least)
    )
    assert free.scale[0, 2, 0] < 1e-3 * least[2]
    assert bound.scale[0, 2, 0] >= 0.97 * least[2]  # as a file stores it
    np.testing.assert_array_equal(np.delete(free.codes, 2, axis=1), np.delete(bound.codes, 2, axis=1))
