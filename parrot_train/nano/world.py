"""Folders of the nano world: drawn once, by one process, and never drawn anew while another reads them.

``world.json`` in such a folder says what was asked for; who reads the folder holds a shared lock on that file, who
replaces it an exclusive one. The kernel drops a lock with its process, however that ends.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError
from parrot_runtime.publish import check_output, publish_directory

STAMP = "world.json"


def ensure(folder: Path, wanted: Mapping[str, Any], draw: Callable[[Path], None]) -> None:
    """Let ``draw`` fill ``folder``, unless the world there is what is ``wanted``, which plain data describe.

    A folder that holds another world is replaced; a second process waits, and finds the work done. Raises InputError
    for a folder that holds anything else, and for one that a training reads.
    """
    if _holds(folder, wanted):
        return
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if _holds(folder, wanted):
            return
        with _unread(folder), publish_directory(folder, force=True) as beside:
            draw(beside)
            (beside / STAMP).write_text(json.dumps(wanted), "utf-8")


@contextmanager
def reading(files: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Keep the worlds that ``files`` are in from being replaced. Raises InputError for one that is being replaced."""
    with ExitStack() as held:
        for folder in {path.parent for path in files if (path.parent / STAMP).is_file()}:
            held.enter_context(_read(folder))
        yield files


def _holds(folder: Path, wanted: Mapping[str, Any]) -> bool:
    try:
        return json.loads((folder / STAMP).read_text("utf-8")) == wanted
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _check_replaceable(folder: Path) -> None:
    """Raise InputError for a path that is not free, nor empty, nor a nano world's folder."""
    if folder.is_dir():
        foreign = next(iter(folder.iterdir()), None)
        if foreign is None or (folder / STAMP).is_file():
            return
        raise InputError(f"{folder}: holds {foreign.name} and no nano world; give another folder")
    check_output(folder)


@contextmanager
def _unread(folder: Path) -> Iterator[None]:
    """Own the world in ``folder``, if there is one, to replace it."""
    if not (folder / STAMP).is_file():
        yield
        return
    with (folder / STAMP).open("r+") as stamp:
        if not _try(stamp.fileno(), fcntl.LOCK_EX):
            raise InputError(
                f"{folder}: a training reads the world there, and another is asked for; wait for it, or give another "
                "folder (-o, or --set data.nano_folder=DIR)"
            )
        yield


@contextmanager
def _read(folder: Path) -> Iterator[None]:
    while True:
        with (folder / STAMP).open() as stamp:
            if not _try(stamp.fileno(), fcntl.LOCK_SH):
                raise InputError(f"{folder}: another command draws this world anew; wait for it")
            if os.path.samestat(os.fstat(stamp.fileno()), (folder / STAMP).stat()):
                yield
                return
        # The folder was replaced between opening and locking: the lock is on a file that nobody reads.


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
