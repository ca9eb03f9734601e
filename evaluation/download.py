"""``--download``: a benchmark's files from the addresses they are published under, and only when asked to.

A file is written beside its name as ``.NAME.partial``, goes on from there when the same command is run again, is
compared with the published MD5, and takes its name last.
"""

import fcntl
import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from parrot_evaluation.benchmarks import Benchmark, present_files
from parrot_evaluation.published import Published, find_published
from parrot_evaluation.tsv import checksums
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.languages import parse_languages
from parrot_runtime.publish import check_output

# Seconds without a byte.
_TIMEOUT = 60.0
_BLOCK = 1 << 20
Note = Callable[[str], None]


def download(
    benchmark: Benchmark, folder: Path | None, languages: str | None, *, mirror: str | None, note: Note
) -> None:
    """Fetch the files of ``languages`` (as ``--languages`` has them; else the benchmark's) that are not in ``folder``.

    ``mirror`` is an address under which the files have their published names. Raises InputError: no folder given, or
    a file nobody publishes; ParrotError where a file cannot be had, or is another than the published one.
    """
    if benchmark.source is None:
        raise InputError(f"--download: {benchmark.title} are made here, and nothing is to be fetched; leave it out")
    if folder is None:
        raise InputError("--download: give the folder the files go to with --data")
    if mirror is not None and not _is_address(mirror):
        raise InputError(f"--mirror {mirror}: expected an address such as https://example.org/VLMEval")
    chosen = parse_languages(languages, benchmark.languages, further=benchmark.further)
    present = present_files(benchmark, folder, chosen) if folder.is_dir() else {}
    files = _published(benchmark, [language for language in chosen if language not in present])
    if files:
        check_output(folder)
        folder.mkdir(parents=True, exist_ok=True)
        note(f"{benchmark.title}: licence: {benchmark.licence}; from {benchmark.source}")
    for file in files:
        url = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url
        fetch(file, url, folder / file.name, note)


def _is_address(text: str) -> bool:
    """Whether ``text`` is an address of HTTP with a host, as a request line can hold it."""
    try:
        parts = urllib.parse.urlsplit(text)
        plain = text.isascii() and text.isprintable() and " " not in text
        return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unclosed bracket, a port that is none
        return False


def _published(benchmark: Benchmark, languages: Sequence[str]) -> list[Published]:
    found = {language: find_published(benchmark.file_names(language)) for language in languages}
    unknown = [language for language, file in found.items() if file is None]
    if unknown:
        raise InputError(
            f"--download: {benchmark.title} has no published file in {', '.join(unknown)} that is known here; put your "
            f"own ({', '.join(benchmark.file_names(language)[0] for language in unknown)}) into the folder of --data"
        )
    return list(found.values())


def fetch(file: Published, url: str, path: Path, note: Note) -> None:
    """``url`` as ``path``, whole and with the MD5 of ``file``. Raises ParrotError, keeping what came for the next time.

    A file with another MD5 is removed: it was changed since it was published, or on its way.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with _alone(partial) as output:
            _receive(url, path.name, output, note)
            output.flush()
            os.fsync(output.fileno())
            sha256, md5 = checksums(partial)
            if md5 != file.md5:
                partial.unlink()
                raise ParrotError(
                    f"{url}: its MD5 is {md5}, that of the published file {file.md5}, so it was removed; try again, or "
                    f"get the file by hand and put it into {path.parent}"
                )
            os.replace(partial, path)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        kept = partial.stat().st_size if partial.exists() else 0
        again = f"; {_size(kept)} are kept, run the same command again to go on" if kept else ""
        raise ParrotError(f"{url}: {_reason(error)}{again}") from error
    note(f"{path}: SHA-256 {sha256}, MD5 {md5}, as published by {file.publisher}")


@contextmanager
def _alone(partial: Path) -> Iterator[BinaryIO]:
    with partial.open("ab") as output:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{partial}: another parrot-eval is downloading it; wait for it") from error
        try:
            yield output
        finally:
            output.flush()
            # An empty remainder of a refused request is no use to the next one.
            if partial.exists() and partial.stat().st_size == 0:
                partial.unlink()


def _receive(url: str, name: str, output: BinaryIO, note: Note) -> None:
    """Append what is missing of ``url`` to ``output``."""
    have = output.seek(0, os.SEEK_END)
    headers = {"User-Agent": "parrot-edge"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it is here; its checksum will tell
        raise
    with response:
        if have and not _goes_on(response, have):
            output.truncate(0)
            have = 0
        left = _length(response)
        total = "unknown size" if left is None else _size(have + left)
        note(f"{name}: {total} from {url}" + (f", {_size(have)} of it here already" if have else ""))
        _check_room(Path(output.name).parent, left, name)
        came = 0
        while block := response.read(_BLOCK):
            output.write(block)
            came += len(block)
        if left is not None and came < left:
            raise http.client.IncompleteRead(b"", left - came)


def _goes_on(response: http.client.HTTPResponse, have: int) -> bool:
    """Whether the server sends the rest, rather than all of it again."""
    where = response.headers.get("Content-Range", "")
    return response.status == http.client.PARTIAL_CONTENT and where.startswith(f"bytes {have}-")


def _length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _check_room(folder: Path, needed: int | None, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise ParrotError(f"{name}: {_size(needed)} are to come and {folder} has {_size(free)} left; make room")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code} {error.reason}".strip()
    if isinstance(error, http.client.IncompleteRead):
        return f"it was cut off {_size(error.expected or 0)} before its end"
    return str(getattr(error, "reason", error)) or type(error).__name__


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"
