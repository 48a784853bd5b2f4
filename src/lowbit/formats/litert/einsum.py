"""Einsum of two computed operands as one BATCH_MATMUL."""

import math

from lowbit.formats.litert.graph import FileGraph, StoredValue
from lowbit.graph.model import Node


def einsum(graph: FileGraph, node: Node) -> None:
    """Letters of both operands that the result keeps are the batch of products, those that it drops are summed over."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms, arrow, kept = equation.partition("->")
    parts = terms.split(",")
    if not arrow or len(parts) != 2 or "." in equation or any(len(set(part)) < len(part) for part in (*parts, kept)):
        raise graph.refuse(node, f"'{equation}' is not a product of two operands")
    left, right = parts
    both = [letter for letter in kept if letter in left and letter in right]
    summed = [letter for letter in left if letter in right and letter not in kept]
    rows, columns = ([letter for letter in kept if letter in own and letter not in both] for own in (left, right))
    if len(both) + len(summed) + len(rows) != len(left) or len(both) + len(summed) + len(columns) != len(right):
        raise graph.refuse(node, f"'{equation}' sums over letters of one operand alone")
    sizes: dict[str, int] = {}
    factors = []
    for value, own, order in (
        (node.inputs[0], left, (both, rows, summed)),
        (node.inputs[1], right, (both, summed, columns)),
    ):
        stored = graph.plain(value)
        sizes |= dict(zip(own, graph.tensors[stored.tensor].shape, strict=True))
        letters = [letter for group in order for letter in group]
        turned = graph.transpose(stored.tensor, [own.index(letter) for letter in letters])
        shape = [sizes[letter] for letter in both] + [math.prod(sizes[one] for one in group) for group in order[1:]]
        factors.append(graph.reshape(turned, shape, batch_axis=graph.tensors[turned].batch_axis))
    name = str(node.outputs[0].name)
    batch = graph.shapes.batch_axis(name)
    if batch is not None and (not both or kept[batch] != both[0]):
        graph.resizable = False
    product = [sizes[letter] for letter in both] + [math.prod(sizes[one] for one in group) for group in (rows, columns)]
    result = graph.derived(factors[0], product)
    graph.operator("BATCH_MATMUL", factors, [result], table="BatchMatMulOptions")
    letters = [*both, *rows, *columns]
    apart = graph.reshape(result, [sizes[letter] for letter in letters])
    graph.adopt(name, StoredValue(apart, tuple(kept.index(letter) for letter in letters)))
