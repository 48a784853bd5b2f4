"""Small .tflite files, written operator by operator, and what LiteRT answers to them."""

import numpy as np

from lowbit.engines import open_session
from lowbit.formats.litert.file import FileOperator, FileTensor, serialize


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


def answers(content, x, engine):
    session = open_session(content, engine=engine, threads=1)
    return list(session.run({session.input_names[0]: x}).values())
