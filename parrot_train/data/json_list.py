"""A JSON file that holds one list, read and written record by record: a million of them never stand in memory."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from parrot_runtime.errors import InputError
from parrot_runtime.publish import publish_file

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_READ = 1 << 20
# Of one record, in characters: text that makes no sense so far is not read to the end of a large file.
_LONGEST = 1 << 26


def stream_json(path: Path) -> Iterator[Any]:
    """The members of the list in ``path``, in order.

    Raises InputError when the file is missing, is not JSON, is no list, or is an empty one; what stands before a
    mistake has been given by then.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _members(_Window(file), path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; expected LLaVA JSON") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not readable as JSON ({error.msg}, line {error.lineno})") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({' '.join(str(error).split())})") from error


class _Window:
    """The part of a file that is being read: ``text`` from ``at`` on."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._lines_before, self._ended = file, 0, False
        self.text, self.at = "", 0

    def next_character(self) -> str:
        """The next one that is no white space, which is not consumed; empty at the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            if self.at < len(self.text) or self._ended:
                return self.text[self.at : self.at + 1]
            self._grow()

    def value(self) -> Any:
        """Consume one JSON value. Raises JSONDecodeError, with the line in the file."""
        while True:
            enough = self._ended or len(self.text) - self.at > _LONGEST
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if enough:
                    error.lineno += self._lines_before
                    raise
            else:
                # Of a number that goes on behind what was read, the beginning is a number too: what follows decides.
                if enough or self.text[_SPACE.match(self.text, end).end() :][:1] in (",", "]"):
                    self.at = end
                    return value
            self._grow()

    def complain(self, expected: str) -> None:
        """Raise JSONDecodeError for what stands here."""
        error = json.JSONDecodeError(f"expected {expected}", self.text, self.at)
        error.lineno += self._lines_before
        raise error

    def _grow(self) -> None:
        self._lines_before += self.text.count("\n", 0, self.at)
        # Twice as much each time, so that a long value is not tried over and over.
        kept = self.text[self.at :]
        fresh = self._file.read(max(_READ, len(kept)))
        self._ended = not fresh
        self.text, self.at = kept + fresh, 0


def _members(window: _Window, path: Path) -> Iterator[Any]:
    if window.next_character() != "[":
        given = window.text[window.at : window.at + 40] or "an empty file"
        raise InputError(f"{path}: expected a list with at least one record, got {given!r}")
    window.at += 1
    if window.next_character() == "]":
        raise InputError(f"{path}: expected a list with at least one record, got []")
    while True:
        yield window.value()
        character = window.next_character()
        if character not in (",", "]"):
            window.complain("',' or ']' after a record")
        window.at += 1
        if character == "]":
            break
        window.next_character()
    if window.next_character():
        window.complain("the end of the file after the list")


class ListWriter:
    """Writes a list, one record a line, and hashes it on the way; ``records`` and ``sha256`` tell of it afterwards."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.records = 0

    def add(self, item: Mapping[str, Any]) -> None:
        """Append one record."""
        self.add_encoded(encode(item))

    def add_encoded(self, line: bytes) -> None:
        """Append one record that ``encode`` has made a line of."""
        self._write((b",\n" if self.records else b"[\n") + line)
        self.records += 1

    def end(self) -> None:
        """Close the list. Raises InputError when nothing was added, since an empty list is no data."""
        if not self.records:
            raise InputError("no record is left to write; an empty list is no training data")
        self._write(b"\n]\n")

    @property
    def sha256(self) -> str:
        """Of everything written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)


def encode(item: Mapping[str, Any]) -> bytes:
    """One record as a line of JSON, without its end."""
    # A lone surrogate becomes the escape that JSON has for it.
    return json.dumps(item, ensure_ascii=False).encode("utf-8", "backslashreplace")


@contextmanager
def publish_list(path: Path, *, force: bool = False) -> Iterator[ListWriter]:
    """A ListWriter whose file appears as ``path`` when the block ends well, and not at all when it does not.

    Raises InputError when ``path`` exists and ``force`` is not given.
    """
    with publish_file(path, force=force) as file:
        writer = ListWriter(file)
        yield writer
        writer.end()


def image_mover(origin: Path, target: Path | None) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A function that gives a record with its image paths, relative to the folder ``origin``, relative to ``target``.

    None for ``target`` leaves them as they are. An absolute path stays what it is.
    """
    between = "." if target is None else os.path.relpath(origin.resolve(), target.resolve())

    def move(item: Mapping[str, Any]) -> dict[str, Any]:
        image = item.get("image")
        if between == "." or image is None:
            return dict(item)
        names = image if isinstance(image, list) else [image]
        new = [name if os.path.isabs(name) else os.path.normpath(os.path.join(between, name)) for name in names]
        return {**item, "image": new if isinstance(image, list) else new[0]}

    return move
