"""Outputs appear whole or not at all: write beside, fsync, rename."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from parrot_runtime.errors import InputError


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_output(folder: Path) -> None:
    """Raise InputError unless ``folder`` can be written or made, before work is done for it. Nothing is made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{folder}: {there} is a file; give another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: {there} cannot be written; give another folder")


def check_file(path: Path, *, force: bool) -> None:
    """Raise InputError unless ``publish_file`` will take ``path``, before work is done for it. Nothing is made."""
    if path.is_dir() or (path.exists() and not force):
        raise InputError(f"{path} exists already; give --force to replace a file, or another name with -o")
    check_output(path.parent)


def is_free(folder: Path) -> bool:
    """Whether nothing is at ``folder`` that could be lost: it does not exist, or is an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def write_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part."""
    with _beside(path, "") as file:
        file.write(data)


@contextmanager
def publish_file(final: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """Yield a file to write, which takes the name ``final`` on success and is removed on any error.

    Raises InputError before any work when ``final`` exists and ``force`` is not given.
    """
    check_file(final, force=force)
    if final.parent.is_dir():
        remove_leftovers(final.parent, final.name)
    with _beside(final, f".{os.getpid()}.partial") as file:
        yield file


@contextmanager
def _beside(path: Path, suffix: str) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=suffix, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


@contextmanager
def publish_directory(final: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``final``; on success it takes that name, on any error it is removed.

    Raises InputError before any work when ``final`` exists, is no empty folder and ``force`` is not given, or is a link
    or a mount point; and after it when another process has published there meanwhile.
    """
    if final.is_symlink():
        raise InputError(f"{final} is a link; give the folder that it stands for, or another name with -o")
    if os.path.ismount(final):
        raise InputError(f"{final} is a mount point, which nothing can take the place of; give a folder inside it")
    if not is_free(final) and not force:
        raise InputError(f"{final} exists already; give --force to replace it, or another name with -o")
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(final.parent, final.name)
    beside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=f".{os.getpid()}.partial", dir=final.parent))
    try:
        yield beside
        for path in beside.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        os.chmod(beside, 0o755)
        old = None
        if not is_free(final):
            if not force:
                raise InputError(f"{final}: another process has published there meanwhile; give another name with -o")
            # rename() cannot replace a folder that is not empty: the old one steps aside for the moment between two
            # renames, and the next run puts it back if the process dies there (see remove_leftovers).
            old = beside.with_suffix(".old")
            os.rename(final, old)
        os.rename(beside, final)
        _sync_directory(final.parent)
        if old is not None:
            shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Clean what killed runs left in ``folder`` of the outputs ``name``.

    An old output whose successor never arrived is put back; partial ones whose process is gone are dropped.
    """
    for old in sorted(folder.glob(f".{name}.*.old")):
        # .NAME.RANDOM.PROCESS.old, and NAME may have dots of its own.
        final = folder / old.name[1:].rsplit(".", 3)[0]
        if old.is_symlink():
            old.unlink()
        elif final.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, final)
    for partial in folder.glob(f".{name}.*.partial"):
        owner = int(partial.name.rsplit(".", 2)[1])
        if not _alive(owner) and partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        elif not _alive(owner):
            partial.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
