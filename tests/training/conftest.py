import pytest

from lowbit.progress import Silent


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def told() -> Notes:
    """Progress that remembers its notes, for the one training of a module."""
    return Notes()
