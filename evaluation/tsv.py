"""Reads the TSV files of VLMEvalKit: one row per question, the picture inside as base64.

Columns: ``index``, ``image`` (base64, or another row's index where it has 64 characters or fewer), ``question``,
``hint``, the options ``A``, ``B``, ``C``, …, ``answer``, ``category``, ``l2-category``, ``split``; others are ignored.
A row without options is an open question and its ``answer`` a text. The whole file is checked before the first
question is asked, and all bad rows are told at once.
"""

import base64
import csv
import hashlib
import io
import string
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from PIL import Image, UnidentifiedImageError

from parrot_evaluation.yes_no import Polarity, yes_no_options
from parrot_runtime.choices import LETTERS
from parrot_runtime.errors import InputError
from parrot_runtime.languages import BY_CODE

Kind = Literal["choice", "yes_no", "open"]

# The files write cn where the paper and this project write zh.
_FILE_CODES = {"cn": "zh"}
_REQUIRED = ("index", "image", "question", "answer")
_LONGEST_REFERENCE = 64
# pandas writes an empty cell, and some published files hold its "nan".
_EMPTY = ("", "nan", "NaN")
_LARGEST_FIELD = 1 << 27
_SHOWN = 8
_FIELD_LIMIT_LOCK = threading.Lock()


@dataclass(frozen=True)
class Row:
    """One question. ``options`` maps letters to texts, in order; it is empty for an open question.

    ``image`` is base64; ``image_id`` is equal for rows that show the same picture. ``line`` is the row's first line in
    the file, the header being line 1.
    """

    index: str
    language: str
    question: str
    hint: str
    options: Mapping[str, str]
    answer: str
    category: str
    l2_category: str
    split: str
    image_id: str
    line: int
    image: str = field(repr=False)

    @cached_property
    def yes_no(self) -> dict[Polarity, str] | None:
        """``{"yes": letter, "no": letter}`` for a Yes/No question."""
        return yes_no_options(self.options)

    @property
    def kind(self) -> Kind:
        if not self.options:
            return "open"
        return "choice" if self.yes_no is None else "yes_no"

    @property
    def image_bytes(self) -> bytes:
        """The picture as the bytes of an image file."""
        return base64.b64decode(self.image)


@dataclass(frozen=True)
class Table:
    """The rows of one file, its language and SHA-256, and how many rows were left out for want of a picture."""

    path: Path
    language: str
    sha256: str
    rows: tuple[Row, ...]
    without_image: int = 0


def language_of(path: Path) -> str:
    """The language a file name ends in: ``mmmb_cn.tsv`` → ``"zh"``. Raises InputError for any other."""
    ending = path.stem.rpartition("_")[2].lower()
    code = _FILE_CODES.get(ending, ending)
    if code not in BY_CODE:
        raise InputError(f"{path.name}: the name should end in _en, _cn, _pt, _ar, _tr, _ru, _es or _de before .tsv")
    return code


def file_codes(language: str) -> tuple[str, ...]:
    """How file names may write ``language``: ``"zh"`` → ``("cn", "zh")``."""
    return (*(written for written, code in _FILE_CODES.items() if code == language), language)


def read_tsv(path: Path, *, language: str | None = None, skip_missing_images: bool = False) -> Table:
    """Read and check a whole file; ``language`` is taken from its name unless given.

    Rows without a picture are bad rows, or left out and counted with ``skip_missing_images``. Raises InputError: no
    such file, not UTF-8, broken quoting, a missing column, or bad rows, which it lists.
    """
    language = language or language_of(path)
    if language not in BY_CODE:
        raise InputError(f"{path}: '{language}' is none of the languages {', '.join(BY_CODE)}")
    records, digest = _records(path)
    bad: list[str] = []
    images = _Images(records)
    rows, without_image = [], 0
    seen: set[str] = set()
    for line, record in records:
        image = images.of(record)
        if skip_missing_images and not record["image"].strip():
            without_image += 1
            continue
        problems = [*_problems(record), *images.problems(record)]
        if record["index"] in seen:
            problems.append("its index stands twice")
        seen.add(record["index"])
        if problems:
            bad.append(f"line {line} (index {record['index'] or 'missing'}): {' and '.join(problems)}")
        else:
            rows.append(_row(record, line, language, image or ""))
    if bad:
        raise InputError(_list_bad_rows(path, bad, len(records)))
    if not rows:
        raise InputError(f"{path}: there is no question in it; expected one row per question after the header")
    return Table(path, language, digest, tuple(rows), without_image)


def _list_bad_rows(path: Path, bad: list[str], total: int) -> str:
    shown = "; ".join(bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return f"{path}: {len(bad)} of {total} rows cannot be used: {shown}{more}. Correct the rows or get the file again."


@contextmanager
def _long_fields() -> Iterator[None]:
    """csv's field limit (128 KiB, for the whole process) is less than a picture."""
    with _FIELD_LIMIT_LOCK:
        before = csv.field_size_limit(_LARGEST_FIELD)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _records(path: Path) -> tuple[list[tuple[int, dict[str, str]]], str]:
    """(first line, column → text) of every row, and the SHA-256 of the file."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with path.open(encoding="utf-8-sig", newline="") as file, _long_fields():
            reader = csv.reader(file, delimiter="\t", strict=True)
            header = _header(path, next(reader, []))
            records, line = [], reader.line_num + 1
            for cells in reader:
                if len(cells) not in (0, len(header)):
                    raise InputError(
                        f"{path}: line {line} has {len(cells)} fields where the header has {len(header)}; "
                        "texts with tabs, quotes or line breaks must stand in quotes"
                    )
                if cells:
                    records.append((line, dict(zip(header, cells, strict=True))))
                line = reader.line_num + 1
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the folder given with --data") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected a TSV file in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: broken TSV ({error}); get the file again") from error
    return records, digest


def _header(path: Path, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise InputError(f"{path}: the header lacks {', '.join(missing)}; expected a VLMEvalKit TSV")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: the header has the column {', '.join(repeated)} twice")
    return names


def _text(record: Mapping[str, str], column: str) -> str:
    value = record.get(column, "")
    return "" if value.strip() in _EMPTY else value


def _options(record: Mapping[str, str]) -> dict[str, str]:
    return {letter: _text(record, letter) for letter in string.ascii_uppercase if _text(record, letter)}


def _problems(record: Mapping[str, str]) -> Iterator[str]:
    options, answer = _options(record), record["answer"].strip()
    if not record["index"].strip():
        yield "it has no index"
    if not record["question"].strip():
        yield "it has no question"
    if len(options) == 1:
        yield "it has a single option"
    elif tuple(options) != tuple(LETTERS[: len(options)]):
        yield f"its options {', '.join(options)} are not the first of {LETTERS[0]} to {LETTERS[-1]}"
    if not answer:
        yield "it has no answer"
    elif options and answer not in options:
        yield f"its answer {answer[:20]!r} is none of {', '.join(options)}"


class _Images:
    """Pictures by row; a short ``image`` field is the index of the row that holds the picture."""

    def __init__(self, records: list[tuple[int, dict[str, str]]]) -> None:
        self._by_index = {record["index"].strip(): record["image"].strip() for _, record in records}

    def of(self, record: Mapping[str, str]) -> str | None:
        """The base64 text, or None where there is none."""
        image = record["image"].strip()
        if len(image) <= _LONGEST_REFERENCE:
            image = self._by_index.get(image, "")
        return image if len(image) > _LONGEST_REFERENCE else None

    def problems(self, record: Mapping[str, str]) -> Iterator[str]:
        """What is wrong with a row's picture. Only headers are read here, pixels when the model sees them."""
        image = record["image"].strip()
        if len(image) <= _LONGEST_REFERENCE:
            if not image:
                yield "it has no picture"
            elif self.of(record) is None:
                yield f"its picture is that of row {image!r}, which holds none"
            return
        try:
            data = base64.b64decode(image, validate=True)
        except ValueError:
            yield "its picture is not base64"
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the runtime has its own limit
                Image.open(io.BytesIO(data)).close()
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            yield "its picture is in no known format"


def _row(record: Mapping[str, str], line: int, language: str, image: str) -> Row:
    return Row(
        index=record["index"].strip(),
        language=language,
        question=record["question"],
        hint=_text(record, "hint"),
        options=_options(record),
        answer=record["answer"].strip(),
        category=_text(record, "category"),
        l2_category=_text(record, "l2-category"),
        split=_text(record, "split"),
        image_id=hashlib.sha256(image.encode()).hexdigest()[:16],
        line=line,
        image=image,
    )
