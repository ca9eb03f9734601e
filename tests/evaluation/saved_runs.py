"""Runs as ``parrot-eval`` leaves them, of answers made up here."""

from collections.abc import Callable, Sequence
from pathlib import Path

from parrot_evaluation.benchmarks import find_benchmark
from parrot_evaluation.journal import Journal
from parrot_evaluation.measure import write_report
from parrot_evaluation.report import build
from parrot_evaluation.runner import Question, Response, evaluate
from parrot_evaluation.scoring import Sample
from parrot_evaluation.tsv import Table, language_of, read_tsv


def row_of(question: Question) -> str:
    """The index of the row a question comes from."""
    return question.name.split()[2]


def _language(path: Path) -> str:
    """That in the file's name; a file without one is English."""
    return language_of(path) if "_" in path.stem else "en"


def save_run(
    folder: Path,
    files: Sequence[Path],
    answer: Callable[[Question], str | Response],
    *,
    benchmark: str = "nano",
    model: str = "tiny fp16",
    limit: int | None = None,
    instruction: str = "own",
) -> tuple[list[Table], list[Sample]]:
    """``folder`` as a finished run over ``files`` whose model answers ``answer``; the tables and samples of it."""
    chosen = find_benchmark(benchmark)
    tables = [read_tsv(path, language=_language(path), form=chosen.form) for path in files]

    def ask(questions: Sequence[Question]) -> list[str | Response]:
        return [answer(question) for question in questions]

    with Journal(folder / "answers.jsonl") as journal:
        samples = evaluate(chosen, tables, ask, journal=journal, limit=limit, instruction=instruction)
    settings = {"instruction": instruction, "limit": limit, "max_new_tokens": 8, "model_fingerprint": "0" * 64}
    write_report(folder, build(chosen, tables, samples, model=model, settings=settings), samples)
    return tables, samples
