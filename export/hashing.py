"""SHA-256 of files on all cores while the export does other things.

At two GiB a second and less, hashing is most of what a linked export of a large model has to do. So a file is hashed as
soon as it is known to become one of the bundle's, in a thread of its own: neither reading nor hashing holds the
interpreter's lock.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType

from parrot_runtime.errors import ParrotError
from parrot_runtime.manifest import FileRecord

# Measured on one core of an AMD EPYC, per GiB: 0.61 s of the processor in pieces of 4 MiB, 0.64 in 256 KiB or 16 MiB,
# 0.66 through a memory map; 0.59 for numbers that are in memory already.
_PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class _State:
    """What tells a file, by any of its names, from another one and from itself before a change."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, found: os.stat_result) -> "_State":
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Hashes:
    """The hashes of an export's files. A hard link has that of the file it is another name of.

    To be used with ``with``; leaving it ends the threads, whatever is still to be hashed.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sha256")
        self._begun: dict[_State, Future[tuple[_State, FileRecord]]] = {}
        self._unwanted: dict[_State, Event] = {}

    def __enter__(self) -> "Hashes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for event in self._unwanted.values():
            event.set()
        self._pool.shutdown(cancel_futures=True)

    def begin(self, paths: Iterable[Path]) -> None:
        """Hash the files at ``paths``, in this order, those left out that are being hashed already."""
        for path in paths:
            self._begin(path)

    def _begin(self, path: Path) -> _State:
        """``begin`` one; what the file at ``path`` was then, by which its hash is found."""
        state = _State.of(path.stat())
        if state not in self._begun:
            self._unwanted[state] = Event()
            self._begun[state] = self._pool.submit(_record, path, self._unwanted[state])
        return state

    def keep(self, paths: Iterable[Path]) -> None:
        """Stop hashing all files but those at ``paths``."""
        kept = {_State.of(path.stat()) for path in paths}
        for state in self._begun.keys() - kept:
            self._unwanted.pop(state).set()
            self._begun.pop(state).cancel()

    def record(self, path: Path) -> FileRecord:
        """Size and hash of the file at ``path`` as it stands now; a file that was written to meanwhile is hashed again.

        Raises ParrotError when it is written to all the while, and OSError when it cannot be read.
        """
        for _ in range(2):
            state = self._begin(path)
            hashed, found = self._begun[state].result()
            if hashed == state == _State.of(path.stat()):
                return found
            del self._begun[state]
        raise ParrotError(f"{path}: is written to while it is exported; export again when that is done")


def _record(path: Path, unwanted: Event) -> tuple[_State, FileRecord]:
    """What the file was when its first byte was read, and its size and hash."""
    digest, size, piece = hashlib.sha256(), 0, memoryview(bytearray(_PIECE_BYTES))
    with open(path, "rb", buffering=0) as file:
        state = _State.of(os.fstat(file.fileno()))
        while not unwanted.is_set() and (count := file.readinto(piece)):
            digest.update(piece[:count])
            size += count
    return state, FileRecord(size, digest.hexdigest())
