"""Answers on disk as they come, so that a run that was cut goes on where it stopped.

One JSON object per line. A row's answer counts only while its prompt and picture are what they were (``sample``, a
fingerprint); another model or way of asking has a folder of its own. A line cut by a kill is dropped.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from parrot_evaluation.tsv import Row
from parrot_runtime.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One answer. ``routing`` holds the share of each expert, ``finish`` why the answer ended, where known."""

    language: str
    index: str
    sample: str
    response: str
    finish: str | None = None
    routing: tuple[float, ...] | None = None


def fingerprint(row: Row, prompt: str) -> str:
    """16 hexadecimal digits that change with the prompt or the picture of ``row``."""
    return hashlib.sha256(f"{row.language}\0{row.image_id}\0{prompt}".encode()).hexdigest()[:16]


class Journal:
    """The answers in ``path``; a context that no other process may hold at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[tuple[str, str], Entry] = {}

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise InputError(
                f"{self.path}: another parrot-eval is writing it; wait for it, or give another -o"
            ) from error
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def get(self, row: Row, prompt: str) -> Entry | None:
        """The answer to ``row`` asked with ``prompt``, if it is there."""
        entry = self._entries.get((row.language, row.index))
        return entry if entry is not None and entry.sample == fingerprint(row, prompt) else None

    def add(self, entries: Iterable[Entry]) -> None:
        """Append answers, and hand them to the operating system before returning: a killed process loses none."""
        for entry in entries:
            line = json.dumps(asdict(entry), ensure_ascii=False, allow_nan=False) + "\n"
            self._file.write(line.encode("utf-8", "backslashreplace"))
            self._entries[entry.language, entry.index] = entry
        self._file.flush()

    def clear(self) -> None:
        """Forget every answer."""
        self._file.truncate(0)
        self._entries.clear()

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            entry = _entry(line, f"{self.path}: line {number}")
            self._entries[entry.language, entry.index] = entry
        self._file.seek(0, os.SEEK_END)
        self._file.truncate(whole)


def _entry(line: bytes, where: str) -> Entry:
    try:
        data: dict[str, Any] = json.loads(line)
        routing = data.get("routing")
        return Entry(**{**data, "routing": None if routing is None else tuple(routing)})
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: not an answer ({error}); remove the line, or start anew with --force") from error
