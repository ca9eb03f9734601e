"""From answers to numbers: every sample judged once, then counted per language and category."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from parrot_evaluation.benchmarks import Benchmark, Measure
from parrot_evaluation.extract import Extraction, extract_letter
from parrot_evaluation.kit import kit_letter, kit_yes_no
from parrot_evaluation.text import equal
from parrot_evaluation.tsv import Row
from parrot_evaluation.yes_no import yes_no
from parrot_runtime.errors import InputError
from parrot_runtime.language_id import in_language

# The standard normal's 97.5 % quantile.
_Z = 1.959963984540054
# MMBench numbers the rotations of a question 10**6 apart.
_ROTATION = 10**6


@dataclass(frozen=True)
class Sample:
    """A row with its answer, judged.

    ``kit`` and ``extraction`` are the option each extraction reads (None and no letter for an open question);
    ``in_language`` is None where the answer's language cannot be determined. ``asked`` is the fingerprint of prompt and
    picture, ``routing`` the share of each expert, where they are known.
    """

    row: Row
    response: str
    kit: str | None
    extraction: Extraction
    right: bool
    in_language: bool | None
    asked: str = ""
    routing: tuple[float, ...] | None = None

    @property
    def kit_right(self) -> bool:
        return self.kit == self.row.answer


@dataclass(frozen=True)
class Cell:
    """``right`` of ``total`` units in one language and group (``level`` ``"all"`` has the group ``""``).

    ``left_out``: units that could not be counted: answers of undetermined language, pictures without both a Yes and a
    No question. ``questions``: how many the ``total`` rows are rotations of, where they are.
    """

    measure: str
    language: str
    level: str
    group: str
    right: int
    total: int
    left_out: int = 0
    questions: int | None = None

    @property
    def value(self) -> float | None:
        """The share in per cent; None of nothing."""
        return 100 * self.right / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval in per cent.

        Rotations of a question are answered much alike, so it is as wide as for the questions alone: were each of four
        rotations taken for news, it would be half as wide.
        """
        if not self.total:
            return None
        total = self.questions or self.total
        low, high = wilson(self.right * total / self.total, total)
        return 100 * low, 100 * high


def wilson(right: float, total: int, z: float = _Z) -> tuple[float, float]:
    """Wilson's score interval for ``right`` successes of ``total`` (Wilson, JASA 22, 1927), as shares in 0..1."""
    share = right / total
    shrink = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # The ends are exactly 0 and 1 for none and all; rounding must not print -0.0.
    return (centre - half if right else 0.0), (centre + half if right < total else 1.0)


def judge(row: Row, response: str, benchmark: Benchmark) -> Sample:
    """Read ``response`` with both extractions and compare it with the row's answer."""
    spoken = in_language(response, row.language)
    if benchmark.form == "judged":
        return Sample(row, response, None, Extraction(None, "left to the judge"), False, spoken)
    if row.kind == "open":
        return Sample(row, response, None, Extraction(None, "open answer"), equal(response, row.answer), spoken)
    if row.yes_no is not None and benchmark.yes_no == "plain":
        said, kit_said = yes_no(response, row.language), kit_yes_no(response)
        kit = row.yes_no.get(kit_said) if kit_said else None
        extraction = Extraction(row.yes_no.get(said) if said else None, "yes or no")
    else:
        kit = kit_letter(response, row.options)
        extraction = extract_letter(response, row.options, row.language)
    return Sample(row, response, kit, extraction, extraction.letter == row.answer, spoken)


def count(measure: Measure, samples: Iterable[Sample]) -> tuple[int, int, int]:
    """(right, total, left out) of ``measure`` over ``samples`` of one language."""
    samples = [sample for sample in samples if sample.row.kind in measure.kinds]
    if measure.unit == "row":
        verdicts = [_verdict(measure, sample) for sample in samples]
        decided = [verdict for verdict in verdicts if verdict is not None]
        return sum(decided), len(decided), len(verdicts) - len(decided)
    groups: dict[Hashable, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[unit_of(sample.row, measure.unit)].append(sample)
    whole = [group for group in groups.values() if _is_whole(measure, group)]
    right = sum(all(_verdict(measure, sample) for sample in group) for group in whole)
    return right, len(whole), len(groups) - len(whole)


def unit_of(row: Row, unit: str) -> Hashable:
    """What a row is counted together with: its rotations (``"circle"``), the Yes/No rows of its category about the same
    picture (``"pair"``), the rows of its category that name the same picture (``"picture"``)."""
    if unit == "circle":
        if not row.index.isdecimal():
            raise InputError(f"the row of line {row.line} has the index {row.index!r}; circular scoring needs numbers")
        return int(row.index) % _ROTATION
    if unit == "pair" and row.kind == "yes_no":
        return row.category, row.image_id
    if unit == "picture":
        # As the kit pairs them; equal pictures under two paths are two pictures.
        return row.category, row.image_path or row.image_id
    return row.index


def _is_whole(measure: Measure, group: Sequence[Sample]) -> bool:
    if measure.unit == "circle":
        return any(int(sample.row.index) < _ROTATION for sample in group)
    if measure.unit == "picture":
        return len(group) == 2
    return {_truth(sample.row) for sample in group} == {"yes", "no"}


def _truth(row: Row) -> str | None:
    return next((polarity for polarity, letter in (row.yes_no or {}).items() if letter == row.answer), None)


def _verdict(measure: Measure, sample: Sample) -> bool | None:
    if measure.judge == "language":
        return sample.in_language
    return sample.kit_right if measure.judge == "kit" else sample.right


def cells(benchmark: Benchmark, samples: Sequence[Sample]) -> list[Cell]:
    """Every measure in every language, over all rows, per category and per l2-category; empty cells are left out."""
    found = []
    for language in dict.fromkeys(sample.row.language for sample in samples):
        mine = [sample for sample in samples if sample.row.language == language]
        for level, group, members in _groups(mine):
            for measure in benchmark.measures:
                right, total, left_out = count(measure, members)
                if total or left_out:
                    questions = _questions(measure, members) if benchmark.rotated and measure.unit == "row" else None
                    found.append(Cell(measure.name, language, level, group, right, total, left_out, questions))
    return found


def _questions(measure: Measure, samples: Iterable[Sample]) -> int:
    """Of how many questions the rows that ``measure`` counts are rotations."""
    counted = (s.row.index for s in samples if s.row.kind in measure.kinds and _verdict(measure, s) is not None)
    return len({int(index) % _ROTATION if index.isdecimal() else index for index in counted})


def _groups(samples: Sequence[Sample]) -> Iterable[tuple[str, str, list[Sample]]]:
    yield "all", "", list(samples)
    for level, name_of in (("category", lambda row: row.category), ("l2-category", lambda row: row.l2_category)):
        names = dict.fromkeys(name_of(sample.row) for sample in samples if name_of(sample.row))
        for name in names:
            yield level, name, [sample for sample in samples if name_of(sample.row) == name]


@dataclass(frozen=True)
class Spread:
    """The distance between the best and the worst language, in points of per cent."""

    measure: str
    best: str
    worst: str
    points: float


def spreads(found: Sequence[Cell]) -> dict[str, Spread]:
    """By measure, over the cells of level ``"all"``; measures with fewer than two languages have none."""
    by_measure: dict[str, list[Cell]] = defaultdict(list)
    for cell in found:
        if cell.level == "all" and cell.total:
            by_measure[cell.measure].append(cell)
    result = {}
    for measure, row in by_measure.items():
        if len(row) > 1:
            worst, best = (pick(row, key=lambda cell: cell.right / cell.total) for pick in (min, max))
            result[measure] = Spread(measure, best.language, worst.language, best.value - worst.value)
    return result
