"""What a recipe cannot give, and where: said by the plan, so that nobody has to find out."""

from collections.abc import Callable

from lowbit.formats.devices import DEVICES
from lowbit.quantization.planning.recipes import Recipe

# When a sentence is said -> the sentence; of a recipe and a target, a row of `TARGETS` or empty.
LIMITS: tuple[tuple[Callable[[Recipe, str], bool], str], ...] = (
    (
        lambda recipe, target: recipe.integer and recipe.activations.bits == 16,
        "16-bit activations are exact on CPUs, not fast: ONNX Runtime has no kernels for them and computes in float on "
        "the codes, files for OpenVINO leave activations in float, LiteRT's kernels are slower than those for float",
    ),
    (
        lambda recipe, target: recipe.dynamic,
        "only Gemm and MatMul quantize their inputs as they run, in LiteRT also convolutions without groups: elsewhere "
        "it is slower than float (ONNX Runtime's ConvInteger 7 to 28 times, LiteRT's depthwise kernel 3 times) or has "
        "no standard operator (recurrent layers); these compute in float on int8 weights",
    ),
    (
        lambda recipe, target: recipe.dynamic,
        "one scale serves a whole batch in ONNX Runtime, so that an answer depends on the samples beside it",
    ),
    (
        lambda recipe, target: recipe.block_kernels,
        "large matrix products of an ONNX file need ONNX Runtime (com.microsoft.MatMulNBits); --to openvino writes "
        "standard operators",
    ),
    (
        lambda recipe, target: recipe.integer and recipe.activations.powers,
        "scales that are powers of two are for devices: CPUs gain nothing by them, and up to half the codes lie idle",
    ),
    (
        lambda recipe, target: target in DEVICES,
        "the file is made by the rules of the device's compiler and checked against them; it has not run on the device",
    ),
)


def limits(recipe: Recipe, target: str) -> tuple[str, ...]:
    """The sentences of `LIMITS` that are true.

    Args:
        recipe: what was asked for.
        target: a row of `TARGETS`; empty for recipes that have none.
    """
    return tuple(sentence for applies, sentence in LIMITS if applies(recipe, target))
