"""A network of a few layers, with samples whose labels it knows, for searches that take a second."""

import numpy as np

import lowbit
from graphs import make, make_node
from lowbit.searching.limits import SearchSettings

SIDE, CLASSES = 4, 5
LIMIT = 1.0  # points: less than one of 48 samples
QUICK = SearchSettings(
    recipes=("float", "linear8", "linear5", "linear3", "linear2"), effort="fast", rounds=2, threads=1
)


def network():
    """Layers of different sizes, and large enough for narrow codes to be worth the nodes that decode them."""
    random = np.random.default_rng(0)
    nodes, weights, before, name = [], {}, 3, "x"
    for place, (after, kernel) in enumerate([(32, 3), (96, 1), (128, 1)]):
        weights[f"w{place}"] = random.normal(scale=(before * kernel**2) ** -0.5, size=(after, before, kernel, kernel))
        weights[f"b{place}"] = random.normal(scale=0.1, size=after)
        nodes.append(make_node("Conv", f"{name} w{place} b{place}", f"c{place}", kernel_shape=[kernel] * 2))
        nodes.append(make_node("Relu", f"c{place}", f"r{place}"))
        before, name = after, f"r{place}"
    nodes.append(make_node("ReduceMean", name, "mean", axes=[2, 3], keepdims=0))
    weights["w"] = random.normal(scale=6 * before**-0.5, size=(before, CLASSES))
    nodes.append(make_node("MatMul", "mean w", "scores"))
    arrays = {key: value.astype(np.float32) for key, value in weights.items()}
    return lowbit.load(make(nodes, {"x": ["n", 3, SIDE, SIDE]}, {"scores": ["n", CLASSES]}, arrays))


def inputs(count, *, seed):
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


def samples(model, count, *, seed, labels=False):
    """Samples as arrays; those with labels have the float model's answers for them."""
    x = inputs(count, seed=seed)
    if not labels:
        return lowbit.open_images(x, None)
    (scores,) = lowbit.open_session(model.to_bytes(), threads=1).run({model.input.name: x}).values()
    return lowbit.open_data({model.input.name: x, "labels": scores.reshape(count, -1).argmax(axis=1)}, model)


class Told:
    """Progress that remembers what it was told."""

    def __init__(self, then=None):
        self.lines, self.then = [], then

    def track(self, items, what, total=None):
        return iter(items)

    def note(self, text):
        self.lines.append(text)
        if self.then is not None:
            self.then(len(self.lines))
