"""Look for known vulnerabilities in the locked versions, without any network: `python requirements/audit.py [LOCK...]`.

advisories.json holds those of packages that the locks name: version ranges by identifier, alternatives separated by
`||`. It is kept by hand and knows what was published until it was last changed; `make audit` also asks the package
index through pip-audit, which knows more where it is reachable.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).parent
PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")


def pins(lock: Path) -> Iterator[tuple[str, str]]:
    """Package and version of every line of a lock."""
    for line in lock.read_text().splitlines():
        if match := PIN.match(line):
            yield canonicalize_name(match[1]), match[2]


def vulnerable(locks: Iterable[Path]) -> Iterator[str]:
    """A line for each known vulnerability of a locked version."""
    advisories = json.loads((HERE / "advisories.json").read_text())
    for lock in locks:
        for name, version in pins(lock):
            for identifier, ranges in advisories.get(name, {}).items():
                if any(SpecifierSet(each, prereleases=True).contains(Version(version)) for each in ranges.split("||")):
                    yield f"{lock.name}: {name} {version} has {identifier} (versions {ranges})"


def main() -> None:
    """Print what is found, and fail if that is anything."""
    locks = [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.txt"))
    found = list(vulnerable(locks))
    print("\n".join(found) or f"No known vulnerabilities in {', '.join(lock.name for lock in locks)}.")
    sys.exit(len(found) > 0)


if __name__ == "__main__":
    main()
