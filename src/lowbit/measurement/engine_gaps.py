"""Files of one recipe that answer very differently on different engines: one of them is wrong, or computed wrongly."""

from collections import defaultdict
from collections.abc import Sequence

from lowbit.measurement.results import Row

# Of 234 recipes of the zoo the farthest apart are 4.8 dB; two that an engine computed wrongly were 21 and 27
# (decision 085).
USUAL_DB = 10.0
CLOSE_DB = 40.0  # from float, beyond which it makes no difference to anyone


def gaps_between_engines(rows: Sequence[Row]) -> tuple[str, ...]:
    """A warning for each recipe whose files are far less like float on one engine than on another.

    Where an engine ran several files of a recipe, these are different files, and each is only compared with itself.

    Args:
        rows: of a comparison; emulated ones are meant to be different, and are left out.
    """
    found: dict[str, list[tuple[float, Row]]] = defaultdict(list)
    for row in rows:
        if not row.emulated and row.output_sqnr_db is not None:
            found[row.file_recipe or row.recipe].append((min(row.output_sqnr_db, CLOSE_DB), row))
    warnings = []
    for recipe, all_known in found.items():
        for known in _comparable(all_known):
            (least, bad), (most, good) = min(known, key=lambda one: one[0]), max(known, key=lambda one: one[0])
            if most - least > USUAL_DB and bad.engine != good.engine:
                warnings.append(
                    f"Warning: {recipe} is {most - least:.0f} dB farther from float in {bad.file} with {bad.engine} "
                    f"than in {good.file} with {good.engine}; engines are usually within {USUAL_DB:.0f} dB of each "
                    f"other. Do not deploy {bad.file} before you know why."
                )
    return tuple(warnings)


def _comparable(known: list[tuple[float, Row]]) -> list[list[tuple[float, Row]]]:
    """Rows of a recipe that should be alike: all of them if each engine ran one file, else those of each file."""
    engines = [row.engine for _, row in known]
    if len(set(engines)) == len(engines):
        return [known]
    by_file: dict[str, list[tuple[float, Row]]] = defaultdict(list)
    for decibels, row in known:
        by_file[row.file].append((decibels, row))
    return list(by_file.values())
