"""Asks a model every question of a benchmark, picking up what an earlier run already answered.

The model is a function from questions to answers: a bundle (:mod:`parrot_evaluation.models`), or any callable, for a
quick look during training::

    report = evaluate(find_benchmark("nano"), tables, lambda questions: [answer(q) for q in questions], limit=60)
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from parrot_evaluation.benchmarks import Benchmark
from parrot_evaluation.journal import Entry, Journal, fingerprint
from parrot_evaluation.prompts import Instruction, prompt
from parrot_evaluation.scoring import Sample, judge, unit_of
from parrot_evaluation.tsv import Row, Table
from parrot_runtime.errors import ParrotError

# Answers are written this many at a time: what a killed run loses at most.
BATCH = 16


@dataclass(frozen=True)
class Question:
    """What the model gets: the bytes of an image file, the text of the user's turn, and where both come from."""

    image: bytes = field(repr=False)
    text: str
    language: str
    name: str


@dataclass(frozen=True)
class Response:
    """What it gives back. ``routing`` is the share of each expert, ``finish`` ``"stop"`` or ``"length"``."""

    text: str
    finish: str | None = None
    routing: tuple[float, ...] | None = None


Ask = Callable[[Sequence[Question]], Sequence[Response | str]]
Progress = Callable[[int, int], None]


def select(table: Table, benchmark: Benchmark, limit: int | None) -> list[Row]:
    """``limit`` rows of a table spread over it, or a few more: rows that are scored together stay together.

    The choice depends on the rows' indices only, so it is the same in every language, and a larger limit adds to a
    smaller one. None takes all.
    """
    if limit is None:
        return list(table.rows)
    unit = next((measure.unit for measure in benchmark.measures if measure.unit != "row"), "row")
    groups: dict[object, list[Row]] = {}
    for row in table.rows:
        groups.setdefault(unit_of(row, unit), []).append(row)
    chosen: set[str] = set()
    for group in sorted(groups.values(), key=lambda rows: hashlib.sha256(rows[0].index.encode()).digest()):
        if len(chosen) >= limit:
            break
        chosen.update(row.index for row in group)
    return [row for row in table.rows if row.index in chosen]


def evaluate(
    benchmark: Benchmark,
    tables: Sequence[Table],
    ask: Ask,
    *,
    journal: Journal | None = None,
    limit: int | None = None,
    instruction: Instruction = "own",
    progress: Progress = lambda done, total: None,
) -> list[Sample]:
    """Ask every chosen row that ``journal`` has no answer to, and judge all answers; samples in the tables' order.

    ``ask`` gets up to BATCH questions and returns as many answers. ``progress`` is called with the rows done and the
    rows in all. An error of the model stops the run; what was answered stays in the journal.
    """
    rows = [row for table in tables for row in select(table, benchmark, limit)]
    texts = {id(row): prompt(row, benchmark, instruction) for row in rows}
    answers: dict[int, str] = {}
    waiting = []
    for row in rows:
        entry = journal.get(row, texts[id(row)]) if journal else None
        if entry is None:
            waiting.append(row)
        else:
            answers[id(row)] = entry.response
    progress(len(answers), len(rows))
    for first in range(0, len(waiting), BATCH):
        batch = waiting[first : first + BATCH]
        entries = _ask_rows(batch, [texts[id(row)] for row in batch], ask)
        if journal:
            journal.add(entries)
        answers.update((id(row), entry.response) for row, entry in zip(batch, entries, strict=True))
        progress(len(answers), len(rows))
    return [judge(row, answers[id(row)], benchmark) for row in rows]


def _ask_rows(rows: Sequence[Row], texts: Sequence[str], ask: Ask) -> list[Entry]:
    questions = [
        Question(row.image_bytes, text, row.language, f"{row.language} row {row.index} (line {row.line})")
        for row, text in zip(rows, texts, strict=True)
    ]
    try:
        responses = [each if isinstance(each, Response) else Response(each) for each in ask(questions)]
    except ParrotError as error:
        asked = f"asking {questions[0].name} to {questions[-1].name}"
        raise type(error)(f"{asked}: {error}; the answers before these are kept") from error
    if len(responses) != len(questions):
        raise ParrotError(
            f"the model gave {len(responses)} answers to {len(questions)} questions; expected one for each"
        )
    return [
        Entry(row.language, row.index, fingerprint(row, text), response.text, response.finish, response.routing)
        for row, text, response in zip(rows, texts, responses, strict=True)
    ]
