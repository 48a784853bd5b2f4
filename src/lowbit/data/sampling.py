"""Some of the images instead of all: as many of each class as its share, the same choice on any machine."""

import hashlib
import math
from collections import Counter

import numpy as np

from lowbit.data.sources import Labels
from lowbit.errors import DataError


def stratified(labels: Labels | None, count: int, limit: int, *, seed: int) -> list[int]:
    """Indices of `limit` out of `count` images in ascending order, each class in proportion (largest remainders first).

    Args:
        labels: int64 [count]; None treats all images as one class.
        count: how many images there are.
        limit: how many to choose; all of them if there are no more.
        seed: of the choice.

    Raises:
        DataError: `limit` is not positive.
    """
    check_limit(limit)
    if limit >= count:
        return list(range(count))
    classes = np.zeros(count, np.int64) if labels is None else labels
    shares = {name: limit * number / count for name, number in Counter(classes.tolist()).items()}
    quota = {name: math.floor(share) for name, share in shares.items()}
    # Equal remainders are ranked by a hash: where most classes have one image, order would take the first classes only.
    by_remainder = sorted(shares, key=lambda name: (quota[name] - shares[name], _rank(seed, "class", name)))
    for name in by_remainder[: limit - sum(quota.values())]:
        quota[name] += 1
    # Ranked by a hash and not by a generator, whose stream may change with the version of a library.
    ranked = sorted(range(count), key=lambda index: _rank(seed, index))
    chosen = []
    for index in ranked:
        name = int(classes[index])
        if quota[name]:
            quota[name] -= 1
            chosen.append(index)
    return sorted(chosen)


def _rank(*parts: object) -> bytes:
    return hashlib.sha256(" ".join(map(str, parts)).encode()).digest()


def check_limit(limit: int) -> None:
    """Refuse a limit that leaves no images.

    Raises:
        DataError: `limit` is not positive.
    """
    if limit < 1:
        raise DataError(f"the number of images must be at least 1, not {limit}.")
