"""The study's report in Markdown, from whatever results are there.

A figure is the mean over seeds ± the standard deviation between them. Two variants are compared seed by seed (the same
pictures, the same stage 1, the same order of the data as far as the data are the same): the mean of the differences and
Student's 95 % interval of it. What is claimed holds where that interval lies above zero, does not where it lies below,
and cannot be told in between, or from one seed.
"""

import json
import math
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from parrot_benchmarks.paper.study import QUESTIONS, SCALE, SEEDS, Study, check_recipe, conversations
from parrot_benchmarks.paper.variants import CLAIMS, VARIANTS, Claim, Comparison
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
_WIDTH, _TOO_SMALL = 120, 0.1
_NOTHING = "–"
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


@dataclass(frozen=True)
class Difference:
    """Differences by seed, in points; those of seeds in which something was asked."""

    points: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.points)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % interval of the mean; None of a single seed."""
        count = len(self.points)
        if count < 2:
            return None
        half = _STUDENT[count - 2] * statistics.stdev(self.points) / math.sqrt(count)
        return self.mean - half, self.mean + half

    @property
    def verdict(self) -> str:
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return OPEN
        return HOLDS if self.interval[0] > 0 else NOT


def difference(results: Results, comparison: Comparison) -> Difference | None:
    """Over the seeds that both variants have; None where there are none."""
    better, worse = (results.get(name, {}) for name in (comparison.better, comparison.worse))
    seeds = sorted(better.keys() & worse.keys())
    pairs = ((share(each[seed], comparison.languages)[0] for each in (better, worse)) for seed in seeds)
    points = (first - second for first, second in pairs)
    return Difference(tuple(each for each in points if not math.isnan(each))) if seeds else None


def published(claim: Claim, variant: str) -> dict[str, str] | None:
    """The paper's row beside ``variant``, if it has one: the first of its name, MMMB's where a table has both."""
    if variant not in claim.paper:
        return None
    number, _, method = claim.paper[variant].partition(" ")
    rows = [row for row in paper_table(int(number)).rows if row["method"] == method]
    return max(rows, key=lambda row: row["benchmark"] == "MMMB")


# --- the document ---------------------------------------------------------------------------------------------------
def document(study: Study) -> str:
    """The whole report."""
    results = results_of(study)
    lines = [*_opening(study, results)]
    for claim in CLAIMS:
        lines += _claim(study, claim, results)
    return "\n".join(wrapped for line in lines for wrapped in _wrapped(line)).rstrip() + "\n"


def figures(study: Study) -> str:
    """What the report stands on, as JSON of a line per result: the study, and its results without their categories."""
    results = [
        json.dumps(result | {"cells": [cell for cell in result["cells"] if cell["level"] == "all"]})
        for by_seed in results_of(study).values()
        for _, result in sorted(by_seed.items())
    ]
    return f'{{"study": {json.dumps(study.settled)},\n"results": [\n' + ",\n".join(results) + "\n]}\n"


def _wrapped(line: str) -> list[str]:
    """Prose in lines of 120; a table's rows stay whole."""
    if len(line) <= _WIDTH or line.startswith("|"):
        return [line]
    indent = "  " if line.startswith("- ") else ""
    return textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _opening(study: Study, results: Results) -> Iterator[str]:
    seeds = sorted({seed for by_seed in results.values() for seed in by_seed})
    made = sum(len(by_seed) for by_seed in results.values())
    missing = [name for name in VARIANTS if not set(seeds) <= results.get(name, {}).keys()]
    yield "# The paper's claims in miniature"
    yield ""
    yield (
        "What the paper finds with models of seven billion parameters, asked of nano, which has 3.6 million and a "
        "world drawn by code ([nano.md](nano.md)). None of it confirms or refutes the paper: it says which of its "
        "findings this small recipe shows too. The paper's figures stand beside ours for their direction alone: they "
        "are of other models, other data and other questions."
    )
    yield ""
    yield (
        f"Scale {study.scale:g}: that fraction of nano's captions and conversations, and so of its steps, in every row "
        "of every table. Seeds decide pictures, questions, new weights and the order of the data. All models answer "
        f"the same held-out questions, {min(study.questions, QUESTIONS)} or a few more in each language. A figure is "
        "per cent right, the mean over seeds ± their standard deviation. Two variants are compared seed by seed; a "
        "statement *holds* where Student's 95 % interval of the mean difference lies above zero, *does not hold* where "
        "it lies below, and *cannot be told* otherwise, or from one seed."
    )
    yield ""
    if study.scale < _TOO_SMALL:
        yield (
            "**At so small a scale a model has learnt next to nothing: the figures below show that the study runs from "
            "end to end, and nothing else.**"
        )
        yield ""
    if study.settings:
        yield f"Settings of all trainings: {', '.join(f'`{setting}`' for setting in study.settings)}."
        yield ""
    wanted = len(VARIANTS) * len(seeds)
    yield f"Run so far: {made} of {wanted} results, with seed{'s' * (len(seeds) != 1)} {_numbers(seeds)}." + (
        f" Not run with all of them: {', '.join(missing)}." if missing else ""
    )
    yield ""
    yield (
        f"`make paper` trains all of them, at scale {SCALE:g} and with three seeds, and writes this page anew; nothing "
        "in it is written by hand."
    )
    yield ""


def _numbers(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _claim(study: Study, claim: Claim, results: Results) -> Iterator[str]:
    yield f"## {claim.key}. {claim.title}"
    yield ""
    yield f"The paper: {claim.source}.{f' {claim.note}' if claim.note else ''}"
    yield ""
    rows = [name for name in claim.rows if results.get(name)]
    if not rows:
        yield "Not run."
        yield ""
        return
    yield from _by_language(study, claim, rows, results)
    yield from _by_kind(study, rows, results)
    yield from _verdicts(claim, results)


def _by_language(study: Study, claim: Claim, rows: Sequence[str], results: Results) -> Iterator[str]:
    first = next(iter(results[rows[0]].values()))
    yield (
        f"Right of {share(first, CODES[:1])[1]} questions per language (four options, Yes/No pairs, open answers "
        f"together), scale {study.scale:g}:"
    )
    yield ""
    yield f"| | conversations | seeds | {' | '.join(CODES)} | all |"
    yield f"|---|---:|---:|{'---:|' * (len(CODES) + 1)}"
    for name in rows:
        by_seed = results[name]
        cells = [_mean(by_seed, (code,)) for code in CODES] + [_mean(by_seed, CODES)]
        asked = f"{conversations(study, VARIANTS[name]):,}"
        yield f"| {VARIANTS[name].title} | {asked} | {len(by_seed)} | {' | '.join(cells)} |"
        row = published(claim, name)
        if row is not None:
            paper = " | ".join(f"*{row[code]}*" for code in CODES)
            yield f"| *paper, {row['benchmark']}: {row['method']}* | | | {paper} | |"
    yield ""


def _by_kind(study: Study, rows: Sequence[str], results: Results) -> Iterator[str]:
    every = [result for name in rows for result in results[name].values()]
    most = {kind: max(share(result, CODES, measures)[1] for result in every) for kind, measures in KINDS.items()}
    heads = [f"{kind} ({total:,})" for kind, total in most.items()]
    yield f"By kind, all six languages, of how many (the last: at most), scale {study.scale:g}:"
    yield ""
    yield f"| | {' | '.join(heads)} |"
    yield f"|---|{'---:|' * len(heads)}"
    for name in rows:
        cells = [_mean(results[name], CODES, measures) for measures in KINDS.values()]
        yield f"| {VARIANTS[name].title} | {' | '.join(cells)} |"
    yield ""
    guessing = [VARIANTS[name].title for name in rows if _guesses(results[name])]
    if guessing:
        yield f"**At the four options no better than guessing**, 25 per cent: {'; '.join(guessing)}."
        yield ""


def _guesses(by_seed: Mapping[int, dict]) -> bool:
    """Whether the 95 % interval (Wilson) of the four-option answers of all seeds reaches down to one of four."""
    counts = [_count(result, CODES, KINDS["four-option"]) for result in by_seed.values()]
    right, total = (sum(numbers) for numbers in zip(*counts, strict=True))
    return bool(total) and wilson(right, total)[0] <= 0.25


def _mean(by_seed: Mapping[int, dict], languages: Iterable[str], measures: Sequence[str] = RIGHT) -> str:
    shares = (share(result, languages, measures)[0] for result in by_seed.values())
    values = [each for each in shares if not math.isnan(each)]
    if not values:
        return _NOTHING
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _verdicts(claim: Claim, results: Results) -> Iterator[str]:
    counts: dict[str, int] = {}
    lines = []
    for comparison in claim.comparisons:
        found = difference(results, comparison)
        verdict = "not run" if found is None else found.verdict
        if comparison.statement is not None:
            counts[verdict] = counts.get(verdict, 0) + 1
        lines.append(f"- {_sentence(claim, comparison, found, verdict)}")
    if counts:
        said = "; ".join(
            f"{count} {_PLURAL.get(verdict, verdict) if count > 1 else verdict}" for verdict, count in counts.items()
        )
        yield f"**Of {sum(counts.values())} statement{'s' * (sum(counts.values()) > 1)}: {said}.**"
        yield ""
    yield from lines
    yield ""


_PLURAL = {HOLDS: "hold", NOT: "do not hold"}


def _sentence(claim: Claim, comparison: Comparison, found: Difference | None, verdict: str) -> str:
    names = [VARIANTS[name].title for name in (comparison.better, comparison.worse)]
    spoken = "all languages" if comparison.languages == CODES else " ".join(comparison.languages)
    what = f"*{names[0]}* less *{names[1]}*, {spoken}"
    if comparison.statement is not None:
        what = f"{comparison.statement[:1].upper()}{comparison.statement[1:]} ({what})"
    if found is None:
        return f"{what}: not run."
    if not found.points:
        return f"{what}: {_NOTHING} points (no questions): **{verdict}**."
    interval = found.interval
    around = "one seed" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}, {len(found.points)} seeds"
    text = f"{what}: {found.mean:+.1f} points ({around}"
    rows = [published(claim, name) for name in (comparison.better, comparison.worse)]
    if all(rows) and rows[0]["benchmark"] == rows[1]["benchmark"]:
        paper = statistics.fmean(float(rows[0][code]) - float(rows[1][code]) for code in comparison.languages)
        text += f"; the paper: {paper:+.1f}"
    if comparison.statement is None:
        verdict = {HOLDS: "higher", NOT: "lower"}.get(verdict, verdict)
    return f"{text}): **{verdict}**."
