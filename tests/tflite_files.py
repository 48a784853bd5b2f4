"""Small .tflite files, written operator by operator, and what LiteRT answers to them."""

import flatbuffers
import numpy as np

from lowbit.engines import open_session
from lowbit.formats.litert.file import FileOperator, FileTensor, load_schema, serialize


class File:
    """A file under construction, with one input 'x'."""

    def __init__(self, shape, dtype="float32", *, batch=True):
        self.tensors = [FileTensor(tuple(shape), dtype, "x", batch_axis=0 if batch else None)]
        self.operators = []
        self.last = 0

    def constant(self, values, dtype="float32", **more):
        values = np.asarray(values, dtype)
        self.tensors.append(FileTensor(values.shape, dtype, f"c{len(self.tensors)}", data=values, **more))
        return len(self.tensors) - 1

    def tensor(self, shape, dtype="float32", **more):
        self.tensors.append(FileTensor(tuple(shape), dtype, f"t{len(self.tensors)}", **more))
        return len(self.tensors) - 1

    def add(self, code, inputs, shape, dtype="float32", *, table="", version=1, **options):
        """An operator with one output, whose index is returned."""
        self.last = self.tensor(shape, dtype)
        self.operators.append(FileOperator(code, tuple(inputs), (self.last,), options, table, version))
        return self.last

    def content(self, *outputs, metadata=None):
        ends = outputs or (self.last,)
        return serialize(self.tensors, self.operators, inputs=[0], outputs=ends, metadata=metadata or {}, source="test")


class Edited(File):
    """A file with what lowbit itself never writes: `edit` changes the schema's objects."""

    def __init__(self, shape, edit):
        super().__init__(shape)
        self.edit = edit

    def content(self, *outputs, metadata=None):
        schema = load_schema()
        model = schema.ModelT.InitFromPackedBuf(super().content(*outputs, metadata=metadata), 0)
        self.edit(schema, model)
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def leave_out_zeros(values, order, listed, block=(), vector="Int32"):
    """An edit: constant 1 keeps only what is not zero, or the blocks that are not.

    Args:
        values: the constant; its sizes are multiples of those of the block.
        order: of its dimensions, and behind them those of the block.
        listed: the levels that list their indices.
        block: size of a block along each dimension.
        vector: type of the lists.
    """
    whole = np.asarray(values)
    sizes = [size // part for size, part in zip(whole.shape, block or (1,) * whole.ndim, strict=True)]
    if block:
        whole = whole.reshape([side for pair in zip(sizes, block, strict=True) for side in pair])
        whole = whole.transpose([*range(0, whole.ndim, 2), *range(1, whole.ndim, 2)])
        sizes += block
    whole = whole.transpose(order)
    present = np.ones((1, 0), np.int64)  # entries of the level above, by their indices
    levels = []
    for level, size in enumerate(whole.shape):
        below = [(*above, at) for above in present.tolist() for at in range(size)]
        rest = tuple(range(level + 1, whole.ndim))
        if level in listed:
            kept = np.any(whole, axis=rest)
            below = [entry for entry in below if kept[entry]]
        counts = [sum(entry[:-1] == tuple(above) for entry in below) for above in present.tolist()]
        levels.append((level in listed, size, np.cumsum([0, *counts]), [entry[-1] for entry in below]))
        present = np.array(below).reshape(-1, level + 1)
    stored = whole[tuple(present.T)]

    def edit(schema, model):
        def numbers(values):
            made = getattr(schema, f"{vector}VectorT")()
            made.values = np.asarray(values, vector.lower())
            return made

        how = schema.SparsityParametersT()
        how.traversalOrder, how.blockMap, how.dimMetadata = list(order), list(range(len(block))), []
        for is_listed, size, bounds, indices in levels:
            entry = schema.DimensionMetadataT()
            entry.format, entry.denseSize = int(is_listed), 0 if is_listed else size
            if is_listed:
                entry.arraySegmentsType = entry.arrayIndicesType = getattr(schema.SparseIndexVector, f"{vector}Vector")
                entry.arraySegments, entry.arrayIndices = numbers(bounds), numbers(indices)
            how.dimMetadata.append(entry)
        tensor = model.subgraphs[0].tensors[1]
        tensor.sparsity = how
        model.buffers[tensor.buffer].data = np.frombuffer(stored.tobytes(), np.uint8)

    return edit


def answers(content, x, engine):
    session = open_session(content, engine=engine, threads=1)
    return list(session.run({session.input_names[0]: x}).values())
