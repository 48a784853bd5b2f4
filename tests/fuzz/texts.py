"""Texts that are nearly right: values of JSON, words of lines changed, left out, doubled, or taken from elsewhere."""

import contextlib
import json
import random
from typing import Any

from fuzz.mutants import FLOATS, INTEGERS, TEXTS, changes, flipped, unzipped, zipped

DEEP = 3000  # levels of lists, more than Python's own stack has


def json_mutant(data: bytes, rng: random.Random) -> bytes:
    """A changed JSON file; one in eight is changed byte by byte, or nested too deeply."""
    how = rng.random()
    if how < 0.1:
        return flipped(data, rng)
    if how < 0.12:
        return b"[" * DEEP + b"]" * DEEP
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):  # it was changed before
        return flipped(data, rng)
    for _ in range(changes(rng)):
        places = list(_places(tree))
        if not places:
            break
        holder, key = rng.choice(places)
        _change(holder, key, places, rng)
    return json.dumps(tree).encode()  # NaN and Infinity too, which Python reads


def program_mutant(data: bytes, rng: random.Random) -> bytes:
    """A zip archive of JSON and other members, as torch and Keras write them: one to three members changed."""
    members = unzipped(data)
    for _ in range(changes(rng)):
        name = rng.choice(sorted(members))
        how = rng.randrange(6)
        if how == 0:
            del members[name]
        elif how == 1:
            members[rng.choice((*TEXTS[1:], name.upper(), f"../{name}", "code/x.py"))] = members.pop(name)
        elif name.endswith(".json"):
            members[name] = json_mutant(members[name], rng)
        else:
            members[name] = flipped(members[name], rng)
        if not members:
            break
    return zipped(members, rng)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every holder of a value, and the value's key or index there."""
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo:
        at = todo.pop()
        keys = at.keys() if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        found += [(at, key) for key in keys]
        todo += [at[key] for key in keys]
    return found


def _change(holder: Any, key: Any, places: list[tuple[Any, Any]], rng: random.Random) -> None:
    how = rng.randrange(8)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.append(holder[key])
    elif how == 2 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)
    elif how == 3:
        # As text, lest a piece holds itself.
        other, elsewhere = rng.choice(places)
        if elsewhere in other if isinstance(other, dict) else elsewhere < len(other):
            holder[key] = json.loads(json.dumps(other[elsewhere]))
    elif how == 4 and isinstance(holder[key], int | float):
        with contextlib.suppress(OverflowError):  # of a number that no float can be
            holder[key] += rng.choice((1, -1, 0.5))
    else:
        holder[key] = rng.choice((None, True, [], {}, [[]], *INTEGERS, *FLOATS, *TEXTS, 10**400))


def lines_mutant(data: bytes, rng: random.Random) -> bytes:
    """A changed list of images, or of boxes."""
    if rng.random() < 0.15:
        return flipped(data, rng)
    lines = data.decode().splitlines()
    for _ in range(changes(rng)):
        if not lines:
            break
        at = rng.randrange(len(lines))
        how = rng.randrange(5)
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif how == 2:
            lines[at] = rng.choice(("", "#", '"', ",", "\0", "\ufeff", "a b", "é" * 300, "," * 5000))
        else:
            lines[at] = _word(lines[at], rng)
    return rng.choice(("\n", "\n", "\r\n", "\r")).join(lines).encode()


def _word(line: str, rng: random.Random) -> str:
    separator = "," if "," in line else " "
    words = line.split(separator)
    at = rng.randrange(len(words))
    odd = (*map(str, INTEGERS), *map(str, FLOATS), *TEXTS, "9" * 5000, "0x1", "1_0", "../photo.png", "/dev/zero")
    words[at] = rng.choice(odd)
    if rng.random() < 0.2:
        words.append(words[at])
    return separator.join(words)
