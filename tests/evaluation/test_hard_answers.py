"""Hard answers with VLMEvalKit's verdict and the rule that gives it, beside the multilingual extraction's.

``hard_answers.json`` was worked out by hand from the kit's published rules: ``can_infer`` for letters and texts,
``YOrN_Extraction`` for MME. Each row goes through a file in the kit's format and the whole of scoring.
"""

import json
from itertools import groupby
from pathlib import Path

import pytest
from tsv_files import COLUMNS

from parrot_evaluation import tables
from parrot_evaluation.benchmarks import find_benchmark
from parrot_evaluation.report import build
from parrot_evaluation.runner import evaluate
from parrot_evaluation.tsv import read_tsv

ROWS = json.loads(Path(__file__).with_name("hard_answers.json").read_text("utf-8"))
FILES = {key: list(rows) for key, rows in groupby(ROWS, key=lambda row: (row["benchmark"], row["language"]))}


def measured(make_tsv, name: str, language: str):
    """The table's rows of one benchmark and language, written, read, answered as the table says, and scored."""
    benchmark, rows = find_benchmark(name), FILES[name, language]
    path = make_tsv(
        f"x_{language}.tsv", [{**(r["options"] or {}), "answer": r["truth"]} for r in rows], [*COLUMNS, "E"]
    )
    read = read_tsv(path, form=benchmark.form, as_published=True)
    answers = iter([row["answer"] for row in rows])
    samples = evaluate(benchmark, [read], lambda questions: [next(answers) for _ in questions])
    return rows, samples, build(benchmark, [read], samples, model="table", settings={})


@pytest.mark.parametrize(("name", "language"), FILES)
def test_both_verdicts_on_every_hard_answer(make_tsv, name: str, language: str) -> None:
    rows, samples, report = measured(make_tsv, name, language)
    assert [(row["answer"], sample.kit) for row, sample in zip(rows, samples, strict=True)] == [
        (row["answer"], row["kit"]) for row in rows
    ]
    assert [(row["answer"], sample.extraction.letter) for row, sample in zip(rows, samples, strict=True)] == [
        (row["answer"], row["ours"]) for row in rows
    ]
    right = {"": "ours", "_kit": "kit"}
    measure = "accuracy" if name == "MME" else "all"
    for ending, reader in right.items():
        cell = report.find(f"{measure}{ending}", language)
        assert (cell.right, cell.total) == (sum(row[reader] == row["truth"] for row in rows), len(rows))


@pytest.mark.parametrize(("name", "language"), FILES)
def test_the_report_lists_exactly_the_disagreements(make_tsv, name: str, language: str) -> None:
    rows, _, report = measured(make_tsv, name, language)
    apart = [row for row in rows if row["kit"] != row["ours"]]
    assert [sample.response for sample in report.disagreements] == [row["answer"] for row in apart]
    text = tables.disagreements(report)
    ours, kit = (sum(row[reader] == row["truth"] for row in apart) for reader in ("ours", "kit"))
    assert f"differently: {len(apart)}" in text
    if apart:
        assert (
            f"multilingual one alone {ours}, by VLMEvalKit's alone {kit}, by neither {len(apart) - ours - kit}." in text
        )


def test_the_table_covers_what_it_should() -> None:
    assert {row["benchmark"] for row in ROWS} == {"MMStar", "ScienceQA", "RealWorldQA", "SEED-Bench", "MMMB", "MME"}
    assert {row["language"] for row in ROWS} == {"en", "zh", "pt", "ar", "tr", "ru"}
    assert all(row["rule"] for row in ROWS)
    assert sum(map(len, FILES.values())) == len(ROWS)  # the rows of a file stand together
    assert len(ROWS) == len({(row["benchmark"], row["language"], row["answer"], str(row["options"])) for row in ROWS})
