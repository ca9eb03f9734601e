"""The paper's tables as data, digit for digit as printed: "Parrot: Multilingual Visual Instruction Tuning".

ICML 2025, arXiv 2406.02539. The files stand in ``paper/``, with their source. The paper prints no number of questions
and no interval, so nothing here has one.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES

SOURCE = "Parrot: Multilingual Visual Instruction Tuning, ICML 2025, arXiv 2406.02539"


@dataclass(frozen=True)
class Column:
    """A column of figures: its ``key`` in the file, how it is headed, and what of ours would stand in it."""

    key: str
    heading: str
    benchmark: str
    language: str
    group: str = ""


@dataclass(frozen=True)
class PaperTable:
    """``number`` and ``title``; ``names``: the columns that say what was measured; ``rows``: key → text as printed.

    ``benchmarks``: those of which the rows are, by this project's names.
    """

    number: int
    title: str
    names: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    rows: tuple[dict[str, str], ...]
    benchmarks: tuple[str, ...]

    @property
    def form(self) -> Literal["languages", "encoders", "judged"]:
        """Which columns it has: the six languages of one benchmark, Table 8's four, or Table 4's."""
        return {8: "encoders", 4: "judged"}.get(self.number, "languages")


# The paper's name of a benchmark → the project's.
BENCHMARKS = {"MMMB": "MMMB", "MMBench": "MMBench_dev"}

_TITLES = {
    1: "Accuracy on MMMB and multilingual MMBench",
    4: "Multilingual LLaVA-Bench",
    6: "Multilingual data added language by language, MMBench",
    7: "With Chinese-CLIP as the vision encoder",
    8: "Vision encoders and language models",
    9: "LLaVA with the multilingual data, MMMB",
    10: "LLaVA with translated questions and answers, MMMB",
    11: "Amount of multilingual data, MMMB",
    12: "Size of the language model, MMMB",
    14: "The data of one language at a time, MMMB",
}
NUMBERS = tuple(_TITLES)
_NO_TABLE = f"the paper's tables of results are {', '.join(map(str, NUMBERS))}; give one of these"

_METHOD, _LLM, _ENCODER = ("method", "method"), ("llm", "LLM"), ("vision_encoder", "vision encoder")
_JUDGED = (("con", "conv"), ("dd", "detail"), ("cr", "complex"), ("avg", "overall"))


def _columns(number: int) -> tuple[Column, ...]:
    if number == 8:
        pairs = (("MMBench_dev", "mmbench", "MMBench"), ("MMMB", "mmmb", "MMMB"))
        written = {"mmbench": ("en", "cn"), "mmmb": ("en", "zh")}
        return tuple(
            Column(f"{key}_{code}", f"{heading} {language}", benchmark, language)
            for benchmark, key, heading in pairs
            for code, language in zip(written[key], ("en", "zh"), strict=True)
        )
    if number == 4:
        return tuple(
            Column(f"{code}_{key}", f"{code} {group}", "LLaVA-Bench", code, group)
            for code in ("en", "zh")
            for key, group in _JUDGED
        )
    return tuple(Column(code, code, "", code) for code in CODES)


@cache
def paper_table(number: int) -> PaperTable:
    """One table of the paper. Raises InputError for a number that is none of ``NUMBERS``."""
    if number not in _TITLES:
        raise InputError(f"Table {number}: {_NO_TABLE}")
    file = {4: "llavabench", 8: "encoders"}.get(number, "multilingual")
    rows = tuple(row for row in _rows(file) if row["table"] == str(number))
    names = [("model", "method") if number == 4 else _METHOD]
    names += [pair for pair in (_LLM, _ENCODER) if any(row.get(pair[0]) for row in rows)]
    if number not in (4, 8):
        names.append(("benchmark", "benchmark"))
        benchmarks = tuple(dict.fromkeys(BENCHMARKS[row["benchmark"]] for row in rows))
    else:
        benchmarks = tuple(dict.fromkeys(column.benchmark for column in _columns(number)))
    return PaperTable(number, _TITLES[number], tuple(names), _columns(number), rows, benchmarks)


def parse_numbers(given: Sequence[str]) -> list[int]:
    """``["1", "6-8"]`` → ``[1, 6, 7, 8]`` in the paper's order; none given → all. Raises InputError."""
    if not given:
        return list(NUMBERS)
    wanted: set[int] = set()
    for part in (part.strip() for text in given for part in text.split(",")):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not first.isdecimal() or not last.isdecimal():
            raise InputError(f"--table {part!r} is no table; give numbers as 1, 6-12 or 1,14")
        known = [number for number in NUMBERS if int(first) <= number <= int(last)]
        if not known:
            raise InputError(f"--table {part}: {_NO_TABLE}")
        wanted.update(known)
    return [number for number in NUMBERS if number in wanted]


@cache
def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("parrot_evaluation") / "paper" / f"{name}.csv").read_text("utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))
