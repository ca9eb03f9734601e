"""What the exporter's work tells whoever watches it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Opens a progress bar with a label and a length, and gives the function that moves it on.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def no_progress(_label: str, _length: int) -> Iterator[Callable[[int], None]]:
    """The progress bar nobody sees."""
    yield lambda _count: None
