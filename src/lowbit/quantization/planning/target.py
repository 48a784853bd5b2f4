"""What the processor that an integer file will run on asks of it; `native` is the processor that lowbit runs on.

Those that are programmed through a compiler have rules of their own (`formats.devices`).

Without VNNI x86 adds two products of uint8 and int8 in int16, which saturates (`lowbit.formats.onnx.saturation`). With
7-bit weights it cannot: 255 * 2 * 63 = 32130. Depthwise layers are computed in 32 bits and keep all 8 bits. ARM adds in
int32 like VNNI does. This is what ONNX Runtime does; LiteRT's x86 kernels widen to 16 bits first and never saturate.
"""

import platform
from collections.abc import Collection
from dataclasses import replace

from lowbit.errors import SchemeError, did_you_mean
from lowbit.formats.devices import DEVICES
from lowbit.formats.litert.graph import LANES
from lowbit.formats.quantized_graph import ActivationKind
from lowbit.graph.ops import Layer
from lowbit.processor import processor
from lowbit.schemes.integer_clusters import IntegerClusters
from lowbit.schemes.linear import Linear

VNNI_FLAGS = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))
ARM_MACHINES = frozenset(("aarch64", "arm64"))
MAX_BITS_WITHOUT_VNNI = 7
NATIVE = "native"

# name -> which processors, and what their files hold
TARGETS: dict[str, str] = {
    "x86-vnni": "x86 with AVX512-VNNI, AVX-VNNI or AMX: 8-bit weights, exact sums",
    "x86": "any x86: 7-bit weights where the sums of two products would saturate without VNNI",
    "arm": "64-bit ARM: 8-bit weights, exact sums",
    **{name: device.what for name, device in DEVICES.items()},
}


def target_of(machine: str, flags: Collection[str]) -> str:
    """The target that describes a machine.

    Args:
        machine: as `platform.machine()` names it.
        flags: of its processor, as Linux names them; an x86 without any counts as one without VNNI.
    """
    if machine.lower() in ARM_MACHINES:
        return "arm"
    return "x86-vnni" if VNNI_FLAGS & set(flags) else "x86"


def resolved(target: str) -> str:
    """A row of `TARGETS`: the one named, or for `native` the one that describes this machine.

    Raises:
        SchemeError: no such target.
    """
    if target == NATIVE:
        return target_of(platform.machine(), processor()[1])
    if target not in TARGETS:
        raise SchemeError(
            f"unknown target '{target}'.",
            remedy=f"{did_you_mean(target, TARGETS)}Choose one of: {NATIVE} (this machine), {', '.join(TARGETS)}.",
        )
    return target


def activations_for(target: str, kind: ActivationKind) -> ActivationKind:
    """How a target holds what a recipe wants to be held as `kind`.

    Args:
        target: a row of `TARGETS` or `native`.
        kind: of the recipe.

    Raises:
        SchemeError: no such target, or one that has no activations of so many bits.
    """
    target = resolved(target)
    if target not in DEVICES:
        return kind
    kinds = DEVICES[target].kinds
    if kind.bits not in kinds:
        raise SchemeError(
            f"target '{target}' takes no activations of {kind.bits} bits.",
            remedy=f"Use an int recipe, or a target that does: "
            f"{', '.join(name for name, device in DEVICES.items() if kind.bits in device.kinds)}.",
        )
    own = kinds[kind.bits]
    return replace(own, symmetric=own.symmetric or kind.powers, powers=kind.powers)


def kernel_lanes(target: str) -> int:
    """Channels that XNNPACK's integer kernels multiply at a time: 4 on ARM (8 with i8mm, which not all have)."""
    return 4 if target == "arm" else LANES


def described(asked: str, target: str) -> str:
    """One line about the target, for people.

    Args:
        asked: what was asked for, a row of `TARGETS` or `native`.
        target: the row of `TARGETS` that it resolved to.
    """
    return f"Target: {target}{' (this machine)' if asked == NATIVE else ''}: {TARGETS[target]}."


def weights_for(target: str, scheme: Linear | IntegerClusters, layer: Layer) -> tuple[Linear | IntegerClusters, str]:
    """The scheme that a layer's integer weights get on a target, and the reason if it is not the one asked for.

    Args:
        target: a row of `TARGETS`.
        scheme: what the recipe asks for.
        layer: the layer that they belong to.
    """
    if target in DEVICES and layer.op not in DEVICES[target].per_channel and scheme.per != "tensor":
        return scheme.per_tensor(), f"{layer.op} has one scale for all channels there"
    if target != "x86" or layer.depthwise:
        return scheme, ""
    reason = "16-bit sums of two products saturate on x86 without VNNI"
    if isinstance(scheme, IntegerClusters):
        most = (1 << (MAX_BITS_WITHOUT_VNNI - 1)) - 1
        return (replace(scheme, largest=most), reason) if scheme.largest > most else (scheme, "")
    if scheme.bits <= MAX_BITS_WITHOUT_VNNI:
        return scheme, ""
    return replace(scheme, bits=MAX_BITS_WITHOUT_VNNI), reason
