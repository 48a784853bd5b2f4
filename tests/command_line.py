"""Commands, run in this process: what they print is the test's, and importing takes no time."""

import sys

import pytest

from lowbit.cli import main


def run(*words: object) -> int:
    """Run a command as the shell would, without `lowbit` itself.

    Returns:
        Its exit code.
    """
    sys.argv = ["lowbit", *map(str, words)]
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
