"""Everything there is to say about LLaVA JSON files: ``parrot-train data check``.

Errors are what training would refuse: records that break the format, pictures that cannot be read, conversations of
which no answer is left within the longest sample. Warnings are what a person should look at: duplicates, samples that
are cut, text that is not in the language stated. Files are streamed; of a record some dozens of bytes are kept, of a
picture its path.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from parrot_runtime.errors import InputError
from parrot_runtime.image import MAX_PIXELS
from parrot_runtime.language_id import identify
from parrot_runtime.languages import BY_CODE
from parrot_runtime.prompt import SYSTEM_PROMPT
from parrot_train.data.cache import file_hash, unreadable
from parrot_train.data.encode import prompt_encoder
from parrot_train.data.json_list import stream_json
from parrot_train.data.records import UNDETERMINED, Problem, Record, parse_records
from parrot_train.workers import map_chunks

# Records that a process takes at a time.
_CHUNK = 256
# Of a record's text, in characters: enough to tell its language.
_TELLING = 600

DUPLICATES = ("id", "image and question", "conversation")
"""What two records may share: their id, their pictures and first question, or their pictures and all of their turns."""


@dataclass(frozen=True)
class TokenCount:
    """How long samples are in tokens: the ``tokenizer``'s file, the positions of an image, the longest sample."""

    tokenizer: Path
    image_tokens: int
    max_length: int

    @cached_property
    def encoder_of(self) -> tuple[str, str]:
        """What ``prompt_encoder`` is asked with, here and in every process that this is sent to."""
        return str(self.tokenizer), file_hash(self.tokenizer)


@dataclass
class LanguageSurvey:
    """The records of one language that follow the format. ``tokens`` stays empty where none are counted."""

    records: int = 0
    turns: int = 0
    with_image: int = 0
    cut: int = 0
    duplicates: int = 0
    seen_as: Counter = field(default_factory=Counter)
    characters: array = field(default_factory=lambda: array("L"))
    tokens: array = field(default_factory=lambda: array("L"))


@dataclass(frozen=True)
class Duplicate:
    """Record ``row`` of ``file`` has the same ``kind`` as an earlier one, record ``of_row`` of ``of_file``."""

    kind: str
    file: str
    row: int
    of_file: str
    of_row: int


@dataclass
class Survey:
    """What was found. ``languages`` by the code a record states (``und`` where it states none)."""

    files: dict[str, int] = field(default_factory=dict)
    languages: dict[str, LanguageSurvey] = field(default_factory=dict)
    errors: list[Problem] = field(default_factory=list)
    other_language: list[Problem] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    pictures: int = 0


@dataclass(frozen=True)
class _Seen:
    """What a worker says of one good record; ``keys`` are 64 bits of a hash for each kind of DUPLICATES, 0 for none."""

    row: int
    name: str
    language: str
    found: str | None
    turns: int
    images: tuple[str, ...]
    keys: tuple[int, int, int]
    characters: int
    tokens: int


def survey(
    files: Sequence[Path],
    *,
    images: Path | None,
    count: TokenCount | None,
    workers: int,
    max_pixels: int = MAX_PIXELS,
) -> Survey:
    """Look at every record and every picture of ``files``, of which ``images`` is the folder (by default each file's).

    A picture of more than ``max_pixels`` is an error. Raises InputError for a file that cannot be read as a list;
    whatever is wrong with records is in the result.
    """
    if count:
        prompt_encoder(*count.encoder_of)
    found, rows = Survey(), _Rows()
    for number, path in enumerate(files):
        label = f"records of {path.name}"
        seen = map_chunks(_look, _numbered(path), (str(path), count), workers=workers, size=_CHUNK, label=label)
        total = 0
        for result in (each for chunk in seen for each in chunk):
            total += 1
            if isinstance(result, Problem):
                found.errors.append(result)
            else:
                _add(found, str(path), result)
                rows.add(number, result, images or path.parent)
        found.files[str(path)] = total
    found.pictures = len(rows.pictures)
    found.errors += rows.picture_problems(files, max_pixels, workers)
    found.errors.sort(key=lambda problem: (list(found.files).index(problem.file), problem.row))
    for duplicate, language in rows.duplicates(files):
        found.duplicates.append(duplicate)
        found.languages[language].duplicates += 1
    return found


def _numbered(path: Path) -> Iterator[tuple[int, Any]]:
    return enumerate(stream_json(path))


def _add(found: Survey, file: str, seen: _Seen) -> None:
    language = found.languages.setdefault(seen.language, LanguageSurvey())
    language.records += 1
    language.turns += seen.turns
    language.with_image += bool(seen.images)
    language.characters.append(seen.characters)
    if seen.tokens:
        language.tokens.append(abs(seen.tokens))
        language.cut += seen.tokens < 0
    if seen.found:
        language.seen_as[seen.found] += 1
    if seen.language not in BY_CODE and seen.language != UNDETERMINED:
        reason = f"'{seen.language}' is none of the codes {', '.join(BY_CODE)}"
        found.other_language.append(Problem(file, seen.row, seen.name, reason))
    elif seen.found not in (None, seen.language) and seen.language != UNDETERMINED:
        reason = f"said to be in {seen.language}, reads as {seen.found}"
        found.other_language.append(Problem(file, seen.row, seen.name, reason))


def _look(items: Sequence[tuple[int, Any]], file: str, count: TokenCount | None) -> list[_Seen | Problem]:
    """What there is to say of each of some records, in a process of its own."""
    records, problems = parse_records([item for _, item in items], file=file, first=items[0][0])
    results: list[_Seen | Problem] = [*problems]
    for record in records:
        tokens = 0
        if count:
            try:
                tokens = _tokens(record, count)
            except InputError as error:
                results.append(Problem(file, record.row, record.name, str(error)))
                continue
        texts = [turn.text for turn in record.turns]
        results.append(
            _Seen(
                record.row,
                record.name,
                record.language,
                identify("\n".join(texts)[:_TELLING]),
                len(texts),
                record.images,
                _keys(record),
                sum(map(len, texts)),
                tokens,
            )
        )
    return results


def _tokens(record: Record, count: TokenCount) -> int:
    """The length in tokens, below zero where it is more than the longest sample. Raises InputError."""
    system = SYSTEM_PROMPT if record.system is None else record.system
    prompt = prompt_encoder(*count.encoder_of).encode(record.turns, image_tokens=count.image_tokens, system=system)
    length = len(prompt.input_ids)
    if not prompt.labels_mask[: count.max_length].any():
        raise InputError(f"no answer token within {count.max_length} tokens (the record has {length})")
    return -length if length > count.max_length else length


def _keys(record: Record) -> tuple[int, int, int]:
    texts = [turn.text for turn in record.turns]
    question = digest("question", *record.images, texts[0]) if record.images else 0
    return (digest("id", record.name) if record.name else 0), question, digest("all", *record.images, *texts)


def digest(*parts: str) -> int:
    """64 bits that tell ``parts`` from any others; never 0.

    Of a million different ones two are taken for the same with a probability of 3e-8.
    """
    whole = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(whole.digest(), "big") or 1


class _Rows:
    """Of every good record its file, row, language, keys and pictures, as arrays of numbers."""

    def __init__(self) -> None:
        self.pictures: dict[str, int] = {}
        self._files, self._rows, self._languages = array("H"), array("L"), array("H")
        self._keys = tuple(array("Q") for _ in DUPLICATES)
        self._codes: dict[str, int] = {}
        self._picture_records, self._picture_places = array("L"), array("L")

    def add(self, file: int, seen: _Seen, folder: Path) -> None:
        for name in seen.images:
            place = self.pictures.setdefault(str(folder / name), len(self.pictures))
            self._picture_records.append(len(self._rows))
            self._picture_places.append(place)
        self._files.append(file)
        self._rows.append(seen.row)
        self._languages.append(self._codes.setdefault(seen.language, len(self._codes)))
        for keys, key in zip(self._keys, seen.keys, strict=True):
            keys.append(key)

    def picture_problems(self, files: Sequence[Path], max_pixels: int, workers: int) -> list[Problem]:
        """One problem for each record that has a picture which cannot be read, the first of them."""
        bad = unreadable([Path(path) for path in self.pictures], max_pixels=max_pixels, workers=workers)
        if not bad:
            return []
        problems: dict[int, Problem] = {}
        for entry in np.flatnonzero(np.isin(np.array(self._picture_places), list(bad))):
            record = self._picture_records[entry]
            reason = f"image: {bad[self._picture_places[entry]]}"
            problem = Problem(str(files[self._files[record]]), self._rows[record], "", reason)
            problems.setdefault(record, problem)
        return list(problems.values())

    def duplicates(self, files: Sequence[Path]) -> Iterator[tuple[Duplicate, str]]:
        """Every record that has something of DUPLICATES in common with an earlier one, and its language.

        A record that repeats another in several ways is told once, with the kind that says most.
        """
        codes = list(self._codes)
        told: set[int] = set()
        for kind, keys in reversed(list(zip(DUPLICATES, self._keys, strict=True))):
            values = np.array(keys, np.uint64)
            order = np.argsort(values, kind="stable")
            same = (values[order][1:] == values[order][:-1]) & (values[order][1:] != 0)
            start = np.maximum.accumulate(np.where(np.concatenate([[False], same]), 0, np.arange(len(order))))
            for place in np.flatnonzero(same) + 1:
                record, first = int(order[place]), int(order[start[place]])
                if record not in told:
                    told.add(record)
                    here, there = (files[self._files[each]] for each in (record, first))
                    duplicate = Duplicate(kind, str(here), self._rows[record], str(there), self._rows[first])
                    yield duplicate, codes[self._languages[record]]


def quantiles(lengths: array) -> Mapping[str, int]:
    """Median, 95th percentile and greatest of ``lengths``; empty where there are none."""
    if not lengths:
        return {}
    values = np.array(lengths)
    middle, high = np.quantile(values, (0.5, 0.95), method="higher")
    return {"median": int(middle), "p95": int(high), "max": int(values.max())}
