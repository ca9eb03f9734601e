"""Answers on disk as they come, so that a run that was cut goes on where it stopped.

One JSON object per line. A row's answer counts only while its prompt and picture are what they were (``sample``, a
fingerprint); another model or way of asking has a folder of its own. A line cut by a kill is dropped.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from parrot_evaluation.tsv import Row
from parrot_runtime.errors import InputError
from parrot_runtime.journal import LineJournal

# The ``finish`` of a question that was not answered, and counts as wrong.
REFUSED = "refused"


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
_BUSY = "another parrot-eval is writing it; wait for it, or give another -o"


class EntryJournal(LineJournal, Generic[E]):
    """Entries by their key, a line of JSON each; a context that no other process may hold at the same time.

    ``key`` is an entry's, ``read`` makes an entry of a line's data, and ``what`` is what an error calls one. Of several
    with one key the last counts. With ``anew`` those of earlier runs are not taken, and stay until there is another
    with their key: a run that fails costs none of them.
    """

    def __init__(
        self, path: Path, *, what: str, key: Callable[[E], Hashable], read: Callable[[dict[str, Any]], E], anew: bool
    ) -> None:
        super().__init__(path, busy=_BUSY, mend=anew)
        self._what, self._key, self._read_entry, self._anew = what, key, read, anew
        self._entries: dict[Hashable, E] = {}

    def get(self, key: Hashable) -> E | None:
        """The entry of that key, if it is there."""
        return self._entries.get(key)

    def add(self, entry: E) -> None:
        """Append an entry; it is kept if the process is killed afterwards."""
        line = json.dumps(asdict(entry), ensure_ascii=False, allow_nan=False) + "\n"
        self._append(line.encode("utf-8", "backslashreplace"))
        self._entries[self._key(entry)] = entry

    def _take(self, line: bytes, start: int, where: str) -> None:
        try:
            entry = self._read_entry(_object(line))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{where}: not {self._what} ({error}); remove the line, or ask again with --force, which keeps the "
                "others"
            ) from error
        if not self._anew:
            self._entries[self._key(entry)] = entry


class Journal(EntryJournal[Entry]):
    """The answers in ``path``, by language and index. Without ``count_refused`` a refusal is no answer."""

    def __init__(self, path: Path, *, anew: bool = False, count_refused: bool = True) -> None:
        super().__init__(
            path, what="an answer", key=lambda entry: (entry.language, entry.index), read=_entry, anew=anew
        )
        self._count_refused = count_refused

    def find(self, row: Row, prompt: str) -> Entry | None:
        """The answer to ``row`` asked with ``prompt``, if it is there."""
        entry = self.get((row.language, row.index))
        if entry is None or entry.sample != fingerprint(row, prompt):
            return None
        return entry if self._count_refused or entry.finish != REFUSED else None

    def refused(self, rows: Iterable[Row]) -> int:
        """How many of ``rows`` the model would not, or could not, answer; they count as wrong."""
        entries = (self.get((row.language, row.index)) for row in rows)
        return sum(entry is not None and entry.finish == REFUSED for entry in entries)


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises ValueError for anything else."""
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("expected a JSON object")
    return data


def _entry(data: dict[str, Any]) -> Entry:
    routing = data.get("routing")
    return Entry(**{**data, "routing": None if routing is None else tuple(routing)})
