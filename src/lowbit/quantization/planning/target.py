"""What an integer file must be for the processor that it shall run on: `native` is the one that lowbit runs on.

Without VNNI x86 adds two products of uint8 and int8 in int16, which saturates (`lowbit.formats.onnx.saturation`): with
weights of 7 bits it cannot, 255 * 2 * 63 = 32130. Depthwise layers are computed in 32 bits and keep all 8. ARM adds in
int32 like VNNI does. This is what ONNX Runtime does; LiteRT's x86 kernels widen to 16 bits first and never saturate.
"""

import platform
from collections.abc import Collection
from dataclasses import replace

from lowbit.errors import SchemeError
from lowbit.formats.litert.graph import LANES
from lowbit.graph.ops import Layer
from lowbit.processor import processor
from lowbit.schemes.linear import Linear

VNNI_FLAGS = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))
ARM_MACHINES = frozenset(("aarch64", "arm64"))
MOST_BITS_WITHOUT_VNNI = 7
NATIVE = "native"

# name -> what it stands for
TARGETS: dict[str, str] = {
    "x86-vnni": "x86 with AVX512-VNNI, AVX-VNNI or AMX: 8-bit weights, exact sums",
    "x86": "any x86: 7-bit weights where the sums of two products would saturate without VNNI",
    "arm": "64-bit ARM: 8-bit weights, exact sums",
}


def target_of(machine: str, flags: Collection[str]) -> str:
    """The target that a machine is.

    Args:
        machine: as `platform.machine()` names it.
        flags: of its processor, as Linux names them; an x86 that tells none counts as one without VNNI.
    """
    if machine.lower() in ARM_MACHINES:
        return "arm"
    return "x86-vnni" if VNNI_FLAGS & set(flags) else "x86"


def resolved(target: str) -> str:
    """A row of `TARGETS`: the one named, or for `native` the one that this machine is.

    Raises:
        SchemeError: no such target.
    """
    if target == NATIVE:
        return target_of(platform.machine(), processor()[1])
    if target not in TARGETS:
        raise SchemeError(
            f"no target is called '{target}'.", remedy=f"Choose one of: {NATIVE} (this machine), {', '.join(TARGETS)}."
        )
    return target


def kernel_lanes(target: str) -> int:
    """How many channels XNNPACK's integer kernels multiply at a time: on ARM 4 (8 with i8mm, which not all have)."""
    return 4 if target == "arm" else LANES


def described(asked: str, target: str) -> str:
    """One line on a target that was chosen, for people."""
    return f"Target: {target}{' (this machine)' if asked == NATIVE else ''}: {TARGETS[target]}."


def weights_for(target: str, scheme: Linear, layer: Layer) -> tuple[Linear, str]:
    """The scheme that a layer's integer weights get on a target, and why if it is not the one asked for.

    Args:
        target: a row of `TARGETS`.
        scheme: what the recipe asks for.
        layer: whose weights.
    """
    if target != "x86" or layer.depthwise or scheme.bits <= MOST_BITS_WITHOUT_VNNI:
        return scheme, ""
    return (
        replace(scheme, bits=MOST_BITS_WITHOUT_VNNI),
        "sums of two products saturate at 16 bits on x86 without VNNI",
    )
