"""The result of a run as data: what was asked of which model over which files, and every number."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_evaluation.benchmarks import Benchmark
from parrot_evaluation.composite import Score, mme_scores
from parrot_evaluation.published import compare
from parrot_evaluation.scoring import Cell, Sample, Spread, cells, spreads
from parrot_evaluation.text import printable
from parrot_evaluation.tsv import Table

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Report:
    """Everything a table or a plot needs. ``cells`` are in the order language, group, measure; ``scores`` are the
    figures that are more than a share of rows, where the benchmark has some."""

    benchmark: Benchmark
    model: str
    settings: dict[str, Any]
    data: dict[str, dict[str, Any]]
    cells: list[Cell]
    spreads: dict[str, Spread]
    disagreements: list[Sample]
    scores: list[Score] = field(default_factory=list)

    @property
    def languages(self) -> list[str]:
        return list(self.data)

    def find(self, measure: str, language: str, level: str = "all", group: str = "") -> Cell | None:
        """The cell of that name, or None where there is nothing to count."""
        wanted = (measure, language, level, group)
        return next((c for c in self.cells if (c.measure, c.language, c.level, c.group) == wanted), None)

    def groups(self, level: str) -> list[str]:
        """The names of the categories, or of the l2-categories, in the files' order."""
        return list(dict.fromkeys(cell.group for cell in self.cells if cell.level == level))


def build(
    benchmark: Benchmark,
    tables: Sequence[Table],
    samples: Sequence[Sample],
    *,
    model: str,
    settings: dict[str, Any],
    scores: Sequence[Score] | None = None,
) -> Report:
    """Count ``samples``; ``settings`` say how they were asked, ``scores`` what a judge made of them."""
    data = {
        table.language: {
            "file": table.path.name,
            "sha256": table.sha256,
            "md5": table.md5,
            "published": compare(table.path.name, table.md5),
            "rows": len(table.rows),
            "asked": sum(sample.row.language == table.language for sample in samples),
            "without_image": table.without_image,
            "unanswerable": sum(each.row.unanswerable for each in samples if each.row.language == table.language),
        }
        for table in tables
    }
    found = cells(benchmark, samples)
    disagreements = [s for s in samples if s.row.kind != "open" and s.kit != s.extraction.letter]
    if benchmark.composite == "mme":
        scores = mme_scores(found)
    # A folder's name, and with it a model's, need not be UTF-8: nothing that was asked is lost to it.
    return Report(benchmark, printable(model), settings, data, found, spreads(found), disagreements, list(scores or ()))


def conditions(settings: Mapping[str, Any], data: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What of a run is not as it is where nothing is said, so that its figures are not read as others'."""
    judge, instruction = settings.get("judge"), settings.get("instruction", "own")
    changed = [each["file"] for each in data.values() if (each.get("published") or "").startswith("differs")]
    some = settings.get("limit") and any(each["asked"] < each["rows"] for each in data.values())
    said = (
        instruction != "own" and f"asked with the instruction {instruction}",
        some and f"about {settings['limit']:,} questions of each language, not all",
        settings.get("refused") and f"{settings['refused']:,} refused or impossible to ask, counted as wrong",
        judge and f"judged by {judge['model']}{', in both orders' if judge['both_orders'] else ''}",
        changed and f"{', '.join(changed)}: not as published",
    )
    return [each for each in said if each]


def to_data(report: Report) -> dict[str, Any]:
    """The report as plain data for JSON; shares and intervals in per cent."""
    benchmark = report.benchmark
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": benchmark.name,
        "licence": benchmark.licence,
        "model": report.model,
        "settings": report.settings,
        "data": report.data,
        "measures": {
            measure.name: {"explanation": measure.explanation, "unit": measure.unit, "judge": measure.judge}
            for measure in benchmark.measures
        },
        "cells": [
            {**dataclasses.asdict(cell), "value": cell.value, "interval_95": cell.interval} for cell in report.cells
        ],
        "scores": [dataclasses.asdict(score) for score in report.scores],
        "spread": {name: dataclasses.asdict(spread) for name, spread in report.spreads.items()},
        "disagreements": len(report.disagreements),
    }


def sample_data(sample: Sample) -> dict[str, Any]:
    """One judged sample as plain data for a line of JSON."""
    row = sample.row
    return {
        "language": row.language,
        "index": row.index,
        "kind": row.kind,
        "category": row.category,
        "l2_category": row.l2_category,
        "image_id": row.image_id,
        "image_path": row.image_path,
        "answer": row.answer,
        "truth": {letter: said for said, letter in (row.yes_no or {}).items()}.get(row.answer),
        "response": sample.response,
        "letter": sample.extraction.letter,
        "rule": sample.extraction.rule,
        "right": sample.right,
        "kit_letter": sample.kit,
        "kit_right": sample.kit_right if row.kind != "open" else None,
        "in_language": sample.in_language,
        "sample": sample.asked,
        "routing": sample.routing,
    }
