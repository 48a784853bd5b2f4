"""What ONNX Runtime answers, compared with what a framework does."""

import numpy as np

from lowbit.engines import open_session


def assert_same(model, arrays, wanted):
    """The outputs of a loaded model equal `wanted` to 1e-5 of the largest value."""
    session = open_session(model.to_bytes(), threads=1)
    found = list(session.run(dict(zip(session.input_names, arrays, strict=True))).values())
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * max(1e-3, np.abs(theirs).max()))
