"""Whether the files of a bundle are those that its manifest lists: all there, no links, their sizes and SHA-256."""

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from parrot_runtime.errors import BundleError
from parrot_runtime.manifest import AGAIN, CACHE_FOLDERS, MANIFEST_NAME, FileRecord, Manifest

_CHUNK_BYTES = 1 << 20


def record_file(path: Path) -> FileRecord:
    """Size and hash of one file."""
    return FileRecord(path.stat().st_size, _sha256(path))


def record_files(folder: Path, record: Callable[[Path], FileRecord] = record_file) -> dict[str, FileRecord]:
    """Size and hash of every file under ``folder`` but the manifest and the caches: what ``Manifest.files`` holds.

    ``record`` finds those of one file; it is called from several threads.
    """
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    names = [name for name in found if name != MANIFEST_NAME and name.split("/")[0] not in CACHE_FOLDERS]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(record, (folder / name for name in names)), strict=True))


def verify_files(folder: Path, manifest: Manifest, *, threads: int | None = None) -> None:
    """Check that every listed file is there, inside ``folder``, not a link, and has its size and hash.

    Sizes of all files are looked at before the first hash, so a cut copy is found at once. Raises BundleError.
    """
    folder = Path(folder)
    for name, record in manifest.files.items():
        _check_entry(folder, name, record)
    largest_first = sorted(manifest.files, key=lambda name: -manifest.files[name].size)
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        for name, digest in zip(
            largest_first, pool.map(_sha256, (folder / name for name in largest_first)), strict=True
        ):
            if digest != manifest.files[name].sha256:
                raise BundleError(f"{folder / name}: the file was altered, its SHA-256 is not the manifest's; {AGAIN}")


def _check_entry(folder: Path, name: str, record: FileRecord) -> None:
    path = folder
    try:
        for part in PurePosixPath(name).parts:
            path = path / part
            if path.is_symlink():
                raise BundleError(f"{path}: a link inside a bundle is refused; copy the file in its place")
        found = path.stat()
    except OSError as error:
        raise BundleError(f"{path}: the bundle lists this file and it is missing; {AGAIN}") from error
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{path}: the bundle lists this as a file and it is none; {AGAIN}")
    if found.st_size != record.size:
        raise BundleError(f"{path}: {found.st_size} bytes where the manifest says {record.size}; {AGAIN}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from error
    return digest.hexdigest()
