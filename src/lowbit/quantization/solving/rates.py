"""What the entropy coder of the archive would spend on a layer's codes, code by code, so that a solver can weigh it."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lowbit.graph.ops import Layer
from lowbit.packing.contexts import Coding, Layout
from lowbit.packing.entropy import choose_coding, context_costs
from lowbit.quantization.solving.problem import Single

BEYOND_BITS = 24.0  # for a code that the coder's alphabet does not have

WholeNumbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Rates:
    """What each code would cost at each place, in bits: `bits[context, code + center]`."""

    layer: Layer
    coding: Coding
    layout: Layout
    bits: Single
    context: npt.NDArray[np.intp]
    center: int
    total: float

    @staticmethod
    def of(codes: WholeNumbers, layer: Layer) -> "Rates":
        """The coder's tables after these codes, with the contexts that serve them best."""
        layout = _layout(layer)
        symbols, _ = _symbols(codes, layer)
        coding, _ = choose_coding(symbols, layout)
        return Rates._with(codes, layer, layout, coding)

    def again(self, codes: WholeNumbers) -> "Rates":
        """The same contexts after other codes."""
        return Rates._with(codes, self.layer, self.layout, self.coding)

    @staticmethod
    def _with(codes: WholeNumbers, layer: Layer, layout: Layout, coding: Coding) -> "Rates":
        symbols, low = _symbols(codes, layer)
        count = int(symbols.max()) + 1
        middle = int(np.searchsorted(np.cumsum(np.bincount(symbols, minlength=count)), (symbols.size + 1) // 2))
        adapted = replace(coding, alphabet=max(2, count), center=middle)
        costs = context_costs(symbols, layout, adapted)
        context = layer.to_matrix(costs.context.reshape(layer.weight_shape)).astype(np.intp)
        return Rates(layer, adapted, layout, costs.bits.astype(np.float32), context, -low, costs.total)

    def at(self, codes: Single, column: int) -> Single:
        """Bits of candidate codes [candidates, groups, rows] of one column."""
        symbols = codes.astype(np.intp) + self.center
        inside = symbols.clip(0, self.bits.shape[1] - 1)
        cost = self.bits[self.context[:, :, column], inside]
        beyond = symbols != inside
        return np.asarray(np.where(beyond, np.float32(BEYOND_BITS), cost), np.float32) if beyond.any() else cost


def _symbols(codes: WholeNumbers, layer: Layer) -> tuple[npt.NDArray[np.int16], int]:
    """Codes as the coder sees them, from 0 on in the stored order, and the code that is 0."""
    low = int(codes.min())
    return (layer.from_matrix(codes) - low).reshape(-1).astype(np.int16), low


def _layout(layer: Layer) -> Layout:
    """Rows, columns and kernel of the stored weight, as `formats.onnx.archive` will find them in the file."""
    rows, columns, *kernel = layer.weight_shape
    return Layout(rows, columns, int(np.prod(kernel[:-1], dtype=int)), kernel[-1] if kernel else 1)
