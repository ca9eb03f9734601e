"""Lines appended to a file as work is done, by one process at a time; what a run that was cut need not do again.

A line that a kill cut short is dropped when the file is opened again.
"""

import abc
import fcntl
import shutil
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from parrot_runtime.errors import InputError, ParrotError

Own = TypeVar("Own", bound="LineJournal")


class LineJournal(abc.ABC):
    """The lines in ``path``; a context. ``busy`` is what a second process is told after the path.

    A line that cannot be understood raises InputError, or with ``mend`` is taken out; the file as it was then stands
    beside it as ``NAME.damaged``. Raises InputError where the file cannot be written.
    """

    def __init__(self, path: Path, *, busy: str, mend: bool = False) -> None:
        self.path = path
        self._busy, self._mend = busy, mend

    def __enter__(self: Own) -> Own:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); give another folder") from error
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
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._file.truncate(start)
            raise ParrotError(
                f"{self.path}: cannot be written ({error.strerror}); what it holds is kept: make room, and run the "
                "same command again"
            ) from error
        self._end += len(data)
        return start

    def _read(self) -> None:
        self._end, damaged = 0, []
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(line, self._end, f"{self.path}: line {number}")
                except InputError:
                    if not self._mend:
                        raise
                    damaged.append(number)
                    continue
                self._end += len(line)
        if damaged:
            self._leave_out(damaged)
        self._file.truncate(self._end)

    def _leave_out(self, damaged: list[int]) -> None:
        before = self.path.with_name(f"{self.path.name}.damaged")
        shutil.copyfile(self.path, before)
        end, self._end = self._end, 0
        self._file.truncate(0)
        with before.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if self._end < end and number not in damaged:
                    self._append(line)
