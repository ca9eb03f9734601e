"""Reads the TSV files of VLMEvalKit: one row per question, the picture inside as base64.

Columns: ``index``, ``image`` (base64, or another row's index where it has 64 characters or fewer), ``question``,
``hint``, the options ``A``, ``B``, ``C``, …, ``answer``, ``category``, ``l2-category``, ``split``, ``image_path``; and
for a judged benchmark ``caption`` and ``gpt4_ans``. Others are ignored. A row without options is an open question and
its ``answer`` a text. The whole file is checked before the first question is asked, and all bad rows are told at once.
"""

import base64
import csv
import hashlib
import string
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from parrot_evaluation.tsv_images import Images
from parrot_evaluation.yes_no import Polarity, polarity, yes_no_options
from parrot_runtime.choices import LETTERS
from parrot_runtime.errors import InputError
from parrot_runtime.languages import BY_CODE

Kind = Literal["choice", "yes_no", "open"]
# What the rows of a file without options are: texts to compare, plain Yes/No questions, or questions for a judge.
Form = Literal["text", "yes_no", "judged"]

# The files write cn where the paper and this project write zh.
_FILE_CODES = {"cn": "zh"}
_REQUIRED: dict[Form, tuple[str, ...]] = {
    "text": ("index", "image", "question", "answer"),
    "yes_no": ("index", "image", "question", "answer", "category"),
    "judged": ("index", "image", "question", "caption", "gpt4_ans", "category"),
}
# Those of LLaVA-Bench, in the order in which its papers report them.
JUDGED_CATEGORIES = ("conv", "detail", "complex")
_PLAIN: dict[Polarity, str] = {"yes": "Yes", "no": "No"}
# pandas writes an empty cell, and some published files hold its "nan".
_EMPTY = ("", "nan", "NaN")
_LARGEST_FIELD = 1 << 27
_SHOWN = 8
_FIELD_LIMIT_LOCK = threading.Lock()


@dataclass(frozen=True)
class Row:
    """One question. ``options`` maps letters to texts, in order; it is empty for an open question.

    A plain Yes/No question has no options, and the ``answer`` ``"Yes"`` or ``"No"`` whatever language it is in; one for
    a judge has the reference answer as its ``answer`` and a description of the picture as its ``caption``. ``image``
    is base64; ``image_id`` is equal for rows that show the same picture, ``image_path`` the file's own name for it.
    ``line`` is the row's first line in the file, the header being line 1.
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
    image_path: str = ""
    caption: str = field(default="", repr=False)
    plain_yes_no: bool = False

    @cached_property
    def yes_no(self) -> dict[Polarity, str] | None:
        """``{"yes": answer, "no": answer}`` of a Yes/No question: letters, or without options ``"Yes"``, ``"No"``."""
        return dict(_PLAIN) if self.plain_yes_no else yes_no_options(self.options)

    @property
    def kind(self) -> Kind:
        if not self.options and not self.plain_yes_no:
            return "open"
        return "choice" if self.yes_no is None else "yes_no"

    @property
    def unanswerable(self) -> bool:
        """Whether its answer is none of its options."""
        return bool(self.options) and self.answer not in self.options

    @property
    def image_bytes(self) -> bytes:
        """The picture as the bytes of an image file."""
        return base64.b64decode(self.image)


@dataclass(frozen=True)
class Table:
    """The rows of one file, its language and checksums; ``without_image``: rows left out for want of a picture."""

    path: Path
    language: str
    sha256: str
    rows: tuple[Row, ...]
    without_image: int = 0
    md5: str = ""


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


def read_tsv(
    path: Path,
    *,
    language: str | None = None,
    skip_missing_images: bool = False,
    form: Form = "text",
    as_published: bool = False,
    numbered: bool = False,
) -> Table:
    """Read and check a whole file; ``language`` is taken from its name unless given.

    Rows without a picture are bad rows, or left out and counted with ``skip_missing_images``. Options with a gap,
    and answers that are none of the options, are bad rows too; ``as_published`` takes them, because published files
    have some (RealWorldQA's, see https://github.com/open-compass/VLMEvalKit/issues/677) and the kit counts them as
    wrong. ``numbered`` wants whole numbers as indices. Raises InputError: no such file, not UTF-8, broken quoting,
    a missing column, or bad rows, which it lists.
    """
    language = language or language_of(path)
    if language not in BY_CODE:
        raise InputError(f"{path}: '{language}' is none of the languages {', '.join(BY_CODE)}")
    records, sha256, md5 = _records(path, form)
    bad: list[str] = []
    images = Images(records)
    rows, without_image = [], 0
    seen: set[str] = set()
    for line, record in records:
        image = images.of(record)
        if skip_missing_images and _text(record, "image") == "":
            without_image += 1
            continue
        problems = [*_problems(record, form, as_published), *images.problems(record)]
        index = record["index"].strip()
        if index in seen:
            problems.append("its index stands twice")
        if numbered and index and not index.isdecimal():
            problems.append("its index is no whole number, by which rotations of a question are told")
        seen.add(index)
        if problems:
            bad.append(f"line {line} (index {record['index'] or 'missing'}): {' and '.join(problems)}")
        else:
            rows.append(_row(record, line, language, image or "", form))
    if bad:
        raise InputError(_list_bad_rows(path, bad, len(records)))
    if not rows:
        raise InputError(f"{path}: there is no question in it; expected one row per question after the header")
    return Table(path, language, sha256, tuple(rows), without_image, md5)


def _list_bad_rows(path: Path, bad: list[str], total: int) -> str:
    shown = "; ".join(bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return f"{path}: {len(bad)} of {total} rows cannot be used: {shown}{more}. Correct the rows or get the file again."


def checksums(path: Path) -> tuple[str, str]:
    """The SHA-256 and the MD5 of a file; MD5 only because publishers of benchmarks give it. Raises OSError."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), md5.hexdigest()


@contextmanager
def _long_fields() -> Iterator[None]:
    """csv's field limit (128 KiB, for the whole process) is less than a picture."""
    with _FIELD_LIMIT_LOCK:
        before = csv.field_size_limit(_LARGEST_FIELD)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _records(path: Path, form: Form) -> tuple[list[tuple[int, dict[str, str]]], str, str]:
    """(first line, column → text) of every row, and the SHA-256 and MD5 of the file."""
    try:
        sha256, md5 = checksums(path)
        with path.open(encoding="utf-8-sig", newline="") as file, _long_fields():
            line, reader = 1, csv.reader(file, delimiter="\t", strict=True)
            header = _header(path, next(reader, []), form)
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
        # Where the decoder stopped is counted from a chunk of its own.
        raise InputError(f"{path}: line {_undecodable(path)}: not UTF-8; expected a TSV file in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}: line {line}: broken TSV ({error}); get the file again") from error
    return records, sha256, md5


def _undecodable(path: Path) -> int:
    """The first line of a file that is not UTF-8."""
    number = 0
    with path.open("rb") as file:
        # A lone carriage return ends a line too, as csv counts them.
        for line in (line for part in file for line in part.splitlines()):
            number += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                break
    return number


def _header(path: Path, names: list[str], form: Form) -> list[str]:
    names = [name.strip() for name in names]
    missing = [name for name in _REQUIRED[form] if name not in names]
    if missing:
        raise InputError(f"{path}: the header lacks {', '.join(missing)}; expected a VLMEvalKit TSV")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        told = (f"the column {name}" if name else "a column without a name" for name in repeated)
        raise InputError(f"{path}: the header has {', '.join(told)} twice")
    return names


def _text(record: Mapping[str, str], column: str) -> str:
    value = record.get(column, "")
    return "" if value.strip() in _EMPTY else value


def _options(record: Mapping[str, str]) -> dict[str, str]:
    return {letter: _text(record, letter) for letter in string.ascii_uppercase if _text(record, letter)}


def _problems(record: Mapping[str, str], form: Form, as_published: bool) -> Iterator[str]:
    options = _options(record)
    if not record["index"].strip():
        yield "it has no index"
    if not record["question"].strip():
        yield "it has no question"
    if len(options) == 1 and not as_published:
        yield "it has a single option"
    elif tuple(options) != tuple(LETTERS[: len(options)]) and not as_published:
        yield f"its options {', '.join(options)} are not the first of {LETTERS[0]} to {LETTERS[-1]}"
    yield from _judged_problems(record) if form == "judged" else _answer_problems(record, options, form, as_published)


def _answer_problems(
    record: Mapping[str, str], options: Mapping[str, str], form: Form, as_published: bool
) -> Iterator[str]:
    answer = record["answer"].strip()
    if not answer:
        yield "it has no answer"
    elif options and answer not in options and not as_published and not _says_it(answer, options, form):
        yield f"its answer {answer[:20]!r} is none of {', '.join(options)}"
    elif form == "yes_no" and options and yes_no_options(options) is None:
        yield "its options are not Yes and No, and nothing here counts others"
    elif form == "yes_no" and not options and polarity(answer) is None:
        yield f"its answer {answer[:20]!r} is neither Yes nor No"


def _says_it(answer: str, options: Mapping[str, str], form: Form) -> bool:
    """Whether a plain Yes/No question names its options too, and its answer is the word and no letter."""
    return form == "yes_no" and answer not in options and polarity(answer) is not None and bool(yes_no_options(options))


def _judged_problems(record: Mapping[str, str]) -> Iterator[str]:
    for column in ("caption", "gpt4_ans"):
        if not _text(record, column):
            yield f"it has no {column}"
    if record["category"].strip() not in JUDGED_CATEGORIES:
        yield f"its category {record['category'][:20]!r} is none of {', '.join(JUDGED_CATEGORIES)}"


def _row(record: Mapping[str, str], line: int, language: str, image: str, form: Form) -> Row:
    options = _options(record)
    answer = record["gpt4_ans"] if form == "judged" else record["answer"].strip()
    if _says_it(answer, options, form):
        options = {}
    plain = form == "yes_no" and not options
    return Row(
        index=record["index"].strip(),
        language=language,
        question=record["question"],
        hint=_text(record, "hint"),
        options=options,
        answer=_PLAIN[polarity(answer)] if plain else answer,
        category=_text(record, "category").strip() if form == "judged" else _text(record, "category"),
        l2_category=_text(record, "l2-category"),
        split=_text(record, "split"),
        image_id=hashlib.sha256(image.encode()).hexdigest()[:16],
        line=line,
        image=image,
        image_path=_text(record, "image_path"),
        caption=_text(record, "caption") if form == "judged" else "",
        plain_yes_no=plain,
    )
