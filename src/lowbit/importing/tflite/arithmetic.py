"""Arithmetic on values one by one, and over axes."""

from collections.abc import Callable

import numpy as np

from lowbit.importing.tflite.translation import Translation

Operator = Callable[[Translation], None]


def same(op: str, *, fuses: bool = False) -> Operator:
    """An operator that ONNX has as well, with the same operands; with or without a fused activation."""

    def translate(model: Translation) -> None:
        inputs = [model.read(at) for at in range(len(model.operator.inputs))]
        model.give(model.node(op, inputs), activation=model.option(0) if fuses else 0)

    return translate


def activation(name: str) -> Operator:
    """An activation function of this name in the schema."""

    def translate(model: Translation) -> None:
        model.give(model.activated(model.read(0), name))

    return translate


def reduction(op: str) -> Operator:
    """MEAN, SUM and the like over axes; over images channels-first, as global pools are known."""

    def translate(model: Translation) -> None:
        rank = len(model.shape(model.operator.inputs[0]))
        axes = sorted({axis % rank for axis in model.integers(1)}) if rank else []
        if rank == 4 and axes == [1, 2] and model.flag(0):
            x = model.channels_first(model.read(0))
            model.give(model.channels_last(model.node(op, [x, model.constant([2, 3])], keepdims=1)))
            return
        model.give(model.node(op, [model.read(0), model.constant(axes)], keepdims=int(model.flag(0))))

    return translate


def position(op: str) -> Operator:
    """ARG_MAX and ARG_MIN."""

    def translate(model: Translation) -> None:
        model.give(model.node(op, [model.read(0)], axis=model.integers(1)[0], keepdims=0))

    return translate


def softmax(model: Translation) -> None:
    """SOFTMAX, with a factor on its inputs."""
    beta, x = model.operator.options.number(0, "f"), model.read(0)
    if beta not in (0.0, 1.0):
        x = model.node("Mul", [x, model.constant(np.float32(beta))])
    model.give(model.node("Softmax", [x], axis=-1))


def log_softmax(model: Translation) -> None:
    """LOG_SOFTMAX."""
    model.give(model.node("LogSoftmax", [model.read(0)], axis=-1))


def leaky_relu(model: Translation) -> None:
    """LEAKY_RELU."""
    model.give(model.node("LeakyRelu", [model.read(0)], alpha=model.operator.options.number(0, "f")))


def gelu(model: Translation) -> None:
    """GELU."""
    model.give(model.node("Gelu", [model.read(0)], approximate="tanh" if model.flag(0) else "none"))


def square(model: Translation) -> None:
    """SQUARE."""
    model.give(model.node("Mul", [model.read(0), model.read(0)]))


def squared_difference(model: Translation) -> None:
    """SQUARED_DIFFERENCE."""
    difference = model.node("Sub", [model.read(0), model.read(1)])
    model.give(model.node("Mul", [difference, difference]))


def reciprocal_root(model: Translation) -> None:
    """RSQRT."""
    model.give(model.node("Reciprocal", [model.node("Sqrt", [model.read(0)])]))


def floor_division(model: Translation) -> None:
    """FLOOR_DIV of floats."""
    if model.tensor(model.operator.inputs[0]).dtype != "float32":
        raise model.refused("divides integers, which is not read")
    model.give(model.node("Floor", [model.node("Div", [model.read(0), model.read(1)])]))


def not_equal(model: Translation) -> None:
    """NOT_EQUAL."""
    model.give(model.node("Not", [model.node("Equal", [model.read(0), model.read(1)])]))


def unit_length(model: Translation) -> None:
    """L2_NORMALIZATION along the last axis."""
    norm = model.node("ReduceL2", [model.read(0), model.constant([-1])], keepdims=1)
    norm = model.node("Max", [norm, model.constant(np.float32(1e-6))])
    model.give(model.node("Div", [model.read(0), norm]), activation=model.option(0))
