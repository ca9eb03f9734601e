"""Lines appended to a file as work is done, by one process at a time; what a run that was cut need not do again.

A line that a kill cut short is dropped when the file is opened again.
"""

import abc
import fcntl
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from parrot_runtime.errors import InputError

Own = TypeVar("Own", bound="LineJournal")


class LineJournal(abc.ABC):
    """The lines in ``path``; a context. ``busy`` is what a second process is told after the path."""

    def __init__(self, path: Path, *, busy: str) -> None:
        self.path = path
        self._busy = busy

    def __enter__(self: Own) -> Own:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError as error:
            self._file.close()
            raise InputError(f"{self.path}: {self._busy}") from error
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @abc.abstractmethod
    def _take(self, line: bytes, start: int, where: str) -> None:
        """Take in a whole line, which begins at byte ``start``; ``where`` names it in errors."""

    def _append(self, data: bytes) -> int:
        """Append whole lines, and hand them to the operating system before returning: a killed process loses none.

        Returns the byte at which they begin.
        """
        start = self._end
        self._file.write(data)
        self._file.flush()
        self._end += len(data)
        return start

    def _clear(self) -> None:
        self._file.truncate(0)
        self._end = 0

    def _read(self) -> None:
        self._file.seek(0)
        self._end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            self._take(line, self._end, f"{self.path}: line {number}")
            self._end += len(line)
        self._file.truncate(self._end)
