"""What the exporter's work tells whoever watches it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import click

# Opens a progress bar with a label and a length, and gives the function that moves it on.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def no_progress(_label: str, _length: int) -> Iterator[Callable[[int], None]]:
    """The progress bar nobody sees."""
    yield lambda _count: None


@contextmanager
def progress_bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal."""
    with click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield bar.update
