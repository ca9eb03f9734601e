"""SIGINT and SIGTERM during a run: at once while nothing is to be saved, after a checkpoint while training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from parrot_runtime.errors import ParrotError

_HANDLED = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(ParrotError):
    """A signal ended the run; the exit code is 128 + its number (130 or 143)."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Signals:
    """While entered, the two signals raise InterruptedRunError; inside ``deferred`` the first only sets ``received``.

    A second signal inside ``deferred`` raises as well: who presses Ctrl-C twice does not want to wait for the disk. A
    launcher passes on what the terminal has sent already, so ``launched`` takes all later ones for the first.
    Outside the main thread, where Python delivers no signals, nothing is changed.
    """

    def __init__(self, *, launched: bool = False) -> None:
        self.received: int | None = None
        self._deferred = False
        self._launched = launched
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal waits for the end of the step and its checkpoint."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def settle(self) -> None:
        """From now on let no signal come between: the run has failed, and what is left to do takes no time."""
        self._deferred, self._launched = True, True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        repeated, self.received = self.received is not None, number
        if (self._launched and repeated) or (self._deferred and not repeated):
            return
        raise InterruptedRunError(number, f"stopped by {signal.Signals(number).name}")
