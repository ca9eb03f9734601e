"""A trained model answers nano's held-out questions, in torch and float32; `parrot-eval` judges what is right.

Torch and not a bundle, because some of the study's models have no exported form; tests/export holds the two to account.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parrot_benchmarks.paper.dictionary import Dictionary
from parrot_benchmarks.paper.variants import Variant
from parrot_evaluation.benchmarks import Benchmark, find_benchmark
from parrot_evaluation.journal import Journal
from parrot_evaluation.measure import read_tables
from parrot_evaluation.prompts import prompt
from parrot_evaluation.runner import Ask, Question, evaluate
from parrot_evaluation.scoring import cells
from parrot_evaluation.tsv import Table
from parrot_runtime.languages import CODES


def measured(
    variant: Variant, ask: Ask, seed: int, *, data: Path, questions: int, journal: Path
) -> list[dict[str, Any]]:
    """Right and asked by measure, language and category; ``journal`` keeps the answers of a run that is cut."""
    benchmark = find_benchmark("nano")
    tables = read_tables(benchmark, data, CODES)
    if variant.dictionary is not None:
        ask = translating(ask, benchmark, tables, variant.dictionary, seed)
    with Journal(journal) as kept:
        samples = evaluate(benchmark, tables, ask, journal=kept, limit=questions)
    return [vars(cell) for cell in cells(benchmark, samples) if not cell.measure.endswith("_kit")]


def translating(ask: Ask, benchmark: Benchmark, tables: Sequence[Table], share: float, seed: int) -> Ask:
    """``ask`` in English, whatever the language of a question, by dictionaries with ``share`` at fault."""
    dictionaries = {code: Dictionary(code, share, seed) for code in CODES if code != "en"}
    english = {row.index: row for table in tables if table.language == "en" for row in table.rows}
    # A few questions differ in English alone (is the flower, are the flowers); one of the two then stands for both.
    rows = {
        (row.language, prompt(row, benchmark)): english[row.index]
        for table in tables
        if table.language in dictionaries
        for row in table.rows
    }

    def asked(question: Question) -> str:
        if question.language == "en":
            return question.text
        row = rows[question.language, question.text]
        return prompt(dictionaries[question.language].question(row), benchmark)

    def answered(question: Question, answer: str) -> str:
        row = rows.get((question.language, question.text))
        return answer if row is None or row.options else dictionaries[question.language].answer(answer)

    def ask_in_english(questions: Sequence[Question]) -> list[str]:
        put = [Question(each.image, asked(each), "en", each.name) for each in questions]
        return [answered(each, str(answer)) for each, answer in zip(questions, ask(put), strict=True)]

    return ask_in_english


def open_checkpoint(folder: Path, *, max_new_tokens: int) -> Ask:
    """The finished run in ``folder``, answering greedily; every picture is seen by the encoder once while it lasts."""
    import torch
    from transformers import GenerationConfig

    from parrot_train.checkpoint import load_checkpoint
    from parrot_train.model.processing import ParrotProcessor

    model, processor = load_checkpoint(folder), ParrotProcessor.from_pretrained(folder)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )

    @torch.inference_mode()
    def ask(questions: Sequence[Question]) -> list[str]:
        inputs = processor([each.image for each in questions], [each.text for each in questions])
        tokens = model.generate(**inputs, generation_config=settings)
        return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :])

    return ask
