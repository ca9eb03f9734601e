"""The study's figures: what every variant got right, and how two of them differ, from whatever results are there.

Two variants are compared seed by seed (the same pictures, the same stage 1, the same order of the data as far as the
data are the same): the mean of the differences and Student's 95 % interval of it. What is claimed holds where that
interval lies above zero, does not where it lies below, and cannot be told in between, or from one seed.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from parrot_benchmarks.paper.study import SEEDS, Study, check_recipe
from parrot_benchmarks.paper.variants import VARIANTS, Claim, Comparison
from parrot_evaluation.paper_tables import paper_table
from parrot_evaluation.scoring import wilson
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES

# A Yes/No pair counts as one question, of which both have to be right.
RIGHT = ("choice", "pairs", "open")
KINDS = {
    "four-option": ("choice",),
    "Yes/No pairs": ("pairs",),
    "open, exact": ("open",),
    "language asked": ("language",),
}
# Student's t, 97.5 %, by degrees of freedom: one for each number of seeds from two to SEEDS.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
HOLDS, NOT, OPEN = "holds", "does not hold", "cannot be told"

Results = Mapping[str, Mapping[int, dict]]
"""By variant and seed."""


def results_of(study: Study) -> Results:
    """All results in the study's folder whose variant is known.

    Raises InputError for one of another recipe under a variant's name, and for a seed that no study has.
    """
    found: dict[str, dict[int, dict]] = {}
    for path in sorted((study.folder / "results").glob("*.json")):
        result = json.loads(path.read_text("utf-8"))
        if (variant := VARIANTS.get(result["variant"])) is None:
            continue
        check_recipe(path, result, variant)
        if not 1 <= result["seed"] <= SEEDS:
            raise InputError(f"{path}: has seed {result['seed']}; expected 1 to {SEEDS}, remove it")
        found.setdefault(variant.name, {})[result["seed"]] = result
    return found


def figures(study: Study) -> str:
    """What the report stands on, as JSON of a line per result: the study, and its results without their categories."""
    results = [
        json.dumps(result | {"cells": [cell for cell in result["cells"] if cell["level"] == "all"]})
        for by_seed in results_of(study).values()
        for _, result in sorted(by_seed.items())
    ]
    return f'{{"study": {json.dumps(study.settled)},\n"results": [\n' + ",\n".join(results) + "\n]}\n"


def share(result: Mapping, languages: Iterable[str], measures: Sequence[str] = RIGHT) -> tuple[float, int]:
    """Per cent right (nan where nothing was asked), and of how many, over ``languages`` and ``measures`` together."""
    right, total = _count(result, languages, measures)
    return (100 * right / total if total else math.nan), total


def _count(result: Mapping, languages: Iterable[str], measures: Sequence[str]) -> tuple[int, int]:
    cells = [
        cell
        for cell in result["cells"]
        if cell["level"] == "all" and cell["language"] in languages and cell["measure"] in measures
    ]
    return sum(cell["right"] for cell in cells), sum(cell["total"] for cell in cells)


def guesses(by_seed: Mapping[int, dict]) -> bool:
    """Whether the 95 % interval of the share of four-option answers that are right reaches down to one of four.

    Student's over the seeds, as all intervals here; of a single seed Wilson's, over its answers.
    """
    counts = [_count(result, CODES, KINDS["four-option"]) for result in by_seed.values()]
    counts = [(right, total) for right, total in counts if total]
    if len(counts) == 1:
        return wilson(*counts[0])[0] <= 0.25
    interval = student([right / total for right, total in counts])
    return interval is not None and interval[0] <= 0.25


def student(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of ``values``; None of fewer than two."""
    count = len(values)
    if count < 2:
        return None
    mean, half = statistics.fmean(values), _STUDENT[count - 2] * statistics.stdev(values) / math.sqrt(count)
    return mean - half, mean + half


@dataclass(frozen=True)
class Difference:
    """Differences by seed, in points; those of seeds in which something was asked.

    guessed: at the four options, which count here, neither side is better than guessing.
    """

    points: tuple[float, ...]
    guessed: bool = False

    @property
    def mean(self) -> float:
        return statistics.fmean(self.points)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % interval of the mean; None of a single seed."""
        return student(self.points)

    @property
    def verdict(self) -> str:
        """What can be said; nothing where most of what is compared are guesses."""
        if self.guessed or self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return OPEN
        return HOLDS if self.interval[0] > 0 else NOT


def difference(results: Results, comparison: Comparison) -> Difference | None:
    """Over the seeds that both variants have; None where there are none."""
    better, worse = (results.get(name, {}) for name in (comparison.better, comparison.worse))
    seeds = sorted(better.keys() & worse.keys())
    measures = KINDS[comparison.kind] if comparison.kind else RIGHT
    pairs = ((share(each[seed], comparison.languages, measures)[0] for each in (better, worse)) for seed in seeds)
    points = (first - second for first, second in pairs)
    if not seeds:
        return None
    guessed = "choice" in measures and all(guesses({seed: each[seed] for seed in seeds}) for each in (better, worse))
    return Difference(tuple(each for each in points if not math.isnan(each)), guessed)


def published(claim: Claim, variant: str) -> list[dict[str, str]]:
    """The paper's rows beside ``variant``: of each the first of its name, MMMB's where a table has both."""
    found = []
    for named in claim.paper.get(variant, ()):
        number, _, method = named.partition(" ")
        rows = [row for row in paper_table(int(number)).rows if row["method"] == method]
        found.append(max(rows, key=lambda row: row["benchmark"] == "MMMB"))
    return found


def published_pair(claim: Claim, comparison: Comparison) -> tuple[dict[str, str], dict[str, str]] | None:
    """The paper's rows of both variants, of one benchmark and, where it has such, of one table."""
    sides = [published(claim, name) for name in (comparison.better, comparison.worse)]
    pairs = [(one, other) for one in sides[0] for other in sides[1] if one["benchmark"] == other["benchmark"]]
    return max(pairs, key=lambda pair: pair[0]["table"] == pair[1]["table"], default=None)
