"""Answers on disk as they come, so that a run that was cut goes on where it stopped.

One JSON object per line. A row's answer counts only while its prompt and picture are what they were (``sample``, a
fingerprint); another model or way of asking has a folder of its own. A line cut by a kill is dropped.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from parrot_evaluation.tsv import Row
from parrot_runtime.errors import InputError
from parrot_runtime.journal import LineJournal


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


E = TypeVar("E")


class EntryJournal(LineJournal, Generic[E]):
    """Entries by their key, a line of JSON each; a context that no other process may hold at the same time.

    ``key`` is an entry's, ``read`` makes an entry of a line's data, and ``what`` is what an error calls one. Of several
    with one key the last counts.
    """

    def __init__(
        self, path: Path, *, busy: str, what: str, key: Callable[[E], str], read: Callable[[dict[str, Any]], E]
    ) -> None:
        super().__init__(path, busy=busy)
        self._what, self._key, self._read_entry = what, key, read
        self._entries: dict[str, E] = {}

    def get(self, key: str) -> E | None:
        """The entry of that key, if it is there."""
        return self._entries.get(key)

    def add(self, entry: E) -> None:
        """Append an entry; it is kept if the process is killed afterwards."""
        line = json.dumps(asdict(entry), ensure_ascii=False, allow_nan=False) + "\n"
        self._append(line.encode("utf-8", "backslashreplace"))
        self._entries[self._key(entry)] = entry

    def clear(self) -> None:
        """Forget every entry."""
        self._clear()
        self._entries.clear()

    def _take(self, line: bytes, start: int, where: str) -> None:
        try:
            entry = self._read_entry(json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{where}: not {self._what} ({error}); remove the line, or start anew with --force"
            ) from error
        self._entries[self._key(entry)] = entry


class Journal(LineJournal):
    """The answers in ``path``; a context that no other process may hold at the same time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, busy="another parrot-eval is writing it; wait for it, or give another -o")
        self._entries: dict[tuple[str, str], Entry] = {}

    def get(self, row: Row, prompt: str) -> Entry | None:
        """The answer to ``row`` asked with ``prompt``, if it is there."""
        entry = self._entries.get((row.language, row.index))
        return entry if entry is not None and entry.sample == fingerprint(row, prompt) else None

    def refused(self) -> int:
        """How many questions a server would not answer, which count as wrong."""
        return sum(entry.finish == "refused" for entry in self._entries.values())

    def add(self, entries: Iterable[Entry]) -> None:
        """Append answers; those of a process that is killed afterwards are kept."""
        entries = list(entries)
        lines = [json.dumps(asdict(entry), ensure_ascii=False, allow_nan=False) + "\n" for entry in entries]
        self._append("".join(lines).encode("utf-8", "backslashreplace"))
        self._entries.update(((entry.language, entry.index), entry) for entry in entries)

    def clear(self) -> None:
        """Forget every answer."""
        self._clear()
        self._entries.clear()

    def _take(self, line: bytes, start: int, where: str) -> None:
        entry = _entry(line, where)
        self._entries[entry.language, entry.index] = entry


def _entry(line: bytes, where: str) -> Entry:
    try:
        data: dict[str, Any] = json.loads(line)
        routing = data.get("routing")
        return Entry(**{**data, "routing": None if routing is None else tuple(routing)})
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: not an answer ({error}); remove the line, or start anew with --force") from error
