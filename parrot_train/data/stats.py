"""How much data there is, by language and by dataset: ``parrot-train data stats``, and the pie of Figure 9."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parrot_runtime.language_id import identify
from parrot_runtime.languages import BY_CODE, CODES
from parrot_train.data.records import UNDETERMINED, Record, good_records
from parrot_train.data.survey_report import table

DATASET_KEY = "dataset"
"""The key under which `data mix` notes where a record comes from."""


@dataclass
class Stats:
    """Counts of records; ``cells`` by (dataset, language). ``told`` of them state their language."""

    cells: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    told: int = 0

    @property
    def records(self) -> int:
        return self.cells.total()

    def by(self, place: int) -> dict[str, int]:
        """Counts by dataset (``place`` 0) or by language (1), the latter in the project's order."""
        sums: Counter = Counter()
        for cell, count in self.cells.items():
            sums[cell[place]] += count
        known = [code for code in CODES if code in sums] if place else []
        return {name: sums[name] for name in [*known, *sorted(set(sums) - set(known))]}


def language_of(record: Record) -> str:
    """The language a record states; where it states none, the one its words show, or ``und``."""
    if record.language != UNDETERMINED:
        return record.language
    return identify("\n".join(turn.text for turn in record.turns)) or UNDETERMINED


def dataset_of(item: dict[str, Any], path: Path) -> str:
    """The dataset a record says it is of, else the name of its file without the suffix."""
    name = item.get(DATASET_KEY)
    return name if isinstance(name, str) and name else path.stem


def count(files: Sequence[Path]) -> Stats:
    """Count the records of ``files``. Raises InputError for a file, or a record, that cannot be read."""
    stats = Stats()
    for path in files:
        for item, record in good_records(path):
            cell = dataset_of(item, path), language_of(record)
            stats.cells[cell] += 1
            stats.images[cell] += bool(record.images)
            stats.told += record.language != UNDETERMINED
    return stats


def as_data(stats: Stats) -> dict[str, Any]:
    """The counts as plain data."""
    return {
        "records": stats.records,
        "stated": stats.told,
        "languages": stats.by(1),
        "datasets": stats.by(0),
        "cells": [
            {"dataset": dataset, "language": language, "records": number, "with_image": stats.images[dataset, language]}
            for (dataset, language), number in sorted(stats.cells.items())
        ],
    }


def describe(stats: Stats) -> list[str]:
    """A table of datasets by languages, and the shares of both."""
    languages, datasets = stats.by(1), stats.by(0)
    rows = [["dataset", *languages, "all", "with image"]]
    for dataset, number in datasets.items():
        pictured = sum(stats.images[dataset, language] for language in languages)
        cells = [stats.cells[dataset, language] for language in languages]
        rows.append(
            [dataset, *(f"{cell:,}" if cell else "-" for cell in cells), f"{number:,}", _share(pictured, number)]
        )
    if len(datasets) > 1:
        total = [f"{number:,}" for number in languages.values()]
        rows.append(["all", *total, f"{stats.records:,}", _share(stats.images.total(), stats.records)])
    rows.append(["share", *(_share(number, stats.records) for number in languages.values()), "", ""])
    lines = table(rows)
    guessed = stats.records - stats.told
    if guessed:
        lines.append(f"{guessed:,} records state no language and are counted under the one their words show")
    return lines


def slices(stats: Stats) -> Iterator[tuple[str, str, int]]:
    """Per language its own name, its English one, and its count."""
    for code, number in stats.by(1).items():
        language = BY_CODE.get(code)
        names = (language.native_name, language.english_name) if language else (code, code)
        yield *names, number


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
