"""TensorRT's log, which reaches Python as calls of an object, and the exceptions those calls cannot let out.

An exception cannot cross TensorRT's C++ frames: what a callback raises, Ctrl-C among it, is kept in ``Calls`` and
raised again once TensorRT has returned.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Calls:
    """What TensorRT said meanwhile: ``errors`` and ``warnings``, each once and in order; and what a callback raised."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    raised: BaseException | None = None

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Keep what is raised inside."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised again by reraise(), outside of TensorRT
            self.raised = self.raised or error

    def reraise(self) -> None:
        """Raise what a callback raised, if one did."""
        if self.raised is not None:
            raise self.raised


_loggers: dict[type, Any] = {}
_turn = threading.Lock()


@contextmanager
def logger(trt: Any, calls: Calls) -> Iterator[Any]:
    """The ``ILogger`` of this process, whose warnings and errors go to ``calls`` meanwhile; who uses it takes turns.

    TensorRT keeps the first logger it is given for as long as any object it made lives, one that a traceback holds
    among them, and ignores every other: with a new one each time, what the second says would be told to the first.
    """
    with _turn:
        log = _loggers.get(trt.ILogger)
        if log is None:
            log = _loggers[trt.ILogger] = _new_logger(trt)
        log.calls = calls
        try:
            yield log
        finally:
            log.calls = Calls()


def _new_logger(trt: Any) -> Any:
    kept = {
        trt.ILogger.WARNING: "warnings",
        trt.ILogger.ERROR: "errors",
        trt.ILogger.INTERNAL_ERROR: "errors",
    }

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.calls = Calls()

        def log(self, severity: Any, message: str) -> None:
            calls = self.calls
            with calls.guard():
                lines = getattr(calls, kept[severity]) if severity in kept else None
                if lines is not None and message not in lines:
                    lines.append(message)

    return Log()
