"""How fast requests may go out: so many, and so many tokens, a minute; and not at all while the server asks for a
pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class StoppedError(Exception):
    """Another request has ended the run, so this one is not made."""


class Pace:
    """Shared by all threads. ``clock`` gives seconds; ``rest`` waits so many and says True where the run is over."""

    def __init__(
        self,
        *,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        rest: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._step = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._token_step = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._rest, self._clock = rest, clock
        self._lock = threading.Lock()
        self._next = 0.0

    @property
    def of_tokens(self) -> bool:
        """Whether tokens are bounded, and so have to be counted."""
        return self._token_step > 0

    def wait(self) -> None:
        """Return when the next request may go out. Raises StoppedError."""
        while True:
            with self._lock:
                now = self._clock()
                delay = self._next - now
                if delay <= 0:
                    self._next = now + self._step
                    break
            self.rest(delay)
        self.rest(0)

    def rest(self, seconds: float) -> None:
        """Let this thread alone wait. Raises StoppedError."""
        if self._rest(seconds):
            raise StoppedError

    def spent(self, tokens: int) -> None:
        """Put the next request off by what ``tokens`` of a reply take; a reply says how many only when it is there."""
        with self._lock:
            self._next = max(self._next, self._clock()) + tokens * self._token_step

    def pause(self, seconds: float) -> None:
        """Let nothing out for so long."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)
