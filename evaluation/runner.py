"""Asks a model every question of a benchmark, picking up what an earlier run already answered.

The model is whatever :mod:`parrot_evaluation.models` opens, or any function from questions to answers, for a quick look
during training::

    report = evaluate(find_benchmark("nano"), tables, lambda questions: [answer(q) for q in questions], limit=60)
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from parrot_evaluation.benchmarks import Benchmark
from parrot_evaluation.journal import Entry, Journal, fingerprint
from parrot_evaluation.prompts import Instruction, prompt
from parrot_evaluation.scoring import Sample, judge, unit_of
from parrot_evaluation.tsv import Row, Table
from parrot_runtime.errors import ParrotError

# Questions that a plain function gets at a time, which is what a killed run loses at most.
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
    """What it gives back. ``routing`` is the share of each expert.

    ``finish``: ``"stop"``, ``"length"`` where the limit ended it, ``"refused"`` where a server would not answer or the
    question could not be asked, or what else a server calls it.
    """

    text: str
    finish: str | None = None
    routing: tuple[float, ...] | None = None


Ask = Callable[[Sequence[Question]], Sequence[Response | str]]
Progress = Callable[[int, int], None]


class Streaming(Protocol):
    """A model that reads questions as it has room for them."""

    def stream(self, questions: Iterable[Question]) -> Iterator[Response]:
        """The answers in the questions' order, each as soon as it and those before it are there.

        Raises ParrotError that names the question where one cannot be asked, after the answers to all before it.
        """


def select(table: Table, benchmark: Benchmark, limit: int | None) -> list[Row]:
    """``limit`` rows of a table spread over it, or a few more: rows that are scored together stay together.

    The choice depends on the rows' indices only, not on their order, so it is the same in every language, and a larger
    limit adds to a smaller one. None takes all.
    """
    if limit is None:
        return list(table.rows)
    unit = next((measure.unit for measure in benchmark.measures if measure.unit != "row"), "row")
    groups: dict[object, list[Row]] = {}
    for row in table.rows:
        groups.setdefault(unit_of(row, unit), []).append(row)
    chosen: set[str] = set()
    for group in sorted(groups.values(), key=_place):
        if len(chosen) >= limit:
            break
        chosen.update(row.index for row in group)
    return [row for row in table.rows if row.index in chosen]


def _place(group: Sequence[Row]) -> bytes:
    """Where a group comes when some are chosen: by chance, and the same wherever its rows stand."""
    indices = [row.index for row in group]
    first = min(indices, key=lambda index: (int(index) if index.isdecimal() else 0, index))
    return hashlib.sha256(first.encode()).digest()


def evaluate(
    benchmark: Benchmark,
    tables: Sequence[Table],
    ask: Ask | Streaming,
    *,
    journal: Journal | None = None,
    limit: int | None = None,
    instruction: Instruction = "own",
    progress: Progress = lambda done, total: None,
) -> list[Sample]:
    """Ask every chosen row that ``journal`` has no answer to, and judge all answers; samples in the tables' order.

    ``ask`` streams, or gets up to BATCH questions and returns as many answers. Each answer is in the journal, in the
    order of the rows, before the next is taken. ``progress`` is called with the rows done and the rows in all. An error
    of the model stops the run; what was answered stays in the journal.
    """
    rows = [row for table in tables for row in select(table, benchmark, limit)]
    texts = {id(row): prompt(row, benchmark, instruction) for row in rows}
    answers: dict[int, Entry] = {}
    waiting = []
    for row in rows:
        entry = journal.find(row, texts[id(row)]) if journal else None
        if entry is None:
            waiting.append(row)
        else:
            answers[id(row)] = entry
    progress(len(answers), len(rows))
    if waiting:
        stream = ask.stream if hasattr(ask, "stream") else batched(ask)
        with _closed_behind(stream(_question(row, texts[id(row)]) for row in waiting)) as responses:
            for row in waiting:
                response = next(responses, None)
                if response is None:
                    given = sum(id(each) in answers for each in waiting)
                    raise ParrotError(
                        f"the model gave {given} answers to {len(waiting)} questions; expected one for each"
                    )
                answers[id(row)] = entry = _entry(row, texts[id(row)], response)
                if journal:
                    journal.add(entry)
                progress(len(answers), len(rows))
            # Taking one more is also what lets a stream come to its end.
            if next(responses, None) is not None:
                raise ParrotError(f"the model gave more than {len(waiting)} answers; expected one for each question")
    return [_judged(row, answers[id(row)], benchmark) for row in rows]


@contextmanager
def _closed_behind(responses: Iterator[Response]) -> Iterator[Iterator[Response]]:
    """``responses``, which end here whatever happens: what asks for them in the background is not left running."""
    try:
        yield responses
    finally:
        if hasattr(responses, "close"):
            responses.close()


def batched(ask: Ask) -> Callable[[Iterable[Question]], Iterator[Response]]:
    """The stream of a plain function, BATCH questions at a time. Its ParrotErrors are raised with the rows' names."""

    def stream(questions: Iterable[Question]) -> Iterator[Response]:
        left = iter(questions)
        while batch := list(islice(left, BATCH)):
            try:
                responses = [each if isinstance(each, Response) else Response(each) for each in ask(batch)]
            except ParrotError as error:
                asked = f"asking {batch[0].name} to {batch[-1].name}"
                raise type(error)(f"{asked}: {error}; the answers before these are kept") from error
            if len(responses) != len(batch):
                raise ParrotError(
                    f"the model gave {len(responses)} answers to {len(batch)} questions; expected one for each"
                )
            yield from responses

    return stream


def _question(row: Row, text: str) -> Question:
    return Question(row.image_bytes, text, row.language, f"{row.language} row {row.index} (line {row.line})")


def _judged(row: Row, entry: Entry, benchmark: Benchmark) -> Sample:
    return replace(judge(row, entry.response, benchmark), asked=entry.sample, routing=entry.routing)


def _entry(row: Row, text: str, response: Response) -> Entry:
    return Entry(row.language, row.index, fingerprint(row, text), response.text, response.finish, response.routing)
