"""The samples to look at first: what most runs got wrong, language by language, with question, options and picture."""

import base64
import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_evaluation.results import Result
from parrot_evaluation.tsv import Row, Table
from parrot_runtime.errors import InputError

_SHORT = 12


@dataclass(frozen=True)
class Shown:
    """One question and what each run answered: ``answers`` in the runs' order, None where it was not asked."""

    row: Row
    answers: tuple[Mapping[str, Any] | None, ...]

    @property
    def wrong(self) -> list[int]:
        """The runs, by number, that got it wrong."""
        return [number for number, each in enumerate(self.answers) if each is not None and not each["right"]]


def worst(results: Sequence[Result], tables: Sequence[Table], count: int) -> list[Shown]:
    """Up to ``count`` questions of each table that at least one run got wrong.

    First those that most runs got wrong, of these the ones answered in another language than asked, then those of the
    categories that go worst; the rest is by a hash of the row's index, so that languages show the same questions where
    they fail at the same. Raises InputError for tables other than those the runs were asked.
    """
    check(results, tables)
    by_row: dict[tuple[str, str], list[Mapping[str, Any] | None]] = defaultdict(lambda: [None] * len(results))
    for number, result in enumerate(results):
        for sample in result.samples:
            by_row[sample["language"], sample["index"]][number] = sample
    chosen = []
    for table in tables:
        rows = [Shown(row, tuple(by_row[table.language, row.index])) for row in table.rows]
        rates = _rates(rows)
        failed = [each for each in rows if each.wrong]
        failed.sort(key=lambda each: _badness(each, rates))
        chosen += failed[:count]
    return chosen


def check(results: Sequence[Result], tables: Sequence[Table]) -> None:
    """Refuse files that are not those of the runs. Raises InputError."""
    for table in tables:
        for result in results:
            kept = result.report["data"].get(table.language)
            if kept is not None and kept["sha256"] != table.sha256:
                raise InputError(
                    f"{table.path}: not the file that {result.label} was asked: its SHA-256 is "
                    f"{table.sha256[:_SHORT]}…, that of {kept['file']} was {kept['sha256'][:_SHORT]}…; "
                    "give its folder with --data"
                )


def _rates(rows: Sequence[Shown]) -> dict[str, float]:
    """The share of right answers in each category."""
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for each in rows:
        verdicts[each.row.category] += [bool(answer["right"]) for answer in each.answers if answer is not None]
    return {category: sum(found) / len(found) for category, found in verdicts.items() if found}


def _badness(each: Shown, rates: Mapping[str, float]) -> tuple:
    elsewhere = sum(answer is not None and answer.get("in_language") is False for answer in each.answers)
    digest = hashlib.sha256(each.row.index.encode()).digest()
    return -len(each.wrong), -elsewhere, rates.get(each.row.category, 1.0), digest


def thumbnail(row: Row, side: int) -> tuple[str, int, int]:
    """The row's picture as a data URI of a JPEG of at most ``side`` pixels each way, its width and its height.

    Raises ImageError for one that cannot be read.
    """
    from parrot_runtime.image import read_image

    picture = read_image(row.image_bytes, name=f"{row.language} row {row.index} (line {row.line})").convert("RGB")
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "image/jpeg"), *picture.size


def data_uri(data: bytes, kind: str) -> str:
    """``data`` inside an address, so that a page needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
